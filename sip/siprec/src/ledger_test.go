package src

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/sip"
)

const firstURI = "sip:record@192.0.2.50"

// rows are the spans of an account as text.
func rows(a Account) (out []string) {
	for _, s := range a.Spans {
		what := strings.TrimPrefix(s.Server, "sip:record@192.0.2.")
		if s.Unsent != "" {
			what = s.Unsent
		}
		out = append(out, fmt.Sprintf("%s %d-%d %s", s.Side, s.FromMS, s.ToMS, what))
	}
	return out
}

func (w *world) account(want ...string) Account {
	w.t.Helper()
	a := w.f.Account()
	if got := rows(a); !slices.Equal(got, want) {
		w.t.Errorf("the account has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	return a
}

// settled waits until the account is final, which says of so much that it was sent or not.
func (w *world) settled(ms int64, want ...string) Account {
	w.t.Helper()
	for range 500 {
		if w.f.Settled() {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	a := w.account(want...)
	for side := range 2 {
		if got := a.Sent[side] + a.Unsent[side]; got != ms {
			w.t.Errorf("side %d: %d ms sent and %d not, of %d", side, a.Sent[side], a.Unsent[side], ms)
		}
	}
	if !a.Settled || a.WaitsMS >= 0 || a.More != 0 {
		w.t.Errorf("account %+v", a)
	}
	return a
}

// A copy of which everything was sent says so, whatever its rate, and over windows.
func TestAccountOfAWholeCopy(t *testing.T) {
	for _, c := range []struct {
		codec uint8
		rate  int
		wide  bool
	}{{0, 8000, false}, {9, 16000, true}, {0, 48000, true}, {9, 8000, false}} {
		t.Run(fmt.Sprintf("%d at %d", c.codec, c.rate), func(t *testing.T) {
			inBubble(t, c.wide, func(w *world) {
				w.a.codec = c.codec
				w.a.accept()
				stop := w.a.follow()
				w.speak(0, 1000, c.rate)
				for range 20 {
					time.Sleep(100 * time.Millisecond)
					w.f.Suppressed()
				}
				w.speak(3000, 4000, c.rate)
				a := w.f.Account()
				if a.WaitsMS < 3000 || a.WaitsMS > 4000 || a.Settled {
					t.Errorf("while it goes on: %+v", a)
				}
				w.f.End()
				w.settled(2000, "external 0-4000 50", "internal 0-4000 50")
				stop()
			})
		})
	}
}

// What a server does not take is listed for the side that it does not take.
func TestAccountOfAServerThatTakesOneSide(t *testing.T) {
	inBubble(t, false, func(w *world) {
		head, media := w.a.lines()
		media[1] = strings.Replace(media[1], "recvonly", "inactive", 1)
		w.a.reply(w.a.want(sip.Invite), 200, []byte(head+strings.Join(media, "")))
		w.a.want(sip.Ack)
		w.speak(0, 1000, 8000)
		w.bye(w.a)
		a := w.settled(1000, "external 0-1000 50", "internal 0-1000 untaken")
		if a.Sent != [2]int64{1000, 0} {
			t.Errorf("sent %v", a.Sent)
		}
	})
}

// While no server is there the audio beyond the buffer is lost to the copy, and the
// account says when, and who had it before and after.
func TestAccountOfAServerThatWasAway(t *testing.T) {
	inBubble(t, false, func(w *world) {
		invite := w.a.accept()
		w.speak(0, 1000, 8000)
		time.Sleep(200 * time.Millisecond)
		w.account("external 0-1000 50", "internal 0-1000 50")
		w.a.leave(invite)
		w.b.want(sip.Invite) // and says nothing: it is given up after 4 s, and the first is tried again after 2 s
		w.speak(1000, 8000, 8000)
		w.a.accept()
		w.speak(8000, 10_000, 8000)
		time.Sleep(200 * time.Millisecond)
		w.bye(w.a)
		a := w.f.Account()
		if a.Sent[0]+a.Unsent[0] != 10_000 || a.Unsent[0] < 4000 || a.Unsent[0] > 6000 || a.Unsent != [2]int64{a.Unsent[0], a.Unsent[0]} {
			t.Errorf("%v ms sent, %v not", a.Sent, a.Unsent)
		}
		got := rows(a)
		if len(got) != 6 || !strings.HasSuffix(got[2], "no_server") || !strings.HasSuffix(got[5], "-10000 50") {
			t.Errorf("the account has\n%s", strings.Join(got, "\n"))
		}
	})
}

// A call that nobody took has an account as well.
func TestAccountOfACopyThatNobodyTook(t *testing.T) {
	inBubble(t, false, func(w *world) {
		for _, s := range []*server{w.a, w.b} {
			s.reply(s.want(sip.Invite), 486, nil)
			s.want(sip.Ack)
		}
		w.speak(0, 1000, 8000)
		w.f.End()
		w.settled(1000, "external 0-1000 no_server", "internal 0-1000 no_server")
	})
}

// failing is a socket that does not send while it is told so.
type failing struct {
	*mediatest.Conn
	not *atomic.Bool
}

func (c failing) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if c.not.Load() {
		return 0, errors.New("no route")
	}
	return c.Conn.WriteToUDPAddrPort(b, to)
}

// What the system does not send was not sent.
func TestAccountOfPacketsThatAreNotSent(t *testing.T) {
	inBubble(t, false, func(w *world) {
		w.a.accept()
		w.speak(0, 1000, 8000)
		time.Sleep(200 * time.Millisecond)
		w.fails.Store(true)
		w.speak(1000, 2000, 8000)
		time.Sleep(200 * time.Millisecond)
		w.fails.Store(false)
		w.speak(2000, 3000, 8000)
		w.bye(w.a)
		w.settled(3000, "external 0-1000 50", "internal 0-1000 50", "external 1000-2000 error", "internal 1000-2000 error", "external 2000-3000 50", "internal 2000-3000 50")
	})
}

// The list has an end, the sums have none.
func TestLedgerIsBounded(t *testing.T) {
	var l ledger
	for i := range int64(1000) {
		l.note(0, 10*i, 10*i+10, firstURI, []string{"", UnsentUntaken}[i%2])
	}
	a := l.account()
	if len(a.Spans) != spansMax || a.More != 1000-spansMax || a.Sent[0] != 5000 || a.Unsent[0] != 5000 || a.Sent[1]+a.Unsent[1] != 0 {
		t.Errorf("%d spans, %d more, %v sent, %v not", len(a.Spans), a.More, a.Sent, a.Unsent)
	}
	// a packet that was on its way when what follows it was given up
	l = ledger{}
	l.note(1, 0, 100, firstURI, "")
	l.note(1, 120, 500, "", UnsentBehind)
	l.note(1, 100, 120, firstURI, "")
	l.note(1, 500, 520, firstURI, "")
	if got, want := rows(l.account()), []string{"internal 0-120 50", "internal 120-500 behind", "internal 500-520 50"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A copy that began late runs behind the call. What waits when the call ends is sent
// all the same.
func TestCopyThatBeganLateIsSentToItsEnd(t *testing.T) {
	inBubble(t, false, func(w *world) {
		invite := w.a.want(sip.Invite)
		w.speak(0, 1900, 8000)
		w.a.reply(invite, 200, w.a.answer())
		w.a.want(sip.Ack)
		w.speak(1900, 3000, 8000)
		w.bye(w.a)
		w.settled(3000, "external 0-3000 50", "internal 0-3000 50")
	})
}
