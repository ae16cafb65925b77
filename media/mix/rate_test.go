package mix_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/trunktap/trunktap/media/mix"
)

var trackRates = []int{8000, 16000, 48000}

// voice is a sine that is sent in packets by codecs of several rates.
type voice struct{ hz, amplitude float64 }

func (v voice) at(seconds float64) float64 { return v.amplitude * math.Sin(2*math.Pi*v.hz*seconds) }

func (v voice) packet(from float64, rate, n int) []int16 {
	pcm := make([]int16, n)
	for i := range pcm {
		pcm[i] = int16(math.Round(v.at(from + float64(i)/float64(rate))))
	}
	return pcm
}

// off returns by how much x, which begins at a time, is not the voice: the
// worst sample by its amplitude, in dB, and the worst phase in ms over pieces
// of 5 ms.
func (v voice) off(x []int16, from float64, rate int) (worstDB, worstMS float64) {
	worst := 0.0
	for i, s := range x {
		worst = math.Max(worst, math.Abs(float64(s)-v.at(from+float64(i)/float64(rate))))
	}
	n := rate / 200
	for at := 0; at+n <= len(x); at += n {
		var re, im, rr, ri float64
		for i, s := range x[at : at+n] {
			w := 2 * math.Pi * v.hz * (from + float64(at+i)/float64(rate))
			re, im = re+float64(s)*math.Sin(w), im+float64(s)*math.Cos(w)
			rr, ri = rr+math.Sin(w)*math.Sin(w), ri+math.Sin(w)*math.Cos(w)
		}
		d := math.Remainder(math.Atan2(im, re)-math.Atan2(ri, rr), 2*math.Pi)
		worstMS = math.Max(worstMS, math.Abs(d)/(2*math.Pi*v.hz)*1e3)
	}
	return 20 * math.Log10(worst/v.amplitude), worstMS
}

func startedAt(rate int) *mix.Track {
	t := mix.NewTrack(mix.Config{Rate: rate})
	t.SetOrigin(0)
	t.Negotiated(0, true)
	return t
}

// TestRates: every decoder's rate on every track's, from the first sample that
// is not at the edge to the last; nothing is missing and nothing too much.
func TestRates(t *testing.T) {
	codecs := []struct {
		name        string
		rate, clock int
		samples     int // of a packet
	}{
		{"G.711", 8000, 8000, 160},
		{"G.722", 16000, 8000, 320},
		{"AMR-WB", 16000, 16000, 320},
		{"Opus", 48000, 48000, 960},
		{"Opus at 16 kHz", 16000, 48000, 320},
		{"Opus of 2.5 ms", 48000, 48000, 120},
		{"L16", 44100, 44100, 882},
		{"L16 of odd packets", 44100, 44100, 331},
		{"L16 at 32 kHz", 32000, 32000, 640},
	}
	for _, c := range codecs {
		for _, rate := range trackRates {
			t.Run(fmt.Sprintf("%s at %d", c.name, rate), func(t *testing.T) {
				track := startedAt(rate)
				v := voice{900, 20000}
				ticks := c.samples * c.clock / c.rate
				n := 0
				for ; n*c.samples < c.rate; n++ {
					at := float64(n*c.samples) / float64(c.rate)
					ts := int64(n * ticks)
					track.Arrived(key, 7+ts, c.clock, int64(at*1e9))
					track.AudioAt(key, 7+ts, c.rate, v.packet(at, c.rate, c.samples))
				}
				total := (n*c.samples*rate + c.rate - 1) / c.rate
				dst, marks := read(track, rate+rate/10)
				if want := (mix.Mark{At: int64(total), N: len(dst) - total, Cause: mix.Absent}); len(marks) != 1 || marks[0] != want {
					t.Fatalf("marks %v, want %v", marks, want)
				}
				edge := rate / 100
				dB, ms := v.off(dst[edge:total-edge], float64(edge)/float64(rate), rate)
				if dB > -72 || ms > 0.001 {
					t.Errorf("worst sample %.1f dB, phase %.4f ms off", dB, ms)
				}
				if s := track.Stats(); s.Overlapped+s.LateCut+s.Overrun != 0 || s.Captured != int64(total) {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

// TestCodecSwitch: the codec changes by payload type alone, narrow to wide and
// back, within a tone: neither pitch nor time nor level shows it.
func TestCodecSwitch(t *testing.T) {
	for _, rate := range trackRates {
		for _, rates := range [][2]int{{8000, 16000}, {8000, 48000}, {16000, 48000}, {16000, 44100}} {
			t.Run(fmt.Sprintf("%d %d at %d", rates[0], rates[1], rate), func(t *testing.T) {
				track := startedAt(rate)
				v := voice{1000, 20000}
				clock := rates[0]
				if rates[1] == 44100 {
					clock = 44100
				}
				for n := range 50 {
					r := rates[n/10%2]
					track.Arrived(key, int64(n*clock/50), clock, int64(n)*20e6)
					track.AudioAt(key, int64(n*clock/50), r, v.packet(float64(n)/50, r, r/50))
				}
				dst, marks := read(track, rate)
				if len(marks) != 0 {
					t.Fatal(marks)
				}
				edge := rate / 100
				dB, ms := v.off(dst[edge:rate-edge], float64(edge)/float64(rate), rate)
				t.Logf("worst sample %.1f dB, phase %.4f ms off", dB, ms)
				if dB > -50 || ms > 0.001 {
					t.Errorf("worst sample %.1f dB, phase %.4f ms off", dB, ms)
				}
			})
		}
	}
}

// TestReadBetweenPackets: what is read before the next packet is there is
// complete, and nothing comes twice.
func TestReadBetweenPackets(t *testing.T) {
	track := startedAt(8000)
	v := voice{1000, 20000}
	var got []int16
	for n := range 50 {
		track.Arrived(key, int64(n*160), 8000, int64(n)*20e6)
		track.AudioAt(key, int64(n*160), 16000, v.packet(float64(n)/50, 16000, 320))
		dst, marks := read(track, 160)
		if len(marks) != 0 {
			t.Fatal(n, marks)
		}
		got = append(got, dst...)
	}
	if s := track.Stats(); s.Captured != 8000 || s.LateCut+s.Overlapped != 0 {
		t.Errorf("%+v", s)
	}
	if dB, _ := v.off(got[:80], 0, 8000); dB > -6 {
		t.Errorf("%.1f dB at the edges", dB)
	}
}

// TestHolesBetweenRates: what is lost, concealed or silent between packets of
// another rate stays where it is.
func TestHolesBetweenRates(t *testing.T) {
	for _, rate := range trackRates {
		track := startedAt(rate)
		per := rate / 50
		loud := make([]int16, 320)
		for i := range loud {
			loud[i] = 10000
		}
		for n := range 20 {
			ts := int64(n * 160)
			track.Arrived(key, ts, 8000, int64(n)*20e6)
			switch n {
			case 5:
				track.Hole(key, ts, ts+160, mix.Loss)
			case 8:
				track.ConcealAt(key, ts, 16000, loud, mix.Loss)
			case 11, 12: // DTX
			case 15:
				track.Silent(key, ts, ts+160)
			case 17:
				track.AudioAt(key, ts, 12345, loud)
			default:
				track.AudioAt(key, ts, 16000, loud)
			}
		}
		dst, marks := read(track, rate*2/5)
		want := []mix.Mark{
			{At: int64(5 * per), N: per, Cause: mix.Loss}, {At: int64(8 * per), N: per, Cause: mix.Loss, Concealed: true},
		}
		if len(marks) < 2 || marks[0] != want[0] || marks[1] != want[1] || marks[2].Cause != mix.Undecodable || len(marks) != 3 {
			t.Errorf("%d: %v, want %v and an undecodable one", rate, marks, want)
		}
		for n := range 20 {
			v := dst[n*per+per/2]
			silent := n == 5 || n == 11 || n == 12 || n == 15 || n == 17
			if silent && v != 0 || !silent && n != 17 && math.Abs(float64(v)-10000) > 30 {
				t.Errorf("%d: packet %d is %d", rate, n, v)
			}
		}
	}
}

// TestWideDoesNotAllocate: a stream of another rate than the track's.
func TestWideDoesNotAllocate(t *testing.T) {
	track := startedAt(48000)
	pcm, block, marks := make([]int16, 320), make([]int16, 960), make([]mix.Mark, 0, 16)
	n := 0
	step := func() {
		track.Arrived(key, int64(n)*160, 8000, int64(n)*20e6)
		if n%10 != 3 {
			track.AudioAt(key, int64(n)*160, 16000, pcm)
		}
		if n > 25 {
			marks = track.Read(block, marks[:0])
		}
		track.Resolved()
		n++
	}
	for range 200 {
		step()
	}
	if got := testing.AllocsPerRun(500, step); got != 0 {
		t.Errorf("%v allocations a packet", got)
	}
}
