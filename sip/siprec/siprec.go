// Package siprec is session recording by SIP: the metadata of RFC 7865 and the
// session recording server (SRS) of RFC 7866.
package siprec

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/journal"
)

// Limits and times of the server.
const (
	callsMaxDefault = 10000
	mailboxMax      = 128 // messages of one dialog that wait for its owner
	serversMax      = 64  // server transactions of one dialog
	clientsMax      = 16

	silenceEvery        = 10 * time.Second
	mediaTimeoutDefault = 5 * time.Minute
	closeWait           = 5 * time.Second
	callMax             = 24 * time.Hour
	joinWindowDefault   = 10 * time.Second
	refreshLeast        = 20 * time.Second // shortest session interval that is taken at its word
)

// Source is a recording client (SRC): an SBC, a gateway, a PBX.
type Source struct {
	Name  string         // of the trunk in recordings
	Peers []netip.Prefix // who may send

	Address   netip.Addr // ours in Via and Contact; zero: that of the listener
	MediaAddr netip.Addr // advertised in SDP
	MediaBind netip.Addr // that the relay binds; zero: MediaAddr

	// SRTP is the policy of the client's side (media.External); the other side must
	// be Off. Nil: plain RTP alone.
	SRTP *srtp.Config

	// Sides are asked first, in order.
	Sides []SideRule
	// InternalDomains are those of the addresses of internal parties. Empty: a
	// domain tells nothing.
	InternalDomains []string
	// Caller is the side that calls come from, where the client says who called.
	// Nil: that tells nothing.
	Caller *media.Side
	// Mixed is the side of a stream in which several parties are heard.
	Mixed media.Side

	// JoinHeaders name header fields whose equal values join the dialogs of one call,
	// when the second comes within JoinWindow (10 s when zero) of the first.
	JoinHeaders []string
	JoinWindow  time.Duration
}

// Validate lists every fault of s and makes its rules ready.
func (s *Source) validate() error {
	var errs []error
	if s.Name == "" || len(s.Peers) == 0 {
		errs = append(errs, errors.New("a source needs a name and peers"))
	}
	if !s.MediaAddr.IsValid() {
		errs = append(errs, fmt.Errorf("source %q: no media address", s.Name))
	}
	if s.SRTP != nil {
		errs = append(errs, s.SRTP.Validate())
	}
	for i := range s.Sides {
		if err := s.Sides[i].compile(); err != nil {
			errs = append(errs, fmt.Errorf("source %q: %w", s.Name, err))
		}
	}
	if s.JoinWindow <= 0 {
		s.JoinWindow = joinWindowDefault
	}
	return errors.Join(errs...)
}

// has says whether an address belongs to the source, and by how long a prefix.
func (s *Source) has(a netip.Addr) (bits int, ok bool) {
	a = a.Unmap().WithZone("")
	for _, p := range s.Peers {
		if p.Contains(a) && (!ok || p.Bits() > bits) {
			bits, ok = p.Bits(), true
		}
	}
	return bits, ok
}

// Config of a Server.
type Config struct {
	Sources []Source
	Listen  []sip.Listen
	Net     sip.Net // nil functions: the real network

	Relay    *relay.Relay
	Observer media.Observer // nil: nothing is recorded

	// Journal keeps recordings for the next process; nil: they end with this one.
	Journal journal.Store
	// JournalSealed says that nobody else can read the Journal: recordings with SRTP are
	// kept there, too, with their keys.
	JournalSealed bool

	// Decodable says which formats are answered; nil: all.
	Decodable func(media.Format) bool

	CallsMax int // recording dialogs; 0: 10000

	// MediaTimeout ends a dialog whose client agreed to send and has sent nothing for
	// so long. 0: 5 minutes; negative: never.
	MediaTimeout time.Duration

	// CallRefused, which may be nil, is told of each session that is refused. It must not block.
	CallRefused func(sip.Refusal)

	Log *slog.Logger // nil: silent. Never gets the text of a message.
}

func (c *Config) complete() error {
	if c.Relay == nil {
		return errors.New("siprec: no relay")
	}
	if c.CallsMax <= 0 {
		c.CallsMax = callsMaxDefault
	}
	if c.MediaTimeout == 0 {
		c.MediaTimeout = mediaTimeoutDefault
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// ready returns the sources with their rules made ready.
func ready(list []Source) ([]Source, error) {
	out := slices.Clone(list)
	var errs []error
	for i := range out {
		out[i].Sides = slices.Clone(out[i].Sides)
		if err := out[i].validate(); err != nil {
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// Counters of a Server; those of its transports are in Transport.
type Counters struct {
	DialogsStarted  atomic.Uint64
	DialogsAnswered atomic.Uint64
	DialogsRefused  atomic.Uint64 // by limits, for want of ports or because recording was not possible
	Drained         atomic.Uint64 // of them, because the server waits for its last session
	DialogsJoined   atomic.Uint64 // to the recording of another dialog
	Metadata        atomic.Uint64 // documents that were read
	MetadataRefused atomic.Uint64 // documents that could not be read, and were kept as they came
	Snapshots       atomic.Uint64 // requests of ours for a snapshot
	SidesUnknown    atomic.Uint64 // dialogs that began with streams whose side could not be told
	OneSided        atomic.Uint64 // dialogs that began with streams of several parties, all of one side by rules
	MediaSilent     atomic.Uint64 // dialogs ended because nothing was sent
	Expired         atomic.Uint64 // dialogs ended because nobody refreshed the session
	Unknown         atomic.Uint64 // messages of no known dialog or transaction
	Overflowed      atomic.Uint64 // messages that a full mailbox did not take
	Unrecorded      atomic.Uint64 // sessions whose recorder failed
	Panics          atomic.Uint64 // faults of ours, survived
	Restored        atomic.Uint64 // recordings of a process before that go on
	Lost            atomic.Uint64 // recordings of a process before that cannot go on
	Unjournalled    atomic.Uint64 // recordings that would not survive a restart, or not as they are

	Transport *sip.Counters
}
