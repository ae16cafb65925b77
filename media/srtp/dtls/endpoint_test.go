package dtls

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/trunktap/trunktap/media/srtp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func certificate(t testing.TB) *Certificate {
	t.Helper()
	c, err := NewCertificate(time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// party is an endpoint with what it was told.
type party struct {
	*Endpoint
	cert *Certificate
	keys chan Keys
	errs chan error
}

// newParty starts an endpoint; change may alter its configuration.
func newParty(t testing.TB, send func([]byte) error, change func(*Config)) *party {
	t.Helper()
	p := &party{cert: certificate(t), keys: make(chan Keys, 64), errs: make(chan error, 64)}
	cfg := Config{
		Certificate: p.cert, Send: send,
		Established: func(k Keys) { p.keys <- k }, Failed: func(err error) { p.errs <- err },
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if p.Endpoint, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *party) close(t testing.TB) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func (p *party) start(number uint32, role srtp.Role, peer ...srtp.Fingerprint) {
	p.Start(Association{Number: number, Role: role, Fingerprints: peer})
}

func (p *party) mustKeys(t testing.TB) Keys {
	t.Helper()
	select {
	case k := <-p.keys:
		return k
	case err := <-p.errs:
		t.Fatalf("handshake: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatalf("no keys: %+v", p.Stats())
	}
	return Keys{}
}

func (p *party) mustFail(t testing.TB, want error) {
	t.Helper()
	select {
	case <-p.keys:
		t.Fatal("keys without a right to them")
	case err := <-p.errs:
		if !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
	}
}

// link joins two parties; drop decides which datagrams get lost.
func link(t testing.TB, drop func() bool, change func(*Config)) (a, b *party) {
	t.Helper()
	if drop == nil {
		drop = func() bool { return false }
	}
	to := func(p **party) func([]byte) error {
		return func(d []byte) error {
			if !drop() {
				(*p).Deliver(d)
			}
			return nil
		}
	}
	a = newParty(t, to(&b), change)
	b = newParty(t, to(&a), change)
	return a, b
}

// media demands that what one protects the other takes.
func media(t testing.TB, from, to Keys) {
	t.Helper()
	p, err := srtp.NewProtector(from.Send)
	if err != nil {
		t.Fatal(err)
	}
	u, err := srtp.NewUnprotector(to.Receive, 0)
	if err != nil {
		t.Fatal(err)
	}
	plain := append([]byte{0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7}, bytes.Repeat([]byte{9}, 160)...)
	wire, err := p.RTP(make([]byte, 400), plain)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := u.RTP(make([]byte, 400), wire, time.Now()); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("media under the keys: %v", err)
	}
}

func TestHandshake(t *testing.T) {
	for suite := range profiles {
		t.Run(suite.String(), func(t *testing.T) {
			a, b := link(t, nil, func(c *Config) { c.Suites = []srtp.Suite{srtp.AESCM256SHA1x80, suite} })
			defer a.close(t)
			defer b.close(t)
			a.start(1, srtp.Active, b.cert.Fingerprint())
			b.start(1, srtp.Passive, a.cert.Fingerprint())
			ka, kb := a.mustKeys(t), b.mustKeys(t)
			if ka.Suite != suite || kb.Suite != suite || ka.Association != 1 {
				t.Errorf("suites %s and %s", ka.Suite, kb.Suite)
			}
			media(t, ka, kb)
			media(t, kb, ka)
			if s := a.Stats(); s.Phase != Established || s.Handshakes != 1 || s.Association != 1 {
				t.Errorf("stats %+v", s)
			}
			a.start(1, srtp.Active, b.cert.Fingerprint())
			if s := a.Stats(); s.Phase != Established {
				t.Errorf("the same association again: %+v", s)
			}
		})
	}
}

// A ClientHello that comes before the answer that announces its sender waits.
func TestEarlyClientHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := link(t, nil, nil)
		a.start(1, srtp.Active, b.cert.Fingerprint())
		time.Sleep(3 * time.Second)
		if s := b.Stats(); s.Phase != Idle {
			t.Errorf("stats %+v", s)
		}
		b.start(1, srtp.Passive, a.cert.Fingerprint())
		media(t, a.mustKeys(t), b.mustKeys(t))
		a.close(t)
		b.close(t)
	})
}

func TestHandshakeOverLoss(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			rnd := make(chan *rand.Rand, 1)
			rnd <- rand.New(rand.NewPCG(seed, 1))
			a, b := link(t, func() bool {
				r := <-rnd
				defer func() { rnd <- r }()
				return r.IntN(100) < 25
			}, func(c *Config) { c.Timeout = 60 * time.Second })
			a.start(1, srtp.Active, b.cert.Fingerprint())
			b.start(1, srtp.Passive, a.cert.Fingerprint())
			media(t, latest(t, a), latest(t, b))
			a.close(t)
			b.close(t)
		})
	}
}

// latest waits as long as the endpoint itself does.
func latest(t *testing.T, p *party) Keys {
	t.Helper()
	select {
	case k := <-p.keys:
		return k
	case err := <-p.errs:
		t.Fatal(err)
	}
	return Keys{}
}

func TestWrongCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := certificate(t)
		for _, role := range []srtp.Role{srtp.Active, srtp.Passive} {
			a, b := link(t, nil, nil)
			a.start(1, role, other.Fingerprint())
			b.start(1, 1-role, a.cert.Fingerprint())
			a.mustFail(t, srtp.ErrFingerprint)
			if s := a.Stats(); s.Phase != Failed {
				t.Errorf("stats %+v", s)
			}
			a.close(t)
			b.close(t)
			for len(a.keys) > 0 {
				t.Error("keys without a right to them")
			}
		}
	})
}

func TestWeakHash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, allowed := range []bool{false, true} {
			a, b := link(t, nil, func(c *Config) { c.SHA1 = allowed })
			sum := sha1.Sum(b.cert.tls.Certificate[0])
			a.start(1, srtp.Active, srtp.Fingerprint{Hash: "sha-1", Sum: sum[:]})
			b.start(1, srtp.Passive, a.cert.Fingerprint())
			if allowed {
				media(t, a.mustKeys(t), b.mustKeys(t))
			} else {
				a.mustFail(t, srtp.ErrFingerprint)
			}
			a.close(t)
			b.close(t)
		}
	})
}

func TestNoCommonSuite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := srtp.AEADAES256GCM
		a, b := link(t, nil, func(c *Config) { c.Suites, next = []srtp.Suite{next}, srtp.AEADAES128GCM })
		a.start(1, srtp.Active, b.cert.Fingerprint())
		b.start(1, srtp.Passive, a.cert.Fingerprint())
		<-a.errs
		<-b.errs
		a.close(t)
		b.close(t)
	})
}

func TestNobodyAnswers(t *testing.T) {
	for _, role := range []srtp.Role{srtp.Active, srtp.Passive} {
		synctest.Test(t, func(t *testing.T) {
			sent := 0
			a := newParty(t, func([]byte) error { sent++; return net.ErrClosed }, nil)
			begin := time.Now()
			a.start(1, role, a.cert.Fingerprint())
			a.mustFail(t, context.DeadlineExceeded)
			if d := time.Since(begin); d > 11*time.Second || d < 9*time.Second {
				t.Errorf("it took %v", d)
			}
			if s := a.Stats(); s.SendErrors != uint64(sent) || role == srtp.Active && (sent < 4 || sent > 40 || s.Handshakes != 3) {
				t.Errorf("%d datagrams went out, stats %+v", sent, s)
			}
			a.start(1, role, a.cert.Fingerprint()) // again after a failure
			a.mustFail(t, context.DeadlineExceeded)
			a.close(t)
		})
	}
}

// A new association replaces the old one without a sign of its end.
func TestRehandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var alerts atomic.Int32
		a, b := link(t, nil, func(c *Config) {
			send := c.Send
			c.Send = func(d []byte) error {
				if d[0] == 21 {
					alerts.Add(1)
				}
				return send(d)
			}
		})
		a.start(1, srtp.Active, b.cert.Fingerprint())
		b.start(1, srtp.Passive, a.cert.Fingerprint())
		first, _ := a.mustKeys(t), b.mustKeys(t)
		for n := uint32(2); n < 5; n++ {
			role := srtp.Role(n % 2)
			a.start(n, role, b.cert.Fingerprint())
			b.start(n, 1-role, a.cert.Fingerprint())
			ka, kb := a.mustKeys(t), b.mustKeys(t)
			if ka.Association != n || ka.Send.Same(first.Send) {
				t.Errorf("association %d", ka.Association)
			}
			media(t, ka, kb)
		}
		if len(a.errs)+len(b.errs) != 0 {
			t.Error("an association failed")
		}
		if n := alerts.Load(); n != 0 {
			t.Errorf("%d alerts on the way", n)
		}
		a.close(t)
		b.close(t)
		if alerts.Load() == 0 {
			t.Error("the end was not told")
		}
	})
}

// The last Start counts, however fast they come, and Close needs no peer.
func TestStartAndCloseAtAnyTime(t *testing.T) {
	for i := range 20 {
		synctest.Test(t, func(t *testing.T) {
			a, b := link(t, nil, nil)
			for n := uint32(1); n < 10; n++ {
				a.start(n, srtp.Active, b.cert.Fingerprint())
				b.start(n, srtp.Passive, a.cert.Fingerprint())
				time.Sleep(time.Duration(i) * 100 * time.Microsecond)
			}
			if i%2 == 0 {
				a.close(t)
				b.close(t)
				a.start(99, srtp.Active, b.cert.Fingerprint())
				return
			}
			ka, kb := a.mustKeys(t), b.mustKeys(t)
			for ka.Association != 9 {
				ka = a.mustKeys(t)
			}
			for kb.Association != 9 {
				kb = b.mustKeys(t)
			}
			media(t, ka, kb)
			a.close(t)
			b.close(t)
		})
	}
}

func TestQueueIsBounded(t *testing.T) {
	a := newParty(t, func([]byte) error { return nil }, func(c *Config) { c.QueueDatagramsMax = 10 })
	for range 100 {
		a.Deliver([]byte{22, 1, 2, 3})
	}
	a.Deliver([]byte{0x80, 1})
	a.Deliver(nil)
	a.Deliver(append([]byte{22}, make([]byte, datagramBytesMax)...))
	if s := a.Stats(); s.Dropped != 93 {
		t.Errorf("stats %+v", s)
	}
	a.close(t)
}

func TestConfig(t *testing.T) {
	send, done, fail := func([]byte) error { return nil }, func(Keys) {}, func(error) {}
	good := Config{Certificate: certificate(t), Send: send, Established: done, Failed: fail}
	for name, change := range map[string]func(*Config){
		"certificate": func(c *Config) { c.Certificate = nil },
		"send":        func(c *Config) { c.Send = nil },
		"suites":      func(c *Config) { c.Suites = []srtp.Suite{srtp.AESCM256SHA1x80} },
		"limit":       func(c *Config) { c.Timeout = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzDeliver(f *testing.F) {
	f.Add([]byte{22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}, true)
	f.Add([]byte{21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40}, false)
	cert := certificate(f)
	f.Fuzz(func(t *testing.T, datagram []byte, active bool) {
		role := srtp.Passive
		if active {
			role = srtp.Active
		}
		e, err := New(Config{
			Certificate: cert, Send: func([]byte) error { return nil },
			Established: func(Keys) { t.Error("keys") }, Failed: func(error) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		e.Start(Association{Number: 1, Role: role, Fingerprints: []srtp.Fingerprint{cert.Fingerprint()}})
		for range 3 {
			e.Deliver(datagram)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}
