package pcap

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// order is both halves of encoding/binary's.
type order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// ngWriter spells pcapng in one byte order.
type ngWriter struct{ order }

// block makes one block, padded.
func (w ngWriter) block(typ uint32, body ...[]byte) []byte {
	b := cat(body...)
	b = append(b, make([]byte, (4-len(b)%4)%4)...)
	return cat(w.u32(typ, uint32(12+len(b))), b, w.u32(uint32(12+len(b))))
}

func (w ngWriter) u32(values ...uint32) (b []byte) {
	for _, v := range values {
		b = w.AppendUint32(b, v)
	}
	return b
}

func (w ngWriter) u16(values ...uint16) (b []byte) {
	for _, v := range values {
		b = w.AppendUint16(b, v)
	}
	return b
}

func (w ngWriter) section() []byte {
	return w.block(magicSection, w.u32(0x1a2b3c4d), w.u16(1, 0), w.u32(0xffffffff, 0xffffffff))
}

func (w ngWriter) iface(link uint16, options ...[]byte) []byte {
	return w.block(blockInterface, w.u16(link, 0), w.u32(0), cat(options...))
}

func (w ngWriter) resolution(v byte) []byte { return cat(w.u16(9, 1), []byte{v, 0, 0, 0}) }

func (w ngWriter) offset(v int64) []byte { return w.AppendUint64(w.u16(14, 8), uint64(v)) }

func (w ngWriter) enhanced(iface uint32, ticks uint64, frame []byte) []byte {
	return w.block(blockEnhanced, w.u32(iface, uint32(ticks>>32), uint32(ticks), uint32(len(frame)), uint32(len(frame))), frame)
}

func TestPcapng(t *testing.T) {
	v4 := ipPacket(t, a4, b4, sip)
	ethernet := pack(t, v4, ether(layers.EthernetTypeIPv4))
	sec := t0.Unix()
	for name, w := range map[string]ngWriter{"little": {binary.LittleEndian}, "big": {binary.BigEndian}} {
		t.Run(name, func(t *testing.T) {
			file := cat(w.section(), w.iface(1), w.iface(101, w.resolution(9)), w.iface(101, w.resolution(0x80|20)),
				w.iface(101, w.resolution(3), w.offset(1000)),
				w.enhanced(0, uint64(sec)*1e6+123456, ethernet),
				w.enhanced(1, uint64(sec)*1e9+123456789, v4),
				w.block(5, make([]byte, 12)), w.block(4, w.u32(0)), w.block(0xbad, []byte("unknown")),
				w.enhanced(2, uint64(sec)<<20+1<<19, v4),
				w.enhanced(3, uint64(sec-1000)*1e3+7, v4),
				w.block(blockPacket, w.u16(1, 0), w.u32(uint32(uint64(sec)*1e9>>32), uint32(uint64(sec)*1e9), uint32(len(v4)), uint32(len(v4))), v4),
				w.block(blockSimple, w.u32(uint32(len(ethernet))), ethernet),
				w.section(), w.iface(12), w.enhanced(0, uint64(sec)*1e6, v4))
			whole := time.Unix(sec, 0).UTC()
			want := []time.Duration{123456 * time.Microsecond, 123456789, 500 * time.Millisecond, 7 * time.Millisecond, 0, 0, 0}
			all, s := mustRead(t, file)
			if len(all) != len(want) {
				t.Fatalf("%d packets, want %d; %+v", len(all), len(want), s)
			}
			for i, p := range all {
				if !p.at.Equal(whole.Add(want[i])) || p.payload != string(sip) {
					t.Errorf("packet %d: %v %q, want %v", i, p.at, p.payload, whole.Add(want[i]))
				}
			}
		})
	}
}

func TestWhatMakesNoSenseEndsTheCapture(t *testing.T) {
	w := ngWriter{binary.LittleEndian}
	v4 := ipPacket(t, a4, b4, sip)
	start := cat(w.section(), w.iface(101))
	good := w.enhanced(0, 1e6, v4)
	broken := func(offset int, value uint32) []byte { // the good block with a lie in it
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[offset:], value)
		return b
	}
	tests := []struct {
		name, want string
		tail       []byte
	}{
		{"block length 4 GB", "length of", broken(4, 0xffffffff)},
		{"block length 4 GB, aligned", "ends within", broken(4, 0xfffffffc)},
		{"block length 8", "length of", broken(4, 8)},
		{"captured more than the block", "room for", broken(20, 4000)},
		{"captured 4 GB", "room for", broken(20, 0xffffffff)},
		{"two lengths", "differ", broken(len(good)-4, 77)},
		{"unknown interface", "interface 7", broken(8, 7)},
		{"far future", "time stamp", broken(12, 0xffffffff)},
		{"packet of 1 MB", "at most", w.enhanced(0, 1, make([]byte, 1<<20))},
		{"short packet block", "packet block of", w.block(blockEnhanced, w.u32(0))},
		{"short interface", "interface description", w.block(blockInterface, w.u32(0))},
		{"huge interface", "interface description", w.iface(1, make([]byte, 70000))},
		{"resolution 10^-20", "resolution", w.iface(1, w.resolution(20))},
		{"resolution 2^-64", "resolution", w.iface(1, w.resolution(0xc0))},
		{"many interfaces", "more than", bytes.Repeat(w.iface(1), interfacesMax)},
		{"byte order", "byte order", w.block(magicSection, w.u32(1, 2, 3, 4))},
		{"version", "version", w.block(magicSection, w.u32(0x1a2b3c4d, 2, 3, 4))},
		{"short section", "length of", w.block(magicSection, w.u32(0x1a2b3c4d))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := cat(start, good, tt.tail, make([]byte, 20))
			r, err := NewReader(bytes.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			all, err := readAll(r)
			var cut *TruncatedError
			if !errors.As(err, &cut) || !strings.Contains(cut.Error(), tt.want) || len(all) != 1 {
				t.Fatalf("%d packets, %v", len(all), err)
			}
			if cut.Offset < int64(len(start)+len(good)) {
				t.Errorf("offset %d lies before the fault", cut.Offset)
			}
			if _, again := r.Next(); again != err {
				t.Errorf("then %v", again)
			}
		})
	}
	t.Run("simple packets alone", func(t *testing.T) {
		r, err := NewReader(bytes.NewReader(cat(start, w.block(blockSimple, w.u32(uint32(len(v4))), v4))))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(); err == nil || !strings.Contains(err.Error(), "carries no time") {
			t.Error(err)
		}
	})
}

// Cut anywhere, a capture gives every packet before the cut and says where.
func TestEveryPrefix(t *testing.T) {
	classic := mustWrite(t, NewWriter, func(w *Writer) error {
		return errors.Join(w.WriteUDP(t0, a4, b4, sip), w.WriteUDP(t0, a6, b6, sip), w.WriteUDP(t0, a4, b4, nil))
	})
	w := ngWriter{binary.BigEndian}
	v4 := ipPacket(t, a4, b4, sip)
	ng := cat(w.section(), w.iface(101, w.resolution(6)), w.enhanced(0, 5, v4), w.enhanced(0, 6, v4))
	for name, file := range map[string][]byte{"pcap": classic, "pcapng": ng} {
		t.Run(name, func(t *testing.T) {
			_, ends := walk(t, file)
			for n := range file {
				r, err := NewReader(bytes.NewReader(file[:n]))
				if err == nil {
					var all []got
					all, err = readAll(r)
					want := 0
					for _, e := range ends {
						if e <= int64(n) {
							want++
						}
					}
					if len(all) != want {
						t.Fatalf("%d of %d bytes: %d packets, want %d", n, len(file), len(all), want)
					}
				}
				var cut *TruncatedError
				if !errors.As(err, &cut) && !errors.Is(err, ErrFormat) && err != io.EOF {
					t.Fatalf("%d of %d bytes: %v", n, len(file), err)
				}
				if cut != nil && cut.Offset > int64(n) {
					t.Errorf("%d of %d bytes: breaks off at %d", n, len(file), cut.Offset)
				}
			}
		})
	}
}

// walk returns how many records a file has and where each that holds a packet ends.
func walk(t *testing.T, file []byte) (n int, ends []int64) {
	t.Helper()
	rr, err := openRecords(bytes.NewReader(file), "")
	if err != nil {
		t.Fatal(err)
	}
	var in *input
	switch x := rr.(type) {
	case *classicReader:
		in = x.in
	case *ngReader:
		in = x.in
	}
	for {
		if _, err := rr.next(); err != nil {
			return n, ends
		}
		n++
		ends = append(ends, in.off)
	}
}

func TestClassicVariants(t *testing.T) {
	v4 := ipPacket(t, a4, b4, sip)
	for _, o := range []order{binary.LittleEndian, binary.BigEndian} {
		for magic, unit := range map[uint32]time.Duration{magicMicro: time.Microsecond, magicNano: 1} {
			w := ngWriter{o}
			file := cat(w.u32(magic), w.u16(2, 4), w.u32(0, 0, 65535, 101|0x14000000), w.u32(1000, 123, uint32(len(v4)), uint32(len(v4))), v4)
			all, _ := mustRead(t, file)
			if len(all) != 1 || !all[0].at.Equal(time.Unix(1000, int64(123*unit))) {
				t.Errorf("%v %x: %+v", o, magic, all)
			}
			var z bytes.Buffer
			g := gzip.NewWriter(&z)
			_, err := g.Write(file)
			if err := errors.Join(err, g.Close()); err != nil {
				t.Fatal(err)
			}
			if zipped, _ := mustRead(t, z.Bytes()); len(zipped) != 1 || zipped[0] != all[0] {
				t.Errorf("gzip: %+v", zipped)
			}
		}
	}
}

func TestWhatIsNoCapture(t *testing.T) {
	w := ngWriter{binary.LittleEndian}
	for name, file := range map[string]string{
		"empty": "", "three bytes": "abc", "text": "v=0\r\no=- 1 1 IN IP4", "gzip of nothing": "\x1f\x8b\x08",
		"version 1": string(cat(w.u32(magicMicro), w.u16(1, 0), make([]byte, 16))),
	} {
		if _, err := NewReader(strings.NewReader(file)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none.pcap")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestErrorNamesTheFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cut.pcap")
	file := mustWrite(t, NewWriter, func(w *Writer) error { return w.WriteUDP(t0, a4, b4, sip) })
	if err := os.WriteFile(name, file[:50], 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Next()
	if want := name + " breaks off at byte 24: the file ends within a record, after byte 50"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// fixtures returns the public and peers' captures.
func fixtures(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, glob := range []string{"public/pcap/*.pcap*", "public/rtp/*.pcap*", "peers/*.pcap"} {
		names, err := filepath.Glob(filepath.Join("../../../shared/fixtures", glob))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, names...)
	}
	if len(all) == 0 {
		t.Skip("the captures of ../shared/fixtures are not here")
	}
	return all
}

// gopacket's readers see the same frames at the same times.
func TestAgainstPcapgo(t *testing.T) {
	for _, name := range fixtures(t) {
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rr, err := openRecords(bytes.NewReader(file), name)
		if err != nil {
			t.Fatal(err)
		}
		var other gopacket.PacketDataSource
		if other, err = pcapgo.NewReader(bytes.NewReader(file)); err != nil {
			if other, err = pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.NgReaderOptions{WantMixedLinkType: true}); err != nil {
				t.Fatal(err)
			}
		}
		for n := 0; ; n++ {
			rec, err := rr.next()
			data, ci, otherErr := other.ReadPacketData()
			if err == io.EOF && otherErr == io.EOF {
				break
			}
			if err != nil || otherErr != nil || !rec.at.Equal(ci.Timestamp) || !bytes.Equal(rec.data, data) {
				t.Fatalf("%s, packet %d: %v %v, pcapgo %v %v", name, n, rec.at, err, ci.Timestamp, otherErr)
			}
		}
	}
}

// Every frame of the fixtures is IP or known not to be.
func TestFixturesDecode(t *testing.T) {
	for _, name := range fixtures(t) {
		r, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		n, err := countPackets(r)
		s := r.Stats()
		if err != io.EOF || s.Undecodable != 0 || s.FragmentsDropped != 0 || n == 0 {
			t.Errorf("%s: %d packets, %v, %+v", name, n, err, s)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The memory in use does not grow with the capture.
func TestMemoryIsBounded(t *testing.T) {
	frame := ipPacket(t, a4, b4, make([]byte, 1000))
	w := ngWriter{binary.LittleEndian}
	one := cat(w.enhanced(0, 1, frame), w.block(4, make([]byte, 1000)))
	const repeats = 100_000 // 200 MB
	src := io.MultiReader(bytes.NewReader(cat(w.section(), w.iface(101))), &repeated{one: one, left: repeats})
	r, err := NewReader(src)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := countPackets(r)
	runtime.ReadMemStats(&after)
	if n != repeats || err != io.EOF {
		t.Fatal(n, err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
}

// repeated reads the same bytes again and again.
type repeated struct {
	one  []byte
	rest []byte
	left int
}

func (r *repeated) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		r.left--
		r.rest = r.one
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func FuzzReader(f *testing.F) {
	f.Add(mustWrite(f, NewEthernetWriter, func(w *Writer) error {
		return errors.Join(w.WriteUDP(t0, a4, b4, sip), w.WriteTCP(t0, a6, b6, Segment{Seq: 1, SYN: true}, nil),
			w.WriteTCP(t0, a6, b6, Segment{Seq: 9, Ack: 4}, sip), w.WriteTCP(t0, a6, b6, Segment{Seq: 2, FIN: true}, sip[:7]))
	}))
	w := ngWriter{binary.LittleEndian}
	v4 := ipPacket(f, a4, b4, sip)
	f.Add(cat(w.section(), w.iface(101, w.resolution(9)), w.enhanced(0, 5, v4), w.block(blockSimple, w.u32(uint32(len(v4))), v4)))
	f.Add(capture(f, 101, fragments4(f, v4, 16)...))
	f.Add(capture(f, 101, pack(f, v4, outer4(47), &layers.GRE{Protocol: layers.EthernetTypeIPv4})))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := NewReader(bytes.NewReader(file))
		if err != nil {
			return
		}
		total := 0
		for {
			p, err := r.Next()
			if err != nil {
				var cut *TruncatedError
				if err != io.EOF && !errors.As(err, &cut) {
					t.Fatalf("%v", err)
				}
				break
			}
			total += len(p.Payload)
			if !p.Src.IsValid() || !p.Dst.IsValid() || p.At.Year() > 9999 || p.At.Year() < 1970 {
				t.Fatalf("%+v", p)
			}
			if p.Proto == TCP && len(p.Payload) == 0 && !p.End {
				t.Fatal("an empty run")
			}
		}
		if total > 2*len(file) {
			t.Fatalf("%d bytes out of a capture of %d", total, len(file))
		}
	})
}
