package b2bua

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRefreshCrossesRequest: the ACK of a re-INVITE of ours has its number, whatever the
// party in whose name it was sent has sent since.
func TestRefreshCrossesRequest(t *testing.T) {
	inBubble(t, keeping, func(w *bench) {
		a, p, _ := w.timedCall("cross", nil, []string{"Allow: INVITE, ACK, BYE, UPDATE"})
		for len(w.a.in) == 0 {
			time.Sleep(time.Second)
			synctest.Wait()
			if len(w.p.in) > 0 {
				w.p.reply(w.p.want("UPDATE"), 200, "", []string{w.p.contact()}, "")
			}
		}
		m := w.a.want("INVITE")
		p.send("INFO", nil, "")
		w.a.reply(w.a.want("INFO"), 200, "", nil, "")
		w.p.want("200 INFO")
		w.a.reply(m, 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
		ack := w.a.want("ACK")
		if got, want := ack.Get("CSeq"), strings.Replace(m.Get("CSeq"), "INVITE", "ACK", 1); got != want {
			t.Errorf("CSeq %s, want %s", got, want)
		}
		w.hangUp(a)
	})
}
