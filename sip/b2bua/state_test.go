package b2bua

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/sip/callstate"
	"github.com/trunktap/trunktap/sip/guard"
	"github.com/trunktap/trunktap/sip/replay"
	"github.com/trunktap/trunktap/suppress"
)

// stateLog is an observer that writes down all about the state of calls, with
// the times since their INVITE.
type stateLog struct {
	mu    sync.Mutex
	t     *testing.T
	slow  time.Duration // to answer
	calls []*stateCall
}

type stateCall struct {
	log   *stateLog
	start time.Time
	last  time.Time
	lines []string
}

func (l *stateLog) SessionStarted(_ context.Context, s media.Session) (media.SessionTap, error) {
	time.Sleep(l.slow)
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &stateCall{log: l, start: s.Start, last: s.Start}
	l.calls = append(l.calls, c)
	c.lines = append(c.lines, "links "+strings.Join(s.Links, " "))
	return c, nil
}

func (c *stateCall) note(at time.Time, format string, args ...any) {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	if at.Before(c.last) {
		c.log.t.Errorf("%s at %v, after %v", fmt.Sprintf(format, args...), at.Sub(c.start), c.last.Sub(c.start))
	}
	c.last = at
	c.lines = append(c.lines, fmt.Sprintf("%v ", at.Sub(c.start))+fmt.Sprintf(format, args...))
}

func (c *stateCall) StreamStarted(s media.Stream) media.Tap {
	c.note(s.At, "stream %s", s.Side)
	return nil
}

func (c *stateCall) StreamEnded(id media.StreamID, at time.Time) { c.note(at, "stream %d ended", id) }
func (c *stateCall) Answered(at time.Time)                       { c.note(at, "answered") }
func (c *stateCall) Ended(at time.Time, cause media.Cause)       { c.note(at, "ended %s", cause) }

func (c *stateCall) Digit(side media.Side, at time.Time, digit byte, down time.Duration) {
	c.note(at, "digit %s %c %v", side, digit, down)
}

func (c *stateCall) Signal(s suppress.Signal) {
	at, ago := s.At, time.Duration(0)
	if !s.Received.IsZero() {
		at, ago = s.Received, s.Received.Sub(s.At)
	}
	line := fmt.Sprintf("%s %s", s.Source, s.Event)
	for _, v := range []string{s.Flow, s.Queue, s.User, string(s.Role), s.Party, s.Other, strings.Join(s.Links, " ")} {
		if v != "" {
			line += " " + v
		}
	}
	if ago != 0 {
		line += fmt.Sprintf(" (%v ago)", ago)
	}
	c.note(at, "%s", line)
}

func (l *stateLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, c := range l.calls {
		all = append(all, c.lines...)
	}
	return strings.Join(all, "\n")
}

func stateRules(t *testing.T) *callstate.Rules {
	t.Helper()
	rules, err := callstate.New(callstate.Config{
		Headers: []callstate.HeaderRule{
			{Header: "X-State", Value: "ivr", Event: suppress.IVRStart, Flow: "$param:flow"},
			{Header: "X-State", Value: "agent", Event: suppress.IVREnd},
			{Header: "X-Agent", Event: suppress.AgentJoin, User: "$value", From: callstate.FromInternal},
		},
		UserToUser:   []callstate.UserToUserRule{{Key: "queue", Event: suppress.QueueStart, Queue: "$value"}},
		Conversation: []string{"X-Conversation-ID"}, ConversationFrom: callstate.FromAny,
		InfoSignals: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

const (
	uuidA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	uuidB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// passes sends a request inside of a dialog and answers it. No header: 200.
func passes(from, to *dialogue, method string, extra []string, body string) {
	from.send(method, extra, body)
	to.p.reply(to.p.want(method), 200, "", nil, "")
	from.p.want("200 " + method)
}

// stateCallOf makes the call of the tests, each step 100 ms after the one before.
func stateCallOf(w *bench) {
	w.t.Helper()
	step := func() { time.Sleep(100 * time.Millisecond) }
	a := begin(w.a, outside, "state", sdpOf(carrier.Addr(), 7000), "X-State: ivr;flow=main", "X-Agent: forged",
		"User-to-User: 71756575653d676f6c64;encoding=hex", "X-Conversation-ID: A-17", "Replaces: other@x;to-tag=1;from-tag=2",
		"Session-ID: "+uuidA+";remote=00000000000000000000000000000000")
	w.a.want("100")
	p := w.p.take(inside)
	p.target = contactURIOf(w.t, p.invite)
	step()
	w.p.reply(p.invite, 180, "pbx", []string{w.p.contact(), "Session-ID: cccccccccccccccccccccccccccccccc;remote=" + uuidA}, "")
	w.a.want("180")
	step()
	w.p.reply(p.invite, 200, "pbx", []string{w.p.contact(), "Session-ID: " + uuidB + ";remote=" + uuidA}, sdpOf(pbx.Addr(), 8000))
	w.acked(a, p, w.a.want("200"))
	step()
	reinvite(w, withHeaders(p, "X-State: agent", "X-Agent: bob"), a, sdpOf(pbx.Addr(), 8000, "a=sendonly"), sdpOf(carrier.Addr(), 7000, "a=recvonly"))
	p.routes = nil
	step()
	passes(p, a, "INFO", []string{"Content-Type: " + callstate.TypeJSON},
		`{"event":"pause.start","at":"`+time.Now().Add(-30*time.Millisecond).UTC().Format(time.RFC3339Nano)+`"}`)
	step()
	passes(a, p, "INFO", []string{"Content-Type: " + callstate.TypeText}, "event=pause.end") // no caller may
	step()
	passes(p, a, "INFO", []string{"Content-Type: " + callstate.TypeText}, "event=pause.end\r\n\r\nevent=queue.end\r\nqueue=gold\r\n")
	step()
	passes(a, p, "INFO", []string{"Content-Type: application/dtmf-relay"}, "Signal=5\r\nDuration=100\r\n")
	passes(a, p, "MESSAGE", []string{"Content-Type: " + callstate.TypeText, "X-State: ivr"}, "event=pause.start")
	step()
	passes(p, a, "UPDATE", []string{p.p.contact(), "X-State: ivr"}, "")
	step()
	passes(p, a, "REFER", []string{"Refer-To: <sip:carol@example.com?Replaces=consult%40pbx%3Bto-tag%3D1%3Bfrom-tag%3D2>", p.p.contact()}, "")
	passes(p, a, "NOTIFY", []string{"Event: refer", "Subscription-State: terminated", p.p.contact(), "Session-ID: dddddddddddddddddddddddddddddddd"}, "")
	step()
	w.hangUp(a)
}

// withHeaders makes the next request of a dialogue carry more header fields.
func withHeaders(d *dialogue, headers ...string) *dialogue {
	d.routes = headers // written into each request; a re-INVITE and its ACK
	return d
}

func wantState() []string {
	return []string{
		"links call-id:state dialog:other@x;2 dialog:other@x;1 session-id:" + uuidA + " header:x-conversation-id:A-17",
		"0s header ivr.start main",
		"0s uui queue.start gold",
		"200ms answered",
		"200ms header call.linked session-id:" + uuidB,
		"200ms stream external", "200ms stream internal",
		"300ms header ivr.end",
		"300ms header agent.join bob",
		"300ms sdp hold.start internal",
		"300ms stream external",
		"400ms info pause.start (30ms ago)",
		"600ms info pause.end", "600ms info queue.end gold",
		"700ms digit external 5 100ms",
		"800ms header ivr.start",
		"900ms header call.linked dialog:consult@pbx;2 dialog:consult@pbx;1",
		"1s ended bye",
	}
}

func TestCallState(t *testing.T) {
	for _, slow := range []time.Duration{0, 50 * time.Millisecond} {
		log := &stateLog{t: t, slow: slow}
		inBubble(t, func(cfg *Config) {
			cfg.Observer, cfg.CallState = log, stateRules(t)
		}, func(w *bench) {
			stateCallOf(w)
			if got := w.b.counters.SignalsRefused.Load(); got != 1 {
				t.Errorf("%d signals refused, want that of the caller's INFO", got)
			}
		})
		want := wantState()
		got := log.String()
		if slow > 0 { // the far end is asked later, the signals are those of the INVITE
			got = strings.Join(strings.Split(got, "\n")[:3], "\n")
			want = want[:3]
		}
		if diff := cmp.Diff(strings.Join(want, "\n"), got); diff != "" {
			t.Errorf("observer slow by %v (-want +got):\n%s", slow, diff)
		}
	}
}

// TestCallStateOfCapture replays what passed on one leg of a live call: the
// recorder is told the same.
func TestCallStateOfCapture(t *testing.T) {
	for _, leg := range []struct {
		name     string
		us, peer netip.AddrPort
		trunk    replay.Trunk
	}{
		{"carrier's leg", outside, carrier, replay.Trunk{Name: "t", External: prefixesOf("192.0.2.64/28")}},
		{"PBX's leg", inside, pbx, replay.Trunk{Name: "t", Internal: prefixesOf("10.0.0.64/28")}},
	} {
		t.Run(leg.name, func(t *testing.T) {
			var capture bytes.Buffer
			writer, err := pcap.NewWriter(&capture)
			if err != nil {
				t.Fatal(err)
			}
			live, again := &stateLog{t: t}, &stateLog{t: t}
			inBubble(t, func(cfg *Config) {
				cfg.Observer, cfg.CallState = live, stateRules(t)
			}, func(w *bench) {
				w.net.OnDeliver(func(at time.Time, src, dst netip.AddrPort, payload []byte) {
					if src == leg.us && dst == leg.peer || src == leg.peer && dst == leg.us {
						if err := writer.WriteUDP(at, src, dst, payload); err != nil {
							t.Error(err)
						}
					}
				})
				stateCallOf(w)
				w.net.OnDeliver(nil)
			})
			source, err := pcap.NewReader(&capture)
			if err != nil {
				t.Fatal(err)
			}
			stats, err := replay.Run(t.Context(), source, replay.Config{Trunks: []replay.Trunk{leg.trunk}, CallState: stateRules(t)}, again, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(live.String(), again.String()); diff != "" || len(live.calls) != 1 {
				t.Errorf("%d live calls, (-live +replayed):\n%s", len(live.calls), diff)
			}
			if stats.SignalsRefused != 1 {
				t.Errorf("%d signals refused in the capture", stats.SignalsRefused)
			}
		})
	}
}

func prefixesOf(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

// A request that does not pass tells nothing, nor does its repetition.
func TestCallStateOfRequestsThatDoNotPass(t *testing.T) {
	log := &stateLog{t: t}
	inBubble(t, func(cfg *Config) { cfg.Observer, cfg.CallState = log, stateRules(t) }, func(w *bench) {
		a, p := w.established("np")
		before := log.String()
		body := "event=pause.start"
		info := a.p // no hop is left
		info.send(a.us, strings.Replace(a.request("INFO", []string{"Content-Type: " + callstate.TypeText, "X-State: ivr"}, body), "Max-Forwards: 70", "Max-Forwards: 0", 1))
		info.want("483 INFO")
		remote := a.remote
		a.remote += "-unknown"
		a.send("INVITE", []string{w.a.contact(), "X-State: ivr"}, sdpOf(carrier.Addr(), 7000))
		w.a.want("481 INVITE")
		a.send("ACK", nil, "")
		a.remote = remote
		synctest.Wait()
		if got := log.String(); got != before {
			t.Errorf("told:\n%s", strings.TrimPrefix(got, before))
		}
		p.target = contactURIOf(t, p.invite)
		again := p.request("INFO", []string{"Content-Type: " + callstate.TypeText}, body)
		w.p.send(inside, again)
		m := w.a.want("INFO")
		w.p.send(inside, again)
		time.Sleep(time.Second)
		w.a.reply(m, 200, "", nil, "")
		w.p.want("200 INFO")
		w.p.send(inside, again)
		synctest.Wait()
		if got := strings.Count(log.String(), "info pause.start"); got != 1 {
			t.Errorf("told %d times", got)
		}
		w.hangUp(a)
	})
}

// Without rules links are found, and without a recorder nothing is read.
func TestLinksWithoutRules(t *testing.T) {
	log := &stateLog{t: t}
	inBubble(t, func(cfg *Config) { cfg.Observer = log }, func(w *bench) {
		a, p := w.established("plain")
		p.target = contactURIOf(t, p.invite)
		passes(p, a, "INFO", []string{"Content-Type: " + callstate.TypeText}, "event=pause.start")
		passes(p, a, "REFER", []string{"Refer-To: <sip:c@d?Replaces=r%3Bto-tag%3D1>", w.p.contact()}, "")
		w.hangUp(a)
	})
	want := "links call-id:plain\n0s answered\n0s stream external\n0s stream internal\n0s header call.linked dialog:r;1\n0s ended bye"
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	inBubble(t, func(cfg *Config) { cfg.CallState = stateRules(t) }, func(w *bench) {
		w.obs.none = true
		a, p := w.established("deaf")
		passes(a, p, "INFO", []string{"Content-Type: " + callstate.TypeText}, "event=pause.start")
		w.hangUp(a)
		if got := w.b.counters.SignalsRefused.Load(); got != 0 {
			t.Errorf("%d signals refused of a call that nobody records", got)
		}
	})
}

// Messages of two sockets may come out of order; what the recorder is told does not.
func TestTimesRunForward(t *testing.T) {
	log := &stateLog{t: t}
	tap, err := log.SessionStarted(t.Context(), media.Session{Start: time.Unix(100, 0)})
	if err != nil {
		t.Fatal(err)
	}
	g := &guard.Guard{Tap: tap}
	at := func(s int64) time.Time { return time.Unix(100+s, 0) }
	g.Signal(suppress.Signal{Event: suppress.PauseStart, At: at(2), Source: "a"})
	g.StreamStarted(media.Stream{At: at(1)})
	g.Answered(at(1))
	g.Signal(suppress.Signal{Event: suppress.PauseEnd, At: at(-1), Received: at(1), Source: "b"})
	g.Signal(suppress.Signal{Event: suppress.PauseEnd, At: at(-1), Source: "c"})
	g.StreamEnded(0, at(3))
	g.Ended(at(0), media.CauseBye)
	want := "links \n2s a pause.start\n2s stream external\n2s answered\n2s b pause.end (3s ago)\n2s c pause.end\n3s stream 0 ended\n3s ended bye"
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
