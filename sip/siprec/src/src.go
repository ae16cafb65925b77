// Package src is the session recording client (RFC 7866): it sends what is kept
// of a call, and who is in it, to other recorders. It stands behind the
// recording: nothing of it can reach the call.
package src

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/journal"
)

// Limits of a Client.
const (
	forksMaxDefault = 10_000
	metMax          = 16        // addresses of servers that one fork has spoken to
	serversMax      = 16        // requests of a server in one recording session at a time
	staleMax        = 8         // answers of others to one INVITE that are ended with a BYE
	inboxMax        = 64        // messages and news of one fork that wait for its owner
	bufferMSMax     = 2000      // audio of one fork that waits for its server
	heldBytesMax    = 128 << 20 // of all forks; when there is more, each keeps no more than
	scarceMSMax     = 200
	packetMS        = 20
)

// Times that are not timers of RFC 3261.
const (
	inviteWait   = 4 * time.Second  // for any response, until the next server is tried
	answerWait   = 10 * time.Second // for the final one
	resolveWait  = 3 * time.Second
	changeWait   = 200 * time.Millisecond // changes within it are told together
	pingEvery    = 30 * time.Second       // an OPTIONS in the dialog: a dead server is noticed
	retryFirst   = 2 * time.Second        // when no server takes the recording
	retryMost    = time.Minute
	byeWait      = 2 * time.Second
	closeWait    = 3 * time.Second
	steadyAfter  = 10 * time.Second                       // a session that lasted so long has not failed: its end is no reason to wait
	drainWait    = (bufferMSMax + 500) * time.Millisecond // for audio that waits when the call ends: all of it
	cushion      = 60 * time.Millisecond                  // by which packets are sent later than they could be
	reportsEvery = 5 * time.Second                        // sender reports, RFC 3550 section 6.2
)

// Config of a Client.
type Config struct {
	Address netip.Addr   // in Via, Contact and SDP
	Listen  []sip.Listen // empty: a port of UDP and one of TCP that the system chooses
	Net     sip.Net
	TLS     *tls.Config // for connections that we open; nil: the system's roots

	// Open opens the socket that all media is sent from; nil: a UDP socket on all addresses.
	Open func(netip.Addr) (net.PacketConn, error)

	// Ports of Listen and Open, where those are not given: of a process before, so that
	// servers find the client where it was.
	Ports Ports

	Journal  journal.Store // nil: forks end with the process
	ForksMax int           // 0: 10000
	Log      *slog.Logger  // nil: silent
}

// Counters of a Client.
type Counters struct {
	Started     atomic.Uint64 // forks begun
	Refused     atomic.Uint64 // not begun: too many
	Established atomic.Uint64 // recording sessions that a server took
	Failovers   atomic.Uint64 // servers given up for the next one
	Unserved    atomic.Uint64 // rounds in which no server took the recording
	Packets     atomic.Uint64 // RTP
	DroppedMS   atomic.Uint64 // audio that no server was there for
	SendErrors  atomic.Uint64
	Partial     atomic.Uint64 // answers that take one of both streams alone
	Unreachable atomic.Uint64 // servers given up because their hosts refuse audio
	UntakenMS   atomic.Uint64 // audio of a stream that its server does not take
	Resumed     atomic.Uint64 // recording sessions of a process before that go on
	Dismissed   atomic.Uint64 // recording sessions of a process before that were ended
	Live        atomic.Int64  // forks going on

	UntakenStreams atomic.Int64 // that their servers do not take at present
}

// Client sends recordings to servers.
type Client struct {
	cfg      Config
	agent    *sip.Agent
	media    net.PacketConn
	udp      addrPortWriter // media, when it can do without net.Addr
	port     uint16
	counters Counters
	held     atomic.Int64   // bytes of audio that wait, of all forks
	wg       sync.WaitGroup // owners of forks, the pacer and the reader of media
	ctx      context.Context
	cancel   context.CancelFunc

	mu     sync.Mutex
	forks  map[uint64]*Fork   // guarded by mu
	byCall map[string]*Fork   // guarded by mu: by Call-ID
	peers  map[netip.Addr]int // guarded by mu: how many forks have spoken to them
	closed bool               // guarded by mu
}

type addrPortWriter interface {
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// New makes a client; Start opens its sockets.
func New(cfg Config) (*Client, error) {
	if !cfg.Address.IsValid() {
		return nil, errors.New("siprec client: no address")
	}
	if len(cfg.Listen) == 0 {
		any := unspecified(cfg.Address) // the address may be that of a NAT
		cfg.Listen = []sip.Listen{{Network: "udp", Addr: netip.AddrPortFrom(any, cfg.Ports.UDP)}, {Network: "tcp", Addr: netip.AddrPortFrom(any, cfg.Ports.TCP)}}
	}
	if cfg.Open == nil {
		cfg.Open = func(a netip.Addr) (net.PacketConn, error) {
			return net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(unspecified(a), cfg.Ports.Media)))
		}
	}
	if cfg.ForksMax <= 0 {
		cfg.ForksMax = forksMaxDefault
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{cfg: cfg, forks: map[uint64]*Fork{}, byCall: map[string]*Fork{}, peers: map[netip.Addr]int{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	agent, err := sip.New(sip.Config{Listen: cfg.Listen, Allow: c.allow, Handle: c.handle, TLS: cfg.TLS, Net: cfg.Net, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("siprec client: %w", err)
	}
	c.agent = agent
	return c, nil
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// Start opens the sockets.
func (c *Client) Start() error {
	conn, err := c.cfg.Open(c.cfg.Address)
	if err != nil {
		return fmt.Errorf("siprec client: open the socket of media: %w", err)
	}
	ap, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err == nil {
		err = c.agent.Start()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("siprec client: %w", err), conn.Close())
	}
	c.media, c.port = conn, ap.Port()
	c.udp, _ = conn.(addrPortWriter)
	askErrors(conn)
	c.wg.Go(c.pace)
	c.wg.Go(c.discard)
	return nil
}

// Counters returns the live counters.
func (c *Client) Counters() *Counters { return &c.counters }

// Close ends all recording sessions with a BYE and waits a bounded time for the answers.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	var live []*Fork
	for _, f := range c.forks {
		live = append(live, f)
	}
	c.mu.Unlock()
	for _, f := range live {
		f.End()
	}
	deadline := time.NewTimer(closeWait)
	defer deadline.Stop()
	for _, f := range live {
		select {
		case <-f.done:
		case <-deadline.C:
			deadline.Reset(0) // for all that follow
		}
	}
	c.cancel()
	var err error
	if c.media != nil {
		err = c.media.Close()
	}
	c.wg.Wait()
	return errors.Join(err, c.agent.Close())
}

// Fork begins to send a call to the first of servers that takes it; when that
// fails, to the next. It returns nil when there are too many.
// wide: the recording has more than 8000 samples a second. key is its own in the
// journal; empty: it has none.
func (c *Client) Fork(key string, s media.Session, servers []Server, wide bool) *Fork {
	f := newFork(c, s, servers, wide)
	f.key = key
	if len(servers) == 0 || !c.enter(f) {
		return nil
	}
	c.counters.Started.Add(1)
	return f
}

// enter takes a fork in; false when there are too many, or it is there already.
func (c *Client) enter(f *Fork) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.forks) >= c.cfg.ForksMax || c.forks[f.id] != nil {
		c.counters.Refused.Add(1)
		return false
	}
	if f.resumed != nil {
		if c.byCall[f.resumed.CallID] != nil {
			c.counters.Refused.Add(1)
			return false
		}
		c.byCall[f.resumed.CallID] = f
	}
	c.forks[f.id] = f
	c.counters.Live.Add(1)
	c.wg.Go(f.own)
	return true
}

// Server is a recorder that sessions can be sent to.
type Server struct {
	URI  string // Request-URI and To
	Hop  sip.NextHop
	Auth *sip.Credentials // for its challenges; nil: none
}

// ParseServer reads "sip:[user@]host[:port][;transport=udp|tcp|tls]".
func ParseServer(uri string) (Server, error) {
	hop, err := sip.ParseNextHop(uri)
	if err != nil {
		return Server{}, err
	}
	return Server{URI: uri, Hop: hop}, nil
}

// forget removes a fork that is over.
func (c *Client) forget(f *Fork, callID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forks[f.id] == f {
		delete(c.forks, f.id)
		c.counters.Live.Add(-1)
	}
	if c.byCall[callID] == f {
		delete(c.byCall, callID)
	}
}

// rename notes the Call-ID under which a fork speaks now.
func (c *Client) rename(f *Fork, old, callID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byCall, old)
	c.byCall[callID] = f
}

// allow lets in those that we have called.
func (c *Client) allow(src netip.AddrPort) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peers[src.Addr()] > 0
}

// meet lets in an address, until it is left as often.
func (c *Client) meet(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peers[a]++
}

func (c *Client) leave(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers[a]--; c.peers[a] <= 0 {
		delete(c.peers, a)
	}
}

const branchPrefix = "z9hG4bKsrc"

func branchOf(fork uint64) string {
	return branchPrefix + strconv.FormatUint(fork, 16) + "." + strconv.FormatUint(rand.Uint64(), 16)
}

// handle gives a message to its fork. It does not block.
func (c *Client) handle(m *sip.Message) {
	c.mu.Lock()
	var f *Fork
	if m.IsRequest() {
		f = c.byCall[m.CallID()]
	} else if via, err := m.TopVia(); err == nil {
		id, _, _ := strings.Cut(strings.TrimPrefix(via.Branch(), branchPrefix), ".")
		if n, err := strconv.ParseUint(id, 16, 64); err == nil {
			f = c.forks[n]
		}
	}
	c.mu.Unlock()
	if f != nil {
		f.put(event{msg: m})
		return
	}
	if m.IsRequest() && m.Method != sip.Ack {
		sip.MarkSource(m)
		_ = c.agent.Send(sip.ResponseTo(m, 481, "Call/Transaction Does Not Exist"), sip.ReplyFlow(m), nil) // nobody waits for it
	}
}

// discard reads what servers send: reports of what they received. What their hosts
// say of audio that nobody takes is an error of the reader.
func (c *Client) discard() {
	buf := make([]byte, 1500)
	for {
		_, _, err := c.media.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) || c.ctx.Err() != nil {
			return
		}
		if err != nil {
			refusals(c.media, c.refused)
		}
	}
}
