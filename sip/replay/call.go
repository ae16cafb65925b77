package replay

import (
	"container/list"
	"hash/fnv"
	"net/netip"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/callstate"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/sip/siprec"
)

// call is one dialog, or the early dialogs of one INVITE (RFC 3261 section 12),
// on one leg. After its end it stays as a tombstone for retransmissions.
type call struct {
	callID  string
	fromTag string // of the INVITE's sender
	toTag   string // of the answered dialog; empty before
	caller  media.Side
	cseq    uint32 // of the first INVITE

	tap      media.SessionTap // nil: not recorded, or ended
	state    *callstate.Dialog
	followed *siprec.Followed // of a recording session; it has no tap and state of its own
	dialog   *recordingDialog // likewise; it outlives the end
	answered bool
	ended    bool
	last     time.Time     // of its last packet; of its end
	el       *list.Element // in tracker.active or tracker.ended

	leg, others []pair // where its messages pass, and where copies of them do
	seen        []*transaction

	sdp   *sdp.Negotiation
	root  *sdp.Dialog            // before the INVITE has made dialogs
	early map[string]*sdp.Dialog // early dialogs by the callee's tag; each has its own offers and answers
	half  *half                  // what is known while one description is missing
	media [2][]sdp.Media         // of the latest description of each side
	bytes [2]int                 // of those descriptions
	held  int                    // bytes of all that is kept of bodies
	flows map[media.StreamID]*flow
	keys  []*srtp.Watch // by m= line
}

// half is the description of a call whose other description was sent before the
// capture began.
type half struct {
	known media.Side
	body  []byte
}

// pair is the two ends between which messages pass.
type pair struct{ a, b netip.AddrPort }

// fits tells how well a message's addresses fit the pair: 4 exactly, 0 not at
// all. A UA may send from ports that it does not listen on.
func (p pair) fits(src, dst netip.AddrPort) int {
	best := 0
	for _, q := range [2]pair{{src, dst}, {dst, src}} {
		one := q.a == p.a || q.b == p.b
		hosts := q.a.Addr() == p.a.Addr() && q.b.Addr() == p.b.Addr()
		n := 0
		switch {
		case q == p:
			n = 4
		case one && hosts:
			n = 3
		case hosts:
			n = 2
		case one:
			n = 1
		}
		best = max(best, n)
	}
	return best
}

func fit(pairs []pair, src, dst netip.AddrPort) (best int) {
	for _, p := range pairs {
		best = max(best, p.fits(src, dst))
	}
	return best
}

func learn(pairs []pair, src, dst netip.AddrPort) []pair {
	if len(pairs) == legPairsMax || fit(pairs, src, dst) == 4 {
		return pairs
	}
	return append(pairs, pair{src, dst})
}

// transaction is one request of a call with what was answered.
type transaction struct {
	sender  media.Side
	cseq    uint32
	method  string
	branch  string
	offered bool   // it carried an offer
	late    bool   // an INVITE that leaves the offer to its response
	final   int    // status of the final response; 0: none yet
	unknown bool   // only responses of it are in the capture
	status  int    // of the last response taken
	tag     string // and its To tag
	body    uint64 // and a hash of its body
}

// transaction returns the one with these identities, nil if there is none.
func (c *call) transaction(sender media.Side, cseq uint32, method string) *transaction {
	for _, tx := range c.seen {
		if tx.sender == sender && tx.cseq == cseq && tx.method == method {
			return tx
		}
	}
	return nil
}

func (c *call) begin(tx *transaction) *transaction {
	if len(c.seen) == transactionsMax {
		c.seen = append(c.seen[:0], c.seen[1:]...)
	}
	c.seen = append(c.seen, tx)
	return tx
}

// repeats tells whether a response is the one before again, and notes it.
func (tx *transaction) repeats(m *message) bool {
	h := fnv.New64a()
	_, _ = h.Write(m.Body) // never fails (hash.Hash)
	body := h.Sum64()
	if tx.status == m.Status && tx.tag == m.toTag && tx.body == body {
		return true
	}
	tx.status, tx.tag, tx.body = m.Status, m.toTag, body
	return false
}

// sender tells which side sent the request of m; false when m belongs to
// another dialog.
func (c *call) sender(m *message) (media.Side, bool) {
	switch {
	case m.fromTag == c.fromTag && (c.toTag == "" || m.toTag == "" || m.toTag == c.toTag):
		return c.caller, true
	case m.toTag == c.fromTag && (c.toTag == "" || m.fromTag == c.toTag):
		return c.caller.Other(), true
	}
	return 0, false
}

// onLeg tells whether a message that is new to the call passes on the leg that
// is followed, rather than on another one of the same call.
func (c *call) onLeg(m *message) bool {
	own, other := fit(c.leg, m.src, m.dst), fit(c.others, m.src, m.dst)
	if own < other {
		return false
	}
	c.leg = learn(c.leg, m.src, m.dst)
	return true
}

// session describes the call for the observer.
func (t *tracker) session(m *message, p place, start time.Time, links []string) media.Session {
	from, fromName := party(m.Get("From"))
	to, toName := party(m.Get("To"))
	s := media.Session{
		ID:        media.SessionID(m.CallID(), m.fromTag, start),
		Trunk:     p.trunk,
		SIPCallID: m.CallID(),
		FromTag:   m.fromTag,
		Direction: p.direction(),
		From:      from,
		To:        to,
		Start:     start,
		Links:     links,
	}
	parties := [2]media.Participant{}
	parties[p.caller] = media.Participant{Side: p.caller, URI: from, Name: fromName}
	parties[p.caller.Other()] = media.Participant{Side: p.caller.Other(), URI: to, Name: toName}
	s.Parties = parties[:]
	for _, name := range t.cfg.Headers {
		if values := m.Fields(name); len(values) > 0 && m.method == sip.Invite && m.IsRequest() {
			if s.Headers == nil {
				s.Headers = map[string][]string{}
			}
			s.Headers[strings.ToLower(name)] = values
		}
	}
	return s
}

func party(value string) (uri, name string) {
	a, err := sip.ParseAddress(value)
	if err != nil {
		return "", ""
	}
	return a.URI, a.DisplayName()
}
