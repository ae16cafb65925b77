package mix

import "github.com/trunktap/trunktap/media/resample"

// feed is how the audio of a run comes to the track's rate. Where the decoder
// has another, what is laid for a packet is complete for the packet's duration:
// its last few milliseconds, for which the filter wants samples to come, are
// first laid as if silence followed and laid again, while they are unread, when
// the next packet is there. So nothing waits and nothing needs to be flushed.
type feed struct {
	rate   int   // Hz, of what was laid last; 0 before that
	nextTS int64 // timestamp that would go on from there
	end    int64 // index behind it

	conv *resample.Resampler // of the rate heard last that is not the track's
	next int64               // index of conv's next output in its final form
	out  []int16             // scratch
}

// length is the duration of samples of one rate at another.
func length(samples int, rate, at int64) int64 {
	if rate == at {
		return int64(samples)
	}
	return mulDiv(int64(samples), at, max(rate, 1))
}

// lay puts the samples of a decoder of any rate where their timestamp belongs.
func (t *Track) lay(r *run, ts int64, rate int, pcm []int16, s span) {
	f := &r.feed
	goesOn := f.rate != 0 && ts == f.nextTS && f.end == r.end
	if rate == int(t.rate) {
		if goesOn && f.rate != rate {
			t.handOver(r, pcm, rate, f.conv.Lag())
		}
		t.put(r, r.index(ts), pcm, s)
	} else if !t.convert(r, ts, rate, pcm, s, goesOn) {
		t.extend(r, r.index(ts), r.index(ts+length(len(pcm), int64(rate), r.clock)), span{kind: hole, cause: Undecodable})
		f.rate = 0
		return
	}
	f.rate, f.nextTS, f.end = rate, ts+length(len(pcm), int64(rate), r.clock), r.end
}

// convert lays samples of another rate than the track's. It is false for a
// rate that is not supported.
func (t *Track) convert(r *run, ts int64, rate int, pcm []int16, s span, goesOn bool) bool {
	f := &r.feed
	if !goesOn || f.rate != rate {
		if !t.begin(r, ts, rate, pcm, goesOn) {
			return false
		}
	}
	f.out = f.conv.Process(f.out[:0], pcm)
	final := int64(len(f.out))
	f.out = f.conv.Tail(f.out)
	again := int64(0) // laid before, for the packet before
	if goesOn {
		again = max(min(r.end-f.next, int64(len(f.out))), 0)
		r.revise(f.next, f.out[:again])
	}
	t.put(r, f.next+again, f.out[again:], s)
	f.next += final
	return true
}

// begin starts a conversion at a timestamp, after silence or, if the stream
// goes on, after the other rate that it had.
func (t *Track) begin(r *run, ts int64, rate int, pcm []int16, goesOn bool) bool {
	f := &r.feed
	conv := f.conv
	if conv == nil || conv.In() != rate {
		var err error
		if conv, err = resample.New(rate, int(t.rate)); err != nil {
			return false
		}
	}
	var past []int16
	if goesOn {
		lag := conv.Lag()
		if f.rate != int(t.rate) {
			lag = max(lag, f.conv.Lag())
		}
		past = t.handOver(r, pcm, rate, lag)
	}
	// The first index at or behind the timestamp's instant, and how far behind.
	behind := (ts - r.ts0) % r.clock * t.rate % r.clock
	if behind < 0 {
		behind += r.clock
	}
	f.next = r.index(ts)
	_, inputs := conv.Ratio()
	offset := int64(0)
	if behind > 0 {
		f.next++
		offset = (r.clock - behind) * int64(inputs) / r.clock
	}
	conv.Reset(int(offset))
	conv.Prime(past)
	f.conv = conv
	return true
}

// handOver completes what was laid at the rate before with pcm, the first
// samples at a new rate, and returns what lies before them at the new rate.
func (t *Track) handOver(r *run, pcm []int16, rate, lag int) (past []int16) {
	f := &r.feed
	var last [handOverSamples]int16
	before := last[:]
	switch {
	case f.rate != int(t.rate):
		before = f.conv.Past()
	case r.pcmEnd != r.end || len(r.ring) < handOverSamples:
		return nil // what came last was not kept
	default:
		r.copyTo(before, r.end-handOverSamples)
	}
	after, past, err := resample.Splice(before, f.rate, pcm, rate, lag)
	if err == nil && f.rate != int(t.rate) {
		f.out = f.conv.Tail(f.conv.Process(f.out[:0], after))
		r.revise(f.next, f.out[:max(min(r.end-f.next, int64(len(f.out))), 0)])
	}
	return past
}

// handOverSamples at the track's rate are looked back at a change of rate: more
// than any filter reaches.
const handOverSamples = 512

// revise lays samples again where samples are.
func (r *run) revise(index int64, pcm []int16) {
	size := int64(len(r.ring))
	if cut := max(r.pcmEnd-size, r.start) - index; cut > 0 {
		cut = min(cut, int64(len(pcm)))
		index, pcm = index+cut, pcm[cut:]
	}
	pcm = pcm[:max(min(int64(len(pcm)), r.pcmEnd-index), 0)]
	for len(pcm) > 0 {
		n := copy(r.ring[index&(size-1):], pcm)
		index, pcm = index+int64(n), pcm[n:]
	}
}
