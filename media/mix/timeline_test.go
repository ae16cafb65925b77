package mix_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/pion/rtp"

	"github.com/trunktap/trunktap/media/jitter"
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/source"
)

// act is a stretch of a side's stream; the zero value goes on as before.
type act struct {
	seconds  float64
	packetMS int // 0: 20
	clock    int // Hz, 0: 8000
	rate     int // of the decoder, 0: clock
	pauseMS  int // before it nothing is sent
	still    bool
	base     bool // another timestamp base
	sequence bool // another sequence
	source   bool // another SSRC, sequence and base
	lateMS   int  // added to the path's delay
	stallMS  int  // the network keeps its first packets back and then gives all at once
}

// sent is a packet and where it belongs.
type sent struct {
	arrival int64
	h       rtp.Header
	clock   int
	rate    int
	samples int
	at      float64 // ms: where its first sample passes the tap on the least-delayed path
	ms      float64
	since   float64 // ms: where its act begins
}

// perform makes the packets of acts, the first at 100 ms.
func perform(rng *rand.Rand, jitterMS int, acts []act) (packets []sent) {
	h := rtp.Header{Version: 2, SSRC: rng.Uint32(), SequenceNumber: uint16(rng.Uint32()), Timestamp: rng.Uint32()}
	now := 100.0
	delay := 0
	for _, a := range acts {
		if a.packetMS == 0 {
			a.packetMS = 20
		}
		if a.clock == 0 {
			a.clock = 8000
		}
		if a.rate == 0 {
			a.rate = a.clock
		}
		if a.source {
			h.SSRC, a.sequence = rng.Uint32(), true
		}
		if a.sequence {
			h.SequenceNumber, a.base = uint16(rng.Uint32()), true
		}
		now += float64(a.pauseMS)
		if !a.still {
			h.Timestamp += uint32(a.pauseMS * a.clock / 1000)
		}
		if a.base {
			h.Timestamp = rng.Uint32()
		}
		delay += a.lateMS
		begin := now
		for ; now < begin+a.seconds*1000; now += float64(a.packetMS) {
			at := now + float64(delay)
			arrival := at
			if jitterMS > 0 {
				arrival += float64(rng.IntN(jitterMS*1000)) / 1000
			}
			arrival = math.Max(arrival, begin+float64(delay+a.stallMS))
			packets = append(packets, sent{
				arrival: int64(arrival * 1e6), h: h, clock: a.clock, rate: a.rate, samples: a.packetMS * a.rate / 1000,
				at: at, ms: float64(a.packetMS), since: begin + float64(delay),
			})
			h.SequenceNumber++
			h.Timestamp += uint32(a.packetMS * a.clock / 1000)
		}
	}
	return packets
}

// performed is what a track made of the packets.
type performed struct {
	missing       int     // packets of which nothing was read
	first, second float64 // ms: how far the worst is off, in the first second of its act and after it
	ten           float64 // after ten seconds of the last act
}

// record runs packets through the cores as the recorder does. Each carries its
// own number as samples.
func record(packets []sent, rate int) (p performed) {
	order := make([]int, len(packets))
	for i := range order {
		order[i] = i
	}
	sortBy(order, func(i int) int64 { return packets[i].arrival })
	track := startedAt(rate)
	states, buffers := map[uint32]*source.State{}, map[uint32]*jitter.Buffer{}
	type place struct {
		epoch int
		seq   int64
	}
	at := map[uint32]map[place]int{}
	pop := func(ssrc uint32, now int64) {
		for {
			q, _, ok := buffers[ssrc].Pop(now)
			if !ok {
				return
			}
			n := at[ssrc][place{q.Epoch, q.Seq}]
			w := packets[n]
			pcm := make([]int16, w.samples)
			for i := range pcm {
				pcm[i] = number(n)
			}
			track.AudioAt(mix.Key{SSRC: ssrc, Epoch: q.Epoch}, q.TS, w.rate, pcm)
		}
	}
	last := packets[order[len(order)-1]]
	length := int64(last.at+last.ms+1000) / 20
	out := make([]int16, 0, length*int64(rate)/50)
	block := make([]int16, rate/50)
	next := 0
	for b := range length {
		now := (b+1)*20e6 + lookbackNS
		for ; next < len(order) && packets[order[next]].arrival <= now; next++ {
			w := packets[order[next]]
			st := states[w.h.SSRC]
			if st == nil {
				st = &source.State{}
				states[w.h.SSRC], buffers[w.h.SSRC] = st, jitter.New(440e6, 200)
				at[w.h.SSRC] = map[place]int{}
			}
			st.Clock = w.clock
			seq, ts, v := st.Update(&w.h, w.arrival)
			if !v.Usable() {
				continue
			}
			track.Arrived(mix.Key{SSRC: w.h.SSRC, Epoch: st.Epoch()}, ts, w.clock, w.arrival)
			at[w.h.SSRC][place{st.Epoch(), seq}] = order[next]
			buffers[w.h.SSRC].Push(source.Packet{Arrival: w.arrival, SSRC: w.h.SSRC, Epoch: st.Epoch(), Seq: seq, TS: ts})
			for ssrc := range buffers {
				pop(ssrc, w.arrival)
			}
		}
		for ssrc := range buffers {
			pop(ssrc, now)
		}
		track.Read(block, nil)
		out = append(out, block...)
	}
	p.compare(packets, out, rate)
	return p
}

// number is the sample value of packet n; neighbours are far apart.
func number(n int) int16 { return int16(1000 + n*37%300*100) }

// compare looks for every packet where it belongs.
func (p *performed) compare(packets []sent, out []int16, rate int) {
	perMS := float64(rate) / 1000
	for n, w := range packets {
		// Its samples near its place: runs of its number.
		best, found := math.Inf(1), false
		from, to := max(int((w.at-120)*perMS), 0), min(int((w.at+w.ms+120)*perMS), len(out))
		for i := from; i < to; i++ {
			if !near(out[i], number(n)) {
				continue
			}
			j := i
			for j < to && near(out[j], number(n)) {
				j++
			}
			if float64(j-i) >= w.ms*perMS/2 {
				found = true
				if off := (float64(i+j)/2)/perMS - (w.at + w.ms/2); math.Abs(off) < math.Abs(best) {
					best = off
				}
			}
			i = j
		}
		switch since := w.at - w.since; {
		case !found:
			p.missing++
		case since < 1000:
			p.first = math.Max(p.first, math.Abs(best))
		case since < 10_000:
			p.second = math.Max(p.second, math.Abs(best))
		case w.since == packets[len(packets)-1].since:
			p.ten = math.Max(p.ten, math.Abs(best))
		}
	}
}

func near(a, b int16) bool { return a-b < 25 && b-a < 25 }

func sortBy(x []int, key func(int) int64) {
	for i := 1; i < len(x); i++ { // nearly sorted
		for j := i; j > 0 && key(x[j-1]) > key(x[j]); j-- {
			x[j-1], x[j] = x[j], x[j-1]
		}
	}
}

// TestTimelineRules: everything that a stream may do in mid-call, and how many
// packets are not heard for it.
func TestTimelineRules(t *testing.T) {
	tests := []struct {
		name    string
		acts    []act
		jitter  int // ms
		missing int
		first   float64 // ms
	}{
		{"steady", []act{{seconds: 14}}, 0, 0, 1.5},
		{"timestamp jump", []act{{seconds: 12}, {seconds: 12, base: true}}, 30, 0, 12},
		{"sequence reset", []act{{seconds: 12}, {seconds: 12, sequence: true}}, 0, 1, 1.5},
		{"another source", []act{{seconds: 12}, {seconds: 12, source: true}}, 30, 0, 12},
		{"transfer to another source, later and by a longer way", []act{{seconds: 12}, {seconds: 12, source: true, pauseMS: 700, lateMS: 60}}, 30, 0, 12},
		{"packets of 20, 10, 30, 60 ms", []act{{seconds: 3}, {seconds: 3, packetMS: 10}, {seconds: 3, packetMS: 30}, {seconds: 3, packetMS: 60}, {seconds: 3}}, 0, 0, 1.5},
		{"G.711 to G.722 and back", []act{{seconds: 3}, {seconds: 12, rate: 16000}, {seconds: 3}}, 0, 0, 1.5},
		{"8000 to 48000 and back", []act{{seconds: 12}, {seconds: 12, clock: 48000}, {seconds: 12}}, 0, 0, 1.5},
		{"8000 to 48000 with a new base", []act{{seconds: 12}, {seconds: 12, clock: 48000, base: true}}, 30, 0, 12},
		{"8000 to 16000 to 44100", []act{{seconds: 2}, {seconds: 2, clock: 16000}, {seconds: 2, clock: 44100}}, 0, 0, 1.5},
		{"silence suppression", []act{{seconds: 3}, {seconds: 1, pauseMS: 900}, {seconds: 2, pauseMS: 4000}, {seconds: 0.1, pauseMS: 200}, {seconds: 12, pauseMS: 20}}, 0, 0, 1.5},
		{"hold of 40 s, continuous", []act{{seconds: 12}, {seconds: 12, pauseMS: 40_000}}, 0, 0, 1.5},
		{"hold of 40 s, the clock stood still", []act{{seconds: 12}, {seconds: 12, pauseMS: 40_000, still: true}}, 0, 0, 1.5},
		{"hold of 600 ms, the clock stood still", []act{{seconds: 12}, {seconds: 12, pauseMS: 600, still: true}}, 0, 0, 1.5},
		{"hold of 350 ms, the clock stood still", []act{{seconds: 12}, {seconds: 12, pauseMS: 350, still: true}}, 30, 0, 12},
		{"hold, music from another source, resumed", []act{{seconds: 5}, {seconds: 5, source: true}, {seconds: 12, source: true}}, 0, 0, 1.5},
		{"network stall of 350 ms", []act{{seconds: 12}, {seconds: 12, stallMS: 350}}, 0, 0, 1.5},
		{"the path becomes 100 ms quicker", []act{{seconds: 14}, {seconds: 14, lateMS: -100, pauseMS: 100}}, 0, 0, 110},
		{"the path becomes 40 ms longer", []act{{seconds: 14}, {seconds: 40, lateMS: 40}}, 0, 0, 41},
	}
	for _, tt := range tests {
		for _, rate := range trackRates {
			p := record(perform(rand.New(rand.NewPCG(1, 9)), tt.jitter, tt.acts), rate)
			t.Logf("%5d %-56s missing %d, %.2f ms in the first second, %.2f ms then, %.2f ms after ten", rate, tt.name, p.missing, p.first, p.second, p.ten)
			if p.missing > tt.missing || p.first > tt.first || p.ten > boundTen {
				t.Errorf("%s at %d: %+v", tt.name, rate, p)
			}
		}
	}
}

// TestSimDay: a day of packets, over the wrap of timestamps and many of the
// sequence numbers, of a clock that is off: nothing is lost, late or misplaced.
func TestSimDay(t *testing.T) {
	long(t)
	const ppm, packetsOfDay = 150, 24 * 3600 * 50
	track := startedAt(8000)
	var st source.State
	h := rtp.Header{Version: 2, SSRC: 1, SequenceNumber: 65000, Timestamp: math.MaxUint32 - 300_000_000}
	pcm, block := make([]int16, 160), make([]int16, 160)
	read, worst := int64(0), 0.0
	for n := range int64(packetsOfDay) {
		ns := float64(n) * 20e6 / (1 + ppm*1e-6)
		for float64(read+1)*20e6+float64(lookbackNS) < ns {
			track.Read(block, nil)
			// The ramp's value tells which sample was read in the middle of the block.
			at := (float64(read)*160 + 80) / 8000 * (1 + ppm*1e-6) * 8000
			off := math.Remainder(float64(block[80])-math.Mod(at, 160*64), 160*64)
			if x := math.Mod(at, 160*64); read > 500 && x > 200 && x < 160*64-200 {
				worst = math.Max(worst, math.Abs(off)/8)
			}
			read++
		}
		_, ts, v := st.Update(&h, int64(ns))
		if v != source.InOrder || st.Epoch() != 0 {
			t.Fatalf("packet %d: %v in epoch %d", n, v, st.Epoch())
		}
		track.Arrived(key, ts, 8000, int64(ns))
		for i := range pcm {
			pcm[i] = int16(n%64*160 + int64(i))
		}
		track.Audio(key, ts, pcm)
		h.SequenceNumber, h.Timestamp = h.SequenceNumber+1, h.Timestamp+160
	}
	s := track.Stats()
	t.Logf("worst %.2f ms, skew found %.2f, %+v", worst, track.Skew(key), s)
	if worst > 2 || s.LateCut+s.Overlapped+s.Overrun+s.Unanchored != 0 || math.Abs(track.Skew(key)-ppm) > 2 {
		t.Errorf("worst %.2f ms, skew %.2f, %+v", worst, track.Skew(key), s)
	}
}
