package recorder

import (
	"context"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

// Runtime is what the API may ask of the running recorder. Safe for concurrent use.
type Runtime interface {
	// Calls lists the live calls, oldest first.
	Calls() []LiveCall
	// Signal applies a call-state signal to the live call named by its Call or
	// SIPCall field and says what it did. ErrNotFound when there is none,
	// *RefusedError when what it asks for cannot be. It returns once the pipeline has reached the signal, within about 200 ms.
	Signal(ctx context.Context, s suppress.Signal) (Applied, error)
	// Signals applies many, those of one call in the order given, and says of
	// each what it did, as Signal does. It takes hardly longer than one.
	Signals(ctx context.Context, sigs []suppress.Signal) []Outcome
	// Subscribe returns a channel of events from now on and a function that ends
	// the subscription. A subscriber that does not keep up loses events: the
	// next one it gets has Missed set to their number.
	Subscribe() (<-chan Event, func())
}

// Applied is the answer to a signal.
type Applied struct {
	AppliedAt time.Time `json:"applied_at"` // the time from which on it acts
	LateMS    int64     `json:"late_ms"`    // how long after its own time it arrived
	MissedMS  int64     `json:"missed_ms"`  // how much was sealed by then and stays in the recording
	Reasons   []string  `json:"reasons"`    // active reasons after it, sorted; empty: captured
	Duplicate bool      `json:"duplicate,omitempty"`
	Refused   string    `json:"refused,omitempty"`   // why it was not acted upon: a second adhoc recording of a user
	Recording string    `json:"recording,omitempty"` // id of the recording that it began or ended
}

// LiveCall is one call that is going on.
type LiveCall struct {
	ID           string    `json:"id"` // the {call} of the API and the id of its recording
	Conversation string    `json:"conversation"`
	Trunk        string    `json:"trunk"`
	SIPCallID    string    `json:"sip_call_id"`
	OtherCallID  string    `json:"other_sip_call_id,omitempty"` // on the callee's leg, where that has another
	Direction    string    `json:"direction"`
	From         string    `json:"from"`
	To           string    `json:"to"`
	Start        time.Time `json:"start"`
	Answer       time.Time `json:"answer,omitzero"`
	Recording    bool      `json:"recording"` // false: the trunk does not record, or the recorder failed
	Reasons      []string  `json:"reasons"`   // why nothing is captured now; empty: captured

	Recordings []LiveRecording `json:"recordings"` // all of the call, oldest first
}

// LiveRecording is one recording of a live call.
type LiveRecording struct {
	ID      string   `json:"id"`
	Kind    Kind     `json:"kind"`
	User    string   `json:"user,omitempty"`
	Reasons []string `json:"reasons"`
}

// Event is one message of the event stream.
type Event struct {
	Seq    uint64    `json:"seq"`
	Type   string    `json:"type"` // call.started call.answered call.ended signal segment.complete recording.published recording.discarded recording.failed alarm
	At     time.Time `json:"at"`
	Call   string    `json:"call,omitempty"`
	Data   any       `json:"data,omitempty"`
	Missed uint64    `json:"missed,omitempty"`
}
