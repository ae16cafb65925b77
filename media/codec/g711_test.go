package codec

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// fixture reads a public test vector and skips when there is none.
func fixture(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "fixtures", "public", "codec", name))
	if err != nil {
		t.Skipf("the public codec vectors are not beside the repository (%s)", name)
	}
	return b
}

func TestG711MatchesTheSweeps(t *testing.T) {
	tests := []struct {
		law    string
		encode func(int16) byte
		decode func(byte) int16
	}{{"ulaw", MuLaw, MuLawLinear}, {"alaw", ALaw, ALawLinear}}
	pcm := fixture(t, "sweep.s16le")
	for _, tt := range tests {
		coded, linear := fixture(t, "sweep."+tt.law), fixture(t, "sweep."+tt.law+".s16le")
		other := 0
		for i, b := range coded {
			s := int16(binary.LittleEndian.Uint16(pcm[2*i:]))
			// The sweep takes the nearest level, G.711 its decision values: at the
			// ends of segments that is the level next to it.
			if got := tt.encode(s); got != b {
				other++
				if d := int(got&0x7f^mask(tt.law)) - int(b&0x7f^mask(tt.law)); d*d != 1 || got&0x80 != b&0x80 {
					t.Errorf("%s: encode %d: %#02x, want %#02x", tt.law, s, got, b)
				}
			}
			if got, want := tt.decode(b), int16(binary.LittleEndian.Uint16(linear[2*i:])); got != want {
				t.Fatalf("%s: decode %#02x: %d, want %d", tt.law, b, got, want)
			}
		}
		if other > len(coded)/50 {
			t.Errorf("%s: %d of %d samples encode to another level", tt.law, other, len(coded))
		}
	}
}

// mask undoes the bit inversion of a law's magnitude bits.
func mask(law string) byte {
	if law == "ulaw" {
		return 0x7f
	}
	return 0x55
}

func TestG711RoundTrip(t *testing.T) {
	for i := range 256 {
		b := byte(i)
		if got := MuLaw(MuLawLinear(b)); got != b && b != 0x7f { // 0x7f is minus zero
			t.Errorf("mu-law %#02x -> %d -> %#02x", b, MuLawLinear(b), got)
		}
		if got := ALaw(ALawLinear(b)); got != b {
			t.Errorf("A-law %#02x -> %d -> %#02x", b, ALawLinear(b), got)
		}
	}
	if MuLawLinear(0x80) != 32124 || MuLawLinear(0x00) != -32124 || ALawLinear(0xaa) != 32256 || ALawLinear(0x2a) != -32256 {
		t.Error("peak levels differ from G.711 tables 1a and 2a")
	}
}

// The decision values between the segments, from tables 1a and 2a of G.711.
func TestG711DecisionValues(t *testing.T) {
	for segment, x := range []int{31, 95, 223, 479, 991, 2015, 4063} { // of 8159
		below, at := MuLaw(int16(4*x-1)), MuLaw(int16(4*x))
		if int(^below>>4&7) != segment || int(^at>>4&7) != segment+1 {
			t.Errorf("mu-law at %d: %#02x, %#02x", x, below, at)
		}
	}
	for segment, x := range []int{64, 128, 256, 512, 1024, 2048} { // of 4096, segments 2 to 7
		below, at := ALaw(int16(8*x-1)), ALaw(int16(8*x))
		if int((below^0x55)>>4&7) != segment+1 || int((at^0x55)>>4&7) != segment+2 {
			t.Errorf("A-law at %d: %#02x, %#02x", x, below, at)
		}
	}
}
