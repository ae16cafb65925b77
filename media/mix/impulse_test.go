package mix_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/source"
)

// Clicks pass the tap on both sides at the same instants; the test measures
// how far from each other they lie in the recording.

const (
	clickNS    = int64(1e9)   // from one click to the next
	clickFirst = int64(500e6) // after the origin
	clickHalf  = 8            // samples
	reportNS   = int64(5e9)   // from one sender report to the next
)

// clickSide is one side of such a call.
type clickSide struct {
	impair
	reports    bool
	ntpOffset  int64   // ns, of the sender's NTP clock
	ntpSkewPPM float64 // of the sender's NTP clock

	at    []float64 // by click: ms in the recording, NaN where it was lost
	since int64     // arrival of the first packet after the origin, ns
	least int64     // arrival of the first packet of (nearly) the least delay, ns
	stats mix.Stats
}

// index is the sender's sample at a time after the origin, on the wire of the
// least delay.
func (c *clickSide) index(ns int64) float64 {
	return float64(ns-c.startNS-baseDelayNS) / 1e9 * simRate * (1 + c.skewPPM*1e-6)
}

// fill is silence with a raised cosine about each click.
func (c *clickSide) fill(first int64, pcm []int16) {
	clear(pcm)
	from := c.startNS + baseDelayNS + c.impair.at(first)
	n := max((from-clickFirst)/clickNS, 0)
	for ; ; n++ {
		center := c.index(clickFirst+n*clickNS) - float64(first)
		if center > float64(len(pcm)+clickHalf) {
			return
		}
		for i := max(int(center)-clickHalf, 0); i <= int(center)+clickHalf+1 && i < len(pcm); i++ {
			if x := (float64(i) - center) / clickHalf; x > -1 && x < 1 {
				pcm[i] = int16(math.Round(10000 * (1 + math.Cos(math.Pi*x))))
			}
		}
	}
}

// play records the side and finds its clicks.
func (c *clickSide) play() {
	const originNS = int64(7e9)
	packets, _, _, _ := c.generate(originNS)
	length := c.lengthNS * simRate / 1e9
	s := newSideSim(length)
	s.fill = c.fill
	s.track.SetOrigin(originNS)
	s.track.Negotiated(originNS, true)
	c.at = make([]float64, c.lengthNS/clickNS)
	sum, weight := make([]float64, len(c.at)), make([]float64, len(c.at))
	c.since, c.least = math.MaxInt64, math.MaxInt64
	rng := rand.New(rand.NewPCG(c.seed, 5))
	reportAt := originNS + c.startNS + rng.Int64N(reportNS)
	var block [simPacket]int16
	next := 0
	for p := int64(0); p < length; p += simPacket {
		now := originNS + p*1e9/simRate + lookbackNS
		for ; next < len(packets) && packets[next].arrival <= now; next++ {
			w := packets[next]
			c.since = min(c.since, w.arrival-originNS)
			if w.excess <= leastNS {
				c.least = min(c.least, w.arrival-originNS)
			}
			s.packet(w)
			if c.reports && w.arrival >= reportAt {
				c.report(s, w, reportAt-originNS)
				reportAt += reportNS
			}
		}
		for ssrc := range s.buffers {
			s.pop(ssrc, now)
		}
		s.track.Read(block[:], nil)
		for i, v := range block {
			if v == 0 {
				continue
			}
			at := float64(p+int64(i)) * 1e3 / simRate
			if n := int(math.Round((at - float64(clickFirst)/1e6) / (float64(clickNS) / 1e6))); n >= 0 && n < len(sum) {
				sum[n], weight[n] = sum[n]+at*float64(v), weight[n]+float64(v)
			}
		}
	}
	for n := range c.at {
		c.at[n] = math.NaN()
		if weight[n] > 0.98*10000*2*clickHalf { // all of it was there
			c.at[n] = sum[n] / weight[n]
		}
	}
	c.stats = s.track.Stats()
}

// report is a sender report of the time ns after the origin, as lane code would
// take it.
func (c *clickSide) report(s *sideSim, w wire, ns int64) {
	rtp := w.h.Timestamp + uint32(int64(math.Round(float64(ns-c.startNS)/1e9*simRate*(1+c.skewPPM*1e-6)))-w.first)
	ntp := uint64(float64(ns)*(1+c.ntpSkewPPM*1e-6)) + uint64(c.ntpOffset)
	r := source.SenderReport{SSRC: w.h.SSRC, RTPTime: rtp, NTP: ntp/1e9<<32 | ntp%1e9<<32/1e9}
	st := s.states[r.SSRC]
	if ts, ok := st.SenderReport(r); ok {
		s.track.Report(mix.Key{SSRC: r.SSRC, Epoch: st.Base()}, ts, r.NTPNanos())
	}
}

// distances are the worst between clicks of two sides, in ms: since both were
// there at all, since both had had a packet of the least delay, and since both
// had, for ten seconds, been there.
type distances struct {
	any, first, ten float64
	clicks          int
}

func apart(a, b *clickSide) (w distances) {
	since, least := max(a.since, b.since), max(a.least, b.least)
	for i := range a.at {
		ns := clickFirst + int64(i)*clickNS
		d := math.Abs(a.at[i] - b.at[i])
		if math.IsNaN(d) || ns < since {
			continue
		}
		w.clicks++
		w.any = math.Max(w.any, d)
		if ns < least {
			continue
		}
		w.first = math.Max(w.first, d)
		if ns >= since+10e9 {
			w.ten = math.Max(w.ten, d)
		}
	}
	return w
}

// scene is one row of the table.
type scene struct {
	jitterMS int64
	loss     float64
	dtx      bool
	reports  bool
	seconds  int64
	calls    int
}

// run plays the scene's calls and returns the worst distances, and how much of
// the audio was resampled, in percent.
func (sc scene) run(seed uint64) (worst distances, resampled float64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	var read, moved int64
	for range sc.calls {
		var sides [2]clickSide
		for i := range sides {
			sides[i] = clickSide{
				impair: impair{
					seed: rng.Uint64(), startNS: rng.Int64N(3e9), lengthNS: sc.seconds * 1e9, skewPPM: float64(rng.IntN(401) - 200),
					jitterNS: sc.jitterMS * 1e6, loss: sc.loss, dtx: sc.dtx,
				},
				reports: sc.reports, ntpOffset: rng.Int64N(12 * 3600e9), ntpSkewPPM: float64(rng.IntN(101) - 50),
			}
		}
		if sc.calls == 1 { // the farthest that two clocks may be apart
			sides[0].skewPPM, sides[1].skewPPM = 200, -200
		}
		for i := range sides {
			sides[i].play()
			read, moved = read+sides[i].stats.Read, moved+sides[i].stats.Resampled
		}
		w := apart(&sides[0], &sides[1])
		worst.any, worst.first, worst.ten = math.Max(worst.any, w.any), math.Max(worst.first, w.first), math.Max(worst.ten, w.ten)
		worst.clicks += w.clicks
	}
	return worst, 100 * float64(moved) / float64(read)
}

// impulses runs scenes against the published bounds and prints the table.
func impulses(t *testing.T, scenes []scene) {
	t.Logf("%6s %5s %5s %5s %5s %5s | %7s %7s %8s %8s %6s", "jitter", "loss", "dtx", "rtcp", "calls", "s", "clicks", "any ms", "first ms", "10 s ms", "moved")
	for i, sc := range scenes {
		w, moved := sc.run(uint64(100 + i/2))
		t.Logf("%3d ms %4.0f%% %5v %5v %5d %5d | %7d %7.2f %8.2f %8.2f %5.1f%%",
			sc.jitterMS, 100*sc.loss, sc.dtx, sc.reports, sc.calls, sc.seconds, w.clicks, w.any, w.first, w.ten, moved)
		if w.first > boundFirst || w.ten > boundTen || w.clicks < sc.calls*int(sc.seconds)/10 {
			t.Errorf("%+v: %+v", sc, w)
		}
	}
}

// TestImpulses is the quick form of TestSimImpulses.
func TestImpulses(t *testing.T) {
	var scenes []scene
	for _, reports := range []bool{false, true} {
		scenes = append(scenes,
			scene{jitterMS: 0, reports: reports, seconds: 120, calls: 1},
			scene{jitterMS: 200, loss: 0.1, reports: reports, seconds: 120, calls: 3},
			scene{jitterMS: 200, loss: 0.1, dtx: true, reports: reports, seconds: 120, calls: 3},
		)
	}
	impulses(t, scenes)
}

// TestSimImpulses: an hour of every kind, and many short calls for the start.
func TestSimImpulses(t *testing.T) {
	long(t)
	var scenes []scene
	for _, k := range []scene{
		{jitterMS: 0}, {jitterMS: 50, loss: 0.03}, {jitterMS: 200, loss: 0.1}, {jitterMS: 200, loss: 0.1, dtx: true},
	} {
		for _, reports := range []bool{false, true} {
			k.reports, k.seconds, k.calls = reports, 3600, 1
			scenes = append(scenes, k)
			k.seconds, k.calls = 40, 200
			scenes = append(scenes, k)
		}
	}
	impulses(t, scenes)
}

// long skips a simulation of hours unless it is asked for: make sim.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() || !testing.Verbose() {
		t.Skip("hours of packets: only with -v, as make sim has it")
	}
}
