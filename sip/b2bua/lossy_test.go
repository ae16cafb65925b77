package b2bua

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/sip/siptest"
)

// TestLossyNetwork lets many calls of all kinds go through a network that loses
// and repeats messages: every call must end, and leave nothing behind.
func TestLossyNetwork(t *testing.T) {
	for seed := range uint64(3) {
		inBubble(t, nil, func(w *bench) {
			w.a.close() // their addresses are for the agents
			w.p.close()
			any := netip.Addr{}
			caller := agentAt(t, w.net, carrier)
			callee := agentAt(t, w.net, pbx)
			w.net.Impair(any, any, mediatest.Impairment{Delay: 5 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.1, Duplicate: 0.05})
			var incoming atomic.Uint64
			callee.Script(func(in *siptest.Incoming) {
				rng := rand.New(rand.NewPCG(seed, incoming.Add(1)))
				a := siptest.Answer{Ring: time.Duration(rng.IntN(3000)) * time.Millisecond, Early: rng.IntN(2) == 0}
				if rng.IntN(5) == 0 {
					a.Reject = 486
				}
				in.Run(a)
			})
			var calls sync.WaitGroup
			rng := rand.New(rand.NewPCG(seed, 1))
			for i := range 40 {
				action := rng.IntN(4)
				pause := time.Duration(rng.IntN(5000)) * time.Millisecond
				calls.Go(func() { lossyCall(caller, i, action, pause) })
				time.Sleep(200 * time.Millisecond)
			}
			calls.Wait()
			w.net.Impair(any, any, mediatest.Impairment{})
			if err := caller.Close(); err != nil {
				t.Error(err)
			}
			if err := callee.Close(); err != nil {
				t.Error(err)
			}
			time.Sleep(15 * time.Minute) // whoever lost the BYE falls silent
			synctest.Wait()
			if n := w.b.Calls(); n != 0 {
				t.Errorf("seed %d: %d calls left", seed, n)
			}
			w.b.mu.Lock()
			if len(w.b.byID) != 0 || len(w.b.calls) != 0 || len(w.b.perTrunk) != 0 || w.b.usages != 0 {
				t.Errorf("seed %d: something is left: %d %d", seed, len(w.b.byID), len(w.b.calls))
			}
			w.b.mu.Unlock()
			for i, tap := range w.obs.taps {
				last := tap.lines[len(tap.lines)-1]
				if !strings.HasPrefix(last, "ended ") || strings.Count("\n"+w.obs.log(i), "\nended ") != 1 {
					t.Errorf("seed %d: recorder %d was not told the end, once and last:\n%s", seed, i, w.obs.log(i))
				}
			}
			t.Logf("seed %d: %d started, %d answered, recorder heard of %d", seed,
				w.b.counters.CallsStarted.Load(), w.b.counters.CallsAnswered.Load(), len(w.obs.taps))
		})
	}
}

func agentAt(t *testing.T, n *mediatest.Net, addr netip.AddrPort) *siptest.Agent {
	t.Helper()
	a, err := siptest.New(siptest.Config{Name: "x", Addr: addr, Listen: func(a netip.AddrPort) (siptest.Conn, error) { return n.Listen(a) }})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// lossyCall is one call of the caller; on such a network it may fail at any step.
func lossyCall(caller *siptest.Agent, i, action int, pause time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if action == 0 {
		ctx, cancel = context.WithTimeout(ctx, pause) // cancelled while it rings
		defer cancel()
	}
	c, err := caller.Call(ctx, fmt.Sprintf("sip:%d@192.0.2.1", i), outside, siptest.CallOptions{Offer: siptest.Offer{NoSDP: action == 1}})
	if err != nil {
		return
	}
	ctx, cancel = context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if action == 2 {
		_ = c.Hold(ctx, siptest.HoldSendOnly)
		_ = c.Info(ctx, "text/plain", []byte("x"))
	}
	time.Sleep(pause)
	_ = c.Bye(ctx)
}
