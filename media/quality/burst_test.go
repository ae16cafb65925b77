package quality

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// naive classifies a whole stream by the words of RFC 3611 section 4.7.2: a
// burst begins and ends with a missing packet and has nowhere gmin received
// ones in a row; a missing packet with gmin received ones on either side is of a gap.
func naive(missing []bool) (b bursts) {
	n := len(missing)
	state := make([]int, n)
	for i := 0; i < n; i++ {
		if !missing[i] {
			continue
		}
		last := i
		for j := i + 1; j < n && j-last <= gmin; j++ {
			if missing[j] {
				last = j
			}
		}
		if last == i {
			state[i] = 4
			continue
		}
		b.bursts++
		for j := i; j <= last; j++ {
			state[j] = 2
			if missing[j] {
				state[j] = 3
			}
		}
		i = last
	}
	for i, s := range state {
		gap := s == 0 || s == 4
		if gap && (i == 0 || state[i-1] == 2 || state[i-1] == 3) {
			b.gaps++
		}
		if missing[i] && (i == 0 || !missing[i-1]) {
			b.runs++
		}
		switch s {
		case 0:
			b.gapReceived++
		case 2:
			b.burstReceived++
		case 3:
			b.burstMissing++
		case 4:
			b.gapMissing++
		}
	}
	b.missingAll = b.burstMissing + b.gapMissing
	return b
}

func fed(missing []bool) (b bursts) {
	for _, m := range missing {
		if m {
			b.missing(1)
		} else {
			b.received()
		}
	}
	b.close()
	b.inGap = false // of no interest at the end
	return b
}

func TestBurstsAgainstTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var missing []bool
		for _, run := range rapid.SliceOfN(rapid.IntRange(1, 40), 1, 60).Draw(t, "runs") {
			for range run {
				missing = append(missing, false)
			}
			for range rapid.SampledFrom([]int{0, 1, 1, 1, 2, 3, 17}).Draw(t, "missing") {
				missing = append(missing, true)
			}
		}
		missing = missing[rapid.IntRange(0, len(missing)-1).Draw(t, "cut"):]
		if got, want := fed(missing), naive(missing); got != want {
			t.Fatalf("%v:\n got %+v\nwant %+v", missing, got, want)
		}
	})
}

func TestBursts(t *testing.T) {
	tests := []struct {
		name string
		runs []int // received, missing, received, ...
		want bursts
	}{
		{"none", []int{100}, bursts{gapReceived: 100, gaps: 1}},
		{"one alone", []int{20, 1, 20}, bursts{gapReceived: 40, gapMissing: 1, gaps: 1, missingAll: 1, runs: 1}},
		{"alone near both ends", []int{3, 1, 4}, bursts{gapReceived: 7, gapMissing: 1, gaps: 1, missingAll: 1, runs: 1}},
		{"fifteen between are a burst", []int{20, 1, 15, 1, 20}, bursts{gapReceived: 40, burstReceived: 15, burstMissing: 2, bursts: 1, gaps: 2, missingAll: 2, runs: 2}},
		{"sixteen between are none", []int{20, 1, 16, 1, 20}, bursts{gapReceived: 56, gapMissing: 2, gaps: 1, missingAll: 2, runs: 2}},
		{"two in a row", []int{0, 2, 16, 2}, bursts{gapReceived: 16, burstMissing: 4, bursts: 2, gaps: 1, missingAll: 4, runs: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var missing []bool
			for i, n := range tt.runs {
				for range n {
					missing = append(missing, i%2 == 1)
				}
			}
			if got := fed(missing); got != tt.want {
				t.Errorf("\n got %+v\nwant %+v", got, tt.want)
			}
			if got := naive(missing); got != tt.want {
				t.Errorf("by definition\n got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// appendixA2 is the estimate of RFC 3611 appendix A.2 from the transitions
// between the four states.
func appendixA2(missing []bool) (burstDensity, gapDensity, burstPackets, gapPackets float64) {
	var c11, c13, c14, c22, c23, c33, pkt, lost float64
	for _, m := range missing {
		if !m {
			pkt++
			continue
		}
		switch {
		case pkt >= gmin && lost == 1:
			c14++
			c11 += pkt
		case pkt >= gmin:
			c13++
			lost = 1
			c11 += pkt
		case pkt == 0:
			lost++
			c33++
		default:
			lost++
			c23++
			c22 += pkt - 1
		}
		pkt = 0
	}
	c31, c32 := c13, c23
	p32, p23 := c32/(c31+c32+c33), 1-c22/(c22+c23)
	total := c11 + c14 + c13 + c22 + c23 + c31 + c32 + c33
	gap := (c11 + c14 + c13) / c13
	return p23 / (p23 + p32), c14 / (c11 + c14), total/c13 - gap, gap
}

// On a long stream with bursts the counts come to what the appendix estimates.
func TestBurstsAgainstAppendixA2(t *testing.T) {
	rng := rand.New(rand.NewPCG(3611, 2))
	missing := make([]bool, 2_000_000)
	bad := false
	for i := range missing {
		if bad {
			bad = rng.Float64() > 0.02
		} else {
			bad = rng.Float64() < 0.001
		}
		missing[i] = rng.Float64() < map[bool]float64{true: 0.35, false: 0.002}[bad]
	}
	b := fed(missing)
	got := []float64{
		float64(b.burstMissing) / float64(b.burstMissing+b.burstReceived), float64(b.gapMissing) / float64(b.gapMissing+b.gapReceived),
		float64(b.burstMissing+b.burstReceived) / float64(b.bursts), float64(b.gapMissing+b.gapReceived) / float64(b.gaps),
	}
	d, g, bl, gl := appendixA2(missing)
	for i, want := range []float64{d, g, bl, gl} {
		// The appendix counts the packet that ends a gap twice, and estimates.
		if math.Abs(got[i]-want) > 0.1*want {
			t.Errorf("figure %d: %.4f, the appendix has %.4f", i, got[i], want)
		}
	}
	t.Logf("counted %.4f, appendix %.4f %.4f %.4f %.4f", got, d, g, bl, gl)
}

func TestBurstRatio(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := make([]bool, 500_000)
	for i := range random {
		random[i] = rng.Float64() < 0.05
	}
	if got := fed(random); math.Abs(got.ratio(0.05)-1) > 0.02 {
		t.Errorf("random loss has a ratio of %.3f", got.ratio(0.05))
	}
	inFours := make([]bool, 1000)
	for i := range inFours {
		inFours[i] = i%100 < 4
	}
	if got := fed(inFours); math.Abs(got.ratio(0.04)-4*0.96) > 1e-9 {
		t.Errorf("runs of four have a ratio of %.3f", got.ratio(0.04))
	}
	if got := (&bursts{}).ratio(0); got != 1 {
		t.Errorf("no loss has a ratio of %v", got)
	}
}
