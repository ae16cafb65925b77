package recorder

import (
	"cmp"
	"slices"
)

// gapsMax bounds the gaps listed per channel. What comes beyond it is counted
// and added to the last one listed, whose detail then says so: durations stay
// complete.
const gapsMax = 20000

// span is a run of samples of real time, [from, to).
type span struct{ from, to int64 }

// gap is a run of samples that is filled, not captured, on one channel.
type gap struct {
	span
	cause     string
	detail    string
	concealed bool // filled with what a codec made up, not with silence
}

// like tells whether two gaps that touch are one.
func (g gap) like(o gap) bool {
	return g.cause == o.cause && g.detail == o.detail && g.concealed == o.concealed
}

// of returns the same kind of gap elsewhere.
func (g gap) of(s span) gap {
	g.span = s
	return g
}

// gapList keeps the gaps of one channel in order of position, merged where
// they touch and agree.
type gapList struct {
	gaps            []gap
	overflow        int   // gaps beyond gapsMax
	overflowSamples int64 // their samples
}

// add appends a gap that lies at or behind the last one. A part that overlaps
// what is listed already is left to the earlier entry.
func (l *gapList) add(g gap) {
	n := len(l.gaps)
	if n > 0 && g.from < l.gaps[n-1].to {
		g.from = l.gaps[n-1].to
	}
	if g.from >= g.to {
		return
	}
	if n > 0 {
		last := &l.gaps[n-1]
		if last.to == g.from && last.like(g) {
			last.to = g.to
			return
		}
		if n >= gapsMax {
			l.overflowSamples += g.to - g.from
			l.overflow++
			return
		}
	}
	l.gaps = append(l.gaps, g)
}

// recause gives the listed parts of s another cause; an empty cause takes them
// off the list (they turned out to be no gap). Only what is listed is touched,
// so that a part inside a window, which is not listed, stays unlisted.
func (l *gapList) recause(s span, cause, detail string) {
	if s.from >= s.to {
		return
	}
	var out []gap
	touched := false
	for i, g := range l.gaps {
		if g.to <= s.from || g.from >= s.to || (g.cause == cause && cause != "") {
			if touched {
				out = append(out, g)
			}
			continue
		}
		if !touched {
			touched = true
			out = append(make([]gap, 0, len(l.gaps)+2), l.gaps[:i]...)
		}
		if g.from < s.from {
			out = append(out, g.of(span{g.from, s.from}))
		}
		if cause != "" {
			out = append(out, gap{span{max(g.from, s.from), min(g.to, s.to)}, cause, detail, g.concealed})
		}
		if g.to > s.to {
			out = append(out, g.of(span{s.to, g.to}))
		}
	}
	if !touched {
		return
	}
	l.gaps = out[:0]
	for _, g := range out {
		l.merge(g)
	}
}

// merge appends without the limit of add: it never lengthens the list.
func (l *gapList) merge(g gap) {
	if n := len(l.gaps); n > 0 {
		last := &l.gaps[n-1]
		if last.to == g.from && last.like(g) {
			last.to = g.to
			return
		}
	}
	l.gaps = append(l.gaps, g)
}

// cover makes s a gap of this cause whatever was listed in it before: audio
// that was captured but could not be written.
func (l *gapList) cover(s span, cause, detail string) {
	if s.from >= s.to {
		return
	}
	rest := l.gaps
	l.gaps = make([]gap, 0, len(rest)+2)
	placed := false
	for _, g := range rest {
		if g.from < s.from {
			l.merge(g.of(span{g.from, min(g.to, s.from)}))
		}
		if g.to > s.from && !placed {
			l.merge(gap{span: s, cause: cause, detail: detail})
			placed = true
		}
		if g.to > s.to {
			l.merge(g.of(span{max(g.from, s.to), g.to}))
		}
	}
	if !placed {
		l.merge(gap{span: s, cause: cause, detail: detail})
	}
}

// without returns the parts of s in which no gap of that cause is listed.
func (l *gapList) without(cause string, s span) []span {
	first, _ := slices.BinarySearchFunc(l.gaps, s.from, func(g gap, at int64) int { return cmp.Compare(g.to, at) })
	var out []span
	for _, g := range l.gaps[first:] {
		if g.from >= s.to {
			break
		}
		if g.cause != cause {
			continue
		}
		if s.from < g.from {
			out = append(out, span{s.from, g.from})
		}
		s.from = max(s.from, g.to)
	}
	if s.from < s.to {
		out = append(out, s)
	}
	return out
}
