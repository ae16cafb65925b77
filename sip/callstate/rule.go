package callstate

import (
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/trunktap/trunktap/suppress"
)

// valueBytesMax bounds the values that are compared with patterns. A longer one
// matches nothing but "any".
const valueBytesMax = 4096

// rule makes a signal of a value.
type rule struct {
	key      string // of a User-to-User pair
	pattern  pattern
	event    suppress.Event
	fields   []field
	from     From
	onChange bool
}

// field is a text field of a signal with where its text comes from.
type field struct {
	name string
	kind byte // fieldLiteral, fieldValue, fieldParam
	text string
}

const (
	fieldLiteral byte = iota
	fieldValue
	fieldParam
)

// set puts text into the field of a signal.
func (f field) set(s *suppress.Signal, text string) {
	if f.name == "role" {
		s.Role = suppress.Role(strings.ToLower(text))
		return
	}
	*textOf(s, f.name) = text
}

// textOf is the text field of a signal that has that name in JSON; nil when
// there is none.
func textOf(s *suppress.Signal, name string) *string {
	switch name {
	case "flow":
		return &s.Flow
	case "queue":
		return &s.Queue
	case "user":
		return &s.User
	case "party":
		return &s.Party
	case "other":
		return &s.Other
	}
	return nil
}

// compile makes a rule of one entry; u has the fields of both kinds.
func (c *compiler) compile(entry string, u UserToUserRule) rule {
	r := rule{key: u.Key, event: u.Event, onChange: u.OnChange, pattern: newPattern(u.Value)}
	r.from = c.from(entry+".from", u.From, FromAny)
	c.r.onChange = c.r.onChange || u.OnChange
	if len(u.Value) > patternBytesMax {
		c.fault(entry+".value", "is longer than %d bytes", patternBytesMax)
	}
	c.checkEvent(entry+".event", u.Event)
	for _, f := range []struct{ name, text string }{
		{"flow", u.Flow}, {"queue", u.Queue}, {"user", u.User}, {"role", u.Role}, {"party", u.Party}, {"other", u.Other},
	} {
		if f.text == "" {
			continue
		}
		r.fields = append(r.fields, c.field(entry+"."+f.name, f.name, f.text))
	}
	return r
}

func (c *compiler) checkEvent(entry string, e suppress.Event) {
	var wrong *suppress.FieldError
	err := suppress.Signal{Event: e, At: time.Unix(0, 0), User: "of the rule"}.Validate()
	switch {
	case e == suppress.AttrsSet:
		c.fault(entry, "attrs.set needs attributes, which no rule can give; INFO can")
	case errors.As(err, &wrong):
		c.fault(entry, "%s", wrong.Msg)
	}
}

// field reads one template.
func (c *compiler) field(entry, name, text string) field {
	if text == "$value" {
		return field{name: name, kind: fieldValue}
	}
	if param, ok := strings.CutPrefix(text, "$param:"); ok {
		if !isToken(param) {
			c.fault(entry, "names no parameter after $param:")
		}
		return field{name: name, kind: fieldParam, text: param}
	}
	if strings.HasPrefix(text, "$") {
		c.fault(entry, "is not known, allowed are a text without $ at its begin, $value and $param:name")
	}
	f := field{name: name, text: text}
	if !f.valid(text) {
		c.fault(entry, "is no text of at most %d bytes, or no role that is known", textBytesMax)
	}
	return f
}

// valid says whether a signal may have the text in this field.
func (f field) valid(text string) bool {
	if f.name == "role" {
		return slices.Contains([]suppress.Role{
			suppress.RoleAgent, suppress.RoleConsult, suppress.RoleMonitor, suppress.RoleCoach, suppress.RoleBarge,
		}, suppress.Role(strings.ToLower(text)))
	}
	return printable(text, textBytesMax)
}

// printable says whether text is UTF-8 without control characters, and not too long.
func printable(text string, bytesMax int) bool {
	return len(text) <= bytesMax && utf8.ValidString(text) && strings.IndexFunc(text, unicode.IsControl) < 0
}

func (c *compiler) header(entry string, h HeaderRule) {
	c.name(entry+".header", h.Header)
	r := c.compile(entry, UserToUserRule{
		Value: h.Value, Event: h.Event, Flow: h.Flow, Queue: h.Queue, User: h.User, Role: h.Role,
		Party: h.Party, Other: h.Other, From: h.From, OnChange: h.OnChange,
	})
	same := func(g group) bool { return strings.EqualFold(g.name, h.Header) }
	i := slices.IndexFunc(c.r.headers, same)
	if i < 0 {
		i = len(c.r.headers)
		c.r.headers = append(c.r.headers, group{name: h.Header})
	}
	c.r.headers[i].rules = append(c.r.headers[i].rules, r)
}

func (c *compiler) userToUser(entry string, u UserToUserRule) {
	if u.Key == "" || len(u.Key) > patternBytesMax || strings.ContainsAny(u.Key, "=;&,") {
		c.fault(entry+".key", "is no key, wanted are 1 to %d bytes without = ; & ,", patternBytesMax)
	}
	c.r.uui.rules = append(c.r.uui.rules, c.compile(entry, u))
}

// signal makes the signal of a rule that matched. False when the message says
// something that no signal can hold: then a signal that suppresses goes without
// it, and any other is not made, so that what is in doubt stays closed.
func (r *rule) signal(source, value string, param func(name string) string, at time.Time) (suppress.Signal, bool) {
	s := suppress.Signal{V: 1, Event: r.event, At: at, Source: source}
	for _, f := range r.fields {
		text := f.text
		switch f.kind {
		case fieldValue:
			text = value
		case fieldParam:
			text = param(f.text)
		}
		switch {
		case text == "":
		case f.valid(text):
			f.set(&s, text)
		case !r.event.Suppresses():
			return s, false
		}
	}
	return s, true
}

// pattern is text in which * stands for any text, in lower case.
type pattern struct {
	any  bool
	text string
}

func newPattern(s string) pattern {
	return pattern{any: strings.Trim(s, "*") == "", text: strings.ToLower(s)}
}

// match compares without regard to case, in time that grows with the value's
// length times the pattern's at most.
func (p pattern) match(value string) bool {
	if p.any {
		return true
	}
	if len(value) > valueBytesMax {
		return false
	}
	parts := strings.Split(p.text, "*")
	rest, ok := strings.CutPrefix(strings.ToLower(value), parts[0])
	if len(parts) == 1 {
		return ok && rest == ""
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		if !ok {
			return false
		}
		_, rest, ok = strings.Cut(rest, part)
	}
	return ok && strings.HasSuffix(rest, parts[last])
}

// cutText cuts s at the first of seps outside of quotes and angle brackets.
func cutText(s, seps string) (before, after string, found bool) {
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
		case !angle && strings.IndexByte(seps, c) >= 0:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// unquote returns what a quoted string says (RFC 3261 section 25.1), and other
// text without the white space around it.
func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	s = s[1 : len(s)-1]
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// paramOf returns a parameter of a header field's value, "" without one.
func paramOf(value, name string) string {
	_, rest, ok := cutText(value, ";")
	for n := 0; ok && n < pairsMax; n++ {
		var one string
		one, rest, ok = cutText(rest, ";")
		if key, v, _ := strings.Cut(one, "="); strings.EqualFold(strings.TrimSpace(key), name) {
			return unquote(v)
		}
	}
	return ""
}

// isToken says whether s is a token (RFC 3261 section 25.1).
func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune("-.!%*_+`'~", r)
	}) < 0
}
