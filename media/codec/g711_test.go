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
		wrong := 0
		for i, b := range coded {
			s := int16(binary.LittleEndian.Uint16(pcm[2*i:]))
			if got := tt.encode(s); got != b {
				if wrong++; wrong < 10 {
					t.Errorf("%s: encode %d: %#02x, want %#02x", tt.law, s, got, b)
				}
			}
			if got, want := tt.decode(b), int16(binary.LittleEndian.Uint16(linear[2*i:])); got != want {
				t.Fatalf("%s: decode %#02x: %d, want %d", tt.law, b, got, want)
			}
		}
		t.Logf("%s: %d of %d samples encode differently", tt.law, wrong, len(coded))
	}
}
