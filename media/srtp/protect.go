package srtp

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// Protector protects what one side is sent. One goroutine uses it; Counts is
// safe for all. It does not allocate for a packet, but for the first of an SSRC,
// and 16 bytes for RTCP with the AEAD suites.
//
// It takes packets as another side sent them: lost, reordered and repeated. The
// rollover counter of an SSRC follows the sequence numbers by the same rule as a
// receiver's guess. A packet whose index went out before, or is older than
// WindowPackets, is refused with ErrReplayed: the receiver would drop it, and a
// key stream that is used twice gives both packets away (RFC 3711 section 9.1).
// A sender that sets an SSRC's sequence numbers back goes on as another SSRC after
// restartPackets of them.
type Protector struct {
	// of the goroutine that handles packets
	current, former sending
	restarts        restarts
	header          rtp.Header
	rtcpHeader      rtcp.Header

	counts protectCounters
}

// sending is what goes out under one set of keys.
type sending struct {
	keys *Keys
	rtp  map[uint32]*source
	rtcp map[uint32]struct{}
}

// carry makes the SRTCP indexes go on where those of other keys are.
func (s *sending) carry(from *sending) {
	for ssrc := range from.rtcp {
		index, _ := from.keys.ctx.Index(ssrc)
		if own, _ := s.keys.ctx.Index(ssrc); own < index {
			s.keys.ctx.SetIndex(ssrc, index)
		}
	}
}

type protectCounters struct {
	rtp, rtcp, form, repeated, sources atomic.Uint64
}

// ProtectCounts is what became of the packets so far: each is in exactly one.
type ProtectCounts struct {
	RTP, RTCP uint64 // protected
	Form      uint64 // neither RTP nor RTCP, or no room in the buffer
	Repeated  uint64 // of an index that went out or may have gone out
	Sources   uint64 // of SSRCs beyond SourcesMax
}

// NewProtector begins with the keys, which it owns from now on.
func NewProtector(k *Keys) (*Protector, error) {
	p := &Protector{}
	p.header.CSRC = make([]uint32, 0, 15)
	p.header.Extensions = make([]rtp.Extension, 0, 16)
	err := p.Rekey(k, true)
	return p, err
}

// Rekey changes the keys from the next packet on. The counters go on (RFC 3711
// section 3.3.1), or begin at zero with restart (see End.Restarts; always after a
// DTLS handshake). The keys that are in use already change nothing; with those
// of just before, their counters go on, so that no index is used twice. The
// Protector owns the keys from now on.
func (p *Protector) Rekey(k *Keys, restart bool) error {
	switch {
	case p.current.keys.Same(k):
		k.wipeUnless(p.current.keys)
		return nil
	case p.former.keys.Same(k):
		k.wipeUnless(p.former.keys)
		p.current, p.former = p.former, p.current
		p.current.carry(&p.former)
		return nil
	}
	if err := k.take(); err != nil {
		return err
	}
	next := sending{keys: k, rtp: p.current.rtp, rtcp: p.current.rtcp}
	if restart {
		next.rtp, next.rtcp = make(map[uint32]*source), make(map[uint32]struct{})
	} else {
		next.carry(&p.current)
	}
	p.former.keys.Wipe()
	p.current, p.former = next, p.current
	return nil
}

// OverheadBytes is the most that is added to a packet with the keys of now; at
// most OverheadBytesMax.
func (p *Protector) OverheadBytes() int {
	if p.current.keys == nil {
		return 0
	}
	return p.current.keys.OverheadBytes()
}

// RTP protects a packet into dst and returns what dst holds then. dst has room
// for OverheadBytes more than the packet and is either plain itself or does not
// overlap it, and then plain is as it was; after an error dst holds rubbish. Errors: ErrForm, ErrReplayed,
// ErrSources, ErrShortBuffer, ErrExhausted, ErrNoKeys.
func (p *Protector) RTP(dst, plain []byte) ([]byte, error) {
	if err := p.check(dst, plain, rtpHeaderBytes); err != nil {
		return nil, err
	}
	came, seq := binary.BigEndian.Uint32(plain[8:]), binary.BigEndian.Uint16(plain[2:])
	c := &p.current
	ssrc, ok := p.restarts.outgoing(came, c.rtp)
	s := c.rtp[ssrc]
	index := int64(seq)
	switch {
	case !ok, s == nil && len(c.rtp) >= SourcesMax:
		return nil, p.count(nil, ErrSources)
	case s != nil:
		index, _ = s.estimate(seq)
		if index < 0 || !s.fresh(uint64(index)) {
			if !p.restarts.refused(came, seq, c.rtp) {
				return nil, p.count(nil, ErrReplayed)
			}
			ssrc, s, index = p.restarts.alias[came], nil, int64(seq)
		}
		if index > indexMax {
			return nil, p.count(nil, ErrExhausted)
		}
	}
	if s != nil { // else it is 0, as the cipher begins
		c.keys.ctx.SetROC(ssrc, uint32(index/sequences))
	}
	if ssrc != came {
		binary.BigEndian.PutUint32(plain[8:], ssrc)
	}
	out, err := c.keys.ctx.EncryptRTP(dst, plain, &p.header)
	if ssrc != came && &dst[:1][0] != &plain[0] {
		binary.BigEndian.PutUint32(plain[8:], came)
	}
	if err != nil {
		return nil, p.count(nil, ErrForm)
	}
	p.restarts.accepted()
	if s == nil {
		c.rtp[ssrc] = newSource(uint64(index))
	} else {
		s.note(uint64(index))
	}
	return out, p.count(&p.counts.rtp, nil)
}

// RTCP does the same with a compound RTCP packet.
func (p *Protector) RTCP(dst, plain []byte) ([]byte, error) {
	if err := p.check(dst, plain, rtcpHeaderBytes); err != nil {
		return nil, err
	}
	came, c := binary.BigEndian.Uint32(plain[4:]), &p.current
	ssrc, ok := p.restarts.outgoing(came, c.rtp)
	_, known := c.rtcp[ssrc]
	if !ok || !known && len(c.rtcp) >= SourcesMax {
		return nil, p.count(nil, ErrSources)
	}
	if index, _ := c.keys.ctx.Index(ssrc); index >= rtcpIndexMax {
		return nil, p.count(nil, ErrExhausted)
	}
	if ssrc != came {
		rename(plain, came, ssrc)
	}
	out, err := c.keys.ctx.EncryptRTCP(dst, plain, &p.rtcpHeader)
	if ssrc != came && &dst[:1][0] != &plain[0] {
		rename(plain, ssrc, came)
	}
	if err != nil {
		return nil, p.count(nil, ErrForm)
	}
	if !known {
		c.rtcp[ssrc] = struct{}{}
	}
	return out, p.count(&p.counts.rtcp, nil)
}

func (p *Protector) check(dst, plain []byte, header int) error {
	switch {
	case p.current.keys == nil:
		return ErrNoKeys
	case len(plain) < header || plain[0]>>6 != 2:
		return p.count(nil, ErrForm)
	case cap(dst) < len(plain)+p.current.keys.OverheadBytes():
		return p.count(nil, ErrShortBuffer)
	}
	return nil
}

// count notes what became of a packet and returns its error.
func (p *Protector) count(fine *atomic.Uint64, err error) error {
	switch {
	case err == nil:
		fine.Add(1)
	case errors.Is(err, ErrReplayed), errors.Is(err, ErrExhausted):
		p.counts.repeated.Add(1)
	case errors.Is(err, ErrSources):
		p.counts.sources.Add(1)
	default:
		p.counts.form.Add(1)
	}
	return err
}

// Counts returns the counts so far. Safe for any goroutine.
func (p *Protector) Counts() ProtectCounts {
	c := &p.counts
	return ProtectCounts{
		RTP: c.rtp.Load(), RTCP: c.rtcp.Load(), Form: c.form.Load(),
		Repeated: c.repeated.Load(), Sources: c.sources.Load(),
	}
}

// Wipe zeroes the keys (see Keys.Wipe for what stays). Packets are refused with
// ErrNoKeys then.
func (p *Protector) Wipe() {
	p.current.keys.Wipe()
	p.former.keys.Wipe()
	p.current, p.former = sending{}, sending{}
}
