package report

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"pgregory.net/rapid"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func config() *Config {
	c := &Config{CNAME: "abcdefghij"}
	c.Clock[0], c.Clock[9] = 8000, 8000
	return c
}

func receiver(t testing.TB) *Receiver {
	t.Helper()
	r, err := New(config(), 42)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func packet(t testing.TB, ssrc uint32, seq uint16, ts uint32, pt uint8) []byte {
	t.Helper()
	wire, err := (&rtp.Packet{Header: rtp.Header{Version: 2, SSRC: ssrc, SequenceNumber: seq, Timestamp: ts, PayloadType: pt}, Payload: make([]byte, 160)}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// read takes a packet of ours apart by another implementation.
func read(t testing.TB, wire []byte) (rr *rtcp.ReceiverReport, bye *rtcp.Goodbye) {
	t.Helper()
	list, err := rtcp.Unmarshal(wire)
	if err != nil || len(list) < 2 {
		t.Fatalf("%v: %x", err, wire)
	}
	rr, ok := list[0].(*rtcp.ReceiverReport)
	sdes, described := list[1].(*rtcp.SourceDescription)
	if !ok || !described || sdes.Chunks[0].Source != rr.SSRC || sdes.Chunks[0].Items[0].Type != rtcp.SDESCNAME || sdes.Chunks[0].Items[0].Text != "abcdefghij" {
		t.Fatalf("%v", list)
	}
	if len(list) > 2 {
		bye = list[2].(*rtcp.Goodbye)
	}
	return rr, bye
}

// The example of RFC 3550 section 6.4.1 and appendix A.3, with what passes between two reports.
func TestReportTells(t *testing.T) {
	r := receiver(t)
	at := began
	for i := range 100 { // 20 ms each, of which every tenth is lost
		if i%10 != 5 {
			r.RTP(at, packet(t, 7, uint16(65500+i), uint32(160*i), 0))
		}
		at = at.Add(20 * time.Millisecond)
	}
	sr, err := (&rtcp.SenderReport{SSRC: 7, NTPTime: 0x0123_4567_89ab_cdef, RTPTime: 1}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r.RTCP(at, sr)
	rr, _ := read(t, r.Report(at.Add(1500*time.Millisecond)))
	want := rtcp.ReceptionReport{SSRC: 7, FractionLost: 25, TotalLost: 10, LastSequenceNumber: 1<<16 | 63, LastSenderReport: 0x4567_89ab, Delay: 3 << 15}
	if len(rr.Reports) != 1 || rr.Reports[0] != want {
		t.Errorf("%+v, want %+v", rr.Reports, want)
	}
	rr, _ = read(t, r.Report(at.Add(3*time.Second)))
	if len(rr.Reports) != 0 {
		t.Errorf("nobody was heard, reported %+v", rr.Reports)
	}
	r.RTP(at, packet(t, 7, 64, 16000, 0))
	rr, _ = read(t, r.Report(at))
	if b := rr.Reports[0]; b.FractionLost != 0 || b.TotalLost != 10 {
		t.Errorf("nothing was lost since, reported %+v", b)
	}
}

// Jitter of a path whose packets come by turns 0 and 8 ms late becomes 8 ms (appendix A.8);
// events and steps of the timestamp do not touch it.
func TestJitter(t *testing.T) {
	r := receiver(t)
	at, seq, ts := began, uint16(0), uint32(0)
	for i := range 400 {
		r.RTP(at.Add(time.Duration(i%2)*8*time.Millisecond), packet(t, 7, seq, ts, 0))
		at, seq, ts = at.Add(20*time.Millisecond), seq+1, ts+160
	}
	rr, _ := read(t, r.Report(at))
	if j := rr.Reports[0].Jitter; j < 62 || j > 65 {
		t.Errorf("jitter %d, want 64", j)
	}
	before := rr.Reports[0].Jitter
	for range 50 { // an event
		r.RTP(at, packet(t, 7, seq, ts, 101))
		at, seq = at.Add(50*time.Millisecond), seq+1
	}
	r.RTP(at, packet(t, 7, seq, ts+1<<30, 0))
	rr, _ = read(t, r.Report(at))
	if j := rr.Reports[0].Jitter; j != before {
		t.Errorf("jitter %d after an event and a new base, %d before", j, before)
	}
}

func TestSequences(t *testing.T) {
	for _, c := range []struct {
		name    string
		seqs    []uint16
		highest uint32
		lost    uint32 // 24 bits
	}{
		{"in order", []uint16{1, 2, 3}, 3, 0},
		{"wrap", []uint16{65534, 65535, 0, 1}, 1<<16 | 1, 0},
		{"reordered over the wrap", []uint16{65534, 0, 65535, 1}, 1<<16 | 1, 0},
		{"twice", []uint16{1, 2, 2, 2, 3}, 3, 1<<24 - 2},
		{"restart", []uint16{1, 2, 30000, 30001, 30002}, 30002, 0},
		{"one astray", []uint16{1, 2, 30000, 3, 4}, 4, 0},
	} {
		r := receiver(t)
		for i, seq := range c.seqs {
			r.RTP(began.Add(time.Duration(i)*20*time.Millisecond), packet(t, 7, seq, uint32(160*i), 0))
		}
		rr, _ := read(t, r.Report(began.Add(time.Second)))
		if b := rr.Reports[0]; b.LastSequenceNumber != c.highest || b.TotalLost&0xffffff != c.lost {
			t.Errorf("%s: %+v, want %d and %d lost", c.name, b, c.highest, c.lost)
		}
	}
}

// Reports come by the timing of RFC 3550: the first in half the time, each between half
// and one and a half of 5 s over 1.218.
func TestTiming(t *testing.T) {
	r := receiver(t)
	at, last, n := began, began, 0
	var sum time.Duration
	for ; n < 400; at = at.Add(10 * time.Millisecond) {
		if !r.Due(at) {
			continue
		}
		r.Report(at)
		gap := at.Sub(last)
		low, high := 2050*time.Millisecond, 6180*time.Millisecond
		if n == 0 {
			low, high = low/2, high/2
		}
		if gap < low || gap > high {
			t.Fatalf("report %d after %s", n, gap)
		}
		last, n, sum = at, n+1, sum+gap
	}
	if mean := sum / time.Duration(n); mean < 3900*time.Millisecond || mean > 4300*time.Millisecond {
		t.Errorf("a report every %s", mean)
	}
}

func TestBye(t *testing.T) {
	r := receiver(t)
	r.RTP(began, packet(t, 7, 1, 0, 0))
	if b := r.Bye(began); b != nil {
		t.Errorf("left without having been there: %x", b)
	}
	r.Report(began)
	rr, bye := read(t, r.Bye(began))
	if bye == nil || len(bye.Sources) != 1 || bye.Sources[0] != rr.SSRC {
		t.Errorf("%+v", bye)
	}
	gone, err := (&rtcp.Goodbye{Sources: []uint32{7}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r.RTP(began, packet(t, 7, 2, 160, 0))
	r.RTCP(began, gone)
	if rr, _ = read(t, r.Report(began)); len(rr.Reports) != 0 {
		t.Errorf("reported on who has left: %+v", rr.Reports)
	}
}

// Somebody else with our SSRC makes us take another one (section 8.2).
func TestCollision(t *testing.T) {
	r := receiver(t)
	was := r.SSRC()
	r.RTP(began, packet(t, was, 1, 0, 0))
	if r.SSRC() == was {
		t.Error("the SSRC stayed")
	}
}

// Whatever comes, what we make can be read, is no longer than it may be, and tells of
// the latest sources; nothing allocates.
func TestAnythingIsSurvived(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, err := New(config(), rapid.Uint64Min(1).Draw(t, "seed"))
		if err != nil {
			t.Fatal(err)
		}
		at := began
		for range rapid.IntRange(0, 60).Draw(t, "packets") {
			at = at.Add(time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "later")))
			wire := rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "wire")
			if len(wire) > 12 && rapid.Bool().Draw(t, "valid") {
				wire[0] = 0x80
				wire[8], wire[9], wire[10] = 0, 0, 0
			}
			if rapid.Bool().Draw(t, "rtcp") {
				r.RTCP(at, wire)
			} else {
				r.RTP(at, wire)
			}
			if rapid.IntRange(0, 9).Draw(t, "report") == 0 {
				if out := r.Report(at); len(out) > PacketBytesMax {
					t.Fatalf("%d bytes", len(out))
				} else if _, err := rtcp.Unmarshal(out); err != nil {
					t.Fatalf("%v: %x", err, out)
				}
			}
		}
	})
}

func TestNoAllocation(t *testing.T) {
	r := receiver(t)
	wires := make([][]byte, 64)
	for i := range wires {
		wires[i] = packet(t, uint32(i%12), uint16(i), uint32(160*i), 0)
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		r.RTP(began.Add(time.Duration(i)*time.Millisecond), wires[rand.IntN(len(wires))])
		r.Report(began)
		i++
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func FuzzRTCP(f *testing.F) {
	f.Add([]byte{0x80, 200, 0, 6, 0, 0, 0, 1})
	f.Add([]byte{0x81, 203, 0, 1, 0, 0, 0, 1})
	f.Add([]byte{0x80, 201, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := receiver(t)
		r.RTCP(began, wire)
		r.RTP(began, wire)
		if _, err := rtcp.Unmarshal(r.Report(began)); err != nil {
			t.Error(err)
		}
	})
}

func TestConfigFaults(t *testing.T) {
	for _, c := range []*Config{{}, {CNAME: string(make([]byte, 256))}, {CNAME: "x", Clock: [128]int32{5: -1}}} {
		if _, err := New(c, 1); err == nil {
			t.Errorf("%+v was taken", c.CNAME)
		}
	}
	if _, err := New(config(), 0); err == nil {
		t.Error("no seed was taken")
	}
}
