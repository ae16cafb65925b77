package b2bua

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/journal/journaltest"
)

// inAllRestarts is inRestart of trunks that pass identities, and that hide them.
func inAllRestarts(t *testing.T, f func(t *testing.T, w *bench, restart func() *Restored)) {
	t.Helper()
	for name, edit := range map[string]func(*Config){"transparent": nil, "hide": hiding} {
		t.Run(name, func(t *testing.T) {
			inRestart(t, edit, func(w *bench, restart func() *Restored) { f(t, w, restart) })
		})
	}
}

// sameTransaction holds that a request has come again and not anew.
func sameTransaction(t *testing.T, first, again *sip.Message) {
	t.Helper()
	if first.Get("Via") != again.Get("Via") || first.Get("CSeq") != again.Get("CSeq") || first.CallID() != again.CallID() {
		t.Errorf("another %s: %s %s, before %s %s", again.Method, again.Get("Via"), again.Get("CSeq"), first.Get("Via"), first.Get("CSeq"))
	}
}

// atPBX is the PBX's end of an established call, as it is on its leg.
func atPBX(p *dialogue) *dialogue {
	p.local = p.invite.Get("To") + ";tag=pbx"
	return p
}

// ack acknowledges the latest INVITE.
func (d *dialogue) ack() { d.p.send(d.us, d.requestAt(sip.Ack, d.cseq, nil, "")) }

// TestRestoredBeforeAnswer: the daemon dies while a re-INVITE waits for its answer.
func TestRestoredBeforeAnswer(t *testing.T) {
	for name, heard := range map[string]bool{"heard": true, "not heard": false} {
		t.Run(name, func(t *testing.T) {
			inAllRestarts(t, func(t *testing.T, w *bench, restart func() *Restored) {
				a, p := w.established("re@x")
				atPBX(p).send("INVITE", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000, "a=sendonly"))
				w.p.want("100")
				re := w.a.want("INVITE")
				if heard {
					w.a.reply(re, 100, "", nil, "")
				}
				synctest.Wait()
				w.a.skip = false
				if r := restart(); len(r.Sessions) != 1 {
					t.Fatalf("%+v", r)
				}
				if !heard {
					sameTransaction(t, re, w.a.want("INVITE"))
				}
				w.a.skip = true
				w.a.reply(re, 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000, "a=recvonly"))
				w.p.want("200 INVITE")
				p.ack()
				w.a.want("ACK")
				if log := w.obs.log(1); !strings.Contains(log, "signal hold.start internal") {
					t.Error(log)
				}
				w.hangUp(a)
			})
		})
	}
}

// TestRestoredBeforeReACK: it dies between the answer to a re-INVITE and its ACK.
func TestRestoredBeforeReACK(t *testing.T) {
	inAllRestarts(t, func(t *testing.T, w *bench, restart func() *Restored) {
		a, p := w.established("reack@x")
		atPBX(p).send("INVITE", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000, "a=sendonly"))
		w.p.want("100")
		re := w.a.want("INVITE")
		answer := sdpOf(carrier.Addr(), 7000, "a=recvonly")
		w.a.reply(re, 200, "", []string{w.a.contact()}, answer)
		w.p.want("200 INVITE")
		w.p.skip = false
		restart()
		w.p.want("200 INVITE")
		w.p.skip = true
		p.ack()
		w.a.want("ACK")
		restart()
		w.a.skip = false
		w.a.reply(re, 200, "", []string{w.a.contact()}, answer) // the ACK was lost on its way
		w.a.want("ACK")
		w.a.skip = true
		w.a.drain()
		w.hangUp(a)
	})
}

// TestRestoredOfferMoved: an offer that cannot be anchored as it went on is refused, and
// what the far end says to it is settled.
func TestRestoredOfferMoved(t *testing.T) {
	inRestart(t, nil, func(w *bench, restart func() *Restored) {
		a, p := w.established("moved@x")
		atPBX(p)
		more := sdpOf(pbx.Addr(), 8000) + "m=video 8002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
		p.send("INVITE", []string{w.p.contact()}, more)
		w.p.want("100")
		re := w.a.want("INVITE")
		w.a.reply(re, 100, "", nil, "")
		synctest.Wait()
		taken, err := w.relay.Open([2]netip.Addr{outside.Addr(), inside.Addr()}, relay.Options{RTP: true}) // the port that was offered is not there any more
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = taken.Close() }() // nothing came on it
		restart()
		if res := w.p.want("500"); res.Get("Retry-After") == "" {
			t.Error("it is not to be tried again")
		}
		p.ack()
		cancel := w.a.want("CANCEL")
		w.a.reply(cancel, 200, "", nil, "")
		w.a.reply(re, 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000)+"m=video 0 RTP/AVP 96\r\n")
		w.a.want("ACK")
		p.send("INVITE", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.p.want("100")
		w.a.reply(w.a.want("INVITE"), 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
		w.p.want("200 INVITE")
		p.ack()
		w.a.want("ACK")
		w.hangUp(a)
	})
}

// TestRestoredInREFER: it dies while a REFER is under way; what tells of the transfer
// passes, also after a BYE.
func TestRestoredInREFER(t *testing.T) {
	inAllRestarts(t, func(t *testing.T, w *bench, restart func() *Restored) {
		_, p := w.established("refer@x")
		atPBX(p).send("REFER", []string{"Refer-To: <sip:other@example.com>", w.p.contact()}, "")
		refer := w.a.want("REFER")
		w.a.skip = false
		restart()
		again := w.a.want("REFER")
		sameTransaction(t, refer, again)
		w.a.skip = true
		w.a.reply(again, 202, "", []string{w.a.contact()}, "")
		w.p.want("202")
		restart()
		p.send("BYE", nil, "")
		w.a.reply(w.a.want("BYE"), 200, "", nil, "")
		w.p.want("200 BYE")
		time.Sleep(time.Second)
		restart()
		notify := &dialogue{
			p: w.a, us: outside, callID: "refer@x", cseq: 50, local: refer.Get("To"), remote: refer.Get("From"), target: contactURIOf(t, refer),
		}
		notify.send("NOTIFY", []string{"Event: refer", "Subscription-State: terminated;reason=noresource", "Content-Type: message/sipfrag"}, "SIP/2.0 200 OK")
		w.p.reply(w.p.want("NOTIFY"), 200, "", nil, "")
		w.a.want("200 NOTIFY")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(w.b.byID) != 0 || len(w.b.cfg.Journal.(*journaltest.Mem).States()) != 0 {
			t.Error("something is left of the call")
		}
	})
}

// TestRestoredInINFO: it dies while a request with a body is under way that is no offer.
// The body is kept nowhere; when its sender repeats it, it goes on as the same
// transaction.
func TestRestoredInINFO(t *testing.T) {
	inAllRestarts(t, func(t *testing.T, w *bench, restart func() *Restored) {
		const digit = "Signal=7\r\nDuration=160\r\n"
		a, _ := w.established("info@x")
		a.send("INFO", []string{"Content-Type: application/dtmf-relay"}, digit)
		info, again := w.p.want("INFO"), w.a.sent
		synctest.Wait()
		for _, state := range w.b.cfg.Journal.(*journaltest.Mem).States() {
			if strings.Contains(string(state), "Signal") || !strings.Contains(string(state), "INFO") {
				t.Errorf("the journal has %s", state)
			}
		}
		w.p.skip = false
		restart()
		restart()
		w.p.quiet(time.Second)
		w.a.send(outside, again)
		same := w.p.want("INFO")
		sameTransaction(t, info, same)
		if string(same.Body) != digit {
			t.Errorf("it comes with %q", same.Body)
		}
		w.p.skip = true
		w.p.reply(same, 200, "", nil, "")
		w.a.want("200 INFO")
		w.hangUp(a)
	})
}

// TestRestoredRinging: a call that nobody has answered ends cleanly on both sides,
// whatever the callee says meanwhile.
func TestRestoredRinging(t *testing.T) {
	for name, crossed := range map[string]bool{"cancelled": false, "answered meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			inAllRestarts(t, func(t *testing.T, w *bench, restart func() *Restored) {
				a := begin(w.a, outside, "ring@x", sdpOf(carrier.Addr(), 7000))
				w.a.want("100")
				p := w.p.take(inside)
				w.p.reply(p.invite, 180, "pbx", []string{w.p.contact()}, "")
				w.a.want("180")
				r := restart()
				if len(r.Sessions) != 0 || r.Lost != 0 || w.b.Calls() != 0 || w.b.counters.CallsCut.Load() != 1 {
					t.Errorf("%+v, %d calls", r, w.b.Calls())
				}
				w.a.want("503")
				a.branches--
				w.a.send(outside, a.requestAt(sip.Ack, 1, nil, ""))
				cancel := w.p.want("CANCEL")
				if cancel.Get("Via") != p.invite.Get("Via") || cancel.URI != p.invite.URI || cancel.CallID() != p.invite.CallID() {
					t.Errorf("CANCEL does not fit its INVITE:\n%s", cancel.Append(nil))
				}
				w.p.reply(cancel, 200, "pbx", nil, "")
				if crossed {
					w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
					w.p.want("ACK")
					w.p.reply(w.p.want("BYE"), 200, "", nil, "")
				} else {
					w.p.reply(p.invite, 487, "pbx", nil, "")
					w.p.want("ACK")
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if len(w.b.byID) != 0 || len(w.b.cfg.Journal.(*journaltest.Mem).States()) != 0 {
					t.Error("something is left of the call")
				}
			})
		})
	}
}

// TestRefusedIsForgotten: the journal has nothing of a call that somebody has refused.
func TestRefusedIsForgotten(t *testing.T) {
	inRestart(t, nil, func(w *bench, _ func() *Restored) {
		j := w.b.cfg.Journal.(*journaltest.Mem)
		begin(w.a, outside, "busy@x", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		synctest.Wait()
		if len(j.States()) != 1 {
			t.Error("nothing is known of a call that rings")
		}
		w.p.reply(p.invite, 486, "pbx", nil, "")
		w.p.want("ACK")
		w.a.want("486")
		synctest.Wait()
		if len(j.States()) != 0 {
			t.Error("the entry outlives its call")
		}
	})
}

// TestRestoredLateOffer: it dies between an offer in a 200 and the answer in the ACK.
func TestRestoredLateOffer(t *testing.T) {
	inAllRestarts(t, func(t *testing.T, w *bench, restart func() *Restored) {
		a := begin(w.a, outside, "late@x", "")
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		first := w.a.want("200")
		w.a.skip = false
		restart()
		again := w.a.want("200 INVITE")
		w.a.skip = true
		if string(again.Body) != string(first.Body) {
			t.Errorf("another offer:\n%s\nwant:\n%s", again.Body, first.Body)
		}
		answered := func(number, caller int) {
			w.a.send(a.us, a.requestAt("ACK", number, nil, sdpOf(carrier.Addr(), caller)))
			ack := w.p.want("ACK")
			if !strings.Contains(string(ack.Body), "IN IP4 10.0.0.1\r\n") || strings.Contains(string(ack.Body), strconv.Itoa(caller)) {
				t.Errorf("answer in ACK is not anchored:\n%s", ack.Body)
			}
		}
		a.remote, a.target = again.Get("To"), contactURIOf(t, again)
		answered(1, 7000)
		w.agreedIn(1, "after the restart", 7000, 8000)
		a.send("INVITE", []string{w.a.contact()}, "")
		re := w.p.want("INVITE")
		w.a.want("100 INVITE")
		w.p.reply(re, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8300))
		w.a.want("200 INVITE")
		w.a.skip = false
		restart()
		w.a.want("200 INVITE")
		w.a.skip = true
		answered(a.cseq, 7300)
		w.agreedIn(2, "after the restart in a re-INVITE", 7300, 8300)
		w.hangUp(a)
	})
}
