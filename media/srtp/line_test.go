package srtp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/media"
)

// ability is what a user agent can do.
type ability uint8

const (
	plainOnly    ability = iota // takes plain RTP, ignores keys
	opportunist                 // SDES, in the secure profile or beside the plain one
	sdesOnly                    // SDES, in the secure profile
	dtlsOnly                    // DTLS-SRTP, in its profile or beside the plain one
	abilitiesEnd                // none further
)

func (a ability) String() string {
	return [...]string{"plain", "opportunist", "sdes", "dtls"}[a]
}

// agent is a user agent on one side.
type agent struct {
	ability
	sdes  Exchange
	print Fingerprint
	setup Setup // of the association there is (RFC 8842 section 5.3)
	keyed bool
}

func newAgent(a ability, name string) *agent {
	return &agent{ability: a, print: FingerprintOf([]byte(name))}
}

// offer makes the agent's own offer.
func (a *agent) offer(t *testing.T, f string) Media {
	t.Helper()
	switch a.ability {
	case opportunist, sdesOnly:
		m := Media{Profile: map[ability]string{opportunist: "RTP/AVP", sdesOnly: "RTP/SAVP"}[a.ability] + f}
		m.Crypto = mustOffer(t, &a.sdes, Terms{})
		return m
	case dtlsOnly:
		return Media{Profile: "UDP/TLS/RTP/SAVP" + f, Fingerprints: []Fingerprint{a.print}, Setup: SetupActpass}
	}
	return Media{Profile: "RTP/AVP" + f}
}

// answer answers an offer; ok is false where the agent sends 488.
func (a *agent) answer(t *testing.T, m Media) (Media, bool) {
	t.Helper()
	out := Media{Profile: m.Profile}
	kind, _ := profileOf(m.Profile)
	a.keyed = false
	switch {
	case (a.ability == opportunist || a.ability == sdesOnly && kind == secure) && len(m.Crypto) > 0:
		out.Crypto, a.keyed = []Crypto{mustAccept(t, &a.sdes, m.Crypto, Terms{})}, true
	case a.ability == dtlsOnly && len(m.Fingerprints) > 0:
		if a.setup == SetupNone {
			a.setup = SetupActive
		}
		out.Fingerprints, out.Setup, a.keyed = []Fingerprint{a.print}, a.setup, true
	case kind != plain:
		return Media{}, false
	}
	return out, true
}

// answered takes the answer to the agent's own offer.
func (a *agent) answered(t *testing.T, m Media) {
	t.Helper()
	a.keyed = len(m.Crypto) > 0 || len(m.Fingerprints) > 0
	if m.Setup != SetupNone {
		role, _ := m.Setup.role(Active)
		a.setup = role.setup()
	}
	if len(m.Crypto) > 0 {
		if err := a.sdes.Answered(m.Crypto, Terms{}); err != nil {
			t.Fatalf("the answer %v is none to the offer: %v", m.Crypto, err)
		}
	}
}

// trunk is a Line between two agents.
type trunk struct {
	*Line
	agents [2]*agent
}

func newTrunk(cfg *Config, external, internal ability) *trunk {
	return &trunk{NewLine(cfg), [2]*agent{newAgent(external, "external"), newAgent(internal, "internal")}}
}

// call runs one offer and its answer.
func (tr *trunk) call(t *testing.T, from media.Side, f string) error {
	t.Helper()
	a, b := tr.agents[from], tr.agents[from.Other()]
	offer := a.offer(t, f)
	sent, err := tr.Offer(from, offer)
	if err != nil {
		return err
	}
	if strings.HasSuffix(sent.Profile, "F") != (f == "F") {
		t.Errorf("%s was offered on as %s", offer.Profile, sent.Profile)
	}
	answer, ok := b.answer(t, sent)
	if !ok {
		tr.Reject()
		return errRefused
	}
	back, err := tr.Answer(answer)
	if err != nil {
		tr.Reject()
		return err
	}
	if back.Profile != offer.Profile {
		t.Errorf("%s was answered as %s", offer.Profile, back.Profile)
	}
	a.answered(t, back)
	tr.check(t)
	return nil
}

var errRefused = errors.New("488 of the far end")

// check demands that both agents and the ends agree on keys.
func (tr *trunk) check(t *testing.T) {
	t.Helper()
	ends := tr.Ends()
	for i, a := range tr.agents {
		e, policy := ends[i], tr.cfg.Sides[i].Policy
		switch e.Mode {
		case KeyedSDES:
			if !e.Receive.SameKeys(a.sdes.Send()) || !e.Send.SameKeys(a.sdes.Receive()) {
				t.Errorf("side %d: keys differ", i)
			}
		case Passed:
			if !e.Receive.SameKeys(a.sdes.Send()) || !e.Receive.SameKeys(tr.agents[1-i].sdes.Receive()) || !e.Send.Zero() {
				t.Errorf("side %d: keys were not passed", i)
			}
		case KeyedDTLS:
			if len(e.Fingerprints) != 1 || !e.Fingerprints[0].Equal(a.print) || e.Association == 0 {
				t.Errorf("side %d: %+v", i, e)
			}
		case Clear:
			if policy == Required {
				t.Errorf("side %d is clear, but SRTP is required", i)
			}
		}
		untouched := tr.cfg.Sides[0].Policy == Off && tr.cfg.Sides[1].Policy == Off
		if (e.Mode != Clear) != a.keyed && !untouched {
			t.Errorf("side %d: mode %s, but the agent has keys: %t", i, e.Mode, a.keyed)
		}
		if policy == Off && e.Mode != Clear {
			t.Errorf("side %d: mode %s with policy off", i, e.Mode)
		}
	}
	if (ends[0].Mode == Passed) != (ends[1].Mode == Passed) {
		t.Error("keys were passed on one side only")
	}
}

var ourPrint = FingerprintOf([]byte("ours"))

func TestCombinations(t *testing.T) {
	const refusal, far = "488", "far 488"
	pol := func(a, b Policy) Config {
		return Config{Sides: [2]SideConfig{{Policy: a}, {Policy: b}}, Fingerprint: ourPrint}
	}
	with := func(c Config, change func(*Config)) Config { change(&c); return c }
	pass := func(c *Config) { c.Pass = true }
	dtls := func(c *Config) { c.Sides[1].Method = DTLS }
	both := func(a, b func(*Config)) func(*Config) { return func(c *Config) { a(c); b(c) } }
	for _, c := range []struct {
		cfg  Config
		a, b ability
		want string // modes of external and internal, or who refuses
	}{
		{pol(Off, Off), plainOnly, plainOnly, "clear clear"},
		{pol(Off, Off), sdesOnly, sdesOnly, "clear clear"}, // from party to party, none of our business
		{pol(Off, Off), dtlsOnly, dtlsOnly, "clear clear"},
		{pol(Off, Optional), plainOnly, plainOnly, "clear clear"},
		{pol(Off, Optional), plainOnly, opportunist, "clear sdes"},
		{pol(Off, Optional), opportunist, opportunist, "clear sdes"},
		{pol(Off, Optional), sdesOnly, opportunist, refusal},
		{pol(Off, Required), plainOnly, sdesOnly, "clear sdes"},
		{pol(Off, Required), plainOnly, plainOnly, far},
		{with(pol(Off, Required), dtls), plainOnly, dtlsOnly, "clear dtls"},
		{with(pol(Off, Optional), dtls), plainOnly, dtlsOnly, "clear dtls"},
		{with(pol(Off, Optional), dtls), plainOnly, opportunist, "clear clear"},

		{pol(Optional, Off), plainOnly, plainOnly, "clear clear"},
		{pol(Optional, Off), opportunist, plainOnly, "sdes clear"},
		{pol(Optional, Off), sdesOnly, plainOnly, "sdes clear"},
		{pol(Optional, Off), sdesOnly, sdesOnly, "sdes clear"},
		{pol(Optional, Off), dtlsOnly, plainOnly, "dtls clear"},
		{pol(Optional, Optional), plainOnly, plainOnly, "clear clear"},
		{pol(Optional, Optional), plainOnly, opportunist, "clear sdes"},
		{pol(Optional, Optional), sdesOnly, plainOnly, "sdes clear"},
		{pol(Optional, Optional), sdesOnly, opportunist, "sdes sdes"},
		{pol(Optional, Optional), sdesOnly, sdesOnly, "sdes clear"}, // takes keys in the secure profile alone

		{pol(Required, Off), plainOnly, plainOnly, refusal},
		{pol(Required, Off), opportunist, plainOnly, "sdes clear"},
		{pol(Required, Off), sdesOnly, plainOnly, "sdes clear"},
		{pol(Required, Off), dtlsOnly, plainOnly, "dtls clear"},
		{pol(Required, Optional), sdesOnly, plainOnly, "sdes clear"},
		{pol(Required, Required), sdesOnly, plainOnly, far},
		{pol(Required, Required), sdesOnly, sdesOnly, "sdes sdes"},
		{pol(Required, Required), dtlsOnly, sdesOnly, "dtls sdes"},
		{with(pol(Required, Required), dtls), sdesOnly, dtlsOnly, "sdes dtls"},
		{with(pol(Required, Required), dtls), dtlsOnly, dtlsOnly, "dtls dtls"},
		{with(pol(Required, Required), dtls), sdesOnly, sdesOnly, far},

		{with(pol(Off, Off), pass), sdesOnly, sdesOnly, "clear clear"},
		{with(pol(Optional, Off), pass), sdesOnly, plainOnly, "sdes clear"},
		{with(pol(Required, Required), pass), sdesOnly, sdesOnly, "passed passed"},
		{with(pol(Optional, Optional), pass), sdesOnly, opportunist, "passed passed"},
		{with(pol(Optional, Optional), pass), opportunist, opportunist, "passed passed"},
		{with(pol(Optional, Optional), pass), sdesOnly, plainOnly, "sdes clear"},
		{with(pol(Optional, Optional), pass), plainOnly, opportunist, "clear sdes"},
		{with(pol(Required, Required), pass), dtlsOnly, sdesOnly, "dtls sdes"},
		{with(pol(Required, Required), both(pass, dtls)), sdesOnly, dtlsOnly, "sdes dtls"},
		{with(pol(Required, Required), pass), sdesOnly, plainOnly, far},
	} {
		for _, f := range []string{"", "F"} {
			name := fmt.Sprintf("%v %v→%v pass=%t method=%v %s", c.cfg.Sides[0].Policy, c.a, c.b, c.cfg.Pass, c.cfg.Sides[1].Method, f)
			t.Run(fmt.Sprint(name, " ", c.cfg.Sides[1].Policy), func(t *testing.T) {
				if err := c.cfg.Validate(); err != nil {
					t.Fatal(err)
				}
				tr := newTrunk(&c.cfg, c.a, c.b)
				err := tr.call(t, media.External, f)
				got := fmt.Sprint(tr.Ends()[0].Mode, " ", tr.Ends()[1].Mode)
				switch {
				case errors.Is(err, ErrNotAcceptable):
					got = refusal
				case errors.Is(err, errRefused):
					got = far
				case err != nil:
					t.Fatal(err)
				}
				if got != c.want {
					t.Errorf("%s, want %s (%v)", got, c.want, err)
				}
			})
		}
	}
}

// Over every combination, in both directions and over re-INVITEs both ways:
// check's invariants hold, and what was agreed stays as it is.
func TestEveryCombinationStays(t *testing.T) {
	calls := 0
	for n := range 3 * 3 * 2 * 2 * 2 * 4 * 4 * 2 {
		pick := func(k int) int { v := n % k; n /= k; return v }
		cfg := &Config{Sides: [2]SideConfig{{Policy: Policy(pick(3))}, {Policy: Policy(pick(3))}}, Fingerprint: ourPrint}
		cfg.Sides[0].Method, cfg.Sides[1].Method = Method(pick(2)), Method(pick(2))
		cfg.Pass = pick(2) == 1
		tr := newTrunk(cfg, ability(pick(int(abilitiesEnd))), ability(pick(int(abilitiesEnd))))
		from := media.Side(pick(2))
		if err := tr.call(t, from, ""); err != nil {
			if got := tr.Ends(); got[0].Mode != Clear || got[1].Mode != Clear {
				t.Fatalf("after %v: %+v", err, got)
			}
			continue
		}
		calls++
		was := tr.Ends()
		// With a side that cannot offer what it took, only its peer re-invites.
		for _, side := range []media.Side{from, from, from.Other()} {
			if side != from && !offersWhatItHas(tr.agents[side], was[side]) {
				continue
			}
			if err := tr.call(t, side, ""); err != nil {
				t.Fatalf("%+v, %v and %v, from %s: the %s side re-invites: %v", cfg, tr.agents[0], tr.agents[1], from, side, err)
			}
			for i, e := range tr.Ends() {
				w := was[i]
				if e.Mode != w.Mode || e.Restarts(w) || e.Association != w.Association || e.Role != w.Role || e.Mode == KeyedSDES && (!e.Send.SameKeys(w.Send) || !e.Receive.SameKeys(w.Receive)) {
					t.Fatalf("%+v, %v and %v, from %s: a refresh by the %s side changed end %d:\n%+v\n%+v", cfg, tr.agents[0], tr.agents[1], from, side, i, w, e)
				}
			}
		}
		tr.Wipe()
	}
	if calls < 200 {
		t.Errorf("%d calls came about", calls)
	}
}

func offersWhatItHas(a *agent, e End) bool {
	switch e.Mode {
	case Clear:
		return a.ability == plainOnly
	case KeyedDTLS:
		return a.ability == dtlsOnly
	}
	return a.ability == sdesOnly || a.ability == opportunist
}

func TestRefusalText(t *testing.T) {
	l := NewLine(&Config{Sides: [2]SideConfig{{Policy: Required}, {}}})
	_, err := l.Offer(media.External, Media{Profile: "RTP/AVP"})
	var r *Refusal
	if !errors.As(err, &r) || r.Side != media.External || !strings.Contains(err.Error(), "external side: plain RTP is offered, but SRTP is required (srtp: required)") {
		t.Errorf("%v", err)
	}
	if _, err := l.Answer(Media{}); !errors.Is(err, ErrNoOffer) {
		t.Errorf("%v", err)
	}
	l.Reject()
}

func TestConfigFaults(t *testing.T) {
	bad := Config{Sides: [2]SideConfig{{Policy: Required, Method: DTLS, Suites: []Suite{AESCM256SHA1x80, AESCM256SHA1x80}}, {Policy: 9, Suites: []Suite{0}}}}
	err := bad.Validate()
	for _, part := range []string{"external side: srtp suite AES_256_CM", "needs a certificate", "none of the srtp suites", "internal side: srtp policy", "suite 0"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
		}
	}
	var p Policy
	var m Method
	if p.UnmarshalText([]byte("required")) != nil || p != Required || m.UnmarshalText([]byte("dtls")) != nil || m != DTLS || p.UnmarshalText([]byte("on")) == nil || m.UnmarshalText([]byte("")) == nil {
		t.Errorf("%s, %s", p, m)
	}
	if slices.Contains(DTLSSuites(nil), AESCM256SHA1x80) || len(DTLSSuites(nil)) != 4 {
		t.Errorf("%v", DTLSSuites(nil))
	}
}
