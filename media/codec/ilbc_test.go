package codec

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/trunktap/trunktap/media"
)

func ilbcFormat(params string) media.Format {
	return media.Format{Name: "ILBC", ClockRate: 8000, Params: params}
}

// The vector is speech that pjsua sent, and what libavcodec makes of it, which works
// in fixed point.
func TestILBCAgainstReference(t *testing.T) {
	coded, want := vector(t, "ilbc30.bin"), samplesOf(vector(t, "ilbc30.s16le"))
	got := decodeAll(t, mustDecoder(t, ilbcFormat("mode=30"), DecoderOptions{}), coded, 50)
	all := frameSNR(want, got, 240)
	t.Logf("iLBC 30 ms: %.1f dB, median of %d frames %.1f dB, worst %.1f dB", snr(want, got), len(all), all[len(all)/2], all[0])
	if len(got) != len(want) || snr(want, got) < 27 || all[len(all)/2] < 27 {
		t.Errorf("%d samples, %.1f dB, median of frames %.1f dB", len(got), snr(want, got), all[len(all)/2])
	}
}

// ilbcNoise makes a frame of random parameters that is not too loud, with the
// spectrum of a frame of 30 ms.
func ilbcNoise(m *ilbcMode, rnd *rand.Rand, spectrum []byte) []byte {
	var real ilbcFrame
	real.read(&ilbc30, spectrum)
	values := make([]int, len(m.fields))
	for i, f := range m.fields {
		n := f[0] + f[1] + f[2]
		values[i] = rnd.IntN(1 << n)
		if n > 5 {
			values[i] = min(values[i], 1<<n-3) // the last ones of the start state's codebook are none
		}
		if n == 5 { // the first gain, not above 0.6
			values[i] /= 2
		}
	}
	lsf := copy(values[:m.subs/2*3-3], real.lsf[:])
	values[lsf] = 1 + rnd.IntN(m.subs-1)
	values[lsf+2] = 20 + rnd.IntN(20)
	w := &bitWriter{}
	for class := range 3 {
		for i, f := range m.fields {
			left := 0
			for _, n := range f[class+1:] {
				left += n
			}
			w.put(values[i]>>left&(1<<f[class]-1), f[class])
		}
	}
	w.put(0, 1)
	return w.b
}

// Frames of noise reach every parameter of both lengths. The peer's first frame is not
// of this world.
func TestILBCAgainstPeer(t *testing.T) {
	spectra := vector(t, "ilbc30.bin")
	for _, tt := range []struct {
		m             *ilbcMode
		params, magic string
	}{{&ilbc20, "mode=20", "#!iLBC20\n"}, {&ilbc30, "mode=30", "#!iLBC30\n"}} {
		rnd := rand.New(rand.NewPCG(1, 2))
		var coded []byte
		for i := range 240 {
			at := i % 60 * 50
			coded = append(coded, ilbcNoise(tt.m, rnd, spectra[at:at+50])...)
		}
		if len(coded) != 240*tt.m.bytes {
			t.Fatalf("%d octets a frame", len(coded)/240)
		}
		got := decodeAll(t, mustDecoder(t, ilbcFormat(tt.params), DecoderOptions{}), coded, tt.m.bytes)
		want := samplesOf(peer(t, append([]byte(tt.magic), coded...), "-f", "ilbc", "-i", "-", "-f", "s16le", "-"))
		all := frameSNR(want, got, tt.m.samples)
		t.Logf("iLBC %s: noise, median of %d frames %.1f dB, worst %.1f dB", tt.params, len(all), all[len(all)/2], all[0])
		if len(all) < 100 || all[len(all)/2] < 24 {
			t.Errorf("%s: median of %d frames %.1f dB", tt.params, len(all), all[len(all)/2])
		}
	}
}

func TestILBCConceals(t *testing.T) {
	coded, want := vector(t, "ilbc30.bin"), samplesOf(vector(t, "ilbc30.s16le"))
	d := mustDecoder(t, ilbcFormat(""), DecoderOptions{Conceal: true})
	var got []int16
	off, lost := 0.0, 0
	for i := 0; i*50 < len(coded); i++ {
		if i%7 != 6 {
			got, _ = d.Decode(got, coded[i*50:(i+1)*50])
			continue
		}
		got = d.Conceal(got, 240)
		if level := db(want[i*240 : (i+1)*240]); level > -45 {
			off, lost = off+math.Abs(level-db(got[i*240:])), lost+1
		}
	}
	t.Logf("iLBC: %d lost frames are off by %.1f dB; all together %.1f dB", lost, off/float64(lost), snr(want, got))
	if lost < 4 || off/float64(lost) > 6 || snr(want, got) < 2 {
		t.Errorf("%d lost frames are off by %.1f dB; all together %.1f dB", lost, off/float64(lost), snr(want, got))
	}
	if long := d.Conceal(nil, 4000); !isSilent(long[ilbcErasedMS*8+240:]) {
		t.Error("a long gap is not silent in the end")
	}
}

func TestILBCPayloads(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	spectrum := vector(t, "ilbc30.bin")[:50]
	f20, f30 := ilbcNoise(&ilbc20, rnd, spectrum), ilbcNoise(&ilbc30, rnd, spectrum)
	empty := slices.Clone(f30)
	empty[49] |= 1
	for _, tt := range []struct {
		params  string
		payload []byte
		ticks   int
	}{
		{"mode=20", f20, 160},
		{"mode=30", f30, 240},
		{"", f30, 240},
		{"mode=20", f30, 240},
		{"mode=30", f20, 160},
		{"mode=20", slices.Repeat(f20, 3), 480},
		{"", slices.Repeat(f30, 2), 480},
		{"", empty, 240},
		{"mode=20", slices.Repeat(f20, 25), 4000},
		{"mode=30", slices.Repeat(f20, 25), 4560},
		{"", nil, 0},
		{"", f30[:49], 0},
		{"mode=20", append(slices.Clone(f20), 0), 0},
		{"", make([]byte, 50*100), 0},
	} {
		d := mustDecoder(t, ilbcFormat(tt.params), DecoderOptions{})
		pcm, err := d.Decode(nil, tt.payload)
		if d.Ticks(tt.payload) != tt.ticks || len(pcm) != tt.ticks || (tt.ticks == 0) != errors.Is(err, errPayload) {
			t.Errorf("%s, %d octets: %d ticks, %d samples, %v", tt.params, len(tt.payload), d.Ticks(tt.payload), len(pcm), err)
		}
	}
}
