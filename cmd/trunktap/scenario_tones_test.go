package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/sip/siptest"
)

// hz is who is heard.
type hz float64

// The voices. Their frequencies have whole numbers of periods in a block.
const (
	customer   hz = 440
	agent1     hz = 1000
	agent2     hz = 1500
	supervisor hz = 2000
	menu       hz = 600 // the IVR's prompts
	music      hz = 800
	beep       hz = 1400
	third      hz = 1800 // another external party
)

var voices = []hz{customer, menu, music, agent1, beep, agent2, third, supervisor}

// String names a voice in the table.
func (f hz) String() string {
	names := map[hz]string{customer: "customer", agent1: "agent1", agent2: "agent2", supervisor: "supervisor", menu: "IVR", music: "music", beep: "beep", third: "third party"}
	return fmt.Sprintf("%s %g", names[f], float64(f))
}

const (
	voiceLevel = 0.2 // of full scale; three of them add up without being clipped
	blockMS    = 50
	blockStep  = 10 // ms
)

// mouth has the voices of one end of a call, so that one that goes on while
// others come and go does so without a break.
type mouth map[hz]siptest.Source

// says is what is played so that these are heard at once; nothing: silence.
func (m mouth) says(tones ...hz) siptest.Source {
	parts := []siptest.Source{siptest.Silence()}
	for _, f := range tones {
		if f == 0 {
			continue // nobody
		}
		if m[f] == nil {
			m[f] = siptest.Tone(float64(f), voiceLevel)
		}
		parts = append(parts, m[f])
	}
	return siptest.Mix(parts...)
}

// edge is where an interval of audio begins or ends: anywhere from first to last, in ms.
type edge struct{ first, last int64 }

// heard is an interval of audio with the tones in it.
type heard struct {
	from, to edge
	tones    []hz
}

// exactly is an interval whose edges are known, in ms.
func exactly(from, to int64, tones ...hz) heard {
	return heard{edge{from, from}, edge{to, to}, tones}
}

// String prints the interval.
func (h heard) String() string { return fmt.Sprintf("%d–%d %v", h.from.last, h.to.first, h.tones) }

// hann weakens the edges of a block, so that a tone that begins inside it does
// not spill over into the frequencies of others.
var hann = func() (w [blockMS * 8]float64) {
	for i := range w {
		w[i] = 0.5 - 0.5*math.Cos(2*math.Pi*(float64(i)+0.5)/float64(len(w)))
	}
	return w
}()

// levels are the amplitudes of all voices in a block, as a part of voiceLevel.
func levels(pcm []int16) map[hz]float64 {
	block := make([]int16, len(pcm))
	for i := range pcm {
		block[i] = int16(hann[i] * float64(pcm[i]))
	}
	out := map[hz]float64{}
	for _, f := range voices {
		// A sine of amplitude A has the energy A²/2, and the window takes half of A.
		out[f] = math.Sqrt(8*mediatest.Energy(block, float64(f), 8000)) / math.MaxInt16 / voiceLevel
	}
	return out
}

// compareTones says where audio is not what it should be. Every block has all
// tones of its interval at half their level or more, and of no other a tenth;
// blocks that come within the tolerance of an edge may have what lies on either
// side of it, and nothing else: a voice that is not wanted anywhere is found
// everywhere, from a few milliseconds on.
func compareTones(pcm []int16, want []heard) (faults []string) {
	const tolerance = int64(scenarioTolerance / 1e6)
	end := int64(len(pcm)) / 8
	for from := int64(0); from+blockMS <= end; from += blockStep {
		to := from + blockMS
		allowed, required := []hz{}, []hz{}
		edge := from < tolerance || to > end-tolerance
		for _, h := range want {
			if h.from.first < to+tolerance && h.to.last > from-tolerance {
				allowed = append(allowed, h.tones...)
				required = append(required, h.tones...)
				edge = edge || h.from.last > from-tolerance || h.to.first < to+tolerance
			}
		}
		if edge {
			required = nil
		}
		for f, level := range levels(pcm[from*8 : to*8]) {
			switch {
			case level > 0.1 && !slices.Contains(allowed, f):
				faults = append(faults, fmt.Sprintf("%v at %d ms, level %.2f", f, from, level))
			case level < 0.5 && slices.Contains(required, f):
				faults = append(faults, fmt.Sprintf("no %v at %d ms, level %.2f", f, from, level))
			}
		}
	}
	if len(faults) == 0 {
		return nil
	}
	slices.Sort(faults[:len(faults):len(faults)])
	return []string{fmt.Sprintf("%s (and %d more); heard: %v, want: %v", faults[0], len(faults)-1, intervals(pcm), want)}
}

// intervals is what is heard in audio.
func intervals(pcm []int16) (out []heard) {
	for from := int64(0); from+blockMS <= int64(len(pcm))/8; from += blockStep {
		var tones []hz
		for f, level := range levels(pcm[from*8 : (from+blockMS)*8]) {
			if level > 0.5 {
				tones = append(tones, f)
			}
		}
		slices.Sort(tones)
		middle := from + (blockMS-blockStep)/2
		if len(out) > 0 && slices.Equal(out[len(out)-1].tones, tones) {
			out[len(out)-1].to.first = middle + blockStep
			continue
		}
		out = append(out, exactly(middle, middle+blockStep, tones...))
	}
	return slices.DeleteFunc(out, func(h heard) bool { return len(h.tones) == 0 })
}

// TestCompareTones holds that the ear of the scenarios hears what is missing,
// misplaced, and a hundredth of a second of what should not be there.
func TestCompareTones(t *testing.T) {
	// 0–500 customer, 500–1000 customer and agent1, 1000–1500 silence, 1500–2000 agent1.
	pcm := make([]int16, 2000*8)
	play := func(from, to int, tones ...hz) {
		siptest.Mix(siptest.PCM(slices.Clone(pcm[from*8:to*8])), mouth{}.says(tones...)).Read(pcm[from*8 : to*8])
	}
	play(0, 1000, customer)
	play(500, 1000, agent1)
	play(1500, 2000, agent1)
	want := []heard{exactly(0, 500, customer), exactly(500, 1000, customer, agent1), exactly(1500, 2000, agent1)}
	if f := compareTones(pcm, want); f != nil {
		t.Error(f)
	}
	clean := slices.Clone(pcm)
	cases := []struct {
		name  string
		spoil func()
		want  []heard
		says  string
	}{
		{"a tone too early", func() {}, []heard{exactly(0, 600, customer), exactly(600, 1000, customer, agent1), exactly(1500, 2000, agent1)}, "agent1"},
		{"a tone too late", func() {}, []heard{exactly(0, 400, customer), exactly(400, 1000, customer, agent1), exactly(1500, 2000, agent1)}, "no agent1"},
		{"a tone missing", func() {}, []heard{exactly(0, 500, customer), exactly(500, 1000, customer, agent1), exactly(1100, 1400, agent1), exactly(1500, 2000, agent1)}, "no agent1"},
		{"silence instead", func() { clear(pcm[1600*8 : 1700*8]) }, want, "no agent1"},
		{"a packet of music at an edge", func() { play(990, 1000, music) }, want, "music"},
		{"a packet of music in the middle", func() { play(700, 710, music) }, want, "music"},
		{"music at the end", func() { play(1980, 2000, music) }, want, "music"},
	}
	for _, c := range cases {
		copy(pcm, clean)
		c.spoil()
		if f := compareTones(pcm, c.want); len(f) == 0 || !strings.Contains(f[0], c.says) {
			t.Errorf("%s: %v", c.name, f)
		}
	}
}
