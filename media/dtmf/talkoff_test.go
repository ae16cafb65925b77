package dtmf_test

import (
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/go-audio/wav"

	"github.com/trunktap/trunktap/media/dtmf"
	"github.com/trunktap/trunktap/media/mediatest"
)

// voice makes sound like that of somebody who talks or sings: a train of
// glottal pulses through three resonances, that glide from one syllable to the
// next. level is the one of its loudest syllables, about.
func voice(r *rand.Rand, rate, n int, dBm0 float64) []int16 {
	out := make([]float64, n)
	var y [3][2]float64
	var peak, phase, glottis float64
	pitch, formants := 120.0, [3]float64{500, 1500, 2500}
	for i := 0; i < n; {
		length := rate/10 + r.IntN(rate/4)
		nextPitch := 80 * math.Pow(5, r.Float64())
		next := [3]float64{250 + 700*r.Float64(), 800 + 1600*r.Float64(), 2200 + 1000*r.Float64()}
		loud := 0.1 + 0.9*r.Float64()
		for j := 0; j < length && i < n; i, j = i+1, j+1 {
			f := float64(j) / float64(length)
			phase += (pitch + (nextPitch-pitch)*f) / float64(rate)
			glottis *= math.Exp(-2 * math.Pi * 150 / float64(rate))
			if phase >= 1 {
				phase--
				glottis++
			}
			x := glottis + 0.02*r.NormFloat64()
			for k := range y {
				hz := min(formants[k]+(next[k]-formants[k])*f, 0.45*float64(rate))
				radius := math.Exp(-math.Pi * float64(70+40*k) / float64(rate))
				x, y[k][1] = x+2*radius*math.Cos(2*math.Pi*hz/float64(rate))*y[k][0]-radius*radius*y[k][1], y[k][0]
				y[k][0] = x
				x *= 0.1
			}
			out[i] = x * loud * math.Sin(math.Pi*f)
			peak = max(peak, math.Abs(out[i]))
		}
		pitch, formants = nextPitch, next
	}
	pcm := make([]int16, n)
	for i, v := range out {
		pcm[i] = clip(2 * mediatest.Amplitude(dBm0) * v / peak)
	}
	return pcm
}

// TestVoiceIsNoDigit listens to a quarter of an hour of a voice that is nastier than
// real ones, its harmonics being exact and its resonances narrow.
func TestVoiceIsNoDigit(t *testing.T) {
	var all []dtmf.Event
	for seed := range uint64(6) {
		rate := 8000 + 8000*int(seed%2)
		events, _ := found(rate, voice(rand.New(rand.NewPCG(seed, 7)), rate, 150*rate, -10))
		all = append(all, events...)
	}
	if len(all) > 0 {
		t.Errorf("got %v", all)
	}
}

// TestSpeakerIsNoDigit lets the speech synthesiser talk.
func TestSpeakerIsNoDigit(t *testing.T) {
	if _, err := exec.LookPath("espeak-ng"); err != nil {
		t.Skip("espeak-ng is not installed: no synthetic speech to try")
	}
	const script = `The quick brown fox jumps over the lazy dog. Your balance is one thousand two hundred and nine pounds.
		Six nine seven, seven seven zero, eight five two, nine four one. Please hold the line, we are recording this call.
		Ooh, aah, eee, you knew who grew the blue dew, moon, soon, noon. She sells sea shells by the sea shore.`
	for _, speaker := range []string{"en+m3", "en+f2", "en+f5", "de+m1", "en-us+croak"} {
		t.Run(speaker, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "speech.wav")
			if out, err := exec.Command("espeak-ng", "-v", speaker, "-w", file, script).CombinedOutput(); err != nil {
				t.Fatalf("espeak-ng: %v: %s", err, out)
			}
			rate, pcm := mustReadWav(t, file)
			if events, _ := found(rate, pcm); len(events) > 0 {
				t.Errorf("got %v", events)
			}
		})
	}
}

// TestRecordedCallsAreNoDigits reads what real programs heard of each other.
func TestRecordedCallsAreNoDigits(t *testing.T) {
	files, err := fs.Glob(os.DirFS("../../../shared/fixtures/peers"), "*.wav")
	if err != nil || len(files) == 0 {
		t.Skip("../../../shared/fixtures/peers has no WAV files: no recorded speech to try")
	}
	for _, name := range files {
		rate, pcm := mustReadWav(t, filepath.Join("../../../shared/fixtures/peers", name))
		if events, _ := found(rate, pcm); len(events) > 0 {
			t.Errorf("%s: got %v", name, events)
		}
	}
}

// mustReadWav returns the samples of a mono file.
func mustReadWav(t *testing.T, name string) (rate int, pcm []int16) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // read only
	buf, err := wav.NewDecoder(f).FullPCMBuffer()
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	for _, s := range buf.Data {
		pcm = append(pcm, int16(s))
	}
	if len(pcm) == 0 || buf.Format.NumChannels != 1 {
		t.Fatalf("%s: %d samples of %d channels", name, len(pcm), buf.Format.NumChannels)
	}
	return buf.Format.SampleRate, pcm
}

// TestChordsAreNoDigits plays every chord of two or three notes of the equal
// scale between 196 and 1760 Hz, each note with two overtones.
func TestChordsAreNoDigits(t *testing.T) {
	const rate, length = 8000, 800
	note := func(i int) float64 { return 196 * math.Pow(2, float64(i)/12) }
	add := func(pcm []int16, hz float64) {
		for k := 1; k <= 3; k++ {
			a := mediatest.Amplitude(-16 - 5*float64(k))
			for n := range pcm {
				pcm[n] = clip(float64(pcm[n]) + a*math.Sin(2*math.Pi*hz*float64(k)*float64(n)/rate+float64(k)))
			}
		}
	}
	for a := range 38 {
		for b := a + 1; b < 38; b++ {
			pcm := make([]int16, length)
			add(pcm, note(a))
			add(pcm, note(b))
			if b%2 == 0 {
				add(pcm, note(b-a))
			}
			if events, _ := found(rate, pcm); len(events) > 0 {
				t.Errorf("notes %.0f and %.0f Hz: got %v", note(a), note(b), events)
			}
		}
	}
}

// TestSignalsAreNoDigits plays the other tones of a telephone network: those of
// call progress (ITU-T E.180), fax and modem (T.30, V.25), R1 and R2 (Q.320,
// Q.441).
func TestSignalsAreNoDigits(t *testing.T) {
	for _, c := range [][]float64{
		{425},
		{350, 440},
		{440, 480},
		{480, 620},
		{400, 450},
		{950, 1400, 1800},
		{1100},
		{2100},
		{1300},
		{700, 900},
		{700, 1100},
		{900, 1300},
		{700, 1300},
		{900, 1500},
		{1100, 1700},
		{1300, 1500},
		{1380, 1500},
		{1380, 1740},
		{1620, 1980},
		{540, 660},
		{780, 1140},
		{660, 1140},
		{1400},
		{1004},
		{697, 770},
		{1209, 1336},
		{697, 1209, 1336},
		{770, 852, 1477},
		{697, 1209, 2418, 2094},
	} {
		pcm := make([]int16, 4000)
		for _, hz := range c {
			for n, s := range mediatest.Tone(hz, 8000, len(pcm), 5000) {
				pcm[n] += s
			}
		}
		if events, _ := found(8000, pcm); len(events) > 0 {
			t.Errorf("%v Hz: got %v", c, events)
		}
	}
}

// TestDigitAmidVoice: who dials may talk until the first tone and from the last
// one on. The digit is covered, and as long as it is the louder one nothing else.
func TestDigitAmidVoice(t *testing.T) {
	const rate = 8000
	for _, above := range []float64{-6, 0, 6, 12} {
		t.Run(fmt.Sprintf("%v dB", above), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(9, uint64(above+10)))
			for i := range 160 {
				digit := alphabet[i%len(alphabet)]
				from, to := rate/4+i, rate/4+i+rate/10
				pcm := voice(r, rate, rate*3/4, -16)
				clear(pcm[from:to])
				mediatest.DTMF{Rate: rate, Low: -16 + above, High: -16 + above}.Add(pcm[from:to], digit)
				events, _ := found(rate, pcm)
				if above <= 0 && len(events) == 2 { // the end is covered, how exactly is not promised
					events[1].At = max(min(events[1].At, int64(to)), events[1].At-rate/10)
				}
				if err := checkOne(events, rate, digit, from, to); err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
}
