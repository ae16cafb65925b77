package srtp

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Errors of an Exchange.
var (
	ErrNoCommonSuite = errors.New("no crypto line with a suite that is allowed")
	ErrNoOffer       = errors.New("answer without offer")
)

// Exchange is the SDES state of one m= line with one side (RFC 4568 sections 5.1
// and 7.1): which lines are in force, and the offer that is open. It is a value:
// a copy is a snapshot to go back to when an offer is refused.
//
// A key of ours stays as long as its suite does, so that a session refresh
// changes nothing; then the rollover counters go on too.
type Exchange struct {
	send, receive Crypto   // in force; zero: none
	offered       []Crypto // our open offer
	context       uint32   // how often our sending began anew, with the rollover counters at zero
}

// Terms are what our own lines are made of.
type Terms struct {
	Suites []Suite   // allowed, by preference; DefaultSuites when empty
	Random io.Reader // of keys; nil: the system's

	// Renew makes new keys where those in force could go on: an offer that rekeys.
	Renew bool

	// Restart makes a new key with the rollover counters at zero: for a peer that
	// is another one than before and cannot know them, which an address that
	// changed together with its key shows (RFC 4568 section 7.1.4).
	Restart bool
}

func (t Terms) suites() []Suite {
	if len(t.Suites) == 0 {
		return DefaultSuites()
	}
	return t.Suites
}

// Send returns the line that we protect with, Receive the peer's; zero when
// nothing is in force.
func (x *Exchange) Send() Crypto { return x.send }

// Receive returns the line that the peer protects with.
func (x *Exchange) Receive() Crypto { return x.receive }

// Context counts how often our sending began anew. When it changed, the
// Protector is rekeyed with restart.
func (x *Exchange) Context() uint32 { return x.context }

// Offer returns the lines of an offer of ours and keeps them open. With lines in
// force that are still allowed it is that one alone (RFC 4568 section 7.1.4: others
// would be changes), else a line for each suite.
func (x *Exchange) Offer(t Terms) ([]Crypto, error) {
	if !x.send.Zero() && slices.Contains(t.suites(), x.send.Suite) {
		line := x.send
		if t.Renew || t.Restart {
			k, err := randomKey(line.Suite, t.Random)
			if err != nil {
				return nil, err
			}
			line.Keys = []MasterKey{{Key: k}}
		}
		x.offered = []Crypto{line}
		return x.offered, nil
	}
	x.offered = nil
	for i, s := range t.suites() {
		k, err := randomKey(s, t.Random)
		if err != nil {
			return nil, err
		}
		x.offered = append(x.offered, Crypto{Tag: uint32(i + 1), Suite: s, Keys: []MasterKey{{Key: k}}})
	}
	return x.offered, nil
}

// Answered takes the peer's answer to our open offer. The offer stays open for
// further answers (forks); the last one is in force. A tag that was not offered is
// forgiven when the suite was.
func (x *Exchange) Answered(lines []Crypto, t Terms) error {
	if len(x.offered) == 0 {
		return ErrNoOffer
	}
	for _, line := range lines {
		ours, ok := match(x.offered, line)
		if !ok || line.UnencryptedSRTCP != ours.UnencryptedSRTCP {
			continue
		}
		x.agree(ours, line, t.Restart)
		return nil
	}
	return fmt.Errorf("answer: %w", ErrNoCommonSuite)
}

// match finds the offered line that an answer means.
func match(offered []Crypto, answer Crypto) (Crypto, bool) {
	at := slices.IndexFunc(offered, func(o Crypto) bool { return o.Tag == answer.Tag && o.Suite == answer.Suite })
	if at < 0 {
		at = slices.IndexFunc(offered, func(o Crypto) bool { return o.Suite == answer.Suite })
	}
	if at < 0 {
		return Crypto{}, false
	}
	return offered[at], true
}

// Accept takes an offer of the peer and returns the line of our answer: of the
// suite in force when that is offered again, else for the first line whose suite
// is allowed (RFC 4568 section 5.1.2). It is in force at once; a copy made
// before is what to go back to.
func (x *Exchange) Accept(lines []Crypto, t Terms) (Crypto, error) {
	line, ok := x.choose(lines, t)
	if !ok {
		return Crypto{}, fmt.Errorf("offer: %w", ErrNoCommonSuite)
	}
	answer := Crypto{Tag: line.Tag, Suite: line.Suite, name: line.name}
	answer.UnencryptedSRTCP = line.UnencryptedSRTCP
	if x.send.Suite == line.Suite && !t.Renew && !t.Restart {
		answer.Keys = x.send.Keys
	} else {
		k, err := randomKey(line.Suite, t.Random)
		if err != nil {
			return Crypto{}, err
		}
		answer.Keys = []MasterKey{{Key: k}}
	}
	x.offered = nil
	x.agree(answer, line, t.Restart)
	return answer, nil
}

// choose picks one of the offered lines.
func (x *Exchange) choose(lines []Crypto, t Terms) (Crypto, bool) {
	allowed := func(l Crypto) bool { return slices.Contains(t.suites(), l.Suite) }
	for _, is := range []func(Crypto) bool{
		func(l Crypto) bool { return l.SameKeys(x.receive) },
		func(l Crypto) bool { return l.Suite == x.send.Suite },
		func(Crypto) bool { return true },
	} {
		if at := slices.IndexFunc(lines, func(l Crypto) bool { return allowed(l) && is(l) }); at >= 0 {
			return lines[at], true
		}
	}
	return Crypto{}, false
}

// agree puts a pair of lines in force.
func (x *Exchange) agree(send, receive Crypto, restart bool) {
	if restart || x.send.Suite != send.Suite {
		x.context++
	}
	x.send, x.receive = send, receive
}

// forget drops what is in force. Keys that come after are other ones: nobody
// knows then what was sent with these.
func (x *Exchange) forget() { *x = Exchange{context: x.context} }

// Wipe zeroes every key that the exchange holds.
func (x *Exchange) Wipe() {
	for _, c := range append([]Crypto{x.send, x.receive}, x.offered...) {
		c.Wipe()
	}
	*x = Exchange{}
}
