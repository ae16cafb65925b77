package siprec

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/media/report"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
)

// Follower follows recording dialogs that somebody else answers, or has answered: those
// of a capture. What becomes of them is decided by the code of the Server, at the times
// of the messages. One goroutine uses it.
type Follower struct {
	srv   *Server
	later []deferred
	now   time.Time
}

// deferred is done when the time of the messages has come.
type deferred struct {
	at time.Time
	do func()
}

// FollowerConfig of a Follower.
type FollowerConfig struct {
	Sources   []Source // need no addresses of ours
	Observer  media.Observer
	Decodable func(media.Format) bool // see Config
	Log       *slog.Logger            // nil: silent
}

// Path is the way of one followed stream's packets.
type Path interface {
	Local() netip.AddrPort // where the server wants them, once it has said so
	Secure() bool          // they are encrypted by keys that nobody knows

	// Expect is what the client says of them: where they come from and of which
	// payload types they may be.
	Expect(from netip.AddrPort, types []uint8)
	SetTap(media.Tap) // nil: nobody takes them
	Close()
}

// NewFollower makes a follower.
func NewFollower(c FollowerConfig) (*Follower, error) {
	list := make([]Source, len(c.Sources))
	for i, s := range c.Sources {
		s.MediaAddr, s.SRTP = netip.IPv4Unspecified(), nil
		list[i] = s
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg:  Config{Observer: c.Observer, Decodable: c.Decodable, Log: c.Log},
		legs: map[dialogKey]*leg{}, byID: map[uint64]*leg{}, joins: map[joinKey][]*recording{},
	}
	if err := s.Reload(list); err != nil {
		return nil, err
	}
	f := &Follower{srv: s}
	s.follower = f
	return f, nil
}

// Source returns the client of an address; nil when it is none.
func (f *Follower) Source(a netip.Addr) *Source { return f.srv.lookup(a) }

// First returns the first client; nil: there are none.
func (f *Follower) First() *Source {
	if list := f.srv.sources.Load().now; len(list) > 0 {
		return &list[0]
	}
	return nil
}

// Counters returns the counts.
func (f *Follower) Counters() *Counters { return &f.srv.counters }

// Advance brings the time forward.
func (f *Follower) Advance(now time.Time) {
	f.now = now
	rest := f.later[:0]
	for _, d := range f.later {
		if now.Before(d.at) {
			rest = append(rest, d)
		} else {
			d.do()
		}
	}
	f.later = rest
}

// IsRecordingSession says whether an INVITE is one of a recording client (RFC 7866
// section 6.1.1), or of a built-in bridge.
func IsRecordingSession(m *sip.Message) bool {
	for _, tag := range m.List("Require") {
		if strings.EqualFold(strings.TrimSpace(tag), "siprec") {
			return true
		}
	}
	return strings.Contains(strings.ToLower(m.Get("Contact")), "+sip.src") || halfOf(m) != wholeCall ||
		len(split(m.Get("Content-Type"), m.Body).metadata) > 0
}

// Description returns the session description of a message; nil: it has none.
func Description(m *sip.Message) []byte { return split(m.Get("Content-Type"), m.Body).sdp }

// Followed is a recording dialog that is followed.
type Followed struct {
	leg      *leg
	answered bool
	agreed   []byte // the client's latest description that was not refused
	open     []byte // that of a request without final response
}

// Begin takes the INVITE that begins a dialog. open makes the way of its n-th stream.
func (f *Follower) Begin(source *Source, m *sip.Message, open func(n int) Path) (*Followed, error) {
	f.srv.nextID++
	l := newLeg(f.srv, f.srv.nextID, source, m)
	l.paths = open
	f.srv.counters.DialogsStarted.Add(1)
	f.srv.live.Add(1)
	c := split(m.Get("Content-Type"), m.Body)
	d := &Followed{leg: l, open: c.sdp}
	if err := d.offered(c.sdp); err != nil {
		l.finish(m.Arrival, media.CauseFailed)
		return nil, err
	}
	rec := f.srv.recordingFor(l, m, c)
	if err := rec.begin(l, m, c); err != nil {
		f.srv.leaveRecording(rec)
		l.finish(m.Arrival, media.CauseFailed)
		return nil, err
	}
	l.rec = rec
	return d, nil
}

func (d *Followed) offered(body []byte) error {
	if body == nil {
		return nil
	}
	p, err := sdp.Parse(body)
	if err != nil {
		return err
	}
	return d.leg.offered(p)
}

// Answered says whether the dialog was answered.
func (d *Followed) Answered() bool { return d.answered }

// Answer takes the 2xx to the INVITE that began the dialog.
func (d *Followed) Answer(m *sip.Message) error {
	l := d.leg
	d.answered, l.confirmed, d.agreed = true, true, d.open
	l.srv.counters.DialogsAnswered.Add(1)
	var err error
	if d.open == nil {
		err = d.serverOffers(Description(m))
	}
	l.rec.answer(m.Arrival)
	l.noteUnknown()
	return err
}

// serverOffers takes the lines of an offer that the server makes.
func (d *Followed) serverOffers(body []byte) error {
	l := d.leg
	p, err := sdp.Parse(body)
	if err != nil {
		return err
	}
	l.offering = true
	l.rec.mu.Lock()
	defer l.rec.mu.Unlock()
	for i, m := range p.Media() {
		if i < len(l.lines) || i >= linesMax {
			continue
		}
		n := &line{kind: m.Kind, proto: m.Proto, formats: m.Formats, direction: sdp.SendOnly}
		n.label, _ = p.Attribute(i, "label")
		l.lines = append(l.lines, n)
		if m.Kind == "audio" && !m.Rejected {
			if err := l.open(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// Request takes a further request of the client, once.
func (d *Followed) Request(m *sip.Message) error {
	l := d.leg
	c := split(m.Get("Content-Type"), m.Body)
	switch m.Method {
	case sip.Invite, sip.Update:
		d.open = c.sdp
		l.rec.mu.Lock()
		err := d.offered(c.sdp)
		l.rec.mu.Unlock()
		l.offering = m.Method == sip.Invite && c.sdp == nil
		l.rec.change(l, c, m.Arrival)
		return err
	case "INFO", "MESSAGE":
		l.takeMetadata(c, m.Arrival)
	}
	return nil
}

// Final takes the final response to a re-INVITE or UPDATE: what it refuses is undone.
func (d *Followed) Final(m *sip.Message) error {
	l := d.leg
	open := d.open
	d.open = nil
	if m.Status < 300 {
		if open != nil {
			d.agreed = open
		}
		return nil
	}
	l.offering = false
	if open == nil || d.agreed == nil {
		return nil
	}
	l.rec.mu.Lock()
	err := d.offered(d.agreed)
	l.rec.mu.Unlock()
	l.rec.change(l, content{}, m.Arrival)
	return err
}

// Ack takes an ACK: it may answer an offer of the server.
func (d *Followed) Ack(m *sip.Message) error {
	l := d.leg
	if !l.offering {
		return nil
	}
	l.offering = false
	c := split(m.Get("Content-Type"), m.Body)
	p, err := sdp.Parse(c.sdp)
	if err != nil {
		return err
	}
	d.agreed = c.sdp
	l.rec.mu.Lock()
	err = l.accepted(p)
	l.rec.mu.Unlock()
	l.rec.change(l, c, m.Arrival)
	return err
}

// End ends the dialog's part of the recording.
func (d *Followed) End(at time.Time, cause media.Cause) { d.leg.finish(at, cause) }

// followedPort is a stream of which only packets are seen.
type followedPort struct{ Path }

var errFollowed = errors.New("a followed stream has no keys of its own")

func (p followedPort) Local(media.Side) netip.AddrPort        { return p.Path.Local() }
func (p followedPort) SetTap(_ media.Side, t media.Tap)       { p.Path.SetTap(t) }
func (p followedPort) SetRemote(_ media.Side, r relay.Remote) { p.Expect(r.RTP, r.PayloadTypes) }
func (p followedPort) Protect([2]srtp.End) error              { return errFollowed }
func (p followedPort) SetReports(*report.Config) error        { return nil }
func (p followedPort) Report(time.Time)                       {}
func (p followedPort) Stats() (none relay.Stats)              { return none }
func (p followedPort) Close() error                           { p.Path.Close(); return nil }
