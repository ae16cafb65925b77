package siprec

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/callstate"
	"github.com/trunktap/trunktap/sip/guard"
)

// Limits of one recording.
const (
	legsMax      = 4  // recording dialogs
	linesMax     = 16 // m= lines of one of them
	agentsMax    = 64 // parties whose coming and going is told
	attrsMax     = 16
	documentsMax = 256 // given to the recorder
	fieldMax     = 256 // bytes of a field of a signal
	sourceName   = "siprec"
	observeWait  = 2 * time.Second
)

// recording is one communication session: one to legsMax dialogs feed one tap. The
// legs take turns: whoever holds mu is its owner, so that the tap sees one caller.
type recording struct {
	srv    *Server
	source *Source
	log    *slog.Logger
	id     string // of its media.Session

	mu       sync.Mutex
	tap      guard.Guard
	legs     []*leg
	nextID   media.StreamID
	known    *Metadata // the snapshot
	answered bool
	ended    bool
	holding  [2]bool
	agents   map[string]bool // users of the internal side that are there
	attrs    map[string]string
	links    []string
	kept     map[[sha256.Size]byte]bool // documents that the recorder has

	chronicle chronicle

	lasting, passing []joinKey // constant once it is known

	// guarded by Server.mu
	count int // legs, those that are only beginning included
}

func newRecording(s *Server, source *Source, log *slog.Logger) *recording {
	return &recording{
		srv: s, source: source, log: log, known: &Metadata{}, agents: map[string]bool{},
		attrs: map[string]string{}, kept: map[[sha256.Size]byte]bool{}, tap: guard.Guard{What: "session", Log: log, Fault: &s.counters.Unrecorded},
	}
}

var errObserver = errors.New("recording is not possible")

// begin takes a leg in. The first one asks the observer.
func (r *recording) begin(l *leg, invite *sip.Message, c content) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || len(r.legs) >= legsMax {
		return fmt.Errorf("%w: the recording has ended", errObserver)
	}
	raw := r.learn(l, c)
	if len(r.legs) == 0 {
		if err := r.observe(l, invite); err != nil {
			return err
		}
	}
	r.legs = append(r.legs, l)
	r.keep(raw, invite.Arrival)
	return nil
}

// document is metadata that was read, with what could not be.
type document struct {
	part part
	why  string
	keep bool
}

// learn adds the metadata of a message of a leg to the snapshot.
func (r *recording) learn(l *leg, c content) []document {
	var out []document
	for _, p := range c.metadata {
		m, err := Parse(p.content)
		if err != nil {
			r.srv.counters.MetadataRefused.Add(1)
			out = append(out, document{p, err.Error(), true})
			continue
		}
		r.srv.counters.Metadata.Add(1)
		l.bind(m, m.replaces(r.known))
		next, missing := r.known.Merge(m)
		if m.replaces(r.known) {
			r.chronicle.partly = false
		}
		r.known = next
		d := document{part: p, why: strings.Join(m.Faults, "; ")}
		if len(missing) > 0 {
			d.why = strings.TrimPrefix(d.why+"; it refers to objects that were not told of", "; ")
		}
		d.keep = d.why != "" || len(m.Extensions) > 0 || hasExtensions(m)
		out = append(out, d)
	}
	for _, p := range c.others {
		if !tellsKeys(p.typ) {
			out = append(out, document{part: p, keep: true})
		}
	}
	return out
}

// tellsKeys says whether a part may hold digits that somebody dialled: those are for
// the pipeline alone, which knows what must not be kept.
func tellsKeys(typ string) bool {
	return strings.Contains(typ, "dtmf") || strings.Contains(typ, "kpml") || strings.Contains(typ, "telephone-event")
}

func hasExtensions(m *Metadata) bool {
	n := 0
	for _, p := range m.Participants {
		n += len(p.Extensions)
	}
	for _, s := range m.Sessions {
		n += len(s.Extensions)
	}
	for _, s := range m.Streams {
		n += len(s.Extensions)
	}
	for _, f := range m.Memberships {
		n += len(f.Extensions)
	}
	return n > 0
}

// keep gives the recorder what must not be lost because it was not understood. Clients
// repeat their documents with each refresh of the session: each is kept once.
func (r *recording) keep(list []document, at time.Time) {
	for _, d := range list {
		sum := sha256.Sum256(d.part.content)
		if d.keep && !r.kept[sum] && len(r.kept) < documentsMax {
			r.kept[sum] = true
			r.tap.Metadata(media.Metadata{At: at, Type: d.part.typ, Body: d.part.content, Why: d.why})
		}
	}
}

// missing says whether the snapshot refers to what nobody has told of.
func (r *recording) missing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.chronicle.partly || len(r.known.missing(r.known.Memberships, r.known.Flows)) > 0
}

func (r *recording) observe(l *leg, invite *sip.Message) error {
	if r.srv.cfg.Observer == nil {
		return nil
	}
	s := r.session(l, invite)
	r.id, r.chronicle.session = s.ID, s
	return r.ask(s)
}

// ask gets the tap of the session.
func (r *recording) ask(s media.Session) error {
	type answer struct {
		tap media.SessionTap
		err error
	}
	if r.srv.follower != nil {
		tap, err := r.srv.cfg.Observer.SessionStarted(context.Background(), s)
		if err != nil {
			return fmt.Errorf("%w: %w", errObserver, err)
		}
		r.tap.Tap = tap
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), observeWait)
	defer cancel()
	got := make(chan answer, 1)
	go func() { // an observer that hangs must hold up nobody
		defer func() {
			if p := recover(); p != nil {
				got <- answer{nil, fmt.Errorf("%w: observer panicked: %v", errObserver, p)}
			}
		}()
		tap, err := r.srv.cfg.Observer.SessionStarted(ctx, s)
		got <- answer{tap, err}
	}()
	select {
	case a := <-got:
		if a.err != nil {
			return fmt.Errorf("%w: %w", errObserver, a.err)
		}
		r.tap.Tap = a.tap
		return nil
	case <-ctx.Done():
		r.srv.wg.Go(func() { // its tap is unwanted when it comes
			if a := <-got; a.tap != nil {
				g := guard.Guard{Tap: a.tap, What: "session", Log: r.log, Fault: &r.srv.counters.Unrecorded}
				g.Ended(time.Now(), media.CauseFailed)
			}
		})
		return fmt.Errorf("%w: the recorder did not answer within %s", errObserver, observeWait)
	}
}

// session describes the communication session: the parties of the metadata, else
// those that the INVITE names.
func (r *recording) session(l *leg, invite *sip.Message) media.Session {
	s := media.Session{
		ID:    media.SessionID(invite.CallID(), invite.FromTag(), invite.Arrival),
		Trunk: r.source.Name, SIPCallID: invite.CallID(), FromTag: invite.FromTag(),
		Direction: media.Inbound, Start: invite.Arrival,
	}
	s.Links = (*callstate.Rules)(nil).Links(invite, media.External)
	for _, k := range r.conversation() {
		if !slices.Contains(s.Links, k) {
			s.Links = append(s.Links, k)
		}
	}
	r.links = slices.Clone(s.Links)
	s.Parties = r.parties(l, invite)
	s.From, s.To = s.Parties[media.External].URI, s.Parties[media.Internal].URI
	if r.outbound() {
		s.Direction, s.From, s.To = media.Outbound, s.To, s.From
	}
	return s
}

// parties returns one party of each side, as far as they are known.
func (r *recording) parties(l *leg, invite *sip.Message) []media.Participant {
	out := []media.Participant{{Side: media.External}, {Side: media.Internal}}
	var found [2]bool
	set := func(side media.Side, uri, name string) {
		if !found[side] && uri != "" {
			out[side].URI, out[side].Name, found[side] = uri, name, true
		}
	}
	tracks := l.tracks()
	for _, p := range r.source.arrange(r.known, tracks) {
		if p.mixed {
			for i, q := range p.parties {
				set(media.Side(i%2), q.AOR(), q.Name())
			}
			continue
		}
		for _, q := range p.parties {
			set(p.side, q.AOR(), q.Name())
		}
	}
	if near, far := halves(invite); near != "" || far != "" {
		set(media.Internal, near, "")
		set(media.External, far, "")
	}
	from, fromName := address(invite.Get("From"))
	to, toName := address(invite.Get("To"))
	set(media.External, from, fromName)
	set(media.Internal, to, toName)
	return out
}

// outbound says whether the internal side called, as far as the metadata tells.
func (r *recording) outbound() bool {
	tracks := make([]track, 0, len(r.known.Streams))
	for _, s := range r.known.Streams {
		tracks = append(tracks, track{label: s.Label})
	}
	for _, p := range r.source.arrange(r.known, tracks) {
		for _, q := range p.parties {
			if caller, ok := callerOf(q); ok && caller && p.known {
				return p.side == media.Internal
			}
		}
	}
	return false
}

func address(v string) (uri, name string) {
	a, err := sip.ParseAddress(v)
	if err != nil {
		return strings.TrimSpace(v), ""
	}
	return a.URI, a.DisplayName()
}

// conversation returns the keys by which other calls belong to the same
// conversation, in the form of callstate.Rules.Links.
func (r *recording) conversation() []string {
	var out []string
	for _, s := range r.known.Sessions {
		for _, id := range s.SIPSessionIDs {
			local, rest, _ := strings.Cut(id, ";")
			remote := strings.TrimPrefix(strings.TrimSpace(rest), "remote=")
			for _, u := range []string{local, remote} {
				if u = strings.ToLower(strings.TrimSpace(u)); len(u) == 32 && strings.Trim(u, "0123456789abcdef") == "" && strings.Trim(u, "0") != "" {
					out = append(out, "session-id:"+u)
				}
			}
		}
	}
	for _, g := range r.known.Groups {
		if g.ID != "" && len(g.ID) <= fieldMax {
			out = append(out, "siprec-group:"+idKey(g.ID))
		}
	}
	return out
}

// change takes a message that belongs to a leg: new metadata, or descriptions that
// have been agreed on.
func (r *recording) change(l *leg, c content, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.keep(r.learn(l, c), at)
	r.tell(at)
}

// answer notes the 200 to a leg's INVITE.
func (r *recording) answer(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.answered {
		r.answered, r.chronicle.at = true, at
		r.tap.Answered(at)
	}
	r.tell(at)
}

// leave ends a leg; the last one ends the recording.
func (r *recording) leave(l *leg, at time.Time, cause media.Cause) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.legs, l)
	if i < 0 || r.ended {
		return
	}
	for _, n := range l.lines {
		r.untell(n, at)
	}
	r.legs = slices.Delete(r.legs, i, i+1)
	if r.srv.cfg.Journal != nil {
		r.chronicle.past = append(r.chronicle.past, l)
	}
	if len(r.legs) > 0 {
		r.tell(at)
		return
	}
	r.ended = true
	if !r.answered {
		cause = media.CauseFailed
	}
	r.tap.Ended(at, cause)
}
