package quality

import "github.com/pion/rtcp"

// remote is what the receiver of a stream reported of it.
type remote struct {
	reports    uint32
	extended   uint32 // XR blocks
	highest    uint32
	lost       int32
	worst      uint8
	share      float64 // sum of the fractions lost, each times the packets it is of
	packets    float64
	jitter     uint32 // ticks
	jitterMax  uint32
	clock      int
	voip       VoIPMetrics
	statistics Statistics
}

// Remote is what the receiver of the stream says of it, in its reports of RFC
// 3550 section 6.4 and RFC 3611. It covers the way past the tap as well.
type Remote struct {
	Reports     int         `json:"reports"`
	Lost        int         `json:"lost"`         // cumulative; negative with duplicates
	LossPct     float64     `json:"loss_pct"`     // mean over the reports
	LossMaxPct  float64     `json:"loss_max_pct"` // of the worst report
	JitterMS    float64     `json:"jitter_ms"`    // of the last report
	JitterMaxMS float64     `json:"jitter_max_ms"`
	Duplicates  int64       `json:"duplicates,omitempty"` // of a statistics summary
	VoIP        *FarMetrics `json:"voip,omitempty"`       // of the last VoIP metrics block
}

// Report takes a report block on this stream.
func (s *Stream) Report(rr rtcp.ReceptionReport) {
	r := &s.remote
	weight := 1.0
	if d := int32(rr.LastSequenceNumber - r.highest); r.reports > 0 && d > 0 {
		weight = min(float64(d), dropoutPacketsMax)
	}
	r.share += float64(rr.FractionLost) / 256 * weight
	r.packets += weight
	r.worst = max(r.worst, rr.FractionLost)
	r.highest = rr.LastSequenceNumber
	r.lost = int32(rr.TotalLost<<8) >> 8 // 24 bits, signed
	r.jitter, r.jitterMax = rr.Jitter, max(r.jitterMax, rr.Jitter)
	r.clock = s.transit.clock
	r.reports++
}

// VoIP takes a VoIP metrics block on this stream.
func (s *Stream) VoIP(v VoIPMetrics) {
	s.remote.voip = v
	s.remote.extended++
}

// Summary takes a statistics summary block on this stream.
func (s *Stream) Summary(v Statistics) {
	s.remote.statistics = v
	s.remote.extended++
}

func (r *remote) account() *Remote {
	if r.reports == 0 && r.extended == 0 {
		return nil
	}
	out := &Remote{Reports: int(r.reports), Lost: int(r.lost), LossMaxPct: of256(r.worst), Duplicates: int64(r.statistics.Duplicate)}
	if r.packets > 0 {
		out.LossPct = round(r.share/r.packets*100, 2)
	}
	if r.clock > 0 {
		out.JitterMS = round(float64(r.jitter)*1e3/float64(r.clock), 2)
		out.JitterMaxMS = round(float64(r.jitterMax)*1e3/float64(r.clock), 2)
	}
	if r.voip.SSRC != 0 || r.voip.Reporter != 0 {
		out.VoIP = r.voip.far()
	}
	return out
}
