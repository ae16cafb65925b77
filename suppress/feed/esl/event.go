package esl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// eventFieldsMax bounds the header lines of one event; a channel has some 250.
const eventFieldsMax = 8192

// attrPrefix begins the header fields of a trunktap::signal that are attributes.
const attrPrefix = "attrs."

// Event is what is used of an event, or of a channel's dump: the names of
// FreeSWITCH and their decoded values. A name that comes twice has its first
// value.
type Event map[string]string

// used are the header fields that matter; the some 250 others of a channel are
// not even copied. Empty names an event's fields of a trunktap::signal as well.
var used = func() map[string]bool {
	names := []string{
		"Event-Name", "Event-Subclass", "Event-Date-Timestamp", "Unique-ID", "Call-Direction", "Channel-Call-State",
		"Caller-Username", "Caller-Caller-ID-Number", "Caller-Callee-ID-Number", "Caller-Destination-Number",
		"Caller-Channel-Last-Hold", "Caller-Channel-Bridged-Time", "Other-Leg-Unique-ID", "Bridge-A-Unique-ID", "Bridge-B-Unique-ID",
		"Application", "Application-Data",
		"CC-Action", "CC-Queue", "CC-Agent", "CC-Agent-UUID", "CC-Cause", "CC-Member-Session-UUID",
		"Action", "Conference-Name", "Conference-Unique-ID", "Speak",
		"variable_uuid", "variable_sip_call_id", "variable_sip_gateway", "variable_sip_gateway_name", "variable_sofia_profile_name",
		"variable_sip_received_ip", "variable_sip_network_ip", "variable_sip_reply_host",
		"variable_user_name", "variable_sip_auth_username", "variable_sip_from_user", "variable_sip_to_user", "variable_dialed_user",
		"variable_eavesdrop_whisper_aleg", "variable_eavesdrop_whisper_bleg",
		"event", "call", "sip_call_id", "flow", "queue", "user", "role", "party", "other", "conversation",
	}
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}()

var errEvent = errors.New("no event")

// ParseEvent reads the body of a text/event-plain or text/event-json message.
func ParseEvent(m Message) (Event, error) {
	if m.Type == typeJSON {
		return ParseJSONEvent(m.Body)
	}
	return parsePlainEvent(m.Body)
}

// parsePlainEvent reads header lines whose values are percent-encoded, up to
// the empty line; a body of the event itself is none of ours.
func parsePlainEvent(body []byte) (Event, error) {
	e, fields := Event{}, 0
	for line := range bytes.Lines(body) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if fields++; fields > eventFieldsMax {
			return nil, fmt.Errorf("%w: more than %d header fields", errEvent, eventFieldsMax)
		}
		name, value, ok := bytes.Cut(line, []byte(": "))
		if !ok || !used[string(name)] && !bytes.HasPrefix(name, []byte(attrPrefix)) {
			continue
		}
		if _, has := e[string(name)]; !has {
			e[string(name)] = decode(string(value))
		}
	}
	if len(e) == 0 {
		return nil, errEvent
	}
	return e, nil
}

// ParseJSONEvent reads one object of header fields: the body of a
// text/event-json message or what uuid_dump says. Of a list the first value counts.
func ParseJSONEvent(body []byte) (Event, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, fmt.Errorf("%w: no JSON object", errEvent)
	}
	if len(fields) > eventFieldsMax {
		return nil, fmt.Errorf("%w: more than %d header fields", errEvent, eventFieldsMax)
	}
	e := Event{}
	for name, raw := range fields {
		if !used[name] && !strings.HasPrefix(name, attrPrefix) {
			continue
		}
		var one string
		if json.Unmarshal(raw, &one) == nil {
			e[name] = one
			continue
		}
		var list []string
		if json.Unmarshal(raw, &list) == nil && len(list) > 0 {
			e[name] = list[0]
		}
	}
	if len(e) == 0 {
		return nil, errEvent
	}
	return e, nil
}

// decode undoes switch_url_encode: %XX alone, a plus sign stands for itself. An
// empty value is sent as "_undef_".
func decode(s string) string {
	if s == "_undef_" {
		return ""
	}
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if b, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(b))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// first returns the first of these fields that is not empty.
func (e Event) first(names ...string) string {
	for _, n := range names {
		if v := e[n]; v != "" {
			return v
		}
	}
	return ""
}

// micros reads a field of microseconds since 1970; the zero time without one.
func (e Event) micros(name string) time.Time {
	n, err := strconv.ParseInt(e[name], 10, 64)
	if err != nil || n <= 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// isTrue is switch_true: what FreeSWITCH takes for a yes.
func isTrue(s string) bool {
	switch strings.ToLower(s) {
	case "yes", "on", "true", "t", "enabled", "active", "allow":
		return true
	}
	n, err := strconv.Atoi(s)
	return err == nil && n != 0
}
