package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// AnnouncementMax bounds the length of an announcement.
const AnnouncementMax = time.Minute

const (
	wavOtherBytesMax = 1 << 20 // of chunks that are not audio
	resampleHalf     = 24      // zero crossings of the resampling filter, each side
)

// ErrAnnouncement says that a file is none that can be announced; the text says why.
var ErrAnnouncement = errors.New("announcement")

// Announcement is what is said at the answer. It is never changed and may be
// shared by all overlays.
type Announcement struct {
	rates [3]rated // 8, 16 and 48 kHz
}

type rated struct {
	rate int
	pcm  []int16
}

// ReadAnnouncement reads a WAV file: one channel of 16 bit PCM at 8000, 16000 or
// 48000 Hz, at most limit long (AnnouncementMax when zero or more than that). The
// error wraps ErrAnnouncement when the file is at fault.
func ReadAnnouncement(r io.Reader, limit time.Duration) (*Announcement, error) {
	if limit <= 0 || limit > AnnouncementMax {
		limit = AnnouncementMax
	}
	bytesMax := int64(limit.Seconds()*opusRate)*2 + wavOtherBytesMax
	file, err := io.ReadAll(io.LimitReader(r, bytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read the announcement: %w", err)
	}
	if int64(len(file)) > bytesMax {
		return nil, fmt.Errorf("%w: more than %d bytes; at most %v is played", ErrAnnouncement, bytesMax, limit)
	}
	rate, pcm, err := wavSamples(file)
	if err != nil {
		return nil, err
	}
	if lasts := time.Duration(len(pcm)) * time.Second / time.Duration(rate); lasts > limit {
		return nil, fmt.Errorf("%w: %v long; at most %v", ErrAnnouncement, lasts, limit)
	}
	a := &Announcement{}
	for i, to := range []int{g711Clock, g722Rate, opusRate} {
		a.rates[i] = rated{to, resample(pcm, rate, to)}
	}
	return a, nil
}

// wavSamples finds the samples of a WAV file.
func wavSamples(file []byte) (rate int, pcm []int16, err error) {
	if len(file) < 12 || string(file[:4]) != "RIFF" || string(file[8:12]) != "WAVE" {
		return 0, nil, fmt.Errorf("%w: no WAV file", ErrAnnouncement)
	}
	for at := 12; at+8 <= len(file); {
		size := int64(binary.LittleEndian.Uint32(file[at+4:]))
		body := file[at+8:]
		id := string(file[at : at+4])
		body = body[:min(size, int64(len(body)))] // writers that were cut off leave a size of anything
		switch {
		case id == "fmt ":
			if rate, err = wavRate(body); err != nil {
				return 0, nil, err
			}
		case id == "data" && rate == 0:
			return 0, nil, fmt.Errorf("%w: the data come before the format", ErrAnnouncement)
		case id == "data" && len(body) < 2:
			return 0, nil, fmt.Errorf("%w: no samples", ErrAnnouncement)
		case id == "data":
			pcm = make([]int16, len(body)/2)
			for i := range pcm {
				pcm[i] = int16(binary.LittleEndian.Uint16(body[2*i:]))
			}
			return rate, pcm, nil
		}
		at += 8 + len(body) + len(body)&1
	}
	return 0, nil, fmt.Errorf("%w: no samples", ErrAnnouncement)
}

// wavRate checks the format chunk and returns the rate.
func wavRate(body []byte) (int, error) {
	const pcm, extensible = 1, 0xfffe
	if len(body) < 16 {
		return 0, fmt.Errorf("%w: format chunk of %d bytes", ErrAnnouncement, len(body))
	}
	tag := binary.LittleEndian.Uint16(body)
	if tag == extensible && len(body) >= 26 {
		tag = binary.LittleEndian.Uint16(body[24:]) // the subformat begins with it
	}
	channels, bits := binary.LittleEndian.Uint16(body[2:]), binary.LittleEndian.Uint16(body[14:])
	rate := binary.LittleEndian.Uint32(body[4:])
	if tag != pcm || channels != 1 || bits != 16 || rate != g711Clock && rate != g722Rate && rate != opusRate {
		return 0, fmt.Errorf("%w: format %d, %d channels, %d bit, %d Hz; convert it: sox in.wav -b 16 -c 1 -r 16000 out.wav",
			ErrAnnouncement, tag, channels, bits, rate)
	}
	return int(rate), nil
}

// resample is a windowed sinc filter: slow, and made for whole ratios.
func resample(pcm []int16, from, to int) []int16 {
	if from == to {
		return pcm
	}
	cut := min(1, float64(to)/float64(from)) // of the lower Nyquist frequency
	half := int(resampleHalf / cut)
	phases := max(1, to/from)
	taps := make([][]float64, phases)
	for p := range taps {
		taps[p] = make([]float64, 2*half)
		sum := 0.0
		for i := range taps[p] {
			x := float64(i-half+1) - float64(p)/float64(phases)
			w := 0.5 + 0.5*math.Cos(math.Pi*x/float64(half))
			taps[p][i] = w * sinc(0.95*cut*x)
			sum += taps[p][i]
		}
		for i := range taps[p] {
			taps[p][i] /= sum
		}
	}
	out := make([]int16, len(pcm)*to/from)
	for n := range out {
		at := n * from / to
		v := 0.0
		for i, tap := range taps[n%phases] {
			if k := at + i - half + 1; k >= 0 && k < len(pcm) {
				v += tap * float64(pcm[k])
			}
		}
		out[n] = saturated(int(math.Round(v)))
	}
	return out
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	return math.Sin(math.Pi*x) / (math.Pi * x)
}

// Duration returns how long it lasts.
func (a *Announcement) Duration() time.Duration {
	r := &a.rates[0]
	return time.Duration(len(r.pcm)) * time.Second / time.Duration(r.rate)
}

// add mixes what begins at sample from, which may be negative.
func (a *Announcement) add(pcm []int16, channels, rate, from int) {
	for i := range a.rates {
		r := &a.rates[i]
		if r.rate != rate {
			continue
		}
		for i := max(0, -from); i < min(len(pcm)/channels, len(r.pcm)-from); i++ {
			for c := range channels {
				s := &pcm[i*channels+c]
				*s = saturated(int(*s) + int(r.pcm[from+i]))
			}
		}
	}
}
