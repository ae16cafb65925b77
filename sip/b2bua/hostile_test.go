package b2bua

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// harmless holds that a call lives on while somebody does his worst: it carries media before
// and after, a re-INVITE passes, and the BYE of a party ends it.
func harmless(t *testing.T, worst func(w *bench, a, p *dialogue, evil *peer)) {
	t.Helper()
	inBubble(t, nil, func(w *bench) {
		a, p := w.established2("call")
		m := w.mediaPair()
		evil := newPeer(t, w.net, other) // a peer of the carrier's side that is no party
		evil.lenient = true              // the 400 to an empty tag has it, too
		defer evil.close()
		worst(w, a, p, evil)
		evil.drain()
		time.Sleep(time.Second)
		w.a.drain()
		w.p.drain()
		if err := w.carries(m.p, m.a, "10.0.0.1:20000", 0, 5); err != nil {
			t.Error(err)
		}
		w.hangUp(a)
	})
}

// as is the dialogue of a party, spoken by somebody else.
func (d *dialogue) as(p *peer) *dialogue {
	c := *d
	c.p, c.cseq = p, d.cseq+100
	return &c
}

// Requests with the Call-ID of a call and tags that are not its own end and change nothing.
func TestWrongTagsDoNothing(t *testing.T) {
	for _, method := range []string{"BYE", "INVITE", "UPDATE", "INFO", "REFER", "NOTIFY", "MESSAGE", "PRACK", "OPTIONS", "X"} {
		for name, forge := range map[string]func(d *dialogue){
			"to":         func(d *dialogue) { d.remote = "<sip:b@h>;tag=nobody" },
			"from":       func(d *dialogue) { d.local = "<sip:a@h>;tag=nobody" },
			"both":       func(d *dialogue) { d.local, d.remote = "<sip:a@h>;tag=x", "<sip:b@h>;tag=y" },
			"the same":   func(d *dialogue) { d.remote = d.local },
			"empty":      func(d *dialogue) { d.remote = "<sip:b@h>;tag=" },
			"empty from": func(d *dialogue) { d.local = "<sip:b@h>;tag=" },
			"other case": func(d *dialogue) { d.remote = strings.ToUpper(d.remote) },
		} {
			t.Run(method+" "+name, func(t *testing.T) {
				harmless(t, func(w *bench, a, _ *dialogue, evil *peer) {
					d := a.as(evil)
					forge(d)
					body := ""
					if method == "INVITE" || method == "UPDATE" {
						body = sdpOf(other.Addr(), 6666)
					}
					d.send(method, []string{evil.contact(), "Refer-To: <sip:x@h>", "Event: refer", "RAck: 1 1 INVITE"}, body)
					if m := evil.next(time.Second); m == nil && !strings.HasPrefix(name, "empty") || m != nil && m.Status < 400 {
						t.Errorf("answered with %v", m)
					}
					w.p.quiet(time.Second)
					w.a.quiet(time.Second)
				})
			})
		}
	}
}

// CANCEL, ACK and responses that are invented, for a call that is answered.
func TestForgedPieces(t *testing.T) {
	harmless(t, func(w *bench, a, _ *dialogue, evil *peer) {
		d := a.as(evil)
		d.remote = "<sip:+4930123@example.com;user=phone>"
		for range 3 {
			evil.send(outside, d.requestAt("CANCEL", 1, nil, ""))
			evil.send(outside, d.requestAt("ACK", 1, nil, sdpOf(other.Addr(), 6666)))
			evil.send(outside, d.requestAt("ACK", 4294967295, nil, ""))
		}
		for _, status := range []string{"200 OK", "487 x", "100 x", "603 x", "699 x"} {
			for _, branch := range []string{branchOf(1, 1), branchOf(1, 2), branchOf(1, 3), branchOf(0, 0), branchPrefix + "ffffffffffffffffffff.1", branchPrefix} {
				evil.send(outside, message("SIP/2.0 "+status, []string{
					"Via: SIP/2.0/UDP " + outside.String() + ";branch=" + branch, "From: " + a.local, "To: " + a.remote, "Call-ID: call", "CSeq: 1 INVITE", evil.contact(),
				}, sdpOf(other.Addr(), 6666)))
			}
		}
		w.p.quiet(time.Second)
		w.a.quiet(time.Second)
	})
}

// A storm of re-INVITEs from both sides at once, none answered in time: each is refused or
// passes, the memory of the call is bounded, and then it goes on.
func TestGlareStorm(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, p := w.established2("storm")
		p.cseq = 100
		for range 300 {
			a.send("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
			p.send("INVITE", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		}
		var both sync.WaitGroup
		both.Go(func() { settleStorm(w.a, a, time.Minute) })
		both.Go(func() { settleStorm(w.p, p, time.Minute) })
		both.Wait()
		for range 60 { // repetitions, until they end
			time.Sleep(time.Second)
			w.a.drain()
			w.p.drain()
		}
		a.send("BYE", nil, "")
		settle := func(p *peer, what string, found func(*sip.Message) bool) {
			for m := p.next(time.Minute); m == nil || !found(m); m = p.next(time.Minute) {
				if m == nil {
					t.Fatalf("%s: no %s", p.addr, what)
				}
			}
		}
		settle(w.p, "BYE", func(m *sip.Message) bool {
			if m.Method == sip.Bye {
				w.p.reply(m, 200, "", nil, "")
			}
			return m.Method == sip.Bye
		})
		settle(w.a, "200 to BYE", func(m *sip.Message) bool { _, of := m.CSeq(); return m.Status == 200 && of == sip.Bye })
	})
}

// Without a tag of the far end these are of no dialog and pass to nobody.
func TestOnlyInDialogs(t *testing.T) {
	harmless(t, func(w *bench, a, _ *dialogue, evil *peer) {
		for _, method := range []string{"BYE", "UPDATE", "PRACK"} {
			d := a.as(evil)
			d.remote = "<sip:+4930123@example.com;user=phone>"
			d.send(method, []string{"RAck: 1 1 INVITE"}, "")
			evil.want("481")
		}
		w.p.quiet(time.Second)
	})
}

// settleStorm answers what comes to a peer until nothing does.
func settleStorm(p *peer, d *dialogue, limit time.Duration) {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		m := p.next(time.Second)
		switch {
		case m == nil:
			return
		case m.IsRequest() && m.Method == sip.Invite:
			p.reply(m, 491, "", nil, "")
		case !m.IsRequest() && m.Status >= 200:
			if n, of := m.CSeq(); of == sip.Invite {
				p.send(d.us, d.requestAt("ACK", int(n), nil, ""))
			}
		}
	}
}

// Loops of REFER, each naming ourselves, pass one by one and leave nothing.
func TestReferStorm(t *testing.T) {
	harmless(t, func(w *bench, a, _ *dialogue, _ *peer) {
		for i := range 200 {
			a.send("REFER", []string{w.a.contact(), fmt.Sprintf("Refer-To: <sip:x@%s?Replaces=call%%3Bto-tag%%3D%d%%3Bfrom-tag%%3Dy&Refer-To=%%3Csip:x@%s%%3E>", outside, i, outside)}, "")
			if m := w.p.next(time.Second); m != nil && m.IsRequest() {
				w.p.reply(m, 603, "", nil, "")
			}
			w.a.drain()
		}
	})
}

// Replaces that names the call of somebody else, wrongly or with garbage, begins a call of
// its own or is refused; the other one never notices.
func TestForeignReplaces(t *testing.T) {
	for _, v := range []string{
		"call", "call;to-tag=pbx", "call;to-tag=;from-tag=", "call;to-tag=pbx;from-tag=nobody", "call;to-tag=nobody;from-tag=from-call",
		strings.Repeat("x", 30000), "call;to-tag=pbx;from-tag=from-call;early-only", ";;;;", "\x7f", "call;to-tag=pbx;to-tag=x;from-tag=from-call",
	} {
		harmless(t, func(w *bench, _, _ *dialogue, evil *peer) {
			begin(evil, outside, "thief", sdpOf(other.Addr(), 6666), "Replaces: "+v)
			for m := w.p.next(time.Second); m != nil; m = w.p.next(time.Second) {
				if m.IsRequest() && m.Method == sip.Invite {
					w.p.reply(m, 481, "no", nil, "")
				}
			}
			w.a.quiet(time.Second)
		})
	}
}

// Bodies that are built to cost: nested parts, thousands of lines, of media, of attributes.
func TestCostlyBodies(t *testing.T) {
	deep := func(n int) string {
		var open, shut strings.Builder
		for i := range n {
			fmt.Fprintf(&open, "--b%d\r\nContent-Type: multipart/mixed;boundary=b%d\r\n\r\n", i, i+1)
			shut.WriteString("\r\n--b--\r\n")
		}
		return open.String() + sdpOf(other.Addr(), 6666) + shut.String()
	}
	lines := func(line string, n int) string {
		return "v=0\r\no=- 1 1 IN IP4 192.0.2.68\r\ns=-\r\nc=IN IP4 192.0.2.68\r\nt=0 0\r\n" + strings.Repeat(line+"\r\n", n)
	}
	for name, c := range map[string]struct{ body, typ string }{
		"nested parts":    {deep(600), "multipart/mixed;boundary=b0"},
		"many parts":      {strings.Repeat("--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n", 1400) + "--b--\r\n", "multipart/mixed;boundary=b"},
		"media":           {lines("m=audio 6666 RTP/AVP 0", 2500), "application/sdp"},
		"refused media":   {lines("m=audio 0 RTP/AVP 0", 2500), "application/sdp"},
		"sixty media":     {lines("m=audio 6666 RTP/AVP 0", 60), "application/sdp"},
		"attributes":      {lines("m=audio 6666 RTP/AVP 0", 1) + strings.Repeat("a=x\r\n", 12000), "application/sdp"},
		"payload types":   {lines("m=audio 6666 RTP/AVP"+strings.Repeat(" 0", 30000), 1), "application/sdp"},
		"keys":            {lines("m=audio 6666 RTP/SAVP 0", 1) + strings.Repeat("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n", 600), "application/sdp"},
		"a bomb":          {"\x1f\x8b\x08" + strings.Repeat("\x00", 60000), "application/sdp\r\nContent-Encoding: gzip"},
		"endless chunk":   {"--b\r\n" + strings.Repeat("X", 60000), "multipart/mixed;boundary=b"},
		"empty boundary":  {"--\r\n\r\n" + sdpOf(other.Addr(), 6666), "multipart/mixed;boundary="},
		"quoted boundary": {"--b\r\n\r\n", `multipart/mixed;boundary="` + strings.Repeat("b", 5000)},
	} {
		t.Run(name, func(t *testing.T) {
			harmless(t, func(w *bench, _, _ *dialogue, evil *peer) {
				free := w.relay.PortsFree(outside.Addr())
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				d := begin(evil, outside, "costly", c.body, "Content-Type: "+c.typ)
				for m := w.p.next(time.Second); m != nil; m = w.p.next(time.Second) {
					if m.IsRequest() && m.Method == sip.Invite {
						w.p.reply(m, 486, "no", nil, "")
					}
				}
				runtime.ReadMemStats(&after)
				if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
					t.Errorf("it cost %d MiB", n>>20)
				}
				d.remote += ";tag=x"
				evil.send(outside, d.requestAt("ACK", 1, nil, ""))
				time.Sleep(2 * time.Minute)
				if n := w.relay.PortsFree(outside.Addr()); n != free {
					t.Errorf("%d pairs of ports are free, %d before", n, free)
				}
			})
		})
	}
}
