// Package nats takes call-state signals from NATS subjects.
//
// A message holds one signal as JSON, an array of them, or an object
// {"signals": [...]}: the signals of the HTTP API. Each names its call.
package nats

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// Limits of a message.
const (
	payloadBytesMax = 1 << 20
	signalsMax      = 1024 // of one message
)

// arrival is what a message says about itself.
type arrival struct {
	source   string    // of signals that do not name theirs
	at       time.Time // when it was published: the time of signals that do not tell theirs
	received time.Time
	seq      uint64 // of the stream, 0 without one
}

// fault says what is wrong with a message in our own words: it may stand in a
// log, unlike anything of the message.
type fault string

func (f fault) Error() string { return string(f) }

// parsePayload reads the signals of a message: those that are right, in their
// order, and a fault for each that is not.
func parsePayload(payload []byte, a arrival) (signals []suppress.Signal, faults []fault) {
	objects, err := split(payload)
	if err != nil {
		return nil, []fault{reason(err)}
	}
	for i, object := range objects {
		s, err := parseSignal(object, a)
		if err != nil {
			faults = append(faults, reason(err))
			continue
		}
		if s.Seq == 0 && a.seq != 0 {
			s.Seq = a.seq*signalsMax + uint64(i)
		}
		signals = append(signals, s)
	}
	return signals, faults
}

// split finds the objects of the signals.
func split(payload []byte) ([]json.RawMessage, error) {
	payload = bytes.TrimSpace(payload)
	if len(payload) > payloadBytesMax {
		return nil, fault(fmt.Sprintf("more than %d bytes", payloadBytesMax))
	}
	var list []json.RawMessage
	switch {
	case len(payload) == 0:
		return nil, fault("empty")
	case payload[0] == '[':
		if json.Unmarshal(payload, &list) != nil {
			return nil, fault("not JSON")
		}
	default:
		var batch map[string]json.RawMessage
		if json.Unmarshal(payload, &batch) != nil {
			return nil, fault("not a JSON object or array")
		}
		raw, ok := batch["signals"]
		switch {
		case !ok:
			return []json.RawMessage{payload}, nil
		case len(batch) > 1:
			return nil, fault("has keys beside signals")
		case json.Unmarshal(raw, &list) != nil:
			return nil, fault("signals is no array")
		}
	}
	if len(list) == 0 {
		return nil, fault("an empty list of signals")
	}
	if len(list) > signalsMax {
		return nil, fault(fmt.Sprintf("more than %d signals", signalsMax))
	}
	return list, nil
}

// parseSignal reads one signal. Its time may be missing; that of its arrival
// here is none of the sender's.
func parseSignal(object []byte, a arrival) (suppress.Signal, error) {
	var told struct {
		At       json.RawMessage `json:"at"`
		Received json.RawMessage `json:"received"`
	}
	if object = bytes.TrimSpace(object); len(object) == 0 || object[0] != '{' || json.Unmarshal(object, &told) != nil {
		return suppress.Signal{}, fault("a signal that is no JSON object")
	}
	if told.Received != nil {
		return suppress.Signal{}, fault("received is not taken here, the signal arrives now")
	}
	if told.At == nil || string(told.At) == "null" {
		object = withTime(object, a.at)
	}
	s, err := suppress.ParseSignalLine(object, time.Time{})
	if err != nil {
		return s, err
	}
	if s.Call == "" && s.SIPCall == "" { // it would be for every call that goes on
		return s, fault("neither call nor sip_call_id is given")
	}
	if s.Source == "" {
		s.Source = a.source
	}
	s.Received = a.received
	return suppress.Prompt(s), suppress.Plausible(s)
}

// withTime adds a time to an object that is known to be one, without space
// around it. The last of equal
// keys counts.
func withTime(object []byte, at time.Time) []byte {
	body := bytes.TrimSpace(object[:len(object)-1])
	comma := ","
	if len(body) == 1 {
		comma = ""
	}
	return fmt.Appendf(nil, `%s%s"at":%q}`, body, comma, at.Format(time.RFC3339Nano))
}

// reason says what is wrong without a word of the message: not even the name
// of an attribute.
func reason(err error) fault {
	var f fault
	var field *suppress.FieldError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &field):
		name, _, _ := strings.Cut(field.Field, ".")
		return fault("the field " + name + " is wrong")
	}
	return "a signal with a key that is not known, or not JSON"
}
