package srtp

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// overlapDefault is long enough for the last packet that was protected before an
// answer to come behind it.
const overlapDefault = 30 * time.Second

// Unprotector takes the protection off what one side sends: of RTP and RTCP of
// any number of SSRCs up to SourcesMax. One goroutine uses it; Counts is safe for
// all. It does not allocate for a packet that it accepts, but for the first of an
// SSRC, and 16 bytes for RTCP with the AEAD suites.
//
// For each SSRC it keeps the packet index and a replay window, made when a packet
// was authenticated and never before. An SSRC begins with a rollover counter of
// 0, or of 1 when its first packet may be one behind the wrap (RFC 3711 section
// 3.3.1 has senders begin below 2^15, not all do).
type Unprotector struct {
	overlap time.Duration

	// of the goroutine that handles packets
	current, former epoch
	retire          time.Time // when former goes; zero: with the first packet that tells the time
	scratch         []byte
	header          rtp.Header
	rtcpHeader      rtcp.Header

	counts unprotectCounters
}

// epoch is the time of one set of keys.
type epoch struct {
	keys      *Keys
	rtp, rtcp map[uint32]*source
	probes    int
	seek      *seeking // another process has used the keys; nil: none has
}

type unprotectCounters struct {
	rtp, rtcp, former                       atomic.Uint64
	form, authentication, replayed, sources atomic.Uint64
}

// UnprotectCounts is what became of the packets so far: each is in exactly one
// of RTP, RTCP, Form, AuthFailed, Replayed and Sources.
type UnprotectCounts struct {
	RTP, RTCP  uint64 // decrypted
	Former     uint64 // of these, under the keys from before a rekeying
	Form       uint64 // neither RTP nor RTCP, or no room in the buffer
	AuthFailed uint64
	Replayed   uint64
	Sources    uint64 // of SSRCs beyond SourcesMax
}

// NewUnprotector begins with the keys, which it owns from now on. overlap is how
// long after Rekey the former keys are good for, counted from the first packet
// after it; 30 s when zero.
func NewUnprotector(k *Keys, overlap time.Duration) (*Unprotector, error) {
	if overlap == 0 {
		overlap = overlapDefault
	}
	u := &Unprotector{overlap: overlap, scratch: make([]byte, 0, 2048)}
	u.header.CSRC = make([]uint32, 0, 15)
	u.header.Extensions = make([]rtp.Extension, 0, 16)
	err := u.Rekey(k)
	return u, err
}

// Rekey makes the keys those that are tried first. The former ones stay for the
// overlap; those before them are gone. Rollover counters go on or begin at zero,
// as the sender does (RFC 3711 section 3.3.1 demands the one, RFC 4568 section
// 7.1.4 knows the other). The keys that are in use already change nothing. The
// Unprotector owns the keys from now on.
func (u *Unprotector) Rekey(k *Keys) error {
	switch {
	case u.current.keys.Same(k):
		k.wipeUnless(u.current.keys)
		return nil
	case u.former.keys.Same(k): // an offer with new keys was refused
		k.wipeUnless(u.former.keys)
		u.current, u.former, u.retire = u.former, u.current, time.Time{}
		return nil
	}
	if err := k.take(); err != nil {
		return err
	}
	u.former.keys.Wipe()
	u.former, u.retire = u.current, time.Time{}
	u.current = epoch{keys: k, rtp: make(map[uint32]*source), rtcp: make(map[uint32]*source)}
	return nil
}

// RTP decrypts a packet into dst and returns what dst holds of it then. dst has
// room for len(wire) bytes and is either wire itself or does not overlap it;
// after an error it holds rubbish. arrival tells the time that bounds Rekey.
// Errors: ErrForm, ErrAuthentication, ErrReplayed, ErrSources, ErrShortBuffer,
// ErrNoKeys.
func (u *Unprotector) RTP(dst, wire []byte, arrival time.Time) ([]byte, error) {
	if err := u.begin(dst, wire, rtpHeaderBytes, arrival); err != nil {
		return nil, err
	}
	ssrc, seq := binary.BigEndian.Uint32(wire[8:]), binary.BigEndian.Uint16(wire[2:])
	src := u.source(dst, wire, seq)
	out, err := u.tryRTP(&u.current, dst, src, ssrc, seq)
	if errors.Is(err, ErrAuthentication) && u.former.keys != nil {
		if out, err = u.tryRTP(&u.former, dst, src, ssrc, seq); err == nil {
			u.counts.former.Add(1)
		}
	}
	if errors.Is(err, ErrAuthentication) && u.current.seek != nil {
		out, err = u.seekRTP(&u.current, dst, src, ssrc, seq, arrival)
	}
	return out, u.count(&u.counts.rtp, err)
}

// RTCP does the same with a compound RTCP packet.
func (u *Unprotector) RTCP(dst, wire []byte, arrival time.Time) ([]byte, error) {
	if err := u.begin(dst, wire, rtcpHeaderBytes, arrival); err != nil {
		return nil, err
	}
	ssrc := binary.BigEndian.Uint32(wire[4:])
	src := wire
	if u.former.keys != nil {
		src = u.keep(dst, wire)
	}
	out, err := u.tryRTCP(&u.current, dst, src, ssrc)
	if errors.Is(err, ErrAuthentication) && u.former.keys != nil {
		if out, err = u.tryRTCP(&u.former, dst, src, ssrc); err == nil {
			u.counts.former.Add(1)
		}
	}
	return out, u.count(&u.counts.rtcp, err)
}

// begin checks what every packet must be, and lets former keys go.
func (u *Unprotector) begin(dst, wire []byte, header int, arrival time.Time) error {
	switch {
	case u.current.keys == nil:
		return ErrNoKeys
	case len(wire) < header || wire[0]>>6 != 2:
		return u.count(nil, ErrForm)
	case cap(dst) < len(wire):
		return u.count(nil, ErrShortBuffer)
	}
	if u.former.keys == nil {
		return nil
	}
	if u.retire.IsZero() {
		u.retire = arrival.Add(u.overlap)
	} else if arrival.After(u.retire) {
		u.former.keys.Wipe()
		u.former = epoch{}
	}
	return nil
}

// count notes what became of a packet and returns its error.
func (u *Unprotector) count(fine *atomic.Uint64, err error) error {
	switch {
	case err == nil:
		fine.Add(1)
	case errors.Is(err, ErrAuthentication):
		u.counts.authentication.Add(1)
	case errors.Is(err, ErrReplayed):
		u.counts.replayed.Add(1)
	case errors.Is(err, ErrSources):
		u.counts.sources.Add(1)
	default:
		u.counts.form.Add(1)
	}
	return err
}

// source returns what to decrypt: the packet, or where a second attempt may be
// needed a copy that the first cannot destroy.
func (u *Unprotector) source(dst, wire []byte, seq uint16) []byte {
	if u.former.keys == nil && u.current.seek == nil {
		s := u.current.rtp[binary.BigEndian.Uint32(wire[8:])]
		if s == nil && seq >= sequences/2 {
			return wire
		}
		if s != nil {
			if index, other := s.estimate(seq); index >= 0 && index == other {
				return wire
			}
		}
	}
	return u.keep(dst, wire)
}

// keep copies a packet that would be decrypted in place by a cipher that leaves
// nothing of what it cannot authenticate.
func (u *Unprotector) keep(dst, wire []byte) []byte {
	aead := u.current.keys.aead() || u.former.keys != nil && u.former.keys.aead()
	if !aead || &dst[:1][0] != &wire[0] {
		return wire
	}
	u.scratch = append(u.scratch[:0], wire...)
	return u.scratch
}

// tryRTP decrypts with the keys of one epoch, under the packet indexes that the
// sequence number may mean.
func (u *Unprotector) tryRTP(e *epoch, dst, wire []byte, ssrc uint32, seq uint16) ([]byte, error) {
	s := e.rtp[ssrc]
	if s == nil && len(e.rtp) >= SourcesMax {
		return nil, ErrSources
	}
	list, n := u.candidates(e, s, ssrc, seq)
	err := ErrAuthentication
	for _, index := range list[:n] {
		if s != nil && !s.fresh(index) {
			err = ErrReplayed
			continue
		}
		if !e.setROC(ssrc, uint32(index/sequences)) {
			continue
		}
		var out []byte
		if out, err = e.keys.ctx.DecryptRTP(dst, wire, &u.header); err == nil {
			if s == nil {
				e.rtp[ssrc] = newSource(index)
			} else {
				s.note(index)
			}
			return out, nil
		}
		err = verdict(err)
	}
	return nil, err
}

// candidates are the packet indexes to try, the most likely first.
func (u *Unprotector) candidates(e *epoch, s *source, ssrc uint32, seq uint16) (list [3]uint64, n int) {
	add := func(index int64) {
		for _, have := range list[:n] {
			if have == uint64(index) {
				return
			}
		}
		if index >= 0 && index <= indexMax && n < len(list) {
			list[n] = uint64(index)
			n++
		}
	}
	if s != nil {
		index, other := s.estimate(seq)
		if index < 0 { // no counter is below zero
			index += sequences
		}
		add(index)
		add(other)
		return list, n
	}
	if e == &u.current {
		if before := u.former.rtp[ssrc]; before != nil {
			index, _ := before.estimate(seq)
			add(index)
		}
	}
	add(int64(seq))
	if seq < sequences/2 {
		add(sequences + int64(seq))
	}
	return list, n
}

// setROC tells the cipher the rollover counter of its next packet of an SSRC. It
// keeps what it is told for ever, so there is a limit of what it is told of
// SSRCs that were not authenticated.
func (e *epoch) setROC(ssrc, roc uint32) bool {
	if _, known := e.keys.ctx.ROC(ssrc); !known {
		if roc == 0 {
			return true // as it begins
		}
		if e.probes >= probesMax {
			return false
		}
		e.probes++
	}
	e.keys.ctx.SetROC(ssrc, roc)
	return true
}

// tryRTCP decrypts with the keys of one epoch. The index is in the packet.
func (u *Unprotector) tryRTCP(e *epoch, dst, wire []byte, ssrc uint32) ([]byte, error) {
	s := e.rtcp[ssrc]
	if s == nil && len(e.rtcp) >= SourcesMax {
		return nil, ErrSources
	}
	at := len(wire) - suites[e.keys.line.Suite].rtcpTag - e.keys.mkiLen - 4
	if at < rtcpHeaderBytes {
		return nil, ErrForm
	}
	index := uint64(binary.BigEndian.Uint32(wire[at:]) & rtcpIndexMax)
	if s != nil && !s.fresh(index) {
		return nil, ErrReplayed
	}
	out, err := e.keys.ctx.DecryptRTCP(dst, wire, &u.rtcpHeader)
	if err != nil {
		return nil, verdict(err)
	}
	if s == nil {
		e.rtcp[ssrc] = newSource(index)
	} else {
		s.note(index)
	}
	return out, nil
}

// verdict turns an error of the library into one of ours.
func verdict(err error) error {
	if errors.Is(err, srtp.ErrFailedToVerifyAuthTag) || errors.Is(err, srtp.ErrMKINotFound) {
		return ErrAuthentication
	}
	return ErrForm
}

// Counts returns the counts so far. Safe for any goroutine.
func (u *Unprotector) Counts() UnprotectCounts {
	c := &u.counts
	return UnprotectCounts{
		RTP: c.rtp.Load(), RTCP: c.rtcp.Load(), Former: c.former.Load(), Form: c.form.Load(),
		AuthFailed: c.authentication.Load(), Replayed: c.replayed.Load(), Sources: c.sources.Load(),
	}
}

// Wipe zeroes the keys (see Keys.Wipe for what stays). Packets are refused with
// ErrNoKeys then.
func (u *Unprotector) Wipe() {
	u.current.keys.Wipe()
	u.former.keys.Wipe()
	clear(u.scratch[:cap(u.scratch)])
	u.current, u.former = epoch{}, epoch{}
}
