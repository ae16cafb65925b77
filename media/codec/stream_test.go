package codec

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/trunktap/trunktap/media"
)

// streams are the formats that are decoded, each with a payload of its own.
var streams = []struct {
	format  media.Format
	rate    int
	payload []byte
	ticks   int
}{
	{media.Format{Name: "PCMU", ClockRate: 8000}, 8000, make([]byte, 160), 160},
	{media.Format{Name: "PCMA", ClockRate: 8000}, 8000, make([]byte, 160), 160},
	{media.Format{Name: "G722", ClockRate: 8000}, 16000, make([]byte, 160), 160},
	{media.Format{Name: "L16", ClockRate: 8000}, 8000, make([]byte, 320), 160},
	{media.Format{Name: "L16", ClockRate: 16000, Channels: 1}, 16000, make([]byte, 640), 320},
	{media.Format{Name: "L16", ClockRate: 44100, Channels: 2}, 44100, make([]byte, 1764), 441},
	{media.Format{Name: "L16", ClockRate: 48000, Channels: 2}, 48000, make([]byte, 1920), 480},
	{media.Format{Name: "OPUS", ClockRate: 48000, Channels: 2}, 48000, []byte{0x08, 0, 0, 0}, 960},
	{media.Format{Name: "G726-16", ClockRate: 8000}, 8000, make([]byte, 40), 160},
	{media.Format{Name: "G726-24", ClockRate: 8000}, 8000, make([]byte, 60), 160},
	{media.Format{Name: "G726-32", ClockRate: 8000}, 8000, make([]byte, 80), 160},
	{media.Format{Name: "AAL2-G726-40", ClockRate: 8000}, 8000, make([]byte, 100), 160},
	{media.Format{Name: "GSM", ClockRate: 8000}, 8000, append([]byte{0xd0}, make([]byte, 32)...), 160},
	{media.Format{Name: "AMR", ClockRate: 8000, Params: "octet-align=1"}, 8000, append([]byte{0xf0, 0xbc, 0x44}, make([]byte, 31+6)...), 320},
	{media.Format{Name: "AMR", ClockRate: 8000}, 8000, append([]byte{0xf3, 0xc0}, make([]byte, 31)...), 160},
	{media.Format{Name: "AMR-WB", ClockRate: 16000, Params: "octet-align=1; mode-set=0,2"}, 16000, append([]byte{0xf0, 0x04}, make([]byte, 17)...), 320},
	{media.Format{Name: "AMR-WB", ClockRate: 16000}, 16000, []byte{0xf7, 0xc0}, 320},
	{media.Format{Name: "G729", ClockRate: 8000}, 8000, make([]byte, 20), 160},
	{media.Format{Name: "G729", ClockRate: 8000, Params: "annexb=yes"}, 8000, make([]byte, 12), 160},
	{media.Format{Name: "ILBC", ClockRate: 8000, Params: "mode=20"}, 8000, append([]byte{0, 0, 0x40}, make([]byte, 35)...), 160},
	{media.Format{Name: "ILBC", ClockRate: 8000, Params: "mode=30"}, 8000, make([]byte, 100), 480},
	{media.Format{Name: "CN", ClockRate: 8000}, 8000, []byte{70, 1, 2}, 0},
}

func mustDecoder(t testing.TB, f media.Format, o DecoderOptions) Decoder {
	t.Helper()
	d, err := NewDecoder(f, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// name tells one row of streams from another.
func name(f media.Format) string {
	return fmt.Sprintf("%s-%d-%d%s", f.Name, f.ClockRate, max(f.Channels, 1), f.Params)
}

// A payload covers the ticks that it decodes to, at the rate that is announced,
// whatever is to be concealed; and none of it allocates.
func TestStreams(t *testing.T) {
	for _, tt := range streams {
		for _, conceal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", name(tt.format), conceal), func(t *testing.T) {
				d := mustDecoder(t, tt.format, DecoderOptions{Conceal: conceal})
				if d.Rate() != tt.rate || d.Ticks(tt.payload) != tt.ticks {
					t.Errorf("%d Hz, %d ticks", d.Rate(), d.Ticks(tt.payload))
				}
				kept := []int16{1, 2}
				pcm, err := d.Decode(kept, tt.payload)
				if err != nil {
					t.Fatal(err)
				}
				if pcm[0] != 1 || pcm[1] != 2 || (len(pcm)-2)*tt.format.ClockRate != tt.ticks*tt.rate {
					t.Errorf("%d samples, %d ticks", len(pcm)-2, tt.ticks)
				}
				for _, n := range []int{0, 1, 80, 161, 960, SamplesMax} {
					if got := d.Conceal(kept, n); len(got) != n+2 || got[0] != 1 || got[1] != 2 {
						t.Fatalf("%d samples concealed as %d", n, len(got)-2)
					}
				}
				if got := d.Conceal(nil, 1<<30); len(got) > SamplesMax {
					t.Errorf("%d samples concealed", len(got))
				}
				if got := d.Conceal(nil, -1); len(got) != 0 {
					t.Errorf("%d samples concealed", len(got))
				}
				buf := make([]int16, 0, 2*SamplesMax)
				if n := testing.AllocsPerRun(50, func() {
					buf, _ = d.Decode(buf[:0], tt.payload)
					buf = d.Conceal(buf, 160)
				}); n != 0 {
					t.Errorf("%v allocations a packet", n)
				}
				d.Close()
				d.Close()
				if pcm, err := d.Decode(nil, tt.payload); err != nil && len(pcm) != 0 {
					t.Errorf("closed: %d samples and %v", len(pcm), err)
				}
				if got := d.Conceal(nil, 160); len(got) != 160 {
					t.Errorf("closed: %d samples concealed", len(got))
				}
			})
		}
	}
}

// hostile checks what holds for every payload: it is decoded in bounds, or refused
// with nothing appended.
func hostile(t *testing.T, d Decoder, payload []byte) {
	t.Helper()
	pcm, err := d.Decode(nil, payload)
	if len(pcm) > SamplesMax || err != nil && len(pcm) != 0 || d.Ticks(payload) < 0 {
		t.Fatalf("%d octets: %d samples, %d ticks, %v", len(payload), len(pcm), d.Ticks(payload), err)
	}
	if r, ok := d.(Recoverer); ok {
		if pcm, ok := r.Recover(nil, payload, 960); ok != (len(pcm) == 960) || !ok && len(pcm) != 0 {
			t.Fatalf("recovered %d samples, %v", len(pcm), ok)
		}
	}
	if pcm := d.Conceal(nil, 100); len(pcm) != 100 {
		t.Fatalf("concealed %d", len(pcm))
	}
}

func TestHostilePayloads(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, tt := range streams {
		t.Run(name(tt.format), func(t *testing.T) {
			d := mustDecoder(t, tt.format, DecoderOptions{Conceal: true, Noise: true})
			for _, n := range []int{0, 1, 2, 3, 31, 33, 61, 1500, 4096, 8192, 8193, 65535, 65536} {
				payload := make([]byte, n)
				for range 4 {
					hostile(t, d, payload)
					for i := range payload {
						payload[i] = byte(rnd.Uint32())
					}
				}
			}
			for range 2000 {
				payload := make([]byte, rnd.IntN(80))
				for i := range payload {
					payload[i] = byte(rnd.Uint32())
				}
				hostile(t, d, payload)
			}
			hostile(t, d, tt.payload)
		})
	}
}

// FuzzDecode feeds every decoder, in mid-stream too: two payloads, one after another.
func FuzzDecode(f *testing.F) {
	for i, tt := range streams {
		f.Add(uint8(i), tt.payload, tt.payload[:len(tt.payload)/2])
	}
	f.Fuzz(func(t *testing.T, which uint8, a, b []byte) {
		tt := streams[int(which)%len(streams)]
		d := mustDecoder(t, tt.format, DecoderOptions{Conceal: which&0x80 == 0, Noise: true})
		for _, payload := range [][]byte{a, b, tt.payload} {
			hostile(t, d, payload)
		}
	})
}

func TestL16(t *testing.T) {
	mono := mustDecoder(t, media.Format{Name: "L16", ClockRate: 8000}, DecoderOptions{})
	stereo := mustDecoder(t, media.Format{Name: "L16", ClockRate: 44100, Channels: 2}, DecoderOptions{})
	payload := []byte{0x7f, 0xff, 0x80, 0x00, 0x00, 0x03, 0x00, 0x05}
	if pcm, err := mono.Decode(nil, payload); err != nil || !equal(pcm, []int16{32767, -32768, 3, 5}) {
		t.Errorf("mono: %v, %v", pcm, err)
	}
	if pcm, err := stereo.Decode(nil, payload); err != nil || !equal(pcm, []int16{0, 4}) {
		t.Errorf("stereo: %v, %v", pcm, err)
	}
	for n, d := range map[int]Decoder{3: mono, 6: stereo} {
		if _, err := d.Decode(nil, payload[:n]); err == nil {
			t.Errorf("%d octets are no whole samples, and were decoded", n)
		}
	}
	for _, f := range []media.Format{{Name: "L16", ClockRate: 44101}, {Name: "L16", ClockRate: 44100, Channels: 3}, {Name: "L16"}} {
		if _, err := NewDecoder(f, DecoderOptions{}); err == nil {
			t.Errorf("%+v is decoded", f)
		}
	}
}

// BenchmarkDecode is one payload of each format.
func BenchmarkDecode(b *testing.B) {
	for _, tt := range streams {
		b.Run(name(tt.format), func(b *testing.B) {
			d := mustDecoder(b, tt.format, DecoderOptions{Rate: 16000})
			buf := make([]int16, 0, SamplesMax)
			for b.Loop() {
				buf, _ = d.Decode(buf[:0], tt.payload)
			}
		})
	}
}
