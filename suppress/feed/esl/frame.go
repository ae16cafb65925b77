// Package esl turns what a FreeSWITCH says on its event socket into call-state
// signals.
//
// The protocol is that of mod_event_socket, inbound mode: messages of header
// lines, an empty line and a body of Content-Length bytes. Parser and
// Translator are pure; Source connects them to a socket.
package esl

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// Limits of what a peer may send. A header beyond its limit breaks the
// connection; a body beyond it is passed over, for a list of very many channels
// would else break every connection anew.
const (
	headBytesMax     = 64 << 10
	bodyBytesMax     = 16 << 20
	bodySkipBytesMax = 256 << 20
)

// ErrFrame says that what came is no message of an event socket, or is beyond
// the limits; nothing that follows can be understood.
var ErrFrame = errors.New("not the event socket protocol")

// Content types of messages.
const (
	typeAuth       = "auth/request"
	typeReply      = "command/reply"
	typeAPI        = "api/response"
	typePlain      = "text/event-plain"
	typeJSON       = "text/event-json"
	typeDisconnect = "text/disconnect-notice"
	typeRejection  = "text/rude-rejection"
)

// Message is one message of the socket.
type Message struct {
	Type        string // Content-Type
	Reply       string // Reply-Text of a command/reply
	Disposition string // Content-Disposition of a disconnect notice: "linger", "disconnect" or empty
	Body        []byte // nil when there is none, or when it was too large
	Oversize    bool   // the body was larger than 16 MiB and passed over
}

// Parser cuts a stream of bytes into messages. The zero Parser is ready. After
// an error it is of no more use.
type Parser struct {
	buf      []byte
	searched int // no end of a header lies before here
	head     bool
	msg      Message
	need     int // bytes of the body that are missing
}

// Feed adds bytes as they were read; it keeps no reference to them.
func (p *Parser) Feed(b []byte) { p.buf = append(p.buf, b...) }

// Partial tells whether a message has begun and is not complete.
func (p *Parser) Partial() bool { return p.head || len(p.buf) > 0 }

// Next returns the next complete message; false when more bytes are needed.
// The error is ErrFrame.
func (p *Parser) Next() (Message, bool, error) {
	if !p.head {
		if ok, err := p.takeHead(); !ok {
			return Message{}, false, err
		}
	}
	if p.msg.Oversize {
		n := min(p.need, len(p.buf))
		p.drop(n)
		p.need -= n
		if p.need > 0 {
			return Message{}, false, nil
		}
	} else {
		if len(p.buf) < p.need {
			return Message{}, false, nil
		}
		if p.need > 0 {
			p.msg.Body = bytes.Clone(p.buf[:p.need])
			p.drop(p.need)
		}
	}
	m := p.msg
	p.head, p.msg, p.need = false, Message{}, 0
	return m, true, nil
}

// drop removes bytes from the front. A large buffer is let go with the message
// it was for.
func (p *Parser) drop(n int) {
	rest := p.buf[n:]
	p.searched = 0
	if cap(p.buf) > headBytesMax && len(rest) < headBytesMax/2 {
		p.buf = bytes.Clone(rest)
		return
	}
	p.buf = append(p.buf[:0], rest...)
}

// takeHead reads the header lines once their end is there.
func (p *Parser) takeHead() (bool, error) {
	blank := 0
	for blank < len(p.buf) && (p.buf[blank] == '\n' || p.buf[blank] == '\r') {
		blank++
	}
	if blank > 0 {
		p.drop(blank)
	}
	end, next := headEnd(p.buf, p.searched)
	if end > headBytesMax || end < 0 && len(p.buf) > headBytesMax {
		return false, fmt.Errorf("%w: a header of more than %d bytes", ErrFrame, headBytesMax)
	}
	if end < 0 {
		p.searched = max(0, len(p.buf)-2)
		return false, nil
	}
	m, need, err := parseHead(p.buf[:end])
	if err != nil {
		return false, err
	}
	p.drop(next)
	m.Oversize = need > bodyBytesMax
	p.head, p.msg, p.need = true, m, need
	return true, nil
}

// headEnd finds the empty line: where the header ends and where the body
// begins; -1 without one.
func headEnd(b []byte, from int) (end, next int) {
	for i := from; i < len(b); i++ {
		if b[i] != '\n' {
			continue
		}
		j := i + 1
		if j < len(b) && b[j] == '\r' {
			j++
		}
		if j < len(b) && b[j] == '\n' {
			return i, j + 1
		}
	}
	return -1, -1
}

func parseHead(head []byte) (Message, int, error) {
	var m Message
	need, sized := 0, false
	for line := range bytes.Lines(head) {
		name, value, ok := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		if !ok {
			return m, 0, fmt.Errorf("%w: a header line without a colon", ErrFrame)
		}
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Type")):
			m.Type = string(value)
		case bytes.EqualFold(name, []byte("Reply-Text")):
			m.Reply = string(value)
		case bytes.EqualFold(name, []byte("Content-Disposition")):
			m.Disposition = string(value)
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.ParseUint(string(value), 10, 32)
			if err != nil || n > bodySkipBytesMax || sized && int(n) != need {
				return m, 0, fmt.Errorf("%w: a Content-Length that is no number up to %d, or two of them", ErrFrame, bodySkipBytesMax)
			}
			need, sized = int(n), true
		}
	}
	if m.Type == "" {
		return m, 0, fmt.Errorf("%w: a header without Content-Type", ErrFrame)
	}
	return m, need, nil
}
