// Package picture draws a recording: the waveforms of its two channels on the
// axis of real time, with what was suppressed and what is missing marked.
package picture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// Peak is the range of the samples in one bin of audio, full scale being
// -32768 to 32767.
type Peak struct{ Min, Max int16 }

// Level is the larger magnitude of the two, from 0 to 1.
func (p Peak) Level() float64 { return float64(max(-int(p.Min), int(p.Max))) / 32768 }

func (p Peak) with(q Peak) Peak { return Peak{min(p.Min, q.Min), max(p.Max, q.Max)} }

// Peaks are the waveforms of a recording in audio time.
type Peaks struct {
	BinMS    int64 // length of a bin, in ms of audio
	Channels [2][]Peak
}

// binsMax bounds a waveform: a day in bins of 10 ms.
const binsMax = 24 * 3600 * 100

// ReadWAV reduces a file of format wav-pcm16 to bins of binMS. Of a file with
// one channel only the first waveform is there.
func ReadWAV(r io.Reader, binMS int64) (Peaks, error) {
	p := Peaks{BinMS: binMS}
	br := bufio.NewReaderSize(r, 64<<10)
	rate, count, err := wavHeader(br)
	if err != nil {
		return p, fmt.Errorf("read WAV header: %w", err)
	}
	perBin := int64(rate) * binMS / 1000
	if perBin < 1 {
		return p, fmt.Errorf("bins of %d ms at %d Hz hold no sample", binMS, rate)
	}
	frame := make([]byte, 2*count)
	for n := int64(0); ; n++ {
		_, err := io.ReadFull(br, frame)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return p, nil
		case err != nil:
			return p, fmt.Errorf("read samples: %w", err)
		case len(p.Channels[0]) > binsMax:
			return p, fmt.Errorf("more than %v of audio", time.Duration(binsMax*binMS)*time.Millisecond)
		}
		for ch := range count {
			v := int16(binary.LittleEndian.Uint16(frame[2*ch:]))
			if n%perBin == 0 {
				p.Channels[ch] = append(p.Channels[ch], Peak{v, v})
				continue
			}
			last := &p.Channels[ch][len(p.Channels[ch])-1]
			*last = last.with(Peak{v, v})
		}
	}
}

// wavHeader reads up to the samples.
func wavHeader(r io.Reader) (rate, channels int, err error) {
	var riff [12]byte
	if _, err := io.ReadFull(r, riff[:]); err != nil {
		return 0, 0, err
	}
	if string(riff[:4]) != "RIFF" || string(riff[8:]) != "WAVE" {
		return 0, 0, errors.New("no RIFF WAVE file")
	}
	for {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return 0, 0, err
		}
		length := int64(binary.LittleEndian.Uint32(head[4:]))
		switch id := string(head[:4]); {
		case id == "data" && rate == 0:
			return 0, 0, errors.New("samples before their format")
		case id == "data":
			return rate, channels, nil
		case id == "fmt " && length >= 16:
			var f [16]byte
			if _, err := io.ReadFull(r, f[:]); err != nil {
				return 0, 0, err
			}
			length -= 16
			channels, rate = int(binary.LittleEndian.Uint16(f[2:])), int(binary.LittleEndian.Uint32(f[4:]))
			if tag, bits := binary.LittleEndian.Uint16(f[0:]), binary.LittleEndian.Uint16(f[14:]); tag != 1 || bits != 16 ||
				channels < 1 || channels > 2 || rate < 1 || rate > 192_000 {
				return 0, 0, errors.New("not 16-bit PCM of one or two channels")
			}
		}
		if _, err := io.CopyN(io.Discard, r, length+length%2); err != nil {
			return 0, 0, err
		}
	}
}

// span is a piece of real time.
type span struct{ from, to int64 }

// timeline maps real time to audio time. Where windows were cut, real time
// goes on and audio time stands still.
type timeline struct {
	cuts   []span    // union of the windows of both channels, in order; empty when windows are silence
	shades [2][]span // the union of each channel's windows, cut or silent
	realMS int64
}

func newTimeline(m *recorder.Manifest) timeline {
	t := timeline{realMS: max(m.RealMS, 1)}
	if m.Suppressed != recorder.SuppressedSilence {
		t.cuts = union(m, func(w recorder.Window) bool { return w.Channel == nil })
	}
	for ch := range t.shades {
		t.shades[ch] = union(m, func(w recorder.Window) bool { return w.Channel == nil || *w.Channel == ch })
	}
	return t
}

// union merges those windows of a manifest that count; they may overlap.
func union(m *recorder.Manifest, counts func(recorder.Window) bool) []span {
	var out []span
	for _, w := range sorted(m.Windows) {
		s := span{max(0, w.RealMS), min(m.RealMS, w.EndRealMS)}
		switch last := len(out) - 1; {
		case s.to <= s.from || !counts(w):
		case last >= 0 && s.from <= out[last].to:
			out[last].to = max(out[last].to, s.to)
		default:
			out = append(out, s)
		}
	}
	return out
}

// audio returns the audio time of a moment of real time; false inside a cut.
func (t timeline) audio(realMS int64) (int64, bool) {
	at := realMS
	for _, c := range t.cuts {
		switch {
		case realMS < c.from:
			return at, true
		case realMS < c.to:
			return 0, false
		}
		at -= c.to - c.from
	}
	return at, true
}

// suppressed tells whether a moment of a channel lies in a window.
func (t timeline) suppressed(ch int, realMS int64) bool {
	for _, s := range t.shades[ch] {
		if realMS >= s.from && realMS < s.to {
			return true
		}
	}
	return false
}

// shaded tells whether any of n channels has a window.
func (t timeline) shaded(n int) bool {
	return slices.ContainsFunc(t.shades[:n], func(s []span) bool { return len(s) > 0 })
}

// columns reduces one channel to n columns of real time.
func (t timeline) columns(p Peaks, ch, n int) []Peak {
	out := make([]Peak, n)
	if p.BinMS < 1 {
		return out
	}
	for i := range out {
		from, to := t.realMS*int64(i)/int64(n), t.realMS*int64(i+1)/int64(n)
		begun := false
		for at := from; at < max(to, from+1); at += p.BinMS {
			a, ok := t.audio(at)
			if bin := a / p.BinMS; ok && bin < int64(len(p.Channels[ch])) {
				if q := p.Channels[ch][bin]; begun {
					out[i] = out[i].with(q)
				} else {
					out[i], begun = q, true
				}
			}
		}
	}
	return out
}

// tick is a mark on the axis of time.
type tick struct {
	realMS int64
	label  string
}

var tickSteps = []int64{100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000}

// ticks returns at most about n marks at round times.
func ticks(realMS int64, n int) []tick {
	step := tickSteps[len(tickSteps)-1]
	for _, s := range tickSteps {
		if realMS/s <= int64(n) {
			step = s
			break
		}
	}
	for realMS/step > int64(n) {
		step *= 2
	}
	var out []tick
	for at := int64(0); at <= realMS; at += step {
		out = append(out, tick{at, Clock(at, step < 1000)})
	}
	return out
}

// Clock prints a position as m:ss or h:mm:ss, with tenths where asked.
func Clock(ms int64, tenths bool) string {
	s := ms / 1000
	text := fmt.Sprintf("%d:%02d", s/60, s%60)
	if s >= 3600 {
		text = fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	if tenths {
		text += fmt.Sprintf(".%d", ms%1000/100)
	}
	return text
}
