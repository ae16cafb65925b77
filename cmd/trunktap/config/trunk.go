package config

import "time"

// ListenTLS is how the listeners of TLS and WSS identify themselves, and whom they take.
type ListenTLS struct {
	Cert     string
	Key      string
	ClientCA string // that the certificates of peers must be signed by; "": peers need none
}

// SideTLS is what TLS with one side of a trunk demands.
type SideTLS struct {
	Cert     string // shown to next hops; "": that of sip.tls
	Key      string
	CA       string // that the certificates of next hops must be signed by; "": those of the system
	PeerName string // of the certificates of next hops, and of whoever connects
}

// Ping is how the next hops of a side are asked whether they are there.
type Ping struct {
	Interval  time.Duration // 0: they are not asked
	Timeout   time.Duration
	DownAfter int // failures in a row
	UpAfter   int // answers in a row
}

// Auth is the user that a side knows us as, and that its callers are.
type Auth struct {
	Username     string // "": none
	PasswordFile string // one line
	Realm        string // "": any, which challenge: true does not take
}

// Register is the binding kept up at a registrar.
type Register struct {
	Server  NextHop       // no host: none
	Contact string        // user part; "": that of the credentials
	Expires time.Duration // asked for
}

// TrunkLimits bound one trunk; 0: not.
type TrunkLimits struct {
	CallsMax             int
	CallsPerSecondMax    int
	InDialogPerSecondMax int
}

// Bounds of what trunks may say.
const (
	weightMost        = 1000
	perSecondMost     = 100_000
	callsMost         = 100_000
	redirectHostsMax  = 64
	dnsServersMax     = 8
	pingIntervalMost  = time.Hour
	pingIntervalLeast = time.Second
)

// Bounds of transports.
const (
	udpBytesLeast = 400
	udpBytesMost  = 65535
	keepAliveMost = time.Hour
)
