package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/go-audio/audio"
	"github.com/go-audio/wav"

	"github.com/trunktap/trunktap/media/resample"
)

const speechSeconds = 15

// writeSpeech writes a WAV file with a voice and hisses in between, no stretch of which
// is like another; each channel has its own.
func writeSpeech(name string, seed uint64, rate, channels int) error {
	buf := &audio.IntBuffer{Format: &audio.Format{NumChannels: channels, SampleRate: rate}, SourceBitDepth: 16, Data: make([]int, speechSeconds*rate*channels)}
	for ch := range channels {
		rnd := rand.New(rand.NewPCG(seed, uint64(ch)))
		v, low := voice(seed*1009+uint64(ch)*31+5), 0.0
		pass := 1 - math.Exp(-2*math.Pi*min(5000, 0.3*float64(rate))/float64(rate))
		for i := range speechSeconds * rate {
			at := float64(i) / float64(rate)
			low += pass * (rnd.NormFloat64() - low)
			hiss := max(0, math.Sin(2*math.Pi*(1.9*at+float64(seed%17)/17)))
			buf.Data[i*channels+ch] = int(math.Round(0.7*v.at(at) + 900*hiss*low))
		}
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	e := wav.NewEncoder(f, rate, 16, channels, 1)
	return errors.Join(e.Write(buf), e.Close(), f.Close())
}

// atRate reads what baresip has written of one stream, its channels averaged, and
// brings it to a rate.
func atRate(t *testing.T, names []string, rate int) []int16 {
	t.Helper()
	if len(names) != 1 {
		t.Fatalf("%d files of one stream", len(names))
	}
	f := must(os.Open(names[0]))(t)
	buf, err := wav.NewDecoder(f).FullPCMBuffer()
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	n := buf.Format.NumChannels
	pcm := make([]int16, len(buf.Data)/n)
	for i := range pcm {
		sum := 0
		for ch := range n {
			sum += buf.Data[i*n+ch]
		}
		pcm[i] = int16(sum / n)
	}
	r := must(resample.New(buf.Format.SampleRate, rate))(t)
	return r.Flush(r.Process(nil, pcm))
}

// resemblance tells how a party's own record of a voice lies in the recording.
type resemblance struct {
	correlation float64 // of all pieces but the torn ones
	seconds     float64 // of these
	torn        float64 // seconds of pieces that lie nowhere as a whole: where a party has lost a packet, which it may when its machine stands still
	lag         int     // of the first piece: samples that it lies later in the recording
	moves       int     // pieces that lie otherwise than the one before them
}

func (l resemblance) String() string {
	return fmt.Sprintf("%.5f over %.1f s, torn %.1f s, %d moves, at %+d", l.correlation, l.seconds, l.torn, l.moves, l.lag)
}

const (
	pieceSame = 0.97 // correlation of a piece that lies where the one before it does
	pieceMove = 0.1  // more of it that another place must have
	pieceTorn = 0.3  // of a piece that is torn
)

// alike looks for the place of each piece of a party's record in the recording. The
// first 400 ms are left out: who missed the first packet has a decoder with another past.
// The last piece may be cut.
func alike(pcm, record []int16, rate int) (l resemblance) {
	piece := rate / 5
	var sum sums
	found := false
	place := 0
	for at := 2 * piece; at+2*piece <= len(record) && at+place+piece <= len(pcm); at += piece {
		x := record[at : at+piece]
		here := sumsOf(x, pcm, at+place, 1)
		if !found || here.correlation() < pieceSame {
			other := seek(x, pcm, at, rate)
			if there := sumsOf(x, pcm, at+other, 1); !found || there.correlation() > here.correlation()+pieceMove {
				if found {
					l.moves++
				} else {
					l.lag = other
				}
				found, place, here = true, other, there
			}
		}
		if here.correlation() < pieceTorn {
			l.torn += 0.2
			continue
		}
		sum.add(here)
		l.seconds += 0.2
	}
	l.correlation = sum.correlation()
	return l
}

// seek is where a piece of a record lies: how many samples later than in the record.
func seek(x, pcm []int16, at, rate int) (lag int) {
	step, most := max(1, rate/8000), -2.0
	for k := max(0, at-rate); k+len(x) <= min(len(pcm), at+2*rate); k += step {
		if c := sumsOf(x, pcm, k, step).correlation(); c > most {
			most, lag = c, k-at
		}
	}
	coarse := lag
	most = -2
	for k := coarse - step; k <= coarse+step; k++ {
		if c := sumsOf(x, pcm, at+k, 1).correlation(); c > most {
			most, lag = c, k
		}
	}
	return lag
}

// sums are energies of two signals and of their product.
type sums struct{ xx, yy, xy float64 }

func (s *sums) add(o sums) { s.xx, s.yy, s.xy = s.xx+o.xx, s.yy+o.yy, s.xy+o.xy }

func (s sums) correlation() float64 { return s.xy / math.Sqrt(s.xx*s.yy+1) }

// sumsOf compares each step-th sample of x with what is at a place of y; what is
// outside is silence.
func sumsOf(x, y []int16, at, step int) (s sums) {
	for i := 0; i < len(x); i += step {
		a, b := float64(x[i]), 0.0
		if k := at + i; k >= 0 && k < len(y) {
			b = float64(y[k])
		}
		s.xx, s.yy, s.xy = s.xx+a*a, s.yy+b*b, s.xy+a*b
	}
	return s
}

// crossTalk is the most that a channel is like what was said at the same time on the
// other, up to 50 ms to both sides of it.
func crossTalk(pcm, other []int16, lag, rate int) (most float64) {
	step := max(1, rate/8000)
	for k := lag - rate/20; k <= lag+rate/20; k += step {
		most = max(most, math.Abs(sumsOf(other, pcm, k, step).correlation()))
	}
	return most
}
