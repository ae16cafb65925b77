package sip

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/icholy/digest"
)

// Credentials are a user's. They are in no log.
type Credentials struct {
	Username string
	Password string
	Realm    string // challenges of other realms are not answered; empty: any is
}

// String leaves the password out, whatever prints it.
func (c Credentials) String() string { return "credentials of " + c.Username }

// Challenge is what a server wants to have answered (RFC 3261 section 22, RFC 8760).
type Challenge struct {
	Proxy bool // it came with 407
	of    *digest.Challenge
	count int // answers given to it
}

// Stale says that the answer was right but for its age: another may be given.
func (c *Challenge) Stale() bool { return c.of.Stale }

// ChallengeOf returns the first challenge of a 401 or 407 that can be answered by
// those who have credentials of realm; nil: none.
func ChallengeOf(res *Message, realm string) *Challenge {
	name := "WWW-Authenticate"
	if res.Status == 407 {
		name = "Proxy-Authenticate"
	}
	for _, v := range res.Fields(name) {
		ch, err := digest.ParseChallenge(v)
		if err != nil {
			continue
		}
		for i := range ch.QOP {
			ch.QOP[i] = strings.ToLower(strings.TrimSpace(ch.QOP[i]))
		}
		if ch.Nonce != "" && (realm == "" || ch.Realm == realm) && digest.CanDigest(ch) {
			return &Challenge{Proxy: res.Status == 407, of: ch}
		}
	}
	return nil
}

// Authorize gives a request the answer to a challenge, in place of one that it has
// for the same realm.
func (c *Challenge) Authorize(m *Message, by Credentials) error {
	c.count++
	answer, err := digest.Digest(c.of, digest.Options{
		Method: m.Method, URI: m.URI, Username: by.Username, Password: by.Password, Count: c.count,
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m.Body)), nil },
	})
	if err != nil {
		return errors.New("challenge cannot be answered") // not what the library says: it may quote
	}
	name := "Authorization"
	if c.Proxy {
		name = "Proxy-Authorization"
	}
	m.DropCredentials(name, c.of.Realm)
	m.Add(name, answer.String())
	return nil
}

// DropCredentials takes the answers for a realm out of a request.
func (m *Message) DropCredentials(name, realm string) {
	var keep []string
	for _, v := range m.Fields(name) {
		if c, err := digest.ParseCredentials(v); err != nil || c.Realm != realm {
			keep = append(keep, v)
		}
	}
	if len(keep) != m.count(name) {
		m.Set(name, keep...)
	}
}

// Bounds of a Gate.
const (
	nonceFor      = 30 * time.Second
	noncesUsedMax = 1 << 16 // in nonceFor; of requests that had the password
)

// Gate challenges those who call, and tells who has the password. It keeps nothing of
// those who have not: a nonce tells by itself when and for whom it was made. Of those
// who have it keeps which nonces were used, so that what was overheard cannot be sent
// again.
type Gate struct {
	by     Credentials
	secret [32]byte

	mu         sync.Mutex
	used       map[string]int // guarded by mu: the count of each nonce, since turned
	before     map[string]int // guarded by mu: those until then
	turnedLast time.Time      // guarded by mu
}

// NewGate makes a gate for one user; secret keys its nonces.
func NewGate(by Credentials, secret [32]byte) *Gate {
	return &Gate{by: by, secret: secret, used: map[string]int{}}
}

// Verdict is what a Gate says to a request.
type Verdict uint8

// Verdicts.
const (
	Stranger Verdict = iota // no credentials, or wrong ones
	TooOld                  // right ones for a nonce that is not good any more
	Known
)

// Check says whether a request has the gate's credentials. now is the time of the
// request. What was found good is not good a second time.
func (g *Gate) Check(req *Message, now time.Time) Verdict {
	verdict := Stranger
	for _, v := range req.Fields("Proxy-Authorization") {
		c, err := digest.ParseCredentials(v)
		if err != nil || c.Realm != g.by.Realm || c.Username != g.by.Username || c.URI != req.URI || c.QOP != "auth" || c.Nc < 1 {
			continue
		}
		want, err := digest.Digest(&digest.Challenge{Realm: c.Realm, Nonce: c.Nonce, Algorithm: c.Algorithm, QOP: []string{"auth"}},
			digest.Options{Method: req.Method, URI: c.URI, Username: g.by.Username, Password: g.by.Password, Count: c.Nc, Cnonce: c.Cnonce})
		if err != nil || subtle.ConstantTimeCompare([]byte(want.Response), []byte(strings.ToLower(c.Response))) != 1 {
			continue
		}
		if !g.made(c.Nonce, req, now) || !g.use(c.Nonce, c.Nc, now) {
			verdict = TooOld
			continue
		}
		return Known
	}
	return verdict
}

// Challenges are the values of Proxy-Authenticate for a request, the best first (RFC
// 8760 section 2.4).
func (g *Gate) Challenges(req *Message, stale bool, now time.Time) []string {
	nonce := g.nonce(uint64(now.UnixMilli()), req)
	var out []string
	for _, algorithm := range []string{"SHA-256", "MD5"} {
		out = append(out, (&digest.Challenge{Realm: g.by.Realm, Nonce: nonce, Algorithm: algorithm, QOP: []string{"auth"}, Stale: stale}).String())
	}
	return out
}

// Realm is that of the gate's challenges.
func (g *Gate) Realm() string { return g.by.Realm }

// nonce is good for one call of one source, for a time that it tells.
func (g *Gate) nonce(millis uint64, req *Message) string {
	at := strconv.FormatUint(millis, 16)
	h := hmac.New(sha256.New, g.secret[:])
	for _, s := range []string{at, req.CallID(), req.FromTag(), source(req.Flow.Remote)} {
		_, _ = h.Write([]byte(s + "\x00")) // a hash never fails
	}
	return at + "." + hex.EncodeToString(h.Sum(nil)[:16])
}

func source(a netip.AddrPort) string { return a.Addr().Unmap().String() }

func (g *Gate) made(nonce string, req *Message, now time.Time) bool {
	at, _, _ := strings.Cut(nonce, ".")
	millis, err := strconv.ParseUint(at, 16, 63)
	if err != nil {
		return false
	}
	age := now.Sub(time.UnixMilli(int64(millis)))
	return age >= -time.Second && age <= nonceFor && hmac.Equal([]byte(nonce), []byte(g.nonce(millis, req)))
}

// use notes the count of a nonce; false when it does not go up, or too many are kept.
func (g *Gate) use(nonce string, count int, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.turnedLast) > nonceFor {
		if now.Sub(g.turnedLast) > 2*nonceFor {
			g.used = map[string]int{}
		}
		g.before, g.used, g.turnedLast = g.used, map[string]int{}, now
	}
	if count <= max(g.used[nonce], g.before[nonce]) || len(g.used) >= noncesUsedMax {
		return false
	}
	g.used[nonce] = count
	return true
}
