package mix

import "math"

// delay follows the lower envelope of a run's transit times: of d = arrival -
// ts/clock only the least matter, everything above is jitter. The envelope is
// a line whose slope is the skew of the two clocks. It keeps the least-delayed
// packet of every second of sender time, a few minutes of them; the slope comes
// from the edge of their lower convex hull that carries the mean (Moon, Skelly,
// Towsley: "Estimation and Removal of Clock Skew from Network Delay
// Measurements", 1999), the height from the least-delayed of the last seconds,
// seen along that slope.
type delay struct {
	clock float64 // Hz of the index: the track's rate

	buckets [bucketsMax]bucket // ring
	first   int
	n       int
	packets int64 // since the last reset

	slope  float64 // of the envelope, by arrivals; dimensionless
	span   float64 // seconds of sender time that slope rests on
	prior  float64 // slope known from before the last reset or from reports
	weight float64 // of slope against prior, 0 to 1

	reportX, reportNTP float64 // first sender report, s
	reports            int

	hull [bucketsMax]int16 // scratch
}

type bucket struct {
	second int64   // of sender time
	x      float64 // sender time of the least-delayed packet, s
	d      float64 // its delay, s since the session's base
	sum    float64 // of all delays
	count  int64
}

const (
	bucketsMax = 240 // seconds with packets that are remembered

	slopeMax = 1000e-6 // clocks are not further apart

	windowEarlyS = 10.0 // how far back a least delay counts while the slope is unknown
	windowLateS  = 60.0 // and when it is known
	slopeFromS   = 15.0 // history from which on the slope counts, in part
	slopeFullS   = 45.0 // and fully
	slopePackets = 300  // at the least

	// A step of the path's delay, or of the sender's timestamps, that is too
	// small for a new epoch: history from before it is dropped.
	stepDownS       = 3e-3
	stepUpS         = 3e-3
	stepUpShare     = 0.2  // of the mean jitter
	stepUpWindowS   = 10.0 // all packets of this time must agree
	stepPacketsMin  = 200
	stepDownPackets = 500
)

func (e *delay) reset(rate int64) { *e = delay{clock: float64(rate)} }

func (e *delay) at(i int) *bucket { return &e.buckets[(e.first+i)%bucketsMax] }

// add takes the index (sender time in samples) of a packet and its arrival.
func (e *delay) add(index, arrival int64) {
	x := float64(index) / e.clock
	d := float64(arrival)/1e9 - x
	second := int64(math.Floor(x))
	if e.n > 0 && e.packets >= stepDownPackets && d < e.line(x)-stepDownS {
		e.restart(e.n)
	}
	e.packets++
	for i := e.n - 1; i >= 0 && i >= e.n-8; i-- {
		if b := e.at(i); b.second == second {
			b.sum += d
			b.count++
			if d < b.d {
				b.x, b.d = x, d
			}
			return
		}
	}
	if e.n > 0 && second < e.at(e.n-1).second {
		return // reordered by seconds: it cannot be one of the least delayed
	}
	if e.n == bucketsMax {
		e.first, e.n = (e.first+1)%bucketsMax, e.n-1
	}
	e.n++
	*e.at(e.n - 1) = bucket{second, x, d, d, 1}
	if e.n > 1 {
		e.stepUp()
		e.fit()
	}
}

// restart drops the n oldest buckets; what was learnt of the slope stays as the
// prior.
func (e *delay) restart(n int) {
	e.prior, e.weight = e.rateSlope(), 0
	e.slope, e.span = 0, 0
	e.first, e.n = (e.first+n)%bucketsMax, e.n-n
	e.packets = 0
	for i := range e.n {
		e.packets += e.at(i).count
	}
}

// rateSlope is the best knowledge of the slope.
func (e *delay) rateSlope() float64 { return e.weight*e.slope + (1-e.weight)*e.prior }

// line is the least delay to be expected at sender time x, in s.
func (e *delay) line(x float64) float64 {
	slope := e.rateSlope()
	window := windowEarlyS + (windowLateS-windowEarlyS)*e.weight
	least := math.Inf(1)
	newest := e.at(e.n - 1).x
	for i := e.n - 1; i >= 0; i-- {
		b := e.at(i)
		if i < e.n-1 && b.x < newest-window {
			break
		}
		least = math.Min(least, b.d+slope*(x-b.x))
	}
	return least
}

// known tells whether there is a line.
func (e *delay) known() bool { return e.n > 0 }

// stepUp drops history when all packets of the last seconds were later than it
// foretells: the path has changed, the old least delay will not come back.
func (e *delay) stepUp() {
	newest := e.at(e.n - 1).x
	var packets int64
	var sum float64
	slope, recent, split := e.rateSlope(), math.Inf(1), e.n
	for split > 0 && (newest-e.at(split-1).x < stepUpWindowS || packets < stepPacketsMin) {
		split--
		b := e.at(split)
		packets += b.count
		sum += b.sum
		recent = math.Min(recent, b.d+slope*(newest-b.x))
	}
	if split == 0 || packets < stepPacketsMin {
		return
	}
	before := math.Inf(1)
	for i := split - 1; i >= 0 && e.at(i).x > newest-windowLateS; i-- {
		before = math.Min(before, e.at(i).d+slope*(newest-e.at(i).x))
	}
	jitter := sum/float64(packets) - recent
	if recent-before > math.Max(stepUpS, stepUpShare*jitter) && !math.IsInf(before, 1) {
		e.restart(split)
	}
}

// fit finds the slope of the envelope.
func (e *delay) fit() {
	e.span = e.at(e.n-1).x - e.at(0).x
	e.weight = math.Max(0, math.Min(1, (e.span-slopeFromS)/(slopeFullS-slopeFromS)))
	if e.packets < slopePackets {
		e.weight = 0
	}
	var mean float64
	var count int64
	top := 0
	for i := range e.n {
		b := e.at(i)
		mean += b.x * float64(b.count)
		count += b.count
		for top >= 2 && cross(e.at(int(e.hull[top-2])), e.at(int(e.hull[top-1])), b) <= 0 {
			top--
		}
		e.hull[top] = int16(i)
		top++
	}
	mean /= float64(count)
	for i := 1; i < top; i++ {
		a, b := e.at(int(e.hull[i-1])), e.at(int(e.hull[i]))
		if b.x >= mean || i == top-1 {
			e.slope = math.Max(-slopeMax, math.Min(slopeMax, (b.d-a.d)/(b.x-a.x)))
			return
		}
	}
}

// cross is positive when c lies above the line through a and b.
func cross(a, b, c *bucket) float64 {
	return (b.x-a.x)*(c.d-a.d) - (b.d-a.d)*(c.x-a.x)
}

const (
	reportSpanS = 20.0 // reports must lie this far apart to tell a rate
	reportMax   = 500e-6
)

// report takes the NTP time that belongs to an index. Two of them tell the
// media clock's rate by the sender's own clock; an implausible one (a clock
// that was set) starts over.
func (e *delay) report(index, ntpNS int64) {
	x, ntp := float64(index)/e.clock, float64(ntpNS)/1e9
	if e.reports == 0 || x < e.reportX {
		e.reportX, e.reportNTP, e.reports = x, ntp, 1
		return
	}
	if x-e.reportX < reportSpanS {
		return
	}
	slope := (ntp-e.reportNTP)/(x-e.reportX) - 1
	if math.Abs(slope) > reportMax {
		e.reportX, e.reportNTP, e.reports = x, ntp, 1
		return
	}
	e.prior = slope
}

// skewPPM is the sender's rate against arrivals, 0 while there is too little.
func (e *delay) skewPPM() float64 {
	if e.span < 10 || e.packets < 100 {
		return 0
	}
	return -1e6 * e.slope / (1 + e.slope)
}
