// Package suppress decides which parts of a call may be kept. It is pure: no
// I/O, no clock, no goroutine; signals and times go in, windows and spans come
// out.
package suppress

import "time"

// Event is what a Signal reports.
type Event string

// The call-state vocabulary.
const (
	IVRStart         Event = "ivr.start"
	IVREnd           Event = "ivr.end"
	QueueStart       Event = "queue.start"
	QueueEnd         Event = "queue.end"
	AgentJoin        Event = "agent.join"
	AgentLeave       Event = "agent.leave"
	HoldStart        Event = "hold.start"
	HoldEnd          Event = "hold.end"
	PauseStart       Event = "pause.start"
	PauseEnd         Event = "pause.end"
	ConsentGranted   Event = "consent.granted"
	ConsentDenied    Event = "consent.denied"
	ConsultStart     Event = "consult.start"
	ConsultEnd       Event = "consult.end"
	TransferExternal Event = "transfer.external"
	TransferInternal Event = "transfer.internal"
	SnippetStart     Event = "snippet.start"
	SnippetEnd       Event = "snippet.end"
	AdhocStart       Event = "adhoc.start"
	AdhocEnd         Event = "adhoc.end"
	AttrsSet         Event = "attrs.set"
	DTMFStart        Event = "dtmf.start" // a party types what must not be kept: a code, a card number
	DTMFEnd          Event = "dtmf.end"
)

// Events that no outside source may send: they are found in the signalling, or
// tell of the source itself.
const (
	CallLinked     Event = "call.linked"     // Links name further calls of the conversation
	SourceLost     Event = "source.lost"     // Source cannot tell any more: what it began stays
	SourceRestored Event = "source.restored" // Source is back
)

// Role is what an agent does in a call.
type Role string

// Roles of agent.join.
const (
	RoleAgent   Role = "agent"
	RoleConsult Role = "consult"
	RoleMonitor Role = "monitor"
	RoleCoach   Role = "coach"
	RoleBarge   Role = "barge"
)

// Signal is one report about the state of a call. Signals are idempotent by
// (Source, Seq) when Seq is not zero.
type Signal struct {
	V        int       `json:"v"`                 // version of the vocabulary, 1
	Event    Event     `json:"event"`             // see the constants
	At       time.Time `json:"at"`                // when it happened
	Received time.Time `json:"received,omitzero"` // when it arrived; zero means At
	Seq      uint64    `json:"seq,omitempty"`     // counts up per source
	Source   string    `json:"source,omitempty"`  // who says so: "sdp", "http", "header", ...
	Call     string    `json:"call,omitempty"`    // session id
	SIPCall  string    `json:"sip_call_id,omitempty"`

	Flow         string            `json:"flow,omitempty"`         // ivr.*
	Queue        string            `json:"queue,omitempty"`        // queue.*
	User         string            `json:"user,omitempty"`         // agent.*, snippet.*, adhoc.*
	Role         Role              `json:"role,omitempty"`         // agent.join
	Party        string            `json:"party,omitempty"`        // hold.*: who holds
	Other        string            `json:"other,omitempty"`        // consult.*: the other agent
	Conversation string            `json:"conversation,omitempty"` // conversation the call belongs to
	Attrs        map[string]string `json:"attrs,omitempty"`        // attrs.set

	// Links are opaque keys that calls of one conversation share; see media.Session.
	Links []string `json:"-"`
}

// Reason is why a span of a call is not kept; the manifest's word for a window.
type Reason string

// Reasons of windows.
const (
	ReasonIVR              Reason = "ivr"
	ReasonQueue            Reason = "queue"
	ReasonHold             Reason = "hold"
	ReasonPause            Reason = "pause"
	ReasonConsent          Reason = "consent"
	ReasonExternalTransfer Reason = "external_transfer"
	ReasonDTMF             Reason = "dtmf" // digits of a code
)
