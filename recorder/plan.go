package recorder

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// Formats of segments.
const (
	FormatWAVPCM16 = "wav-pcm16"
	FormatWAVPCMU  = "wav-pcmu"
	FormatWAVPCMA  = "wav-pcma"
	FormatOggOpus  = "ogg-opus"
	FormatFLAC     = "flac"
)

// RateAuto as Plan.SampleRate is the rate of the best codec that is agreed when
// the first packet or the answer comes, whichever is first: 8000, 16000 or
// 48000 Hz, the least that takes nothing from it. It stays for the whole call.
const RateAuto = 0

// rateNarrow is the rate of telephony, and of the companded formats.
const rateNarrow = 8000

// Values of Plan.Suppressed.
const (
	SuppressedCut     = "cut"
	SuppressedSilence = "silence"
)

// Values of Plan.InbandDTMF.
const (
	InbandAuto = "auto"
	InbandOn   = "on"
	InbandOff  = "off"
)

// Bounds of a Plan.
const (
	lookbackMax   = 5 * time.Second
	segmentMaxMin = time.Second
	segmentMaxMax = time.Hour
)

// Plan says how one call is recorded. It is fixed when the call begins; a
// reload changes the plans of later calls alone.
type Plan struct {
	Kind       Kind
	Format     string // wav-pcm16 | wav-pcmu | wav-pcma | ogg-opus | flac
	SampleRate int    // Hz; 8000, 16000, 48000 or RateAuto; of wav-pcmu and wav-pcma 8000
	Mono       bool   // mix both channels into one file channel
	Level      bool   // bring quiet and loud speakers near to each other (media/level)
	Rules      suppress.Rules
	Suppressed string // cut | silence
	EarlyMedia bool   // the origin is the first media packet instead of the answer
	Conceal    bool   // a codec makes up for lost packets, instead of silence
	G726AAL2   bool   // who says G726-… packs it as AAL2-G726-…

	Lookback   time.Duration // how long samples stay unsealed so that a late signal still acts; 0…5 s
	SegmentMax time.Duration // audio a segment holds at most; 1 s…1 h

	OpusBitrate     int    // bit/s a channel; 0: 16000
	OpusComplexity  int    // 0…10
	OpusApplication string // voip | audio; empty: voip

	// ConsentPreroll keeps what is heard before consent is decided in locked
	// memory, for ConsentTimeout at most, and writes it when consent is granted.
	ConsentPreroll bool
	ConsentTimeout time.Duration

	DiscardBelow time.Duration // recordings with less audio are not kept

	// InbandDTMF says whether tones are listed as digits: auto looks for them
	// where a side has not agreed on RFC 4733, on everywhere, off never. What is
	// found for the sake of Codes or MaskDTMF is listed too, unless it is off.
	// Empty: auto.
	InbandDTMF string

	// MaskDTMF silences the keys of both sides in the audio: tones and events,
	// from maskBefore before them to maskAfter behind them.
	MaskDTMF bool

	// Codes are digits that are signals when that side types them.
	Codes [2][]suppress.Code // by media.Side

	// Other recordings of the same call.
	NoTrunk                  bool // none of kind trunk is made
	Consult, Adhoc, Snippets bool // may be made, in the way of this plan
	Stations                 Stations

	Storage  string   // name of the store that its recordings go to; empty: the one that has no name
	Priority Priority // when there is no room for all

	// RefuseUnready makes SessionStarted fail when the store, the keys or the
	// write budget cannot take the call now (on_failure: refuse).
	RefuseUnready bool
}

// Stations tells which users' own sides of a call are recorded, and how. Safe
// for concurrent use; a call keeps the one that it began with.
type Stations interface {
	// Station returns the user that a participant is; false: none.
	Station(p media.Participant) (user string, ok bool)
	// Plan returns how recordings of the user are made; false: no station.
	Plan(user string) (Plan, bool)
	// ByState tells whether agent.join and agent.leave begin and end recordings
	// of stations that are no participant of the call's signalling.
	ByState() bool
}

// DefaultPlan is what the configuration's defaults amount to.
func DefaultPlan() Plan {
	return Plan{
		Kind: KindTrunk, Format: FormatOggOpus, SampleRate: RateAuto,
		Rules:      suppress.Rules{IVR: true, Queue: true, Hold: true, ExternalTransferStop: true},
		Suppressed: SuppressedCut, Conceal: true, Lookback: 500 * time.Millisecond, SegmentMax: 5 * time.Minute,
		OpusBitrate: 16000, OpusComplexity: 1, OpusApplication: "voip", ConsentTimeout: time.Minute, Adhoc: true, Snippets: true,
		InbandDTMF: InbandAuto,
	}
}

// requireConsent makes the plan ask for consent as another one does.
func (p *Plan) requireConsent(as Plan) {
	p.Rules.ConsentRequired = true
	p.ConsentPreroll, p.ConsentTimeout = as.ConsentPreroll, as.ConsentTimeout
}

// maskLag is what audio is held back longer for the sake of MaskDTMF.
func (p *Plan) maskLag() time.Duration {
	if p.MaskDTMF {
		return maskLag
	}
	return 0
}

// Validate lists every fault of the plan.
func (p Plan) Validate() error {
	var errs []error
	switch p.Format {
	case FormatWAVPCM16, FormatOggOpus, FormatFLAC:
	case FormatWAVPCMU, FormatWAVPCMA:
		if p.SampleRate != rateNarrow {
			errs = append(errs, fmt.Errorf("format %s at a sample rate of %d (0: auto): want 8000, or another format", p.Format, p.SampleRate))
		}
	default:
		errs = append(errs, fmt.Errorf("format %q: want wav-pcm16, wav-pcmu, wav-pcma, ogg-opus or flac", p.Format))
	}
	switch p.SampleRate {
	case RateAuto, 8000, 16000, 48000:
	default:
		errs = append(errs, fmt.Errorf("sample rate %d: want 8000, 16000, 48000 or 0 for auto", p.SampleRate))
	}
	if p.Suppressed != SuppressedCut && p.Suppressed != SuppressedSilence {
		errs = append(errs, fmt.Errorf("suppressed %q: want cut or silence", p.Suppressed))
	}
	switch p.InbandDTMF {
	case "", InbandAuto, InbandOn, InbandOff:
	default:
		errs = append(errs, fmt.Errorf("inband_dtmf %q: want auto, on or off", p.InbandDTMF))
	}
	if p.Lookback < 0 || p.Lookback > lookbackMax {
		errs = append(errs, fmt.Errorf("lookback %v: want 0 to %v", p.Lookback, lookbackMax))
	}
	if p.SegmentMax < segmentMaxMin || p.SegmentMax > segmentMaxMax {
		errs = append(errs, fmt.Errorf("segment_max %v: want %v to %v", p.SegmentMax, segmentMaxMin, segmentMaxMax))
	}
	return errors.Join(errs...)
}

// Policy decides which calls are recorded and how. Safe for concurrent use.
type Policy interface {
	// Plan returns how to record the session; false: do not record it.
	Plan(s media.Session) (Plan, bool)
}

// Prefix is the folder of a recording in a store: by day of its call's start, in
// UTC, and by conversation as far as that was known when the recording began.
func Prefix(start time.Time, conversation, id string) string {
	day := start.UTC().Format("2006/01/02/")
	if conversation == "" {
		return day + id
	}
	return day + folderOf(conversation) + "/" + id
}

// folderOf names the folder of a conversation: a derived id (media.ConversationID)
// as it is, another one, which may hold anything, by its hash.
func folderOf(conversation string) string {
	if len(conversation) == conversationIDLen && strings.Trim(conversation, "0123456789abcdef") == "" {
		return conversation
	}
	return media.ConversationID("named\x00" + conversation)
}

// conversationIDLen is the length of what media.ConversationID gives.
const conversationIDLen = 24
