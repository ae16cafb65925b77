package src

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// lines are the m-lines of a server's answer, with what belongs to them.
func (s *server) lines() (head string, media []string) {
	parts := strings.Split(string(s.answer()), "m=")
	for _, p := range parts[1:] {
		media = append(media, "m="+p)
	}
	return parts[0], media
}

// TestAnswersThatAreNone: an answer that does not have the lines of the offer, in
// their order, does not say which of us is heard where: the next server is asked.
func TestAnswersThatAreNone(t *testing.T) {
	for name, of := range map[string]func([]string) []string{
		"one line":      func(m []string) []string { return m[:1] },
		"three lines":   func(m []string) []string { return append(m, strings.Replace(m[1], "label:2", "label:3", 1)) },
		"another order": func(m []string) []string { return []string{m[1], m[0]} },
		"one label twice": func(m []string) []string {
			return []string{m[0], strings.Replace(m[1], "label:2", "label:1", 1)}
		},
		"video": func(m []string) []string { return []string{m[0], strings.Replace(m[1], "m=audio", "m=video", 1)} },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, false, func(w *world) {
				head, media := w.a.lines()
				w.a.reply(w.a.want(sip.Invite), 200, []byte(head+strings.Join(of(media), "")))
				w.a.want(sip.Ack)
				w.a.reply(w.a.want(sip.Bye), 200, nil)
				w.b.accept()
				w.speak(0, 1000, 8000)
				time.Sleep(time.Second)
				checkTones(t, w.b, 0, 45)
				if n := w.c.counters.Failovers.Load(); n != 1 {
					t.Errorf("%d failovers", n)
				}
				if n := len(w.a.heard(0)) + len(w.a.heard(1)); n > 0 {
					t.Errorf("%d packets went where nobody knows who hears them", n)
				}
				w.bye(w.b)
			})
		})
	}
}

// TestHalfAnswers: a server may refuse a stream. It gets the other one, and what
// it does not get is counted.
func TestHalfAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		line     int
		old, new string
	}{
		"external refused":     {0, "m=audio 7000", "m=audio 0"},
		"internal refused":     {1, "m=audio 7002", "m=audio 0"},
		"internal inactive":    {1, "recvonly", "inactive"},
		"internal is not sent": {1, "recvonly", "sendonly"},
		"another codec":        {1, "RTP/AVP 0", "RTP/AVP 8"},
		"encrypted":            {1, "RTP/AVP", "RTP/SAVP"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, false, func(w *world) {
				head, media := w.a.lines()
				media[c.line] = strings.Replace(media[c.line], c.old, c.new, 1)
				w.a.reply(w.a.want(sip.Invite), 200, []byte(head+strings.Join(media, "")))
				w.a.want(sip.Ack)
				w.speak(0, 1000, 8000)
				time.Sleep(300 * time.Millisecond)
				if got, other := len(w.a.heard(1-c.line)), len(w.a.heard(c.line)); got != 50 || other != 0 {
					t.Errorf("%d packets of the stream that it takes, %d of the other", got, other)
				}
				n := w.c.Counters()
				if ms, live, all := n.UntakenMS.Load(), n.UntakenStreams.Load(), n.Partial.Load(); ms != 1000 || live != 1 || all != 1 {
					t.Errorf("%d ms, %d streams, %d times", ms, live, all)
				}
				w.f.Parties([]string{"ann"}) // it takes both now
				w.a.accept()
				synctest.Wait()
				if live := n.UntakenStreams.Load(); live != 0 {
					t.Errorf("%d streams are not taken", live)
				}
				w.bye(w.a)
			})
		})
	}
}

// TestUntakenStreamsEnd: what a server did not take is no state of a copy that is over.
func TestUntakenStreamsEnd(t *testing.T) {
	inBubble(t, false, func(w *world) {
		head, media := w.a.lines()
		media[0] = strings.Replace(media[0], "7000", "0", 1)
		w.a.reply(w.a.want(sip.Invite), 200, []byte(head+strings.Join(media, "")))
		w.a.want(sip.Ack)
		w.speak(0, 300, 8000)
		w.bye(w.a)
		if n := w.c.Counters().UntakenStreams.Load(); n != 0 {
			t.Errorf("%d streams are not taken after the end", n)
		}
	})
}

// TestAnswersThatAreTakenAsMeant: the far end is lenient.
func TestAnswersThatAreTakenAsMeant(t *testing.T) {
	for name, edit := range map[string]func(string) string{
		"sendrecv":     func(s string) string { return strings.ReplaceAll(s, "a=recvonly", "a=sendrecv") },
		"no direction": func(s string) string { return strings.ReplaceAll(s, "a=recvonly\r\n", "") },
		"no labels":    func(s string) string { return strings.NewReplacer("a=label:1\r\n", "", "a=label:2\r\n", "").Replace(s) },
		"labels of its own": func(s string) string {
			return strings.NewReplacer("label:1", "label:7", "label:2", "label:8").Replace(s)
		},
		"codecs, not ordered": func(s string) string { return strings.Replace(s, "AVP 0", "AVP 8 0", 1) },
		"one codec of two":    func(s string) string { return strings.Replace(s, "7002 RTP/AVP 0", "7002 RTP/AVP 8", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, false, func(w *world) {
				pt := uint8(0)
				text := edit(string(w.a.answer()))
				if name == "one codec of two" { // the other line takes both
					text, pt = strings.Replace(text, "7000 RTP/AVP 0", "7000 RTP/AVP 0 8", 1), 8
				}
				w.a.reply(w.a.want(sip.Invite), 200, []byte(text))
				w.a.want(sip.Ack)
				w.speak(0, 1000, 8000)
				time.Sleep(300 * time.Millisecond)
				checkTones(t, w.a, pt, 45)
				if n := w.c.Counters().Partial.Load(); n != 0 {
					t.Errorf("%d halves", n)
				}
				w.bye(w.a)
			})
		})
	}
}

// follow answers INVITEs as RFC 3264 has it, inactive to what is inactive, until the
// returned function is called.
func (s *server) follow() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			case m := <-s.in:
				switch {
				case m.Method == sip.Invite && strings.Contains(string(m.Body), "a=inactive"):
					s.reply(m, 200, []byte(strings.ReplaceAll(string(s.answer()), "recvonly", "inactive")))
				case m.Method == sip.Invite:
					s.reply(m, 200, s.answer())
				case m.Method == sip.Options:
					s.reply(m, 200, nil)
				}
			}
		}
	}()
	return func() { close(quit); <-done }
}

// TestNothingIsLostBehindAWindow: what comes while the server is told that the
// window is over waits for its answer.
func TestNothingIsLostBehindAWindow(t *testing.T) {
	for _, last := range []int64{4000, 3100} { // the latter is over before the server is told
		t.Run(fmt.Sprint(last), func(t *testing.T) {
			inBubble(t, false, func(w *world) {
				w.a.accept()
				stop := w.a.follow()
				w.speak(0, 1000, 8000)
				for range 20 { // as a recorder does: once for each chunk
					time.Sleep(100 * time.Millisecond)
					w.f.Suppressed()
				}
				before := len(w.a.heard(0))
				w.speak(3000, last, 8000)
				w.f.End()
				time.Sleep(time.Second)
				for ch := range 2 {
					p := w.a.heard(ch)
					if want := 50 + int(last-3000)/20; before != 50 || len(p) != want || p[50].Timestamp-p[0].Timestamp != 3000*8 || !p[50].Marker {
						t.Errorf("channel %d: %d packets before the window, %d in all, want %d; the first of them behind it is %d ms after the first of all",
							ch, before, len(p), want, (p[min(before, len(p)-1)].Timestamp-p[0].Timestamp)/8)
					}
				}
				stop()
				if ms := w.c.Counters().UntakenMS.Load(); ms != 0 {
					t.Errorf("%d ms are not taken", ms)
				}
			})
		})
	}
}

// TestAPauseThatAServerDoesNotEnd: a session that stays inactive gets nothing any more.
func TestAPauseThatAServerDoesNotEnd(t *testing.T) {
	inBubble(t, false, func(w *world) {
		w.a.accept()
		w.speak(0, 1000, 8000)
		w.f.Suppressed()
		w.a.accept()
		time.Sleep(900 * time.Millisecond)
		w.f.Audio(2000, 8000, tone(2000, 100, 8000))
		m := w.a.want(sip.Invite)
		before := len(w.a.heard(0))
		w.a.reply(m, 488, nil)
		w.a.want(sip.Ack)
		w.a.reply(w.a.want(sip.Bye), 200, nil)
		w.b.accept()
		w.speak(2100, 3000, 8000)
		time.Sleep(300 * time.Millisecond)
		if a, b := len(w.a.heard(0))-before, len(w.b.heard(0)); a != 0 || b != 50 {
			t.Errorf("%d packets for the first server, %d for the second", a, b)
		}
		w.bye(w.b)
	})
}

// TestTheLastBeforeAWindow: what is less than a packet is sent when the window begins, not
// behind it, and holds up no end.
func TestTheLastBeforeAWindow(t *testing.T) {
	inBubble(t, false, func(w *world) {
		w.a.accept()
		w.speak(0, 1000, 8000)
		w.f.Audio(1000, 8000, tone(1000, 50, 8000))
		time.Sleep(100 * time.Millisecond)
		w.f.Suppressed()
		w.a.accept()
		time.Sleep(100 * time.Millisecond)
		if n := len(w.a.heard(0)); n != 53 {
			t.Errorf("%d packets before the window, want 53", n)
		}
		time.Sleep(700 * time.Millisecond)
		w.f.Audio(2000, 8000, tone(2000, 30, 8000))
		w.a.accept()
		time.Sleep(500 * time.Millisecond)
		p := w.a.heard(0)
		if len(p) < 54 || p[53].Timestamp-p[0].Timestamp != 2000*8 || !p[53].Marker {
			t.Errorf("%d packets behind the window", len(p)-53)
		}
		w.f.Suppressed()
		w.a.accept()
		ended := time.Now()
		w.f.End()
		w.a.reply(w.a.want(sip.Bye), 200, nil)
		if d := time.Since(ended); d > 100*time.Millisecond {
			t.Errorf("the BYE came %s after the end, in a window", d)
		}
		<-w.f.done
	})
}
