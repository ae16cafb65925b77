package codec

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/trunktap/trunktap/media"
)

// sum is the beginning of a hash of samples.
func sum(pcm []int16) string {
	s := sha256.Sum256(pcmBytes(pcm))
	return hex.EncodeToString(s[:8])
}

// decodeAll decodes coded in payloads of size octets.
func decodeAll(t testing.TB, d Decoder, coded []byte, size int) (pcm []int16) {
	t.Helper()
	for ; len(coded) >= size; coded = coded[size:] {
		var err error
		if pcm, err = d.Decode(pcm, coded[:size]); err != nil {
			t.Fatal(err)
		}
	}
	return pcm
}

// vector reads a file of testdata; vectors.c there makes them.
func vector(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// highFirst puts codes of n bits that begin in the low bits of the octets into the
// high ones.
func highFirst(octets []byte, n int) []byte {
	out := make([]byte, len(octets))
	for i := range len(octets) * 8 {
		bit := octets[i/8] >> (i % 8) & 1
		at := i/n*n + n - 1 - i%n
		out[at/8] |= bit << (7 - at%8)
	}
	return out
}

// The vectors are what libspandsp makes of speech, and of that again, at every rate;
// in both orders of packing.
func TestG726IsBitExact(t *testing.T) {
	for kbps := 16; kbps <= 40; kbps += 8 {
		coded := vector(t, fmt.Sprintf("g726-%d.bin", kbps))
		want := samplesOf(vector(t, fmt.Sprintf("g726-%d.s16le", kbps)))
		d := mustDecoder(t, media.Format{Name: fmt.Sprintf("G726-%d", kbps), ClockRate: 8000}, DecoderOptions{})
		if !equal(decodeAll(t, d, coded, kbps/8*10), want) {
			t.Errorf("%d kbit/s differs", kbps)
		}
		d = mustDecoder(t, media.Format{Name: fmt.Sprintf("AAL2-G726-%d", kbps), ClockRate: 8000}, DecoderOptions{})
		if !equal(decodeAll(t, d, highFirst(coded, kbps/8), kbps/8*10), want) {
			t.Errorf("%d kbit/s, high bits first, differs", kbps)
		}
	}
}

// Speech of the peer's encoder comes out as from its decoder. That one departs a
// little from the Recommendation, and at 40 kbit/s a lot, so there our own ears count.
func TestG726AgainstPeer(t *testing.T) {
	pcm := speech(rand.New(rand.NewPCG(1, 2)), 40000)
	for kbps, least := range map[int]float64{16: 7, 24: 12, 32: 18} {
		for prefix, muxer := range map[string]string{"": "g726le", "AAL2-": "g726"} {
			name, size := fmt.Sprintf("%sG726-%d", prefix, kbps), fmt.Sprint(kbps/8)
			coded := peer(t, pcmBytes(pcm), "-f", "s16le", "-ar", "8000", "-ac", "1", "-i", "-", "-c:a", muxer, "-code_size", size, "-f", muxer, "-")
			got := decodeAll(t, mustDecoder(t, media.Format{Name: name, ClockRate: 8000}, DecoderOptions{}), coded, 15)
			want := samplesOf(peer(t, coded, "-f", muxer, "-code_size", size, "-i", "-", "-f", "s16le", "-"))
			n := min(len(got), len(pcm), len(want))
			said, same := snr(pcm[:n], got[:n]), snr(want[:n], got[:n])
			t.Logf("%s: %.1f dB from what was said, %.1f dB from the peer's decoder", name, said, same)
			if said < least || same < 35 {
				t.Errorf("%s: %.1f dB from what was said, %.1f dB from the peer's decoder", name, said, same)
			}
		}
	}
}
