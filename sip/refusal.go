package sip

import (
	"strings"
	"time"
)

// Refusal is a call that we refused ourselves.
type Refusal struct {
	At        time.Time
	Trunk     string // or source of recording sessions; empty: of none
	Cause     string // one of the Refused constants
	Status    int
	From, To  string // URIs; From is empty where the caller asked for privacy (RFC 3323)
	SIPCallID string
}

// Causes of refusals. Those of limits are named as their counters.
const (
	RefusedCalls     = "calls"
	RefusedRate      = "rate"
	RefusedDelay     = "delay"
	RefusedMemory    = "memory"
	RefusedLingering = "lingering"
	RefusedLoop      = "loop"
	RefusedHops      = "hops"      // Max-Forwards is used up
	RefusedDraining  = "draining"  // the daemon waits for its last call, or stops
	RefusedPorts     = "ports"     // no media port is free
	RefusedMedia     = "media"     // the description, or what it wants of SRTP, cannot be taken
	RefusedRecording = "recording" // it must be recorded, and cannot be
	RefusedExtension = "extension" // Require names what we do not know
	RefusedStranger  = "stranger"  // of no trunk any more
)

// refusalFieldBytes bounds what a peer can write into a Refusal.
const refusalFieldBytes = 256

// NewRefusal describes the refusal of an INVITE.
func NewRefusal(m *Message, trunk, cause string, status int) Refusal {
	r := Refusal{
		At: m.Arrival, Trunk: trunk, Cause: cause, Status: status,
		From: refusalURI(m.Get("From")), To: refusalURI(m.Get("To")), SIPCallID: clipped(m.CallID()),
	}
	for _, v := range m.Fields("Privacy") {
		for token := range strings.FieldsFuncSeq(v, func(c rune) bool { return c == ';' || c == ',' || c == ' ' }) {
			if token = strings.ToLower(token); token == "id" || token == "user" || token == "header" {
				r.From = ""
			}
		}
	}
	return r
}

func refusalURI(v string) string {
	a, err := ParseAddress(v)
	if err != nil {
		return ""
	}
	return clipped(a.URI)
}

// clipped is a copy: what is kept of a message keeps nothing else of it.
func clipped(s string) string {
	return strings.ToValidUTF8(strings.Clone(s[:min(len(s), refusalFieldBytes)]), "")
}
