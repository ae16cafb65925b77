package b2bua

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/icholy/digest"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
)

var user = sip.Credentials{Username: "tap", Password: "top-secret-4711", Realm: "pbx.example"}

// authed lets us have credentials for the PBX's side.
func authed(cfg *Config) {
	c := user
	cfg.Trunks[0].Sides[media.Internal].Auth = &c
}

func challenge(algorithm, nonce string, stale bool) string {
	return (&digest.Challenge{Realm: user.Realm, Nonce: nonce, Algorithm: algorithm, QOP: []string{"auth"}, Stale: stale}).String()
}

// checked says why a request does not answer a challenge; nc is the count of its nonce.
func checked(m *sip.Message, header, nonce string, nc int) error {
	for _, v := range m.Fields(header) {
		c, err := digest.ParseCredentials(v)
		if err != nil || c.Realm != user.Realm {
			continue
		}
		want, err := digest.Digest(&digest.Challenge{Realm: c.Realm, Nonce: nonce, Algorithm: c.Algorithm, QOP: []string{"auth"}},
			digest.Options{Method: m.Method, URI: m.URI, Username: user.Username, Password: user.Password, Count: nc, Cnonce: c.Cnonce})
		if err != nil || c.Nc != nc || c.Response != want.Response {
			return fmt.Errorf("nc %d, want %d; %v", c.Nc, nc, err)
		}
		return nil
	}
	return fmt.Errorf("no %s", header)
}

func number(m *sip.Message) uint32 { n, _ := m.CSeq(); return n }

// TestChallengesAnswered: a whole call through a PBX that challenges the INVITE, a
// re-INVITE whose nonce is stale, and nothing of which the carrier gets to see.
func TestChallengesAnswered(t *testing.T) {
	for _, algorithm := range []string{"MD5", "SHA-256"} {
		t.Run(algorithm, func(t *testing.T) {
			var log bytes.Buffer
			inBubble(t, func(cfg *Config) {
				authed(cfg)
				cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			}, func(w *bench) {
				a := begin(w.a, outside, "auth", sdpOf(carrier.Addr(), 7000))
				w.a.want("100")
				p := w.p.take(inside)
				w.p.reply(p.invite, 401, "x", []string{
					"WWW-Authenticate: Basic realm=\"pbx.example\"", "WWW-Authenticate: " + challenge("SHA-1024", "n0", false),
					"WWW-Authenticate: " + challenge(algorithm, "n1", false),
				}, "")
				w.p.want("ACK")
				again := w.p.take(inside)
				if err := checked(again.invite, "Authorization", "n1", 1); err != nil || number(again.invite) != number(p.invite)+1 {
					t.Fatalf("%v\n%s", err, again.invite.Append(nil))
				}
				w.p.reply(again.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
				ok := w.a.want("200")
				if number(ok) != 1 || ok.Has("WWW-Authenticate") {
					t.Errorf("the carrier got\n%s", ok.Append(nil))
				}
				a.remote, a.target = ok.Get("To"), contactURIOf(t, ok)
				a.send("ACK", nil, "")
				ack := w.p.want("ACK")
				if number(ack) != number(again.invite) || ack.Get("Authorization") != again.invite.Get("Authorization") {
					t.Errorf("ACK\n%s", ack.Append(nil))
				}
				// In the dialog the nonce goes on; a stale one is replaced.
				a.send("INVITE", []string{"Contact: <sip:alice@192.0.2.66>"}, sdpOf(carrier.Addr(), 7002))
				w.a.want("100")
				re := w.p.want("INVITE")
				if err := checked(re, "Authorization", "n1", 2); err != nil || number(re) != 3 {
					t.Errorf("%v\n%s", err, re.Append(nil))
				}
				a.send("INFO", nil, "") // is sent before the INVITE is sent again
				info := w.p.want("INFO")
				w.p.reply(info, 200, "", nil, "")
				w.a.want("200 INFO")
				w.p.reply(re, 401, "", []string{"WWW-Authenticate: " + challenge(algorithm, "n2", true)}, "")
				w.p.want("ACK")
				re = w.p.want("INVITE")
				if err := checked(re, "Authorization", "n2", 1); err != nil || number(re) <= number(info) {
					t.Errorf("%v, after INFO %d\n%s", err, number(info), re.Append(nil))
				}
				w.p.reply(re, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8002))
				if ok = w.a.want("200"); number(ok) != 2 {
					t.Errorf("CSeq %d", number(ok))
				}
				a.p.send(a.us, a.requestAt("ACK", 2, nil, ""))
				if ack := w.p.want("ACK"); number(ack) != number(re) {
					t.Errorf("ACK %d of INVITE %d", number(ack), number(re))
				}
				a.send("BYE", nil, "")
				bye := w.p.want("BYE")
				if err := checked(bye, "Authorization", "n2", 2); err != nil || number(bye) <= number(re) {
					t.Errorf("%v\n%s", err, bye.Append(nil))
				}
				w.p.reply(bye, 407, "", []string{"Proxy-Authenticate: " + challenge(algorithm, "n3", false)}, "")
				last := w.p.want("BYE")
				if err := checked(last, "Proxy-Authorization", "n3", 1); err != nil || number(last) != number(bye)+1 {
					t.Errorf("%v\n%s", err, last.Append(nil))
				}
				w.p.reply(last, 200, "", nil, "")
				if res := w.a.want("200 BYE"); number(res) != 4 {
					t.Errorf("CSeq %d", number(res))
				}
				if n := w.b.counters.Authorized.Load(); n != 3 {
					t.Errorf("%d challenges answered", n)
				}
			})
			if strings.Contains(log.String(), user.Password) {
				t.Error("the password is in the log")
			}
		})
	}
}

// TestOwnByeIsAuthorized: a BYE of ours is challenged, too.
func TestOwnByeIsAuthorized(t *testing.T) {
	inBubble(t, authed, func(w *bench) {
		w.established("own")
		closed := make(chan error)
		go func() { closed <- w.b.Close() }()
		first := w.p.want("BYE")
		w.p.reply(first, 401, "", []string{"WWW-Authenticate: " + challenge("MD5", "n", false)}, "")
		again := w.p.want("BYE")
		if err := checked(again, "Authorization", "n", 1); err != nil || number(again) != number(first)+1 {
			t.Errorf("%v\n%s", err, again.Append(nil))
		}
		w.p.reply(again, 200, "", nil, "")
		w.a.reply(w.a.want("BYE"), 200, "", nil, "")
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// TestWrongCredentials: a challenge that comes again passes to the caller, who gets
// to hear what the PBX said; so does one of another realm, at once.
func TestWrongCredentials(t *testing.T) {
	inBubble(t, authed, func(w *bench) {
		begin(w.a, outside, "wrong", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		for range 2 {
			p := w.p.take(inside)
			w.p.reply(p.invite, 401, "x", []string{"WWW-Authenticate: " + challenge("MD5", "n", false)}, "")
			w.p.want("ACK")
		}
		if res := w.a.want("401"); !res.Has("WWW-Authenticate") {
			t.Errorf("\n%s", res.Append(nil))
		}
		begin(w.a, outside, "other", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 401, "x", []string{`WWW-Authenticate: Digest realm="other", nonce="n"`}, "")
		w.p.want("ACK")
		w.a.want("401")
		if r := w.b.counters.Rejected.Load(); r != 1 {
			t.Errorf("%d refused", r)
		}
	})
}

// TestGate: callers of a side must have its password, and what was overheard cannot
// be sent again.
func TestGate(t *testing.T) {
	inBubble(t, func(cfg *Config) {
		cfg.Trunks[0].Sides[media.External].Gate = sip.NewGate(user, [32]byte{1})
	}, func(w *bench) {
		body := sdpOf(carrier.Addr(), 7000)
		a := begin(w.a, outside, "gate", body)
		res := w.a.want("407")
		w.p.quiet(time.Second)
		values := res.Fields("Proxy-Authenticate")
		if len(values) != 2 {
			t.Fatalf("\n%s", res.Append(nil))
		}
		answer := func(ch string, password string, nc int) string {
			c, err := digest.ParseChallenge(ch)
			if err != nil {
				t.Fatal(err)
			}
			by, err := digest.Digest(c, digest.Options{Method: "INVITE", URI: a.target, Username: user.Username, Password: password, Count: nc})
			if err != nil {
				t.Fatal(err)
			}
			return "Proxy-Authorization: " + by.String()
		}
		extra := "Contact: <sip:alice@192.0.2.66>"
		a.send("INVITE", []string{answer(values[0], "guess", 1), extra}, body)
		w.a.want("407")
		good := answer(values[0], user.Password, 1)
		a.send("INVITE", []string{good, extra, `Proxy-Authorization: Digest username="x", realm="far", nonce="y", uri="z", response="0"`}, body)
		w.a.want("100")
		p := w.p.take(inside)
		if got := p.invite.Fields("Proxy-Authorization"); len(got) != 1 || !strings.Contains(got[0], "far") {
			t.Errorf("credentials that pass: %q", got)
		}
		w.p.reply(p.invite, 486, "x", nil, "")
		w.p.want("ACK")
		w.a.want("486")
		time.Sleep(10 * time.Second)
		a.send("INVITE", []string{good, extra}, body) // again
		if res = w.a.want("407"); !strings.Contains(res.Get("Proxy-Authenticate"), "stale=true") {
			t.Errorf("\n%s", res.Append(nil))
		}
		a.send("INVITE", []string{answer(values[1], user.Password, 2), extra}, body) // the nonce goes on
		w.a.want("100")
		p = w.p.take(inside)
		w.p.reply(p.invite, 486, "x", nil, "")
		w.p.want("ACK")
		w.a.want("486")
		time.Sleep(time.Minute)
		a.send("INVITE", []string{answer(values[0], user.Password, 3), extra}, body) // too old
		w.a.want("407")
		// The nonce is of one call.
		begin(w.a, outside, "another", body, answer(res.Get("Proxy-Authenticate"), user.Password, 1))
		w.a.want("407")
		if n := w.b.counters.Refused.Unauthentic.Load(); n != 5 {
			t.Errorf("%d challenged", n)
		}
	})
}

// TestRegister: a binding is made with credentials, kept up, tried again when it
// fails, and taken away at the end.
func TestRegister(t *testing.T) {
	inBubble(t, func(cfg *Config) {
		authed(cfg)
		cfg.Trunks[0].Sides[media.Internal].Register = &sip.Registrar{
			Server: sip.NextHop{Host: "10.0.0.66", Port: 5060, Transport: "udp"}, Contact: "trunk1", Expires: 10 * time.Minute,
		}
	}, func(w *bench) {
		first := w.p.want("REGISTER")
		if first.URI != "sip:10.0.0.66:5060" || first.Get("To") != "<sip:tap@10.0.0.66>" || first.Get("Contact") != "<sip:trunk1@10.0.0.1:5060>" || first.Get("Expires") != "600" {
			t.Errorf("\n%s", first.Append(nil))
		}
		w.p.reply(first, 401, "x", []string{"WWW-Authenticate: " + challenge("SHA-256", "n1", false)}, "")
		m := w.p.want("REGISTER")
		if err := checked(m, "Authorization", "n1", 1); err != nil || number(m) != 2 || m.CallID() != first.CallID() {
			t.Errorf("%v\n%s", err, m.Append(nil))
		}
		w.p.reply(m, 200, "x", []string{"Contact: <sip:trunk1@10.0.0.1:5060>;expires=100"}, "")
		begun := time.Now()
		time.Sleep(time.Minute)
		m = w.p.want("REGISTER")
		if err := checked(m, "Authorization", "n1", 2); err != nil || time.Since(begun) < 70*time.Second || time.Since(begun) > 100*time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		if r := w.b.Registrations(); len(r) != 1 || !r[0].Registered || r[0].Failed != 0 {
			t.Errorf("%+v", r)
		}
		w.p.reply(m, 403, "x", nil, "")
		begun = time.Now()
		m = w.p.want("REGISTER")
		if r := w.b.Registrations(); time.Since(begun) > 10*time.Second || r[0].Failed != 1 || r[0].Reason == "" {
			t.Errorf("%+v after %s", r, time.Since(begun))
		}
		w.p.reply(m, 423, "x", []string{"Min-Expires: 1800"}, "")
		m = w.p.want("REGISTER")
		if m.Get("Expires") != "1800" {
			t.Errorf("Expires %s", m.Get("Expires"))
		}
		w.p.reply(m, 200, "x", []string{"Expires: 1800"}, "")
		if err := w.b.Reload((*w.b.tables.Load())[0].Trunks()); err != nil { // the same: nothing is said
			t.Fatal(err)
		}
		w.p.quiet(10 * time.Second)
		other := trunk()
		c, moved := user, sip.Registrar{Server: sip.NextHop{Host: "10.0.0.66", Port: 5060, Transport: "udp"}, Contact: "trunk2", Expires: time.Hour}
		other.Sides[media.Internal].Auth, other.Sides[media.Internal].Register = &c, &moved
		if err := w.b.Reload([]sip.Trunk{other}); err != nil {
			t.Fatal(err)
		}
		m = w.p.want("REGISTER")
		if m.Get("Expires") != "0" || !strings.Contains(m.Get("Contact"), "trunk1@") {
			t.Errorf("the old binding stays:\n%s", m.Append(nil))
		}
		w.p.reply(m, 200, "x", nil, "")
		m = w.p.want("REGISTER")
		if m.Get("Expires") != "3600" || !strings.Contains(m.Get("Contact"), "trunk2@") {
			t.Errorf("\n%s", m.Append(nil))
		}
		w.p.reply(m, 200, "x", nil, "")
		time.Sleep(time.Second)
		closed := make(chan error)
		go func() { closed <- w.b.Close() }()
		m = w.p.want("REGISTER")
		if m.Get("Expires") != "0" {
			t.Errorf("Expires %s at the end", m.Get("Expires"))
		}
		w.p.reply(m, 200, "x", nil, "")
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}
