// Package mix lays the audio of one side of a call on a timeline of samples.
//
// A Track is fed with arrivals and decoded audio and read in steps, some way
// behind the wall clock. What was read is never moved. Positions are samples
// since the origin at the track's rate; times are ns since the session's base.
package mix

import "github.com/trunktap/trunktap/media/resample"

// Config of a Track. Zero fields take the defaults.
type Config struct {
	Rate         int   // Hz of positions and samples; default 8000
	HorizonMaxNS int64 // audio further than this beyond the cursor is dropped and counted; default 2 s, at most 30 s
}

// Limits of a Track.
const (
	RunsMax        = 6    // runs kept at once; those silent for longest are given up
	ActsMax        = 16   // changes between runs not yet read
	SpansMax       = 1024 // alternations of audio, silence and holes kept per run
	MarksMax       = 256  // emitted marks remembered for Resolved
	ResolutionsMax = 1024 // between two calls of Resolved
	NegotiatedMax  = 256  // changes of direction not yet read
)

// Cause says why samples are missing.
type Cause uint8

// Causes of a missing stretch.
const (
	Loss        Cause = iota // the network lost packets
	Late                     // packets came after their place was read
	Absent                   // nothing came though sending was agreed
	Undecodable              // packets came in a form that is not understood
	Overrun                  // the recorder could not take it
)

// String returns the manifest's word.
func (c Cause) String() string {
	names := [...]string{"loss", "late", "absent", "undecodable", "overrun"}
	if int(c) < len(names) {
		return names[c]
	}
	return "unknown"
}

// Key names a run of packets with one timestamp base.
type Key struct {
	SSRC  uint32
	Epoch int
}

// Mark is a stretch of samples that were read as filling, not as captured.
type Mark struct {
	At        int64 // position
	N         int   // samples
	Cause     Cause
	Concealed bool // filled by concealment instead of silence
}

// Resolution corrects marks that were emitted before: within [From, To) the
// missing samples are no gap at all (Withdrawn), or one of another cause. A
// stretch that had no mark gets one of this cause.
type Resolution struct {
	From, To  int64
	Cause     Cause
	Withdrawn bool
}

// Stats counts, in samples, what was given to the track and not read.
type Stats struct {
	Read        int64 // samples read
	Captured    int64 // of these from packets
	LateCut     int64 // audio whose place was read already
	Overlapped  int64 // audio that another run replaced, or that repeats timestamps
	Overrun     int64 // audio beyond the horizon
	Unanchored  int64 // audio of a run that no arrival announced
	Resampled   int64 // samples read while the placement was being corrected
	Corrections int64 // times that a correction began
}

// Track is the timeline of one side. Not safe for concurrent use.
type Track struct {
	rate    int64
	horizon int64 // samples
	size    int64 // samples of a run's ring at most, a power of two

	origin    int64 // ns
	hasOrigin bool
	cursor    int64 // next position to read
	endNS     int64 // from then on nothing is missed and nothing heard
	hasEnd    bool

	directions []direction // changes of what is negotiated, by time
	runs       []*run      // known, at most RunsMax
	acts       []act       // who is heard from where on, the last one last; at most ActsMax

	marks memory
	stats Stats

	filler    *resample.Resampler // of the rate of the last late packet
	fillPCM   []int16             // scratch
	fillSpans []span              // scratch
}

// act says that from index on a run is heard.
type act struct {
	run   *run
	index int64
}

type direction struct {
	ns      int64
	sending bool
}

const maxPos = int64(1) << 62

// NewTrack returns an empty track.
func NewTrack(cfg Config) *Track {
	if cfg.Rate <= 0 {
		cfg.Rate = 8000
	}
	if cfg.HorizonMaxNS <= 0 {
		cfg.HorizonMaxNS = 2e9
	}
	t := &Track{rate: int64(cfg.Rate)}
	t.horizon = min(cfg.HorizonMaxNS, 30e9) / 1000 * t.rate / 1e6
	// The resampler looks a few samples back behind the cursor.
	for t.size = 1024; t.size < t.horizon+4*taps; t.size *= 2 {
	}
	t.directions = make([]direction, 0, 16)
	t.runs = make([]*run, 0, RunsMax)
	t.acts = make([]act, 0, ActsMax)
	return t
}

// Rate of positions and samples in Hz.
func (t *Track) Rate() int { return int(t.rate) }

// Cursor is the position of the next sample that Read gives.
func (t *Track) Cursor() int64 { return t.cursor }

// Stats returns the counts so far.
func (t *Track) Stats() Stats { return t.stats }

// SetOrigin says that position 0 is at ns. Only the first call counts; nothing
// can be read before it, and audio that came before is kept as far as the
// horizon reaches.
func (t *Track) SetOrigin(ns int64) {
	if !t.hasOrigin {
		t.origin, t.hasOrigin = ns, true
	}
}

// Position converts a time to a position. ok is false before SetOrigin.
func (t *Track) Position(ns int64) (pos int64, ok bool) {
	return t.position(ns), t.hasOrigin
}

func (t *Track) position(ns int64) int64 { return mulDiv(ns-t.origin, t.rate, 1e9) }

// PositionOf is where a timestamp of a run lies, by what is known now: a digit
// of RFC 4733 lies where audio of its timestamp would. ok is false before
// SetOrigin and for an unknown run.
func (t *Track) PositionOf(k Key, ts int64) (pos int64, ok bool) {
	r := t.run(k)
	if r == nil || !t.hasOrigin {
		return 0, false
	}
	at := r.index(ts)
	if r.placed {
		return r.position(at), true
	}
	return at + t.aim(r, at), true
}

// mulDiv is floor(a*b/c) without overflow for |a*b| beyond 63 bits.
func mulDiv(a, b, c int64) int64 {
	q, r := a/c, a%c
	if r < 0 {
		q, r = q-1, r+c
	}
	return q*b + r*b/c
}

// Negotiated says that from ns on the side may send, or not. Silence without
// packets is a gap only while it may; at first it may not.
func (t *Track) Negotiated(ns int64, sending bool) {
	d := direction{ns, sending}
	t.passDirections()
	if n := len(t.directions); n > 0 {
		last := &t.directions[n-1]
		d.ns = max(ns, last.ns)
		if last.sending == sending {
			return
		}
		if n >= NegotiatedMax || last.ns == d.ns {
			*last = d
			return
		}
	}
	t.directions = append(t.directions, d)
}

// passDirections forgets the changes that lie well behind the cursor: what is
// read or resolved from now on asks for none of them.
func (t *Track) passDirections() {
	if len(t.directions) < NegotiatedMax/2 || !t.hasOrigin {
		return
	}
	n := 0
	for n+1 < len(t.directions) && t.position(t.directions[n+1].ns) < t.cursor-t.horizon {
		n++
	}
	t.directions = t.directions[:copy(t.directions, t.directions[n:])]
}

// End says that the call ends at ns: nothing is missed and nothing heard from
// there on.
func (t *Track) End(ns int64) { t.endNS, t.hasEnd = ns, true }

// end is the position of the call's end.
func (t *Track) end() int64 {
	if !t.hasEnd {
		return maxPos
	}
	return t.position(t.endNS)
}

// Arrived takes note of every accepted packet, on arrival and whatever it
// holds: timestamp and arrival feed the placement and the rate. clock is the
// media clock in Hz and fixed with the first packet of a run.
func (t *Track) Arrived(k Key, ts int64, clock int, arrival int64) {
	r := t.run(k)
	if r == nil {
		r = t.newRun(k, ts, clock)
	}
	r.delay.add(r.index(ts), arrival)
	r.lastArrival = max(r.lastArrival, arrival)
}

// Report feeds the NTP time (any era, ns) of a sender report and the RTP
// timestamp that belongs to it. It only ever tells a rate, and only as long as
// arrivals have not told it better.
func (t *Track) Report(k Key, ts, ntpNS int64) {
	if r := t.run(k); r != nil {
		r.delay.report(r.index(ts), ntpNS)
	}
}

// Audio lays the samples of one packet, in order and at the track's rate, from
// timestamp ts on. What lies between the run's last sample and ts is silence
// unless Hole says otherwise; marks that stand there already are withdrawn.
func (t *Track) Audio(k Key, ts int64, pcm []int16) { t.AudioAt(k, ts, int(t.rate), pcm) }

// AudioAt is Audio for a decoder of any rate (Hz) that package resample
// supports; at another it lays an Undecodable hole. Every sample comes to lie
// at its own time, and packets that follow each other join without a seam, also
// where the rate changes between them (another codec by payload type alone).
// The rate of the samples need not be that of the timestamps (G.722).
func (t *Track) AudioAt(k Key, ts int64, rate int, pcm []int16) {
	r := t.run(k)
	if r == nil || len(pcm) == 0 {
		t.stats.Unanchored += length(len(pcm), int64(rate), t.rate)
		return
	}
	t.lay(r, ts, rate, pcm, span{kind: audio})
	r.packet = length(len(pcm), int64(rate), t.rate)
}

// Conceal lays made-up samples in the place of missing ones: they are read, and
// marked.
func (t *Track) Conceal(k Key, ts int64, pcm []int16, cause Cause) {
	t.ConcealAt(k, ts, int(t.rate), pcm, cause)
}

// ConcealAt is Conceal for a decoder of any rate, see AudioAt.
func (t *Track) ConcealAt(k Key, ts int64, rate int, pcm []int16, cause Cause) {
	if r := t.run(k); r != nil && len(pcm) > 0 {
		t.lay(r, ts, rate, pcm, span{kind: hole, cause: cause, concealed: true})
	}
}

// Hole says that the samples from fromTS up to toTS are missing and why. Where
// they were read already, marks are corrected by Resolved.
func (t *Track) Hole(k Key, fromTS, toTS int64, cause Cause) {
	if r := t.run(k); r != nil && toTS > fromTS {
		t.extend(r, r.index(fromTS), r.index(toTS), span{kind: hole, cause: cause})
	}
}

// Silent says that nothing is missing from fromTS up to toTS though no audio
// comes: an RFC 4733 event, comfort noise.
func (t *Track) Silent(k Key, fromTS, toTS int64) {
	if r := t.run(k); r != nil && toTS > fromTS {
		t.extend(r, r.index(fromTS), r.index(toTS), span{kind: silent})
	}
}

// Late says that a packet of n ticks of the media clock came after its place
// was read (or given up): marks of loss or absence there become late.
func (t *Track) Late(k Key, ts int64, n int) {
	if r := t.run(k); r != nil && n > 0 {
		t.late(r, r.index(ts), r.index(ts+int64(n)))
	}
}

// Resolved returns the corrections since the last call. The slice is good until
// the next call of any method.
func (t *Track) Resolved() []Resolution { return t.marks.drain() }

// Skew is the rate of the sender's clock against the arrivals' in ppm, positive
// when the sender's is fast; 0 while it is unknown, and for a run long gone.
func (t *Track) Skew(k Key) float64 {
	if r := t.run(k); r != nil {
		return r.delay.skewPPM()
	}
	return 0
}

// run finds a run by its key.
func (t *Track) run(k Key) *run {
	for i := len(t.runs) - 1; i >= 0; i-- {
		if t.runs[i].key == k {
			return t.runs[i]
		}
	}
	return nil
}
