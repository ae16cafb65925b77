package codec

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/trunktap/trunktap/media"
)

var g729Format = media.Format{Name: "G729", ClockRate: 8000, Params: "annexb=yes"}

// g729Frames reads the vector: frames of speech, silence descriptions, and nil where
// nothing was sent.
func g729Frames(t testing.TB) (frames [][]byte) {
	t.Helper()
	for b := vector(t, "g729.bin"); len(b) > 0; b = b[1+int(b[0]):] {
		frames = append(frames, b[1:1+int(b[0])])
	}
	return frames
}

// frameSNR are the distances of frames from a reference, where that is not silent.
func frameSNR(want, got []int16, frame int) (all []float64) {
	for i := 0; i+frame <= min(len(want), len(got)); i += frame {
		if db(want[i:i+frame]) > -50 {
			all = append(all, snr(want[i:i+frame], got[i:i+frame]))
		}
	}
	slices.Sort(all)
	return all
}

// The reference decoder works in fixed point; what is left between it and us is its
// rounding, and a subframe now and then in which that tips the postfilter's decision
// whether there is a pitch. In the pauses each makes a noise of its own, as loud.
func TestG729AgainstReference(t *testing.T) {
	want := samplesOf(vector(t, "g729.s16le"))
	d := mustDecoder(t, g729Format, DecoderOptions{Conceal: true})
	var got, pause, wantPause []int16
	for i, f := range g729Frames(t) {
		if len(f) == 0 {
			got = d.Conceal(got, g729Frame)
			pause, wantPause = append(pause, got[i*80:]...), append(wantPause, want[i*80:(i+1)*80]...)
			continue
		}
		var err error
		if got, err = d.Decode(got, f); err != nil {
			t.Fatal(err)
		}
	}
	all := frameSNR(want, got, g729Frame)
	median, whole := all[len(all)/2], snr(want, got)
	t.Logf("G729: %.1f dB, median of %d frames %.1f dB, worst %.1f dB; pauses %.1f dB, reference %.1f dB",
		whole, len(all), median, all[0], db(pause), db(wantPause))
	if len(got) != len(want) || whole < 31 || median < 39 {
		t.Errorf("%d samples of %d, %.1f dB, median %.1f dB", len(got), len(want), whole, median)
	}
	if math.Abs(db(pause)-db(wantPause)) > 1 {
		t.Errorf("pauses at %.1f dB, reference %.1f dB", db(pause), db(wantPause))
	}
}

// libavcodec has the postfilter of the main body, so it sounds alike and is not the same.
func TestG729AgainstPeer(t *testing.T) {
	var coded []byte
	for _, f := range g729Frames(t) {
		if len(f) == g729Bytes {
			coded = append(coded, f...)
		}
	}
	got := decodeAll(t, mustDecoder(t, g729Format, DecoderOptions{}), coded, 2*g729Bytes)
	want := samplesOf(peer(t, coded, "-f", "g729", "-i", "-", "-f", "s16le", "-"))
	all := frameSNR(want[:len(got)], got, g729Frame)
	t.Logf("G729: %.1f dB from the peer's decoder, median of %d frames %.1f dB", snr(want[:len(got)], got), len(all), all[len(all)/2])
	if all[len(all)/2] < 10 {
		t.Errorf("median of %d frames %.1f dB", len(all), all[len(all)/2])
	}
}

// Lost frames keep the voice for a while, fade out, and what comes after finds back.
func TestG729Conceals(t *testing.T) {
	frames := g729Frames(t)
	whole, lossy := mustDecoder(t, g729Format, DecoderOptions{}), mustDecoder(t, g729Format, DecoderOptions{Conceal: true})
	var want, got []int16
	off, lost := 0.0, 0
	for i, f := range frames[:150] {
		if len(f) != g729Bytes {
			continue
		}
		want, _ = whole.Decode(want, f)
		if i%12 != 11 {
			got, _ = lossy.Decode(got, f)
			continue
		}
		got = lossy.Conceal(got, g729Frame)
		if level := db(want[len(want)-80:]); level > -45 {
			off, lost = off+math.Abs(level-db(got[len(got)-80:])), lost+1
		}
	}
	t.Logf("G729: %d lost frames are off by %.1f dB; all together %.1f dB", lost, off/float64(lost), snr(want, got))
	if lost < 5 || off/float64(lost) > 4 || snr(want, got) < 3 {
		t.Errorf("%d lost frames are off by %.1f dB; all together %.1f dB", lost, off/float64(lost), snr(want, got))
	}
	long := lossy.Conceal(nil, 4000)
	if !isSilent(long[g729ErasedMS*8:]) {
		t.Error("a long gap is not silent in the end")
	}
	plain := mustDecoder(t, g729Format, DecoderOptions{})
	_, _ = plain.Decode(nil, frames[5])
	if !isSilent(plain.Conceal(nil, 200)) {
		t.Error("there is more than silence, though none was asked for")
	}
}

func TestG729Payloads(t *testing.T) {
	frames := g729Frames(t)
	speech, sid := frames[1], frames[0]
	d := mustDecoder(t, g729Format, DecoderOptions{})
	for _, tt := range []struct {
		payload []byte
		ticks   int
	}{
		{speech, 80},
		{sid, 80},
		{slices.Concat(speech, speech, sid), 240},
		{slices.Repeat(speech, 6), 480},
		{nil, 0},
		{speech[:9], 0},
		{slices.Concat(speech, speech[:5]), 0},
		{make([]byte, 1030), 0},
	} {
		pcm, err := d.Decode(nil, tt.payload)
		if d.Ticks(tt.payload) != tt.ticks || len(pcm) != tt.ticks || (tt.ticks == 0) != errors.Is(err, errPayload) {
			t.Errorf("%d octets: %d ticks, %d samples, %v", len(tt.payload), d.Ticks(tt.payload), len(pcm), err)
		}
	}
}
