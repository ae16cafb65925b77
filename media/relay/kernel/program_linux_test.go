package kernel_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media/relay/kernel"
	"github.com/trunktap/trunktap/media/relay/kernel/kerneltest"
)

// What the program answers.
const (
	left     = 0xffffffff // TCX_NEXT
	redirect = 7          // TCX_REDIRECT
)

// frame describes a packet on the wire.
type frame struct {
	from, to netip.AddrPort
	tos, ttl uint8
	id       uint16
	flags    layers.IPv4Flag
	label    uint32
	noSum    bool
	payload  []byte
}

func (f frame) bytes(t rapid.TB) []byte {
	eth := &layers.Ethernet{SrcMAC: make(net.HardwareAddr, 6), DstMAC: make(net.HardwareAddr, 6), EthernetType: layers.EthernetTypeIPv4}
	udp := &layers.UDP{SrcPort: layers.UDPPort(f.from.Port()), DstPort: layers.UDPPort(f.to.Port())}
	var ip gopacket.SerializableLayer
	ipv4 := &layers.IPv4{
		Version: 4, TOS: f.tos, TTL: f.ttl, Id: f.id, Flags: f.flags, Protocol: layers.IPProtocolUDP,
		SrcIP: f.from.Addr().AsSlice(), DstIP: f.to.Addr().AsSlice(),
	}
	ip = ipv4
	var network gopacket.NetworkLayer = ipv4
	if f.from.Addr().Is6() {
		eth.EthernetType = layers.EthernetTypeIPv6
		ipv6 := &layers.IPv6{
			Version: 6, TrafficClass: f.tos, HopLimit: f.ttl, FlowLabel: f.label, NextHeader: layers.IPProtocolUDP,
			SrcIP: f.from.Addr().AsSlice(), DstIP: f.to.Addr().AsSlice(),
		}
		ip, network = ipv6, ipv6
	}
	if err := udp.SetNetworkLayerForChecksum(network); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, eth, ip, udp, gopacket.Payload(f.payload)); err != nil {
		t.Fatal(err)
	}
	head := 14 + 20 + 8
	if f.from.Addr().Is6() {
		head += 20
	}
	b := bytes.Clone(buf.Bytes()[:head+len(f.payload)]) // without what fills up a short frame
	if f.noSum {
		at := len(b) - len(f.payload) - 2
		b[at], b[at+1] = 0, 0
	}
	return b
}

// bench has one flow of each IP version, which the program has taken.
type bench struct {
	e     *kernel.Engine
	in    [2]frame // a packet of the flow
	out   [2]frame // what becomes of it
	sinks [2]*sink
}

func newBench(t *testing.T) *bench {
	b := &bench{e: start(t, config()), sinks: [2]*sink{newSink(), newSink()}}
	at := netip.MustParseAddrPort
	if err := (&kerneltest.Host{}).TryIP("addr add fd00::2/128 dev lo"); err != nil {
		t.Skip(err)
	}
	specs := [2]kernel.Spec{
		{Local: at("127.0.0.2:20000"), Source: at("127.0.1.1:5004"), OutSource: at("127.0.0.3:20002"), OutDest: at("127.0.1.2:6000")},
		{Local: at("[::1]:20000"), Source: at("[fd00::2]:5004"), OutSource: at("[fd00::2]:20002"), OutDest: at("[::1]:6000")},
	}
	for i, s := range specs {
		s.SSRC, s.DSCP, s.Record = 7, 46, true
		f, err := b.e.Add(s, b.sinks[i])
		if err != nil {
			t.Fatal(err)
		}
		b.in[i] = frame{from: s.Source, to: s.Local, ttl: 3, payload: rtp(1, 160), flags: layers.IPv4DontFragment}
		b.out[i] = frame{from: s.OutSource, to: s.OutDest, ttl: 64, tos: 46 << 2, payload: rtp(1, 160), flags: layers.IPv4DontFragment}
		if verdict, got := b.run(t, b.in[i].bytes(t)); verdict != left || !bytes.Equal(got, b.in[i].bytes(t)) {
			t.Fatalf("the first packet: %d", verdict)
		}
		f.Handled(kernel.Mark(b.in[i].payload))
		if verdict, _ := b.run(t, b.in[i].bytes(t)); verdict != redirect {
			t.Fatalf("flow %d is not taken: %d", i, verdict)
		}
	}
	return b
}

func (b *bench) run(t rapid.TB, in []byte) (verdict uint32, out []byte) {
	verdict, out, err := b.e.Program().Test(in)
	if err != nil {
		t.Fatalf("run the program: %v", err)
	}
	return verdict, out
}

// Whatever a packet of the flow looks like, what goes out is as if it had been
// made there: addresses, ports, class, hop limit and checksums.
func TestProgramRewrites(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	b := newBench(t)
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.IntRange(0, 1).Draw(t, "version")
		in, out := b.in[v], b.out[v]
		in.payload = append(rtp(1, 0), rapid.SliceOfN(rapid.Byte(), 0, 1476).Draw(t, "payload")...)
		in.payload[1] = rapid.SampledFrom([]byte{0, 0x80, 8, 101, 0x80 | 101, 127, 255, 191, 224}).Draw(t, "type")
		in.tos, in.ttl = rapid.Byte().Draw(t, "class"), rapid.Byte().Draw(t, "hops")
		in.id, in.label = rapid.Uint16().Draw(t, "id"), rapid.Uint32Range(0, 1<<20-1).Draw(t, "label")
		in.noSum = v == 0 && rapid.Bool().Draw(t, "no checksum")
		if rapid.Bool().Draw(t, "may be fragmented") {
			in.flags = 0
		}
		out.payload, out.noSum, out.id, out.flags = in.payload, in.noSum, in.id, in.flags
		wire := in.bytes(t)
		if room := 60 - len(wire); room > 0 && rapid.Bool().Draw(t, "padded") {
			wire = append(wire, make([]byte, room)...) // to the least that Ethernet carries
		}
		verdict, got := b.run(t, wire)
		if want := out.bytes(t); verdict != redirect || !bytes.Equal(got, want) {
			t.Fatalf("verdict %d\n got %x\nwant %x", verdict, got, want)
		}
		b.e.Drain()
		if last := b.sinks[v].last(); !bytes.Equal(last, in.payload) {
			t.Fatalf("the copy is %x, want %x", last, in.payload)
		}
	})
}

// What is not plainly RTP of the flow is left, and left as it is.
func TestProgramLeaves(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	b := newBench(t)
	at := netip.MustParseAddrPort
	const ip, udp4 = 14, 34
	for name, c := range map[string]struct {
		edit func(f *frame) // of the parts
		poke func([]byte)   // of the bytes
		cut  int
	}{
		"source port":        {edit: func(f *frame) { f.from = at("127.0.1.1:5006") }},
		"source address":     {edit: func(f *frame) { f.from = at("127.0.1.2:5004") }},
		"port":               {edit: func(f *frame) { f.to = at("127.0.0.2:20002") }},
		"port out of range":  {edit: func(f *frame) { f.to = at("127.0.0.2:19998") }},
		"address":            {edit: func(f *frame) { f.to = at("127.0.0.3:20000") }},
		"SSRC":               {edit: func(f *frame) { f.payload[11]++ }},
		"RTCP":               {edit: func(f *frame) { f.payload[1] = 200 }},
		"RTP version":        {edit: func(f *frame) { f.payload[0] = 0x40 }},
		"CSRCs cut off":      {edit: func(f *frame) { f.payload[0] = 0x8f; f.payload = f.payload[:60] }},
		"extension cut off":  {edit: func(f *frame) { f.payload[0] = 0x90; f.payload = f.payload[:14] }},
		"extension too long": {edit: func(f *frame) { f.payload[0] = 0x90; copy(f.payload[12:], []byte{0, 0, 0xff, 0xff}) }},
		"no RTP header":      {edit: func(f *frame) { f.payload = f.payload[:11] }},
		"too large":          {edit: func(f *frame) { f.payload = append(f.payload, make([]byte, 1400)...) }},
		"a first fragment":   {edit: func(f *frame) { f.flags = layers.IPv4MoreFragments }},
		"a later fragment":   {poke: func(b []byte) { b[ip+7] = 1 }},
		"IP options":         {poke: func(b []byte) { b[ip] = 0x46 }},
		"IP version":         {poke: func(b []byte) { b[ip] = 0x65 }},
		"TCP":                {poke: func(b []byte) { b[ip+9] = 6 }},
		"UDP length":         {poke: func(b []byte) { b[udp4+5]-- }},
		"cut off":            {cut: 1},
		"another host's":     {poke: func(b []byte) { b[5] = 1 }},
		"to everybody":       {poke: func(b []byte) { copy(b, "\xff\xff\xff\xff\xff\xff") }},
		"ARP":                {poke: func(b []byte) { b[13] = 6 }},
		"a tag":              {poke: func(b []byte) { b[12] = 0x81 }},
	} {
		f := b.in[0]
		f.payload = bytes.Clone(f.payload)
		if c.edit != nil {
			c.edit(&f)
		}
		wire := f.bytes(t)
		if c.poke != nil {
			c.poke(wire)
		}
		wire = wire[:len(wire)-c.cut]
		if verdict, got := b.run(t, wire); verdict != left || !bytes.Equal(got, wire) {
			t.Errorf("%s: verdict %d, changed %t", name, int32(verdict), !bytes.Equal(got, wire))
		}
	}
	six := b.in[1]
	six.noSum = true
	if verdict, _ := b.run(t, six.bytes(t)); verdict != left {
		t.Errorf("IPv6 without a checksum: %d", verdict)
	}
	if verdict, _ := b.run(t, b.in[0].bytes(t)); verdict != redirect {
		t.Fatal("the flow is gone")
	}
}

// Any damage to a packet leaves it as it is, or is in what the program does not read.
func TestProgramBearsAnything(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	b := newBench(t)
	rapid.Check(t, func(t *rapid.T) {
		wire := b.in[rapid.IntRange(0, 1).Draw(t, "version")].bytes(t)
		for range rapid.IntRange(1, 3).Draw(t, "faults") {
			wire[rapid.IntRange(0, 80).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		wire = wire[:rapid.IntRange(54, len(wire)).Draw(t, "length")]
		verdict, got := b.run(t, wire)
		if verdict != redirect && (verdict != left || !bytes.Equal(got, wire)) {
			t.Fatalf("verdict %d of %x\n got %x", int32(verdict), wire, got)
		}
	})
}

// BenchmarkProgram is one run of the program: for a packet of a port that is not
// the relay's, for one that is left, and for one that is forwarded, without and
// with a copy. What the stack does before and after is not in it.
func BenchmarkProgram(b *testing.B) {
	at := netip.MustParseAddrPort
	f := frame{from: at("127.0.1.1:5004"), to: at("127.0.0.2:20000"), ttl: 64, payload: rtp(1, 160)}
	for _, c := range []struct {
		name         string
		dest         string
		flow, record bool
	}{{"other port", "127.0.0.2:53", false, false}, {"no flow", "127.0.0.2:20000", false, false}, {"forward", "127.0.0.2:20000", true, false}, {"forward+copy", "127.0.0.2:20000", true, true}} {
		b.Run(c.name, func(b *testing.B) {
			cfg := config()
			cfg.RingBytes, cfg.Interfaces = 256<<20, []string{"lo"}
			e := start(b, cfg)
			f.to = at(c.dest)
			wire := f.bytes(b)
			if c.flow { // what goes out is what came in, so that it can come again
				fl, err := e.Add(kernel.Spec{
					Local: f.to, Source: f.from, OutSource: f.from, OutDest: f.to, SSRC: 7, DSCP: -1, Record: c.record,
				}, newSink())
				if err != nil {
					b.Fatal(err)
				}
				_, _, _ = e.Program().Test(wire)
				fl.Handled(kernel.Mark(f.payload))
				defer func() {
					if n := fl.Counts(); n.Packets < uint64(b.N) || n.Lost > 0 {
						b.Fatalf("%+v of %d", n, b.N)
					}
				}()
			}
			spent, left := int64(0), b.N
			for left > 0 {
				n := min(left, 100_000)
				_, each, err := e.Program().Benchmark(wire, n, nil)
				if err != nil {
					b.Fatal(err)
				}
				spent += each.Nanoseconds() * int64(n)
				left -= n
				b.StopTimer()
				e.Drain()
				b.StartTimer()
			}
			b.ReportMetric(float64(spent)/float64(b.N), "ns/packet")
		})
	}
}
