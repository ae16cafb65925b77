package sip

import (
	"errors"
	"net"
	"strconv"
	"strings"
)

// Params are the parameters of a URI or of a header field, verbatim with the
// semicolon before each.
type Params string

// Get returns the value of a parameter, without quotes, and whether it is there.
func (p Params) Get(name string) (string, bool) {
	for rest := string(p); rest != ""; {
		var one string
		one, rest, _ = cutOutside(rest, ';')
		key, value, _ := strings.Cut(one, "=")
		if strings.EqualFold(strings.TrimSpace(key), name) {
			return strings.Trim(strings.TrimSpace(value), `"`), true
		}
	}
	return "", false
}

// Without returns p without the named parameters.
func (p Params) Without(names ...string) Params {
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

// ParseURI reads a sip or sips URI.
func ParseURI(s string) (URI, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(scheme, "sip") && !strings.EqualFold(scheme, "sips") {
		return URI{}, ErrScheme
	}
	u := URI{Scheme: scheme}
	// The user part may hold ';' and '?', the rest no '@' (RFC 3261 section 25.1).
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		u.User, rest = rest[:i], rest[i+1:]
	}
	if i := strings.IndexByte(rest, '?'); i >= 0 {
		u.Query, rest = rest[i:], rest[:i]
	}
	if i := strings.IndexByte(rest, ';'); i >= 0 {
		u.Params, rest = Params(rest[i:]), rest[:i]
	}
	var err error
	u.Host, u.Port, err = splitHostPort(rest)
	return u, err
}

// String writes u.
func (u URI) String() string {
	var b strings.Builder
	b.WriteString(u.Scheme + ":")
	if u.User != "" {
		b.WriteString(u.User + "@")
	}
	b.WriteString(joinHostPort(u.Host, u.Port))
	b.WriteString(string(u.Params) + u.Query)
	return b.String()
}

// Address is a name-addr or addr-spec with the parameters of the header field
// (RFC 3261 section 20.10).
type Address struct {
	Name   string // display name as written, with its quotes
	URI    string
	Params Params
}

// ParseAddress reads the value of From, To, Contact, Route and the like.
func ParseAddress(s string) (Address, error) {
	open := indexOutsideQuotes(s, '<')
	if open < 0 {
		uri, params, found := strings.Cut(s, ";")
		uri = strings.TrimSpace(uri)
		if strings.IndexByte(uri, ':') < 1 || strings.ContainsAny(uri, " \t\"<>,") {
			return Address{}, errors.New("no URI in an address")
		}
		a := Address{URI: uri}
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
	return Address{Name: strings.TrimSpace(s[:open]), URI: uri, Params: Params(after)}, nil
}

// Param returns a parameter of the header field.
func (a Address) Param(name string) (string, bool) { return a.Params.Get(name) }

// DisplayName returns the name without quotes and escapes.
func (a Address) DisplayName() string {
	n := a.Name
	if len(n) < 2 || n[0] != '"' || n[len(n)-1] != '"' {
		return n
	}
	var b strings.Builder
	for i := 1; i < len(n)-1; i++ {
		if n[i] == '\\' && i+1 < len(n)-1 {
			i++
		}
		b.WriteByte(n[i])
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

func splitHostPort(s string) (host string, port int, err error) {
	digits := ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || end+1 < len(s) && s[end+1] != ':' {
			return "", 0, errors.New("IPv6 address without closing bracket")
		}
		host = s[1:end]
		if net.ParseIP(strings.SplitN(host, "%", 2)[0]) == nil {
			return "", 0, errors.New("no IPv6 address between brackets")
		}
		if end+1 < len(s) {
			digits = s[end+2:]
		}
	} else {
		var found bool
		host, digits, found = strings.Cut(s, ":")
		host = strings.TrimSpace(host)
		if found && digits == "" {
			return "", 0, errors.New("empty port")
		}
	}
	if host == "" || strings.ContainsAny(host, " \t<>\"@;,/") {
		return "", 0, errors.New("no host")
	}
	if digits = strings.TrimSpace(digits); digits != "" {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || n == 0 {
			return "", 0, errors.New("port is no number from 1 to 65535")
		}
		port = int(n)
	}
	return host, port, nil
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

// splitList takes a comma-separated list apart; commas in quotes and in angle
// brackets belong to an element.
func splitList(s string) (out []string) {
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
