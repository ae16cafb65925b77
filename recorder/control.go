package recorder

import (
	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mix"
	"github.com/trunktap/trunktap/media/quality"
	"github.com/trunktap/trunktap/media/source"
)

// control takes an RTCP packet that the side sent: its sender reports tell the
// rate of its clocks, its reports on the other side's streams how these arrived.
func (s *side) control(c *core, wire []byte, arrival int64) {
	if err := source.ParseReports(wire, &s.reports); err != nil {
		s.malformed++
	}
	for _, sr := range s.reports.Sender {
		st := s.sources[sr.SSRC]
		if st == nil {
			continue
		}
		if ts, ok := st.state.SenderReport(sr); ok {
			s.track.Report(mix.Key{SSRC: sr.SSRC, Epoch: st.state.Base()}, ts, sr.NTPNanos())
		}
	}
	// What is malformed was counted above; what was understood before it counts.
	_ = c.rtcp.RTCP(int(s.is), wire, arrival, func(side int, ssrc uint32) *quality.Stream {
		if st := c.sides[side].sources[ssrc]; st != nil {
			return &st.quality
		}
		return nil
	})
}

// qualityOf is the quality account of a source, of the whole call so far; nil for
// one that is no longer followed.
func (c *core) qualityOf(side media.Side, ssrc uint32, codec string) *quality.Account {
	s := c.sides[side]
	st := s.sources[ssrc]
	if st == nil {
		return nil
	}
	a := st.quality.Snapshot(quality.Inputs{
		Codec: codec, ClockRate: st.state.Clock, PLC: true, ConcealedMS: st.concealed, SkewPPM: s.skew(st),
		Near: c.rtcp.Halves[side].Trip(), Far: c.rtcp.Halves[side.Other()].Trip(),
	})
	return &a
}

// rate adds the quality accounts to a manifest, one to the first row of each
// source.
func (r *recording) rate(m *Manifest) {
	type source struct {
		channel int
		ssrc    uint32
	}
	rated := make(map[source]bool, len(m.Streams))
	for i := range m.Streams {
		s := &m.Streams[i]
		if k := (source{s.Channel, s.SSRC}); !rated[k] {
			rated[k] = true
			s.Quality = r.quality(r.side(s.Channel), s.SSRC, s.Codec)
		}
	}
}
