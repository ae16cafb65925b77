package recorder

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/mix"
)

// toneEnergy is that of a digit's row and column in 20 ms of audio.
func toneEnergy(pcm []int16, digit byte) float64 {
	row, column := map[byte]float64{'5': 770, '*': 941, '1': 697}[digit], map[byte]float64{'5': 1336, '*': 1209, '1': 1209}[digit]
	return min(mediatest.Energy(pcm, row, 8000), mediatest.Energy(pcm, column, 8000))
}

// TestMaskDTMF: no 20 ms of the audio hold a tone, the voice beside the keys is
// whole, and each span that was silenced is told.
func TestMaskDTMF(t *testing.T) {
	ext := media.External
	keys := []key{{1000, '5'}, {2000, '*'}, {2300, '1'}}
	lose := func(steps []step, ms ...int) []step {
		return slices.DeleteFunc(slices.Clone(steps), func(s step) bool {
			return slices.Contains(ms, int(s.at.Sub(at(0)).Milliseconds()))
		})
	}
	for name, tc := range map[string]struct {
		steps   [][]step
		conceal bool
		listed  string
	}{
		"tones":                                {[][]step{toneless(4000), typed(ext, 4000, true, keys...)}, false, "0@1000 5 inband, 0@2000 * inband, 0@2300 1 inband"},
		"tones beside an agreement":            {[][]step{answered(4000), typed(ext, 4000, true, keys...)}, false, "0@1000 5 inband, 0@2000 * inband, 0@2300 1 inband"},
		"events":                               {[][]step{answered(4000), typed(ext, 4000, false, keys...)}, false, "0@1000 5, 0@2000 *, 0@2300 1"},
		"tones beside events":                  {[][]step{answered(4000), typed(ext, 4000, true, keys...), events4733(ext, keys...)}, false, "0@1000 5, 0@2000 *, 0@2300 1"},
		"a tone that is lost in part, made up": {[][]step{toneless(4000), lose(typed(ext, 4000, true, keys...), 1060, 1080, 1100, 1120)}, true, "0@1000 5 inband, 0@2000 * inband, 0@2300 1 inband"},
		"a loss before a tone":                 {[][]step{toneless(4000), lose(typed(ext, 4000, true, keys...), 980)}, true, "0@1000 5 inband, 0@2000 * inband, 0@2300 1 inband"},
	} {
		for _, lookback := range []time.Duration{0, 500 * time.Millisecond, 5 * time.Second} {
			t.Run(fmt.Sprint(name, " ", lookback), func(t *testing.T) {
				plan := testPlan()
				plan.MaskDTMF, plan.Conceal, plan.Lookback = true, tc.conceal, lookback
				sink, m := replayed(t, plan, script(append(tc.steps, talk(media.Internal, 0, 4000, constant(0x20)))...))
				checkAccount(t, m, sink)
				if got := listed(m); got != tc.listed {
					t.Errorf("listed %s, want %s", got, tc.listed)
				}
				masked(t, sink, m, keys)
			})
		}
	}
}

// TestMaskDTMFOfLatePackets: a key that comes after what listens for tones has
// passed its place, and before that is sealed, is heard nowhere.
func TestMaskDTMFOfLatePackets(t *testing.T) {
	keys := []key{{1000, '5'}}
	for _, mask := range []bool{false, true} {
		steps := typed(media.External, 4000, true, keys...)
		for i := range steps {
			if ms := int(steps[i].at.Sub(at(0)).Milliseconds()); ms >= 1000 && ms < 1100 {
				wire := packet(0, uint16(ms/20), uint32(8*ms), 0x1000, tonePart('5', ms-1000))
				when := at(ms + 380)
				steps[i] = step{at: when, do: func(c *testCall) { c.put(media.External, when, wire) }}
			}
		}
		plan := testPlan()
		plan.MaskDTMF = mask
		sink, m := replayed(t, plan, script(toneless(4000), steps, talk(media.Internal, 0, 4000, constant(0x20))))
		checkAccount(t, m, sink)
		worst := 0.0
		pcm := sink.pcm()[0]
		for i := 7200; i < 9600; i += 80 {
			worst = max(worst, toneEnergy(pcm[i:i+160], '5'))
		}
		if heard := worst > 1e4; heard == mask {
			t.Errorf("mask %v: the tone has the energy %.0f; gaps %+v", mask, worst, m.Gaps)
		}
		if late := m.Streams[0].Late; (late > 0) != mask {
			t.Errorf("mask %v: %d packets are late", mask, late)
		}
	}
}

// TestMaskDTMFOfDelayedPackets: a key whose packets come almost as late as
// reordered ones may is masked from 60 ms before it, with no lookback at all:
// the hold is longer by the time in which a tone becomes certain.
func TestMaskDTMFOfDelayedPackets(t *testing.T) {
	keys := []key{{1000, '5'}}
	const delayMS = 140
	steps := typed(media.External, 4000, true, keys...)
	for i, n := range steps {
		if ms := int(n.at.Sub(at(0)).Milliseconds()); ms >= 900 {
			wire := packet(0, uint16(ms/20), uint32(8*ms), 0x1000, slices.Repeat([]byte{0x30}, 160))
			for _, k := range keys {
				if ms >= k.ms && ms < k.ms+100 {
					copy(wire[12:], tonePart(k.digit, ms-k.ms))
				}
			}
			when := at(ms + delayMS)
			steps[i] = step{at: when, do: func(c *testCall) { c.put(media.External, when, wire) }}
		}
	}
	plan := testPlan()
	plan.MaskDTMF, plan.Lookback = true, 0
	sink, m := replayed(t, plan, script(toneless(4000), steps, talk(media.Internal, 0, 4000, constant(0x20))))
	checkAccount(t, m, sink)
	filled := make([]bool, m.RealMS)
	for _, g := range m.Gaps {
		for ms := g.RealMS; ms < g.RealMS+g.DurationMS; ms++ {
			filled[ms] = filled[ms] || g.Cause == GapMasked
		}
	}
	for ms := keys[0].ms - 55; ms < keys[0].ms+100; ms++ {
		if !filled[ms] {
			t.Fatalf("ms %d of the key at %d is not masked; gaps %+v", ms, keys[0].ms, m.Gaps)
		}
	}
}

// masked checks audio and account of a channel 0 with these keys.
func masked(t *testing.T, sink *memSink, m *Manifest, keys []key) {
	t.Helper()
	pcm := sink.pcm()
	filled := make([]bool, m.RealMS)
	for _, g := range m.Gaps {
		if g.Channel == 1 {
			t.Errorf("gap %+v on the channel without keys", g)
		}
		for ms := g.RealMS; ms < g.RealMS+g.DurationMS; ms++ {
			filled[ms] = g.Cause == GapMasked
			if quiet := !slices.ContainsFunc(pcm[0][8*ms:8*ms+8], func(v int16) bool { return v != 0 }); g.Cause == GapMasked && !quiet {
				t.Fatalf("ms %d is masked and not silent", ms)
			}
		}
	}
	for _, k := range keys {
		for ms := k.ms - 55; ms < k.ms+100; ms++ {
			if !filled[ms] {
				t.Fatalf("ms %d of the key at %d is not masked; gaps %+v", ms, k.ms, m.Gaps)
			}
		}
		for i := 8 * (k.ms - 100); i < 8*(k.ms+300); i += 80 {
			if e := toneEnergy(pcm[0][i:i+160], k.digit); e > 1e4 {
				t.Errorf("%d ms: the tone of %c has the energy %.0f", i/8, k.digit, e)
			}
		}
	}
	for ms := range filled {
		far := !slices.ContainsFunc(keys, func(k key) bool { return ms >= k.ms-90 && ms < k.ms+240 })
		if far && filled[ms] {
			t.Fatalf("ms %d is masked, far from any key; gaps %+v", ms, m.Gaps)
		}
		if far && pcm[0][8*ms] == 0 && ms < 3990 {
			t.Fatalf("ms %d: the voice is gone", ms)
		}
	}
}

// TestMasks holds masks against a mark for each sample, over any cuts.
func TestMasks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		rng := rand.New(rand.NewPCG(seed, 1))
		const length = 4000
		m, want := masks{}, [length]bool{}
		mark := func(s span) {
			for i := max(0, s.from); i < min(length, s.to); i++ {
				want[i] = true
			}
		}
		for range rng.IntN(40) {
			s := span{rng.Int64N(length) - 100, 0}
			s.to = min(s.from+rng.Int64N(300)-20, length)
			switch rng.IntN(3) {
			case 0:
				m.toneSpan(s)
				m.toneOver()
			case 1:
				m.eventSpan(mix.Key{}, rng.Int64(), s)
			case 2:
				m.add(s)
			}
			mark(s)
		}
		for from := int64(0); from < length; {
			n := min(1+rng.Int64N(200), length-from)
			pcm := slices.Repeat([]int16{7}, int(n))
			var marks []mix.Mark
			for at := from; at < from+n && rng.IntN(3) > 0; {
				k := mix.Mark{At: at + rng.Int64N(20), N: 1 + rng.IntN(60), Cause: mix.Late}
				marks, at = append(marks, k), k.At+int64(k.N)
			}
			given := make(map[int64]bool)
			for _, k := range marks {
				for i := range int64(k.N) {
					given[k.At+i] = true
				}
			}
			last := int64(-1)
			for _, k := range m.silence(from, pcm, marks) {
				if k.At <= last || k.N <= 0 {
					rt.Fatalf("seed %d: mark %+v behind %d", seed, k, last)
				}
				for at := k.At; at < k.At+int64(k.N); at++ {
					if is := at < from+n && want[at]; (k.Cause == maskedCause) != is || !is && !given[at] {
						rt.Fatalf("seed %d: sample %d has cause %v, masked %v", seed, at, k.Cause, is)
					}
					delete(given, at)
					last = at
				}
			}
			for i, v := range pcm {
				if at := from + int64(i); (v == 0) != want[at] || given[at] && !want[at] {
					rt.Fatalf("seed %d: sample %d is %d, masked %v", seed, at, v, want[at])
				}
			}
			from += n
		}
		if len(m.list) > 0 {
			rt.Fatalf("%d spans are left", len(m.list))
		}
	})
}

// TestMasksAreBounded: keys without number mask more than they are, and take no more room.
func TestMasksAreBounded(t *testing.T) {
	m := masks{}
	for i := range int64(1000) {
		m.add(span{1000 * i, 1000*i + 1})
	}
	for i := range int64(1000) {
		if got := m.within(1000*i, 1000*i+1); len(m.list) > masksMax || len(got) != 1 {
			t.Fatalf("%d spans are kept, key %d is masked in %v", len(m.list), i, got)
		}
	}
}

// TestMaskingAllocatesNothing in packets without keys.
func TestMaskingAllocatesNothing(t *testing.T) {
	p := testPlan()
	p.MaskDTMF, p.SegmentMax = true, time.Hour
	c := newCore(testSession("call-1"), p, "", plainMemory{}, func(recordingInfo) output { return &discardOutput{} })
	c.answer(at(0))
	for _, s := range []media.Side{media.External, media.Internal} {
		c.stream(media.Stream{ID: media.StreamID(s), Side: s, At: at(0), Formats: g711Formats, Sending: true})
	}
	next := talking(c)
	perSecond := testing.AllocsPerRun(20, func() {
		for range 50 {
			next()
		}
	})
	if perSecond > 10 {
		t.Errorf("%.0f allocations for 100 packets", perSecond)
	}
}
