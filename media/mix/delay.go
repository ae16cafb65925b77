package mix

import "math"

// delay follows the lower envelope of a run's transit times: of d = arrival -
// ts/clock only the least matter, everything above is jitter. The envelope is
// a line whose slope is the skew of the two clocks. It keeps the least-delayed
// packet of every second of sender time, a few minutes of them; the slope comes
// from the edge of their lower convex hull that carries the mean (Moon, Skelly,
// Towsley: "Estimation and Removal of Clock Skew from Network Delay
// Measurements", 1999). The height is that of the lowest of the least-delayed
// packets, each seen along the slope and, because the slope is uncertain, the
// less trusted the older it is.
type delay struct {
	clock float64 // Hz of the index: the track's rate

	buckets []bucket // ring; grows up to bucketsMax
	first   int
	n       int
	packets int64 // in the buckets

	own   slope   // of the envelope, by arrivals
	prior slope   // known from before the last restart, or from reports
	span  float64 // seconds of sender time that own rests on

	least  float64 // height of the line at leastX, s
	leastX float64
	dirty  bool // least is not up to date

	reportX, reportNTP float64 // first sender report, s
	reported           bool
}

// slope is a rate of drift and how far it may be wrong, both dimensionless.
type slope struct{ rate, uncertain float64 }

type bucket struct {
	second int64   // of sender time
	x      float64 // sender time of the least-delayed packet, s
	d      float64 // its delay, s since the session's base
	sum    float64 // of all delays
	count  int64
}

const (
	bucketsMax = 240 // seconds with packets that are remembered

	// How far back a delay counts: as far as the slope's uncertainty amounts to
	// windowDriftS, within limits, and further while there are few packets.
	windowMinS    = 10.0
	windowMaxS    = 60.0
	windowDriftS  = 1.5e-3
	windowPackets = 300

	slopeFromS     = 5.0     // history without which it does not count
	slopeMax       = 1000e-6 // clocks are not further apart
	slopeUnknown   = 100e-6  // how far they are thought to be as long as nothing is known
	slopeUncertain = 5e-6    // what is left at the best: clocks wander with temperature
	slopeReported  = 80e-6   // of a rate told by sender reports

	// A step of the path's delay, or of the sender's timestamps, that is too
	// small for a new epoch: history from before it is dropped.
	stepDownS       = 3e-3
	stepDownPackets = 500
	stepUpS         = 3e-3
	stepUpShare     = 0.2  // of the mean jitter
	stepUpWindowS   = 10.0 // all packets of this time must agree
	stepUpPackets   = 200

	// One that is larger than all jitter was is believed sooner.
	stepUpFarS       = 20e-3
	stepUpFarShare   = 2.2
	stepUpFarWindowS = 3.0
	stepUpFarPackets = 60
)

func (e *delay) reset(rate int64) {
	*e = delay{buckets: e.buckets, clock: float64(rate), own: slope{0, slopeMax}, prior: slope{0, slopeUnknown}}
}

func (e *delay) at(i int) *bucket {
	if i += e.first; i >= len(e.buckets) {
		i -= len(e.buckets)
	}
	return &e.buckets[i]
}

// grow makes room for one more bucket, the oldest giving way at the limit. A
// short call has few of them.
func (e *delay) grow() {
	switch {
	case e.n < len(e.buckets):
	case e.n < bucketsMax:
		more := make([]bucket, min(max(16, 2*e.n), bucketsMax))
		for i := range e.n {
			more[i] = *e.at(i)
		}
		e.buckets, e.first = more, 0
	default:
		e.packets -= e.at(0).count
		e.first, e.n = (e.first+1)%bucketsMax, e.n-1
	}
}

// add takes the index (sender time in samples) of a packet and its arrival.
func (e *delay) add(index, arrival int64) {
	x := float64(index) / e.clock
	d := float64(arrival)/1e9 - x
	second := int64(math.Floor(x))
	if e.n > 0 && e.packets >= stepDownPackets && d < e.line(x)-stepDownS {
		e.restart(e.n)
	}
	for i := e.n - 1; i >= 0 && i >= e.n-8; i-- {
		if b := e.at(i); b.second == second {
			b.sum += d
			b.count++
			e.packets++
			if d < b.d {
				b.x, b.d, e.dirty = x, d, true
			}
			return
		}
	}
	if e.n > 0 && second < e.at(e.n-1).second {
		return // overtaken by seconds: it cannot be one of the least delayed
	}
	e.grow()
	e.n++
	e.packets++
	*e.at(e.n - 1) = bucket{second, x, d, d, 1}
	e.dirty = true
	if e.n > 1 {
		e.stepUp()
	}
	if e.n > 1 {
		e.fit()
	}
}

// restart drops the n oldest buckets; what was learnt of the slope stays.
func (e *delay) restart(n int) {
	e.prior, e.own, e.span = e.slope(), slope{0, slopeMax}, 0
	e.first, e.n = (e.first+n)%max(len(e.buckets), 1), e.n-n
	e.packets, e.dirty = 0, true
	for i := range e.n {
		e.packets += e.at(i).count
	}
}

// slope is the best knowledge of the slope: what arrivals and prior knowledge
// say, each by its weight.
func (e *delay) slope() slope {
	a := 1 / (e.own.uncertain * e.own.uncertain)
	b := 1 / (e.prior.uncertain * e.prior.uncertain)
	return slope{(a*e.own.rate + b*e.prior.rate) / (a + b), math.Max(1/math.Sqrt(a+b), slopeUncertain)}
}

// line is the least delay to be expected at sender time x, in s. There must be
// a packet.
func (e *delay) line(x float64) float64 {
	k := e.slope()
	if e.dirty {
		e.leastX = e.at(e.n - 1).x
		e.least = e.lowest(0, e.n, e.leastX, k)
		e.dirty = false
	}
	return e.least + k.rate*(x-e.leastX)
}

// lowest is the height at x of the lowest of the buckets [from, to) that are
// not too old.
func (e *delay) lowest(from, to int, x float64, k slope) float64 {
	least := math.Inf(1)
	var packets int64
	window := math.Max(windowMinS, math.Min(windowMaxS, windowDriftS/k.uncertain))
	for i := to - 1; i >= from; i-- {
		b := e.at(i)
		age := x - b.x
		if age > window && packets >= windowPackets || age > windowMaxS && i < to-1 {
			break
		}
		packets += b.count
		least = math.Min(least, b.d+(k.rate+k.uncertain/2)*age)
	}
	return least
}

// known tells whether there is a line.
func (e *delay) known() bool { return e.n > 0 }

// stepUp drops history when all packets of the last seconds were later than it
// foretells: the path has changed, the old least delay will not come back.
func (e *delay) stepUp() {
	if !e.raised(stepUpWindowS, stepUpPackets, stepUpS, stepUpShare) {
		e.raised(stepUpFarWindowS, stepUpFarPackets, stepUpFarS, stepUpFarShare)
	}
}

// raised looks at the packets of the last window, at least so many, and drops
// what is before them when the least delay has risen by a step and by a share
// of the mean jitter.
func (e *delay) raised(window float64, least int64, step, share float64) bool {
	newest := e.at(e.n - 1).x
	var packets int64
	var sum float64
	split := e.n
	for split > 0 && (newest-e.at(split-1).x < window || packets < least) {
		split--
		packets += e.at(split).count
		sum += e.at(split).sum
	}
	if split == 0 {
		return false
	}
	k := e.slope()
	old := e.lowest(0, split, newest, k)
	recent := e.lowest(split, e.n, newest, slope{k.rate, -k.uncertain})
	if jitter := sum/float64(packets) - recent; recent-old > math.Max(step, share*jitter) {
		e.restart(split)
		return true
	}
	return false
}

// fit finds the slope of the envelope.
func (e *delay) fit() {
	var mean, jitter float64
	var count int64
	var hull [bucketsMax]int16
	top := 0
	for i := range e.n {
		b := e.at(i)
		mean += b.x * float64(b.count)
		jitter += b.sum - b.d*float64(b.count)
		count += b.count
		for top >= 2 && cross(e.at(int(hull[top-2])), e.at(int(hull[top-1])), b) <= 0 {
			top--
		}
		hull[top] = int16(i)
		top++
	}
	mean /= float64(count)
	e.span = e.at(e.n-1).x - e.at(0).x
	// The least of n delays of a mean jitter is about jitter/n too large, and a
	// third of the packets decides either end of the edge.
	noise := 2 * (jitter / float64(count)) / (float64(count) / 3)
	for i := 1; i < top; i++ {
		a, b := e.at(int(hull[i-1])), e.at(int(hull[i]))
		if b.x >= mean || i == top-1 {
			e.own.rate = math.Max(-slopeMax, math.Min(slopeMax, (b.d-a.d)/(b.x-a.x)))
			e.own.uncertain = math.Max(noise/(b.x-a.x), slopeUncertain)
			e.weigh(hull[:top], mean, 2*jitter/float64(count)/float64(count))
			if e.span < slopeFromS {
				e.own.uncertain = slopeMax
			}
			return
		}
	}
}

// weigh looks at slopes about that of the edge: each is as likely as the line
// of that slope under all delays is high where the packets' mean is, against
// what the least of so many delays is off.
func (e *delay) weigh(hull []int16, mean, scale float64) {
	const steps, reach = 24, 4.0
	if scale <= 0 || e.own.uncertain <= slopeUncertain {
		return // not to be known better
	}
	var heights [2*steps + 1]float64
	highest := math.Inf(-1)
	at := func(j int) float64 { return e.own.rate + e.own.uncertain*reach*float64(j-steps)/steps }
	for j := range heights {
		h := math.Inf(1)
		for _, i := range hull {
			b := e.at(int(i))
			h = math.Min(h, b.d-at(j)*(b.x-mean))
		}
		heights[j] = h
		highest = math.Max(highest, h)
	}
	var sum, first, second float64
	for j, h := range heights {
		w, s := math.Exp((h-highest)/scale), at(j)
		sum, first, second = sum+w, first+w*s, second+w*s*s
	}
	rate := first / sum
	e.own = slope{rate, math.Max(math.Sqrt(math.Max(second/sum-rate*rate, 0)), slopeUncertain)}
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
	if e.reported && x-e.reportX < reportSpanS && x >= e.reportX {
		return
	}
	rate := (ntp-e.reportNTP)/(x-e.reportX) - 1
	if !e.reported || x < e.reportX || math.Abs(rate) > reportMax {
		e.reportX, e.reportNTP, e.reported = x, ntp, true
		return
	}
	if e.prior.uncertain >= slopeReported {
		e.prior, e.dirty = slope{rate, slopeReported}, true
	}
}

// skewPPM is the sender's rate against arrivals, 0 while there is too little.
func (e *delay) skewPPM() float64 {
	if e.span < 10 || e.packets < 100 {
		return 1e6 * (1/(1+e.prior.rate) - 1)
	}
	return 1e6 * (1/(1+e.own.rate) - 1)
}
