package recorder

import (
	"github.com/pion/rtp"

	"github.com/trunktap/trunktap/media/jitter"
	"github.com/trunktap/trunktap/media/source"
)

// heldPacket is a packet outside the sequence of its source. It is used when the
// next one confirms that a new sequence began with it (RFC 3550 appendix A.1).
type heldPacket struct {
	waits  bool
	tooOld bool // by the sequence that it interrupts
	format *format
	clock  int           // Hz
	packet source.Packet // without its place
	buf    []byte
}

// probe holds a packet until the next tells what it is.
func (st *stream) probe(c *core, h *rtp.Header, f *format, payload []byte, arrival int64, tooOld bool) {
	st.disprove(c)
	if st.held == nil {
		st.held = new(heldPacket)
	}
	q := st.held
	payload = payload[:min(len(payload), jitter.PayloadBytesMax+1)] // what is too long is refused, as in its turn
	q.buf = append(q.buf[:0], payload...)
	q.waits, q.tooOld, q.format, q.clock = true, tooOld, f, st.state.Clock
	q.packet = source.Packet{Arrival: arrival, SSRC: st.ssrc, PT: h.PayloadType, Marker: h.Marker, Payload: q.buf}
}

// disprove lets go of a packet that nothing confirmed.
func (st *stream) disprove(c *core) {
	if q := st.held; q != nil && q.waits {
		q.waits = false
		if q.tooOld {
			st.late(c)
		}
	}
}

// confirm takes the packet that a new sequence began with, in its place. One
// whose payload type means something else by now is let go.
func (st *stream) confirm(c *core, s *side) {
	q := st.held
	if q == nil || !q.waits {
		return
	}
	q.waits = false
	if f := st.lane.format(q.packet.PT); f != q.format && (f.Name != q.format.Name || f.ClockRate != q.format.ClockRate) {
		return
	}
	p := q.packet
	p.Seq, p.TS, p.Epoch = st.state.Held()
	clock := st.state.Clock
	st.state.Clock = q.clock
	st.accepted(c, s, q.format, p)
	st.state.Clock = clock
}
