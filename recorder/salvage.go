package recorder

import (
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// beginning is what a salvaged account needs of a core that failed.
type beginning struct {
	rate             int // Hz; 0: not known yet
	started          bool
	origin, answered time.Time
}

// salvage closes the account of a recording whose pipeline failed: from the
// last audio handed on to the end of the call both channels are a gap.
func (w *writer) salvage(b beginning, end time.Time, cause media.Cause, why string) {
	if !b.started {
		w.discard("the call was not answered")
		return
	}
	m := w.last
	if m == nil {
		m = w.emptyAccount(b)
	}
	w.realEndMS = max(w.realEndMS, realAfter(m, w.audioMS)) // a frame may reach over a window
	c := *m
	c.Call.End, c.Call.EndCause = end.UTC().Round(0), string(cause)
	c.RealMS = max(end.Sub(c.Origin).Milliseconds(), w.realEndMS, m.RealMS)
	c.Gaps = []Gap{}
	for _, g := range m.Gaps {
		if g.RealMS < w.realEndMS {
			g.DurationMS = min(g.DurationMS, w.realEndMS-g.RealMS)
			c.Gaps = append(c.Gaps, g)
		}
	}
	c.AudioMS = w.audioMS
	for _, s := range lostSpans(&c, w.realEndMS) {
		if c.Suppressed == SuppressedSilence {
			c.AudioMS = w.audioMS + s.from - w.realEndMS
		}
		for ch := range c.Channels {
			c.Gaps = append(c.Gaps, Gap{
				Channel: ch, RealMS: s.from, AudioMS: c.AudioMS, DurationMS: s.to - s.from, Cause: GapOverrun, Filled: "silence", Detail: why,
			})
		}
		c.AudioMS += s.to - s.from
	}
	if c.Suppressed == SuppressedSilence {
		c.AudioMS = w.audioMS + c.RealMS - w.realEndMS
	}
	if w.open && w.samples == 0 {
		w.abandon()
	}
	if w.open {
		w.segInfo.DurationMS = w.samples * 1000 / int64(w.rate)
		if n := len(c.Segments); n > 0 && c.Segments[n-1].N == w.segInfo.N {
			c.Segments = c.Segments[:n-1]
		}
		c.Segments = append(append([]Segment{}, c.Segments...), w.segInfo)
		w.finishWith(w.segInfo, &c)
	}
	w.publishWhole(&c)
}

// realAfter is the real time that lies behind so much audio.
func realAfter(m *Manifest, audioMS int64) int64 {
	if m.Suppressed == SuppressedSilence {
		return audioMS
	}
	at, left := int64(0), audioMS
	for _, w := range m.Windows { // in order of start
		if w.Channel != nil || w.EndRealMS <= at {
			continue
		}
		if left <= w.RealMS-at {
			break
		}
		left -= max(0, w.RealMS-at)
		at = w.EndRealMS
	}
	return at + left
}

// lostSpans are the parts of the time from fromMS on that lie in no window.
func lostSpans(m *Manifest, fromMS int64) (out []span) {
	for _, w := range m.Windows { // in order of start
		if w.Channel != nil || w.EndRealMS <= fromMS {
			continue
		}
		if w.RealMS > fromMS {
			out = append(out, span{fromMS, w.RealMS})
		}
		fromMS = w.EndRealMS
	}
	if fromMS < m.RealMS {
		out = append(out, span{fromMS, m.RealMS})
	}
	return out
}

// refuse closes the account of a recording that nobody consented to: it has its
// row, and that says so.
func (w *writer) refuse(b beginning, state consentState, end time.Time, cause media.Cause) {
	if w.info.Kind != KindTrunk || !b.started {
		w.discard("no consent")
		return
	}
	if w.open {
		w.abandon()
	}
	m := *w.emptyAccount(b)
	m.Consent = state.String()
	m.Call.End, m.Call.EndCause = end.UTC().Round(0), string(cause)
	m.RealMS = max(0, end.Sub(m.Origin).Milliseconds())
	m.Windows = []Window{{Reason: string(suppress.ReasonConsent), EndRealMS: m.RealMS, Source: "rules"}}
	w.publishWhole(&m)
}

// emptyAccount is the manifest of a recording of which nothing was written.
func (w *writer) emptyAccount(b beginning) *Manifest {
	m := w.info.head
	m.Origin, m.Call.Answer, m.SampleRate = b.origin, b.answered, b.rate
	if b.rate == RateAuto {
		m.SampleRate = rateNarrow // there is no audio that could have another
	}
	return &m
}
