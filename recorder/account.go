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
func (c *core) journalled() *Manifest {
	since := int64(0)
	if c.seg.stated {
		since = max(0, c.seg.statedMS-accountTailMS)
	}
	c.seg.stated, c.seg.statedMS = true, c.sealedMS
	c.seg.lastStated, c.account.dirty = c.now, false
	return c.manifestSince(since)
}

// manifest builds the account of everything sealed so far.
func (c *core) manifest() *Manifest { return c.manifestSince(0) }

func (c *core) manifestSince(since int64) *Manifest {
	m := &Manifest{
		Version: Version, ID: c.session.ID, Conversation: c.conv, Kind: c.plan.Kind, Trunk: c.session.Trunk,
		Call: Call{
			SIPCallID: c.session.SIPCallID, Direction: string(c.session.Direction), From: c.session.From, To: c.session.To,
			Start: c.session.Start.UTC().Round(0), EndCause: string(c.cause),
		},
		Format: c.plan.Format, SampleRate: c.plan.SampleRate, Suppressed: c.plan.Suppressed,
		Channels: []Channel{{Side: media.External.String()}, {Side: media.Internal.String()}},
		Origin:   c.timeOf(c.origin).UTC().Round(0), RealMS: c.sealedMS, AudioMS: c.gate.AudioMS(c.sealedMS),
		Segments: append([]Segment{}, c.seg.done...),
		Windows:  c.windows(), Gaps: c.gaps(since), Streams: c.rows(), Attrs: maps.Clone(c.attrs), SinceMS: since,
		Refused: maps.Clone(c.account.refused),
	}
	first, _ := slices.BinarySearchFunc(c.dtmf, since, func(d Digit, ms int64) int { return cmp.Compare(d.RealMS, ms) })
	m.DTMF = append([]Digit{}, c.dtmf[first:]...)
	if c.plan.Mono {
		m.Channels = []Channel{{Side: "mixed"}}
	}
	if !c.answered.IsZero() {
		m.Call.Answer = c.answered.UTC().Round(0)
	}
	m.Call.End = c.msTime(c.sealedMS).UTC().Round(0)
	if c.endMS >= 0 {
		m.Call.End = c.endTime.UTC().Round(0)
	}
	if c.seg.open && !c.seg.empty() {
		s := c.seg.info
		s.DurationMS = (c.seg.samples + int64(len(c.seg.pend[0]))) / c.perMS
		m.Segments = append(m.Segments, s)
	}
	return m
}

func (c *core) windows() []Window {
	out := []Window{}
	for _, w := range c.timeline.Windows(c.sealedMS) {
		out = append(out, Window{
			Reason: string(w.Reason), RealMS: w.RealMS, EndRealMS: w.EndRealMS, AudioMS: c.gate.AudioMS(w.RealMS),
			Source: w.Source, LateMS: w.LateMS, MissedMS: w.MissedMS,
		})
	}
	return out
}

// gaps lists both channels' gaps that end at since or later, in order of
// position. Rounding each edge, not the length, keeps neighbours touching.
func (c *core) gaps(since int64) []Gap {
	out := []Gap{}
	a, b := c.gapsFrom(0, since), c.gapsFrom(1, since)
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
		from, to := c.roundMS(g.from), c.roundMS(g.to)
		if from == to {
			continue
		}
		out = append(out, Gap{
			Channel: ch, RealMS: from, AudioMS: c.gate.AudioMS(from), DurationMS: to - from,
			Cause: g.cause, Filled: "silence", Detail: g.detail,
		})
	}
	for ch := range c.account.gaps {
		c.addOverflow(out, ch)
	}
	return out
}

func (c *core) gapsFrom(channel int, since int64) []gap {
	list := c.account.gaps[channel].gaps
	first, _ := slices.BinarySearchFunc(list, since, func(g gap, ms int64) int { return cmp.Compare(c.roundMS(g.to), ms) })
	return list[first:]
}

// addOverflow puts the gaps beyond the list's limit onto the channel's last one.
func (c *core) addOverflow(out []Gap, ch int) {
	l := &c.account.gaps[ch]
	if l.overflow == 0 {
		return
	}
	for i := len(out) - 1; i >= 0; i-- {
		if out[i].Channel == ch {
			out[i].DurationMS += c.roundMS(l.overflowSamples)
			out[i].Detail = fmt.Sprintf("with %d later gaps that are not listed", l.overflow)
			return
		}
	}
}

func (c *core) roundMS(samples int64) int64 { return (samples + c.perMS/2) / c.perMS }

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
		if ppm := s.track.Skew(st.key); !math.IsNaN(ppm) {
			e.SkewPPM = math.Round(ppm*10) / 10
		}
		out = append(out, e)
	}
	return out
}
