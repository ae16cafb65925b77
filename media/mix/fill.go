package mix

import "github.com/trunktap/trunktap/media/resample"

// Fill lays the samples of a packet that came after its turn where its place is
// not read yet: holes, made-up samples and silence give way to it, other audio
// stays. What was read without it becomes late. It returns the samples, at the
// track's rate, that will be heard; a packet behind the run's end, or of a rate
// that is not supported, has none.
func (t *Track) Fill(k Key, ts int64, rate int, pcm []int16) (laid int64) {
	r := t.run(k)
	if r == nil || !r.active || len(pcm) == 0 {
		return 0
	}
	index := r.index(ts)
	if rate != int(t.rate) {
		if pcm = t.refit(rate, pcm); pcm == nil {
			return 0
		}
	}
	end := min(index+int64(len(pcm)), r.end)
	from := max(index, r.start)
	if r.placed {
		from = max(from, t.cursor-r.off)
		t.late(r, index, min(from, end))
	}
	if from >= end || t.beyond(r, end) {
		return 0
	}
	return t.fill(r, from, end, pcm[from-index:end-index])
}

// refit converts samples that stand alone; nil for a rate that is not supported.
func (t *Track) refit(rate int, pcm []int16) []int16 {
	if t.filler == nil || t.filler.In() != rate {
		conv, err := resample.New(rate, int(t.rate))
		if err != nil {
			return nil
		}
		t.filler = conv
	}
	t.fillPCM = t.filler.Flush(t.filler.Process(t.fillPCM[:0], pcm))
	return t.fillPCM
}

// fill lays samples at the indices [from, end) where nothing was captured.
func (t *Track) fill(r *run, from, end int64, pcm []int16) (laid int64) {
	if 2*(len(r.spans)-r.head)+3 > SpansMax {
		return 0
	}
	t.room(r, end)
	spans, at := t.fillSpans[:0], from // what lies before at is settled
	add := func(from, to int64, s span) {
		if s.from, s.to = from, to; from < to {
			spans = append(spans, s)
		}
	}
	lay := func(to int64) {
		if at < to {
			add(at, to, span{kind: audio})
			r.write(at, pcm[at-from:to-from])
			laid, at = laid+to-at, to
		}
	}
	for _, s := range r.spans[r.head:] {
		add(s.from, min(s.to, from), s)
		lay(min(s.from, end))
		if s.kind == audio {
			add(max(s.from, from), min(s.to, end), s)
			at = max(at, min(s.to, end))
		}
		lay(min(s.to, end))
		add(max(s.from, end), s.to, s)
	}
	lay(end)
	t.fillSpans = spans
	r.spans, r.head = r.spans[:0], 0
	for _, s := range spans {
		r.push(s)
	}
	return laid
}

// write lays samples anywhere, over others or behind the last.
func (r *run) write(index int64, pcm []int16) {
	r.revise(index, pcm)
	if behind := r.pcmEnd - index; behind < int64(len(pcm)) {
		behind = max(behind, 0)
		r.store(index+behind, pcm[behind:])
	}
}
