package codec

import (
	"fmt"
	"math"
)

const (
	noiseOrderMax = 16    // reflection coefficients taken of a CN payload
	noiseStable   = 0.995 // and how large they may be
)

// noise makes comfort noise of the level and spectrum that CN payloads tell (RFC 3389
// section 3). It is the same in every replay.
type noise struct {
	rate  int
	gain  float64 // of the excitation
	k     [noiseOrderMax]float64
	state [noiseOrderMax + 1]float64
	seed  uint32
}

func newNoise(rate int) *noise { return &noise{rate: rate, seed: 1} }

func (d *noise) Rate() int { return d.rate }

func (*noise) Ticks([]byte) int { return 0 }

func (*noise) Close() {}

// Decode takes the level and the spectrum; there are no samples in them.
func (d *noise) Decode(dst []int16, payload []byte) ([]int16, error) {
	if len(payload) == 0 {
		return dst, fmt.Errorf("CN payload of no bytes: %w", errPayload)
	}
	// 0 dBov is the power of a square wave at full scale.
	power := math.Pow(10, -float64(payload[0]&0x7f)/10)
	clear(d.k[:])
	for i, n := range payload[1:min(len(payload), 1+noiseOrderMax)] {
		k := 258 * (float64(n) - 127) / 32768
		d.k[i] = max(-noiseStable, min(k, noiseStable))
		power *= 1 - d.k[i]*d.k[i]
	}
	d.gain = 32768 * math.Sqrt(power)
	return dst, nil
}

// Conceal appends noise: white, through the lattice of the coefficients.
func (d *noise) Conceal(dst []int16, samples int) []int16 {
	dst, pcm := extend(dst, min(max(samples, 0), SamplesMax))
	for i := range pcm {
		v := d.gain * d.white()
		for j := noiseOrderMax - 1; j >= 0; j-- {
			v -= d.k[j] * d.state[j]
			d.state[j+1] = d.state[j] + d.k[j]*v
		}
		d.state[0] = v
		pcm[i] = int16(max(-32768, min(math.Round(v), 32767)))
	}
	return dst
}

// white returns a random number of mean 0 and variance 1, near to a normal one.
func (d *noise) white() float64 {
	total := 0.0
	for range 3 {
		d.seed = d.seed*1664525 + 1013904223
		total += float64(d.seed>>8)/(1<<23) - 1
	}
	return total
}
