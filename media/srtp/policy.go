package srtp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/trunktap/trunktap/media"
)

// Policy is what is demanded of one side's media.
type Policy uint8

// Policies. A side that is Optional is offered the plain profile with keys, which any
// answerer can take (RFC 8643). With Off on both sides the descriptions pass untouched and so does
// whatever they agree on; with Off on one, that side has plain RTP alone.
const (
	Off Policy = iota
	Optional
	Required
)

var policies = [...]string{"off", "optional", "required"}

// String returns the word of the configuration.
func (p Policy) String() string { return policies[min(int(p), len(policies)-1)] }

// UnmarshalText reads the word of the configuration.
func (p *Policy) UnmarshalText(text []byte) error {
	at := slices.Index(policies[:], string(text))
	if at < 0 {
		return fmt.Errorf("srtp policy %q: must be %s", text, strings.Join(policies[:], ", "))
	}
	*p = Policy(at)
	return nil
}

// Method is how keys come about.
type Method uint8

// Methods.
const (
	SDES Method = iota // a=crypto, RFC 4568
	DTLS               // RFC 5763
)

var methods = [...]string{"sdes", "dtls"}

// String returns the word of the configuration.
func (m Method) String() string { return methods[min(int(m), len(methods)-1)] }

// UnmarshalText reads the word of the configuration.
func (m *Method) UnmarshalText(text []byte) error {
	at := slices.Index(methods[:], string(text))
	if at < 0 {
		return fmt.Errorf("srtp method %q: must be %s", text, strings.Join(methods[:], " or "))
	}
	*m = Method(at)
	return nil
}

// SideConfig is one side's.
type SideConfig struct {
	Policy Policy
	Suites []Suite // allowed, by preference; DefaultSuites when empty
	Method Method  // of our own offers, and where an offer leaves the choice

	PassiveDTLS bool // be the passive end of DTLS where the peer leaves the choice
	SHA1        bool // let certificates be announced by SHA-1
}

// Config is the policy of a trunk. Read only while Lines use it.
type Config struct {
	Sides [2]SideConfig // by media.Side

	// Pass leaves the keys of SDES to the parties when both sides do it: their
	// packets are forwarded as they are, and decrypted for the recording alone.
	Pass bool

	// Fingerprint is of our certificate; zero: DTLS-SRTP is not done.
	Fingerprint Fingerprint

	// Random is where keys come from; nil: the system's source.
	Random io.Reader
}

// Validate returns every fault of the configuration.
func (c *Config) Validate() error {
	var errs []error
	for i, s := range c.Sides {
		side := media.Side(i)
		if s.Policy > Required || s.Method > DTLS {
			errs = append(errs, fmt.Errorf("%s side: srtp policy or method is none of the known", side))
		}
		for k, suite := range s.Suites {
			if !suite.Valid() || slices.Contains(s.Suites[:k], suite) {
				errs = append(errs, fmt.Errorf("%s side: srtp suite %s is not known or there twice", side, suite))
			}
		}
		if s.Policy != Off && s.Method == DTLS && c.Fingerprint.Hash == "" {
			errs = append(errs, fmt.Errorf("%s side: srtp method dtls needs a certificate", side))
		}
		if s.Policy != Off && s.Method == DTLS && len(DTLSSuites(s.Suites)) == 0 {
			errs = append(errs, fmt.Errorf("%s side: none of the srtp suites can be used with dtls", side))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) random() io.Reader {
	if c.Random == nil {
		return rand.Reader
	}
	return c.Random
}

// DTLSSuites returns those of the suites that DTLS-SRTP can negotiate (RFC 5764
// section 4.1.2, RFC 7714 section 14.2), in their order; of DefaultSuites when
// list is empty.
func DTLSSuites(list []Suite) []Suite {
	if len(list) == 0 {
		list = DefaultSuites()
	}
	return slices.DeleteFunc(slices.Clone(list), func(s Suite) bool { return s == AESCM256SHA1x80 || s == AESCM256SHA1x32 || !s.Valid() })
}

// Mode is how one side's media is treated.
type Mode uint8

// Modes.
const (
	Clear     Mode = iota // forwarded as it is: plain RTP, or not ours to look into
	KeyedSDES             // protected between us and this side by the keys of SDES
	KeyedDTLS             // the same by the keys of a DTLS handshake
	Passed                // protected from party to party; Receive decrypts for the recording
)

// String returns the mode in words.
func (m Mode) String() string {
	return [...]string{"clear", "sdes", "dtls", "passed"}[min(m, Passed)]
}

// End is what was agreed with one side, for the relay.
type End struct {
	Mode Mode

	// Receive is what the side protects its media with, Send what we protect with
	// what goes to it. Of KeyedSDES; of Passed Receive alone.
	Receive, Send Crypto

	// Of KeyedDTLS: our role, the fingerprints that count, and a number that
	// changes when a new handshake is needed.
	Role         Role
	Fingerprints []Fingerprint
	Association  uint32

	context uint32
}

// Restarts tells whether our sending begins anew with rollover counters at
// zero, compared with what was agreed before: then the Protector is rekeyed with
// restart.
func (e End) Restarts(former End) bool {
	return e.Mode == KeyedSDES && former.Mode == KeyedSDES && (e.context != former.context || e.Send.Suite != former.Send.Suite)
}

// ErrNotAcceptable is wrapped by a Refusal.
var ErrNotAcceptable = errors.New("not acceptable by the srtp policy")

// Refusal says that a description cannot be taken: an offer gets 488 (RFC 3261
// section 21.4.26); after an answer the call with that side has to be ended and
// the offerer gets 488.
type Refusal struct {
	Side   media.Side // whose description it is
	Policy Policy     // of that side
	Reason string
}

// Error returns the reason with what an operator may change.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s side: %s (srtp: %s)", r.Side, r.Reason, r.Policy)
}

// Unwrap returns ErrNotAcceptable.
func (r *Refusal) Unwrap() error { return ErrNotAcceptable }

// Keys derives the keys of an end, each nil where the mode has none: those of
// KeyedDTLS come from its handshake. A side's Unprotector lives as long as the
// side has any mode but Clear, so that its rollover counters go on when Passed
// becomes KeyedSDES.
func (e End) Keys() (receive, send *Keys, err error) {
	if !e.Receive.Zero() {
		if receive, err = NewKeys(e.Receive); err != nil {
			return nil, nil, err
		}
	}
	if !e.Send.Zero() {
		if send, err = NewKeys(e.Send); err != nil {
			receive.Wipe()
			return nil, nil, err
		}
	}
	return receive, send, nil
}
