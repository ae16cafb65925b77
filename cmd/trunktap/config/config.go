// Package config is the configuration file of the daemon: its keys, their
// defaults and what may stand there.
//
// One table (table.go) drives the parser, the defaults, the example file and
// the JSON Schema, so that they cannot disagree.
package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"time"
)

// Config is a whole configuration, complete with defaults. It is not changed
// after it was loaded.
type Config struct {
	SIP       SIP
	Media     Media
	Trunks    []Trunk
	Recording Recording

	Stations     []Station
	StationBase  StationRecording // what stations do not say themselves
	StationsFrom string           // auto | legs | state; see StationsByState

	Capture   Capture
	SIPREC    SIPREC
	Signals   Signals
	Storage   Storage
	Retention Retention
	Catalog   Catalog
	Keys      Keys
	Audit     Audit
	API       API
	Limits    Limits

	Restart  Restart
	Shutdown Shutdown

	Log   Log
	PProf PProf
}

// SIP is where and as what the daemon speaks SIP.
type SIP struct {
	Listen  []Listener
	Address netip.Addr // given in Via and Contact; zero: the local address towards the peer
	TLS     ListenTLS

	DNS         []netip.AddrPort // servers; empty: those of the system
	KeepAlive   time.Duration    // of connections; 0: never
	UDPBytesMax int              // larger requests go over TCP when the peer takes that; 0: none
}

// Listener is one socket that SIP is taken from.
type Listener struct {
	Transport string // udp | tcp | tls | ws | wss
	Addr      netip.AddrPort
}

// String returns the listener as it stands in the file: "udp://[::]:5060".
func (l Listener) String() string { return l.Transport + "://" + l.Addr.String() }

// Media is how RTP is relayed.
type Media struct {
	Address     netip.Addr // advertised in SDP; zero: the local address towards the peer
	Ports       PortRange
	Engine      string        // auto | kernel | user
	Kernel      Kernel        // of the kernel engine
	CoalesceMax time.Duration // how long the user engine may let packets gather; 0: never
	CPUs        []int         // that the loops of the user engine are bound to; empty: none
	Quarantine  time.Duration // how long a port rests after its call
	Timeout     time.Duration // a call without any media is ended after it; 0: never
}

// Kernel is how the kernel engine works.
type Kernel struct {
	Interfaces []string // where media arrives; empty: everywhere
	RingSize   int64    // bytes
	Pin        string   // a directory in a BPF file system
}

// PortRange is a range of UDP ports, both ends included. First is even (RTP),
// Last is odd (RTCP).
type PortRange struct{ First, Last uint16 }

// Len is the number of ports of the range.
func (r PortRange) Len() int { return int(r.Last) - int(r.First) + 1 }

// Trunk is a pair of sides between which calls are relayed and recorded.
type Trunk struct {
	Name string
	Role string // trunk | phones
	// Registrations is what becomes of phones that register from the internal side:
	// pass | contact | path. Other than pass: that side needs no next hops.
	Registrations string
	Passive       bool // its calls pass an interface of Capture, not the daemon
	External      Side
	Internal      Side
	Passing
	MediaAddress netip.Addr // advertised on both sides; zero: that of Media
	Redirect     string     // pass | follow
	Limits       TrunkLimits
	SRTPPass     bool // keys of SDES stay with the parties
	Recording    TrunkRecording
}

// Capture is where the calls of passive trunks are listened to.
type Capture struct {
	Interfaces  []string // empty: nowhere
	Promiscuous bool
	RingSize    int64 // bytes
}

// Relays tells whether calls of any trunk go through the daemon.
func (c *Config) Relays() bool {
	return slices.ContainsFunc(c.Trunks, func(t Trunk) bool { return !t.Passive })
}

// Side is one end of a trunk.
type Side struct {
	Peers        []netip.Prefix // who may send; never empty
	NextHops     []NextHop      // where calls go, the first that answers; empty for passive trunks alone
	MediaAddress netip.Addr     // advertised to this side; zero: that of the trunk
	SIPAddress   netip.Addr     // given in Via and Contact to this side; zero: that of SIP
	ICE          string         // strip | lite

	SRTP       string   // off | optional | required
	SRTPMethod string   // sdes | dtls
	SRTPSuites []string // allowed, by preference; names in SDP. Empty: all

	TLS           SideTLS
	Auth          Auth
	Challenge     bool // callers of this side must have Auth
	Register      Register
	Ping          Ping
	RedirectHosts []string // that redirections may lead to, "*." before a domain for all in it
}

// NextHop is where calls to one side are sent.
type NextHop struct {
	Host      string // name or address, IPv6 without brackets
	Port      uint16 // 0: of a name, what SRV says
	Transport string // udp | tcp | tls | ws | wss; "": of a name, what NAPTR and SRV say

	Priority int // the lowest are tried first; 0: the place in the list, from 1
	Weight   int // share among those of one priority
}

// Recording holds what all recordings share.
type Recording struct {
	SegmentMax  time.Duration // audio after which a new segment is begun
	Lookback    time.Duration // audio held back before it is sealed
	WriteBudget int64         // bytes a call may have waiting for the disk

	WriteBudgetTotal int64 // the same for all calls

	SyncPeriod time.Duration // what was written becomes durable once in it; 0: each frame for itself
	Deferred   Deferred
}

// Deferred bounds what waits to be coded after its call.
type Deferred struct {
	RecordingsMax int
	BytesMax      int64
	Workers       int // recordings coded at once
}

// API is the HTTP interface.
type API struct {
	Listen         netip.AddrPort // zero port: none
	TokenFile      string
	SubscribersMax int // concurrent subscribers of the event stream
}

// Limits bound the daemon.
type Limits struct {
	CallsMax   int           // concurrent calls
	DelayMax   time.Duration // messages that wait longer shed new calls; 0: none do
	MemoryMax  int64         // bytes beyond which new calls are shed; 0: none
	AnswersMax int64         // bytes kept of requests that were refused
}

// Restart is what becomes of calls when the daemon starts again.
type Restart struct {
	Calls       string        // keep | end
	DowntimeMax time.Duration // after which they end all the same
	Journal     string        // the file that they are kept in
	KeyDir      string        // where its key outlives the process: auto, none, or a folder in memory
}

// Shutdown is how the daemon stops.
type Shutdown struct {
	Drain time.Duration // how long it waits for its calls to end; 0: it ends them
}

// Log is how the daemon logs, always to standard error.
type Log struct {
	Level  string // debug | info | warn | error
	Format string // text | json
}

// PProf is the profiling listener.
type PProf struct {
	Listen netip.AddrPort // loopback; zero: none
}

// Sides returns the two ends of the trunk in the order external, internal.
func (t *Trunk) Sides() [2]*Side { return [2]*Side{&t.External, &t.Internal} }

// MediaAddress is what SDP towards the given side (0 external, 1 internal) of
// the trunk advertises; the zero Addr when the file says nothing and the local
// address towards the peer is to be taken.
func (c *Config) MediaAddress(t *Trunk, side int) netip.Addr {
	for _, a := range []netip.Addr{t.Sides()[side].MediaAddress, t.MediaAddress, c.Media.Address} {
		if a.IsValid() {
			return a
		}
	}
	return netip.Addr{}
}

// Default returns the configuration of a file that says nothing, with one
// trunk that has no peers: what replay uses when it is given no file.
func Default() *Config {
	c := &Config{}
	applyDefaults(table(c))
	c.Trunks = make([]Trunk, 1)
	applyDefaults(trunkTable(&c.Trunks[0]))
	c.Trunks[0].Name = "trunk"
	c.derive("")
	return c
}

// derive fills in the keys whose defaults follow from others, and the paths
// that are relative to the folder of the file.
func (c *Config) derive(folder string) {
	for i := range c.Trunks {
		if f := &c.Trunks[i].Recording.Announce.File; *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(folder, *f)
		}
	}
	beside := c.stateDir()
	if c.Storage.Spool == "" {
		c.Storage.Spool = filepath.Join(beside, "spool")
	}
	if c.Restart.Journal == "" {
		c.Restart.Journal = filepath.Join(beside, "calls.journal")
	}
	if c.Keys.File == "" {
		c.Keys.File = filepath.Join(beside, "keys.json")
	}
	c.Keys.RotatedFile = filepath.Join(beside, "keys-rotated.json")
	if c.Audit.KeyFile == "" {
		c.Audit.KeyFile = filepath.Join(beside, "node-key.json")
	}
	if c.Audit.Dir == "" {
		c.Audit.Dir = filepath.Join(beside, "audit")
	}
	if c.API.TokenFile == "" {
		c.API.TokenFile = filepath.Join(beside, "api-token")
	}
	if c.Limits.CallsMax == 0 {
		c.Limits.CallsMax = min(callsMaxDefault, c.Media.Ports.Len()/portsPerCall)
	}
}

const (
	portsPerCall    = 4 // RTP and RTCP on two sides
	callsMaxDefault = 2000
)
