package recorder

import (
	"slices"
	"time"

	"github.com/trunktap/trunktap/media"
)

// Copy is what other recorders were sent of a recording (fork_to): one copy, whose
// servers take each other's place. Sent means that it left; UDP does not say what arrives.
type Copy struct {
	Servers  []string   `json:"servers"`            // in the order in which they are tried
	SentMS   [2]int64   `json:"sent_ms"`            // of the external and the internal side
	UnsentMS [2]int64   `json:"unsent_ms"`          // of what was to be sent
	Spans    []CopySpan `json:"spans"`              // in order
	Unlisted int        `json:"unlisted,omitempty"` // spans beyond those
	// ThroughMS is up to where that is all there is to say: what comes behind it waits,
	// or nobody knows. In a recording that is over it is the end, but where the daemon
	// died before it could say so.
	ThroughMS int64 `json:"through_ms"`
}

// CopySpan is a stretch of one side with what became of it. Windows in which nothing
// was to be sent do not end it.
type CopySpan struct {
	Side      string `json:"side"` // external | internal
	RealMS    int64  `json:"real_ms"`
	EndRealMS int64  `json:"end_real_ms"`
	Server    string `json:"server,omitempty"` // that it was sent to
	Unsent    string `json:"unsent,omitempty"` // why it was not
}

// Why a span was not sent, beside what a Monitor says.
const (
	CopyFault   = "fault"   // the copy failed, and the recording went on without it
	CopyUnknown = "unknown" // the daemon died before it could say
)

// Copier is a Monitor that accounts for what it passed on. Its methods may be called
// by anyone once End was called.
type Copier interface {
	Monitor
	// Copies are the accounts; ThroughMS is negative where nothing waits.
	Copies() []Copy
	// Changes is another number whenever a span was begun.
	Changes() uint64
	// Settled says whether the accounts are final.
	Settled() bool
}

const (
	copyWait     = 4 * time.Second       // a recording that is over waits for the accounts of its copies,
	copyEvery    = 50 * time.Millisecond // looked at so often
	copySpansMax = 512
)

// copies are the accounts up to a position. Those of a monitor that failed go on as
// what was not sent.
func (l *monitoring) copies(sealedMS int64) (out []Copy) {
	l.ask()
	for _, c := range l.copied {
		if l.m == nil {
			from := c.ThroughMS
			if from < 0 {
				from = l.throughMS
			}
			c.lacks(from, sealedMS, CopyFault)
		}
		c.through(sealedMS, l.m == nil)
		out = append(out, c)
	}
	if l.m != nil {
		l.throughMS = sealedMS
	}
	return out
}

// through says up to where an account goes that ends at a position; all: nothing waits.
func (c *Copy) through(endMS int64, all bool) {
	if c.ThroughMS < 0 || all {
		c.ThroughMS = endMS
	}
}

// lacks adds a span of both sides that was not sent, or that nobody knows to have been;
// windows in it count as well.
func (c *Copy) lacks(fromMS, toMS int64, why string) {
	if fromMS >= toMS {
		return
	}
	c.Spans = slices.Clone(c.Spans)
	for _, side := range [2]media.Side{media.External, media.Internal} {
		c.Spans = append(c.Spans, CopySpan{Side: side.String(), RealMS: fromMS, EndRealMS: toMS, Unsent: why})
		c.UnsentMS[side] += toMS - fromMS
	}
}

// ask brings the accounts up to date, as far as the monitor has any.
func (l *monitoring) ask() {
	if c, ok := l.m.(Copier); ok {
		defer l.lost(l.rec)
		l.copied = c.Copies()
	}
}

// copies are the accounts of the copies of the recording.
func (r *recording) copies() []Copy {
	if r.monitor == nil {
		return nil
	}
	return r.monitor.copies(r.sealedMS)
}

// lateCopies are accounts that become final after the recording's end.
type lateCopies struct {
	from  Copier
	endMS int64
}

// late are those of the recording's copies; nil: there are none.
func (r *recording) late() *lateCopies {
	if r.monitor != nil {
		if c, ok := r.monitor.m.(Copier); ok {
			return &lateCopies{c, r.sealedMS}
		}
	}
	return nil
}

// look returns the accounts; ok is false where the copier fails.
func (l *lateCopies) look() (out []Copy, settled, ok bool) {
	defer func() {
		if recover() != nil {
			out, settled, ok = nil, true, false
		}
	}()
	out, settled = l.from.Copies(), l.from.Settled()
	for i := range out {
		out[i].through(l.endMS, false)
	}
	return out, settled, true
}

// waitsForCopies tells whether an account is not to be published yet, as what still
// waits to be sent is not told of.
func (w *writer) waitsForCopies(o *op) bool {
	if o.kind != opPublish || o.late == nil || w.rec.cfg.Synchronous {
		return false
	}
	now := time.Now()
	if w.copiesBy.IsZero() {
		w.copiesBy = now.Add(copyWait)
	}
	if _, settled, _ := o.late.look(); settled || now.After(w.copiesBy) {
		return false
	}
	w.mu.Lock()
	w.state = writerParked
	w.mu.Unlock()
	w.rec.scribes.later(w, copyEvery)
	return true
}

// settled is an account with what became of the copies since.
func (w *writer) settled(m *Manifest, late *lateCopies) *Manifest {
	if late == nil {
		return m
	}
	copies, _, ok := late.look()
	if !ok {
		return m
	}
	c := *m
	c.Copies = copies
	if w.before != nil {
		c.Copies = stitchCopies(w.before, copies)
	}
	return &c
}

// stitchCopies joins the accounts of both. What was behind the end of the first when
// the daemon died nobody knows.
func stitchCopies(before *Manifest, after []Copy) []Copy {
	out := slices.Clone(before.Copies)
	for _, a := range after {
		a.Spans, a.ThroughMS = slices.Clone(a.Spans), a.ThroughMS+before.RealMS
		for i := range a.Spans {
			a.Spans[i].RealMS += before.RealMS
			a.Spans[i].EndRealMS += before.RealMS
		}
		i := slices.IndexFunc(before.Copies, func(c Copy) bool { return slices.Equal(c.Servers, a.Servers) })
		if i < 0 {
			out = append(out, a)
			continue
		}
		c := &out[i]
		c.lacks(c.ThroughMS, before.RealMS, CopyUnknown)
		c.Spans = slices.Concat(c.Spans, a.Spans)
		for side := range c.SentMS {
			c.SentMS[side] += a.SentMS[side]
			c.UnsentMS[side] += a.UnsentMS[side]
		}
		c.Unlisted += a.Unlisted
		if n := len(c.Spans); n > copySpansMax {
			c.Spans, c.Unlisted = c.Spans[:copySpansMax], c.Unlisted+n-copySpansMax
		}
		c.ThroughMS = a.ThroughMS
	}
	return out
}

// CopyState is what becomes of a copy at present.
type CopyState struct {
	Servers []string  `json:"servers"`
	Server  string    `json:"server,omitempty"` // that has it; empty: none
	Unsent  [2]string `json:"unsent"`           // why the external and the internal side are not sent; empty: they are
}

// tellCopies tells of copies that become partial or whole, or go to another server,
// and has the account written that says so.
func (s *session) tellCopies() {
	c, ok := s.core.monitor.m.(Copier)
	if !ok {
		return
	}
	l := &s.core.monitor
	defer l.lost(s.rec)
	n := c.Changes()
	if n == l.changes {
		return
	}
	l.changes = n
	states := []CopyState{}
	for _, k := range c.Copies() {
		states = append(states, k.state())
	}
	for _, r := range s.core.recs {
		r.account.dirty = r.account.dirty || r.monitor != nil
	}
	s.rec.events.publish(Event{Type: "copy.changed", At: s.rec.eventTime(), Call: s.info.ID, Data: map[string]any{"copies": states}})
}

// state is that of the latest spans.
func (c *Copy) state() CopyState {
	st := CopyState{Servers: c.Servers}
	for _, s := range c.Spans { // the later ones count
		side := media.External
		if s.Side == media.Internal.String() {
			side = media.Internal
		}
		st.Unsent[side] = s.Unsent
		if s.Server != "" {
			st.Server = s.Server
		}
	}
	if st.Unsent[0] != "" && st.Unsent[1] != "" {
		st.Server = ""
	}
	return st
}

// copySums are what the event of a published recording says of its copies.
func copySums(m *Manifest) []map[string]any {
	out := []map[string]any{}
	for _, c := range m.Copies {
		out = append(out, map[string]any{"servers": c.Servers, "sent_ms": c.SentMS, "unsent_ms": c.UnsentMS, "through_ms": c.ThroughMS})
	}
	return out
}
