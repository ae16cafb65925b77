package sip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Listen is one address to listen on.
type Listen struct {
	Network string         // udp, tcp or tls
	Addr    netip.AddrPort // port 0 lets the system choose
	TLS     *tls.Config    // for tls
}

// ParseListen reads "udp://0.0.0.0:5060", "tcp://[::]:5060" and the like.
func ParseListen(s string) (Listen, error) {
	network, addr, ok := strings.Cut(s, "://")
	if !ok || !knownNetwork(network) {
		return Listen{}, fmt.Errorf("listen %q: write udp://, tcp:// or tls:// and an address with port", s)
	}
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return Listen{}, fmt.Errorf("listen %q: %w (an IP address with port is needed, 0.0.0.0 or [::] for all)", s, err)
	}
	return Listen{Network: network, Addr: ap}, nil
}

// Flow is the way between us and a peer.
type Flow struct {
	Network string         // udp, tcp or tls
	Local   netip.AddrPort // the listener; zero: chosen by the route
	Remote  netip.AddrPort
}

// Reliable says whether the transport repeats what is lost.
func (f Flow) Reliable() bool { return f.Network != "udp" }

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
	Net    Net
	Log    *slog.Logger // never gets text of a message
}

// Counters of an Agent.
type Counters struct {
	Received    atomic.Uint64 // messages handed on
	Sent        atomic.Uint64 // messages written
	Denied      atomic.Uint64 // datagrams and connections of sources that belong to no trunk
	Unparseable atomic.Uint64 // messages that could not be read
	KeepAlives  atomic.Uint64
	SendErrors  atomic.Uint64 // messages that could not be written
	ConnsOpen   atomic.Int64  // TCP and TLS connections
	Refused     atomic.Uint64 // connections beyond connsMax
}

// Agent sends and receives messages on all transports.
type Agent struct {
	cfg      Config
	Counters Counters

	packets []*packetSocket // fixed after Start
	streams []*streamSocket // fixed after Start
	wg      sync.WaitGroup
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc

	mu     sync.Mutex
	conns  map[connKey]*streamConn   // guarded by mu
	routes map[netip.Addr]netip.Addr // guarded by mu: our address on the way to
	closed bool                      // guarded by mu
}

type packetSocket struct {
	pc    net.PacketConn
	udp   addrPortConn // pc, when it can do without net.Addr
	local netip.AddrPort
}

// addrPortConn is what *net.UDPConn does without an allocation.
type addrPortConn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

type streamSocket struct {
	l       net.Listener
	network string
	local   netip.AddrPort
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
		if l.Network == "tls" && l.TLS == nil {
			return nil, fmt.Errorf("sip: listen on tls://%s: no certificate (set sip.tls.cert and sip.tls.key)", l.Addr)
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Net.fill()
	a := &Agent{cfg: cfg, conns: map[connKey]*streamConn{}, routes: map[netip.Addr]netip.Addr{}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
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
	for _, s := range a.packets {
		a.wg.Go(func() { a.readPackets(s) })
	}
	for _, s := range a.streams {
		a.wg.Go(func() { a.accept(s) })
	}
	return nil
}

func (a *Agent) open(l Listen) error {
	if l.Network == "udp" {
		pc, err := a.cfg.Net.ListenPacket("udp", l.Addr)
		if err != nil {
			return err
		}
		s := &packetSocket{pc: pc, local: addrPortOf(pc.LocalAddr())}
		s.udp, _ = pc.(addrPortConn)
		if real, ok := pc.(*net.UDPConn); ok {
			// A burst of a trunk's worth of messages must fit; the system may give less.
			_ = real.SetReadBuffer(packetBufferBytes)
		}
		a.packets = append(a.packets, s)
		return nil
	}
	ln, err := a.cfg.Net.Listen("tcp", l.Addr)
	if err != nil {
		return err
	}
	s := &streamSocket{l: ln, network: l.Network, local: addrPortOf(ln.Addr())}
	if l.TLS != nil {
		s.l = tls.NewListener(ln, l.TLS)
	}
	a.streams = append(a.streams, s)
	return nil
}

const packetBufferBytes = 4 << 20

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
	conns := a.conns
	a.conns = map[connKey]*streamConn{}
	a.mu.Unlock()
	a.cancel()
	var errs []error
	for _, s := range a.packets {
		errs = append(errs, ignoreClosed(s.pc.Close()))
	}
	for _, s := range a.streams {
		errs = append(errs, ignoreClosed(s.l.Close()))
	}
	for _, c := range conns {
		c.shut(net.ErrClosed)
	}
	a.wg.Wait()
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// readPackets is the owner of one UDP socket's reads.
func (a *Agent) readPackets(s *packetSocket) {
	buf := make([]byte, MessageBytesMax+1)
	for {
		n, src, err := s.read(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || a.ctx.Err() != nil {
				return
			}
			// An error of one datagram; the pause keeps a lasting one from spinning.
			select {
			case <-a.ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		if !a.cfg.Allow(src) {
			a.Counters.Denied.Add(1)
			continue
		}
		a.take(buf[:n], Flow{Network: "udp", Local: s.local, Remote: src})
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

func (a *Agent) take(data []byte, f Flow) {
	m, _, err := Parse(data, false)
	switch {
	case errors.Is(err, ErrKeepAlive):
		a.Counters.KeepAlives.Add(1)
		return
	case err != nil:
		a.Counters.Unparseable.Add(1)
		return
	}
	m.Flow, m.Arrival = f, time.Now()
	a.Counters.Received.Add(1)
	a.cfg.Handle(m)
}

// Send writes m to f.Remote. It does not wait for a connection: fail, which may
// be nil, is called by another goroutine when the message cannot be delivered
// to the transport later; an error that is known at once is returned instead.
func (a *Agent) Send(m *Message, f Flow, fail func(error)) error {
	data := m.Append(make([]byte, 0, 1024+len(m.Body)))
	if len(data) > MessageBytesMax {
		a.Counters.SendErrors.Add(1)
		return fmt.Errorf("message of %d bytes, at most %d are sent", len(data), MessageBytesMax)
	}
	var err error
	if f.Network == "udp" {
		err = a.sendPacket(data, f)
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

func (a *Agent) sendPacket(data []byte, f Flow) error {
	s := a.packetSocket(f)
	if s == nil {
		return ErrNoTransport
	}
	if s.udp != nil {
		_, err := s.udp.WriteToUDPAddrPort(data, f.Remote)
		return err
	}
	_, err := s.pc.WriteTo(data, net.UDPAddrFromAddrPort(f.Remote))
	return err
}

func (a *Agent) packetSocket(f Flow) *packetSocket {
	locals := make([]netip.AddrPort, len(a.packets))
	for i, s := range a.packets {
		locals[i] = s.local
	}
	if i := a.pick(locals, f); i >= 0 {
		return a.packets[i]
	}
	return nil
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

const routesMax = 4096

// route returns our address on the way to a peer, as the system would choose it.
func (a *Agent) route(to netip.Addr) netip.Addr {
	a.mu.Lock()
	from, known := a.routes[to]
	a.mu.Unlock()
	if known {
		return from
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	if err == nil {
		from = addrPortOf(c.LocalAddr()).Addr()
		_ = c.Close() // nothing was sent on it
	}
	a.mu.Lock()
	if len(a.routes) < routesMax {
		a.routes[to] = from
	}
	a.mu.Unlock()
	return from
}

// Local returns our address for a flow as the peer should see it in Via and
// Contact, and the flow with its listener filled in. advertise, when valid,
// stands for the listener's address.
func (a *Agent) Local(f Flow, advertise netip.Addr) (netip.AddrPort, Flow, error) {
	var locals []netip.AddrPort
	if f.Network == "udp" {
		for _, s := range a.packets {
			locals = append(locals, s.local)
		}
	} else {
		for _, s := range a.streams {
			if s.network == f.Network {
				locals = append(locals, s.local)
			}
		}
	}
	if !f.Local.IsValid() && advertise.IsValid() {
		for _, l := range locals {
			if l.Addr() == advertise {
				f.Local = l
			}
		}
	}
	i := a.pick(locals, f)
	if i < 0 {
		return netip.AddrPort{}, f, fmt.Errorf("%s to %s: %w", f.Network, f.Remote, ErrNoTransport)
	}
	f.Local = locals[i]
	addr := f.Local.Addr()
	switch {
	case advertise.IsValid():
		addr = advertise
	case addr.IsUnspecified():
		addr = a.route(f.Remote.Addr())
	}
	return netip.AddrPortFrom(addr, f.Local.Port()), f, nil
}

// Resolve returns the addresses of a next hop as flows, in the order given by
// the resolver. It blocks on DNS unless the host is an address.
func (a *Agent) Resolve(ctx context.Context, h NextHop) ([]Flow, error) {
	var flows []Flow
	addrs := []netip.Addr{}
	if ip, err := netip.ParseAddr(h.Host); err == nil {
		addrs = append(addrs, ip)
	} else if addrs, err = a.cfg.Net.LookupNetIP(ctx, h.Host); err != nil {
		return nil, fmt.Errorf("resolve next hop %s: %w", h.Host, err)
	}
	for _, ip := range addrs {
		flows = append(flows, Flow{Network: h.Transport, Remote: netip.AddrPortFrom(ip.Unmap(), h.port())})
	}
	if len(flows) == 0 {
		return nil, fmt.Errorf("resolve next hop %s: no address", h.Host)
	}
	return flows, nil
}

// ReplyFlow returns where the responses to a request go (RFC 3261 section
// 18.2.2, RFC 3581 section 4).
func ReplyFlow(req *Message) Flow {
	f := req.Flow
	if f.Reliable() {
		return f // the same connection; when it is gone, one to the same address
	}
	via, err := req.TopVia()
	if err != nil {
		return f
	}
	if _, ok := via.Params.Get("rport"); ok {
		return f
	}
	port := via.Port
	if port == 0 {
		port = 5060
	}
	f.Remote = netip.AddrPortFrom(f.Remote.Addr(), uint16(port))
	return f
}

// MarkSource notes in the top Via of a request where it came from (RFC 3261
// section 18.2.1, RFC 3581 section 4), for the responses that copy it.
func MarkSource(req *Message) {
	for i, h := range req.Headers {
		if !sameName(h.Name, "Via") {
			continue
		}
		list := splitList(h.Value)
		if len(list) == 0 {
			return
		}
		via, err := ParseVia(list[0])
		if err != nil {
			return
		}
		rport, ask := via.Params.Get("rport")
		ask = ask && rport == ""
		source := req.Flow.Remote.Addr()
		sentBy, err := netip.ParseAddr(via.Host)
		if ask || err != nil || sentBy.Unmap() != source {
			via.Params = via.Params.Without("received") + Params(";received="+source.String())
		}
		if ask {
			via.Params = via.Params.Without("rport") + Params(";rport="+strconv.Itoa(int(req.Flow.Remote.Port())))
		}
		list[0] = via.String()
		req.Headers[i].Value = strings.Join(list, ", ")
		return
	}
}
