package mediatest

import (
	"math"
	"testing"

	"github.com/pion/rtp"
)

func TestRTPStream(t *testing.T) {
	s := RTPStream{SSRC: 7, Seq: 65535, Timestamp: math.MaxUint32, PayloadType: 8, Marker: true, Encode: ALaw}
	packets := s.Packets(Tone(1000, 8000, 400, 8000), 160)
	if len(packets) != 3 {
		t.Fatalf("%d packets, want 3", len(packets))
	}
	for i, want := range []struct {
		seq    uint16
		ts     uint32
		size   int
		marker bool
	}{{65535, math.MaxUint32, 160, true}, {0, 159, 160, false}, {1, 319, 80, false}} {
		var p rtp.Packet
		if err := p.Unmarshal(packets[i]); err != nil {
			t.Fatal(err)
		}
		if p.SSRC != 7 || p.PayloadType != 8 || p.SequenceNumber != want.seq || p.Timestamp != want.ts ||
			len(p.Payload) != want.size || p.Marker != want.marker {
			t.Errorf("packet %d: %v", i, p)
		}
	}
}

func TestEnergyFindsTheTone(t *testing.T) {
	tone := Tone(1000, 8000, 800, 8000)
	if e := Energy(tone, 1000, 8000); math.Abs(e/(8000*8000/2)-1) > 0.001 {
		t.Errorf("energy at the tone: %v", e)
	}
	if e := Energy(tone, 700, 8000); e > 1 {
		t.Errorf("energy beside the tone: %v", e)
	}
	if e := Energy(nil, 700, 8000); e != 0 {
		t.Errorf("energy of nothing: %v", e)
	}
}

// Values of ITU-T G.711 tables 1a and 2a: the ends and middles of the ranges.
func TestG711(t *testing.T) {
	for _, c := range []struct {
		sample   int16
		mu, alaw byte
	}{
		{0, 0xff, 0xd5},
		{-1, 0x7f, 0x55},
		{32767, 0x80, 0xaa},
		{-32768, 0x00, 0x2a},
		{8, 0xfe, 0xd5},
		{16, 0xfd, 0xd4},
		{1000, 0xce, 0xfa},
		{-1000, 0x4e, 0x7a},
	} {
		if mu, a := MuLaw(c.sample), ALaw(c.sample); mu != c.mu || a != c.alaw {
			t.Errorf("%d: mu %#x, A %#x; want %#x, %#x", c.sample, mu, a, c.mu, c.alaw)
		}
	}
	last := [2]int{}
	for v := 0; v <= math.MaxInt16; v++ { // codes are monotonic in the magnitude
		mu, a := int(^MuLaw(int16(v))&0x7f), int(ALaw(int16(v))^0xd5)
		if mu < last[0] || a < last[1] {
			t.Fatalf("code falls at %d", v)
		}
		last = [2]int{mu, a}
	}
}
