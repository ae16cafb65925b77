package callstate

import (
	"bytes"
	"strings"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// Content types of INFO that carry a digit, as gateways and PBXs made them
// common: no RFC has them.
const (
	typeRelay = "application/dtmf-relay" // lines "Signal=5", "Duration=160" in ms
	typeDTMF  = "application/dtmf"       // the digit alone, or the same lines
)

const (
	digitBytesMax = 256 // of a body
	downMax       = 5 * time.Second
)

// Digit is a key of which an INFO tells.
type Digit struct {
	Digit byte          // one of 0123456789*#ABCD
	Down  time.Duration // how long it was, at most 5 s; 0: not told
}

// DigitOf returns the digit in the body of an INFO (RFC 6086), of whichever
// side. It is no signal: it must not get into what lists those.
func DigitOf(m *sip.Message) (Digit, bool) {
	if m.Method != methodInfo || len(m.Body) > digitBytesMax || encoded(m) {
		return Digit{}, false
	}
	kind, _, _ := strings.Cut(m.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case typeRelay:
		return digitLines(m.Body)
	case typeDTMF:
		if !bytes.ContainsRune(m.Body, '=') {
			d := Digit{Digit: digitNamed(string(bytes.TrimSpace(m.Body)))}
			return d, d.Digit != 0
		}
		return digitLines(m.Body)
	}
	return Digit{}, false
}

// digitLines reads lines of key=value. Of several digits the first counts:
// there is one to an INFO.
func digitLines(body []byte) (d Digit, ok bool) {
	for line := range strings.FieldsFuncSeq(string(body), func(r rune) bool { return r == '\r' || r == '\n' }) {
		key, value, _ := strings.Cut(line, "=")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "signal":
			if d.Digit == 0 {
				d.Digit = digitNamed(value)
			}
		case "duration":
			d.Down = downOf(value)
		}
	}
	return d, d.Digit != 0
}

// digitNamed reads a digit: itself, or its number as an event of RFC 4733
// section 3.2, by which some send * # A B C D. 0: it is none.
func digitNamed(s string) byte {
	const events = "0123456789*#ABCD"
	switch {
	case len(s) == 1 && strings.Contains(events, strings.ToUpper(s)):
		return strings.ToUpper(s)[0]
	case len(s) == 2 && s[0] == '1' && '0' <= s[1] && s[1] <= '5':
		return events[10+s[1]-'0']
	}
	return 0
}

// downOf reads milliseconds; what is no number tells nothing.
func downOf(s string) time.Duration {
	ms := 0
	for _, r := range s {
		if r < '0' || r > '9' {
			return 0
		}
		ms = min(10*ms+int(r-'0'), int(downMax.Milliseconds()))
	}
	return time.Duration(ms) * time.Millisecond
}
