package config

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // machines without a zone database judge a file as others do
	"unicode"
	"unicode/utf8"
)

const (
	textBytesMax = 256 // of every name that signals carry, too
	textWant     = "text of 1 to 256 bytes without control characters"
)

// textFault tells what is wrong with a name, nil when nothing is.
func textFault(text string) *wrong {
	switch {
	case text == "":
		return wrongf("the text is empty")
	case len(text) > textBytesMax:
		return wrongf("the text has %d bytes", len(text))
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return wrongf("the text holds a control character")
	}
	return nil
}

// quoted refuses what YAML would take for a number or a truth value.
func quoted(s scalar) *wrong {
	if s.kind != stringScalar {
		return wrongf("%v is no text, put it into quotes", s)
	}
	return textFault(s.text)
}

func text(target *string) *node {
	schema := map[string]any{"type": "string", "minLength": 1, "maxLength": textBytesMax}
	return leaf(target, textWant, schema, func(s scalar) (string, *wrong) { return s.text, quoted(s) })
}

// userPart tells what is wrong with a text that stands for the user part of a
// SIP URI (RFC 3261 section 19.1.1) or for a number.
func userPart(s scalar) *wrong {
	if w := quoted(s); w != nil {
		return w
	}
	if scheme, _, ok := strings.Cut(strings.ToLower(s.text), ":"); ok && (scheme == "sip" || scheme == "sips" || scheme == "tel") {
		return wrongf("%v is a URI", s)
	}
	if strings.ContainsAny(s.text, "@;<>\"") {
		return wrongf("%v is more than the user part of a URI", s)
	}
	return nil
}

const (
	patternWant = `a number or the user part of a SIP URI, in which * stands for anything, such as "+49 30 123*"; a leading 00 counts as +`
	addressWant = `a SIP URI or its user part, such as sip:alice@pbx.example.net or "1001"`
)

func pattern(target *string) *node {
	schema := map[string]any{"type": "string", "minLength": 1, "maxLength": textBytesMax, "pattern": `^[^@;<>"]+$`}
	return leaf(target, patternWant, schema, func(s scalar) (string, *wrong) {
		w := userPart(s)
		if w == nil && strings.Trim(s.text, " +-.()") == "" {
			w = wrongf("%v holds no character that counts", s)
		}
		return s.text, w
	})
}

var sipURIShape = regexp.MustCompile(`^(?i:sips?):[^@:;<>"\s]+@[^@;?<>"\s]+$`)

func address(target *string) *node {
	schema := map[string]any{"type": "string", "minLength": 1, "maxLength": textBytesMax, "pattern": `^[^;<>"]+$`}
	return leaf(target, addressWant, schema, func(s scalar) (string, *wrong) {
		scheme, rest, ok := strings.Cut(strings.ToLower(s.text), ":")
		switch {
		case quoted(s) != nil:
			return "", quoted(s)
		case !ok || scheme != "sip" && scheme != "sips":
			return s.text, userPart(s)
		case !strings.Contains(rest, "@"):
			return "", wrongf("%v has no user", s)
		case !sipURIShape.MatchString(s.text):
			return "", wrongf("%v is more than user and host", s)
		}
		return s.text, nil
	})
}

// codeDigitsMax bounds a code: a party that types half of it waits two seconds.
const codeDigitsMax = 8

var codeShape = regexp.MustCompile(`^[0-9*#A-D]{1,8}$`)

func code(target *string) *node {
	want := `1 to 8 digits of 0123456789*#ABCD in quotes, such as "*#0"`
	schema := map[string]any{"type": "string", "pattern": codeShape.String()}
	return leaf(target, want, schema, func(s scalar) (string, *wrong) {
		switch {
		case s.kind != stringScalar:
			return "", wrongf("%v is no text, put it into quotes", s)
		case len(s.text) > codeDigitsMax:
			return "", wrongf("the code has %d digits", len(s.text))
		case !codeShape.MatchString(s.text):
			return "", wrongf("%v is no code", s)
		}
		return s.text, nil
	})
}

var hoursShape = regexp.MustCompile(`^([01][0-9]|2[0-4]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])$`)

const dayMinutes = 24 * 60

func hours(target *Hours) *node {
	want := `hours and minutes in quotes, such as "08:00-18:00", or "22:00-06:00" over midnight`
	schema := map[string]any{"type": "string", "pattern": hoursShape.String()}
	return leaf(target, want, schema, func(s scalar) (Hours, *wrong) {
		m := hoursShape.FindStringSubmatch(s.text)
		if m == nil || s.kind != stringScalar {
			return Hours{}, wrongf("%v are no hours", s)
		}
		minutes := func(h, m string) int {
			a, _ := strconv.Atoi(h) // two digits each, by the shape
			b, _ := strconv.Atoi(m)
			return a*60 + b
		}
		h := Hours{minutes(m[1], m[2]), minutes(m[3], m[4])}
		switch {
		case h.End > dayMinutes || h.Begin >= dayMinutes:
			return Hours{}, wrongf("%v goes beyond 24:00", s)
		case h.Begin == h.End:
			return Hours{}, wrongf("%v is empty, a whole day is 00:00-24:00", s)
		}
		return h, nil
	})
}

func timeZone(target *string) *node {
	want := "a name of the IANA time zone database, such as Europe/Berlin, or UTC"
	schema := map[string]any{"type": "string", "minLength": 1}
	return leaf(target, want, schema, func(s scalar) (string, *wrong) {
		if _, err := time.LoadLocation(s.text); err != nil || s.kind != stringScalar || s.text == "" || s.text == "Local" {
			return "", wrongf("%v is no time zone", s)
		}
		return s.text, nil
	})
}

func sound(target *string) *node {
	schema := map[string]any{"type": "string", "pattern": `\.(wav|WAV)$`}
	return leaf(target, "the path of a WAV file, such as notice.wav", schema, func(s scalar) (string, *wrong) {
		switch {
		case s.kind != stringScalar || strings.ToLower(filepath.Ext(s.text)) != ".wav" || filepath.Base(s.text) == ".wav":
			return "", wrongf("%v is no WAV file", s)
		case strings.ContainsRune(s.text, 0):
			return "", wrongf("the path holds a zero byte")
		}
		return filepath.Clean(s.text), nil
	})
}

// tokenChars are those of a token of RFC 3261 section 25.1.
const tokenChars = "[A-Za-z0-9.!%*_+`'~-]"

var (
	tokenShape    = regexp.MustCompile("^" + tokenChars + "{1,256}$")
	mediaShape    = regexp.MustCompile("^" + tokenChars + "{1,127}/" + tokenChars + "{1,127}$")
	templateShape = regexp.MustCompile(`^\$(value|param:` + tokenChars + `+)$`)
)

// shaped is a text of some shape; what is its noun.
func shaped(target *string, shape *regexp.Regexp, what, want string) *node {
	schema := map[string]any{"type": "string", "pattern": shape.String()}
	return leaf(target, want, schema, func(s scalar) (string, *wrong) {
		switch {
		case s.kind != stringScalar:
			return "", wrongf("%v is no text, put it into quotes", s)
		case !shape.MatchString(s.text):
			return "", wrongf("%v is no %s", s, what)
		}
		return s.text, nil
	})
}

func token(target *string) *node {
	return shaped(target, tokenShape, "name of a header field", "the name of a SIP header field, such as X-Call-State")
}

func contentType(target *string) *node {
	return shaped(target, mediaShape, "content type", "type/subtype without parameters, such as application/json")
}

var pairKeyShape = regexp.MustCompile(`^[^=;&,\x00-\x1f\x7f]{1,256}$`)

func pairKey(target *string) *node {
	return shaped(target, pairKeyShape, "key", "1 to 256 characters without = ; & ,")
}

// template is a text of a signal or where it comes from; words are the texts
// that may stand there, nil: any.
func template(target *string, words []string) *node {
	want := textWant
	if words != nil {
		want = orList(words)
	}
	schema := map[string]any{"type": "string", "minLength": 1, "maxLength": textBytesMax}
	return leaf(target, want+", or $value, or $param:name", schema, func(s scalar) (string, *wrong) {
		w := quoted(s)
		switch {
		case w != nil:
		case strings.HasPrefix(s.text, "$"):
			if !templateShape.MatchString(s.text) {
				w = wrongf("%v is neither $value nor $param:name", s)
			}
		case words != nil && !slices.Contains(words, s.text):
			w = wrongf("%v is not known", s)
		}
		return s.text, w
	})
}

func hostPort(target *string) *node {
	schema := map[string]any{"type": "string", "pattern": ":[0-9]{1,5}$"}
	return leaf(target, "a host name or an IP address (IPv6 in brackets) and a port, such as 10.0.0.5:5038", schema, func(s scalar) (string, *wrong) {
		host, port, err := net.SplitHostPort(s.text)
		_, notIP := netip.ParseAddr(host)
		n, bad := strconv.ParseUint(port, 10, 16)
		switch {
		case s.kind != stringScalar || err != nil:
			return "", wrongf("%v is no host and port", s)
		case notIP != nil && (!hostShape.MatchString(host) || digitsOnly.MatchString(host)):
			return "", wrongf("%q in %v is no host name and no address", host, s)
		case bad != nil || n == 0:
			return "", wrongf("port %s in %v is no port", port, s)
		}
		return s.text, nil
	})
}

var channelShape = regexp.MustCompile(`^[A-Za-z0-9]+/[^/ \x00-\x1f]{0,200}$`)

func channel(target *string) *node {
	return shaped(target, channelShape, "channel", "technology/endpoint, such as PJSIP/carrier-a or PJSIP/carrier-*")
}

var eslUserShape = regexp.MustCompile(`^[^@: \x00-\x1f]{1,100}@[^@: \x00-\x1f]{1,100}$`)

func eslUser(target *string) *node {
	return shaped(target, eslUserShape, "user of a directory", "user@domain without a colon, such as trunktap@pbx.example.net")
}

func natsURL(target *string) *node {
	schema := map[string]any{"type": "string", "pattern": "^(nats|tls)://."}
	return leaf(target, "nats:// or tls:// and a host, such as nats://10.0.0.7:4222", schema, func(s scalar) (string, *wrong) {
		u, err := url.Parse(s.text)
		switch {
		case s.kind != stringScalar || err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "":
			return "", wrongf("%v is no URL of NATS", scalar{text: redacted(u)})
		case u.User != nil:
			return "", wrongf("the URL holds a login, which belongs to credentials_file, token_file or user")
		case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
			return "", wrongf("%v has more than a host and a port", s)
		}
		return s.text, nil
	})
}

// redacted is a URL without its password, for faults.
func redacted(u *url.URL) string {
	if u == nil {
		return "it"
	}
	return u.Redacted()
}

var (
	subjectShape  = regexp.MustCompile(`^[^\s.*>]+(\.[^\s.*>]+|\.\*)*(\.>)?$|^>$`)
	natsNameShape = regexp.MustCompile(`^[^ .*>/\\\x00-\x1f]{1,128}$`)
)

func subject(target *string) *node {
	return shaped(target, subjectShape, "subject", "a subject of NATS, such as trunktap.signals.>")
}

func natsName(target *string) *node {
	return shaped(target, natsNameShape, "name of JetStream", `up to 128 characters without white space and .*>/\`)
}
