package b2bua

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/sip"
)

func TestEarlyMediaWithPrack(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a := begin(w.a, outside, "pr", sdpOf(carrier.Addr(), 7000), "Supported: 100rel")
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 183, "pbx", []string{w.p.contact(), "Require: 100rel", "RSeq: 17"}, sdpOf(pbx.Addr(), 8000))
		early := w.a.want("183")
		if early.Get("RSeq") != "17" || early.Get("Require") != "100rel" || !strings.Contains(string(early.Body), "192.0.2.1") {
			t.Errorf("183 changed:\n%s", early.Append(nil))
		}
		a.remote, a.target = early.Get("To"), contactURIOf(t, early)
		a.send("PRACK", []string{"RAck: 17 1 INVITE"}, "")
		prack := w.p.want("PRACK")
		same(t, w.a.sent, prack)
		if prack.Get("RAck") != "17 1 INVITE" || prack.URI != "sip:10.0.0.66:5060;ob" {
			t.Errorf("PRACK changed:\n%s", prack.Append(nil))
		}
		w.p.reply(prack, 200, "", nil, "")
		w.a.want("200 PRACK")
		time.Sleep(3 * time.Second)
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, "")
		w.acked(a, p, w.a.want("200 INVITE"))
		w.hangUp(a)
		w.has(0,
			"stream external sending=true early=true from 192.0.2.66:7000 to 192.0.2.1:20000",
			"stream internal sending=true early=true from 10.0.0.66:8000 to 10.0.0.1:20000",
			"answered",
			"stream external sending=true early=false from 192.0.2.66:7000 to 192.0.2.1:20000",
			"stream internal sending=true early=false from 10.0.0.66:8000 to 10.0.0.1:20000",
			"ended bye")
	})
}

func TestLateOffer(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a := begin(w.a, outside, "late", "")
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		ok := w.a.want("200")
		if !strings.Contains(string(ok.Body), "c=IN IP4 192.0.2.1") {
			t.Errorf("offer in 200 is not anchored:\n%s", ok.Body)
		}
		a.remote, a.target = ok.Get("To"), contactURIOf(t, ok)
		a.send("ACK", nil, sdpOf(carrier.Addr(), 7000))
		ack := w.p.want("ACK")
		if !strings.Contains(string(ack.Body), "c=IN IP4 10.0.0.1") || strings.Contains(string(ack.Body), "7000") {
			t.Errorf("answer in ACK is not anchored:\n%s", ack.Body)
		}
		w.hangUp(a)
		w.has(0, "answered",
			"stream external sending=true early=false from 192.0.2.66:7000 to 192.0.2.1:20000",
			"stream internal sending=true early=false from 10.0.0.66:8000 to 10.0.0.1:20000",
			"ended bye")
	})
}

// reinvite makes one party change the session and the other agree.
func reinvite(w *bench, from, to *dialogue, offer, answer string) {
	w.t.Helper()
	from.send("INVITE", []string{from.p.contact()}, offer)
	m := to.p.want("INVITE")
	to.p.reply(m, 200, "", []string{to.p.contact()}, answer)
	from.p.want("100 INVITE")
	from.p.want("200 INVITE")
	from.requestAndAck()
	to.p.want("ACK")
}

func (d *dialogue) requestAndAck() { d.p.send(d.us, d.requestAt("ACK", d.cseq, nil, "")) }

func TestHoldAndResume(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, p := w.established("hold")
		p.target = contactURIOf(t, p.invite)
		reinvite(w, p, a, sdpOf(pbx.Addr(), 8000, "a=sendonly"), sdpOf(carrier.Addr(), 7000, "a=recvonly"))
		reinvite(w, p, a, sdpOf(pbx.Addr(), 8000), sdpOf(carrier.Addr(), 7000))
		w.hangUp(a)
		got := w.obs.log(0)
		for _, want := range []string{
			"signal hold.start internal", "signal hold.end internal",
			"stream external sending=false early=false", "ended bye",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%q was not told:\n%s", want, got)
			}
		}
	})
}

func TestMethodsPass(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, p := w.established("m")
		for i, method := range []string{"INFO", "UPDATE", "REFER", "NOTIFY", "MESSAGE", "SUBSCRIBE", "OPTIONS", "XYZZY"} {
			from, to := a, p
			if i%2 == 1 {
				from, to = p, a
				p.target = contactURIOf(t, p.invite)
			}
			head := []string{"Content-Type: application/x-" + method, "Refer-To: <sip:b@c?Replaces=x%3Bto-tag%3Dy>", "X-N: " + fmt.Sprint(i)}
			from.send(method, head, "body of "+method)
			m := to.p.want(method)
			same(t, from.p.sent, m)
			if string(m.Body) != "body of "+method || m.Get("X-N") != fmt.Sprint(i) || m.Get("Refer-To") == "" || m.CallID() != "m" {
				t.Errorf("changed:\n%s", m.Append(nil))
			}
			to.p.reply(m, 299, "", []string{"X-R: " + method, "Content-Type: text/plain"}, "answer")
			res := from.p.want("299 " + method)
			same(t, to.p.sent, res)
			if res.Get("X-R") != method || string(res.Body) != "answer" {
				t.Errorf("changed:\n%s", res.Append(nil))
			}
		}
		w.hangUp(a)
	})
}

func TestNextHopDead(t *testing.T) {
	inBubble(t, func(cfg *Config) {
		cfg.Trunks[0].Sides[1].NextHops = append([]sip.NextHop{{Host: "10.0.0.67", Port: 5060, Transport: "udp"}}, cfg.Trunks[0].Sides[1].NextHops...)
	}, func(w *bench) {
		dead := newPeer(t, w.net, pbx2)
		defer dead.close()
		begin(w.a, outside, "hop", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		first := dead.want("INVITE")
		at := time.Now()
		p := w.p.take(inside)
		if d := time.Since(at); d != nextHopWait {
			t.Errorf("second next hop after %s", d)
		}
		if p.invite.Get("Via") == first.Get("Via") || p.invite.CallID() != first.CallID() {
			t.Error("the second attempt is not a transaction of its own")
		}
		// The first wakes up: it is cancelled, and if it answers, dismissed.
		dead.reply(first, 180, "late", nil, "")
		dead.want("CANCEL")
		dead.reply(first, 200, "late", []string{dead.contact()}, sdpOf(pbx2.Addr(), 8000))
		dead.want("ACK")
		dead.want("BYE")
		w.p.reply(p.invite, 486, "pbx", nil, "")
		w.p.want("ACK")
		w.a.want("486")
	})
}

func TestNoNextHopAnswers(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		begin(w.a, outside, "dead", sdpOf(carrier.Addr(), 7000))
		at := time.Now()
		w.a.want("100")
		if res := w.a.want("408"); res.ToTag() == "" {
			t.Error("408 without a tag")
		}
		if d := time.Since(at); d != sip.TransactionTimeout {
			t.Errorf("408 after %s", d)
		}
		w.has(0, "ended failed")
	})
}

func TestGlare(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, p := w.established("g")
		p.target = contactURIOf(t, p.invite)
		a.send("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		fromA := w.p.want("INVITE")
		p.send("INVITE", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.p.want("491 INVITE")
		a.send("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
		if res := w.a.want("500 INVITE"); res.Get("Retry-After") == "" {
			t.Error("500 without Retry-After")
		}
		// What the far end says about it passes.
		w.p.reply(fromA, 491, "", nil, "")
		w.p.want("ACK")
		w.a.want("491 INVITE")
		a.send("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
		w.p.want("INVITE") // the way is free again
	})
}

func TestByeFromBothSides(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, p := w.established("bb")
		p.target = contactURIOf(t, p.invite)
		a.send("BYE", nil, "")
		synctest.Wait()
		p.send("BYE", nil, "")
		bye := w.p.want("BYE")
		w.p.want("200 BYE")
		w.p.reply(bye, 481, "", nil, "")
		w.a.want("481 BYE")
		w.has(0, "answered",
			"stream external sending=true early=false from 192.0.2.66:7000 to 192.0.2.1:20000",
			"stream internal sending=true early=false from 10.0.0.66:8000 to 10.0.0.1:20000", "ended bye")
	})
}

func TestByeNobodyAnswers(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, _ := w.established("bn")
		a.send("BYE", nil, "")
		w.p.want("BYE")
		at := time.Now()
		w.a.want("200 BYE")
		if d := time.Since(at); d != byeWait {
			t.Errorf("answered after %s", d)
		}
	})
}

func TestByeChallenged(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, _ := w.established("bc")
		a.send("BYE", nil, "")
		w.p.reply(w.p.want("BYE"), 407, "", []string{"Proxy-Authenticate: Digest realm=\"r\""}, "")
		w.a.want("407 BYE")
		a.send("BYE", []string{"Proxy-Authorization: Digest x=y"}, "")
		w.p.reply(w.p.want("BYE"), 200, "", nil, "")
		w.a.want("200 BYE")
	})
}

func TestLost200IsRepeated(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		w.a.skip = false
		a := begin(w.a, outside, "l", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		var gaps []time.Duration
		last := time.Now()
		var ok *sip.Message
		for range 6 {
			ok = w.a.want("200")
			gaps = append(gaps, time.Since(last))
			last = time.Now()
		}
		if got := fmt.Sprint(gaps); got != "[0s 500ms 1s 2s 4s 4s]" {
			t.Errorf("200 came after %s", got)
		}
		w.acked(a, p, ok)
		w.a.quiet(10 * time.Second)
		// The far end repeats its 200: our ACK was lost.
		w.p.skip = false
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.p.want("ACK")
		w.a.quiet(time.Second)
		w.hangUp(a)
	})
}

func TestLostAckEndsTheCall(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		begin(w.a, outside, "la", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		at := time.Now()
		w.a.want("200")
		bye := w.a.want("BYE")
		if d := time.Since(at); d != sip.TransactionTimeout {
			t.Errorf("BYE after %s", d)
		}
		if bye.FromTag() != "pbx" || bye.ToTag() != "from-la" || !strings.Contains(bye.Get("Reason"), "408") {
			t.Errorf("BYE to the caller:\n%s", bye.Append(nil))
		}
		w.p.want("ACK")
		w.p.want("BYE")
		synctest.Wait()
		if got := w.obs.log(0); !strings.HasSuffix(got, "ended timeout") {
			t.Errorf("told: %s", got)
		}
	})
}

func TestRepetitionsAreAbsorbed(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		w.a.skip, w.p.skip = false, false
		a := begin(w.a, outside, "r", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 180, "pbx", []string{w.p.contact()}, "")
		w.a.want("180")
		a.branches, a.cseq = 0, 0
		again := []string{fmt.Sprintf("Contact: <sip:alice@%s>;+sip.instance=\"x\"", w.a.addr)}
		w.a.send(outside, a.request("INVITE", again, sdpOf(carrier.Addr(), 7000)))
		w.a.want("180") // the last response again
		w.p.quiet(time.Second)
		// The same request on another way is a loop.
		w.a.send(outside, a.requestAt("INVITE", 1, again, sdpOf(carrier.Addr(), 7000)))
		w.a.want("482")
		w.p.quiet(100 * time.Millisecond)
	})
}

func TestUnknownDialog(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := &dialogue{p: w.a, us: outside, callID: "nobody", local: "<sip:a@b>;tag=1", remote: "<sip:c@d>;tag=2", target: "sip:x@192.0.2.1"}
		for _, method := range []string{"BYE", "INFO", "INVITE", "CANCEL"} {
			d.send(method, nil, "")
			w.a.want("481 " + method)
		}
		d.send("ACK", nil, "")
		w.a.quiet(time.Second)
	})
}

func TestOutsideOfDialogs(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := &dialogue{p: w.a, us: outside, callID: "ood", local: "<sip:a@b>;tag=1", remote: "<sip:c@d>", target: "sip:c@192.0.2.1"}
		d.send("OPTIONS", nil, "")
		if res := w.a.want("200 OPTIONS"); !strings.Contains(res.Get("Allow"), "PRACK") || res.ToTag() == "" {
			t.Errorf("OPTIONS:\n%s", res.Append(nil))
		}
		d.send("MESSAGE", []string{"Content-Type: text/plain"}, "hello")
		m := w.p.want("MESSAGE")
		if m.URI != "sip:c@10.0.0.66:5060" || string(m.Body) != "hello" {
			t.Errorf("MESSAGE changed:\n%s", m.Append(nil))
		}
		w.p.reply(m, 202, "x", nil, "")
		w.a.want("202 MESSAGE")
		d.send("REGISTER", []string{"Contact: <sip:a@192.0.2.66>"}, "")
		m = w.p.want("REGISTER")
		if m.Get("Contact") != "<sip:a@192.0.2.66>" {
			t.Errorf("REGISTER changed:\n%s", m.Append(nil))
		}
		w.p.reply(m, 200, "x", nil, "")
		w.a.want("200 REGISTER")
		if w.b.Calls() != 0 {
			t.Error("they count as calls")
		}
	})
}

func TestSubscription(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := &dialogue{p: w.a, us: outside, callID: "sub", local: "<sip:a@b>;tag=1", remote: "<sip:c@d>", target: "sip:c@192.0.2.1"}
		d.send("SUBSCRIBE", []string{w.a.contact(), "Event: dialog", "Expires: 60"}, "")
		s := w.p.want("SUBSCRIBE")
		n := &dialogue{p: w.p, us: inside, callID: "sub", local: s.Get("To") + ";tag=n", remote: s.Get("From"), target: contactURIOf(t, s)}
		n.send("NOTIFY", []string{w.p.contact(), "Subscription-State: active"}, "") // overtakes the 200
		w.a.reply(w.a.want("NOTIFY"), 200, "", nil, "")
		w.p.want("200 NOTIFY")
		w.p.reply(s, 200, "n", []string{w.p.contact(), "Expires: 60"}, "")
		w.a.want("200 SUBSCRIBE")
		time.Sleep(50 * time.Second)
		n.send("NOTIFY", []string{w.p.contact(), "Subscription-State: terminated"}, "")
		w.a.reply(w.a.want("NOTIFY"), 200, "", nil, "")
		w.p.want("200 NOTIFY")
		time.Sleep(2 * time.Minute)
		n.send("NOTIFY", nil, "")
		w.p.want("481 NOTIFY")
	})
}

func TestNextHopByName(t *testing.T) {
	inBubble(t, func(cfg *Config) {
		cfg.Net.LookupNetIP = func(_ context.Context, host string) ([]netip.Addr, error) {
			time.Sleep(time.Second) // DNS is slow
			if host != "pbx.example" {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{pbx.Addr()}, nil
		}
		side := &cfg.Trunks[0].Sides[1]
		side.Peers = nil // its addresses are let in because the name leads there
		side.NextHops = []sip.NextHop{{Host: "gone.example", Transport: "udp"}, {Host: "pbx.example", Transport: "udp"}}
	}, func(w *bench) {
		a, p := w.established("dns")
		if p.invite.URI != "sip:+4930123@pbx.example;user=phone" {
			t.Errorf("Request-URI %s", p.invite.URI)
		}
		w.hangUp(a)
	})
}

func TestRingingForever(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		begin(w.a, outside, "ring", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 180, "pbx", []string{w.p.contact()}, "")
		w.a.want("180")
		at := time.Now()
		var cancel *sip.Message
		for cancel == nil {
			cancel = w.p.next(time.Minute)
		}
		if d := time.Since(at); cancel.Method != "CANCEL" || d != ringMax {
			t.Errorf("%s after %s", cancel.Method, d)
		}
		w.p.reply(cancel, 200, "pbx", nil, "")
		w.a.want("408")
	})
}

func TestCancelledReinvite(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, _ := w.established("cr")
		a.send("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7100))
		w.a.want("100")
		re := w.p.want("INVITE")
		w.p.reply(re, 180, "", nil, "")
		w.a.want("180")
		a.branches--
		w.a.send(outside, a.requestAt("CANCEL", a.cseq, nil, ""))
		w.a.want("200 CANCEL")
		w.p.want("CANCEL")
		// The 200 crosses the CANCEL: the session is changed, not ended.
		w.p.reply(re, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.a.want("200 INVITE")
		a.requestAndAck()
		w.p.drain()
		w.hangUpIgnoring(a)
	})
}
