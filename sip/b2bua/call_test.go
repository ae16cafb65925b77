package b2bua

import (
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip"
)

func TestCallInbound(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, p := w.established("in")
		if got, want := p.invite.URI, "sip:+4930123@10.0.0.66:5060;user=phone"; got != want {
			t.Errorf("Request-URI %s, want %s", got, want)
		}
		if got, want := p.invite.Get("Contact"), `<sip:alice@10.0.0.1:5060>;+sip.instance="x"`; got != want {
			t.Errorf("Contact %s, want %s", got, want)
		}
		if !strings.Contains(string(p.invite.Body), "c=IN IP4 10.0.0.1\r\n") || strings.Contains(string(p.invite.Body), "7000") {
			t.Errorf("media is not anchored:\n%s", p.invite.Body)
		}
		if len(w.obs.session) != 1 || w.obs.session[0].Direction != "inbound" || w.obs.session[0].From != "sip:alice@example.net" {
			t.Errorf("session %+v", w.obs.session)
		}
		time.Sleep(10 * time.Second)
		bye := time.Now()
		w.hangUp(a)
		w.has(0, "answered",
			"stream external sending=true early=false from 192.0.2.66:7000 to 192.0.2.1:20000",
			"stream internal sending=true early=false from 10.0.0.66:8000 to 10.0.0.1:20000",
			"ended bye")
		if !w.obs.taps[0].ended.Equal(bye) {
			t.Errorf("ended %s after the BYE", w.obs.taps[0].ended.Sub(bye))
		}
	})
}

func TestCallOutboundEndedByCallee(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a := begin(w.p, inside, "out", sdpOf(pbx.Addr(), 8000))
		w.p.want("100")
		c := w.a.take(outside)
		w.a.reply(c.invite, 200, "carrier", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
		ok := w.p.want("200")
		a.remote, a.target, c.local = ok.Get("To"), contactURIOf(t, ok), ok.Get("To")
		a.send("ACK", nil, "")
		w.a.want("ACK")
		c.send("BYE", nil, "")
		bye := w.p.want("BYE")
		if bye.FromTag() != "carrier" || bye.CallID() != "out" {
			t.Errorf("BYE does not belong to the dialog:\n%s", bye.Append(nil))
		}
		w.p.reply(bye, 200, "", nil, "")
		w.a.want("200 BYE")
		if w.obs.session[0].Direction != "outbound" {
			t.Errorf("direction %s", w.obs.session[0].Direction)
		}
	})
}

func TestIdentityIsTransparent(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		body := "--b\r\nContent-Type: application/isup\r\nContent-Transfer-Encoding: binary\r\n\r\n\x01\x00\xff\r\n--b--\r\n"
		a := begin(w.a, outside, "id", body, "X-Unknown: a,  b ;c=\"d, e\"", "s: compact  form",
			"Record-Route: <sip:192.0.2.70;lr>,<sip:192.0.2.71;lr>", "Content-Type: multipart/mixed;boundary=b",
			"P-Asserted-Identity: \"X\" <tel:+491>", "Route: <sip:192.0.2.1;lr>", "X-Unknown: second")
		w.a.want("100")
		p := w.p.take(inside)
		same(t, w.a.sent, p.invite)
		got := string(p.invite.Append(nil))
		for _, want := range []string{
			"X-Unknown: a,  b ;c=\"d, e\"\r\ns: compact  form\r\n", "From: \"A. Caller\" <sip:alice@example.net>;tag=from-id\r\n",
			"To: <sip:+4930123@example.com;user=phone>\r\n", "Call-ID: id\r\n", "CSeq: 1 INVITE\r\n", "Max-Forwards: 69\r\n",
			"P-Asserted-Identity: \"X\" <tel:+491>\r\nX-Unknown: second\r\n", body,
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is missing in\n%s", want, got)
			}
		}
		for _, leak := range []string{"192.0.2.7", "192.0.2.66", "Route"} {
			if strings.Contains(got, leak) {
				t.Errorf("%q leaks into\n%s", leak, got)
			}
		}
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact(), "Record-Route: <sip:10.0.0.70;lr>", "X-Answer: yes"}, body+"x")
		ok := w.a.want("200")
		same(t, w.p.sent, ok)
		if got := strings.Join(ok.Fields("Record-Route"), ","); got != "<sip:192.0.2.70;lr>,<sip:192.0.2.71;lr>" {
			t.Errorf("Record-Route %s", got)
		}
		if ok.Get("X-Answer") != "yes" || string(ok.Body) != body+"x" {
			t.Errorf("response changed:\n%s", ok.Append(nil))
		}
		a.remote, a.target = ok.Get("To"), contactURIOf(t, ok)
		a.send("ACK", nil, "")
		// The route set of the PBX's leg leads over 10.0.0.70, which is not listening here.
		w.p.quiet(time.Second)
	})
}

func TestRefusals(t *testing.T) {
	for _, status := range []string{"302", "401", "486", "603"} {
		inBubble(t, nil, func(w *bench) {
			begin(w.a, outside, "no"+status, sdpOf(carrier.Addr(), 7000))
			w.a.want("100")
			p := w.p.take(inside)
			code := int(status[0]-'0')*100 + int(status[1]-'0')*10 + int(status[2]-'0')
			w.p.reply(p.invite, code, "pbx", []string{
				"Contact: <sip:other@198.51.100.7>", "WWW-Authenticate: Digest realm=\"x\", nonce=\"y\"",
				"Content-Type: text/plain",
			}, "because")
			w.p.want("ACK")
			res := w.a.want(status)
			same(t, w.p.sent, res)
			if res.Get("Contact") != "<sip:other@198.51.100.7>" || res.Get("WWW-Authenticate") != "Digest realm=\"x\", nonce=\"y\"" ||
				string(res.Body) != "because" || res.ToTag() != "pbx" || res.Reason != "Because" {
				t.Errorf("changed on its way:\n%s", res.Append(nil))
			}
			w.has(0, "ended failed")
			if w.b.Calls() != 0 {
				t.Error("the call goes on")
			}
		})
	}
}

func TestCancel(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a := begin(w.a, outside, "c", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 180, "pbx", []string{w.p.contact()}, "")
		w.a.want("180")
		a.branches--
		w.a.send(outside, a.request("CANCEL", []string{"Reason: SIP;cause=200;text=\"elsewhere\""}, ""))
		w.a.want("200 CANCEL")
		cancel := w.p.want("CANCEL")
		if cancel.Get("Via") != p.invite.Get("Via") || cancel.URI != p.invite.URI || cancel.Get("Reason") != `SIP;cause=200;text="elsewhere"` {
			t.Errorf("CANCEL does not fit its INVITE:\n%s", cancel.Append(nil))
		}
		w.p.reply(cancel, 200, "pbx", nil, "")
		w.p.reply(p.invite, 487, "pbx", []string{"X-Own: yes"}, "")
		w.p.want("ACK")
		if res := w.a.want("487 INVITE"); res.Get("X-Own") != "yes" {
			t.Errorf("not the far end's own answer:\n%s", res.Append(nil))
		}
		w.has(0, "ended failed")
	})
}

func TestCancelBeforeProvisional(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a := begin(w.a, outside, "cb", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		a.branches--
		w.a.send(outside, a.request("CANCEL", nil, ""))
		w.a.want("200 CANCEL")
		w.p.quiet(time.Second) // not before a provisional response, RFC 3261 section 9.1
		w.p.reply(p.invite, 100, "", nil, "")
		w.p.want("CANCEL")
		w.p.reply(p.invite, 487, "pbx", nil, "")
		w.p.want("ACK")
		w.a.want("487 INVITE")
	})
}

func TestCancelCrosses200(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a := begin(w.a, outside, "x", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 180, "pbx", []string{w.p.contact()}, "")
		w.a.want("180")
		a.branches--
		w.a.send(outside, a.request("CANCEL", nil, ""))
		w.a.want("200 CANCEL")
		w.p.want("CANCEL")
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.p.want("ACK")
		bye := w.p.want("BYE")
		if seq, _ := bye.CSeq(); seq != 2 || bye.FromTag() != "from-x" || bye.ToTag() != "pbx" {
			t.Errorf("BYE does not fit:\n%s", bye.Append(nil))
		}
		w.p.reply(bye, 200, "", nil, "")
		w.a.want("487 INVITE")
		w.has(0, "ended failed")
	})
}

func TestForks(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a := begin(w.a, outside, "f", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		for _, tag := range []string{"one", "two", "three"} {
			w.p.reply(p.invite, 180, tag, []string{w.p.contact()}, "")
			if got := w.a.want("180").ToTag(); got != tag {
				t.Errorf("tag %s, want %s", got, tag)
			}
		}
		w.p.reply(p.invite, 200, "two", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.acked(a, p, w.a.want("200"))
		w.p.reply(p.invite, 200, "three", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8010))
		if ack := w.p.want("ACK"); ack.ToTag() != "three" {
			t.Errorf("ACK for %s", ack.ToTag())
		}
		if bye := w.p.want("BYE"); bye.ToTag() != "three" {
			t.Errorf("BYE for %s", bye.ToTag())
		}
		w.a.quiet(100 * time.Millisecond)
		w.p.drain()
		w.hangUpIgnoring(a)
	})
}

// hangUpIgnoring hangs up while older requests are still being repeated.
func (w *bench) hangUpIgnoring(a *dialogue) {
	w.t.Helper()
	a.send("BYE", nil, "")
	for {
		m := w.p.next(10 * time.Second)
		if m == nil {
			w.t.Fatal("no BYE came")
		}
		if m.Method == sip.Bye && m.CallID() == a.callID {
			w.p.reply(m, 200, "", nil, "")
			if m.ToTag() == tagOf(a.remote) {
				break
			}
		}
	}
	w.a.want("200 BYE")
}

func tagOf(v string) string {
	_, tag, _ := strings.Cut(v, "tag=")
	return tag
}
