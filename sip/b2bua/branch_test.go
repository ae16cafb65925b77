package b2bua

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/trunktap/trunktap/sip"
)

// agreed checks that media goes between the two ports, in both directions, and that the
// recorder knows it.
func (w *bench) agreed(what string, caller, callee int) {
	w.t.Helper()
	w.agreedIn(0, what, caller, callee)
}

// agreedIn is agreed for a session of several that the recorder was asked for.
func (w *bench) agreedIn(session int, what string, caller, callee int) {
	w.t.Helper()
	listen := func(addr netip.Addr, port int) pair {
		c, err := w.net.Listen(netip.AddrPortFrom(addr, uint16(port)))
		if err != nil {
			w.t.Fatal(err)
		}
		return pair{a: c}
	}
	a, p := listen(carrier.Addr(), caller).a, listen(pbx.Addr(), callee).a
	defer func() { _, _ = a.Close(), p.Close() }()
	if err := w.carries(a, p, "192.0.2.1:20000", 0, 2); err != nil {
		w.t.Errorf("%s: caller to %d: %v", what, callee, err)
	}
	if err := w.carries(p, a, "10.0.0.1:20000", 0, 2); err != nil {
		w.t.Errorf("%s: %d to caller: %v", what, callee, err)
	}
	last := map[string]string{}
	for l := range strings.Lines(w.obs.log(session)) {
		if f := strings.Fields(l); len(f) > 2 && f[0] == "stream" && f[2] != "ended" {
			last[f[1]] = l
		}
	}
	for side, from := range map[string]string{"external": fmt.Sprintf("from 192.0.2.66:%d ", caller), "internal": fmt.Sprintf("from 10.0.0.66:%d ", callee)} {
		if !strings.Contains(last[side], from) || strings.Contains(last[side], "early=true") {
			w.t.Errorf("%s: the recorder knows %q, want %q", what, last[side], from)
		}
	}
}

// early lets a fork send a description reliably, and the caller acknowledge it, with an
// answer when that was an offer.
func (w *bench) early(a *dialogue, invite *sip.Message, tag string, port, caller int) *dialogue {
	w.t.Helper()
	w.p.reply(invite, 183, tag, []string{w.p.contact(), "Require: 100rel", "RSeq: 1"}, sdpOf(pbx.Addr(), port))
	f := forkOf(w.t, a, w.a.want("183"))
	body := ""
	if caller != 0 {
		body = sdpOf(carrier.Addr(), caller)
	}
	f.send("PRACK", []string{"RAck: 1 " + strconv.Itoa(a.cseq) + " INVITE"}, body)
	prack := w.p.want("PRACK")
	if caller != 0 && (!strings.Contains(string(prack.Body), "IN IP4 10.0.0.1\r\n") || strings.Contains(string(prack.Body), strconv.Itoa(caller))) {
		w.t.Errorf("answer in PRACK is not anchored:\n%s", prack.Body)
	}
	w.p.reply(prack, 200, "", nil, "")
	w.a.want("200 PRACK")
	return f
}

// TestForksAgree: of two forks that have agreed, each on its own, the media is that of
// the one that answers, whichever was the last to say something.
func TestForksAgree(t *testing.T) {
	for name, late := range map[string]bool{"the caller offers": false, "the forks offer": true} {
		for winner, port := range map[string]int{"one": 8100, "two": 8200} {
			t.Run(name+", "+winner+" answers", func(t *testing.T) {
				both(t, func(w *bench) {
					offer, caller := sdpOf(carrier.Addr(), 7000), [2]int{}
					if late {
						offer, caller = "", [2]int{7100, 7200}
					}
					a := begin(w.a, outside, "forks", offer, "Supported: 100rel")
					w.a.want("100")
					p := w.p.take(inside)
					forks := map[string]*dialogue{"one": w.early(a, p.invite, "one", 8100, caller[0])}
					forks["two"] = w.early(a, p.invite, "two", 8200, caller[1])
					w.p.reply(p.invite, 200, winner, []string{w.p.contact()}, "")
					f := forks[winner]
					w.acked(f, p, w.a.want("200 INVITE"))
					want := 7000
					if late {
						want = port - 1000
					}
					w.agreed("answered", want, port)
					for tag, lost := range forks { // an UPDATE of the other one does not take the media
						if tag != winner {
							lost.send("UPDATE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7900))
							w.a.want("481 UPDATE")
						}
					}
					w.agreed("behind the other fork", want, port)
					f.cseq = 50
					w.hangUp(f)
				})
			})
		}
	}
}

// TestForkOffersInTheEnd: one fork has offered early and has its answer, another one
// offers in its 200.
func TestForkOffersInTheEnd(t *testing.T) {
	both(t, func(w *bench) {
		a := begin(w.a, outside, "end", "", "Supported: 100rel")
		w.a.want("100")
		p := w.p.take(inside)
		w.early(a, p.invite, "one", 8100, 7100)
		w.p.reply(p.invite, 200, "two", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8200))
		ok := w.a.want("200 INVITE")
		if !strings.Contains(string(ok.Body), "IN IP4 192.0.2.1\r\n") {
			t.Errorf("offer in 200 is not anchored:\n%s", ok.Body)
		}
		a.remote, a.target = ok.Get("To"), contactURIOf(t, ok)
		w.a.send(a.us, a.requestAt("ACK", 1, nil, sdpOf(carrier.Addr(), 7200)))
		if ack := w.p.want("ACK"); !strings.Contains(string(ack.Body), "IN IP4 10.0.0.1\r\n") || strings.Contains(string(ack.Body), "7200") {
			t.Errorf("answer in ACK is not anchored:\n%s", ack.Body)
		}
		w.agreed("answered", 7200, 8200)
		w.hangUp(a)
	})
}

// TestForkWithoutALine: a fork that refuses a line early does not take it from another.
func TestForkWithoutALine(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		video := func(addr netip.Addr, port, second int) string {
			return sdpOf(addr, port) + fmt.Sprintf("m=video %d RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n", second)
		}
		a := begin(w.a, outside, "line", video(carrier.Addr(), 7000, 7002))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 183, "one", []string{w.p.contact()}, video(pbx.Addr(), 8100, 0))
		w.a.want("183")
		w.p.reply(p.invite, 200, "two", []string{w.p.contact()}, video(pbx.Addr(), 8200, 8202))
		ok := w.a.want("200 INVITE")
		if !strings.Contains(string(ok.Body), "m=video 20002 ") {
			t.Errorf("the video is not anchored:\n%s", ok.Body)
		}
		w.acked(a, p, ok)
		if n := w.relay.Streams(); n != 2 {
			t.Errorf("%d streams", n)
		}
		w.hangUp(a)
	})
}

// TestUpdateWithinReinvite: what an UPDATE within a re-INVITE came to is in force when
// that ends without another description.
func TestUpdateWithinReinvite(t *testing.T) {
	for name, c := range map[string]struct {
		status         int
		answer         string
		caller, callee int
	}{
		"agreed to":         {200, sdpOf(pbx.Addr(), 8300), 7300, 8300},
		"refused":           {488, "", 7100, 8100},
		"without an answer": {200, "", 7100, 8100},
		"timed out there":   {408, "", 7100, 8100},
	} {
		for _, final := range []string{"", sdpOf(pbx.Addr(), 8100)} {
			if final != "" && c.answer != "" {
				continue // what the 200 said then would be no answer to anything
			}
			t.Run(name, func(t *testing.T) {
				both(t, func(w *bench) {
					a, p := w.established("within")
					a.send("INVITE", []string{w.a.contact(), "Supported: 100rel"}, sdpOf(carrier.Addr(), 7100))
					number := a.cseq
					re := w.p.want("INVITE")
					w.a.want("100 INVITE")
					w.p.reply(re, 183, "", []string{w.p.contact(), "Require: 100rel", "RSeq: 5"}, sdpOf(pbx.Addr(), 8100))
					w.a.want("183 INVITE")
					a.send("PRACK", []string{"RAck: 5 " + strconv.Itoa(number) + " INVITE"}, "")
					w.p.reply(w.p.want("PRACK"), 200, "", nil, "")
					w.a.want("200 PRACK")
					a.send("UPDATE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7300))
					w.p.reply(w.p.want("UPDATE"), c.status, "", []string{w.p.contact()}, c.answer)
					if c.status != 408 { // which does not pass (RFC 4320 section 4.1)
						w.a.want(strconv.Itoa(c.status) + " UPDATE")
					}
					w.p.reply(re, 200, "", []string{w.p.contact()}, final)
					w.a.want("200 INVITE")
					w.a.send(a.us, a.requestAt("ACK", number, nil, ""))
					w.p.want("ACK")
					_ = p
					w.agreed(name, c.caller, c.callee)
					w.hangUp(a)
				})
			})
		}
	}
}

// TestReinviteAnsweredInPrack: the answer to what a re-INVITE asked for may come in the
// PRACK (RFC 3262 section 5).
func TestReinviteAnsweredInPrack(t *testing.T) {
	both(t, func(w *bench) {
		a, _ := w.established("prack")
		a.send("INVITE", []string{w.a.contact(), "Supported: 100rel"}, "")
		re := w.p.want("INVITE")
		w.a.want("100 INVITE")
		f := w.early(a, re, "", 8300, 7300)
		w.p.reply(re, 200, "", []string{w.p.contact()}, "")
		w.a.want("200 INVITE")
		w.a.send(a.us, f.requestAt("ACK", 2, nil, ""))
		w.p.want("ACK")
		w.agreed("answered in PRACK", 7300, 8300)
		a.cseq = 50
		w.hangUp(a)
	})
}

// TestOfferThatNobodyAnswers: an offer in an UPDATE that comes to nothing leaves nothing
// behind, neither streams nor a place for an answer.
func TestOfferThatNobodyAnswers(t *testing.T) {
	fax := fmt.Sprintf("v=0\r\no=- 1 2 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=image 7300 udptl t38\r\n", carrier.Addr())
	for name, answer := range map[string]func(w *bench, m *sip.Message){
		"refused":         func(w *bench, m *sip.Message) { w.p.reply(m, 488, "", nil, ""); w.a.want("488 UPDATE") },
		"no answer in it": func(w *bench, m *sip.Message) { w.p.reply(m, 200, "", nil, ""); w.a.want("200 UPDATE") },
		"408 there":       func(w *bench, m *sip.Message) { w.p.reply(m, 408, "", nil, "") },
		"nothing": func(w *bench, _ *sip.Message) {
			w.a.quiet(sip.TransactionTimeout + sip.T2)
			w.p.drain()
		},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(w *bench) {
				a, _ := w.established("nobody")
				a.send("UPDATE", []string{w.a.contact()}, fax)
				answer(w, w.p.want("UPDATE"))
				synctest.Wait()
				if n := w.relay.Streams(); n != 1 {
					t.Errorf("%d streams", n)
				}
				w.agreed(name, 7000, 8000)
				w.hangUp(a)
			})
		})
	}
	t.Run("re-INVITE", func(t *testing.T) {
		both(t, func(w *bench) {
			a, _ := w.established("re")
			a.send("INVITE", []string{w.a.contact()}, fax)
			w.p.reply(w.p.want("INVITE"), 200, "", []string{w.p.contact()}, "")
			w.a.want("100 INVITE")
			w.a.want("200 INVITE")
			a.requestAndAck()
			w.p.want("ACK")
			if n := w.relay.Streams(); n != 1 {
				t.Errorf("%d streams", n)
			}
			w.agreed("200 without an answer", 7000, 8000)
			w.hangUp(a)
		})
	})
}

// TestDescriptionRepeated: a 200 that repeats the description of the 183 after an
// UPDATE of either side says nothing new (RFC 6337 section 3.1).
func TestDescriptionRepeated(t *testing.T) {
	both(t, func(w *bench) {
		a := begin(w.a, outside, "again", sdpOf(carrier.Addr(), 7000), "Supported: 100rel")
		w.a.want("100")
		p := w.p.take(inside)
		f := w.early(a, p.invite, "one", 8100, 0)
		callee := &dialogue{p: w.p, us: inside, callID: p.callID, local: p.invite.Get("To") + ";tag=one", remote: p.invite.Get("From"), target: contactURIOf(t, p.invite)}
		callee.send("UPDATE", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8300))
		w.a.reply(w.a.want("UPDATE"), 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7300))
		w.p.want("200 UPDATE")
		w.p.reply(p.invite, 200, "one", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8100))
		w.acked(f, p, w.a.want("200 INVITE"))
		w.agreed("after the UPDATE", 7300, 8300)
		f.cseq = 50
		w.hangUp(f)
	})
}
