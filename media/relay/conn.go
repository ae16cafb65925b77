package relay

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
)

const (
	// datagramBytesMax is more than a UDP payload can have, so nothing is cut off.
	datagramBytesMax = 65536

	// readErrorsMax is how many reads in a row may fail before a socket is given up.
	readErrorsMax = 100
)

// connEngine is the portable engine: a reader goroutine per socket.
type connEngine struct {
	open func(netip.AddrPort) (Conn, error)
}

type connSocket struct{ conn Conn }

func (c *connSocket) close() error { return c.conn.Close() }

func (c *connSocket) send(b []byte, to netip.AddrPort) error {
	_, err := c.conn.WriteToUDPAddrPort(b, to)
	return err
}

// connPlace is what the engine keeps about a stream.
type connPlace struct {
	mu      sync.Mutex // held while a packet of the stream is handled
	sealed  []byte     // made with the first packet that is to be protected
	readers sync.WaitGroup
}

func (e connEngine) bind(at netip.AddrPort) (socket, error) {
	c, err := e.open(at)
	if err != nil {
		return nil, err
	}
	return &connSocket{c}, nil
}

func (e connEngine) attach(s *Stream) error {
	place := &connPlace{}
	s.place = place
	for side := range s.ends {
		for k, sock := range s.ends[side].opened() {
			conn := sock.(*connSocket).conn
			place.readers.Go(func() { place.read(s, media.Side(side), kind(k), conn) })
		}
	}
	return nil
}

func (e connEngine) settle(s *Stream) {
	place := s.place.(*connPlace)
	place.mu.Lock()
	defer place.mu.Unlock() //nolint:gocritic // it is taken only to wait for who holds it
}

func (e connEngine) run(s *Stream, f func()) {
	place := s.place.(*connPlace)
	place.mu.Lock()
	defer place.mu.Unlock()
	f()
}

func (e connEngine) detach(s *Stream) error {
	var errs []error
	for i := range s.ends {
		for _, sock := range s.ends[i].opened() {
			errs = append(errs, sock.close())
		}
	}
	s.place.(*connPlace).readers.Wait()
	return errors.Join(errs...)
}

func (e connEngine) close() error { return nil }

func (p *connPlace) read(s *Stream, side media.Side, k kind, conn Conn) {
	buf := make([]byte, datagramBytesMax)
	for failed := 0; failed < readErrorsMax; {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			failed++
			continue
		}
		failed = 0
		p.handle(s, side, k, from, buf[:n], time.Now())
	}
}

func (p *connPlace) handle(s *Stream, side media.Side, k kind, from netip.AddrPort, wire []byte, arrival time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := s.refresh()
	s.rekey()
	wire, ok := s.unprotect(r, side, k, from, wire, arrival)
	if !ok {
		return
	}
	rtcp, ok := s.accept(r, side, k, from, wire, arrival)
	if !ok {
		return
	}
	if s.receiveOnly {
		s.observe(rtcp, wire, arrival)
	}
	wire = s.overlay(side, rtcp, arrival, wire)
	p.forward(s, r, side, rtcp, wire)
	if wire, ok = s.reveal(r, side, k, wire, arrival); !ok {
		return
	}
	if slot := s.taps[side].Load(); slot != nil {
		defer s.tapFailed(side, slot)
		slot.tap.Put(arrival, wire)
	}
}

func (p *connPlace) forward(s *Stream, r *route, side media.Side, rtcp bool, wire []byte) {
	c := &s.stats[side]
	k, to, ok := s.destination(r, side.Other(), rtcp)
	if !ok {
		s.unroutable(c, 1)
		return
	}
	if p.sealed == nil && s.sec.on.Load() {
		p.sealed = make([]byte, datagramBytesMax+srtp.OverheadBytesMax)
	}
	if wire, ok = s.protect(side.Other(), rtcp, p.sealed, wire); !ok {
		return
	}
	if _, err := s.ends[side.Other()].socks[k].(*connSocket).conn.WriteToUDPAddrPort(wire, to); err != nil {
		c.sendErrors.Add(1)
		return
	}
	c.forwarded.Add(1)
}
