// Package report makes the RTCP of a party that only receives: receiver reports, a
// source description and BYE (RFC 3550 section 6).
package report

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Limits.
const (
	SourcesMax    = 8   // of one stream are reported on; the one that was silent longest makes room
	CNAMEBytesMax = 255 // an SDES item has no room for more

	// PacketBytesMax is the longest packet that a Receiver makes.
	PacketBytesMax = headBytes + SourcesMax*blockBytes + sdesFixedBytes + CNAMEBytesMax + 4 + byeBytes
)

const (
	headBytes      = 8
	byeBytes       = 8
	blockBytes     = 24
	sdesFixedBytes = 4 + 4 + 2

	typeSR, typeRR, typeSDES, typeBYE = 200, 201, 202, 203

	version = 2 << 6
)

// interval is the least time between reports (RFC 3550 section 6.2, Tmin): with two
// members the share of the bandwidth would allow more. The first comes in half of it.
const interval = 5 * time.Second

// Config of a Receiver. It is not changed any more.
type Config struct {
	CNAME string // RFC 7022

	// Clock is the media clock by payload type, in Hz. Packets of a type with 0 count,
	// but their arrival tells nothing of jitter: those of one event have one timestamp
	// (RFC 4733 section 2.5.1.2).
	Clock [128]int32
}

// Validate says what is wrong with c.
func (c *Config) Validate() error {
	if c.CNAME == "" || len(c.CNAME) > CNAMEBytesMax {
		return fmt.Errorf("a CNAME of %d bytes: 1 to %d", len(c.CNAME), CNAMEBytesMax)
	}
	for pt, hz := range &c.Clock {
		if hz < 0 {
			return fmt.Errorf("payload type %d: a clock of %d Hz", pt, hz)
		}
	}
	return nil
}

var errSeed = errors.New("a receiver needs a seed")

// Receiver counts what comes of one stream and reports on it. It neither allocates
// for a packet nor asks a clock. Not safe for concurrent use.
type Receiver struct {
	cfg     *Config
	random  *rand.PCG
	ssrc    uint32 // ours
	base    time.Time
	due     time.Time // zero: nothing came, and nobody asked
	sent    bool
	sources []source // by when they began
	buf     [PacketBytesMax]byte
}

// New makes a receiver. Its SSRC and the times of its reports follow from seed,
// which must be random; zero is refused.
func New(c *Config, seed uint64) (*Receiver, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if seed == 0 {
		return nil, errSeed
	}
	r := &Receiver{cfg: c, random: rand.NewPCG(seed, seed), sources: make([]source, 0, SourcesMax)}
	r.ssrc = uint32(r.random.Uint64())
	return r, nil
}

// Configure replaces the configuration; counts go on.
func (r *Receiver) Configure(c *Config) { r.cfg = c }

// SSRC is ours.
func (r *Receiver) SSRC() uint32 { return r.ssrc }

// RTP takes a packet that was accepted, decrypted. What is no RTP is left alone.
func (r *Receiver) RTP(arrival time.Time, wire []byte) {
	if len(wire) < 12 || wire[0]>>6 != 2 {
		return
	}
	r.begin(arrival)
	s := r.source(binary.BigEndian.Uint32(wire[8:]), arrival)
	if !s.count(binary.BigEndian.Uint16(wire[2:])) {
		return
	}
	if hz := r.cfg.Clock[wire[1]&0x7f]; hz > 0 {
		s.arrived(arrival.Sub(r.base), binary.BigEndian.Uint32(wire[4:]), hz)
	}
}

// RTCP takes a compound packet: when the sender's reports came, and who left.
func (r *Receiver) RTCP(arrival time.Time, wire []byte) {
	r.begin(arrival)
	for len(wire) >= 4 && wire[0]>>6 == 2 {
		n := 4 * (int(binary.BigEndian.Uint16(wire[2:])) + 1)
		if n > len(wire) {
			return
		}
		r.control(arrival, wire[:n])
		wire = wire[n:]
	}
}

func (r *Receiver) control(arrival time.Time, p []byte) {
	switch {
	case p[1] == typeSR && len(p) >= 28:
		s := r.source(binary.BigEndian.Uint32(p[4:]), arrival)
		s.reported, s.ntp = arrival, binary.BigEndian.Uint32(p[10:])
	case p[1] == typeBYE:
		for at := 4; at+4 <= len(p) && at < 4+4*int(p[0]&0x1f); at += 4 {
			r.forget(binary.BigEndian.Uint32(p[at:]))
		}
	}
}

func (r *Receiver) begin(now time.Time) {
	if r.base.IsZero() {
		r.base = now
		r.due = now.Add(r.next() / 2)
	}
}

// next is the time to the next report, between half and one and a half of the
// interval, and shorter by what reconsideration would make longer (section 6.3.1).
func (r *Receiver) next() time.Duration {
	const compensation = 1.21828 // e - 3/2
	share := 0.5 + float64(r.random.Uint64()>>11)/(1<<53)
	return time.Duration(share * float64(interval) / compensation)
}

// source finds what is kept of an SSRC. One that is ours makes us take another one
// (section 8.2).
func (r *Receiver) source(ssrc uint32, now time.Time) *source {
	if ssrc == r.ssrc {
		r.ssrc = uint32(r.random.Uint64())
	}
	oldest := 0
	for i := range r.sources {
		s := &r.sources[i]
		if s.ssrc == ssrc {
			s.last = now
			return s
		}
		if s.last.Before(r.sources[oldest].last) {
			oldest = i
		}
	}
	if len(r.sources) < SourcesMax {
		oldest = len(r.sources)
		r.sources = r.sources[:oldest+1]
	}
	r.sources[oldest] = source{ssrc: ssrc, last: now}
	return &r.sources[oldest]
}

func (r *Receiver) forget(ssrc uint32) {
	for i := range r.sources {
		if r.sources[i].ssrc == ssrc {
			r.sources = append(r.sources[:i], r.sources[i+1:]...)
			return
		}
	}
}

// Due says whether a report is to be made. The first call begins the time to the
// first one when nothing has come yet.
func (r *Receiver) Due(now time.Time) bool {
	r.begin(now)
	return !now.Before(r.due)
}

// Report returns a compound packet: a report on who was heard since the one before,
// empty when nobody was, and our CNAME. It is valid until the next call.
func (r *Receiver) Report(now time.Time) []byte {
	r.begin(now)
	r.due, r.sent = now.Add(r.next()), true
	out := r.report(now, r.buf[:0])
	return r.describe(out)
}

// Bye returns the last packet; nil when there was none before it: who was never
// heard of does not leave (section 6.3.7).
func (r *Receiver) Bye(now time.Time) []byte {
	if !r.sent {
		return nil
	}
	out := r.describe(r.report(now, r.buf[:0]))
	return binary.BigEndian.AppendUint32(header(out, 1, typeBYE, 4), r.ssrc)
}

// header appends the first four bytes of a packet with so many more behind them.
func header(b []byte, count, packet uint8, bytes int) []byte {
	return binary.BigEndian.AppendUint16(append(b, version|count, packet), uint16(bytes/4))
}

func (r *Receiver) report(now time.Time, out []byte) []byte {
	n := uint8(0)
	for i := range r.sources {
		if r.sources[i].heard {
			n++
		}
	}
	out = binary.BigEndian.AppendUint32(header(out, n, typeRR, 4+int(n)*blockBytes), r.ssrc)
	for i := range r.sources {
		if s := &r.sources[i]; s.heard {
			out = s.block(out, now)
		}
	}
	return out
}

// describe appends the source description: the item ends with one to four zeros
// (section 6.5).
func (r *Receiver) describe(out []byte) []byte {
	const itemCNAME = 1
	item := 2 + len(r.cfg.CNAME)
	pad := 4 - item%4
	out = binary.BigEndian.AppendUint32(header(out, 1, typeSDES, 4+item+pad), r.ssrc)
	out = append(out, itemCNAME, byte(len(r.cfg.CNAME)))
	out = append(out, r.cfg.CNAME...)
	return append(out, 0, 0, 0, 0)[:len(out)+pad]
}
