package recorder

import (
	"cmp"
	"slices"
	"time"

	"github.com/trunktap/trunktap/media/mix"
)

const (
	// maskBefore is how far before its beginning a key is masked: gateways put
	// the head of a tone into the audio before they know it for one.
	maskBefore = 60 * time.Millisecond
	// maskAfter is how far beyond its end.
	maskAfter = 20 * time.Millisecond
	// maskOn is how far beyond what is known of it a key is masked that is still
	// down: until more of it comes, or what a codec makes up of it is over.
	maskOn = concealMaxMS*time.Millisecond + maskAfter
	// eventAheadMax is how far beyond its arrival an event is believed to last.
	eventAheadMax = 500 * time.Millisecond
	// maskLag is what the hold is longer by where keys are masked: the time in
	// which a tone becomes certain, and maskBefore.
	maskLag = 150 * time.Millisecond
	// masksMax bounds the keys of a side that are not sealed yet.
	masksMax = 64
)

// maskedCause marks samples in which a key was silenced; no track gives it.
const maskedCause mix.Cause = 0xff

// masks are the keys of one side that are silenced in the audio, in samples of
// the call's timeline.
type masks struct {
	list        []span // of keys that are up; may overlap
	tone, event span   // of the last of each; empty: none
	key         mix.Key
	ts          int64 // of the event
	union       []span
	marks       []mix.Mark
}

// toneSpan says how far the tone that is heard reaches as far as known.
func (m *masks) toneSpan(s span) { m.tone = s }

// toneOver says that the tone is over.
func (m *masks) toneOver() {
	m.add(m.tone)
	m.tone = span{}
}

// eventSpan says how far the event of a timestamp reaches as far as known.
func (m *masks) eventSpan(k mix.Key, ts int64, s span) {
	if k != m.key || ts != m.ts {
		m.add(m.event)
	}
	m.key, m.ts, m.event = k, ts, s
}

// add keeps a span until it is sealed. With too many of them two become one,
// with what lies between: more may be masked by it, never less.
func (m *masks) add(s span) {
	if s.from >= s.to {
		return
	}
	for i := range m.list {
		if o := &m.list[i]; s.from <= o.to && o.from <= s.to {
			o.from, o.to = min(o.from, s.from), max(o.to, s.to)
			return
		}
	}
	if n := len(m.list); n >= masksMax {
		o := &m.list[n-1]
		o.from, o.to = min(o.from, s.from), max(o.to, s.to)
		return
	}
	m.list = append(m.list, s)
}

// within returns the parts of a stretch that are masked, in order and apart,
// and forgets what lies before its end. The result is valid until the next call.
func (m *masks) within(from, to int64) []span {
	m.union = m.union[:0]
	take := func(s span) {
		if s.from, s.to = max(s.from, from), min(s.to, to); s.from < s.to {
			m.union = append(m.union, s)
		}
	}
	for _, s := range m.list {
		take(s)
	}
	take(m.tone)
	take(m.event)
	m.list = slices.DeleteFunc(m.list, func(s span) bool { return s.to <= to })
	slices.SortFunc(m.union, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	n := 0
	for _, s := range m.union {
		if n > 0 && s.from <= m.union[n-1].to {
			m.union[n-1].to = max(m.union[n-1].to, s.to)
			continue
		}
		m.union[n] = s
		n++
	}
	return m.union[:n]
}

// silence clears what is masked of sealed samples that begin at a position, and
// returns the marks with those of the mask in place of what lay there.
func (m *masks) silence(from int64, pcm []int16, marks []mix.Mark) []mix.Mark {
	masked := m.within(from, from+int64(len(pcm)))
	if len(masked) == 0 {
		return marks
	}
	out := m.marks[:0]
	for _, k := range marks {
		at, end := k.At, k.At+int64(k.N)
		for _, s := range masked {
			if s.to <= at || s.from >= end {
				continue
			}
			if at < s.from {
				out = append(out, mix.Mark{At: at, N: int(s.from - at), Cause: k.Cause, Concealed: k.Concealed})
			}
			at = s.to
		}
		if at < end {
			out = append(out, mix.Mark{At: at, N: int(end - at), Cause: k.Cause, Concealed: k.Concealed})
		}
	}
	for _, s := range masked {
		clear(pcm[s.from-from : s.to-from])
		out = append(out, mix.Mark{At: s.from, N: int(s.to - s.from), Cause: maskedCause})
	}
	slices.SortStableFunc(out, func(a, b mix.Mark) int { return cmp.Compare(a.At, b.At) })
	m.marks = marks
	return out
}

// samples is a time in samples of the timeline.
func (c *core) samples(d time.Duration) int64 { return d.Milliseconds() * c.perMS }

// wholeMS is a span of the timeline, widened to milliseconds: what is masked is
// told exactly.
func (c *core) wholeMS(from, to int64) span {
	up := to + c.perMS - 1
	return span{max(from, 0) / c.perMS * c.perMS, up - up%c.perMS}
}
