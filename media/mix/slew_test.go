package mix_test

import (
	"fmt"
	"math"
	"testing"
)

// drifted is what a track made of a tone from a clock that is off.
type drifted struct {
	rate      int
	hz        float64
	pcm       []int16
	resampled []bool // by sample: read while the placement was being moved, all of the block
}

// drift feeds a tone of a clock that is off by ppm and reads it.
func drift(rate int, hz, ppm, seconds float64) drifted {
	t := startedAt(rate)
	per := rate / 50
	block := make([]int16, per)
	v := voice{hz, 16000}
	d := drifted{rate: rate, hz: hz}
	for n := range int(seconds * 50) {
		at := int64(float64(n) * 20e6 / (1 + ppm*1e-6))
		t.Arrived(key, int64(per*n), rate, at)
		t.Audio(key, int64(per*n), v.packet(float64(n)/50, rate, per))
		if n < 25 {
			continue
		}
		before := t.Stats().Resampled
		t.Read(block, nil)
		d.pcm = append(d.pcm, block...)
		moved := t.Stats().Resampled-before == int64(per)
		for range block {
			d.resampled = append(d.resampled, moved)
		}
	}
	return d
}

// worst is the largest residue (dB, against the tone) of blocks in which the
// placement moves all the time, and their number.
func (d drifted) worst() (dB float64, blocks int) {
	n := d.rate / 50
	thd := 0.0
	for at := d.rate; at+n <= len(d.pcm); at += n {
		if d.resampled[at] {
			blocks++
			thd = math.Max(thd, residueAt(d.pcm[at:at+n], d.hz, d.rate))
		}
	}
	return 20 * math.Log10(thd), blocks
}

// bend is the largest second difference against that of the tone, from the
// first second on: a click or a kink stands out in it.
func (d drifted) bend() float64 {
	worst := 0.0
	for i := d.rate + 1; i+1 < len(d.pcm); i++ {
		worst = math.Max(worst, math.Abs(float64(d.pcm[i-1])-2*float64(d.pcm[i])+float64(d.pcm[i+1])))
	}
	w := 2 * math.Pi * d.hz / float64(d.rate)
	return worst / (16000 * 2 * (1 - math.Cos(w)))
}

// wobble is by how much the pitch is off at worst, in parts, seen over 10 ms.
func (d drifted) wobble() float64 {
	n := d.rate / 100
	phase := func(at int) float64 {
		var re, im float64
		for i, s := range d.pcm[at : at+n] { // Hann, so that the ends do not count
			w := 2 * math.Pi * d.hz * float64(at+i) / float64(d.rate)
			h := float64(s) * (1 - math.Cos(2*math.Pi*(float64(i)+0.5)/float64(n)))
			re, im = re+h*math.Sin(w), im+h*math.Cos(w)
		}
		return math.Atan2(im, re)
	}
	worst := 0.0
	for at := d.rate; at+2*n <= len(d.pcm); at += n {
		turn := math.Remainder(phase(at+n)-phase(at), 2*math.Pi)
		worst = math.Max(worst, math.Abs(turn/(2*math.Pi*d.hz*float64(n)/float64(d.rate))))
	}
	return worst
}

// residueAt fits a tone of about hz to x and returns what is left over,
// relative to it.
func residueAt(x []int16, hz float64, rate int) float64 {
	best := math.Inf(1)
	for ppm := -4000.0; ppm <= 4000; ppm += 500 {
		w := 2 * math.Pi * hz * (1 + ppm*1e-6) / float64(rate)
		var ss, cc, sc, xs, xc, xx float64
		for i, v := range x {
			s, c, y := math.Sin(w*float64(i)), math.Cos(w*float64(i)), float64(v)
			ss, cc, sc = ss+s*s, cc+c*c, sc+s*c
			xs, xc, xx = xs+y*s, xc+y*c, xx+y*y
		}
		det := ss*cc - sc*sc
		a, b := (xs*cc-xc*sc)/det, (xc*ss-xs*sc)/det
		best = math.Min(best, math.Sqrt(math.Max(0, (xx-a*xs-b*xc)/xx)))
	}
	return best
}

// TestDriftSpectrum: tones over a timeline that is corrected for ±200 ppm.
func TestDriftSpectrum(t *testing.T) {
	tests := []struct {
		rate  int
		hz    float64
		bound float64 // dB
	}{
		{8000, 300, -60},
		{8000, 1000, -60},
		{8000, 2000, -60},
		{8000, 3000, -60},
		{8000, 3400, -55},
		{16000, 1000, -60},
		{16000, 3400, -60},
		{16000, 6800, -55}, // 0.425 of the rate: the interpolator's edge
		{48000, 1000, -60},
		{48000, 7000, -60},
		{48000, 20000, -60},
	}
	for _, tt := range tests {
		for _, ppm := range []float64{-200, 200} {
			t.Run(fmt.Sprintf("%d Hz at %d %+.0f ppm", int(tt.hz), tt.rate, ppm), func(t *testing.T) {
				d := drift(tt.rate, tt.hz, ppm, 16)
				dB, blocks := d.worst()
				bend, wobble := d.bend(), d.wobble()
				t.Logf("THD+N %.1f dB in %d blocks, second difference %.4f of the tone's, pitch off by %.3f %%", dB, blocks, bend, 100*wobble)
				if blocks == 0 || dB > tt.bound {
					t.Errorf("THD+N %.1f dB in %d blocks", dB, blocks)
				}
				if bend > 1.02 {
					t.Errorf("second difference %.4f of the tone's", bend)
				}
				if wobble > 0.005 {
					t.Errorf("pitch off by %.3f %%", 100*wobble)
				}
			})
		}
	}
}
