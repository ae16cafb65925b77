package overlay

import "time"

// driftMax is how far a sender's timestamps may be from the arrivals of its
// packets before they are taken for a jump of the timestamps.
const driftMax = time.Second

// player is the place of one sound in a stream. Within a sound time is counted
// by RTP timestamps, so jitter and loss change neither its length nor the
// phase of a tone.
type player struct {
	on     bool
	clock  int       // of the timestamps, in Hz
	anchor uint32    // timestamp at which it begins
	began  time.Time // arrival of a packet with that timestamp
	length int       // in ticks
	lasts  time.Duration
}

// start begins a sound at some time after the beginning of the packet given;
// before it when that is negative. Nothing begins of one that is over.
func (p *player) start(timestamp uint32, arrival time.Time, at, lasts time.Duration, clock int) {
	*p = player{on: at > -lasts, clock: clock, began: arrival.Add(at), lasts: lasts}
	if !p.on {
		return
	}
	p.length = p.ticks(lasts)
	p.anchor = timestamp + uint32(int32(p.ticks(at)))
}

func (p *player) ticks(d time.Duration) int {
	return int(int64(d) * int64(p.clock) / int64(time.Second))
}

// rebase goes on in other timestamps.
func (p *player) rebase(timestamp uint32, arrival time.Time, clock int) {
	if p.on {
		p.start(timestamp, arrival, p.began.Sub(arrival), p.lasts, clock)
	}
}

// at returns where in the sound a packet begins, and whether the sound covers any of it.
func (p *player) at(timestamp uint32, arrival time.Time, ticks int) (offset int, covers bool) {
	if !p.on {
		return 0, false
	}
	offset = int(int32(timestamp - p.anchor))
	drift := time.Duration(offset)*time.Second/time.Duration(p.clock) - arrival.Sub(p.began)
	if drift > driftMax || drift < -driftMax {
		p.rebase(timestamp, arrival, p.clock)
		offset = int(int32(timestamp - p.anchor))
	}
	if offset >= p.length {
		p.on = false
		return 0, false
	}
	return offset, offset+ticks > 0
}
