package ami

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/suppress"
)

// A dialogue is a file of testdata: events in the form in which Asterisk 18
// and later write them, and the signals that they come to. Times are seconds
// from baseTime.
type dialogue struct {
	trunks, stations []string
	ids              map[string]string // channel → Call-ID
	want             []string
	events           []string // wire form
}

var baseTime = time.Unix(1763800000, 0)

func mustDialogue(t testing.TB, file string) dialogue {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	name := ""
	for line := range strings.Lines(string(text)) {
		if after, ok := strings.CutPrefix(line, "-- "); ok {
			name = strings.TrimSuffix(strings.TrimSpace(after), " --")
			continue
		}
		sections[name] += line
	}
	d := dialogue{
		trunks: strings.Fields(sections["trunks"]), stations: strings.Fields(sections["stations"]), ids: map[string]string{},
		want: strings.Split(strings.TrimSpace(sections["want"]), "\n"),
	}
	for line := range strings.Lines(sections["call-ids"]) {
		channel, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		d.ids[channel] = id
	}
	for _, e := range strings.Split(strings.TrimSpace(sections["events"]), "\n\n") {
		d.events = append(d.events, strings.ReplaceAll(e, "\n", "\r\n")+"\r\n\r\n")
	}
	if len(d.events) < 5 {
		t.Fatalf("%s has %d events", file, len(d.events))
	}
	return d
}

func (d dialogue) config() Config {
	return Config{Name: "ami:test", Addr: "pbx:5038", Username: "trunktap", Secret: "s3cret", Trunks: d.trunks, Stations: d.stations}
}

func mustParse(t testing.TB, wire string) []Message {
	t.Helper()
	var p Parser
	var list []Message
	p.Feed([]byte(wire), func(m Message) { list = append(list, m) })
	if p.Bad() != 0 {
		t.Fatalf("bad message: %q", wire)
	}
	return list
}

// pbx answers what a translator asks, from the events that have happened.
type pbx struct {
	ids      map[string]string // channel → Call-ID
	spyData  string
	channels []*pbxChannel
	silent   bool // answers no Getvar
}

type pbxChannel struct {
	name, id, linked, bridge, queue string
	held                            bool
}

// happen keeps the books of Asterisk itself.
func (p *pbx) happen(m Message) {
	find := func(prefix string) *pbxChannel {
		for _, c := range p.channels {
			if c.id == m.Get(prefix+"Uniqueid") {
				c.linked = m.Get(prefix + "Linkedid")
				return c
			}
		}
		return &pbxChannel{}
	}
	c := find("")
	switch m.Get("Event") {
	case "Newchannel":
		p.channels = append(p.channels, &pbxChannel{name: m.Get("Channel"), id: m.Get("Uniqueid"), linked: m.Get("Linkedid")})
	case "Hangup":
		for i, o := range p.channels {
			if o == c {
				p.channels = append(p.channels[:i:i], p.channels[i+1:]...)
				break
			}
		}
	case "BridgeEnter", "ConfbridgeJoin": // the second comes first: nearly there
		c.bridge = m.Get("BridgeUniqueid")
	case "BridgeLeave":
		c.bridge = ""
	case "QueueCallerJoin":
		c.queue = m.Get("Queue")
	case "QueueCallerLeave", "QueueCallerAbandon":
		c.queue = ""
	case "Hold", "Unhold":
		c.held = m.Get("Event") == "Hold"
	}
}

// answer returns the wire form of what Asterisk says to an action.
func (p *pbx) answer(a Action) string {
	m := Message{Headers: a.Headers}
	id := "ActionID: " + m.Get("ActionID") + "\r\n"
	success := "Response: Success\r\n" + id
	switch a.Name {
	case "CoreShowChannels":
		text := success + "EventList: start\r\nMessage: Channels will follow\r\n\r\n"
		for _, c := range p.channels {
			text += "Event: CoreShowChannel\r\n" + id + "Channel: " + c.name + "\r\nChannelState: 6\r\nChannelStateDesc: Up\r\nUniqueid: " + c.id +
				"\r\nLinkedid: " + c.linked + "\r\nBridgeId: " + c.bridge + "\r\nApplication: \r\nApplicationData: \r\nDuration: 00:00:09\r\n\r\n"
		}
		return text + "Event: CoreShowChannelsComplete\r\n" + id + "EventList: Complete\r\nListItems: " + strconv.Itoa(len(p.channels)) + "\r\n\r\n"
	case "QueueStatus":
		text := success + "EventList: start\r\nMessage: Queue status will follow\r\n\r\nEvent: QueueParams\r\nQueue: support\r\nMax: 0\r\n" + id + "\r\n"
		for _, c := range p.channels {
			if c.queue != "" {
				text += "Event: QueueEntry\r\nQueue: " + c.queue + "\r\nPosition: 1\r\nChannel: " + c.name + "\r\nUniqueid: " + c.id + "\r\nWait: 3\r\nPriority: 0\r\n" + id + "\r\n"
			}
		}
		return text + "Event: QueueStatusComplete\r\n" + id + "EventList: Complete\r\nListItems: 2\r\n\r\n"
	case "Getvar":
		return p.getvar(m, success)
	case "Status":
		return success + "EventList: start\r\nMessage: Channel status will follow\r\n\r\n" +
			"Event: Status\r\nPrivilege: Call\r\nChannel: " + m.Get("Channel") + "\r\nApplication: ChanSpy\r\nData: " + p.spyData + "\r\n" + id + "\r\n" +
			"Event: StatusComplete\r\n" + id + "EventList: Complete\r\nListItems: 1\r\nItems: 1\r\n\r\n"
	case "Ping":
		return success + "Ping: Pong\r\nTimestamp: 1763800000.000001\r\n\r\n"
	}
	return "Response: Error\r\n" + id + "Message: Invalid/unknown command\r\n\r\n"
}

func (p *pbx) getvar(m Message, success string) string {
	if p.silent {
		return ""
	}
	value := p.ids[m.Get("Channel")]
	if m.Get("Variable") == varHold {
		value = "0"
		for _, c := range p.channels {
			if c.name == m.Get("Channel") && c.held {
				value = "1"
			}
		}
	}
	return success + "Variable: " + m.Get("Variable") + "\r\nValue: " + value + "\r\n\r\n"
}

// bench feeds a translator, answers it and folds its signals.
type bench struct {
	t       testing.TB
	tr      *Translator
	pbx     *pbx
	now     time.Time
	signals []suppress.Signal
	folded  map[string]state
}

func newBench(t testing.TB, d dialogue) *bench {
	return &bench{
		t: t, tr: NewTranslator(d.config(), 1000), pbx: &pbx{ids: d.ids, spyData: "PJSIP/alice,qw"}, now: baseTime,
		folded: map[string]state{},
	}
}

func (b *bench) take(out Output) {
	b.signals = append(b.signals, out.Signals...)
	for _, s := range out.Signals {
		fold(b.folded, s)
	}
	for _, a := range out.Actions {
		for _, m := range mustParse(b.t, b.pbx.answer(a)) {
			b.take(b.tr.Handle(m, b.now))
		}
	}
}

// feed hands over an event that arrives 5 ms after it happened.
func (b *bench) feed(wire string) {
	for _, m := range mustParse(b.t, wire) {
		b.pbx.happen(m)
		b.advance(m)
		b.take(b.tr.Handle(m, b.now))
	}
}

func (b *bench) advance(m Message) {
	sec, micro, _ := strings.Cut(m.Get("Timestamp"), ".")
	s, err1 := strconv.ParseInt(sec, 10, 64)
	us, err2 := strconv.ParseInt(micro, 10, 64)
	if at := time.Unix(s, us*1000).Add(5 * time.Millisecond); err1 == nil && err2 == nil && at.After(b.now) {
		b.now = at
	}
}

// fold keeps the state that a recorder has from the signals alone.
func fold(calls map[string]state, s suppress.Signal) {
	if s.SIPCall == "" {
		return
	}
	c, ok := calls[s.SIPCall]
	if !ok {
		c = newState()
		calls[s.SIPCall] = c
	}
	switch s.Event {
	case suppress.QueueStart:
		c.queues[s.Queue] = struct{}{}
	case suppress.QueueEnd:
		delete(c.queues, s.Queue)
	case suppress.HoldStart:
		c.holders[s.Party] = struct{}{}
	case suppress.HoldEnd:
		delete(c.holders, s.Party)
	case suppress.AgentJoin:
		c.agents[s.User] = s.Role
	case suppress.AgentLeave:
		delete(c.agents, s.User)
	case suppress.ConsultStart:
		c.consults[s.User] = s.Other
	case suppress.ConsultEnd:
		delete(c.consults, s.User)
	}
}

// describe writes a signal as the dialogues' want has it.
func describe(s suppress.Signal) string {
	at := fmt.Sprintf("%.3f", s.At.Sub(baseTime).Seconds())
	words := []string{at, s.SIPCall, string(s.Event), s.Flow, s.Queue, s.Party, s.User, string(s.Role), s.Other}
	words = append(words, s.Links...)
	var kept []string
	for _, w := range words {
		if w != "" {
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, " ")
}

// update rewrites what the dialogues want; read the difference before it is kept.
var update = flag.Bool("update", false, "rewrite the want of the dialogues")

func mustUpdate(t *testing.T, file string, got []string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), "-- want --\n")
	_, tail, _ := strings.Cut(rest, "-- events --\n")
	if err := os.WriteFile(path, []byte(head+"-- want --\n"+strings.Join(got, "\n")+"\n-- events --\n"+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

var dialogues = []string{
	"whole.txt", "attended.txt", "attended_external.txt", "abandoned.txt", "confbridge.txt", "chanspy.txt", "local_member.txt",
}

func TestDialogues(t *testing.T) {
	for _, file := range dialogues {
		t.Run(file, func(t *testing.T) {
			d := mustDialogue(t, file)
			b := newBench(t, d)
			b.take(b.tr.Connected(b.now))
			for _, e := range d.events {
				b.feed(e)
			}
			var got []string
			for _, s := range b.signals {
				got = append(got, describe(s))
			}
			if *update {
				mustUpdate(t, file, got)
			}
			if diff := cmp.Diff(d.want, got); diff != "" {
				t.Errorf("signals (-want +got):\n%s", diff)
			}
			checkOrder(t, b.signals)
			for id, s := range b.folded {
				if len(s.queues)+len(s.holders)+len(s.agents)+len(s.consults) > 0 {
					t.Errorf("call %s ended with %v", id, s)
				}
			}
			checkEmpty(t, b.tr)
		})
	}
}

// checkOrder demands that sequence numbers are unique and agree with times.
func checkOrder(t testing.TB, signals []suppress.Signal) {
	t.Helper()
	at := map[uint64]time.Time{}
	first, last := ^uint64(0), uint64(0)
	for _, s := range signals {
		if _, twice := at[s.Seq]; twice || s.Seq == 0 {
			t.Errorf("seq %d comes twice or is zero", s.Seq)
		}
		if s.Received.Before(s.At) || s.Source != "ami:test" || s.V != 1 {
			t.Errorf("signal %+v: received before it happened, or without source or version", s)
		}
		at[s.Seq] = s.At
		first, last = min(first, s.Seq), max(last, s.Seq)
	}
	for seq, before := first, (time.Time{}); seq <= last; seq++ {
		if now, ok := at[seq]; ok {
			if now.Before(before) {
				t.Errorf("seq %d is at %v, before the one below it", seq, now)
			}
			before = now
		}
	}
}

// checkEmpty demands that nothing of a call is left once all have hung up.
func checkEmpty(t testing.TB, tr *Translator) {
	t.Helper()
	m := tr.model
	if n := len(m.channels) + len(m.byName) + len(m.byUser) + len(m.byLinked) + len(m.bridges) + len(tr.waiting) + len(tr.asking.open) + len(tr.asking.queue) + len(tr.dirty); n != 0 {
		t.Errorf("%d entries are left: %d channels, %d names, %d users, %d linked, %d bridges, %d waiting", n,
			len(m.channels), len(m.byName), len(m.byUser), len(m.byLinked), len(m.bridges), len(tr.waiting))
	}
}
