package latch

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

var (
	sdp      = netip.MustParseAddrPort("192.0.2.10:4000")
	sdpPort2 = netip.MustParseAddrPort("192.0.2.10:4002")
	nat      = netip.MustParseAddrPort("203.0.113.5:31000")
	natPort2 = netip.MustParseAddrPort("203.0.113.5:31001")
	thief    = netip.MustParseAddrPort("198.51.100.66:4000")
	moved    = netip.MustParseAddrPort("192.0.2.20:6000")
)

// packet is an RTP packet of four octets of payload.
func packet(pt uint8, ssrc byte) []byte {
	return []byte{0x80, pt, 0, 1, 0, 0, 0, 160, 0, 0, 0, ssrc, 1, 2, 3, 4}
}

// step is one input to a latch and what must come of it.
type step struct {
	negotiate netip.AddrPort // when valid: nothing else
	from      netip.AddrPort
	wire      []byte // nil: RTCP
	want      Verdict
	source    netip.AddrPort // after the step; not looked at when invalid
}

func rtp(from netip.AddrPort, ssrc byte, want Verdict, source netip.AddrPort) step {
	return step{from: from, wire: packet(0, ssrc), want: want, source: source}
}

func rtcp(from netip.AddrPort, want Verdict) step { return step{from: from, want: want} }

func TestLatch(t *testing.T) {
	mapped := netip.AddrPortFrom(netip.AddrFrom16(sdp.Addr().As16()), sdp.Port())
	for _, c := range []struct {
		name  string
		any   bool
		steps []step
	}{
		{"the SDP's address sends", false, []step{
			rtp(sdp, 1, Accepted, sdp), rtp(sdp, 2, Accepted, sdp),
		}},
		{"an address mapped into IPv6 is the same address", false, []step{
			rtp(mapped, 1, Accepted, sdp), rtp(sdp, 1, Accepted, sdp), rtcp(mapped, Accepted),
		}},
		{"the first valid source latches behind NAT", false, []step{
			rtp(nat, 1, Accepted, nat), rtp(nat, 1, Accepted, nat), rtp(nat, 9, Accepted, nat),
		}},
		{"a third address cannot steal", false, []step{
			rtp(nat, 1, Accepted, nat), rtp(thief, 1, RejectedSource, nat), rtp(thief, 2, RejectedSource, nat),
			rtp(sdp, 3, Accepted, sdp), rtp(thief, 3, RejectedSource, sdp), rtp(nat, 1, RejectedSource, sdp),
		}},
		{"the SDP's address wins over the first source, and keeps", false, []step{
			rtp(nat, 1, Accepted, nat), rtp(sdp, 2, Accepted, sdp), rtp(nat, 2, RejectedSource, sdp),
		}},
		{"the same SSRC goes on from another port", false, []step{
			rtp(nat, 1, Accepted, nat), rtp(natPort2, 2, RejectedSource, nat),
			rtp(natPort2, 1, Accepted, natPort2), rtp(nat, 3, RejectedSource, natPort2),
		}},
		{"also when it was the SDP's", false, []step{
			rtp(sdp, 1, Accepted, sdp), rtp(sdpPort2, 1, Accepted, sdpPort2), rtp(sdpPort2, 1, Accepted, sdpPort2),
			rtp(sdp, 1, Accepted, sdp), // the address in the SDP when that sends
		}},
		{"the SSRC to follow is the latest one", false, []step{
			rtp(nat, 1, Accepted, nat), rtp(nat, 5, Accepted, nat),
			rtp(natPort2, 1, RejectedSource, nat), rtp(natPort2, 5, Accepted, natPort2),
		}},
		{"a stranger needs a negotiated payload type", false, []step{
			{from: nat, wire: packet(18, 1), want: RejectedForm},
			{from: nat, wire: packet(0x80|8, 1), want: Accepted, source: nat}, // with marker
		}},
		{"the source itself may send any payload type", false, []step{
			{from: sdp, wire: packet(13, 1), want: Accepted, source: sdp},
			rtp(sdp, 1, Accepted, sdp),
			{from: sdp, wire: packet(19, 1), want: Accepted, source: sdp},
			{from: sdp, wire: []byte("no RTP at all"), want: RejectedForm, source: sdp},
		}},
		{"renegotiation frees, stragglers do not latch", false, []step{
			rtp(nat, 1, Accepted, nat),
			{negotiate: moved},
			rtp(nat, 1, Accepted, netip.AddrPort{}), rtcp(nat, Accepted), rtcp(thief, RejectedSource),
			rtp(thief, 3, Accepted, thief), rtp(nat, 1, RejectedSource, thief),
			rtp(moved, 2, Accepted, moved), rtp(thief, 2, RejectedSource, moved),
		}},
		{"renegotiation of the same address keeps", false, []step{
			rtp(nat, 1, Accepted, nat), {negotiate: sdp}, rtp(thief, 1, RejectedSource, nat), rtp(nat, 1, Accepted, nat),
		}},
		{"hold by 0.0.0.0 or port 0 keeps", false, []step{
			rtp(nat, 1, Accepted, nat),
			{negotiate: netip.MustParseAddrPort("0.0.0.0:4000")},
			{negotiate: netip.MustParseAddrPort("192.0.2.99:0")},
			rtp(thief, 1, RejectedSource, nat),
			{negotiate: sdp},
			rtp(thief, 1, RejectedSource, nat),
		}},
		{"renegotiation to where it sends from already", false, []step{
			rtp(nat, 1, Accepted, nat), {negotiate: nat}, rtp(thief, 1, RejectedSource, nat), rtp(nat, 1, Accepted, nat),
		}},
		{"RTCP comes from the same address, whatever port", false, []step{
			rtcp(sdp, Accepted), rtcp(nat, RejectedSource),
			rtp(nat, 1, Accepted, nat), rtcp(natPort2, Accepted), rtcp(sdp, RejectedSource),
			rtcp(netip.AddrPort{}, RejectedSource),
		}},
		{"any form", true, []step{
			{from: nat, wire: []byte{}, want: Accepted, source: nat},
			{from: natPort2, wire: packet(0, 0), want: RejectedSource, source: nat},
			{from: sdp, wire: []byte{1}, want: Accepted, source: sdp},
			{from: nat, wire: []byte{1}, want: RejectedSource, source: sdp},
		}},
		{"no source address", false, []step{rtp(netip.AddrPort{}, 1, RejectedSource, netip.AddrPort{})}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := Latch{Any: c.any}
			l.Negotiate(sdp, []uint8{0, 8, 101})
			for i, s := range c.steps {
				run(t, &l, i, s)
			}
		})
	}
}

func run(t *testing.T, l *Latch, i int, s step) {
	t.Helper()
	var got Verdict
	switch {
	case s.negotiate.IsValid():
		l.Negotiate(s.negotiate, []uint8{0, 8, 101})
		return
	case s.wire == nil:
		got = l.AcceptRTCP(s.from)
	default:
		got = l.Accept(s.from, s.wire)
	}
	if got != s.want {
		t.Fatalf("step %d: %v from %v, want %v", i, got, s.from, s.want)
	}
	if source, _ := l.Source(); s.source.IsValid() && source != s.source {
		t.Fatalf("step %d: source %v, want %v", i, source, s.source)
	}
}

// Without an address in the SDP the first source is taken.
func TestLatchWithoutSDP(t *testing.T) {
	var l Latch
	if v := l.Accept(nat, packet(0, 1)); v != RejectedForm {
		t.Fatalf("before negotiation: %v", v)
	}
	l.Negotiate(netip.AddrPort{}, []uint8{0})
	if v := l.Accept(nat, packet(0, 1)); v != Accepted {
		t.Fatal(v)
	}
	if v := l.Accept(thief, packet(0, 1)); v != RejectedSource {
		t.Fatal(v)
	}
}

// A straggler becomes the source after all when it does not stop.
func TestFormerSourceLatchesInTheEnd(t *testing.T) {
	var l Latch
	l.Negotiate(sdp, []uint8{0})
	l.Accept(nat, packet(0, 1))
	l.Negotiate(moved, []uint8{0})
	for i := range formerPacketsMax {
		if v := l.Accept(nat, packet(0, 1)); v != Accepted {
			t.Fatalf("packet %d: %v", i, v)
		}
		if s, ok := l.Source(); ok {
			t.Fatalf("packet %d made %v the source", i, s)
		}
	}
	l.Accept(nat, packet(0, 1))
	if s, _ := l.Source(); s != nat {
		t.Fatalf("source %v, want %v", s, nat)
	}
	want := Counts{Accepted: formerPacketsMax + 2, Changes: 1}
	if l.Counts() != want {
		t.Fatalf("counts %+v, want %+v", l.Counts(), want)
	}
}

func TestForm(t *testing.T) {
	for _, c := range []struct {
		name       string
		wire       []byte
		well, rtcp bool
		makes      bool // a source of it
	}{
		{"plain", packet(0, 1), true, false, true},
		{"header alone", packet(0, 1)[:12], true, false, true},
		{"short", packet(0, 1)[:11], false, false, false},
		{"version 1", append([]byte{0x40}, packet(0, 1)[1:]...), false, false, false},
		{"STUN", append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...), false, false, false},
		{"one CSRC", append([]byte{0x81}, packet(0, 1)[1:]...), true, false, true},
		{"two CSRCs, room for one", append([]byte{0x82}, packet(0, 1)[1:]...), false, false, false},
		{"extension", append([]byte{0x90}, append(packet(0, 1)[1:12], 0, 0, 0, 1, 9, 9, 9, 9)...), true, false, true},
		{"extension of 65535 words", append([]byte{0x90}, append(packet(0, 1)[1:12], 0, 0, 0xff, 0xff)...), false, false, false},
		{"extension cut off", append([]byte{0x90}, append(packet(0, 1)[1:12], 0, 0)...), false, false, false},
		{"padding", append([]byte{0xa0}, packet(0, 1)[1:]...), true, false, true},
		{"padding of 5 in 4", append([]byte{0xa0}, append(packet(0, 1)[1:15], 5)...), true, false, false},
		{"padding of 0", append([]byte{0xa0}, append(packet(0, 1)[1:15], 0)...), true, false, false},
		{"padding of nothing", append([]byte{0xa0}, packet(0, 1)[1:12]...), true, false, false},
		{"sender report", append([]byte{0x80, 200, 0, 6}, make([]byte, 24)...), true, true, false},
		{"RTCP cut off", []byte{0x80, 200, 0, 6}, false, false, false},
		{"empty", nil, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := wellFormed(c.wire); got != c.well {
				t.Errorf("well formed: %v", got)
			}
			if got := IsRTCP(c.wire); got != c.rtcp {
				t.Errorf("RTCP: %v", got)
			}
			var l Latch
			l.Negotiate(sdp, []uint8{0})
			if got := l.Accept(nat, c.wire) == Accepted; got != c.makes {
				t.Errorf("makes a source: %v", got)
			}
		})
	}
}

// TestLatchNeverLetsStrangersIn plays random packets and renegotiations and
// holds the contract: whoever is neither the source, nor the SDP's address, nor
// its successor by SSRC gets nothing through while there is a source.
func TestLatchNeverLetsStrangersIn(t *testing.T) {
	addrs := []netip.AddrPort{sdp, sdpPort2, nat, natPort2, thief, moved}
	rapid.Check(t, func(t *rapid.T) {
		l := Latch{}
		announced := sdp
		l.Negotiate(announced, []uint8{0})
		var ssrc byte // of the source
		var n uint64
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			from := rapid.SampledFrom(addrs).Draw(t, "from")
			if rapid.IntRange(0, 9).Draw(t, "what") == 0 {
				l.Negotiate(from, []uint8{0})
				announced = from
				continue
			}
			source, known := l.Source()
			pt, id := rapid.SampledFrom([]uint8{0, 18}).Draw(t, "pt"), rapid.ByteRange(1, 3).Draw(t, "ssrc")
			got := l.Accept(from, packet(pt, id))
			n++
			after, _ := l.Source()
			follows := from.Addr() == source.Addr() && id == ssrc && pt == 0
			if known && (got == Accepted) != (from == source || from == announced || follows) {
				t.Fatalf("%v from %v with source %v, SDP %v", got, from, source, announced)
			}
			if known && got == Accepted && after != from || got != Accepted && after != source {
				t.Fatalf("source %v after %v from %v", after, got, from)
			}
			if from == announced && got != Accepted {
				t.Fatalf("the SDP's address %v: %v", from, got)
			}
			if after == from {
				ssrc = id
			}
		}
		if c := l.Counts(); c.Accepted+c.RejectedSource+c.RejectedForm != n {
			t.Fatalf("counts %+v of %d packets", c, n)
		}
	})
}

func FuzzAccept(f *testing.F) {
	f.Add(packet(0, 1))
	f.Add([]byte{0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff})
	f.Add([]byte{0xbf, 0})
	f.Fuzz(func(t *testing.T, wire []byte) {
		var l Latch
		l.Negotiate(sdp, []uint8{0, 127})
		first := l.Accept(nat, wire)
		if IsRTCP(wire) && first == Accepted && wire[1]&0x7f != 0 && wire[1]&0x7f != 127 {
			t.Fatal("RTCP made a source")
		}
		if again := l.Accept(nat, wire); again != first {
			t.Fatalf("%v, then %v", first, again)
		}
		if l.Accept(thief, wire) == Accepted {
			t.Fatal("stolen")
		}
	})
}

func TestAcceptDoesNotAllocate(t *testing.T) {
	var l Latch
	l.Negotiate(sdp, []uint8{0})
	wire := packet(0, 1)
	if n := testing.AllocsPerRun(1000, func() { l.Accept(nat, wire); l.Accept(thief, wire) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkAccept(b *testing.B) {
	var l Latch
	l.Negotiate(sdp, []uint8{0})
	wire := packet(0, 1)
	b.ReportAllocs()
	for b.Loop() {
		l.Accept(nat, wire)
	}
}
