package quality

const (
	referencesMax = 8 // reports a half remembers: their answers come within one or two intervals
	tripNSMax     = int64(60e9)
	// tripSlackNS is how far below zero a measurement may come out: the delay it
	// subtracts is rounded, and measured by another clock.
	tripSlackNS = int64(5e6)
)

// Half measures the round trips between the tap and one party: a report
// that passes the tap towards the party comes back as the LSR of its report
// blocks, with the time that the party held it (RFC 3550 section 6.4.1).
// The zero value is ready.
type Half struct {
	passed [referencesMax]passage
	next   uint8
	trip   Trip
	sumNS  int64
}

type passage struct {
	ssrc, middle uint32
	atNS         int64
	used         bool
}

// Trip is what was measured. Nothing is known while Count is 0.
type Trip struct {
	Count  int     `json:"count"`
	LastMS float64 `json:"last_ms"`
	MinMS  float64 `json:"min_ms"`
	MeanMS float64 `json:"mean_ms"`
	MaxMS  float64 `json:"max_ms"`
}

// Passed notes that a reference of the other party passes the tap, on its way to this one.
func (h *Half) Passed(r Reference, atNS int64) {
	h.passed[h.next%referencesMax] = passage{ssrc: r.SSRC, middle: uint32(r.NTP >> 16), atNS: atNS, used: true}
	h.next++
}

// Returned takes the answer as this party sends it: last is the LSR or LRR,
// since the DLSR or DLRR in 1/65536 s. It returns the round trip in ns, and
// false when it answers nothing that passed.
func (h *Half) Returned(ssrc, last, since uint32, atNS int64) (int64, bool) {
	if last == 0 {
		return 0, false // the party has received no report yet
	}
	for i := range h.passed {
		p := &h.passed[(int(h.next)+referencesMax-1-i)%referencesMax] // newest first
		if !p.used || p.ssrc != ssrc || p.middle != last {
			continue
		}
		ns := atNS - p.atNS - int64(since)*1e9>>16
		if ns < -tripSlackNS || ns > tripNSMax {
			return 0, false
		}
		h.take(max(ns, 0))
		return max(ns, 0), true
	}
	return 0, false
}

func (h *Half) take(ns int64) {
	ms := round(float64(ns)/1e6, 3)
	t := &h.trip
	if t.Count == 0 {
		t.MinMS = ms
	}
	h.sumNS += ns
	t.Count++
	t.LastMS, t.MinMS, t.MaxMS = ms, min(t.MinMS, ms), max(t.MaxMS, ms)
	t.MeanMS = round(float64(h.sumNS)/float64(t.Count)/1e6, 3)
}

// Trip returns what was measured so far.
func (h *Half) Trip() Trip { return h.trip }

// Relay gives the RTCP of a call whose two sides both pass the tap to where it
// belongs. The zero value is ready.
type Relay struct {
	Halves  [2]Half // by side: the round trips between the tap and it
	control Control
}

// RTCP takes a datagram that side from (0 or 1) sent. stream finds a stream
// that a side sends, nil when there is none; it is called while RTCP runs. An
// error says that the datagram is malformed; what was understood before that is taken.
func (r *Relay) RTCP(from int, wire []byte, atNS int64, stream func(side int, ssrc uint32) *Stream) error {
	err := r.control.Parse(wire)
	c, here, there := &r.control, &r.Halves[from&1], &r.Halves[1-from&1]
	other := 1 - from&1
	for _, s := range c.Senders {
		there.Passed(s, atNS)
	}
	for _, s := range c.References {
		there.Passed(s, atNS)
	}
	for _, b := range c.Blocks {
		here.Returned(b.SSRC, b.LastSenderReport, b.Delay, atNS)
		if s := stream(other, b.SSRC); s != nil {
			s.Report(b.ReceptionReport)
		}
	}
	for _, d := range c.Delays {
		here.Returned(d.SSRC, d.LastRR, d.Since, atNS)
	}
	for _, v := range c.VoIP {
		if s := stream(other, v.SSRC); s != nil {
			s.VoIP(v)
		}
	}
	for _, v := range c.Statistics {
		if s := stream(other, v.SSRC); s != nil {
			s.Summary(v)
		}
	}
	return err
}
