package quality

import "math"

// Parameters are the inputs of the E-model, ITU-T G.107 (06/2015) table 2, by
// their names there. Levels and losses are in dB, delays in ms.
type Parameters struct {
	SLR, RLR   float64 // send, receive loudness rating
	STMR, LSTR float64 // sidetone masking, listener sidetone rating
	Ds, Dr     float64 // D-values of the telephones
	TELR, WEPL float64 // talker echo loudness rating, weighted echo path loss
	T, Tr, Ta  float64 // mean one-way delay of the echo path, round trip of the four-wire loop, absolute delay
	Qdu        float64 // quantizing distortion units
	Ie, Bpl    float64 // equipment impairment, robustness against loss (G.113)
	Ppl        float64 // packets lost, %
	BurstR     float64 // burst ratio
	Nc, Nfor   float64 // circuit noise dBm0p, noise floor dBmp
	Ps, Pr     float64 // room noise dB(A)
	ST, MT     float64 // delay sensitivity sT, minimum perceivable delay mT
	A          float64 // advantage factor
}

// Defaults returns the default values of G.107 table 2, with Ie 0 and Bpl 4.3.
func Defaults() Parameters {
	return Parameters{
		SLR: 8, RLR: 2, STMR: 15, LSTR: 18, Ds: 3, Dr: 3, TELR: 65, WEPL: 110, Qdu: 1, Bpl: 4.3, BurstR: 1,
		Nc: -70, Nfor: -64, Ps: 35, Pr: 35, ST: 1, MT: 100,
	}
}

// Rating is the result of the E-model: R = Ro - Is - Id - Ie,eff + A.
type Rating struct {
	R            float64
	Noise        float64 // Ro, the basic signal-to-noise ratio
	Simultaneous float64 // Is
	Delay        float64 // Id
	Equipment    float64 // Ie,eff
}

// Rate calculates the transmission rating factor (G.107 clause 7).
func (p Parameters) Rate() Rating {
	no := p.noise()
	r := Rating{Noise: 15 - 1.5*(p.SLR+no)}
	r.Simultaneous = p.simultaneous(no, r.Noise)
	r.Delay = p.talkerEcho(no) + p.listenerEcho(r.Noise) + p.absoluteDelay()
	r.Equipment = p.equipment()
	r.R = r.Noise - r.Simultaneous - r.Delay - r.Equipment + p.A
	return r
}

func pow10(x float64) float64 { return math.Pow(10, x/10) }

// noise is No, the power sum of the noise sources (7-3 to 7-7).
func (p Parameters) noise() float64 {
	olr := p.SLR + p.RLR
	send := p.Ps - olr - p.Ds - 14
	nos := p.Ps - p.SLR - p.Ds - 100 + 0.004*send*send
	pre := p.Pr + 10*math.Log10(1+pow10(10-p.LSTR))
	nor := p.RLR - 121 + pre + 0.008*(pre-35)*(pre-35)
	return 10 * math.Log10(pow10(p.Nc)+pow10(nos)+pow10(nor)+pow10(p.Nfor+p.RLR))
}

// root is (1 + x^n)^(1/n).
func root(x, n float64) float64 { return math.Pow(1+math.Pow(x, n), 1/n) }

// simultaneous is Is: loudness, sidetone and quantizing (7-8 to 7-17).
func (p Parameters) simultaneous(no, ro float64) float64 {
	olr := p.SLR + p.RLR
	x := (olr + 0.2*(64+no-p.RLR)) / 8
	iolr := 20 * (root(x, 8) - x)
	q := 37 - 15*math.Log10(p.Qdu)
	g := 1.07 + 0.258*q + 0.0602*q*q
	y, z := (ro-100)/15+46/8.4-g/9, 46.0/30-g/40
	iq := 15 * math.Log10(1+math.Pow(10, y)+math.Pow(10, z))
	return iolr + p.sidetone() + iq
}

// sidetone is Ist (7-10, 7-11).
func (p Parameters) sidetone() float64 {
	s := -10 * math.Log10(pow10(-p.STMR)+math.Exp(-p.T/4)*pow10(-p.TELR))
	return 12*root((s-13)/6, 8) - 28*root((s+1)/19.4, 35) - 13*root((s-3)/33, 13) + 29
}

// talkerEcho is Idte (7-19 to 7-24).
func (p Parameters) talkerEcho(no float64) float64 {
	terv := p.TELR - 40*math.Log10((1+p.T/10)/(1+p.T/150)) + 6*math.Exp(-0.3*p.T*p.T)
	ist := p.sidetone()
	if p.STMR < 9 {
		terv += ist / 2
	}
	roe, re := -1.5*(no-p.RLR), 80+2.5*(terv-14)
	d := (roe - re) / 2
	idte := (d + math.Sqrt(d*d+100) - 1) * (1 - math.Exp(-p.T))
	if p.STMR > 20 {
		return math.Hypot(idte, ist)
	}
	return idte
}

// listenerEcho is Idle (7-25, 7-26).
func (p Parameters) listenerEcho(ro float64) float64 {
	rle := 10.5 * (p.WEPL + 7) * math.Pow(p.Tr+1, -0.25)
	d := (ro - rle) / 2
	return d + math.Sqrt(d*d+169)
}

// absoluteDelay is Idd (7-27, 7-28).
func (p Parameters) absoluteDelay() float64 {
	if p.Ta <= p.MT {
		return 0
	}
	x, n := math.Log2(p.Ta/p.MT), 6*p.ST
	return 25 * (root(x, n) - 3*root(x/3, n) + 2)
}

// equipment is Ie,eff (7-29; of the wideband model G.107.1 (7-15), which knows no
// bursts).
func (p Parameters) equipment() float64 {
	if p.Ppl <= 0 {
		return p.Ie
	}
	return p.Ie + (95-p.Ie)*p.Ppl/(p.Ppl/p.BurstR+p.Bpl)
}

// widebandRo is Ro,WB of ITU-T G.107.1 (06/2019) clause 7.2.
const widebandRo = 129

// RateWideband calculates the rating on the scale of the wideband model
// (G.107.1), of which the impairments by absolute delay, codec and loss are
// taken; its echo impairments are those of a perfect echo control, 0. Its R is
// not comparable with that of Rate, its MOS is on the wideband scale too. BurstR
// is not used.
func (p Parameters) RateWideband() Rating {
	p.BurstR = 1
	r := Rating{Noise: widebandRo, Delay: p.absoluteDelay(), Equipment: p.equipment()}
	r.R = r.Noise - r.Delay - r.Equipment + p.A
	return r
}

// MOS turns R of Rate into an estimated mean opinion score, 1 to 4.5 (G.107 annex B).
func MOS(r float64) float64 {
	switch {
	case math.IsNaN(r) || r <= 0:
		return 1
	case r >= 100:
		return 4.5
	}
	return max(1, 1+0.035*r+r*(r-60)*(100-r)*7e-6) // the polynomial dips below 1 up to R = 6.5
}

// MOSWideband turns R of RateWideband into a score on the wideband scale
// (G.107.1 annex A).
func MOSWideband(r float64) float64 { return MOS(r / 1.29) }
