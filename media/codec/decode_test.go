package codec

import (
	"errors"
	"testing"

	"github.com/trunktap/trunktap/media"
)

func TestNewDecoder(t *testing.T) {
	tests := []struct {
		format media.Format
		err    error
	}{
		{media.Format{Name: "PCMU", ClockRate: 8000}, nil},
		{media.Format{Name: "PCMA", ClockRate: 8000, Channels: 1}, nil},
		{media.Format{Name: "CN", ClockRate: 8000}, nil},
		{media.Format{Name: "PCMU", ClockRate: 16000}, ErrUndecodable},
		{media.Format{Name: "PCMU", ClockRate: 8000, Channels: 2}, ErrUndecodable},
		{media.Format{Name: "G723", ClockRate: 8000}, ErrUndecodable},
		{media.Format{}, ErrUndecodable},
	}
	for _, tt := range tests {
		d, err := NewDecoder(tt.format, DecoderOptions{})
		if !errors.Is(err, tt.err) {
			t.Errorf("%+v: %v", tt.format, err)
		}
		if err == nil && d.Rate() != 8000 {
			t.Errorf("%+v: %d Hz", tt.format, d.Rate())
		}
	}
}

func TestDecode(t *testing.T) {
	mu, err := NewDecoder(media.Format{Name: "PCMU", ClockRate: 8000}, DecoderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pcm, err := mu.Decode([]int16{1}, []byte{0xff, 0x80, 0x00})
	if err != nil || len(pcm) != 4 || pcm[0] != 1 || pcm[1] != 0 || pcm[2] != 32124 || pcm[3] != -32124 {
		t.Errorf("%v, %v", pcm, err)
	}
	if _, err := mu.Decode(nil, make([]byte, SamplesMax+1)); err == nil {
		t.Error("an endless payload was decoded")
	}
	if pcm := mu.Conceal(pcm[:0], 3); len(pcm) != 3 || pcm[2] != 0 {
		t.Errorf("concealed: %v", pcm)
	}
	cn, err := NewDecoder(media.Format{Name: "CN", ClockRate: 8000}, DecoderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if pcm, err := cn.Decode(nil, []byte{70, 1, 2}); err != nil || len(pcm) != 0 {
		t.Errorf("comfort noise: %v, %v", pcm, err)
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	d, err := NewDecoder(media.Format{Name: "PCMA", ClockRate: 8000}, DecoderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	payload, pcm := make([]byte, 160), make([]int16, 0, 160)
	if got := testing.AllocsPerRun(100, func() { pcm, _ = d.Decode(pcm[:0], payload) }); got != 0 {
		t.Errorf("%v allocations a packet", got)
	}
}

func event(code byte, end bool, duration uint16) []byte {
	flags := byte(10)
	if end {
		flags |= 0x80
	}
	return []byte{code, flags, byte(duration >> 8), byte(duration)}
}

func TestDigits(t *testing.T) {
	type in struct {
		seq, ts int64
		payload []byte
	}
	tests := []struct {
		name string
		in   []in
		want string
	}{
		{"one, with updates and three ends", []in{{1, 100, event(5, false, 160)}, {2, 100, event(5, false, 320)}, {3, 100, event(5, true, 480)}, {4, 100, event(5, true, 480)}, {5, 100, event(5, true, 480)}}, "5"},
		{"no end", []in{{1, 100, event(5, false, 160)}, {2, 900, event(6, false, 160)}}, "56"},
		{"the same twice", []in{{1, 100, event(5, true, 160)}, {2, 900, event(5, true, 160)}}, "55"},
		{"only an end came", []in{{3, 100, event(11, true, 480)}}, "#"},
		{"all", []in{{1, 1, event(0, true, 1)}, {2, 2, event(9, true, 1)}, {3, 3, event(10, true, 1)}, {4, 4, event(11, true, 1)}, {5, 5, event(12, true, 1)}, {6, 6, event(15, true, 1)}}, "09*#AD"},
		{"flash and tones", []in{{1, 1, event(16, true, 1)}, {2, 2, event(32, true, 1)}}, ""},
		{"very long", []in{{1, 0, event(1, false, 0xffff)}, {2, 0xffff, event(1, false, 800)}, {3, 0xffff, event(1, true, 1600)}}, "1"},
		{"behind", []in{{5, 900, event(2, true, 1)}, {4, 100, event(1, true, 1)}}, "2"},
		{"cut off", []in{{1, 1, []byte{5, 0x80}}, {2, 2, nil}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d Digits
			var got []byte
			for _, p := range tt.in {
				if digit, ok := d.Feed(p.seq, p.ts, p.payload); ok {
					got = append(got, digit.Text)
					if digit.TS != p.ts {
						t.Errorf("digit at %d, fed at %d", digit.TS, p.ts)
					}
				}
			}
			if string(got) != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzEvent(f *testing.F) {
	f.Add(event(5, true, 480))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEvent(b)
		if (err == nil) != (len(b) >= 4) {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		var d Digits
		digit, ok := d.Feed(1, 1, b)
		if ok != (err == nil && e.Code < 16) || ok && digit.Text != e.Digit() {
			t.Fatalf("%+v: %+v, %v", e, digit, ok)
		}
	})
}
