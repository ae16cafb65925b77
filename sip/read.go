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
	via                         Via
	fromTag, toTag, method      string
	seq                         uint32
	viaOf, fromOf, toOf, cseqOf string
}

// finish joins the text of a message with what sipgo read of its excerpt.
func (m *Message) finish(msg sipgo.Message) error {
	via, from, to, cseq := msg.Via(), msg.From(), msg.To(), msg.CSeq()
	r := reading{viaOf: m.Get("Via"), fromOf: m.Get("From"), toOf: m.Get("To"), cseqOf: m.Get("CSeq")}
	r.via = viaFrom(via, r.viaOf)
	r.fromTag, r.toTag = within(r.fromOf, tagOf(from.Params)), within(r.toOf, tagOf(to.Params))
	r.seq, r.method = cseq.SeqNo, within(r.cseqOf, cseq.MethodName.String())
	m.read = r
	switch {
	case r.via.Host == "":
		return errVia
	case r.method == "":
		return errors.New("CSeq is not a number below 2**31 and a method")
	case m.IsRequest() && r.method != m.Method:
		return errors.New("method of CSeq differs from that of the request")
	}
	return nil
}

// within returns s as a part of text when it stands there, so that what sipgo
// made of the text need not be kept.
func within(text, s string) string {
	if i := strings.Index(text, s); i >= 0 {
		return text[i : i+len(s)]
	}
	return s
}

var errVia = errors.New("no Via, or one that cannot be read")

// viaFrom makes of what sipgo read of a Via what this package calls one; its
// Host is empty when it could not be read.
func viaFrom(h *sipgo.ViaHeader, text string) Via {
	v := Via{Transport: within(text, strings.ToUpper(h.Transport)), Host: within(text, h.Host), Port: h.Port}
	one := firstOf(text)
	if core, _, found := cutOutside(one, ';'); found {
		v.Params = Params(one[len(core):])
	}
	return v
}

// TopVia returns the first Via.
func (m *Message) TopVia() (Via, error) {
	text := m.Get("Via")
	v := m.read.via
	if m.read.viaOf != text || text == "" {
		v = viaFrom(readVia(text), text)
	}
	if v.Host == "" {
		return Via{}, errVia
	}
	return v, nil
}

// CSeq returns the number and the method of the CSeq header field.
func (m *Message) CSeq() (uint32, string) {
	v := m.Get("CSeq")
	if v != "" && m.read.cseqOf == v {
		return m.read.seq, m.read.method
	}
	h := readCSeq(v)
	return h.SeqNo, h.MethodName.String()
}

// FromTag returns the tag of the From header field, "" without one.
func (m *Message) FromTag() string {
	v := m.Get("From")
	if m.read.fromOf == v {
		return m.read.fromTag
	}
	return tagOf(readFrom(v).Params)
}

// ToTag returns the tag of the To header field, "" without one.
func (m *Message) ToTag() string {
	v := m.Get("To")
	if m.read.toOf == v {
		return m.read.toTag
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

// readFrom and readTo read what this package understands of From and To: the
// parameters. The address is kept as text.
func readFrom(v string) *sipgo.FromHeader { return &sipgo.FromHeader{Params: addressParams(v)} }

func readTo(v string) *sipgo.ToHeader { return &sipgo.ToHeader{Params: addressParams(v)} }

func addressParams(v string) sipgo.HeaderParams {
	a, _ := cutAddress(v) // precheck knows the form
	return a.Params.read()
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
	if !validHost(host) || port < 0 || port > 65535 {
		return false
	}
	if strings.IndexByte(host, ':') >= 0 {
		var bracketed bool
		if text, bracketed = strings.CutPrefix(text, "["); !bracketed {
			return false
		}
		host += "]"
	}
	rest, ok := strings.CutPrefix(text, host)
	if port == 0 {
		return ok && rest == ""
	}
	var digits [6]byte
	return ok && rest == string(strconv.AppendInt(append(digits[:0], ':'), int64(port), 10))
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

func joinHostPort(host string, port int) string { return string(appendHostPort(nil, host, port)) }

func appendHostPort(dst []byte, host string, port int) []byte {
	if strings.IndexByte(host, ':') >= 0 {
		dst = append(append(append(dst, '['), host...), ']')
	} else {
		dst = append(dst, host...)
	}
	if port == 0 {
		return dst
	}
	return strconv.AppendInt(append(dst, ':'), int64(port), 10)
}
