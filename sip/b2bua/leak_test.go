package b2bua

import (
	"fmt"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/sip"
)

// TestHiddenPlaces: nothing that a message says of its own side's addresses beside the
// dialog's names gets to the other one.
func TestHiddenPlaces(t *testing.T) {
	inBubble(t, hiding, func(w *bench) {
		a, p := w.established("place")
		p.local, p.target = p.invite.Get("To")+";tag=pbx", contactURIOf(t, p.invite)
		for _, c := range []struct{ name, sent, want string }{
			{"Call-Info", `<http://10.0.0.66/photo.jpg>;purpose=icon, <https://example.com/x>;purpose=info`, `<https://example.com/x>;purpose=info`},
			{"Call-Info", `<http://10.0.0.66:8080/a,b>;purpose=icon`, ""},
			{"Call-Info", `<sip:10.0.0.67;x=1>;purpose=list-management`, `<sip:192.0.2.1;x=1>;purpose=list-management`},
			{"Alert-Info", `<http://[::ffff:10.0.0.66]/ring.wav>`, ""},
			{"Alert-Info", `<urn:alert:source:internal>;info=alert-group`, `<urn:alert:source:internal>;info=alert-group`},
			{"Error-Info", `<sip:o'neil@10.0.0.66>`, `<sip:o'neil@192.0.2.1>`},
			{"Warning", `392 10.0.0.66:5060 "Noisy feedback: req_src_ip=10.0.0.67, x, src_port=1"`, `392 trunktap "Noisy feedback: req_src_ip=192.0.2.1, x, src_port=1"`},
			{"Warning", `307 pbx.internal "No, never", 399 10.0.0.66 "b"`, `307 trunktap "No, never", 399 trunktap "b"`},
			{"Warning", `399`, `399 trunktap ""`},
			{"P-Charging-Vector", `icid-value=1234bc9876e;icid-generated-at=10.0.0.66;orig-ioi=home1.net`, `icid-value=1234bc9876e;icid-generated-at=192.0.2.1;orig-ioi=home1.net`},
			{"P-Asserted-Identity", `<sip:o'neil@10.0.0.66>`, `<sip:o'neil@192.0.2.1>`},
			{"P-Associated-URI", `<sip:1@10.0.0.66:5070>`, `<sip:1@192.0.2.1>`},
			{"User-Agent", `Gateway/10.0.0.66`, `Gateway/10.0.0.66`}, // see header rules
		} {
			p.send("INFO", []string{c.name + ": " + c.sent}, "")
			m := w.a.want("INFO")
			if got := strings.Join(m.Fields(c.name), ", "); got != c.want {
				t.Errorf("%s: %s became %s, want %s", c.name, c.sent, got, c.want)
			}
			w.a.reply(m, 200, "", nil, "")
			w.p.want("200 INFO")
		}
		w.hangUp(a)
	})
}

// TestHiddenBodies: bodies that say who is where are rewritten, in lists of them too.
func TestHiddenBodies(t *testing.T) {
	inBubble(t, hiding, func(w *bench) {
		a, p := w.established("bodies")
		p.local, p.target = p.invite.Get("To")+";tag=pbx", contactURIOf(t, p.invite)
		callee := tagOf(a.remote)
		dialogs := func(id, tag, remote, host string) string {
			return fmt.Sprintf("<?xml version='1.0'?><dialog-info entity='sip:q@%s:5070'>\r\n<dialog id=\"1\" call-id=\"%s\" local-tag=\"%s\" remote-tag=\"%s\">"+
				"<local><identity>sip:o'neil@%s</identity><target uri=\"sip:q@%s;x=1&amp;2\"/></local></dialog></dialog-info>", host, id, tag, remote, host, host)
		}
		theirs, ours := dialogs(p.callID, "pbx", p.invite.FromTag(), "10.0.0.66"), dialogs("bodies", callee, "from-bodies", "192.0.2.1")
		theirs, ours = strings.ReplaceAll(theirs, "10.0.0.66:5070", "10.0.0.66"), strings.ReplaceAll(ours, "192.0.2.1:5070", "192.0.2.1")
		conference := func(host string) string {
			return "<conference-info entity=\"sips:c@" + host + "\"><users><user entity='sip:u@" + host + "'/></users></conference-info>"
		}
		list := func(a, b string) string {
			return "preamble\r\n--x\r\nContent-Type: multipart/related;boundary=\"x-in\"\r\n\r\n--x-in\r\nContent-ID: <1@10.0.0.66>\r\nContent-Type: application/dialog-info+xml\r\n\r\n" + a +
				"\r\n--x-in\r\n\r\nno type 10.0.0.66\r\n--x-in--\r\n\r\n--x\r\nContent-Type:application/conference-info+xml;charset=utf-8\r\n\r\n" + b + "\r\n--x--\r\nepilogue"
		}
		for _, c := range []struct{ kind, sent, want string }{
			{"application/dialog-info+xml", theirs, ours},
			{"application/conference-info+xml", conference("10.0.0.66"), conference("192.0.2.1")},
			{"application/simple-message-summary", "Messages-Waiting: yes\r\nMessage-Account: sip:v@10.0.0.66\r\n", "Messages-Waiting: yes\r\nMessage-Account: sip:v@192.0.2.1\r\n"},
			{"message/sipfrag;version=2.0", "SIP/2.0 200 OK\r\nFrom: <sip:a@10.0.0.66>;tag=1\r\nVia: SIP/2.0/UDP 10.0.0.66\r\n", "SIP/2.0 200 OK\r\nFrom: <sip:a@192.0.2.1>;tag=1\r\n"},
			{"multipart/mixed; boundary=x", list(theirs, conference("10.0.0.66")), list(ours, conference("192.0.2.1"))},
			{"text/plain", "10.0.0.66 stays sip:x@10.0.0.66", "10.0.0.66 stays sip:x@10.0.0.66"},
		} {
			p.send("NOTIFY", []string{w.p.contact(), "Event: x", "Subscription-State: active", "Content-Type: " + c.kind}, c.sent)
			m := w.a.want("NOTIFY")
			if got := string(m.Body); got != c.want {
				t.Errorf("%s:\n%s\nwant\n%s", c.kind, got, c.want)
			}
			w.a.reply(m, 200, "", nil, "")
			w.p.want("200 NOTIFY")
		}
		w.hangUp(a)
	})
}

// TestHiddenMedia: media that is not relayed is refused, for its lines would name who
// is on the other side; so are attributes that do, and descriptions of other sessions.
func TestHiddenMedia(t *testing.T) {
	inBubble(t, hiding, func(w *bench) {
		offer := sdpOf(carrier.Addr(), 7000, "a=source-filter: incl IN IP4 * 192.0.2.66", "a=altc:1 IP4 192.0.2.67 7000") +
			"m=message 2855 TCP/MSRP *\r\nc=IN IP4 192.0.2.66\r\na=accept-types:text/plain\r\na=path:msrp://192.0.2.66:2855/s;tcp\r\na=setup:actpass\r\n" +
			"m=video 0 RTP/AVP 96\r\nc=IN IP4 192.0.2.67\r\na=rtcp:7001 IN IP4 192.0.2.67\r\n"
		offer = strings.Replace(offer, "t=0 0\r\n", "u=http://192.0.2.66/\r\nt=0 0\r\n", 1)
		a := begin(w.a, outside, "media", offer)
		w.a.want("100")
		p := w.p.take(inside)
		foreign(t, p.invite, "192.0.2.")
		for _, want := range []string{"m=message 0 TCP/MSRP *\r\nc=IN IP4 10.0.0.1\r\na=accept-types:text/plain\r\na=setup:actpass\r\n", "m=video 0 RTP/AVP 96\r\n", "m=audio 20000 "} {
			if !strings.Contains(string(p.invite.Body), want) {
				t.Errorf("%q is not in\n%s", want, p.invite.Body)
			}
		}
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000)+"m=message 0 TCP/MSRP *\r\nc=IN IP4 10.0.0.66\r\nm=video 0 RTP/AVP 96\r\nc=IN IP4 10.0.0.66\r\n")
		ok := w.a.want("200")
		foreign(t, ok, "10.0.0.")
		w.acked(a, p, ok)
		p.local, p.target = p.invite.Get("To")+";tag=pbx", contactURIOf(t, p.invite)
		for _, kind := range []string{"Content-Disposition: early-session", "Content-Encoding: br"} {
			p.send("INFO", []string{"Content-Type: application/sdp", kind}, sdpOf(pbx.Addr(), 8002))
			m := w.a.want("INFO")
			foreign(t, m, "10.0.0.")
			if m.Has("Content-Type") || len(m.Body) > 0 {
				t.Errorf("%s:\n%s", kind, m.Text())
			}
			w.a.reply(m, 200, "", nil, "")
			w.p.want("200 INFO")
		}
		w.hangUp(a)
	})
}

// TestRefreshChallenged: a party that challenges a re-INVITE of ours gets it again with
// the credentials of its side, and the ACK has its number and them.
func TestRefreshChallenged(t *testing.T) {
	inBubble(t, func(cfg *Config) { keeping(cfg); authed(cfg) }, func(w *bench) {
		a, p, _ := w.timedCall("chal", nil, nil)
		first, refreshes := (*sip.Message)(nil), 0
		for tries := 0; refreshes < 2; tries++ {
			if tries > 3000 {
				t.Fatal("no refresh")
			}
			if m := w.p.next(1e9); m != nil && m.Method == sip.Invite {
				if !m.Has("Proxy-Authorization") {
					first = m
					w.p.reply(m, 407, "pbx", []string{"Proxy-Authenticate: " + challenge("SHA-256", "n1", false)}, "")
					w.p.want("ACK")
					continue
				}
				refreshes++
				if err := checked(m, "Proxy-Authorization", "n1", refreshes); err != nil || number(m) <= number(first) || string(m.Body) != string(first.Body) {
					t.Errorf("%v\n%s", err, m.Text())
				}
				w.p.reply(m, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
				ack := w.p.want("ACK")
				if number(ack) != number(m) || ack.Get("Proxy-Authorization") != m.Get("Proxy-Authorization") {
					t.Errorf("ACK:\n%s\nof\n%s", ack.Text(), m.Text())
				}
			}
			for {
				m := w.a.next(1e6)
				if m == nil {
					break
				}
				if m.Method == sip.Invite {
					w.a.reply(m, 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
				}
			}
		}
		w.a.drain()
		w.hangUp(a)
		_ = p
	})
}

// TestRefreshAnswerMoves: a party that says in its answer to a refresh of ours that it
// is elsewhere now gets its media there, and the recorder hears of it.
func TestRefreshAnswerMoves(t *testing.T) {
	inBubble(t, keeping, func(w *bench) {
		a, _, _ := w.timedCall("moves", nil, nil)
		for moved, tries := false, 0; !moved; tries++ {
			if tries > 3000 {
				t.Fatal("no refresh")
			}
			if m := w.p.next(1e9); m != nil && m.Method == sip.Invite {
				w.p.reply(m, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8100))
				w.p.want("ACK")
				moved = true
			}
			for m := w.a.next(1e6); m != nil; m = w.a.next(1e6) {
				if m.Method == sip.Invite {
					w.a.reply(m, 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
				}
			}
		}
		w.a.drain()
		w.hangUp(a)
		heard := strings.Join(w.obs.taps[0].lines, "\n")
		if want := "stream internal sending=true early=false from 10.0.0.66:8100 to 10.0.0.1:20000"; !strings.Contains(heard, want) {
			t.Errorf("the recorder heard\n%s", heard)
		}
	})
}

// TestNoLateAnswers: what is no INVITE gets neither 408 nor a provisional response but
// 100 (RFC 4320 section 4.1), from us or from behind us; a BYE gets its 200.
func TestNoLateAnswers(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.MediaTimeout = -1 }, func(w *bench) {
		a, _ := w.established("late")
		a.send("INFO", nil, "")
		m := w.p.want("INFO")
		for _, status := range []int{183, 408} {
			w.p.reply(m, status, "", nil, "")
			w.a.quiet(40e9)
		}
		w.p.skip = true
		a.send("OPTIONS", nil, "")
		w.p.want("OPTIONS")
		w.a.quiet(40e9) // nobody answers
		w.p.drain()
		out := &dialogue{p: w.a, us: outside, callID: "msg", local: "<sip:a@b>;tag=1", remote: "<sip:c@d>", target: "sip:c@192.0.2.1"}
		out.send("MESSAGE", nil, "")
		m = w.p.want("MESSAGE")
		w.p.reply(m, 180, "x", nil, "")
		w.p.reply(m, 408, "x", nil, "")
		w.a.quiet(40e9)
		a.send("BYE", nil, "")
		m = w.p.want("BYE")
		w.p.reply(m, 408, "", nil, "")
		w.a.want("200 BYE")
	})
}
