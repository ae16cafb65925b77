// Package sip is the user agent: messages that keep their text, transports and
// the trunks that may use them.
//
// Messages are kept as they came: order, spelling and unknown header fields
// survive a pass through the daemon. Only what a caller of this package
// replaces changes.
package sip

import "time"

// Timers of RFC 3261 table 4 from which all others follow.
const (
	T1 = 500 * time.Millisecond // round trip estimate
	T2 = 4 * time.Second        // longest interval of retransmissions
	T4 = 5 * time.Second        // longest time a message stays in the network
)

// TransactionTimeout is timers B, F, H, J and L of RFC 3261 and RFC 6026: 64*T1.
const TransactionTimeout = 64 * T1

// MessageBytesMax is the size of the largest message that is taken or sent,
// the largest UDP datagram.
const MessageBytesMax = 65535

// Methods that this daemon treats in a particular way. All others pass.
const (
	Invite    = "INVITE"
	Ack       = "ACK"
	Bye       = "BYE"
	Cancel    = "CANCEL"
	Options   = "OPTIONS"
	Update    = "UPDATE"
	Prack     = "PRACK"
	Subscribe = "SUBSCRIBE"
	Notify    = "NOTIFY"
	Refer     = "REFER"
	Register  = "REGISTER"
)
