package quality

import "encoding/binary"

// VoIPMetrics is a VoIP metrics report block (RFC 3611 section 4.7), as it
// stands on the wire.
type VoIPMetrics struct {
	Reporter, SSRC            uint32
	LossRate, DiscardRate     uint8 // 1/256 of the packets
	BurstDensity, GapDensity  uint8 // 1/256 of the packets in bursts, in gaps
	BurstMS, GapMS            uint16
	RoundTripMS, EndSystemMS  uint16
	Signal, Noise             int8  // dBm0; 127: unknown
	RERL, Gmin                uint8 // RERL: dB, 127: unknown
	R, ExternalR              uint8 // 127: unknown
	MOSLQ, MOSCQ              uint8 // tenths; 127: unknown
	Receiver                  uint8 // concealment and jitter buffer, section 4.7.6
	BufferNominalMS           uint16
	BufferMaxMS, BufferAbsMax uint16
}

// unknown is what a field of VoIPMetrics says when its value is not known.
const unknown = 127

func voipMetrics(reporter uint32, b []byte) VoIPMetrics {
	be := binary.BigEndian
	return VoIPMetrics{
		Reporter: reporter, SSRC: be.Uint32(b),
		LossRate: b[4], DiscardRate: b[5], BurstDensity: b[6], GapDensity: b[7],
		BurstMS: be.Uint16(b[8:]), GapMS: be.Uint16(b[10:]), RoundTripMS: be.Uint16(b[12:]), EndSystemMS: be.Uint16(b[14:]),
		Signal: int8(b[16]), Noise: int8(b[17]), RERL: b[18], Gmin: b[19],
		R: b[20], ExternalR: b[21], MOSLQ: b[22], MOSCQ: b[23], Receiver: b[24],
		BufferNominalMS: be.Uint16(b[26:]), BufferMaxMS: be.Uint16(b[28:]), BufferAbsMax: be.Uint16(b[30:]),
	}
}

// Concealment names the receiver's packet loss concealment.
func (v VoIPMetrics) Concealment() string {
	return [...]string{"", "disabled", "enhanced", "standard"}[v.Receiver>>6]
}

// FarMetrics is the part of VoIPMetrics that a manifest shows. What the far end
// did not know is left out.
type FarMetrics struct {
	LossPct     float64 `json:"loss_pct"`
	DiscardPct  float64 `json:"discard_pct"`
	BurstPct    float64 `json:"burst_pct"`
	GapPct      float64 `json:"gap_pct"`
	BurstMS     int     `json:"burst_ms"`
	GapMS       int     `json:"gap_ms"`
	RTTMS       int     `json:"rtt_ms,omitempty"`
	EndSystemMS int     `json:"end_system_ms,omitempty"`
	SignalDBm0  int     `json:"signal_dbm0,omitempty"`
	NoiseDBm0   int     `json:"noise_dbm0,omitempty"`
	R           int     `json:"r,omitempty"`
	MOSLQ       float64 `json:"mos_lq,omitempty"`
	MOSCQ       float64 `json:"mos_cq,omitempty"`
	Concealment string  `json:"concealment,omitempty"`
	BufferMS    int     `json:"buffer_ms,omitempty"`
}

func (v VoIPMetrics) far() *FarMetrics {
	known := func(x int) int {
		if x == unknown {
			return 0
		}
		return x
	}
	return &FarMetrics{
		LossPct: of256(v.LossRate), DiscardPct: of256(v.DiscardRate),
		BurstPct: of256(v.BurstDensity), GapPct: of256(v.GapDensity),
		BurstMS: int(v.BurstMS), GapMS: int(v.GapMS), RTTMS: int(v.RoundTripMS), EndSystemMS: int(v.EndSystemMS),
		SignalDBm0: known(int(v.Signal)), NoiseDBm0: known(int(v.Noise)),
		R: known(int(v.R)), MOSLQ: float64(known(int(v.MOSLQ))) / 10, MOSCQ: float64(known(int(v.MOSCQ))) / 10,
		Concealment: v.Concealment(), BufferMS: int(v.BufferNominalMS),
	}
}

func of256(x uint8) float64 { return round(float64(x)*100/256, 2) }
