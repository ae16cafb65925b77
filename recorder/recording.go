package recorder

import (
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/level"
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/quality"
	"github.com/trunktap/trunktap/suppress"
)

// recordingInfo is what an output must know of its recording.
type recordingInfo struct {
	ID, Prefix string
	Kind       Kind
	User       string
	Storage    string
	Priority   Priority
	head       Manifest // what is known of it when it begins
}

// recording is one recording of a call: its rules, its segments and its
// account. Positions are milliseconds and samples since its own origin, which
// lies offsetMS behind the call's. Channel 1 is the party from whose side it is
// made, channel 0 the other one.
type recording struct {
	// constant after newRecording
	id          string
	kind        Kind
	user, other string
	prefix      string // folder in the store
	session     media.Session
	base        time.Time
	flip        bool // channel 1 is the external side
	out         output
	monitor     *monitoring // of the recording of kind trunk; nil: of another kind, or it has not begun
	vault       vault

	// constant after settle
	plan  Plan
	perMS int64

	now      int64 // the call's
	begun    bool
	origin   int64 // ns; valid when begun
	offsetMS int64 // its origin on the call's timeline
	answered time.Time
	stopMS   int64 // where it ends; -1 while that is not known
	stopTime time.Time
	cause    media.Cause

	timeline *suppress.Timeline
	applied  int // signals
	active   activeReasons
	gate     *suppress.Gate
	consent  consentState
	preroll  preroll
	sealedMS int64
	heardMS  int64 // of it outside windows
	owedMS   int64 // silence of the time before consent, which is written with what follows it

	pcm    [2][]int16
	level  [2]*level.Control // nil: as loud as it comes
	spans  []suppress.Span
	detail [2]string
	// undecrypted is of the sides that are heard on the channels; nil before the first chunk.
	undecrypted [2]*refusedList
	strays      [2]strayList
	// tainted is the sample up to which something of a channel was silenced because
	// it was made up of what is not kept.
	tainted [2]int64

	seg     segmentState
	account accountState
	parties partySet
	digits  []pendingDigit // not yet sealed, in order of position
	crowds  [2]crowd       // by channel: what digits has no room for
	dtmf    []Digit
	attrs   map[string]string
	conv    string
	signals []ManifestSignal
	docs    *documents         // of the call
	streams func() []Stream    // the rows of the call's streams
	others  func() []otherSpan // what the call has beside them
	quality func(side media.Side, ssrc uint32, codec string) *quality.Account
	before  []Stream // the same when it began

	resumed  bool  // it was begun by a process before,
	beforeMS int64 // and had so much audio then
}

// newRecording returns a recording that has not begun.
func (c *core) newRecording(id string, kind Kind, user, other string, p Plan, internal media.Side) *recording {
	p.Kind = kind
	r := &recording{
		prefix: Prefix(c.session.Start, c.conv, id),
		id:     id, kind: kind, user: user, other: other, plan: p, session: c.session, base: c.base,
		flip: internal == media.External, vault: c.vault, stopMS: -1, now: c.now,
		timeline: suppress.New(p.Rules), gate: suppress.NewGate(suppress.Cut), conv: c.conv, docs: &c.docs, streams: c.rows, others: func() []otherSpan { return c.others }, quality: c.qualityOf,
	}
	if p.Suppressed == SuppressedSilence {
		r.gate = suppress.NewGate(suppress.Silence)
	}
	if c.perMS != 0 {
		r.settle(c.plan.SampleRate)
	}
	if p.Rules.ConsentRequired {
		r.consent = consentPending
	}
	r.parties.init(c.session, kind, user, internal)
	r.out = c.outlet(recordingInfo{
		ID: id, Prefix: r.prefix, Kind: kind, User: user, Storage: p.Storage, Priority: p.Priority, head: *r.head(),
	})
	return r
}

func (r *recording) timeOf(ns int64) time.Time { return r.base.Add(time.Duration(ns)) }
func (r *recording) realMSOf(ns int64) int64   { return (ns - r.origin) / int64(time.Millisecond) }
func (r *recording) ns(t time.Time) int64      { return int64(t.Sub(r.base)) }
func (r *recording) msTime(ms int64) time.Time {
	return r.timeOf(r.origin + ms*int64(time.Millisecond))
}

// channel is where a side is heard.
func (r *recording) channel(side media.Side) int {
	if r.flip {
		return int(side.Other())
	}
	return int(side)
}

// side is who is heard on a channel.
func (r *recording) side(channel int) media.Side {
	if r.flip {
		return media.Side(channel).Other()
	}
	return media.Side(channel)
}

// beginning is read after a panic: plain fields alone.
func (r *recording) beginning() beginning {
	b := beginning{rate: r.plan.SampleRate, started: r.begun, origin: r.timeOf(r.origin).UTC().Round(0)}
	if !r.answered.IsZero() {
		b.answered = r.answered.UTC().Round(0)
	}
	return b
}

// live is what the API tells of the recording.
func (r *recording) live() LiveRecording {
	l := LiveRecording{ID: r.id, Kind: r.kind, User: r.user, Reasons: []string{}}
	if r.begun {
		l.Reasons = r.active.at(r.timeline, r.applied, max(r.realMSOf(r.now), r.sealedMS), r.now)
	}
	return l
}

// capturing tells whether what is said now is kept by the trunk's recording.
func (r *recording) capturing() bool {
	return r.kind == KindTrunk && r.begun && r.stopMS < 0 && r.timeline.Captured(max(r.realMSOf(r.now), r.sealedMS))
}

// begin fixes the origin, at a position of the call's timeline.
func (c *core) begin(r *recording, offsetMS int64) {
	r.offsetMS = offsetMS
	r.origin = c.origin + offsetMS*int64(time.Millisecond)
	r.answered, r.begun = c.answered, true
	if r.kind == KindTrunk {
		r.monitor = &c.monitor
		r.monitor.parties(r.parties.names())
	}
	r.timeline.SetOrigin(r.timeOf(r.origin))
	if r.consent == consentPending && r.plan.ConsentPreroll {
		r.preroll.begin(r, c.origin)
	}
	r.journal()
}

// journal opens the first segment and states the account before there is audio, so
// that a call of which nothing more became durable when the daemon dies has a
// recording all the same. Not before consent: until then nothing is kept of the call.
func (r *recording) journal() {
	if r.consent != consentPending && r.consent != consentDenied {
		r.seg.begin(r, 0)
		r.seg.state(r)
	}
}

// stop says where the recording ends. The first one counts, unless the call
// ends sooner.
func (r *recording) stop(atMS int64, at time.Time, cause media.Cause) {
	atMS = max(atMS, r.sealedMS)
	if r.stopMS >= 0 && r.stopMS <= atMS {
		return
	}
	r.stopMS, r.stopTime, r.cause = atMS, at, cause
}

// over tells whether everything up to its end is sealed, and consent decided.
func (r *recording) over() bool {
	return r.begun && r.stopMS >= 0 && !r.preroll.on && r.sealedMS >= r.stopMS
}

// refused tells whether nothing of the recording may exist: nobody consented to
// any part of it.
func (r *recording) refused() bool {
	return r.consent == consentPending || r.consent == consentDenied && r.heardMS == 0
}

// close finishes the recording. One of another kind than trunk exists only with
// consent and some time to it, and none that is shorter than wanted.
func (r *recording) close() {
	if r.monitor != nil {
		r.monitor.end()
	}
	if !r.begun {
		r.out.discard("it did not begin")
		return
	}
	r.preroll.wipe(r)
	r.timeline.End(r.sealedMS)
	if r.owedMS > 0 && !r.refused() {
		r.seg.settle(r, r.sealedMS) // consent came when all had passed in windows
	}
	r.finishSegment()
	m := r.manifest()
	r.rate(m)
	if w, ok := r.out.(*writer); ok {
		w.late = r.late()
	}
	switch {
	case r.resumed && r.beforeMS+m.AudioMS >= r.plan.DiscardBelow.Milliseconds():
		r.out.publish(m)
	case r.refused() && r.kind != KindTrunk:
		r.out.discard("no consent")
	case r.sealedMS == 0 && r.kind != KindTrunk:
		r.out.discard("it ended before it began")
	case !r.refused() && r.beforeMS+m.AudioMS < r.plan.DiscardBelow.Milliseconds():
		r.out.discard("shorter than discard_below")
	default:
		r.out.publish(m)
	}
}

// effectiveMS is the position at which something that happened at t may still act.
func (r *recording) effectiveMS(t time.Time) int64 {
	if !r.begun {
		return 0
	}
	return max(r.realMSOf(r.ns(t)), r.sealedMS)
}

// take gets a sealed chunk of the call.
func (r *recording) take(k *chunk) {
	if !r.begun || r.stopMS >= 0 && r.sealedMS+r.preroll.heldMS() >= r.stopMS {
		return
	}
	if r.preroll.on && r.preroll.hold(r, k) {
		return
	}
	r.process(k)
}

// process runs a chunk through the gate into the segment.
func (r *recording) process(k *chunk) {
	from, to := r.sealedMS, k.toMS-r.offsetMS
	if r.stopMS >= 0 {
		to = min(to, r.stopMS)
	}
	if to <= from {
		return
	}
	skip, n := (from+r.offsetMS-k.fromMS)*r.perMS, (to-from)*r.perMS
	ch := [2][]int16{r.pcm[0][:n], r.pcm[1][:n]}
	before := r.timeline.Pending()
	r.spans = r.timeline.Seal(to, r.spans[:0])
	if r.timeline.Pending() < before {
		r.account.dirty = true // a window begins or ends; what was written when its signal came tells nothing of it
	}
	var silenced [2]span
	var blended [2][]span
	for i := range ch {
		side := r.side(i)
		copy(ch[i], k.pcm[side][skip:skip+n])
		r.detail[i], r.undecrypted[i] = k.detail[side], k.refused[side]
		r.addGaps(i, k.marks[side], from, to, ch[i])
		blended[i] = r.unblend(i, k.blends[side], from, to, ch[i])
		r.resolve(i, k.resolved[side])
		silenced[i] = r.strays[i].mute(from*r.perMS, ch[i])
	}
	r.hearAll(from, to, ch)
	kept := r.gate.Pass(r.spans, r.plan.SampleRate, from, ch)
	r.sealedMS = to
	for i := range silenced {
		r.muted(i, silenced[i])
		r.unblended(i, blended[i])
	}
	r.keepDigits()
	r.record(kept)
}

// record appends what the gate let through to the open segment.
func (r *recording) record(kept [2][]int16) {
	at := 0
	for _, sp := range r.spans {
		r.hear(sp, kept, at)
		if sp.Suppressed && r.plan.Suppressed == SuppressedCut {
			r.relevel(sp)
			continue
		}
		if !sp.Suppressed {
			r.heardMS += sp.ToMS - sp.FromMS
		}
		if r.refused() && r.seg.audio == 0 {
			r.owedMS += sp.ToMS - sp.FromMS
			at += int((sp.ToMS - sp.FromMS) * r.perMS)
			continue
		}
		if r.plan.Level {
			n := int((sp.ToMS - sp.FromMS) * r.perMS)
			r.control(sp, [2][]int16{kept[0][at : at+n], kept[1][at : at+n]})
		}
		for from := sp.FromMS; from < sp.ToMS; {
			if r.parties.take(from) {
				if r.monitor != nil {
					r.monitor.parties(r.parties.names())
				}
				r.finishSegment()
			}
			to := r.parties.next(from+1, sp.ToMS)
			n := int((to - from) * r.perMS)
			r.seg.append(r, from, [2][]int16{kept[0][at : at+n], kept[1][at : at+n]})
			at += n
			from = to
		}
	}
	for i := range r.pcm {
		clear(r.pcm[i])
	}
	r.seg.tick(r)
}

// hear tells the monitor of a span whose samples begin at an index of kept.
func (r *recording) hear(sp suppress.Span, kept [2][]int16, at int) {
	if r.monitor == nil || r.monitor.m == nil {
		return
	}
	var ch [2][]int16
	if !sp.Suppressed {
		n := int((sp.ToMS - sp.FromMS) * r.perMS)
		ch = [2][]int16{kept[0][at : at+n], kept[1][at : at+n]}
	}
	r.monitor.hear(sp, r.plan.SampleRate, ch, r.refused())
}

// addGaps lists marks that lie in [fromMS, toMS), whose samples are pcm, and
// silences what was made up of what is not kept.
func (r *recording) addGaps(channel int, marks []mix.Mark, fromMS, toMS int64, pcm []int16) {
	first, last := fromMS*r.perMS, toMS*r.perMS
	for _, m := range marks {
		at := m.At - r.offsetMS*r.perMS
		s := span{max(at, first), min(at+int64(m.N), last)}
		if s.from >= s.to {
			continue
		}
		if m.Concealed && r.madeOfSuppressed(channel, s.from, fromMS) {
			clear(pcm[s.from-first : s.to-first])
			m.Concealed, r.tainted[channel] = false, max(r.tainted[channel], s.to)
		}
		r.listGap(channel, r.explain(channel, gap{s, gapCause(m.Cause), r.detailOf(channel, m.Cause), m.Concealed}))
	}
}

// listGap lists the kept parts of a gap: what lies inside a window is not listed.
func (r *recording) listGap(channel int, g gap) {
	for _, sp := range r.spans {
		if sp.Suppressed || sp.Mic && channel == 1 {
			continue
		}
		s := span{max(g.from, sp.FromMS*r.perMS), min(g.to, sp.ToMS*r.perMS)}
		if s.from < s.to {
			r.account.gaps[channel].add(g.of(s))
			r.account.dirty = true
		}
	}
}

// detailOf names, for the operator, what an undecodable span consisted of.
func (r *recording) detailOf(channel int, c mix.Cause) string {
	if c == mix.Undecodable {
		return r.detail[channel]
	}
	return ""
}

// resolve corrects gaps of which later packets told what they really were.
func (r *recording) resolve(channel int, list []mix.Resolution) {
	l := &r.account.gaps[channel]
	shift := r.offsetMS * r.perMS
	for _, x := range list {
		s := span{max(x.From-shift, 0), x.To - shift}
		if s.from >= s.to {
			continue
		}
		r.account.dirty = true
		r.seg.stale(s.from / r.perMS)
		for _, s := range l.withoutAny(s, GapMasked, GapRestart) {
			if x.Withdrawn {
				l.recause(s, "", "")
				continue
			}
			for _, k := range r.keptSpans(channel, s) {
				g := r.explain(channel, gap{span: k, cause: gapCause(x.Cause), detail: r.detailOf(channel, x.Cause)})
				l.cover(k, g.cause, g.detail)
			}
		}
	}
}

// keptSpans are the parts of sealed samples of a channel that lie outside windows.
func (r *recording) keptSpans(channel int, s span) []span {
	if s.to-s.from > keptStepMS*r.perMS {
		return r.keptOfLong(channel, s)
	}
	var out []span
	for ms := max(s.from, 0) / r.perMS; ms*r.perMS < s.to; ms++ {
		if !r.gate.Heard(channel, ms) {
			continue
		}
		p := span{max(s.from, ms*r.perMS), min(s.to, (ms+1)*r.perMS)}
		if n := len(out); n > 0 && out[n-1].to == p.from {
			out[n-1].to = p.to
			continue
		}
		out = append(out, p)
	}
	return out
}

// keptStepMS is the length from which on windows are listed instead of
// milliseconds tried.
const keptStepMS = 1000

// keptOfLong is keptSpans by the list of windows.
func (r *recording) keptOfLong(channel int, s span) (out []span) {
	at, to := max(s.from, 0), min(s.to, r.sealedMS*r.perMS)
	for _, w := range r.timeline.Windows(r.sealedMS) { // in order of start
		from, end := w.RealMS*r.perMS, w.EndRealMS*r.perMS
		if end <= at || w.Mic && channel != 1 {
			continue
		}
		if from >= to {
			break
		}
		if from > at {
			out = append(out, span{at, from})
		}
		at = end
	}
	if at < to {
		out = append(out, span{at, to})
	}
	return out
}

func gapCause(m mix.Cause) string {
	switch m {
	case mix.Late:
		return GapLate
	case mix.Absent:
		return GapAbsent
	case mix.Undecodable:
		return GapUndecodable
	case mix.Overrun:
		return GapOverrun
	case maskedCause:
		return GapMasked
	case restartCause:
		return GapRestart
	case mix.Loss:
	}
	return GapLoss
}

// newEncoder makes the encoder of a segment.
func (r *recording) newEncoder() (codec.Encoder, error) {
	return codec.NewEncoder(r.plan.Format, r.plan.SampleRate, codec.Options{
		Channels: r.channels(), Bitrate: r.plan.OpusBitrate, Complexity: r.plan.OpusComplexity, Application: r.plan.OpusApplication,
	})
}

func (r *recording) channels() int {
	if r.plan.Mono {
		return 1
	}
	return 2
}
