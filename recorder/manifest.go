// Package recorder is the domain of recording (Recording, Segment, Gap,
// Manifest) and the pipeline that turns the packets of a session into sealed
// segments. It declares the interfaces that its children implement.
package recorder

import (
	"cmp"
	"slices"
	"time"

	"github.com/trunktap/trunktap/media/quality"
	"github.com/trunktap/trunktap/suppress"
)

// Version is the version of the manifest.
const Version = 1

// Kind of a recording.
type Kind string

// Kinds of recordings.
const (
	KindTrunk   Kind = "trunk"
	KindStation Kind = "station"
	KindConsult Kind = "consult"
	KindAdhoc   Kind = "adhoc"
	KindSnippet Kind = "snippet"
)

// Manifest is the account of one recording, "recording.json". All positions
// and durations are whole milliseconds; real time counts from the origin,
// audio time leaves out what was cut.
type Manifest struct {
	Version      int    `json:"version"`
	ID           string `json:"id"`
	Conversation string `json:"conversation"`
	Kind         Kind   `json:"kind"`
	User         string `json:"user,omitempty"`    // whose it is: of stations, consultations, adhoc recordings and snippets
	Other        string `json:"other,omitempty"`   // the other agent of a consultation
	Consent      string `json:"consent,omitempty"` // granted | denied | none; empty: nobody asked
	Trunk        string `json:"trunk"`
	Call         Call   `json:"call"`

	Format     string    `json:"format"`
	SampleRate int       `json:"sample_rate"` // Hz
	Channels   []Channel `json:"channels"`
	Origin     time.Time `json:"origin"`
	RealMS     int64     `json:"real_ms"`
	AudioMS    int64     `json:"audio_ms"`
	Suppressed string    `json:"suppressed"` // cut | silence

	Shredded *Shredded `json:"shredded,omitempty"` // its key was destroyed: what else stands here is what its folder tells

	// Unsealed: it was written with its key in the open, so it was neither secret nor
	// kept from being changed by whoever could write the store.
	Unsealed bool `json:"unsealed,omitempty"`

	Segments []Segment `json:"segments"`
	Windows  []Window  `json:"windows"`
	Gaps     []Gap     `json:"gaps"`
	Streams  []Stream  `json:"streams"`
	DTMF     []Digit   `json:"dtmf"`

	Signals []ManifestSignal `json:"signals,omitempty"` // in order of arrival, those of monitoring left out

	UnrecordedMedia []UnrecordedMedia `json:"unrecorded_media,omitempty"`

	Copies []Copy `json:"copies,omitempty"` // at other recorders

	Attrs map[string]string `json:"attrs,omitempty"` // from attrs.set

	Labels      []Label       `json:"labels,omitempty"`       // of a recording session: which stream is on which channel, and why
	RawMetadata []RawMetadata `json:"raw_metadata,omitempty"` // documents of the signalling, verbatim, in order of arrival

	// Refused counts, by key, what was beyond a limit and is not listed.
	Refused map[string]int64 `json:"refused,omitempty"`

	// SinceMS is set in accounts that are journalled while the call goes on:
	// gaps and digits that end before it are in earlier accounts. See Complete.
	SinceMS int64 `json:"since_ms,omitempty"`
}

// Complete adds to a journalled account what an earlier one, itself complete,
// lists before SinceMS. The result lists everything; neither argument is changed.
func Complete(earlier, account *Manifest) *Manifest {
	if account.SinceMS == 0 || earlier == nil {
		return account
	}
	m := *account
	m.SinceMS, m.Gaps, m.DTMF = 0, []Gap{}, []Digit{}
	for _, g := range earlier.Gaps {
		if g.RealMS+g.DurationMS < account.SinceMS {
			m.Gaps = append(m.Gaps, g)
		}
	}
	for _, d := range earlier.DTMF {
		if d.RealMS < account.SinceMS {
			m.DTMF = append(m.DTMF, d)
		}
	}
	m.Gaps = append(m.Gaps, account.Gaps...)
	slices.SortStableFunc(m.Gaps, func(a, b Gap) int {
		return cmp.Or(cmp.Compare(a.RealMS, b.RealMS), cmp.Compare(a.Channel, b.Channel))
	})
	m.DTMF = append(m.DTMF, account.DTMF...)
	return &m
}

// Call is the signalling's view of what was recorded.
type Call struct {
	SIPCallID string `json:"sip_call_id"`

	OtherSIPCallID string `json:"other_sip_call_id,omitempty"` // on the callee's leg, where that has another

	Direction string    `json:"direction"`
	From      string    `json:"from"`
	To        string    `json:"to"`
	Start     time.Time `json:"start"`
	Answer    time.Time `json:"answer,omitzero"`
	End       time.Time `json:"end"`
	EndCause  string    `json:"end_cause"`
}

// UnrecordedMedia is what the parties agreed on beside audio over RTP, for a time:
// video, a fax (T.38), messages. It was passed on and is not in the recording.
type UnrecordedMedia struct {
	Kind      string `json:"kind"`     // of the m= line: video, image, message, application, audio over something else
	Protocol  string `json:"protocol"` // RTP/AVP, udptl, TCP/MSRP, ...
	Formats   string `json:"formats"`  // separated by commas
	RealMS    int64  `json:"real_ms"`
	EndRealMS int64  `json:"end_real_ms"`
}

// Channel names the side that is heard on a channel.
type Channel struct {
	Side  string `json:"side"`            // external | internal: of a station, the far party and the station itself
	Party string `json:"party,omitempty"` // the address in the signalling
}

// Segment is one file of audio.
type Segment struct {
	N           int      `json:"n"` // from 1
	File        string   `json:"file"`
	Format      string   `json:"format,omitempty"` // when it is not the recording's
	RealMS      int64    `json:"real_ms"`
	AudioMS     int64    `json:"audio_ms"`
	EndRealMS   int64    `json:"end_real_ms"`
	DurationMS  int64    `json:"duration_ms"` // of its audio
	Bytes       int64    `json:"bytes"`
	SHA256      string   `json:"sha256"`                 // of the file's bytes, hex
	AudioSHA256 string   `json:"audio_sha256,omitempty"` // of its coded audio, the data of all frames in order, hex
	Parties     []string `json:"parties"`
}

// Window is a span that was suppressed, for one reason. Windows of different
// reasons may overlap.
type Window struct {
	Reason    string `json:"reason"`
	RealMS    int64  `json:"real_ms"`
	EndRealMS int64  `json:"end_real_ms"`
	AudioMS   int64  `json:"audio_ms"`
	Source    string `json:"source"`
	LateMS    int64  `json:"late_ms"`           // how long after its time the starting signal arrived
	MissedMS  int64  `json:"missed_ms"`         // how much of it was sealed by then and is in the recording
	Channel   *int   `json:"channel,omitempty"` // whose party alone it silences, without taking out any time
}

// ManifestSignal is a call-state signal and what it did.
type ManifestSignal struct {
	Event     suppress.Event `json:"event"`
	At        time.Time      `json:"at"`
	Source    string         `json:"source"`
	Seq       uint64         `json:"seq,omitempty"`
	LateMS    int64          `json:"late_ms"`
	MissedMS  int64          `json:"missed_ms"`
	Reasons   []string       `json:"reasons"` // active after it
	Refused   string         `json:"refused,omitempty"`
	Recording string         `json:"recording,omitempty"` // that it began or ended
	Flow      string         `json:"flow,omitempty"`
	Queue     string         `json:"queue,omitempty"`
	User      string         `json:"user,omitempty"`
	Role      suppress.Role  `json:"role,omitempty"`
	Party     string         `json:"party,omitempty"`
	Other     string         `json:"other,omitempty"`
}

// Causes of gaps.
const (
	GapLoss        = "loss"        // the network lost packets
	GapLate        = "late"        // packets came after their place was sealed
	GapAbsent      = "absent"      // nothing came though sending was agreed
	GapOverrun     = "overrun"     // the recorder could not take it: a full ring, a spent write budget, a failing store
	GapDisk        = "disk"        // the disk was too full for all recordings, and this one gave way
	GapKey         = "key"         // the key that it is sealed with was not to be used: its service did not answer, or took it back
	GapRestart     = "restart"     // the daemon was not there
	GapUndecodable = "undecodable" // packets came in a form that is not understood, or that could not be decrypted
	GapMasked      = "masked"      // it came, and was silenced for a key that was heard in it
)

// Gap is a span inside the audio that is filled, not captured.
type Gap struct {
	Channel    int    `json:"channel"`
	RealMS     int64  `json:"real_ms"`
	AudioMS    int64  `json:"audio_ms"`
	DurationMS int64  `json:"duration_ms"`
	Cause      string `json:"cause"`
	Filled     string `json:"filled"`           // silence | concealed
	Detail     string `json:"detail,omitempty"` // for the operator: the codec that was not understood, the error of the store
}

// Stream counts what came from one synchronisation source in one codec.
type Stream struct {
	Channel   int     `json:"channel"`
	SSRC      uint32  `json:"ssrc"`
	Codec     string  `json:"codec"`
	Packets   int64   `json:"packets"` // distinct RTP packets taken
	Lost      int64   `json:"lost"`
	Late      int64   `json:"late"`
	Duplicate int64   `json:"duplicate"`
	Reordered int64   `json:"reordered"`
	SkewPPM   float64 `json:"skew_ppm"`            // positive: the sender's clock is fast
	Recovered int64   `json:"recovered,omitempty"` // of the lost: taken out of later packets (FEC, RED), and no gap
	Overrun   int64   `json:"overrun,omitempty"`
	Undecoded int64   `json:"undecodable,omitempty"`
	Restarts  int64   `json:"restarts,omitempty"` // timestamp or sequence resets within the source
	Rejected  int64   `json:"rejected,omitempty"` // packets to its port that were neither RTP nor RTCP

	// Undecrypted counts packets to its port that could not be decrypted (SRTP). It
	// stands in the channel's last row; where nothing else came in one of its own, of
	// codec "SRTP".
	Undecrypted int64 `json:"undecrypted,omitempty"`

	// Quality of the source's way here over the whole call, on its first row; a
	// recording that a crash cut off has none.
	Quality *quality.Account `json:"quality,omitempty"`
}

// Digit is one digit that was dialled outside windows. Of a key that came in
// several ways the first of RFC 4733, INFO and tone is listed.
type Digit struct {
	Channel int    `json:"channel"`
	RealMS  int64  `json:"real_ms"` // where the key went down; of INFO as its arrival and duration tell
	Digit   string `json:"digit"`
	Method  string `json:"method,omitempty"` // info | inband; empty: RFC 4733
}

// Values of Digit.Method.
const (
	DigitInfo   = "info"   // SIP INFO, application/dtmf-relay or application/dtmf
	DigitInband = "inband" // a tone in the audio
)
