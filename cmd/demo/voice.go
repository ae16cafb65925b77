package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os/exec"
	"time"

	"github.com/go-audio/wav"

	"github.com/trunktap/trunktap/media/mediatest"
)

const rate = 8000 // Hz, of everything after resample

// voices are what is said in the call, 8 kHz.
type voices struct {
	greeting, announcement, farewell []int16 // the agent
	wish, card, thanks               []int16 // the caller
	music                            []int16 // while the call is on hold
}

// speak makes the voices by espeak-ng, or of tones where that is missing, and
// says which.
func speak(ctx context.Context) (voices, string) {
	v := voices{music: melody(3)}
	agent := func(text string) ([]int16, error) { return espeak(ctx, "en-gb+f3", text) }
	caller := func(text string) ([]int16, error) { return espeak(ctx, "en-us+m2", text) }
	for _, line := range []struct {
		to    *[]int16
		voice func(string) ([]int16, error)
		text  string
	}{
		{&v.greeting, agent, "Good morning, how can I help you?"},
		{&v.wish, caller, "Hello. I would like to pay my bill, please."},
		{&v.announcement, agent, "The recording is paused now. What is your card number?"},
		{&v.card, caller, "four one one one. two two two two."},
		{&v.farewell, agent, "Thank you, that is all."},
		{&v.thanks, caller, "Thank you very much. Goodbye."},
	} {
		pcm, err := line.voice(line.text)
		if err != nil {
			return tones(), fmt.Sprintf("no speech (%v): the parties are tones", err)
		}
		*line.to = pcm
	}
	return v, "caller and agent speak with two voices of espeak-ng"
}

// tones are voices of two pitches.
func tones() voices {
	beeps := func(hz float64, n int) []int16 {
		var out []int16
		for range n {
			out = append(out, mediatest.Tone(hz, rate, rate/4, 9000)...)
			out = append(out, make([]int16, rate/4)...)
		}
		return out
	}
	return voices{
		greeting: beeps(620, 4), announcement: beeps(620, 5), farewell: beeps(620, 2),
		wish: beeps(440, 4), card: beeps(440, 5), thanks: beeps(440, 2), music: melody(3),
	}
}

// melody is hold music.
func melody(seconds int) []int16 {
	var out []int16
	for i := range seconds * 4 {
		out = append(out, mediatest.Tone([]float64{523, 659, 784, 1047}[i%4], rate, rate/4, 6000)...)
	}
	return out
}

func espeak(ctx context.Context, voice, text string) ([]int16, error) {
	cmd := exec.CommandContext(ctx, "espeak-ng", "-v", voice, "-s", "180", "--stdout", text)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("espeak-ng: %w", err)
	}
	d := wav.NewDecoder(bytes.NewReader(out))
	buf, err := d.FullPCMBuffer()
	if err != nil {
		return nil, fmt.Errorf("read the speech of espeak-ng: %w", err)
	}
	if buf.Format.NumChannels != 1 || d.BitDepth != 16 || len(buf.Data) == 0 {
		return nil, fmt.Errorf("speech of espeak-ng has %d channels of %d bits", buf.Format.NumChannels, d.BitDepth)
	}
	pcm := make([]float64, len(buf.Data))
	for i, s := range buf.Data {
		pcm[i] = float64(s)
	}
	return resample(pcm, buf.Format.SampleRate), nil
}

// resample brings pcm from a higher rate to 8 kHz by a sinc with a Hann window,
// which keeps what lies below 3.6 kHz.
func resample(pcm []float64, from int) []int16 {
	const zeroes, pass = 24, 3600.0
	step := float64(from) / rate
	cut := 2 * pass / float64(from) // of half the old rate
	half := zeroes / cut
	out := make([]int16, int(float64(len(pcm))/step))
	for i := range out {
		middle := float64(i) * step
		sum := 0.0
		for k := max(0, int(middle-half)+1); k <= min(len(pcm)-1, int(middle+half)); k++ {
			x := float64(k) - middle
			sum += pcm[k] * cut * sinc(x*cut) * (0.5 + 0.5*math.Cos(math.Pi*x/half))
		}
		out[i] = int16(min(max(math.Round(sum), math.MinInt16), math.MaxInt16))
	}
	return out
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	return math.Sin(math.Pi*x) / (math.Pi * x)
}

// lasts is how long pcm is heard.
func lasts(pcm []int16) time.Duration {
	return time.Duration(len(pcm)) * time.Second / rate
}
