package codec

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
)

// loses decodes samples as L16 in packets of 20 ms, of which lost ones are concealed.
func loses(t testing.TB, pcm []int16, rate int, lost func(packet int) bool) []int16 {
	t.Helper()
	d := mustDecoder(t, media.Format{Name: "L16", ClockRate: rate}, DecoderOptions{Conceal: true})
	var out []int16
	n := rate / 50
	for i := 0; (i+1)*n <= len(pcm); i++ {
		if lost(i) {
			out = d.Conceal(out, n)
			continue
		}
		var payload []byte
		for _, s := range pcm[i*n : (i+1)*n] {
			payload = binary.BigEndian.AppendUint16(payload, uint16(s))
		}
		var err error
		if out, err = d.Decode(out, payload); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// jump is the largest step between neighbours.
func jump(pcm []int16) (most int) {
	for i := 1; i < len(pcm); i++ {
		d := int(pcm[i]) - int(pcm[i-1])
		most = max(most, d, -d)
	}
	return most
}

// A periodic sound goes on in phase: one lost packet in ten is nearly not there, at
// every rate.
func TestConcealmentKeepsThePitch(t *testing.T) {
	for _, rate := range []int{8000, 16000, 44100, 48000} {
		pcm := make([]int16, 2*rate)
		for i := range pcm {
			at := 2 * math.Pi * 120 * float64(i) / float64(rate)
			pcm[i] = int16(4000*math.Sin(at) + 3000*math.Sin(2*at+1) + 2000*math.Sin(5*at))
		}
		lost := func(i int) bool { return i%10 == 7 }
		got := loses(t, pcm, rate, lost)
		silent := append([]int16{}, pcm...)
		for i := range silent {
			if lost(i / (rate / 50)) {
				silent[i] = 0
			}
		}
		a, b := snr(pcm, got), snr(pcm, silent)
		t.Logf("%d Hz: %.1f dB, with silence %.1f dB", rate, a, b)
		if a < b+7 || jump(got) > jump(pcm)*5/4 {
			t.Errorf("%d Hz: %.1f dB, with silence %.1f dB; steps of %d, had %d", rate, a, b, jump(got), jump(pcm))
		}
	}
}

// Lost speech keeps its level, packet by packet, and gaps make no clicks.
func TestConcealmentOfSpeech(t *testing.T) {
	pcm := speech(rand.New(rand.NewPCG(8, 2)), 80000)
	lost := func(i int) bool { return i%10 == 7 || i%50 == 8 }
	got := loses(t, pcm, 8000, lost)
	off, packets := 0.0, 0
	for i := range len(pcm) / 160 {
		if a, b := pcm[i*160:(i+1)*160], got[i*160:(i+1)*160]; lost(i) {
			off, packets = off+math.Abs(db(a)-db(b)), packets+1
		}
	}
	t.Logf("levels are off by %.1f dB", off/float64(packets))
	if off/float64(packets) > 3 {
		t.Errorf("levels are off by %.1f dB", off/float64(packets))
	}
	if jump(got) > jump(pcm)*3/2 {
		t.Errorf("steps of %d, had %d", jump(got), jump(pcm))
	}
}

// A long gap fades out in 60 ms and stays silent, however it is asked for.
func TestConcealmentFadesOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.SampledFrom([]int{8000, 16000, 48000}).Draw(t, "rate")
		pcm := tone(rapid.Float64Range(80, 1500).Draw(t, "hz"), 8000, 0, rate)
		d, err := NewDecoder(media.Format{Name: "L16", ClockRate: rate}, DecoderOptions{Conceal: true})
		if err != nil {
			t.Fatal(err)
		}
		var payload []byte
		for _, s := range pcm[:rate/10] {
			payload = binary.BigEndian.AppendUint16(payload, uint16(s))
		}
		if _, err := d.Decode(nil, payload); err != nil {
			t.Fatal(err)
		}
		var out []int16
		for len(out) < rate/10 {
			out = d.Conceal(out, rapid.IntRange(1, rate/20).Draw(t, "samples"))
		}
		fade := patchFadeMS * rate / 1000
		if db(out[:rate/100]) < db(pcm)-3 {
			t.Fatal("it is faint from the beginning")
		}
		for i, s := range out {
			left := max(0, 1-float64(i-rate/100)/float64(fade-rate/100))
			if math.Abs(float64(s)) > 9000*left+4000*max(0, 1-float64(i)/float64(rate/200))+1 && i > rate/100 {
				t.Fatalf("sample %d is %d", i, s)
			}
		}
	})
}

// What comes after a gap is as it was from 10 ms on.
func TestConcealmentLeavesTheRestAlone(t *testing.T) {
	pcm := speech(rand.New(rand.NewPCG(8, 2)), 8000)
	got := loses(t, pcm, 8000, func(i int) bool { return i >= 20 && i < 26 })
	if !equal(got[:20*160], pcm[:20*160]) || !equal(got[26*160+80:], pcm[26*160+80:]) {
		t.Error("samples that came were changed")
	}
}

func TestComfortNoise(t *testing.T) {
	for _, tt := range []struct {
		payload []byte
		tilt    float64 // correlation of neighbours
	}{
		{[]byte{40}, 0}, {[]byte{60}, 0}, {[]byte{40, 27}, 0.79}, {[]byte{30, 227, 127}, -0.79}, {[]byte{0x80 | 50, 127}, 0},
	} {
		d := mustDecoder(t, media.Format{Name: "CN", ClockRate: 8000}, DecoderOptions{Noise: true})
		if pcm, err := d.Decode(nil, tt.payload); err != nil || len(pcm) != 0 {
			t.Fatalf("%v, %v", pcm, err)
		}
		pcm := d.Conceal(nil, 8000)
		var power, product float64
		for i := 1; i < len(pcm); i++ {
			power += float64(pcm[i]) * float64(pcm[i])
			product += float64(pcm[i]) * float64(pcm[i-1])
		}
		level := 10 * math.Log10(power/float64(len(pcm))/(32768*32768))
		if want := -float64(tt.payload[0] & 0x7f); math.Abs(level-want) > 1 {
			t.Errorf("%v: %.1f dBov", tt.payload, level)
		}
		if r := product / power; math.Abs(r-tt.tilt) > 0.05 {
			t.Errorf("%v: neighbours correlate by %.2f, want %.2f", tt.payload, r, tt.tilt)
		}
	}
	d := mustDecoder(t, media.Format{Name: "CN", ClockRate: 8000}, DecoderOptions{Noise: true})
	if pcm := d.Conceal(nil, 160); !isSilent(pcm) {
		t.Error("there is noise before its level is known")
	}
}
