package recorder

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/trunktap/trunktap/media"
)

// accountState is what the manifest says beside the audio itself.
type accountState struct {
	gaps  [2]gapList
	dirty bool   // something of essence changed since it was last written
	fault string // why nothing is coded

	refused map[string]int64 // by the manifest's key: what was beyond a limit
}

// refuse counts something that the manifest has no room for.
func (a *accountState) refuse(key string) {
	if a.refused == nil {
		a.refused = make(map[string]int64)
	}
	a.refused[key]++
	a.dirty = true
}

// accountTailMS is how far back a journalled account repeats what the one before
// it said: what later packets may still correct.
const accountTailMS = 15000

// journalled builds an account to go with a frame: whole at the beginning of a
// segment, else what is new, so that a long call with many gaps does not write
// all of them twice a second.
func (r *recording) journalled() *Manifest {
	since := int64(0)
	if r.seg.stated {
		since = max(0, r.seg.statedMS-accountTailMS)
	}
	r.seg.stated, r.seg.statedMS = true, r.sealedMS
	r.seg.lastStated, r.account.dirty = r.now, false
	return r.manifestSince(since)
}

// manifest builds the account of everything sealed so far.
func (r *recording) manifest() *Manifest { return r.manifestSince(0) }

func (r *recording) manifestSince(since int64) *Manifest {
	m := r.head()
	m.Origin = r.timeOf(r.origin).UTC().Round(0)
	m.RealMS, m.AudioMS = r.sealedMS, r.gate.AudioMS(r.sealedMS)-r.owedMS
	m.Segments, m.Windows, m.Gaps = append([]Segment{}, r.seg.done...), r.windows(), r.gaps(since)
	m.Streams, m.Signals = r.rows(), append([]ManifestSignal{}, r.signals...)
	m.UnrecordedMedia, m.Copies = r.unrecorded(), r.copies()
	m.Attrs, m.Refused, m.SinceMS = maps.Clone(r.attrs), maps.Clone(r.account.refused), since
	m.Labels, m.RawMetadata = r.labels(), slices.Clip(r.docs.raw)
	first, _ := slices.BinarySearchFunc(r.dtmf, since, func(d Digit, ms int64) int { return cmp.Compare(d.RealMS, ms) })
	m.DTMF = append([]Digit{}, r.dtmf[first:]...)
	m.Call.End, m.Call.EndCause = r.msTime(r.sealedMS).UTC().Round(0), ""
	if r.stopMS >= 0 && r.sealedMS >= r.stopMS {
		m.Call.End, m.Call.EndCause = r.stopTime.UTC().Round(0), string(r.cause)
	}
	if r.seg.open && !r.seg.empty() {
		s := r.seg.info
		s.DurationMS = (r.seg.samples + int64(r.seg.waiting())) / r.perMS
		m.Segments = append(m.Segments, s)
	}
	return m
}

// head is the part of the manifest that tells what is recorded.
func (r *recording) head() *Manifest {
	m := &Manifest{
		Version: Version, ID: r.id, Conversation: r.conv, Kind: r.kind, User: r.user, Other: r.other,
		Consent: r.consent.String(), Trunk: r.session.Trunk,
		Call: Call{
			SIPCallID: r.session.SIPCallID, OtherSIPCallID: r.session.OtherSIPCallID, Direction: string(r.session.Direction), From: r.session.From, To: r.session.To,
			Start: r.session.Start.UTC().Round(0),
		},
		Format: r.plan.Format, SampleRate: r.plan.SampleRate, Suppressed: r.plan.Suppressed, Channels: r.channelList(),
		Segments: []Segment{}, Windows: []Window{}, Gaps: []Gap{}, Streams: []Stream{}, DTMF: []Digit{},
	}
	if !r.answered.IsZero() {
		m.Call.Answer = r.answered.UTC().Round(0)
	}
	return m
}

func (r *recording) channelList() []Channel {
	if r.plan.Mono {
		return []Channel{{Side: "mixed"}}
	}
	out := []Channel{{Side: media.External.String()}, {Side: media.Internal.String()}}
	for i := range out {
		for _, p := range r.session.Parties {
			if p.Side == r.side(i) {
				out[i].Party = p.URI
			}
		}
	}
	return out
}

// rows lists the streams with what was counted since the recording began.
func (r *recording) rows() []Stream {
	out := r.streams()
	type source struct {
		channel int
		ssrc    uint32
		codec   string
	}
	earlier, rejected, undecrypted := make(map[source]*Stream, len(r.before)), [2]int64{}, [2]int64{}
	for _, b := range r.before { // a source that was retired and came again has several rows
		k := source{b.Channel, b.SSRC, b.Codec}
		if earlier[k] == nil {
			earlier[k] = &Stream{}
		}
		earlier[k].add(b)
		rejected[b.Channel] += b.Rejected
		undecrypted[b.Channel] += b.Undecrypted
	}
	for i := range out {
		s := &out[i]
		if b := earlier[source{s.Channel, s.SSRC, s.Codec}]; b != nil {
			s.subtract(b)
		}
		take(&s.Rejected, &rejected[s.Channel])
		take(&s.Undecrypted, &undecrypted[s.Channel])
		s.Channel = r.channel(media.Side(s.Channel))
	}
	return slices.DeleteFunc(out, func(s Stream) bool { return r.before != nil && s.Packets == 0 && s.Lost == 0 && s.Undecrypted == 0 })
}

func (s *Stream) add(b Stream) {
	s.Packets += b.Packets
	s.Lost += b.Lost
	s.Late += b.Late
	s.Recovered += b.Recovered
	s.Duplicate += b.Duplicate
	s.Reordered += b.Reordered
	s.Overrun += b.Overrun
	s.Undecoded += b.Undecoded
	s.Restarts += b.Restarts
}

// subtract takes from the counts what b has, and that from b; never below nothing.
func (s *Stream) subtract(b *Stream) {
	take(&s.Packets, &b.Packets)
	take(&s.Lost, &b.Lost)
	take(&s.Late, &b.Late)
	take(&s.Recovered, &b.Recovered)
	take(&s.Duplicate, &b.Duplicate)
	take(&s.Reordered, &b.Reordered)
	take(&s.Overrun, &b.Overrun)
	take(&s.Undecoded, &b.Undecoded)
	take(&s.Restarts, &b.Restarts)
}

func take(from, n *int64) {
	d := max(0, min(*from, *n))
	*from -= d
	*n -= d
}

func (r *recording) windows() []Window {
	out := []Window{}
	for _, w := range r.timeline.Windows(r.sealedMS) {
		out = append(out, Window{
			Reason: string(w.Reason), RealMS: w.RealMS, EndRealMS: w.EndRealMS, AudioMS: max(0, r.gate.AudioMS(w.RealMS)-r.owedMS),
			Source: w.Source, LateMS: w.LateMS, MissedMS: w.MissedMS, Channel: micOnly(w.Mic),
		})
	}
	return out
}

// micOnly names the channel of a window that silences one alone.
func micOnly(mic bool) *int {
	if !mic {
		return nil
	}
	channel := 1
	return &channel
}

// gaps lists both channels' gaps that end at since or later, in order of
// position. Rounding each edge, not the length, keeps neighbours touching.
func (r *recording) gaps(since int64) []Gap {
	out := []Gap{}
	a, b := r.gapsFrom(0, since), r.gapsFrom(1, since)
	for len(a) > 0 || len(b) > 0 {
		ch := 0
		if len(a) == 0 || len(b) > 0 && b[0].from < a[0].from {
			ch = 1
		}
		var g gap
		if ch == 0 {
			g, a = a[0], a[1:]
		} else {
			g, b = b[0], b[1:]
		}
		from, to := r.roundMS(g.from), r.roundMS(g.to)
		if from == to {
			continue
		}
		out = append(out, Gap{
			Channel: ch, RealMS: from, AudioMS: r.gate.AudioMS(from), DurationMS: to - from,
			Cause: g.cause, Filled: filled(g), Detail: g.detail,
		})
	}
	for ch := range r.account.gaps {
		r.addOverflow(out, ch)
	}
	return out
}

func filled(g gap) string {
	if g.concealed {
		return "concealed"
	}
	return "silence"
}

func (r *recording) gapsFrom(channel int, since int64) []gap {
	list := r.account.gaps[channel].gaps
	first, _ := slices.BinarySearchFunc(list, since, func(g gap, ms int64) int { return cmp.Compare(r.roundMS(g.to), ms) })
	return list[first:]
}

// addOverflow puts the gaps beyond the list's limit onto the channel's last one.
func (r *recording) addOverflow(out []Gap, ch int) {
	l := &r.account.gaps[ch]
	if l.overflow == 0 {
		return
	}
	for i := len(out) - 1; i >= 0; i-- {
		if out[i].Channel == ch {
			out[i].DurationMS += r.roundMS(l.overflowSamples)
			out[i].Detail = fmt.Sprintf("with %d later gaps that are not listed", l.overflow)
			return
		}
	}
}

func (r *recording) roundMS(samples int64) int64 { return (samples + r.perMS/2) / r.perMS }

// rows lists the streams: per channel in order of first packet, per codec.
func (c *core) rows() []Stream {
	out := []Stream{}
	for _, s := range c.sides {
		first := len(out)
		out = append(out, s.retired...)
		for _, st := range s.order {
			out = append(out, s.rowsOf(st)...)
		}
		if s.rejected > 0 && len(out) > first {
			out[len(out)-1].Rejected = s.rejected
		}
		if n := s.refused.packets; n > 0 {
			if len(out) == first {
				out = append(out, Stream{Channel: int(s.is), Codec: "SRTP"})
			}
			out[len(out)-1].Undecrypted = n
		}
	}
	return out
}

// rowsOf lists one source, a row a codec. What is counted of the source as a
// whole stands in its first row.
func (s *side) rowsOf(st *stream) []Stream {
	var out []Stream
	stats := st.state.Stats()
	for i, r := range st.rows {
		e := Stream{
			Channel: int(s.is), SSRC: st.ssrc, Codec: r.codec, Packets: r.packets, Lost: r.lost, Late: r.late, Undecoded: r.undecodable,
		}
		if i == 0 {
			e.Duplicate, e.Reordered, e.Restarts, e.Overrun = stats.Duplicate, stats.Reordered, stats.Restarts, st.dropped
		}
		e.Recovered, e.SkewPPM = r.recovered, s.skew(st)
		out = append(out, e)
	}
	return out
}

// skew of a source's clock, to a tenth of a ppm.
func (s *side) skew(st *stream) float64 {
	ppm := s.track.Skew(st.key)
	if math.IsNaN(ppm) {
		return 0
	}
	return math.Round(ppm*10) / 10
}
