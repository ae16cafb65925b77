package codec

import (
	"math/rand/v2"
	"testing"

	opus "gopkg.in/hraban/opus.v2"

	"github.com/trunktap/trunktap/media"
)

var opusFormat = media.Format{Name: "OPUS", ClockRate: 48000, Channels: 2}

// opusPackets codes samples of 8 kHz as packets of ms milliseconds; with two
// channels the second one is silent.
func opusPackets(t testing.TB, pcm []int16, channels, ms int, set func(*opus.Encoder) error) (packets [][]byte) {
	t.Helper()
	e, err := opus.NewEncoder(8000, channels, opus.AppVoIP)
	if err != nil {
		t.Fatal(err)
	}
	if err := set(e); err != nil {
		t.Fatal(err)
	}
	frame := 8 * ms
	for ; len(pcm) >= frame; pcm = pcm[frame:] {
		block, buf := make([]int16, frame*channels), make([]byte, 1500)
		for i, s := range pcm[:frame] {
			block[i*channels] = s
		}
		n, err := e.Encode(block, buf)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, buf[:n:n])
	}
	return packets
}

func bitrate(bps int) func(*opus.Encoder) error {
	return func(e *opus.Encoder) error { return e.SetBitrate(bps) }
}

// The rate that is wished for is the rate that comes, and the voice is the same.
func TestOpusRates(t *testing.T) {
	pcm := speech(rand.New(rand.NewPCG(1, 2)), 16000)
	packets := opusPackets(t, pcm, 1, 20, bitrate(32000))
	for wish, rate := range map[int]int{0: 48000, 8000: 8000, 12000: 12000, 16000: 16000, 44100: 48000, 48000: 48000, 11025: 12000} {
		d := mustDecoder(t, opusFormat, DecoderOptions{Rate: wish})
		var got []int16
		for _, p := range packets {
			var err error
			if got, err = d.Decode(got, p); err != nil {
				t.Fatal(err)
			}
		}
		if d.Rate() != rate || len(got) != len(pcm)*rate/8000 {
			t.Errorf("%d Hz wished, %d got, %d samples", wish, d.Rate(), len(got))
		}
		if level := db(got) - db(pcm); level < -1 || level > 1 {
			t.Errorf("%d Hz: %.1f dB", rate, level)
		}
	}
}

// Stereo is averaged, in SILK and in CELT: one silent channel halves the other.
func TestOpusStereo(t *testing.T) {
	pcm := speech(rand.New(rand.NewPCG(1, 2)), 16000)
	for _, bps := range []int{24000, 128000} {
		d := mustDecoder(t, opusFormat, DecoderOptions{Rate: 8000})
		var got []int16
		for _, p := range opusPackets(t, pcm, 2, 20, bitrate(bps)) {
			if p[0]&4 == 0 {
				continue // the encoder begins with one channel
			}
			got, _ = d.Decode(got, p)
		}
		if level := db(got) - db(pcm); level < -7.5 || level > -4.5 || len(got) < len(pcm)/2 {
			t.Errorf("%d bit/s: %.1f dB of %d samples", bps, level, len(got))
		}
	}
}

// A packet tells of the one before it, and what is recovered is nearer to what was
// said than what is concealed; a whole stream stays as long as it was.
func TestOpusRecovers(t *testing.T) {
	pcm := speech(rand.New(rand.NewPCG(5, 2)), 80000)
	for _, ms := range []int{20, 40, 60} {
		packets := opusPackets(t, pcm, 1, ms, func(e *opus.Encoder) error {
			_ = e.SetBitrate(24000)
			_ = e.SetInBandFEC(true)
			return e.SetPacketLossPerc(30)
		})
		whole := mustDecoder(t, opusFormat, DecoderOptions{Rate: 8000})
		recovers := mustDecoder(t, opusFormat, DecoderOptions{Rate: 8000, Conceal: true})
		conceals := mustDecoder(t, opusFormat, DecoderOptions{Rate: 8000, Conceal: true})
		var want, fec, plc, lostFEC, lostPLC, lostWant []int16
		recovered, n := 0, 8*ms
		for i, p := range packets {
			want, _ = whole.Decode(want, p)
			if i%5 == 3 && i+1 < len(packets) {
				var ok bool
				if fec, ok = recovers.(Recoverer).Recover(fec, packets[i+1], n); ok {
					recovered++
				} else {
					fec = recovers.Conceal(fec, n)
				}
				plc = conceals.Conceal(plc, n)
				at := len(want) - n
				lostWant, lostFEC, lostPLC = append(lostWant, want[at:]...), append(lostFEC, fec[at:]...), append(lostPLC, plc[at:]...)
				continue
			}
			fec, _ = recovers.Decode(fec, p)
			plc, _ = conceals.Decode(plc, p)
		}
		if len(fec) != len(want) || len(plc) != len(want) || recovered < len(packets)/10 { // a fifth is lost
			t.Fatalf("%d ms: %d, %d and %d samples, %d of %d packets recovered", ms, len(want), len(fec), len(plc), recovered, len(packets))
		}
		f, p := snr(lostWant, lostFEC), snr(lostWant, lostPLC)
		t.Logf("%d ms: recovered at %.1f dB, concealed at %.1f dB", ms, f, p)
		if f < p+3 {
			t.Errorf("%d ms: recovered at %.1f dB, concealed at %.1f dB", ms, f, p)
		}
	}
}

// Without redundancy nothing is recovered.
func TestOpusHasNothingToRecover(t *testing.T) {
	pcm := speech(rand.New(rand.NewPCG(5, 2)), 16000)
	for _, bps := range []int{16000, 128000} {
		d := mustDecoder(t, opusFormat, DecoderOptions{})
		for i, p := range opusPackets(t, pcm, 1, 20, bitrate(bps)) {
			if out, ok := d.(Recoverer).Recover(nil, p, 960); ok || len(out) != 0 {
				t.Fatalf("packet %d of %d bit/s recovers", i, bps)
			}
		}
	}
	d := mustDecoder(t, opusFormat, DecoderOptions{})
	for _, p := range [][]byte{nil, {0x08}, {0x0b, 0}, {0x0b, 0x41, 255}, {0x0a, 252}, {0x0b, 0x83, 252}} {
		if _, ok := d.(Recoverer).Recover(nil, p, 960); ok {
			t.Errorf("%x recovers", p)
		}
	}
}

// Discontinuous packets of one or two octets are as long as they say.
func TestOpusDTX(t *testing.T) {
	pcm := append(speech(rand.New(rand.NewPCG(5, 2)), 8000), make([]int16, 16000)...)
	d := mustDecoder(t, opusFormat, DecoderOptions{Rate: 8000})
	var got []int16
	short := 0
	for _, p := range opusPackets(t, pcm, 1, 20, func(e *opus.Encoder) error { return e.SetDTX(true) }) {
		if len(p) <= 2 {
			short++
		}
		var err error
		if got, err = d.Decode(got, p); err != nil {
			t.Fatal(err)
		}
	}
	if short < 50 || len(got) != len(pcm) {
		t.Errorf("%d short packets, %d samples of %d", short, len(got), len(pcm))
	}
	if level := db(got[16000:]); level > -60 {
		t.Errorf("the pause is at %.1f dB", level)
	}
}
