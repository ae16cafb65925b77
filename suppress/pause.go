package suppress

import (
	"math"
	"slices"
	"time"
)

// Bounds of what is remembered of the sources of pauses. With more sources than
// that in one pause each counts as one that began it; a pause that began before
// a forgotten loss does not end by itself.
const (
	pauseSourcesMax = 64
	lossesMax       = 64
)

// pause is what the secure pause has beyond other reasons: who began it, and
// when it ends by itself. As to starts and explicit ends it goes on then: what
// arrives late may prove that it should not have ended.
type pause struct {
	after   *autoResume
	sources []string // of its starts since it became active
	crowded bool     // there were more
	start   stamp    // the latest of them
	untilNS int64    // math.MaxInt64: it does not end by itself
	resumed bool     // it did
}

// begin notes a start, the latest known and where it acts.
func (p *pause) begin(e, latest stamp, fresh bool, posNS int64) {
	if fresh || e.atNS > p.untilNS {
		p.sources, p.crowded = p.sources[:0], false
	}
	if !slices.Contains(p.sources, e.source) {
		if len(p.sources) < pauseSourcesMax {
			p.sources = append(p.sources, e.source)
		} else {
			p.crowded = true
		}
	}
	p.start = latest
	p.arm(posNS)
}

// arm computes the end anew; at posNS it may have passed.
func (p *pause) arm(posNS int64) {
	p.untilNS = p.after.end(p.start, p.begunBy)
	p.resumed = p.untilNS < posNS
}

// endsItself returns when the pause of a late start ended by itself or will;
// math.MaxInt64 for never, and for other reasons.
func (rs *reasonState) endsItself(start event) int64 {
	p := rs.pause
	if p == nil {
		return math.MaxInt64
	}
	untilNS := p.after.end(start.stamp, func(source string) bool { return source == start.source })
	if untilNS == math.MaxInt64 && rs.active > 0 && p.start.follows(start.stamp) {
		return p.untilNS
	}
	return untilNS
}

// begunBy tells whether the source gave one of its starts.
func (p *pause) begunBy(source string) bool { return p.crowded || slices.Contains(p.sources, source) }

func (p *pause) shift(ns int64) {
	p.start.atNS = addNS(p.start.atNS, ns)
	p.after.shift(ns)
	if p.untilNS != math.MaxInt64 {
		p.untilNS = addNS(p.untilNS, ns)
	}
}

// autoResume is the rule by which pauses end by themselves, and what speaks
// against it. A loss counts for all pauses around it in whatever order it came:
// before its time it changes nothing, because the pause is on until then anyway.
type autoResume struct {
	after       time.Duration // 0: never
	losses      []stamp       // of sources, as they arrived
	forgottenNS int64         // the latest loss that is not among them
}

// end returns when a pause ends by itself whose latest start that was, and
// math.MaxInt64 when one of its sources was lost in the meantime.
func (r *autoResume) end(start stamp, begunBy func(source string) bool) int64 {
	if r.after <= 0 || start.atNS <= r.forgottenNS {
		return math.MaxInt64
	}
	untilNS := addNS(start.atNS, int64(r.after))
	for _, l := range r.losses {
		if l.atNS <= untilNS && l.follows(start) && begunBy(l.source) {
			return math.MaxInt64
		}
	}
	return untilNS
}

// lose notes the loss of a source and forgets the oldest when there are too many.
func (r *autoResume) lose(l stamp) {
	if r.after <= 0 {
		return
	}
	r.losses = append(r.losses, l)
	if len(r.losses) <= lossesMax {
		return
	}
	oldest := 0
	for i := range r.losses {
		if r.losses[i].atNS < r.losses[oldest].atNS {
			oldest = i
		}
	}
	r.forgottenNS = max(r.forgottenNS, r.losses[oldest].atNS)
	r.losses = slices.Delete(r.losses, oldest, oldest+1)
}

func (r *autoResume) shift(ns int64) {
	for i := range r.losses {
		r.losses[i].atNS = addNS(r.losses[i].atNS, ns)
	}
	if r.forgottenNS != math.MinInt64 {
		r.forgottenNS = addNS(r.forgottenNS, ns)
	}
}

// addNS adds without overflow: times of signals may lie anywhere.
func addNS(a, b int64) int64 {
	switch {
	case b > 0 && a > math.MaxInt64-b:
		return math.MaxInt64
	case b < 0 && a < math.MinInt64-b:
		return math.MinInt64
	}
	return a + b
}
