package b2bua

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
)

func limited(l sip.Limits) func(*Config) {
	return func(cfg *Config) { cfg.Trunks[0].Limits = l }
}

// shed makes a call that is refused for want of room.
func (w *bench) shed(id string) {
	w.t.Helper()
	begin(w.a, outside, id, sdpOf(carrier.Addr(), 7000))
	res := w.a.want("503")
	if n, err := strconv.Atoi(res.Get("Retry-After")); err != nil || n < 1 {
		w.t.Errorf("Retry-After %q", res.Get("Retry-After"))
	}
}

func TestCallsMaxOfTrunk(t *testing.T) {
	inBubble(t, limited(sip.Limits{CallsMax: 1}), func(w *bench) {
		a, _ := w.established("one")
		w.shed("two")
		w.hangUp(a)
		w.refused("three", w.p)
		if n := w.b.counters.Refused.Calls.Load(); n != 1 {
			t.Errorf("%d refused", n)
		}
	})
}

func TestCallsPerSecondOfTrunk(t *testing.T) {
	inBubble(t, limited(sip.Limits{CallsPerSecondMax: 2}), func(w *bench) {
		for i := range 2 {
			w.refused(fmt.Sprint("burst", i), w.p)
		}
		w.shed("more")
		time.Sleep(600 * time.Millisecond)
		w.refused("later", w.p)
		if n := w.b.counters.Refused.Rate.Load(); n != 1 {
			t.Errorf("%d refused", n)
		}
	})
}

// TestInDialogRate: requests in calls are limited, never those that end one.
func TestInDialogRate(t *testing.T) {
	inBubble(t, limited(sip.Limits{InDialogPerSecondMax: 3}), func(w *bench) {
		a, _ := w.established("busy")
		for range 3 {
			a.send("INFO", nil, "")
			w.p.reply(w.p.want("INFO"), 200, "", nil, "")
			w.a.want("200 INFO")
		}
		a.send("INFO", nil, "")
		w.a.want("503 INFO")
		w.hangUp(a)
		if n := w.b.counters.Refused.InDialog.Load(); n != 1 {
			t.Errorf("%d refused", n)
		}
	})
}

// TestOverloadSheds: when messages wait, new calls are refused and those that go on
// are not; afterwards calls are taken again.
func TestOverloadSheds(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.DelayMax = 100 * time.Millisecond }, func(w *bench) {
		a, _ := w.established("before")
		for range 30 {
			w.b.load.observe(150*time.Millisecond, time.Now())
			time.Sleep(50 * time.Millisecond)
		}
		w.shed("hurts")
		a.send("INFO", nil, "")
		w.p.reply(w.p.want("INFO"), 200, "", nil, "")
		w.a.want("200 INFO")
		time.Sleep(2 * time.Second)
		w.refused("after", w.p)
		if n := w.b.counters.Refused.Delay.Load(); n != 1 {
			t.Errorf("%d refused", n)
		}
		w.hangUp(a)
	})
}

func TestMemoryMax(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.MemoryBytesMax = 1 << 10 }, func(w *bench) {
		w.shed("large")
		if n := w.b.counters.Refused.Memory.Load(); n != 1 {
			t.Errorf("%d refused", n)
		}
	})
}

// TestPressure: one stall says nothing, and neither do few messages.
func TestPressure(t *testing.T) {
	now := time.Unix(1e9, 0)
	for name, c := range map[string]struct {
		waits func(i int) time.Duration
		every time.Duration
		want  time.Duration
	}{
		"all wait":   {func(int) time.Duration { return time.Second }, 10 * time.Millisecond, time.Second},
		"a stall":    {func(i int) time.Duration { return time.Duration(50-i%50) * 20 * time.Millisecond }, 10 * time.Millisecond, 20 * time.Millisecond},
		"few":        {func(int) time.Duration { return time.Second }, 100 * time.Millisecond, 0},
		"none waits": {func(int) time.Duration { return 0 }, time.Millisecond, 0},
	} {
		var l pressure
		at := now
		for i := range 200 {
			l.observe(c.waits(i), at)
			at = at.Add(c.every)
		}
		if got := l.delay(at); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if got := l.delay(at.Add(time.Minute)); got != 0 {
			t.Errorf("%s: %s a minute later", name, got)
		}
	}
}

func following(cfg *Config) {
	cfg.Trunks[0].Follow = true
	cfg.Trunks[0].Sides[media.Internal].RedirectHosts = []string{"*.pbx.example"}
}

// redirect makes a call that the PBX redirects.
func (w *bench) redirect(id string, contacts ...string) *dialogue {
	w.t.Helper()
	begin(w.a, outside, id, sdpOf(carrier.Addr(), 7000))
	w.a.want("100")
	p := w.p.take(inside)
	w.p.reply(p.invite, 302, "x", []string{"Contact: " + strings.Join(contacts, ", ")}, "")
	w.p.want("ACK")
	return p
}

// TestRedirectFollowed: the targets are tried by their q, once, and only those that
// the side may reach.
func TestRedirectFollowed(t *testing.T) {
	inBubble(t, following, func(w *bench) {
		q := newPeer(t, w.net, pbx2)
		defer q.close()
		w.redirect("moved", "<sip:low@10.0.0.67>;q=0.2", "<sip:away@203.0.113.9>", "<tel:+491>", "<sip:high@10.0.0.67:5060;user=phone?X=y>;q=0.7")
		got := q.take(inside)
		if got.invite.URI != "sip:high@10.0.0.67:5060;user=phone" || got.invite.CallID() != "moved" {
			t.Errorf("%s", got.invite.URI)
		}
		q.reply(got.invite, 503, "x", nil, "")
		q.want("ACK")
		got = q.take(inside)
		if got.invite.URI != "sip:low@10.0.0.67" {
			t.Errorf("%s", got.invite.URI)
		}
		// A circle ends: what was tried is not tried again.
		q.reply(got.invite, 302, "y", []string{"Contact: <sip:high@10.0.0.67:5060;user=phone>"}, "")
		q.want("ACK")
		if res := w.a.want("302"); !strings.Contains(res.Get("Contact"), "high@") {
			t.Errorf("\n%s", res.Append(nil))
		}
		w.p.quiet(time.Second)
	})
}

// TestRedirectPasses: without leave, or with none of the targets in reach, the caller
// gets to hear of it.
func TestRedirectPasses(t *testing.T) {
	for name, edit := range map[string]func(*Config){"pass": nil, "out of reach": following} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, edit, func(w *bench) {
				to := "<sip:bob@10.0.0.67>"
				if edit != nil {
					to = "<sip:bob@203.0.113.9>, <sip:bob@evilpbx.example>"
				}
				w.redirect("passes", to)
				if res := w.a.want("302"); res.Get("Contact") != to {
					t.Errorf("Contact %s", res.Get("Contact"))
				}
			})
		})
	}
}

func TestMayReach(t *testing.T) {
	inBubble(t, following, func(w *bench) {
		begin(w.a, outside, "r", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		via, _ := p.invite.TopVia()
		c := w.b.byID[callOfBranch(via.Branch())]
		for host, want := range map[string]bool{
			"10.0.0.70": true, "203.0.113.9": false, "a.pbx.example": true, "A.PBX.example.": true, "pbx.example": false, "xpbx.example": false,
		} {
			if got := c.mayReach(host); got != want {
				t.Errorf("%s: %v", host, got)
			}
		}
		w.p.reply(p.invite, 486, "x", nil, "")
		w.a.want("486")
	})
}

// TestLoop: a request that comes back as it was is refused; one that comes back to
// go elsewhere is not.
func TestLoop(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a := begin(w.a, outside, "l", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		via, _ := p.invite.TopVia()
		first, _ := sip.ParseAddress("<" + a.target + ">")
		back := func(id, uri, header string) {
			again := &dialogue{p: w.a, us: outside, callID: id, local: a.local + id, remote: a.remote, target: uri}
			again.send("INVITE", []string{header + ": SIP/2.0/UDP 192.0.2.70, " + via.String(), "Contact: <sip:192.0.2.66>"}, sdpOf(carrier.Addr(), 7000))
		}
		back("other-1", first.URI, "Via")
		w.a.want("482")
		back("other-2", first.URI, "v")
		w.a.want("482")
		back("other-3", "sip:elsewhere@192.0.2.1", "Via")
		w.a.want("100")
		spiral := w.p.take(inside)
		for _, m := range []*sip.Message{p.invite, spiral.invite} {
			w.p.reply(m, 486, "x", nil, "")
			w.p.want("ACK")
			w.a.want("486")
		}
		if n := w.b.counters.Refused.Loops.Load(); n != 2 {
			t.Errorf("%d loops", n)
		}
	})
}

// TestSpiral: a PBX that is a proxy sends a call between two phones back through us,
// with the Call-ID and the tags that it has. Each request finds its own call.
func TestSpiral(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a := begin(w.a, outside, "s", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		via, _ := p.invite.TopVia()
		back := &dialogue{p: w.p, us: inside, callID: "s", local: a.local, remote: a.remote, target: "sip:phone@10.0.0.1"}
		back.send("INVITE", []string{"Via: " + via.String(), w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.p.want("100")
		phone := w.a.take(outside)
		w.a.reply(phone.invite, 200, "phone", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7100))
		ok := w.p.want("200")
		back.remote, back.target = ok.Get("To"), contactURIOf(t, ok)
		w.p.reply(p.invite, 200, "phone", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8100))
		w.acked(a, p, w.a.want("200"))
		back.branches--
		back.send("ACK", nil, "")
		w.a.want("ACK")
		a.send("BYE", nil, "") // to the PBX, not to the phone
		bye := w.p.want("BYE")
		back.send("BYE", nil, "")
		w.a.reply(w.a.want("BYE"), 200, "", nil, "")
		w.p.want("200 BYE")
		w.p.reply(bye, 200, "", nil, "")
		w.a.want("200 BYE")
	})
}
