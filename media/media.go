// Package media is the common language of signalling and recording: what a
// session, a participant and a stream are, and the few calls by which the
// signalling side tells the recording side about them.
//
// Times are time.Time values of the moment something passed the tap. Live
// values carry Go's monotonic reading (derive them from time.Now by Add), so
// that a step of the wall clock moves nothing; values of a capture do not.
package media

import (
	"context"
	"net/netip"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// Side tells which of the two channels of a recording a party speaks on.
type Side uint8

// The two sides of a trunk: channel 0 and channel 1 of every recording.
const (
	External Side = 0 // the carrier's side, the customer
	Internal Side = 1 // the PBX's side, the agent
)

// Other returns the opposite side.
func (s Side) Other() Side { return 1 - s }

// String returns "external" or "internal", the words of the manifest.
func (s Side) String() string {
	if s == External {
		return "external"
	}
	return "internal"
}

// Direction of a call, seen from the internal side.
type Direction string

// Directions, as the manifest spells them.
const (
	Inbound  Direction = "inbound"  // the INVITE came from the external side
	Outbound Direction = "outbound" // the INVITE came from the internal side
)

// Cause says why a session ended; the manifest's end_cause.
type Cause string

// Causes of the end of a session.
const (
	CauseBye          Cause = "bye"           // a BYE passed
	CauseTimeout      Cause = "timeout"       // a leg stopped answering, or a session timer ran out
	CauseMediaSilence Cause = "media-silence" // no media from any side for the configured time
	CauseShutdown     Cause = "shutdown"      // the daemon was stopped
	CauseCrash        Cause = "crash"         // the daemon died; written by recovery alone
	CauseCaptureEnd   Cause = "capture-end"   // a replayed capture ended before the call did
	CauseFailed       Cause = "failed"        // never answered: cancelled, refused or timed out; nothing is recorded
)

// Participant is one party of a session (RFC 7865 section 6.5).
type Participant struct {
	Side Side
	URI  string // the address-of-record of From, To or P-Asserted-Identity: "sip:alice@example.net"
	Name string // display name, may be empty
}

// Session describes a call at the time of its INVITE.
type Session struct {
	ID        string // unique for this daemon: the {call} of the HTTP API; see SessionID
	Trunk     string // name in the configuration
	SIPCallID string
	FromTag   string

	// OtherSIPCallID is the Call-ID on the callee's leg, where that is another one.
	OtherSIPCallID string

	Direction Direction
	From, To  string        // URIs of the From and To header fields, without tags and parameters of the header field
	Start     time.Time     // the INVITE passed
	Parties   []Participant // in the order external, internal; as far as known

	// Headers are those header fields of the INVITE that configuration asked
	// for (names in lower case). Never a body.
	Headers map[string][]string

	// Links are opaque keys of other calls, or of the conversation itself, found
	// in the INVITE: calls that share one belong to one conversation. The key of
	// the call itself is "call-id:" and its Call-ID; one that names another call
	// by Replaces (RFC 3891) is "dialog:", that call's Call-ID, ";" and a tag.
	Links []string

	// Resumed is set when the call was begun by a process before this one. Then
	// SessionStarted comes in the middle of the answered call, and what was recorded
	// of it is to be gone on with.
	Resumed *Resumed `json:"-"`
}

// Resumed tells of a call that goes on after a restart.
type Resumed struct {
	Answered time.Time // the 200 OK to its INVITE
	At       time.Time // when packets come to taps again
	Restarts int       // of the daemon in this call, this one included
}

// StreamID names a stream within its session. The same id given again by a
// renegotiation replaces the stream of that id.
type StreamID uint32

// Format is one entry of the negotiated payload type table (RFC 3551, RFC 8866
// section 6.6 rtpmap).
type Format struct {
	PayloadType uint8
	Name        string // encoding name in upper case: PCMU, PCMA, G722, OPUS, TELEPHONE-EVENT, CN
	ClockRate   int    // Hz
	Channels    int    // 0 and 1 both mean one
	Params      string // the fmtp value, verbatim
}

// Stream is what was agreed for the media that comes *from* one side.
type Stream struct {
	ID      StreamID
	Side    Side // who sends
	At      time.Time
	Formats []Format // what may be sent, in order of preference; without it everything is undecodable

	// Sending says whether that side agreed to send (sendrecv or sendonly from
	// its point of view, RFC 3264 section 5.1). Silence of a stream that may
	// send is a gap, silence of one that may not is none.
	Sending bool

	// Early is set while the call is not answered.
	Early bool

	// Source is the address from which the side's SDP says it will send (by
	// symmetry the c= and m= of its own SDP); Local the address that it sends to.
	Source, Local netip.AddrPort

	// Ptime is the packet time of the SDP, zero when not given.
	Ptime time.Duration

	// Secure is set when the packets put into the tap are still encrypted and
	// therefore undecodable (SRTP passed through end to end).
	Secure bool

	// Of a stream of a recording session (RFC 7866), whose side nobody but its
	// client knows:
	Label   string        // of its m= line (RFC 4574)
	SideBy  string        // how the side was found; empty: there was nothing to find
	Mixed   bool          // several parties are heard in it
	Parties []Participant // who contribute to it, as far as known
}

// Observer is told of sessions. It is the only glue between signalling and
// recording. Implementations must be safe for concurrent use.
type Observer interface {
	// SessionStarted is called before the far end rings. An error means that
	// recording is required and impossible: the call is refused with 503. A nil
	// SessionTap means: do not record.
	SessionStarted(ctx context.Context, s Session) (SessionTap, error)
}

// SessionTap takes what happens in one session. No method blocks on a disk.
// The calls of one session come from one goroutine, in the order of their times.
type SessionTap interface {
	// StreamStarted announces a stream, and again on every renegotiation that
	// changes anything of it. The Tap takes the packets of that stream from now
	// on; for an id that is known the same Tap may be returned again.
	StreamStarted(Stream) Tap
	// StreamEnded says that no more packets of the stream will come.
	StreamEnded(StreamID, time.Time)
	// Answered gives the time of the 200 OK to the INVITE, the origin of the
	// recording's timeline. Called at most once.
	Answered(time.Time)
	// Signal passes a call-state signal found in the signalling (hold, headers, INFO).
	Signal(suppress.Signal)
	// Ended is the last call. The taps must not be used after it.
	Ended(time.Time, Cause)
}

// DigitTap is implemented by a SessionTap that takes the digits of which the
// signalling tells (SIP INFO). Digit is called like its other methods: digit is
// one of 0123456789*#ABCD, at is when the request passed, down how long the key
// was down, zero when that is not told.
type DigitTap interface {
	Digit(side Side, at time.Time, digit byte, down time.Duration)
}

// OtherMedia is media that the parties agreed on beside audio over RTP: it is
// passed on and not recorded.
type OtherMedia struct {
	Line    int    // index of its m= line
	Kind    string // audio, video, image, message, application, ... in lower case
	Proto   string // RTP/AVP, udptl, TCP/MSRP, UDP/BFCP, ... as written
	Formats string // names of its formats, or what the m= line lists; separated by commas
}

// MediaTap is implemented by a SessionTap that takes note of media which is not
// recorded. OtherMedia is called like its other methods, with all that goes on, when
// that has changed.
type MediaTap interface {
	OtherMedia(at time.Time, all []OtherMedia)
}

// MetadataTap is implemented by a SessionTap that keeps documents of the signalling
// as they came. Metadata is called like its other methods.
type MetadataTap interface{ Metadata(Metadata) }

// Metadata is a document about a session, verbatim.
type Metadata struct {
	At   time.Time // when it arrived
	Type string    // media type
	Body []byte    // not changed any more
	Why  string    // what of it was not understood; empty: it is kept for other reasons
}

// Capturing is implemented by a SessionTap that can tell whether anything of the
// call is captured at the moment: a tone that tells of recording is heard only
// then. It may be called from any goroutine, on the packet path too.
type Capturing interface{ Capturing() bool }

// Overlay puts sound into the packets of one direction on their way: tones and
// announcements. It is used by one goroutine at a time.
type Overlay interface {
	// Apply returns the packet to forward and to record instead of wire: wire
	// itself when nothing is to be heard, else a packet that is valid until the
	// next call. It neither blocks nor allocates.
	Apply(arrival time.Time, wire []byte) []byte
}

// Tap takes a copy of each packet of a stream, RTP and RTCP alike (RFC 5761
// section 4 tells them apart). Put never blocks, fails or allocates and keeps
// no reference to wire. When there is no room it drops and counts; the count
// travels with the next packet, so the recording knows its gap. Put is called
// by one goroutine at a time.
type Tap interface {
	Put(arrival time.Time, wire []byte)
}
