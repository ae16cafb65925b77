package suppress

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of a signal. What is larger is refused, never cut short.
const (
	fieldBytesMax     = 256  // of every string field
	attrsMax          = 64   // attributes of one attrs.set
	attrKeyBytesMax   = 64   // of an attribute's name
	attrValueBytesMax = 1024 // of an attribute's value
	plausibleLateMax  = 24 * time.Hour
)

// FieldError says which field of a signal is wrong and what is allowed there.
// It does not repeat the value, which may be private or long.
type FieldError struct {
	Field string // as the JSON key, "attrs.ticket" for an attribute
	Msg   string // what is wrong, and what is allowed
}

// Error returns "field: message".
func (e *FieldError) Error() string { return e.Field + ": " + e.Msg }

var events = []Event{
	IVRStart, IVREnd, QueueStart, QueueEnd, AgentJoin, AgentLeave, HoldStart, HoldEnd, PauseStart, PauseEnd,
	ConsentGranted, ConsentDenied, ConsultStart, ConsultEnd, TransferExternal, TransferInternal,
	SnippetStart, SnippetEnd, AdhocStart, AdhocEnd, AttrsSet, DTMFStart, DTMFEnd,
}

// inner are those that nobody else may send.
var inner = []Event{CallLinked, SourceLost, SourceRestored}

// owned belong to a user.
var owned = []Event{SnippetStart, SnippetEnd, AdhocStart, AdhocEnd}

var roles = []Role{RoleAgent, RoleConsult, RoleMonitor, RoleCoach, RoleBarge}

// Validate checks what can be checked without knowing the call. A version of 0
// means 1. The error is a *FieldError for the first field that is wrong.
func (s Signal) Validate() error {
	switch {
	case s.V != 0 && s.V != 1:
		return &FieldError{"v", "version " + strconv.Itoa(s.V) + " is not known, allowed is 1"}
	case s.Event == "":
		return &FieldError{"event", "is missing, allowed are " + list(events)}
	case slices.Contains(inner, s.Event):
		return &FieldError{"event", "is not for outside sources, allowed are " + list(events)}
	case !slices.Contains(events, s.Event):
		return &FieldError{"event", "is not known, allowed are " + list(events)}
	case s.At.IsZero():
		return &FieldError{"at", "is missing, wanted is the time at which it happened (RFC 3339)"}
	case s.At.Year() < 1 || s.At.Year() > 9999:
		return &FieldError{"at", "year out of range, allowed are 0001 to 9999"}
	case !s.Received.IsZero() && (s.Received.Year() < 1 || s.Received.Year() > 9999):
		return &FieldError{"received", "year out of range, allowed are 0001 to 9999"}
	case s.User == "" && slices.Contains(owned, s.Event):
		return &FieldError{"user", "is missing, " + string(s.Event) + " needs the user that it belongs to"}
	case s.Role != "" && !slices.Contains(roles, s.Role):
		return &FieldError{"role", "is not known, allowed are " + list(roles)}
	}
	if err := s.validateStrings(); err != nil {
		return err
	}
	return s.validateAttrs()
}

func (s Signal) validateStrings() error {
	for _, f := range [...]struct{ name, value string }{
		{"source", s.Source},
		{"call", s.Call},
		{"sip_call_id", s.SIPCall},
		{"flow", s.Flow},
		{"queue", s.Queue},
		{"user", s.User},
		{"party", s.Party},
		{"other", s.Other},
		{"conversation", s.Conversation},
	} {
		if err := checkText(f.name, f.value, fieldBytesMax); err != nil {
			return err
		}
	}
	return nil
}

func (s Signal) validateAttrs() error {
	if s.Event == AttrsSet && len(s.Attrs) == 0 {
		return &FieldError{"attrs", "is missing, attrs.set needs at least one attribute"}
	}
	if len(s.Attrs) > attrsMax {
		return &FieldError{"attrs", fmt.Sprintf("has %d attributes, allowed are %d", len(s.Attrs), attrsMax)}
	}
	for k, v := range s.Attrs {
		if k == "" {
			return &FieldError{"attrs", "has an attribute without a name, a name of 1 to " + strconv.Itoa(attrKeyBytesMax) + " bytes is allowed"}
		}
		if err := checkText("attrs", k, attrKeyBytesMax); err != nil {
			return err
		}
		if err := checkText("attrs."+k, v, attrValueBytesMax); err != nil {
			return err
		}
	}
	return nil
}

func checkText(field, value string, bytesMax int) error {
	if len(value) > bytesMax {
		return &FieldError{field, fmt.Sprintf("has %d bytes, allowed are %d", len(value), bytesMax)}
	}
	if !utf8.ValidString(value) {
		return &FieldError{field, "is not UTF-8"}
	}
	if strings.IndexFunc(value, unicode.IsControl) >= 0 {
		return &FieldError{field, "has a control character, allowed is printable text"}
	}
	return nil
}

// Plausible refuses a signal whose time lies more than 24 hours from its
// arrival: a clock or a unit is wrong there, and acting on it would suppress
// the wrong part of a call. For the API edge; a capture may be older than that.
func Plausible(s Signal) error {
	if s.Received.IsZero() {
		return nil
	}
	if d := s.Received.Sub(s.At); d > plausibleLateMax || d < -plausibleLateMax {
		return &FieldError{"at", "lies more than 24 h from the time of arrival, allowed is less: check the clock and the unit"}
	}
	return nil
}

func list[T ~string](names []T) string {
	var b strings.Builder
	for i, n := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(n))
	}
	return b.String()
}
