package pcap

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// seg is one segment of a test; ms counts from t0.
type seg struct {
	ms   int
	back bool // from b4 to a4
	s    Segment
	data string
}

func tcpCapture(t testing.TB, segs []seg) []byte {
	return mustWrite(t, NewWriter, func(w *Writer) error {
		for _, s := range segs {
			src, dst := a4, b4
			if s.back {
				src, dst = dst, src
			}
			if err := w.WriteTCP(t0.Add(time.Duration(s.ms)*time.Millisecond), src, dst, s.s, []byte(s.data)); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestStreams(t *testing.T) {
	syn := seg{s: Segment{Seq: 99, SYN: true}}
	at := func(ms int, seq uint32, data string) seg { return seg{ms: ms, s: Segment{Seq: seq}, data: data} }
	ack := func(ms int, n uint32) seg { return seg{ms: ms, back: true, s: Segment{Seq: 5, Ack: n}} }
	tests := []struct {
		name string
		segs []seg
		want string // ms:data, "~" where bytes are missing, "." at the end
	}{
		{"in order", []seg{syn, at(1, 100, "ab"), at(2, 102, "cd")}, "1:ab 2:cd"},
		{"SYN twice", []seg{syn, syn, at(1, 100, "ab"), syn, at(2, 102, "cd")}, "1:ab 2:cd"},
		{"swapped", []seg{syn, at(1, 102, "cd"), at(2, 100, "ab"), at(3, 104, "e")}, "2:abcd 3:e"},
		{"sent again", []seg{syn, at(1, 100, "ab"), at(2, 100, "ab"), at(3, 100, "abcd"), at(4, 101, "bc")}, "1:ab 3:cd"},
		{"overlap ahead", []seg{syn, at(1, 102, "cde"), at(2, 104, "efg"), at(3, 100, "abcd")}, "3:abcdefg"},
		{"the longer of two", []seg{syn, at(1, 102, "c"), at(1, 102, "cde"), at(1, 102, "cd"), at(3, 100, "ab")}, "3:abcde"},
		{"hole, acknowledged", []seg{syn, at(1, 100, "ab"), at(2, 104, "ef"), ack(3, 106), ack(150, 106), at(160, 106, "g")}, "1:ab ~150:ef 160:g"},
		{"hole, acknowledged, then filled", []seg{syn, at(2, 102, "cd"), ack(3, 104), at(4, 100, "ab")}, "4:abcd"},
		{"hole, not acknowledged", []seg{syn, at(1, 100, "ab"), at(2, 104, "ef"), ack(150, 102), at(900, 102, "cd")}, "1:ab 900:cdef"},
		{"hole at the end", []seg{syn, at(1, 100, "ab"), at(2, 104, "ef"), at(3, 108, "ij")}, "1:ab ~3:ef ~3:ij"},
		{"from the middle", []seg{at(1, 700, "ab"), at(2, 702, "cd")}, "~1:ab 2:cd"},
		{"FIN", []seg{syn, at(1, 100, "ab"), {ms: 2, s: Segment{Seq: 102, FIN: true}, data: "c"}, at(3, 102, "c")}, "1:ab 2:c 2:."},
		{"early FIN", []seg{syn, {ms: 2, s: Segment{Seq: 102, FIN: true}}, at(3, 100, "ab")}, "3:ab 3:."},
		{"RST", []seg{syn, at(1, 100, "ab"), at(2, 103, "d"), {ms: 3, s: Segment{Seq: 102, RST: true}}}, "1:ab 3:."},
		{"RST from nowhere", []seg{syn, at(1, 100, "ab"), {ms: 3, s: Segment{Seq: 1 << 30, RST: true}}, at(4, 102, "cd")}, "1:ab 4:cd"},
		{"again after FIN", []seg{syn, {ms: 1, s: Segment{Seq: 100, FIN: true}}, {ms: 2, s: Segment{Seq: 7000, SYN: true}}, at(3, 7001, "x")}, "1:. 3:x"},
		{"again without FIN", []seg{syn, at(1, 100, "ab"), {ms: 2, s: Segment{Seq: 70000, SYN: true}}, at(3, 70001, "x")}, "1:ab ~3:x"},
		{"wrap", []seg{{s: Segment{Seq: 0xfffffffe, SYN: true}}, at(2, 1, "cd"), at(3, 0xffffffff, "ab")}, "3:abcd"},
		{"keep-alive", []seg{syn, at(1, 100, "ab"), at(2, 101, "b"), at(3, 101, "")}, "1:ab"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all, _ := mustRead(t, tcpCapture(t, tt.segs))
			text := ""
			for _, p := range all {
				if p.src != a4 {
					t.Errorf("from %v", p.src)
				}
				if text != "" {
					text += " "
				}
				if p.gap {
					text += "~"
				}
				text += fmt.Sprintf("%d:%s", p.at.Sub(t0).Milliseconds(), p.payload)
				if p.end {
					text += "."
				}
			}
			if text != tt.want {
				t.Errorf("got  %s\nwant %s", text, tt.want)
			}
		})
	}
}

// However a stream is cut, repeated and shuffled, its bytes come out once, in order.
func TestStreamProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		data := rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(rt, "data")
		isn := rapid.Uint32().Draw(rt, "isn")
		var segs []seg
		for at := 0; at < len(data); {
			end := min(at+rapid.IntRange(1, 400).Draw(rt, "size"), len(data))
			from := max(0, at-rapid.SampledFrom([]int{0, 0, 0, 1, 50}).Draw(rt, "overlap"))
			segs = append(segs, seg{s: Segment{Seq: isn + 1 + uint32(from)}, data: string(data[from:end])})
			if rapid.IntRange(0, 4).Draw(rt, "again") == 0 {
				segs = append(segs, segs[len(segs)-1])
			}
			at = end
		}
		segs = append([]seg{{s: Segment{Seq: isn, SYN: true}}}, rapid.Permutation(segs).Draw(rt, "order")...)
		r, err := NewReader(bytes.NewReader(tcpCapture(t, segs)))
		if err != nil {
			rt.Fatal(err)
		}
		all, _ := readAll(r)
		var out []byte
		for _, p := range all {
			if p.gap {
				rt.Fatal("a hole where none is")
			}
			out = append(out, p.payload...)
		}
		if !bytes.Equal(out, data) {
			rt.Fatalf("%d bytes, want %d", len(out), len(data))
		}
	})
}

func TestStreamsAreBounded(t *testing.T) {
	var s streams
	var stats Stats
	s.init(&stats)
	var out []Packet
	for i := range 40_000 {
		src := netip.AddrPortFrom(a4.Addr(), uint16(i))
		g := segment{at: t0, src: src, dst: b4, seq: 1, syn: true}
		out = s.push(out[:0], g)
		g.syn, g.seq, g.data = false, 10, make([]byte, 1000)
		out = s.push(out[:0], g)
		if s.held > queueBytesMax+1000 || s.order.Len() > streamsMax || len(s.byDir) != s.order.Len() {
			t.Fatalf("%d bytes of %d directions", s.held, s.order.Len())
		}
	}
	if stats.StreamsDropped != 40_000-streamsMax {
		t.Errorf("%d dropped", stats.StreamsDropped)
	}
	one := segment{at: t0, src: a4, dst: b4, seq: 1, syn: true}
	s.push(nil, one)
	given := 0
	for i := range 1000 { // everything but the first byte
		one.syn, one.seq, one.data = false, uint32(3+1000*i), make([]byte, 1000)
		for _, p := range s.push(nil, one) {
			given += len(p.Payload)
		}
	}
	if given < 1_000_000-2*streamQueueBytesMax {
		t.Errorf("%d bytes behind a hole that never fills", given)
	}
}

func TestMerge(t *testing.T) {
	file := func(stamps ...int) Source {
		r, err := NewReader(bytes.NewReader(mustWrite(t, NewWriter, func(w *Writer) error {
			for _, ms := range stamps {
				if err := w.WriteUDP(t0.Add(time.Duration(ms)*time.Millisecond), a4, b4, fmt.Append(nil, ms)); err != nil {
					return err
				}
			}
			return nil
		})))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	cut := &TruncatedError{Reason: "test"}
	broken := sourceFunc(func() (Packet, error) { return Packet{}, cut })
	for _, tt := range []struct {
		in   []Source
		want string
		err  error
	}{
		{[]Source{file(1, 5, 9), file(2, 3, 9, 10), file()}, "1 2 3 5 9 9 10 ", io.EOF},
		{[]Source{file(1, 9, 5), file(6)}, "1 6 9 5 ", io.EOF},
		{[]Source{broken, file(2, 4)}, "2 4 ", cut},
		{[]Source{file(3)}, "3 ", io.EOF},
		{nil, "", io.EOF},
	} {
		m := Merge(tt.in...)
		text := ""
		for {
			p, err := m.Next()
			if err != nil {
				if err != tt.err || text != tt.want {
					t.Errorf("%q %v, want %q %v", text, err, tt.want, tt.err)
				}
				break
			}
			text += string(p.Payload) + " "
		}
	}
}

type sourceFunc func() (Packet, error)

func (f sourceFunc) Next() (Packet, error) { return f() }
