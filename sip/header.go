package sip

import "strings"

// compact holds the short forms of RFC 3261 section 7.3.3 and the registry.
var compact = map[byte]string{
	'a': "accept-contact", 'b': "referred-by", 'c': "content-type", 'd': "request-disposition",
	'e': "content-encoding", 'f': "from", 'i': "call-id", 'j': "reject-contact", 'k': "supported",
	'l': "content-length", 'm': "contact", 'n': "identity-info", 'o': "event", 'r': "refer-to",
	's': "subject", 't': "to", 'u': "allow-events", 'v': "via", 'x': "session-expires", 'y': "identity",
}

// sameName compares header field names: without regard to case, compact forms included.
func sameName(have, want string) bool {
	if len(have) == 1 {
		if long, ok := compact[have[0]|0x20]; ok && strings.EqualFold(long, want) {
			return true
		}
	}
	return len(have) == len(want) && strings.EqualFold(have, want)
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

// Has says whether there is a header field of that name.
func (m *Message) Has(name string) bool { return m.count(name) > 0 }

func (m *Message) count(name string) (n int) {
	for _, h := range m.Headers {
		if sameName(h.Name, name) {
			n++
		}
	}
	return n
}

// Fields returns the values of all header fields of that name, in order and verbatim.
func (m *Message) Fields(name string) (values []string) {
	for _, h := range m.Headers {
		if sameName(h.Name, name) {
			values = append(values, h.Value)
		}
	}
	return values
}

// List returns the elements of all header fields of that name, comma-separated
// ones taken apart (RFC 3261 section 7.3.1). Not for fields whose grammar has
// other commas (WWW-Authenticate and the like).
func (m *Message) List(name string) (elements []string) {
	for _, v := range m.Fields(name) {
		elements = append(elements, SplitList(v)...)
	}
	return elements
}

// HasToken says whether a list of tokens such as Require names token.
func (m *Message) HasToken(name, token string) bool {
	for _, e := range m.List(name) {
		if strings.EqualFold(e, token) {
			return true
		}
	}
	return false
}

// Add appends a header field.
func (m *Message) Add(name, value string) { m.Headers = append(m.Headers, Header{name, value}) }

// Set gives the header fields of that name new values, at the place of the
// first of them, in its spelling; where there was none, at the end. No values
// remove them.
func (m *Message) Set(name string, values ...string) {
	first, last, n := -1, -1, 0
	for i := range m.Headers {
		if sameName(m.Headers[i].Name, name) {
			if first < 0 {
				first = i
			}
			last = i
			n++
		}
	}
	switch {
	case n == 0:
		for _, v := range values {
			m.Add(name, v)
		}
		return
	case n == len(values) && last-first == n-1: // side by side: in their place
		for i, v := range values {
			m.Headers[first+i] = Header{m.Headers[first].Name, v}
		}
		return
	}
	spelling := m.Headers[first].Name
	out := make([]Header, 0, len(m.Headers)-n+len(values))
	for i, h := range m.Headers {
		if i == first {
			for _, v := range values {
				out = append(out, Header{spelling, v})
			}
		}
		if i < first || i > last || !sameName(h.Name, name) {
			out = append(out, h)
		}
	}
	m.Headers = out
}

// SetVia is Set for a Via of our own, which need not be read again.
func (m *Message) SetVia(v Via) {
	text := v.String()
	m.Set("Via", text)
	m.read.via, m.read.viaOf = v, text
}

// CallID returns the Call-ID.
func (m *Message) CallID() string { return m.Get("Call-ID") }

// ResponseTo begins a response to a request with what must be copied from it
// (RFC 3261 section 8.2.6.2).
func ResponseTo(req *Message, status int, reason string) *Message {
	res := &Message{Status: status, Reason: reason}
	for _, h := range req.Headers {
		for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
			if sameName(h.Name, name) {
				res.Headers = append(res.Headers, h)
			}
		}
		if status == 100 && sameName(h.Name, "Timestamp") {
			res.Headers = append(res.Headers, h)
		}
	}
	return res
}

// Via is one element of the Via header field.
type Via struct {
	Transport string // upper case as received: UDP, TCP, TLS
	Host      string // without brackets
	Port      int    // 0 when not given
	Params    Params
}

// Branch returns the branch parameter.
func (v Via) Branch() string {
	b, _ := v.Params.Get("branch")
	return b
}

// String writes v.
func (v Via) String() string {
	b := make([]byte, 0, 96)
	b = append(append(append(b, "SIP/2.0/"...), v.Transport...), ' ')
	return string(append(appendHostPort(b, v.Host, v.Port), v.Params...))
}
