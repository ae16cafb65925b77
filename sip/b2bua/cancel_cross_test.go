package b2bua

import (
	"strings"
	"testing"
	"time"
)

// TestCancelCrosses200OfReinvite: what was agreed to all the same is over with that, and
// the giving up of it does not touch the offer that comes next.
func TestCancelCrosses200OfReinvite(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, _ := w.established("recross")
		a.send("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7002))
		first := w.p.want("INVITE")
		w.a.want("100 INVITE")
		a.branches-- // of the INVITE
		w.a.send(outside, a.requestAt("CANCEL", a.cseq, nil, ""))
		w.a.want("200 CANCEL")
		w.p.reply(first, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.a.want("200 INVITE")
		a.requestAndAck()
		w.p.want("ACK")
		time.Sleep(31 * time.Second)
		a.send("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7004))
		second := w.p.want("INVITE")
		w.a.want("100 INVITE")
		time.Sleep(2 * time.Second)
		w.p.reply(second, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.a.want("200 INVITE")
		a.requestAndAck()
		w.p.want("ACK")
		w.hangUp(a)
		if got := w.obs.log(0); !strings.Contains(got, "from 192.0.2.66:7004") {
			t.Errorf("the second change was not agreed to:\n%s", got)
		}
	})
}
