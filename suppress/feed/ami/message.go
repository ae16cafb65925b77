package ami

import (
	"bytes"
	"strings"
)

// Limits of what is read. A message beyond them is skipped and counted.
const (
	messageBytesMax = 64 << 10
	headersMax      = 512 // of one message
)

// bannerPrefix begins the line by which Asterisk greets; a version follows.
const bannerPrefix = "Asterisk Call Manager/"

// Header is one line of a message.
type Header struct{ Name, Value string }

// Message is one event or response, or the greeting.
type Message struct {
	Banner  string // the greeting's version; then there are no headers
	Headers []Header
}

// Get returns the value of the first header of that name, in any case, and ""
// without one.
func (m Message) Get(name string) string {
	for _, h := range m.Headers {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

// After returns the headers behind the first one of that name: what a dialplan
// wrote into a UserEvent stands behind Asterisk's own headers and may repeat
// their names.
func (m Message) After(name string) Message {
	for i, h := range m.Headers {
		if strings.EqualFold(h.Name, name) {
			return Message{Headers: m.Headers[i+1:]}
		}
	}
	return Message{}
}

// Parser cuts the byte stream of a connection into messages: lines of
// "Name: value", ended by CR LF or LF, a blank line after each message. One
// goroutine owns it.
type Parser struct {
	line    []byte // begun and not ended
	headers []Header
	bytes   int  // of the message so far
	skip    bool // the message is too large: nothing counts up to the blank line
	bad     uint64
}

// Bad counts the messages and lines that were skipped.
func (p *Parser) Bad() uint64 { return p.bad }

// Feed takes bytes as they arrive, in pieces of any size, and hands on every
// message that is complete.
func (p *Parser) Feed(b []byte, each func(Message)) {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			p.keep(b)
			return
		}
		p.keep(b[:i])
		b = b[i+1:]
		p.endLine(each)
	}
}

// keep appends to the line that is not ended yet.
func (p *Parser) keep(b []byte) {
	p.bytes += len(b)
	if p.bytes > messageBytesMax {
		p.skip = true
		b = b[:min(len(b), max(0, 1-len(p.line)))] // so much that it is not taken for a blank line
	}
	p.line = append(p.line, b...)
}

func (p *Parser) endLine(each func(Message)) {
	line := bytes.TrimSuffix(p.line, []byte{'\r'})
	switch {
	case len(line) == 0:
		p.endMessage(each)
	case p.skip:
	default:
		p.header(string(line), each)
	}
	p.line = p.line[:0]
}

func (p *Parser) endMessage(each func(Message)) {
	headers, skipped := p.headers, p.skip
	p.headers, p.skip, p.bytes = nil, false, 0
	switch {
	case skipped:
		p.bad++
	case len(headers) > 0:
		each(Message{Headers: headers})
	}
}

func (p *Parser) header(line string, each func(Message)) {
	if version, ok := strings.CutPrefix(line, bannerPrefix); ok && len(p.headers) == 0 {
		p.bytes = 0
		each(Message{Banner: version})
		return
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" {
		p.bad++
		return
	}
	if len(p.headers) >= headersMax {
		p.skip, p.headers = true, nil
		return
	}
	p.headers = append(p.headers, Header{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
}

// Action is what is sent: a request with its headers in order.
type Action struct {
	Name    string
	Headers []Header
}

// action returns an action with headers given as name, value, name, value.
func action(name string, pairs ...string) Action {
	a := Action{Name: name}
	for i := 0; i+1 < len(pairs); i += 2 {
		a.Headers = append(a.Headers, Header{pairs[i], pairs[i+1]})
	}
	return a
}

// Append writes the action's wire form to b. Line ends within values are left
// out, so that no value can become a header.
func (a Action) Append(b []byte) []byte {
	b = appendLine(b, "Action", a.Name)
	for _, h := range a.Headers {
		b = appendLine(b, h.Name, h.Value)
	}
	return append(b, "\r\n"...)
}

func appendLine(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	for i := range len(value) {
		if c := value[i]; c != '\r' && c != '\n' {
			b = append(b, c)
		}
	}
	return append(b, "\r\n"...)
}
