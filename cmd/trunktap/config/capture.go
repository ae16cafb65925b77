package config

import "time"

// TrunkRecording is what is recorded of the calls of a trunk.
type TrunkRecording struct {
	Enabled          bool
	OnFailure        string // allow | refuse
	Storage          string // region that recordings go to, or default; empty: default
	Priority         string // low | normal | high: who gets gaps first when the disk is full
	Format           string // ogg-opus | wav-pcm16 | wav-pcmu | wav-pcma | flac
	SampleRate       int    // Hz; 0: auto
	Opus             Opus
	Encode           Encode
	DualChannel      bool   // false: both sides mixed into one channel
	LevelControl     bool   // quiet and loud speakers come near to each other
	Conceal          bool   // codecs make up for lost packets
	G726Packing      string // rfc3551 | aal2: the order of bits under the names G726-16 to G726-40
	InbandDTMF       string // auto | on | off: whether tones are listed as digits
	MaskDTMF         bool   // keys are silenced in the audio
	EarlyMedia       bool
	Suppress         Suppress
	Suppressed       string        // cut | silence
	ExternalTransfer string        // stop | continue
	PauseAutoResume  time.Duration // a secure pause ends by itself after it; 0: never
	DiscardBelow     time.Duration // recordings with less audio are not kept

	Consent        string        // off | required
	ConsentPreroll bool          // keep in locked memory what is heard before consent; only with required
	ConsentTimeout time.Duration // how long the preroll is kept
	ConsentDTMF    ConsentDTMF

	Consult, Adhoc, Snippets bool // whether these recordings are made beside the main one

	ForkTo      []Recorder // other recorders that get a copy by SIPREC; empty: none
	ForkMode    string     // failover | all
	ForkAuth    Auth       // for the challenges of other recorders
	ForkWindows bool       // the copy has what is suppressed here, too

	Announce Announce
	Beep     Beep
	Rules    []Rule // the first that matches decides; none: recorded
}

// Recorder is another recorder that takes SIPREC.
type Recorder struct {
	URI string
	Hop NextHop // where its requests go
}

// Opus is how audio is coded for the format ogg-opus.
type Opus struct {
	Bitrate     int    // bit/s of a channel in which something is heard
	Complexity  int    // 0 to 10
	Application string // voip | audio
}

// Encode says when audio is coded for the format ogg-opus.
type Encode struct {
	Mode string // live | deferred
	As   string // wav-pcmu | wav-pcma | wav-pcm16 | flac: the format until then; only with deferred
}

// ConsentDTMF holds the digits that answer the question for consent.
type ConsentDTMF struct {
	Grant, Deny string // empty: none
	From        string // external | internal | any
}

// Suppress tells which states of a call are not recorded. A secure pause is
// never recorded.
type Suppress struct {
	IVR, Queue, Hold bool
	Flows, Queues    map[string]bool // what holds for a flow or queue of that name instead
}

// Announce is what is played when a call is answered.
type Announce struct {
	File string // an absolute path; empty: nothing
	To   string // both | external | internal
}

// Beep is a tone that tells the parties of the recording.
type Beep struct {
	Enabled         bool
	Preset          string        // none | genesys | fs1037c; the other fields are complete with it
	Frequency       int           // Hz
	SecondFrequency int           // Hz; 0: a single tone
	Duration        time.Duration // of one tone
	Interval        time.Duration // from the start of one to the start of the next
	Level           int           // dB of full scale, -60 to 0
	To              string        // both | external | internal
}

// Rule says whether the calls that it matches are recorded. A condition that
// is empty matches every call.
type Rule struct {
	Record    bool
	Percent   int      // of the calls that match; the others get the opposite of Record
	Direction string   // any | inbound | outbound
	From, To  []string // user parts of URIs, * stands for anything
	Days      []string // mon … sun: when the hours begin
	Hours     Hours
	TimeZone  string // IANA name
}

// Hours is a part of every day, in minutes since midnight of the clock on the
// wall: Begin is in it, End is not. Begin > End goes over midnight. The zero
// value is the whole day.
type Hours struct{ Begin, End int }

// Station is a user whose own side of calls is recorded.
type Station struct {
	User      string
	Addresses []string // SIP URIs, numbers and user parts; empty: User
	Recording StationRecording
}

// StationRecording is how recordings of a station are made.
type StationRecording struct {
	Enabled      bool
	Format       string        // ogg-opus | wav-pcm16 | wav-pcmu | wav-pcma | flac
	DualChannel  bool          // false: both sides mixed into one channel
	Suppressed   string        // cut | silence
	DiscardBelow time.Duration // recordings with less audio are not kept
	Storage      string        // region that recordings go to, or default; empty: that of the trunk
}

// StationsByState tells what begins the recordings of stations: true, the
// signal agent.join on a trunk; false, the calls of trunks with the role phones.
func (c *Config) StationsByState() bool {
	switch c.StationsFrom {
	case "state":
		return true
	case "legs":
		return false
	}
	for i := range c.Trunks {
		if c.Trunks[i].Role == "phones" {
			return false
		}
	}
	return true
}
