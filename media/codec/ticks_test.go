package codec

import (
	"testing"

	"github.com/trunktap/trunktap/media"
)

func TestTicks(t *testing.T) {
	tests := []struct {
		format  media.Format
		payload []byte
		want    int
	}{
		{media.Format{Name: "PCMU", ClockRate: 8000, Channels: 2}, make([]byte, 320), 160},
		{media.Format{Name: "L16", ClockRate: 48000, Channels: 4}, make([]byte, 1920), 240},
		{media.Format{Name: "L24", ClockRate: 48000, Channels: 2}, make([]byte, 288), 48},
		{media.Format{Name: "L20", ClockRate: 48000}, make([]byte, 120), 48},
		{media.Format{Name: "DVI4", ClockRate: 8000}, make([]byte, 84), 160},
		{media.Format{Name: "DVI4", ClockRate: 8000}, make([]byte, 3), 0},
		{media.Format{Name: "G728", ClockRate: 8000}, make([]byte, 40), 160},
		{media.Format{Name: "LPC", ClockRate: 8000}, make([]byte, 14), 160},
		{media.Format{Name: "G723", ClockRate: 8000}, make([]byte, 24), 240},
		{media.Format{Name: "G723", ClockRate: 8000}, append([]byte{1}, append(make([]byte, 19), 2, 0, 0, 0, 3)...), 720},
		{media.Format{Name: "G723", ClockRate: 8000}, make([]byte, 23), 0},
		{media.Format{Name: "G729D", ClockRate: 8000}, make([]byte, 16), 160},
		{media.Format{Name: "G729E", ClockRate: 8000}, make([]byte, 30), 160},
		{media.Format{Name: "AMR", ClockRate: 8000, Params: "octet-align=1;crc=1"}, []byte{0xf0, 0xbc, 0x3c, 1, 2}, 320},
		{media.Format{Name: "AMR-WB", ClockRate: 16000, Params: "interleaving=9"}, []byte{0xf0, 0x00, 0x3c, 1}, 320},
		{media.Format{Name: "AMR", ClockRate: 8000, Params: "crc=1"}, []byte{0xf0, 0xbc}, 0},
		{media.Format{Name: "SPEEX", ClockRate: 8000}, make([]byte, 40), 0},
		{media.Format{}, nil, 0},
	}
	for _, tt := range tests {
		if got := Ticks(tt.format, tt.payload); got != tt.want {
			t.Errorf("%+v, %d octets: %d, want %d", tt.format, len(tt.payload), got, tt.want)
		}
	}
}

func FuzzTicks(f *testing.F) {
	for _, name := range []string{"G723", "AMR", "DVI4", "L24"} {
		f.Add(name, "interleaving=1", 2, []byte{0xf0, 0x80, 0x80, 1})
	}
	f.Fuzz(func(t *testing.T, name, params string, channels int, payload []byte) {
		got := Ticks(media.Format{Name: name, ClockRate: 16000, Channels: channels, Params: params}, payload)
		if got < 0 || got > 320*max(len(payload), 1) {
			t.Fatalf("%d ticks of %d octets", got, len(payload))
		}
	})
}
