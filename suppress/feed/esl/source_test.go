package esl

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/trunktap/trunktap/suppress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func eventsOf(signals []suppress.Signal) (list []string) {
	for _, s := range signals {
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s", s.Event, s.SIPCall)))
	}
	return list
}

func TestConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &freeswitch{auth: "auth " + secret, left: -1, answers: map[string]string{
			cmdChannels: `{"row_count":0}`, cmdBridged: `{"row_count":0}`, cmdQueues: "name|strategy\n+OK\n",
		}, events: []string{
			legBody("CHANNEL_ANSWER", "T", "one", "external", ""), legBody("CHANNEL_ANSWER", "A", "leg", "internal", "1000"),
			legBody("CHANNEL_BRIDGE", "T", "one", "external", "", "Bridge-A-Unique-ID", "T", "Bridge-B-Unique-ID", "A"),
			body("Event-Name", "CHANNEL_HOLD", "Unique-ID", "A"), "garbage\n\n", body("Event-Name", "CHANNEL_UNHOLD", "Unique-ID", "A"),
		}, then: heartbeats}
		n := &network{next: []*freeswitch{f}}
		signals, s := listen(t, n, 5*time.Minute, nil)
		want := []string{
			"call.linked one", "call.linked leg", "agent.join one", "agent.join leg", "hold.start leg", "hold.start one", "hold.end leg", "hold.end one",
		}
		if got := eventsOf(signals); !slices.Equal(got, want) {
			t.Errorf("signals %q, want %q", got, want)
		}
		if st := s.Status(); !st.Connected || st.Signals != 8 || st.Ignored != 1 || st.Reconnects != 0 || st.LastError != "" || len(n.dials) != 1 {
			t.Errorf("status %+v after %d connections", st, len(n.dials))
		}
	})
}

// TestStateAfterConnecting: what began before the connection is told, with its own time.
func TestStateAfterConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		f := &freeswitch{auth: "userauth tap@pbx1:" + secret, left: -1, answers: bridged(), then: heartbeats}
		f.answers[cmdMembers+"q@x"] = "queue|session_uuid|state|joined_epoch|bridge_epoch\nq@x|T|Waiting|946684803|0\nq@x|gone|Waiting|1|0\n+OK\n"
		time.Sleep(10 * time.Second)
		n := &network{next: []*freeswitch{nil, f}}
		signals, _ := listen(t, n, time.Minute, func(c *Config) { c.User = "tap@pbx1" })
		want := []string{
			"source.lost", "call.linked leg", "call.linked one", "agent.join leg", "agent.join one", "hold.start leg", "hold.start one",
			"queue.start one", "source.restored",
		}
		if got := eventsOf(signals); !slices.Equal(got, want) {
			t.Fatalf("signals %q, want %q", got, want)
		}
		if at := signals[4].At.Sub(begun); at != 2*time.Second {
			t.Errorf("the agent joined %v after the begin, want 2 s", at)
		}
		if at := signals[5].At.Sub(begun); at != 5*time.Second {
			t.Errorf("the hold began %v after the begin, want 5 s", at)
		}
		if at := signals[7].At.Sub(begun); at != 3*time.Second {
			t.Errorf("the waiting began %v after the begin, want 3 s", at)
		}
	})
}

// TestMissedEnds: what ended while there was no connection is ended.
func TestMissedEnds(t *testing.T) {
	tr := NewTranslator("esl:pbx1", Trunks{})
	a, trunk, other := leg("A", "leg", "internal", "1000"), leg("T", "one", "external", ""), leg("B", "b", "internal", "1001")
	queued := Event{
		"Event-Name": "CUSTOM", "Event-Subclass": "callcenter::info", "CC-Action": "member-queue-start", "CC-Queue": "q@x",
		"CC-Member-Session-UUID": "B", "Unique-ID": "B", "variable_uuid": "B",
	}
	run(tr, a, trunk, other, with(trunk, "CHANNEL_BRIDGE", "Bridge-A-Unique-ID", "T", "Bridge-B-Unique-ID", "A"),
		Event{"Event-Name": "CHANNEL_HOLD", "Unique-ID": "A"}, queued)
	now := noon.Add(time.Minute)
	lost := tr.Lost(now)
	if len(lost) != 1 || lost[0].Event != suppress.SourceLost || len(tr.Lost(now)) != 0 {
		t.Errorf("lost: %v", lost)
	}
	var got string
	for _, reply := range [][2]string{
		{cmdChannels, `{"row_count":2,"rows":[{"uuid":"A","callstate":"ACTIVE"},{"uuid":"B","callstate":"ACTIVE"}]}`},
		{cmdBridged, `{"row_count":0}`},
		{cmdMembers + "q@x", "queue|session_uuid|state|joined_epoch|bridge_epoch\n+OK\n"},
	} {
		s, _ := tr.Reply(reply[0], []byte(reply[1]), now)
		got += describeAll(s)
	}
	want := ` 60000 hold.end call=leg party=1000
 60000 hold.end call=one party=1000
 60000 agent.leave call=leg user=1000 role=agent
 60000 agent.leave call=one user=1000 role=agent
 60000 queue.end call=b queue=q@x
`
	// The order of the leaves follows the order of the channels.
	if sortLines(got) != sortLines(want) {
		t.Errorf("told\n%swant\n%s", got, want)
	}
	for _, broken := range []string{"", "x", `{"row_count":3}`, "-ERR no", "-USAGE: x"} {
		for _, c := range []string{cmdChannels, cmdBridged, cmdQueues, cmdMembers + "q@x", cmdDump + "A json", "api unknown"} {
			if s, ask := tr.Reply(c, []byte(broken), now); len(s)+len(ask) > 0 {
				t.Errorf("the answer %q to %q tells %sand asks %q", broken, c, describeAll(s), ask)
			}
		}
	}
	if len(tr.channels) != 2 {
		t.Errorf("%d channels", len(tr.channels))
	}
	if s := tr.Restored(now); len(s) != 1 || s[0].Event != suppress.SourceRestored || len(tr.Restored(now)) != 0 {
		t.Errorf("restored: %v", s)
	}
}

func sortLines(s string) string {
	lines := strings.Split(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestBreaks: wherever the connection breaks, the next one makes up for it:
// nothing is begun that does not end, and the loss is told once.
func TestBreaks(t *testing.T) {
	script := func(left int) *freeswitch {
		return &freeswitch{auth: "auth " + secret, left: left, answers: bridged(), events: []string{
			body("Event-Name", "CHANNEL_UNHOLD", "Unique-ID", "A"),
			body("Event-Name", "CHANNEL_HOLD", "Unique-ID", "A"),
		}, then: heartbeats}
	}
	// The second FreeSWITCH tells that all is over.
	after := func() *freeswitch {
		f := &freeswitch{auth: "auth " + secret, left: -1, answers: bridged(), then: heartbeats}
		f.answers[cmdChannels], f.answers[cmdBridged] = `{"row_count":0}`, `{"row_count":0}`
		return f
	}
	cut := 0
	for ; ; cut++ {
		whole := false
		synctest.Test(t, func(t *testing.T) {
			n := &network{next: []*freeswitch{script(cut), after()}}
			signals, s := listen(t, n, 3*time.Minute, nil)
			open, lost := map[string]int{}, 0
			for _, sig := range signals {
				name, what, _ := strings.Cut(string(sig.Event), ".")
				key := name + " " + sig.SIPCall + sig.User + sig.Party
				switch what {
				case "start", "join", "lost":
					open[key] = 1
				case "end", "leave", "restored":
					delete(open, key)
				}
				if sig.Event == suppress.SourceLost {
					lost++
				}
			}
			if len(n.dials) == 1 {
				whole = true
				return
			}
			if len(open) > 0 || lost != 1 || len(n.dials) != 2 || s.Status().Reconnects != 1 || !s.Status().Connected {
				t.Errorf("cut at %d: open %v, lost %d times, %d connections, status %+v", cut, open, lost, len(n.dials), s.Status())
			}
		})
		if whole || t.Failed() {
			break
		}
	}
	if cut < 2000 {
		t.Errorf("only %d places of a break", cut)
	}
	t.Logf("%d places of a break", cut)
}

// TestUnhelpfulPeers: what is no FreeSWITCH, or does not answer, is tried again
// with growing pauses, and never logged with the password.
func TestUnhelpfulPeers(t *testing.T) {
	say := func(text string) *freeswitch {
		return &freeswitch{auth: "auth " + secret, left: -1, answers: bridged(), then: func(conn net.Conn) { _, _ = conn.Write([]byte(text)) }}
	}
	slow := func(text string) *freeswitch {
		return &freeswitch{auth: "auth " + secret, left: -1, answers: bridged(), then: func(conn net.Conn) {
			for _, b := range []byte(text) {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}}
	}
	silentLogin := &freeswitch{auth: "auth " + secret, left: 10, answers: bridged()}
	for _, c := range []struct {
		name, want string
		peer       *freeswitch
	}{
		{"refused", "connection refused", nil},
		{"wrong password", "refuses the password", &freeswitch{auth: "auth other", left: -1}},
		{"no permission for events", "esl-allowed-events", &freeswitch{auth: "auth " + secret, refuse: "event", left: -1}},
		{"no permission for filters", "esl-allowed-events", &freeswitch{auth: "auth " + secret, refuse: "filter", left: -1}},
		{"closes in the middle", "read from the FreeSWITCH", silentLogin},
		{"garbage", "not the event socket protocol", say("SSH-2.0\r\n\r\n")},
		{"huge length", "not the event socket protocol", say("Content-Type: x\nContent-Length: 99999999999\n\n")},
		{"endless header", "not the event socket protocol", say(strings.Repeat("x", headBytesMax+readBytes))},
		{"an answer to nothing", "without a question", say("Content-Type: command/reply\nReply-Text: +OK\n\nContent-Type: command/reply\nReply-Text: +OK\n\n")},
		{"says goodbye", "closes the connection", say("Content-Type: text/disconnect-notice\nContent-Length: 2\n\nx\n")},
		{"refuses the address", "apply-inbound-acl", say("Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n")},
		{"a byte a second", "not complete after", slow("Content-Type: text/event-plain\nContent-Length: 500\n\n" + strings.Repeat("x", 400))},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				n := &network{next: []*freeswitch{c.peer}}
				signals, s := listen(t, n, 10*time.Minute, func(cfg *Config) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
				if st := s.Status(); !strings.Contains(st.LastError, c.want) {
					t.Errorf("status %+v, want an error with %q", st, c.want)
				}
				if strings.Contains(log.String()+s.Status().LastError, secret) {
					t.Error("the password is told")
				}
				if !slices.ContainsFunc(signals, func(s suppress.Signal) bool { return s.Event == suppress.SourceLost }) {
					t.Errorf("the loss was not told: %q", eventsOf(signals))
				}
				if len(n.dials) < 5 || len(n.dials) > 60 {
					t.Errorf("%d connections in ten minutes", len(n.dials))
				}
			})
		})
	}
}

// TestSilence: without heartbeats it asks; without an answer it connects again.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{next: []*freeswitch{{auth: "auth " + secret, left: -1, answers: bridged()}}}
		_, s := listen(t, n, 10*time.Minute, nil)
		if len(n.dials) != 1 || !s.Status().Connected {
			t.Errorf("one that has no heartbeats but answers: %d connections, %+v", len(n.dials), s.Status())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		dead := &freeswitch{auth: "auth " + secret, left: -1, answers: bridged(), mute: true}
		n := &network{next: []*freeswitch{dead, {auth: "auth " + secret, left: -1, answers: bridged()}}}
		signals, s := listen(t, n, 10*time.Minute, nil)
		if len(n.dials) != 2 || s.Status().Reconnects != 1 {
			t.Errorf("one that is dead: %d connections, %+v", len(n.dials), s.Status())
		}
		if gap := n.dials[1].Sub(n.dials[0]); gap < silenceMax || gap > silenceMax+2*time.Second {
			t.Errorf("connected again after %v", gap)
		}
		if got := eventsOf(signals); got[len(got)-1] != "source.restored" {
			t.Errorf("signals %q", got)
		}
	})
}

// TestLimitedUser: a user who may not ask for the state is told what happens from now on.
func TestLimitedUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &freeswitch{auth: "auth " + secret, refuse: "api", left: -1, events: nil}
		n := &network{next: []*freeswitch{f}}
		_, s := listen(t, n, 5*time.Minute, nil)
		if st := s.Status(); !st.Connected || len(n.dials) != 1 {
			t.Errorf("%d connections, status %+v", len(n.dials), st)
		}
	})
}

func TestBacklog(t *testing.T) {
	d := newDialogue(NewTranslator("esl:pbx1", Trunks{}), "auth x")
	d.state = live
	d.queue = make([]string, backlogMax+1)
	if _, _, err := d.message(Message{Type: "log/data"}, noon); !errors.Is(err, errBacklog) {
		t.Errorf("error %v", err)
	}
	d.queue = slices.Repeat([]string{"api x"}, 100)
	_, send, err := d.message(Message{Type: "log/data"}, noon)
	if err != nil || len(send) != inFlightMax || len(d.queue) != 100-inFlightMax {
		t.Errorf("%d sent, %d wait, %v", len(send), len(d.queue), err)
	}
}

func TestLoginCommands(t *testing.T) {
	list := loginCommands()
	want := "event plain CHANNEL_CREATE CHANNEL_ANSWER CHANNEL_BRIDGE CHANNEL_UNBRIDGE CHANNEL_HOLD CHANNEL_UNHOLD CHANNEL_HANGUP_COMPLETE " +
		"HEARTBEAT CHANNEL_EXECUTE CHANNEL_EXECUTE_COMPLETE CUSTOM callcenter::info conference::maintenance trunktap::signal"
	if got := list[len(list)-1]; got != want {
		t.Errorf("subscribed by %q", got)
	}
	if len(list) != 12 || list[0] != "filter Event-Name CHANNEL_CREATE" || list[10] != "filter Application three_way" {
		t.Errorf("%q", list)
	}
}

func TestConfig(t *testing.T) {
	good := Config{Name: "pbx1", Address: "10.0.0.5:8021", Password: secret}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want   string
		change func(*Config)
	}{
		{"name: ", func(c *Config) { c.Name = "" }},
		{"address: ", func(c *Config) { c.Address = "10.0.0.5" }},
		{"password: ", func(c *Config) { c.Password = "" }},
		{"line break", func(c *Config) { c.Password = secret + "\n\napi shutdown" }},
		{"user: ", func(c *Config) { c.User = "tap" }},
		{"user: ", func(c *Config) { c.User = "tap:x@y" }},
	} {
		cfg := good
		c.change(&cfg)
		_, err := New(cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
	s, err := New(good)
	if err != nil || s.Name() != "esl:pbx1" {
		t.Errorf("%v, name %q", err, s.Name())
	}
}
