package codec

import "github.com/trunktap/trunktap/media"

// Ticks is how much of the RTP clock a payload covers by its format alone, for formats
// that have no decoder: their gaps are as long as what was not understood. 0: it cannot
// be told, or there is a decoder, which is to be asked.
func Ticks(f media.Format, payload []byte) int {
	channels := max(f.Channels, 1)
	n := len(payload)
	switch f.Name {
	case "PCMU", "PCMA", "G722", "L8": // of several channels
		return n / channels
	case "L16":
		return n / (2 * channels)
	case "L20", "L24": // RFC 3190
		return n * 8 / (map[string]int{"L20": 20, "L24": 24}[f.Name] * channels)
	case "DVI4": // RFC 3551 section 4.5.1: four octets of state, then half octets
		return max(n/channels-4, 0) * 2
	case "G728": // section 4.5.5: four vectors of five samples in five octets
		return n / 5 * 20
	case "LPC": // section 4.5.9
		return n / 14 * 160
	case "G723":
		return g723Ticks(payload)
	case "G729D": // section 4.5.7: 64 and 118 bits for 80 samples
		return n / 8 * 80
	case "G729E":
		return n / 15 * 80
	case "AMR", "AMR-WB":
		return amrTicks(f, payload)
	}
	return 0
}

// g723Ticks adds up frames of 30 ms, whose length stands in their first two bits (RFC
// 3551 section 4.5.3).
func g723Ticks(payload []byte) (ticks int) {
	for len(payload) > 0 {
		n := [4]int{24, 20, 4, 1}[payload[0]&3]
		if n > len(payload) {
			return 0
		}
		payload, ticks = payload[n:], ticks+240
	}
	return ticks
}

// amrTicks counts the table of contents where the frames cannot be had: with check
// sums or interleaved they are always octet-aligned (RFC 4867 section 4.4).
func amrTicks(f media.Format, payload []byte) (ticks int) {
	at := 1
	if v := param(f.Params, "interleaving"); v != "" && v != "0" {
		at = 2
	}
	for ; at < len(payload); at++ {
		ticks += f.ClockRate / 50
		if payload[at]&0x80 == 0 {
			return ticks
		}
	}
	return 0
}
