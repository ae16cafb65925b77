package relay

import "time"

const (
	// paceFrom and paceFull are the packets per second of one loop between which it
	// goes over from waking for each packet to waking every CoalesceMax: what 20
	// and 60 calls bring. Below, a wake-up rarely finds more than one packet however
	// long it was put off; above, it finds several.
	paceFrom = 2000
	paceFull = 6000

	// paceBrisk is the rate from which on a loop waits in short turns (see
	// loop.await): most of them are then ended by a packet.
	paceBrisk = 1000

	// paceWindow is how long packets are counted for a new estimate: the packet
	// interval of most media, so that a burst which is repeated is seen as the rate it is.
	paceWindow = 20 * time.Millisecond

	// sleepMin is less than what a wake-up costs: sleeping so short saves nothing.
	sleepMin = 50 * time.Microsecond
)

// pace decides how long a loop lets packets gather, from how many come. It
// knows no clock: all times are distances from any one moment.
type pace struct {
	max time.Duration // longest sleep; 0: none

	rate  int // packets per second, of late
	since time.Duration
	count int // packets since then
}

// next takes what a round brought, and whether it left something unread. It
// tells how long to sleep before looking again, 0: not at all, and whether packets
// come so often that waiting for the next one will not take long.
func (p *pace) next(now time.Duration, packets int, full bool) (sleep time.Duration, brisk bool) {
	p.count += packets
	if passed := now - p.since; passed >= paceWindow {
		fresh := int(int64(p.count) * int64(time.Second) / int64(passed))
		if passed >= 2*paceWindow {
			p.rate = fresh // it was idle for part of it
		} else {
			p.rate = (p.rate + fresh + 1) / 2
		}
		p.since, p.count = now, 0
	}
	brisk = p.rate >= paceBrisk
	if full || p.max == 0 || p.rate <= paceFrom {
		return 0, brisk
	}
	sleep = p.max
	if p.rate < paceFull {
		sleep = p.max * time.Duration(p.rate-paceFrom) / (paceFull - paceFrom)
	}
	if sleep < min(sleepMin, p.max) {
		return 0, brisk
	}
	return sleep, brisk
}
