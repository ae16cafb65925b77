package suppress

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of codes.
const (
	codesMax        = 32
	codeDigitsMax   = 8
	releasedMax     = 256 // digits that wait for Take
	codeDigitsKnown = "0123456789*#ABCD"

	// codeWait is how long after its first digit began a code may take to its
	// last digit's beginning, and how long that one may be down.
	codeWait = int64(2 * time.Second)
)

// Code is a sequence of digits that stands for a signal.
type Code struct {
	Digits string // of 0123456789*#ABCD
	Event  Event
}

// CheckCodes lists every fault of codes that are to be told apart: 1 to 8
// digits each, at most 32 codes, and none may be over within another one before
// that one is.
func CheckCodes(codes []Code) error {
	var errs []error
	if len(codes) > codesMax {
		errs = append(errs, fmt.Errorf("%d codes, allowed are %d", len(codes), codesMax))
	}
	for i, c := range codes[:min(len(codes), codesMax)] {
		if err := c.check(); err != nil {
			errs = append(errs, fmt.Errorf("code %d (%s): %w", i+1, c.Event, err))
			continue
		}
		for k, other := range codes[:min(len(codes), codesMax)] {
			switch {
			case k == i:
			case c.Digits == other.Digits && k < i:
				errs = append(errs, fmt.Errorf("code %d (%s) is the same as code %d (%s), allowed are different digits", i+1, c.Event, k+1, other.Event))
			case c.Digits != other.Digits && c.hides(other):
				errs = append(errs, fmt.Errorf("code %d (%s) lies within code %d (%s), which could not be typed: choose other digits", i+1, c.Event, k+1, other.Event))
			}
		}
	}
	return errors.Join(errs...)
}

func (c Code) check() error {
	switch {
	case c.Digits == "":
		return errors.New("has no digits, allowed are 1 to 8")
	case len(c.Digits) > codeDigitsMax:
		return fmt.Errorf("has %d digits, allowed are 1 to %d", len(c.Digits), codeDigitsMax)
	case strings.Trim(c.Digits, codeDigitsKnown) != "":
		return errors.New("has something else than digits, allowed are 0 to 9, *, # and A to D")
	case c.Event == "":
		return errors.New("stands for no event")
	}
	return nil
}

// hides tells whether a code is complete before the last digit of another.
func (c Code) hides(other Code) bool {
	return other.Digits != "" && strings.Contains(other.Digits[:len(other.Digits)-1], c.Digits)
}

// Press is one digit on the line.
type Press struct {
	Digit  byte
	FromNS int64
	ToNS   int64 // 0 while the key is down
}

// CodeMatch is a code that was typed.
type CodeMatch struct {
	Event  Event
	FromNS int64 // beginning of the first digit
	ToNS   int64 // end of the last digit
}

// Codes finds typed codes among the digits of one party. Times are nanoseconds
// from any origin and do not fall. From the beginning of a digit on that may be
// part of a code nothing may be written (Held) until the code is complete, a
// further digit speaks against it or two seconds have passed since its first
// digit began. One goroutine owns Codes.
type Codes struct {
	codes []Code

	held     [codeDigitsMax]Press // the beginning of a code, or all of it while its last key is down
	count    int                  // of held
	down     bool                 // the key that began last is
	released []Press              // no part of a code, not yet taken
	dropped  int64
}

// NewCodes returns the matcher for codes that CheckCodes accepts; others are
// never found, or not always.
func NewCodes(codes []Code) *Codes {
	c := &Codes{}
	for _, code := range codes[:min(len(codes), codesMax)] {
		if code.Digits != "" && len(code.Digits) <= codeDigitsMax {
			c.codes = append(c.codes, code)
		}
	}
	return c
}

// Begin takes a key that went down. One that was still down is up by that: when
// it was the last of a code, that is the match which Begin returns.
func (c *Codes) Begin(digit byte, fromNS int64) (CodeMatch, bool) {
	m, ok := c.Advance(fromNS)
	if c.down {
		m, ok = c.up(fromNS)
	}
	c.down = true
	for c.count > 0 && !c.continues(digit) {
		c.release()
	}
	if c.count == 0 && !c.continues(digit) {
		c.give(Press{Digit: digit, FromNS: fromNS})
		return m, ok
	}
	c.held[c.count] = Press{Digit: digit, FromNS: fromNS}
	c.count++
	return m, ok
}

// Move says that a digit which may be part of a code began at isNS and not at wasNS. It
// returns where the digit is now: what would change the order of digits, and a digit that
// is no part of a code, stay.
func (c *Codes) Move(wasNS, isNS int64) int64 {
	i := slices.IndexFunc(c.held[:c.count], func(p Press) bool { return p.FromNS == wasNS })
	if i < 0 || i > 0 && isNS <= c.held[i-1].FromNS || i+1 < c.count && isNS >= c.held[i+1].FromNS {
		return wasNS
	}
	p := &c.held[i]
	p.FromNS = isNS
	if p.ToNS != 0 {
		p.ToNS = max(p.ToNS, isNS)
	}
	return isNS
}

// End takes the end of the key that began last, and returns the code that is
// complete by it.
func (c *Codes) End(toNS int64) (CodeMatch, bool) {
	if m, ok := c.Advance(toNS); ok || !c.down {
		return m, ok
	}
	return c.up(toNS)
}

// Advance gives up what has waited too long. A complete code whose last key is
// not up two seconds after it went down counts as typed then: the match.
func (c *Codes) Advance(nowNS int64) (CodeMatch, bool) {
	for {
		deadline, ok := c.Deadline()
		switch {
		case !ok || nowNS < deadline:
			return CodeMatch{}, false
		case c.complete() != nil:
			return c.up(deadline)
		}
		c.release()
		c.realign()
	}
}

// Deadline returns when Advance is due.
func (c *Codes) Deadline() (ns int64, ok bool) {
	switch {
	case c.count == 0:
		return 0, false
	case c.complete() != nil:
		return c.held[c.count-1].FromNS + codeWait, true
	}
	return c.held[0].FromNS + codeWait, true
}

// Held returns the beginning of the earliest digit that may still turn out to
// be part of a code.
func (c *Codes) Held() (fromNS int64, ok bool) { return c.held[0].FromNS, c.count > 0 }

// Take appends the digits that turned out to be no part of a code to dst, oldest
// first. One whose key is still down has no end yet and does not come again.
func (c *Codes) Take(dst []Press) []Press {
	dst = append(dst, c.released...)
	c.released = c.released[:0]
	return dst
}

// Dropped is how many digits were lost because nobody took them in time.
func (c *Codes) Dropped() int64 { return c.dropped }

// up ends the key that is down.
func (c *Codes) up(toNS int64) (CodeMatch, bool) {
	c.down = false
	if c.count == 0 {
		if n := len(c.released); n > 0 && c.released[n-1].ToNS == 0 {
			c.released[n-1].ToNS = toNS
		}
		return CodeMatch{}, false
	}
	last := &c.held[c.count-1]
	last.ToNS = max(toNS, last.FromNS)
	code := c.complete()
	if code == nil {
		return CodeMatch{}, false
	}
	m := CodeMatch{Event: code.Event, FromNS: c.held[0].FromNS, ToNS: last.ToNS}
	c.count = 0
	return m, true
}

// complete returns the code that is held as a whole.
func (c *Codes) complete() *Code {
	for i := range c.codes {
		if len(c.codes[i].Digits) == c.count && c.begins(c.codes[i].Digits) {
			return &c.codes[i]
		}
	}
	return nil
}

// begins tells whether what is held begins the digits of a code.
func (c *Codes) begins(digits string) bool {
	for i := range c.count {
		if digits[i] != c.held[i].Digit {
			return false
		}
	}
	return true
}

// continues tells whether what is held and one more digit begin a code.
func (c *Codes) continues(digit byte) bool {
	return slices.ContainsFunc(c.codes, func(code Code) bool {
		return len(code.Digits) > c.count && code.Digits[c.count] == digit && c.begins(code.Digits)
	})
}

// realign releases digits until the rest begins a code.
func (c *Codes) realign() {
	for c.count > 0 && !slices.ContainsFunc(c.codes, func(code Code) bool {
		return len(code.Digits) >= c.count && c.begins(code.Digits)
	}) {
		c.release()
	}
}

// release gives up the earliest digit that is held.
func (c *Codes) release() {
	c.give(c.held[0])
	copy(c.held[:], c.held[1:c.count])
	c.count--
}

func (c *Codes) give(p Press) {
	if len(c.released) >= releasedMax {
		c.dropped++
		return
	}
	c.released = append(c.released, p)
}
