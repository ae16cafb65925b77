package srtp

import (
	"fmt"
	"slices"

	"github.com/trunktap/trunktap/media"
)

// Line is the protection of one m= line on both sides of a call, over all its
// offers and answers. It does no I/O; the call's goroutine owns it.
//
// Of each exchange the offer is given to Offer, which returns what the other side
// is offered, and the answer to Answer, which returns what the offerer is
// answered. Early answers and those of forks may follow each other; Reject goes
// back to what was agreed before the open offer. What is agreed stays agreed: a
// side that took plain RTP is not asked again, and keys stay.
type Line struct {
	cfg    *Config
	agreed [2]agreement
	open   *exchange

	associations *[2]uint32 // how many DTLS associations there were, of all forks
}

// agreement is what is agreed with one side. A value.
type agreement struct {
	known bool
	mode  Mode
	form  form
	sdes  Exchange
	dtls  association

	passed Crypto // of Passed: what the side protects with
}

// become changes the mode. What another mode had agreed is forgotten, so that a
// return to it takes new keys.
func (a *agreement) become(m Mode) {
	a.known, a.mode = true, m
	if m != KeyedSDES {
		a.sdes.forget()
	}
	if m != KeyedDTLS {
		a.dtls = association{number: a.dtls.number}
	}
	if m != Passed {
		a.passed = Crypto{}
	}
	if m == Clear {
		a.form = formPlain
	}
}

// ended returns what is left of an agreement whose line was refused.
func (a agreement) ended() agreement {
	a.become(Clear)
	a.known = false
	return a
}

// form is how a side is offered protection, and repeats how it offers it itself.
type form uint8

const (
	formPlain         form = iota // RTP/AVP without keys
	formOpportunistic             // RTP/AVP with keys, RFC 8643
	formSecure                    // a secure profile
)

// association is a DTLS association with one side.
type association struct {
	number        uint32 // 0: none yet
	role          Role
	remote        []Fingerprint
	local, peerID string // tls-ids
	stale         bool   // of another process, whose certificate nobody has any more
}

// exchange is an open offer.
type exchange struct {
	from      media.Side
	untouched bool
	passing   bool

	offer    Media        // as it came
	sent     Media        // what the other side is offered
	prepared Media        // the answer, unless keys are passed
	base     [2]agreement // before the offer
	draft    [2]agreement // with the offer, keys not passed
}

// NewLine returns the state before the first offer.
func NewLine(c *Config) *Line { return &Line{cfg: c, associations: new([2]uint32)} }

// Fork returns a line that goes its own way from here: another dialog of the same call,
// with answers and offers of its own. Keys that both have are wiped with either.
func (l *Line) Fork() *Line {
	fork := *l
	return &fork
}

func (l *Line) side(s media.Side) SideConfig { return l.cfg.Sides[s] }

func (l *Line) terms(s media.Side, moved bool) Terms {
	return Terms{Suites: l.side(s).Suites, Random: l.cfg.random(), Restart: moved}
}

func (l *Line) refuse(s media.Side, format string, args ...any) error {
	return &Refusal{Side: s, Policy: l.side(s).Policy, Reason: fmt.Sprintf(format, args...)}
}

// Offer takes a side's offer and returns what the other side is offered. It
// replaces an open offer. The error is a *Refusal (488), or the random source's;
// what was agreed stays then.
func (l *Line) Offer(from media.Side, offer Media) (Media, error) {
	to := from.Other()
	kind, feedback := profileOf(offer.Profile)
	o := &exchange{from: from, offer: offer, base: l.agreed, draft: l.agreed}
	if l.side(from).Policy == Off && l.side(to).Policy == Off || kind == notRTP || offer.Refused {
		o.untouched, o.sent = true, offer
		for i := range o.draft {
			o.draft[i] = o.draft[i].ended()
		}
		l.open = o
		return offer, nil
	}
	var err error
	if o.prepared, err = l.accept(from, &o.draft[from], offer, kind); err != nil {
		return Media{}, err
	}
	if lines := l.passable(o, kind); len(lines) > 0 {
		o.passing = true
		o.sent = l.passOn(&o.draft[to], l.side(to), lines, feedback)
	} else if o.sent, err = l.offerTo(to, &o.draft[to], feedback); err != nil {
		return Media{}, err
	}
	l.open = o
	return o.sent, nil
}

// accept decides how a side's offer is taken and what it will be answered.
func (l *Line) accept(from media.Side, a *agreement, offer Media, kind family) (Media, error) {
	cfg := l.side(from)
	if cfg.Policy == Off {
		if kind != plain {
			return Media{}, l.refuse(from, "%s is offered, but only plain RTP is allowed", offer.Profile)
		}
		a.become(Clear)
		return Media{Profile: offer.Profile}, nil
	}
	m, ok := l.method(cfg, a, offer, kind)
	if !ok {
		if kind != plain {
			return Media{}, l.refuse(from, "%s is offered without keys that can be used", offer.Profile)
		}
		if cfg.Policy == Required {
			return Media{}, l.refuse(from, "plain RTP is offered, but SRTP is required")
		}
		a.become(Clear)
		return Media{Profile: offer.Profile}, nil
	}
	a.form = formSecure
	if kind == plain {
		a.form = formOpportunistic
	}
	if m == DTLS {
		return l.acceptDTLS(from, a, offer)
	}
	terms := l.terms(from, offer.Moved && !slices.ContainsFunc(offer.Crypto, a.sdes.Receive().SameKeys))
	line, err := a.sdes.Accept(offer.Crypto, terms)
	if err != nil {
		return Media{}, fmt.Errorf("%s side: %w", from, err)
	}
	a.become(KeyedSDES)
	return Media{Profile: offer.Profile, Crypto: []Crypto{line}}, nil
}

// method picks the method of an offer: the one in force, else the configured one,
// else what there is.
func (l *Line) method(cfg SideConfig, a *agreement, offer Media, kind family) (Method, bool) {
	suites := Terms{Suites: cfg.Suites}.suites()
	sdes := kind != overDTLS && slices.ContainsFunc(offer.Crypto, func(c Crypto) bool { return slices.Contains(suites, c.Suite) })
	_, usable := offer.Setup.role(Active)
	dtls := usable && l.dtlsDone(cfg) && len(Checkable(offer.Fingerprints, cfg.SHA1)) > 0
	switch {
	case sdes && dtls && (a.mode == KeyedSDES || a.mode == Passed):
		return SDES, true
	case sdes && dtls && a.mode == KeyedDTLS:
		return DTLS, true
	case sdes && dtls:
		return cfg.Method, true
	case dtls:
		return DTLS, true
	}
	return SDES, sdes
}

func (l *Line) dtlsDone(cfg SideConfig) bool {
	return l.cfg.Fingerprint.Hash != "" && len(DTLSSuites(cfg.Suites)) > 0
}

func (l *Line) acceptDTLS(from media.Side, a *agreement, offer Media) (Media, error) {
	cfg := l.side(from)
	prefer := Active
	if cfg.PassiveDTLS {
		prefer = Passive
	}
	if a.dtls.number > 0 {
		prefer = a.dtls.role
	}
	role, _ := offer.Setup.role(prefer) // method has seen that it is usable
	fresh := l.associate(from, &a.dtls, role, offer)
	a.become(KeyedDTLS)
	answer := Media{Profile: offer.Profile, Fingerprints: []Fingerprint{l.cfg.Fingerprint}, Setup: role.setup()}
	if offer.TLSID != "" {
		if err := l.identify(&a.dtls, fresh); err != nil {
			return Media{}, err
		}
		answer.TLSID = a.dtls.local
	}
	return answer, nil
}

// identify gives the association a tls-id of its own.
func (l *Line) identify(a *association, fresh bool) error {
	if a.local != "" && !fresh {
		return nil
	}
	id, err := newTLSID(l.cfg.random())
	if err == nil {
		a.local = id
	}
	return err
}

// associate notes what a peer announced, and whether that makes a new association
// (RFC 8842 section 4).
func (l *Line) associate(with media.Side, a *association, role Role, m Media) (fresh bool) {
	remote := Checkable(m.Fingerprints, l.side(with).SHA1)
	fresh = a.stale || a.number == 0 || a.role != role || !slices.EqualFunc(a.remote, remote, Fingerprint.Equal) ||
		a.peerID != m.TLSID || m.Moved && m.TLSID == ""
	a.role, a.remote, a.peerID, a.stale = role, remote, m.TLSID, false
	if fresh {
		last := &l.associations[with]
		*last = max(*last, a.number) + 1
		a.number = *last
	}
	return fresh
}

// passable returns the lines of an offer that the other side may be offered as
// they are; none where keys are not passed. A call that once ended SRTP here goes
// on to: the far end would not know the rollover counters.
func (l *Line) passable(o *exchange, kind family) []Crypto {
	from, to := l.side(o.from), l.side(o.from.Other())
	if !l.cfg.Pass || from.Policy == Off || to.Policy == Off || kind == overDTLS || o.draft[o.from].mode != KeyedSDES {
		return nil
	}
	if was := &o.base[o.from]; was.known && was.mode != Passed || !was.known && to.Method == DTLS {
		return nil
	}
	a, b := Terms{Suites: from.Suites}.suites(), Terms{Suites: to.Suites}.suites()
	return slices.DeleteFunc(slices.Clone(o.offer.Crypto), func(c Crypto) bool {
		return !slices.Contains(a, c.Suite) || !slices.Contains(b, c.Suite)
	})
}

// passOn offers the lines of one side to the other.
func (l *Line) passOn(b *agreement, cfg SideConfig, lines []Crypto, feedback bool) Media {
	if !b.known {
		b.form = firstForm(cfg)
	}
	b.become(Passed)
	return Media{Profile: profileIn(b.form, SDES).profile(feedback), Crypto: lines}
}

func firstForm(cfg SideConfig) form {
	switch cfg.Policy {
	case Off:
		return formPlain
	case Optional:
		return formOpportunistic
	case Required:
	}
	return formSecure
}

func profileIn(f form, m Method) family {
	switch {
	case f != formSecure:
		return plain
	case m == DTLS:
		return overDTLS
	}
	return secure
}

// offerTo makes our own offer to a side: what is in force with it, else what its
// policy wants.
func (l *Line) offerTo(to media.Side, b *agreement, feedback bool) (Media, error) {
	cfg := l.side(to)
	m := cfg.Method
	switch {
	case !b.known:
		b.form = firstForm(cfg)
	case b.mode == KeyedDTLS:
		m = DTLS
	case b.mode == KeyedSDES, b.mode == Passed:
		m = SDES
	}
	if b.form == formPlain {
		b.become(Clear)
		return Media{Profile: plain.profile(feedback)}, nil
	}
	offer := Media{Profile: profileIn(b.form, m).profile(feedback)}
	if m == SDES {
		lines, err := b.sdes.Offer(l.terms(to, false))
		if err != nil {
			return Media{}, fmt.Errorf("offer to the %s side: %w", to, err)
		}
		b.become(KeyedSDES)
		offer.Crypto = lines
		return offer, nil
	}
	if err := l.identify(&b.dtls, false); err != nil {
		return Media{}, err
	}
	b.become(KeyedDTLS)
	offer.Fingerprints, offer.Setup, offer.TLSID = []Fingerprint{l.cfg.Fingerprint}, SetupActpass, b.dtls.local
	return offer, nil
}

// Answer takes the answer to the open offer and returns what the offerer is
// answered; Ends tells what is in force then. The error is a *Refusal,
// ErrNoOffer or the random source's; what was agreed before stays.
func (l *Line) Answer(answer Media) (Media, error) {
	o := l.open
	if o == nil {
		return Media{}, ErrNoOffer
	}
	if o.untouched {
		l.agreed = o.draft
		return answer, nil
	}
	if answer.Refused {
		l.agreed = [2]agreement{o.draft[0].ended(), o.draft[1].ended()}
		return Media{Profile: o.offer.Profile, Refused: true}, nil
	}
	next, to := o.draft, o.from.Other()
	if o.passing && len(answer.Crypto) > 0 {
		return l.answerPassed(o, answer)
	}
	if err := l.settle(to, &next[to], o, answer); err != nil {
		return Media{}, err
	}
	l.agreed = next
	return o.prepared, nil
}

// settle takes a side's answer to what it was offered.
func (l *Line) settle(to media.Side, b *agreement, o *exchange, answer Media) error {
	cfg := l.side(to)
	kind, _ := profileOf(answer.Profile)
	switch {
	case len(o.sent.Crypto) > 0 && !o.passing && len(answer.Crypto) > 0:
		terms := l.terms(to, false)
		if err := b.sdes.Answered(answer.Crypto, terms); err != nil {
			return l.refuse(to, "%v", err)
		}
	case len(o.sent.Fingerprints) > 0 && len(answer.Fingerprints) > 0:
		return l.settleDTLS(to, b, answer)
	case cfg.Policy == Required:
		return l.refuse(to, "the answer has no keys")
	case kind != plain:
		return l.refuse(to, "the answer is %s without keys", answer.Profile)
	default:
		b.become(Clear)
	}
	return nil
}

func (l *Line) settleDTLS(to media.Side, b *agreement, answer Media) error {
	cfg := l.side(to)
	role, ok := answer.Setup.role(Passive) // actpass is no answer; such a peer is most likely to begin
	if !ok {
		return l.refuse(to, "the answer's a=setup is %s", answer.Setup)
	}
	if len(Checkable(answer.Fingerprints, cfg.SHA1)) == 0 {
		return l.refuse(to, "the answer has no a=fingerprint that may be used")
	}
	if was := &l.agreed[to]; was.mode == KeyedDTLS { // by an earlier answer to this offer, perhaps
		local := b.dtls.local
		b.dtls = was.dtls
		b.dtls.local = local
	}
	l.associate(to, &b.dtls, role, answer)
	return nil
}

// answerPassed takes an answer to the offerer's own lines.
func (l *Line) answerPassed(o *exchange, answer Media) (Media, error) {
	to := o.from.Other()
	for _, line := range answer.Crypto {
		theirs, ok := match(o.sent.Crypto, line)
		if !ok || line.UnencryptedSRTCP != theirs.UnencryptedSRTCP {
			continue
		}
		next := o.draft
		next[o.from].become(Passed)
		next[o.from].passed, next[to].passed = theirs, line
		l.agreed = next
		line.Tag, line.name = theirs.Tag, theirs.name
		return Media{Profile: o.offer.Profile, Crypto: []Crypto{line}}, nil
	}
	return Media{}, l.refuse(to, "the answer has none of the offered suites")
}

// Reject drops the open offer, which was refused or withdrawn, and what early
// answers to it agreed.
func (l *Line) Reject() {
	if l.open != nil {
		l.agreed, l.open = l.open.base, nil
	}
}

// Ends returns what is agreed with both sides, by media.Side.
func (l *Line) Ends() [2]End {
	var ends [2]End
	for i := range l.agreed {
		a := &l.agreed[i]
		e := End{Mode: a.mode, context: a.sdes.Context()}
		switch a.mode {
		case KeyedSDES:
			e.Receive, e.Send = a.sdes.Receive(), a.sdes.Send()
		case Passed:
			e.Receive = a.passed
		case KeyedDTLS:
			e.Role, e.Fingerprints, e.Association = a.dtls.role, a.dtls.remote, a.dtls.number
		case Clear:
		}
		ends[i] = e
	}
	return ends
}

// Wipe zeroes the keys that the line holds, in force or not. The call is over.
func (l *Line) Wipe() {
	wipe := func(list [2]agreement) {
		for i := range list {
			list[i].sdes.Wipe()
			list[i].passed.Wipe()
		}
	}
	wipe(l.agreed)
	if o := l.open; o != nil {
		wipe(o.base)
		wipe(o.draft)
		for _, c := range slices.Concat(o.offer.Crypto, o.sent.Crypto, o.prepared.Crypto) {
			c.Wipe()
		}
	}
	*l = Line{cfg: l.cfg, associations: l.associations}
}
