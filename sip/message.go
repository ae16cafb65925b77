package sip

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// headersMax is the number of header fields of the largest message taken.
const headersMax = 512

// Errors of Parse that callers branch on. Every other error of it says what is wrong.
var (
	ErrPartial   = errors.New("message is not complete")
	ErrKeepAlive = errors.New("keep-alive, no message")
)

// Header is one header field as it stood in the message: the name in its own
// spelling, the value without surrounding white space and unfolded (RFC 3261
// section 7.3.1).
type Header struct {
	Name, Value string
}

// Message is a request or a response. A Message that was handed on is not
// changed any more; Clone it first. Body is never changed in place.
type Message struct {
	Method string // of a request, empty for a response
	URI    string // Request-URI, verbatim

	Status int // of a response
	Reason string

	Headers []Header
	Body    []byte

	Flow    Flow      // how it came; zero for a message of our own
	Arrival time.Time // when it came

	read   reading // what sipgo has read; zero for a message of our own
	frozen string  // the whole text, in place of Headers and Body
}

// IsRequest says whether m is a request.
func (m *Message) IsRequest() bool { return m.Method != "" }

// Parse reads one message. For a datagram the body ends where Content-Length
// says, or with the data; for a stream Content-Length is required and rest is
// what follows the message. ErrPartial means that a stream must bring more.
//
// A message is refused when it could be read in two ways: bare CR or LF,
// differing or repeated framing fields, a body shorter than announced. It is
// refused as well when a field that every message must have is missing or
// cannot be read (RFC 3261 section 8.1.1), so that all accessors below work.
func Parse(data []byte, stream bool) (m *Message, rest []byte, err error) {
	m, rest, err = precheck(data, stream)
	if err != nil {
		return nil, rest, err
	}
	msg, err := parser.ParseSIP(m.excerpt(nil))
	if err != nil {
		return nil, nil, errors.New("message cannot be read") // sipgo's error quotes the message
	}
	if err := m.finish(msg); err != nil {
		return nil, nil, err
	}
	return m, rest, nil
}

// precheck finds one message, takes its text apart by lines and sees that it is
// clear where it ends and what belongs to it, which sipgo is lenient about.
// Nothing of m shares memory with data.
func precheck(data []byte, stream bool) (m *Message, rest []byte, err error) {
	if stream {
		for len(data) >= 2 && data[0] == '\r' && data[1] == '\n' { // RFC 3261 section 7.5
			data = data[2:]
		}
	} else if isKeepAlive(data) {
		return nil, nil, ErrKeepAlive
	}
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		if stream && len(data) <= MessageBytesMax {
			return nil, data, ErrPartial
		}
		return nil, nil, errors.New("no empty line after the header")
	}
	m, err = parseHead(string(data[:end]))
	if err != nil {
		return nil, nil, err
	}
	body := data[end+4:]
	n, err := m.contentLength()
	switch {
	case err != nil:
		return nil, nil, err
	case n < 0 && stream:
		return nil, nil, errors.New("no Content-Length on a stream")
	case n < 0:
		n = len(body)
	}
	switch {
	case end+4+n > MessageBytesMax:
		return nil, nil, fmt.Errorf("message of %d bytes, at most %d are taken", end+4+n, MessageBytesMax)
	case n > len(body) && stream:
		return nil, data, ErrPartial
	case n > len(body):
		return nil, nil, fmt.Errorf("body of %d bytes where Content-Length says %d", len(body), n)
	}
	if end > MessageBytesMax-100 && len(m.excerpt(nil)) > MessageBytesMax {
		return nil, nil, errors.New("header too large") // by what is written out
	}
	m.Body = append([]byte(nil), body[:n]...)
	return m, body[n:], nil
}

// excerpt appends what sipgo gets to read of the message: the fields that are
// understood, without those that pass, without the body, and with a start line
// of ours. sipgo is particular there: it wants SIP in capitals and a space before a
// missing reason, takes a response whose reason begins with SIP for a request, and
// refuses a whole message for a Request-URI that it cannot read, which may be none
// of our business. Field names are short so that it is never longer than the message
// may be.
func (m *Message) excerpt(dst []byte) []byte {
	if m.IsRequest() {
		dst = append(append(dst, m.Method...), " x:y SIP/2.0\r\n"...)
	} else {
		dst = append(strconv.AppendInt(append(dst, "SIP/2.0 "...), int64(m.Status), 10), " \r\n"...)
	}
	dst = appendHeader(dst, "v", m.Get("Via"))
	dst = appendHeader(dst, "f", m.Get("From"))
	dst = appendHeader(dst, "t", m.Get("To"))
	dst = appendHeader(dst, "CSeq", m.Get("CSeq"))
	return append(dst, "l: 0\r\n\r\n"...)
}

// skip returns what follows a message of a stream that Parse has refused, by its
// Content-Length alone.
func skip(data []byte) ([]byte, error) {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return nil, errors.New("no empty line after the header")
	}
	m := &Message{}
	for _, line := range strings.Split(string(data[:end]), "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			m.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	n, err := m.contentLength()
	switch {
	case err != nil:
		return nil, err
	case n < 0, end+4+n > MessageBytesMax:
		return nil, errors.New("no usable Content-Length")
	case end+4+n > len(data):
		return nil, ErrPartial
	}
	return data[end+4+n:], nil
}

// isKeepAlive recognises the datagrams that keep a NAT binding: CRLF, double
// CRLF, NUL, nothing (RFC 5626 section 3.5, common practice).
func isKeepAlive(data []byte) bool {
	if len(data) > 4 {
		return false
	}
	return len(bytes.Trim(data, "\r\n\x00 ")) == 0
}

func parseHead(head string) (*Message, error) {
	line, rest, _ := strings.Cut(head, "\r\n")
	m := &Message{}
	if err := m.parseStartLine(line); err != nil {
		return nil, err
	}
	m.Headers = make([]Header, 0, min(strings.Count(rest, "\r\n")+1, headersMax))
	for rest != "" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		if strings.ContainsAny(line, "\r\n") {
			return nil, errors.New("bare CR or LF in the header")
		}
		if err := m.addLine(line); err != nil {
			return nil, err
		}
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Message) addLine(line string) error {
	if line != "" && (line[0] == ' ' || line[0] == '\t') {
		if len(m.Headers) == 0 {
			return errors.New("continuation line without a header field")
		}
		last := &m.Headers[len(m.Headers)-1]
		last.Value = strings.TrimLeft(last.Value+" "+strings.Trim(line, " \t"), " ")
		return nil
	}
	name, value, ok := strings.Cut(line, ":")
	name = strings.TrimRight(name, " \t")
	if !ok || !isToken(name) {
		return errors.New("header line that is no header field")
	}
	if len(m.Headers) == headersMax {
		return fmt.Errorf("more than %d header fields", headersMax)
	}
	m.Headers = append(m.Headers, Header{name, strings.Trim(value, " \t")})
	return nil
}

func (m *Message) parseStartLine(line string) error {
	if strings.ContainsAny(line, "\r\n") {
		return errors.New("bare CR or LF in the start line")
	}
	if len(line) > 8 && strings.EqualFold(line[:8], "SIP/2.0 ") {
		code, reason, _ := strings.Cut(line[8:], " ")
		n, err := strconv.ParseUint(code, 10, 16)
		if err != nil || len(code) != 3 || n < 100 || n > 699 {
			return errors.New("status line without a status code from 100 to 699")
		}
		m.Status, m.Reason = int(n), reason
		return nil
	}
	part := strings.Split(line, " ")
	if len(part) != 3 || !strings.EqualFold(part[2], "SIP/2.0") {
		return errors.New("start line is neither of SIP 2.0 request nor response")
	}
	if !isToken(part[0]) || strings.IndexByte(part[1], ':') < 1 || strings.ContainsAny(part[1], "<>\"\t") {
		return errors.New("request line without method or URI")
	}
	m.Method, m.URI = part[0], part[1]
	return nil
}

// check makes sure that what every message needs is there exactly once.
func (m *Message) check() error {
	for _, name := range []string{"From", "To", "Call-ID", "CSeq"} {
		if n := m.count(name); n != 1 {
			return fmt.Errorf("%d header fields %s, exactly one is needed", n, name)
		}
	}
	if m.Get("Call-ID") == "" {
		return errors.New("empty Call-ID")
	}
	if !m.Has("Via") {
		return errVia
	}
	if m.count("Max-Forwards") > 1 {
		return errors.New("more than one Max-Forwards")
	}
	for _, name := range []string{"From", "To"} {
		a, err := cutAddress(m.Get(name))
		if err != nil {
			return fmt.Errorf("header field %s: %w", name, err)
		}
		if tag, there := a.Params.Get("tag"); there && tag == "" {
			return fmt.Errorf("header field %s: empty tag", name) // of no dialog, or of one: two readings
		}
	}
	return nil
}

func (m *Message) contentLength() (int, error) {
	n := -1
	for _, h := range m.Headers {
		if !sameName(h.Name, "Content-Length") {
			continue
		}
		v, err := strconv.ParseUint(h.Value, 10, 31)
		if err != nil {
			return 0, errors.New("Content-Length is no number")
		}
		if n >= 0 && n != int(v) {
			return 0, errors.New("two differing Content-Length")
		}
		n = int(v)
	}
	return n, nil
}

// Frozen returns a message that can only be sent, for those that are kept to be
// sent again: its text alone, which keeps nothing of the message it was made from.
func (m *Message) Frozen() *Message {
	return &Message{Method: m.Method, Status: m.Status, frozen: string(m.Append(make([]byte, 0, 1024)))}
}

// Append writes the message behind dst. Content-Length is made to fit the body.
func (m *Message) Append(dst []byte) []byte {
	if m.frozen != "" {
		return append(dst, m.frozen...)
	}
	if m.IsRequest() {
		dst = append(dst, m.Method...)
		dst = append(dst, ' ')
		dst = append(dst, m.URI...)
		dst = append(dst, " SIP/2.0\r\n"...)
	} else {
		dst = append(dst, "SIP/2.0 "...)
		dst = strconv.AppendInt(dst, int64(m.Status), 10)
		dst = append(dst, ' ')
		dst = append(dst, m.Reason...)
		dst = append(dst, "\r\n"...)
	}
	length := strconv.Itoa(len(m.Body))
	seen := false
	for _, h := range m.Headers {
		if sameName(h.Name, "Content-Length") {
			if seen {
				continue
			}
			seen, h.Value = true, length
		}
		dst = appendHeader(dst, h.Name, h.Value)
	}
	if !seen {
		dst = appendHeader(dst, "Content-Length", length)
	}
	dst = append(dst, "\r\n"...)
	return append(dst, m.Body...)
}

// SizeAtLeast says how many bytes Append writes, but for a Content-Length that it adds.
func (m *Message) SizeAtLeast() int {
	n := len(m.frozen) + len("SIP/2.0 \r\n") + len(m.Method) + len(m.URI) + len(m.Reason) + len(m.Body) + len("\r\n")
	for i := range m.Headers {
		n += len(m.Headers[i].Name) + len(m.Headers[i].Value) + len(": \r\n")
	}
	return n
}

func appendHeader(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}

// Clone copies m so that its header fields can be changed. The body is shared.
func (m *Message) Clone() *Message {
	c := *m
	c.Headers = append(make([]Header, 0, len(m.Headers)+2), m.Headers...)
	return &c
}

// Text returns the whole message as it is sent.
func (m *Message) Text() string {
	if m.frozen != "" {
		return m.frozen
	}
	return string(m.Append(make([]byte, 0, 1024)))
}

// FromText returns a message that can only be sent, of what Text returned.
func FromText(text string) *Message { return &Message{frozen: text} }
