package sdp

import "github.com/trunktap/trunktap/media"

// Restore makes the negotiation of a call that another process had begun know who
// holds, which the latest agreement alone does not tell. Holding says who.
func (n *Negotiation) Restore(holding [2]bool) { n.holding, n.confirmed = holding, true }

// Others returns what is agreed beside audio over RTP.
func (n *Negotiation) Others() []media.OtherMedia { return n.others }
