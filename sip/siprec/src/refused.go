package src

import (
	"errors"
	"net/netip"
	"time"
)

const (
	refusedFor = 2 * time.Second // a host that refuses audio for so long hears nothing
	sendTries  = 4               // of a packet in whose place the system told of others
	refusedGap = 5 * time.Second // beyond which a refusal has nothing to do with the one before: systems send one a second
)

var errRefused = errors.New("its host refuses the audio")

// refusing is since when the host of a server says that nobody takes the audio.
type refusing struct{ since, last time.Time }

// take takes what a host says; true: it has said so for long.
func (r *refusing) take(now time.Time) bool {
	if r.since.IsZero() || now.Sub(r.last) > refusedGap {
		r.since = now
	}
	r.last = now
	return r.long()
}

func (r *refusing) long() bool { return r.last.Sub(r.since) >= refusedFor }

// refused takes what a host says of audio that went there. That nobody reads reports
// of senders is no fault.
func (f *Fork) refused(to netip.AddrPort, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := &f.out
	if o.codec != nil && (o.to[0].rtp == to || o.to[1].rtp == to) && o.refusing.take(now) {
		f.put(event{news: true})
	}
}

// unheard tells whether the host of the server has refused audio for long.
func (f *Fork) unheard() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.refusing.long()
}

// refused gives it to all forks whose audio goes there.
func (c *Client) refused(to netip.AddrPort) {
	c.mu.Lock()
	forks := make([]*Fork, 0, len(c.forks))
	for _, f := range c.forks {
		forks = append(forks, f)
	}
	c.mu.Unlock()
	now := time.Now()
	for _, f := range forks {
		f.refused(to, now)
	}
}

// deaf gives a server up whose host refuses audio.
func (l *leg) deaf(now time.Time) {
	l.f.c.counters.Unreachable.Add(1)
	l.hangUp(now)
	l.bye = nil
	l.failed(errRefused, now)
}
