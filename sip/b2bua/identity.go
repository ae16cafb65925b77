package b2bua

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"mime"
	"net/netip"
	"strings"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// Where a trunk hides the identity of its calls, a call is known by the caller's
// Call-ID and tags everywhere in this package; the callee's leg has others. What
// comes from that leg is translated as it comes (inward), what goes there as it
// goes (outward), so that nothing in between knows of it.
//
// CSeq numbers stay: they name nobody, and RAck, Event: refer;id and the matching
// of CANCEL and ACK hang on them.

// alias is the identity of a call on the callee's leg.
type alias struct {
	callID string
	tag    string // the caller's there

	forks []forkTag // appended by the owner under B2BUA.mu; dialogsMax at most

	// of the owner
	uris [2][2]string // of From and To, by leg and by party; of the callee's leg once the first request was sent
}

// forkTag is one callee's tag on both legs.
type forkTag struct{ callers, callees string }

// Legs of a call, named by the party at their end.
const (
	callersLeg = dialog.Caller
	calleesLeg = dialog.Callee
)

// secretBytes keys what identifiers are derived by.
const secretBytes = 32

// opaque derives an identifier of ours. The same parts give the same one, so that
// requests which belong together still do on the other leg: an INVITE that is
// repeated with credentials, the REGISTERs of one phone.
func (b *B2BUA) opaque(parts ...string) string {
	h := hmac.New(sha256.New, b.secret[:])
	for _, p := range parts {
		_, _ = h.Write([]byte(p)) // a hash never fails
		_, _ = h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// newAlias makes the identity that the callee gets to see.
func (b *B2BUA) newAlias(req *sip.Message) *alias {
	a := &alias{
		callID: b.opaque("call", req.CallID()),
		tag:    b.opaque("from", req.CallID(), req.FromTag()),
	}
	a.uris[callersLeg] = [2]string{dialog.Caller: uriOf(req.Get("From")), dialog.Callee: uriOf(req.Get("To"))}
	return a
}

func uriOf(v string) string {
	uri, _ := addressOf(v)
	return strings.Clone(uri)
}

// key is under which the call is found by what comes from the callee's leg.
func (a *alias) key() callKey { return callKey{a.callID, a.tag} }

// tagOn returns a party's tag on a leg from its tag on the other one; an unknown
// one stays.
func (c *call) tagOn(leg, party dialog.Party, tag string) string {
	a := c.alias
	if party == dialog.Caller {
		if leg == calleesLeg {
			return a.tag
		}
		return c.key.tag
	}
	for _, f := range a.forks {
		if leg == calleesLeg && f.callers == tag {
			return f.callees
		}
		if leg == callersLeg && f.callees == tag {
			return f.callers
		}
	}
	if leg == callersLeg && tag != "" && len(a.forks) < dialogsMax {
		return c.meet(tag)
	}
	return tag
}

// meet gives a callee that shows up a tag for the caller's leg.
func (c *call) meet(tag string) string {
	f := forkTag{c.b.opaque("to", c.key.callID, c.key.tag, tag), strings.Clone(tag)}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.alias.forks = append(c.alias.forks, f)
	c.tags = append(c.tags, f.callees)
	return f.callers
}

// inward makes of a message of the callee's leg one of the caller's. requester is
// who sent the request, or gets the response.
func (c *call) inward(m *sip.Message, requester dialog.Party) *sip.Message {
	m = m.Clone()
	c.translate(m, requester, callersLeg)
	return m
}

// outward makes of m, which is the caller's, a message of the callee's leg.
func (c *call) outward(m *sip.Message, requester dialog.Party) {
	c.translate(m, requester, calleesLeg)
}

func (c *call) translate(m *sip.Message, requester, leg dialog.Party) {
	id := c.key.callID
	if leg == calleesLeg {
		id = c.alias.callID
	}
	m.Set("Call-ID", id)
	m.Set("From", c.addressOn(leg, requester, m.Get("From")))
	m.Set("To", c.addressOn(leg, requester.Other(), m.Get("To")))
}

// addressOn returns a party's From or To on a leg from that on the other one.
func (c *call) addressOn(leg, party dialog.Party, v string) string {
	a, err := sip.ParseAddress(v)
	if err != nil {
		return v
	}
	if was := c.alias.uris[leg.Other()][party]; was != "" && a.URI == was {
		a.URI = c.alias.uris[leg][party]
	}
	if tag, ok := a.Param("tag"); ok {
		a.Params = a.Params.Without("tag") + sip.Params(";tag="+c.tagOn(leg, party, tag))
	}
	return a.String()
}

// introduce decides, with the first request, which addresses the callee gets to
// see in From and To.
func (c *call) introduce(x crossing) {
	for party, uri := range c.alias.uris[callersLeg] {
		c.alias.uris[calleesLeg][party] = c.hideHosts(uri, x)
	}
}

// inAnswerTo gives a response the identity of the request as it came: From, Call-ID
// and CSeq have to be the same (RFC 3261 section 8.2.6.2).
func inAnswerTo(raw, res *sip.Message) *sip.Message {
	res = res.Clone()
	to := raw.Get("To")
	if tag := res.ToTag(); raw.ToTag() == "" && tag != "" {
		to = withTag(to, tag)
	}
	res.Set("From", raw.Get("From"))
	res.Set("To", to)
	res.Set("Call-ID", raw.CallID())
	res.Set("CSeq", raw.Get("CSeq"))
	return res
}

// identities are the header fields whose hosts are hidden beside From, To and
// Contact: they name parties, by their side's addresses where it has no domain.
var identities = []string{
	"P-Asserted-Identity", "P-Preferred-Identity", "P-Called-Party-ID", "Remote-Party-ID",
	"Diversion", "History-Info", "Referred-By", "Reply-To", "P-Associated-URI", "P-Served-User", "Refer-Events-At", "Geolocation",
}

// pointers are lists of URIs where something is found: of any scheme, in angle brackets.
var pointers = []string{"Call-Info", "Alert-Info", "Error-Info"}

// technical are header fields that name hosts as such.
var technical = []string{"P-Charging-Vector", "P-Charging-Function-Addresses"}

// warnAgent stands in Warning for who gave it (RFC 3261 section 20.43: a name or a pseudonym).
const warnAgent = "trunktap"

// hideIdentities replaces addresses of one side in what passes to the other.
func (c *call) hideIdentities(m *sip.Message, x crossing) {
	keep := m.Headers[:0]
	for _, h := range m.Headers {
		switch {
		case is(h, identities):
			h.Value = c.hideHosts(h.Value, x)
		case is(h, pointers):
			if h.Value = c.hidePointers(h.Value, x); h.Value == "" {
				continue
			}
		case is(h, technical):
			h.Value = c.hideAddresses(h.Value, x)
		case h.Is("Warning"):
			h.Value = c.hideWarning(h.Value, x)
		}
		keep = append(keep, h)
	}
	clear(m.Headers[len(keep):])
	m.Headers = keep
}

// hidePointers hides the hosts of SIP URIs, and leaves out what leads to an address
// of the side by another scheme: nobody could reach that through us.
func (c *call) hidePointers(v string, x crossing) string {
	var keep []string
	for _, one := range sip.SplitList(c.hideHosts(v, x)) {
		if c.hideAddresses(one, x) == one || uriIn(one) >= 0 {
			keep = append(keep, one)
		}
	}
	return strings.Join(keep, ", ")
}

// hideWarning names nobody as who warns, and no address of the side in the text.
func (c *call) hideWarning(v string, x crossing) string {
	list := sip.SplitList(v)
	for i, one := range list {
		code, rest, _ := strings.Cut(strings.TrimSpace(one), " ")
		_, text, ok := strings.Cut(strings.TrimSpace(rest), " ")
		if !ok {
			text = `""`
		}
		list[i] = code + " " + warnAgent + " " + c.hideAddresses(strings.TrimSpace(text), x)
	}
	return strings.Join(list, ", ")
}

// hideAddresses replaces addresses of the side, wherever they stand in a text.
func (c *call) hideAddresses(v string, x crossing) string {
	const inAddress = "0123456789abcdefABCDEF.:"
	var out strings.Builder
	for rest := v; rest != ""; {
		n := 0
		for n < len(rest) && strings.IndexByte(inAddress, rest[n]) >= 0 {
			n++
		}
		if n == 0 {
			out.WriteByte(rest[0])
			rest = rest[1:]
			continue
		}
		out.WriteString(c.hideAddress(rest[:n], x))
		rest = rest[n:]
	}
	return out.String()
}

// hideAddress is hideAddresses for a run of digits, letters, dots and colons.
func (c *call) hideAddress(run string, x crossing) string {
	text := strings.TrimRight(run, ".:")
	addr, err := netip.ParseAddr(text)
	port := ""
	if err != nil {
		host, p, ok := strings.Cut(text, ":")
		if addr, err = netip.ParseAddr(host); !ok || err != nil {
			return run
		}
		port = ":" + p
	}
	if !c.belongs(x, addr.Unmap()) {
		return run
	}
	return x.there.Addr().WithZone("").String() + port + run[len(text):]
}

// hideBody leaves nothing in a body that says where the other side is. m is the message
// as it came.
func (c *call) hideBody(out, m *sip.Message, x crossing) {
	if len(out.Body) == 0 {
		return
	}
	kind, _, _ := mime.ParseMediaType(out.Get("Content-Type"))
	_, _, ok := description(m)
	if untouched := len(out.Body) == len(m.Body) && &out.Body[0] == &m.Body[0]; untouched && (ok || kind == "application/sdp") {
		c.log.Debug("a description that is none of this session is held back")
		out.Body = nil
		for _, name := range []string{"Content-Type", "Content-Disposition", "Content-Encoding", "Content-Language"} {
			out.Set(name)
		}
		return
	}
	out.Body = eachPart(out.Get("Content-Type"), out.Body, func(contentType string, body []byte) []byte {
		kind, _, _ := mime.ParseMediaType(contentType)
		switch {
		case kind == "message/sipfrag", kind == "message/sip":
			return []byte(c.hideHosts(string(withoutPlaces(contentType, body)), x))
		case strings.HasSuffix(kind, "+xml"), kind == "application/simple-message-summary":
			return []byte(c.hideHosts(string(body), x))
		}
		return body
	})
}

// hideHosts replaces addresses of a side, and ours on it, by ours on the other one.
// Names of domains stay: they belong to who is called, not to a place.
func (c *call) hideHosts(v string, x crossing) string {
	return replaceHosts(v, func(host netip.AddrPort) (string, bool) {
		return hostOf(x.there.Addr()), c.belongs(x, host.Addr())
	})
}

// belongs says whether an address is one of the side that a message comes from: a
// peer's, or ours towards them.
func (c *call) belongs(x crossing, addr netip.Addr) bool {
	return c.table.Allows(sip.Peer{Trunk: c.trunk, Side: x.from}, addr) ||
		addr == x.here.Addr() || addr == c.trunk.Sides[x.from].MediaAddr
}

func hostOf(addr netip.Addr) string {
	if addr = addr.WithZone(""); addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return addr.String()
}

// replaceHosts replaces host and port of the sip and sips URIs in a text where the
// host is an address and f returns another.
func replaceHosts(v string, f func(netip.AddrPort) (string, bool)) string {
	var out strings.Builder
	rest := v
	for {
		at := uriIn(rest)
		if at < 0 {
			break
		}
		end := at + strings.IndexAny(rest[at:]+">", uriEnd(rest[:at]))
		uri := rest[at:end]
		if host, from, to := hostIn(uri); host.IsValid() {
			if other, ok := f(host); ok {
				uri = uri[:from] + other + uri[to:]
			}
		}
		out.WriteString(rest[:at] + uri)
		rest = rest[end:]
	}
	if out.Len() == 0 {
		return v
	}
	return out.String() + rest
}

// uriEnd are the characters that end a URI, by the text before it: an apostrophe may
// stand in one, unless it began with one, as attributes of XML do.
func uriEnd(before string) string {
	const ends = "<> \t\r\n\""
	if scheme := strings.LastIndexByte(strings.TrimSuffix(before, ":"), '\''); scheme >= 0 && len(before)-scheme <= len("'sips:") {
		return ends + "'"
	}
	return ends
}

// uriIn returns where the first sip or sips URI in a text begins, behind its
// scheme; -1 without one.
func uriIn(s string) int {
	for i := 0; i+4 <= len(s); i++ {
		if s[i]|0x20 != 's' || i > 0 && isWord(s[i-1]) {
			continue
		}
		for _, scheme := range [2]string{"sip:", "sips:"} {
			if n := len(scheme); len(s)-i >= n && strings.EqualFold(s[i:i+n], scheme) {
				return i + n
			}
		}
	}
	return -1
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("+-.%", c) >= 0
}

// hostIn finds host and port in a URI without its scheme. The port of the result
// is 0 without one; the result is zero when the host is a name.
func hostIn(uri string) (host netip.AddrPort, from, to int) {
	end := strings.IndexByte(uri+"?", '?')
	from = strings.LastIndexByte(uri[:end], '@') + 1
	to = from + strings.IndexAny(uri[from:end]+";", ";,&")
	text := uri[from:to]
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), from, to
	}
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), 0), from, to
	}
	return netip.AddrPort{}, from, to
}

// plainUser says whether the user part of a Contact may pass: a number or a name,
// nothing that holds an address.
func plainUser(user string) bool {
	if len(user) > 64 || user == "" {
		return false
	}
	for i := range len(user) {
		if c := user[i]; !isWord(c) && c != '_' || c == '%' {
			return false
		}
	}
	_, err := netip.ParseAddr(user)
	return err != nil
}

// hideContact leaves of a Contact what the other side needs to talk to us.
func hideContact(m *sip.Message) {
	list := m.List("Contact")
	for i, v := range list {
		a, err := sip.ParseAddress(v)
		if err != nil {
			continue
		}
		u, err := sip.ParseURI(a.URI)
		if err != nil {
			continue
		}
		if !plainUser(u.User) {
			u.User = ""
		}
		transport, given := u.Params.Get("transport")
		if u.Params = ""; given {
			u.Params = sip.Params(";transport=" + transport)
		}
		a.URI, a.Name = u.String(), ""
		a.Params = a.Params.Without("+sip.instance", "reg-id", "pub-gruu", "temp-gruu")
		list[i] = a.String()
	}
	if len(list) > 0 {
		m.Set("Contact", list...)
	}
}

// hideRedirection lets the Contacts of a redirection lead over us.
func (c *call) hideRedirection(m *sip.Message, x crossing) {
	for i, h := range m.Headers {
		if h.Is("Contact") {
			m.Headers[i].Value = replaceHosts(h.Value, func(host netip.AddrPort) (string, bool) {
				return x.there.String(), c.belongs(x, host.Addr())
			})
		}
	}
}
