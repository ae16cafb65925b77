package dtmf_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/dtmf"
	"github.com/trunktap/trunktap/media/mediatest"
)

const alphabet = "0123456789*#ABCD"

// What Event.At and Feed promise, in milliseconds.
const (
	outsideMax = 13.0
	latencyMax = 50.0
)

// takes is a way that audio takes to the detector.
type takes struct {
	name string
	rate int
	wire func(int16) int16
}

var ways = []takes{
	{"A-law", 8000, func(s int16) int16 { return codec.ALawLinear(codec.ALaw(s)) }},
	{"mu-law", 8000, func(s int16) int16 { return codec.MuLawLinear(codec.MuLaw(s)) }},
	{"wideband", 16000, func(s int16) int16 { return s }},
	{"48 kHz", 48000, func(s int16) int16 { return s }},
}

// addNoise adds white noise of so many dBm0.
func addNoise(r *rand.Rand, pcm []int16, dBm0 float64) {
	sigma := mediatest.Amplitude(dBm0) / math.Sqrt2
	for i, s := range pcm {
		pcm[i] = clip(float64(s) + sigma*r.NormFloat64())
	}
}

func clip(v float64) int16 { return int16(max(math.MinInt16, min(math.MaxInt16, v))) }

// burst is one digit and what is around it.
type burst struct {
	low, high       float64 // dBm0
	lowOff, highOff float64
	ms              float64
	snr             float64 // below the louder tone, 0 is no noise
}

// render returns a digit in a quarter of a second, and where it is.
func (b burst) render(r *rand.Rand, w takes, digit byte) (pcm []int16, from, to int) {
	from = w.rate/10 + r.IntN(w.rate/50)
	to = from + int(b.ms*float64(w.rate)/1000)
	pcm = make([]int16, to+w.rate/8)
	mediatest.DTMF{
		Rate: w.rate, Low: b.low, High: b.high, LowOff: b.lowOff, HighOff: b.highOff, Phase: 7 * r.Float64(),
	}.Add(pcm[from:to], digit)
	if b.snr != 0 {
		addNoise(r, pcm, max(b.low, b.high)-b.snr)
	}
	for i := range pcm {
		pcm[i] = w.wire(pcm[i])
	}
	return pcm, from, to
}

// found is what a detector told of pcm, and how much it had been given when it
// told of the first digit.
func found(rate int, pcm []int16) (events []dtmf.Event, told int) {
	d := dtmf.New(rate)
	step := rate / 1000
	for i := 0; i < len(pcm); i += step {
		end := min(i+step, len(pcm))
		events = d.Feed(int64(i), pcm[i:end], events)
		if len(events) > 0 && told == 0 {
			told = end
		}
	}
	return d.Flush(events), told
}

// checkOne reports how events differ from one digit in from…to.
func checkOne(events []dtmf.Event, rate int, digit byte, from, to int) error {
	ms := func(samples int64) float64 { return float64(samples) * 1000 / float64(rate) }
	if len(events) != 2 || events[0].End || !events[1].End || events[0].Digit != digit || events[1].Digit != digit {
		return fmt.Errorf("got %v, want one %q in %d…%d", events, digit, from, to)
	}
	if early := ms(int64(from) - events[0].At); early < 0 || early > outsideMax {
		return fmt.Errorf("begins %.1f ms before the tone, want 0…%v", early, outsideMax)
	}
	if late := ms(events[1].At - int64(to)); late < 0 || late > outsideMax {
		return fmt.Errorf("ends %.1f ms behind the tone, want 0…%v", late, outsideMax)
	}
	return nil
}

// The cases of ITU-T Q.24 Annex A for AT&T, and some in between.
var accepted = map[string]burst{
	"nominal":               {low: -10, high: -10, ms: 40},
	"a second":              {low: -10, high: -10, ms: 1000},
	"loudest":               {ms: 40}, // together beyond full scale: clipped
	"softest":               {low: -25, high: -25, ms: 40},
	"high tone above":       {low: -10, high: -6, ms: 40},
	"high tone below":       {low: -10, high: -18, ms: 40},
	"softest and twisted":   {low: -25, high: -33, ms: 40},
	"frequencies above":     {low: -10, high: -10, lowOff: 0.015, highOff: 0.015, ms: 40},
	"frequencies below":     {low: -10, high: -10, lowOff: -0.015, highOff: -0.015, ms: 40},
	"frequencies apart":     {low: -10, high: -10, lowOff: -0.015, highOff: 0.015, ms: 40},
	"noise":                 {low: -10, high: -10, ms: 40, snr: 15},
	"noise, twist, above":   {low: -10, high: -18, lowOff: 0.015, highOff: 0.015, ms: 40, snr: 15},
	"noise, twist, below":   {low: -14, high: -10, lowOff: -0.015, highOff: -0.015, ms: 40, snr: 15},
	"softest in noise":      {low: -25, high: -25, ms: 40, snr: 15},
	"a second in noise":     {low: -20, high: -20, ms: 1000, snr: 15},
	"more noise than asked": {low: -10, high: -10, ms: 50, snr: 12},
}

var refused = map[string]burst{
	"too short":           {low: -10, high: -10, ms: 23},
	"too short and loud":  {ms: 23},
	"too short, in noise": {low: -10, high: -10, ms: 23, snr: 15},
	"row too high":        {low: -10, high: -10, lowOff: 0.035, ms: 200},
	"row too low":         {low: -10, high: -10, lowOff: -0.035, ms: 200},
	"column too high":     {low: -10, high: -10, highOff: 0.035, ms: 200},
	"column too low":      {low: -10, high: -10, highOff: -0.035, ms: 200},
	"both in noise":       {low: -10, high: -10, lowOff: -0.035, highOff: 0.035, ms: 200, snr: 15},
	"twisted far above":   {low: -20, high: -10, ms: 200},
	"twisted far below":   {low: -6, high: -20, ms: 200},
	"row alone":           {low: -10, high: -60, ms: 200},
	"column alone":        {low: -60, high: -10, ms: 200},
	"below all levels":    {low: -42, high: -42, ms: 200},
	"buried in noise":     {low: -20, high: -20, ms: 100, snr: -12},
}

func TestAccepted(t *testing.T) {
	for name, b := range accepted {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(1, 2))
			for _, w := range ways {
				for i := range 2 * len(alphabet) {
					digit := alphabet[i%len(alphabet)]
					pcm, from, to := b.render(r, w, digit)
					events, told := found(w.rate, pcm)
					if err := checkOne(events, w.rate, digit, from, to); err != nil {
						t.Errorf("%s, %q: %v", w.name, digit, err)
					}
					if after := float64(told-from) * 1000 / float64(w.rate); after > latencyMax {
						t.Errorf("%s, %q: told %.1f ms behind the beginning, want at most %v", w.name, digit, after, latencyMax)
					}
				}
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for name, b := range refused {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(3, 4))
			for _, w := range ways {
				for i := range 2 * len(alphabet) {
					pcm, _, _ := b.render(r, w, alphabet[i%len(alphabet)])
					if events, _ := found(w.rate, pcm); len(events) > 0 {
						t.Fatalf("%s, %q: got %v, want nothing", w.name, alphabet[i%len(alphabet)], events)
					}
				}
			}
		})
	}
}

// TestEdges: wherever a digit is and however it sounds, what is told of it
// covers all of it and little else.
func TestEdges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.SampledFrom(ways).Draw(t, "way")
		level := rapid.Float64Range(-25, 0).Draw(t, "level")
		twist := rapid.Float64Range(-8, 4).Draw(t, "twist")
		b := burst{
			low: level - max(0, twist), high: level + min(0, twist),
			lowOff:  rapid.Float64Range(-0.015, 0.015).Draw(t, "lowOff"),
			highOff: rapid.Float64Range(-0.015, 0.015).Draw(t, "highOff"),
			ms:      rapid.Float64Range(40, 400).Draw(t, "ms"),
			snr:     rapid.Float64Range(15, 60).Draw(t, "snr"),
		}
		digit := alphabet[rapid.IntRange(0, len(alphabet)-1).Draw(t, "digit")]
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		pcm, from, to := b.render(r, w, digit)
		events, _ := found(w.rate, pcm)
		if err := checkOne(events, w.rate, digit, from, to); err != nil {
			t.Fatalf("%v", err)
		}
	})
}

// TestPauses: the shortest digits and pauses of Q.24 are told apart, and an
// interruption of 10 ms makes no second digit.
func TestPauses(t *testing.T) {
	for _, c := range []struct {
		name        string
		digits      string
		onMS, offMS int
		want        string
	}{
		{"shortest", "*#01123344D", 40, 40, "*#01123344D"},
		{"dialler", "5551234", 100, 100, "5551234"},
		{"interrupted", "7777", 40, 10, "7"},
		{"a packet of silence", "7777", 60, 20, "7"},
		{"no pause at all", "*#0", 60, 0, "*#0"},
	} {
		for _, w := range ways {
			t.Run(c.name+" "+w.name, func(t *testing.T) {
				ms := w.rate / 1000
				pcm := make([]int16, 100*ms)
				for i := range len(c.digits) {
					tone := make([]int16, (c.onMS+c.offMS)*ms)
					mediatest.DTMF{Rate: w.rate, Low: -12, High: -10}.Add(tone[:c.onMS*ms], c.digits[i])
					pcm = append(pcm, tone...)
				}
				pcm = append(pcm, make([]int16, 100*ms)...)
				for i := range pcm {
					pcm[i] = w.wire(pcm[i])
				}
				events, _ := found(w.rate, pcm)
				if got := text(events); got != c.want {
					t.Fatalf("got %q, want %q: %v", got, c.want, events)
				}
				for i := range c.want {
					from := int64(100+i*(c.onMS+c.offMS)) * int64(ms)
					to := from + int64(c.onMS*ms)
					if len(c.want) == 1 {
						to += 3 * int64((c.onMS+c.offMS)*ms)
					}
					if b, e := events[2*i], events[2*i+1]; b.At > from || e.At < to || b.At < from-int64(13*ms) || e.At > to+int64(13*ms) {
						t.Errorf("digit %d: %d…%d, want around %d…%d", i, b.At, e.At, from, to)
					}
				}
			})
		}
	}
}

// text is the digits that began, in order.
func text(events []dtmf.Event) string {
	var b []byte
	for _, e := range events {
		if !e.End {
			b = append(b, e.Digit)
		}
	}
	return string(b)
}
