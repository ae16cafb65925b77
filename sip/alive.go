package sip

import "time"

// Alive returns when the reader of each UDP socket has come by, with what its messages
// led to. It never returns when one hangs. The agent has started.
func (a *Agent) Alive() {
	for _, s := range a.packets {
		select {
		case <-s.beat: // of a probe that was given up
		default:
		}
		if s.pc.SetReadDeadline(time.Unix(1, 0)) != nil { // wakes it; in memory or closed it has none
			continue
		}
		select {
		case <-s.beat:
		case <-a.ctx.Done():
			return
		}
	}
}

// came takes the deadline back by which Alive has woken the reader.
func (s *packetSocket) came() {
	_ = s.pc.SetReadDeadline(time.Time{}) // the next read fails as well when it cannot be
	select {
	case s.beat <- struct{}{}:
	default:
	}
}
