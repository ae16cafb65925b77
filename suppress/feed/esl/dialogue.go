package esl

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

const (
	inFlightMax = 16      // commands that wait for their answers
	backlogMax  = 100_000 // commands that wait to be sent
)

// cmdProbe asks for something harmless when nothing was heard for a while. A
// refusal is an answer as well.
const cmdProbe = "api hostname"

// events are those that are subscribed to; the subclasses of CUSTOM stand last.
var events = []string{
	"CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_BRIDGE", "CHANNEL_UNBRIDGE", "CHANNEL_HOLD", "CHANNEL_UNHOLD",
	"CHANNEL_HANGUP_COMPLETE", "HEARTBEAT", "CUSTOM",
}

const (
	executeEvents = "CHANNEL_EXECUTE CHANNEL_EXECUTE_COMPLETE"
	subclasses    = "callcenter::info conference::maintenance trunktap::signal"
)

// loginCommands subscribe. Of the applications that channels execute only those
// are let through that listen to a channel: a filter passes an event that
// matches any of its lines.
func loginCommands() []string {
	var list []string
	for _, e := range events {
		list = append(list, "filter Event-Name "+e)
	}
	list = append(list, "filter Application eavesdrop", "filter Application three_way")
	n := len(events) - 1
	return append(list, "event plain "+strings.Join(events[:n], " ")+" "+executeEvents+" "+events[n]+" "+subclasses)
}

// Errors that end a connection.
var (
	errDisconnected = errors.New("the FreeSWITCH closes the connection")
	errPassword     = errors.New("the FreeSWITCH refuses the password: check user and password (event_socket.conf.xml, esl-password)")
	errRejected     = errors.New("the FreeSWITCH refuses this address: add it to apply-inbound-acl in event_socket.conf.xml")
	errBacklog      = fmt.Errorf("more than %d questions are open", backlogMax)
)

// dialogue is one connection, as messages in and commands out. It is pure.
type dialogue struct {
	t     *Translator
	auth  string // the command
	login []string

	state   dialogueState
	queue   []string // to be sent
	pending []string // sent, in the order of their answers
	synced  bool     // the state was told completely
}

type dialogueState int

const (
	awaitingRequest dialogueState = iota
	authenticating
	subscribing
	live
)

func newDialogue(t *Translator, auth string) *dialogue {
	return &dialogue{t: t, auth: auth, login: loginCommands()}
}

// message takes a message that arrived now, and returns the signals in it and
// the commands to send. After an error the connection is of no more use.
func (d *dialogue) message(m Message, now time.Time) ([]suppress.Signal, []string, error) {
	var signals []suppress.Signal
	switch m.Type {
	case typeAuth:
		if d.state != awaitingRequest {
			return nil, nil, fmt.Errorf("%w: a second auth/request", ErrFrame)
		}
		d.state = authenticating
		return nil, []string{d.auth}, nil
	case typeReply, typeAPI:
		s, err := d.answer(m, now)
		if err != nil {
			return nil, nil, err
		}
		signals = s
	case typePlain, typeJSON:
		e, err := ParseEvent(m)
		if err != nil {
			d.t.ignored++
			break
		}
		var ask []string
		signals, ask = d.t.Event(e, now)
		d.queue = append(d.queue, ask...)
	case typeDisconnect:
		if m.Disposition != "linger" {
			return nil, nil, errDisconnected
		}
	case typeRejection:
		return nil, nil, errRejected
	default:
		d.t.ignored++
	}
	if len(d.queue) > backlogMax {
		return signals, nil, errBacklog
	}
	send := d.next()
	if d.state == live && !d.synced && len(d.pending) == 0 {
		d.synced = true
		signals = append(signals, d.t.Restored(now)...)
	}
	return signals, send, nil
}

// answer takes the answer to the oldest command.
func (d *dialogue) answer(m Message, now time.Time) ([]suppress.Signal, error) {
	refused := m.Type == typeReply && strings.HasPrefix(m.Reply, "-ERR")
	if d.state == awaitingRequest {
		return nil, fmt.Errorf("%w: an answer before auth/request", ErrFrame)
	}
	if d.state == authenticating {
		if m.Type != typeReply || !strings.HasPrefix(m.Reply, "+OK") {
			return nil, errPassword
		}
		d.state, d.queue = subscribing, d.login
		return nil, nil
	}
	if len(d.pending) == 0 {
		return nil, fmt.Errorf("%w: an answer without a question", ErrFrame)
	}
	command := d.pending[0]
	d.pending = d.pending[1:]
	if d.state == subscribing {
		if refused {
			verb, _, _ := strings.Cut(command, " ")
			return nil, fmt.Errorf("the FreeSWITCH refuses the command %s (%s): check esl-allowed-events of the user", verb, reason(m.Reply))
		}
		if len(d.pending) == 0 && len(d.queue) == 0 {
			d.state = live
			d.queue = d.t.Connected(now)
		}
		return nil, nil
	}
	if command == cmdProbe {
		return nil, nil
	}
	body := m.Body
	if m.Type == typeReply || m.Oversize {
		body = nil
		d.t.ignored++
	}
	signals, ask := d.t.Reply(command, body, now)
	d.queue = append(d.queue, ask...)
	return signals, nil
}

// reason is what a reply says, cut to what may stand in an error.
func reason(reply string) string {
	if len(reply) > 100 {
		reply = reply[:100]
	}
	return clean(strings.ToValidUTF8(reply, "?"))
}

// next returns the commands that may be sent now.
func (d *dialogue) next() []string {
	if d.state < subscribing {
		return nil
	}
	n := min(len(d.queue), inFlightMax-len(d.pending))
	if n <= 0 {
		return nil
	}
	send := d.queue[:n:n]
	d.queue = d.queue[n:]
	d.pending = append(d.pending, send...)
	return send
}

// probe is sent when nothing was heard for a while; false when an answer is
// awaited already.
func (d *dialogue) probe() (string, bool) {
	if d.state != live || len(d.pending) > 0 {
		return "", false
	}
	d.pending = append(d.pending, cmdProbe)
	return cmdProbe, true
}
