package codec

import "errors"

// ErrEvent says that a payload is no telephone-event.
var ErrEvent = errors.New("telephone-event payload shorter than 4 bytes")

// Event is one telephone-event payload (RFC 4733 section 2.3).
type Event struct {
	Code     uint8
	End      bool
	Volume   uint8  // -dBm0
	Duration uint16 // so far, in timestamp units
}

// eventDigits are the codes 0 to 15 (RFC 4733 section 3.2).
const eventDigits = "0123456789*#ABCD"

// Digit returns the event's digit, 0 when it is none (flash, tones).
func (e Event) Digit() byte {
	if int(e.Code) < len(eventDigits) {
		return eventDigits[e.Code]
	}
	return 0
}

// ParseEvent reads the first event of a payload.
func ParseEvent(payload []byte) (Event, error) {
	if len(payload) < 4 {
		return Event{}, ErrEvent
	}
	return Event{
		Code:     payload[0],
		End:      payload[1]&0x80 != 0,
		Volume:   payload[1] & 0x3f,
		Duration: uint16(payload[2])<<8 | uint16(payload[3]),
	}, nil
}

// Digit is one digit that was dialled.
type Digit struct {
	TS   int64 // where it began, extended media clock
	Text byte  // one of 0123456789*#ABCD
}

// Digits finds digits in the event packets of one source, fed in order of
// their sequence numbers. The zero value is ready.
type Digits struct {
	seen    bool
	ts      int64
	code    uint8
	seqLast int64
	until   int64 // where the event ends as far as known
}

// Feed takes one event packet and returns a digit the first time that its
// event is seen, whichever of the event's packets came first: updates and
// repeated end packets carry the same timestamp, and the parts of a very long
// event follow each other without a hole (RFC 4733 sections 2.5.1.3 and 2.5.2.2).
// A packet that is behind the last one is ignored.
func (d *Digits) Feed(seq, ts int64, payload []byte) (Digit, bool) {
	e, err := ParseEvent(payload)
	if err != nil || d.seen && (seq <= d.seqLast || ts < d.ts) {
		return Digit{}, false
	}
	continued := ts == d.until && d.until-d.ts >= longEvent || ts == d.ts+eventMax
	same := d.seen && e.Code == d.code && (ts == d.ts || continued)
	d.seen, d.seqLast, d.ts, d.code = true, seq, ts, e.Code
	d.until = ts + int64(e.Duration)
	if same || e.Digit() == 0 {
		return Digit{}, false
	}
	return Digit{TS: ts, Text: e.Digit()}, true
}

// longEvent is the duration from which on an event may be continued under a
// new timestamp: near the most that a duration can say (0xffff).
const longEvent = 0xf000

// eventMax is the longest duration that a packet can tell. A part of a longer
// event follows by just so much, whether or not the last updates came.
const eventMax = 0xffff
