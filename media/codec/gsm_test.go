package codec

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/trunktap/trunktap/media"
)

var gsmFormat = media.Format{Name: "GSM", ClockRate: 8000}

// gsmFrames are frames of noise: every field has every value.
func gsmFrames() (frames []byte) {
	_, octets := g722Vectors()
	for i := 0; i < gsmBytes*500; i += gsmBytes {
		frames = append(frames, octets[i]&15|0xd0)
		frames = append(frames, octets[i+1:i+gsmBytes]...)
	}
	return frames
}

// The sum is that of what libgsm and libspandsp make of the same frames.
func TestGSMIsBitExact(t *testing.T) {
	if got := sum(decodeAll(t, mustDecoder(t, gsmFormat, DecoderOptions{}), gsmFrames(), gsmBytes)); got != "eeb6a78e7d89f31f" {
		t.Errorf("%s", got)
	}
}

func TestGSMAgainstPeer(t *testing.T) {
	pcm := speech(rand.New(rand.NewPCG(1, 2)), 40000)
	coded := peer(t, pcmBytes(pcm), "-f", "s16le", "-ar", "8000", "-ac", "1", "-i", "-", "-c:a", "libgsm", "-f", "gsm", "-")
	spoken := len(coded)
	coded = append(coded, gsmFrames()...)
	want := samplesOf(peer(t, coded, "-c:a", "libgsm", "-f", "gsm", "-i", "-", "-f", "s16le", "-"))
	got := decodeAll(t, mustDecoder(t, gsmFormat, DecoderOptions{}), coded, gsmBytes)
	if !equal(got, want) {
		t.Error("the decoders differ")
	}
	if s := snr(pcm, got[:min(len(pcm), spoken/gsmBytes*gsmSamples)]); s < 5 {
		t.Errorf("%.1f dB from what was said", s)
	}
}

func TestGSMRefuses(t *testing.T) {
	d := mustDecoder(t, gsmFormat, DecoderOptions{})
	for what, payload := range map[string][]byte{
		"nothing": nil, "half a frame": make([]byte, 16), "no signature": make([]byte, 33), "too much": make([]byte, 33*60),
	} {
		if out, err := d.Decode(nil, payload); !errors.Is(err, errPayload) || len(out) != 0 {
			t.Errorf("%s: %d samples, %v", what, len(out), err)
		}
	}
}
