// Package level sets the loudness of streams of 16-bit samples: a slow gain
// control for speech, and a mix of two channels to one.
//
// Everything is counted in whole numbers, so the samples are the same on every
// machine and for every division into chunks. No delay is added.
package level

import (
	"fmt"
	"math"
)

// What a Control aims at.
const (
	TargetDB   = -20.0 // RMS of speech against full scale
	GainMaxDB  = 18.0  // the most that quiet speech is raised
	GainMinDB  = -18.0 // the most that loud speech is lowered
	GateDB     = -50.0 // below this nothing is speech: the gain stays as it is
	AttackMS   = 50    // time constant of lowering
	ReleaseMS  = 2000  // time constant of raising
	CeilingDB  = -1.0  // peaks stay below this
	LimiterMS  = 100   // time constant of a peak's being let go
	stepMS     = 5     // gain and level are looked at in steps
	riseMS     = 200   // time constant of the level, upwards
	fallMS     = 400   // and downwards
	unity      = 1 << 16
	halfWindow = 1 << 15
)

// Control raises quiet speech and lowers loud speech, slowly, towards TargetDB.
// In silence and noise below GateDB the gain stays, so pauses do not pump. A
// limiter without lookahead keeps peaks below CeilingDB. Not safe for
// concurrent use.
type Control struct {
	step             int   // samples
	attack, release  int64 // 1/65536 of the way, per step
	rise, fall       int64 // of the level, per step
	limit            int64 // 1/65536 of the way back, per sample
	target, gate     int64 // mean squares
	gainMax, gainMin int64 // 1/65536
	ceiling          int64 // of magnitude

	n       int   // samples into the step
	sum     int64 // of squares in the step
	power   int64 // mean square of speech, 0: none yet
	gain    int64 // 1/65536, at the step's end
	from    int64 // at its beginning
	limiter int64 // 1/65536, at most unity
}

// NewControl returns a control for a rate in Hz from 8000 to 192000.
func NewControl(rate int) (*Control, error) {
	if rate < 8000 || rate > 192000 {
		return nil, fmt.Errorf("level control at %d Hz: want 8000 to 192000", rate)
	}
	c := &Control{
		step:   rate * stepMS / 1000,
		attack: share(stepMS, AttackMS), release: share(stepMS, ReleaseMS),
		rise: share(stepMS, riseMS), fall: share(stepMS, fallMS),
		limit:  share(1000/float64(rate), LimiterMS),
		target: square(TargetDB), gate: square(GateDB),
		gainMax: int64(unity * ratio(GainMaxDB)), gainMin: int64(unity * ratio(GainMinDB)),
		ceiling: int64(math.MaxInt16 * ratio(CeilingDB)),
	}
	c.Reset()
	return c, nil
}

// share is how much of the way is gone after ms at a time constant, in 1/65536.
func share(ms, constant float64) int64 {
	return max(int64(math.Round(unity*(1-math.Exp(-ms/constant)))), 1)
}

func ratio(dB float64) float64 { return math.Pow(10, dB/20) }

func square(dB float64) int64 { return int64(math.MaxInt16 * math.MaxInt16 * ratio(dB) * ratio(dB)) }

// Reset begins a new stream at a gain of one.
func (c *Control) Reset() {
	c.n, c.sum, c.power = 0, 0, 0
	c.gain, c.from, c.limiter = unity, unity, unity
}

// GainDB is the gain that the control has come to, the limiter left out.
func (c *Control) GainDB() float64 { return 20 * math.Log10(float64(c.gain)/unity) }

// Process changes samples in place. It does not allocate.
func (c *Control) Process(pcm []int16) {
	for i, v := range pcm {
		x := int64(v)
		c.sum += x * x
		gain := c.from + (c.gain-c.from)*int64(c.n)/int64(c.step)
		y := x * gain >> 16
		if c.limiter < unity {
			c.limiter += (unity-c.limiter)*c.limit>>16 + 1
		}
		if peak := max(y, -y); peak*c.limiter > c.ceiling<<16 {
			c.limiter = c.ceiling << 16 / peak
		}
		pcm[i] = int16((y*c.limiter + halfWindow) >> 16)
		if c.n++; c.n == c.step {
			c.look()
		}
	}
}

// look moves level and gain by one step.
func (c *Control) look() {
	power := c.sum / int64(c.step)
	c.n, c.sum, c.from = 0, 0, c.gain
	if power < c.gate {
		return
	}
	switch {
	case c.power == 0:
		c.power = power
	case power > c.power:
		c.power += (power - c.power) * c.rise >> 16
	default:
		c.power += (power - c.power) * c.fall >> 16
	}
	want := root(c.target << 16 / max(c.power, 1)) // 1/256
	want = max(min(want<<8, c.gainMax), c.gainMin)
	if want < c.gain {
		c.gain += (want - c.gain) * c.attack >> 16
	} else {
		c.gain += (want - c.gain) * c.release >> 16
	}
}

// root is the whole square root.
func root(v int64) int64 {
	r := int64(math.Sqrt(float64(v)))
	for r*r > v {
		r--
	}
	for (r+1)*(r+1) <= v {
		r++
	}
	return r
}
