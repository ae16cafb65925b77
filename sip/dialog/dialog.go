// Package dialog is the state of a leg as RFC 3261 has it: transactions, the
// ends of dialogs and who may re-INVITE. It does no I/O and reads no clock:
// messages and times go in, messages to send and the next deadline come out.
package dialog

import (
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// Party is one of the two ends of a dialog.
type Party uint8

// The ends, named by who sent the first request.
const (
	Caller Party = 0
	Callee Party = 1
)

// Other returns the opposite end.
func (p Party) Other() Party { return 1 - p }

// End is what is known of one party of a dialog: where requests to it go.
type End struct {
	Target   string   // remote target, the URI of its Contact
	Instance string   // +sip.instance of that (RFC 5626 section 4.1); empty: it has none
	Routes   []string // route set towards it, the nearest first, as elements of Route
	Flow     sip.Flow // the way its last message came
	Seq      uint32   // highest CSeq number that it has sent
}

// Dialog is one dialog, early or confirmed. The tags are those of the two
// parties and the same on both legs: the daemon passes them on unchanged.
type Dialog struct {
	Tag       string // the callee's
	Ends      [2]End // indexed by Party
	Confirmed bool

	inviting [2]bool // a re-INVITE of that party has no final response yet
}

// FromRequest fills the end of the party that sent a request which creates a
// dialog (RFC 3261 section 12.1.1).
func FromRequest(req *sip.Message) End {
	e := End{Flow: req.Flow, Routes: req.List("Record-Route")}
	e.Target, e.Instance = contactOf(req)
	e.Seq, _ = req.CSeq()
	return e
}

// FromResponse fills the end of the party whose response creates a dialog: its
// Record-Route counts backwards (RFC 3261 section 12.1.2).
func FromResponse(res *sip.Message) End {
	e := End{Flow: res.Flow, Routes: res.List("Record-Route")}
	e.Target, e.Instance = contactOf(res)
	slices.Reverse(e.Routes)
	return e
}

// Refresh takes the remote target of a message of that party when it has one
// (RFC 3261 section 12.2), and its flow.
func (e *End) Refresh(m *sip.Message) {
	if t, instance := contactOf(m); t != "" {
		e.Target, e.Instance = t, instance
	}
	e.Flow = m.Flow
}

func contactOf(m *sip.Message) (uri, instance string) {
	// They outlive the message, whose text they would keep.
	list := m.List("Contact")
	if len(list) == 0 {
		return "", ""
	}
	a, err := sip.ParseAddress(list[0])
	if err != nil {
		return "", ""
	}
	instance, _ = a.Param("+sip.instance")
	return strings.Clone(a.URI), strings.Clone(instance)
}

// Route returns the Request-URI, the Route elements and the URI whose host the
// request is sent to (RFC 3261 section 12.2.1.1, strict routers included).
func (e *End) Route() (uri string, routes []string, next string) {
	if len(e.Routes) == 0 {
		return e.Target, nil, e.Target
	}
	first, err := sip.ParseAddress(e.Routes[0])
	if err != nil {
		return e.Target, e.Routes, e.Target
	}
	if u, err := sip.ParseURI(first.URI); err == nil {
		if _, loose := u.Params.Get("lr"); !loose {
			return first.URI, append(slices.Clone(e.Routes[1:]), "<"+e.Target+">"), first.URI
		}
	}
	return e.Target, e.Routes, first.URI
}

// Statuses with which Invite refuses.
const (
	StatusOverlap = 500 // the same party's earlier INVITE is not finished; wants Retry-After
	StatusGlare   = 491 // the other party's INVITE is not finished
)

// Invite notes a re-INVITE of a party. It returns 0 when it may pass, else the
// status to answer (RFC 3261 section 14.2).
func (d *Dialog) Invite(by Party) int {
	switch {
	case d.inviting[by]:
		return StatusOverlap
	case d.inviting[by.Other()]:
		return StatusGlare
	}
	d.inviting[by] = true
	return 0
}

// InviteDone notes the final response to a re-INVITE that Invite let pass.
func (d *Dialog) InviteDone(by Party) { d.inviting[by] = false }

// sameBranch says whether two messages belong to one transaction by their top
// Via: branch and sent-by (RFC 3261 section 17.2.3).
func sameBranch(a, b sip.Via) bool {
	return a.Branch() == b.Branch() && strings.EqualFold(a.Host, b.Host) && a.Port == b.Port
}

// Earliest returns the earlier of two deadlines, of which zero is none.
func Earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
