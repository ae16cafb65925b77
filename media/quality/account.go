package quality

import (
	"fmt"
	"math"
	"strings"
)

// Inputs are what the account of a stream takes from elsewhere.
type Inputs struct {
	Codec       string // of RFC 3551's or RFC 4855's registry: PCMU, G722, AMR-WB, ...
	ClockRate   int    // Hz, tells wideband from narrowband where the name does not
	PLC         bool   // whoever listens conceals what is missing
	ConcealedMS int64  // of audio that was made up in the recording
	SkewPPM     float64
	Near, Far   Trip // between the tap and the sender, and between the tap and the receiver
}

// Account is the quality of one stream as the manifest shows it. Shares are in
// percent of the packets expected. Burst and gap have the meaning of RFC 3611
// section 4.7.2 with Gmin 16; a packet is discarded when it comes more than
// DiscardMS after the least delayed one, or too late to be placed.
type Account struct {
	MOS     float64 `json:"mos,omitempty"`    // conversational (MOS-CQ), with the delay
	MOSLQ   float64 `json:"mos_lq,omitempty"` // listening, without it
	R       float64 `json:"r,omitempty"`      // of MOS; of a wideband codec on the wideband scale, whose top is 129
	NoMOS   string  `json:"no_mos,omitempty"` // why there is none
	LossPct float64 `json:"loss_pct"`

	DiscardPct float64 `json:"discard_pct"`
	BurstPct   float64 `json:"burst_pct"` // missing packets in bursts, of the packets in bursts
	GapPct     float64 `json:"gap_pct"`   // missing packets in gaps, of the packets in gaps
	BurstMS    int64   `json:"burst_ms"`  // mean length
	GapMS      int64   `json:"gap_ms"`    // mean length
	Bursts     int64   `json:"bursts"`
	BurstRatio float64 `json:"burst_ratio"` // G.107: 1 when loss is random

	JitterMS     float64 `json:"jitter_ms"`      // mean of the estimate of RFC 3550
	JitterLastMS float64 `json:"jitter_last_ms"` // the estimate after the last packet, as a receiver report has it
	JitterMaxMS  float64 `json:"jitter_max_ms"`  // greatest estimate
	DelayStepMS  float64 `json:"delay_step_ms"`  // greatest change of delay between two packets
	// JitterClasses counts the changes of delay between two packets: up to 1, 2,
	// 5, 10, 20, 50, 100, 200 ms, and above.
	JitterClasses []uint32 `json:"jitter_classes,omitempty"`

	Late        int64   `json:"late,omitempty"`
	Reordered   int64   `json:"reordered,omitempty"`
	Duplicate   int64   `json:"duplicate,omitempty"`
	Unseen      int64   `json:"unseen,omitempty"` // dropped before they were looked at: in no share
	ConcealedMS int64   `json:"concealed_ms,omitempty"`
	SkewPPM     float64 `json:"skew_ppm,omitempty"`
	PacketMS    float64 `json:"packet_ms,omitempty"` // length of a packet

	RTTMS     float64 `json:"rtt_ms,omitempty"`      // sender to receiver and back, by RTCP; only when both halves are known
	RTTNearMS float64 `json:"rtt_near_ms,omitempty"` // tap to sender and back
	RTTFarMS  float64 `json:"rtt_far_ms,omitempty"`  // tap to receiver and back
	Remote    *Remote `json:"remote,omitempty"`

	Model string `json:"model,omitempty"` // the E-model's version and parameters, and what of them is assumed
}

// Snapshot is the account of everything so far. The stream goes on unchanged.
func (s *Stream) Snapshot(in Inputs) Account {
	w := s.numbers // a copy: what is still open is closed in it alone
	w.settleAll()
	w.bursts.close()
	a := Account{
		Late: int64(w.late), Reordered: int64(w.reordered), Duplicate: int64(s.duplicates), Unseen: int64(w.unseen),
		ConcealedMS: in.ConcealedMS, SkewPPM: round(in.SkewPPM, 1), Remote: s.remote.account(),
		RTTNearMS: in.Near.MeanMS, RTTFarMS: in.Far.MeanMS, BurstRatio: 1,
	}
	if in.Near.Count > 0 && in.Far.Count > 0 {
		a.RTTMS = round(in.Near.MeanMS+in.Far.MeanMS, 3)
	}
	s.transit.fill(&a)
	expected := float64(w.received + w.lost)
	if expected == 0 {
		a.NoMOS = "no packets"
		return a
	}
	missing := float64(w.lost+w.discarded) / expected
	a.LossPct, a.DiscardPct = round(float64(w.lost)/expected*100, 3), round(float64(w.discarded)/expected*100, 3)
	w.bursts.fill(&a, s.transit.packetNS.value)
	a.BurstRatio = round(w.bursts.ratio(missing), 2)
	a.rate(in, missing*100, int(s.transit.packetSize.value))
	return a
}

func (t *transit) fill(a *Account) {
	a.PacketMS = round(float64(t.packetNS.value)/1e6, 3)
	a.DelayStepMS = round(float64(t.stepMax)/1e6, 2)
	a.JitterLastMS, a.JitterMaxMS = round(t.jitter/1e6, 2), round(t.jitterMax/1e6, 2)
	if t.samples > 0 {
		a.JitterMS = round(t.jitterSum/float64(t.samples)/1e6, 2)
		a.JitterClasses = append([]uint32(nil), t.histogram[:]...)
	}
}

func (b *bursts) fill(a *Account, packetNS int64) {
	ms := func(packets, periods uint64) int64 {
		return int64(math.Round(float64(packets) / float64(max(periods, 1)) * float64(packetNS) / 1e6))
	}
	inBursts, inGaps := b.burstReceived+b.burstMissing, b.gapReceived+b.gapMissing
	a.Bursts = int64(b.bursts)
	a.BurstMS, a.GapMS = ms(inBursts, b.bursts), ms(inGaps, b.gaps)
	a.BurstPct = round(float64(b.burstMissing)/float64(max(inBursts, 1))*100, 2)
	a.GapPct = round(float64(b.gapMissing)/float64(max(inGaps, 1))*100, 2)
}

// Assumptions of the delay where it is not measured, ms.
const (
	networkMS = 50.0 // one way, of both halves together
	// burstRatioMax is the greatest ratio that G.107 was tested with, and
	// burstBplMin the least robustness with which it is to be used (G.113
	// appendix I): codecs below it are rated as if loss were random.
	burstRatioMax = 8
	burstBplMin   = 16
)

// rate sets the MOS by the E-model.
func (a *Account) rate(in Inputs, missingPct float64, payloadBytes int) {
	i, none := impairmentOf(in, payloadBytes)
	if none != "" {
		a.NoMOS = none
		return
	}
	p := Defaults()
	p.Ie, p.Bpl, p.Ppl = i.ie, i.bpl, missingPct
	if i.bpl >= burstBplMin && !i.wideband {
		p.BurstR = min(a.BurstRatio, burstRatioMax)
	}
	ta, how := a.delay(in)
	rate, mos, model := Parameters.Rate, MOS, "G.107 (06/2015)"
	if i.wideband {
		rate, mos, model = Parameters.RateWideband, MOSWideband, "G.107.1 (06/2019)"
	}
	listening := rate(p)
	p.Ta, p.T, p.Tr = ta, ta, 2*ta
	talking := rate(p)
	a.R, a.MOS, a.MOSLQ = round(talking.R, 1), round(mos(talking.R), 2), round(mos(listening.R), 2)
	var b strings.Builder
	fmt.Fprintf(&b, "%s: Ie %g, Bpl %g (%s), Ppl %.2f %% (lost, or over %d ms late), BurstR %.2f, Ta %.0f ms (%s)", model, p.Ie, p.Bpl, i.source, p.Ppl, DiscardMS, p.BurstR, ta, how)
	if i.wideband {
		b.WriteString(", echo 0")
	} else {
		b.WriteString(", T = Ta, Tr = 2 Ta, all else by default")
	}
	if i.assumed != "" {
		fmt.Fprintf(&b, "; assumed: %s", i.assumed)
	}
	a.Model = b.String()
}

// delay is Ta from mouth to ear: the network, a packet's length, and the
// buffer of the receiver, which is taken to be twice the jitter, a packet at
// least and DiscardMS at most.
func (a *Account) delay(in Inputs) (ms float64, how string) {
	half := func(t Trip) float64 {
		if t.Count == 0 {
			return networkMS / 2
		}
		return t.MeanMS / 2
	}
	network, known := half(in.Near)+half(in.Far), "measured"
	switch {
	case in.Near.Count == 0 && in.Far.Count == 0:
		known = "assumed"
	case in.Near.Count == 0 || in.Far.Count == 0:
		known = "half measured, half assumed"
	}
	buffer := min(max(2*a.JitterMS, a.PacketMS), DiscardMS)
	return network + a.PacketMS + buffer, fmt.Sprintf("network %.0f %s, packet %.0f, buffer %.0f", network, known, a.PacketMS, buffer)
}

func round(x float64, digits int) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	k := math.Pow(10, float64(digits))
	return math.Round(x*k) / k
}
