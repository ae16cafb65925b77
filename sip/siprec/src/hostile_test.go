package src

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// from makes a request of a server in the session that an INVITE began.
func (s *server) from(invite *sip.Message, method, tag string, seq int) *sip.Message {
	m := &sip.Message{Method: method, URI: "sip:x@" + ours.String()}
	m.Add("Via", fmt.Sprintf("SIP/2.0/UDP %s;branch=z9hG4bK%s%d", s.addr, method, seq))
	from := invite.Get("To")
	if tag != "" { // an empty one is no grammar, and is refused before it comes here
		from += ";tag=" + tag
	}
	m.Add("From", from)
	m.Add("To", invite.Get("From"))
	m.Add("Call-ID", invite.CallID())
	m.Add("CSeq", fmt.Sprintf("%d %s", seq, method))
	return m
}

// answered is a 200 to an INVITE with a tag.
func (s *server) answered(invite *sip.Message, tag, contact string) *sip.Message {
	res := sip.ResponseTo(invite, 200, "OK")
	res.Set("To", invite.Get("To")+";tag="+tag)
	if contact != "" {
		res.Add("Contact", contact)
	}
	res.Add("Content-Type", "application/sdp")
	res.Body = s.answer()
	return res
}

func TestTwoAnswersOfOneInvite(t *testing.T) {
	inBubble(t, false, func(w *world) {
		invite := w.a.accept()
		other := w.a.answered(invite, "other", "<sip:other@"+first.String()+">")
		w.a.send(other, invite.Flow.Remote)
		if ack := w.a.want(sip.Ack); ack.ToTag() != "other" {
			t.Errorf("the second answer is acknowledged with\n%s", ack.Append(nil))
		}
		bye := w.a.want(sip.Bye)
		if bye.ToTag() != "other" || !strings.HasPrefix(bye.URI, "sip:other@") {
			t.Errorf("ended is\n%s", bye.Append(nil))
		}
		w.a.reply(bye, 200, nil)
		w.a.send(other, invite.Flow.Remote) // repeated: the same ACK, and no other BYE
		time.Sleep(time.Second)
		for range 1000 { // a flood brings no more than some
			w.a.send(w.a.answered(invite, fmt.Sprint("x", time.Now().UnixNano()), "<sip:o@"+first.String()+">"), invite.Flow.Remote)
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		n := 0
		for len(w.a.in) > 0 {
			if m := <-w.a.in; m.Method == sip.Bye {
				n++
			}
		}
		if n > 200 {
			t.Errorf("%d messages BYE", n)
		}
		w.speak(0, 500, 8000)
		if len(w.a.heard(0)) == 0 {
			t.Error("the session does not go on")
		}
		w.bye(w.a)
	})
}

func TestAServerThatTakesAndLeavesAtOnce(t *testing.T) {
	inBubble(t, false, func(w *world) {
		n := 0
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			for _, s := range []*server{w.a, w.b} {
				for len(s.in) > 0 {
					m := <-s.in
					if m.Method != sip.Invite || s.seen[m.CallID()] {
						continue
					}
					s.seen[m.CallID()] = true
					n++
					s.send(s.answered(m, "t", "<sip:x@"+s.addr.String()+">"), m.Flow.Remote)
					time.Sleep(time.Millisecond)
					s.send(s.from(m, sip.Bye, "t", n), m.Flow.Remote)
				}
			}
		}
		if n > 12 {
			t.Errorf("%d INVITEs in 30 s", n)
		}
	})
}

func TestRequestsOfAServerAreBounded(t *testing.T) {
	inBubble(t, false, func(w *world) {
		invite := w.a.accept()
		for i := range 2000 {
			w.a.send(w.a.from(invite, sip.Invite, w.a.tag, i+1), invite.Flow.Remote)
			if i%10 == 9 {
				time.Sleep(time.Millisecond)
				for len(w.a.in) > 0 {
					<-w.a.in
				}
			}
		}
		synctest.Wait()
		if n := int(w.f.transactions.Load()); n > serversMax {
			t.Errorf("%d transactions of the server are kept", n)
		}
		for range 400 { // they are forgotten, timer H
			time.Sleep(100 * time.Millisecond)
			for len(w.a.in) > 0 {
				if m := <-w.a.in; m.Method == sip.Options {
					w.a.reply(m, 200, nil)
				}
			}
		}
		for i, tag := range []string{"wrong", w.a.tag + "x", ""} {
			w.a.send(w.a.from(invite, sip.Bye, tag, 4000+i), invite.Flow.Remote)
			if res := w.a.want("response"); res.Status != 481 {
				t.Errorf("BYE of tag %q is answered %d", tag, res.Status)
			}
		}
		w.bye(w.a)
	})
}

func TestProvisionalResponsesForEver(t *testing.T) {
	inBubble(t, false, func(w *world) {
		invite := w.a.want(sip.Invite)
		for range 6 {
			w.a.reply(invite, 180, nil)
			time.Sleep(2 * time.Second)
		}
		if n := w.c.counters.Failovers.Load(); n != 1 {
			t.Errorf("%d failovers after 12 s of ringing", n)
		}
	})
}

func TestAnAnswerThatWantsNothing(t *testing.T) {
	for _, c := range []struct{ name, old, new string }{
		{"inactive", "a=recvonly", "a=inactive"},
		{"no address", "c=IN IP4 " + first.String(), "c=IN IP4 0.0.0.0"},
		{"a group", "c=IN IP4 " + first.String(), "c=IN IP4 224.2.0.1/127"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, false, func(w *world) {
				invite := w.a.want(sip.Invite)
				res := w.a.answered(invite, w.a.tag, "<sip:x@"+first.String()+">")
				res.Body = []byte(strings.ReplaceAll(string(res.Body), c.old, c.new))
				w.a.send(res, invite.Flow.Remote)
				w.a.want(sip.Ack)
				w.speak(0, 1000, 8000)
				time.Sleep(300 * time.Millisecond)
				if n := w.c.counters.Packets.Load() + w.c.counters.SendErrors.Load(); n != 0 {
					t.Errorf("%d packets sent", n)
				}
			})
		})
	}
}

func TestAnAnswerWithoutContact(t *testing.T) {
	inBubble(t, false, func(w *world) {
		invite := w.a.want(sip.Invite)
		w.a.send(w.a.answered(invite, w.a.tag, ""), invite.Flow.Remote)
		if ack := w.a.want(sip.Ack); ack.URI != invite.URI {
			t.Errorf("ACK to %q", ack.URI)
		}
		w.bye(w.a)
	})
}

func TestRingingAfterTheEndIsCancelled(t *testing.T) {
	inBubble(t, false, func(w *world) {
		invite := w.a.want(sip.Invite)
		w.f.End()
		time.Sleep(1200 * time.Millisecond)
		w.a.reply(invite, 180, nil)
		w.a.reply(w.a.want(sip.Cancel), 200, nil)
		w.a.reply(invite, 487, nil)
		w.a.want(sip.Ack)
		<-w.f.done
	})
}

func TestAudioThatWaitsIsBounded(t *testing.T) {
	inBubble(t, false, func(w *world) {
		w.c.held.Store(heldBytesMax) // of other calls
		for ms := int64(0); ms < 3000; ms += 100 {
			w.f.Audio(ms, 8000, tone(ms, 100, 8000))
		}
		if n := w.f.out.heldMS; n > scarceMSMax {
			t.Errorf("%d ms wait", n)
		}
		w.c.held.Store(0)
		w.f.End()
	})
}

func TestAddressesAreForgotten(t *testing.T) {
	inBubble(t, false, func(w *world) {
		invite := w.a.want(sip.Invite)
		w.a.send(w.a.answered(invite, w.a.tag, "<sip:x@192.0.2.99>"), invite.Flow.Remote)
		time.Sleep(100 * time.Millisecond)
		if src := netip.MustParseAddrPort("192.0.2.99:5060"); !w.c.allow(src) {
			t.Error("where the server's Contact leads may not answer")
		}
		w.f.End()
		<-w.f.done
		w.c.mu.Lock()
		defer w.c.mu.Unlock()
		if len(w.c.peers) != 0 {
			t.Errorf("let in are still %v", w.c.peers)
		}
	})
}
