package source

import (
	"errors"
	"math"
	"testing"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

func TestIsRTCP(t *testing.T) {
	tests := []struct {
		wire []byte
		want bool
	}{
		{[]byte{0x80, 200, 0, 6}, true},
		{[]byte{0x81, 203, 0, 1}, true},
		{[]byte{0x80, 192, 0, 0}, true},
		{[]byte{0x80, 223, 0, 0}, true},
		{[]byte{0x80, 0, 0, 0}, false},
		{[]byte{0x80, 0x80 | 8, 0, 0}, false},
		{[]byte{0x80, 191, 0, 0}, false},
		{[]byte{0x80, 224, 0, 0}, false},
		{[]byte{0x40, 200, 0, 6}, false},
		{[]byte{0x80, 200}, false},
		{nil, false},
	}
	for _, tt := range tests {
		if got := IsRTCP(tt.wire); got != tt.want {
			t.Errorf("%v: %v", tt.wire, got)
		}
	}
}

// wire makes a packet of a 12 byte header with the given first byte, and what follows.
func wire(first byte, rest string) []byte {
	return append([]byte{first, 8, 0, 7, 0, 0, 0, 9, 0, 0, 0, 1}, rest...)
}

func TestParse(t *testing.T) {
	tests := []struct {
		name    string
		wire    []byte
		payload string
		err     error
	}{
		{"plain", wire(0x80, "abc"), "abc", nil},
		{"empty", wire(0x80, ""), "", nil},
		{"padded", wire(0xa0, "ab\x00\x02"), "ab", nil},
		{"all padding", wire(0xa0, "\x00\x00\x03"), "", nil},
		{"padding of nothing", wire(0xa0, "ab\x00"), "", ErrPadding},
		{"padding too long", wire(0xa0, "ab\x09"), "", ErrPadding},
		{"padding into the header", wire(0xa0, ""), "", ErrPadding},
		{"sources", wire(0x82, "SSSSssssabc"), "abc", nil},
		{"sources lie", wire(0x8f, "SSSSssssabc"), "", ErrShort},
		{"extension", wire(0x90, "\x12\x34\x00\x01XXXXabc"), "abc", nil},
		{"extension of nothing", wire(0x90, "\xbe\xde\x00\x00abc"), "abc", nil},
		{"one-byte extension", wire(0x90, "\xbe\xde\x00\x01\x10\xaa\x00\x00abc"), "abc", nil},
		{"extension cut", wire(0x90, "\xbe\xde"), "", ErrExtension},
		{"extension lies", wire(0x90, "\xbe\xde\xff\xffabc"), "", ErrExtension},
		{"element lies", wire(0x90, "\xbe\xde\x00\x01\x1f\xaa\x00\x00abc"), "", ErrExtension},
		{"short", wire(0x80, "")[:11], "", ErrShort},
		{"version", wire(0x40, "abc"), "", ErrVersion},
		{"nothing", nil, "", ErrShort},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var h rtp.Header
			payload, err := Parse(tt.wire, &h)
			if !errors.Is(err, tt.err) || string(payload) != tt.payload {
				t.Errorf("%q, %v", payload, err)
			}
			if err == nil && (h.SequenceNumber != 7 || h.Timestamp != 9 || h.SSRC != 1 || h.PayloadType != 8) {
				t.Errorf("%+v", h)
			}
		})
	}
}

// in is one packet of a test: number, timestamp and arrival in packets of 20 ms.
type in struct {
	seq     uint16
	ts      uint32
	arrival int64
}

func TestState(t *testing.T) {
	const base = 1 << 16
	tests := []struct {
		name     string
		in       []in
		seq      []int64 // less base; only of usable packets
		verdicts []Verdict
		epochs   []int
		stats    Stats
	}{
		{"in order", []in{{1, 160, 1}, {2, 320, 2}, {3, 480, 3}}, []int64{1, 2, 3}, []Verdict{0, 0, 0}, []int{0, 0, 0}, Stats{Packets: 3}},
		{"wraps", []in{{65534, 160, 1}, {65535, 320, 2}, {0, 480, 3}, {1, 640, 4}}, []int64{65534, 65535, 65536, 65537}, []Verdict{0, 0, 0, 0}, []int{0, 0, 0, 0}, Stats{Packets: 4}},
		{"timestamp wraps", []in{{1, math.MaxUint32 - 79, 1}, {2, 80, 2}}, []int64{1, 2}, []Verdict{0, 0}, []int{0, 0}, Stats{Packets: 2}},
		{"lost", []in{{1, 160, 1}, {4, 640, 4}}, []int64{1, 4}, []Verdict{0, 0}, []int{0, 0}, Stats{Packets: 2, Lost: 2}},
		{"reordered", []in{{1, 160, 1}, {3, 480, 2}, {2, 320, 3}}, []int64{1, 3, 2}, []Verdict{InOrder, InOrder, Reordered}, []int{0, 0, 0}, Stats{Packets: 3, Reordered: 1}},
		{"first reordered", []in{{2, 320, 1}, {1, 160, 2}}, []int64{2, 1}, []Verdict{InOrder, Reordered}, []int{0, 0}, Stats{Packets: 2, Reordered: 1}},
		{"reordered over the wrap", []in{{0, 320, 1}, {65535, 160, 2}}, []int64{0, -1}, []Verdict{InOrder, Reordered}, []int{0, 0}, Stats{Packets: 2, Reordered: 1}},
		{"duplicates", []in{{1, 160, 1}, {2, 320, 2}, {2, 320, 2}, {1, 160, 3}}, []int64{1, 2, 0, 0}, []Verdict{0, 0, Duplicate, Duplicate}, []int{0, 0, 0, 0}, Stats{Packets: 2, Duplicate: 2}},
		{"too old", []in{{500, 160, 1}, {300, 160, 2}, {501, 320, 2}}, []int64{500, 0, 501}, []Verdict{0, TooOld, 0}, []int{0, 0, 0}, Stats{Packets: 2, TooOld: 1}},
		{"one stray packet", []in{{500, 160, 1}, {9000, 160, 2}, {501, 320, 2}, {9001, 480, 3}, {502, 480, 3}}, []int64{500, 0, 501, 0, 502}, []Verdict{0, Suspect, 0, Suspect, 0}, []int{0, 0, 0, 0, 0}, Stats{Packets: 3, Suspect: 2}},
		{"restart forward", []in{{500, 160, 1}, {9000, 90160, 2}, {9001, 90320, 3}, {9002, 90480, 4}}, []int64{500, 0, 502, 503}, []Verdict{0, Suspect, Restarted, 0}, []int{0, 0, 1, 1}, Stats{Packets: 4, Restarts: 1}},
		{"restart backward", []in{{500, 160000, 1}, {7, 160, 2}, {8, 320, 3}, {9, 480, 4}}, []int64{500, 0, 502, 503}, []Verdict{0, TooOld, Restarted, 0}, []int{0, 0, 1, 1}, Stats{Packets: 4, Restarts: 1}},
		{"timestamp jump", []in{{1, 160, 1}, {2, 900160, 2}, {3, 900320, 3}}, []int64{1, 2, 3}, []Verdict{0, 0, 0}, []int{0, 1, 1}, Stats{Packets: 3, Restarts: 1}},
		{"timestamp jump, overtaken", []in{{1, 160, 1}, {3, 900160, 2}, {2, 320, 3}, {5, 900480, 4}, {4, 900320, 5}}, []int64{1, 3, 2, 5, 4}, []Verdict{0, 0, Reordered, 0, Reordered}, []int{0, 1, 0, 1, 1}, Stats{Packets: 5, Reordered: 2, Restarts: 1}},
		{"new base overtakes its own first packet", []in{{1, 160, 1}, {3, 900320, 2}, {2, 900160, 3}}, []int64{1, 3, 2}, []Verdict{0, 0, Reordered}, []int{0, 1, 1}, Stats{Packets: 3, Reordered: 1, Restarts: 1}},
		{"silence of a minute", []in{{1, 160, 1}, {2, 160 * 3001, 3001}}, []int64{1, 2}, []Verdict{0, 0}, []int{0, 0}, Stats{Packets: 2}},
		{"sender's clock stood still", []in{{1, 160, 1}, {2, 320, 302}}, []int64{1, 2}, []Verdict{0, 0}, []int{0, 1}, Stats{Packets: 2, Restarts: 1}},
		{"an event of three seconds", []in{{1, 160, 1}, {2, 320, 2}, {3, 320, 100}, {4, 320, 151}, {5, 320 + 160*150, 152}}, []int64{1, 2, 3, 4, 5}, []Verdict{0, 0, 0, 0, 0}, []int{0, 0, 0, 0, 0}, Stats{Packets: 5}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s State
			for i, p := range tt.in {
				seq, _, v := s.Update(&rtp.Header{SequenceNumber: p.seq, Timestamp: p.ts}, p.arrival*20e6)
				if v != tt.verdicts[i] {
					t.Errorf("packet %d: %v, want %v", i, v, tt.verdicts[i])
				}
				if v.Usable() && (seq-base != tt.seq[i] || s.Epoch() != tt.epochs[i]) {
					t.Errorf("packet %d: sequence %d epoch %d, want %d and %d", i, seq-base, s.Epoch(), tt.seq[i], tt.epochs[i])
				}
			}
			if got := s.Stats(); got != tt.stats {
				t.Errorf("%+v, want %+v", got, tt.stats)
			}
		})
	}
}

// A day of packets: numbers and timestamps wrap many times and never go back.
func TestStateOverADay(t *testing.T) {
	var s State
	h := rtp.Header{SequenceNumber: 65000, Timestamp: math.MaxUint32 - 1000}
	var firstSeq, firstTS int64
	const packets = 24 * 3600 * 50
	for i := int64(0); i < packets; i++ {
		seq, ts, v := s.Update(&h, i*20e6)
		if i == 0 {
			firstSeq, firstTS = seq, ts
		}
		if v != InOrder || seq-firstSeq != i || ts-firstTS != 160*i {
			t.Fatalf("packet %d: %v, %d, %d", i, v, seq-firstSeq, ts-firstTS)
		}
		h.SequenceNumber++
		h.Timestamp += 160
	}
	if st := s.Stats(); st.Packets != packets || st.Lost != 0 || s.Epoch() != 0 {
		t.Errorf("%+v", st)
	}
}

func compound(t testing.TB) []byte {
	t.Helper()
	b, err := rtcp.Marshal([]rtcp.Packet{
		&rtcp.SenderReport{
			SSRC: 7, NTPTime: 0xe0000000_80000000, RTPTime: 1600, PacketCount: 10, OctetCount: 1600,
			Reports: []rtcp.ReceptionReport{{SSRC: 9}},
		},
		rtcp.NewCNAMESourceDescription(7, "a@b"),
		&rtcp.Goodbye{Sources: []uint32{7, 8}, Reason: "done"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseReports(t *testing.T) {
	var r Reports
	if err := ParseReports(compound(t), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Sender) != 1 || r.Sender[0].SSRC != 7 || r.Sender[0].RTPTime != 1600 || len(r.Bye) != 2 || r.Bye[1] != 8 {
		t.Errorf("%+v", r)
	}
	if got := r.Sender[0].NTPNanos() % 1e9; got != 500e6 {
		t.Errorf("half a second is %d ns", got)
	}
	wire := compound(t)
	for n := range wire { // cut anywhere: an error, or a whole number of packets
		if err := ParseReports(wire[:n], &r); err == nil && n%4 != 0 {
			t.Errorf("%d bytes of %d were accepted", n, len(wire))
		}
	}
	if err := ParseReports(make([]byte, CompoundBytesMax+1), &r); !errors.Is(err, ErrRTCP) {
		t.Error(err)
	}
}

func TestSenderReport(t *testing.T) {
	var s State
	if _, ok := s.SenderReport(SenderReport{}); ok {
		t.Error("a report before the first packet has a timestamp")
	}
	_, ts, _ := s.Update(&rtp.Header{Timestamp: 0xffffff00}, 0)
	if got, ok := s.SenderReport(SenderReport{RTPTime: 0x100}); !ok || got != ts+0x200 {
		t.Errorf("%d, %v", got-ts, ok)
	}
	if _, ok := s.SenderReport(SenderReport{RTPTime: 0x7fffff00}); ok {
		t.Error("a report of another timestamp base was taken")
	}
}

func TestUpdateDoesNotAllocate(t *testing.T) {
	var s State
	var h rtp.Header
	packet := wire(0x92, "SSSSssss\xbe\xde\x00\x01\x10\xaa\x00\x00abc")
	n := uint16(0)
	step := func() {
		packet[2], packet[3] = byte(n>>8), byte(n)
		if _, err := Parse(packet, &h); err != nil {
			t.Fatal(err)
		}
		s.Update(&h, int64(n))
		n++
	}
	step()
	if got := testing.AllocsPerRun(1000, step); got != 0 {
		t.Errorf("%v allocations a packet", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(wire(0x80, "abc"))
	f.Add(wire(0xa0, "ab\x00\x02"))
	f.Add(wire(0x92, "SSSSssss\xbe\xde\x00\x01\x10\xaa\x00\x00abc"))
	f.Add(wire(0x90, "\x10\x00\x00\x01\x01\x02\xaa\xbbabc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h rtp.Header
		var s State
		payload, err := Parse(b, &h)
		if err != nil {
			if payload != nil {
				t.Fatal("a payload beside an error")
			}
			return
		}
		if len(payload) > len(b)-headerBytes {
			t.Fatalf("payload of %d bytes in %d", len(payload), len(b))
		}
		s.Update(&h, 0)
	})
}

func FuzzRTCP(f *testing.F) {
	f.Add(compound(f))
	f.Add([]byte{0x80, 200, 0, 6})
	f.Add([]byte{0x81, 203, 0, 1, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Reports
		err := ParseReports(b, &r)
		if len(r.Sender) > CompoundReportsMax || len(r.Bye) > CompoundReportsMax {
			t.Fatal("more than the limit")
		}
		if err == nil && len(b)%4 != 0 {
			t.Fatalf("%d bytes are no RTCP", len(b))
		}
	})
}
