package replay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/latch"
	"github.com/trunktap/trunktap/suppress"
)

// notebook is an Observer that writes down what it is told and checks the
// contract of package media.
type notebook struct {
	start  time.Time // times are written as milliseconds from here
	calls  []*notedCall
	faults []string
	refuse map[string]error // by Call-ID
	deaf   bool             // returns no tap
}

// notedCall is one session.
type notedCall struct {
	book     *notebook
	session  media.Session
	log      []string
	last     time.Time
	answered bool
	ended    bool
	end      time.Time
	cause    media.Cause
	streams  map[media.StreamID]*notedStream
	rtp      [2]int // by side
	rtcp     [2]int
	codecs   [2]string // first format by side
}

// notedStream is one stream of it.
type notedStream struct {
	call   *notedCall
	stream media.Stream
	gone   bool
	seen   []string // the payloads, when short
}

func (b *notebook) fault(format string, args ...any) {
	if len(b.faults) < 20 {
		b.faults = append(b.faults, fmt.Sprintf(format, args...))
	}
}

func (b *notebook) err() error {
	for _, c := range b.calls {
		if !c.ended {
			b.fault("%s did not end", c.session.SIPCallID)
		}
	}
	if len(b.faults) > 0 {
		return errors.New(strings.Join(b.faults, "; "))
	}
	return nil
}

func (b *notebook) SessionStarted(_ context.Context, s media.Session) (media.SessionTap, error) {
	if err := b.refuse[s.SIPCallID]; err != nil {
		return nil, err
	}
	if b.start.IsZero() {
		b.start = s.Start
	}
	if b.deaf {
		return nil, nil
	}
	c := &notedCall{book: b, session: s, last: s.Start, streams: map[media.StreamID]*notedStream{}}
	b.calls = append(b.calls, c)
	return c, nil
}

// note checks that a call of the session comes in time and writes it down.
func (c *notedCall) note(at time.Time, format string, args ...any) {
	if c.ended {
		c.book.fault("%s: %s after the end", c.session.SIPCallID, fmt.Sprintf(format, args...))
	}
	if at.Before(c.last) {
		c.book.fault("%s: %s at %v, after %v", c.session.SIPCallID, fmt.Sprintf(format, args...), at, c.last)
	}
	c.last = at
	if format != "" && len(c.log) < 200 {
		c.log = append(c.log, fmt.Sprintf("%d ", at.Sub(c.book.start).Milliseconds())+fmt.Sprintf(format, args...))
	}
}

func (c *notedCall) StreamStarted(s media.Stream) media.Tap {
	if len(s.Formats) > 0 && c.codecs[s.Side] == "" {
		c.codecs[s.Side] = s.Formats[0].Name
	}
	flags := ""
	if !s.Sending {
		flags += " silent"
	}
	if s.Early {
		flags += " early"
	}
	if s.Secure {
		flags += " secure"
	}
	c.note(s.At, "stream %d %s %v>%v%s", s.ID, s.Side, s.Source, s.Local, flags)
	n := c.streams[s.ID]
	if n == nil {
		n = &notedStream{call: c}
		c.streams[s.ID] = n
	}
	n.stream, n.gone = s, false
	return n
}

func (c *notedCall) StreamEnded(id media.StreamID, at time.Time) {
	c.note(at, "gone %d", id)
	if n := c.streams[id]; n != nil {
		n.gone = true
	}
}

func (c *notedCall) Answered(at time.Time) {
	if c.answered {
		c.book.fault("%s answered twice", c.session.SIPCallID)
	}
	c.answered = true
	c.note(at, "answered")
}

func (c *notedCall) Digit(side media.Side, at time.Time, digit byte, down time.Duration) {
	c.note(at, "digit %s %c %v", side, digit, down)
}

func (c *notedCall) Signal(s suppress.Signal) { c.note(s.At, "%s %s", s.Event, s.Party) }

func (c *notedCall) Ended(at time.Time, cause media.Cause) {
	c.note(at, "ended %s", cause)
	c.ended, c.end, c.cause = true, at, cause
}

func (n *notedStream) Put(at time.Time, wire []byte) {
	c := n.call
	c.note(at, "")
	if n.gone {
		c.book.fault("%s: packet of stream %d, which is gone", c.session.SIPCallID, n.stream.ID)
	}
	if latch.IsRTCP(wire) {
		c.rtcp[n.stream.Side]++
		return
	}
	c.rtp[n.stream.Side]++
	if len(wire) > 12 && len(wire) < 40 {
		n.seen = append(n.seen, string(wire[12:]))
	}
}
