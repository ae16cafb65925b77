package sdp

import "github.com/trunktap/trunktap/media"

// Dialog is the offer/answer state of one dialog of a call. A call that forks has
// several until it is answered, each with its own offers and answers behind the offer
// of the INVITE (RFC 3261 section 13.2.2.4, RFC 6337 section 3.1).
type Dialog struct {
	offers [2]*Description // open offers, by who made them
	late   [2]bool         // that side asked the other to make the offer
	newest media.Side      // who made the latest open offer or request for one

	agreed    *Agreement // in force when this dialog is
	tentative *Agreement // an early answer to a re-INVITE: in force when it is confirmed
}

// Agreement is an offer with its answer.
type Agreement struct {
	Offerer       media.Side
	Offer, Answer *Description
}

// Fork returns a dialog that begins where the current one is.
func (n *Negotiation) Fork() *Dialog {
	d := *n.Dialog
	return &d
}

// Switch makes a dialog the current one: what is said from now on is said in it. The
// streams are those of the call, so that an agreement in another dialog than the one
// before it tells what it changed.
func (n *Negotiation) Switch(d *Dialog) { n.Dialog = d }

// Agreed returns what was agreed last, nil before. It is another value after each
// exchange that came into force.
func (d *Dialog) Agreed() *Agreement { return d.agreed }

// close forgets an offer that was answered or refused.
func (d *Dialog) close(offerer media.Side) {
	d.offers[offerer], d.late = nil, [2]bool{}
	d.tentative = nil
	d.newest = offerer.Other()
}

// Offered returns the offer of that side that has no final answer, nil when there is none.
func (d *Dialog) Offered(side media.Side) *Description { return d.offers[side] }

// Confirmed tells whether the call is answered, as far as media goes: its agreements
// are final.
func (n *Negotiation) Confirmed() bool { return n.confirmed }
