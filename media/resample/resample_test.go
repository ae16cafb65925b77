package resample

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// pairs are all conversions.
func pairs() (p [][2]int) {
	for _, in := range rates {
		for _, out := range rates {
			if in != out {
				p = append(p, [2]int{in, out})
			}
		}
	}
	return p
}

func mustNew(t testing.TB, in, out int) *Resampler {
	t.Helper()
	r, err := New(in, out)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tone(n, rate int, hz, amplitude float64) []int16 {
	x := make([]int16, n)
	for i := range x {
		x[i] = int16(math.Round(amplitude * math.Sin(2*math.Pi*hz*float64(i)/float64(rate))))
	}
	return x
}

// fit finds a tone in x: its amplitude, its phase against a sine that begins
// with x, and what is left beside it, as amplitude of an equally strong tone.
func fit(x []int16, rate int, hz float64) (amplitude, phase, rest float64) {
	w := 2 * math.Pi * hz / float64(rate)
	var ss, cc, sc, xs, xc, xx float64
	for i, v := range x {
		s, c, y := math.Sin(w*float64(i)), math.Cos(w*float64(i)), float64(v)
		ss, cc, sc = ss+s*s, cc+c*c, sc+s*c
		xs, xc, xx = xs+y*s, xc+y*c, xx+y*y
	}
	det := ss*cc - sc*sc
	a, b := (xs*cc-xc*sc)/det, (xc*ss-xs*sc)/det
	left := math.Max(xx-a*xs-b*xc, 0)
	return math.Hypot(a, b), math.Atan2(b, a), math.Sqrt(2 * left / float64(len(x)))
}

func dB(ratio float64) float64 { return 20 * math.Log10(math.Max(ratio, 1e-9)) }

// TestSweep: tones up to 0.45 of the lower rate come through unchanged in level
// and at their time, and alone; tones beyond half the lower rate are gone.
func TestSweep(t *testing.T) {
	const amplitude = 30000.0
	for _, p := range pairs() {
		in, out := p[0], p[1]
		t.Run(fmt.Sprintf("%d-%d", in, out), func(t *testing.T) {
			lower := float64(min(in, out))
			r := mustNew(t, in, out)
			ripple, late, noise, alias := 0.0, 0.0, -200.0, -200.0
			for part := 0.01; part <= 0.4501; part += 0.04 {
				hz := part * lower
				y := r.Flush(r.Process(nil, tone(in/10, in, hz, amplitude)))
				skip := len(y) / 5
				a, phase, rest := fit(y[skip:len(y)-skip], out, hz)
				want := math.Mod(2*math.Pi*hz*float64(skip)/float64(out), 2*math.Pi)
				d := math.Abs(math.Remainder(phase-want, 2*math.Pi)) / (2 * math.Pi * hz)
				ripple = math.Max(ripple, math.Abs(dB(a/amplitude)))
				late = math.Max(late, d*1e6)
				noise = math.Max(noise, dB(rest/a))
			}
			for hz := 0.5 * lower; hz < 0.5*float64(in); hz += 0.05 * lower {
				y := r.Flush(r.Process(nil, tone(in/10, in, hz, amplitude)))
				worst := 0.0
				for _, v := range y[len(y)/5 : len(y)*4/5] {
					worst = math.Max(worst, math.Abs(float64(v)))
				}
				alias = math.Max(alias, dB(worst/amplitude))
			}
			t.Logf("ripple %.3f dB, THD+N %.1f dB, alias %.1f dB, time off by %.3f µs at most", ripple, noise, alias, late)
			if ripple > 0.05 || noise > -80 || late > 1 || in > out && alias > -80 {
				t.Errorf("ripple %.3f dB, THD+N %.1f dB, alias %.1f dB, late %.3f µs", ripple, noise, alias, late)
			}
		})
	}
}

// TestAnyDivision: the same samples for every division into chunks, and one
// output for every k*in/out within the input.
func TestAnyDivision(t *testing.T) {
	all := pairs()
	rapid.Check(t, func(rt *rapid.T) {
		p := rapid.SampledFrom(all).Draw(rt, "rates")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		x := make([]int16, rng.IntN(4000))
		for i := range x {
			x[i] = int16(rng.Uint32())
		}
		r := mustNew(t, p[0], p[1])
		whole := r.Flush(r.Process(nil, x))
		var parts []int16
		for left := x; len(left) > 0; {
			n := 1 + rng.IntN(min(len(left), 1+rng.IntN(1500)))
			parts = r.Process(parts, left[:n])
			if rng.IntN(4) == 0 {
				r.Tail(nil)
			}
			left = left[n:]
		}
		parts = r.Flush(parts)
		if !cmp.Equal(whole, parts) {
			rt.Fatalf("%v: differs when divided", p)
		}
		up, down := r.Ratio()
		if want := (len(x)*up + down - 1) / down; len(whole) != want {
			rt.Fatalf("%v: %d outputs of %d, want %d", p, len(whole), len(x), want)
		}
	})
}

// TestTail: the tail is what Process would give if zeros came, and Process
// gives the rest unharmed.
func TestTail(t *testing.T) {
	for _, p := range pairs() {
		r, other := mustNew(t, p[0], p[1]), mustNew(t, p[0], p[1])
		x := tone(p[0]/50, p[0], 700, 20000)
		a := r.Process(nil, x)
		b := r.Tail(nil)
		padded := other.Process(nil, append(append([]int16(nil), x...), make([]int16, r.Lag()+8)...))
		if got := append(a, b...); !cmp.Equal(got, padded[:len(got)]) {
			t.Errorf("%v: the tail is not that of silence", p)
		}
	}
}

// TestIdentity: upwards the samples themselves stay; equal rates are a copy;
// silence and full scale stay what they are.
func TestIdentity(t *testing.T) {
	x := tone(400, 8000, 1000, 32767)
	for _, out := range []int{8000, 16000, 32000, 48000} {
		r := mustNew(t, 8000, out)
		y := r.Flush(r.Process(nil, x))
		for i, v := range x {
			if y[i*out/8000] != v {
				t.Fatalf("8000-%d: sample %d is %d, was %d", out, i, y[i*out/8000], v)
			}
		}
	}
	for _, p := range pairs() {
		r := mustNew(t, p[0], p[1])
		x := make([]int16, p[0]/10)
		for i := range x {
			x[i] = math.MinInt16
		}
		y := r.Flush(r.Process(nil, x))
		for i := len(y) / 3; i < len(y)*2/3; i++ {
			if y[i] != math.MinInt16 {
				t.Fatalf("%v: constant input gives %d", p, y[i])
			}
		}
	}
}

// TestReset: nothing of one stream is heard in the next, and an offset moves
// the outputs by parts of a sample.
func TestReset(t *testing.T) {
	r := mustNew(t, 44100, 8000)
	x := tone(4410, 44100, 300, 20000)
	first := r.Flush(r.Process(nil, x))
	if again := r.Flush(r.Process(nil, x)); !cmp.Equal(first, again) {
		t.Error("a second stream differs from the first")
	}
	up, down := r.Ratio()
	for _, offset := range []int{1, up / 2, up, down - 1} {
		r.Reset(offset)
		y := r.Flush(r.Process(nil, x))
		_, phase, _ := fit(y[200:600], 8000, 300)
		at := float64(200)/8000 + float64(offset)/float64(up)/44100
		if off := math.Remainder(phase-2*math.Pi*300*at, 2*math.Pi) / (2 * math.Pi * 300); math.Abs(off) > 1e-6 {
			t.Errorf("offset %d: %.2f µs off", offset, off*1e6)
		}
	}
}

func TestUnsupported(t *testing.T) {
	for _, p := range [][2]int{{0, 8000}, {8000, -1}, {8000, 8001}, {96000, 48000}} {
		if _, err := New(p[0], p[1]); err == nil {
			t.Errorf("%v: no error", p)
		}
	}
}

func TestDoesNotAllocate(t *testing.T) {
	for _, p := range pairs() {
		r := mustNew(t, p[0], p[1])
		x, y := make([]int16, p[0]/50), make([]int16, 0, p[1]/25)
		step := func() { y = r.Tail(r.Process(y[:0], x)) }
		if got := testing.AllocsPerRun(50, step); got != 0 {
			t.Errorf("%v: %v allocations a packet", p, got)
		}
	}
}

// BenchmarkPacket is 20 ms of one stream.
func BenchmarkPacket(b *testing.B) {
	for _, p := range [][2]int{
		{8000, 16000},
		{8000, 48000},
		{16000, 8000},
		{16000, 48000},
		{48000, 8000},
		{48000, 16000},
		{44100, 8000},
		{44100, 16000},
		{44100, 48000},
		{32000, 16000},
	} {
		b.Run(fmt.Sprintf("%d-%d", p[0], p[1]), func(b *testing.B) {
			r := mustNew(b, p[0], p[1])
			x, y := tone(p[0]/50, p[0], 1000, 10000), make([]int16, 0, p[1]/25)
			b.ReportAllocs()
			for b.Loop() {
				y = r.Process(y[:0], x)
			}
		})
	}
}

// FuzzProcess gives arbitrary samples in arbitrary chunks: nothing but outputs
// of the right number may come of it.
func FuzzProcess(f *testing.F) {
	f.Add(uint8(0), []byte{})
	f.Add(uint8(9), []byte{255, 127, 3, 0, 128, 9})
	all := pairs()
	f.Fuzz(func(t *testing.T, pair uint8, data []byte) {
		p := all[int(pair)%len(all)]
		r := mustNew(t, p[0], p[1])
		var y []int16
		n := 0
		for len(data) > 0 {
			x := make([]int16, 1+int(data[0]))
			for i := range x {
				x[i] = int16(data[i%len(data)])<<8 | int16(i)
			}
			data, n = data[1:], n+len(x)
			y = r.Process(y, x)
		}
		y = r.Flush(y)
		up, down := r.Ratio()
		if want := (n*up + down - 1) / down; len(y) != want {
			t.Fatalf("%v: %d outputs of %d, want %d", p, len(y), n, want)
		}
	})
}

// TestRatesOfL16: linear samples of every rate of RFC 3551 section 4.1 can be brought
// to those of recordings.
func TestRatesOfL16(t *testing.T) {
	for _, in := range []int{8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000} {
		for _, out := range []int{8000, 16000, 48000} {
			if _, err := New(in, out); err != nil {
				t.Error(err)
			}
		}
	}
}
