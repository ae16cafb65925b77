package recorder

import (
	"context"
	"slices"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/suppress"
)

// restartNumbers is by how much the numbers of a call's further recordings leap with
// each restart: what was published before is not known any more.
const restartNumbers = 1000

// Restart is how recordings go on that another process had begun. Every function may
// be nil.
type Restart struct {
	// Recordings returns what is durable of the recordings of a session that were
	// going on, each with an account that ends with its last sample. known: the
	// session has had a recording, so one that is not returned is over.
	Recordings func(s media.Session) (held []*Manifest, known bool)
	// Signals returns the signals of a session in the order in which they were noted.
	Signals func(session string) []suppress.Signal
	// Sink takes the further segments of a recording that Recordings has returned.
	Sink func(ctx context.Context, recording string) (Sink, error)

	// Note keeps a signal for the next process, Forget what was noted of a session
	// that is over. They must not wait.
	Note   func(session string, sig suppress.Signal)
	Forget func(session string)

	// Wait keeps recordings that go on from working until Proceed, so that what
	// waits for them in the kernel comes before they look at the time.
	Wait bool
}

// Proceed ends what Restart.Wait says.
func (r *Recorder) Proceed() { r.proceed.Store(true) }

// waits tells whether nothing must be done for a session yet.
func (r *Recorder) waits(s *session) bool {
	return s.info.Resumed != nil && r.cfg.Restart.Wait && !r.proceed.Load()
}

// note keeps a signal for the next process.
func (s *session) note(sig suppress.Signal) {
	if f := s.rec.cfg.Restart.Note; f != nil {
		f(s.info.ID, sig)
	}
}

// resumption is what a session that goes on begins with.
type resumption struct {
	held    []*Manifest
	known   bool
	signals []suppress.Signal
}

func (r *Recorder) resumption(s media.Session) *resumption {
	if s.Resumed == nil {
		return nil
	}
	x := &resumption{}
	if f := r.cfg.Restart.Recordings; f != nil {
		x.held, x.known = f(s)
	}
	if f := r.cfg.Restart.Signals; f != nil {
		x.signals = f(s.ID)
	}
	return x
}

// adapt makes a plan go on with what a recording was begun as.
func (p *Plan) adapt(m *Manifest) {
	p.SampleRate, p.Format, p.Suppressed, p.Mono = m.SampleRate, m.Format, m.Suppressed, len(m.Channels) == 1
}

// records tells whether the trunk recording goes on, or begins.
func (x *resumption) records(p Plan) bool {
	return slices.ContainsFunc(x.held, func(m *Manifest) bool { return m.Kind == KindTrunk }) || !p.NoTrunk && !x.known && len(x.held) == 0
}

// plan returns the plan that the core is made with.
func (x *resumption) plan(p Plan) Plan {
	p.NoTrunk = p.NoTrunk || x.known || len(x.held) > 0 // begun by resume
	if len(x.held) > 0 {
		p.SampleRate = x.held[0].SampleRate
	}
	return p
}

// resume begins with what another process had: the signals, the recordings, and the
// gap up to where packets come again.
func (c *core) resume(x *resumption, noTrunk bool) {
	at := *c.session.Resumed
	c.plan.NoTrunk = noTrunk
	for kind := range suffixes {
		c.kinds.numbers[kind] = restartNumbers * at.Restarts
	}
	for _, sig := range x.signals {
		c.applied++
		c.state.Apply(sig)
		c.kinds.hides(sig)
		c.remember(sig)
		for _, r := range c.recs {
			r.inherit(sig)
		}
	}
	c.restart = &restartGap{untilNS: c.ns(at.At), first: [2]int64{-1, -1}}
	if len(x.held) == 0 {
		return // the session tells of the answer, and all begins there
	}
	origin := x.held[0].end()
	for _, m := range x.held {
		if e := m.end(); e.Before(origin) {
			origin = e
		}
	}
	c.now, c.answered = max(c.now, c.ns(origin)), at.Answered
	c.start(c.ns(origin))
	for _, m := range x.held {
		c.reopen(m, x.signals)
	}
}

// end is the time of the last durable sample.
func (m *Manifest) end() time.Time {
	return m.Origin.Add(time.Duration(m.RealMS) * time.Millisecond)
}

// reopen goes on with a recording.
func (c *core) reopen(m *Manifest, signals []suppress.Signal) {
	p, ok := c.planOf(m.Kind, m.User)
	if !ok {
		p = c.plan // it was begun, so it goes on
	}
	p.adapt(m)
	side := media.Internal
	if m.Kind != KindTrunk && m.Kind != KindSnippet {
		side = c.sideOf(m.User)
	}
	r := c.newRecording(m.ID, m.Kind, m.User, m.Other, p, side)
	if m.Conversation != "" {
		r.conv = m.Conversation
	}
	r.resumed, r.beforeMS, r.heardMS = true, m.AudioMS, m.AudioMS
	for _, sig := range signals {
		r.inherit(sig)
	}
	c.kinds.opened++
	c.recs = append(c.recs, r)
	c.begin(r, c.realMSOf(c.ns(m.end())))
	for _, sig := range signals {
		if !m.lists(sig) {
			r.noteSignal(sig, suppress.Effect{Reasons: r.timeline.Reasons(0)}, effect{})
		}
	}
}

// lists tells whether a signal is in the account already.
func (m *Manifest) lists(sig suppress.Signal) bool {
	return slices.ContainsFunc(m.Signals, func(s ManifestSignal) bool {
		return s.Event == sig.Event && s.At.Equal(sig.At) && s.Source == sig.Source && s.Seq == sig.Seq && s.User == sig.User && s.Party == sig.Party
	})
}

// restartGap is the time in which the daemon was not there: on each side up to its
// first packet, or to where packets could have come.
type restartGap struct {
	untilNS int64
	first   [2]int64 // ns of the first packet of each side; -1: none came
}

// restartCause marks it.
const restartCause = mix.Cause(201)

// heard notes a packet.
func (g *restartGap) heard(side media.Side, ns int64) {
	if g.first[side] < 0 {
		g.first[side] = ns
	}
}

// mark names the gap in a chunk, and returns false when it lies behind.
func (g *restartGap) mark(c *core, k *chunk) (more bool) {
	for i := range k.marks {
		until := g.untilNS
		if g.first[i] >= 0 {
			until = g.first[i]
		}
		ms := min(max(c.realMSOf(until), k.fromMS), k.toMS)
		more = more || ms == k.toMS
		k.marks[i] = restarted(k.marks[i], k.fromMS*c.perMS, ms*c.perMS, c.perMS)
		clear(k.pcm[i][:(ms-k.fromMS)*c.perMS])
	}
	return more
}

// restarted returns marks with [from, to) as a gap of the restart, and what touches
// it within slack as part of that.
func restarted(marks []mix.Mark, from, to, slack int64) []mix.Mark {
	if to <= from {
		return marks
	}
	out := []mix.Mark{{At: from, N: int(to - from), Cause: restartCause}}
	end := to
	for _, m := range marks {
		last := m.At + int64(m.N)
		if last <= end {
			continue
		}
		m.At, m.N = max(m.At, end), int(last-max(m.At, end))
		if m.At <= end+slack && !m.Concealed && m.N <= int(slack) {
			m.Cause = restartCause
			end = last
		}
		out = append(out, m)
	}
	return out
}

// goOn makes the writer continue what was recorded before, if anything was.
func (w *writer) goOn(x *resumption) {
	for _, m := range x.held {
		if m.ID == w.info.ID {
			w.before, w.last = m, m
			w.realEndMS, w.audioMS = m.RealMS, m.AudioMS
		}
	}
}

// newSink opens the sink.
func (w *writer) newSink(ctx context.Context) (Sink, error) {
	if w.before != nil {
		return w.rec.cfg.Restart.Sink(ctx, w.info.ID)
	}
	if open := w.rec.cfg.OpenSink; open != nil {
		return open(ctx, SinkInfo{Recording: w.info.ID, Prefix: w.info.Prefix, Storage: w.info.Storage, Priority: w.info.Priority})
	}
	return w.rec.cfg.NewSink(ctx, w.info.ID, w.info.Prefix)
}

// stitched returns an account of the whole recording.
func (w *writer) stitched(m *Manifest) *Manifest {
	if w.before == nil || m == nil {
		return m
	}
	return Stitch(w.before, m)
}

func (w *writer) moveSegment(i *SegmentInfo) {
	if b := w.before; b != nil {
		i.N, i.RealMS, i.AudioMS = i.N+lastSegment(b), i.RealMS+b.RealMS, i.AudioMS+b.AudioMS
	}
}

func (w *writer) moveAudio(a Audio) Audio {
	if b := w.before; b != nil {
		a.RealMS, a.AudioMS = a.RealMS+b.RealMS, a.AudioMS+b.AudioMS
	}
	return a
}

func (w *writer) moveFinished(s Segment) Segment {
	if b := w.before; b != nil {
		s.N += lastSegment(b)
		s.RealMS, s.EndRealMS, s.AudioMS = s.RealMS+b.RealMS, s.EndRealMS+b.RealMS, s.AudioMS+b.AudioMS
	}
	return s
}

// withoutAny returns the parts of s in which no gap of these causes is listed.
func (l *gapList) withoutAny(s span, causes ...string) []span {
	parts := []span{s}
	for _, cause := range causes {
		var rest []span
		for _, p := range parts {
			rest = append(rest, l.without(cause, p)...)
		}
		parts = rest
	}
	return parts
}
