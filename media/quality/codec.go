package quality

import (
	"fmt"
	"strings"
)

// defaultBpl is the default of G.107 table 3: it is that of G.711 without
// concealment, the least robust of all published.
const defaultBpl = 4.3

// impairment is what the E-model knows of a codec.
type impairment struct {
	ie, bpl  float64
	wideband bool
	source   string
	assumed  string // what was taken where nothing is published
}

// fixed are the codecs of one mode. Values without concealment of their own
// come from G.113 table I.1, those with loss from its table I.4.
var fixed = map[string]impairment{
	"G729":    {ie: 11, bpl: 19, source: "G.113 table I.4, G.729A+VAD"},
	"G728":    {ie: 7, source: "G.113 table I.1"},
	"GSM":     {ie: 20, source: "G.113 table I.1, GSM-FR"},
	"GSM-EFR": {ie: 5, bpl: 10, source: "G.113 table I.4, GSM-EFR"},
	"G726-40": {ie: 2, source: "G.113 table I.1"},
	"G726-32": {ie: 7, source: "G.113 table I.1"},
	"G726-24": {ie: 25, source: "G.113 table I.1"},
	"G726-16": {ie: 50, source: "G.113 table I.1"},
	"G722":    {ie: 13, wideband: true, source: "G.113 table IV.1, G.722 at 64 kbit/s"},
}

// mode is one rate of a codec that has several: the bytes of a packet of one
// frame, which no two modes share, tell it.
type mode struct {
	bytes [2]int // bandwidth-efficient and octet-aligned (RFC 4867 sections 4.3 and 4.4)
	name  string
	impairment
}

const (
	gsmEFR = "G.113 table I.4, GSM-EFR, which AMR 12.2 is (3GPP TS 26.071)"
	is641  = "G.113 table I.1, IS-641, which AMR 7.4 is (3GPP TS 26.071)"
	amrWB  = "G.113 table IV.1, G.722.2"
	heard2 = "Bpl of G.113 table IV.4, which is for both ears"
)

var amrModes = []mode{
	{[2]int{14, 14}, "4.75", impairment{}},
	{[2]int{15, 15}, "5.15", impairment{}},
	{[2]int{16, 17}, "5.9", impairment{}},
	{[2]int{18, 19}, "6.7", impairment{}},
	{[2]int{20, 21}, "7.4", impairment{ie: 10, source: is641}},
	{[2]int{22, 22}, "7.95", impairment{}},
	{[2]int{27, 28}, "10.2", impairment{}},
	{[2]int{32, 33}, "12.2", impairment{ie: 5, bpl: 10, source: gsmEFR}},
}

var amrWidebandModes = []mode{
	{[2]int{18, 19}, "6.6", impairment{ie: 41, source: amrWB}},
	{[2]int{24, 25}, "8.85", impairment{ie: 26, source: amrWB}},
	{[2]int{33, 34}, "12.65", impairment{ie: 13, bpl: 4.3, source: amrWB, assumed: heard2}},
	{[2]int{37, 38}, "14.25", impairment{ie: 10, source: amrWB}},
	{[2]int{41, 42}, "15.85", impairment{ie: 7, source: amrWB}},
	{[2]int{47, 48}, "18.25", impairment{ie: 5, source: amrWB}},
	{[2]int{51, 52}, "19.85", impairment{ie: 3, source: amrWB}},
	{[2]int{59, 60}, "23.05", impairment{ie: 1, bpl: 4.6, source: amrWB, assumed: heard2}},
	{[2]int{61, 62}, "23.85", impairment{ie: 8, bpl: 4.9, source: amrWB, assumed: heard2}},
}

// impairmentOf looks a codec up. Where ITU-T publishes nothing it says so in
// missing, and the account has no MOS.
func impairmentOf(in Inputs, payloadBytes int) (i impairment, missing string) {
	name := strings.TrimPrefix(strings.ToUpper(in.Codec), "AAL2-")
	switch name {
	case "PCMU", "PCMA":
		i = pulseCode(in.PLC)
	case "L16":
		i = pulseCode(in.PLC)
		i.assumed = "linear PCM taken as G.711"
		if in.ClockRate >= 16000 {
			i = impairment{wideband: true, source: "uncoded", assumed: "linear PCM taken as the undisturbed wideband channel"}
		}
	case "G723":
		i = impairment{ie: 15, bpl: 16.1, source: "G.113 table I.4, G.723.1+VAD at 6.3 kbit/s"}
		if payloadBytes == 20 {
			i = impairment{ie: 19, bpl: 16.1, source: "G.113 table I.1, G.723.1 at 5.3 kbit/s", assumed: "Bpl of 6.3 kbit/s"}
		}
	case "AMR":
		i, missing = modeOf(name, amrModes, payloadBytes)
	case "AMR-WB":
		i, missing = modeOf(name, amrWidebandModes, payloadBytes)
		i.wideband = true
	default:
		i = fixed[name]
	}
	if i.source == "" {
		if missing == "" {
			missing = "ITU-T publishes no impairment of " + name
		}
		return i, missing
	}
	if i.bpl == 0 {
		i.bpl = defaultBpl
		i.assumed = strings.TrimPrefix(i.assumed+"; none published for this codec: Bpl by default, without concealment", "; ")
	}
	return i, ""
}

// pulseCode is G.711: the reference of the model.
func pulseCode(plc bool) impairment {
	if plc {
		return impairment{bpl: 25.1, source: "G.113 table I.4, G.711 with PLC"}
	}
	return impairment{bpl: defaultBpl, source: "G.113 table I.4, G.711 without PLC"}
}

func modeOf(name string, modes []mode, payloadBytes int) (impairment, string) {
	for _, m := range modes {
		if payloadBytes != m.bytes[0] && payloadBytes != m.bytes[1] {
			continue
		}
		if m.source == "" {
			return impairment{}, fmt.Sprintf("ITU-T publishes no impairment of %s %s", name, m.name)
		}
		return m.impairment, ""
	}
	return impairment{}, fmt.Sprintf("no mode of %s has packets of %d bytes", name, payloadBytes)
}
