package siptest

import (
	"context"
	"fmt"
	"time"
)

const (
	digitTicks    = 5 // of 20 ms: a digit lasts 100 ms
	digitPause    = 4 // of 20 ms
	digitEnds     = 3 // the end of an event is sent three times (RFC 4733 section 2.5.1.4)
	digitsWaitMax = 1000
)

// digit is an RFC 4733 event on its way out.
type digit struct {
	event byte
	tick  int // packet times since its start
	ts    uint32
	done  chan struct{} // closed when it is over; may be nil
}

// SendDigits dials by RFC 4733, 100 ms a digit with 80 ms between them, and
// returns when the last one is out. Digits: 0-9 * # A-D.
func (m *Media) SendDigits(ctx context.Context, digits string) error {
	done := make(chan struct{})
	queue := make([]digit, 0, len(digits))
	for _, r := range digits {
		event, ok := eventOf(r)
		if !ok {
			return fmt.Errorf("%q is no digit", r)
		}
		queue = append(queue, digit{event: event})
	}
	if len(queue) == 0 {
		return nil
	}
	queue[len(queue)-1].done = done
	m.mu.Lock()
	m.catchUp(time.Now())
	if len(m.digits)+len(queue) > digitsWaitMax {
		m.mu.Unlock()
		return fmt.Errorf("more than %d digits wait", digitsWaitMax)
	}
	m.digits = append(m.digits, queue...)
	m.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("send digits: %w", context.Cause(ctx))
	case <-m.stop:
		return fmt.Errorf("send digits: %w", ErrEnded)
	}
}

func eventOf(r rune) (byte, bool) {
	switch {
	case r >= '0' && r <= '9':
		return byte(r - '0'), true
	case r == '*':
		return 10, true
	case r == '#':
		return 11, true
	case r >= 'A' && r <= 'D':
		return byte(r-'A') + 12, true
	}
	return 0, false
}

// sendEvent sends one packet time of the first digit; false in the pause after
// it. All packets of an event have the timestamp of its beginning (RFC 4733
// section 2.3.5).
func (m *Media) sendEvent(now time.Time) bool {
	d := &m.digits[0]
	d.tick++
	if d.tick == 1 {
		d.ts = m.out.ts
	}
	if d.tick > digitTicks {
		m.out.marker = m.out.marker || d.tick == digitTicks+1
		if d.tick == digitTicks+digitPause {
			if d.done != nil {
				close(d.done)
			}
			m.digits = m.digits[1:]
		}
		return false
	}
	duration := d.tick * ptimeSamples
	payload := []byte{d.event, 10, byte(duration >> 8), byte(duration)}
	if d.tick < digitTicks {
		m.emit(now, eventPayloadType, d.ts, d.tick == 1, payload)
		return true
	}
	payload[1] |= 0x80 // the end
	for range digitEnds {
		m.emit(now, eventPayloadType, d.ts, false, payload)
	}
	return true
}
