package srtp

import (
	"errors"
	"slices"
	"testing"

	"github.com/trunktap/trunktap/media"
)

func mustCall(t *testing.T, tr *trunk, from media.Side) [2]End {
	t.Helper()
	if err := tr.call(t, from, ""); err != nil {
		t.Fatal(err)
	}
	return tr.Ends()
}

func required(pass bool) *Config {
	return &Config{Sides: [2]SideConfig{{Policy: Required}, {Policy: Required}}, Pass: pass, Fingerprint: ourPrint}
}

// A side that rekeys changes its own key alone, whether keys are passed or not.
func TestRekeyByOneSide(t *testing.T) {
	for _, pass := range []bool{false, true} {
		tr := newTrunk(required(pass), sdesOnly, sdesOnly)
		was := mustCall(t, tr, media.External)
		a := tr.agents[media.Internal]
		lines := mustOffer(t, &a.sdes, Terms{Renew: true})
		sent, err := tr.Offer(media.Internal, Media{Profile: "RTP/SAVP", Crypto: lines})
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := tr.agents[media.External].answer(t, sent)
		back, err := tr.Answer(answer)
		if err != nil {
			t.Fatal(err)
		}
		a.answered(t, back)
		tr.check(t)
		now := tr.Ends()
		if now[1].Receive.SameKeys(was[1].Receive) || !now[0].Receive.SameKeys(was[0].Receive) || now[0].Mode != was[0].Mode {
			t.Errorf("pass %t: %v → %v", pass, was, now)
		}
		if !pass && (!now[0].Send.SameKeys(was[0].Send) || !now[1].Send.SameKeys(was[1].Send) || now[1].Restarts(was[1])) {
			t.Errorf("our keys changed: %v → %v", was, now)
		}
	}
}

// A refused re-INVITE leaves what was agreed, early answers to it included.
func TestRejectedOffer(t *testing.T) {
	for _, pass := range []bool{false, true} {
		tr := newTrunk(required(pass), sdesOnly, sdesOnly)
		was := mustCall(t, tr, media.External)
		fresh := newAgent(sdesOnly, "external")
		for _, early := range []bool{false, true} {
			sent, err := tr.Offer(media.External, fresh.offer(t, ""))
			if err != nil {
				t.Fatal(err)
			}
			if early {
				other := newAgent(sdesOnly, "internal")
				answer, _ := other.answer(t, sent)
				if _, err := tr.Answer(answer); err != nil {
					t.Fatal(err)
				}
				if tr.Ends()[1].Receive.SameKeys(was[1].Receive) {
					t.Error("the early answer did nothing")
				}
			}
			tr.Reject()
			tr.check(t)
			for i, e := range tr.Ends() {
				if e.Mode != was[i].Mode || !e.Receive.SameKeys(was[i].Receive) || e.Restarts(was[i]) || !pass && !e.Send.SameKeys(was[i].Send) {
					t.Errorf("pass %t, early %t: end %d was %v, is %v", pass, early, i, was[i], e)
				}
			}
		}
		if _, err := tr.Offer(media.External, Media{Profile: "RTP/AVP"}); !errors.Is(err, ErrNotAcceptable) {
			t.Errorf("plain RTP in mid-call: %v", err)
		}
		tr.check(t)
	}
}

// Forks: the last answer counts, the offerer sees one key of ours all along.
func TestForkedAnswers(t *testing.T) {
	tr := newTrunk(required(false), sdesOnly, sdesOnly)
	sent, err := tr.Offer(media.External, tr.agents[0].offer(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	var first Media
	for i := range 3 {
		tr.agents[1] = newAgent(sdesOnly, "internal")
		answer, _ := tr.agents[1].answer(t, sent)
		back, err := tr.Answer(answer)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = back
			tr.agents[0].answered(t, back)
		} else if !back.Crypto[0].SameKeys(first.Crypto[0]) {
			t.Error("the offerer got another key")
		}
		tr.check(t)
	}
}

func TestForkedDTLSAnswers(t *testing.T) {
	cfg := required(false)
	cfg.Sides[1].Method = DTLS
	tr := newTrunk(cfg, sdesOnly, dtlsOnly)
	sent, err := tr.Offer(media.External, tr.agents[0].offer(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	if sent.Profile != "UDP/TLS/RTP/SAVP" || sent.Setup != SetupActpass || !sent.Fingerprints[0].Equal(ourPrint) || !validTLSID(sent.TLSID) {
		t.Errorf("offer %+v", sent)
	}
	var numbers []uint32
	for _, name := range []string{"a", "a", "b", "b"} {
		answer, _ := newAgent(dtlsOnly, name).answer(t, sent)
		if _, err := tr.Answer(answer); err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, tr.Ends()[1].Association)
	}
	if !slices.Equal(numbers, []uint32{1, 1, 2, 2}) {
		t.Errorf("associations %v", numbers)
	}
}

// What makes a new association (RFC 8842 section 4).
func TestAssociations(t *testing.T) {
	cfg := &Config{Sides: [2]SideConfig{{Policy: Required}, {}}, Fingerprint: ourPrint}
	id1, id2 := "aaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbb"
	p1, p2 := []Fingerprint{FingerprintOf([]byte("1"))}, []Fingerprint{FingerprintOf([]byte("2"))}
	l := NewLine(cfg)
	var ourID string
	for i, step := range []struct {
		offer  Media
		number uint32
		role   Role
	}{
		{Media{Fingerprints: p1, Setup: SetupActpass}, 1, Active},
		{Media{Fingerprints: p1, Setup: SetupActpass}, 1, Active},
		{Media{Fingerprints: p1, Setup: SetupPassive}, 1, Active},
		{Media{Fingerprints: p1, Setup: SetupActive}, 2, Passive},
		{Media{Fingerprints: p1, Setup: SetupActpass}, 2, Passive}, // the role stays
		{Media{Fingerprints: p2, Setup: SetupActpass}, 3, Passive},
		{Media{Fingerprints: p2, Setup: SetupActpass, Moved: true}, 4, Passive},
		{Media{Fingerprints: p2, Setup: SetupActpass, TLSID: id1}, 5, Passive},
		{Media{Fingerprints: p2, Setup: SetupActpass, TLSID: id1, Moved: true}, 5, Passive},
		{Media{Fingerprints: p2, Setup: SetupActpass, TLSID: id2}, 6, Passive},
		{Media{Fingerprints: p2}, 7, Passive}, // no a=setup is active
	} {
		step.offer.Profile = "UDP/TLS/RTP/SAVPF"
		if _, err := l.Offer(media.External, step.offer); err != nil {
			t.Fatal(err)
		}
		back, err := l.Answer(Media{Profile: "RTP/AVPF"})
		if err != nil {
			t.Fatal(err)
		}
		e := l.Ends()[0]
		if e.Mode != KeyedDTLS || e.Association != step.number || e.Role != step.role || back.Setup != step.role.setup() || (back.TLSID != "") != (step.offer.TLSID != "") {
			t.Errorf("step %d: %+v, answer %+v", i, e, back)
		}
		if step.offer.TLSID == id1 && ourID != "" && back.TLSID != ourID || step.offer.TLSID == id2 && back.TLSID == ourID {
			t.Errorf("step %d: our tls-id %s after %s", i, back.TLSID, ourID)
		}
		ourID = back.TLSID
	}
}

// After plain RTP or another protocol in between, neither keys nor associations
// of before come back: what was sent with them is forgotten.
func TestNothingComesBack(t *testing.T) {
	for _, between := range []Media{{Profile: "RTP/AVP"}, {Profile: "udptl"}, {Profile: "RTP/SAVP", Refused: true}} {
		for _, can := range []ability{sdesOnly, dtlsOnly} {
			cfg := &Config{Sides: [2]SideConfig{{Policy: Optional}, {}}, Fingerprint: ourPrint}
			tr := newTrunk(cfg, can, plainOnly)
			was := mustCall(t, tr, media.External)[0]
			sent, err := tr.Offer(media.External, between)
			if err != nil || sent.Profile != between.Profile {
				t.Fatalf("%+v, %v", sent, err)
			}
			if _, err := tr.Answer(Media{Profile: sent.Profile, Refused: between.Refused}); err != nil {
				t.Fatal(err)
			}
			if e := tr.Ends()[0]; e.Mode != Clear || !e.Send.Zero() || len(e.Fingerprints) != 0 {
				t.Errorf("in between: %+v", e)
			}
			now := mustCall(t, tr, media.External)[0]
			if now.Mode != was.Mode || now.Mode == KeyedSDES && now.Send.SameKeys(was.Send) || now.Mode == KeyedDTLS && now.Association == was.Association {
				t.Errorf("%s: %+v came back after %s", can, now, between.Profile)
			}
		}
	}
}

// A peer whose address changed with its key is another one: it cannot know our
// rollover counters.
func TestMoved(t *testing.T) {
	cfg := &Config{Sides: [2]SideConfig{{Policy: Required}, {}}}
	l := NewLine(cfg)
	step := func(n byte, moved bool) End {
		t.Helper()
		offer := Media{Profile: "RTP/SAVP", Crypto: []Crypto{line(AEADAES128GCM, testKey(AEADAES128GCM, n))}, Moved: moved}
		if _, err := l.Offer(media.External, offer); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Answer(Media{Profile: "RTP/AVP"}); err != nil {
			t.Fatal(err)
		}
		return l.Ends()[0]
	}
	first := step(1, false)
	if e := step(1, true); !e.Send.SameKeys(first.Send) || e.Restarts(first) {
		t.Error("another address with the same key is the same peer")
	}
	if e := step(2, false); !e.Send.SameKeys(first.Send) || e.Restarts(first) {
		t.Error("another key at the same address is the same peer")
	}
	if e := step(3, true); e.Send.SameKeys(first.Send) || !e.Restarts(first) {
		t.Error("another peer got our old key")
	}
}

func TestAnswersThatDoNotFit(t *testing.T) {
	other, clear := line(AEADAES128GCM, testKey(AEADAES128GCM, 1)), line(AESCM128SHA1x80, testKey(AESCM128SHA1x80, 2))
	clear.UnencryptedSRTCP = true
	for name, c := range map[string]struct {
		cfg    *Config
		answer Media
	}{
		"no keys":               {required(false), Media{Profile: "RTP/SAVP"}},
		"no keys, passed":       {required(true), Media{Profile: "RTP/SAVP"}},
		"suite":                 {withSuite(required(false), AESCM128SHA1x80), Media{Profile: "RTP/SAVP", Crypto: []Crypto{other}}},
		"suite, passed":         {withSuite(required(true), AESCM128SHA1x80), Media{Profile: "RTP/SAVP", Crypto: []Crypto{other}}},
		"clear RTCP, passed":    {withSuite(required(true), AESCM128SHA1x80), Media{Profile: "RTP/SAVP", Crypto: []Crypto{clear}}},
		"secure without keys":   {&Config{Sides: [2]SideConfig{{Policy: Optional}, {Policy: Optional}}}, Media{Profile: "RTP/SAVP"}},
		"dtls, holdconn":        {dtlsTo(required(false)), Media{Profile: "UDP/TLS/RTP/SAVP", Fingerprints: []Fingerprint{ourPrint}, Setup: SetupHoldconn}},
		"dtls, sha-1 alone":     {dtlsTo(required(false)), Media{Profile: "UDP/TLS/RTP/SAVP", Fingerprints: []Fingerprint{{"sha-1", make([]byte, 20)}}, Setup: SetupActive}},
		"dtls, no fingerprints": {dtlsTo(required(false)), Media{Profile: "UDP/TLS/RTP/SAVP", Setup: SetupActive}},
	} {
		l := NewLine(c.cfg)
		suite := AESCM128SHA1x80
		if _, err := l.Offer(media.External, Media{Profile: "RTP/SAVP", Crypto: []Crypto{line(suite, testKey(suite, 1))}}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var r *Refusal
		if _, err := l.Answer(c.answer); !errors.As(err, &r) || r.Side != media.Internal {
			t.Errorf("%s: %v", name, err)
		}
		if e := l.Ends(); e[0].Mode != Clear || e[1].Mode != Clear {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func withSuite(c *Config, s Suite) *Config {
	c.Sides[0].Suites, c.Sides[1].Suites = []Suite{s}, []Suite{s}
	return c
}

func dtlsTo(c *Config) *Config {
	c.Sides[1].Method = DTLS
	return c
}

// At the end of a call nothing of its keys is left in the Line.
func TestLineWipe(t *testing.T) {
	for _, pass := range []bool{false, true} {
		tr := newTrunk(required(pass), sdesOnly, sdesOnly)
		ends := mustCall(t, tr, media.External)
		tr.Wipe()
		for i, e := range ends {
			if e.Receive.Keys[0].Key.Len() != 0 || !pass && e.Send.Keys[0].Key.Len() != 0 {
				t.Errorf("pass %t: the keys of end %d are there yet", pass, i)
			}
		}
		if e := tr.Ends(); e[0].Mode != Clear {
			t.Errorf("%+v", e)
		}
	}
}
