// Package callstate reads call-state signals and the links between calls out of
// SIP messages, the same for a live call and for a captured one.
//
// It is pure: messages and their times go in, signals come out. A Rules is what
// the configuration says and serves all calls; a Dialog follows one of them.
//
// Everything on the wire is hostile. What is too long, too much or cannot be
// read is left out and counted; no error and no log line holds any of it.
package callstate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// Sources of the signals, as they stand in suppress.Signal.
const (
	SourceHeader = "header"
	SourceUUI    = "uui"
	SourceInfo   = "info"
)

// Limits of a configuration.
const (
	rulesMax            = 256 // header rules, and as many for User-to-User
	namesMax            = 16  // conversation header fields, and INFO content types
	patternBytesMax     = 256
	textBytesMax        = 256 // of a signal's text fields, as suppress.Signal.Validate allows
	fieldsPerMessageMax = 16  // header fields of one name that are looked at
)

// Content types that are taken for signals in INFO when none are configured.
const (
	TypeJSON = "application/vnd.trunktap.signal+json"
	TypeText = "application/vnd.trunktap.signal" // lines of key=value
)

// From says whose messages are heeded.
type From string

// Sides whose messages are heeded. An empty From means the default of its place.
const (
	FromInternal From = "internal"
	FromExternal From = "external"
	FromAny      From = "any"
)

func (f From) allows(side media.Side) bool { return f == FromAny || string(f) == side.String() }

// Config says what is read out of messages. The zero value finds links alone.
type Config struct {
	// Headers are looked for in every INVITE and UPDATE, the first and those
	// inside of the dialog. A header field that disappears or changes ends
	// nothing by itself: that takes a rule for its new value.
	Headers []HeaderRule

	// UserToUser are looked for in the User-to-User header fields (RFC 7433) of
	// the same requests.
	UserToUser []UserToUserRule

	// UserToUserConversation is the key in User-to-User whose value names the
	// conversation; "*": the whole of its data does; "": nothing there does.
	UserToUserConversation string

	// Conversation names header fields whose value names the conversation.
	Conversation []string

	// ConversationFrom says whose naming of a conversation counts, in header
	// fields, User-to-User and In-Reply-To; "": internal, as a caller who guesses
	// the name of another conversation could consent for it, or refuse. Links made
	// by Session-ID, and by Call-ID where a dialog is asked for (Replaces and the
	// like), are part of SIP and taken from both sides.
	ConversationFrom From

	// InfoSignals takes INFO requests inside of a dialog for signals.
	InfoSignals bool
	InfoTypes   []string // content types of them; nil: TypeJSON and TypeText. Those that end in "json" are JSON
	InfoFrom    From     // whose; "": internal, so that no caller can steer the recording

	// Inside names the trunks of which no side leads outside, being between a PBX
	// and its phones: all of their messages count as internal.
	Inside []string
}

// HeaderRule makes a signal of a header field.
//
// Flow, Queue, User, Role, Party and Other become the fields of the signal. Each
// is taken as it stands, but "$value" is the value of the header field without
// its parameters, and "$param:name" that of its parameter ";name=…".
type HeaderRule struct {
	Header string // its name, in any case; the compact form is found as well
	Value  string // exact but for case, or a pattern in which * stands for any text; "": any value. With or without parameters
	Event  suppress.Event

	Flow, Queue, User, Role, Party, Other string

	// From says from which side the rule is heeded; "": from any, as the trunk is
	// trusted. Where callers can get header fields of that name through to the
	// trunk it must be internal.
	From From

	// OnChange heeds the rule only where the header fields of that name differ
	// from those of the last INVITE or UPDATE of the same party, so that a mere
	// refresh of the session (RFC 4028) tells nothing. Without it each
	// repetition tells the same again.
	OnChange bool
}

// UserToUserRule makes a signal of one key=value pair of the User-to-User data.
// Pairs are separated by ";", "&" or ",". In its fields "$value" is the value of
// the pair and "$param:name" that of the pair with the key "name".
type UserToUserRule struct {
	Key   string // in any case
	Value string // as in HeaderRule
	Event suppress.Event

	Flow, Queue, User, Role, Party, Other string

	From     From // as in HeaderRule
	OnChange bool // as in HeaderRule, of all User-to-User header fields
}

// ConfigError is a fault of one entry of a Config.
type ConfigError struct {
	Entry string // "headers[2].event"
	Msg   string // what is wrong, and what is allowed
}

// Error returns "entry: message".
func (e *ConfigError) Error() string { return e.Entry + ": " + e.Msg }

// Rules is a Config made ready. It is never changed and safe for concurrent use;
// a nil *Rules is that of the zero Config.
type Rules struct {
	headers      []group
	uui          group
	uuiKey       string
	conversation []string
	convFrom     From
	infoTypes    []string // nil: INFO is no signal
	infoFrom     From
	onChange     bool // any rule has it
	inside       []string
}

// group holds the rules for header fields of one name, or for User-to-User.
type group struct {
	name  string // header field
	rules []rule
}

// New makes a configuration ready. Its error joins a *ConfigError for each fault.
func New(cfg Config) (*Rules, error) {
	c := compiler{r: &Rules{uui: group{name: "User-to-User"}}}
	c.limit("headers", len(cfg.Headers), rulesMax)
	for i, h := range cfg.Headers {
		c.header(fmt.Sprintf("headers[%d]", i), h)
	}
	c.limit("user_to_user", len(cfg.UserToUser), rulesMax)
	for i, u := range cfg.UserToUser {
		c.userToUser(fmt.Sprintf("user_to_user[%d]", i), u)
	}
	if len(cfg.UserToUserConversation) > patternBytesMax {
		c.fault("user_to_user_conversation", "is longer than %d bytes", patternBytesMax)
	}
	c.limit("conversation", len(cfg.Conversation), namesMax)
	for i, name := range cfg.Conversation {
		c.name(fmt.Sprintf("conversation[%d]", i), name)
		c.r.conversation = append(c.r.conversation, strings.ToLower(name))
	}
	c.r.uuiKey = cfg.UserToUserConversation
	c.r.convFrom = c.from("conversation_from", cfg.ConversationFrom, FromInternal)
	c.r.inside = slices.Clone(cfg.Inside)
	c.info(cfg)
	if len(c.faults) > 0 {
		return nil, errors.Join(c.faults...)
	}
	return c.r, nil
}

// compiler gathers the faults of a configuration.
type compiler struct {
	r      *Rules
	faults []error
}

func (c *compiler) fault(entry, format string, args ...any) {
	c.faults = append(c.faults, &ConfigError{entry, fmt.Sprintf(format, args...)})
}

func (c *compiler) limit(entry string, n, most int) {
	if n > most {
		c.fault(entry, "has %d entries, allowed are %d", n, most)
	}
}

func (c *compiler) info(cfg Config) {
	types := cfg.InfoTypes
	if types == nil {
		types = []string{TypeJSON, TypeText}
	}
	c.limit("info_types", len(types), namesMax)
	for i, t := range types {
		if kind, sub, ok := strings.Cut(t, "/"); !ok || !isToken(kind) || !isToken(sub) {
			c.fault(fmt.Sprintf("info_types[%d]", i), "is no content type, wanted is type/subtype without parameters")
		}
		if cfg.InfoSignals {
			c.r.infoTypes = append(c.r.infoTypes, strings.ToLower(t))
		}
	}
	c.r.infoFrom = c.from("info_from", cfg.InfoFrom, FromInternal)
}

func (c *compiler) from(entry string, f, otherwise From) From {
	switch f {
	case FromInternal, FromExternal, FromAny:
		return f
	case "":
		return otherwise
	}
	c.fault(entry, "is not known, allowed are internal, external, any")
	return otherwise
}

func (c *compiler) name(entry, name string) {
	if !isToken(name) || len(name) > patternBytesMax {
		c.fault(entry, "is no name of a header field")
	}
}
