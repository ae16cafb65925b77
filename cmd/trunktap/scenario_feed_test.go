package main

import (
	"bufio"
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

const (
	amiDialogues = "../../suppress/feed/ami/testdata/"
	feedWait     = time.Second           // for the daemon to log in
	feedTakes    = 50 * time.Millisecond // from an event until its signal has arrived
)

// asterisk is the manager interface of an Asterisk that repeats a recorded
// dialogue, a part at each step of the scenario and with the time of that step.
type asterisk struct {
	s        *scene
	events   []asteriskEvent // that are to come
	listener net.Listener
	wg       sync.WaitGroup
	ready    chan struct{} // closed when the daemon has asked what is going on

	mu      sync.Mutex
	conn    net.Conn
	callIDs map[string]string // of channels
	started bool
}

type asteriskEvent struct {
	seconds float64 // since the begin of the dialogue
	text    string
}

// newAsterisk listens and returns the configuration of the daemon for it.
func newAsterisk(s *scene, dialogue string) (*asterisk, string) {
	s.t.Helper()
	a := &asterisk{s: s, callIDs: map[string]string{}, ready: make(chan struct{})}
	a.load(dialogue)
	a.listener = must(net.Listen("tcp", netip.AddrPortFrom(liveHost, 0).String()))(s.t)
	a.wg.Go(a.accept)
	s.t.Cleanup(a.close)
	secret := filepath.Join(s.t.TempDir(), "secret")
	s.ok(os.WriteFile(secret, []byte("s3cret\n"), 0o600))
	return a, fmt.Sprintf(`
signals:
  ami:
    - name: pbx
      address: "%s"
      username: trunktap
      secret_file: "%s"
      challenge: false
      trunks: ["PJSIP/carrier-*"]
      stations: [PJSIP/alice, PJSIP/bob]
`, a.listener.Addr(), secret)
}

// load reads the events of a recorded dialogue.
func (a *asterisk) load(name string) {
	text := must(os.ReadFile(amiDialogues + name))(a.s.t)
	_, events, ok := strings.Cut(string(text), "-- events --\n")
	if !ok {
		a.s.t.Fatalf("%s has no events", name)
	}
	base := 0.0
	for _, e := range strings.Split(strings.TrimSpace(events), "\n\n") {
		_, after, _ := strings.Cut(e, "\nTimestamp: ")
		number, _, _ := strings.Cut(after, "\n")
		seconds := must(strconv.ParseFloat(number, 64))(a.s.t)
		base = cmp.Or(base, seconds-0.001) // the first is 1 ms after the begin
		a.events = append(a.events, asteriskEvent{seconds - base, strings.Replace(e, "\nTimestamp: "+number, "\nTimestamp: %TIME%", 1)})
	}
}

func (a *asterisk) accept() {
	for {
		conn, err := a.listener.Accept()
		if err != nil {
			return
		}
		a.mu.Lock()
		a.conn = conn
		a.mu.Unlock()
		if _, err := fmt.Fprintf(conn, "Asterisk Call Manager/9.0.0\r\n"); err != nil {
			continue
		}
		a.wg.Go(func() { a.serve(conn) })
	}
}

// serve answers actions. Nothing goes on when the daemon asks at its start.
func (a *asterisk) serve(conn net.Conn) {
	r := textproto.NewReader(bufio.NewReader(conn))
	for {
		m, err := r.ReadMIMEHeader()
		if err != nil {
			return
		}
		id := "ActionID: " + m.Get("ActionID") + "\r\n"
		text := "Response: Success\r\n" + id
		switch action := m.Get("Action"); action {
		case "CoreShowChannels", "QueueStatus":
			text += "EventList: start\r\n\r\nEvent: " + action + "Complete\r\n" + id + "EventList: Complete\r\nListItems: 0\r\n"
			if action == "QueueStatus" {
				a.mu.Lock()
				if !a.started {
					a.started = true
					close(a.ready)
				}
				a.mu.Unlock()
			}
		case "Getvar":
			a.mu.Lock()
			text += "Variable: " + m.Get("Variable") + "\r\nValue: " + a.callIDs[m.Get("Channel")] + "\r\n"
			a.mu.Unlock()
		}
		a.send(text)
	}
}

func (a *asterisk) send(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		_, _ = a.conn.Write([]byte(text + "\r\n")) // the daemon comes again when it has lost the connection
	}
}

// knows says which leg a channel is.
func (a *asterisk) knows(channel string, l *leg) {
	if l != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.callIDs[channel] = l.far.ID()
	}
}

// until tells what happened up to a time of the dialogue, as of the present step.
func (a *asterisk) until(seconds float64) {
	a.s.t.Helper()
	select {
	case <-a.ready:
	case <-a.s.ctx.Done():
	case <-time.After(feedWait):
		a.s.faultf("the daemon does not log in to Asterisk")
		return
	}
	now := strconv.FormatFloat(float64(a.s.now.UnixMicro())/1e6, 'f', 6, 64)
	for len(a.events) > 0 && a.events[0].seconds <= seconds {
		a.send(strings.ReplaceAll(strings.Replace(a.events[0].text, "%TIME%", now, 1), "\n", "\r\n") + "\r\n")
		a.events = a.events[1:]
	}
	time.Sleep(feedTakes)
}

// vanish ends the connection and takes no other.
func (a *asterisk) vanish() {
	_ = a.listener.Close() // nothing waits in it
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		_ = a.conn.Close() // as a crash does
		a.conn = nil
	}
}

func (a *asterisk) close() {
	a.vanish()
	a.wg.Wait()
}

// pressed is an event of the dialplan about the only channel of a dialogue.
func (a *asterisk) pressed(e suppress.Event) {
	a.events = append(a.events, asteriskEvent{text: "Event: UserEvent\nPrivilege: user,all\nTimestamp: %TIME%\nChannel: PJSIP/carrier-a-00000001\n" +
		"Uniqueid: 1763800000.1\nLinkedid: 1763800000.1\nUserEvent: TrunktapSignal\nEvent: " + string(e)})
	a.until(0)
}

// asteriskWith makes the Asterisk of a scenario.
func asteriskWith(dialogue string) func(s *scene) string {
	return func(s *scene) (keys string) {
		s.asterisk, keys = newAsterisk(s, dialogue)
		return keys
	}
}

// told are scenarios whose signals come from a PBX.
func told() []scenario {
	hold := window("hold", 2500, 3300)
	return []scenario{
		{
			number: "20", name: "IVR, queue, hold and blind transfer told by Asterisk", feeds: asteriskWith("whole.txt"), script: wholeDialogue,
			want: []wantRecording{
				trunkOf(5500, []span{{1500, 2500, []hz{customer}}, {3300, 5500, []hz{customer}}},
					[]span{{1500, 2500, []hz{agent1}}, {3300, 4000, []hz{agent1}}, {4500, 5500, []hz{agent2}}},
					window("ivr", 0, 700), window("queue", 700, 1500), hold).by(
					cast{1500, 2500, []string{"alice"}}, cast{3300, 4000, []string{"alice"}}, cast{4500, 5500, []string{"bob"}}),
			},
		},
		{
			number: "20b", pending: pendingOnce, name: "consultation and transfer told by Asterisk", feeds: asteriskWith("attended.txt"), script: attendedDialogue,
			keys: []string{"consult: true"}, phones: []string{"consult: true"}, config: "\nstations: [alice, bob]\nstation_base: {format: wav-pcm16}\n",
			want: []wantRecording{
				trunkOf(4500, []span{{0, 1200, []hz{customer}}, {3000, 4500, []hz{customer}}},
					[]span{{300, 1200, []hz{agent1}}, {3000, 4500, []hz{agent2}}}, window("hold", 1200, 3000)).by(
					cast{300, 1200, []string{"alice"}}, cast{3000, 4500, []string{"bob"}}),
				stationOf("alice", 300, 3000, talk(300, 1200, customer), talk(300, 1200, agent1), wantWindow{"hold", 1200, 3000, 1, 0}),
				stationOf("bob", 1800, 4500, []span{{1800, 3000, []hz{agent1}}, {3000, 4500, []hz{customer}}}, talk(1800, 4500, agent2)),
				{
					kind: recorder.KindConsult, user: "alice", other: "bob", from: 2000, to: 3000,
					channels: [2][]span{talk(2000, 3000, agent2), talk(2000, 3000, agent1)},
				},
			},
		},
		{
			number: "15h", name: "secure pause whose source is lost", feeds: asteriskWith("whole.txt"), script: sourceLost, check: alarmed,
			want: []wantRecording{trunkOf(3500, talk(0, 1200, customer), talk(0, 1200, agent1), window("pause", 1200, 3500))},
		},
	}
}

// wholeDialogue goes with whole.txt.
func wholeDialogue(s *scene) {
	a := s.asterisk
	c := s.inbound(0)
	a.knows("PJSIP/carrier-a-00000001", c)
	a.until(1)
	c.hears(menu)
	s.almost(700)
	c.hears(music)
	s.at(700)
	a.until(6)
	s.almost(1500)
	c.hears(agent1)
	s.at(1500)
	a.until(10)
	s.at(2500)
	c.hears(music)
	a.until(16)
	s.almost(3300)
	c.hears(agent1)
	s.at(3300)
	a.until(21)
	s.at(4000)
	c.hears()
	a.until(30)
	s.at(4500)
	c.hears(agent2)
	a.until(35)
	s.at(5500)
	c.bye()
	a.until(61)
}

// attendedDialogue goes with attended.txt.
func attendedDialogue(s *scene) {
	a := s.asterisk
	c := s.inbound(0)
	a.knows("PJSIP/carrier-a-00000001", c)
	p := s.pickup(300, "alice", agent1, customer)
	a.knows("PJSIP/alice-00000002", p)
	c.hears(agent1)
	a.until(4)
	s.at(1200)
	c.hears(music)
	p.hears()
	p.hold()
	a.until(10.5)
	q := s.pickup(1800, "bob", agent2, agent1)
	a.knows("PJSIP/bob-00000004", q)
	k := s.dial("alice", agent1, agent2) // the PBX answers when it has bob
	s.answered(2000)
	a.knows("PJSIP/alice-00000003", k)
	a.until(14)
	s.almost(3000)
	c.hears(agent2)
	s.at(3000)
	q.hears(customer)
	k.bye()
	p.bye()
	a.until(31)
	s.at(4500)
	c.bye()
	q.bye()
	a.until(61)
}

// sourceLost needs no recorded dialogue.
func sourceLost(s *scene) {
	a := s.asterisk
	c := s.inbound(agent1)
	a.knows("PJSIP/carrier-a-00000001", c)
	a.until(0.15)
	a.events = nil
	s.at(1200)
	a.pressed(suppress.PauseStart)
	c.speaks(third)
	s.at(2000)
	a.vanish()
	s.at(3500)
	c.bye()
}

// alarmed holds that the loss of a source stands in the manifest.
func alarmed(s *scene, ms []*recorder.Manifest) {
	for _, m := range ms {
		if !slices.ContainsFunc(m.Signals, func(g recorder.ManifestSignal) bool { return g.Event == suppress.SourceLost }) {
			s.faultf("%s: the loss of the source is not listed", m.Kind)
		}
	}
}
