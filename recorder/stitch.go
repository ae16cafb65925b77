package recorder

import (
	"cmp"
	"maps"
	"slices"
)

// Stitch continues the account of a recording by that of what was recorded of it
// after a restart, whose origin lies where before ends. Neither is changed. An
// account that is journalled (SinceMS) needs before in the account it completes.
func Stitch(before, after *Manifest) *Manifest {
	m := *after
	real, audio := before.RealMS, before.AudioMS
	m.Origin, m.Call.Start = before.Origin, before.Call.Start
	if !before.Call.Answer.IsZero() {
		m.Call.Answer = before.Call.Answer
	}
	m.Conversation = cmp.Or(m.Conversation, before.Conversation)
	m.RealMS, m.AudioMS = real+after.RealMS, audio+after.AudioMS
	m.Segments = slices.Clone(before.Segments)
	n := lastSegment(before)
	for _, s := range after.Segments {
		s.N += n
		s.RealMS, s.EndRealMS, s.AudioMS = s.RealMS+real, s.EndRealMS+real, s.AudioMS+audio
		m.Segments = append(m.Segments, s)
	}
	m.Windows = stitchWindows(before, after)
	m.Gaps, m.DTMF = []Gap{}, []Digit{}
	if after.SinceMS > 0 {
		m.SinceMS = after.SinceMS + real
	} else {
		m.Gaps, m.DTMF = append(m.Gaps, before.Gaps...), append(m.DTMF, before.DTMF...)
	}
	for _, g := range after.Gaps {
		g.RealMS, g.AudioMS = g.RealMS+real, g.AudioMS+audio
		m.Gaps = append(m.Gaps, g)
	}
	for _, d := range after.DTMF {
		d.RealMS += real
		m.DTMF = append(m.DTMF, d)
	}
	m.Streams = stitchStreams(before.Streams, after.Streams)
	m.Signals = append(slices.Clone(before.Signals), after.Signals...)
	m.UnrecordedMedia, m.Copies = stitchUnrecorded(before, after), stitchCopies(before, after.Copies)
	m.Attrs = stitchAttrs(before.Attrs, after.Attrs)
	m.Labels, m.RawMetadata = stitchLabels(before, after), stitchRaw(before.RawMetadata, after.RawMetadata)
	m.Refused = stitchCounts(before.Refused, after.Refused)
	return &m
}

func lastSegment(m *Manifest) (n int) {
	for _, s := range m.Segments {
		n = max(n, s.N)
	}
	return n
}

// stitchWindows lists the windows of both; one that was open goes on as the same.
func stitchWindows(before, after *Manifest) []Window {
	out := append([]Window{}, before.Windows...)
	for _, w := range after.Windows {
		w.RealMS, w.EndRealMS, w.AudioMS = w.RealMS+before.RealMS, w.EndRealMS+before.RealMS, w.AudioMS+before.AudioMS
		i := slices.IndexFunc(out, func(o Window) bool {
			return w.RealMS == before.RealMS && o.EndRealMS == w.RealMS && o.Reason == w.Reason && (o.Channel == nil) == (w.Channel == nil)
		})
		if i < 0 {
			out = append(out, w)
			continue
		}
		out[i].EndRealMS = w.EndRealMS
		out[i].MissedMS += w.MissedMS
	}
	slices.SortStableFunc(out, func(a, b Window) int { return cmp.Compare(a.RealMS, b.RealMS) })
	return out
}

// stitchStreams adds up the rows of one source and codec.
func stitchStreams(before, after []Stream) []Stream {
	out := append([]Stream{}, before...)
	for _, s := range after {
		i := slices.IndexFunc(out, func(o Stream) bool { return o.Channel == s.Channel && o.SSRC == s.SSRC && o.Codec == s.Codec })
		if i < 0 {
			out = append(out, s)
			continue
		}
		o := &out[i]
		o.add(s)
		o.Rejected += s.Rejected
		o.Undecrypted += s.Undecrypted
		if s.SkewPPM != 0 {
			o.SkewPPM = s.SkewPPM
		}
		if s.Quality != nil {
			o.Quality = s.Quality // of what came after the restart
		}
	}
	return out
}

// stitchUnrecorded lists what was passed on beside both; what went on is one entry.
func stitchUnrecorded(before, after *Manifest) []UnrecordedMedia {
	out := slices.Clone(before.UnrecordedMedia)
	for _, u := range after.UnrecordedMedia {
		u.RealMS, u.EndRealMS = u.RealMS+before.RealMS, u.EndRealMS+before.RealMS
		i := slices.IndexFunc(out, func(o UnrecordedMedia) bool {
			return u.RealMS == before.RealMS && o.EndRealMS >= u.RealMS && o.Kind == u.Kind && o.Protocol == u.Protocol && o.Formats == u.Formats
		})
		if i < 0 {
			out = append(out, u)
			continue
		}
		out[i].EndRealMS = u.EndRealMS
	}
	return out
}

func stitchAttrs(before, after map[string]string) map[string]string {
	if before == nil {
		return after
	}
	out := maps.Clone(before)
	maps.Copy(out, after)
	return out
}

func stitchCounts(before, after map[string]int64) map[string]int64 {
	if before == nil {
		return after
	}
	out := maps.Clone(before)
	for k, n := range after {
		out[k] += n
	}
	return out
}

// stitchLabels lists the streams of a recording session of both; what is said again of
// one is no news.
func stitchLabels(before, after *Manifest) []Label {
	out := slices.Clone(before.Labels)
	for _, l := range after.Labels {
		l.AtMS += before.RealMS
		last := -1
		for i := range out {
			if out[i].Label == l.Label && (l.Label != "" || out[i].Channel == l.Channel) {
				last = i
			}
		}
		if last >= 0 && len(before.Labels) > last {
			was := out[last]
			if was.Channel == l.Channel && was.SideBy == l.SideBy && was.Mixed == l.Mixed && slices.Equal(was.Parties, l.Parties) {
				continue
			}
		}
		if len(out) < labelsMax {
			out = append(out, l)
		}
	}
	return out
}

// stitchRaw lists the documents of both, within the limits of one recording.
func stitchRaw(before, after []RawMetadata) []RawMetadata {
	out, room := slices.Clone(before), rawBytesMax
	for _, d := range before {
		room -= len(d.Text)
	}
	for _, d := range after {
		if room -= len(d.Text); room < 0 || len(out) >= rawDocumentsMax {
			break
		}
		out = append(out, d)
	}
	return out
}
