package recorder

import (
	"slices"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/dtmf"
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/source"
	"github.com/trunktap/trunktap/suppress"
)

// sourceDTMF is the source of signals that were typed.
const sourceDTMF = "dtmf"

// typist follows what one side types, to find codes. Without codes it passes
// digits on.
type typist struct {
	side     media.Side
	codes    *suppress.Codes // nil: there are none
	detector *dtmf.Detector
	rate     int  // Hz, of the detector
	events   bool // it sends RFC 4733: tones beside them are echoes of the same keys
	down     bool // a key of RFC 4733 is down
	key      mix.Key
	ts       int64   // where that key began
	heard    int64   // sample behind the last audio, by its timestamps
	bridge   []int16 // silence for one lost packet
	held     []heldDigit
	found    []dtmf.Event
	presses  []suppress.Press
}

// heldDigit is a digit of which it is not known whether it belongs to a code.
type heldDigit struct {
	at, arrival int64 // ns
	digit       byte
	tone        bool // heard in band; such digits are not listed
}

func newTypist(p Plan, side media.Side) typist {
	t := typist{side: side}
	if codes := p.Codes[side]; len(codes) > 0 {
		t.codes = suppress.NewCodes(codes)
	}
	return t
}

// typing tells whether something before a time may still turn out to be a code.
func (c *core) typing(beforeNS int64) bool {
	for i := range c.typists {
		if t := &c.typists[i]; t.codes != nil {
			if from, ok := t.codes.Held(); ok && from < beforeNS {
				return true
			}
		}
	}
	return len(c.typed) > 0
}

// nsOf is the time at which a sample of a source lies.
func (c *core) nsOf(s *side, k mix.Key, ts, otherwise int64) int64 {
	pos, ok := s.track.PositionOf(k, ts)
	if !ok || !c.started {
		return otherwise
	}
	return c.origin + pos*int64(time.Millisecond)/c.perMS
}

// event takes the beginning of an RFC 4733 digit.
func (t *typist) event(c *core, s *side, k mix.Key, d codec.Digit, arrival int64) {
	at := min(arrival, c.nsOf(s, k, d.TS, arrival))
	if t.codes == nil {
		c.digit(t.side, at, arrival, d.Text)
		return
	}
	t.events = true
	t.begin(c, heldDigit{at: at, arrival: arrival, digit: d.Text})
	t.down, t.key, t.ts = true, k, d.TS
}

// released takes the end of an RFC 4733 event that began at ts.
func (t *typist) released(c *core, s *side, k mix.Key, ts, duration, arrival int64) {
	if t.down && k == t.key && ts >= t.ts {
		t.down = false
		t.end(c, c.nsOf(s, k, ts+duration, arrival))
	}
}

// heard is decoded audio: its samples' rate and the media clock's, in Hz.
type heard struct {
	pcm         []int16
	rate, clock int
}

// samples converts a timestamp to samples.
func (h heard) samples(ts int64) int64 { return ts * int64(h.rate) / int64(h.clock) }

// ts converts a number of samples to the media clock.
func (h heard) ts(samples int64) int64 { return samples * int64(h.clock) / int64(h.rate) }

// audio looks for tones, and ends a key whose end was lost.
func (t *typist) audio(c *core, s *side, k mix.Key, p source.Packet, h heard) {
	if t.codes == nil {
		return
	}
	if t.down && k == t.key && p.TS > t.ts {
		t.down = false
		t.end(c, c.nsOf(s, k, p.TS, p.Arrival))
	}
	if t.events {
		return
	}
	if t.rate != h.rate {
		t.rate, t.detector, t.bridge = h.rate, dtmf.New(h.rate), make([]int16, h.rate/50)
	}
	t.found = t.found[:0]
	at := h.samples(p.TS)
	if hole := at - t.heard; k == t.key && hole > 0 && hole <= int64(len(t.bridge)) {
		t.found = t.detector.Feed(t.heard, t.bridge[:hole], t.found) // a lost packet is no second key
	}
	t.key, t.heard = k, at+int64(len(h.pcm))
	t.found = t.detector.Feed(at, h.pcm, t.found)
	for _, e := range t.found {
		at := c.nsOf(s, k, h.ts(e.At), p.Arrival)
		if e.End {
			t.end(c, at)
		} else {
			t.begin(c, heldDigit{at: at, arrival: p.Arrival, digit: e.Digit, tone: true})
		}
	}
}

func (t *typist) begin(c *core, d heldDigit) {
	t.held = append(t.held, d)
	m, ok := t.codes.Begin(d.digit, d.at) // ends a key that is still down
	t.take(c, m, ok)
}

func (t *typist) end(c *core, at int64) {
	m, ok := t.codes.End(at)
	t.take(c, m, ok)
}

// take turns a complete code into signals: the digits are cut out, and what the
// code begins or ends takes them in.
func (t *typist) take(c *core, m suppress.CodeMatch, ok bool) {
	t.release(c)
	if !ok {
		return
	}
	if asks := m.Event == suppress.ConsentGranted || m.Event == suppress.ConsentDenied; asks && !c.undecided() {
		t.keep(c, m) // the question is answered: these are digits like others
		return
	}
	t.held = slices.DeleteFunc(t.held, func(d heldDigit) bool { return d.at >= m.FromNS && d.at <= m.ToNS })
	say := func(e suppress.Event, ns int64) {
		c.typed = append(c.typed, suppress.Signal{
			V: 1, Event: e, At: c.timeOf(ns), Received: c.timeOf(c.look), Source: sourceDTMF, Party: t.side.String(),
		})
	}
	say(suppress.DTMFStart, m.FromNS)
	if m.Event == suppress.PauseStart || m.Event == suppress.ConsentDenied {
		say(m.Event, m.FromNS)
	} else {
		say(m.Event, m.ToNS)
	}
	say(suppress.DTMFEnd, m.ToNS)
}

// keep passes on the digits of a code that means nothing now.
func (t *typist) keep(c *core, m suppress.CodeMatch) {
	t.held = slices.DeleteFunc(t.held, func(d heldDigit) bool {
		if d.at < m.FromNS || d.at > m.ToNS {
			return false
		}
		t.tell(c, d)
		return true
	})
}

// tell passes on one digit; what was heard in band is not listed.
func (t *typist) tell(c *core, d heldDigit) {
	if !d.tone {
		c.digit(t.side, d.at, d.arrival, d.digit)
	}
}

// undecided tells whether consent is required and neither granted nor denied.
func (c *core) undecided() bool {
	return slices.ContainsFunc(c.recs, func(r *recording) bool { return r.consent == consentPending })
}

// release passes on the digits that belong to no code.
func (t *typist) release(c *core) {
	t.presses = t.codes.Take(t.presses[:0])
	for _, p := range t.presses {
		for i, d := range t.held {
			if d.at == p.FromNS && d.digit == p.Digit {
				t.tell(c, d)
				t.held = slices.Delete(t.held, i, i+1)
				break
			}
		}
	}
}

// advance gives up codes that were not completed in time; all of them at the
// end of time, when the call is over.
func (t *typist) advance(c *core, now int64) {
	if t.codes != nil {
		m, ok := t.codes.Advance(now)
		t.take(c, m, ok)
	}
}
