package quality

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// feed sends packets of 20 ms at 8 kHz by their numbers, delay ms late each.
func feed(s *Stream, numbers []int64, delayMS func(i int) float64) {
	for i, n := range numbers {
		d := 0.0
		if delayMS != nil {
			d = delayMS(i)
		}
		s.Packet(n*20e6+int64(d*1e6), n, n*160, 8000, 160)
	}
}

func count(from, to int64) []int64 {
	var out []int64
	for i := from; i < to; i++ {
		out = append(out, i)
	}
	return out
}

func TestCounts(t *testing.T) {
	tests := []struct {
		name string
		run  func(s *Stream)
		want window // the counters alone
		dup  uint64
	}{
		{"clean", func(s *Stream) { feed(s, count(0, 1000), nil) }, window{received: 1000}, 0},
		{"holes", func(s *Stream) { feed(s, slices.Concat(count(0, 10), count(12, 500)), nil) }, window{received: 498, lost: 2}, 0},
		{"duplicates", func(s *Stream) { feed(s, []int64{1, 2, 2, 3, 1}, nil) }, window{received: 3}, 2},
		{"told of a duplicate", func(s *Stream) { feed(s, count(0, 3), nil); s.Duplicate() }, window{received: 3}, 1},
		{"reordered", func(s *Stream) { feed(s, []int64{1, 3, 2, 4}, nil) }, window{received: 4, reordered: 1}, 0},
		{"before the first", func(s *Stream) { feed(s, []int64{5, 3, 6}, nil) }, window{received: 3, reordered: 1, lost: 1}, 0},
		{"after its place was settled", func(s *Stream) {
			feed(s, slices.Concat(count(0, 10), count(11, 300), []int64{10}), nil)
		}, window{received: 300, late: 1, discarded: 1}, 0},
		{"just out of the window", func(s *Stream) {
			feed(s, slices.Concat(count(10, 12), count(13, 13+windowPackets), []int64{12}), nil)
		}, window{received: windowPackets + 3, late: 1, discarded: 1}, 0},
		{"just in the window", func(s *Stream) {
			feed(s, slices.Concat(count(10, 12), count(13, 12+windowPackets), []int64{12}), nil)
		}, window{received: windowPackets + 2, reordered: 1}, 0},
		{"late, told from outside", func(s *Stream) {
			feed(s, slices.Concat(count(0, 10), count(11, 300)), nil)
			s.Late()
		}, window{received: 300, late: 1, discarded: 1}, 0},
		{"a copy, late", func(s *Stream) { feed(s, count(0, 300), nil); s.Late() }, window{received: 300, late: 1}, 0},
		{"a long hole", func(s *Stream) { feed(s, []int64{0, 5000, 5001}, nil) }, window{received: 3, lost: 4999}, 0},
		{"a hole of a window", func(s *Stream) { feed(s, []int64{0, windowPackets, 2 * windowPackets}, nil) }, window{received: 3, lost: 2*windowPackets - 2}, 0},
		{"a hole of a window and one", func(s *Stream) { feed(s, []int64{0, windowPackets + 1, 2*windowPackets + 3}, nil) }, window{received: 3, lost: 2*windowPackets + 1}, 0},
		{"new numbers", func(s *Stream) { feed(s, []int64{0, 1, 1 << 30, 1<<30 + 2}, nil) }, window{received: 4, lost: 1}, 0},
		{"new numbers not far away", func(s *Stream) { feed(s, []int64{0, dropoutPacketsMax + 1, dropoutPacketsMax + 2}, nil) }, window{received: 3}, 0},
		{"numbers out of all bounds", func(s *Stream) {
			s.Packet(0, math.MaxInt64, math.MaxInt64, -1, -1)
			s.Packet(math.MaxInt64, math.MinInt64, math.MinInt64, math.MaxInt, 0)
		}, window{}, 0},
		{"dropped by the tap", func(s *Stream) {
			feed(s, count(0, 10), nil)
			s.Unseen(3)
			feed(s, count(15, 400), nil)
		}, window{received: 395, lost: 2, unseen: 3}, 0},
		{"taken for dropped, and came", func(s *Stream) {
			feed(s, count(0, 10), nil)
			s.Unseen(2)
			feed(s, []int64{12, 10, 13}, func(int) float64 { return 0 })
		}, window{received: 13, unseen: 1, reordered: 1}, 0},
		{"dropped by the tap, but something else", func(s *Stream) {
			feed(s, count(0, 10), nil)
			s.Unseen(3)
			feed(s, slices.Concat(count(10, 600), count(602, 1000)), nil)
		}, window{received: 998, lost: 2}, 0},
		{"dropped by the tap over a long hole", func(s *Stream) {
			feed(s, []int64{0}, nil)
			s.Unseen(4000)
			feed(s, []int64{5000}, nil)
		}, window{received: 2, lost: 999, unseen: 4000}, 0},
		{"too late to be heard", func(s *Stream) {
			feed(s, count(0, 1000), func(i int) float64 { return map[bool]float64{true: DiscardMS + 1}[i == 500] })
		}, window{received: 1000, discarded: 1}, 0},
		{"late, but heard", func(s *Stream) {
			feed(s, count(0, 1000), func(i int) float64 { return map[bool]float64{true: DiscardMS - 1}[i == 500] })
		}, window{received: 1000}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s Stream
			tt.run(&s)
			w := s.numbers
			w.settleAll()
			got := window{received: w.received, lost: w.lost, discarded: w.discarded, unseen: w.unseen, reordered: w.reordered, late: w.late}
			if got != tt.want || s.duplicates != tt.dup {
				t.Errorf("\n got %+v, %d duplicates\nwant %+v, %d", got, s.duplicates, tt.want, tt.dup)
			}
		})
	}
}

// Whatever the network does within the window: every number from the first to
// the last is received or lost, and each account adds up.
func TestEveryNumberIsAccountedFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 7))
		n, loss, dup := rapid.Int64Range(1, 3000).Draw(t, "packets"), rng.Float64()*0.5, rng.Float64()*0.2
		spread := rng.Float64() * 100
		type arrival struct {
			seq int64
			at  float64
		}
		var sent []arrival
		copies := uint64(0)
		for i := range n {
			if rng.Float64() < loss {
				continue
			}
			sent = append(sent, arrival{i, float64(i) + rng.Float64()*spread})
			if rng.Float64() < dup {
				sent = append(sent, arrival{i, float64(i) + rng.Float64()*spread})
				copies++
			}
		}
		slices.SortStableFunc(sent, func(a, b arrival) int { return int(math.Copysign(1, a.at-b.at)) })
		var s Stream
		distinct := make(map[int64]bool)
		first, last := int64(math.MaxInt64), int64(-1)
		for _, p := range sent {
			s.Packet(int64(p.at*20e6), p.seq, p.seq*160, 8000, 160)
			distinct[p.seq] = true
			first, last = min(first, p.seq), max(last, p.seq)
		}
		w := s.numbers
		w.settleAll()
		w.bursts.close()
		b := w.bursts
		switch {
		case w.received != uint64(len(distinct)) || s.duplicates != copies:
			t.Fatalf("%d received, %d copies; want %d, %d", w.received, s.duplicates, len(distinct), copies)
		case len(sent) > 0 && int64(w.received+w.lost) != last-first+1:
			t.Fatalf("%d received + %d lost, %d to %d", w.received, w.lost, first, last)
		case b.missingAll != w.lost+w.discarded || b.gapMissing+b.burstMissing != b.missingAll:
			t.Fatalf("%d missing of %+v", b.missingAll, w)
		case b.gapReceived+b.burstReceived+b.missingAll != w.received+w.lost:
			t.Fatalf("%+v of %+v", b, w)
		}
		s.Snapshot(Inputs{Codec: "PCMU"})
	})
}

// A snapshot closes nothing of the stream: one taken on the way does not
// change the last one.
func TestSnapshotChangesNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	var quiet, asked Stream
	for i := range int64(5000) {
		if rng.Float64() < 0.1 {
			continue
		}
		at := i*20e6 + int64(rng.Float64()*150e6)
		quiet.Packet(at, i, i*160, 8000, 160)
		asked.Packet(at, i, i*160, 8000, 160)
		asked.Snapshot(Inputs{Codec: "PCMA"})
	}
	if quiet != asked {
		t.Error("a snapshot changed the stream")
	}
}

// The estimate is that of RFC 3550 appendix A.8, there in whole ticks.
func TestJitterAgainstRFC3550(t *testing.T) {
	rng := rand.New(rand.NewPCG(3550, 8))
	var s Stream
	var transit, jitter int64
	for i := range int64(20000) {
		arrival := i*160 + int64(rng.Float64()*800) // ticks
		s.Packet(arrival*125e3, i, i*160, 8000, 160)
		d := arrival - i*160 - transit
		transit = arrival - i*160
		if i > 0 {
			jitter += max(d, -d) - (jitter+8)>>4
		}
	}
	got, want := s.transit.jitter/1e6, float64(jitter)/16/8
	if math.Abs(got-want) > 0.15 {
		t.Errorf("%.3f ms, RFC 3550 has %.3f ms", got, want)
	}
	if a := s.Snapshot(Inputs{}); a.JitterMS < 30 || a.JitterMS > 37 || a.JitterMaxMS < a.JitterMS || a.DelayStepMS > 100 {
		t.Errorf("%+v", a) // the mean difference of two uniform values is a third of their range
	}
}

func TestTransit(t *testing.T) {
	const ms = int64(1e6)
	tests := []struct {
		name      string
		run       func(s *Stream)
		jitterMax float64 // ms, at most
		discarded uint64
	}{
		{"an event of three seconds", func(s *Stream) {
			feed(s, count(0, 100), nil)
			for i := range int64(60) {
				s.Packet((2000+50*i)*ms, 100+i, 100*160, 8000, 4)
			}
			for i := range int64(100) {
				s.Packet((5000+20*i)*ms, 160+i, (250+i)*160, 8000, 160)
			}
		}, 0, 0},
		{"discontinuous transmission", func(s *Stream) {
			for i := range int64(100) {
				s.Packet(i*160*ms, i, i*1280, 8000, 7)
			}
		}, 0, 0},
		{"a clock fast by 200 ppm, for an hour", func(s *Stream) {
			for i := range int64(180_000) {
				s.Packet(i*20*ms-i*4000, i, i*160, 8000, 160)
			}
		}, 0.01, 0},
		{"a clock slow by 200 ppm, for an hour", func(s *Stream) {
			for i := range int64(180_000) {
				s.Packet(i*20*ms+i*4000, i, i*160, 8000, 160)
			}
		}, 0.01, 0},
		{"a route 300 ms longer", func(s *Stream) {
			feed(s, count(0, 500), nil)
			feed(s, count(500, 2000), func(int) float64 { return 300 })
		}, 300.0 / 16, 100}, // two seconds until it counts as normal, as it comes where a span ends
		{"a new timestamp base", func(s *Stream) {
			feed(s, count(0, 100), nil)
			for i := int64(100); i < 200; i++ {
				s.Packet(i*20*ms, i, i*160+1e9, 8000, 160)
			}
		}, 0, 0},
		{"a new base, announced", func(s *Stream) {
			feed(s, count(0, 100), nil)
			s.Restart()
			for i := int64(100); i < 200; i++ {
				s.Packet(i*20*ms, i, i*160+4000, 8000, 160)
			}
		}, 0, 0},
		{"another clock", func(s *Stream) {
			feed(s, count(0, 100), nil)
			for i := int64(100); i < 200; i++ {
				s.Packet(i*20*ms, i, 100*160+(i-100)*960, 48000, 160)
			}
		}, 0, 0},
		{"a sender's clock that stood still", func(s *Stream) {
			feed(s, count(0, 100), nil)
			for i := int64(100); i < 200; i++ {
				s.Packet((3000+i*20)*ms, i, i*160, 8000, 160)
			}
		}, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s Stream
			tt.run(&s)
			w := s.numbers
			w.settleAll()
			if got := s.transit.jitterMax / 1e6; got > tt.jitterMax+1e-6 {
				t.Errorf("jitter of %.3f ms, at most %.3f", got, tt.jitterMax)
			}
			if w.discarded > tt.discarded || w.discarded < tt.discarded*9/10 {
				t.Errorf("%d discarded, want %d", w.discarded, tt.discarded)
			}
		})
	}
}

func TestHistogram(t *testing.T) {
	var s Stream
	steps := []float64{0.5, 1.5, 4, 8, 15, 40, 80, 150, 400}
	at, seq := 0.0, int64(0)
	s.Packet(0, 0, 0, 8000, 160)
	for _, d := range steps {
		for _, sign := range []float64{1, -1} {
			seq++
			at += d * sign
			s.Packet(seq*20e6+int64(math.Round(at*1e6)), seq, seq*160, 8000, 160)
		}
	}
	for i, n := range s.transit.histogram {
		if n != 2 {
			t.Errorf("class %d has %d of 2: %v", i, n, s.transit.histogram)
		}
	}
	if a := s.Snapshot(Inputs{}); a.DelayStepMS != 400 {
		t.Errorf("%v ms", a.DelayStepMS)
	}
}

// The length of a packet is that of most, and follows a change of it.
func TestPacketLength(t *testing.T) {
	var s Stream
	feed(&s, count(0, 400), nil)
	if a := s.Snapshot(Inputs{}); a.PacketMS != 20 {
		t.Fatalf("%v ms", a.PacketMS)
	}
	for i := range int64(3000) {
		s.Packet((8000+30*i)*1e6, 400+i, 400*160+i*240, 8000, 240)
	}
	if a := s.Snapshot(Inputs{}); a.PacketMS != 30 {
		t.Errorf("%v ms", a.PacketMS)
	}
}

// What follows a hole does not tell the length of a packet.
func TestPacketLengthUnderLoss(t *testing.T) {
	var s Stream
	for i := int64(0); i < 300; i += 3 {
		feed(&s, []int64{i, i + 2}, nil)
	}
	if a := s.Snapshot(Inputs{}); a.PacketMS != 20 {
		t.Errorf("%v ms", a.PacketMS)
	}
}

func TestStreamIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Stream{}); n > 1024 {
		t.Errorf("%d bytes", n)
	} else {
		t.Logf("Stream %d bytes, Half %d bytes", n, unsafe.Sizeof(Half{}))
	}
}

func TestPacketDoesNotAllocate(t *testing.T) {
	var s Stream
	i := int64(0)
	if got := testing.AllocsPerRun(5000, func() {
		if i%7 != 3 {
			s.Packet(i*20e6+i%5*1e6, i, i*160, 8000, 160)
		}
		i++
	}); got != 0 {
		t.Errorf("%v allocations a packet", got)
	}
}

func BenchmarkPacket(b *testing.B) {
	var s Stream
	b.ReportAllocs()
	for i := range int64(b.N) {
		if i%50 != 3 {
			s.Packet(i*20e6+i%5*1e6, i, i*160, 8000, 160)
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	var s Stream
	feed(&s, count(0, 1000), nil)
	b.ReportAllocs()
	for b.Loop() {
		s.Snapshot(Inputs{Codec: "PCMU", PLC: true})
	}
}
