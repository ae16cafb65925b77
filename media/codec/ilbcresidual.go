package codec

import "math"

var (
	// what the level of the start state may be, as a logarithm (table of 3.5.1)
	ilbcLevels = [64]float64{
		1.000085, 1.071695, 1.140395, 1.206868, 1.277188, 1.351503, 1.429380, 1.500727,
		1.569049, 1.639599, 1.707071, 1.781531, 1.840799, 1.901550, 1.956695, 2.006750,
		2.055474, 2.102787, 2.142819, 2.183592, 2.217962, 2.257177, 2.295739, 2.332967,
		2.369248, 2.402792, 2.435080, 2.468598, 2.503394, 2.539284, 2.572944, 2.605036,
		2.636331, 2.668939, 2.698780, 2.729101, 2.759786, 2.789834, 2.818679, 2.848074,
		2.877470, 2.906899, 2.936655, 2.967804, 3.000115, 3.033367, 3.066355, 3.104231,
		3.141499, 3.183012, 3.222952, 3.265433, 3.308441, 3.350823, 3.395275, 3.442793,
		3.490801, 3.542514, 3.604064, 3.666050, 3.740994, 3.830749, 3.938770, 4.101764,
	}
	ilbcStates = [8]float64{-3.719849, -2.177490, -1.130005, -0.309692, 0.444214, 1.329712, 2.436279, 3.983887}

	ilbcGain3 = [8]float64{-1, -0.659973, -0.330017, 0, 0.25, 0.5, 0.75, 1}
	ilbcGain4 = [16]float64{
		-1.049988, -0.900024, -0.75, -0.599976, -0.450012, -0.299988, -0.150024, 0,
		0.150024, 0.299988, 0.450012, 0.599976, 0.75, 0.900024, 1.049988, 1.200012,
	}

	// ilbcExpand makes the second half of the codebook out of the first (3.6.3)
	ilbcExpand = [8]float64{-0.034180, 0.108887, -0.184326, 0.806152, 0.713379, -0.144043, 0.083740, -0.033691}
)

// residual decodes the excitation of a frame: the start state, what completes it, the
// subframes behind it and then, back in time, those before it (4.4).
func (f *ilbcFrame) residual(m *ilbcMode, filters *[ilbcSubsMax]lpc, out []float64) {
	var memory [ilbcMemory]float64
	more := ilbcState - m.short
	base := (f.start - 1) * ilbcSub
	at := base
	if f.first == 0 {
		at += more
	}
	f.startState(out[at:at+m.short], &filters[f.start-1])
	if f.first == 1 {
		copy(memory[ilbcMemory-m.short:], out[at:at+m.short])
		ilbcVector(out[at+m.short:base+ilbcState], memory[ilbcMemory-85:], f.extra[:], f.extraGain[:])
	} else {
		reverse(memory[ilbcMemory-m.short:], out[at:at+m.short])
		var before [ilbcSub]float64
		ilbcVector(before[:more], memory[ilbcMemory-85:], f.extra[:], f.extraGain[:])
		reverse(out[base:at], before[:more])
	}
	f.subframes(m, out, base)
}

// subframes decodes those outside of the start state.
func (f *ilbcFrame) subframes(m *ilbcMode, out []float64, base int) {
	var memory [ilbcMemory]float64
	copy(memory[ilbcMemory-ilbcState:], out[base:base+ilbcState])
	index, gain := f.index[:], f.gain[:]
	next := func(v []float64) {
		ilbcVector(v, memory[:], index, gain)
		index, gain = index[ilbcStages:], gain[ilbcStages:]
		copy(memory[:], memory[ilbcSub:])
		copy(memory[ilbcMemory-ilbcSub:], v)
	}
	for at := base + ilbcState; at < m.samples; at += ilbcSub {
		next(out[at : at+ilbcSub])
	}
	known := min(m.samples-base, ilbcMemory)
	clear(memory[:])
	reverse(memory[ilbcMemory-known:], out[base:base+known])
	for at := base; at > 0; at -= ilbcSub {
		var v [ilbcSub]float64
		next(v[:])
		reverse(out[at-ilbcSub:at], v[:])
	}
}

// startState decodes the coded part of the start state: an all-pass filter, run
// backwards round a circle, gives the samples back the phases that were taken out
// (4.2).
func (f *ilbcFrame) startState(out []float64, a *lpc) {
	level := math.Pow(10, ilbcLevels[f.level]) / 4.5
	var in, filtered [10 + 2*58]float64
	n := len(out)
	for k := range n {
		in[10+k] = level * ilbcStates[f.state[n-1-k]]
	}
	for k := range 2 * n {
		v := 0.0
		for i := range 11 {
			v += a[10-i] * in[10+k-i]
		}
		for i := 1; i <= 10; i++ {
			v -= a[i] * filtered[10+k-i]
		}
		filtered[10+k] = v
	}
	for k := range n {
		out[k] = filtered[10+n-1-k] + filtered[10+2*n-1-k]
	}
}

func reverse(dst, src []float64) {
	for i := range dst {
		dst[i] = src[len(dst)-1-i]
	}
}

// ilbcVector adds up the three stages of a vector of the adaptive codebook (4.3); each
// gain is relative to the one before.
func ilbcVector(out, memory []float64, index, gain []int) {
	clear(out)
	scale := 1.0
	for stage := range ilbcStages {
		g := max(math.Abs(scale), 0.1)
		switch stage {
		case 0:
			g *= math.Round(614.4*float64(gain[0]+1)) / 16384 // 32 even steps, up to 1.2
		case 1:
			g *= ilbcGain4[gain[1]]
		case 2:
			g *= ilbcGain3[gain[2]]
		}
		var v [ilbcSub]float64
		ilbcEntry(v[:len(out)], memory, index[stage])
		for i := range out {
			out[i] += g * v[i]
		}
		scale = g
	}
}

// ilbcEntry is one entry of the codebook (3.6.3): a stretch of the memory, for whole
// subframes also one that is too near its end and is repeated; then the same of the
// filtered memory.
func ilbcEntry(v, memory []float64, index int) {
	size := len(memory) - len(v) + 1
	half := size
	if len(v) == ilbcSub {
		half += ilbcSub / 2
	}
	var filtered [ilbcMemory]float64
	if index >= half {
		index -= half
		from := len(memory) - min(index+len(v), len(memory))
		if index >= size {
			from = 0
		}
		for i := from; i < len(memory); i++ {
			for j, c := range ilbcExpand {
				if p := i + 4 - j; p >= 0 && p < len(memory) {
					filtered[i] += c * memory[p]
				}
			}
		}
		memory = filtered[:len(memory)]
	}
	if index < size {
		copy(v, memory[len(memory)-index-len(v):])
		return
	}
	if len(v) == ilbcSub && index-size < ilbcSub/2 { // no encoder makes other ones
		ilbcRepeat(v, memory, index-size+ilbcSub/2)
	}
}

// ilbcRepeat repeats the last lag samples of the memory; five samples before the seam
// pass over to those before the beginning.
func ilbcRepeat(v, memory []float64, lag int) {
	end := len(memory)
	copy(v, memory[end-lag:])
	for j := range 5 {
		by := 0.2 * float64(j)
		v[lag-5+j] = (1-by)*memory[end-5+j] + by*memory[end-lag-5+j]
	}
	copy(v[lag:], memory[end-lag:])
}
