package b2bua

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/journal/journaltest"
)

// inRestart runs f with a bench whose B2BUA can be replaced by another one.
func inRestart(t *testing.T, edit func(*Config), f func(w *bench, restart func() *Restored)) {
	t.Helper()
	j := &journaltest.Mem{}
	var cfg Config
	inBubble(t, func(c *Config) {
		if edit != nil {
			edit(c)
		}
		c.Journal = j
		cfg = *c
	}, func(w *bench) {
		f(w, func() *Restored {
			w.t.Helper()
			return w.restart(cfg, j, func() { w.a.drain(); w.p.drain() })
		})
		synctest.Wait()
	})
}

// restart puts another B2BUA in the place of the one that dies, with what the journal has
// by then. lost takes away what that one says to the peers when it ends.
func (w *bench) restart(cfg Config, j *journaltest.Mem, lost func()) *Restored {
	w.t.Helper()
	synctest.Wait()
	left := j.States()
	if err := w.b.Close(); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
	j.Set(left)
	lost()
	b, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.b = b
	r := b.Restore(left)
	if err := b.Start(); err != nil {
		w.t.Fatal(err)
	}
	r.Observe()
	synctest.Wait()
	return r
}

func TestRestoredCall(t *testing.T) {
	for name, edit := range map[string]func(*Config){"transparent": nil, "hide": hiding, "timers": keepsTimers} {
		t.Run(name, func(t *testing.T) {
			inRestart(t, edit, func(w *bench, restart func() *Restored) {
				a, p := w.established("res@x")
				p.local = p.invite.Get("To") + ";tag=pbx" // as it is on its leg
				before := w.obs.taps[0].streams
				r := restart()
				if len(r.Sessions) != 1 || r.Lost != 0 || w.b.Calls() != 1 {
					t.Fatalf("%+v, %d calls", r, w.b.Calls())
				}
				s := w.obs.session[1]
				if s.Resumed == nil || s.Resumed.Restarts != 1 || s.ID != r.Sessions[0] || s.ID != w.obs.session[0].ID {
					t.Errorf("the observer was asked for %+v", s)
				}
				for i, st := range w.obs.taps[1].streams {
					if st.Local != before[i].Local || st.Source != before[i].Source {
						t.Errorf("stream %+v, before %+v", st, before[i])
					}
				}
				p.send("INVITE", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000, "a=sendonly"))
				w.p.want("100")
				re := w.a.want("INVITE")
				w.a.reply(re, 200, "", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000, "a=recvonly"))
				w.p.want("200")
				w.p.send(p.us, p.requestAt("ACK", p.cseq, nil, ""))
				w.a.want("ACK")
				if log := w.obs.log(1); !strings.Contains(log, "signal hold.start internal") {
					t.Error(log)
				}
				w.hangUp(a)
				if log := w.obs.log(1); !strings.Contains(log, "ended bye") {
					t.Error(log)
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

func keepsTimers(cfg *Config) {
	cfg.Trunks[0].Timers = sip.SessionTimers{Mode: sip.TimersKeep, Expires: 30 * time.Minute, MinSE: 90 * time.Second}
}

// The daemon dies between the answer and its ACK: the answer comes again, and so does
// the ACK.
func TestRestoredBeforeACK(t *testing.T) {
	inRestart(t, nil, func(w *bench, restart func() *Restored) {
		a := begin(w.a, outside, "ack@x", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		body := sdpOf(pbx.Addr(), 8000)
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, body)
		first := w.a.want("200")
		w.a.skip = false
		restart()
		again := w.a.want("200 INVITE")
		if string(again.Append(nil)) != string(first.Append(nil)) {
			t.Errorf("another answer:\n%s\nwant:\n%s", again.Append(nil), first.Append(nil))
		}
		w.acked(a, p, again)
		w.p.skip = false
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, body) // the ACK was lost on its way
		w.p.want("ACK")
		w.p.skip, w.a.skip = true, true
		w.a.drain()
		w.hangUp(a)
	})
}

// The daemon dies while a BYE is under way: its repetition is passed on and answered.
func TestRestoredInBYE(t *testing.T) {
	inRestart(t, nil, func(w *bench, restart func() *Restored) {
		a, _ := w.established("bye@x")
		a.send("BYE", nil, "")
		bye := w.a.sent
		first := w.p.want("BYE")
		w.p.skip = false
		r := restart()
		if len(r.Sessions) != 0 || w.b.Calls() != 0 || len(w.obs.taps) != 1 {
			t.Errorf("%+v: an ended call goes on", r)
		}
		if len(r.Ended) != 1 || r.Ended[0].Session.ID != w.obs.session[0].ID || !r.Ended[0].Session.Start.Equal(w.obs.session[0].Start) ||
			r.Ended[0].Ended.Before(r.Ended[0].Answered) || time.Since(r.Ended[0].Ended) > time.Second {
			t.Errorf("%+v", r.Ended)
		}
		w.a.send(outside, bye)
		again := w.p.want("BYE")
		if again.Get("Via") != first.Get("Via") {
			t.Errorf("it is another transaction: %s, before %s", again.Get("Via"), first.Get("Via"))
		}
		w.p.reply(again, 200, "", nil, "")
		w.a.want("200 BYE")
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.b.byID) != 0 {
			t.Error("something is left of the call")
		}
	})
}

// An ended call waits for repetitions of its BYE once, and not anew in each process:
// one that dies again and again would gather all that it ever had.
func TestRestoredInBYEAgain(t *testing.T) {
	inRestart(t, nil, func(w *bench, restart func() *Restored) {
		a, _ := w.established("bye@x")
		a.send("BYE", nil, "")
		w.p.want("BYE")
		j := w.b.cfg.Journal.(*journaltest.Mem)
		for i := range 5 {
			r, want := restart(), 1
			if i == 4 {
				want = 0
			}
			if len(w.b.byID) != want || len(j.States()) != want || r.Lost != 0 {
				t.Errorf("%d: %d calls, %d in the journal, %d lost", i, len(w.b.byID), len(j.States()), r.Lost)
			}
			time.Sleep(sip.TransactionTimeout / 4)
		}
	})
}

func TestRestoreRefuses(t *testing.T) {
	inRestart(t, nil, func(w *bench, restart func() *Restored) {
		w.established("one@x")
		w.b.cfg.Journal.Put("nonsense", []byte("{"))
		w.b.cfg.Journal.Put("version", []byte(`{"V":99}`))
		w.b.cfg.Journal.Put("trunk", []byte(`{"V":1,"Setup":"INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.66;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\r\n","Trunk":"gone"}`))
		r := restart()
		if len(r.Sessions) != 1 || r.Lost != 3 {
			t.Errorf("%+v", r)
		}
	})
}

func TestJournalFull(t *testing.T) {
	j := &journaltest.Mem{}
	j.Limit(-1)
	inBubble(t, func(c *Config) { c.Journal = j }, func(w *bench) {
		a, _ := w.established("full@x")
		if n := w.b.counters.Unjournalled.Load(); n != 1 {
			t.Errorf("%d calls counted", n)
		}
		j.Limit(0)
		a.send("INFO", nil, "")
		w.p.reply(w.p.want("INFO"), 200, "", nil, "")
		w.a.want("200 INFO")
		synctest.Wait()
		if len(j.States()) != 1 {
			t.Error("the next turn does not try again")
		}
		w.hangUp(a)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(j.States()) != 0 {
			t.Error("the entry outlives its call")
		}
	})
}

func TestDrain(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, _ := w.established("old@x")
		w.b.Drain()
		begin(w.a, outside, "new@x", sdpOf(carrier.Addr(), 7000))
		if res := w.a.want("503"); res.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		a.send("INFO", nil, "")
		w.p.reply(w.p.want("INFO"), 200, "", nil, "")
		w.a.want("200 INFO")
		w.hangUp(a)
		if w.b.Calls() != 0 || !w.b.Draining() || w.b.counters.Drained.Load() != 1 {
			t.Error("it does not drain")
		}
	})
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"V":1,"Trunk":"t","Setup":"INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.66;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\r\n","Dialog":"y","Media":{"Lines":[{}],"Offer":"v=0\r\n","Answer":"v=0\r\n"}}`))
	const invite = `INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.66;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\r\n`
	f.Add([]byte(`{"V":1,"Trunk":"t","Setup":"` + invite + `","Dialog":"y","Exchanges":[{"Method":"INVITE","Request":"` + invite + `","Sent":"` + invite + `"},{"From":1,"Method":"INVITE","Request":"` + invite + `","Done":{"Branch":"z","Answer":"SIP/2.0 200 OK\r\n\r\n"}}]}`))
	f.Add([]byte(`{"V":2,"Trunk":"t","Setup":"` + invite + `","Early":{"Ahead":1,"Sent":[{"Invite":"` + invite + `"}]}}`))
	n := mediatest.NewNet(1)
	r, err := relay.New(relay.Config{PortMin: 20000, PortMax: 20099, Quarantine: -1, Open: func(a netip.AddrPort) (relay.Conn, error) { return n.Listen(a) }})
	if err != nil {
		f.Fatal(err)
	}
	b, err := New(Config{Trunks: []sip.Trunk{trunk()}, Listen: []sip.Listen{{Network: "udp", Addr: outside}}, Relay: r, Journal: &journaltest.Mem{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, state []byte) {
		c, j, err := b.revive(state)
		if err != nil {
			return
		}
		defer func() { b.opening = nil }() // it is never started
		if j.Early != nil {
			c.resumeEarly(j.Early, time.Now())
			b.forget(c)
			b.wg.Done()
			return
		}
		c.restoreDialog(j, time.Now())
		_ = c.media.restore(j.Media, time.Now()) // an entry that was forged is refused, or anchors something
		c.restoreExchanges(j.Exchanges, time.Now())
		c.restoreTimers(j.Timers, time.Now())
		_ = c.save()
		c.media.close()
		b.forget(c)
		b.wg.Done()
	})
}

// TestEndIsKept: who is told that the call is over is told when the journal knows it.
func TestEndIsKept(t *testing.T) {
	inRestart(t, nil, func(w *bench, _ func() *Restored) {
		j := w.b.cfg.Journal.(*journaltest.Mem)
		a, _ := w.established("kept@x")
		j.Slow(true)
		a.send("BYE", nil, "")
		w.p.reply(w.p.want("BYE"), 200, "", nil, "")
		synctest.Wait()
		for session, state := range j.States() {
			if !strings.Contains(string(state), `"Over":true`) {
				t.Errorf("%s: the journal has not been told: %s", session, state)
			}
		}
		if len(j.States()) != 1 || j.Waiting() != 1 {
			t.Errorf("%d calls in the journal, %d answers wait", len(j.States()), j.Waiting())
		}
		w.a.quiet(100 * time.Millisecond)
		j.Settle()
		w.a.want("200 BYE")
	})
}

// TestBeginIsKept: who is told that the call is answered is told when the journal knows it.
func TestBeginIsKept(t *testing.T) {
	inRestart(t, nil, func(w *bench, restart func() *Restored) {
		j := w.b.cfg.Journal.(*journaltest.Mem)
		a := begin(w.a, outside, "kept@x", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		j.Slow(true)
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		synctest.Wait()
		for session, state := range j.States() {
			if strings.Contains(string(state), `"Early"`) {
				t.Errorf("%s: the journal has not been told: %s", session, state)
			}
		}
		if len(j.States()) != 1 || j.Waiting() != 1 {
			t.Errorf("%d calls in the journal, %d answers wait", len(j.States()), j.Waiting())
		}
		w.a.quiet(100 * time.Millisecond)
		j.Settle()
		ok := w.a.want("200")
		j.Slow(false)
		w.acked(a, p, ok)
		w.hangUp(a)
	})
}
