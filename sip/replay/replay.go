// Package replay follows the SIP dialogs and media streams of a packet capture
// and reports them to a media.Observer as the live daemon would have.
//
// It only listens: messages are taken in the order of the capture, at its
// times. What passed before a description named its address is not recorded,
// as the live relay drops it too; there is no buffer for it.
package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/sip/callstate"
	"github.com/trunktap/trunktap/suppress"
)

// CallIdleMax is how long a call may be without any packet before it is closed,
// so that the calls whose BYE is not in a long capture do not pile up.
const CallIdleMax = 12 * time.Hour

// Limits of what is kept of a capture.
const (
	callsMax            = 20_000           // calls that are followed at one time; the longest silent one is closed
	tombstoneAge        = 32 * time.Second // 64*T1: how long retransmissions may follow the end (RFC 3261 section 17)
	transactionsMax     = 16               // of one call that are remembered
	forksMax            = 8                // early dialogs of one call whose answer is remembered
	descriptionBytesMax = 64 << 20         // session descriptions of all calls
	legPairsMax         = 8                // address pairs of one call's messages, for each leg kind
	destinationsMax     = 8                // addresses to which one stream went in the course of a call
	linesMax            = 16               // m= lines of one call whose keys are followed
	framersMax          = 4096             // TCP directions that may carry SIP
	framerBytesMax      = 64 << 20         // bytes of unfinished messages in all of them
	progressPackets     = 8192             // between two reports
	flowsPerAddressMax  = 8                // streams that share one destination
	contextPackets      = 1024             // packets between two looks at the context
)

// Source yields the packets of a capture; see pcap.Source.
type Source = pcap.Source

// Trunk is what replay needs to know of a configured trunk.
type Trunk struct {
	Name               string
	External, Internal []netip.Prefix // peers of its sides
}

// Config of Run. The zero value replays every call as inbound.
type Config struct {
	// External are the addresses of external parties. When given they alone
	// decide on which side the sender of an INVITE is.
	External []netip.Prefix

	// Trunks in the order of the configuration. A call is on the first whose
	// peers match its ends; when none matches, on the first.
	Trunks []Trunk

	// Headers names the header fields of the INVITE that a Session carries.
	Headers []string

	// CallState says which signals are read out of the messages of calls, as in
	// the daemon. Nil: only the links between calls are.
	CallState *callstate.Rules

	// Signals are call-state signals from elsewhere, in the order of the time at
	// which they arrive (Received, or At when that is zero). Each is passed to
	// OnSignal before the first packet that is not earlier.
	Signals  []suppress.Signal
	OnSignal func(suppress.Signal)

	// Recording takes recording sessions (SIPREC) as their server would. Nil: they are
	// calls like others. Not with Live.
	Recording *Recording

	// Live is for packets of a live link: see Live.
	Live *Live
}

// Stats counts what Run met.
type Stats struct {
	Packets       int64 // UDP datagrams and TCP runs
	First, Last   time.Time
	Backward      int64 // packets whose time stamp was earlier than one before; taken at that one's time
	Messages      int64 // SIP messages
	Unparsable    int64 // what begins like SIP but cannot be read
	OtherDialogs  int64 // messages outside of calls (REGISTER, OPTIONS, ...) and of legs that are not followed
	BadSDP        int64 // offers and answers that were ignored
	Calls         int64 // sessions reported
	Answered      int64 // of them
	InProgress    int64 // of them, those whose INVITE is not in the capture
	CallsDropped  int64 // closed because there were too many at one time
	RTP           int64 // packets given to taps, RTCP included
	OrphanRTP     int64 // RTP or RTCP to an address of no call
	Rejected      int64 // packets to a stream's address that the latch refused
	Undecrypted   int64 // packets that the keys of the SDP do not decrypt, or that came before; not in RTP
	CutRTP        int64 // media packets that the snap length cut; left out, so that they count as lost
	SignalsLate   int64 // signals that arrive after the last packet; dropped
	StreamSkipped int64 // bytes of TCP streams that belong to no message

	SignalsRefused int64 // call-state signals and links in messages that could not be taken

	Strangers  int64 // live: messages that begin no call because they are of no trunk
	Unrecorded int64 // live: calls that the observer could not take
	Lost       int64 // live: packets that were lost before they could be read
}

// Progress is how far Run is.
type Progress struct {
	Packets   int64
	At        time.Time // of the last packet
	Calls     int64     // sessions so far
	CallsOpen int
}

// Run reads src to its end and reports its calls to obs, all from this
// goroutine, with the times of the capture made to run forward only. It returns
// nil at the end of the capture; a *pcap.TruncatedError where it breaks off; an
// error of obs, which ends the replay; the error of ctx. In each case all
// open calls were ended. progress may be nil.
func Run(ctx context.Context, src Source, cfg Config, obs media.Observer, progress func(Progress)) (Stats, error) {
	t := newTracker(ctx, cfg, obs)
	if progress == nil {
		progress = func(Progress) {}
	}
	if err := t.followSessions(); err != nil {
		return Stats{}, err
	}
	err := t.run(src, progress)
	cause := media.CauseCaptureEnd
	var cut *pcap.TruncatedError
	switch {
	case errors.Is(err, io.EOF) && cfg.Live != nil: // the link was closed, the calls go on
		err, cause = nil, media.CauseShutdown
	case errors.Is(err, io.EOF):
		err = nil
	case errors.As(err, &cut):
	case err != nil:
		cause = media.CauseShutdown
	}
	t.close(cause)
	t.count()
	progress(t.progress())
	return t.stats, err
}

func (t *tracker) run(src Source, progress func(Progress)) error {
	for {
		if t.stats.Packets%contextPackets == 0 {
			if err := t.ctx.Err(); err != nil {
				return fmt.Errorf("replay: %w", err)
			}
		}
		p, err := src.Next()
		if err != nil {
			return err
		}
		t.packet(p)
		if t.err != nil {
			return t.err
		}
		if t.stats.Packets%progressPackets == 0 {
			progress(t.progress())
		}
	}
}

// packet brings the clock to a packet and takes it.
func (t *tracker) packet(p pcap.Packet) {
	t.advance(p.At)
	t.lost(p.Lost)
	if p.Proto == pcap.None {
		return
	}
	t.stats.Packets++
	if p.Proto == pcap.TCP {
		t.stream(p)
		return
	}
	t.datagram(p)
}

// advance moves the time of the pipeline, which never runs backwards.
func (t *tracker) advance(at time.Time) {
	switch {
	case t.stats.Packets == 0:
		t.stats.First, t.now = at, at
	case at.Before(t.now):
		t.stats.Backward++
	default:
		t.now = at
	}
	t.stats.Last = t.now
	if t.follower != nil {
		t.follower.Advance(t.now)
	}
	for len(t.signals) > 0 && !received(t.signals[0]).After(t.now) {
		if t.cfg.OnSignal != nil {
			t.cfg.OnSignal(t.signals[0])
		}
		t.signals = t.signals[1:]
	}
	t.expire()
}

// received is when a signal arrives.
func received(s suppress.Signal) time.Time {
	if s.Received.IsZero() {
		return s.At
	}
	return s.Received
}

func (t *tracker) progress() Progress {
	return Progress{Packets: t.stats.Packets, At: t.now, Calls: t.stats.Calls, CallsOpen: t.active.Len()}
}

// datagram sorts SIP from media by their first byte: RTP and RTCP begin with a
// version of 2 (RFC 3550), a SIP message with a letter.
func (t *tracker) datagram(p pcap.Packet) {
	data := p.Payload
	for len(data) > 0 && (data[0] == '\r' || data[0] == '\n') {
		data = data[1:]
	}
	if startsMessage(data) {
		t.raw(data, p.Src, p.Dst)
		return
	}
	t.media(p)
}
