package b2bua

import (
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// What names a dialog in a message names it as the sender knows it. Where that is
// the leg of a call whose identity is hidden, the other side knows the call by
// another name, which has to stand there instead. Names of dialogs that are not
// ours, or not hidden, pass as they are.

// masked are the hidden calls, by both of their Call-IDs.
type masked struct {
	n    atomic.Int64       // calls; 0: nothing has to be looked for
	byID map[string][]*call // guarded by B2BUA.mu
}

// mask makes a call's names known. b.mu is held.
func (b *B2BUA) mask(c *call) {
	if c.alias == nil {
		return
	}
	if b.masked.byID == nil {
		b.masked.byID = map[string][]*call{}
	}
	b.masked.n.Add(1)
	for _, id := range [2]string{c.key.callID, c.alias.callID} {
		b.masked.byID[id] = append(b.masked.byID[id], c)
	}
	b.calls[c.alias.key()] = append(b.calls[c.alias.key()], c)
}

// unmask forgets a call's names. b.mu is held.
func (b *B2BUA) unmask(c *call) {
	if c.alias == nil {
		return
	}
	b.masked.n.Add(-1)
	for _, id := range [2]string{c.key.callID, c.alias.callID} {
		drop(b.masked.byID, id, c)
	}
	drop(b.calls, c.alias.key(), c)
}

// drop takes a call out of one of the lists of a map; readers may hold the old list.
func drop[K comparable](m map[K][]*call, key K, c *call) {
	list := m[key]
	i := slices.Index(list, c)
	if i < 0 {
		return
	}
	list = append(append([]*call(nil), list[:i]...), list[i+1:]...)
	if m[key] = list; len(list) == 0 {
		delete(m, key)
	}
}

// renamed returns a dialog's Call-ID and tags on the other leg of a hidden call, of
// which the leg named is on the side from. All tags have to be known.
func (b *B2BUA) renamed(from media.Side, callID string, tags ...*string) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.masked.byID[callID] {
		leg, id := callersLeg, c.alias.callID
		if callID == c.alias.callID {
			leg, id = calleesLeg, c.key.callID
		}
		if c.at(leg) != from {
			continue
		}
		news := make([]string, len(tags))
		ok := true
		for i, tag := range tags {
			news[i], ok = c.otherTag(leg, *tag)
			if !ok {
				break
			}
		}
		if !ok {
			continue
		}
		for i, tag := range tags {
			*tag = news[i]
		}
		return id, true
	}
	return "", false
}

// otherTag returns what a tag on a leg is on the other one. B2BUA.mu is held.
func (c *call) otherTag(leg dialog.Party, tag string) (string, bool) {
	callers, callees := c.key.tag, c.alias.tag
	if leg == calleesLeg {
		callers, callees = callees, callers
	}
	if tag == callers {
		return callees, true
	}
	for _, f := range c.alias.forks {
		if leg == callersLeg && f.callers == tag {
			return f.callees, true
		}
		if leg == calleesLeg && f.callees == tag {
			return f.callers, true
		}
	}
	return "", false
}

// dialogTags are the parameters that hold tags of a dialog (RFC 3891, 3911, 4538,
// and the Event of RFC 4235).
var dialogTags = []string{"from-tag", "to-tag", "local-tag", "remote-tag"}

// rename replaces the names of dialogs in the header fields and the body of a
// message on its way from a side.
func (b *B2BUA) rename(m *sip.Message, from media.Side) {
	for i, h := range m.Headers {
		if v, ok := b.renamedIn(h, from); ok {
			m.Headers[i].Value = v
		}
	}
	if len(m.Body) > 0 {
		m.Body = b.renamedBody(m.Get("Content-Type"), m.Body, from)
	}
}

// renamedIn returns the new value of a header field; false when it stays.
func (b *B2BUA) renamedIn(h sip.Header, from media.Side) (string, bool) {
	switch {
	case h.Is("Replaces"), h.Is("Join"), h.Is("Target-Dialog"):
		return b.renamedDialog(h.Value, from)
	case h.Is("In-Reply-To"), h.Is("References"):
		return b.renamedIDs(h.Value, from)
	case h.Is("Refer-To"), h.Is("Referred-By"), h.Is("History-Info"), h.Is("Contact"):
		return b.renamedURIs(h.Value, from)
	case h.Is("Event"):
		return b.renamedEvent(h.Value, from)
	}
	return "", false
}

// renamedDialog reads "call-id;to-tag=…;from-tag=…".
func (b *B2BUA) renamedDialog(v string, from media.Side) (string, bool) {
	id, rest, _ := strings.Cut(v, ";")
	params := strings.Split(rest, ";")
	var at []int
	var tags []*string
	for i, p := range params {
		name, value, _ := strings.Cut(p, "=")
		if slices.ContainsFunc(dialogTags, func(t string) bool { return strings.EqualFold(t, strings.TrimSpace(name)) }) {
			value = strings.TrimSpace(value)
			at, tags = append(at, i), append(tags, &value)
		}
	}
	other, ok := b.renamed(from, strings.TrimSpace(id), tags...)
	if !ok {
		return "", false
	}
	for k, i := range at {
		name, _, _ := strings.Cut(params[i], "=")
		params[i] = name + "=" + *tags[k]
	}
	if rest == "" {
		return other, true
	}
	return other + ";" + strings.Join(params, ";"), true
}

// renamedIDs reads a list of Call-IDs, which may have parameters.
func (b *B2BUA) renamedIDs(v string, from media.Side) (string, bool) {
	list := strings.Split(v, ",")
	changed := false
	for i, one := range list {
		id, params, more := strings.Cut(one, ";")
		other, ok := b.renamed(from, strings.TrimSpace(id))
		if !ok {
			continue
		}
		if list[i], changed = " "+other, true; more {
			list[i] += ";" + params
		}
	}
	return strings.TrimSpace(strings.Join(list, ",")), changed
}

// renamedURIs reads the header fields in the URIs of a header field (RFC 3261
// section 19.1.1).
func (b *B2BUA) renamedURIs(v string, from media.Side) (string, bool) {
	at := strings.IndexByte(v, '?')
	if at < 0 {
		return "", false
	}
	var out strings.Builder
	changed := false
	for rest := v; ; {
		if at = strings.IndexByte(rest, '?'); at < 0 {
			out.WriteString(rest)
			return out.String(), changed
		}
		end := at + strings.IndexAny(rest[at:]+">", ">,\" ")
		fields := strings.Split(rest[at+1:end], "&")
		for i, f := range fields {
			if field, ok := b.renamedField(f, from); ok {
				fields[i], changed = field, true
			}
		}
		out.WriteString(rest[:at+1] + strings.Join(fields, "&"))
		rest = rest[end:]
	}
}

// renamedField reads "Replaces=…" as it stands in a URI.
func (b *B2BUA) renamedField(f string, from media.Side) (string, bool) {
	name, value, _ := strings.Cut(f, "=")
	text, err := url.PathUnescape(value)
	if err != nil {
		return "", false
	}
	h := sip.Header{Name: name, Value: text}
	var other string
	var ok bool
	if h.Is("Call-ID") {
		other, ok = b.renamed(from, text)
	} else {
		other, ok = b.renamedIn(h, from)
	}
	return name + "=" + escapeField(other), ok
}

// escapeField writes a header field's value as it may stand in a URI (RFC 3261
// section 25.1, hvalue).
func escapeField(v string) string {
	const hex = "0123456789ABCDEF"
	var out strings.Builder
	for i := range len(v) {
		c := v[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.!~*'()[]/?:+$", c) >= 0 {
			out.WriteByte(c)
			continue
		}
		out.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return out.String()
}

// renamedEvent reads the dialog that a subscription asks for (RFC 4235 section 3.2).
func (b *B2BUA) renamedEvent(v string, from media.Side) (string, bool) {
	params := strings.Split(v, ";")
	id := ""
	idAt := -1
	var at []int
	var tags []*string
	for i, p := range params {
		name, value, _ := strings.Cut(p, "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch name = strings.ToLower(strings.TrimSpace(name)); {
		case name == "call-id":
			id, idAt = value, i
		case slices.Contains(dialogTags, name):
			at, tags = append(at, i), append(tags, &value)
		}
	}
	if idAt < 0 {
		return "", false
	}
	other, ok := b.renamed(from, id, tags...)
	if !ok {
		return "", false
	}
	set := func(i int, value string) {
		name, _, _ := strings.Cut(params[i], "=")
		params[i] = name + `="` + value + `"`
	}
	set(idAt, other)
	for k, i := range at {
		set(i, *tags[k])
	}
	return strings.Join(params, ";"), true
}
