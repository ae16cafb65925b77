package recorder

import (
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/dtmf"
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/source"
)

// heard is decoded audio: its samples' rate and the media clock's, in Hz.
type heard struct {
	pcm         []int16
	rate, clock int
}

// samples converts a timestamp to samples.
func (h heard) samples(ts int64) int64 { return ts * int64(h.rate) / int64(h.clock) }

// ts converts a number of samples to the media clock.
func (h heard) ts(samples int64) int64 { return samples * int64(h.clock) / int64(h.rate) }

// listener looks for tones in the audio of one side.
type listener struct {
	detector *dtmf.Detector
	form     heard   // of the audio so far, without samples
	source   mix.Key // of it
	end      int64   // sample behind it, by its timestamps
	bridge   []int16 // silence for one lost packet
	found    []dtmf.Event
	tone     bool  // one is heard
	toneAt   int64 // sample where it began, by its timestamps
}

// listens tells whether tones are looked for.
func (t *typist) listens() bool {
	switch {
	case t.mask:
		return true
	case t.best > methodInband:
		return false // tones are echoes of the same keys
	case t.codes != nil:
		return true
	case t.inband == InbandOn:
		return true
	}
	return t.inband != InbandOff && !t.agreed
}

// audio looks for tones, and ends a key of RFC 4733 whose end was lost.
func (t *typist) audio(c *core, s *side, k mix.Key, p source.Packet, h heard) {
	if t.down && k == t.key && p.TS > t.ts {
		t.down = false
		t.end(c, c.nsOf(s, k, p.TS, p.Arrival))
	}
	if !t.listens() {
		return
	}
	at := h.samples(p.TS)
	hole := at - t.listener.end
	if k != t.source || h.rate != t.form.rate || h.clock != t.form.clock || hole < 0 || hole > int64(len(t.bridge)) {
		t.interrupted(c, s, p.Arrival)
		t.listenTo(k, h)
		hole = 0
	}
	t.found = t.found[:0]
	if hole > 0 {
		t.found = t.detector.Feed(t.listener.end, t.bridge[:hole], t.found) // a lost packet is no second key
	}
	t.found = t.detector.Feed(at, h.pcm, t.found)
	t.listener.end = at + int64(len(h.pcm))
	for _, e := range t.found {
		t.toned(c, s, e, p.Arrival, maskAfter)
	}
	if t.tone {
		t.maskTone(c, s, t.listener.end, maskOn)
	}
}

// listenTo begins with other audio.
func (t *typist) listenTo(k mix.Key, h heard) {
	if t.detector == nil || h.rate != t.form.rate {
		t.detector, t.bridge = dtmf.New(h.rate), make([]int16, h.rate/50)
	}
	t.source, t.form = k, heard{rate: h.rate, clock: h.clock}
}

// interrupted ends a tone behind which the audio does not go on. What a codec
// makes up in place of it may sound like it for a while.
func (t *typist) interrupted(c *core, s *side, arrival int64) {
	if t.detector == nil {
		return
	}
	t.found = t.detector.Flush(t.found[:0])
	for _, e := range t.found {
		t.toned(c, s, e, arrival, maskOn)
	}
}

// toned takes the beginning or the end of a tone, which is masked so far
// beyond its end.
func (t *typist) toned(c *core, s *side, e dtmf.Event, arrival int64, beyond time.Duration) {
	at := c.nsOf(s, t.source, t.form.ts(e.At), arrival)
	if e.End {
		t.maskTone(c, s, e.At, beyond)
		t.tone = false
		c.masks[t.side].toneOver()
		if t.codes != nil && t.best == methodInband {
			t.end(c, at)
		}
		return
	}
	t.tone, t.toneAt = true, e.At
	lag := (t.listener.end - e.At) * int64(time.Second) / int64(t.form.rate) // its beginning came about so long ago
	t.begin(c, heldDigit{at: at, arrival: arrival, from: min(at, arrival-lag), digit: e.Digit, method: methodInband})
}

// maskTone masks the tone that is heard up to a sample and somewhat beyond.
func (t *typist) maskTone(c *core, s *side, to int64, beyond time.Duration) {
	if !t.mask {
		return
	}
	a, ok := s.track.PositionOf(t.source, t.form.ts(t.toneAt))
	if b, known := s.track.PositionOf(t.source, t.form.ts(to)); ok && known {
		c.masks[t.side].toneSpan(c.wholeMS(a-c.samples(maskBefore), b+c.samples(beyond)))
	}
}

// covers takes a packet of RFC 4733: the event lasts from its timestamp so far.
func (t *typist) covers(c *core, s *side, k mix.Key, p source.Packet, e codec.Event) {
	if !t.mask || e.Digit() == 0 {
		return
	}
	a, ok := s.track.PositionOf(k, p.TS)
	b, known := s.track.PositionOf(k, p.TS+int64(e.Duration))
	if !ok || !known {
		return
	}
	beyond := maskOn // the next update tells
	if e.End {
		beyond = maskAfter
	}
	latest := (p.Arrival-c.origin)*c.perMS/int64(time.Millisecond) + c.samples(eventAheadMax)
	c.masks[t.side].eventSpan(k, p.TS, c.wholeMS(a-c.samples(maskBefore), min(b+c.samples(beyond), latest)))
}
