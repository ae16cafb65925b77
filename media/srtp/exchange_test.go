package srtp

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

var aesFirst = Terms{Suites: []Suite{AESCM128SHA1x80, AEADAES256GCM}}

func mustOffer(t *testing.T, x *Exchange, terms Terms) []Crypto {
	t.Helper()
	lines, err := x.Offer(terms)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func mustAccept(t *testing.T, x *Exchange, lines []Crypto, terms Terms) Crypto {
	t.Helper()
	line, err := x.Accept(lines, terms)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// agreed demands that two ends mean the same keys.
func agreed(t *testing.T, a, b *Exchange) {
	t.Helper()
	if !a.Send().SameKeys(b.Receive()) || !b.Send().SameKeys(a.Receive()) || a.Send().SameKeys(b.Send()) {
		t.Fatalf("one end has %v and %v, the other %v and %v", a.Send(), a.Receive(), b.Send(), b.Receive())
	}
}

func TestExchange(t *testing.T) {
	var a, b Exchange
	offer := mustOffer(t, &a, aesFirst)
	if len(offer) != 2 || offer[0].Suite != AESCM128SHA1x80 || offer[1].Tag != 2 || offer[0].Keys[0].Key.Len() != 30 {
		t.Fatalf("offer %v", offer)
	}
	answer := mustAccept(t, &b, offer, Terms{Suites: []Suite{AEADAES256GCM}})
	if answer.Tag != 2 || answer.Suite != AEADAES256GCM {
		t.Fatalf("answer %v", answer)
	}
	if err := a.Answered([]Crypto{answer}, aesFirst); err != nil {
		t.Fatal(err)
	}
	agreed(t, &a, &b)
	was := a

	// A session refresh, either way, changes nothing.
	again := mustOffer(t, &a, aesFirst)
	if len(again) != 1 || !again[0].SameKeys(was.Send()) {
		t.Fatalf("refresh %v", again)
	}
	if line := mustAccept(t, &b, again, aesFirst); !line.SameKeys(answer) {
		t.Error("the answer to a refresh has a new key")
	}
	agreed(t, &a, &b)

	// The other end rekeys; ours stays, and so do the counters.
	rekey := mustOffer(t, &b, Terms{Suites: aesFirst.Suites, Renew: true})
	if rekey[0].SameKeys(answer) || rekey[0].Suite != answer.Suite {
		t.Fatalf("rekey %v", rekey)
	}
	line := mustAccept(t, &a, rekey, aesFirst)
	if !line.SameKeys(was.Send()) || a.Context() != was.Context() {
		t.Error("our key changed with theirs")
	}
	if err := b.Answered([]Crypto{line}, aesFirst); err != nil {
		t.Fatal(err)
	}
	agreed(t, &a, &b)

	// Another suite is another context, and so is a peer that moved.
	_ = mustAccept(t, &a, []Crypto{{Tag: 5, Suite: AESCM128SHA1x80, Keys: []MasterKey{{Key: testKey(AESCM128SHA1x80, 1)}}}}, aesFirst)
	if a.Context() != was.Context()+1 || a.Send().Tag != 5 {
		t.Errorf("another suite: context %d, %v", a.Context(), a.Send())
	}
	before := a.Send()
	moved := aesFirst
	moved.Restart = true
	_ = mustAccept(t, &a, []Crypto{{Tag: 5, Suite: AESCM128SHA1x80, Keys: []MasterKey{{Key: testKey(AESCM128SHA1x80, 2)}}}}, moved)
	if a.Context() != was.Context()+2 || a.Send().SameKeys(before) {
		t.Error("a peer that moved got the old key")
	}

	// A copy is where to go back to.
	now := a
	a = was
	if a.Send().SameKeys(now.Send()) || !a.Receive().SameKeys(was.Receive()) || a.Context() == now.Context() {
		t.Error("the copy changed with its original")
	}
}

func TestExchangeRefusals(t *testing.T) {
	var x Exchange
	if err := x.Answered(nil, Terms{}); !errors.Is(err, ErrNoOffer) {
		t.Errorf("no offer: %v", err)
	}
	offer := mustOffer(t, &x, Terms{})
	if len(offer) != len(DefaultSuites()) {
		t.Errorf("offer %v", offer)
	}
	clear := Crypto{Tag: 1, Suite: offer[0].Suite, Keys: []MasterKey{{Key: testKey(offer[0].Suite, 1)}}, Params: Params{UnencryptedSRTCP: true}}
	for name, lines := range map[string][]Crypto{"none": nil, "clear RTCP": {clear}, "zero": {{}}} {
		if err := x.Answered(lines, Terms{}); !errors.Is(err, ErrNoCommonSuite) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := x.Accept([]Crypto{line(AEADAES256GCM, testKey(AEADAES256GCM, 1))}, Terms{Suites: []Suite{AESCM128SHA1x80}}); !errors.Is(err, ErrNoCommonSuite) {
		t.Errorf("suite that is not allowed: %v", err)
	}
	if !x.Send().Zero() || !x.Receive().Zero() {
		t.Error("something is in force")
	}
	dry := Terms{Random: strings.NewReader("")}
	if _, err := new(Exchange).Offer(dry); err == nil {
		t.Error("keys of nothing")
	}
	if _, err := new(Exchange).Accept(offer, dry); err == nil {
		t.Error("a key of nothing")
	}
}

// A wrong tag is forgiven where the suite tells; forks answer one after the other.
func TestExchangeForks(t *testing.T) {
	var x Exchange
	offer := mustOffer(t, &x, aesFirst)
	for _, s := range []Suite{AEADAES256GCM, AESCM128SHA1x80} {
		answer := line(s, testKey(s, 3))
		if err := x.Answered([]Crypto{answer}, aesFirst); err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(offer, func(c Crypto) bool { return c.Suite == s })
		if !x.Send().SameKeys(offer[at]) || !x.Receive().SameKeys(answer) {
			t.Errorf("%s: %v, %v", s, x.Send(), x.Receive())
		}
	}
}

// The peer's clear RTCP is taken and answered alike.
func TestExchangeClearRTCP(t *testing.T) {
	offered, err := ParseCrypto("3 aes_cm_128_hmac_sha1_80 inline:" + inline30 + " UNENCRYPTED_SRTCP WSH=99")
	if err != nil {
		t.Fatal(err)
	}
	var x Exchange
	answer := mustAccept(t, &x, []Crypto{offered}, aesFirst)
	if text := answer.Attribute(); !strings.HasPrefix(text, "3 aes_cm_128_hmac_sha1_80 inline:") || !strings.HasSuffix(text, " UNENCRYPTED_SRTCP") {
		t.Errorf("answer %v", answer)
	}
	x.Wipe()
	if !x.Send().Zero() || offered.Keys[0].Key.Len() != 0 {
		t.Error("keys are there yet")
	}
}

// What is in force is preferred to what stands first.
func TestExchangePrefersWhatIsInForce(t *testing.T) {
	one, two := line(AEADAES256GCM, testKey(AEADAES256GCM, 1)), line(AEADAES256GCM, testKey(AEADAES256GCM, 2))
	other := line(AESCM128SHA1x80, testKey(AESCM128SHA1x80, 1))
	one.Tag, two.Tag, other.Tag = 1, 2, 3
	var x Exchange
	if got := mustAccept(t, &x, []Crypto{two, other}, aesFirst); got.Tag != 2 {
		t.Errorf("first offer: %v", got)
	}
	if got := mustAccept(t, &x, []Crypto{other, one, two}, aesFirst); got.Tag != 2 || !x.Receive().SameKeys(two) {
		t.Errorf("the same keys: %v", got)
	}
	if got := mustAccept(t, &x, []Crypto{other, one}, aesFirst); got.Tag != 1 {
		t.Errorf("the same suite: %v", got)
	}
}
