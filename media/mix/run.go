package mix

// run is one Key's audio by index: samples since the run's first timestamp, at
// the track's rate. An index is placed at position index+off-frac/2^32.
type run struct {
	key   Key
	ts0   int64 // timestamp of index 0
	clock int64 // Hz
	rate  int64

	delay       delay
	lastArrival int64 // ns
	lastHeard   int64 // lastArrival when samples came last, ns
	packet      int64 // samples of the last packet

	ring   []int16 // samples by index modulo its length, a power of two; 0 where there are none
	pcmEnd int64   // index after the last sample in it
	spans  []span  // rising, disjoint; silence lies between them
	head   int     // first span not passed yet
	start  int64   // index of the first sample kept
	end    int64   // index from which on nothing is known

	active  bool // has samples or holes
	placed  bool
	off     int64
	frac    uint32
	slewing bool
	target  int64  // off to be reached, with frac 0
	step    uint64 // of frac per sample while slewing

	turns  [turnsMax]turn // ring: how off has changed
	turned int            // turns so far

	feed feed

	edge [taps]int16 // scratch
}

type kind uint8

const (
	audio kind = iota
	hole
	silent
	unknown
)

// span says what lies at the indices [from, to).
type span struct {
	from, to  int64
	kind      kind
	cause     Cause
	concealed bool
}

// turn says that from index on, off was as given.
type turn struct{ index, off int64 }

const turnsMax = 128

func (s span) like(o span) bool {
	return s.kind == o.kind && s.cause == o.cause && s.concealed == o.concealed
}

// newRun makes a run that an arrival announces, and gives up another when there
// are too many: one that was never heard before one that was, of those the one
// without packets for longest.
func (t *Track) newRun(k Key, ts int64, clock int) *run {
	if clock <= 0 {
		clock = int(t.rate)
	}
	r := &run{}
	if len(t.runs) >= RunsMax {
		worst := 0
		for i := 1; i < len(t.runs); i++ {
			a, b := t.runs[worst], t.runs[i]
			if a.active != b.active && a.active || a.active == b.active && b.lastArrival < a.lastArrival {
				worst = i
			}
		}
		old := t.runs[worst]
		t.runs = append(t.runs[:worst], t.runs[worst+1:]...)
		t.forget(old)
		clear(old.ring)
		*r = run{ring: old.ring, spans: old.spans[:0]}
	}
	r.key, r.ts0, r.clock, r.rate = k, ts, int64(clock), t.rate
	r.delay.reset(t.rate)
	t.runs = append(t.runs, r)
	return r
}

// forget takes a run out of the acts.
func (t *Track) forget(r *run) {
	kept := t.acts[:0]
	for _, a := range t.acts {
		if a.run != r {
			kept = append(kept, a)
		}
	}
	t.acts = kept
}

func (r *run) index(ts int64) int64 { return mulDiv(ts-r.ts0, r.rate, r.clock) }

// activate makes r the run that is heard from index on: when its first audio
// comes, and again when it goes on after the one that replaced it fell silent.
func (t *Track) activate(r *run, index int64) {
	n := len(t.acts)
	if n > 0 && t.acts[n-1].run == r {
		return
	}
	switch {
	case !r.active:
		r.active = true
		r.start, r.end, r.pcmEnd = index, index, index
	case n == 0: // the run that was heard has been given up
	case r.lastArrival-t.acts[n-1].run.lastHeard < resumeNS:
		return
	default:
		// Its packets since then are kept: it is heard from where the other ends.
		last := t.acts[n-1].run
		index = last.end + t.offset(last) - t.offset(r)
	}
	if n >= ActsMax {
		t.acts = t.acts[:copy(t.acts, t.acts[1:])]
	}
	t.acts = append(t.acts, act{r, index})
}

// resumeNS is how long the run that is heard must have been silent before an
// older one is heard again.
const resumeNS = int64(200e6)

// offset is where a run lies, or would as things stand.
func (t *Track) offset(r *run) int64 {
	if r.placed {
		return r.off
	}
	return t.aim(r, r.start)
}

// put lays samples at index.
func (t *Track) put(r *run, index int64, pcm []int16, s span) {
	t.activate(r, index)
	r.lastHeard = r.lastArrival
	if cut := min(r.end-index, int64(len(pcm))); cut > 0 {
		t.stats.Overlapped += cut
		index, pcm = index+cut, pcm[cut:]
	}
	if r.placed {
		if cut := min(t.cursor-r.off-index, int64(len(pcm))); cut > 0 {
			t.stats.LateCut += cut
			t.late(r, index, index+cut)
			t.bridge(r, index)
			r.end = max(r.end, index+cut)
			index, pcm = index+cut, pcm[cut:]
		}
	}
	n := int64(len(pcm))
	if n == 0 {
		return
	}
	if t.beyond(r, index+n) {
		t.stats.Overrun += n
		t.extend(r, index, index+n, span{kind: hole, cause: Overrun})
		return
	}
	t.bridge(r, index)
	s.from, s.to = index, index+n
	t.room(r, index+n)
	r.store(index, pcm)
	r.push(s)
	r.end = s.to
}

// beyond tells whether samples up to index are too far ahead to be kept. Before
// the origin is known, and before the run has its place, the oldest give way.
func (t *Track) beyond(r *run, index int64) bool {
	if t.hasOrigin {
		if index+t.offset(r) > t.cursor+t.horizon {
			return true
		}
	}
	if !r.placed {
		if lost := index - (t.size - 4*taps) - r.start; lost > 0 {
			r.start += lost
			r.pass(r.start)
		}
	}
	return r.placed && index-(t.cursor-r.off) > t.size-4*taps
}

// bridge withdraws what was marked between the run's last sample and index:
// sequence numbers went on, so nothing is missing there.
func (t *Track) bridge(r *run, index int64) {
	if r.placed && index > r.end {
		t.resolve(r.position(r.end), r.position(index), Resolution{Withdrawn: true}, false)
	}
}

// extend lays a stretch without samples.
func (t *Track) extend(r *run, from, to int64, s span) {
	if s.kind == hole {
		t.activate(r, from)
	} else if !r.active {
		return
	}
	from = max(from, r.end)
	if from >= to {
		return
	}
	t.bridge(r, from)
	if r.placed {
		if s.kind == hole {
			t.resolve(r.position(from), r.position(to), Resolution{Cause: s.cause}, true)
		} else {
			t.resolve(r.position(from), r.position(to), Resolution{Withdrawn: true}, false)
		}
	}
	if s.kind == hole {
		s.from, s.to = from, to
		r.push(s)
	}
	r.end = to
}

// room makes the ring long enough for samples up to index. It begins with what
// half a second between a sample and its reading takes and grows with need.
func (t *Track) room(r *run, index int64) {
	from := r.start
	if r.placed {
		from = t.cursor - r.off
	}
	size := max(int64(len(r.ring)), 1024)
	for least := max(index-from+4*taps, t.rate/2+8*taps); size < least && size < t.size; {
		size *= 2
	}
	old := r.ring
	if size == int64(len(old)) {
		return
	}
	r.ring = make([]int16, size)
	for i := r.pcmEnd - int64(len(old)); i < r.pcmEnd; i++ {
		r.ring[i&(size-1)] = old[i&(int64(len(old))-1)]
	}
}

// store writes samples into the ring, and zeros from its end up to them.
func (r *run) store(index int64, pcm []int16) {
	if r.spans == nil {
		r.spans = make([]span, 0, 64)
	}
	size := int64(len(r.ring))
	mask := size - 1
	for i := max(r.pcmEnd, index-size); i < index; {
		a := i & mask
		n := min(index-i, size-a)
		clear(r.ring[a : a+n])
		i += n
	}
	for i := index; len(pcm) > 0; {
		n := copy(r.ring[i&mask:], pcm)
		pcm, i = pcm[n:], i+int64(n)
		r.pcmEnd = i
	}
}

// push adds a span at the end. When there are too many, the last becomes an
// overrun that swallows it.
func (r *run) push(s span) {
	if n := len(r.spans); n > r.head {
		last := &r.spans[n-1]
		if last.to == s.from && last.like(s) {
			last.to = s.to
			return
		}
		if n-r.head >= SpansMax {
			*last = span{from: last.from, to: s.to, kind: hole, cause: Overrun}
			return
		}
	}
	if len(r.spans) == cap(r.spans) && r.head > 0 {
		r.spans = r.spans[:copy(r.spans, r.spans[r.head:])]
		r.head = 0
	}
	r.spans = append(r.spans, s)
}

// pass forgets spans that end at or before index.
func (r *run) pass(index int64) {
	for r.head < len(r.spans) && r.spans[r.head].to <= index {
		r.head++
	}
}

// spanAt says what lies at index and up to where.
func (r *run) spanAt(index int64) span {
	r.pass(index)
	if r.head < len(r.spans) {
		s := r.spans[r.head]
		if s.from <= index {
			return s
		}
		return span{from: index, to: s.from, kind: silent}
	}
	if index < r.end {
		return span{from: index, to: r.end, kind: silent}
	}
	return span{from: r.end, to: maxPos, kind: unknown}
}

// turnTo sets off from index on.
func (r *run) turnTo(index, off int64) {
	r.off = off
	r.turns[r.turned%turnsMax] = turn{index, off}
	r.turned++
}

// position is where an index was read, or will be as things stand.
func (r *run) position(index int64) int64 {
	off := r.off
	for i := r.turned - 1; i >= max(0, r.turned-turnsMax); i-- {
		t := r.turns[i%turnsMax]
		off = t.off
		if t.index <= index {
			break
		}
	}
	return index + off
}

// copyTo copies samples that are in the ring.
func (r *run) copyTo(dst []int16, index int64) {
	mask := int64(len(r.ring)) - 1
	n := copy(dst, r.ring[index&mask:])
	copy(dst[n:], r.ring)
}

// around returns the samples that the resampler needs for index.
func (r *run) around(index int64) *[taps]int16 {
	mask := int64(len(r.ring)) - 1
	from := index - before
	a := from & mask
	if from+taps <= r.pcmEnd && a+taps <= int64(len(r.ring)) {
		return (*[taps]int16)(r.ring[a : a+taps])
	}
	for i := range r.edge {
		r.edge[i] = 0
		if at := from + int64(i); at < r.pcmEnd {
			r.edge[i] = r.ring[at&mask]
		}
	}
	return &r.edge
}
