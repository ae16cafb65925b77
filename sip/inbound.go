package sip

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
)

// Settings of sipgo are variables of its package: they are set before any of its
// goroutines runs. Its log would hold whole messages when it cannot read them.
func init() {
	sipgo.SetDefaultLogger(slog.New(slog.DiscardHandler))
	sipgo.TransportBufferReadSize = MessageBytesMax
}

// inbound is one place where messages arrive: what sipgo reads from it has been
// checked, and the text of the message that it reads waits here. It belongs to
// the goroutine of sipgo that reads the socket: that calls ReadFrom or Read,
// parses, and calls take, one after the other.
type inbound struct {
	source  string // tells places apart; sipgo brings it back with each message
	network string
	conn    *streamConn // nil for UDP
	cur     *Message    // nil when take has had it
}

// String is the name under which sipgo knows the place.
func (in *inbound) String() string { return in.source }

// Network makes inbound a net.Addr.
func (in *inbound) Network() string { return in.network }

// register gives a new place its name.
func (a *Agent) register(network string, conn *streamConn) *inbound {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.places++
	in := &inbound{source: network + strconv.FormatUint(a.places, 10), network: network, conn: conn}
	a.inbound[in.source] = in
	return in
}

func (a *Agent) unregister(in *inbound) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.inbound, in.source)
}

// expect notes the text of the message that sipgo is about to read.
func (a *Agent) expect(in *inbound, m *Message, f Flow) {
	if in.cur != nil {
		a.Counters.Unparseable.Add(1) // sipgo could not read the one before
	}
	m.Flow, m.Arrival = f, time.Now()
	in.cur = m
}

// take gets every message from sipgo's transport layer.
func (a *Agent) take(msg sipgo.Message) {
	a.mu.Lock()
	in := a.inbound[msg.Source()]
	a.mu.Unlock()
	if in == nil || in.cur == nil {
		return // no message without its text
	}
	m := in.cur
	in.cur = nil
	if err := m.finish(msg); err != nil {
		a.Counters.Unparseable.Add(1)
		if m.IsRequest() && m.Method != Ack {
			a.answerRefused(m, 400, "Bad Request", err, m.Flow)
		}
		return
	}
	a.Counters.Received.Add(1)
	a.cfg.Handle(m)
}

// packetSocket stands between a UDP socket and sipgo's transport: only what
// passes the access list and the check of its text gets further. sipgo keeps an
// entry for every source that it sees until its listener closes, so it sees one.
type packetSocket struct {
	a     *Agent
	pc    net.PacketConn
	udp   addrPortConn // pc, when it can do without net.Addr
	local netip.AddrPort
	in    *inbound
	beat  chan struct{} // of capacity 1: the reader has come by

	begin sync.Once
	ready chan struct{}        // closed when sipgo reads
	conn  *sipgo.UDPConnection // fixed after Start
}

// addrPortConn is what *net.UDPConn does without an allocation.
type addrPortConn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

const packetBufferBytes = 4 << 20

func (a *Agent) newPacketSocket(pc net.PacketConn) *packetSocket {
	s := &packetSocket{a: a, pc: pc, local: addrPortOf(pc.LocalAddr()), in: a.register("udp", nil), beat: make(chan struct{}, 1), ready: make(chan struct{})}
	s.udp, _ = pc.(addrPortConn)
	if real, ok := pc.(*net.UDPConn); ok {
		// A burst of a trunk's worth of messages must fit; the system may give less.
		_ = real.SetReadBuffer(packetBufferBytes)
	}
	return s
}

// serve lets sipgo read the socket and waits until it does.
func (s *packetSocket) serve() error {
	s.a.wg.Go(func() {
		_ = s.a.layer.ServeUDP(s) // ends with its socket
		s.begin.Do(func() { close(s.ready) })
	})
	<-s.ready
	c, err := s.a.layer.GetConnection("udp", s.pc.LocalAddr().String())
	if err != nil {
		return err
	}
	var ok bool
	if s.conn, ok = c.(*sipgo.UDPConnection); !ok {
		return ErrNoTransport
	}
	return nil
}

// ReadFrom gives sipgo the next datagram that is a message. It hides the errors
// of single datagrams, after which sipgo would read no more.
func (s *packetSocket) ReadFrom(buf []byte) (int, net.Addr, error) {
	s.begin.Do(func() { close(s.ready) })
	s.a.awaitStart()
	for {
		n, src, err := s.read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.came()
			continue
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !s.a.pause(10*time.Millisecond) {
				return 0, nil, net.ErrClosed
			}
			continue // the pause keeps a lasting error from spinning
		}
		if !s.a.cfg.Allow(src) {
			s.a.Counters.Denied.Add(1)
			continue
		}
		if pong := answerSTUN(buf[:n], src); pong != nil {
			s.a.Counters.KeepAlives.Add(1)
			_, _ = s.WriteTo(pong, packetAddr(src)) // it asks again
			continue
		}
		m, _, err := precheck(buf[:n], false)
		switch {
		case errors.Is(err, ErrKeepAlive):
			s.a.Counters.KeepAlives.Add(1)
		case err != nil:
			s.a.Counters.Unparseable.Add(1)
			s.a.refuse(buf[:n], err, Flow{Network: "udp", Local: s.local, Remote: src})
		default:
			text := m.excerpt(buf[:0])
			s.a.expect(s.in, m, Flow{Network: "udp", Local: s.local, Remote: src})
			return len(text), s.in, nil
		}
	}
}

func (s *packetSocket) read(buf []byte) (int, netip.AddrPort, error) {
	if s.udp != nil {
		n, src, err := s.udp.ReadFromUDPAddrPort(buf)
		return n, netip.AddrPortFrom(src.Addr().Unmap(), src.Port()), err
	}
	n, src, err := s.pc.ReadFrom(buf)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	return n, addrPortOf(src), nil
}

// packetAddr is the destination of a datagram on its way through sipgo.
type packetAddr netip.AddrPort

// Network and String make it a net.Addr.
func (packetAddr) Network() string  { return "udp" }
func (p packetAddr) String() string { return netip.AddrPort(p).String() }

// WriteTo writes what sipgo hands on.
func (s *packetSocket) WriteTo(data []byte, addr net.Addr) (int, error) {
	to, ok := addr.(packetAddr)
	if !ok {
		to = packetAddr(addrPortOf(addr))
	}
	if s.udp != nil {
		return s.udp.WriteToUDPAddrPort(data, netip.AddrPort(to))
	}
	return s.pc.WriteTo(data, net.UDPAddrFromAddrPort(netip.AddrPort(to)))
}

// Close closes the socket; sipgo's reader ends with it.
func (s *packetSocket) Close() error { return ignoreClosed(s.pc.Close()) }

// The rest of net.PacketConn.

func (s *packetSocket) LocalAddr() net.Addr                { return s.pc.LocalAddr() }
func (s *packetSocket) SetDeadline(t time.Time) error      { return s.pc.SetDeadline(t) }
func (s *packetSocket) SetReadDeadline(t time.Time) error  { return s.pc.SetReadDeadline(t) }
func (s *packetSocket) SetWriteDeadline(t time.Time) error { return s.pc.SetWriteDeadline(t) }
