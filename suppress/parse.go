package suppress

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	lineBytesMax     = 128 << 10     // of one line of a signals file
	secondsOffsetMax = 1_000_000_000 // of a time given as seconds from the capture's first packet, about 31 years
)

// wireSignal is a Signal whose times may be numbers. It shadows the two fields.
type wireSignal struct {
	Signal
	At       json.RawMessage `json:"at"`
	Received json.RawMessage `json:"received"`
}

// ParseSignalLine reads one JSON object of a signals file. The times at and
// received are RFC 3339, or a number of seconds from base (the capture's first
// packet) of which nine decimals are kept; with a zero base numbers are
// refused. Unknown keys and anything after the object are refused; the result
// is valid (see Validate) and its V is 1. Errors name the field and do not
// repeat values.
func ParseSignalLine(line []byte, base time.Time) (Signal, error) {
	if len(line) > lineBytesMax {
		return Signal{}, fmt.Errorf("line of %d bytes, allowed are %d", len(line), lineBytesMax)
	}
	var w wireSignal
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil {
		return Signal{}, jsonError(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Signal{}, errors.New("something follows the object, allowed is one JSON object a line")
	}
	s := w.Signal
	var err error
	if s.At, err = parseTime("at", w.At, base); err != nil {
		return Signal{}, err
	}
	if s.Received, err = parseTime("received", w.Received, base); err != nil {
		return Signal{}, err
	}
	if s.V == 0 {
		s.V = 1
	}
	return s, s.Validate()
}

// jsonError says where a line is no signal, in the field's terms.
func jsonError(err error) error {
	var typ *json.UnmarshalTypeError
	var syn *json.SyntaxError
	switch {
	case errors.As(err, &typ) && typ.Field != "":
		return &FieldError{strings.TrimPrefix(typ.Field, "Signal."), "is a " + typ.Value + ", allowed is " + typ.Type.String()}
	case errors.As(err, &typ):
		return fmt.Errorf("a JSON %s, allowed is one JSON object a line", typ.Value)
	case errors.As(err, &syn):
		return fmt.Errorf("not JSON at byte %d: %w", syn.Offset, err)
	case errors.Is(err, io.EOF):
		return errors.New("empty, allowed is one JSON object a line")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("breaks off, allowed is one JSON object a line")
	}
	return err
}

func parseTime(field string, raw json.RawMessage, base time.Time) (time.Time, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return time.Time{}, nil
	}
	if raw[0] == '"' {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return time.Time{}, &FieldError{field, "is not a string"}
		}
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return time.Time{}, &FieldError{field, "is no time, allowed are RFC 3339 and a number of seconds from the capture's first packet"}
		}
		return at, nil
	}
	d, ok := parseSeconds(string(raw))
	if !ok {
		return time.Time{}, &FieldError{field, "is no time, allowed are RFC 3339 and a number of seconds from the capture's first packet, at most 1e9"}
	}
	if base.IsZero() {
		return time.Time{}, &FieldError{field, "is a number of seconds, but there is no capture to count them from; allowed is RFC 3339"}
	}
	return base.Add(d), nil
}

// parseSeconds reads a JSON number of seconds without going through binary
// floating point, so that "0.3" is 300 ms and not a nanosecond less.
func parseSeconds(text string) (time.Duration, bool) {
	if strings.ContainsAny(text, "eE") {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.Abs(f) > secondsOffsetMax {
			return 0, false
		}
		return time.Duration(math.Round(f * 1e9)), true
	}
	digits, negative := strings.CutPrefix(text, "-")
	whole, frac, _ := strings.Cut(digits, ".")
	if len(whole) > 10 {
		return 0, false
	}
	sec, err := strconv.ParseUint(whole, 10, 64)
	if err != nil || sec > secondsOffsetMax {
		return 0, false
	}
	frac = (frac + "000000000")[:9]
	nanos, err := strconv.ParseUint(frac, 10, 64)
	if err != nil {
		return 0, false
	}
	d := time.Duration(sec)*time.Second + time.Duration(nanos)
	if negative {
		d = -d
	}
	return d, true
}
