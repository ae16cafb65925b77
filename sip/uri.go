package sip

import (
	"errors"
	"net"
	"strings"

	sipgo "github.com/emiago/sipgo/sip"
)

// Params are the parameters of a URI or of a header field, verbatim with the
// semicolon before each.
type Params string

// Get returns the value of a parameter, without quotes, and whether it is there.
func (p Params) Get(name string) (string, bool) {
	if p.plain() {
		return p.find(name)
	}
	return param(p.read(), name)
}

// plain says whether p is nothing but ";name" and ";name=value" without quotes,
// white space and empty names. Then find sees what read does, at no cost.
func (p Params) plain() bool {
	for i := 0; i < len(p); i++ {
		c := p[i]
		if c <= ' ' || c > '~' || c == '"' || c == ';' && (i+1 == len(p) || p[i+1] == ';' || p[i+1] == '=') {
			return false
		}
	}
	return p == "" || p[0] == ';'
}

// find returns the first of that name. Of several that are spelled alike the
// last counts, as in sipgo.
func (p Params) find(name string) (value string, found bool) {
	spelled := ""
	for rest := string(p); rest != ""; {
		one := rest[1:]
		rest = ""
		if i := strings.IndexByte(one, ';'); i >= 0 {
			one, rest = one[:i], one[i:]
		}
		key, v, _ := strings.Cut(one, "=")
		if found && key == spelled || !found && strings.EqualFold(key, name) {
			spelled, value, found = key, v, true
		}
	}
	return value, found
}

// read lets sipgo take the parameters apart.
func (p Params) read() (read sipgo.HeaderParams) {
	if p == "" {
		return nil
	}
	text := strings.TrimPrefix(settle(string(p)), ";")
	if _, err := sipgo.UnmarshalHeaderParams(text, ';', '\r', &read); err != nil {
		return nil
	}
	return read
}

// Without returns p without the named parameters.
func (p Params) Without(names ...string) Params {
	if p == "" {
		return p
	}
	var out strings.Builder
next:
	for rest := string(p); rest != ""; {
		var one string
		one, rest, _ = cutOutside(rest, ';')
		key, _, _ := strings.Cut(one, "=")
		key = strings.TrimSpace(key)
		if key == "" {
			continue
		}
		for _, n := range names {
			if strings.EqualFold(key, n) {
				continue next
			}
		}
		out.WriteString(";" + one)
	}
	return Params(out.String())
}

// URI is a sip or sips URI taken apart (RFC 3261 section 19.1). What is not
// named here is kept in its text.
type URI struct {
	Scheme string // as written
	User   string // with password, as written; empty without one
	Host   string // without brackets
	Port   int    // 0 when not given
	Params Params
	Query  string // headers, with the question mark
}

// ErrScheme is what ParseURI says to a URI that is neither sip nor sips.
var ErrScheme = errors.New("neither sip nor sips URI")

// ParseURI reads a sip or sips URI. Of user, parameters and headers it keeps the
// text; sipgo reads the rest, without them: it takes a bracket in a parameter
// for the host.
func ParseURI(s string) (URI, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(scheme, "sip") && !strings.EqualFold(scheme, "sips") {
		return URI{}, ErrScheme
	}
	u := URI{Scheme: scheme}
	// The user part may hold ';' and '?', the rest no '@' (RFC 3261 section 25.1).
	at := strings.LastIndexByte(rest, '@') + 1
	if at > 0 {
		u.User = rest[:at-1]
	}
	end := len(rest)
	if i := strings.IndexByte(rest[at:], '?'); i >= 0 {
		end = at + i
		u.Query = rest[end:]
	}
	if i := strings.IndexByte(rest[at:end], ';'); i >= 0 {
		u.Params = Params(rest[at+i : end])
		end = at + i
	}
	var read sipgo.Uri
	if err := sipgo.ParseUri("sip:"+rest[at:end], &read); err != nil {
		return URI{}, errors.New("no host and port in URI")
	}
	u.Host, u.Port = unbracket(read.Host), read.Port
	if !sentBy(rest[at:end], u.Host, u.Port) {
		return URI{}, errors.New("no host and port from 1 to 65535 in URI")
	}
	return u, nil
}

// String writes u.
func (u URI) String() string {
	b := append(append(make([]byte, 0, 96), u.Scheme...), ':')
	if u.User != "" {
		b = append(append(b, u.User...), '@')
	}
	b = appendHostPort(b, u.Host, u.Port)
	return string(append(append(b, u.Params...), u.Query...))
}

// Address is a name-addr or addr-spec with the parameters of the header field
// (RFC 3261 section 20.10).
type Address struct {
	Name   string // display name as written, with its quotes
	URI    string
	Params Params

	addr string // the text before Params
}

// ParseAddress reads the value of From, To, Contact, Route and the like.
func ParseAddress(s string) (Address, error) { return cutAddress(s) }

// cutAddress finds where the parts of an address begin and end, for their text
// and as what sipgo gets to read.
func cutAddress(s string) (Address, error) {
	open := indexOutsideQuotes(s, '<')
	if open < 0 {
		addr, params, found := strings.Cut(s, ";")
		uri := strings.TrimSpace(addr)
		if strings.IndexByte(uri, ':') < 1 || strings.ContainsAny(uri, " \t\"<>,") {
			return Address{}, errors.New("no URI in an address")
		}
		a := Address{URI: uri, addr: uri}
		if found {
			a.Params = Params(";" + params)
		}
		return a, nil
	}
	uri, after, ok := strings.Cut(s[open+1:], ">")
	if !ok || strings.IndexByte(uri, ':') < 1 {
		return Address{}, errors.New("no URI between angle brackets")
	}
	after = strings.TrimSpace(after)
	if after != "" && after[0] != ';' {
		return Address{}, errors.New("text after an address")
	}
	return Address{Name: strings.TrimSpace(s[:open]), URI: uri, Params: Params(after), addr: s[:open+len(uri)+2]}, nil
}

// Param returns a parameter of the header field.
func (a Address) Param(name string) (string, bool) { return a.Params.Get(name) }

// DisplayName returns the name without quotes and escapes.
func (a Address) DisplayName() string {
	if a.Name == "" {
		return ""
	}
	var uri sipgo.Uri
	display, _ := sipgo.ParseAddressValue(a.addr, &uri, nil) // ParseURI says whether the URI can be read
	if strings.IndexByte(display, '\\') < 0 {
		return display
	}
	var b strings.Builder
	for i := 0; i < len(display); i++ {
		if display[i] == '\\' && i+1 < len(display) {
			i++
		}
		b.WriteByte(display[i])
	}
	return b.String()
}

// String writes a, always with angle brackets.
func (a Address) String() string {
	if a.Name == "" {
		return "<" + a.URI + ">" + string(a.Params)
	}
	return a.Name + " <" + a.URI + ">" + string(a.Params)
}

// validHost says whether s, without brackets, can be a host.
func validHost(s string) bool {
	if strings.IndexByte(s, ':') >= 0 {
		ip, _, _ := strings.Cut(s, "%")
		return net.ParseIP(ip) != nil
	}
	return s != "" && !strings.ContainsAny(s, " \t<>\"@;,/[]")
}

func unbracket(host string) string { return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]") }

// SplitList takes a comma-separated list apart; commas in quotes and in angle
// brackets belong to an element.
func SplitList(s string) (out []string) {
	for s != "" {
		var one string
		one, s, _ = cutOutside(s, ',')
		if one = strings.TrimSpace(one); one != "" {
			out = append(out, one)
		}
	}
	return out
}

// cutOutside cuts at the first sep outside of quotes and angle brackets.
func cutOutside(s string, sep byte) (before, after string, found bool) {
	quoted, angle := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case c == sep && !angle:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func indexOutsideQuotes(s string, c byte) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case !quoted && s[i] == c:
			return i
		}
	}
	return -1
}

func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			continue
		}
		if strings.IndexByte("-.!%*_+`'~", c) < 0 {
			return false
		}
	}
	return s != ""
}
