package codec

import "math"

// ilbcConcealer makes the residual of lost frames (4.5): that of the frame before, with
// its pitch as far as it had one, and stretches of it in random order for the rest.
type ilbcConcealer struct {
	residual [ilbcMax]float64 // of the frame before
	filter   lpc              // its last one
	lag      int              // that is repeated
	voiced   float64          // how periodic it is, 0 to 1
	lostRow  int              // samples lost in a row
	seed     uint32
}

const (
	ilbcLagMin = 20 // samples
	ilbcLagMax = 119
)

func (c *ilbcConcealer) keep(residual []float64, filter lpc) {
	copy(c.residual[:], residual)
	c.filter, c.lostRow = filter, 0
}

// lost fills a frame and returns the filters of its subframes.
func (c *ilbcConcealer) lost(out []float64) (filters [ilbcSubsMax]lpc) {
	before := c.residual[:len(out)]
	if c.lostRow == 0 {
		c.find(before)
	}
	c.lostRow += len(out)
	gain := [5]float64{1, 0.9, 0.7, 0.5, 0}[min((c.lostRow-1)/320, 4)]
	pitched := max(0, min((math.Sqrt(c.voiced)-0.4)/0.3, 1))
	lag := c.lag
	if lag < 80 {
		lag *= 2 // so that one period is not repeated time and again
	}
	var random [ilbcMax]float64
	energy := 0.0
	pick := func(from []float64, i, back int) float64 {
		if i < back {
			return before[len(before)+i-back]
		}
		return from[i-back]
	}
	for i := range out {
		c.seed = (c.seed*69069 + 1) & 0x7fffffff
		random[i] = pick(random[:], i, 50+int(c.seed%70))
		out[i] = gain * (1 - 0.05*float64(i/80)) * (pitched*pick(out, i, lag) + (1-pitched)*random[i])
		energy += out[i] * out[i]
	}
	if math.Sqrt(energy/float64(len(out))) < 30 {
		copy(out, random[:])
	}
	copy(c.residual[:], out)
	for i := range filters {
		filters[i] = c.filter
	}
	return filters
}

// find looks for the period.
func (c *ilbcConcealer) find(before []float64) {
	most := -1.0
	for lag := ilbcLagMin; lag <= ilbcLagMax; lag++ {
		n := min(60, len(before)-lag)
		now, then := before[len(before)-n:], before[len(before)-n-lag:]
		var power, energy float64
		for i, v := range now {
			power += v * v
			energy += then[i] * then[i]
		}
		if like := likeness(now, then); like > most {
			most, c.lag, c.voiced = like, lag, 0
			if power > 0 && energy > 0 {
				c.voiced = math.Sqrt(like / power)
			}
		}
	}
}

// likeness is how much of a is in b; nothing when they are opposed.
func likeness(a, b []float64) float64 {
	var product, energy float64
	for i, v := range a {
		product += v * b[i]
		energy += b[i] * b[i]
	}
	if product <= 0 {
		return 0
	}
	return product * product / energy
}
