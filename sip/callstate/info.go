package callstate

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/suppress"
)

const methodInfo = "INFO" // RFC 6086

// Limits of the body of an INFO.
const (
	infoBytesMax   = 16 << 10
	infoSignalsMax = 64
)

// info reads the signals in an INFO (RFC 6086). refused counts those that could
// not be taken.
func (r *Rules) info(m *sip.Message, callID string, from media.Side, at time.Time) (signals []suppress.Signal, refused int) {
	kind, _, _ := strings.Cut(m.Get("Content-Type"), ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	if !slices.Contains(r.infoTypes, kind) {
		return nil, 0
	}
	if !r.infoFrom.allows(from) || len(m.Body) > infoBytesMax || encoded(m) {
		return nil, 1
	}
	read := textSignals
	if strings.HasSuffix(kind, "json") {
		read = jsonSignals
	}
	list, refused := read(m.Body, at)
	for _, s := range list {
		if s.Call != "" || s.SIPCall != "" && s.SIPCall != callID {
			refused++ // meant for another call
			continue
		}
		s.SIPCall, s.Source, s.Seq, s.Received = "", SourceInfo, 0, at
		// Nothing is told before it happens, and what is a day old is a wrong clock.
		if s.At.After(at) || suppress.Plausible(s) != nil {
			s.At = at
		}
		signals = append(signals, s)
	}
	return signals, refused
}

// encoded says whether the body is compressed or the like.
func encoded(m *sip.Message) bool {
	e := m.Get("Content-Encoding")
	return e != "" && !strings.EqualFold(e, "identity")
}

// jsonSignals reads one signal, or an array of them. What is no signal among
// others is left out: the others still count.
func jsonSignals(body []byte, at time.Time) (signals []suppress.Signal, refused int) {
	body = bytes.TrimSpace(body)
	list := []json.RawMessage{body}
	if len(body) > 0 && body[0] == '[' {
		if list = nil; json.Unmarshal(body, &list) != nil {
			return nil, 1
		}
	}
	for i, raw := range list {
		if i == infoSignalsMax {
			return signals, refused + len(list) - i
		}
		if s, err := jsonSignal(raw, at); err != nil {
			refused++
		} else {
			signals = append(signals, s)
		}
	}
	return signals, refused
}

// jsonSignal is suppress.ParseSignalLine with a time that may be missing.
func jsonSignal(raw json.RawMessage, at time.Time) (suppress.Signal, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return suppress.Signal{}, err
	}
	if fields == nil { // "null"
		return suppress.Signal{}, errObject
	}
	for name, value := range fields {
		if strings.EqualFold(name, "at") && string(value) != "null" {
			return suppress.ParseSignalLine(raw, time.Time{})
		}
	}
	fields["at"] = json.RawMessage(`"2000-01-01T00:00:00Z"`)
	text, err := json.Marshal(fields)
	if err != nil {
		return suppress.Signal{}, err
	}
	s, err := suppress.ParseSignalLine(text, time.Time{})
	s.At = at
	return s, err
}

// textSignals reads lines of key=value; an empty line begins another signal.
func textSignals(body []byte, at time.Time) (signals []suppress.Signal, refused int) {
	text := strings.ReplaceAll(string(body), "\r\n", "\n")
	for text != "" {
		var block string
		block, text, _ = strings.Cut(text, "\n\n")
		block = strings.Trim(block, "\n")
		if block == "" {
			continue
		}
		s, err := textSignal(block, at)
		if err != nil || len(signals) >= infoSignalsMax {
			refused++
			continue
		}
		signals = append(signals, s)
	}
	return signals, refused
}

var (
	errLine   = errors.New("a line that is no key=value of a signal")
	errObject = errors.New("no JSON object")
)

func textSignal(block string, at time.Time) (suppress.Signal, error) {
	s := suppress.Signal{V: 1, At: at}
	for line := range strings.SplitSeq(block, "\n") {
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return s, errLine
		}
		if err := assign(&s, strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)); err != nil {
			return s, err
		}
	}
	return s, s.Validate()
}

// assign sets the field that has that name in JSON.
func assign(s *suppress.Signal, key, value string) error {
	if text := textOf(s, key); text != nil {
		*text = value
		return nil
	}
	switch key {
	case "event":
		s.Event = suppress.Event(value)
	case "role":
		s.Role = suppress.Role(value)
	case "conversation":
		s.Conversation = value
	case "call":
		s.Call = value
	case "sip_call_id":
		s.SIPCall = value
	case "at":
		t, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return errLine
		}
		s.At = t
	default:
		name, ok := strings.CutPrefix(key, "attrs.")
		if !ok {
			return errLine
		}
		if s.Attrs == nil {
			s.Attrs = map[string]string{}
		}
		s.Attrs[name] = value
	}
	return nil
}
