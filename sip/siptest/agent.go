// Package siptest is a scriptable SIP user agent with media, for tests and for
// the demonstration. It shares no code with the B2BUA that it tests: it reads
// and writes SIP, SDP, RTP and G.711 by itself.
//
// An Agent works on real sockets, and on any network that Config.Listen makes:
// with one in memory it runs inside a testing/synctest bubble.
package siptest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Timers of RFC 3261 section 17 (table 4).
const (
	defaultT1 = 500 * time.Millisecond
	t2        = 4 * time.Second
)

// Limits of what an Agent keeps; the oldest is forgotten first.
const (
	tracesMax       = 10_000 // messages of Trace
	transactionsMax = 2_000  // answered requests, to answer their retransmissions
	acksMax         = 500    // ACKs, to repeat them
	incomingMax     = 100    // calls that nobody accepted
)

// Errors that callers branch on.
var (
	ErrClosed  = errors.New("agent is closed")
	ErrTimeout = errors.New("no final response in 64 times T1 (RFC 3261 section 17.1)")
	ErrEnded   = errors.New("call has ended")
)

// Config of an Agent. The zero value of every field is usable.
type Config struct {
	Name      string         // user part of its URI; "": agent
	Addr      netip.AddrPort // of SIP; zero: 127.0.0.1, port 0: any
	Transport string         // udp | tcp | tls | ws | wss; "": udp. ws and wss as a browser: nobody can connect to it
	TLS       *tls.Config    // of tls, as server and as client, and of wss
	Host      string         // of its Contact, as somebody behind a NAT believes it to be; "": its address, of ws and wss a name of nobody
	MediaAddr netip.Addr     // of RTP; zero: that of SIP
	MediaPort uint16         // RTP port of the first call, the next gets 2 more, and so on; 0: any even port
	Codecs    []Codec        // in order of preference; nil: PCMU, PCMA
	RTCP      bool           // send a sender report each 5 s
	SkewPPM   float64        // how much its media clock is fast
	T1        time.Duration  // estimate of the round trip (RFC 3261 section 17.1.1.1); 0: 500 ms
	KeepMax   int            // packets that Sent and Received keep at most, each; 0: 100,000

	// Listen opens a datagram socket, for SIP and for media; nil: a UDP socket.
	Listen func(netip.AddrPort) (Conn, error)

	// Log gets the start lines of messages at level debug; nil: nothing is logged.
	Log *slog.Logger
}

func (c Config) complete() Config {
	if c.Name == "" {
		c.Name = "agent"
	}
	if !c.Addr.IsValid() {
		c.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), c.Addr.Port())
	}
	if !c.MediaAddr.IsValid() {
		c.MediaAddr = c.Addr.Addr()
	}
	if c.Codecs == nil {
		c.Codecs = []Codec{PCMU, PCMA}
	}
	if c.T1 == 0 {
		c.T1 = defaultT1
	}
	if c.Host == "" && strings.HasPrefix(strings.ToLower(c.Transport), "ws") {
		c.Host = token(6) + ".invalid"
	}
	if c.KeepMax == 0 {
		c.KeepMax = 100_000
	}
	if c.Listen == nil {
		c.Listen = listenUDP
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Trace is one SIP message that an Agent sent or received.
type Trace struct {
	At   time.Time
	Sent bool
	Peer netip.AddrPort
	Raw  []byte
}

// Agent is one SIP user agent. Its methods are safe for concurrent use.
type Agent struct {
	cfg      Config
	net      transport
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	wg       sync.WaitGroup // what the agent started but for the transport's readers
	incoming chan *Call     // answered calls for Accept

	mu        sync.Mutex
	closed    bool
	script    func(*Incoming)
	speak     func() Source    // of new calls; nil: silence
	calls     map[string]*Call // by Call-ID and local tag
	clients   map[string]chan *Message
	servers   limited[*server]
	acks      limited[outgoing] // by Call-ID, CSeq number and To tag
	traces    []Trace
	requests  []*Message // taken outside of calls
	mediaNext uint16
}

type outgoing struct {
	raw []byte
	to  netip.AddrPort
}

// New opens the sockets of an Agent. Close ends it.
func New(cfg Config) (*Agent, error) {
	cfg = cfg.complete()
	a := &Agent{
		cfg: cfg, incoming: make(chan *Call, incomingMax), mediaNext: cfg.MediaPort,
		calls: map[string]*Call{}, clients: map[string]chan *Message{},
		servers: limited[*server]{max: transactionsMax}, acks: limited[outgoing]{max: acksMax},
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.Script(func(in *Incoming) { in.Run(Answer{}) })
	ready := make(chan struct{})
	take := func(raw []byte, m *Message, from netip.AddrPort, reply func([]byte) error) {
		<-ready // until a.net is set
		a.receive(raw, m, from, reply)
	}
	var err error
	switch strings.ToLower(cfg.Transport) {
	case "", "udp":
		a.net, err = newUDP(cfg.Listen, cfg.Addr, take)
	case "tcp":
		a.net, err = newTCP(cfg.Addr, nil, take)
	case "tls":
		a.net, err = newTCP(cfg.Addr, cfg.TLS, take)
	case "ws":
		a.net = newWebSocket(cfg.Addr, nil, take)
	case "wss":
		a.net = newWebSocket(cfg.Addr, cfg.TLS, take)
	default:
		err = fmt.Errorf("transport %q: udp, tcp, tls, ws and wss are known", cfg.Transport)
	}
	if err != nil {
		a.cancel()
		return nil, err
	}
	close(ready)
	return a, nil
}

// Close ends the agent as a crash does: no BYE is sent. It returns when all of
// its goroutines have.
func (a *Agent) Close() error {
	a.mu.Lock()
	a.closed = true
	calls := make([]*Call, 0, len(a.calls))
	for _, c := range a.calls {
		calls = append(calls, c)
	}
	a.mu.Unlock()
	a.cancel()
	for _, c := range calls {
		c.end(ErrClosed)
	}
	err := a.net.close()
	a.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Addr is where the agent listens for SIP.
func (a *Agent) Addr() netip.AddrPort { return a.net.local() }

// URI is the agent's address of record and contact in one.
func (a *Agent) URI() string {
	uri := "sip:" + a.cfg.Name + "@" + a.host()
	switch name := a.net.name(); name {
	case "UDP":
	case "WSS":
		uri += ";transport=ws" // RFC 7118 section 5.5
	default:
		uri += ";transport=" + strings.ToLower(name)
	}
	return uri
}

// host is where the agent says that it is.
func (a *Agent) host() string {
	if a.cfg.Host != "" {
		return a.cfg.Host
	}
	return a.Addr().String()
}

// Script sets what is done with a new INVITE; without one it is answered at
// once (Answer{}). f runs in a goroutine of its own.
func (a *Agent) Script(f func(*Incoming)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.script = f
}

// Speak sets what is spoken in new calls from their first packet on: what Media.Play
// says later comes after a while of silence. nil is silence.
func (a *Agent) Speak(f func() Source) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.speak = f
}

// Accept returns the next incoming call that was answered and acknowledged.
func (a *Agent) Accept(ctx context.Context) (*Call, error) {
	select {
	case c := <-a.incoming:
		return c, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a call: %w", context.Cause(ctx))
	case <-a.ctx.Done():
		return nil, ErrClosed
	}
}

// Traces are the SIP messages sent and received so far, in order.
func (a *Agent) Traces() []Trace {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]Trace(nil), a.traces...)
}

// Requests are the requests received so far that belonged to no call, new
// INVITEs included.
func (a *Agent) Requests() []*Message {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*Message(nil), a.requests...)
}

// Options sends OPTIONS outside of a call and returns the final response.
func (a *Agent) Options(ctx context.Context, target string, via netip.AddrPort) (*Message, error) {
	return a.lone(ctx, "OPTIONS", target, via, "", nil)
}

// Message sends MESSAGE (RFC 3428) outside of a call and returns the final response.
func (a *Agent) Message(ctx context.Context, target string, via netip.AddrPort, contentType string, body []byte) (*Message, error) {
	return a.lone(ctx, "MESSAGE", target, via, contentType, body)
}

// Register sends a REGISTER for its own address with a registrar and returns the
// final response.
func (a *Agent) Register(ctx context.Context, registrar string, via netip.AddrPort) (*Message, error) {
	return a.lone(ctx, "REGISTER", registrar, via, "", nil)
}

func (a *Agent) lone(ctx context.Context, method, target string, via netip.AddrPort, contentType string, body []byte) (*Message, error) {
	m := a.request(method, target, token(12)+"@"+a.Addr().Addr().String(), 1)
	m.Add("From", "<"+a.URI()+">;tag="+token(6))
	m.Add("To", "<"+target+">")
	m.Add("Contact", "<"+a.URI()+">")
	if body != nil {
		m.Add("Content-Type", contentType)
		m.Body = body
	}
	return a.transact(ctx, m, via, nil)
}

// request begins a request with a new branch.
func (a *Agent) request(method, uri, callID string, cseq uint32) *Message {
	m := &Message{Method: method, RequestURI: uri}
	m.Add("Via", "SIP/2.0/"+a.net.name()+" "+a.host()+";rport;branch=z9hG4bK"+token(10))
	m.Add("Max-Forwards", "70")
	m.Add("Call-ID", callID)
	m.Add("CSeq", strconv.FormatUint(uint64(cseq), 10)+" "+method)
	return m
}

func (a *Agent) trace(raw []byte, sent bool, peer netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.traces) >= tracesMax {
		a.traces = a.traces[1:]
	}
	a.traces = append(a.traces, Trace{At: time.Now(), Sent: sent, Peer: peer, Raw: raw})
}

// send puts one message on the wire, to an address.
func (a *Agent) send(ctx context.Context, m *Message, to netip.AddrPort) ([]byte, error) {
	raw := m.Bytes()
	if err := a.resend(ctx, raw, to); err != nil {
		return nil, fmt.Errorf("send %s to %s: %w", m.StartLine(), to, err)
	}
	a.cfg.Log.Debug("sent", "agent", a.cfg.Name, "to", to, "line", m.StartLine())
	return raw, nil
}

func (a *Agent) resend(ctx context.Context, raw []byte, to netip.AddrPort) error {
	a.trace(raw, true, to)
	return a.net.send(ctx, raw, to)
}

// track adds a call; false when the agent is closed.
func (a *Agent) track(c *Call) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	a.calls[c.key()] = c
	return true
}

// spawn runs f in a goroutine that Close waits for; false when it has begun.
func (a *Agent) spawn(f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.wg.Go(f)
	}
	return !a.closed
}

func (a *Agent) forget(c *Call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.calls, c.key())
}

func (a *Agent) find(callID, localTag string) *Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[callID+"\x00"+localTag]
}

// addressOf returns the address in a SIP URI with an IP literal.
func addressOf(uri string) (netip.AddrPort, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(uri), "sip:")
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%q is no sip URI", uri)
	}
	rest, _, _ = strings.Cut(rest, ";")
	rest, _, _ = strings.Cut(rest, "?")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	if addr, err := netip.ParseAddrPort(rest); err == nil {
		return addr, nil
	}
	addr, err := netip.ParseAddr(strings.Trim(rest, "[]"))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("host of %q: %w", uri, err)
	}
	return netip.AddrPortFrom(addr, 5060), nil
}

// token returns n random bytes in hex.
func token(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// limited is a map that forgets its oldest entries.
type limited[V any] struct {
	max   int
	order []string
	items map[string]V
}

func (l *limited[V]) get(key string) (V, bool) {
	v, ok := l.items[key]
	return v, ok
}

func (l *limited[V]) set(key string, v V) {
	if l.items == nil {
		l.items = map[string]V{}
	}
	if _, ok := l.items[key]; !ok {
		if len(l.order) >= l.max {
			delete(l.items, l.order[0])
			l.order = l.order[1:]
		}
		l.order = append(l.order, key)
	}
	l.items[key] = v
}
