package recorder

import (
	"github.com/trunktap/trunktap/suppress"
)

// signalsMax bounds the signals that a manifest lists.
const signalsMax = 512

// signal applies a call-state signal to the recording.
func (r *recording) signal(sig suppress.Signal) suppress.Effect {
	acts := sig
	if sig.Event == suppress.ConsentGranted && r.preroll.on {
		acts.At = r.timeOf(r.origin) // what was held is consented to
	}
	r.applied++
	e := r.timeline.Apply(acts)
	if e.Duplicate {
		return e
	}
	r.account.dirty = true
	r.consented(sig)
	r.follow(sig)
	return e
}

// inherit takes a signal of the time before the recording began.
func (r *recording) inherit(sig suppress.Signal) {
	r.applied++
	r.timeline.Apply(sig)
	r.consented(sig)
	r.follow(sig)
}

// follow keeps what signals say beside windows.
func (r *recording) follow(sig suppress.Signal) {
	r.parties.apply(sig, func() int64 { return r.effectiveMS(sig.At) })
	if !r.begun {
		r.parties.take(0) // who came and went before it is nobody's part
	}
	if sig.Event == suppress.AttrsSet {
		r.setAttrs(sig.Attrs)
	}
}

func (r *recording) setAttrs(attrs map[string]string) {
	if r.attrs == nil {
		r.attrs = make(map[string]string)
	}
	for k, v := range attrs {
		if _, known := r.attrs[k]; !known && len(r.attrs) >= attrsMax || len(k) > attrKeyBytes || len(v) > attrBytesMax {
			r.account.refuse("attrs")
			continue
		}
		r.attrs[k] = v
	}
}

// noteSignal lists a signal in the manifest. Monitoring leaves no trace, and
// coaching one on the coached party's side alone.
func (r *recording) noteSignal(sig suppress.Signal, mine suppress.Effect, e effect) {
	coach := sig.Event == suppress.AgentJoin && sig.Role == suppress.RoleCoach && !r.parties.coaches
	if e.hidden || coach || sig.Event == suppress.CallLinked {
		return
	}
	if len(r.signals) >= signalsMax {
		r.account.refuse("signals")
		return
	}
	r.account.dirty = true
	x := ManifestSignal{
		Event: sig.Event, At: sig.At.UTC().Round(0), Source: sig.Source, Seq: sig.Seq, LateMS: mine.LateMS, MissedMS: mine.MissedMS,
		Reasons: []string{}, Refused: e.refused, Recording: e.recording,
		Flow: sig.Flow, Queue: sig.Queue, User: sig.User, Role: sig.Role, Party: sig.Party, Other: sig.Other,
	}
	for _, reason := range mine.Reasons {
		x.Reasons = append(x.Reasons, string(reason))
	}
	r.signals = append(r.signals, x)
}

func words(reasons []suppress.Reason) []string {
	out := make([]string, 0, len(reasons))
	for _, r := range reasons {
		out = append(out, string(r))
	}
	return out
}
