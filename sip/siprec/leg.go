package siprec

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
)

// leg is one recording dialog. Its goroutine owns it.
type leg struct {
	// constant
	srv     *Server
	source  *Source
	id      uint64
	key     dialogKey
	log     *slog.Logger
	tag     string // ours
	sdpID   uint64
	cname   string // ours in RTCP
	half    half
	paths   func(n int) Path // of a dialog that is followed; nil: it is ours
	halfAOR string

	box      chan *sip.Message
	stop     chan struct{} // end with a BYE
	stopOnce sync.Once
	poke     chan struct{} // of capacity 1: the journal is out of date
	kill     chan struct{} // end at once
	killOnce sync.Once

	// owned by the goroutine
	end        dialog.End
	localSeq   uint32
	branches   uint64
	servers    []*dialog.Server
	clients    []*dialog.Client
	from, to   string // header values of our own requests
	invite     *dialog.Server
	offering   bool // a 2xx of ours carries an offer that the ACK answers
	rec        *recording
	confirmed  bool // the first INVITE was answered with 2xx
	ended      bool
	stopping   bool // nobody's repetitions are waited for
	allows     string
	asked      time.Time // when a snapshot was requested last
	started    time.Time
	silent     time.Time // when to look for media next
	heard      time.Time // of the latest media, or agreement
	reportAt   time.Time // when streams are asked for reports next; zero: not yet
	timer      sessionTimer
	sdpVersion uint64
	endedAt    time.Time
	bye        *sip.Message // that ended it
	restored   bool         // of a process before
	doomed     string       // why it ends at once; of one that was restored
	noted      [2]int64     // what due may change, as it was journalled

	saved *savedLeg // guarded by the recording's mu
	lines []*line   // see line
	// streams are the ids of those that its labels stand for, by what came in this dialog: labels of
	// others are theirs. Empty: one label stands for several. Guarded like lines.
	streams map[string]string
	shown   int // of lines, in our description: as many as were offered; 0: all
}

func newLeg(s *Server, id uint64, source *Source, m *sip.Message) *leg {
	tag := make([]byte, 8)
	for i := range tag {
		tag[i] = byte(rand.Uint32())
	}
	l := &leg{
		srv: s, source: source, id: id, key: dialogKey{strings.Clone(m.CallID()), strings.Clone(m.FromTag())},
		log: s.cfg.Log.With("source", source.Name, "dialog", id), tag: hex.EncodeToString(tag), sdpID: rand.Uint64N(1 << 40),
		box: make(chan *sip.Message, mailboxMax), stop: make(chan struct{}), kill: make(chan struct{}), poke: make(chan struct{}, 1), started: m.Arrival,
		half: halfOf(m), cname: newCNAME(),
	}
	near, far := halves(m)
	if l.halfAOR = near; l.half == farEnd {
		l.halfAOR = far
	}
	return l
}

// put brings a message to the owner; one that a full mailbox does not take is
// repeated by its sender.
func (l *leg) put(m *sip.Message) {
	select {
	case l.box <- m:
	default:
		l.srv.counters.Overflowed.Add(1)
	}
}

// peers says whether an address may speak in this dialog.
func (l *leg) peers(a netip.AddrPort) bool {
	_, ok := l.source.has(a.Addr())
	return ok
}

// own runs the dialog until nothing of it is left.
func (l *leg) own() {
	defer l.srv.forget(l)
	defer l.unjournal()
	defer l.abandon()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	stop := l.stop
	l.again(time.Now())
	for {
		now := time.Now()
		l.due(now)
		l.noteDue()
		if l.over(now) {
			return
		}
		timer.Reset(l.wait(now))
		select {
		case m := <-l.box:
			l.guarded(func() { l.take(m); l.journal() })
		case <-timer.C:
		case <-l.poke:
			l.guarded(l.journal)
		case <-stop:
			stop = nil
			l.guarded(func() { l.shutdown() })
		case <-l.kill:
			return
		}
	}
}

// guarded survives a fault of ours: the dialog ends, the others go on.
func (l *leg) guarded(f func()) {
	defer func() {
		if p := recover(); p != nil {
			l.srv.counters.Panics.Add(1)
			l.log.Error("fault in a recording dialog", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			l.finish(time.Now(), media.CauseFailed)
		}
	}()
	f()
}

// abandon makes sure that nothing outlives the owner.
func (l *leg) abandon() { l.finish(time.Now(), media.CauseShutdown) }

// over says whether the dialog has ended and no transaction needs it any more.
func (l *leg) over(now time.Time) bool {
	keep := l.servers[:0]
	for _, s := range l.servers {
		if !s.Done(now) {
			keep = append(keep, s)
		}
	}
	clear(l.servers[len(keep):])
	l.servers = keep
	live := l.clients[:0]
	for _, c := range l.clients {
		if !c.Done(now) {
			live = append(live, c)
		}
	}
	clear(l.clients[len(live):])
	l.clients = live
	return l.ended && (len(l.servers) == 0 || l.stopping) && len(l.clients) == 0
}

// wait is how long nothing is due.
func (l *leg) wait(now time.Time) time.Duration {
	next := now.Add(time.Hour)
	for _, s := range l.servers {
		next = dialog.Earliest(s.Deadline(), next)
	}
	for _, c := range l.clients {
		next = dialog.Earliest(c.Deadline(), next)
	}
	if !l.ended {
		next = dialog.Earliest(l.silent, next)
		next = dialog.Earliest(l.reportAt, next)
		next = dialog.Earliest(l.timer.deadline(), next)
	}
	return max(next.Sub(now), time.Millisecond)
}

// due does what has become due.
func (l *leg) due(now time.Time) {
	for _, s := range l.servers {
		again, noAck := s.Due(now)
		if again != nil {
			l.send(again, sip.ReplyFlow(s.Req))
		}
		if noAck && s == l.invite && !l.ended && s.Final() < 300 && !l.heardOf() {
			l.hangUp(now, media.CauseTimeout, "408", "no ACK")
		}
	}
	for _, c := range l.clients {
		again, timedOut := c.Due(now)
		if again != nil {
			l.send(again, c.Flow)
		}
		if timedOut && c.Req != nil && l.timer.refreshing(c) {
			l.unrefreshed(now)
		}
	}
	if l.ended {
		return
	}
	l.watchMedia(now)
	l.refreshDue(now)
	l.reportDue(now)
	if l.confirmed && now.Sub(l.started) > callMax {
		l.hangUp(now, media.CauseTimeout, "408", "call too long")
	}
}

// heardOf says whether a client that another process answered has shown that it got the
// answer: it sends to the ports that are in it. Its ACK may have been lost with the
// connection.
func (l *leg) heardOf() bool {
	if !l.restored || l.offering {
		return false
	}
	l.rec.mu.Lock()
	last, _ := l.lastMedia()
	l.rec.mu.Unlock()
	return !last.IsZero()
}

// watchMedia ends a dialog whose client sends nothing though it said it would.
func (l *leg) watchMedia(now time.Time) {
	if l.silent.IsZero() || now.Before(l.silent) {
		return
	}
	l.silent = now.Add(silenceEvery)
	if l.srv.cfg.MediaTimeout < 0 || l.rec == nil {
		return
	}
	l.rec.mu.Lock()
	last, expected := l.lastMedia()
	l.rec.mu.Unlock()
	if last.After(l.heard) || !expected {
		l.heard = now
		if expected {
			l.heard = last
		}
	}
	if now.Sub(l.heard) >= l.srv.cfg.MediaTimeout {
		l.srv.counters.MediaSilent.Add(1)
		l.log.Info("no media, recording dialog ended", "since", l.heard)
		l.hangUp(now, media.CauseMediaSilence, "408", "no media")
	}
}

func (l *leg) send(m *sip.Message, f sip.Flow) {
	if err := l.srv.agent.Send(m, f, nil); err != nil {
		l.log.Debug("cannot send", "to", f.Remote, "error", err)
	}
}

// finish ends the dialog's part of the recording. Transactions may live on.
func (l *leg) finish(now time.Time, cause media.Cause) {
	if l.ended {
		return
	}
	l.ended, l.endedAt = true, now
	if l.rec != nil {
		l.srv.leaveRecording(l.rec) // first: nobody joins what is about to end
		l.rec.leave(l, now, cause)
	}
	l.closeMedia()
	l.srv.live.Add(-1)
}

// hangUp ends the dialog from our side.
func (l *leg) hangUp(now time.Time, cause media.Cause, code, why string) {
	if l.ended {
		return
	}
	if l.confirmed {
		m := l.request(sip.Bye)
		m.Add("Reason", `SIP;cause=`+code+`;text="`+why+`"`)
		if l.invite != nil {
			l.invite.Acked() // its 2xx is repeated no more
		}
		l.begin(m, now)
	}
	l.finish(now, cause)
}

// shutdown ends the dialog because the daemon stops.
func (l *leg) shutdown() {
	now := time.Now()
	l.stopping = true
	if !l.confirmed && l.invite != nil && l.invite.Final() == 0 {
		l.respond(l.invite, 503, "Service Unavailable", sip.RetryAfter())
	}
	l.hangUp(now, media.CauseShutdown, "503", "going down")
}

// request begins a request of our own in the dialog.
func (l *leg) request(method string) *sip.Message {
	uri, routes, _ := l.end.Route()
	m := &sip.Message{Method: method, URI: uri}
	m.Add("Via", "")
	for _, r := range routes {
		m.Add("Route", r)
	}
	l.localSeq++
	m.Add("Max-Forwards", "70")
	m.Add("From", l.from)
	m.Add("To", l.to)
	m.Add("Call-ID", l.key.callID)
	m.Add("CSeq", fmt.Sprintf("%d %s", l.localSeq, method))
	return m
}

// begin sends a request of our own; nil when it cannot be sent.
func (l *leg) begin(m *sip.Message, now time.Time) *dialog.Client {
	flow, ours, err := l.via(m)
	if err != nil || len(l.clients) >= clientsMax {
		l.log.Warn("the client cannot be reached", "method", m.Method, "error", err)
		return nil
	}
	if m.Method == sip.Update || m.Method == sip.Invite {
		m.Add("Contact", contact(ours, flow.Network))
	}
	c := dialog.NewClient(m, flow, now)
	l.clients = append(l.clients, c)
	l.send(m, flow)
	return c
}

// via gives a request of our own its way and its branch.
func (l *leg) via(m *sip.Message) (sip.Flow, netip.AddrPort, error) {
	ours, flow, err := l.srv.agent.Local(l.flow(), l.source.Address)
	if err != nil {
		return flow, ours, err
	}
	l.branches++
	m.SetVia(sip.Via{
		Transport: strings.ToUpper(flow.Network), Host: ours.Addr().WithZone("").String(), Port: int(ours.Port()),
		Params: sip.Params(";rport;branch=" + branchOf(l.id, l.branches)),
	})
	return flow, ours, nil
}

// noteDue journals what the time has changed.
func (l *leg) noteDue() {
	is := [2]int64{int64(l.localSeq), l.timer.at.UnixNano()}
	if l.ended {
		is[0] = -1
	}
	if is != l.noted {
		l.noted = is
		l.journal()
	}
}

// flow is the way to the client: over UDP, and where its connection is gone, the
// address of its Contact when that is one of the source's peers, else the way that its
// last message came.
func (l *leg) flow() sip.Flow {
	f := l.end.Flow
	_, _, next := l.end.Route()
	u, err := sip.ParseURI(next)
	if err != nil || f.Reliable() && l.srv.agent.Connected(f) {
		return f
	}
	ip, err := netip.ParseAddr(u.Host)
	if _, ok := l.source.has(ip); err != nil || !ok {
		return f
	}
	port := uint16(u.Port)
	if port == 0 {
		port = 5060
	}
	f.Remote = netip.AddrPortFrom(ip.Unmap(), port)
	return f
}
