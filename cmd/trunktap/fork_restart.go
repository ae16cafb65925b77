package main

import (
	"strconv"
	"strings"

	"github.com/trunktap/trunktap/sip/journal"
	"github.com/trunktap/trunktap/sip/siprec/src"
)

// forkPrefix begins the names of copies in the journal of calls; no session's id does.
const forkPrefix = "fork/"

// forkOver ends the names of copies that are being ended.
const forkOver = "/over"

// forkKey names the copy of a call for the k-th group of its servers.
func forkKey(session string, k int) string { return forkPrefix + session + "/" + strconv.Itoa(k) }

// splitForks takes the copies out of what a process before has left.
func splitForks(left map[string]*journal.Call) map[string][]byte {
	forks := map[string][]byte{}
	for key, c := range left {
		if strings.HasPrefix(key, forkPrefix) {
			forks[key] = c.State
			delete(left, key)
		}
	}
	return forks
}

// forkPorts are those of the client in the process before.
func (r *restart) forkPorts() src.Ports {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, state := range r.forks {
		if p := src.PortsOf(state); p != (src.Ports{}) { // all have the same, but for those that are damaged
			return p
		}
	}
	return src.Ports{}
}

// takeFork returns the copy of a name, once.
func (r *restart) takeFork(key string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.forks[key]
	delete(r.forks, key)
	return state
}

// resume goes on with the copies of a call that goes on. What cannot begins anew.
func (c *copier) resume(left *restart) {
	for k, g := range c.plan.groups {
		key := forkKey(c.session.ID, k)
		state := left.takeFork(key)
		if state == nil {
			continue
		}
		f, err := c.client.Resume(key, c.session, g, state)
		if err != nil {
			left.giveBack(key, state)
			continue
		}
		c.list[k] = f
	}
}

// giveBack keeps a copy that does not go on, to be ended.
func (r *restart) giveBack(key string, state []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forks[key] = state
}

// dismissForks ends the copies that no call has taken, so that no recorder keeps a
// session that nobody has.
func (d *daemon) dismissForks() {
	r := &d.restart
	r.mu.Lock()
	forks := r.forks
	r.forks = nil
	r.mu.Unlock()
	client := d.forks.client.Load()
	for key, state := range forks {
		r.journal.Drop(key) // the call may have another one by that name
		if client == nil {
			d.log.Warn("a recorder keeps the copy of a call until it notices: no fork_to is there to end it with", "copy", key)
			continue
		}
		if err := client.Dismiss(strings.TrimSuffix(key, forkOver)+forkOver, state); err != nil {
			d.log.Warn("the copy of a call at another recorder cannot be ended", "copy", key, "error", err)
		}
	}
}
