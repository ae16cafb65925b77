// Package b2bua passes calls between the two sides of a trunk, keeping the
// identity of the dialog: Call-ID, tags and CSeq are the same on both legs.
//
// A call has one owner at a time, a goroutine that holds its transactions,
// dialogs and streams; nothing else touches them. Messages reach it through a
// bounded mailbox in the order in which they came. The owner leaves when all is
// done, and the next message or deadline brings another.
package b2bua

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/callstate"
	"github.com/trunktap/trunktap/sip/dns"
	"github.com/trunktap/trunktap/sip/journal"
)

// Limits of one call and of all.
const (
	callsMaxDefault = 10000
	exchangesMax    = 32  // requests of one call without a final response
	mailboxMax      = 512 // messages of one call that wait for its owner
	eventsKept      = 4   // events that a call keeps memory for while nothing happens
	dialogsMax      = 32  // forks of one call
	streamsMax      = 16  // m= lines of one session
	faultsMax       = 16  // faults of ours that a call survives
)

// Times of a call that are not timers of RFC 3261.
const (
	observerWait = 2 * time.Second  // then the call goes on unrecorded
	resolveWait  = 3 * time.Second  // for the name of a next hop
	nextHopWait  = 4 * time.Second  // without any response, when there is another next hop
	cancelWait   = 2 * time.Second  // for the far end's own answer to a cancelled INVITE
	byeWait      = 4 * time.Second  // for the far end's answer to a BYE
	ringMax      = 5 * time.Minute  // since the last provisional response: timer C, RFC 3261 section 16.6
	callMax      = 24 * time.Hour   // of an answered call
	usageMax     = time.Hour        // of a subscription that names no expiry
	closeWait    = 5 * time.Second  // for the legs' answers when the daemon stops
	silenceEvery = 10 * time.Second // between looks at a call's packet counters

	mediaTimeoutDefault = 5 * time.Minute
)

// Config of a B2BUA.
type Config struct {
	Trunks []sip.Trunk
	Listen []sip.Listen
	Net    sip.Net     // nil functions: the real network
	TLS    *tls.Config // for connections that we open

	// DNS finds where names of next hops lead; nil: their addresses alone.
	DNS *dns.Resolver

	// KeepAlive is how long a connection may be silent before something is sent on
	// it; 0: for ever.
	KeepAlive time.Duration

	// PhonesAway is for how long after Start a call waits for a phone to register again
	// that nobody can connect to. 0: it does not.
	PhonesAway time.Duration

	// UDPBytesMax is the size above which requests go over TCP instead of UDP,
	// where the peer takes that (RFC 3261 section 18.1.1). 0: none.
	UDPBytesMax int

	Relay    *relay.Relay   // anchors the media
	Observer media.Observer // nil: nothing is recorded

	CallsMax         int // 0: 10000
	CallsPerTrunkMax int // 0: as many as CallsMax

	// DelayMax is how long messages may wait for their turn before new calls are
	// refused so that those that go on are not hurt. 0: for ever.
	DelayMax time.Duration
	// MemoryBytesMax is what the process may hold before they are. 0: everything.
	MemoryBytesMax uint64
	// TailBytesMax bounds what is kept of requests that were refused, so that their
	// repetitions get the same answer: the oldest are forgotten first. 0: 32 MiB.
	TailBytesMax int

	// MediaTimeout ends an answered call of which no side has sent anything for
	// so long, unless it is on hold. 0: 5 minutes; negative: never.
	MediaTimeout time.Duration

	// Overlay returns what is mixed into the packets of a stream on their way from
	// its sender to the other side; nil: nothing. It is asked again after the
	// answer and on every renegotiation. tap is the session's, it may be nil.
	// Nil: no stream is touched.
	Overlay func(trunk string, st media.Stream, answered time.Time, tap media.SessionTap) media.Overlay

	// Headers names header fields of the INVITE that Session.Headers gets.
	Headers []string

	// CallState says which signals are read out of the messages of calls. Nil:
	// only the links between calls are.
	CallState *callstate.Rules

	// HopChanged, which may be nil, is told when a next hop goes down or comes up again.
	// It must not block.
	HopChanged func(trunk string, side media.Side, hop sip.NextHop, up bool)

	// CallRefused, which may be nil, is told of each call that we refuse ourselves, but for
	// challenges and what session timers ask for. It must not block.
	CallRefused func(sip.Refusal)

	// Journal keeps what answered calls need to go on in another process; nil: none
	// do.
	Journal journal.Store
	// JournalSealed says that nobody else can read the Journal: calls whose SRTP is ended
	// here go into such a one alone, with their keys.
	JournalSealed bool

	Log *slog.Logger // nil: silent. Never gets the text of a message.
}

func (cfg *Config) complete() error {
	if cfg.Relay == nil {
		return errors.New("b2bua: no relay")
	}
	if cfg.CallsMax <= 0 {
		cfg.CallsMax = callsMaxDefault
	}
	if cfg.CallsPerTrunkMax <= 0 {
		cfg.CallsPerTrunkMax = cfg.CallsMax
	}
	if cfg.TailBytesMax <= 0 {
		cfg.TailBytesMax = tailBytesMaxDefault
	}
	if cfg.MediaTimeout == 0 {
		cfg.MediaTimeout = mediaTimeoutDefault
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Counters of a B2BUA; those of its transports are in Transport.
type Counters struct {
	CallsStarted  atomic.Uint64
	CallsAnswered atomic.Uint64
	CallsRefused  atomic.Uint64 // by our limits, by missing ports or because recording was required
	Unknown       atomic.Uint64 // messages of no known dialog or transaction
	Overflowed    atomic.Uint64 // messages that a full mailbox did not take
	Unrecorded    atomic.Uint64 // calls whose observer did not answer in time or panicked
	MediaSilent   atomic.Uint64 // calls ended because nobody sent anything

	HeadersEdited    atomic.Uint64 // header fields taken out, set or added by rules of trunks
	SessionRefreshes atomic.Uint64 // sent by us, for session timers
	SessionsExpired  atomic.Uint64 // calls ended because a party did not refresh or answer one

	Panics atomic.Uint64 // faults of ours, survived

	SignalsRefused atomic.Uint64 // call-state signals and links in messages that could not be taken

	Refused    Refused
	Redirected atomic.Uint64 // redirections followed
	Authorized atomic.Uint64 // challenges answered
	Rejected   atomic.Uint64 // of which the answer was refused

	LargeOverTCP atomic.Uint64 // requests too large for UDP that went over TCP
	LargeOverUDP atomic.Uint64 // and those whose peer does not take TCP

	CallsRestored atomic.Uint64 // calls of another process that go on here
	CallsLost     atomic.Uint64 // and those that could not
	CallsCut      atomic.Uint64 // and those that were not answered, and were ended
	Unjournalled  atomic.Uint64 // calls that would not survive a restart, or not as they are
	Drained       atomic.Uint64 // calls refused because the daemon waits for its last call
	Held          atomic.Uint64 // requests that waited for their party to connect again

	Transport *sip.Counters
}
