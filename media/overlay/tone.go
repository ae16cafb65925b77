package overlay

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Bounds of a Beep. No telephone carries other frequencies; shorter or fainter
// beeps nobody notices.
const (
	frequencyMin, frequencyMax = 100.0, 3400.0 // Hz
	durationMin, durationMax   = 20 * time.Millisecond, 5 * time.Second
	intervalMin, intervalMax   = time.Second, time.Hour
	levelMin                   = -60.0 // dB of full scale

	fade = 4 * time.Millisecond // at both ends, against clicks
)

// Beep is a tone that comes again and again.
type Beep struct {
	Frequency float64       // Hz
	Second    float64       // Hz, sounding at the same time; 0: none
	Duration  time.Duration // of one beep
	Interval  time.Duration // from the beginning of one to that of the next
	LevelDB   float64       // power relative to that of a sine of full scale; two tones share it
}

// Validate returns all faults.
func (b Beep) Validate() error {
	var errs []error
	between := func(what string, v, low, high float64, unit string) {
		if !(v >= low && v <= high) { // a NaN is not
			errs = append(errs, fmt.Errorf("beep: %s %v%s: %v to %v", what, v, unit, low, high))
		}
	}
	between("frequency", b.Frequency, frequencyMin, frequencyMax, " Hz")
	if b.Second != 0 {
		between("second frequency", b.Second, frequencyMin, frequencyMax, " Hz")
	}
	between("level", b.LevelDB, levelMin, 0, " dB")
	if b.Duration < durationMin || b.Duration > durationMax {
		errs = append(errs, fmt.Errorf("beep: duration %v: %v to %v", b.Duration, durationMin, durationMax))
	}
	if b.Interval < intervalMin || b.Interval > intervalMax || b.Interval < 2*b.Duration {
		errs = append(errs, fmt.Errorf("beep: interval %v: %v to %v, and at least twice the duration of %v",
			b.Interval, intervalMin, intervalMax, b.Duration))
	}
	return errors.Join(errs...)
}

// add mixes the part of a beep that begins at sample from, which may be negative;
// the beep lasts length samples.
func (b *Beep) add(pcm []int16, channels, rate, from, length int) {
	first, end := max(0, -from), min(len(pcm)/channels, length-from)
	if first >= end {
		return
	}
	amplitude := 32767 * math.Pow(10, b.LevelDB/20)
	one, two := newSine(b.Frequency, rate, from+first), sine{}
	if b.Second != 0 {
		amplitude /= math.Sqrt2
		two = newSine(b.Second, rate, from+first)
	}
	ramp := min(float64(rate)*fade.Seconds(), float64(length)/2)
	for i := first; i < end; i++ {
		at := float64(from+i) + 0.5
		gain := amplitude * min(1, at/ramp, (float64(length)-at)/ramp)
		v := int(math.Round(gain * (one.next() + two.next())))
		for c := range channels {
			s := &pcm[i*channels+c]
			*s = saturated(int(*s) + v)
		}
	}
}

// sine is an oscillator: each value follows from the two before it. The zero
// value is silence.
type sine struct{ k, y1, y2 float64 }

func newSine(frequency float64, rate, at int) sine {
	w := 2 * math.Pi * frequency / float64(rate)
	return sine{k: 2 * math.Cos(w), y1: math.Sin(w * float64(at-1)), y2: math.Sin(w * float64(at-2))}
}

func (s *sine) next() float64 {
	y := s.k*s.y1 - s.y2
	s.y1, s.y2 = y, s.y1
	return y
}

func saturated(v int) int16 { return int16(max(math.MinInt16, min(v, math.MaxInt16))) }
