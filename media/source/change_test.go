package source

import (
	"math/rand/v2"
	"testing"

	"github.com/pion/rtp"
)

// TestClockChange: another media clock is a new timestamp base, also when the
// numbers happen to go on; packets that were overtaken keep the old one.
func TestClockChange(t *testing.T) {
	s := State{Clock: 8000}
	steps := []struct {
		seq   uint16
		ts    uint32
		clock int
		epoch int
	}{
		{1, 160, 8000, 0},
		{2, 320, 8000, 0},
		{4, 640, 48000, 1},
		{3, 480, 8000, 0},
		{6, 640 + 1920, 48000, 1},
		{5, 640 + 960, 48000, 1},
		{7, 640 + 2880, 0, 2},
	}
	var newest int64
	for i, p := range steps {
		s.Clock = p.clock
		_, ts, v := s.Update(&rtp.Header{SequenceNumber: p.seq, Timestamp: p.ts}, int64(i)*20e6)
		if !v.Usable() || s.Epoch() != p.epoch || uint32(ts) != p.ts {
			t.Errorf("packet %d: %v, epoch %d, timestamp %d; want epoch %d, timestamp %d", p.seq, v, s.Epoch(), uint32(ts), p.epoch, p.ts)
		}
		newest = max(newest, ts)
	}
	if s.Base() != 2 || s.Stats().Restarts != 2 || s.Stats().Lost != 0 {
		t.Errorf("base %d, %+v", s.Base(), s.Stats())
	}
	if ts, ok := s.SenderReport(SenderReport{RTPTime: uint32(newest) + 8000}); !ok || ts != newest+8000 {
		t.Errorf("report at %d, %v; want %d", ts, ok, newest+8000)
	}
}

// TestHold: a pause with and without continuity of the timestamps.
func TestHold(t *testing.T) {
	tests := []struct {
		name    string
		pauseMS int64
		ticksMS int64 // what the timestamps say
		epochs  int
	}{
		{"continuous", 30_000, 30_000, 0},
		{"continuous, an hour", 3600_000, 3600_000, 0},
		{"stood still", 30_000, 0, 1},
		{"stood still, short", 400, 0, 1},
		{"jitter", 220, 0, 0},
		{"ran ahead", 500, 1400, 0},
		{"jumped ahead", 500, 1600, 1},
		{"went back", 20, -500, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s State
			h := rtp.Header{SequenceNumber: 65530, Timestamp: 1<<32 - 1000}
			now := int64(0)
			for i := range 100 {
				if i == 50 {
					now += tt.pauseMS * 1e6
					h.Timestamp += uint32(tt.ticksMS * 8)
				}
				if _, _, v := s.Update(&h, now); v != InOrder {
					t.Fatalf("packet %d: %v", i, v)
				}
				now += 20e6
				h.SequenceNumber, h.Timestamp = h.SequenceNumber+1, h.Timestamp+160
			}
			if s.Base() != tt.epochs {
				t.Errorf("%d new bases, want %d", s.Base(), tt.epochs)
			}
		})
	}
}

// TestCollision: of two senders with one SSRC (RFC 3550 section 8.2) the first
// is heard as long as it sends, then the other.
func TestCollision(t *testing.T) {
	var s State
	a := rtp.Header{SSRC: 7, SequenceNumber: 100, Timestamp: 1000}
	b := rtp.Header{SSRC: 7, SequenceNumber: 40000, Timestamp: 1 << 30}
	heard := 0
	for i := range int64(200) {
		if i < 100 {
			if _, _, v := s.Update(&a, i*20e6); v != InOrder {
				t.Fatalf("packet %d of the first: %v", i, v)
			}
		}
		if _, _, v := s.Update(&b, i*20e6+7e6); v.Usable() {
			if i < 100 {
				t.Fatalf("packet %d of the second was taken: %v", i, v)
			}
			heard++
		}
		a.SequenceNumber, a.Timestamp = a.SequenceNumber+1, a.Timestamp+160
		b.SequenceNumber, b.Timestamp = b.SequenceNumber+1, b.Timestamp+160
	}
	// The sequence that was met last before the first one fell silent is confirmed by its next packet.
	if heard < 99 || s.Base() != 1 {
		t.Errorf("%d of 100 packets of the second, %d bases", heard, s.Base())
	}
}

// TestResets: a sequence that begins anew again and again, each time anywhere,
// loses no packet for it and never goes back in the extended numbers.
func TestResets(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	var s State
	last, used, sent := int64(-1), 0, 0
	now := int64(0)
	const resets = 500
	for range resets {
		h := rtp.Header{SequenceNumber: uint16(rng.Uint32()), Timestamp: rng.Uint32()}
		for range 20 {
			seq, _, v := s.Update(&h, now)
			sent++
			if v == Restarted {
				held, _, _ := s.Held()
				used++
				if held <= last || held != seq-1 {
					t.Fatalf("sequence number %d of the packet held, after %d, before %d", held, last, seq)
				}
			}
			if v.Usable() {
				used++
				if v != Reordered && seq <= last {
					t.Fatalf("sequence number %d after %d", seq, last)
				}
				last = max(last, seq)
			}
			now += 20e6
			h.SequenceNumber, h.Timestamp = h.SequenceNumber+1, h.Timestamp+160
		}
	}
	// A number that lies within reach of the one before may look like a reordered one or a hole.
	if sent-used > resets/5 {
		t.Errorf("%d of %d packets used over %d resets", used, sent, resets)
	}
}

// TestHeld: the packet that a restart begins with keeps its own place, also
// where the one that confirms it has another media clock.
func TestHeld(t *testing.T) {
	tests := []struct {
		name    string
		first   int // Hz of the first packet's media
		confirm int // of that which confirms it
		seq     uint16
		epoch   int // of the latter
	}{
		{"forward", 8000, 8000, 9000, 1},
		{"backward", 8000, 8000, 60, 1},
		{"over the wrap", 8000, 8000, 65535, 1},
		{"another clock", 48000, 48000, 9000, 1},
		{"another clock with the second", 8000, 48000, 9000, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := State{Clock: 8000}
			before, _, _ := s.Update(&rtp.Header{SequenceNumber: 500, Timestamp: 1 << 31}, 0)
			s.Clock = tt.first
			if _, _, v := s.Update(&rtp.Header{SequenceNumber: tt.seq, Timestamp: 77}, 20e6); v.Usable() {
				t.Fatalf("the first: %v", v)
			}
			s.Clock = tt.confirm
			seq, ts, v := s.Update(&rtp.Header{SequenceNumber: tt.seq + 1, Timestamp: 237}, 40e6)
			held, heldTS, epoch := s.Held()
			if v != Restarted || held != before+1 || seq != held+1 || uint32(heldTS) != 77 || ts-heldTS != 160 || epoch != 1 || s.Epoch() != tt.epoch {
				t.Errorf("%v, held %d at %d of %d, then %d at %d of %d", v, held, heldTS, epoch, seq, ts, s.Epoch())
			}
			if _, _, v := s.Update(&rtp.Header{SequenceNumber: tt.seq, Timestamp: 77}, 41e6); v != Duplicate {
				t.Errorf("the first again: %v", v)
			}
			if st := s.Stats(); st.Packets != 3 || st.Lost != 0 || st.Suspect != 0 || st.TooOld != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestCopiesOverRestart: a stranger's packet far ahead makes the source's own ones
// a new sequence; copies of those from before are copies all the same.
func TestCopiesOverRestart(t *testing.T) {
	for _, ahead := range []uint16{128, 2000, 20_000, 50_000} {
		var s State
		update := func(seq uint16) Verdict {
			_, _, v := s.Update(&rtp.Header{SequenceNumber: seq, Timestamp: uint32(seq) * 160}, int64(seq)*20e6)
			return v
		}
		for _, seq := range []uint16{100, 101, 103} {
			update(seq)
		}
		update(103 + ahead)
		if v := update(103); v != Duplicate {
			t.Errorf("stranger %d ahead: the copy before the others is %v, want %v", ahead, v, Duplicate)
		}
		for _, seq := range []uint16{104, 105, 106} {
			update(seq)
		}
		for _, p := range []struct {
			seq  uint16
			want Verdict
		}{{103, Duplicate}, {101, Duplicate}, {102, Reordered}, {102, Duplicate}, {105, Duplicate}, {100, Duplicate}, {99, Reordered}} {
			if v := update(p.seq); v != p.want {
				t.Errorf("stranger %d ahead: %d is %v, want %v", ahead, p.seq, v, p.want)
			}
		}
	}
}
