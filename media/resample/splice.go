package resample

// Splice carries a stream over a change of its rate, where one codec takes over
// from another without a pause: past is what ends there, at rate from, pcm what
// begins there, at rate to. It returns up to n samples of what follows past in
// from's terms, to complete the outputs before the change, and up to n of what
// precedes pcm in to's terms, to Prime what comes after it.
//
// The side with the higher rate is sampled at the instants of the lower one
// without a filter: what it has above half the lower rate may be heard, faint,
// in the few milliseconds about the change.
func Splice(past []int16, from int, pcm []int16, to, n int) (after, before []int16, err error) {
	conv, err := New(min(from, to), max(from, to))
	if err != nil {
		return nil, nil, err
	}
	if to > from {
		for j := range n {
			v, ok := between(pcm, j*to, from)
			if !ok {
				break
			}
			after = append(after, v)
		}
		y, at := conv.about(past, after)
		return after, y[max(0, at-n):at], nil
	}
	for i := 1; i <= n; i++ {
		v, ok := between(past, len(past)*to-i*from, to)
		if !ok {
			break
		}
		before = append(before, v)
	}
	for i, j := 0, len(before)-1; i < j; i, j = i+1, j-1 {
		before[i], before[j] = before[j], before[i]
	}
	y, at := conv.about(before, pcm[:min(len(pcm), n+conv.Lag())])
	return y[at:min(len(y), at+n)], before, nil
}

// about converts past and what comes after it, with an output exactly at the
// change, and returns the index of that output.
func (r *Resampler) about(past, after []int16) (y []int16, at int) {
	offset := len(past) * r.f.up % r.f.down
	r.Reset(offset)
	y = r.Tail(r.Process(r.Process(nil, past), after))
	return y, min((len(past)*r.f.up-offset)/r.f.down, len(y))
}

// between is the sample num/den behind x[0], on a line between its neighbours.
func between(x []int16, num, den int) (int16, bool) {
	if num < 0 || num/den >= len(x) {
		return 0, false
	}
	i, part := num/den, int64(num%den)
	if part == 0 {
		return x[i], true
	}
	if i+1 >= len(x) {
		return 0, false
	}
	return int16((int64(x[i])*(int64(den)-part) + int64(x[i+1])*part) / int64(den)), true
}
