package esl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

const secret = "ClueCon"

// freeswitch is one that answers as mod_event_socket does.
type freeswitch struct {
	auth    string              // the command that lets in
	answers map[string]string   // by api command
	refuse  string              // the command that is refused by permission
	events  []string            // bodies that are sent once the state was asked for
	then    func(conn net.Conn) // beside the talk, once every question about the state is answered
	mute    bool                // answers nothing more from then on
	left    int                 // bytes to send before the connection breaks; negative: all
}

var errCut = errors.New("cut")

// send writes as many bytes as are left.
func (f *freeswitch) send(conn net.Conn, text string) error {
	if f.left >= 0 && len(text) > f.left {
		_, _ = conn.Write([]byte(text[:f.left])) // the other end may be gone
		return errCut
	}
	if f.left >= 0 {
		f.left -= len(text)
	}
	_, err := conn.Write([]byte(text))
	return err
}

// serve talks until the connection ends. The commands are read apart, for
// neither end of the pipe may wait for the other.
func (f *freeswitch) serve(conn net.Conn) {
	commands := make(chan string, 1000)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(commands)
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			if lines.Text() != "" {
				commands <- lines.Text()
			}
		}
	})
	f.talk(conn, commands, &reading)
	_ = conn.Close() // the other end may have closed it
	reading.Wait()
}

func (f *freeswitch) talk(conn net.Conn, commands chan string, beside *sync.WaitGroup) {
	last := cmdQueues
	if _, ok := f.answers[cmdMembers+"q@x"]; ok {
		last = cmdMembers + "q@x"
	}
	mute := false
	if f.send(conn, "Content-Type: auth/request\n\n") != nil {
		return
	}
	for c := range commands {
		if mute {
			continue
		}
		if f.answer(conn, c) != nil {
			return
		}
		mute = f.mute && c == last
		if c == last && f.then != nil {
			beside.Go(func() { f.then(conn) })
		}
		if c == cmdQueues {
			for _, e := range f.events {
				if f.send(conn, framed(typePlain, e)) != nil {
					return
				}
			}
		}
	}
}

func (f *freeswitch) answer(conn net.Conn, c string) error {
	reply := func(text string) error { return f.send(conn, "Content-Type: command/reply\nReply-Text: "+text+"\n\n") }
	switch {
	case f.refuse != "" && strings.HasPrefix(c, f.refuse):
		return reply("-ERR permission denied")
	case c == f.auth && strings.HasPrefix(c, "userauth"):
		return reply("+OK accepted\nAllowed-Events: all\nAllowed-API: all\nAllowed-LOG: true")
	case c == f.auth:
		return reply("+OK accepted")
	case strings.HasPrefix(c, "auth ") || strings.HasPrefix(c, "userauth "):
		if err := reply("-ERR invalid"); err != nil {
			return err
		}
		return f.send(conn, "Content-Type: text/disconnect-notice\nContent-Length: 67\n\nDisconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n")
	case strings.HasPrefix(c, "filter "):
		return reply("+OK filter added. [x]=[y]")
	case strings.HasPrefix(c, "event plain "):
		return reply("+OK event listener enabled plain")
	case strings.HasPrefix(c, "api "):
		body, ok := f.answers[c]
		if !ok {
			body = "-ERR " + strings.Fields(c)[1] + " Command not found!\n"
		}
		return f.send(conn, fmt.Sprintf("Content-Type: api/response\nContent-Length: %d\n\n%s", len(body), body))
	}
	return reply("-ERR command not found")
}

// network hands each dialled connection to the next FreeSWITCH.
type network struct {
	next    []*freeswitch // the last one serves all that follow; nil refuses
	dials   []time.Time
	serving sync.WaitGroup
}

func (n *network) dial(_ context.Context, _, _ string) (net.Conn, error) {
	n.dials = append(n.dials, time.Now())
	f := n.next[0]
	if len(n.next) > 1 {
		n.next = n.next[1:]
	}
	if f == nil {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	n.serving.Go(func() { f.serve(theirs) })
	return ours, nil
}

// listen runs a source for so long and returns what it told.
func listen(t testing.TB, n *network, d time.Duration, change func(*Config)) ([]suppress.Signal, *Source) {
	t.Helper()
	cfg := Config{Name: "pbx1", Address: "10.0.0.5:8021", Password: secret, Dial: n.dial}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var signals []suppress.Signal
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	if err := s.Run(ctx, func(sig suppress.Signal) { signals = append(signals, sig) }); err != nil {
		t.Fatal(err)
	}
	n.serving.Wait()
	return signals, s
}

// body makes the body of an event.
func body(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "%s: %s\n", pairs[i], pairs[i+1])
	}
	return b.String() + "\n"
}

func legBody(name, uuid, call, profile, user string, more ...string) string {
	return body(append([]string{
		"Event-Name", name, "Unique-ID", uuid, "variable_uuid", uuid, "variable_sofia_profile_name", profile, "variable_user_name", user,
		"variable_sip_call_id", call,
	}, more...)...)
}

const beat = "Event-Name: HEARTBEAT\n\n"

// heartbeats sends one every 20 s until the connection ends.
func heartbeats(conn net.Conn) {
	for {
		if _, err := conn.Write([]byte(framed(typePlain, beat))); err != nil {
			return
		}
		time.Sleep(20 * time.Second)
	}
}

// bridged is the state of a bridge whose agent holds.
func bridged() map[string]string {
	dump := func(uuid, call, profile, user, state, held string) string {
		return fmt.Sprintf(`{"Event-Name":"CHANNEL_DATA","Unique-ID":%q,"Channel-Call-State":%q,"Caller-Channel-Last-Hold":%q,`+
			`"Caller-Channel-Bridged-Time":"946684802000000","variable_uuid":%q,"variable_sip_call_id":%q,"variable_sofia_profile_name":%q,"variable_user_name":%q}`,
			uuid, state, held, uuid, call, profile, user)
	}
	return map[string]string{
		cmdChannels:           `{"row_count":2,"rows":[{"uuid":"T","callstate":"ACTIVE"},{"uuid":"A","callstate":"HELD"}]}`,
		cmdBridged:            `{"row_count":1,"rows":[{"uuid":"T","b_uuid":"A","call_created_epoch":"1"}]}`,
		cmdDump + "T json":    dump("T", "one", "external", "", "ACTIVE", "0"),
		cmdDump + "A json":    dump("A", "leg", "internal", "1000", "HELD", "946684805000000"),
		cmdQueues:             "name|strategy|moh_sound\nq@x|ring-all|local_stream://moh\n+OK\n",
		cmdMembers + "q@x":    "queue|system|uuid|session_uuid|state|joined_epoch|bridge_epoch\n+OK\n",
		"api hostname":        "pbx1\n",
		"api not asked for":   "",
		cmdMembers + "broken": "-ERR Invalid!\n",
	}
}
