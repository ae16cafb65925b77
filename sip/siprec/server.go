package siprec

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/trunktap/trunktap/sip"
)

// Server is the session recording server of all sources.
type Server struct {
	cfg      Config
	agent    *sip.Agent
	counters Counters
	wg       sync.WaitGroup // legs

	follower *Follower // nil: the dialogs are ours

	sources atomic.Pointer[sourceLists]
	live    atomic.Int64 // dialogs that have not ended

	draining atomic.Bool // new sessions are refused

	mu      sync.Mutex
	legs    map[dialogKey]*leg       // guarded by mu
	byID    map[uint64]*leg          // guarded by mu: by the number in our branches
	joins   map[joinKey][]*recording // guarded by mu: what may be joined
	nextID  uint64                   // guarded by mu
	closing bool                     // guarded by mu

	restored []*leg // that have no owner before Start
}

// dialogKey is under which a dialog is found: its Call-ID and the client's tag.
type dialogKey struct{ callID, tag string }

// New makes a server; Start opens its sockets.
func New(cfg Config) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, legs: map[dialogKey]*leg{}, byID: map[uint64]*leg{}, joins: map[joinKey][]*recording{}}
	if err := s.Reload(cfg.Sources); err != nil {
		return nil, err
	}
	agent, err := sip.New(sip.Config{Listen: cfg.Listen, Allow: s.allow, Handle: s.handle, Net: cfg.Net, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("siprec: %w", err)
	}
	s.agent = agent
	s.counters.Transport = &agent.Counters
	return s, nil
}

// Start opens the sockets and takes recording sessions.
func (s *Server) Start() error {
	if err := s.agent.Start(); err != nil {
		return err
	}
	for _, l := range s.restored {
		s.wg.Go(l.own)
	}
	s.restored = nil
	return nil
}

// Addrs returns the addresses of the listeners, those of UDP first.
func (s *Server) Addrs() []netip.AddrPort { return s.agent.Addrs() }

// Counters returns the live counters.
func (s *Server) Counters() *Counters { return &s.counters }

// Dialogs returns how many recording dialogs are going on.
func (s *Server) Dialogs() int { return int(s.live.Load()) }

// sourceLists are the sources for new dialogs, and those before them, the latest
// first: their peers are let in for dialogs that began under them.
type sourceLists struct {
	now    []Source
	former [][]Source
}

// formerMax bounds the former lists: after so many reloads a dialog whose source was
// taken out is on its own.
const formerMax = 4

// Reload replaces the sources for new dialogs. Dialogs that are going on keep
// theirs.
func (s *Server) Reload(list []Source) error {
	list, err := ready(list)
	if err != nil {
		return fmt.Errorf("siprec: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &sourceLists{now: list}
	if old := s.sources.Load(); old != nil {
		next.former = append([][]Source{old.now}, old.former[:min(len(old.former), formerMax-1)]...)
	}
	s.sources.Store(next)
	return nil
}

// lookup returns the source of an address: the longest prefix counts, then the
// order.
func (s *Server) lookup(a netip.Addr) *Source { return longest(s.sources.Load().now, a) }

func longest(list []Source, a netip.Addr) *Source {
	var best *Source
	most := -1
	for i := range list {
		if bits, ok := list[i].has(a); ok && bits > most {
			best, most = &list[i], bits
		}
	}
	return best
}

// allow is the access list: the sources, and the peers of dialogs that began under
// earlier ones.
func (s *Server) allow(src netip.AddrPort) bool {
	lists := s.sources.Load()
	return longest(lists.now, src.Addr()) != nil ||
		slices.ContainsFunc(lists.former, func(l []Source) bool { return longest(l, src.Addr()) != nil })
}

// handle takes a message from a transport. It does not block.
func (s *Server) handle(m *sip.Message) {
	if !m.IsRequest() {
		s.response(m)
		return
	}
	sip.MarkSource(m)
	s.mu.Lock()
	l := s.legs[dialogKey{m.CallID(), m.FromTag()}]
	s.mu.Unlock()
	switch {
	case l != nil && !l.peers(m.Flow.Remote):
		s.counters.Unknown.Add(1)
		s.reply(m, 403, "Forbidden")
	case l != nil:
		l.put(m)
	case m.Method == sip.Ack:
		s.counters.Unknown.Add(1)
	case m.Method == sip.Cancel, m.ToTag() != "":
		s.counters.Unknown.Add(1)
		s.reply(m, 481, "Call/Transaction Does Not Exist")
	case m.Method == sip.Options:
		s.reply(m, 200, "OK", s.capabilities(m.Flow, nil)...)
	case m.Method == sip.Invite:
		s.admit(m)
	default:
		s.reply(m, 405, "Method Not Allowed", sip.Header{Name: "Allow", Value: allowed})
	}
}

const allowed = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO, MESSAGE"

// capabilities are what a server says of itself (RFC 7866 section 6.1).
func (s *Server) capabilities(f sip.Flow, source *Source) []sip.Header {
	if source == nil {
		source = s.lookup(f.Remote.Addr())
	}
	out := []sip.Header{
		{Name: "Allow", Value: allowed},
		{Name: "Accept", Value: "application/sdp, multipart/mixed, " + TypeMetadata},
		{Name: "Supported", Value: "siprec, timer"},
	}
	if source == nil {
		return out
	}
	ours, f, err := s.agent.Local(f, source.Address)
	if err != nil {
		return out
	}
	return append(out, sip.Header{Name: "Contact", Value: contact(ours, f.Network)})
}

// contact is our address with the feature tag of a server (RFC 7866 section 6.1.2).
func contact(ours netip.AddrPort, network string) string {
	uri := sip.URI{Scheme: "sip", User: "srs", Host: ours.Addr().WithZone("").String(), Port: int(ours.Port())}
	if network != "udp" {
		uri.Params = sip.Params(";transport=" + network)
	}
	return "<" + uri.String() + ">;+sip.srs"
}

func (s *Server) response(m *sip.Message) {
	via, _ := m.TopVia() // Parse has seen to it
	s.mu.Lock()
	l := s.byID[legOfBranch(via.Branch())]
	s.mu.Unlock()
	if l == nil {
		s.counters.Unknown.Add(1)
		return
	}
	l.put(m)
}

const branchPrefix = "z9hG4bKtr"

func branchOf(leg, seq uint64) string {
	return branchPrefix + strconv.FormatUint(leg, 16) + "." + strconv.FormatUint(seq, 16)
}

func legOfBranch(branch string) uint64 {
	rest, ok := strings.CutPrefix(branch, branchPrefix)
	id, _, _ := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(id, 16, 64)
	if !ok || err != nil {
		return 0
	}
	return n
}

// lingeringMax is how many dialogs there may be for each that goes on: those that
// have ended wait for repetitions for half a minute.
const lingeringMax = 2

// admit begins a dialog.
func (s *Server) admit(m *sip.Message) {
	source := s.lookup(m.Flow.Remote.Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	if source == nil || s.closing || s.live.Load() >= int64(s.cfg.CallsMax) || len(s.byID) >= lingeringMax*s.cfg.CallsMax {
		s.counters.DialogsRefused.Add(1)
		cause, name := sip.RefusedCalls, ""
		switch {
		case source == nil:
			cause = sip.RefusedStranger
		case s.closing:
			cause = sip.RefusedDraining
		}
		if source != nil {
			name = source.Name
		}
		s.refused(m, name, cause, 503)
		s.reply(m, 503, "Service Unavailable", sip.RetryAfter())
		return
	}
	s.nextID++
	l := newLeg(s, s.nextID, source, m)
	s.legs[l.key], s.byID[l.id] = l, l
	s.counters.DialogsStarted.Add(1)
	s.live.Add(1)
	l.put(m)
	s.wg.Go(l.own)
}

// readmit begins another dialog in the place of one that its client knows no more.
func (s *Server) readmit(l *leg, m *sip.Message) {
	s.mu.Lock()
	if s.legs[l.key] == l {
		delete(s.legs, l.key)
	}
	s.mu.Unlock()
	s.handle(m)
}

// refused tells of a session that is refused.
func (s *Server) refused(m *sip.Message, source, cause string, status int) {
	if s.cfg.CallRefused != nil && m.ToTag() == "" {
		s.cfg.CallRefused(sip.NewRefusal(m, source, cause, status))
	}
}

// forget removes a dialog of which nothing is left.
func (s *Server) forget(l *leg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.legs[l.key] == l {
		delete(s.legs, l.key)
	}
	delete(s.byID, l.id)
}

// reply answers a request without a transaction: the same request is answered with
// the same tag.
func (s *Server) reply(req *sip.Message, status int, reason string, extra ...sip.Header) {
	s.agent.Reply(req, status, reason, extra...)
}

// Close ends all dialogs with a BYE, waits a bounded time for the answers and
// closes the sockets. New dialogs are refused meanwhile.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return errors.New("siprec: closed already")
	}
	s.closing = true
	for _, l := range s.byID {
		l.stopOnce.Do(func() { close(l.stop) })
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() { s.wg.Wait(); close(ended) }()
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
		s.mu.Lock()
		for _, l := range s.byID {
			l.killOnce.Do(func() { close(l.kill) })
		}
		s.mu.Unlock()
		<-ended
	}
	if err := s.agent.Close(); err != nil {
		return fmt.Errorf("siprec: close transports: %w", err)
	}
	return nil
}
