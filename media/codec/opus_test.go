package codec

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// speech fills n samples with something like a voice: a changing pitch, its
// harmonics under a formant, and some breath, as it comes out of G.711.
func speech(rnd *rand.Rand, n int) []int16 {
	pcm := make([]int16, n)
	phase := 0.0
	for i := range pcm {
		at := float64(i) / 8000
		phase += 2 * math.Pi * (120 + 20*math.Sin(2*math.Pi*1.3*at)) / 8000
		var v float64
		for h := 1.0; h <= 12; h++ {
			f := (h*120 - 600) / 400
			v += math.Sin(h*phase) / (1 + f*f)
		}
		v += 0.1 * rnd.NormFloat64()
		pcm[i] = MuLawLinear(MuLaw(int16(2500 * v * (0.6 + 0.4*math.Sin(2*math.Pi*4*at)))))
	}
	return pcm
}

// idle fills n samples with what an idle line of G.711 gives.
func idle(rnd *rand.Rand, n int) []int16 {
	pcm := make([]int16, n)
	for i := range pcm {
		pcm[i] = [4]int16{0, 8, -8, 0}[rnd.IntN(4)]
	}
	return pcm
}

// snr is how far b is from a, in dB.
func snr(a, b []int16) float64 {
	var s, n float64
	for i := range a {
		x, d := float64(a[i]), float64(a[i])-float64(b[i])
		s, n = s+x*x, n+d*d
	}
	return 10 * math.Log10((s+1)/(n+1))
}

// mustOpus codes one channel and decodes it; rests: as it is done, else with
// every granule coded.
func mustOpus(t testing.TB, opt Options, pcm []int16, rests bool) (out []int16, bytes int) {
	t.Helper()
	opt.Channels = 1
	enc, err := NewEncoder(OggOpus, 8000, opt)
	if err != nil {
		t.Fatal(err)
	}
	var data []byte
	if rests {
		data, err = enc.Flush(nil, [2][]int16{pcm})
	} else {
		e, buf := enc.(*opusEncoder), make([]byte, opusPacketBytesMax)
		whole := append(append([]int16{}, pcm...), make([]int16, 2*160-len(pcm)%160)...)
		for at := 0; at < len(whole); at += 160 {
			p, err := e.channels[0].encode(whole[at:at+160], buf)
			if err != nil {
				t.Fatal(err)
			}
			data = append(append(data, byte(len(p)>>8), byte(len(p))), p...)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewCodedDecoder(OggOpus, 8000, 1)
	if err != nil {
		t.Fatal(err)
	}
	ch, err := d.Decode([2][]int16{}, data, len(pcm))
	if err != nil {
		t.Fatal(err)
	}
	return d.Finish(ch)[0], len(data)
}

// TestOnsetAfterRest: what is heard after a rest is as whole as if the encoder
// had coded the silence too: level and distance of its first milliseconds, and
// nothing before it that was not there (a click, an echo ahead).
func TestOnsetAfterRest(t *testing.T) {
	for _, opt := range []Options{
		{Complexity: 1},
		{Complexity: 5},
		{Complexity: 0, Bitrate: 11000},
		{Application: OpusAudio, Complexity: 1},
		{Application: OpusAudio, Complexity: 1, Bitrate: 24000}, // CELT
	} {
		t.Run(fmt.Sprintf("%+v", opt), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			var pcm []int16
			var onsets []int
			for range 16 {
				pcm = append(pcm, idle(rnd, 4000+rnd.IntN(160))...)
				onsets = append(onsets, len(pcm))
				pcm = append(pcm, speech(rnd, 3000+rnd.IntN(160))...)
			}
			all, bytes := mustOpus(t, opt, pcm, false)
			got, less := mustOpus(t, opt, pcm, true)
			if len(got) != len(pcm) || len(all) < len(pcm) {
				t.Fatalf("%d samples became %d", len(pcm), len(got))
			}
			gather := func(x []int16, from, to int) (out []int16) {
				for _, o := range onsets {
					out = append(out, x[o+from:o+to]...)
				}
				return out
			}
			for _, w := range [][2]int{{0, 40}, {0, 80}, {0, 160}, {0, 800}, {800, 2800}} {
				was := gather(pcm, w[0], w[1])
				before, after := gather(all, w[0], w[1]), gather(got, w[0], w[1])
				if d := db(after) - db(before); math.Abs(d) > 1 {
					t.Errorf("%d to %d ms behind the onset: level moved by %.1f dB", w[0]/8, w[1]/8, d)
				}
				if d := snr(was, after) - snr(was, before); d < -2.5 {
					t.Errorf("%d to %d ms behind the onset: %.1f dB farther from what was said", w[0]/8, w[1]/8, -d)
				}
			}
			if now, then := db(gather(got, -160, 0)), db(gather(all, -160, 0)); now > max(then, -70)+4 {
				t.Errorf("before the onset: %.1f dB, without a rest %.1f", now, then)
			}
			if quiet := db(gather(got, -2400, -240)); quiet > -85 {
				t.Errorf("rest: %.1f dB", quiet)
			}
			if less > bytes*8/10 {
				t.Errorf("%d bytes, without rests %d", less, bytes)
			}
		})
	}
}

// TestFaintSoundIsCoded: a room is heard, and steps of 24 (the first that
// G.711 has beyond its idle codes) are.
func TestFaintSoundIsCoded(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	room := make([]int16, 16000)
	for i := range room {
		room[i] = int16(104 * rnd.NormFloat64()) // -50 dBFS
	}
	got, _ := mustOpus(t, Options{Complexity: 1}, room, true)
	all, _ := mustOpus(t, Options{Complexity: 1}, room, false)
	if d := db(got[800:]) - db(all[800:16000]); math.Abs(d) > 1 || db(got) < -58 {
		t.Errorf("%.1f dB came out of -50, without rests %.1f", db(got), db(all))
	}
	steps := idle(rnd, 1600)
	for i := range steps {
		if i%20 < 10 {
			steps[i] = 24
		}
	}
	e, err := newOpusEncoder(8000, Options{Channels: 1})
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(steps); at += 160 {
		if c := &e.(*opusEncoder).channels[0]; isSilent(steps[at : at+160]) {
			t.Fatalf("granule at %d counts as silence", at)
		} else if p, err := c.code(steps[at:at+160], make([]byte, 1275)); err != nil || &p[0] == &c.silent[0] {
			t.Fatalf("granule at %d was not coded: %v", at, err)
		}
	}
}

// TestLoudThenSilent: sound that breaks off rings out, then nothing is left.
func TestLoudThenSilent(t *testing.T) {
	for _, opt := range []Options{{Complexity: 1}, {Application: OpusAudio, Bitrate: 24000}} {
		pcm := append(tone(700, 30000, 0, 4001), make([]int16, 8000)...)
		all, _ := mustOpus(t, opt, pcm, false)
		got, _ := mustOpus(t, opt, pcm, true)
		if !equal(got[:4001], all[:4001]) {
			t.Error("what is heard before the rest differs")
		}
		if l := db(got[4001+900:]); l > -85 {
			t.Errorf("%+v: %.1f dB left", opt, l)
		}
		for _, v := range got[4001+1000:] {
			if v > 1 || v < -1 {
				t.Fatalf("%+v: sample %d in the rest", opt, v)
			}
		}
	}
}

// TestAnyRests: whatever the pattern of sound and silence, the length is exact,
// sound stays and silence is silent.
func TestAnyRests(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		opt := Options{Complexity: rapid.IntRange(0, 3).Draw(rt, "complexity"), Bitrate: rapid.SampledFrom([]int{0, 8000, 16000, 24000}).Draw(rt, "bitrate")}
		opt.Application = rapid.SampledFrom([]string{OpusVoIP, OpusAudio}).Draw(rt, "application")
		type part struct{ from, to int }
		var pcm []int16
		var sounds, rests []part
		for range rapid.IntRange(1, 6).Draw(rt, "parts") {
			from := len(pcm)
			n := rapid.IntRange(1, 3000).Draw(rt, "samples")
			if rapid.Bool().Draw(rt, "sound") {
				pcm = append(pcm, speech(rnd, n)...)
				sounds = append(sounds, part{from, len(pcm)})
			} else {
				pcm = append(pcm, idle(rnd, n)...)
				rests = append(rests, part{from, len(pcm)})
			}
		}
		got, _ := mustOpus(t, opt, pcm, true)
		if len(got) != len(pcm) {
			rt.Fatalf("%d samples became %d", len(pcm), len(got))
		}
		for _, s := range sounds {
			if s.to-s.from < 800 {
				continue
			}
			if d := db(got[s.from:s.to]) - db(pcm[s.from:s.to]); math.Abs(d) > 4 {
				rt.Errorf("sound from %d to %d: level moved by %.1f dB", s.from, s.to, d)
			}
		}
		for _, s := range rests {
			// Behind the hangover, before the granule of the next sound.
			if from, to := s.from+7*160, s.to-2*160; from < to && db(got[from:to]) > -80 {
				rt.Errorf("rest from %d to %d: %.1f dB", s.from, s.to, db(got[from:to]))
			}
		}
	})
}

func TestOpusOptionsRefused(t *testing.T) {
	for _, opt := range []Options{
		{Bitrate: 5999}, {Bitrate: 128_001}, {Complexity: 11}, {Complexity: -1}, {Application: "lowdelay"},
	} {
		if e, err := NewEncoder(OggOpus, 8000, opt); !errors.Is(err, ErrFormat) || e != nil {
			t.Errorf("%+v: %v, %v", opt, e, err)
		}
	}
}

// TestEncodeDoesNotAllocate holds the way of a granule, talking, resting and
// between the two.
func TestEncodeDoesNotAllocate(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, opt := range []Options{{}, {Application: OpusAudio, Bitrate: 24000}} {
		e, err := NewEncoder(OggOpus, 8000, opt)
		if err != nil {
			t.Fatal(err)
		}
		talk, quiet := speech(rnd, 160), idle(rnd, 160)
		dst := make([]byte, 0, 4096)
		n := 0
		if a := testing.AllocsPerRun(200, func() {
			ch := [2][]int16{talk, quiet}
			if n%20 > 10 {
				ch = [2][]int16{quiet, quiet}
			}
			n++
			if _, err := e.Encode(dst[:0], ch); err != nil {
				t.Fatal(err)
			}
		}); a != 0 {
			t.Errorf("%+v: %.1f allocations a granule", opt, a)
		}
		e.Close()
	}
}

// cpuTime is what the process has used, which on a busy machine tells more than
// the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkOpusGranule tells what 20 ms of two channels cost.
func BenchmarkOpusGranule(b *testing.B) {
	rnd := rand.New(rand.NewPCG(7, 8))
	talk, quiet := speech(rnd, 16000), idle(rnd, 16000)
	for _, complexity := range []int{0, 1, 3, 5, 10} {
		for _, who := range []struct {
			name string
			ch   [2][]int16
		}{{"both", [2][]int16{talk, talk}}, {"one", [2][]int16{talk, quiet}}, {"none", [2][]int16{quiet, quiet}}} {
			b.Run(fmt.Sprintf("complexity=%d/talking=%s", complexity, who.name), func(b *testing.B) {
				e, err := NewEncoder(OggOpus, 8000, Options{Complexity: complexity})
				if err != nil {
					b.Fatal(err)
				}
				defer e.Close()
				dst := make([]byte, 0, 4096)
				b.ReportAllocs()
				begin := cpuTime()
				for at := 0; b.Loop(); at = (at + 160) % 16000 {
					if _, err := e.Encode(dst[:0], [2][]int16{who.ch[0][at : at+160], who.ch[1][at : at+160]}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64((cpuTime()-begin).Nanoseconds())/1000/float64(b.N), "cpu-us/op")
			})
		}
	}
}

// TestRestsElsewhere: other decoders find sound and silence of both channels at
// their places, and the exact length.
func TestRestsElsewhere(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 10))
	for _, opt := range []Options{{Complexity: 1}, {Application: OpusAudio, Bitrate: 24000}} {
		var ch [2][]int16
		for i := range ch {
			for _, s := range [][2]int{{4000 - i*2000, 0}, {3011, 1}, {5003, 0}, {2007, 1}, {3016 + i*2000, 0}} {
				if s[1] == 1 {
					ch[i] = append(ch[i], speech(rnd, s[0])...)
				} else {
					ch[i] = append(ch[i], idle(rnd, s[0])...)
				}
			}
		}
		n := len(ch[0])
		e, err := NewEncoder(OggOpus, 8000, opt)
		if err != nil {
			t.Fatal(err)
		}
		data, err := e.Flush(nil, ch)
		if err != nil {
			t.Fatal(err)
		}
		own, err := NewCodedDecoder(OggOpus, 8000, 2)
		if err != nil {
			t.Fatal(err)
		}
		want, err := own.Decode([2][]int16{}, data, n)
		if err != nil {
			t.Fatal(err)
		}
		name := writeFile(t, OggOpus, 2, 0, []coded{{data, n}})
		opusinfo(t, name)
		for tool, pcm := range map[string][2][]int16{"ffmpeg": ffmpeg(t, name, 2), "opusdec": opusdec(t, name)} {
			if tool == "opusdec" && pcm[0] == nil {
				continue
			}
			for i := range pcm {
				if len(pcm[i]) != 6*n {
					t.Fatalf("%s: %d samples of 48 kHz, want %d", tool, len(pcm[i]), 6*n)
				}
				for at := 0; at+160 <= n-160; at += 160 {
					got, own := db(pcm[i][6*at:6*(at+160)]), db(want[i][at:at+160])
					if own < -85 && got > -72 || own > -40 && math.Abs(got-own) > 2 {
						t.Errorf("%s, %+v: channel %d at %d: %.1f dB, our decoder gives %.1f", tool, opt, i, at, got, own)
					}
				}
			}
		}
	}
}

// opusdec decodes a file of two channels to samples at 48000 Hz by the
// reference decoder; nothing when it is not installed.
func opusdec(t testing.TB, name string) (pcm [2][]int16) {
	t.Helper()
	if _, err := exec.LookPath("opusdec"); err != nil {
		t.Log("opusdec is not installed: files are not checked against it")
		return pcm
	}
	raw, err := exec.Command("opusdec", "--quiet", "--rate", "48000", "--no-dither", name, name+".wav").CombinedOutput()
	if err != nil {
		t.Fatalf("opusdec: %v\n%s", err, raw)
	}
	return ffmpeg(t, name+".wav", 2)
}
