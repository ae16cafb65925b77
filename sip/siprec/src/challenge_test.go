package src

import (
	"fmt"
	"testing"
	"time"

	"github.com/icholy/digest"

	"github.com/trunktap/trunktap/sip"
)

var login = sip.Credentials{Username: "tap", Password: "secret", Realm: "srs"}

// demand refuses a request with a challenge.
func (s *server) demand(m *sip.Message, nonce string, stale bool) {
	s.t.Helper()
	res := sip.ResponseTo(m, 401, "Unauthorized")
	if m.ToTag() == "" {
		res.Set("To", m.Get("To")+";tag="+s.tag)
	}
	res.Add("WWW-Authenticate", (&digest.Challenge{Realm: login.Realm, Nonce: nonce, Algorithm: "SHA-256", QOP: []string{"auth"}, Stale: stale}).String())
	s.send(res, m.Flow.Remote)
	if m.Method == sip.Invite {
		s.want(sip.Ack)
	}
}

// proven says why a request does not have the right answer.
func proven(m *sip.Message, nonce string) error {
	c, err := digest.ParseCredentials(m.Get("Authorization"))
	if err != nil {
		return err
	}
	want, err := digest.Digest(&digest.Challenge{Realm: login.Realm, Nonce: nonce, Algorithm: c.Algorithm, QOP: []string{"auth"}},
		digest.Options{Method: m.Method, URI: m.URI, Username: login.Username, Password: login.Password, Count: c.Nc, Cnonce: c.Cnonce})
	if err != nil || c.Response != want.Response {
		return fmt.Errorf("%s with nonce %s: %w", c.Response, c.Nonce, err)
	}
	return nil
}

// withAuth gives the servers of a fork that has not begun credentials.
func withAuth(t *testing.T, f func(*world)) {
	t.Helper()
	inBubbleWith(t, false, func(s *Server) { s.Auth = &login }, f)
}

// TestServerChallenges: a server that wants credentials gets them, for the INVITE, when
// its nonce is stale, and for the BYE.
func TestServerChallenges(t *testing.T) {
	withAuth(t, func(w *world) {
		first := w.a.want(sip.Invite)
		w.a.demand(first, "n1", false)
		again := w.a.want(sip.Invite)
		if err := proven(again, "n1"); err != nil || again.CallID() != first.CallID() || again.Get("CSeq") != "2 INVITE" {
			t.Fatalf("%v\n%s", err, again.Text())
		}
		w.a.reply(again, 200, w.a.answer())
		w.a.want(sip.Ack)
		w.f.Parties([]string{"agent"})
		change := w.a.want(sip.Invite)
		w.a.demand(change, "n2", true)
		change = w.a.want(sip.Invite)
		if err := proven(change, "n2"); err != nil {
			t.Error(err)
		}
		w.a.reply(change, 200, w.a.answer())
		w.a.want(sip.Ack)
		w.speak(0, 1000, 8000)
		time.Sleep(300 * time.Millisecond)
		checkTones(t, w.a, 0, 45)
		w.f.End()
		bye := w.a.want(sip.Bye)
		if err := proven(bye, "n2"); err != nil {
			t.Error(err)
		}
		w.a.demand(bye, "n3", true)
		bye = w.a.want(sip.Bye)
		if err := proven(bye, "n3"); err != nil {
			t.Error(err)
		}
		w.a.reply(bye, 200, nil)
		<-w.f.done
	})
}

// TestServerRefusesCredentials: one that refuses ours is given up, as is one that asks
// without end.
func TestServerRefusesCredentials(t *testing.T) {
	for _, stale := range []bool{false, true} {
		withAuth(t, func(w *world) {
			asked := 0
			for range answersMax + 1 {
				w.a.demand(w.a.want(sip.Invite), fmt.Sprint("n", asked), stale)
				if asked++; !stale && asked == 2 {
					break
				}
			}
			w.b.accept()
			w.bye(w.b)
		})
	}
}

// TestServerRedirects: a server may name another one, not for ever.
func TestServerRedirects(t *testing.T) {
	to := func(w *world, s *server, m *sip.Message, where string) {
		res := sip.ResponseTo(m, 302, "Moved")
		res.Set("To", m.Get("To")+";tag=moved")
		res.Add("Contact", "<tel:+1>, <"+where+">")
		s.send(res, m.Flow.Remote)
		s.want(sip.Ack)
	}
	t.Run("elsewhere", func(t *testing.T) {
		withAuth(t, func(w *world) {
			m := w.a.want(sip.Invite)
			to(w, w.a, m, "sip:other@"+second.String())
			got := w.b.want(sip.Invite)
			if got.URI != "sip:other@"+second.String() || got.CallID() == m.CallID() {
				t.Errorf("\n%s", got.Text())
			}
			w.b.demand(got, "n", false) // not by whom our credentials are for: the next of the list
			got = w.b.want(sip.Invite)
			if got.URI != "sip:record@"+second.String() || got.Has("Authorization") {
				t.Errorf("\n%s", got.Text())
			}
			w.b.reply(got, 200, w.b.answer())
			w.b.want(sip.Ack)
			w.bye(w.b)
		})
	})
	t.Run("in circles", func(t *testing.T) {
		withAuth(t, func(w *world) {
			for range redirectsMax + 1 {
				to(w, w.a, w.a.want(sip.Invite), "sip:again@"+first.String())
			}
			w.b.accept()
			w.bye(w.b)
		})
	})
}
