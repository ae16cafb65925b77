// Package sip is the user agent: messages that keep their text, transports and
// the trunks that may use them.
//
// It stands on sipgo: its parser reads every message, its transport layer reads,
// accepts, pools and writes. What is our own, and why:
//
//   - The text of a message. Messages are kept as they came: order, spelling and
//     unknown header fields survive a pass through the daemon, and only what a
//     caller replaces changes. sipgo would write them anew from its types.
//   - The check before its parser (precheck) and the lexical rules (settle), where
//     it is more lenient than a daemon on a trunk may be.
//   - Framing of streams (wireConn). Its ParserStream gives no text, takes the
//     last of two lengths and loses the connection for one bad header line.
//   - Opening connections and waiting to write (streamConn). Its dialler is a
//     net.Dialer, its TLS has one server name, and both would block who sends.
//   - Transactions, in package dialog.
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
