package recorder

import (
	"time"

	"github.com/trunktap/trunktap/media/level"
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/source"
	"github.com/trunktap/trunktap/suppress"
)

// settle fixes the rate of the call's timelines and recordings, once: at the
// beginning where the plan names it, else with the first packet or the answer.
// Until then no recording has begun and nothing has samples.
func (c *core) settle() {
	if c.perMS != 0 {
		return
	}
	if c.plan.SampleRate == RateAuto {
		c.plan.SampleRate = rateFor(c.agreedRate())
	}
	c.perMS = int64(c.plan.SampleRate / 1000)
	for i, s := range c.sides {
		s.track = mix.NewTrack(mix.Config{Rate: c.plan.SampleRate, HorizonMaxNS: c.horizon()})
		c.chunk.pcm[i] = make([]int16, chunkMS*c.perMS)
	}
	for _, s := range c.streams {
		c.negotiated(s.lane.side)
	}
	for _, r := range c.recs {
		r.settle(c.plan.SampleRate)
	}
}

// settleBy settles with the first packet. What its payload type always means
// counts as agreed where nothing was described.
func (c *core) settleBy(l *lane, wire []byte) {
	if len(wire) > 1 && !source.IsRTCP(wire) && c.agreedRate() == 0 {
		l.format(wire[1])
	}
	c.takeAnswer()
	c.settle()
}

// answerWait is how long the answer may wait for the streams that its description
// agrees: signalling tells of them right after it, and of a description in the
// ACK some time later. Nothing is sealed before it is over.
func (c *core) answerWait() int64 {
	if c.agreedRate() > 0 {
		return 1 // all that is told at the answer's own instant
	}
	return chunkMS*int64(time.Millisecond) + c.hold
}

// takeAnswer does, at the answer's time, what it has waited with until the rate
// could be told. Only descriptions of streams, and signals of the same instant,
// come in between.
func (c *core) takeAnswer() {
	if !c.waiting {
		return
	}
	c.waiting = false
	now := c.now
	c.now = c.waitingNS
	c.settle()
	c.start(c.now)
	for _, r := range c.recs {
		r.answered, r.account.dirty = c.answered, true // those of early media began without
	}
	c.openStations()
	c.now = now
}

// agreedRate is what the best of the agreed codecs gives, in Hz; 0: none is known
// that is understood.
func (c *core) agreedRate() (best int) {
	for _, s := range c.streams {
		for i := range s.lane.formats {
			if f := s.lane.formats[i]; f != nil {
				best = max(best, f.rate)
			}
		}
	}
	return best
}

// rateFor is the least rate of recordings that takes nothing from a codec's.
func rateFor(rate int) int {
	switch {
	case rate <= rateNarrow:
		return rateNarrow
	case rate <= 16000:
		return 16000
	}
	return 48000
}

// settle gives a recording its rate. Positions have a meaning from then on.
func (r *recording) settle(rate int) {
	r.plan.SampleRate, r.perMS = rate, int64(rate/1000)
	for i := range r.pcm {
		r.pcm[i] = make([]int16, chunkMS*r.perMS)
		if r.plan.Level {
			c, err := level.NewControl(rate)
			if err != nil {
				r.account.fault = "level control: " + err.Error() // no rate of a valid plan
				continue
			}
			r.level[i] = c
		}
	}
}

// control sets the loudness of what a span has left of both channels.
func (r *recording) control(sp suppress.Span, ch [2][]int16) {
	r.relevel(sp)
	for i, l := range r.level {
		if l != nil && !sp.Suppressed && !(sp.Mic && i == 1) {
			l.Process(ch[i])
		}
	}
}

// relevel begins the control anew where a span silences: how loud it was before
// and in a window decides nothing behind it.
func (r *recording) relevel(sp suppress.Span) {
	for i, l := range r.level {
		if l != nil && (sp.Suppressed || sp.Mic && i == 1) {
			l.Reset()
		}
	}
}
