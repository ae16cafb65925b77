package relay

import (
	"time"
	"unsafe"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
)

type overlaySlot struct{ overlay media.Overlay }

// SetOverlay lets an overlay put sound into the RTP that is accepted from a side,
// nil none. The far side and the tap get the same bytes; RTCP, and streams that
// are not RTP, pass it by. When it returns, the overlay before is used no more. It
// must not be called by an Overlay or a Tap.
//
// A sender report's octet count (RFC 3550 section 6.4.1) stays the sender's own:
// an overlay that changes the size of payloads makes it differ from what arrives.
func (s *Stream) SetOverlay(side media.Side, o media.Overlay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	var slot *overlaySlot
	if o != nil {
		slot = &overlaySlot{o}
	}
	if s.overlays[side].Swap(slot) != nil {
		s.relay.engine.settle(s)
	}
	if o != nil {
		s.withdraw(side)
	}
}

// overlay returns what goes on in place of an accepted packet: wire itself, or
// a packet that is valid until the next call.
func (s *Stream) overlay(side media.Side, rtcp bool, arrival time.Time, wire []byte) []byte {
	slot := s.overlays[side].Load()
	if slot == nil || rtcp || !s.rtp || s.sec.sides[side].mode == srtp.Passed {
		return wire
	}
	return s.applied(side, slot, arrival, wire)
}

func (s *Stream) applied(side media.Side, slot *overlaySlot, arrival time.Time, wire []byte) (out []byte) {
	defer func() {
		if v := recover(); v != nil {
			out = wire
			s.overlayFailed(side, slot, v)
		}
	}()
	out = slot.overlay.Apply(arrival, wire)
	if len(out) == 0 || len(out) > datagramBytesMax || unsafe.SliceData(out) == unsafe.SliceData(wire) {
		return wire
	}
	s.stats[side].overlaid.Add(1)
	return out
}

// overlayFailed takes an overlay out that panicked: the tone is missing, the call goes on.
func (s *Stream) overlayFailed(side media.Side, slot *overlaySlot, v any) {
	s.overlays[side].CompareAndSwap(slot, nil)
	s.stats[side].overlayPanics.Add(1)
	s.logPanic("an overlay panicked and was taken out", side, v)
}
