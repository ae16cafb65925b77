package config

import (
	"path/filepath"
	"regexp"
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
		if s.kind == stringScalar && len(s.text) <= textBytesMax && sipURIShape.MatchString(s.text) {
			return s.text, nil
		}
		return s.text, userPart(s)
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
