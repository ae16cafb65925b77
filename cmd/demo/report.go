package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/go-audio/wav"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// Bounds of the verdict.
const (
	windowTolerance  = 150 * time.Millisecond // between what the demo saw and what the daemon wrote
	accountTolerance = 20                     // ms: one packet time
	frame            = 100 * time.Millisecond // of loudness
	sameVoice        = 0.8                    // correlation of loudness from which on two are one voice
	otherVoice       = 0.5                    // and up to which they are two
)

// show lets the daemon's own commands show the recording.
func show(ctx context.Context, d *daemon, m *recorder.Manifest, dir, wavFile string) error {
	picture := filepath.Join(dir, "recording.png")
	err := errors.Join(
		d.command(ctx, "ls"),
		d.command(ctx, "show", m.ID, "--png", picture),
		d.command(ctx, "export", m.ID, "--format", "wav-pcm16", "-o", wavFile),
		d.command(ctx, "verify"),
	)
	fmt.Printf("\nrecording %s, %s, sealed in %s\n", m.ID, m.Format, filepath.Join(dir, "recordings"))
	fmt.Printf("  real time %8.2f s\n  audio     %8.2f s\n", float64(m.RealMS)/1000, float64(m.AudioMS)/1000)
	for _, w := range m.Windows {
		fmt.Printf("  window    %8.2f s to %.2f s: %s (by %s), not recorded\n",
			float64(w.RealMS)/1000, float64(w.EndRealMS)/1000, w.Reason, w.Source)
	}
	for _, g := range m.Gaps {
		fmt.Printf("  gap       %8.2f s for %d ms on the %s side: %s, filled with %s\n",
			float64(g.RealMS)/1000, g.DurationMS, m.Channels[g.Channel].Side, g.Cause, g.Filled)
	}
	if len(m.Gaps) == 0 {
		fmt.Println("  gaps          none")
	}
	fmt.Printf("\npicture   %s\nlisten to %s (left: caller, right: agent)\n\n", picture, wavFile)
	return err
}

// verdict checks what was promised and prints it to to; the error names all that
// does not hold.
func verdict(to io.Writer, c *call, m *recorder.Manifest, wavFile string) error {
	channels, err := readWAV(wavFile)
	if err != nil {
		return err
	}
	var all []error
	for _, check := range []struct {
		what string
		err  error
	}{
		{"the agent received what the caller sent, byte for byte", unchanged(c.caller, c.agent, c.bye)},
		{"the caller received what the agent sent, byte for byte", unchanged(c.agent, c.caller, c.bye)},
		{"the hold was cut out", windowFits(m, "hold", c.hold, c.answer)},
		{"the secure pause was cut out", windowFits(m, "pause", c.pause, c.answer)},
		{"audio and windows make up the whole call", accountHolds(m)},
		{"no digit of the secure pause was kept", digitsKept(m)},
		{"the playable file holds the audio", lengthFits(m, channels)},
		{"each voice is on its own channel", voicesApart(c, m, channels)},
	} {
		mark := "ok    "
		if check.err != nil {
			mark = "FAILED"
			all = append(all, fmt.Errorf("%s: %w", check.what, check.err))
		}
		fmt.Fprintln(to, mark, check.what)
	}
	return errors.Join(all...)
}

// unchanged compares the RTP that one side sent before the BYE with what the
// other received.
func unchanged(from, to *siptest.Media, bye time.Time) error {
	sent, got := from.Sent(), to.Received()
	n := 0
	for _, s := range sent {
		if !s.At.Before(bye) {
			break
		}
		if n >= len(got) {
			return fmt.Errorf("%d packets of at least %d came", len(got), n+1)
		}
		if !bytes.Equal(s.Wire, got[n].Wire) {
			return fmt.Errorf("packet %d of %d differs", n+1, len(sent))
		}
		n++
	}
	if n == 0 {
		return errors.New("nothing was sent")
	}
	if len(got) > len(sent) {
		return fmt.Errorf("%d packets came where %d were sent", len(got), len(sent))
	}
	return nil
}

// windowFits looks for the one window of that reason where the demo saw it.
func windowFits(m *recorder.Manifest, reason string, want span, answer time.Time) error {
	var found []recorder.Window
	for _, w := range m.Windows {
		if w.Reason == reason {
			found = append(found, w)
		}
	}
	if len(found) != 1 {
		return fmt.Errorf("%d windows %q, want one", len(found), reason)
	}
	near := func(ms int64, at time.Time) bool {
		return (time.Duration(ms)*time.Millisecond - at.Sub(answer)).Abs() <= windowTolerance
	}
	if w := found[0]; !near(w.RealMS, want.from) || !near(w.EndRealMS, want.to) || w.MissedMS != 0 {
		return fmt.Errorf("window from %d to %d ms, %d ms missed, want from %d to %d ms", w.RealMS, w.EndRealMS, w.MissedMS,
			want.from.Sub(answer).Milliseconds(), want.to.Sub(answer).Milliseconds())
	}
	return nil
}

func accountHolds(m *recorder.Manifest) error {
	cut := int64(0)
	for _, w := range m.Windows { // they do not overlap here
		cut += w.EndRealMS - w.RealMS
	}
	if d := m.AudioMS + cut - m.RealMS; d < -accountTolerance || d > accountTolerance {
		return fmt.Errorf("audio %d ms and windows %d ms where the call lasted %d ms", m.AudioMS, cut, m.RealMS)
	}
	return nil
}

func digitsKept(m *recorder.Manifest) error {
	if len(m.DTMF) > 0 {
		return fmt.Errorf("%d digits are in the manifest", len(m.DTMF))
	}
	return nil
}

func lengthFits(m *recorder.Manifest, channels [2][]int16) error {
	ms := int64(len(channels[0])) * 1000 / rate
	if d := ms - m.AudioMS; d < -accountTolerance || d > accountTolerance {
		return fmt.Errorf("it lasts %d ms, the audio %d ms", ms, m.AudioMS)
	}
	return nil
}

// voicesApart compares the loudness of each channel with that of both voices.
func voicesApart(c *call, m *recorder.Manifest, channels [2][]int16) error {
	voices := [2][]float64{spoken(c.caller, c.answer, m), spoken(c.agent, c.answer, m)}
	var errs []error
	for i, pcm := range channels {
		heard := loudness(pcm)
		own, other := correlation(heard, voices[i]), correlation(heard, voices[1-i])
		if own < sameVoice || other > otherVoice {
			errs = append(errs, fmt.Errorf("channel %d is like its own voice by %.2f, like the other by %.2f", i, own, other))
		}
	}
	return errors.Join(errs...)
}

// spoken is the loudness of what was sent, frame by frame, without the windows.
func spoken(media *siptest.Media, answer time.Time, m *recorder.Manifest) []float64 {
	pcm := make([]int16, m.RealMS*rate/1000)
	for _, p := range media.Sent() {
		at := int(p.At.Sub(answer).Seconds() * rate)
		if p.RTCP || p.Wire[1]&0x7f != siptest.PCMU.PayloadType || at < 0 {
			continue
		}
		for i, b := range p.Wire[12:] {
			if at+i < len(pcm) {
				pcm[at+i] = codec.MuLawLinear(b)
			}
		}
	}
	kept := pcm[:0]
	for i, s := range pcm {
		if ms := int64(i) * 1000 / rate; !suppressed(m, ms) {
			kept = append(kept, s)
		}
	}
	return loudness(kept)
}

func suppressed(m *recorder.Manifest, ms int64) bool {
	for _, w := range m.Windows {
		if ms >= w.RealMS && ms < w.EndRealMS {
			return true
		}
	}
	return false
}

// loudness is the root mean square of each frame.
func loudness(pcm []int16) []float64 {
	n := int(frame.Seconds() * rate)
	out := make([]float64, 0, len(pcm)/n)
	for ; len(pcm) >= n; pcm = pcm[n:] {
		sum := 0.0
		for _, s := range pcm[:n] {
			sum += float64(s) * float64(s)
		}
		out = append(out, math.Sqrt(sum/float64(n)))
	}
	return out
}

// correlation is Pearson's, over what both have; 0 when one is constant.
func correlation(a, b []float64) float64 {
	n := min(len(a), len(b))
	if n == 0 {
		return 0
	}
	mean := func(v []float64) float64 {
		sum := 0.0
		for _, x := range v[:n] {
			sum += x
		}
		return sum / float64(n)
	}
	ma, mb := mean(a), mean(b)
	var ab, aa, bb float64
	for i := range n {
		ab += (a[i] - ma) * (b[i] - mb)
		aa += (a[i] - ma) * (a[i] - ma)
		bb += (b[i] - mb) * (b[i] - mb)
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / math.Sqrt(aa*bb)
}

// readWAV reads two channels of 16 bits at 8 kHz.
func readWAV(name string) ([2][]int16, error) {
	var out [2][]int16
	file, err := os.Open(name)
	if err != nil {
		return out, fmt.Errorf("playable file: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	d := wav.NewDecoder(file)
	buf, err := d.FullPCMBuffer()
	if err != nil {
		return out, fmt.Errorf("playable file %s: %w", name, err)
	}
	if buf.Format.NumChannels != 2 || buf.Format.SampleRate != rate || d.BitDepth != 16 {
		return out, fmt.Errorf("playable file %s: %d channels of %d bits at %d Hz, want 2 of 16 at %d",
			name, buf.Format.NumChannels, d.BitDepth, buf.Format.SampleRate, rate)
	}
	for i, s := range buf.Data {
		out[i%2] = append(out[i%2], int16(s))
	}
	return out, nil
}
