package mix_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"

	"github.com/pion/rtp"

	"github.com/trunktap/trunktap/media/jitter"
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/source"
)

// A simulated side: what a sender sends, what the network does to it, and the
// cores that the pipeline is made of. Every sample carries its own index, so
// that what is read tells where each of them was placed.

const (
	simRate    = 8000
	simPacket  = 160
	simPeriod  = 30000 // samples until values repeat
	lookbackNS = int64(500e6)
	windowNS   = int64(250e6)
)

// impair describes a side.
type impair struct {
	seed     uint64
	startNS  int64 // first packet after the origin
	lengthNS int64 // of the call
	skewPPM  float64
	jitterNS int64 // uniform from 0
	loss     float64
	burst    int // packets lost at once
	dup      float64
	dtx      bool
	tsJump   []int64 // ns after the start: a new timestamp base
	tsShift  int64   // samples added at once at half time, no new epoch
	newSSRC  []int64 // ns after the start: the sender begins anew
}

func (m impair) String() string {
	return fmt.Sprintf("seed %d start %dms skew %.0fppm jitter %dms loss %.3f burst %d dup %.2f dtx %v jumps %d shift %d ssrcs %d length %ds",
		m.seed, m.startNS/1e6, m.skewPPM, m.jitterNS/1e6, m.loss, m.burst, m.dup, m.dtx, len(m.tsJump), m.tsShift, len(m.newSSRC), m.lengthNS/1e9)
}

type wire struct {
	arrival int64
	excess  int64 // over the least delay
	h       rtp.Header
	first   int64 // sender sample index, over all SSRCs
}

const baseDelayNS = int64(37e6)

// generate makes the packets of a side in order of arrival, and says which of
// the sender's packets were sent and lost.
func (m impair) generate(originNS int64) (packets []wire, sent, lost int, silent int64) {
	rng := rand.New(rand.NewPCG(m.seed, 77))
	ssrc, seq, ts := rng.Uint32(), uint16(rng.Uint32()), rng.Uint32()
	jumps, ssrcs := m.tsJump, m.newSSRC
	shifted := false
	talk, burst := true, 0
	var pause int64 // silence since the run's last packet, -1 before its first
	pause = -1
	left := 1 + rng.IntN(100)
	for i := int64(0); ; i += simPacket {
		at := m.startNS + m.at(i)
		if at >= m.lengthNS {
			return sortWire(packets), sent, lost, silent
		}
		if m.dtx {
			if left--; left == 0 {
				talk, left = !talk, 20+rng.IntN(200)
			}
		}
		if len(jumps) > 0 && at-m.startNS >= jumps[0] {
			jumps, ts, pause = jumps[1:], ts+100_000+rng.Uint32N(1<<30), -1
		}
		if m.tsShift != 0 && !shifted && at > m.lengthNS/2 {
			shifted, ts = true, ts+uint32(m.tsShift)
		}
		if len(ssrcs) > 0 && at-m.startNS >= ssrcs[0] {
			ssrcs, ssrc, seq, ts, pause = ssrcs[1:], rng.Uint32(), uint16(rng.Uint32()), rng.Uint32(), -1
		}
		ts += simPacket
		if !talk {
			if pause >= 0 {
				pause += simPacket
			}
			continue
		}
		seq++
		sent++
		if burst > 0 || rng.Float64() < m.loss {
			if burst == 0 {
				burst = max(m.burst, 1)
			}
			burst--
			lost++
			continue
		}
		silent += max(pause, 0)
		pause = 0
		copies := 1
		if rng.Float64() < m.dup {
			copies = 2
		}
		for range copies {
			var excess int64
			if m.jitterNS > 0 {
				excess = rng.Int64N(m.jitterNS)
			}
			packets = append(packets, wire{
				originNS + at + baseDelayNS + excess, excess,
				rtp.Header{Version: 2, SSRC: ssrc, SequenceNumber: seq, Timestamp: ts - simPacket},
				i,
			})
		}
	}
}

// at is when the sender's sample i is sent, after its start.
func (m impair) at(i int64) int64 {
	return int64(float64(i) * 1e9 / (simRate * (1 + m.skewPPM*1e-6)))
}

// truth is the position of sample i on the least-delayed path.
func (m impair) truth(i int64) float64 {
	return float64(m.startNS+m.at(i)+baseDelayNS) * simRate / 1e9
}

func sortWire(p []wire) []wire {
	sort.SliceStable(p, func(i, j int) bool { return p[i].arrival < p[j].arrival })
	return p
}

func value(i int64) int16 { return int16(i%simPeriod) + 1 }

// sideSim drives the cores of one side.
type sideSim struct {
	track   *mix.Track
	states  map[uint32]*source.State
	buffers map[uint32]*jitter.Buffer
	ends    map[mix.Key]int64
	pcm     [simPacket]int16
	fill    func(first int64, pcm []int16) // what the sender's samples are
	firsts  map[uint32]map[int64]int64     // by SSRC, extended seq: sender index
	gaps    []bool                         // by position: marked as missing
	causes  map[mix.Cause]int64
	late    int
}

func newSideSim(length int64) *sideSim {
	return &sideSim{
		track: mix.NewTrack(mix.Config{Rate: simRate}), states: map[uint32]*source.State{},
		buffers: map[uint32]*jitter.Buffer{}, ends: map[mix.Key]int64{}, firsts: map[uint32]map[int64]int64{},
		gaps: make([]bool, length), causes: map[mix.Cause]int64{},
		fill: func(first int64, pcm []int16) {
			for i := range pcm {
				pcm[i] = value(first + int64(i))
			}
		},
	}
}

func (s *sideSim) packet(w wire) {
	st := s.states[w.h.SSRC]
	if st == nil {
		st = &source.State{Clock: simRate}
		s.states[w.h.SSRC] = st
		s.buffers[w.h.SSRC] = jitter.New(windowNS, 64)
		s.firsts[w.h.SSRC] = map[int64]int64{}
	}
	seq, ts, v := st.Update(&w.h, w.arrival)
	if !v.Usable() {
		return
	}
	k := mix.Key{SSRC: w.h.SSRC, Epoch: st.Epoch()}
	s.track.Arrived(k, ts, simRate, w.arrival)
	s.firsts[w.h.SSRC][seq] = w.first
	p := source.Packet{Arrival: w.arrival, SSRC: w.h.SSRC, Epoch: st.Epoch(), Seq: seq, TS: ts}
	if s.buffers[w.h.SSRC].Push(p) == jitter.Late {
		s.late++
		s.track.Late(k, ts, simPacket)
	}
	s.pop(w.h.SSRC, w.arrival)
}

func (s *sideSim) pop(ssrc uint32, now int64) {
	for {
		p, lost, ok := s.buffers[ssrc].Pop(now)
		if !ok {
			return
		}
		k := mix.Key{SSRC: ssrc, Epoch: p.Epoch}
		if end, known := s.ends[k]; known && lost > 0 {
			// What is missing at most: the lost packets; before them may lie DTX.
			s.track.Hole(k, max(end, p.TS-lost*simPacket), p.TS, mix.Loss)
		}
		first := s.firsts[ssrc][p.Seq]
		s.fill(first, s.pcm[:])
		delete(s.firsts[ssrc], p.Seq)
		s.track.Audio(k, p.TS, s.pcm[:])
		s.ends[k] = p.TS + simPacket
	}
}

func (s *sideSim) resolved() {
	for _, r := range s.track.Resolved() {
		for p := r.From; p < r.To && p < int64(len(s.gaps)); p++ {
			s.gaps[p] = !r.Withdrawn
		}
		if !r.Withdrawn {
			s.causes[r.Cause] += r.To - r.From
		}
	}
}

// outcome is what one simulated side showed.
type outcome struct {
	worstFirst float64 // ms, from the first packet with the least delay on
	worstTen   float64 // ms, after ten seconds of a stream
	captured   int64
	marked     int64
	silent     int64   // DTX silence that was sent
	lastError  float64 // ms, of the last sample
	length     int64
	skew       float64
	stats      mix.Stats
	late       int
	sent, lost int
}

// run plays a side through the cores.
func (m impair) run() outcome {
	const originNS = int64(3e9)
	packets, sent, lost, silent := m.generate(originNS)
	length := m.lengthNS * simRate / 1e9
	s := newSideSim(length)
	t := s.track
	t.SetOrigin(originNS)
	t.Negotiated(originNS, true)
	o := outcome{length: length, sent: sent, lost: lost, silent: silent}
	var block [simPacket]int16
	var marks []mix.Mark
	least := leastDelay{m: m, o: &o}
	next := 0
	ended := false
	for p := int64(0); p < length; p += simPacket {
		now := originNS + p*1e9/simRate + lookbackNS
		for next < len(packets) && packets[next].arrival <= now {
			for ssrc := range s.buffers {
				s.pop(ssrc, packets[next].arrival)
			}
			s.packet(packets[next])
			least.packet(packets[next], originNS)
			next++
		}
		for ssrc := range s.buffers {
			s.pop(ssrc, now)
		}
		if p >= length-simRate/2 && !ended {
			ended = true
			t.End(originNS + m.lengthNS)
		}
		s.resolved()
		marks = t.Read(block[:], marks[:0])
		for _, k := range marks {
			for i := range k.N {
				s.gaps[k.At+int64(i)] = true
			}
			s.causes[k.Cause] += int64(k.N)
		}
		least.check(block[:], p)
	}
	s.resolved()
	for _, g := range s.gaps {
		if g {
			o.marked++
		}
	}
	if len(packets) > 0 {
		last := packets[len(packets)-1]
		o.skew = t.Skew(mix.Key{SSRC: last.h.SSRC, Epoch: s.states[last.h.SSRC].Epoch()})
	}
	o.stats, o.late, o.captured = t.Stats(), s.late, t.Stats().Captured
	return o
}

// leastDelay measures how far samples lie from the truth, given what had
// arrived at their time.
type leastDelay struct {
	m        impair
	o        *outcome
	ssrc     uint32
	since    float64 // position of the run's first packet
	leastAt  float64 // position at which the first packet with the least delay came
	previous int64
	smooth   [simPacket]bool
}

const leastNS = int64(1e6) // a packet within this is one with the least delay

func (l *leastDelay) packet(w wire, originNS int64) {
	at := float64(w.arrival-originNS) * simRate / 1e9
	fresh := l.ssrc != w.h.SSRC
	for _, j := range l.m.tsJump {
		a, b := l.m.startNS+l.m.at(l.previous), l.m.startNS+l.m.at(w.first)
		fresh = fresh || a < l.m.startNS+j && b >= l.m.startNS+j
	}
	l.previous = max(l.previous, w.first)
	if fresh {
		l.ssrc, l.since, l.leastAt = w.h.SSRC, at, math.Inf(1)
	}
	if w.excess <= leastNS {
		l.leastAt = math.Min(l.leastAt, at)
	}
}

func (l *leastDelay) check(block []int16, at int64) {
	l.mark(block)
	for i, v := range block {
		p := at + int64(i)
		if !l.smooth[i] {
			continue
		}
		// The index near p that has this value.
		guess := int64(float64(p)-l.m.truth(0))/simPeriod*simPeriod + int64(v) - 1
		best := math.Inf(1)
		for _, g := range []int64{guess - simPeriod, guess, guess + simPeriod} {
			if e := float64(p) - l.m.truth(g); math.Abs(e) < math.Abs(best) {
				best = e
			}
		}
		ms := math.Abs(best) * 1e3 / simRate
		l.o.lastError = ms
		if float64(p) >= l.leastAt && float64(p) >= l.since {
			l.o.worstFirst = math.Max(l.o.worstFirst, ms)
		}
		if float64(p) >= l.since+10*simRate && float64(p) >= l.leastAt {
			l.o.worstTen = math.Max(l.o.worstTen, ms)
		}
	}
}

// mark notes for each sample whether nothing but consecutive samples is within
// the resampler's reach of it.
func (l *leastDelay) mark(block []int16) {
	const reach = 20
	run := 0 // consecutive samples up to j
	for j := range block {
		l.smooth[j] = false
		if j > 0 && block[j-1] != 0 && block[j] >= block[j-1] && block[j] <= block[j-1]+3 {
			run++
		} else {
			run = 0
		}
		if run >= 2*reach {
			l.smooth[j-reach] = true
		}
	}
}
