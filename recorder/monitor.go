package recorder

import (
	"slices"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// Monitor hears what the trunk recording of a call keeps, as it is sealed, for
// those who pass it on. It is called by the owner of the session and must not
// wait; a panic of it costs the call its monitor and nothing else.
type Monitor interface {
	// Raw says whether it wants to hear windows too. It is asked once.
	Raw() bool
	// Audio are both channels from a position on the call's timeline; a channel
	// that is not kept is silent. The samples are valid until it returns.
	Audio(realMS int64, rate int, ch [2][]int16)
	// Suppressed says that nothing is kept at present. Audio is its end.
	Suppressed()
	// Parties are the internal parties heard from now on.
	Parties(names []string)
	// End says that no more will come. It may be called twice.
	End()
}

// monitoring is the monitor of a recording, if it has one.
type monitoring struct {
	rec *Recorder
	m   Monitor
	raw bool

	copied    []Copy // as last told
	throughMS int64  // position of that
	changes   uint64
}

// listen asks for the monitor of a session.
func (r *Recorder) listen(s media.Session, p *Plan) (l monitoring) {
	if r.cfg.Monitor == nil || p.NoTrunk {
		return monitoring{}
	}
	defer l.lost(r)
	if m := r.cfg.Monitor(s); m != nil {
		l = monitoring{rec: r, m: m, raw: m.Raw()}
		l.ask()
	}
	return l
}

// lost is deferred around what a monitor does.
func (l *monitoring) lost(r *Recorder) {
	if fault := recover(); fault != nil {
		m := l.m
		l.m = nil
		if m != nil {
			func() {
				defer func() { _ = recover() }() // nothing is expected of it any more
				m.End()
			}()
		}
		r.stats.MonitorsFailed.Add(1)
		r.cfg.Log.Error("the copy of a call ends: its monitor panicked", "fault", fault)
	}
}

// hear tells what becomes of a span; kept are its samples, after the gate.
func (l *monitoring) hear(sp suppress.Span, rate int, kept [2][]int16, withheld bool) {
	if l.m == nil || l.raw {
		return
	}
	defer l.lost(l.rec)
	if sp.Suppressed || withheld {
		l.m.Suppressed()
		return
	}
	l.m.Audio(sp.FromMS, rate, kept)
}

// hearAll tells a monitor that wants windows too of what has just been sealed,
// [fromMS, toMS): all but what nobody consented to. ch is what came, before the gate.
func (r *recording) hearAll(fromMS, toMS int64, ch [2][]int16) {
	if r.monitor == nil || r.monitor.m == nil || !r.monitor.raw {
		return
	}
	l := r.monitor
	defer l.lost(l.rec)
	atMS := fromMS
	audio := func(untilMS int64) {
		if untilMS <= atMS {
			return
		}
		a, b := (atMS-fromMS)*r.perMS, (untilMS-fromMS)*r.perMS
		l.m.Audio(atMS, r.plan.SampleRate, [2][]int16{ch[0][a:b], ch[1][a:b]})
		atMS = untilMS
	}
	for _, w := range r.unconsented(fromMS, toMS) {
		audio(w.FromMS)
		l.m.Suppressed()
		atMS = max(atMS, w.ToMS)
	}
	audio(toMS)
}

// unconsented are the parts of what has just been sealed that nobody consented to.
func (r *recording) unconsented(fromMS, toMS int64) (out []suppress.Span) {
	if r.refused() {
		return []suppress.Span{{FromMS: fromMS, ToMS: toMS}}
	}
	if !slices.ContainsFunc(r.spans, func(sp suppress.Span) bool { return sp.Suppressed }) {
		return nil
	}
	for _, w := range r.timeline.Windows(toMS) {
		if w.Reason == suppress.ReasonConsent && w.EndRealMS > fromMS {
			out = append(out, suppress.Span{FromMS: max(w.RealMS, fromMS), ToMS: min(w.EndRealMS, toMS)})
		}
	}
	return out
}

func (l *monitoring) parties(names []string) {
	if l.m != nil {
		defer l.lost(l.rec)
		l.m.Parties(names)
	}
}

func (l *monitoring) end() {
	if l.m != nil {
		defer l.lost(l.rec)
		l.m.End()
	}
}
