package siptest

import (
	"math"
	"sync"

	"github.com/trunktap/trunktap/media/mediatest"
)

// Source gives the audio that an Agent speaks, 8 kHz. Read fills pcm, one
// packet, and says whether a packet is to be sent at all.
type Source interface{ Read(pcm []int16) bool }

type sourceFunc func([]int16) bool

func (f sourceFunc) Read(pcm []int16) bool { return f(pcm) }

// Tone is a sine of that frequency in Hz; amplitude 1 is full scale.
func Tone(hz, amplitude float64) Source {
	n := 0
	return sourceFunc(func(pcm []int16) bool {
		for i := range pcm {
			pcm[i] = int16(amplitude * math.MaxInt16 * math.Sin(2*math.Pi*hz*float64(n)/8000))
			n++
		}
		return true
	})
}

// Mix is the sum of sources, as a conference bridge makes it; full scale is the
// most. Nothing is sent while none of them sends.
func Mix(sources ...Source) Source {
	return sourceFunc(func(pcm []int16) bool {
		part, send := make([]int16, len(pcm)), false
		clear(pcm)
		for _, s := range sources {
			if !s.Read(part) {
				continue
			}
			send = true
			for i := range pcm {
				pcm[i] = int16(min(max(int(pcm[i])+int(part[i]), math.MinInt16), math.MaxInt16))
			}
		}
		return send
	})
}

// PCM plays samples once and is silent after them.
func PCM(samples []int16) Source {
	return sourceFunc(func(pcm []int16) bool {
		n := copy(pcm, samples)
		samples = samples[n:]
		clear(pcm[n:])
		return true
	})
}

// Silence sends packets of digital silence.
func Silence() Source {
	return sourceFunc(func(pcm []int16) bool {
		clear(pcm)
		return true
	})
}

// DTX sends nothing; the RTP timestamp goes on (RFC 3551 section 4.1).
func DTX() Source { return sourceFunc(func([]int16) bool { return false }) }

// Encode compands pcm into out, a byte a sample.
func (c Codec) Encode(out []byte, pcm []int16) {
	for i, s := range pcm {
		if c.PayloadType == PCMA.PayloadType {
			out[i] = mediatest.ALaw(s)
		} else {
			out[i] = mediatest.MuLaw(s)
		}
	}
}

// Decode expands code, a byte a sample, into pcm: the middle of the samples that
// Encode gives each byte for.
func (c Codec) Decode(pcm []int16, code []byte) {
	table := muLawLinear
	if c.PayloadType == PCMA.PayloadType {
		table = aLawLinear
	}
	for i, b := range code {
		pcm[i] = table()[b]
	}
}

var (
	muLawLinear = sync.OnceValue(func() *[256]int16 { return inverse(mediatest.MuLaw) })
	aLawLinear  = sync.OnceValue(func() *[256]int16 { return inverse(mediatest.ALaw) })
)

// inverse tries all samples.
func inverse(code func(int16) byte) *[256]int16 {
	var sum, n [256]int
	for s := math.MinInt16; s <= math.MaxInt16; s++ {
		b := code(int16(s))
		sum[b] += s
		n[b]++
	}
	var out [256]int16
	for b := range out {
		out[b] = int16(sum[b] / max(n[b], 1))
	}
	return &out
}
