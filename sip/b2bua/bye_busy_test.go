package b2bua

import (
	"testing"
)

// TestByeOfBusyCall: a party that hangs up is heard, however many requests of the other
// one wait for their answers.
func TestByeOfBusyCall(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, p := w.established("busy")
		p.target = contactURIOf(t, p.invite)
		for range exchangesMax - 1 {
			p.send("INFO", nil, "")
			w.a.want("INFO")
		}
		a.send("BYE", nil, "")
		w.p.reply(w.p.want("BYE"), 200, "", nil, "")
		w.a.want("200 BYE")
		w.has(0, "answered",
			"stream external sending=true early=false from 192.0.2.66:7000 to 192.0.2.1:20000",
			"stream internal sending=true early=false from 10.0.0.66:8000 to 10.0.0.1:20000",
			"ended bye")
		a.send("BYE", nil, "") // once more is too much
		w.a.want("503 BYE")
	})
}
