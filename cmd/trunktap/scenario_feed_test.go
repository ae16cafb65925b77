package main

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

const (
	feedDialogues = "../../suppress/feed/"
	feedWait      = 20 * time.Second      // for the daemon to log in
	feedTakes     = 50 * time.Millisecond // from an event until its signal has arrived
)

// exchange is a PBX that repeats a recorded dialogue of its event interface, a
// part at each step of the scenario and with the time of that step.
type exchange struct {
	s        *scene
	listener net.Listener
	wg       sync.WaitGroup
	ready    chan struct{} // closed when the daemon has asked what is going on
	asked    sync.Once
	greeting string
	answer   func(*textproto.Reader) (string, error) // to the next request
	frame    func(event string, at time.Time) string
	events   []exchangeEvent // that are to come

	mu    sync.Mutex
	conn  net.Conn
	calls map[string]string // Call-IDs, by what the dialogue calls them
}

type exchangeEvent struct {
	seconds float64 // since the begin of the dialogue
	text    string
}

// listen begins to serve and returns the address and a file with the secret.
func (x *exchange) listen() (netip.AddrPort, string) {
	x.s.t.Helper()
	x.listener = must(net.Listen("tcp", netip.AddrPortFrom(liveHost, 0).String()))(x.s.t)
	x.wg.Go(x.accept)
	x.s.t.Cleanup(x.close)
	secret := filepath.Join(x.s.t.TempDir(), "secret")
	x.s.ok(os.WriteFile(secret, []byte("s3cret\n"), 0o600))
	return netip.MustParseAddrPort(x.listener.Addr().String()), secret
}

// load reads the events of a dialogue; stamp finds their times, in units of a second.
func (x *exchange) load(name, begin string, stamp *regexp.Regexp, unit float64) {
	x.s.t.Helper()
	text := string(must(os.ReadFile(feedDialogues + name))(x.s.t))
	text = text[strings.Index(text, begin)+len(begin):]
	base := 0.0
	for _, e := range strings.Split(strings.TrimSpace(text), "\n\n") {
		m := stamp.FindStringSubmatch(e)
		if m == nil {
			x.s.t.Fatalf("%s: an event has no time:\n%s", name, e)
		}
		seconds := must(strconv.ParseFloat(m[1], 64))(x.s.t) * unit
		if len(x.events) == 0 {
			base = seconds
		}
		x.events = append(x.events, exchangeEvent{seconds - base, e})
	}
}

func (x *exchange) accept() {
	for {
		conn, err := x.listener.Accept()
		if err != nil {
			return
		}
		x.mu.Lock()
		x.conn = conn
		x.mu.Unlock()
		x.send(x.greeting)
		x.wg.Go(func() { x.serve(conn) })
	}
}

func (x *exchange) serve(conn net.Conn) {
	r := textproto.NewReader(bufio.NewReader(conn))
	for {
		text, err := x.answer(r)
		if err != nil {
			return
		}
		x.send(text)
	}
}

func (x *exchange) send(text string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.conn != nil {
		_, _ = x.conn.Write([]byte(text)) // the daemon comes again when it has lost the connection
	}
}

// knows says which leg it is that the dialogue calls by a name.
func (x *exchange) knows(name string, l *leg) {
	if l != nil {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.calls[name] = l.far.ID()
	}
}

func (x *exchange) callID(name string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.calls[name]
}

// await waits until the daemon has asked what is going on.
func (x *exchange) await() {
	x.s.t.Helper()
	select {
	case <-x.ready:
	case <-time.After(feedWait):
		x.s.t.Fatal("the daemon does not log in to the PBX")
	}
}

// until tells what happened up to a time of the dialogue, as of the present step.
func (x *exchange) until(seconds float64) {
	x.s.t.Helper()
	for len(x.events) > 0 && x.events[0].seconds <= seconds {
		x.send(x.frame(x.events[0].text, x.s.now))
		x.events = x.events[1:]
	}
	time.Sleep(feedTakes)
}

// vanish ends the connection and takes no other.
func (x *exchange) vanish() {
	_ = x.listener.Close() // nothing waits in it
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.conn != nil {
		_ = x.conn.Close() // as a crash does
		x.conn = nil
	}
}

func (x *exchange) close() {
	x.vanish()
	x.wg.Wait()
}

func newExchange(s *scene) *exchange {
	return &exchange{s: s, calls: map[string]string{}, ready: make(chan struct{})}
}

var amiTime = regexp.MustCompile(`(?m)^Timestamp: (\d+\.\d+)$`)

// asterisk is one with a dialogue of its manager interface; the dialogue knows
// calls by channels.
func asterisk(dialogue string) func(s *scene) string {
	return func(s *scene) string {
		x := newExchange(s)
		s.exchange = x
		x.greeting = "Asterisk Call Manager/9.0.0\r\n"
		x.answer = x.answerAction
		x.frame = func(event string, at time.Time) string {
			stamp := fmt.Sprintf("Timestamp: %.6f", float64(at.UnixMicro())/1e6)
			return strings.ReplaceAll(amiTime.ReplaceAllString(event, stamp), "\n", "\r\n") + "\r\n\r\n"
		}
		x.load("ami/testdata/"+dialogue, "-- events --\n", amiTime, 1)
		at, secret := x.listen()
		return fmt.Sprintf(`
signals:
  ami:
    - name: pbx
      address: "%s"
      username: trunktap
      secret_file: "%s"
      challenge: false
      trunks: ["PJSIP/carrier-*"]
      stations: [PJSIP/alice, PJSIP/bob]
`, at, secret)
	}
}

// answerAction answers an action. Nothing goes on when the daemon asks at its start.
func (x *exchange) answerAction(r *textproto.Reader) (string, error) {
	m, err := r.ReadMIMEHeader()
	id := "ActionID: " + m.Get("ActionID") + "\r\n"
	text := "Response: Success\r\n" + id
	switch action := m.Get("Action"); action {
	case "CoreShowChannels", "QueueStatus":
		text += "EventList: start\r\n\r\nEvent: " + action + "Complete\r\n" + id + "EventList: Complete\r\nListItems: 0\r\n"
		if action == "QueueStatus" {
			x.asked.Do(func() { close(x.ready) })
		}
	case "Getvar":
		text += "Variable: " + m.Get("Variable") + "\r\nValue: " + x.callID(m.Get("Channel")) + "\r\n"
	}
	return text + "\r\n", err
}

var eslTime = regexp.MustCompile(`(?m)^Event-Date-Timestamp: (\d+)$`)

// freeswitch is one with a dialogue of its event socket; the dialogue knows calls
// by Call-IDs.
func freeswitch(dialogue string) func(s *scene) string {
	return func(s *scene) string {
		x := newExchange(s)
		s.exchange = x
		x.greeting = "Content-Type: auth/request\n\n"
		x.answer = x.answerCommand
		x.frame = func(event string, at time.Time) string {
			event = eslTime.ReplaceAllString(event, fmt.Sprintf("Event-Date-Timestamp: %d", at.UnixMicro())) + "\n\n"
			x.mu.Lock()
			defer x.mu.Unlock()
			for name, id := range x.calls {
				event = strings.ReplaceAll(event, url.PathEscape(name), url.PathEscape(id))
				event = strings.ReplaceAll(event, url.QueryEscape(name), url.QueryEscape(id))
			}
			return fmt.Sprintf("Content-Length: %d\nContent-Type: text/event-plain\n\n%s", len(event), event)
		}
		x.load("esl/testdata/"+dialogue, "", eslTime, 1e-6)
		at, secret := x.listen()
		return fmt.Sprintf("\nsignals: {esl: [{name: pbx, address: \"%s\", password_file: \"%s\"}]}\n", at, secret)
	}
}

// answerCommand answers a command of the event socket.
func (x *exchange) answerCommand(r *textproto.Reader) (string, error) {
	line, err := r.ReadLine()
	var body string
	switch {
	case line == "":
		return "", err
	case strings.HasPrefix(line, "api show "):
		body = `{"row_count": 0}`
	case strings.HasPrefix(line, "api callcenter_config"):
		body = "+OK\n"
		x.asked.Do(func() { close(x.ready) })
	case strings.HasPrefix(line, "api "):
		body = "-ERR No such channel!\n"
	default:
		return "Content-Type: command/reply\nReply-Text: +OK accepted\n\n", err
	}
	return fmt.Sprintf("Content-Type: api/response\nContent-Length: %d\n\n%s", len(body), body), err
}

// pressed is an event of the dialplan about the only channel of a dialogue.
func (x *exchange) pressed(e suppress.Event) {
	x.events = append(x.events, exchangeEvent{text: "Event: UserEvent\nPrivilege: user,all\nTimestamp: 0.0\nChannel: PJSIP/carrier-a-00000001\n" +
		"Uniqueid: 1763800000.1\nLinkedid: 1763800000.1\nUserEvent: TrunktapSignal\nEvent: " + string(e)})
	x.until(0)
}

// told are scenarios whose signals come from a PBX.
func told() []scenario {
	hold := window("hold", 2500, 3300)
	return []scenario{
		{
			number: "20", name: "IVR, queue, hold and blind transfer told by Asterisk", feeds: asterisk("whole.txt"), script: wholeDialogue,
			want: []wantRecording{
				trunkOf(5500, []span{{1500, 2500, []hz{customer}}, {3300, 5500, []hz{customer}}},
					[]span{{1500, 2500, []hz{agent1}}, {3300, 4000, []hz{agent1}}, {4500, 5500, []hz{agent2}}},
					window("ivr", 0, 700), window("queue", 700, 1500), hold).by(
					cast{1500, 2500, []string{"alice"}}, cast{3300, 4000, []string{"alice"}}, cast{4500, 5500, []string{"bob"}}),
			},
		},
		{
			number: "20b", name: "consultation and transfer told by Asterisk", feeds: asterisk("attended.txt"), script: attendedDialogue,
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
			number: "20c", name: "IVR, queue, hold, secure pause and a snippet told by FreeSWITCH", feeds: freeswitch("queue.esl"), script: queueDialogue,
			want: []wantRecording{
				trunkOf(6200, []span{{1500, 2500, []hz{customer}}, {3300, 4000, []hz{customer}}, {4600, 6200, []hz{customer}}},
					[]span{{1500, 2500, []hz{agent1}}, {3300, 4000, []hz{agent1}}, {4600, 6200, []hz{agent1}}},
					window("ivr", 0, 700), window("queue", 700, 1500), hold, window("pause", 4000, 4600)),
				{kind: recorder.KindSnippet, user: "1000", from: 5000, to: 5600, channels: [2][]span{talk(5000, 5600, customer), talk(5000, 5600, agent1)}},
			},
		},
		{
			number: "15h", name: "secure pause whose source is lost", feeds: asterisk("whole.txt"), script: sourceLost, check: alarmed,
			want: []wantRecording{trunkOf(3500, talk(0, 1200, customer), talk(0, 1200, agent1), window("pause", 1200, 3500))},
		},
	}
}

// wholeDialogue goes with whole.txt.
func wholeDialogue(s *scene) {
	a := s.exchange
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

// queueDialogue goes with queue.esl.
func queueDialogue(s *scene) {
	x := s.exchange
	c := s.inbound(0)
	x.knows("trunk-1@198.51.100.7", c)
	x.until(2)
	c.hears(menu)
	s.almost(700)
	c.hears(music)
	s.at(700)
	x.until(6)
	s.almost(1500)
	c.hears(agent1)
	s.at(1500)
	x.until(13)
	s.at(2500)
	c.hears(music)
	x.until(21)
	s.almost(3300)
	c.hears(agent1)
	s.at(3300)
	x.until(27)
	s.at(4000)
	c.speaks(third) // a card number
	x.until(31)
	s.almost(4600)
	c.speaks(customer)
	s.at(4600)
	x.until(35)
	s.at(5000)
	x.until(37)
	s.at(5600)
	x.until(39)
	s.at(6200)
	c.bye()
	x.until(70)
}

// attendedDialogue goes with attended.txt.
func attendedDialogue(s *scene) {
	a := s.exchange
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
	s.at(2060) // Asterisk tells of it when it has answered
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
	a := s.exchange
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
