package codec

import (
	"bytes"
	"errors"
	"testing"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec/amr"
)

// amrCase is a storage file of speech (RFC 4867 section 5).
type amrCase struct {
	name, file, magic string
	rate              int
	bits              *[16]int
	wide              bool
	want              string // of the samples
}

var amrCases = []amrCase{
	{"AMR", "speech.amr", "#!AMR\n", 8000, &amrNarrowBits, false, "4efd924baaa35ece"},
	{"AMR-WB", "speech.awb", "#!AMR-WB\n", 16000, &amrWideBits, true, "f3d40089258b8285"},
}

// frames cuts the file into its frames, each with its header octet.
func (c amrCase) frames(t testing.TB) (frames [][]byte) {
	t.Helper()
	b, ok := bytes.CutPrefix(vector(t, c.file), []byte(c.magic))
	if !ok {
		t.Fatal("no storage file")
	}
	for len(b) > 0 {
		n := 1 + (c.bits[b[0]>>3&15]+7)/8
		frames, b = append(frames, b[:n]), b[n:]
	}
	return frames
}

type bitWriter struct {
	b  []byte
	at int
}

func (w *bitWriter) put(v, n int) {
	for i := n - 1; i >= 0; i-- {
		if w.at%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.at/8] |= byte(v>>i&1) << (7 - w.at%8)
		w.at++
	}
}

// pack makes a payload of frames.
func (c amrCase) pack(frames [][]byte, aligned bool) []byte {
	w := &bitWriter{}
	align := func() {
		if aligned {
			w.put(0, (8-w.at%8)%8)
		}
	}
	w.put(15, 4)
	align()
	for i, f := range frames {
		more := 1
		if i == len(frames)-1 {
			more = 0
		}
		w.put(more, 1)
		w.put(int(f[0]>>2&31), 5)
		align()
	}
	for _, f := range frames {
		r := bitReader{b: f[1:]}
		for range c.bits[f[0]>>3&15] {
			w.put(r.take(1), 1)
		}
		align()
	}
	return w.b
}

func (c amrCase) format(aligned bool) media.Format {
	f := media.Format{Name: c.name, ClockRate: c.rate, Params: "mode-change-capability=2"}
	if aligned {
		f.Params += "; octet-align=1"
	}
	return f
}

// Every way to pack frames gives what the library makes of the frames themselves, and
// the sums are those of its version 0.1.6.
func TestAMRPacking(t *testing.T) {
	for _, c := range amrCases {
		frames := c.frames(t)
		lib, err := amr.New(c.wide)
		if err != nil {
			t.Fatal(err)
		}
		defer lib.Close()
		var want []int16
		for _, f := range frames {
			want = append(want, lib.Frame(f)...)
		}
		if got := sum(want); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
		for _, aligned := range []bool{false, true} {
			for _, n := range []int{1, 2, 7} {
				d := mustDecoder(t, c.format(aligned), DecoderOptions{})
				var got []int16
				for rest := frames; len(rest) > 0; rest = rest[min(n, len(rest)):] {
					payload := c.pack(rest[:min(n, len(rest))], aligned)
					if ticks := d.Ticks(payload); ticks != min(n, len(rest))*c.rate/50 {
						t.Fatalf("%d ticks", ticks)
					}
					if got, err = d.Decode(got, payload); err != nil {
						t.Fatal(err)
					}
				}
				if !equal(got, want) {
					t.Errorf("%s, aligned %v, %d frames a payload: differs", c.name, aligned, n)
				}
			}
		}
	}
}

func TestAMRAgainstPeer(t *testing.T) {
	for _, c := range amrCases {
		d := mustDecoder(t, c.format(true), DecoderOptions{})
		var got []int16
		for _, f := range c.frames(t) {
			if c.bits[f[0]>>3&15] < 50 {
				break // in a pause each makes a noise of its own
			}
			got, _ = d.Decode(got, c.pack([][]byte{f}, true))
		}
		want := samplesOf(peer(t, vector(t, c.file), "-i", "-", "-f", "s16le", "-"))
		n := min(len(got), len(want))
		s := snr(want[:n], got[:n])
		t.Logf("%s: %.1f dB from the peer's decoder", c.name, s)
		if n < c.rate || s < 20 {
			t.Errorf("%s: %d samples, %.1f dB from the peer's decoder", c.name, n, s)
		}
	}
}

// What is lost is continued and fades; without concealment it is silence. A damaged
// frame is a lost one.
func TestAMRConceals(t *testing.T) {
	for _, c := range amrCases {
		frames := c.frames(t)
		d, plain := mustDecoder(t, c.format(true), DecoderOptions{Conceal: true}), mustDecoder(t, c.format(true), DecoderOptions{})
		var pcm []int16
		loud := 0
		for ; loud < 8 || db(pcm) < -28; loud++ {
			payload := c.pack(frames[loud:loud+1], true)
			pcm, _ = d.Decode(pcm[:0], payload)
			_, _ = plain.Decode(nil, payload)
		}
		lost := d.Conceal(nil, c.rate/2)
		first, last := db(lost[:c.rate/50]), db(lost[len(lost)-c.rate/10:])
		if was := db(pcm); first < was-10 || first > was+3 || last > was-30 {
			t.Errorf("%s: %.1f dB continued at %.1f dB, 0.4 s later at %.1f dB", c.name, was, first, last)
		}
		if !isSilent(plain.Conceal(nil, 960)) {
			t.Errorf("%s: no silence", c.name)
		}
		damaged := append([]byte{}, frames[loud]...)
		damaged[0] &^= 4
		if got, err := d.Decode(nil, c.pack([][]byte{damaged}, true)); err != nil || len(got) != c.rate/50 || db(got) > first {
			t.Errorf("%s: damaged: %d samples, %v", c.name, len(got), err)
		}
	}
}

func TestAMRRefuses(t *testing.T) {
	for _, params := range []string{"octet-align=1; crc=1", "interleaving=30;octet-align=1", "octet-align=1;robust-sorting=1"} {
		if _, err := NewDecoder(media.Format{Name: "AMR", ClockRate: 8000, Params: params}, DecoderOptions{}); !errors.Is(err, ErrUndecodable) {
			t.Errorf("%s: %v", params, err)
		}
	}
	if _, err := NewDecoder(media.Format{Name: "AMR-WB", ClockRate: 8000}, DecoderOptions{}); !errors.Is(err, ErrUndecodable) {
		t.Error("AMR-WB at 8000 Hz is decoded")
	}
	d := mustDecoder(t, media.Format{Name: "AMR", ClockRate: 8000, Params: "octet-align=1;crc=0"}, DecoderOptions{})
	for what, payload := range map[string][]byte{
		"nothing": nil, "no table": {0xf0}, "table without end": {0xf0, 0xbc}, "type not to be sent": {0xf0, 9<<3 | 4, 0, 0, 0, 0, 0, 0},
		"frame cut off": append([]byte{0xf0, 0x3c}, make([]byte, 30)...), "endless": bytes.Repeat([]byte{0xfc}, 4096),
	} {
		if out, err := d.Decode(nil, payload); !errors.Is(err, errPayload) || len(out) != 0 || d.Ticks(payload) != 0 {
			t.Errorf("%s: %d samples, %d ticks, %v", what, len(out), d.Ticks(payload), err)
		}
	}
}
