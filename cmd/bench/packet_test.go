package main

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"
)

func mustFrame(t *testing.T, seq uint16, stamp int64) []byte {
	t.Helper()
	b := make([]byte, frameBytes)
	prepareFrame(b, link{
		srcMAC: [6]byte{2, 0, 0, 0, 0, 1}, dstMAC: [6]byte{2, 0, 0, 0, 0, 2},
		src: netip.MustParseAddrPort("10.1.2.3:10000"), dst: netip.MustParseAddrPort("10.1.2.4:20002"),
	}, ssrcBase+7)
	fillFrame(b, seq, 160, &newVoice().silence, stamp)
	return b
}

// TestFrameIsWhatOthersRead: a decoder that is not ours finds all layers, and
// the checksums that it would have written.
func TestFrameIsWhatOthersRead(t *testing.T) {
	b := mustFrame(t, 4711, 123456789)
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	if p.ErrorLayer() != nil {
		t.Fatal(p.ErrorLayer().Error())
	}
	ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	udp := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if ip.DstIP.String() != "10.1.2.4" || udp.SrcPort != 10000 || udp.DstPort != 20002 || len(udp.Payload) != rtpBytes+payloadBytes {
		t.Fatalf("%v %v", ip, udp)
	}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true, FixLengths: true}, eth, ip, udp, gopacket.Payload(udp.Payload))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(b, buf.Bytes()); d != "" {
		t.Error(d)
	}
}

func TestParseFrame(t *testing.T) {
	b := mustFrame(t, 65535, 1<<55+3)
	got, ok := parseFrame(b)
	want := received{stream: 7, seq: 65535, stamp: 1<<55 + 3, src: netip.MustParseAddrPort("10.1.2.3:10000"), port: 20002}
	if !ok || got != want {
		t.Errorf("%v %+v", ok, got)
	}
	if !checksumRight(b) {
		t.Error("the checksum is wrong")
	}
	b[payloadOffset+50] ^= 1
	if checksumRight(b) {
		t.Error("damage is not seen")
	}
	for name, change := range map[string]func([]byte) []byte{
		"short":       func(b []byte) []byte { return b[:frameBytes-1] },
		"ARP":         func(b []byte) []byte { b[13] = 6; return b },
		"TCP":         func(b []byte) []byte { b[ethernetBytes+9] = 6; return b },
		"not RTP":     func(b []byte) []byte { b[rtpOffset] = 0; return b },
		"other SSRC":  func(b []byte) []byte { b[rtpOffset+8] = 0; return b },
		"empty":       func([]byte) []byte { return nil },
		"IP options":  func(b []byte) []byte { b[ethernetBytes] = 0x46; return b },
		"stream 2^16": func(b []byte) []byte { b[rtpOffset+9] = 0x75; return b },
	} {
		if _, ok := parseFrame(change(mustFrame(t, 1, 1))); ok {
			t.Errorf("%s: taken as ours", name)
		}
	}
}

func FuzzParseFrame(f *testing.F) {
	b := make([]byte, frameBytes)
	prepareFrame(b, link{src: netip.MustParseAddrPort("10.1.2.3:1"), dst: netip.MustParseAddrPort("10.1.2.4:2")}, ssrcBase)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parseFrame(b); ok && (p.stream < 0 || p.stream >= 1<<16) {
			t.Errorf("%+v", p)
		}
	})
}

func TestStampStaysQuiet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ns := rapid.Int64Range(0, stampMask).Draw(t, "ns")
		var b [payloadBytes]byte
		putStamp(b[:], ns)
		if got := stampOf(b[:]); got != ns {
			t.Fatalf("%d became %d", ns, got)
		}
		for _, c := range b[:stampBytes] {
			if c < 0xFC {
				t.Fatalf("code %#x is louder than an encoder's silence", c)
			}
		}
	})
}

// TestOrder compares with a set of all that came.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o order
		begin := rapid.Uint16().Draw(t, "begin")
		seen, dup := map[uint16]bool{}, uint64(0)
		fresh := 0
		for i, d := range rapid.SliceOfN(rapid.IntRange(0, 60), 1, 40).Draw(t, "places") {
			seq := begin + uint16(d)
			if i > 0 && seen[seq] {
				dup++
			}
			if o.take(seq) {
				fresh++
			}
			seen[seq] = true
		}
		if fresh != len(seen) || o.duplicate != dup {
			t.Fatalf("%d new ones of %d, %d duplicates of %d", fresh, len(seen), o.duplicate, dup)
		}
	})
	var o order
	for _, seq := range []uint16{65534, 65535, 0, 2, 1} {
		o.take(seq)
	}
	if o.reordered != 1 || o.duplicate != 0 {
		t.Errorf("over the wrap: %+v", o)
	}
}

// TestFillAllocatesNothing: garbage of the generator would be seen as latency.
func TestFillAllocatesNothing(t *testing.T) {
	b, v := mustFrame(t, 1, 1), newVoice()
	if n := testing.AllocsPerRun(100, func() { fillFrame(b, 2, 3, v.frame(1, 0, 4), 5) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// TestVoiceByTurns: one party speaks at a time, and it is loud enough to be speech.
func TestVoiceByTurns(t *testing.T) {
	v := newVoice()
	for call := range 3 {
		for n := 0; n < 1000; n += 50 {
			a, b := v.frame(call, 0, n) == &v.silence, v.frame(call, 1, n) == &v.silence
			if a == b {
				t.Fatalf("call %d, packet %d: both silent %v", call, n, a)
			}
		}
	}
	distinct := map[byte]bool{}
	for _, f := range v.speech {
		for _, c := range f {
			distinct[c] = true
		}
	}
	if len(distinct) < 100 {
		t.Errorf("the speech has %d levels", len(distinct))
	}
}

func BenchmarkFill(b *testing.B) {
	frame, v := make([]byte, frameBytes), newVoice()
	prepareFrame(frame, link{src: netip.MustParseAddrPort("10.1.2.3:1"), dst: netip.MustParseAddrPort("10.1.2.4:2")}, ssrcBase)
	for i := 0; b.Loop(); i++ {
		fillFrame(frame, uint16(i), uint32(i), v.frame(1, 0, i), int64(i))
	}
}
