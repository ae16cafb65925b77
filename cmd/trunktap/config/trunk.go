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

// Bounds of transports.
const (
	udpBytesLeast = 400
	udpBytesMost  = 65535
	keepAliveMost = time.Hour
)
