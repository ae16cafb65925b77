package report

import (
	"encoding/binary"
	"time"
)

// What a sequence number may be away from the one before it (RFC 3550 appendix A.1).
const (
	dropoutPacketsMax  = 3000
	misorderPacketsMax = 100
)

// source is what is counted of an SSRC.
type source struct {
	ssrc uint32
	last time.Time // something came of it

	// appendix A.1
	began    bool
	heard    bool // since the last report
	base     uint16
	highest  uint16
	cycles   uint32
	bad      int32 // the number that would confirm another sequence; 0: none, else one more than it
	received uint32

	// appendix A.3: when the last report was made
	expectedPrior, receivedPrior uint32

	// appendix A.8
	hz      int32 // of transit; 0: there is none
	transit uint32
	jitter  uint32 // 1/16 of the clock

	reported time.Time // its last sender report came; zero: none
	ntp      uint32    // of it, the middle 32 bits
}

// count takes a sequence number; false says that it fits nothing and that the packet
// counts only when the next one follows it.
func (s *source) count(seq uint16) bool {
	if !s.began {
		s.start(seq)
	}
	switch ahead := seq - s.highest; {
	case ahead < dropoutPacketsMax:
		if seq < s.highest {
			s.cycles += 1 << 16
		}
		s.highest, s.bad = seq, 0
	case ahead <= uint16(1<<16-misorderPacketsMax):
		if s.bad != int32(seq)+1 {
			s.bad = int32(seq+1) + 1
			return false
		}
		s.start(seq)
	}
	s.received++
	s.heard = true
	return true
}

func (s *source) start(seq uint16) {
	s.began, s.base, s.highest = true, seq, seq
	s.cycles, s.bad, s.received, s.expectedPrior, s.receivedPrior = 0, 0, 0, 0, 0
	s.hz = 0
}

// arrived takes when a packet came, since any moment, and its timestamp. A step of
// more than a second is a new timestamp base and no jitter.
func (s *source) arrived(at time.Duration, timestamp uint32, hz int32) {
	ticks := int64(at/time.Second)*int64(hz) + int64(at%time.Second)*int64(hz)/int64(time.Second)
	transit := uint32(ticks) - timestamp
	d := int64(int32(transit - s.transit))
	known := s.hz == hz
	s.transit, s.hz = transit, hz
	if d = max(d, -d); !known || d > int64(hz) {
		return
	}
	s.jitter += uint32(d) - (s.jitter+8)>>4
}

// block appends the report block and begins the next interval.
func (s *source) block(out []byte, now time.Time) []byte {
	extended := s.cycles + uint32(s.highest)
	expected := extended - uint32(s.base) + 1
	lost := int64(int32(expected - s.received))
	lost = min(max(lost, -1<<23), 1<<23-1)

	interval := int64(expected - s.expectedPrior)
	missed := interval - int64(s.received-s.receivedPrior)
	s.expectedPrior, s.receivedPrior, s.heard = expected, s.received, false
	fraction := uint32(0)
	if interval > 0 && missed > 0 {
		fraction = uint32(min(missed<<8/interval, 255))
	}
	var since uint32
	if !s.reported.IsZero() {
		since = uint32(int64(now.Sub(s.reported)) * 65536 / int64(time.Second))
	}
	out = binary.BigEndian.AppendUint32(out, s.ssrc)
	out = binary.BigEndian.AppendUint32(out, fraction<<24|uint32(lost)&0xffffff)
	out = binary.BigEndian.AppendUint32(out, extended)
	out = binary.BigEndian.AppendUint32(out, s.jitter>>4)
	out = binary.BigEndian.AppendUint32(out, s.ntp)
	return binary.BigEndian.AppendUint32(out, since)
}
