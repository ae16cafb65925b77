package mix

import "math"

// Placement is corrected when it is further off than the dead band, then all
// the way. Small errors are spread over seconds, unheard; large ones, of the
// first packets of a stream, over a fraction of a second. In silence a
// correction costs nothing and is made at once.
const (
	deadBandNS = 1_000_000

	slewFine   = 0.001 // samples per sample up to slewFineNS
	slewFineNS = 3_000_000
	slewMid    = 0.004 // up to slewMidNS
	slewMidNS  = 15_000_000
	slewOverS  = 0.4 // larger errors are gone after this time,
	slewEarly  = 0.5 // but not faster than this where audio was placed too late
	slewLate   = 0.02
)

// Read gives the next len(dst) samples and moves the cursor past them. What is
// missing among them is appended to marks. Before SetOrigin it gives silence
// and the cursor stays.
func (t *Track) Read(dst []int16, marks []Mark) []Mark {
	clear(dst)
	if !t.hasOrigin {
		return marks
	}
	out := output{dst: dst, base: t.cursor, marks: marks, fresh: len(marks)}
	limit := min(t.cursor+int64(len(dst)), max(t.end(), t.cursor))
	for p := t.cursor; p < limit; {
		r, until := t.heard(p, limit)
		if r == nil {
			t.missing(&out, p, until, span{kind: hole, cause: Absent})
			p = until
			continue
		}
		p = t.readRun(&out, r, p, until, until < limit)
	}
	t.cursor += int64(len(dst))
	t.stats.Read += int64(len(dst))
	for _, m := range out.marks[out.fresh:] {
		t.marks.remember(m)
	}
	return out.marks
}

// output is one call of Read.
type output struct {
	dst   []int16
	base  int64 // position of dst[0]
	marks []Mark
	fresh int // marks[fresh:] are of this call
}

func (o *output) at(from, to int64) []int16 { return o.dst[from-o.base : to-o.base] }

// heard finds the run that is heard at p, nil when none has begun, and up to
// where that holds.
func (t *Track) heard(p, limit int64) (*run, int64) {
	for i := len(t.acts) - 1; i >= 0; i-- {
		a := t.acts[i]
		r := a.run
		off := t.offset(r)
		begin := off + max(a.index, r.start)
		if begin > p {
			limit = min(limit, begin)
			continue
		}
		if !r.placed {
			t.place(r, off, p)
		}
		t.acts = t.acts[:copy(t.acts, t.acts[i:])] // what is before will never be heard
		return r, limit
	}
	return nil, limit
}

// place gives a run its place for good; from p on it is read.
func (t *Track) place(r *run, off, p int64) {
	r.placed = true
	r.turnTo(r.start, off)
	first := p - off
	for index := max(r.start, -off); index < first; {
		s := r.spanAt(index)
		to := min(s.to, first)
		switch s.kind {
		case audio:
			t.stats.LateCut += to - index
			t.late(r, index, to)
		case hole:
			t.resolve(r.position(index), r.position(to), Resolution{Cause: s.cause}, true)
		case silent:
			t.resolve(r.position(index), r.position(to), Resolution{Withdrawn: true}, false)
		case unknown: // nothing was said of it, so there is nothing to take back
		}
		index = to
	}
	r.pass(first)
}

// aim is the offset at which the least-delayed packets say that index belongs.
func (t *Track) aim(r *run, index int64) int64 {
	rate := float64(t.rate)
	line := r.delay.line(float64(index) / rate)
	return int64(math.Round((line - float64(t.origin)/1e9) * rate))
}

// readRun reads one run from p up to until, where another takes over if bounded.
func (t *Track) readRun(out *output, r *run, p, until int64, bounded bool) int64 {
	t.correct(r, p)
	for p < until {
		index := p - r.off
		s := r.spanAt(index)
		n := min(until-p, s.to-index)
		switch {
		case s.kind == audio || s.concealed:
			if r.slewing {
				n = t.readSlewing(r, out.at(p, p+n), p, s.to)
			} else {
				r.copyTo(out.at(p, p+n), index)
			}
			if s.concealed {
				t.missing(out, p, p+n, s)
			} else {
				t.stats.Captured += n
			}
		default:
			if r.slewing {
				n = r.jump(index, n, s.to)
			}
			t.unheard(out, r, p, p+n, s, until, bounded)
		}
		p += n
	}
	return p
}

// unheard marks what has no samples; between two runs less than a packet is
// none of the network's doing.
func (t *Track) unheard(out *output, r *run, from, to int64, s span, until int64, bounded bool) {
	switch {
	case s.kind == hole:
		t.missing(out, from, to, s)
	case s.kind == unknown && !(bounded && until-r.position(r.end) <= r.packet):
		t.missing(out, from, to, span{kind: hole, cause: Absent})
	}
}

// correct decides whether the run's placement is to be moved.
func (t *Track) correct(r *run, p int64) {
	if !r.delay.known() {
		return
	}
	r.target = t.aim(r, p-r.off)
	off := float64(r.off-r.target) - float64(r.frac)/(1<<32) // positive: placed too late
	ns := math.Abs(off) * 1e9 / float64(t.rate)
	if r.slewing {
		r.step = max(r.step, slewStep(ns, off > 0))
		r.slewing = off != 0
		return
	}
	if ns > deadBandNS {
		r.slewing = true
		r.step = slewStep(ns, off > 0)
		t.stats.Corrections++
	}
}

func slewStep(ns float64, early bool) uint64 {
	ratio := slewFine
	switch {
	case ns > slewMidNS && early:
		ratio = math.Min(ns/1e9/slewOverS, slewEarly)
	case ns > slewMidNS:
		ratio = slewLate
	case ns > slewFineNS:
		ratio = slewMid
	}
	return uint64(ratio * (1 << 32))
}

// readSlewing resamples until dst is full, index to is reached or the
// placement is right. It returns the number of samples written.
func (t *Track) readSlewing(r *run, dst []int16, p, to int64) int64 {
	n := int64(0)
	for r.slewing && n < int64(len(dst)) {
		index := p + n - r.off
		if index >= to {
			break
		}
		if r.frac == 0 {
			r.copyTo(dst[n:n+1], index)
		} else {
			dst[n] = interpolate(r.around(index), r.frac)
		}
		r.slew(index)
		n++
	}
	t.stats.Resampled += n
	return n
}

// slew moves the placement by one step towards its target, onto which it falls
// exactly.
func (r *run) slew(index int64) {
	const one = 1 << 32
	left := max(min(r.off-r.target, 1<<30), -1<<30)*one - int64(r.frac)
	if left > 0 {
		f := uint64(r.frac) + min(r.step, uint64(left))
		if f >= one {
			r.turnTo(index+1, r.off-1)
		}
		r.frac = uint32(f)
	} else if left < 0 {
		f := int64(r.frac) - int64(min(r.step, uint64(-left)))
		if f < 0 {
			r.turnTo(index+1, r.off+1)
		}
		r.frac = uint32(f)
	}
	r.slewing = r.off != r.target || r.frac != 0
}

// jump corrects the placement inside a stretch without samples that ends at
// index to, of which n samples fit: what was placed too late skips a part of
// the stretch, what was too early lengthens it. It returns the number of
// samples that this fills.
func (r *run) jump(index, n, to int64) int64 {
	r.frac = 0
	if skip := min(r.off-r.target, to-index); skip > 0 {
		r.turnTo(index, r.off-skip)
		r.slewing = r.off != r.target
		return 0
	}
	if hold := min(r.target-r.off, n); hold > 0 {
		r.turnTo(index, r.off+hold)
		r.slewing = r.off != r.target
		return hold
	}
	r.slewing = false
	return 0
}

// missing marks [from, to), as far as it is missed: not after the end, and
// silence only while sending was agreed.
func (t *Track) missing(out *output, from, to int64, s span) {
	t.missed(from, to, s.cause, func(from, to int64) {
		m := Mark{At: from, N: int(to - from), Cause: s.cause, Concealed: s.concealed}
		if n := len(out.marks); n > out.fresh {
			last := &out.marks[n-1]
			if last.At+int64(last.N) == from && last.Cause == m.Cause && last.Concealed == m.Concealed {
				last.N += m.N
				return
			}
		}
		out.marks = append(out.marks, m)
	})
}

// missed calls f for the parts of [from, to) in which this cause is a gap.
func (t *Track) missed(from, to int64, c Cause, f func(from, to int64)) {
	to = min(to, t.end())
	if c == Undecodable || c == Overrun {
		if from < to {
			f(from, to)
		}
		return
	}
	for i, d := range t.directions {
		if !d.sending {
			continue
		}
		a, b := max(from, t.position(d.ns)), to
		if i+1 < len(t.directions) {
			b = min(b, t.position(t.directions[i+1].ns))
		}
		if a < b {
			f(a, b)
		}
	}
}
