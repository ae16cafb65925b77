package siptest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Packet times of what an Agent sends.
const (
	ptime        = 20 * time.Millisecond
	ptimeSamples = 160
	reportEvery  = 5 * time.Second
	lingerTime   = 500 * time.Millisecond // from the end of the call until its ports are closed
	cname        = "siptest@host"         // of RTCP; its length is a multiple of 4
)

// Packet is one datagram of media as it was on the wire.
type Packet struct {
	At     time.Time
	Peer   netip.AddrPort
	RTCP   bool   // came to, or left from, the RTCP port, or is RTCP by its type (RFC 5761)
	Wire   []byte // of a protected one what it holds
	Secure []byte // the protected datagram; nil: it was not protected
}

// Impair spoils what is sent. The functions get the count of the RTP packet
// from 0; nil does nothing.
type Impair struct {
	Lose      func(n int) bool // is not sent
	Duplicate func(n int) bool // is sent twice
	Swap      func(n int) bool // is sent after the one that follows it
}

// Media is the audio of one call. Its methods are safe for concurrent use.
type Media struct {
	rtp, rtcp Conn
	local     netip.AddrPort
	keepMax   int
	reports   bool
	skewPPM   float64
	sdes      sdes

	stop chan struct{} // closed by close
	wg   sync.WaitGroup

	mu       sync.Mutex
	started  bool
	closed   bool
	sending  bool
	begun    time.Time     // the first tick was due
	ticks    int           // packet times that are over
	latest   time.Duration // by which a packet was sent after its time
	codec    Codec
	remote   netip.AddrPort
	remoteC  netip.AddrPort // RTCP
	source   Source
	impair   Impair
	digits   []digit
	held     []byte // a packet that Swap keeps back
	out      rtpState
	sent     []Packet
	received []Packet
	dropped  int           // packets beyond keepMax
	arrived  chan struct{} // closed by the next packet received; nil when nobody waits
}

// rtpState is what the next packet is made of.
type rtpState struct {
	seq     uint16
	ts      uint32
	ssrc    uint32
	marker  bool
	count   int // packets made, the n of Impair
	packets uint32
	octets  uint32
}

func newMedia(cfg Config, port uint16) (*Media, error) {
	m := &Media{
		keepMax: cfg.KeepMax, reports: cfg.RTCP, skewPPM: cfg.SkewPPM, source: Silence(),
		codec: cfg.Codecs[0], stop: make(chan struct{}),
	}
	m.out = rtpState{seq: uint16(rand.Uint32()), ts: rand.Uint32(), ssrc: rand.Uint32(), marker: true}
	if err := m.listen(cfg, port); err != nil {
		return nil, err
	}
	m.wg.Go(func() { m.read(m.rtp, false) })
	m.wg.Go(func() { m.read(m.rtcp, true) })
	return m, nil
}

// listen opens an even port for RTP and the next one for RTCP (RFC 3550 section 11).
func (m *Media) listen(cfg Config, port uint16) error {
	const attempts = 50
	var last error
	for range attempts {
		rtp, err := cfg.Listen(netip.AddrPortFrom(cfg.MediaAddr, port))
		if err != nil {
			return fmt.Errorf("listen for RTP on %s port %d: %w", cfg.MediaAddr, port, err)
		}
		local, err := localOf(rtp)
		if err != nil {
			return errors.Join(err, rtp.Close())
		}
		if local.Port()%2 == 0 || port != 0 {
			m.rtcp, last = cfg.Listen(netip.AddrPortFrom(cfg.MediaAddr, local.Port()+1))
			if last == nil {
				m.rtp, m.local = rtp, local
				return nil
			}
		}
		if err := rtp.Close(); err != nil {
			return fmt.Errorf("close RTP port %d: %w", local.Port(), err)
		}
		if port != 0 {
			break
		}
	}
	return fmt.Errorf("no pair of ports on %s: %w", cfg.MediaAddr, last)
}

// Local is the address of its RTP.
func (m *Media) Local() netip.AddrPort { return m.local }

// Play speaks source from the next packet on; nil is silence.
func (m *Media) Play(source Source) {
	if source == nil {
		source = Silence()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.catchUp(time.Now())
	m.source = source
}

// Impair spoils what is sent from now on.
func (m *Media) Impair(i Impair) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.catchUp(time.Now())
	m.impair = i
}

// Jump adds to the next sequence number and timestamp, as a restarted sender does.
func (m *Media) Jump(seq uint16, timestamp uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.catchUp(time.Now())
	m.out.seq += seq
	m.out.ts += timestamp
}

// NewSSRC goes on as another synchronisation source with its own numbers.
func (m *Media) NewSSRC() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.catchUp(time.Now())
	m.out.ssrc, m.out.seq, m.out.ts, m.out.marker = rand.Uint32(), uint16(rand.Uint32()), rand.Uint32(), true
	m.out.packets, m.out.octets = 0, 0
}

// SSRC is the synchronisation source of what is sent.
func (m *Media) SSRC() uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.out.ssrc
}

// Sent are the packets that were put on the wire, in that order.
func (m *Media) Sent() []Packet {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Packet(nil), m.sent...)
}

// Received are the packets that came, from anybody, in that order.
func (m *Media) Received() []Packet {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Packet(nil), m.received...)
}

// Heard is the audio that came, G.711 alone, from its first packet on. Packets
// lie where their timestamps say, by the arrival of the one that was the least
// late; where none is there is silence. Of several sources the first is heard.
func (m *Media) Heard() (start time.Time, pcm []int16) {
	var ssrc, first uint32
	for _, p := range m.Received() {
		if p.RTCP || len(p.Wire) < 12 {
			continue
		}
		codec, ok := SDP{Payloads: []uint8{p.Wire[1] & 0x7f}}.choose([]Codec{PCMU, PCMA})
		source, ts := binary.BigEndian.Uint32(p.Wire[8:]), binary.BigEndian.Uint32(p.Wire[4:])
		if start.IsZero() {
			start, ssrc, first = p.At, source, ts
		}
		at, payload := int(int32(ts-first)), p.Wire[12:]
		if !ok || source != ssrc || at < 0 || at > heardMax {
			continue
		}
		if begun := p.At.Add(-time.Duration(at) * time.Second / 8000); begun.Before(start) {
			start = begun
		}
		for end := at + len(payload); len(pcm) < end; {
			pcm = append(pcm, 0)
		}
		codec.Decode(pcm[at:], payload)
	}
	return start, pcm
}

const heardMax = 3600 * 8000 // samples of Heard: an hour

// Await returns when at least n packets were received.
func (m *Media) Await(ctx context.Context, n int) error {
	for {
		m.mu.Lock()
		have := len(m.received)
		if m.arrived == nil {
			m.arrived = make(chan struct{})
		}
		arrived := m.arrived
		m.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-arrived:
		case <-m.stop:
			return fmt.Errorf("%d packets of %d came: %w", have, n, ErrEnded)
		case <-ctx.Done():
			return fmt.Errorf("%d packets of %d came: %w", have, n, context.Cause(ctx))
		}
	}
}

// Dropped counts the packets that Sent and Received do not list, being more
// than Config.KeepMax.
func (m *Media) Dropped() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dropped
}

// negotiated sets what the session descriptions agreed on, and begins to send
// when they allow it for the first time.
func (m *Media) negotiated(codec Codec, sdp SDP, local Direction) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.catchUp(now)
	send := local.sends() && sdp.Direction.receives() && !sdp.Addr.Addr().IsUnspecified() && sdp.Addr.Port() != 0
	if send && !m.sending {
		m.out.marker = true
	}
	m.codec, m.remote, m.remoteC, m.sending = codec, sdp.Addr, sdp.RTCP, send
	if send && !m.started && !m.closed {
		m.started, m.begun = true, now
		m.wg.Go(m.run)
	}
}

// Sending says whether the session descriptions let this side send.
func (m *Media) Sending() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sending
}

// Latest is by how much a packet was sent after its time, at the most. A test
// that needs packets in time can tell by it that the machine stood still.
func (m *Media) Latest() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.latest
}

// period is the packet time by the sender's own clock.
func (m *Media) period() float64 { return float64(ptime) / (1 + m.skewPPM/1e6) }

// due is when a tick is to be; deadlines are absolute, so a late wake-up delays
// one packet, not those after it. m.mu is held.
func (m *Media) due(tick int) time.Time {
	return m.begun.Add(time.Duration(m.period() * float64(tick)))
}

// Due is when the next packet is to be sent; zero before the first one was.
func (m *Media) Due() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.started {
		return time.Time{}
	}
	return m.due(m.ticks)
}

// catchUp sends what should have been sent by now. Whatever changes what is
// sent begins with it: packets that are late are those of their own time, so what
// lies where on the sender's timeline does not depend on how busy the machine is.
// m.mu is held.
func (m *Media) catchUp(now time.Time) {
	if !m.started || m.closed {
		return
	}
	for due := m.due(m.ticks); !due.After(now); due = m.due(m.ticks) {
		if m.sending {
			m.latest = max(m.latest, now.Sub(due))
		}
		m.tick(now)
	}
}

// run sends a packet each packet time.
func (m *Media) run() {
	report := time.Now().Add(reportEvery)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-m.stop:
			return
		}
		now := time.Now()
		m.mu.Lock()
		m.catchUp(now)
		next := m.due(m.ticks)
		m.mu.Unlock()
		if m.reports && !now.Before(report) {
			m.sendReport(now)
			report = report.Add(reportEvery)
		}
		timer.Reset(time.Until(next))
	}
}

// tick sends what belongs to one packet time. m.mu is held.
func (m *Media) tick(now time.Time) {
	m.ticks++
	switch {
	case !m.sending:
	case len(m.digits) > 0 && m.sendEvent(now):
	default:
		var pcm [ptimeSamples]int16
		if !m.source.Read(pcm[:]) {
			m.out.marker = true // of the packet that ends the pause (RFC 3551 section 4.1)
			break
		}
		payload := make([]byte, ptimeSamples)
		m.codec.Encode(payload, pcm[:])
		m.emit(now, m.codec.PayloadType, m.out.ts, m.out.marker, payload)
		m.out.marker = false
	}
	m.out.ts += ptimeSamples
}

// emit makes an RTP packet (RFC 3550 section 5.1) and sends it as Impair says.
func (m *Media) emit(now time.Time, payloadType uint8, ts uint32, marker bool, payload []byte) {
	wire := make([]byte, 12, 12+len(payload))
	wire[0], wire[1] = 0x80, payloadType
	if marker {
		wire[1] |= 0x80
	}
	binary.BigEndian.PutUint16(wire[2:], m.out.seq)
	binary.BigEndian.PutUint32(wire[4:], ts)
	binary.BigEndian.PutUint32(wire[8:], m.out.ssrc)
	wire = append(wire, payload...)
	n := m.out.count
	m.out.count++
	m.out.seq++
	m.out.packets++
	m.out.octets += uint32(len(payload))
	is := func(f func(int) bool) bool { return f != nil && f(n) }
	if is(m.impair.Lose) {
		return
	}
	if is(m.impair.Swap) && m.held == nil {
		m.held = wire
		return
	}
	m.write(now, wire)
	if is(m.impair.Duplicate) {
		m.write(now, wire)
	}
	if m.held != nil {
		m.write(now, m.held)
		m.held = nil
	}
}

func (m *Media) write(now time.Time, wire []byte) {
	m.transmit(m.rtp, Packet{At: now, Peer: m.remote, Wire: wire})
}

// keep appends to list as far as keepMax lets it. m.mu is held.
func (m *Media) keep(list *[]Packet, p Packet) {
	if len(*list) >= m.keepMax {
		m.dropped++
		return
	}
	*list = append(*list, p)
}

func (m *Media) read(c Conn, rtcp bool) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		p := Packet{At: time.Now(), Peer: unmap(from), RTCP: rtcp, Wire: append([]byte(nil), buf[:n]...)}
		p.RTCP = rtcp || n >= 2 && buf[1] >= 192 && buf[1] <= 223
		plain, err := m.sdes.unprotect(p.Wire, p.RTCP)
		if err != nil {
			continue
		}
		if plain != nil {
			p.Wire, p.Secure = plain, p.Wire
		}
		m.mu.Lock()
		m.keep(&m.received, p)
		if m.arrived != nil {
			close(m.arrived)
			m.arrived = nil
		}
		m.mu.Unlock()
	}
}

// Send puts any bytes on the wire from the RTP port.
func (m *Media) Send(wire []byte, to netip.AddrPort) error {
	_, err := m.rtp.WriteToUDPAddrPort(wire, to)
	return err
}

// Halt sends what is due and no more; what still comes is kept until the end.
func (m *Media) Halt() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.catchUp(time.Now())
	m.sending = false
}

// halt stops sending at once: the other side has ended the call.
func (m *Media) halt() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sending = false
}

func (m *Media) close() {
	m.mu.Lock()
	first := !m.closed
	m.closed = true
	m.mu.Unlock()
	if first {
		close(m.stop)
		_ = m.rtp.Close()  // nothing waits in a datagram socket
		_ = m.rtcp.Close() // the same
	}
	m.wg.Wait()
}

// linger closes the sockets when what is under way has come, or ctx ends.
func (m *Media) linger(ctx context.Context) {
	timer := time.NewTimer(lingerTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	m.close()
}
