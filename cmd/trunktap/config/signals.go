package config

import (
	"net/netip"
	"time"
)

// Signals tells which sources of call-state signals are open.
type Signals struct {
	HTTP         bool
	Headers      []SignalRule // of SIP header fields; Name is that of the field
	UserToUser   []SignalRule // of the data of User-to-User (RFC 7433); Name is the key of a pair
	Info         Info
	Conversation Conversation
	DTMF         SignalsDTMF
	AMI          []AMI
	ESL          []ESL
	NATS         NATS
}

// SignalRule makes a signal of something found in a SIP message. In the text
// fields "$value" is the value that was found and "$param:name" one of its
// parameters, in User-to-User one of the other pairs.
type SignalRule struct {
	Name  string
	Value string // * stands for anything; empty: any value
	Event string

	Flow, Queue, User, Role, Party, Other string

	From     string // any | external | internal: whose messages count
	OnChange bool   // only where the value differs from that of the message before
}

// Info is the taking of INFO requests inside of a dialog for signals.
type Info struct {
	Enabled bool
	From    string   // internal | external | any
	Types   []string // content types; empty: those of the product
}

// Conversation tells what names the conversation that a call belongs to.
type Conversation struct {
	Headers    []string // names of header fields
	UserToUser string   // key of a pair, * for all of the data; empty: none
	From       string   // any | external | internal: whose naming counts
}

// SignalsDTMF holds the codes that begin and end a secure pause.
type SignalsDTMF struct {
	Pause, Resume string // empty: none
	From          string // internal | any: who may type them
}

// TLS is how a connection that the daemon opens is secured.
type TLS struct {
	Enabled    bool
	CAFile     string // PEM, who signs the server's certificate; empty: the system's
	ServerName string // in the certificate; empty: the host of the address
}

// AMI is an Asterisk whose manager interface is read.
type AMI struct {
	Name             string // of the source: "ami:" and it
	Address          string // host:port
	TLS              TLS
	Username         string
	SecretFile       string
	Challenge        bool              // log in by MD5
	Trunks, Stations []string          // channels that are calls of ours: "PJSIP/carrier-a"
	CallIDVariables  []string          // empty: those that the source knows
	Users            map[string]string // of endpoints and queue members
	MemberNames      bool
	QueueAgentsOnly  bool
	SpyRole          string // monitor | coach | barge
}

// ESL is a FreeSWITCH whose event socket is read.
type ESL struct {
	Name               string // of the source: "esl:" and it
	Address            string // host:port
	User               string // user@domain; empty: the password alone
	PasswordFile       string
	Gateways, Profiles []string       // of channels that lead out
	Networks           []netip.Prefix // of their far ends
}

// NATS is a messaging system on which signals come. Of the ways to log in at
// most one is set.
type NATS struct {
	Name               string   // of the source: "nats:" and it
	URLs               []string // nats:// and tls://; empty: there is none
	Subjects           []string
	Stream, Durable    string        // of JetStream; both empty: none
	MaxAge             time.Duration // older messages of the stream are passed over
	CredentialsFile    string
	TokenFile          string
	User, PasswordFile string
	CAFile             string // PEM, who signs the servers' certificates; empty: the system's
}
