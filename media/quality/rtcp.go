package quality

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pion/rtcp"
)

// Limits of one compound RTCP packet.
const (
	ControlBytesMax = 2048 // longer ones are refused
	ControlItemsMax = 32   // of each kind are taken from one; the rest is ignored
)

// ErrControl is wrapped by what Control.Parse returns. It carries no content of
// the packet.
var ErrControl = errors.New("rtcp")

// Reference is a moment on a sender's clock: of a sender report (RFC 3550
// section 6.4.1) or of a receiver reference time block (RFC 3611 section 4.4).
type Reference struct {
	SSRC uint32 // who says it
	NTP  uint64 // 32.32 s since 1900 by the sender's own clock
}

// Block is a report block with its reporter (RFC 3550 section 6.4.2).
type Block struct {
	Reporter uint32
	rtcp.ReceptionReport
}

// Delay answers a receiver reference time (DLRR, RFC 3611 section 4.5).
type Delay struct {
	Reporter uint32
	SSRC     uint32 // whose reference time it answers
	LastRR   uint32 // middle 32 bits of it
	Since    uint32 // 1/65536 s since it came
}

// Control is what a compound RTCP packet says of quality. Its slices are
// reused by the next Parse.
type Control struct {
	Senders    []Reference
	Blocks     []Block
	References []Reference
	Delays     []Delay
	Statistics []Statistics
	VoIP       []VoIPMetrics
}

// Statistics is a statistics summary block (RFC 3611 section 4.6). What its
// flags say is absent is zero.
type Statistics struct {
	Reporter, SSRC                              uint32
	Lost, Duplicate                             uint32
	MinJitter, MaxJitter, MeanJitter, DevJitter uint32 // ticks of the media clock
	MinTTL, MaxTTL, MeanTTL, DevTTL             uint8
}

// Parse reads one datagram. What is understood before something that is not
// stays, beside the error; packets and blocks of other kinds are skipped.
// Nothing is allocated once the slices have grown.
func (c *Control) Parse(wire []byte) error {
	c.Senders, c.Blocks, c.References = c.Senders[:0], c.Blocks[:0], c.References[:0]
	c.Delays, c.Statistics, c.VoIP = c.Delays[:0], c.Statistics[:0], c.VoIP[:0]
	if len(wire) == 0 || len(wire) > ControlBytesMax {
		return fmt.Errorf("%w: %d bytes: 4 to %d", ErrControl, len(wire), ControlBytesMax)
	}
	for at := 0; at < len(wire); {
		var h rtcp.Header
		if err := h.Unmarshal(wire[at:]); err != nil {
			return fmt.Errorf("%w: header at byte %d: %w", ErrControl, at, err)
		}
		end := at + 4*(int(h.Length)+1)
		if end > len(wire) {
			return fmt.Errorf("%w: packet at byte %d ends %d bytes after the datagram", ErrControl, at, end-len(wire))
		}
		if err := c.packet(h, wire[at+4:end]); err != nil {
			return fmt.Errorf("%w: packet at byte %d: %w", ErrControl, at, err)
		}
		at = end
	}
	return nil
}

var errShort = errors.New("shorter than its header says")

func (c *Control) packet(h rtcp.Header, body []byte) error {
	const sender, block = 4, 24
	switch h.Type {
	case rtcp.TypeSenderReport, rtcp.TypeReceiverReport:
		info := sender
		if h.Type == rtcp.TypeSenderReport {
			info += 20
		}
		if len(body) < info+int(h.Count)*block {
			return errShort
		}
		ssrc := binary.BigEndian.Uint32(body)
		if h.Type == rtcp.TypeSenderReport {
			c.Senders = within(c.Senders, Reference{SSRC: ssrc, NTP: binary.BigEndian.Uint64(body[4:])})
		}
		for i := range int(h.Count) {
			b := Block{Reporter: ssrc}
			if err := b.Unmarshal(body[info+i*block:]); err != nil {
				return err
			}
			c.Blocks = within(c.Blocks, b)
		}
	case rtcp.TypeExtendedReport:
		if len(body) < sender {
			return errShort
		}
		return c.extended(binary.BigEndian.Uint32(body), body[sender:])
	default: // source descriptions, feedback: nothing of quality
	}
	return nil
}

// within appends while there is room.
func within[T any](list []T, v T) []T {
	if len(list) < ControlItemsMax {
		return append(list, v)
	}
	return list
}

// extended reads the blocks of an extended report (RFC 3611 section 3).
func (c *Control) extended(reporter uint32, body []byte) error {
	for len(body) > 0 {
		if len(body) < 4 {
			return errShort
		}
		kind, flags, n := body[0], body[1], 4*int(binary.BigEndian.Uint16(body[2:]))
		if len(body) < 4+n {
			return errShort
		}
		if err := c.block(reporter, kind, flags, body[4:4+n]); err != nil {
			return fmt.Errorf("extended report block %d: %w", kind, err)
		}
		body = body[4+n:]
	}
	return nil
}

// Block types of RFC 3611 section 4.
const (
	blockReference  = 4
	blockDelay      = 5
	blockStatistics = 6
	blockVoIP       = 7
)

func (c *Control) block(reporter uint32, kind, flags uint8, b []byte) error {
	be := binary.BigEndian
	switch kind {
	case blockReference:
		if len(b) < 8 {
			return errShort
		}
		c.References = within(c.References, Reference{SSRC: reporter, NTP: be.Uint64(b)})
	case blockDelay:
		for ; len(b) >= 12; b = b[12:] {
			c.Delays = within(c.Delays, Delay{Reporter: reporter, SSRC: be.Uint32(b), LastRR: be.Uint32(b[4:]), Since: be.Uint32(b[8:])})
		}
		if len(b) > 0 {
			return errShort
		}
	case blockStatistics:
		if len(b) < 36 {
			return errShort
		}
		c.Statistics = within(c.Statistics, statistics(reporter, flags, b))
	case blockVoIP:
		if len(b) < 32 {
			return errShort
		}
		c.VoIP = within(c.VoIP, voipMetrics(reporter, b))
	}
	return nil
}

func statistics(reporter uint32, flags uint8, b []byte) Statistics {
	be := binary.BigEndian
	s := Statistics{Reporter: reporter, SSRC: be.Uint32(b)}
	if flags&0x80 != 0 {
		s.Lost = be.Uint32(b[8:])
	}
	if flags&0x40 != 0 {
		s.Duplicate = be.Uint32(b[12:])
	}
	if flags&0x20 != 0 {
		s.MinJitter, s.MaxJitter, s.MeanJitter, s.DevJitter = be.Uint32(b[16:]), be.Uint32(b[20:]), be.Uint32(b[24:]), be.Uint32(b[28:])
	}
	if flags&0x18 != 0 {
		s.MinTTL, s.MaxTTL, s.MeanTTL, s.DevTTL = b[32], b[33], b[34], b[35]
	}
	return s
}
