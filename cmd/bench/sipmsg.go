package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// sipMessage is as much of a SIP message (RFC 3261 section 7) as the parties of
// the benchmark need: they talk to themselves and to trunktap, in UDP datagrams.
type sipMessage struct {
	method  string // of a request; empty for a response
	uri     string
	status  int // of a response
	headers []sipHeader
	body    string
}

type sipHeader struct{ name, value string } // name in lower case and long

// longNames of the compact forms, RFC 3261 section 7.3.3.
var longNames = map[string]string{
	"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact", "l": "content-length", "c": "content-type",
}

var errSIP = errors.New("not a SIP message")

// parseSIP reads one datagram.
func parseSIP(datagram []byte) (*sipMessage, error) {
	head, body, ok := strings.Cut(string(datagram), "\r\n\r\n")
	if !ok {
		return nil, fmt.Errorf("%w: no empty line", errSIP)
	}
	first, rest, _ := strings.Cut(head, "\r\n")
	m := &sipMessage{body: body}
	f := strings.SplitN(first, " ", 3)
	switch {
	case len(f) >= 2 && f[0] == "SIP/2.0":
		n, err := strconv.Atoi(f[1])
		if err != nil || n < 100 || n > 699 {
			return nil, fmt.Errorf("%w: status %q", errSIP, f[1])
		}
		m.status = n
	case len(f) == 3 && f[2] == "SIP/2.0":
		m.method, m.uri = f[0], f[1]
	default:
		return nil, fmt.Errorf("%w: first line", errSIP)
	}
	for _, line := range strings.Split(rest, "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			continue // a folded line: nothing that we need is folded
		}
		name = strings.ToLower(strings.TrimSpace(name))
		if long, ok := longNames[name]; ok {
			name = long
		}
		m.headers = append(m.headers, sipHeader{name, strings.TrimSpace(value)})
	}
	return m, nil
}

// get returns the first header field of that name.
func (m *sipMessage) get(name string) string {
	for _, h := range m.headers {
		if h.name == name {
			return h.value
		}
	}
	return ""
}

// cseqMethod is the method that a response answers.
func (m *sipMessage) cseqMethod() string {
	_, method, _ := strings.Cut(m.get("cseq"), " ")
	return strings.TrimSpace(method)
}

// contact is the URI of Contact, to which requests within the dialog go.
func (m *sipMessage) contact() string {
	c := m.get("contact")
	if _, after, ok := strings.Cut(c, "<"); ok {
		c, _, _ = strings.Cut(after, ">")
	}
	return c
}

// callName is the Call-ID of a call of a run, from which callNumber finds it.
func callName(run string, call int) string { return fmt.Sprintf("%s-%d@bench", run, call) }

func callNumber(run, callID string) (int, bool) {
	digits, ok := strings.CutPrefix(strings.TrimSuffix(callID, "@bench"), run+"-")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil
}

// dialogText is what all requests of the caller in one call share.
type dialogText struct {
	run    string
	call   int
	local  netip.AddrPort
	server netip.AddrPort
	to     string // To with its tag, once there is one
	target string // Contact of the callee, once known
}

// request writes a request of the caller.
func (d *dialogText) request(method string, cseq int, body string) []byte {
	to, uri := d.to, d.target
	if to == "" {
		to = fmt.Sprintf("<sip:agent%d@%s>", d.call, d.server)
	}
	if uri == "" {
		uri = fmt.Sprintf("sip:agent%d@%s", d.call, d.server)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK-%s-%d-%s\r\nMax-Forwards: 70\r\n", method, uri, d.local, d.run, d.call, method)
	fmt.Fprintf(&b, "From: <sip:caller%d@%s>;tag=c%d\r\nTo: %s\r\nCall-ID: %s\r\n", d.call, d.local.Addr(), d.call, to, callName(d.run, d.call))
	seq := method
	fmt.Fprintf(&b, "CSeq: %d %s\r\nContact: <sip:caller@%s>\r\n", cseq, seq, d.local)
	writeBody(&b, body)
	return []byte(b.String())
}

func writeBody(b *strings.Builder, body string) {
	if body != "" {
		b.WriteString("Content-Type: application/sdp\r\n")
	}
	fmt.Fprintf(b, "Content-Length: %d\r\n\r\n%s", len(body), body)
}

// response writes the callee's answer to a request.
func (m *sipMessage) response(status int, reason string, local netip.AddrPort, tag, body string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "SIP/2.0 %d %s\r\n", status, reason)
	for _, h := range m.headers {
		switch h.name {
		case "via":
			fmt.Fprintf(&b, "Via: %s\r\n", h.value)
		case "record-route":
			fmt.Fprintf(&b, "Record-Route: %s\r\n", h.value)
		case "from":
			fmt.Fprintf(&b, "From: %s\r\n", h.value)
		case "call-id":
			fmt.Fprintf(&b, "Call-ID: %s\r\n", h.value)
		case "cseq":
			fmt.Fprintf(&b, "CSeq: %s\r\n", h.value)
		case "to":
			if !strings.Contains(h.value, ";tag=") && tag != "" {
				h.value += ";tag=" + tag
			}
			fmt.Fprintf(&b, "To: %s\r\n", h.value)
		}
	}
	fmt.Fprintf(&b, "Contact: <sip:callee@%s>\r\n", local)
	writeBody(&b, body)
	return []byte(b.String())
}
