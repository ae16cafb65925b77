package pcap

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"
	"pgregory.net/rapid"
)

// fragments4 cuts an IPv4 packet without options into fragments of size bytes.
func fragments4(t testing.TB, packet []byte, size int) (out [][]byte) {
	t.Helper()
	header, body := packet[:20], packet[20:]
	for at := 0; at < len(body); at += size {
		end := min(at+size, len(body))
		f := cat(header, body[at:end])
		binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
		field := uint16(at / 8)
		if end < len(body) {
			field |= 0x2000
		}
		binary.BigEndian.PutUint16(f[6:], field)
		out = append(out, f)
	}
	return out
}

// fragments6 does so with IPv6.
func fragments6(t testing.TB, packet []byte, size int) (out [][]byte) {
	t.Helper()
	header, body := packet[:40], packet[40:]
	for at := 0; at < len(body); at += size {
		end := min(at+size, len(body))
		frag := []byte{header[6], 0, 0, 0, 0, 0, 1, 2}
		field := uint16(at)
		if end < len(body) {
			field |= 1
		}
		binary.BigEndian.PutUint16(frag[2:], field)
		f := cat(header, frag, body[at:end])
		f[6] = protoFragment
		binary.BigEndian.PutUint16(f[4:], uint16(len(f)-40))
		out = append(out, f)
	}
	return out
}

func TestFragmentsInAnyOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		payload := rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(rt, "payload")
		size := 8 * rapid.IntRange(1, 200).Draw(rt, "size")
		frames := fragments4(t, ipPacket(t, a4, b4, payload), size)
		if rapid.Bool().Draw(rt, "v6") {
			frames = fragments6(t, ipPacket(t, a6, b6, payload), size)
		}
		whole := len(frames)
		for range rapid.IntRange(0, 3).Draw(rt, "repeated") {
			frames = append(frames, frames[rapid.IntRange(0, whole-1).Draw(rt, "which")])
		}
		shuffled := rapid.Permutation(frames).Draw(rt, "order")
		r, err := NewReader(bytes.NewReader(capture(t, 101, shuffled...)))
		if err != nil {
			rt.Fatal(err)
		}
		all, _ := readAll(r)
		// Repetitions after the datagram was whole may make it whole again.
		if len(all) == 0 || all[0].payload != string(payload) || all[0].cut {
			rt.Fatalf("%d datagrams, %+v", len(all), r.Stats())
		}
	})
}

func TestFragmentsThatContradict(t *testing.T) {
	f := fragments4(t, ipPacket(t, a4, b4, make([]byte, 100)), 48) // of 48, 48 and 12 bytes
	overlap := cat(f[1])
	binary.BigEndian.PutUint16(overlap[6:], 0x2000|40/8)
	end := cat(f[2])
	binary.BigEndian.PutUint16(end[6:], 48/8)
	odd := cat(f[0][:20+44])
	binary.BigEndian.PutUint16(odd[2:], 64)
	far := cat(f[1])
	binary.BigEndian.PutUint16(far[6:], 0x3fff)
	cut := f[0][:40]
	tests := []struct {
		name    string
		frames  [][]byte
		got     int
		dropped int64
	}{
		{"overlap", [][]byte{f[0], overlap}, 0, 2},
		{"two ends", [][]byte{f[2], end}, 0, 2},
		{"behind the end", [][]byte{end, f[2]}, 0, 2},
		{"odd length", [][]byte{odd}, 0, 1},
		{"beyond 64 KiB", [][]byte{far}, 0, 1},
		{"cut by the snap length", [][]byte{cut}, 0, 1},
		{"one missing", [][]byte{f[0], f[2]}, 0, 2},
		{"whole after a contradiction", [][]byte{f[0], overlap, f[0], f[1], f[2]}, 1, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all, s := mustRead(t, capture(t, 101, tt.frames...))
			if len(all) != tt.got || s.FragmentsDropped != tt.dropped || s.Fragments != int64(len(tt.frames)) {
				t.Errorf("%d datagrams, %+v", len(all), s)
			}
		})
	}
}

func TestFragmentsAgeAndAreBounded(t *testing.T) {
	f := fragments4(t, ipPacket(t, a4, b4, make([]byte, 100)), 64)
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	if err := w.WriteFileHeader(65536, 101); err != nil {
		t.Fatal(err)
	}
	for i, frame := range f {
		at := t0.Add(time.Duration(i) * (fragmentAge + time.Millisecond))
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(frame), Length: len(frame)}, frame); err != nil {
			t.Fatal(err)
		}
	}
	if all, s := mustRead(t, b.Bytes()); len(all) != 0 || s.FragmentsDropped != 2 {
		t.Errorf("%d datagrams, %+v", len(all), s)
	}

	var frags fragments
	var stats Stats
	frags.init(&stats)
	for i := range 20_000 {
		in := fragment{key: fragmentKey{src: a4.Addr(), dst: b4.Addr(), id: uint32(i / 2), proto: 17}, start: 65000 * (i & 1), more: true}
		frags.add(in, make([]byte, 8+8*rand.IntN(8)*1000*(1-i&1)), t0)
		if frags.held > fragmentBytesMax || frags.order.Len() > fragmentedMax || len(frags.byKey) != frags.order.Len() {
			t.Fatalf("%d bytes of %d datagrams", frags.held, frags.order.Len())
		}
	}
	frags.drain()
	if frags.held != 0 || stats.FragmentsDropped != 20_000 {
		t.Errorf("%d bytes left, %d dropped", frags.held, stats.FragmentsDropped)
	}
}
