package codec

// Concealment at the level of samples for codecs that have none of their own: what was
// heard last goes on with its pitch (waveform substitution, of the shape of ITU-T
// G.711 Appendix I) and fades out. It has no delay, so where the Appendix smooths the
// beginning of a gap by changing samples before it, here the step is made up for
// within the gap.

const (
	patchPitchMin = 40  // samples at 8 kHz: 200 Hz
	patchPitchMax = 120 // 66 Hz
	patchWindow   = 160 // over which periods are compared
	patchHistory  = 3*patchPitchMax + patchPitchMax/4

	patchFullMS = 10 // at full level, and then less
	patchFadeMS = 60 // until silence
	// patchBlendMS is how far at most the continuation reaches into what comes after.
	patchBlendMS = 10
)

// patched puts a continuation of what was heard in the place of what was lost.
type patched struct {
	core
	ms   int     // samples in a millisecond, rounded down
	past []int16 // what was heard last, concealed samples included

	// While something is missing:
	gap    int     // samples concealed
	frozen []int16 // past as it was when the gap began
	period int     // of its pitch, in samples
	step   int     // by which it would jump at the beginning
}

func newPatched(c core) *patched {
	n := patchHistory * c.Rate() / 8000
	return &patched{core: c, ms: c.Rate() / 1000, past: make([]int16, n), frozen: make([]int16, n)}
}

func (p *patched) Decode(dst []int16, payload []byte) ([]int16, error) {
	out, err := p.core.Decode(dst, payload)
	if err != nil {
		return out, err
	}
	heard := out[len(dst):]
	if p.gap > 0 && len(heard) > 0 {
		p.rejoin(heard)
	}
	p.remember(heard)
	return out, nil
}

func (p *patched) Conceal(dst []int16, samples int) []int16 {
	samples = min(max(samples, 0), SamplesMax)
	if samples == 0 {
		return dst
	}
	if p.gap == 0 {
		p.begin()
	}
	dst, pcm := extend(dst, samples)
	for i := range pcm {
		pcm[i] = int16(p.at(p.gap + i))
	}
	p.gap += samples
	p.remember(pcm)
	return dst
}

// remember shifts samples into the past.
func (p *patched) remember(pcm []int16) {
	if n := len(p.past); len(pcm) >= n {
		copy(p.past, pcm[len(pcm)-n:])
		return
	}
	copy(p.past, p.past[len(pcm):])
	copy(p.past[len(p.past)-len(pcm):], pcm)
}

func (p *patched) begin() {
	copy(p.frozen, p.past)
	p.period = p.pitch()
	last := len(p.frozen) - 1
	p.step = int(p.frozen[last]) - int(p.frozen[last-p.period])
}

// pitch returns the lag at which the past is most like itself: first on every n-th
// sample, as if it had 8 kHz, then around that on all.
func (p *patched) pitch() int {
	n := max(p.Rate()/8000, 1)
	best := p.alike(patchPitchMin*p.Rate()/8000, patchPitchMax*p.Rate()/8000, n)
	if n == 1 {
		return best
	}
	return p.alike(max(best-n, patchPitchMin*n), min(best+n, patchPitchMax*n), 1)
}

// alike compares lags from one to another, both in steps of n samples.
func (p *patched) alike(from, to, n int) int {
	best, most := from, 0.0
	end := len(p.frozen)
	window := patchWindow * p.Rate() / 8000
	for lag := from; lag <= to; lag += n {
		var product, energy int64
		for i := end - window; i < end; i += n {
			b := int64(p.frozen[i-lag])
			product += int64(p.frozen[i]) * b
			energy += b * b
		}
		if product <= 0 {
			continue
		}
		if like := float64(product) * float64(product) / float64(energy); like > most {
			best, most = lag, like
		}
	}
	return best
}

// at returns the i-th sample of the continuation: one period goes round for 10 ms, two
// for the next 10, then three, or else it would sound like a buzzer.
func (p *patched) at(i int) int {
	part := patchFullMS * p.ms
	if i >= patchFadeMS*p.ms {
		return 0
	}
	periods := min(i/part, 2) + 1
	v := p.loop(periods, i)
	quarter := p.period / 4
	if since := i - (periods-1)*part; periods > 1 && since < quarter {
		v = (v*since + p.loop(periods-1, i)*(quarter-since)) / quarter
	}
	if i < quarter {
		v += p.step * (quarter - i) / quarter
	}
	if i >= part {
		fade := (patchFadeMS - patchFullMS) * p.ms
		v = v * (patchFadeMS*p.ms - i) / fade
	}
	return sat16(v)
}

// loop goes round the last periods; the end of a round passes over into what was
// before its beginning.
func (p *patched) loop(periods, i int) int {
	length, end := periods*p.period, len(p.frozen)
	k := i % length
	v := int(p.frozen[end-length+k])
	quarter := p.period / 4
	if left := length - k; left <= quarter {
		v = (v*left + int(p.frozen[end-length-left])*(quarter-left)) / quarter
	}
	return v
}

// rejoin passes over from the continuation to what is heard again, the slower the
// longer it was missing.
func (p *patched) rejoin(heard []int16) {
	n := min(p.period/4+4*p.gap/10, patchBlendMS*p.ms, len(heard))
	for i := range n {
		heard[i] = int16((p.at(p.gap+i)*(n-i) + int(heard[i])*i) / n)
	}
	p.gap = 0
}
