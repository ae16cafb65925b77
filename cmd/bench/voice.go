package main

import (
	"math"
	"math/rand/v2"

	"github.com/trunktap/trunktap/media/codec"
)

const (
	voiceFrames = 500 // 10 s of speech, then the same again
	turnFrames  = 200 // 4 s: one party speaks, the other is silent
	sampleRate  = 8000
)

// voice is what the parties say, as G.711 mu-law. Both have the same voice.
type voice struct {
	speech  [voiceFrames][payloadBytes]byte
	silence [payloadBytes]byte
}

// frame returns the payload that a party of a call sends as its n-th packet: the
// parties speak by turns.
func (v *voice) frame(call, side, n int) *[payloadBytes]byte {
	if (n/turnFrames+call+side)%2 != 0 {
		return &v.silence
	}
	return &v.speech[(call*37+n)%voiceFrames]
}

// newVoice makes speech-like sound: pulses of a changing pitch through two
// changing resonances, in syllables.
func newVoice() *voice {
	v := &voice{}
	for i := range v.silence {
		v.silence[i] = codec.MuLaw(0)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var phase float64
	var formants [2]resonator
	for f := range v.speech {
		for i := range v.speech[f] {
			t := float64(f*payloadBytes+i) / sampleRate
			phase += (120 + 25*math.Sin(2*math.Pi*0.7*t)) / sampleRate
			excitation := 0.02 * rnd.NormFloat64()
			if phase >= 1 {
				phase--
				excitation++
			}
			syllable := max(0, math.Sin(2*math.Pi*2.2*t)+0.3)
			s := formants[0].next(excitation, 500+250*math.Sin(2*math.Pi*1.3*t), 80) +
				0.5*formants[1].next(excitation, 1500+500*math.Sin(2*math.Pi*0.9*t), 120)
			v.speech[f][i] = codec.MuLaw(int16(max(-20000, min(20000, 2500*syllable*s))))
		}
	}
	return v
}

// resonator is a filter of two poles.
type resonator struct{ y1, y2 float64 }

// next filters one sample at a centre frequency and bandwidth in Hz.
func (r *resonator) next(x, centre, bandwidth float64) float64 {
	radius := math.Exp(-math.Pi * bandwidth / sampleRate)
	y := x + 2*radius*math.Cos(2*math.Pi*centre/sampleRate)*r.y1 - radius*radius*r.y2
	r.y2, r.y1 = r.y1, y
	return y
}
