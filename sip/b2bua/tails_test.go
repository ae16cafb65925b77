package b2bua

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// kept is how many calls are known.
func (b *B2BUA) kept() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.byID)
}

// TestRefusedCallsLeaveTexts: of calls that the other side refuses nothing is kept but
// the answer for the caller and the ACK for the callee, and those for their time.
func TestRefusedCallsLeaveTexts(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.CallsMax = 2 }, func(w *bench) {
		const calls = 40
		for i := range calls {
			w.refused(fmt.Sprint("call", i), w.p)
			synctest.Wait()
			if n := w.b.kept(); n != 0 {
				t.Fatalf("%d calls are kept after the %d. refusal", n, i+1)
			}
		}
		if got := w.b.Tails(); got.Transactions != 2*calls || got.Bytes > calls*2500 || got.Evicted != 0 {
			t.Errorf("%+v of %d calls", got, calls)
		}
		time.Sleep(33 * time.Second)
		if got := w.b.Tails(); got.Transactions != 0 || got.Bytes != 0 {
			t.Errorf("%+v after timers D and H", got)
		}
		w.a.drain()
	})
}

// TestRefusedCallAnswersAgain: what is kept does what the transactions would.
func TestRefusedCallAnswersAgain(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		w.a.skip, w.p.skip = false, false
		begin(w.a, outside, "again", sdpOf(carrier.Addr(), 7000))
		invite := w.a.sent
		w.a.want("100")
		p := w.p.take(inside)
		w.p.reply(p.invite, 486, "x", nil, "")
		ack := w.p.want("ACK").Text()
		res := w.a.want("486")
		first, to := res.Text(), res.Get("To")
		synctest.Wait()

		time.Sleep(100 * time.Millisecond)
		w.a.send(outside, invite) // the answer was lost
		if again := w.a.want("486").Text(); again != first {
			t.Errorf("the repetition is answered with\n%s\nthe request was with\n%s", again, first)
		}
		w.p.reply(p.invite, 486, "x", nil, "") // our ACK was lost
		if again := w.p.want("ACK").Text(); again != ack {
			t.Errorf("acknowledged with\n%s\nat first with\n%s", again, ack)
		}
		cancel, _, err := sip.Parse([]byte(strings.NewReplacer("INVITE", "CANCEL").Replace(invite)), false)
		if err != nil {
			t.Fatal(err)
		}
		w.a.sendMessage(outside, cancel) // crossed the answer
		w.a.want("200 CANCEL")
		w.a.want("486") // timer G
		w.a.send(outside, strings.NewReplacer("INVITE", "ACK", "To: <sip:+4930123@example.com;user=phone>", "To: "+to).Replace(invite))
		w.a.quiet(40 * time.Second)
		if n := w.b.counters.CallsStarted.Load(); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

// TestTailsMax: what is kept has a limit, however many are refused.
func TestTailsMax(t *testing.T) {
	const limit = 10_000
	inBubble(t, func(cfg *Config) { cfg.TailBytesMax = limit }, func(w *bench) {
		for i := range 60 {
			w.refused(fmt.Sprint("call", i), w.p)
		}
		synctest.Wait()
		if got := w.b.Tails(); got.Bytes > limit || got.Evicted == 0 {
			t.Errorf("%+v", got)
		}
		w.a.drain()
	})
}
