package policy

import (
	"net/url"
	"strings"
)

// schemes of URIs that have a user part or are a number.
var schemes = []string{"sip:", "sips:", "tel:"}

// User returns the user part of a SIP URI (RFC 3261 section 19.1.1) or the
// number of a tel URI (RFC 3966), in the form in which users are compared: see
// Fold. A text without a scheme is taken for the user part itself.
func User(uri string) string {
	rest := uri
	for _, s := range schemes {
		if len(uri) < len(s) || !strings.EqualFold(uri[:len(s)], s) {
			continue
		}
		rest = uri[len(s):]
		at := strings.LastIndexByte(rest, '@')
		if at < 0 && s != "tel:" {
			return "" // a host alone
		}
		if at >= 0 {
			rest = rest[:at]
		}
		break
	}
	rest, _, _ = strings.Cut(rest, ";") // parameters of a number
	rest, _, _ = strings.Cut(rest, ":") // a password
	if plain, err := url.PathUnescape(rest); err == nil {
		rest = plain
	}
	return Fold(rest)
}

// Fold brings the user part of a URI into the form in which users are
// compared: lower case; a number without visual separators (RFC 3966 section
// 5.1.1) and spaces, with a leading + for 00. In a pattern * is kept.
func Fold(user string) string {
	user = strings.ToLower(user)
	digits := false
	for _, c := range user {
		switch {
		case '0' <= c && c <= '9':
			digits = true
		case strings.ContainsRune("+*#-.() ", c):
		default:
			return user
		}
	}
	if !digits {
		return user
	}
	number := strings.Map(func(c rune) rune {
		if strings.ContainsRune("-.() ", c) {
			return -1
		}
		return c
	}, user)
	if rest, ok := strings.CutPrefix(number, "00"); ok && rest != "" {
		return "+" + rest
	}
	return number
}

// address brings a whole SIP URI into the form in which URIs are compared:
// user@host, without port, parameters and header fields. False: it has no user.
func address(uri string) (string, bool) {
	user := User(uri)
	rest := uri
	for _, s := range schemes[:2] {
		if len(uri) >= len(s) && strings.EqualFold(uri[:len(s)], s) {
			rest = uri[len(s):]
		}
	}
	at := strings.LastIndexByte(rest, '@')
	if at < 0 || user == "" {
		return "", false
	}
	host := strings.ToLower(rest[at+1:])
	if end := strings.IndexAny(host, ";?>"); end >= 0 {
		host = host[:end]
	}
	if strings.HasPrefix(host, "[") {
		host, _, _ = strings.Cut(host, "]")
		return user + "@" + host + "]", true
	}
	host, _, _ = strings.Cut(host, ":")
	return user + "@" + host, true
}

// numbers is a set of users: exact ones and patterns with * for anything.
type numbers struct {
	exact    map[string]bool
	patterns []string
}

func newNumbers(list []string) numbers {
	n := numbers{exact: map[string]bool{}}
	for _, text := range list {
		if p := Fold(text); strings.Contains(p, "*") {
			n.patterns = append(n.patterns, p)
		} else {
			n.exact[p] = true
		}
	}
	return n
}

// has tells whether a folded user is in the set. The empty set has everybody.
func (n *numbers) has(user string) bool {
	if len(n.exact)+len(n.patterns) == 0 || n.exact[user] {
		return true
	}
	for _, p := range n.patterns {
		if matches(p, user) {
			return true
		}
	}
	return false
}

// matches tells whether text is what pattern says, in which * stands for any
// characters and none. Each piece is taken where it comes first, which is
// enough: the time grows with the product of the lengths at most.
func matches(pattern, text string) bool {
	first, rest, ok := strings.Cut(pattern, "*")
	if !ok {
		return pattern == text
	}
	text, ok = strings.CutPrefix(text, first)
	if !ok {
		return false
	}
	for {
		piece, more, again := strings.Cut(rest, "*")
		if !again {
			return strings.HasSuffix(text, piece)
		}
		at := strings.Index(text, piece)
		if at < 0 {
			return false
		}
		text, rest = text[at+len(piece):], more
	}
}
