package archive

import (
	"cmp"
	"slices"

	"github.com/trunktap/trunktap/recorder"
)

// span is a stretch of real time in milliseconds.
type span struct{ from, to int64 }

// timeline maps positions in the audio to real time: what windows cut out lies
// between.
type timeline struct{ cut []span }

// suppressedSilence is the manifest's word for windows that are kept as silence.
const suppressedSilence = "silence"

// newTimeline returns the timeline of a manifest.
func newTimeline(m *recorder.Manifest) timeline {
	if m.Suppressed == suppressedSilence {
		return timeline{}
	}
	var all []span
	for _, w := range m.Windows {
		if w.Channel == nil && w.RealMS < w.EndRealMS { // one that silences a channel takes out no time
			all = append(all, span{w.RealMS, w.EndRealMS})
		}
	}
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var t timeline
	for _, s := range all {
		if n := len(t.cut); n > 0 && s.from <= t.cut[n-1].to {
			t.cut[n-1].to = max(t.cut[n-1].to, s.to)
			continue
		}
		t.cut = append(t.cut, s)
	}
	return t
}

// real returns where audio position ms lies in real time: first is the end of
// the audio before it, next the beginning of the audio behind it. They differ
// where a window was cut out at that position.
func (t timeline) real(ms int64) (first, next int64) {
	first, next = ms, ms
	for _, s := range t.cut {
		if s.from > next {
			break
		}
		if s.from < next {
			first += s.to - s.from
		}
		next += s.to - s.from
	}
	return first, next
}

// length returns how much is cut out before real position ms.
func (t timeline) length(ms int64) int64 {
	var n int64
	for _, s := range t.cut {
		if s.from < ms {
			n += min(s.to, ms) - s.from
		}
	}
	return n
}
