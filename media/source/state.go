package source

import (
	"math/bits"

	"github.com/pion/rtp"
)

// Verdict says what a packet is within its source.
type Verdict uint8

// Verdicts of State.Update. Only InOrder, Reordered and Restarted packets are
// to be used, and what was TooOld or Suspect once the next packet is Restarted.
const (
	InOrder   Verdict = iota // the newest so far, possibly after a hole
	Reordered                // behind the newest, not seen before
	Duplicate                // seen before
	TooOld                   // late by sequence: too far behind to be told from a duplicate
	Suspect                  // its sequence number fits nothing; the next one may confirm it
	Restarted                // confirms a new sequence: a new epoch begins with the packet before, see Held
)

// String names the verdict.
func (v Verdict) String() string {
	names := [...]string{"in order", "reordered", "duplicate", "too old", "suspect", "restarted"}
	if int(v) < len(names) {
		return names[v]
	}
	return "unknown"
}

// Usable tells whether a packet of this verdict carries something new.
func (v Verdict) Usable() bool { return v == InOrder || v == Reordered || v == Restarted }

// Limits of RFC 3550 appendix A.1.
const (
	dropoutPacketsMax  = 3000 // a longer jump forward is a restart
	misorderPacketsMax = 100  // further behind is too old

	// How far a timestamp may stray from its arrival against the packet before
	// it before it counts as a new timestamp base: ahead of it, and behind it. A
	// sender whose clock stood still (a hold without continuity) is placed too
	// early by that time, and what lies too early has been read; a new base is
	// placed by its own arrivals. After a network's stall of that length the
	// packets behind the first tell its place all the same.
	tsAheadNS  = int64(1e9)
	tsBehindNS = int64(300e6)
)

// Stats counts the packets of one source.
type Stats struct {
	Packets   int64 // distinct packets taken
	Lost      int64 // expected - received, never negative (RFC 3550 appendix A.3)
	Duplicate int64
	Reordered int64
	TooOld    int64
	Suspect   int64 // outside the sequence and never confirmed
	Restarts  int64 // sequence or timestamp resets
}

// State follows one SSRC. The zero value is ready. Not safe for concurrent use.
//
// Extended sequence numbers go on without a hole over a restart, so what
// orders packets need not know of it; the epoch tells that the timestamps
// have a new base.
type State struct {
	// Clock is that of the next packet's media, in Hz; 0 means 8000. Another
	// one than before is a new timestamp base (RFC 7160 section 4.1). Events and
	// comfort noise count by the clock of the audio that they interrupt.
	Clock int

	started bool
	epoch   int // of the newest packet
	given   int // of the last packet

	// The timestamp base before the current one, for packets that were
	// overtaken by its first packet.
	epochSeq   int64 // where the current base began
	formerTS   int64
	formerWire uint32
	formerHz   int64

	maxSeq  int64     // extended, newest so far
	seqBase int64     // first extended number
	wireSeq uint16    // of maxSeq, on the wire
	seen    [2]uint64 // bit i: maxSeq-i was received
	past    window    // what was received before it
	badNext int32     // sequence number that would confirm a restart, -1: none
	bad     probe     // the packet before that

	hz        int64 // media clock of the newest packet
	ts        int64 // extended, of the newest packet
	wireTS    uint32
	refTS     int64 // the newest packet with a timestamp of its own
	refArrive int64

	stats Stats
}

// window is what was received up to a packet.
type window struct {
	seq  uint16    // on the wire
	end  int64     // extended number of the packet with which it is forgotten
	seen [2]uint64 // bit i: seq-i was received
}

// copied tells of a packet that was received before the newest sequence.
func (s *State) copied(h *rtp.Header) bool {
	d := s.past.seq - h.SequenceNumber
	return s.maxSeq < s.past.end && d < 128 && s.past.seen[d/64]&(1<<(d%64)) != 0
}

// leave keeps the window that a jump of d packets leaves behind: a stranger's packet
// may be its cause, and copies of what came before are on their way. What holds no
// more than one packet is that stranger's.
func (s *State) leave(d int64) {
	if bits.OnesCount64(s.seen[0])+bits.OnesCount64(s.seen[1]) > 1 {
		s.past = window{s.wireSeq, s.maxSeq + d + misorderPacketsMax, s.seen}
	}
}

// probe is a packet outside the sequence, with which another may have begun.
type probe struct {
	ts      uint32 // on the wire
	hz      int64
	arrival int64
	tooOld  bool // counted as that, else as suspect
	// of the sequence that it began
	seq, extended int64
	epoch         int
}

// Held tells of the packet that a Restarted one confirmed: the first of its
// sequence, which came right before it and was Suspect or TooOld then. Valid
// until the next Update.
func (s *State) Held() (seq, ts int64, epoch int) { return s.bad.seq, s.bad.extended, s.bad.epoch }

// Epoch is the number of the timestamp base, from 0, of the packet that Update
// took last.
func (s *State) Epoch() int { return s.given }

// Base is the number of the timestamp base of the newest packet: what the
// timestamps of SenderReport belong to.
func (s *State) Base() int { return s.epoch }

// Stats returns the counts so far.
func (s *State) Stats() Stats {
	st := s.stats
	if s.started {
		st.Lost = max(0, s.maxSeq-s.seqBase+1-st.Packets)
	}
	return st
}

// Update takes the header of a packet that arrived at arrival (ns) and returns
// its extended sequence number and timestamp, and what it is. seq and ts are
// zero unless the verdict is usable.
func (s *State) Update(h *rtp.Header, arrival int64) (seq, ts int64, v Verdict) {
	if !s.started {
		s.start(h, arrival)
		return s.maxSeq, s.ts, InOrder
	}
	d := int64(int16(h.SequenceNumber - s.wireSeq))
	switch {
	case d > 0 && d <= dropoutPacketsMax:
		s.badNext = -1
		s.advance(d, h)
		s.timestamp(h, arrival)
		s.given = s.epoch
		s.stats.Packets++
		return s.maxSeq, s.ts, InOrder
	case d <= 0 && -d <= misorderPacketsMax:
		return s.behind(-d, h)
	}
	return s.outside(d, h, arrival)
}

func (s *State) start(h *rtp.Header, arrival int64) {
	s.started, s.badNext = true, -1
	// One cycle of head room keeps reordered first packets positive.
	s.maxSeq = int64(h.SequenceNumber) + 1<<16
	s.seqBase, s.wireSeq = s.maxSeq, h.SequenceNumber
	s.seen = [2]uint64{1, 0}
	s.ts, s.wireTS = int64(h.Timestamp)+1<<32, h.Timestamp
	s.refTS, s.refArrive = s.ts, arrival
	s.hz = s.clock()
	s.stats.Packets = 1
}

// advance makes the packet d ahead the newest.
func (s *State) advance(d int64, h *rtp.Header) {
	if d >= 128 {
		s.leave(d)
	}
	s.maxSeq += d
	s.wireSeq = h.SequenceNumber
	switch {
	case d >= 128:
		s.seen = [2]uint64{}
	case d >= 64:
		s.seen[1], s.seen[0] = s.seen[0]<<(d-64), 0
	default:
		s.seen[1] = s.seen[1]<<d | s.seen[0]>>(64-d)
		s.seen[0] <<= d
	}
	s.seen[0] |= 1
}

// timestamp extends the newest packet's timestamp and begins a new epoch when
// it does not fit its arrival.
func (s *State) timestamp(h *rtp.Header, arrival int64) {
	formerTS, formerWire := s.ts, s.wireTS
	s.ts += int64(int32(h.Timestamp - s.wireTS))
	s.wireTS = h.Timestamp
	if s.clock() != s.hz {
		s.begin(formerTS, formerWire)
		s.refTS, s.refArrive = s.ts, arrival
		return
	}
	if s.ts == s.refTS {
		return // a repeated timestamp: the packets of one event (RFC 4733 section 2.5.1.2)
	}
	stray := s.ns(s.ts-s.refTS) - (arrival - s.refArrive)
	if stray > tsAheadNS || stray < -tsBehindNS {
		s.begin(formerTS, formerWire)
	}
	s.refTS, s.refArrive = s.ts, arrival
}

// begin starts a new epoch with the newest packet.
func (s *State) begin(formerTS int64, formerWire uint32) {
	s.epoch++
	s.epochSeq, s.formerTS, s.formerWire = s.maxSeq, formerTS, formerWire
	s.formerHz, s.hz = s.hz, s.clock()
	s.stats.Restarts++
}

func (s *State) clock() int64 {
	if s.Clock <= 0 {
		return 8000
	}
	return int64(s.Clock)
}

func (s *State) ns(ts int64) int64 {
	clock := s.clock()
	return ts/clock*1e9 + ts%clock*1e9/clock
}

// behind handles a packet d behind the newest.
func (s *State) behind(d int64, h *rtp.Header) (seq, ts int64, v Verdict) {
	word, bit := d/64, uint64(1)<<(d%64)
	if s.seen[word]&bit != 0 || s.copied(h) {
		s.stats.Duplicate++
		return 0, 0, Duplicate
	}
	s.seen[word] |= bit
	s.stats.Packets++
	s.stats.Reordered++
	seq = s.maxSeq - d
	s.seqBase = min(s.seqBase, seq)
	s.given = s.epoch
	dts := int64(int32(h.Timestamp - s.wireTS))
	if s.epoch > 0 && seq < s.epochSeq {
		former := int64(int32(h.Timestamp - s.formerWire))
		older := abs(former) < abs(dts)
		if s.formerHz != s.hz {
			older = s.clock() == s.formerHz
		}
		if older {
			s.given--
			return seq, s.formerTS + former, Reordered
		}
	}
	return seq, s.ts + dts, Reordered
}

// outside handles a packet whose number is outside the window: two in a row
// are a new sequence (RFC 3550 appendix A.1), one alone is ignored.
func (s *State) outside(d int64, h *rtp.Header, arrival int64) (seq, ts int64, v Verdict) {
	if int32(h.SequenceNumber) == s.badNext {
		s.restart(h, arrival)
		return s.maxSeq, s.ts, Restarted
	}
	if s.copied(h) {
		s.stats.Duplicate++
		return 0, 0, Duplicate
	}
	s.badNext = int32(h.SequenceNumber + 1)
	s.bad = probe{ts: h.Timestamp, hz: s.clock(), arrival: arrival, tooOld: d < 0 && -d <= dropoutPacketsMax}
	if s.bad.tooOld {
		s.stats.TooOld++
		return 0, 0, TooOld
	}
	s.stats.Suspect++
	return 0, 0, Suspect
}

// restart begins a new sequence with the packet that was held, which this one
// follows: neither is lost.
func (s *State) restart(h *rtp.Header, arrival int64) {
	b := &s.bad
	s.badNext = -1
	if b.tooOld {
		s.stats.TooOld--
	} else {
		s.stats.Suspect--
	}
	s.leave(1)
	s.maxSeq++
	s.wireSeq, s.seen = h.SequenceNumber-1, [2]uint64{1, 0}
	clock := s.Clock
	s.Clock = int(b.hz)
	s.begin(s.ts, s.wireTS)
	s.Clock = clock
	s.ts += int64(int32(b.ts - s.wireTS))
	s.wireTS = b.ts
	s.refTS, s.refArrive = s.ts, b.arrival
	b.seq, b.extended, b.epoch = s.maxSeq, s.ts, s.epoch

	s.advance(1, h)
	s.timestamp(h, arrival)
	s.given = s.epoch
	s.stats.Packets += 2
}

// SenderReport extends the RTP timestamp of a sender report to this source's
// count. ok is false before the first packet, and for a report that is not of
// the current timestamp base (more than an hour away from the newest packet).
func (s *State) SenderReport(r SenderReport) (ts int64, ok bool) {
	if !s.started {
		return 0, false
	}
	d := int64(int32(r.RTPTime - s.wireTS))
	if n := s.ns(d); n > 3600e9 || n < -3600e9 {
		return 0, false
	}
	return s.ts + d, true
}

func abs(v int64) int64 { return max(v, -v) }
