// Package quality keeps the quality account of RTP streams: loss with its
// bursts, jitter, round trips, what the far end reports, and a MOS by the
// E-model.
//
// It is fed from one place that sees the packets of a call on their way, so
// what it says of loss and jitter is true up to that place; what lies behind it
// is known from the reports of the far end alone (see Remote).
package quality

// DiscardMS is how much later than the least delayed packet of the last
// seconds a packet may come to count as heard, ms. A telephone plays out at a
// fixed delay and discards what comes after it (RFC 3611 section 4.7.1); this
// is the buffer that is assumed of it.
const DiscardMS = 100

const (
	// jumpNS is how far the transit time may step from one packet to the next
	// before the timestamps count as having a new base. It is the bound at which
	// source.State begins a new epoch.
	jumpNS = int64(1e9)
	// leastSpanNS is the span over which the least delayed packet is sought,
	// twice: the delay of a changed route is taken for normal after two to four seconds.
	leastSpanNS = int64(2e9)
	// packetNSMax bounds what is believed to be the length of one packet.
	packetNSMax = int64(200e6)
)

// Stream is the account of what one synchronisation source sends in one
// direction. The zero value is ready. It has no clock and no pointer, takes no
// memory beside itself, and may be copied. Not safe for concurrent use.
type Stream struct {
	numbers    window
	transit    transit
	duplicates uint64
	remote     remote
}

// Packet takes a packet in order of arrival: arrivalNS is any steady
// clock's; seq and ts are extended (RFC 3550 appendix A.1); clock is the media
// clock in Hz, 0 means 8000; payloadBytes tells the mode of a codec that has
// several. A packet seen before is counted as a duplicate and changes nothing else.
func (s *Stream) Packet(arrivalNS, seq, ts int64, clock, payloadBytes int) {
	if s.numbers.seen(seq) {
		s.duplicates++
		return
	}
	inOrder := !s.numbers.begun || seq == s.numbers.newest+1
	heard := s.transit.packet(arrivalNS, ts, clock, payloadBytes, inOrder)
	s.numbers.packet(seq, heard)
}

// Duplicate counts a copy that was told as such elsewhere.
func (s *Stream) Duplicate() { s.duplicates++ }

// Late counts a packet that came and was too far behind to be placed. It has
// been counted as lost before and is counted as discarded from now on.
func (s *Stream) Late() { s.numbers.tooLate() }

// Unseen says that n packets were dropped between the wire and this account,
// before the packet that comes next: as many missing numbers are neither lost nor
// received. What finds no missing number soon was something else.
func (s *Stream) Unseen(n int64) {
	if n > 0 {
		s.numbers.unseenOwed = min(s.numbers.unseenOwed+n, dropoutPacketsMax)
		s.numbers.owedUntil = s.numbers.newest + windowPackets
	}
}

// Restart says that the timestamps go on from a new base: the next packet is
// not compared with the one before it.
func (s *Stream) Restart() { s.transit.begun = false }
