package sip

import (
	"bytes"
	"slices"
	"strings"
)

// A request that cannot be taken is answered when it says whom to answer and
// what: its sender then learns at once what is wrong, and of whom, in place
// of repeating the request for half a minute (RFC 4475 asks for it in nearly all
// of its cases).

// lenientHead reads what an answer needs of a request that Parse refuses: nil
// when it is none, or an ACK, which is never answered. The first of each field
// counts, and lines that hold control characters do not.
func lenientHead(data []byte) *Message {
	if end := bytes.Index(data, []byte("\r\n\r\n")); end >= 0 {
		data = data[:end]
	}
	line, rest, _ := strings.Cut(string(data), "\n")
	part := strings.Fields(line)
	if len(part) < 2 || !isToken(part[0]) || part[0] == Ack || !strings.HasPrefix(strings.ToUpper(part[len(part)-1]), "SIP/") {
		return nil
	}
	m := &Message{Method: part[0], URI: part[len(part)-1]} // of the URI only the version is of use
	kept := false                                          // the line before
	for line := range strings.SplitSeq(rest, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if folded := strings.TrimLeft(line, " \t"); folded != line {
			if kept && clean(folded) {
				last := &m.Headers[len(m.Headers)-1]
				last.Value = strings.TrimLeft(last.Value+" "+folded, " ")
			}
			continue
		}
		kept = m.keep(line)
	}
	for _, name := range answered {
		if m.Get(name) == "" {
			return nil
		}
	}
	return m
}

// answered are the fields that a response copies (RFC 3261 section 8.2.6.2).
var answered = []string{"Via", "From", "To", "Call-ID", "CSeq"}

// keep takes a header line whose field an answer copies.
func (m *Message) keep(line string) bool {
	name, value, ok := strings.Cut(line, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !ok || !isToken(name) || !clean(value) || len(m.Headers) == headersMax {
		return false
	}
	for _, wanted := range answered {
		if sameName(name, wanted) && (wanted == "Via" || !m.Has(wanted)) {
			m.Headers = append(m.Headers, Header{wanted, value})
			return true
		}
	}
	return false
}

// clean says whether a value can be written into a message of ours.
func clean(value string) bool {
	return strings.IndexFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f || r == 0xfffd }) < 0
}

// refuse answers a request that cannot be taken, without a transaction (RFC
// 3261 section 8.2.7).
func (a *Agent) refuse(data []byte, why error, f Flow) {
	m := lenientHead(data)
	if m == nil {
		return
	}
	status, reason := 400, "Bad Request"
	if version := strings.ToUpper(m.URI); version != "SIP/2.0" {
		status, reason = 505, "Version Not Supported"
	} else if _, err := m.TopVia(); err != nil {
		return // nobody could tell what is answered
	}
	a.answerRefused(m, status, reason, why, f)
}

// answerRefused sends the answer to the source of the request.
func (a *Agent) answerRefused(m *Message, status int, reason string, why error, f Flow) {
	m.Flow = f
	MarkSource(m)
	res := &Message{Status: status, Reason: reason}
	for _, h := range m.Headers {
		if !slices.ContainsFunc(answered, func(name string) bool { return sameName(h.Name, name) }) {
			continue
		}
		if sameName(h.Name, "To") && tagOf(readTo(h.Value).Params) == "" {
			h.Value += ";tag=refused" // it begins nothing that another tag would have to be told from
		}
		res.Headers = append(res.Headers, h)
	}
	if why != nil && clean(why.Error()) {
		res.Add("Warning", `399 trunktap "`+strings.NewReplacer(`\`, "", `"`, "'").Replace(why.Error())+`"`)
	}
	a.Counters.Refusals.Add(1)
	_ = a.Send(res, ReplyFlow(m), nil) // counted there
}
