package mix_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// The published bounds, in ms.
const (
	boundFirst = 20.0
	boundTen   = 5.0
)

func drawImpair(rt *rapid.T) impair {
	m := impair{
		seed:     rapid.Uint64Range(0, 1<<32).Draw(rt, "seed"),
		startNS:  rapid.Int64Range(0, 3000).Draw(rt, "start ms") * 1e6,
		lengthNS: rapid.Int64Range(20, 60).Draw(rt, "length s") * 1e9,
		skewPPM:  float64(rapid.IntRange(-200, 200).Draw(rt, "skew ppm")),
		jitterNS: rapid.Int64Range(0, 200).Draw(rt, "jitter ms") * 1e6,
		dup:      rapid.SampledFrom([]float64{0, 0.05}).Draw(rt, "duplicates"),
		dtx:      rapid.IntRange(0, 3).Draw(rt, "dtx") == 0,
		burst:    rapid.IntRange(1, 8).Draw(rt, "burst"),
	}
	m.loss = rapid.Float64Range(0, 0.1).Draw(rt, "loss") / float64(m.burst)
	half := m.lengthNS / 2
	if rapid.Bool().Draw(rt, "jump") {
		m.tsJump = []int64{half}
	}
	if rapid.Bool().Draw(rt, "ssrc") {
		m.newSSRC = []int64{half + half/3}
	}
	return m
}

// Promise 5: where samples lie; promise 4: captured and gaps are the duration.
func TestPlacementAndAccount(t *testing.T) {
	var first, ten, account, sparse float64
	rapid.Check(t, func(rt *rapid.T) {
		m := drawImpair(rt)
		o := m.run()
		if m.dtx {
			sparse = math.Max(sparse, o.worstTen)
		} else {
			ten = math.Max(ten, o.worstTen)
		}
		first = math.Max(first, o.worstFirst)
		if o.worstFirst > boundFirst || o.worstTen > boundTen {
			rt.Fatalf("%v: %.2f ms from the least-delayed packet on, %.2f ms after ten seconds", m, o.worstFirst, o.worstTen)
		}
		// Between runs up to a packet time each is nobody's.
		slack := int64(simPacket * (1 + len(m.tsJump) + len(m.newSSRC)))
		missing := o.length - o.captured - o.marked
		if m.dtx { // silence is where drift and a late first packet are made up for
			missing -= o.silent
			slack += simPacket + int64(math.Abs(m.skewPPM)*1e-6*float64(o.length)) + m.jitterNS*simRate/1e9
		}
		account = math.Max(account, math.Abs(float64(missing)))
		if missing > slack || missing < -slack {
			rt.Fatalf("%v: %d captured, %d marked, %d silent of %d: %d off", m, o.captured, o.marked, o.silent, o.length, missing)
		}
	})
	t.Logf("worst: %.2f ms from the least-delayed packet on, %.2f ms after ten seconds (%.2f with DTX), account off by %.0f samples",
		first, ten, sparse, account)
}

// The same seed gives the same samples.
func TestDeterministic(t *testing.T) {
	m := impair{seed: 5, startNS: 1e9, lengthNS: 30e9, skewPPM: 120, jitterNS: 150e6, loss: 0.05, dup: 0.05}
	if a, b := m.run(), m.run(); a != b {
		t.Errorf("two runs differ:\n%+v\n%+v", a, b)
	}
}

// A call of an hour with clocks far apart.
func TestOneHour(t *testing.T) {
	if testing.Short() {
		t.Skip("an hour of packets: not with -short")
	}
	for _, skew := range []float64{200, -200} {
		m := impair{seed: 1, startNS: 700e6, lengthNS: 3600e9, skewPPM: skew, jitterNS: 200e6, loss: 0.01}
		o := m.run()
		t.Logf("skew %+.0f: %.2f ms first, %.2f ms after ten seconds, skew found %.2f, resampled %.1f %%",
			skew, o.worstFirst, o.worstTen, o.skew, 100*float64(o.stats.Resampled)/float64(o.stats.Read))
		if o.worstFirst > boundFirst || o.worstTen > boundTen {
			t.Errorf("%v: %.2f ms, %.2f ms", m, o.worstFirst, o.worstTen)
		}
		if math.Abs(o.skew-skew) > 3 {
			t.Errorf("%v: skew %.2f", m, o.skew)
		}
		if missing := o.length - o.captured - o.marked; missing < -simPacket || missing > simPacket {
			t.Errorf("%v: account off by %d samples", m, missing)
		}
	}
}

// Without skew and jitter every sample is copied, none resampled.
func TestBitExact(t *testing.T) {
	m := impair{seed: 3, startNS: 500e6, lengthNS: 60e9, loss: 0.02}
	o := m.run()
	if o.stats.Resampled != 0 || o.stats.Corrections != 0 {
		t.Errorf("%d samples resampled in %d corrections", o.stats.Resampled, o.stats.Corrections)
	}
	if o.worstFirst > 0.07 { // half a sample
		t.Errorf("%.3f ms off", o.worstFirst)
	}
}

// A step of the timestamps below a new epoch is followed within seconds.
func TestTimestampShift(t *testing.T) {
	for _, shift := range []int64{-4000, -400, 400, 4000} {
		m := impair{seed: 9, startNS: 100e6, lengthNS: 90e9, jitterNS: 30e6, tsShift: shift}
		o := m.run()
		if o.lastError > 5 {
			t.Errorf("shift of %d samples: still %.2f ms off at the end", shift, o.lastError)
		}
	}
}
