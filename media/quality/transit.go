package quality

// bounds are the upper bounds, in ms, of the classes of the jitter histogram;
// the last class has none.
var bounds = [...]float64{1, 2, 5, 10, 20, 50, 100, 200}

// transit is what the relative transit times of a stream's packets tell.
type transit struct {
	begun     bool
	clock     int
	baseTS    int64
	baseNS    int64
	newestTS  int64
	last      int64 // ns: relative transit time of the packet before
	least     [2]int64
	leastFrom int64 // ns: since when least[1] is gathered

	jitter     float64 // ns, RFC 3550 section 6.4.1
	jitterSum  float64
	jitterMax  float64
	stepMax    int64 // ns: greatest change of the transit time between two packets
	samples    uint64
	histogram  [len(bounds) + 1]uint32
	packetNS   vote // length of a packet
	packetSize vote // bytes of its payload
}

// packet takes a packet and tells whether it came in time to be heard.
func (t *transit) packet(arrivalNS, ts int64, clock, payloadBytes int, inOrder bool) bool {
	if clock <= 0 {
		clock = 8000
	}
	if !t.begun || clock != t.clock {
		t.begin(arrivalNS, ts, clock)
		return true
	}
	step := ts - t.newestTS
	if step == 0 {
		return true // the packets of one event (RFC 4733) have one timestamp
	}
	media, ok := t.ns(ts - t.baseTS)
	now := arrivalNS - t.baseNS - media
	d := now - t.last
	if !ok || d > jumpNS || d < -jumpNS {
		t.begin(arrivalNS, ts, clock)
		return true
	}
	if length, ok := t.ns(step); inOrder && ok && length > 0 && length <= packetNSMax {
		t.packetNS.count(length)
		t.packetSize.count(int64(payloadBytes))
	}
	t.newestTS, t.last = max(ts, t.newestTS), now
	t.interarrival(max(d, -d))
	return t.heard(arrivalNS-t.baseNS, now)
}

func (t *transit) begin(arrivalNS, ts int64, clock int) {
	t.begun, t.clock, t.baseTS, t.baseNS, t.newestTS = true, clock, ts, arrivalNS, ts
	t.last, t.leastFrom, t.least = 0, 0, [2]int64{}
}

// ns converts ticks; false when they are further away than a stream can be.
func (t *transit) ns(ticks int64) (int64, bool) {
	const secondsMax = 10 * 365 * 86400
	c := int64(t.clock)
	if s := ticks / c; s > secondsMax || s < -secondsMax {
		return 0, false
	}
	return ticks/c*1e9 + ticks%c*1e9/c, true
}

// interarrival is RFC 3550 appendix A.8, in ns instead of ticks and without rounding.
func (t *transit) interarrival(d int64) {
	t.jitter += (float64(d) - t.jitter) / 16
	t.jitterSum += t.jitter
	t.jitterMax = max(t.jitterMax, t.jitter)
	t.stepMax = max(t.stepMax, d)
	t.samples++
	class := 0
	for class < len(bounds) && float64(d) > bounds[class]*1e6 {
		class++
	}
	t.histogram[class]++
}

// heard compares the transit time with the least one of the last seconds.
func (t *transit) heard(atNS, now int64) bool {
	if atNS-t.leastFrom >= leastSpanNS {
		t.least[0], t.least[1], t.leastFrom = t.least[1], now, atNS
	}
	t.least[1] = min(t.least[1], now)
	return now-min(t.least[0], t.least[1]) <= DiscardMS*1e6
}

// vote finds the value that more than half of the samples have (Boyer and
// Moore's majority vote).
type vote struct {
	value int64
	lead  uint32
}

func (v *vote) count(x int64) {
	switch {
	case x == v.value:
		v.lead = min(v.lead+1, 1000) // so that a change of packet length is followed
	case v.lead == 0:
		v.value, v.lead = x, 1
	default:
		v.lead--
	}
}
