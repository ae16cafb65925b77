package pcap

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"pgregory.net/rapid"
)

var (
	t0  = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	a4  = netip.MustParseAddrPort("192.0.2.1:5060")
	b4  = netip.MustParseAddrPort("198.51.100.7:20000")
	a6  = netip.MustParseAddrPort("[2001:db8::1]:5060")
	b6  = netip.MustParseAddrPort("[2001:db8::2:7]:20000")
	sip = []byte("OPTIONS sip:a SIP/2.0\r\n\r\n")
)

// got is a packet that outlives the reader's buffer.
type got struct {
	at       time.Time
	proto    Proto
	src, dst netip.AddrPort
	payload  string
	cut      bool
	gap, end bool
}

func keepPacket(p Packet) got {
	return got{p.At, p.Proto, p.Src, p.Dst, string(p.Payload), p.Cut, p.Gap, p.End}
}

// readAll reads a source to its end.
func readAll(src Source) (all []got, err error) {
	for {
		p, err := src.Next()
		if err != nil {
			return all, err
		}
		all = append(all, keepPacket(p))
	}
}

func mustRead(t *testing.T, capture []byte) ([]got, Stats) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(capture))
	if err != nil {
		t.Fatal(err)
	}
	all, err := readAll(r)
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return all, r.Stats()
}

// mustWrite returns the capture that f writes.
func mustWrite(t testing.TB, open func(io.Writer) (*Writer, error), f func(*Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	if err != nil {
		t.Fatal(err)
	}
	if err := f(w); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for name, open := range map[string]func(io.Writer) (*Writer, error){"raw": NewWriter, "ethernet": NewEthernetWriter} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				src, dst := a4, b4
				if rapid.Bool().Draw(t, "v6") {
					src, dst = a6, b6
				}
				payload := rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "payload")
				at := t0.Add(time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "at")))
				var b bytes.Buffer
				w, err := open(&b)
				if err != nil {
					t.Fatal(err)
				}
				if err := w.WriteUDP(at, src, dst, payload); err != nil {
					t.Fatal(err)
				}
				r, err := NewReader(&b)
				if err != nil {
					t.Fatal(err)
				}
				p, err := r.Next()
				want := got{at: at, proto: UDP, src: src, dst: dst, payload: string(payload)}
				if err != nil || keepPacket(p) != want {
					t.Fatalf("%+v, %v; want %+v", keepPacket(p), err, want)
				}
			})
		})
	}
}

// The checksums are held against gopacket's.
func TestChecksums(t *testing.T) {
	for _, ends := range [][2]netip.AddrPort{{a4, b4}, {a6, b6}} {
		for _, payload := range [][]byte{nil, sip, sip[:len(sip)-1], bytes.Repeat([]byte{0xff}, 1400)} {
			capture := mustWrite(t, NewEthernetWriter, func(w *Writer) error {
				return errors.Join(w.WriteUDP(t0, ends[0], ends[1], payload),
					w.WriteTCP(t0, ends[0], ends[1], Segment{Seq: 7, Ack: 9, FIN: true}, payload))
			})
			r, err := pcapgo.NewReader(bytes.NewReader(capture))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				data, _, err := r.ReadPacketData()
				if err != nil {
					t.Fatal(err)
				}
				p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
				type summed interface {
					SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
				}
				if err := p.TransportLayer().(summed).SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
					t.Fatal(err)
				}
				if err, mismatches := p.VerifyChecksums(); err != nil || len(mismatches) > 0 {
					t.Errorf("%v: %v %v", p, err, mismatches)
				}
			}
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	w, err := NewWriter(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for want, err := range map[string]error{
		"family":      w.WriteUDP(t0, a4, b6, nil),
		"do not fit":  w.WriteUDP(t0, a4, b4, make([]byte, 65508)),
		"not of one ": w.WriteUDP(t0, netip.AddrPort{}, b4, nil),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if err := w.WriteUDP(t0, a4, b4, make([]byte, 65507)); err != nil {
		t.Errorf("the largest datagram: %v", err)
	}
}
