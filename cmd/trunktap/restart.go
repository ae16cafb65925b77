package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/sip/b2bua"
	"github.com/trunktap/trunktap/sip/journal"
	"github.com/trunktap/trunktap/sip/siprec"
	"github.com/trunktap/trunktap/suppress"
)

// phonesAway is how long phones may take after a restart to find out that their
// connections are gone: that of keep-alives and of pauses between their attempts.
const phonesAway = time.Minute

// restart is what goes on of a process before this one.
type restart struct {
	journal *journal.Journal // nil: calls end with the process
	copies  *keyCopies       // of its key

	// Sessions ask in their own goroutines, and recordings in those that write.
	mu    sync.Mutex // guards all following
	left  map[string]*journal.Call
	forks map[string][]byte          // copies to other recorders, until they are taken
	held  map[string][]*archive.Held // by session, until they are taken
	taken map[string]*archive.Held   // by recording
	ended map[string]b2bua.Ended     // by session: calls that were over
}

// startJournal opens the journal of calls and finds what a process before has left.
func (d *daemon) startJournal(context.Context) error {
	r := &d.restart
	r.held, r.taken, r.ended = map[string][]*archive.Held{}, map[string]*archive.Held{}, map[string]b2bua.Ended{}
	if d.cfg.Restart.Calls != "keep" || !d.cfg.Relays() && len(d.cfg.SIPREC.Listen) == 0 {
		return nil
	}
	keys, err := newJournalKeys(d.archive.Sealer(), d.cfg.Restart.KeyDir, d.cfg.Restart.Journal)
	if err != nil {
		d.log.Warn("the journal of calls needs the keys of recordings to be opened", "error", err)
	}
	j, left, err := journal.Open(d.cfg.Restart.Journal, keys, d.log)
	if err != nil {
		d.log.Error("calls would not survive a restart", "error", err) // no reason to take none
		return nil
	}
	keys.forget(runOf(j.Wrapped()))
	sealed := keys.sealLater(j, d.log)
	r.journal, r.copies, r.left, r.forks = j, keys.copies, left.Calls, splitForks(left.Calls)
	d.closers = append(d.closers, func() error {
		sealed()
		err := j.Close()
		keys.forget("") // who stops has ended its calls
		return err
	})
	if away := time.Since(left.Alive); len(r.left) > 0 && away > d.cfg.Restart.DowntimeMax {
		d.log.Warn("the calls of before are given up: the daemon was away for too long", "calls", len(r.left), "away", away.Round(time.Second))
		for session := range r.left {
			j.Drop(session)
		}
		r.left = nil
	}
	return nil
}

// recorderRestart is how the recorder goes on.
func (d *daemon) recorderRestart() recorder.Restart {
	r := &d.restart
	if r.journal == nil {
		return recorder.Restart{}
	}
	return recorder.Restart{
		Wait: true, Recordings: d.recordingsOf, Signals: d.signalsOf, Sink: d.continued, Forget: r.forget,
		Note: func(session string, sig suppress.Signal) {
			if note, err := json.Marshal(sig); err == nil {
				r.journal.Add(session, note)
			}
		},
	}
}

// callJournal is where calls, recording sessions and copies have their states: nil when
// they have none.
func (d *daemon) callJournal() journal.Store {
	if d.restart.journal == nil {
		return nil
	}
	return d.restart.journal
}

// recordingsOf gives the recorder what was held of a session.
func (d *daemon) recordingsOf(s media.Session) (list []*recorder.Manifest, known bool) {
	list = d.restart.take(s.ID)
	if len(list) == 0 && d.archive.Stuck(s.ID) {
		d.log.Error("a call goes on after the restart and is not recorded any more: what was recorded of it cannot be opened; recovery tells why", "recording", s.ID)
	}
	return list, len(list) > 0 || d.archive.Known(context.Background(), s)
}

func (r *restart) take(session string) (list []*recorder.Manifest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.held[session] {
		list = append(list, h.Manifest)
		r.taken[h.ID] = h
	}
	delete(r.held, session)
	return list
}

// forget drops the notes of a session that is over, and with them the state of its
// call, which is written anew. That of a call that was over before is not: it waits for
// repetitions of its BYE, and is what tells the next process of it.
func (r *restart) forget(session string) {
	r.mu.Lock()
	_, ended := r.ended[session]
	r.mu.Unlock()
	if !ended {
		r.journal.Drop(session)
	}
}

func (d *daemon) signalsOf(session string) (list []suppress.Signal) {
	r := &d.restart
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.left[session]
	if c == nil {
		return nil
	}
	for _, n := range c.Notes {
		var sig suppress.Signal
		if json.Unmarshal(n, &sig) == nil {
			list = append(list, sig)
		}
	}
	return list
}

func (d *daemon) continued(ctx context.Context, recording string) (recorder.Sink, error) {
	r := &d.restart
	r.mu.Lock()
	h := r.taken[recording]
	r.mu.Unlock()
	if h == nil {
		return nil, fmt.Errorf("recording %s: %w", recording, recorder.ErrNotFound)
	}
	return d.archive.Continue(ctx, h)
}

// rest returns what no session took, and forgets what only the beginning needs.
func (r *restart) rest() (list []*archive.Held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, held := range r.held {
		list = append(list, held...)
	}
	clear(r.held)
	r.left = nil
	return list
}

// states returns what is left of calls, and of recording sessions.
func (r *restart) states() (calls, sessions map[string][]byte) {
	calls, sessions = map[string][]byte{}, map[string][]byte{}
	for id, c := range r.left {
		switch {
		case c.State == nil:
			r.journal.Drop(id) // it was never answered
		case siprec.Journalled(c.State):
			sessions[id] = c.State
		default:
			calls[id] = c.State
		}
	}
	return calls, sessions
}

// restoreSIPREC goes on with recording sessions; their requests are taken later.
func (d *daemon) restoreSIPREC(sessions map[string][]byte) *siprec.Restored {
	if d.siprec != nil {
		return d.siprec.Restore(sessions)
	}
	for id := range sessions {
		d.restart.journal.Drop(id)
	}
	return &siprec.Restored{Lost: len(sessions)}
}

// resumeCalls goes on with the calls of the process before: first with their media,
// then with their recordings. What a crash left of all others is published later.
func (d *daemon) resumeCalls(ctx context.Context) error {
	r, began := &d.restart, time.Now()
	calls, sessions := r.states()
	if len(calls)+len(sessions) > 0 {
		restored, recorded := d.b2bua.Restore(calls), d.restoreSIPREC(sessions)
		media := time.Since(began)
		d.hold(ctx, slices.Concat(restored.Sessions, recorded.Sessions))
		restored.Observe()
		recorded.Observe()
		r.endedCalls(restored.Ended)
		d.log.Info("calls go on after the restart", "calls", len(restored.Sessions), "lost", restored.Lost, "not_answered", d.b2bua.Counters().CallsCut.Load(),
			"recording_sessions", len(recorded.Sessions), "recording_sessions_lost", recorded.Lost, "media_after", media)
	}
	if flows := d.relay.Restored(); flows > 0 {
		d.log.Info("media went on in the kernel meanwhile", "flows", flows)
	}
	d.dismissForks()
	d.rec.Proceed()
	for _, h := range r.rest() { // their calls go on unrecorded
		d.archive.Abandon(h)
	}
	return nil
}

// endedCalls notes the calls that were over.
func (r *restart) endedCalls(list []b2bua.Ended) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range list {
		r.ended[e.Session.ID] = e
	}
}

// observeEnded sees to it that calls which ended just before the process died have a
// recording, even where nothing of it has reached the disk: that is a gap then. What has
// was recovered before.
func (d *daemon) observeEnded(ctx context.Context) {
	d.restart.mu.Lock()
	list := slices.Collect(maps.Values(d.restart.ended))
	d.restart.mu.Unlock()
	for _, e := range list {
		if ctx.Err() != nil || d.archive.Known(ctx, e.Session) {
			continue
		}
		tap, err := d.rec.SessionStarted(ctx, e.Session)
		if err != nil {
			d.log.Error("nothing tells of a call that ended when the daemon died", "session", e.Session.ID, "error", err)
			continue
		}
		if tap == nil {
			continue
		}
		tap.Answered(e.Answered)
		tap.Ended(e.Ended, media.CauseCrash)
	}
}

// hold keeps the recordings of calls that go on.
func (d *daemon) hold(ctx context.Context, sessions []string) {
	live := make(map[string]bool, len(sessions))
	for _, s := range sessions {
		live[s] = true
	}
	held, err := d.archive.Hold(ctx, func(session string) bool { return live[session] })
	if err != nil {
		d.log.Error("recordings do not go on after the restart", "error", err)
		return
	}
	r := &d.restart
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range held {
		r.held[h.Session()] = append(r.held[h.Session()], h)
	}
}

// leave ends the process without touching a call: the next one goes on with them.
func (d *daemon) leave() {
	d.log.Info("leaving the calls to the next process", "left", d.live())
	d.notify.stopping("leaving the calls to the next process")
	if d.restart.journal != nil {
		d.restart.journal.Flush()
	}
	os.Exit(exitFine)
}

// restartMetrics tells of the journal.
func restartMetrics(gauge func(name, help string, f func() float64), unsigned func(name, help string, v *atomic.Uint64), r *restart) {
	if r.journal == nil {
		return
	}
	c := &r.journal.Counters
	gauge("journal_calls", "Calls that a process after this one would know of: those that are answered would go on, others be ended.", func() float64 { return float64(c.Calls.Load()) })
	unsigned("journal_refused_total", "Entries of the journal of calls beyond its limits.", &c.Refused)
	unsigned("journal_write_errors_total", "Failed writes of the journal of calls.", &c.WriteErrors)
	gauge("journal_key_in_memory", "1: a copy of the key of the journal of calls is in memory that outlives the process.", func() float64 { return truth(r.copies.memory.Load()) })
	gauge("journal_key_sealed", "1: a copy of the key of the journal of calls is in it, sealed with the keys of recordings. With neither copy no call survives a restart.",
		func() float64 { return truth(r.copies.sealed.Load()) })
}
