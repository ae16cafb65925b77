package b2bua

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip/journal/journaltest"
	"github.com/trunktap/trunktap/sip/siptest"
)

// muted is a socket of SIP whose process may be dead already.
type muted struct {
	net.PacketConn
	dead *atomic.Bool
}

func (m muted) WriteTo(b []byte, to net.Addr) (int, error) {
	if m.dead.Load() {
		return len(b), nil
	}
	return m.PacketConn.WriteTo(b, to)
}

// inSecureRestart is inSecureBubble with a B2BUA that can die.
func inSecureRestart(t *testing.T, cfg *srtp.Config, f func(ctx context.Context, w *secureCalls, restart func() *Restored)) {
	t.Helper()
	j, dead := &journaltest.Mem{}, &atomic.Bool{}
	var all Config
	inSecureBubble(t, cfg, func(ctx context.Context, w *secureCalls) {
		f(ctx, w, func() *Restored {
			w.t.Helper()
			synctest.Wait()
			dead.Store(true)
			return w.restart(all, j, func() { dead.Store(false) })
		})
	}, func(c *Config) {
		listen := c.Net.ListenPacket
		c.Net.ListenPacket = func(network string, a netip.AddrPort) (net.PacketConn, error) {
			conn, err := listen(network, a)
			if err != nil {
				return nil, err
			}
			return muted{conn, dead}, nil
		}
		c.Journal, c.JournalSealed = j, true
		all = *c
	})
}

func ssrcOf(p siptest.Packet) string { return string(p.Wire[8:12]) }

// wantMedia says whether all that each side sends from now on comes to the other and to
// the recorder. Where we protect it, it goes on as another source than before.
func (w *secureCalls) wantMedia(when string, a, p *siptest.Call, passed bool, before [2][]siptest.Packet) {
	w.t.Helper()
	var heard, refused [2]int
	calls := [2]*siptest.Call{a, p}
	for side, c := range calls {
		heard[side], refused[side] = len(c.Media().Received()), c.Media().Undecrypted()
	}
	w.tap.mu.Lock()
	recorded := [2]int{len(w.tap.packets[0]), len(w.tap.packets[1])}
	w.tap.mu.Unlock()
	time.Sleep(time.Second)
	for side, c := range calls {
		got := c.Media().Received()[heard[side]:]
		if len(got) < 45 || c.Media().Undecrypted() != refused[side] {
			w.t.Errorf("%s: the %s side heard %d packets, and %d that it cannot decrypt", when, media.Side(side), len(got), c.Media().Undecrypted()-refused[side])
			continue
		}
		other := calls[1-side].Media().Sent()
		last := string(got[len(got)-1].Wire[12:])
		if !slices.ContainsFunc(other[len(other)-5:], func(p siptest.Packet) bool { return string(p.Wire[12:]) == last }) {
			w.t.Errorf("%s: the %s side heard something else than was sent", when, media.Side(side))
		}
		if _, keyed := c.Media().Secured(); keyed && !passed && slices.ContainsFunc(before[side], func(p siptest.Packet) bool { return ssrcOf(p) == ssrcOf(got[0]) }) {
			w.t.Errorf("%s: the %s side's key was used on for a source of before", when, media.Side(side))
		}
		w.tap.mu.Lock()
		if n := len(w.tap.packets[side]) - recorded[side]; n < 45 {
			w.t.Errorf("%s: the recorder got %d packets of the %s side", when, n, media.Side(side))
		}
		w.tap.mu.Unlock()
	}
}

func distinctKeys(c *siptest.Call) (out []string) {
	for _, k := range c.Media().Keys() {
		out = append(out, string(k))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestSecureRestored: calls whose SRTP is ended here go on in another process, also when
// rollover counters are not at zero, and again; keys stay, may be renewed, and no key
// stream is used twice.
func TestSecureRestored(t *testing.T) {
	for name, tc := range secureCases {
		if tc.cfg == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			inSecureRestart(t, tc.cfg, func(ctx context.Context, w *secureCalls, restart func() *Restored) {
				a, p := w.call(ctx, tc.from, tc.to)
				for range 2 { // both roll over
					w.wrap(a)
					w.wrap(p)
					time.Sleep(time.Second)
				}
				keys := [2][]string{distinctKeys(a), distinctKeys(p)}
				for i := range 2 {
					before := [2][]siptest.Packet{slices.Clone(a.Media().Received()), slices.Clone(p.Media().Received())}
					if r := restart(); len(r.Sessions) != 1 || r.Lost != 0 {
						t.Fatalf("%+v", r)
					}
					w.wantMedia("restored", a, p, tc.passed, before)
					if i == 0 {
						continue
					}
					for _, s := range []struct {
						what string
						do   func() error
					}{
						{"refreshed", func() error { return p.Reinvite(ctx, siptest.Offer{}) }},
						{"held and resumed", func() error {
							if err := a.Hold(ctx, siptest.HoldSendOnly); err != nil {
								return err
							}
							return a.Resume(ctx)
						}},
					} {
						if err := s.do(); err != nil {
							t.Fatalf("%s: %v", s.what, err)
						}
						time.Sleep(100 * time.Millisecond)
						w.wantMedia(s.what, a, p, tc.passed, before)
					}
					if now := [2][]string{distinctKeys(a), distinctKeys(p)}; !slices.Equal(now[0], keys[0]) || !slices.Equal(now[1], keys[1]) {
						t.Errorf("%d and %d keys, were %d and %d, or others", len(now[0]), len(now[1]), len(keys[0]), len(keys[1]))
					}
					if err := a.Reinvite(ctx, w.renew(a)); err != nil {
						t.Fatal(err)
					}
					time.Sleep(100 * time.Millisecond)
					w.wantMedia("new keys", a, p, tc.passed, before)
				}
				if err := a.Bye(ctx); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
			})
		})
	}
}

// TestSecureRestoredBeforeAnswer: the process dies while a re-INVITE waits for its answer.
// Where its keys are not to be had again it is refused, and the next one is taken.
func TestSecureRestoredBeforeAnswer(t *testing.T) {
	for name, tc := range secureCases {
		if tc.cfg == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			inSecureRestart(t, tc.cfg, func(ctx context.Context, w *secureCalls, restart func() *Restored) {
				a, p := w.call(ctx, tc.from, tc.to)
				time.Sleep(time.Second)
				ready, done := make(chan struct{}), make(chan error, 1)
				p.AnswerWhen(ready)
				go func() { done <- a.Hold(ctx, siptest.HoldSendOnly) }()
				time.Sleep(200 * time.Millisecond)
				before := [2][]siptest.Packet{slices.Clone(a.Media().Received()), slices.Clone(p.Media().Received())}
				if r := restart(); len(r.Sessions) != 1 {
					t.Fatalf("%+v", r)
				}
				close(ready)
				var refused *siptest.RejectedError
				if err := <-done; errors.As(err, &refused) && refused.Response.Code == 500 {
					t.Log("it is refused")
				} else if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				if err := a.Resume(ctx); err != nil {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
				w.wantMedia("resumed", a, p, tc.passed, before)
				if err := a.Bye(ctx); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
			})
		})
	}
}

// TestSecureUnjournalled: keys do not go into a journal that others can read.
func TestSecureUnjournalled(t *testing.T) {
	j := &journaltest.Mem{}
	inSecureBubble(t, policies(srtp.Required, srtp.Off, false), func(ctx context.Context, w *secureCalls) {
		a, _ := w.call(ctx, sdesOf(cm80), siptest.Offer{})
		for session, state := range j.States() {
			t.Errorf("%s is in the journal: %d bytes", session, len(state))
		}
		if n := w.b.counters.Unjournalled.Load(); n != 1 {
			t.Errorf("%d calls counted", n)
		}
		if err := a.Bye(ctx); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
	}, func(c *Config) { c.Journal = j })
}
