package src

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
)

// asks sends a request of a server and returns the response.
func (s *server) asks(m *sip.Message, to netip.AddrPort, body string, headers ...string) *sip.Message {
	s.t.Helper()
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		m.Add(name, value)
	}
	if body != "" {
		m.Add("Content-Type", "application/sdp")
		m.Body = []byte(body)
	}
	s.send(m, to)
	return s.want("response")
}

// A server may refresh the session and say where it wants to hear us; the streams are ours.
func TestServerChanges(t *testing.T) {
	inBubble(t, false, func(w *world) {
		invite := w.a.accept()
		to := invite.Flow.Remote
		w.speak(0, 500, 8000)
		offer := string(w.a.answer())
		res := w.a.asks(w.a.from(invite, sip.Invite, w.a.tag, 1), to, strings.Replace(offer, "a=recvonly", "a=inactive", 1), "Session-Expires: 90;refresher=uac")
		d, err := sdp.Parse(res.Body)
		if err != nil || res.Status != 200 || len(d.Media()) != 2 || d.Media()[0].Direction != sdp.Inactive || d.Media()[1].Direction != sdp.SendOnly || len(d.Media()[0].Formats) != 1 {
			t.Fatalf("%v:\n%s", err, res.Append(nil))
		}
		if res.Get("Session-Expires") != "90;refresher=uac" || !strings.Contains(res.Get("Contact"), "+sip.src") {
			t.Errorf("answered with\n%s", res.Append(nil))
		}
		w.a.send(w.a.from(invite, sip.Ack, w.a.tag, 1), to)
		before := [2]int{len(w.a.heard(0)), len(w.a.heard(1))}
		w.speak(500, 1500, 8000)
		time.Sleep(300 * time.Millisecond)
		if a, b := len(w.a.heard(0))-before[0], len(w.a.heard(1))-before[1]; a > 5 || b < 45 {
			t.Errorf("%d packets of the stream that it does not want, %d of the other", a, b)
		}
		for seq, body := range map[int]string{2: offer + "m=audio 7004 RTP/AVP 0\r\n", 3: strings.ReplaceAll(offer, "AVP 0", "AVP 18")} {
			if res := w.a.asks(w.a.from(invite, sip.Update, w.a.tag, seq), to, body); res.Status != 488 {
				t.Errorf("other streams are answered with %d", res.Status)
			}
		}
		if res := w.a.asks(w.a.from(invite, sip.Update, w.a.tag, 4), to, "", "Session-Expires: 90"); res.Status != 200 || res.Get("Session-Expires") != "90;refresher=uac" {
			t.Errorf("refresh is answered with\n%s", res.Append(nil))
		}
		res = w.a.asks(w.a.from(invite, sip.Invite, w.a.tag, 5), to, "")
		if d, err := sdp.Parse(res.Body); err != nil || len(d.Media()) != 2 || d.Media()[0].Direction != sdp.SendOnly {
			t.Errorf("%v: offered\n%s", err, res.Body)
		}
		ack := w.a.from(invite, sip.Ack, w.a.tag, 5)
		ack.Add("Content-Type", "application/sdp")
		ack.Body = []byte(offer)
		w.a.send(ack, to)
		before[0] = len(w.a.heard(0))
		w.speak(1500, 2500, 8000)
		time.Sleep(300 * time.Millisecond)
		if n := len(w.a.heard(0)) - before[0]; n < 45 {
			t.Errorf("%d packets after the ACK wanted both", n)
		}
		if res := w.a.asks(w.a.from(invite, "REFER", w.a.tag, 6), to, ""); res.Status != 405 {
			t.Errorf("REFER is answered with %d", res.Status)
		}
		if n := w.c.counters.Failovers.Load(); n != 0 {
			t.Errorf("%d failovers", n)
		}
		w.bye(w.a)
	})
}

// acceptTimed takes an INVITE with a session interval.
func (s *server) acceptTimed(value string) *sip.Message {
	s.t.Helper()
	invite := s.want(sip.Invite)
	res := s.answered(invite, s.tag, fmt.Sprintf("<sip:%s>", s.addr))
	res.Add("Session-Expires", value)
	s.send(res, invite.Flow.Remote)
	s.want(sip.Ack)
	return invite
}

// A server with session timers is refreshed when it is for us to do so; it is given up
// when it was to and has not (RFC 4028).
func TestSessionTimers(t *testing.T) {
	t.Run("ours", func(t *testing.T) {
		inBubble(t, false, func(w *world) {
			begun := w.a.acceptTimed("100;refresher=uac")
			if !begun.HasToken("Supported", "timer") {
				t.Error("session timers are not said to be understood")
			}
			for range 2 {
				began := time.Now()
				again := w.a.acceptTimed("100;refresher=uac")
				if at := time.Since(began); again.CallID() != begun.CallID() || at < 45*time.Second || at > 55*time.Second || again.Get("Session-Expires") != "100;refresher=uac" {
					t.Errorf("refreshed after %s by\n%s", at, again.Append(nil))
				}
			}
			began := time.Now()
			short := w.a.want(sip.Invite)
			res := sip.ResponseTo(short, 422, "Session Interval Too Small")
			res.Add("Min-SE", "200")
			w.a.send(res, short.Flow.Remote)
			w.a.want(sip.Ack)
			if again := w.a.acceptTimed("200;refresher=uac"); again.Get("Session-Expires") != "200;refresher=uac" || time.Since(began) > time.Minute {
				t.Errorf("after 422:\n%s", again.Append(nil))
			}
			w.bye(w.a)
		})
	})
	t.Run("the server's", func(t *testing.T) {
		inBubble(t, false, func(w *world) {
			invite := w.a.acceptTimed("90;refresher=uas")
			time.Sleep(25 * time.Second)
			w.a.asks(w.a.from(invite, sip.Update, w.a.tag, 1), invite.Flow.Remote, "", "Session-Expires: 90;refresher=uac")
			began := time.Now()
			w.a.reply(w.a.want(sip.Bye), 200, nil)
			if at := time.Since(began); at < 50*time.Second || at > 70*time.Second {
				t.Errorf("given up after %s", at)
			}
			w.b.accept() // the next one takes it
			w.bye(w.b)
		})
	})
}
