// Package dtmf finds the digits that are dialled in band in decoded audio.
//
// It asks of a digit what ITU-T Q.24 (11/88) Annex A lists for AT&T:
// frequencies off by up to 1.5 % are taken and by 3.5 % not, 40 ms are a digit
// and 23 ms are none, interruptions of 10 ms are bridged and pauses of 40 ms are
// not, the high tone may be 4 dB above to 8 dB below the low one, from 0 to
// -25 dBm.
//
// Every 5 ms the newest 20 ms are looked at through a Hann window with one
// Goertzel filter for each of the eight frequencies of ITU-T Q.23. Such windows
// tell a tone's frequency by the advance of its phase from one to the next, and
// its edges by where its amplitude passes the half.
package dtmf

import "math"

// digits in the order of row and column (ITU-T Q.23, figure 1).
const digits = "123A456B789C*0#D"

// frequencies in Hz: four rows, four columns.
var frequencies = [tones]float64{697, 770, 852, 941, 1209, 1336, 1477, 1633}

const (
	tones = 8
	rows  = 4

	hopsPerSecond = 200 // one look every 5 ms
	windowHops    = 4   // at the newest 20 ms
	marginHops    = 1   // by which an edge is moved to the outside: 5 ms
	historyHops   = 16  // a power of two

	baseRateHz = 8000 // higher rates are divided down to about this
	minRateHz  = 4000 // below, the columns are not in the band

	sineAmplitude = 22749  // of 0 dBm0: a sine that fills G.711 μ-law is +3.17 dBm0
	gatePower     = 1e-5   // -50 dBm0: nothing is looked for in less
	tonePower     = 2.5e-4 // -36 dBm0: the least of one tone

	highAboveMax = 4.0   // twist: +6 dB as a ratio of powers
	lowAboveMax  = 10.0  // twist: -10 dB
	deviationMax = 0.025 // in one look
	meanMax      = 0.020 // in the mean
	wanderMax    = 0.014 // between the looks
	swellMax     = 2.0   // 3 dB, between the looks
	pureStrict   = 0.90  // the share of the two tones in all power, to begin a digit
	pureLoose    = 0.35  // and to go on with it; a window half full of tone shows 0.5

	certainHops = 6.0 // 30 ms of tone are a digit
	sureLooks   = 4   // of which so many looks must show it beyond doubt
	sureOf      = 8
	pauseHops   = 5 // 25 ms without it are its end
)

// Event is the beginning or the end of a digit.
type Event struct {
	Digit byte // one of 0123456789*#ABCD
	// At is the first sample of the tone or, for its end, the first one behind
	// it, within about 13 ms and never inside the tone: what lies between can be
	// cut out. The end of a digit that is followed by another one without a
	// pause may therefore lie behind that one's beginning, and talk that falls
	// in with the end of a tone and is as loud may be taken for more of it.
	At  int64
	End bool
}

// look is what one window showed.
type look struct {
	power [tones]float64 // in units of the power of 0 dBm0
	re    [tones]float64
	im    [tones]float64
	loose byte    // the digit whose tones prevail
	sure  bool    // everything else agrees too
	low   float64 // when sure, the deviations of the two frequencies, 0.01 is 1 % too high
	high  float64
}

// Detector finds DTMF digits in the audio of one source. It is not safe for
// concurrent use.
type Detector struct {
	// Set by New.
	step   int // samples of the input in one of the window
	hop    int // samples of the window from one look to the next
	hann   []float64
	coef   [tones]float64 // 2 cos ω
	cos    [tones]float64
	sin    [tones]float64
	turn   [tones]float64 // the phase that a tone of the nominal frequency gains in a hop
	gain   [tones]float64 // from |X|² to units of the power of 0 dBm0
	energy float64        // from Σ(wx)² to the same

	// The source.
	began    bool
	origin   int64 // position of the first sample since the last jump
	next     int64 // position of the sample that is expected
	window   []float64
	windowed []float64
	sum      float64 // of the step that is not complete
	summed   int
	filled   int // samples in the newest hop
	hops     int // looks so far, since origin
	history  [historyHops]look

	// Digits.
	candidate byte // of an unbroken run of looks that it prevails in
	since     int  // the first of that run
	current   byte // the digit that has begun and has not ended
	lastOn    int  // the last look that showed it
}

// New returns a detector of audio with rate samples per second; every rate from
// 8000 on is of use. In audio of less than 4000 it finds nothing.
func New(rate int) *Detector {
	d := &Detector{step: max(1, rate/baseRateHz)}
	inner := float64(rate) / float64(d.step)
	d.hop = max(1, int(inner)/hopsPerSecond)
	n := windowHops * d.hop
	d.window, d.windowed, d.hann = make([]float64, n), make([]float64, n), make([]float64, n)
	var sum, squares float64
	for i := range d.hann {
		d.hann[i] = 0.5 - 0.5*math.Cos(2*math.Pi*(float64(i)+0.5)/float64(n))
		sum += d.hann[i]
		squares += d.hann[i] * d.hann[i]
	}
	for k, hz := range frequencies {
		w := 2 * math.Pi * hz / inner
		d.coef[k], d.cos[k], d.sin[k] = 2*math.Cos(w), math.Cos(w), math.Sin(w)
		d.turn[k] = w * float64(d.hop)
		droop := meanOf(d.step, w/float64(d.step))
		d.gain[k] = 4 / (sum * sum * sineAmplitude * sineAmplitude * droop * droop)
	}
	d.energy = 2 / (squares * sineAmplitude * sineAmplitude)
	if rate < minRateHz {
		d.energy = 0
	}
	return d
}

// meanOf is what the mean of n samples leaves of a tone that turns by w radians
// from one to the next.
func meanOf(n int, w float64) float64 {
	return math.Sin(float64(n)*w/2) / (float64(n) * math.Sin(w/2))
}

// Feed takes the next samples of the source, appends to dst what became certain
// by them, in order, and returns it. at is the position of the first sample on
// any clock that counts samples; where it does not follow the samples before, a
// digit that is going on ends and the search begins anew. A digit's beginning is
// told at most 50 ms after it, its end about 40 ms after it. What is told does
// not depend on how the samples are cut into calls.
func (d *Detector) Feed(at int64, pcm []int16, dst []Event) []Event {
	if len(pcm) == 0 {
		return dst
	}
	if !d.began || at != d.next {
		dst = d.Flush(dst)
		d.began, d.origin = true, at
	}
	d.next = at
	for _, s := range pcm {
		d.next++
		d.sum += float64(s)
		if d.summed++; d.summed < d.step {
			continue
		}
		d.window[(windowHops-1)*d.hop+d.filled] = d.sum / float64(d.step)
		d.sum, d.summed = 0, 0
		if d.filled++; d.filled < d.hop {
			continue
		}
		dst = d.judge(dst)
		copy(d.window, d.window[d.hop:])
		d.filled = 0
	}
	return dst
}

// Flush ends a digit that is going on, where the samples end, and forgets them.
func (d *Detector) Flush(dst []Event) []Event {
	if d.current != 0 {
		end := d.next
		if d.lastOn < d.hops-1 {
			end = min(end, d.end())
		}
		dst = append(dst, Event{Digit: d.current, At: end, End: true})
	}
	clear(d.window)
	clear(d.history[:])
	d.began, d.sum, d.summed, d.filled, d.hops = false, 0, 0, 0, 0
	d.candidate, d.since, d.current, d.lastOn = 0, 0, 0, 0
	return dst
}

// judge looks at the window and tells what follows from it.
func (d *Detector) judge(dst []Event) []Event {
	now := d.seen(d.hops)
	d.look(now, d.seen(d.hops-1))
	if now.loose != d.candidate {
		d.candidate, d.since = now.loose, d.hops
	}
	switch {
	case d.current == 0:
	case d.on():
		d.lastOn = d.hops
	case d.hops-d.lastOn >= pauseHops:
		dst = append(dst, Event{Digit: d.current, At: d.end(), End: true})
		d.current = 0
	}
	if d.current == 0 && d.candidate != 0 {
		dst = d.begin(dst)
	}
	d.hops++
	return dst
}

// begin makes the candidate the current digit when it is certain.
func (d *Detector) begin(dst []Event) []Event {
	first, ok := d.sure()
	if !ok {
		return dst
	}
	began, lasted := d.onset(first)
	if lasted < certainHops {
		return dst
	}
	d.current, d.lastOn = d.candidate, d.hops
	at := d.position(math.Floor((began - marginHops) * float64(d.hop)))
	return append(dst, Event{Digit: d.current, At: max(at, d.origin)})
}

func (d *Detector) seen(hop int) *look { return &d.history[hop&(historyHops-1)] }

// position turns samples of the window since origin into the source's clock.
func (d *Detector) position(samples float64) int64 {
	return d.origin + int64(samples)*int64(d.step)
}

// centre is the middle of the window of a look, in hops since origin. The first
// look is at one hop of samples with silence before it.
func centre(hop int) float64 { return float64(hop + 1 - windowHops/2) }

// amplitude of a digit in a look.
func (d *Detector) amplitude(hop int, digit byte) float64 {
	row, column := tonesOf(digit)
	l := d.seen(hop)
	return math.Sqrt(l.power[row] + l.power[column])
}

// on tells whether the newest look shows the current digit: its tones prevail
// and are not about to vanish.
func (d *Detector) on() bool {
	now := d.seen(d.hops)
	if now.loose != d.current {
		return false
	}
	return now.sure || d.amplitude(d.hops, d.current) >= d.peak(d.lastOn-windowHops+1, d.hops, d.current)/2
}

// sure tells whether enough of the candidate's newest looks show it beyond
// doubt and as steady as a machine's tones are and a voice's are not, and
// returns the first of them.
func (d *Detector) sure() (first int, ok bool) {
	var low, high steadiness
	row, column := tonesOf(d.candidate)
	for h := d.hops; h >= max(d.since, d.hops-sureOf+1); h-- {
		if l := d.seen(h); l.sure {
			first = h
			low.add(l.low, l.power[row])
			high.add(l.high, l.power[column])
		}
	}
	return first, low.n >= sureLooks && low.good() && high.good()
}

// peak is the largest amplitude of a digit in the looks first to last.
func (d *Detector) peak(first, last int, digit byte) float64 {
	var most float64
	for h := max(first, last-historyHops+1, 0); h <= last; h++ {
		most = max(most, d.amplitude(h, digit))
	}
	return most
}

// onset returns where the candidate began, without margin, and how long it has
// lasted for sure, both in hops; first is the first look that was sure. A window
// whose middle lies on the edge of a tone shows half of its amplitude. When what
// came before the tone is as loud at its frequencies, the edge is near the
// beginning of the first window that was nothing but tone.
func (d *Detector) onset(first int) (began, lasted float64) {
	peak := d.peak(first, d.hops, d.candidate)
	newest := d.amplitude(d.hops, d.candidate) / peak
	until := centre(d.hops) + min(1, (newest-0.5)*2.5)

	began = float64(first - windowHops)
	after := peak
	for h := d.hops; h >= max(0, first-windowHops+1); h-- {
		a := d.amplitude(h, d.candidate)
		if a < peak/2 && after >= peak/2 {
			began = centre(h) + (peak/2-a)/(after-a)
			break
		}
		after = a
	}
	return began, until - began
}

// end returns where the current digit ended, with the margin.
func (d *Detector) end() int64 {
	half := d.peak(d.lastOn-windowHops+1, d.lastOn, d.current) / 2
	on, off := d.amplitude(d.lastOn, d.current), d.amplitude(d.lastOn+1, d.current)
	ended := float64(d.lastOn + 1) // the end of the last window that showed it
	if off < half && on >= half {
		ended = centre(d.lastOn) + (on-half)/(on-off)
	}
	return d.position(math.Ceil((ended + marginHops) * float64(d.hop)))
}

// tonesOf returns the indices of a digit's frequencies.
func tonesOf(digit byte) (row, column int) {
	for i := range len(digits) {
		if digits[i] == digit {
			return i / rows, rows + i%rows
		}
	}
	return 0, rows
}
