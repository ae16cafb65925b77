package sip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sipgo "github.com/emiago/sipgo/sip"

	"github.com/trunktap/trunktap/sip/dns"
)

// Listen is one address to listen on.
type Listen struct {
	Network string         // udp, tcp, tls, ws or wss
	Addr    netip.AddrPort // port 0 lets the system choose
	TLS     *tls.Config    // for tls and wss
}

// ParseListen reads "udp://0.0.0.0:5060", "tcp://[::]:5060" and the like.
func ParseListen(s string) (Listen, error) {
	network, addr, ok := strings.Cut(s, "://")
	if !ok || !knownNetwork(network) {
		return Listen{}, fmt.Errorf("listen %q: write udp://, tcp://, tls://, ws:// or wss:// and an address with port", s)
	}
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return Listen{}, fmt.Errorf("listen %q: %w (an IP address with port is needed, 0.0.0.0 or [::] for all)", s, err)
	}
	return Listen{Network: network, Addr: ap}, nil
}

// Net is where sockets come from; nil functions mean the real network.
type Net struct {
	ListenPacket func(network string, addr netip.AddrPort) (net.PacketConn, error)
	Listen       func(network string, addr netip.AddrPort) (net.Listener, error)
	Dial         func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)
	LookupNetIP  func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Config of an Agent.
type Config struct {
	Listen []Listen // at least one
	// Allow is the access list, asked before anything of a message is read.
	Allow func(src netip.AddrPort) bool
	// Handle takes the messages. Those of one socket come in order, by one
	// goroutine; it must not block.
	Handle func(*Message)
	TLS    *tls.Config // for connections that we open; nil: the system's roots
	// VerifyPeer, which may be nil, is asked for every connection over TLS that a
	// peer has opened, after its certificate has passed what Listen.TLS demands.
	VerifyPeer func(src netip.AddrPort, state tls.ConnectionState) error
	// KeepAlive is how long a connection may be silent before something is sent on
	// it: CRLF on those that we opened (RFC 5626 section 3.5.1), pings on every
	// WebSocket (RFC 7118 section 6). 0: never.
	KeepAlive time.Duration
	Net       Net
	// DNS finds where names of next hops lead. Nil: their addresses alone are looked up.
	DNS *dns.Resolver
	Log *slog.Logger // never gets text of a message
}

// Counters of an Agent.
type Counters struct {
	Received    atomic.Uint64 // messages handed on
	Sent        atomic.Uint64 // messages written
	Denied      atomic.Uint64 // datagrams and connections of sources that belong to no trunk
	Unparseable atomic.Uint64 // messages that could not be read
	Refusals    atomic.Uint64 // of them, requests that were answered with what is wrong
	KeepAlives  atomic.Uint64
	SendErrors  atomic.Uint64 // messages that could not be written
	ConnsOpen   atomic.Int64  // connections of TCP, TLS and WebSocket
	Refused     atomic.Uint64 // connections beyond connsMax
	Handshakes  atomic.Uint64 // connections whose peer did not come through TLS or WebSocket
}

// Agent sends and receives messages on all transports.
type Agent struct {
	cfg      Config
	Counters Counters

	layer   *sipgo.TransportLayer
	packets []*packetSocket             // fixed after Start
	streams []*streamSocket             // fixed after Start
	locals  map[string][]netip.AddrPort // of the listeners, by network, fixed after Start
	dialled map[string]*dialListener    // by network, fixed after Start
	started chan struct{}               // closed when the fields above are fixed
	wg      sync.WaitGroup
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc

	mu      sync.Mutex
	inbound map[string]*inbound       // guarded by mu, by source
	places  uint64                    // guarded by mu: names given to inbound so far
	conns   map[connKey]*streamConn   // guarded by mu
	routes  map[netip.Addr]netip.Addr // guarded by mu: our address on the way to
	closed  bool                      // guarded by mu
}

// ErrNoTransport means that nothing listens for the network and address family of a peer.
var ErrNoTransport = errors.New("no listener for this transport and address family")

// New makes an agent; Start opens its sockets.
func New(cfg Config) (*Agent, error) {
	if len(cfg.Listen) == 0 {
		return nil, errors.New("sip: no address to listen on")
	}
	if cfg.Handle == nil || cfg.Allow == nil {
		return nil, errors.New("sip: Handle and Allow are needed")
	}
	for _, l := range cfg.Listen {
		if secured(l.Network) && l.TLS == nil {
			return nil, fmt.Errorf("sip: listen on %s://%s: no certificate (set sip.tls.cert and sip.tls.key)", l.Network, l.Addr)
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Net.fill()
	a := &Agent{
		cfg: cfg, dialled: map[string]*dialListener{}, started: make(chan struct{}), inbound: map[string]*inbound{},
		conns: map[connKey]*streamConn{}, routes: map[netip.Addr]netip.Addr{},
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.layer = sipgo.NewTransportLayer(net.DefaultResolver, parser, nil, // it is asked to resolve nothing
		sipgo.WithTransportLayerLogger(slog.New(slog.DiscardHandler)))
	a.layer.OnMessage(a.take)
	return a, nil
}

func (n *Net) fill() {
	if n.ListenPacket == nil {
		n.ListenPacket = func(network string, addr netip.AddrPort) (net.PacketConn, error) {
			return net.ListenPacket(network+family(addr.Addr()), addr.String())
		}
	}
	if n.Listen == nil {
		n.Listen = func(network string, addr netip.AddrPort) (net.Listener, error) {
			return net.Listen(network+family(addr.Addr()), addr.String())
		}
	}
	if n.Dial == nil {
		n.Dial = func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr.String())
		}
	}
	if n.LookupNetIP == nil {
		n.LookupNetIP = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// Start opens the sockets and begins to receive. After an error nothing is left open.
func (a *Agent) Start() error {
	for _, l := range a.cfg.Listen {
		if err := a.open(l); err != nil {
			return errors.Join(fmt.Errorf("listen on %s://%s: %w", l.Network, l.Addr, err), a.Close())
		}
	}
	a.locals = a.listeners()
	for _, s := range a.packets {
		if err := s.serve(); err != nil {
			return errors.Join(fmt.Errorf("read udp://%s: %w", s.local, err), a.Close())
		}
	}
	for _, s := range a.streams {
		s.serve()
		if a.dialled[s.network] == nil {
			a.dialled[s.network] = a.serveDialled(s.network)
		}
	}
	close(a.started)
	return nil
}

// awaitStart keeps the first message back until all sockets can be written.
func (a *Agent) awaitStart() {
	select {
	case <-a.started:
	case <-a.ctx.Done():
	}
}

func (a *Agent) open(l Listen) error {
	if l.Network == "udp" {
		pc, err := a.cfg.Net.ListenPacket("udp", l.Addr)
		if err != nil {
			return err
		}
		a.packets = append(a.packets, a.newPacketSocket(pc))
		return nil
	}
	ln, err := a.cfg.Net.Listen("tcp", l.Addr)
	if err != nil {
		return err
	}
	s := &streamSocket{a: a, l: ln, network: l.Network, local: addrPortOf(ln.Addr())}
	if secured(l.Network) {
		s.l = tls.NewListener(ln, a.serverTLS(l.TLS))
	}
	a.streams = append(a.streams, s)
	return nil
}

// pause waits; false when the agent closes.
func (a *Agent) pause(d time.Duration) bool {
	select {
	case <-a.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func addrPortOf(addr net.Addr) netip.AddrPort {
	switch v := addr.(type) {
	case *net.UDPAddr:
		ap := v.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	case *net.TCPAddr:
		ap := v.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Addrs returns the addresses of the listeners, those of UDP first.
func (a *Agent) Addrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range a.packets {
		out = append(out, s.local)
	}
	for _, s := range a.streams {
		out = append(out, s.local)
	}
	return out
}

// Close closes all sockets and waits for the goroutines that read them.
func (a *Agent) Close() error {
	a.mu.Lock()
	a.closed = true
	var conns []*streamConn
	for _, c := range a.conns {
		conns = append(conns, c)
	}
	for _, in := range a.inbound {
		if in.conn != nil { // one that another of the same peer took the place of
			conns = append(conns, in.conn)
		}
	}
	a.conns = map[connKey]*streamConn{}
	a.mu.Unlock()
	a.cancel()
	var errs []error
	for _, s := range a.packets {
		errs = append(errs, s.Close())
	}
	for _, s := range a.streams {
		errs = append(errs, s.Close())
	}
	for _, c := range conns {
		c.shut(net.ErrClosed)
	}
	a.wg.Wait()
	errs = append(errs, a.layer.Close())
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Send writes m to f.Remote. It does not wait for a connection: fail, which may
// be nil, is called by another goroutine when the message cannot be delivered
// to the transport later; an error that is known at once is returned instead.
func (a *Agent) Send(m *Message, f Flow, fail func(error)) error {
	var err error
	if f.Network == "udp" {
		err = a.sendPacket(m, f)
	} else if data := m.Append(make([]byte, 0, 1024+len(m.Body))); len(data) > MessageBytesMax {
		err = tooLarge(data)
	} else {
		err = a.sendStream(data, f, fail)
	}
	if err != nil {
		a.Counters.SendErrors.Add(1)
		return err
	}
	a.Counters.Sent.Add(1)
	return nil
}

func tooLarge(data []byte) error {
	return fmt.Errorf("message of %d bytes, at most %d are sent", len(data), MessageBytesMax)
}

// packetBuffers hold datagrams while they are written.
var packetBuffers = sync.Pool{New: func() any { return new([]byte) }}

func (a *Agent) sendPacket(m *Message, f Flow) error {
	buf := packetBuffers.Get().(*[]byte)
	defer packetBuffers.Put(buf)
	*buf = m.Append((*buf)[:0])
	if len(*buf) > MessageBytesMax {
		return tooLarge(*buf)
	}
	s := a.packetSocket(f)
	if s == nil {
		return ErrNoTransport
	}
	_, err := s.conn.WriteTo(*buf, packetAddr(f.Remote))
	return err
}

func (a *Agent) packetSocket(f Flow) *packetSocket {
	if i := a.pick(a.locals["udp"], f); i >= 0 {
		return a.packets[i]
	}
	return nil
}

// listeners returns the addresses that are listened on, by network.
func (a *Agent) listeners() map[string][]netip.AddrPort {
	of := map[string][]netip.AddrPort{}
	for _, s := range a.packets {
		of["udp"] = append(of["udp"], s.local)
	}
	for _, s := range a.streams {
		of[s.network] = append(of[s.network], s.local)
	}
	return of
}

// pick chooses the listener for a flow: the one named by it, else that of the
// address that the route to the peer leaves from, else one that listens on all,
// else the first of the family.
func (a *Agent) pick(locals []netip.AddrPort, f Flow) int {
	found, all, first := -1, -1, -1
	for i, l := range locals {
		if l.Addr().Is4() != f.Remote.Addr().Is4() {
			continue
		}
		if l == f.Local {
			return i
		}
		if first < 0 {
			first = i
		}
		if all < 0 && l.Addr().IsUnspecified() {
			all = i
		}
		if found < 0 && len(locals) > 1 && l.Addr() == a.route(f.Remote.Addr()) {
			found = i
		}
	}
	for _, i := range []int{found, all} {
		if i >= 0 {
			return i
		}
	}
	return first
}
