package pcap

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// ipPacket makes a raw IP packet with a datagram in it.
func ipPacket(t testing.TB, src, dst netip.AddrPort, payload []byte) []byte {
	t.Helper()
	return mustWrite(t, NewWriter, func(w *Writer) error { return w.WriteUDP(t0, src, dst, payload) })[24+16:]
}

// capture makes a pcap file of frames by gopacket's writer.
func capture(t testing.TB, link layers.LinkType, frames ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	if err := w.WriteFileHeader(65536, link); err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: t0, CaptureLength: len(f), Length: len(f)}, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// pack serialises layers by gopacket around a payload.
func pack(t testing.TB, payload []byte, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	ls = append(ls, gopacket.Payload(payload))
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, ls...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b.Bytes())
}

func ether(typ layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: typ}
}

func outer4(p layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 9, Protocol: p, SrcIP: []byte{10, 0, 0, 1}, DstIP: []byte{10, 0, 0, 2}}
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestLinkTypesAndTunnels(t *testing.T) {
	v4, v6 := ipPacket(t, a4, b4, sip), ipPacket(t, a6, b6, sip)
	withExtensions := func(ext ...byte) []byte { // between the IPv6 header and UDP
		p := cat(v6[:40], ext, v6[40:])
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
		return p
	}
	hop := withExtensions(17, 0, 1, 4, 0, 0, 0, 0)
	hop[6] = 0
	ah := withExtensions(cat([]byte{17, 4, 0, 0}, make([]byte, 20))...)
	ah[6] = 51
	atomic := withExtensions(17, 0, 0, 0, 0, 0, 0, 9)
	atomic[6] = 44
	vlan := func(id uint16, typ layers.EthernetType) *layers.Dot1Q {
		return &layers.Dot1Q{VLANIdentifier: id, Type: typ}
	}
	tests := []struct {
		name  string
		link  layers.LinkType
		frame []byte
	}{
		{"Ethernet, IPv4", 1, pack(t, v4, ether(layers.EthernetTypeIPv4))},
		{"Ethernet, IPv6", 1, pack(t, v6, ether(layers.EthernetTypeIPv6))},
		{"Ethernet with trailer", 1, cat(pack(t, v4, ether(layers.EthernetTypeIPv4)), make([]byte, 9))},
		{"802.1Q", 1, pack(t, v4, ether(layers.EthernetTypeDot1Q), vlan(7, layers.EthernetTypeIPv4))},
		{"QinQ", 1, pack(t, v6, ether(layers.EthernetTypeQinQ), vlan(7, layers.EthernetTypeDot1Q), vlan(8, layers.EthernetTypeIPv6))},
		{"MPLS", 1, pack(t, v4, ether(layers.EthernetTypeMPLSUnicast), &layers.MPLS{Label: 5, StackBottom: false}, &layers.MPLS{Label: 6, StackBottom: true})},
		{"PPPoE", 1, pack(t, v4, ether(layers.EthernetTypePPPoESession), &layers.PPPoE{Version: 1, Type: 1}, &layers.PPP{PPPType: layers.PPPTypeIPv4})},
		{"cooked v1", 113, cat(make([]byte, 14), []byte{0x08, 0x00}, v4)},
		{"cooked v1 with VLAN", 113, cat(make([]byte, 14), []byte{0x81, 0x00, 0, 9, 0x86, 0xdd}, v6)},
		{"cooked v2", 276, cat([]byte{0x86, 0xdd}, make([]byte, 18), v6)},
		{"raw 101", 101, v4},
		{"raw 12", 12, v6},
		{"raw 14", 14, v4},
		{"IPv4 228", 228, v4},
		{"IPv6 229", 229, v6},
		{"null", 0, cat([]byte{2, 0, 0, 0}, v4)},
		{"null, IPv6 of macOS", 0, cat([]byte{30, 0, 0, 0}, v6)},
		{"loop", 108, cat([]byte{0, 0, 0, 2}, v4)},
		{"PPP", 9, cat([]byte{0xff, 0x03, 0x00, 0x21}, v4)},
		{"PPP, compressed", 9, cat([]byte{0x57}, v6)},
		{"IP in IP", 101, pack(t, v4, outer4(4))},
		{"IPv6 in IPv4", 101, pack(t, v6, outer4(41))},
		{"GRE", 101, pack(t, v4, outer4(47), &layers.GRE{Protocol: layers.EthernetTypeIPv4})},
		{"GRE with key and sequence", 101, pack(t, v6, outer4(47), &layers.GRE{Protocol: layers.EthernetTypeIPv6, KeyPresent: true, SeqPresent: true})},
		{"Ethernet in GRE", 101, pack(t, v4, outer4(47), &layers.GRE{Protocol: 0x6558}, ether(layers.EthernetTypeIPv4))},
		{"hop by hop options", 101, hop},
		{"authentication header", 101, ah},
		{"atomic fragment", 101, atomic},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all, stats := mustRead(t, capture(t, tt.link, tt.frame))
			if len(all) != 1 {
				t.Fatalf("%d packets, %+v", len(all), stats)
			}
			src, dst := a4, b4
			if all[0].src.Addr().Is6() {
				src, dst = a6, b6
			}
			if want := (got{at: t0, proto: UDP, src: src, dst: dst, payload: string(sip)}); all[0] != want {
				t.Errorf("got %+v, want %+v", all[0], want)
			}
			for cut := range tt.frame { // a lying or cut header may give nothing, but never a panic
				if _, s := mustRead(t, capture(t, tt.link, tt.frame[:cut])); s.Packets != 1 {
					t.Errorf("cut at %d: %+v", cut, s)
				}
			}
		})
	}
}

func TestWhatIsNoDatagramIsCounted(t *testing.T) {
	v4 := ipPacket(t, a4, b4, sip)
	with := func(change func(b []byte)) []byte {
		b := bytes.Clone(v4)
		change(b)
		return b
	}
	nested := v4
	for range 20 {
		nested = pack(t, nested, outer4(4))
	}
	tests := []struct {
		name  string
		link  layers.LinkType
		frame []byte
		want  Stats
	}{
		{"ARP", 1, pack(t, make([]byte, 28), ether(layers.EthernetTypeARP)), Stats{NonIP: 1}},
		{"ICMP", 101, with(func(b []byte) { b[9] = 1 }), Stats{OtherIP: 1}},
		{"unknown link", 147, v4, Stats{Undecodable: 1}},
		{"IP version 5", 101, with(func(b []byte) { b[0] = 0x55 }), Stats{Undecodable: 1}},
		{"header longer than packet", 101, with(func(b []byte) { b[0], b[3] = 0x4f, 30 }), Stats{Undecodable: 1}},
		{"UDP length too long", 101, with(func(b []byte) { b[25] = 200 }), Stats{Undecodable: 1}},
		{"UDP length too short", 101, with(func(b []byte) { b[25] = 7 }), Stats{Undecodable: 1}},
		{"tunnels without end", 101, nested, Stats{Undecodable: 1}},
		{"GRE version 3", 101, pack(t, v4, outer4(47), &layers.GRE{Version: 3, Protocol: layers.EthernetTypeIPv4}), Stats{OtherIP: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all, s := mustRead(t, capture(t, tt.link, tt.frame))
			tt.want.Packets, tt.want.Bytes = 1, int64(len(tt.frame))
			if len(all) != 0 || s != tt.want {
				t.Errorf("%d packets, %+v, want %+v", len(all), s, tt.want)
			}
		})
	}
}

func TestSnapLengthCutsAreMarked(t *testing.T) {
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	frame := ipPacket(t, a4, b4, sip)
	if err := w.WriteFileHeader(40, 101); err != nil {
		t.Fatal(err)
	}
	if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: t0, CaptureLength: 40, Length: len(frame)}, frame[:40]); err != nil {
		t.Fatal(err)
	}
	all, s := mustRead(t, b.Bytes())
	if len(all) != 1 || !all[0].cut || all[0].payload != string(sip[:12]) || s.Cut != 1 {
		t.Errorf("%+v %+v", all, s)
	}
}

func TestNoAllocationPerDatagram(t *testing.T) {
	file := mustWrite(t, NewEthernetWriter, func(w *Writer) error {
		for range 3000 {
			if err := w.WriteUDP(t0, a4, b4, make([]byte, 172)); err != nil {
				return err
			}
		}
		return nil
	})
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(2000, func() {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func BenchmarkNext(b *testing.B) {
	file := mustWrite(b, NewEthernetWriter, func(w *Writer) error {
		for range 1000 {
			if err := w.WriteUDP(t0, a4, b4, make([]byte, 172)); err != nil {
				return err
			}
		}
		return nil
	})
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		r, err := NewReader(bytes.NewReader(file))
		if err != nil {
			b.Fatal(err)
		}
		if all, _ := countPackets(r); all != 1000 {
			b.Fatal(all)
		}
	}
}

func countPackets(src Source) (n int, err error) {
	for {
		if _, err = src.Next(); err != nil {
			return n, err
		}
		n++
	}
}
