package b2bua

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
)

// twoHops lets the PBX side have a second next hop.
func twoHops(edit func(*sip.Side)) func(*Config) {
	return func(cfg *Config) {
		s := &cfg.Trunks[0].Sides[media.Internal]
		s.NextHops = append(s.NextHops, sip.NextHop{Host: "10.0.0.67", Port: 5060, Transport: "udp"})
		if edit != nil {
			edit(s)
		}
	}
}

// refused makes a call that ends with a refusal of p.
func (w *bench) refused(id string, p *peer) time.Duration {
	w.t.Helper()
	begun := time.Now()
	begin(w.a, outside, id, sdpOf(carrier.Addr(), 7000))
	w.a.want("100")
	got := p.take(inside)
	took := time.Since(begun)
	p.reply(got.invite, 486, "x", nil, "")
	p.want("ACK")
	w.a.want("486")
	return took
}

func (w *bench) hop(host string) HopStatus {
	w.t.Helper()
	for _, s := range w.b.NextHops() {
		if s.NextHop.Host == host {
			return s
		}
	}
	w.t.Fatalf("no next hop %s", host)
	return HopStatus{}
}

// TestFailoverOn503: a next hop that cannot take a call is followed by the next one,
// and left alone for as long as it said; the last one's refusal is passed on.
func TestFailoverOn503(t *testing.T) {
	inBubble(t, twoHops(nil), func(w *bench) {
		q := newPeer(t, w.net, pbx2)
		defer q.close()
		begin(w.a, outside, "one", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 503, "x", []string{"Retry-After: 60 (upgrade);duration=5"}, "")
		w.p.want("ACK")
		second := q.take(inside)
		q.reply(second.invite, 486, "x", nil, "")
		q.want("ACK")
		w.a.want("486")
		w.refused("two", q)
		w.p.quiet(time.Second)
		if s := w.hop("10.0.0.66"); s.Up || s.Failed != 1 || s.Requests != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		w.refused("three", w.p)
		// Both refuse: the caller hears the last one's own words.
		begin(w.a, outside, "four", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p = w.p.take(inside)
		w.p.reply(p.invite, 503, "x", nil, "")
		w.p.want("ACK")
		second = q.take(inside)
		q.reply(second.invite, 503, "y", []string{"X-Own: yes", "Retry-After: 7"}, "")
		q.want("ACK")
		if res := w.a.want("503"); res.Get("X-Own") != "yes" || res.Get("Retry-After") != "7" {
			t.Errorf("not the last one's own:\n%s", res.Append(nil))
		}
	})
}

// TestCallsFollowWeights: next hops of one priority share the calls, and the other one
// takes what one of them refuses.
func TestCallsFollowWeights(t *testing.T) {
	edit := twoHops(func(s *sip.Side) {
		for i, weight := range []int{3, 1} {
			s.NextHops[i].Priority, s.NextHops[i].Weight = 1, weight
		}
	})
	inBubble(t, edit, func(w *bench) {
		q := newPeer(t, w.net, pbx2)
		defer q.close()
		const calls = 400
		first := map[*peer]int{}
		for i := range calls {
			begin(w.a, outside, fmt.Sprint("call", i), sdpOf(carrier.Addr(), 7000))
			w.a.want("100")
			synctest.Wait()
			one, other := w.p, q
			if len(q.in) > 0 {
				one, other = q, w.p
			}
			first[one]++
			for _, p := range []*peer{one, other} {
				got := p.take(inside)
				p.reply(got.invite, 503, "x", []string{"Retry-After: 0"}, "")
				p.want("ACK")
			}
			w.a.want("503")
			time.Sleep(time.Minute) // whom nobody heard of rests
		}
		if n := first[w.p]; n < 230 || n > 370 || n+first[q] != calls {
			t.Errorf("%d and %d calls began at the first and the second, want three of one on one of the other", n, first[q])
		}
	})
}

// TestNoFailoverAfterRinging: once the caller has heard of a party, its refusal is
// the caller's to hear.
func TestNoFailoverAfterRinging(t *testing.T) {
	inBubble(t, twoHops(nil), func(w *bench) {
		begin(w.a, outside, "r", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 180, "x", []string{w.p.contact()}, "")
		w.a.want("180")
		w.p.reply(p.invite, 503, "x", nil, "")
		w.p.want("ACK")
		w.a.want("503")
	})
}

// TestSilentHopIsLeftAlone: one that nobody pings is tried again after half a minute.
func TestSilentHopIsLeftAlone(t *testing.T) {
	inBubble(t, twoHops(nil), func(w *bench) {
		q := newPeer(t, w.net, pbx2)
		defer q.close()
		for i := range sip.HopDownAfter {
			if took := w.refused(fmt.Sprint("slow", i), q); took < nextHopWait {
				t.Errorf("the first next hop was given %s", took)
			}
		}
		if took := w.refused("fast", q); took > time.Second {
			t.Errorf("a next hop that is silent still holds calls up for %s", took)
		}
		time.Sleep(40 * time.Second)
		w.p.drain()
		w.refused("again", w.p)
	})
}

func TestPings(t *testing.T) {
	var mu sync.Mutex
	var told []string // guarded by mu: each next hop is pinged by a goroutine of its own
	edit := func(cfg *Config) {
		twoHops(func(s *sip.Side) {
			s.Ping = sip.Ping{Interval: 10 * time.Second, Timeout: 2 * time.Second, DownAfter: 2, UpAfter: 2}
		})(cfg)
		cfg.HopChanged = func(trunk string, side media.Side, hop sip.NextHop, up bool) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(trunk, " ", side, " ", hop.Host, " ", up))
		}
	}
	inBubble(t, edit, func(w *bench) {
		q := newPeer(t, w.net, pbx2)
		defer q.close()
		answer := func(p *peer, status int, extra ...string) {
			t.Helper()
			m := p.want("OPTIONS")
			if m.URI != "sip:"+p.addr.String() || m.Get("Max-Forwards") != "70" || m.Get("Contact") != "<sip:10.0.0.1:5060>" {
				t.Errorf("\n%s", m.Append(nil))
			}
			p.reply(m, status, "x", extra, "")
		}
		answer(w.p, 200)
		answer(q, 404) // whatever it says: it is there
		for range 2 {  // silent, and out of service
			m := w.p.want("OPTIONS")
			for again := w.p.next(1900 * time.Millisecond); again != nil; again = w.p.next(time.Second) {
				t.Fatalf("another request:\n%s", again.Append(nil))
			}
			_ = m
			answer(q, 200)
		}
		time.Sleep(3 * time.Second)
		if s := w.hop("10.0.0.66"); s.Up || s.PingsFailed != 2 || s.Since.IsZero() {
			t.Errorf("%+v", s)
		}
		w.p.skip = true
		if took := w.refused("down", q); took > time.Second {
			t.Errorf("a next hop that is down holds calls up for %s", took)
		}
		for i := range 2 {
			answer(w.p, 200)
			time.Sleep(time.Second)
			if s := w.hop("10.0.0.66"); s.Up != (i == 1) {
				t.Errorf("after %d answers: %+v", i+1, s)
			}
			answer(q, 503, "Retry-After: 5")
		}
		time.Sleep(3 * time.Second)
		if s := w.hop("10.0.0.67"); s.Up || s.PingsFailed < 2 {
			t.Errorf("%+v", s)
		}
		w.p.drain()
		q.drain()
		w.refused("back", w.p)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"t internal 10.0.0.66 false", "t internal 10.0.0.66 true", "t internal 10.0.0.67 false"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

// TestAllDown: when no next hop is up all are tried.
func TestAllDown(t *testing.T) {
	inBubble(t, func(cfg *Config) {
		cfg.Trunks[0].Sides[media.Internal].Ping = sip.Ping{Interval: time.Second, Timeout: time.Second, DownAfter: 1}
	}, func(w *bench) {
		time.Sleep(3 * time.Second)
		if s := w.hop("10.0.0.66"); s.Up {
			t.Fatalf("%+v", s)
		}
		w.p.drain()
		begin(w.a, outside, "any", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		for m := w.p.next(time.Second); ; m = w.p.next(time.Second) {
			if m == nil {
				t.Fatal("no INVITE came")
			}
			if m.Method == sip.Invite {
				w.p.reply(m, 486, "x", nil, "")
				break
			}
		}
		w.a.want("486")
		if err := w.b.Reload([]sip.Trunk{trunk()}); err != nil { // without pings
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		w.p.drain()
		w.p.quiet(5 * time.Second)
		if s := w.hop("10.0.0.66"); !s.Up || s.Pings == 0 {
			t.Errorf("after a reload: %+v", s)
		}
	})
}
