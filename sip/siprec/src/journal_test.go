package src

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/journal/journaltest"
)

const forkName = "fork/1"

// restartWorld is a world whose client can be killed.
type restartWorld struct {
	*world
	n *mediatest.Net
	j *journaltest.Mem
}

func (w *restartWorld) client() *Client {
	w.t.Helper()
	c, err := New(Config{
		Address: ours, Listen: []sip.Listen{{Network: "udp", Addr: netip.AddrPortFrom(ours, 5070)}}, Journal: w.j,
		Net:  sip.Net{ListenPacket: func(_ string, a netip.AddrPort) (net.PacketConn, error) { return w.n.Listen(a) }},
		Open: func(a netip.Addr) (net.PacketConn, error) { return w.n.Listen(netip.AddrPortFrom(a, 30000)) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// kill ends the client without a word, and starts another one. What the journal had then
// is returned.
func (w *restartWorld) kill() []byte {
	w.t.Helper()
	synctest.Wait()
	state := w.j.States()[forkName]
	if state == nil {
		w.t.Fatal("nothing is in the journal")
	}
	if err := w.c.agent.Close(); err != nil {
		w.t.Error(err)
	}
	w.c.cancel()
	if err := w.c.media.Close(); err != nil {
		w.t.Error(err)
	}
	w.c.wg.Wait()
	w.c = w.client()
	return state
}

func inRestartBubble(t *testing.T, f func(*restartWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := mediatest.NewNet(1)
		w := &restartWorld{world: &world{t: t, a: newServer(t, n, first), b: newServer(t, n, second)}, n: n, j: &journaltest.Mem{}}
		defer w.b.close()
		defer w.a.close()
		w.c = w.client()
		w.f = w.c.Fork(forkName, session(), w.servers(), false)
		f(w)
		if err := w.c.Close(); err != nil {
			t.Error(err)
		}
		if n := len(w.j.States()); n != 0 {
			t.Errorf("%d entries are left", n)
		}
	})
}

func (w *restartWorld) servers() (list []Server) {
	for _, a := range []netip.Addr{first, second} {
		s, err := ParseServer("sip:record@" + a.String())
		if err != nil {
			w.t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

func (w *restartWorld) resume(state []byte) {
	w.t.Helper()
	var err error
	if w.f, err = w.c.Resume(forkName, session(), w.servers(), state); err != nil {
		w.t.Fatal(err)
	}
}

// A session goes on in another process: in the same dialog, from the same sources, on
// the same clock, and without the silence of the time between.
func TestResume(t *testing.T) {
	inRestartBubble(t, func(w *restartWorld) {
		begun := w.a.accept()
		w.f.Parties([]string{"ann"})
		w.a.accept()
		w.speak(0, 2000, 8000)
		time.Sleep(300 * time.Millisecond)
		before := w.a.heard(0)
		for range 2 {
			state := w.kill()
			time.Sleep(700 * time.Millisecond)
			w.resume(state)
			again := w.a.accept()
			old, _ := begun.CSeq()
			if seq, _ := again.CSeq(); again.CallID() != begun.CallID() || again.FromTag() != begun.FromTag() || again.ToTag() != w.a.tag || seq <= old {
				t.Errorf("not in the dialog:\n%s", again.Append(nil))
			}
			_, x := parts(t, again)
			if !strings.Contains(string(x.Append(nil)), "sip:ann") {
				t.Errorf("of whom was told is not told any more:\n%s", again.Body)
			}
			w.f.Audio(0, 8000, [2][]int16{make([]int16, 8000), make([]int16, 8000)}) // nobody was there
			w.speak(1000, 2000, 8000)
			time.Sleep(300 * time.Millisecond)
			after := w.a.heard(0)[len(before):]
			if n := len(after); n < 45 || n > 50 {
				t.Fatalf("%d packets after the restart", n)
			}
			last, next := before[len(before)-1], after[0]
			ahead := time.Duration(int32(next.Timestamp-last.Timestamp)) * time.Second / 8000
			if next.SSRC != last.SSRC || int16(next.SequenceNumber-last.SequenceNumber) <= 0 || ahead < 700*time.Millisecond || ahead > 1500*time.Millisecond {
				t.Errorf("%d, %d follow %d, %d; %s ahead", next.SequenceNumber, next.Timestamp, last.SequenceNumber, last.Timestamp, ahead)
			}
			before, begun = w.a.heard(0), again
		}
		w.bye(w.a)
	})
}

// A server that has none of the session any more, or is silent, is given up: the call
// begins anew at the first one.
func TestResumeInVain(t *testing.T) {
	for name, answer := range map[string]func(w *restartWorld){
		"481": func(w *restartWorld) {
			w.a.reply(w.a.want(sip.Invite), 481, nil)
			w.a.want(sip.Ack)
		},
		"silence": func(w *restartWorld) {
			for range 4 { // with its repetitions
				w.a.want(sip.Invite)
				w.a.seen = map[string]bool{}
			}
			w.a.reply(w.a.want(sip.Bye), 481, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inRestartBubble(t, func(w *restartWorld) {
				begun := w.a.accept()
				w.speak(0, 1000, 8000)
				w.resume(w.kill())
				answer(w)
				again := w.a.accept()
				if again.CallID() == begun.CallID() || again.ToTag() != "" {
					t.Errorf("the session is the old one:\n%s", again.Append(nil))
				}
				w.bye(w.a)
			})
		})
	}
}

// Of a call that does not go on, the session ends. A paused one goes on paused.
func TestDismissAndPause(t *testing.T) {
	inRestartBubble(t, func(w *restartWorld) {
		begun := w.a.accept()
		w.f.Suppressed()
		w.a.accept()
		w.resume(w.kill())
		if d, _ := parts(t, w.a.accept()); d.Media()[0].Direction != "inactive" {
			t.Errorf("the pause is told as %s", d.Media()[0].Direction)
		}
		state := w.kill()
		w.j.Drop(forkName)
		if err := w.c.Dismiss(forkName, state); err != nil {
			t.Fatal(err)
		}
		bye := w.a.want(sip.Bye)
		if bye.CallID() != begun.CallID() || bye.ToTag() != w.a.tag {
			t.Errorf("BYE of another session:\n%s", bye.Append(nil))
		}
		w.a.reply(bye, 200, nil)
		synctest.Wait()
		if n := w.c.counters.Live.Load(); n != 0 || w.c.counters.Dismissed.Load() != 1 {
			t.Errorf("%d forks live, %d dismissed", n, w.c.counters.Dismissed.Load())
		}
	})
}

// What is of no use is told, and nobody hears of it.
func TestResumeNothing(t *testing.T) {
	inRestartBubble(t, func(w *restartWorld) {
		w.a.accept()
		state := w.kill()
		if p := PortsOf(state); p.UDP != 5070 || p.Media != 30000 {
			t.Errorf("ports %+v", p)
		}
		others := w.servers()[1:]
		if _, err := w.c.Resume(forkName, session(), others, state); !errors.Is(err, errJournal) {
			t.Errorf("to servers that are not its own: %v", err)
		}
		for _, text := range []string{"", "{", `{"V":9}`} {
			_, err := w.c.Resume(forkName, session(), w.servers(), []byte(text))
			if !errors.Is(err, errJournal) || !errors.Is(w.c.Dismiss(forkName, []byte(text)), errJournal) || PortsOf([]byte(text)) != (Ports{}) {
				t.Errorf("%q is taken: %v", text, err)
			}
		}
		w.j.Drop(forkName)
	})
}

// Audio that piles up is dropped, and what follows is sent when it comes, not later and
// later.
func TestPileUp(t *testing.T) {
	inBubble(t, false, func(w *world) {
		w.a.accept()
		w.f.Audio(0, 8000, tone(0, 100, 8000))
		time.Sleep(200 * time.Millisecond)
		for ms := int64(100); ms < 20_000; ms += 100 { // all at once
			w.f.Audio(ms, 8000, tone(ms, 100, 8000))
		}
		w.speak(20_000, 25_000, 8000)
		n := len(w.a.heard(0))
		if n < 200 {
			t.Errorf("%d packets in 5 s", n)
		}
		w.f.End()
		bye := w.a.want(sip.Bye)
		w.a.reply(bye, 200, nil)
		<-w.f.done
	})
}
