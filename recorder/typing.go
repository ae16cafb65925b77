package recorder

import (
	"slices"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/suppress"
)

// sourceDTMF is the source of signals that were typed.
const sourceDTMF = "dtmf"

const (
	// sameKey is how far two digits may lie apart that tell of one key.
	sameKey = time.Second
	// infoDown is how long a key of INFO is taken to be down that does not say
	// it, and infoDownMax the longest that one may say.
	infoDown    = 100 * time.Millisecond
	infoDownMax = 5 * time.Second
	// infoDelay is how long an INFO may be under way: T1, after which one that
	// was lost is sent again (RFC 3261 section 17.1.2.1), and its way.
	infoDelay = 700 * time.Millisecond
	// sameMoment is how far two accounts of one key may lie apart beyond what each
	// says of itself: what the network does to signalling and media. Two keys are taken
	// for one only when the better account of the first was lost as well.
	//
	// There are phones that send both (Yealink has "RFC2833 + SIP INFO"). Events begin
	// as soon as a key is recognised (RFC 4733 section 2.5.1.2), INFO is sent then or,
	// with its Duration, when the key is up: it is INFO that comes late, and that is
	// told by what it says of itself. An event that begins later than this after its INFO
	// takes media that is so far behind signalling, of which no peer is known (2026-11);
	// then the first key of a side counts twice, and no other, as INFO is not listened
	// to behind it. A greater reach would take two quick keys for one where the event of
	// the first and the INFO of the second are missing, and so miss a code; a key too
	// many at most begins a pause.
	sameMoment = 250 * time.Millisecond
	// countedMax bounds the keys of which a better account may still come: more than
	// anybody types within sameKey.
	countedMax = 16
)

// method is how a digit came. Of one key that comes in several ways the greater
// method counts.
type method uint8

const (
	methodInband method = iota + 1
	methodInfo
	methodRFC4733
)

// typist follows what one side types, to find codes. Without codes it passes
// digits on.
type typist struct {
	side   media.Side
	codes  *suppress.Codes // nil: there are none
	inband string          // InbandAuto | InbandOn | InbandOff
	mask   bool            // tones and events are silenced
	agreed bool            // RFC 4733 is negotiated
	best   method          // of those the side has used

	down    bool // a key of RFC 4733 is down
	key     mix.Key
	ts      int64 // where that key began
	infoEnd int64 // ns: when the last key of INFO was up

	listener
	held    []heldDigit
	counted []heldDigit // for codes, latest last; a better account may still come
	presses []suppress.Press
}

// heldDigit is a digit of which it is not known whether it belongs to a code.
type heldDigit struct {
	at, arrival int64 // ns
	from        int64 // ns: the key may have gone down from here on
	digit       byte
	method      method

	counts int64 // ns: where it counts for codes, by the first account of it
	cut    bool  // it belongs to a code that was typed
	heard  bool  // a tone has told of it
}

func newTypist(p Plan, side media.Side) typist {
	t := typist{side: side, inband: p.InbandDTMF, mask: p.MaskDTMF}
	if codes := p.Codes[side]; len(codes) > 0 {
		t.codes = suppress.NewCodes(codes)
	}
	return t
}

// negotiated says whether RFC 4733 is agreed. Where it is no more, the side types in
// another way from now on: it may be another phone.
func (t *typist) negotiated(events bool) {
	if t.agreed && !events && t.best == methodRFC4733 {
		t.best = 0
	}
	t.agreed = events
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
	t.begin(c, heldDigit{at: at, arrival: arrival, from: at, digit: d.Text, method: methodRFC4733})
	t.down, t.key, t.ts = t.codes != nil, k, d.TS
}

// released takes the end of an RFC 4733 event that began at ts.
func (t *typist) released(c *core, s *side, k mix.Key, ts, duration, arrival int64) {
	if t.down && k == t.key && ts >= t.ts {
		t.down = false
		t.end(c, c.nsOf(s, k, ts+duration, arrival))
	}
}

// pressed takes a key that the signalling told of (SIP INFO) after so long a
// time of being down.
func (t *typist) pressed(c *core, digit byte, down time.Duration) {
	arrival, ns := c.now, int64(min(max(down, 0), infoDownMax))
	if ns == 0 {
		ns = int64(infoDown)
	}
	at := max(arrival-ns, t.infoEnd)
	t.infoEnd = arrival
	d := heldDigit{at: at, arrival: arrival, from: arrival - ns - int64(infoDelay), digit: digit, method: methodInfo}
	if t.begin(c, d) && t.codes != nil {
		t.end(c, arrival)
	}
}

// begin takes a key that went down; false when the side types in a better way,
// of which this is an echo.
func (t *typist) begin(c *core, d heldDigit) bool {
	if d.method < t.best {
		return false
	}
	t.best = d.method
	if t.codes == nil {
		t.withdraw(c, d)
		t.tell(c, d)
		return true
	}
	if t.again(c, d) {
		return true
	}
	t.withdraw(c, d)
	d.counts = d.at
	t.held = append(t.held, d)
	t.remember(d)
	m, ok := t.codes.Begin(d.digit, d.at) // ends a key that is still down
	t.take(c, m, ok)
	return true
}

// remember keeps a key of which a better account may come.
func (t *typist) remember(d heldDigit) {
	t.counted = slices.DeleteFunc(t.counted, func(o heldDigit) bool { return o.arrival < d.arrival-2*int64(sameKey) })
	if len(t.counted) == countedMax {
		t.counted = slices.Delete(t.counted, 0, 1)
	}
	if d.method < methodRFC4733 {
		t.counted = append(t.counted, d)
	}
}

// again takes a better account of a key that was counted already, which is not counted
// once more: events of RFC 4733 are looked at in the order of their numbers and so later
// than an INFO that came after them. False when there is no such key.
func (t *typist) again(c *core, d heldDigit) bool {
	i := slices.IndexFunc(t.counted, func(o heldDigit) bool {
		return o.digit == d.digit && o.method < d.method &&
			o.from-int64(sameMoment) <= d.arrival && d.from <= o.arrival+int64(sameMoment)
	})
	if i < 0 {
		return false
	}
	o := t.counted[i]
	t.counted = slices.Delete(t.counted, i, i+1)
	at := d.at
	if d.heard = o.heard || o.method == methodInband; d.heard { // from there on
		at = min(at, o.counts)
	}
	d.cut, d.counts = o.cut, t.codes.Move(o.counts, at)
	t.remember(d)
	if o.cut {
		return true // it is listed nowhere
	}
	for h := range t.held {
		if t.held[h].counts == o.counts {
			t.held[h] = d
			return true
		}
	}
	t.withdraw(c, d)
	t.tell(c, d)
	return true
}

// withdraw forgets what told of the same key before, in a lesser way.
func (t *typist) withdraw(c *core, d heldDigit) {
	if d.method == methodInband {
		return
	}
	for _, r := range c.recs {
		r.withdraw(r.channel(t.side), d)
	}
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
	t.held = slices.DeleteFunc(t.held, func(d heldDigit) bool { return within(m, d) })
	for i := range t.counted {
		t.counted[i].cut = t.counted[i].cut || within(m, t.counted[i])
	}
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

// within tells whether a key is of a code.
func within(m suppress.CodeMatch, d heldDigit) bool {
	return d.counts >= m.FromNS && d.counts <= m.ToNS
}

// keep passes on the digits of a code that means nothing now.
func (t *typist) keep(c *core, m suppress.CodeMatch) {
	t.held = slices.DeleteFunc(t.held, func(d heldDigit) bool {
		if !within(m, d) {
			return false
		}
		t.tell(c, d)
		return true
	})
}

// tell passes on one digit that is to be listed.
func (t *typist) tell(c *core, d heldDigit) {
	if d.method != methodInband || t.inband != InbandOff {
		c.digit(t.side, d)
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
			if d.counts == p.FromNS && d.digit == p.Digit {
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
