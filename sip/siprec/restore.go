package siprec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
	"github.com/trunktap/trunktap/sip/journal"
)

// Restored are the recordings that another process had and that go on here.
type Restored struct {
	Sessions []string // that live
	Lost     int      // that cannot go on

	srv  *Server
	list []*recording
}

var (
	errJournal = errors.New("its entry in the journal cannot be used")
	errPast    = errors.New("it is over, and no repetition can come any more")
)

// Restore goes on with recordings by what the journal of another process says of them:
// their ports are open when it returns. It must be called before Start, once, and
// Observe after it.
func (s *Server) Restore(states map[string][]byte) *Restored {
	out := &Restored{srv: s}
	for session, state := range states {
		r, err := s.reviveGuarded(session, state)
		switch {
		case errors.Is(err, errPast):
			s.cfg.Journal.Drop(session)
		case err != nil:
			out.Lost++
			s.counters.Lost.Add(1)
			s.cfg.Journal.Drop(session)
			s.cfg.Log.Warn("a recording session does not go on after the restart", "session", session, "error", err)
		case r != nil && len(r.legs) > 0:
			out.Sessions = append(out.Sessions, session)
			out.list = append(out.list, r)
			s.counters.Restored.Add(1)
		}
	}
	slices.Sort(out.Sessions)
	return out
}

// Observe asks the observer to go on with the recordings, in the order in which they
// began. Those that it does not want end with a BYE, as they are for nothing else.
func (o *Restored) Observe() {
	slices.SortFunc(o.list, func(a, b *recording) int { return a.chronicle.session.Start.Compare(b.chronicle.session.Start) })
	for _, r := range o.list {
		r.observeAgain(time.Now())
	}
}

func (r *recording) observeAgain(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &r.chronicle
	s := c.session
	s.Links = slices.Clone(r.links)
	s.Resumed = &media.Resumed{Answered: c.at, At: now, Restarts: c.restarts}
	if r.srv.cfg.Observer != nil {
		if err := r.ask(s); err != nil {
			r.log.Error("a recording session ends with the restart: it cannot be recorded any more", "error", err)
			r.srv.counters.Lost.Add(1)
			for _, l := range r.legs {
				l.doomed = "recording not possible"
			}
			return
		}
	}
	r.tap.Answered(c.at)
	r.tell(now)
}

// reviveGuarded survives a fault of ours: it costs one recording.
func (s *Server) reviveGuarded(session string, state []byte) (r *recording, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.counters.Panics.Add(1)
			r, err = nil, fmt.Errorf("%w: a fault, %T", errJournal, p)
		}
	}()
	return s.revive(session, state)
}

// revive makes the recording of an entry, and makes it known.
func (s *Server) revive(session string, state []byte) (*recording, error) {
	var j journalled
	if err := json.Unmarshal(state, &j); err != nil {
		return nil, fmt.Errorf("%w: %w", errJournal, err)
	}
	if err := j.check(session); err != nil {
		return nil, err
	}
	list := s.sources.Load().now
	i := slices.IndexFunc(list, func(x Source) bool { return x.Name == j.Source })
	if i < 0 {
		return nil, fmt.Errorf("there is no source %q any more", j.Source)
	}
	r, err := s.reviveRecording(&j, &list[i], state)
	if err != nil {
		return nil, err
	}
	var legs []*leg
	for _, saved := range j.Legs {
		if !saved.Over.IsZero() && time.Since(saved.Over) >= sip.TransactionTimeout {
			continue
		}
		l, err := s.reviveLeg(r, saved)
		if err != nil {
			return nil, err
		}
		legs = append(legs, l)
	}
	if len(legs) == 0 {
		return nil, errPast
	}
	if err := s.strange(legs); err != nil {
		return nil, err
	}
	err = openAgain(legs)
	s.register(r, legs)
	return r, err
}

// openAgain opens the ports of a recording's dialogs. After an error all of them end:
// their clients may ask another recorder.
func openAgain(legs []*leg) error {
	for _, l := range legs {
		err := l.openAgain()
		if err == nil {
			continue
		}
		for _, l := range legs {
			l.closeMedia()
			l.doomed = "media lost in a restart"
		}
		return err
	}
	return nil
}

func (s *Server) reviveRecording(j *journalled, source *Source, state []byte) (*recording, error) {
	r := newRecording(s, source, s.cfg.Log.With("source", source.Name))
	known := &Metadata{}
	if err := json.Unmarshal(j.Known, known); err != nil {
		return nil, fmt.Errorf("%w: its metadata: %w", errJournal, err)
	}
	j.Session.Start = journal.Live(j.Session.Start)
	r.id, r.known, r.answered, r.nextID = j.Session.ID, known, true, j.Streams
	r.holding, r.links = j.Holding, j.Links
	r.chronicle = chronicle{session: j.Session, at: journal.Live(j.Answered), restarts: j.Restarts + 1, written: state, partly: j.Partly}
	for _, u := range j.Agents {
		r.agents[u] = true
	}
	for k, v := range j.Attrs {
		r.attrs[k] = v
	}
	for _, text := range j.Kept {
		if b, err := hex.DecodeString(text); err == nil && len(b) == sha256.Size {
			r.kept[[sha256.Size]byte(b)] = true
		}
	}
	for _, k := range j.Lasting {
		r.lasting = append(r.lasting, joinKey{source.Name, k})
	}
	for _, k := range j.Passing {
		r.passing = append(r.passing, joinKey{source.Name, k})
	}
	return r, nil
}

// reviveLeg makes a dialog, without its media.
func (s *Server) reviveLeg(r *recording, j *savedLeg) (*leg, error) {
	m, _, err := sip.Parse([]byte(j.Invite), false)
	if err != nil || m.Method != sip.Invite {
		return nil, fmt.Errorf("%w: its INVITE: %w", errJournal, err)
	}
	m.Arrival, m.Flow = journal.Live(j.Started), j.InviteFlow.Flow()
	l := newLeg(s, j.ID, r.source, m)
	l.tag, l.sdpID, l.sdpVersion, l.cname, l.half, l.halfAOR = j.Tag, j.SDPID, j.Version, j.CNAME, j.Half, j.HalfAOR
	l.streams = j.Labels
	l.branches = j.Branches + 1<<16 // those that were not journalled are passed over
	l.from, l.to, l.allows, l.offering = j.From, j.To, j.Allows, j.Offering
	l.end = dialog.End{Target: j.Target, Routes: j.Routes, Flow: j.Flow.Flow(), Seq: j.Seq}
	l.localSeq = j.LocalSeq + 16 // gaps are allowed (RFC 3261 section 12.2.1.1), a number twice is not
	l.rec, l.confirmed, l.saved, l.restored = r, true, j, true
	if !j.Asked.IsZero() {
		l.asked = journal.Live(j.Asked)
	}
	now := time.Now()
	l.invite = dialog.NewServer(m)
	if err := l.answeredAgain(j.Answer, now); err != nil {
		return nil, err
	}
	l.restoreTimer(j, now)
	for i := range j.Lines {
		l.lines = append(l.lines, j.Lines[i].line())
	}
	if !j.Over.IsZero() {
		l.overAgain(j)
	}
	return l, nil
}

// answeredAgain goes on with the transaction of the INVITE: its 2xx is repeated while
// the ACK is missing.
func (l *leg) answeredAgain(answer string, now time.Time) error {
	l.servers = append(l.servers, l.invite)
	if answer == "" {
		l.invite.Respond(sip.ResponseTo(l.invite.Req, 200, "OK"), now)
		l.invite.Acked()
		return nil
	}
	res, _, err := sip.Parse([]byte(answer), false)
	if err != nil || res.Status < 200 || res.Status > 299 {
		return fmt.Errorf("%w: its 2xx: %w", errJournal, err)
	}
	l.invite.Respond(res, now)
	return nil
}

// refreshGrace is how long a client has to refresh a session that expired while the
// daemon was away: it may have tried.
const refreshGrace = sip.TransactionTimeout

func (l *leg) restoreTimer(j *savedLeg, now time.Time) {
	if j.Interval <= 0 {
		return
	}
	l.timer = sessionTimer{interval: j.Interval, ours: j.Refreshes, at: journal.Live(j.Refresh), until: journal.Live(j.Until)}
	least := now.Add(refreshGrace)
	if !l.timer.ours && l.timer.at.Before(least) {
		l.timer.at = least
	}
	if l.timer.until.Before(least) {
		l.timer.until = least
	}
}

// overAgain keeps an ended dialog for repetitions of its BYE.
func (l *leg) overAgain(j *savedLeg) {
	l.ended, l.endedAt = true, journal.Live(j.Over)
	m, _, err := sip.Parse([]byte(j.Bye), false)
	if err != nil {
		return // it ended by itself
	}
	m.Flow = j.ByeFlow.Flow()
	l.bye = m
	s := dialog.NewServer(m)
	s.Respond(sip.ResponseTo(m, 200, "OK").Frozen(), l.endedAt)
	l.servers = append(l.servers, s)
}

func (s *savedLine) line() *line {
	return &line{
		addr: s.Addr, kind: s.Kind, proto: s.Proto, label: s.Label, formats: s.Formats, direction: s.Direction, zero: s.Zero, mux: s.Mux,
		remote: s.Remote, rtcp: s.RTCP, ptime: s.Ptime, id: s.ID, again: s.ID != 0, senders: s.Senders,
		place: place{known: s.SideKnown, side: s.Side, by: strings.TrimSuffix(s.SideBy, pairedByOrder), mixed: s.Mixed, parties: s.Parties},
	}
}

// openAgain opens the ports of a dialog where they were, and lets media come as agreed.
func (l *leg) openAgain() error {
	if l.ended {
		return nil
	}
	for i, s := range l.saved.Lines {
		if !s.Port.IsValid() {
			continue
		}
		at := [2]netip.AddrPort{relaySide: s.Port}
		stream, err := l.srv.cfg.Relay.OpenAt(at, l.options())
		if err != nil {
			return fmt.Errorf("open media %d where it was: %w", i, err)
		}
		l.lines[i].stream = stream
		if err := l.restoreProtection(l.lines[i], stream, s.Sec); err != nil {
			return err
		}
	}
	return l.settle()
}

// register makes a restored recording known, as admit and recordingFor do.
func (s *Server) register(r *recording, legs []*leg) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range legs {
		s.legs[l.key], s.byID[l.id] = l, l
		s.nextID = max(s.nextID, l.id)
		s.restored = append(s.restored, l)
		if l.ended {
			r.chronicle.past = append(r.chronicle.past, l)
			continue
		}
		l.heard, l.silent, l.reportAt = now, now.Add(silenceEvery), now.Add(reportEvery)
		r.legs = append(r.legs, l)
		r.count++
		s.live.Add(1)
	}
	if r.ended = r.count == 0; !r.ended {
		s.joinable(r, r.source.JoinWindow-now.Sub(r.chronicle.session.Start), now)
	}
}

// again begins the turn of an owner whose dialog was restored.
func (l *leg) again(now time.Time) {
	switch {
	case l.saved == nil || l.ended:
	case l.doomed != "":
		l.guarded(func() { l.hangUp(now, media.CauseFailed, "503", l.doomed) })
	default:
		l.askSnapshot(now)
	}
}
