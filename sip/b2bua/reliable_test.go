package b2bua

import (
	"strconv"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/sip"
)

// fork is one early dialog of a call, seen from the caller.
func forkOf(t *testing.T, a *dialogue, res *sip.Message) *dialogue {
	t.Helper()
	f := *a
	a.branches += 1000 // each has its own
	f.remote, f.target, f.branches = res.Get("To"), contactURIOf(t, res), a.branches
	return &f
}

// TestReliableForks: two forks send early media reliably, each with a numbering of
// its own; the caller acknowledges each in its dialog, and one changes its media by
// UPDATE before it answers.
func TestReliableForks(t *testing.T) {
	for name, edit := range map[string]func(*Config){"transparent": nil, "hidden": hiding, "kept": keeping} {
		t.Run(name, func(t *testing.T) { inBubble(t, edit, reliableForks) })
	}
}

func reliableForks(w *bench) {
	t := w.t
	a := begin(w.a, outside, "rel", sdpOf(carrier.Addr(), 7000), "Supported: 100rel")
	w.a.want("100")
	p := w.p.take(inside)
	if !p.invite.HasToken("Supported", "100rel") {
		t.Errorf("100rel is gone:\n%s", p.invite.Append(nil))
	}
	forks := map[string]*dialogue{}
	for i, tag := range []string{"one", "two", "one"} {
		rseq := map[string]int{"one": 700, "two": 9}[tag] + i/2
		w.p.reply(p.invite, 183, tag, []string{w.p.contact(), "Require: 100rel", "RSeq: " + strconv.Itoa(rseq)}, sdpOf(pbx.Addr(), 8000+10*i))
		res := w.a.want("183")
		if res.Get("RSeq") != strconv.Itoa(rseq) || !res.HasToken("Require", "100rel") || !strings.Contains(string(res.Body), "IN IP4 192.0.2.1\r\n") {
			t.Errorf("183:\n%s", res.Append(nil))
		}
		f := forks[tag]
		if f == nil {
			f = forkOf(t, a, res)
			forks[tag] = f
		}
		f.send("PRACK", []string{"RAck: " + strconv.Itoa(rseq) + " 1 INVITE"}, "")
		prack := w.p.want("PRACK")
		if prack.ToTag() != tag || prack.Get("RAck") != strconv.Itoa(rseq)+" 1 INVITE" || prack.CallID() != p.callID {
			t.Errorf("PRACK:\n%s", prack.Append(nil))
		}
		w.p.reply(prack, 200, "", nil, "")
		asSentBy(t, w.a.sent, w.a.want("200 PRACK"))
	}
	// UPDATE in the early dialog, both ways.
	two := forks["two"]
	two.send("UPDATE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7200))
	update := w.p.want("UPDATE")
	if update.ToTag() != "two" || !strings.Contains(string(update.Body), "IN IP4 10.0.0.1\r\n") || strings.Contains(string(update.Body), "7200") {
		t.Errorf("UPDATE:\n%s", update.Append(nil))
	}
	w.p.reply(update, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8200))
	if ok := w.a.want("200 UPDATE"); strings.Contains(string(ok.Body), "8200") || !strings.Contains(string(ok.Body), "IN IP4 192.0.2.1\r\n") {
		t.Errorf("200 to UPDATE:\n%s", ok.Append(nil))
	}
	callee := &dialogue{p: w.p, us: inside, callID: p.callID, local: p.invite.Get("To") + ";tag=two", remote: p.invite.Get("From"), target: contactURIOf(t, p.invite)}
	callee.send("UPDATE", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8300))
	back := w.a.want("UPDATE")
	if back.FromTag() != tagOf(two.remote) {
		t.Errorf("UPDATE of another dialog:\n%s", back.Append(nil))
	}
	w.a.reply(back, 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7300))
	w.p.want("200 UPDATE")
	w.p.reply(p.invite, 200, "two", []string{w.p.contact()}, "")
	ok := w.a.want("200 INVITE")
	if ok.ToTag() != tagOf(two.remote) {
		t.Errorf("answered by another fork:\n%s", ok.Append(nil))
	}
	two.p.send(outside, two.requestAt("ACK", 1, nil, ""))
	if ack := w.p.want("ACK"); ack.ToTag() != "two" {
		t.Errorf("ACK:\n%s", ack.Append(nil))
	}
	two.cseq = 50
	w.hangUp(two)
	if got := w.obs.log(0); !strings.Contains(got, "stream external sending=true early=false from 192.0.2.66:7300") || !strings.Contains(got, "from 10.0.0.66:8300") {
		t.Errorf("told:\n%s", got)
	}
}

// TestExtensionRefused: what one side requires and the other does not have is between
// the two.
func TestExtensionRefused(t *testing.T) {
	both(t, func(w *bench) {
		begin(w.a, outside, "420", sdpOf(carrier.Addr(), 7000), "Require: 100rel, precondition")
		w.a.want("100")
		p := w.p.take(inside)
		expect(t, p.invite, map[string]string{"Require": "100rel, precondition"})
		w.p.reply(p.invite, 420, "pbx", []string{"Unsupported: 100rel"}, "")
		w.p.want("ACK")
		expect(t, w.a.want("420"), map[string]string{"Unsupported": "100rel"})
		begin(w.a, outside, "421", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p = w.p.take(inside)
		w.p.reply(p.invite, 421, "pbx", []string{"Require: 100rel"}, "")
		w.p.want("ACK")
		expect(t, w.a.want("421"), map[string]string{"Require": "100rel"})
	})
}

// TestReliableBehindOurs: the caller's numbers are moved where the first request had
// to be sent again, those in RAck with them.
func TestReliableBehindOurs(t *testing.T) {
	inBubble(t, keeping, func(w *bench) {
		a := begin(w.a, outside, "ahead", sdpOf(carrier.Addr(), 7000), "Supported: 100rel")
		w.a.want("100")
		first := w.p.take(inside)
		w.p.reply(first.invite, 422, "x", []string{"Min-SE: 3600"}, "")
		w.p.want("ACK")
		p := w.p.take(inside)
		w.p.reply(p.invite, 183, "pbx", []string{w.p.contact(), "Require: 100rel", "RSeq: 5"}, sdpOf(pbx.Addr(), 8000))
		res := w.a.want("183")
		f := forkOf(t, a, res)
		f.send("PRACK", []string{"RAck: 5 1 INVITE"}, "")
		prack := w.p.want("PRACK")
		expect(t, prack, map[string]string{"RAck": "5 2 INVITE", "CSeq": "3 PRACK"})
		w.p.reply(prack, 200, "", nil, "")
		expect(t, w.a.want("200 PRACK"), map[string]string{"CSeq": "2 PRACK"})
		w.p.reply(p.invite, 486, "pbx", nil, "")
		w.p.want("ACK")
		expect(t, w.a.want("486"), map[string]string{"CSeq": "1 INVITE"})
	})
}
