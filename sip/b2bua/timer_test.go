package b2bua

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/sip"
)

func keeping(cfg *Config) {
	cfg.Trunks[0].Timers = sip.SessionTimers{Mode: sip.TimersKeep, Expires: 1800 * time.Second, MinSE: 120 * time.Second}
	cfg.MediaTimeout = -1
}

// timedCall sets up a call in which each party says of timers what it is told.
func (w *bench) timedCall(callID string, invite, answer []string) (a, p *dialogue, ok *sip.Message) {
	w.t.Helper()
	a = begin(w.a, outside, callID, sdpOf(carrier.Addr(), 7000), invite...)
	w.a.want("100")
	p = w.p.take(inside)
	w.p.reply(p.invite, 200, "pbx", append(answer, w.p.contact()), sdpOf(pbx.Addr(), 8000))
	ok = w.a.want("200")
	w.acked(a, p, ok)
	p.local, p.target = p.invite.Get("To")+";tag=pbx", contactURIOf(w.t, p.invite)
	return a, p, ok
}

func expect(t *testing.T, m *sip.Message, want map[string]string) {
	t.Helper()
	for name, v := range want {
		if got := strings.Join(m.Fields(name), ", "); got != v {
			t.Errorf("%s: %q, want %q in\n%s", name, got, v, m.Append(nil))
		}
	}
}

func TestSessionTimerPasses(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, p, ok := w.timedCall("pass", []string{"Supported: timer, 100rel", "Session-Expires: 90;refresher=uac", "Min-SE: 90"},
			[]string{"Session-Expires: 90;refresher=uac", "Require: timer"})
		expect(t, p.invite, map[string]string{"Supported": "timer, 100rel", "Session-Expires": "90;refresher=uac", "Min-SE": "90"})
		expect(t, ok, map[string]string{"Require": "timer", "Session-Expires": "90;refresher=uac"})
		a.send("UPDATE", []string{w.a.contact(), "Session-Expires: 90;refresher=uac"}, "")
		m := w.p.want("UPDATE")
		expect(t, m, map[string]string{"Session-Expires": "90;refresher=uac"})
		w.p.reply(m, 422, "", []string{"Min-SE: 180"}, "")
		expect(t, w.a.want("422 UPDATE"), map[string]string{"Min-SE": "180"})
		w.hangUp(a)
	})
}

// TestSessionTimerNobody: neither party speaks of timers, so we refresh both: one by
// UPDATE, the other by re-INVITE with the description that it knows.
func TestSessionTimerNobody(t *testing.T) {
	for name, edit := range map[string]func(*Config){"transparent": keeping, "hidden": func(c *Config) { keeping(c); hiding(c) }} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, edit, func(w *bench) {
				a, p, ok := w.timedCall("none", nil, []string{"Allow: INVITE, ACK, BYE, UPDATE"})
				expect(t, p.invite, map[string]string{"Supported": "timer", "Session-Expires": "1800", "Min-SE": "120"})
				expect(t, ok, map[string]string{"Supported": "", "Session-Expires": "", "Require": ""})
				w.refreshedByUs(a, p, string(ok.Body))
				w.refreshedByUs(a, p, string(ok.Body))
				// The parties' own requests find their place behind ours.
				a.send("INFO", nil, "")
				info := w.p.want("INFO")
				if seq, _ := info.CSeq(); seq != 4 {
					t.Errorf("CSeq %d, want 4", seq)
				}
				w.p.reply(info, 200, "", nil, "")
				asSentBy(t, w.a.sent, w.a.want("200 INFO"))
				a.send("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
				w.a.want("100")
				re := w.p.want("INVITE")
				w.p.reply(re, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
				w.a.want("200 INVITE")
				a.requestAndAck()
				ack := w.p.want("ACK")
				if seq, _ := re.CSeq(); seq != 5 || ack.Get("CSeq") != "5 ACK" {
					t.Errorf("INVITE %s, %s", re.Get("CSeq"), ack.Get("CSeq"))
				}
				w.hangUp(a)
				if n := w.b.counters.SessionRefreshes.Load(); n != 4 {
					t.Errorf("%d refreshes", n)
				}
			})
		})
	}
}

// refreshedByUs waits for a refresh on each leg.
func (w *bench) refreshedByUs(a, p *dialogue, known string) {
	t := w.t
	for range 2 {
		at := time.Now()
		synctest.Wait()
		for len(w.a.in) == 0 && len(w.p.in) == 0 {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if d := time.Since(at); d > 901*time.Second {
			t.Errorf("refresh after %s", d)
		}
		if len(w.p.in) > 0 {
			m := w.p.want("UPDATE")
			if m.CallID() != p.callID || m.ToTag() != "pbx" || len(m.Body) != 0 || !m.Has("Contact") {
				t.Errorf("refresh:\n%s", m.Append(nil))
			}
			expect(t, m, map[string]string{"Session-Expires": "1800;refresher=uac", "Supported": "timer"})
			w.p.reply(m, 200, "", []string{w.p.contact()}, "")
			continue
		}
		m := w.a.want("INVITE")
		if m.CallID() != a.callID || m.FromTag() != tagOf(a.remote) || string(m.Body) != known {
			t.Errorf("refresh:\n%s\nknown:\n%s", m.Append(nil), known)
		}
		w.a.reply(m, 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
		if ack := w.a.want("ACK"); strings.TrimSuffix(ack.Get("CSeq"), " ACK") != strings.TrimSuffix(m.Get("CSeq"), " INVITE") || ack.CallID() != a.callID {
			t.Errorf("ACK:\n%s", ack.Append(nil))
		}
	}
}

// TestSessionTimerOfParties: both speak of timers and refresh; we only watch.
func TestSessionTimerOfParties(t *testing.T) {
	inBubble(t, keeping, func(w *bench) {
		a, p, ok := w.timedCall("own", []string{"Supported: timer", "Session-Expires: 600"}, []string{"Supported: timer", "Session-Expires: 900;refresher=uas"})
		expect(t, ok, map[string]string{"Session-Expires": "600;refresher=uac", "Require": "timer"})
		for range 4 {
			time.Sleep(300 * time.Second)
			a.send("UPDATE", []string{w.a.contact(), "Supported: timer", "Session-Expires: 600;refresher=uac"}, "")
			m := w.p.want("UPDATE")
			expect(t, m, map[string]string{"Session-Expires": "900;refresher=uas"})
			w.p.reply(m, 200, "", []string{w.p.contact(), "Session-Expires: 900;refresher=uas"}, "")
			expect(t, w.a.want("200 UPDATE"), map[string]string{"Session-Expires": "600;refresher=uac"})
		}
		// The caller refreshes no more.
		at := time.Now()
		bye := w.a.next(time.Hour)
		if d := time.Since(at); bye == nil || bye.Method != sip.Bye || d != 568*time.Second || !strings.Contains(bye.Get("Reason"), "session timer expired") {
			t.Errorf("after %s: %v", d, bye)
		}
		if m := w.p.want("BYE"); m.CallID() != p.callID {
			t.Errorf("BYE:\n%s", m.Append(nil))
		}
		if n := w.b.counters.SessionsExpired.Load(); n != 1 {
			t.Errorf("%d sessions expired", n)
		}
	})
}

func TestSessionTimerFindsTheDead(t *testing.T) {
	for _, status := range []int{0, 481, 500} {
		inBubble(t, keeping, func(w *bench) {
			says := []string{"Allow: UPDATE, INVITE"}
			if status == 500 { // of one that speaks RFC 4028 nothing but a refresh counts
				says = append(says, "Session-Expires: 1800;refresher=uac")
			}
			w.timedCall("dead", nil, says)
			w.a.skip = true
			at := time.Now()
			var end *sip.Message
			for end == nil {
				if m := w.p.next(time.Second); m != nil && m.Method == sip.Bye {
					end = m
				} else if m != nil && status != 0 {
					w.p.reply(m, status, "", nil, "")
				}
				if m := w.a.next(time.Millisecond); m != nil && m.Method == sip.Invite {
					w.a.reply(m, 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
				}
				if time.Since(at) > time.Hour {
					t.Fatalf("%d: the call goes on", status)
				}
			}
			want := map[int]time.Duration{0: 933 * time.Second, 481: 902 * time.Second, 500: 1770 * time.Second}[status]
			if d := time.Since(at); d > want+2*time.Second || d < want-5*time.Second || !strings.Contains(end.Get("Reason"), "cause=408") {
				t.Errorf("%d: ended after %s: %s", status, d, end.Get("Reason"))
			}
		})
	}
}

func TestSessionTimerTooSmall(t *testing.T) {
	inBubble(t, keeping, func(w *bench) {
		begin(w.a, outside, "small", sdpOf(carrier.Addr(), 7000), "Supported: timer", "Session-Expires: 90")
		w.a.want("100")
		expect(t, w.a.want("422"), map[string]string{"Min-SE": "120"})
		w.p.quiet(time.Second)
		// What the far end finds too small is ours, the caller hears nothing of it.
		a := begin(w.a, outside, "far", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		first := w.p.take(inside)
		w.p.reply(first.invite, 422, "x", []string{"Min-SE: 3600"}, "")
		w.p.want("ACK")
		p := w.p.take(inside)
		expect(t, p.invite, map[string]string{"Session-Expires": "3600", "Min-SE": "3600", "CSeq": "2 INVITE"})
		if p.callID != first.callID || p.invite.Get("Via") == first.invite.Get("Via") {
			t.Errorf("again:\n%s", p.invite.Append(nil))
		}
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact(), "Session-Expires: 3600;refresher=uas"}, sdpOf(pbx.Addr(), 8000))
		ok := w.a.want("200")
		expect(t, ok, map[string]string{"CSeq": "1 INVITE"})
		a.remote, a.target = ok.Get("To"), contactURIOf(t, ok)
		w.a.send(outside, a.requestAt("ACK", 1, nil, ""))
		expect(t, w.p.want("ACK"), map[string]string{"CSeq": "2 ACK"})
		w.hangUp(a)
	})
}

func TestSessionTimerOff(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.Trunks[0].Timers.Mode = sip.TimersOff }, func(w *bench) {
		a, p, ok := w.timedCall("off", []string{"Supported: timer, replaces", "Session-Expires: 90", "Min-SE: 90"}, []string{"Supported: timer"})
		expect(t, p.invite, map[string]string{"Supported": "replaces", "Session-Expires": "", "Min-SE": ""})
		expect(t, ok, map[string]string{"Supported": "", "Session-Expires": ""})
		w.hangUp(a)
		begin(w.a, outside, "must", sdpOf(carrier.Addr(), 7000), "Require: timer")
		w.a.want("100")
		expect(t, w.a.want("420"), map[string]string{"Unsupported": "timer"})
	})
}

func TestNumbersOfPrackAndNotify(t *testing.T) {
	n := &numbers{}
	n.begin(2)
	m := &sip.Message{Method: sip.Prack, Headers: []sip.Header{{Name: "CSeq", Value: "5 PRACK"}, {Name: "RAck", Value: "17 4 INVITE"}}}
	n.apply(0, m)
	if m.Get("RAck") != "17 6 INVITE" || m.Get("CSeq") != "7 PRACK" {
		t.Errorf("%v", m.Headers)
	}
	n.apply(0, &sip.Message{Method: sip.Refer, Headers: []sip.Header{{Name: "CSeq", Value: "6 REFER"}}})
	n.insert(0)
	m = &sip.Message{Method: sip.Notify, Headers: []sip.Header{{Name: "CSeq", Value: "1 NOTIFY"}, {Name: "Event", Value: "refer;id=8"}}}
	n.apply(1, m)
	if m.Get("Event") != "refer;id=6" || m.Get("CSeq") != "1 NOTIFY" {
		t.Errorf("%v", m.Headers)
	}
}

// TestSessionTimerRefusedByTheLiving: a party without timers that refuses our
// refreshes is there all the same.
func TestSessionTimerRefusedByTheLiving(t *testing.T) {
	inBubble(t, keeping, func(w *bench) {
		w.timedCall("lives", nil, []string{"Allow: UPDATE, INVITE"})
		for refused := 0; refused < 4; {
			if m := w.p.next(time.Second); m != nil {
				w.p.reply(m, 403, "", nil, "")
				refused++
			}
			if m := w.a.next(time.Millisecond); m != nil && m.Method == sip.Invite {
				w.a.reply(m, 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
			}
		}
		if w.b.Calls() != 1 {
			t.Error("the call was ended")
		}
	})
}
