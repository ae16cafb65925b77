package sip

import (
	"errors"
	"strconv"
	"strings"

	sipgo "github.com/emiago/sipgo/sip"
)

// What the daemon understands of a message is read by sipgo. Three things stand
// around it. The lexical rules that it is lax about are settled first (settle):
// it takes quoted strings, white space around separators and empty parameters
// for something else than the grammar does. What it read is compared with the
// text (sentBy), so that nothing is understood that does not stand there. And
// the text itself is kept: it forgets quotes, the case of names and methods,
// and would write another message than the one that came.

// parser reads whole messages. Its header parsers cannot fail: a field that
// cannot be read is left empty, and check refuses the message.
var parser = sipgo.NewParser(sipgo.WithHeadersParsers(headerParsers()))

func headerParsers() sipgo.HeadersParser {
	library := sipgo.DefaultHeadersParser()
	via := func(_ []byte, v string) (sipgo.Header, error) { return readVia(v), nil }
	from := func(_ []byte, v string) (sipgo.Header, error) { return readFrom(v), nil }
	to := func(_ []byte, v string) (sipgo.Header, error) { return readTo(v), nil }
	return sipgo.HeadersParser{
		"via": via, "v": via, "from": from, "f": from, "to": to, "t": to,
		"cseq":           func(_ []byte, v string) (sipgo.Header, error) { return readCSeq(v), nil },
		"content-length": library["content-length"], "l": library["l"], // precheck has seen to it
	}
}

// reading is what sipgo read of a message, each beside the text it was read
// from: a field that was replaced since is read anew.
type reading struct {
	via                         *sipgo.ViaHeader
	from                        *sipgo.FromHeader
	to                          *sipgo.ToHeader
	cseq                        *sipgo.CSeqHeader
	viaOf, fromOf, toOf, cseqOf string
}

// finish joins the text of a message with what sipgo read of it.
func (m *Message) finish(msg sipgo.Message) error {
	m.Body = msg.Body()
	m.read = &reading{
		via: msg.Via(), from: msg.From(), to: msg.To(), cseq: msg.CSeq(),
		viaOf: m.Get("Via"), fromOf: m.Get("From"), toOf: m.Get("To"), cseqOf: m.Get("CSeq"),
	}
	switch method := m.read.cseq.MethodName.String(); {
	case m.read.via.Host == "":
		return errVia
	case method == "":
		return errors.New("CSeq is not a number below 2**31 and a method")
	case m.IsRequest() && method != m.Method:
		return errors.New("method of CSeq differs from that of the request")
	}
	return nil
}

var errVia = errors.New("no Via, or one that cannot be read")

// topVia returns the first Via; its Host is empty when it cannot be read.
func (m *Message) topVia() *sipgo.ViaHeader {
	v := m.Get("Via")
	if m.read != nil && m.read.viaOf == v {
		return m.read.via
	}
	return readVia(v)
}

// CSeq returns the number and the method of the CSeq header field.
func (m *Message) CSeq() (uint32, string) {
	v := m.Get("CSeq")
	if m.read != nil && m.read.cseqOf == v {
		return m.read.cseq.SeqNo, m.read.cseq.MethodName.String()
	}
	h := readCSeq(v)
	return h.SeqNo, h.MethodName.String()
}

// FromTag returns the tag of the From header field, "" without one.
func (m *Message) FromTag() string {
	v := m.Get("From")
	if m.read != nil && m.read.fromOf == v {
		return tagOf(m.read.from.Params)
	}
	return tagOf(readFrom(v).Params)
}

// ToTag returns the tag of the To header field, "" without one.
func (m *Message) ToTag() string {
	v := m.Get("To")
	if m.read != nil && m.read.toOf == v {
		return tagOf(m.read.to.Params)
	}
	return tagOf(readTo(v).Params)
}

// MaxForwards returns the hops that are left; false without a number.
func (m *Message) MaxForwards() (uint32, bool) {
	h, err := sipgo.DefaultHeadersParser()["max-forwards"](nil, m.Get("Max-Forwards"))
	if n, ok := h.(*sipgo.MaxForwardsHeader); ok && err == nil {
		return n.Val(), true
	}
	return 0, false
}

func tagOf(p sipgo.HeaderParams) string {
	tag, _ := param(p, "tag")
	return tag
}

// param looks a parameter up without regard to the case of its name (RFC 3261
// section 7.3.1), which sipgo heeds.
func param(p sipgo.HeaderParams, name string) (string, bool) {
	for _, kv := range p {
		if strings.EqualFold(kv.K, name) {
			return kv.V, true
		}
	}
	return "", false
}

func readFrom(v string) *sipgo.FromHeader {
	h := &sipgo.FromHeader{}
	h.DisplayName, h.Params, _ = readAddress(v, &h.Address) // precheck knows the form
	return h
}

func readTo(v string) *sipgo.ToHeader {
	h := &sipgo.ToHeader{}
	h.DisplayName, h.Params, _ = readAddress(v, &h.Address) // precheck knows the form
	return h
}

// readAddress reads a name-addr or addr-spec. A URI that sipgo cannot read is no
// error: the address is kept for its tag and its text.
func readAddress(v string, uri *sipgo.Uri) (display string, p sipgo.HeaderParams, err error) {
	a, err := cutAddress(v)
	if err != nil {
		return "", nil, err
	}
	display, _ = sipgo.ParseAddressValue(a.addr, uri, nil)
	return display, a.Params.read(), nil
}

// readCSeq returns a header without method when v is no CSeq.
func readCSeq(v string) *sipgo.CSeqHeader {
	if f := strings.Fields(v); len(f) == 2 && isToken(f[1]) {
		h, err := sipgo.DefaultHeadersParser()["cseq"](nil, f[0]+" "+f[1])
		if c, ok := h.(*sipgo.CSeqHeader); ok && err == nil {
			return c
		}
	}
	return &sipgo.CSeqHeader{}
}

// readVia reads the first element of a Via (RFC 3261 section 20.42); the header
// that it returns has no host when that cannot be read.
func readVia(v string) *sipgo.ViaHeader {
	one := firstOf(v)
	if core, _, _ := strings.Cut(one, ";"); strings.IndexByte(core, '"') >= 0 {
		return &sipgo.ViaHeader{} // quotes are for parameters
	}
	text := settle(one)
	h, err := sipgo.DefaultHeadersParser()["via"](nil, text)
	via, ok := h.(*sipgo.ViaHeader)
	if !ok || err != nil || !strings.EqualFold(via.ProtocolName, "SIP") || via.ProtocolVersion != "2.0" || via.Transport == "" {
		return &sipgo.ViaHeader{}
	}
	core, _, _ := strings.Cut(text, ";")
	if !sentBy(core[strings.LastIndexByte(core, ' ')+1:], via.Host, via.Port) {
		return &sipgo.ViaHeader{}
	}
	return via
}

// sentBy says whether text is that host and port, and both are possible. sipgo
// lets wrong ports and brackets pass in silence.
func sentBy(text, host string, port int) bool {
	return validHost(host) && port >= 0 && port <= 65535 && text == joinHostPort(host, port)
}

// settle makes of a text what sipgo reads as the grammar means it (RFC 3261
// section 25.1): quoted strings become tokens, white space around separators
// goes and other runs of it become one space, empty parameters go.
func settle(s string) string {
	if isSettled(s) {
		return s
	}
	out := make([]byte, 0, len(s))
	quoted := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		last := byte(';')
		if len(out) > 0 {
			last = out[len(out)-1]
		}
		switch {
		case quoted && c == '\\' && i+1 < len(s):
			i++
			out = append(out, '_')
		case c == '"':
			quoted = !quoted
		case quoted && !isToken(s[i:i+1]):
			out = append(out, '_')
		case quoted:
			out = append(out, c)
		case c == ' ' || c == '\t':
			if last != ' ' && !isSeparator(last) {
				out = append(out, ' ')
			}
		case isSeparator(c):
			if last == ' ' && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if c != ';' || len(out) == 0 || out[len(out)-1] != ';' {
				out = append(out, c)
			}
		default:
			out = append(out, c)
		}
	}
	return strings.TrimRight(string(out), " ")
}

func isSettled(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\t':
			return false
		case c == ' ' && (i == 0 || i+1 == len(s) || s[i+1] == ' ' || isSeparator(s[i-1]) || isSeparator(s[i+1])):
			return false
		case c == ';' && i > 0 && s[i-1] == ';':
			return false
		}
	}
	return true
}

func isSeparator(c byte) bool { return c == ';' || c == '/' || c == '=' || c == ':' || c == ',' }

// firstOf returns the first element of a comma-separated list.
func firstOf(s string) string {
	for s != "" {
		var one string
		if one, s, _ = cutOutside(s, ','); strings.TrimSpace(one) != "" {
			return strings.TrimSpace(one)
		}
	}
	return ""
}

func joinHostPort(host string, port int) string {
	if strings.IndexByte(host, ':') >= 0 {
		host = "[" + host + "]"
	}
	if port == 0 {
		return host
	}
	return host + ":" + strconv.Itoa(port)
}
