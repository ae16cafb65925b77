package source

import (
	"errors"
	"fmt"

	"github.com/pion/rtcp"
)

// Limits of one compound RTCP packet.
const (
	CompoundBytesMax   = 2048 // longer ones are refused
	CompoundReportsMax = 32   // sender reports and BYE sources taken from one; the rest is ignored
)

// ErrRTCP is wrapped by what ParseReports returns.
var ErrRTCP = errors.New("rtcp")

// SenderReport is the part of RFC 3550 section 6.4.1 that tells rates.
type SenderReport struct {
	SSRC    uint32
	NTP     uint64 // 32.32 seconds since 1900, by the sender's own clock
	RTPTime uint32 // media clock at that moment
	Packets uint32
	Octets  uint32
}

// NTPNanos is the report's NTP time in ns since 1900. It wraps with NTP's era
// and is only good for differences.
func (r SenderReport) NTPNanos() int64 {
	return int64(r.NTP>>32)*1e9 + int64((r.NTP&0xffffffff)*1e9>>32)
}

// Reports is what a compound RTCP packet says about its senders.
type Reports struct {
	Sender []SenderReport
	Bye    []uint32 // sources that end (section 6.6)
}

// ParseReports reads a compound RTCP packet. A part that is understood before
// one that is not is returned beside the error; unknown packet types are
// skipped. The slices of r are reused.
func ParseReports(wire []byte, r *Reports) error {
	r.Sender, r.Bye = r.Sender[:0], r.Bye[:0]
	if len(wire) > CompoundBytesMax {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrRTCP, len(wire), CompoundBytesMax)
	}
	if len(wire) == 0 {
		return fmt.Errorf("%w: empty", ErrRTCP)
	}
	for at := 0; at < len(wire); {
		var h rtcp.Header
		if err := h.Unmarshal(wire[at:]); err != nil {
			return fmt.Errorf("%w: header at byte %d: %w", ErrRTCP, at, err)
		}
		end := at + 4*(int(h.Length)+1)
		if end > len(wire) {
			return fmt.Errorf("%w: packet at byte %d ends %d bytes after the datagram", ErrRTCP, at, end-len(wire))
		}
		if err := r.add(h, wire[at:end]); err != nil {
			return fmt.Errorf("%w: packet at byte %d: %w", ErrRTCP, at, err)
		}
		at = end
	}
	return nil
}

func (r *Reports) add(h rtcp.Header, packet []byte) error {
	switch h.Type {
	case rtcp.TypeSenderReport:
		var sr rtcp.SenderReport
		if err := sr.Unmarshal(packet); err != nil {
			return err
		}
		if len(r.Sender) < CompoundReportsMax {
			r.Sender = append(r.Sender, SenderReport{
				SSRC: sr.SSRC, NTP: sr.NTPTime, RTPTime: sr.RTPTime,
				Packets: sr.PacketCount, Octets: sr.OctetCount,
			})
		}
	case rtcp.TypeGoodbye:
		var bye rtcp.Goodbye
		if err := bye.Unmarshal(packet); err != nil {
			return err
		}
		room := CompoundReportsMax - len(r.Bye)
		r.Bye = append(r.Bye, bye.Sources[:min(room, len(bye.Sources))]...)
	}
	return nil
}
