//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	resendAfter   = 500 * time.Millisecond // T1 of RFC 3261
	resendsMax    = 20
	sipBufferSize = 4 << 20
)

// partyCall is a call as both its parties see it.
type partyCall struct {
	text dialogText

	inviteSent, inviteSeen time.Time // by the caller, by the callee
	ringSent, ringSeen     time.Time
	answered, ended        bool
	refused                int               // the status, when refused
	media                  [2]netip.AddrPort // where either side sends its media

	pending []byte // the request without answer
	resend  time.Time
	resends int
}

// parties are the caller and the callee of all calls of a run.
type parties struct {
	run            string
	caller, callee *net.UDPConn
	server         netip.AddrPort // where the caller sends to

	mu      sync.Mutex // guards all following
	calls   []partyCall
	changed chan struct{} // closed and replaced when a call was answered, refused or ended
	retried int
	closing bool

	done sync.WaitGroup
}

// newParties opens the two sockets. With direct the caller calls the callee
// without anybody between them.
func newParties(run string, calls int, direct bool) (*parties, error) {
	p := &parties{run: run, server: relaySIP, calls: make([]partyCall, calls), changed: make(chan struct{})}
	if direct {
		p.server = calleeSIP
	}
	err := within(partiesNS, func() (err error) {
		if p.caller, err = listenSIP(callerSIP); err != nil {
			return err
		}
		p.callee, err = listenSIP(calleeSIP)
		return err
	})
	if err != nil {
		p.closeSockets()
		return nil, err
	}
	p.done.Go(func() { p.read(p.caller, p.atCaller) })
	p.done.Go(func() { p.read(p.callee, p.atCallee) })
	return p, nil
}

func listenSIP(at netip.AddrPort) (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			// Root may go beyond the kernel's limit. Less is only slower: requests are repeated.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sipBufferSize)
		})
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (p *parties) closeSockets() {
	for _, c := range []*net.UDPConn{p.caller, p.callee} {
		if c != nil {
			_ = c.Close() // nothing is written that could be lost
		}
	}
}

func (p *parties) close() {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	p.closeSockets()
	p.done.Wait()
}

func (p *parties) read(c *net.UDPConn, take func(*sipMessage, netip.AddrPort, time.Time)) {
	b := make([]byte, 65536)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier datagram
		}
		now := time.Now()
		if m, err := parseSIP(b[:n]); err == nil {
			take(m, from, now)
		}
	}
}

// invite begins a call.
func (p *parties) invite(call int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.calls[call]
	c.text = dialogText{run: p.run, call: call, local: callerSIP, server: p.server}
	c.inviteSent = time.Now()
	p.ask(c, c.text.request("INVITE", 1, sdpOf(partyMediaAddr(0, call))))
}

// ask sends a request of the caller that wants an answer.
func (p *parties) ask(c *partyCall, request []byte) {
	c.pending, c.resends, c.resend = request, 0, time.Now().Add(resendAfter)
	p.send(p.caller, request, p.server)
}

func (p *parties) send(c *net.UDPConn, b []byte, to netip.AddrPort) {
	_, _ = c.WriteToUDPAddrPort(b, to) // a lost datagram is repeated
}

// atCaller takes what comes to the caller: responses.
func (p *parties) atCaller(m *sipMessage, from netip.AddrPort, now time.Time) {
	if m.method != "" {
		p.send(p.caller, m.response(200, "OK", callerSIP, "", ""), from) // a ping
		return
	}
	n, ok := callNumber(p.run, m.get("call-id"))
	p.mu.Lock()
	defer p.mu.Unlock()
	if !ok || n >= len(p.calls) {
		return
	}
	c := &p.calls[n]
	switch method := m.cseqMethod(); {
	case method == "BYE" && m.status >= 200:
		c.pending, c.ended = nil, true
		p.tell()
	case method != "INVITE":
	case m.status == 180:
		c.pending = nil
		if c.ringSeen.IsZero() {
			c.ringSeen = now
		}
	case m.status < 200:
		c.pending = nil
	case m.status < 300:
		p.atAnswer(c, m)
	default:
		c.pending, c.refused = nil, m.status
		c.text.to = m.get("to")
		p.send(p.caller, c.text.request("ACK", 1, ""), p.server)
		p.tell()
	}
}

func (p *parties) atAnswer(c *partyCall, m *sipMessage) {
	c.text.to, c.text.target = m.get("to"), m.contact()
	p.send(p.caller, c.text.request("ACK", 1, ""), p.server)
	if c.answered {
		return
	}
	to, err := mediaOf(m.body)
	if err != nil {
		c.refused = 488
	}
	c.pending, c.answered, c.media[0] = nil, true, to
	p.tell()
}

// atCallee takes what comes to the callee: it rings and answers at once.
func (p *parties) atCallee(m *sipMessage, from netip.AddrPort, now time.Time) {
	n, ok := callNumber(p.run, m.get("call-id"))
	switch {
	case m.method == "" || m.method == "ACK":
		return
	case m.method != "INVITE" || !ok || n >= len(p.calls):
		p.send(p.callee, m.response(200, "OK", calleeSIP, "", ""), from)
		return
	}
	to, err := mediaOf(m.body)
	if err != nil {
		p.send(p.callee, m.response(488, "Not Acceptable Here", calleeSIP, "x", ""), from)
		return
	}
	tag := fmt.Sprintf("a%d", n)
	ring := m.response(180, "Ringing", calleeSIP, tag, "")
	answer := m.response(200, "OK", calleeSIP, tag, sdpOf(partyMediaAddr(1, n)))
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.calls[n]
	c.media[1] = to
	if c.inviteSeen.IsZero() {
		c.inviteSeen, c.ringSent = now, time.Now()
	}
	p.send(p.callee, ring, from)
	p.send(p.callee, answer, from)
}

// tell wakes those who wait for a change. The lock is held.
func (p *parties) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// repeat sends again what was not answered in time.
func (p *parties) repeat() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for i := range p.calls {
		c := &p.calls[i]
		if c.pending == nil || now.Before(c.resend) {
			continue
		}
		if c.resends++; c.resends > resendsMax {
			return fmt.Errorf("call %d: no answer", i)
		}
		p.retried++
		c.resend = now.Add(resendAfter)
		p.send(p.caller, c.pending, p.server)
	}
	return nil
}

// each begins something for every call, rate times a second, and waits until
// finished says so of all of them.
func (p *parties) each(ctx context.Context, rate float64, begin func(call int), finished func(*partyCall) bool) error {
	start, next, tick := time.Now(), 0, time.NewTicker(time.Millisecond)
	defer tick.Stop()
	repeated := start
	for {
		for ; next < len(p.calls) && time.Since(start).Seconds()*rate >= float64(next); next++ {
			begin(next)
		}
		if time.Since(repeated) > resendAfter/5 {
			repeated = time.Now()
			if err := p.repeat(); err != nil {
				return err
			}
			if next == len(p.calls) && p.all(finished) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (p *parties) all(finished func(*partyCall) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.calls {
		if !finished(&p.calls[i]) {
			return false
		}
	}
	return true
}

// setUp makes all calls, rate a second.
func (p *parties) setUp(ctx context.Context, rate float64) error {
	err := p.each(ctx, rate, p.invite, func(c *partyCall) bool { return c.answered || c.refused != 0 })
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.calls {
		if s := p.calls[i].refused; s != 0 {
			return fmt.Errorf("call %d was refused with %d", i, s)
		}
	}
	return nil
}

// hangUp ends all calls, rate a second.
func (p *parties) hangUp(ctx context.Context, rate float64) error {
	return p.each(ctx, rate, func(n int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if c := &p.calls[n]; c.answered && !c.ended {
			p.ask(c, c.text.request("BYE", 2, ""))
		}
	}, func(c *partyCall) bool { return c.ended || !c.answered })
}

// mediaTargets returns where both sides of all calls send to.
func (p *parties) mediaTargets() [][2]netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([][2]netip.AddrPort, len(p.calls))
	for i := range p.calls {
		out[i] = p.calls[i].media
	}
	return out
}
