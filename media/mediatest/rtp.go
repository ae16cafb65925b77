package mediatest

import (
	"math"

	"github.com/pion/rtp"
)

// RTPStream builds the packets of one synchronisation source. The exported
// fields say what the next packet is like and may be changed at any time.
type RTPStream struct {
	SSRC        uint32
	Seq         uint16
	Timestamp   uint32
	PayloadType uint8
	Marker      bool // of the next packet alone

	// Encode turns a sample into an octet; nil means MuLaw.
	Encode func(int16) byte
}

// Next returns a packet with the payload given and moves on by one sequence
// number and by samples of timestamp.
func (s *RTPStream) Next(payload []byte, samples int) []byte {
	p := rtp.Packet{
		Header: rtp.Header{
			Version: 2, Marker: s.Marker, PayloadType: s.PayloadType,
			SequenceNumber: s.Seq, Timestamp: s.Timestamp, SSRC: s.SSRC,
		},
		Payload: payload,
	}
	wire, err := p.Marshal()
	if err != nil {
		panic("marshal RTP: " + err.Error()) // a header without extensions always marshals
	}
	s.Marker = false
	s.Seq++
	s.Timestamp += uint32(samples)
	return wire
}

// Audio returns a packet of coded samples.
func (s *RTPStream) Audio(samples []int16) []byte {
	encode := s.Encode
	if encode == nil {
		encode = MuLaw
	}
	payload := make([]byte, len(samples))
	for i, v := range samples {
		payload[i] = encode(v)
	}
	return s.Next(payload, len(samples))
}

// Packets cuts samples into packets of perPacket samples each; the last may be
// shorter.
func (s *RTPStream) Packets(samples []int16, perPacket int) [][]byte {
	var out [][]byte
	for len(samples) > 0 {
		n := min(perPacket, len(samples))
		out = append(out, s.Audio(samples[:n]))
		samples = samples[n:]
	}
	return out
}

// Tone returns n samples of a sine that begins at phase zero: freq and rate in
// Hz, amp the peak in sample units (32767 is full scale).
func Tone(freq float64, rate, n, amp int) []int16 {
	out := make([]int16, n)
	for i := range out {
		out[i] = int16(math.Round(float64(amp) * math.Sin(2*math.Pi*freq*float64(i)/float64(rate))))
	}
	return out
}

// Energy returns the mean square that one frequency contributes to samples
// (Goertzel): amp*amp/2 for a Tone of a whole number of periods. It resolves
// rate/len(samples) Hz.
func Energy(samples []int16, freq float64, rate int) float64 {
	if len(samples) == 0 {
		return 0
	}
	coeff := 2 * math.Cos(2*math.Pi*freq/float64(rate))
	var s1, s2 float64
	for _, v := range samples {
		s1, s2 = float64(v)+coeff*s1-s2, s1
	}
	n := float64(len(samples))
	return 2 * (s1*s1 + s2*s2 - coeff*s1*s2) / (n * n)
}

// MuLaw codes a sample by ITU-T G.711 mu-law.
func MuLaw(sample int16) byte {
	const bias, clip = 0x84, 32635
	v, sign := int(sample), byte(0)
	if v < 0 {
		v, sign = -v, 0x80
	}
	v = min(v, clip) + bias
	exponent := 7
	for mask := 0x4000; v&mask == 0 && exponent > 0; mask >>= 1 {
		exponent--
	}
	return ^(sign | byte(exponent<<4) | byte(v>>(exponent+3)&0x0f))
}

// ALaw codes a sample by ITU-T G.711 A-law.
func ALaw(sample int16) byte {
	v, sign := int(sample)>>3, byte(0x80) // 13 bits
	if v < 0 {
		v, sign = -v-1, 0
	}
	v = min(v, 0xfff)
	exponent := 7
	for mask := 0x800; v&mask == 0 && exponent > 0; mask >>= 1 {
		exponent--
	}
	shift := max(exponent, 1)
	return (sign | byte(exponent<<4) | byte(v>>shift&0x0f)) ^ 0x55
}
