package callstate

import (
	"net/url"
	"slices"
	"strings"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
)

// Limits of links.
const (
	linkBytesMax    = 512 // of one; a longer one is left out
	linksMax        = 64  // of one call
	embeddedMax     = 16  // header fields in one URI that are looked at
	embeddedByteMax = 8192
)

// Kinds of links, the begin of their text.
const (
	linkCall     = "call-id:"
	linkDialog   = "dialog:" // a Call-ID and one of the dialog's tags
	linkSession  = "session-id:"
	linkReferral = "referred-by:"
	linkHeader   = "header:"
	linkUUI      = "uui:"
)

// nilSession is the UUID of a party that is not known yet (RFC 7989 section 4.2).
const nilSession = "00000000000000000000000000000000"

// links is a set of keys in the order in which they were found.
type links struct {
	keys []string
	left int // keys that were left out: too long, unreadable or too many
}

func (l *links) add(kind, name string) {
	key := kind + strings.TrimSpace(name)
	switch {
	case len(key) == len(kind), slices.Contains(l.keys, key):
	case len(l.keys) >= linksMax || !printable(key, linkBytesMax):
		l.left++
	default:
		l.keys = append(l.keys, key)
	}
}

// dialog adds the keys of the dialog that a header field names. A call knows
// itself by the tag of who began it, which is one of the two.
func (l *links) dialog(v string) {
	id, params, _ := strings.Cut(v, ";") // a Call-ID may hold quotes
	if id = strings.TrimSpace(id); id == "" {
		return
	}
	for _, param := range []string{"from-tag", "to-tag", "local-tag", "remote-tag"} {
		if tag := paramOf(";"+params, param); tag != "" {
			l.add(linkDialog, id+";"+tag)
		}
	}
}

// Links returns the keys of the calls and conversations that a message of a call
// names, for media.Session.Links. The first is "call-id:" and its own Call-ID.
//
// Then come "dialog:…;tag" with each tag of Replaces (RFC 3891), Join (RFC 3911)
// and Target-Dialog (RFC 4538): whoever knows a Call-ID alone belongs to no call;
// "call-id:…" of In-Reply-To, from a side that may name conversations; "session-id:…" of both UUIDs of Session-ID (RFC
// 7989); "referred-by:…" with the unique id of Referred-By (RFC 3892 section
// 4.3); and what the configuration names: "header:name:value" and
// "uui:key:value".
func (r *Rules) Links(m *sip.Message, from media.Side) []string {
	return r.orNone().linksOf(m, from).keys
}

func (r *Rules) linksOf(m *sip.Message, from media.Side) *links {
	l := &links{keys: []string{linkCall + m.CallID()}} // as it is, whatever it holds: others name it so
	r.collect(l, m, from)
	return l
}

// orNone makes the rules of the zero Config of nil.
func (r *Rules) orNone() *Rules {
	if r == nil {
		return &Rules{}
	}
	return r
}

// collect adds what a request says.
func (r *Rules) collect(l *links, m *sip.Message, from media.Side) {
	// A Call-ID may hold quotes and brackets: nothing but the separator counts.
	for _, name := range []string{"Replaces", "Join", "Target-Dialog"} {
		for _, v := range fieldsOf(m, name) {
			l.dialog(v)
		}
	}
	for _, v := range fieldsOf(m, "In-Reply-To") {
		if !r.convFrom.allows(from) {
			break // it asks for no dialog, so nobody checks what it names
		}
		for n := 0; v != "" && n < fieldsPerMessageMax; n++ {
			var id string
			id, v, _ = strings.Cut(v, ",")
			l.add(linkCall, id)
		}
	}
	for _, v := range fieldsOf(m, "Referred-By") {
		l.add(linkReferral, paramOf(v, "cid"))
	}
	r.session(l, m, from)
}

// session adds what a response may say as well: whose session this is.
func (r *Rules) session(l *links, m *sip.Message, from media.Side) {
	for _, v := range fieldsOf(m, "Session-ID") {
		local, _, _ := strings.Cut(v, ";")
		for _, id := range []string{local, paramOf(v, "remote")} {
			if id = sessionUUID(id); id != "" {
				l.add(linkSession, id)
			}
		}
	}
	if !r.convFrom.allows(from) {
		return
	}
	for _, name := range r.conversation {
		for _, v := range fieldsOf(m, name) {
			l.add(linkHeader+name+":", v)
		}
	}
	if r.uuiKey == "" {
		return
	}
	for _, text := range userData(m.Fields(r.uui.name)) {
		if r.uuiKey != "*" {
			text = valueOf(pairsOf(text), r.uuiKey)
		}
		l.add(linkUUI+strings.ToLower(r.uuiKey)+":", text)
	}
}

// sessionUUID returns a UUID as RFC 7989 section 5 writes it; "" when it is none
// or says that there is none yet.
func sessionUUID(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	hexadecimal := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') }) < 0
	if len(s) != len(nilSession) || !hexadecimal || s == nilSession {
		return ""
	}
	return s
}

func fieldsOf(m *sip.Message, name string) []string {
	f := m.Fields(name)
	return f[:min(len(f), fieldsPerMessageMax)]
}

// referred adds what the request that a REFER asks for will say: the header
// fields in its Refer-To (RFC 3515 section 2.1, RFC 3261 section 19.1.5).
func (r *Rules) referred(l *links, m *sip.Message, from media.Side) {
	to := m.Get("Refer-To")
	if a, err := sip.ParseAddress(to); err == nil {
		to = a.URI
	}
	asked := embedded(to)
	if id := asked.Get("Call-ID"); id != "" && r.convFrom.allows(from) {
		l.add(linkCall, id)
	}
	r.collect(l, asked, from)
}

// embedded returns the header fields in a URI.
func embedded(uri string) *sip.Message {
	m := &sip.Message{}
	query := ""
	if u, err := sip.ParseURI(uri); err == nil {
		query = strings.TrimPrefix(u.Query, "?")
	}
	if query == "" { // one that holds an "@", which should be escaped, is read as a user
		_, query, _ = strings.Cut(uri, "?")
	}
	if len(query) > embeddedByteMax {
		return m
	}
	for n := 0; query != "" && n < embeddedMax; n++ {
		var one string
		one, query, _ = strings.Cut(query, "&")
		if text, err := url.PathUnescape(one); err == nil {
			name, value, _ := strings.Cut(text, "=")
			m.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	return m
}
