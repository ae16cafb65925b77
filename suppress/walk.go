package suppress

import (
	"math"
	"slices"
)

// walk goes through pending events in their order and keeps state, windows
// and spans in step.
type walk struct {
	st     *state
	lg     *ledger
	sealed *past
	counts *Counts

	emits bool
	spans []Span
	first int   // index of the first span of this walk
	atMS  int64 // spans reach to here
}

func (t *Timeline) walk() walk {
	return walk{st: &t.now, lg: &t.windows, sealed: &t.sealed, counts: &t.counts}
}

// dryWalk is a walk that leaves the timeline as it is.
func (t *Timeline) dryWalk() walk {
	lg := ledger{records: slices.Clone(t.windows.records), last: t.windows.last}
	return walk{st: t.copyNow(), lg: &lg, sealed: &t.sealed, counts: new(Counts)}
}

// until folds what happens before toNS and returns the number of events. What
// happens at one instant changes the state together. What lies before 0 acts at 0.
func (w *walk) until(pending []event, toNS int64) int {
	n, at := 0, w.st.next(pending)
	for at < toNS {
		pos, before := max(0, at), w.st.active()
		for at < toNS && max(0, at) == pos {
			n += w.st.step(pending[n:])
			at = w.st.next(pending[n:])
		}
		w.change(before, pos, noPos, math.MaxInt64)
	}
	return n
}

// change books the difference between what was active and what is from a
// position on.
func (w *walk) change(before reasons, posNS, missFrom, missTo int64) {
	after := w.st.active()
	for i := range w.st {
		bit := reasons(1) << i
		switch {
		case after&bit != 0 && before&bit == 0:
			w.lg.open(w.st[i].opener, floorMS(posNS), missFrom)
		case after&bit == 0 && before&bit != 0 && w.lg.full():
			w.st[i].stuck = true
			after |= bit
			w.counts.WindowsStuck++
		case after&bit == 0 && before&bit != 0:
			w.lg.close(i, ceilMS(posNS), missTo, w.sealed)
		}
	}
	if !w.emits {
		return
	}
	switch was, is := before.level(), after.level(); {
	case was < is:
		w.emit(floorMS(posNS), was)
		w.takeBack(floorMS(posNS))
	case was > is:
		w.emit(ceilMS(posNS), was)
	}
}

// emit extends the spans to toMS.
func (w *walk) emit(toMS int64, level int) {
	if toMS <= w.atMS {
		return
	}
	s := Span{FromMS: w.atMS, ToMS: toMS, Suppressed: level == levelSuppressed, Mic: level == levelMic}
	if n := len(w.spans); n > w.first && w.spans[n-1].like(s) {
		w.spans[n-1].ToMS = toMS
	} else {
		w.spans = append(w.spans, s)
	}
	w.atMS = toMS
}

// takeBack leaves the millisecond from toMS on to what begins within it, when
// what ended within it is weaker.
func (w *walk) takeBack(toMS int64) {
	n := len(w.spans) - 1
	if n < w.first || w.atMS <= toMS || w.spans[n].Suppressed {
		return
	}
	w.atMS, w.spans[n].ToMS = toMS, toMS
	if w.spans[n].FromMS == toMS {
		w.spans = w.spans[:n]
	}
}

// like tells whether both are kept, suppressed or without microphone.
func (s Span) like(o Span) bool { return s.Suppressed == o.Suppressed && s.Mic == o.Mic }
