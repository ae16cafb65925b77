package level

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func mustControl(t testing.TB, rate int) *Control {
	t.Helper()
	c, err := NewControl(rate)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// speech is noise in syllables, of an RMS (dB against full scale) while it is on.
func speech(rng *rand.Rand, rate int, seconds, dB float64) []int16 {
	x := make([]int16, int(seconds*float64(rate)))
	smooth := 0.0
	for i := range x {
		t := float64(i) / float64(rate)
		smooth += 0.5 * (rng.NormFloat64() - smooth)
		envelope := 0.6 + 0.55*math.Sin(2*math.Pi*4*t)
		x[i] = int16(math.Max(-32768, math.Min(32767, 32767*ratio(dB)*smooth*1.73*envelope/0.72)))
	}
	return x
}

func rms(x []int16) float64 {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return 20 * math.Log10(math.Max(math.Sqrt(sum/float64(len(x)))/32767, 1e-6))
}

func peak(x []int16) (p int) {
	for _, v := range x {
		p = max(p, max(int(v), -int(v)))
	}
	return p
}

// TestTarget: speech of any usual level comes near the target within seconds,
// as far as the gain reaches, and no sample lies above the ceiling.
func TestTarget(t *testing.T) {
	for _, rate := range []int{8000, 16000, 48000} {
		for _, dB := range []float64{-45, -38, -32, -26, -20, -14, -8} {
			t.Run(fmt.Sprintf("%.0f dB at %d", dB, rate), func(t *testing.T) {
				c := mustControl(t, rate)
				x := speech(rand.New(rand.NewPCG(1, 2)), rate, 12, dB)
				in := rms(x[8*rate:])
				c.Process(x)
				out := rms(x[8*rate:])
				want := math.Max(in+GainMinDB, math.Min(TargetDB, in+GainMaxDB))
				t.Logf("%.1f dB became %.1f dB", in, out)
				if math.Abs(out-want) > 3 {
					t.Errorf("%.1f dB became %.1f dB, want %.1f", in, out, want)
				}
				if p := peak(x); float64(p) > 32767*ratio(CeilingDB)+1 {
					t.Errorf("peak of %d", p)
				}
			})
		}
	}
}

// TestNoPumping: in pauses, digital silence and noise below the gate, the gain
// does not move, so the noise is as loud at a pause's end as at its beginning.
func TestNoPumping(t *testing.T) {
	const rate = 8000
	rng := rand.New(rand.NewPCG(3, 4))
	for _, noise := range []float64{-90, -55} {
		c := mustControl(t, rate)
		c.Process(speech(rng, rate, 10, -35))
		// Noise of an RMS of its own, without syllables.
		pause := make([]int16, 10*rate)
		for i := range pause {
			pause[i] = int16(math.Round(32767 * ratio(noise) * rng.NormFloat64()))
		}
		c.Process(pause[:rate/10]) // what the last syllable set in motion
		before := c.GainDB()
		c.Process(pause[rate/10:])
		if got := c.GainDB(); got != before || before < 6 {
			t.Errorf("noise of %.0f dB: gain from %.2f to %.2f dB", noise, before, got)
		}
	}
}

// TestTimes: how fast the gain moves, downwards and upwards.
func TestTimes(t *testing.T) {
	const rate = 8000
	rng := rand.New(rand.NewPCG(5, 6))
	c := mustControl(t, rate)
	c.Process(speech(rng, rate, 15, -34))
	high := c.GainDB()
	c.Process(speech(rng, rate, 0.5, -12))
	low := c.GainDB()
	c.Process(speech(rng, rate, 0.5, -34))
	soon := c.GainDB()
	c.Process(speech(rng, rate, 8, -34))
	late := c.GainDB()
	t.Logf("gain %.1f dB, %.1f dB half a second after loud speech began, %.1f dB half a second after it ended, %.1f dB at last", high, low, soon, late)
	if high < 9 || low > 0 || soon > low+6 || late < high-3 {
		t.Errorf("gain %.1f, %.1f, %.1f, %.1f dB", high, low, soon, late)
	}
}

// TestAnyDivision: samples do not depend on the division into chunks.
func TestAnyDivision(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rate := rapid.SampledFrom([]int{8000, 11025, 16000, 48000}).Draw(rt, "rate")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		x := speech(rng, rate, 0.3, -30+20*rng.Float64())
		if rng.IntN(2) == 0 {
			for i := range x {
				x[i] = int16(rng.Uint32())
			}
		}
		y := append([]int16(nil), x...)
		a, b := mustControl(t, rate), mustControl(t, rate)
		a.Process(x)
		for left := y; len(left) > 0; {
			n := 1 + rng.IntN(len(left))
			b.Process(left[:n])
			left = left[n:]
		}
		for i := range x {
			if x[i] != y[i] {
				rt.Fatalf("sample %d is %d in one piece and %d in several", i, x[i], y[i])
			}
		}
		if float64(peak(x)) > 32767*ratio(CeilingDB)+1 {
			rt.Fatalf("peak of %d", peak(x))
		}
	})
}

func TestRateLimits(t *testing.T) {
	for _, rate := range []int{-1, 0, 7999, 192001} {
		if _, err := NewControl(rate); err == nil {
			t.Errorf("%d Hz: no error", rate)
		}
	}
}

func TestDoesNotAllocate(t *testing.T) {
	c, x := mustControl(t, 8000), make([]int16, 160)
	if got := testing.AllocsPerRun(100, func() { c.Process(x); Mono(x, x, x) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// TestMono: one party is kept bit for bit as long as it is not very loud; the
// sum of any two samples rises with both and never turns over.
func TestMono(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	a, silence := speech(rng, 8000, 1, -20), make([]int16, 8000)
	dst := make([]int16, 8000)
	Mono(dst, a, silence)
	for i, v := range a {
		if v > -20000 && v < 20000 && dst[i] != v {
			t.Fatalf("sample %d: %d became %d", i, v, dst[i])
		}
	}
	last := int32(-1 << 20)
	for v := int32(-65536); v <= 65534; v++ {
		y := int32(soft(v))
		if y < last || y > last+1 && v > -65536 || v > 0 && (y <= 0 || y > v) || v < 0 && (y >= 0 || y < v) {
			t.Fatalf("%d became %d after %d", v, y, last)
		}
		last = y
	}
	if soft(65534) > 32766 || soft(-65536) < -32767 {
		t.Errorf("two at full scale: %d, %d", soft(65534), soft(-65536))
	}
}

func BenchmarkControl(b *testing.B) {
	c, x := mustControl(b, 8000), speech(rand.New(rand.NewPCG(1, 1)), 8000, 0.02, -25)
	y := make([]int16, len(x))
	for b.Loop() {
		copy(y, x)
		c.Process(y)
	}
}
