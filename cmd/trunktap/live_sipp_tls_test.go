package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// sippSecured are flows over TLS.
func sippSecured() []*sippScene {
	scenes := []*sippScene{
		{name: "tls", caller: sippCalls + sippLeaves, callee: sippAnswers + sippIsLeft},
		{name: "tls-callee-leaves", caller: sippCalls + sippIsLeft, callee: sippAnswers + sippLeaves},
		{name: "tls-outwards", outwards: true, caller: sippCalls + sippLeaves, callee: sippAnswers + sippIsLeft},
		{name: "tls-hold-by-caller", caller: sippCalls + sippHolds + sippLeaves, callee: sippAnswers + sippHeld + sippIsLeft, holds: 4},
		{name: "tls-hold-by-callee", caller: sippCalls + sippHeld + sippIsLeft, callee: sippAnswers + sippHolds + sippLeaves, holds: 4},
	}
	for _, s := range scenes {
		s.tcp, s.tls, s.recordings = true, true, 1
	}
	return scenes
}

// sippNames are in the certificates of the sides.
var sippNames = [2]string{"carrier.example", "pbx.example"}

// sippSecure is the TLS of the daemon and of those who forward to it.
type sippSecure struct {
	t  *testing.T
	ca *authority
	at netip.AddrPort // the daemon's listener
	as [2]*tls.Config
}

// newSippSecure gives the daemon a listener that demands certificates.
func newSippSecure(t *testing.T, cfg *liveConfig) *sippSecure {
	t.Helper()
	s := &sippSecure{t: t, ca: newAuthority(t), at: freeTCP(t, liveHost)}
	for side, name := range sippNames {
		s.as[side] = s.ca.peer(name, int64(20+side))
	}
	cert, key := s.ca.sign("tap.example", 10)
	cfg.Listen = append(cfg.Listen, "tls://"+s.at.String())
	cfg.SIP = append(cfg.SIP, fmt.Sprintf("tls: {cert: %s, key: %s, client_ca: %s}", cert, key, s.ca.file))
	return s
}

// side is the TLS of a trunk's side.
func (s *sippSecure) side(side int) []string {
	return []string{fmt.Sprintf("tls: {ca: %s, peer_name: %s}", s.ca.file, sippNames[side])}
}

// sippForward stands before one SIPp: what comes over TCP leaves over TLS to the
// daemon, as a connection of its own, and the other way round.
type sippForward struct {
	tcp, tls net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex
	peers []string // whom TLS was with, by name and direction
}

func (s *sippSecure) forward(side int, sipp netip.AddrPort) *sippForward {
	s.t.Helper()
	f := &sippForward{}
	host := net.TCPAddrFromAddrPort(netip.AddrPortFrom(sipp.Addr(), 0))
	f.tcp = must(net.ListenTCP("tcp", host))(s.t)
	f.tls = tls.NewListener(must(net.ListenTCP("tcp", host))(s.t), s.as[side])
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(func() {
		cancel()
		_, _ = f.tcp.Close(), f.tls.Close() // nothing of use comes any more
		f.running.Wait()
	})
	dialer := &net.Dialer{LocalAddr: host}
	f.running.Go(func() {
		f.serve(ctx, f.tcp, "to", func() (net.Conn, error) {
			return (&tls.Dialer{NetDialer: dialer, Config: s.as[side]}).DialContext(ctx, "tcp", s.at.String())
		})
	})
	f.running.Go(func() {
		f.serve(ctx, f.tls, "from", func() (net.Conn, error) { return dialer.DialContext(ctx, "tcp", sipp.String()) })
	})
	return f
}

// serve joins each connection that is accepted to one that dial opens.
func (f *sippForward) serve(ctx context.Context, l net.Listener, way string, dial func() (net.Conn, error)) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		f.running.Go(func() {
			defer func() { _ = in.Close() }() // the parties have said what they had to say
			if c, ok := in.(*tls.Conn); ok && c.HandshakeContext(ctx) != nil {
				return
			}
			out, err := dial()
			if err != nil {
				return
			}
			defer context.AfterFunc(ctx, func() { _, _ = in.Close(), out.Close() })()
			f.opened(way, in, out)
			f.running.Go(func() { f.pipe(out, in) })
			f.pipe(in, out)
		})
	}
}

// pipe ends both ways when one ends.
func (*sippForward) pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from)        // the call fails, and says so
	_, _ = to.Close(), from.Close() // likewise
}

func (f *sippForward) opened(way string, conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		if c, ok := c.(*tls.Conn); ok {
			f.peers = append(f.peers, way+" "+c.ConnectionState().PeerCertificates[0].DNSNames[0])
		}
	}
}

func (f *sippForward) plain() netip.AddrPort  { return f.tcp.Addr().(*net.TCPAddr).AddrPort() }
func (f *sippForward) secure() netip.AddrPort { return f.tls.Addr().(*net.TCPAddr).AddrPort() }
func (f *sippForward) hop() string            { return "sip:" + f.secure().String() + ";transport=tls" }

// checkSecured holds that the caller's way to the daemon and the daemon's to the
// callee were TLS, with certificates at both ends.
func (r *sippRun) checkSecured(t *testing.T) {
	t.Helper()
	for n, way := range []string{"to tap.example", "from tap.example"} {
		if f := r.forward[n]; f != nil {
			f.mu.Lock()
			t.Logf("%s, party %d: %v", r.name, n, f.peers)
			if !slices.Contains(f.peers, way) {
				t.Errorf("%s, party %d: connections %v, none %s", r.name, n, f.peers, way)
			}
			f.mu.Unlock()
		}
	}
}
