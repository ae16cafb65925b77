package siptest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Header is one header field, as it stands on the wire.
type Header struct{ Name, Value string }

// Message is a SIP request or response. Header fields keep their order and
// their bytes; nothing is interpreted before it is asked for.
type Message struct {
	Method     string // of a request
	RequestURI string // of a request
	Code       int    // of a response; 0: a request
	Reason     string // of a response

	Headers []Header
	Body    []byte
}

// errPartial: more bytes of a stream are needed.
var errPartial = errors.New("message is not complete")

const (
	headBytesMax = 64 << 10
	bodyBytesMax = 1 << 20
)

// compact forms of header field names (RFC 3261 section 7.3.3 and later ones).
var compact = map[string]string{
	"i": "call-id", "m": "contact", "e": "content-encoding", "l": "content-length", "c": "content-type",
	"f": "from", "s": "subject", "k": "supported", "t": "to", "v": "via", "o": "event", "r": "refer-to",
	"u": "allow-events", "x": "session-expires",
}

func sameName(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	if long, ok := compact[a]; ok {
		a = long
	}
	if long, ok := compact[b]; ok {
		b = long
	}
	return a == b
}

// Get returns the value of the first header field of that name, "" without one.
func (m *Message) Get(name string) string {
	for _, h := range m.Headers {
		if sameName(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

// Values returns the values of all header fields of that name, one per line of
// the message (lists within one line are not split).
func (m *Message) Values(name string) []string {
	var out []string
	for _, h := range m.Headers {
		if sameName(h.Name, name) {
			out = append(out, h.Value)
		}
	}
	return out
}

// Add appends a header field.
func (m *Message) Add(name, value string) { m.Headers = append(m.Headers, Header{name, value}) }

// Set replaces the first header field of that name or appends one.
func (m *Message) Set(name, value string) {
	for i := range m.Headers {
		if sameName(m.Headers[i].Name, name) {
			m.Headers[i].Value = value
			return
		}
	}
	m.Add(name, value)
}

// IsRequest says whether it is a request.
func (m *Message) IsRequest() bool { return m.Code == 0 }

// StartLine is the first line of the message, without its end.
func (m *Message) StartLine() string {
	if m.IsRequest() {
		return m.Method + " " + m.RequestURI + " SIP/2.0"
	}
	return "SIP/2.0 " + strconv.Itoa(m.Code) + " " + m.Reason
}

// Bytes is the message as it goes on the wire, with a true Content-Length.
func (m *Message) Bytes() []byte {
	var b bytes.Buffer
	b.WriteString(m.StartLine() + "\r\n")
	for _, h := range m.Headers {
		if !sameName(h.Name, "Content-Length") {
			b.WriteString(h.Name + ": " + h.Value + "\r\n")
		}
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(m.Body))
	b.Write(m.Body)
	return b.Bytes()
}

// CSeq returns the number and the method of the CSeq header field.
func (m *Message) CSeq() (uint32, string) {
	number, method, _ := strings.Cut(strings.TrimSpace(m.Get("CSeq")), " ")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, ""
	}
	return uint32(n), strings.TrimSpace(method)
}

// ParseMessage parses one datagram. What follows the body that Content-Length
// names is ignored (RFC 3261 section 18.3).
func ParseMessage(b []byte) (*Message, error) {
	m, _, err := parse(b, false)
	return m, err
}

// parse returns the message at the start of b and its length. On a stream a
// message without Content-Length has no body, and errPartial asks for more.
func parse(b []byte, stream bool) (*Message, int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if stream && len(b) <= headBytesMax {
			return nil, 0, errPartial
		}
		return nil, 0, errors.New("no empty line ends the header")
	}
	m, err := parseHead(string(b[:end]))
	if err != nil {
		return nil, 0, err
	}
	body := b[end+4:]
	length := len(body)
	if stream {
		length = 0
	}
	if v := m.Get("Content-Length"); v != "" {
		length, err = strconv.Atoi(strings.TrimSpace(v))
		if err != nil || length < 0 || length > bodyBytesMax {
			return nil, 0, fmt.Errorf("Content-Length %q is no length of at most %d", v, bodyBytesMax)
		}
	}
	if length > len(body) {
		if stream {
			return nil, 0, errPartial
		}
		return nil, 0, fmt.Errorf("body of %d bytes where Content-Length says %d", len(body), length)
	}
	m.Body = bytes.Clone(body[:length])
	return m, end + 4 + length, nil
}

func parseHead(head string) (*Message, error) {
	lines := strings.Split(head, "\r\n")
	m := &Message{}
	if err := m.parseStart(lines[0]); err != nil {
		return nil, err
	}
	for _, line := range lines[1:] {
		if line != "" && (line[0] == ' ' || line[0] == '\t') && len(m.Headers) > 0 {
			last := &m.Headers[len(m.Headers)-1]
			last.Value += " " + strings.TrimSpace(line)
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, fmt.Errorf("header line %q has no name", line)
		}
		m.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return m, nil
}

func (m *Message) parseStart(line string) error {
	if rest, ok := strings.CutPrefix(line, "SIP/2.0 "); ok {
		code, reason, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(code)
		if err != nil || n < 100 || n > 699 {
			return fmt.Errorf("status line %q has no code", line)
		}
		m.Code, m.Reason = n, reason
		return nil
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || parts[2] != "SIP/2.0" || parts[0] == "" || parts[1] == "" {
		return fmt.Errorf("%q is no start line of SIP/2.0", line)
	}
	m.Method, m.RequestURI = parts[0], parts[1]
	return nil
}

// Param returns a parameter of a header field value that stands outside the
// angle brackets, such as the tag of From.
func Param(value, name string) string {
	if i := strings.LastIndexByte(value, '>'); i >= 0 {
		value = value[i+1:]
	}
	for p := range strings.SplitSeq(value, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}

// URI returns the URI of a name-addr or addr-spec header field value.
func URI(value string) string {
	if i := strings.IndexByte(value, '<'); i >= 0 {
		rest := value[i+1:]
		if j := strings.IndexByte(rest, '>'); j >= 0 {
			return rest[:j]
		}
	}
	uri, _, _ := strings.Cut(value, ";")
	return strings.TrimSpace(uri)
}
