package b2bua

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
	"github.com/trunktap/trunktap/sip/journal"
)

// A call that is not answered does not live through the death of the process, but it
// ends: who rings is cancelled, and who calls gets 503 and may try another way. Else a
// phone would ring, and a caller wait, until somebody gives up.

// earlyVersion is that of journalled for such a call: processes that do not know it must
// not take it for an answered one.
const earlyVersion = 2

// savedEarly is what is kept of a call that is not answered.
type savedEarly struct {
	Sent  []savedSent `json:",omitempty"`
	Ahead uint32      `json:",omitempty"`
}

// savedSent is an INVITE that was sent: as much of it as CANCEL and ACK need.
type savedSent struct {
	Invite string
	Flow   journal.Flow
}

// journalEarly brings the entry of a call up to date that is not answered. It changes
// with the attempts to reach somebody alone.
func (c *call) journalEarly() {
	if c.setup == nil || c.ended || c.setup.answered() {
		c.unjournal()
		c.chronicle.written, c.chronicle.early = nil, false
		return
	}
	if c.chronicle.written != nil && c.chronicle.attempts == len(c.setup.clients) {
		return
	}
	state, err := json.Marshal(c.saveEarly())
	if err == nil && c.b.cfg.Journal.Put(c.chronicle.session.ID, state) {
		c.chronicle.written, c.chronicle.attempts, c.chronicle.early = state, len(c.setup.clients), true
	}
}

func (c *call) saveEarly() *journalled {
	j := c.saveHead()
	j.V, j.Early = earlyVersion, &savedEarly{Ahead: c.ahead}
	for _, cl := range c.setup.clients {
		if cl.Req == nil || cl.Final() != 0 {
			continue
		}
		m := dialog.CancelOf(cl.Req, nil) // has what is common to all requests of the transaction
		seq, _ := m.CSeq()
		m.Method = sip.Invite
		m.Set("CSeq", fmt.Sprintf("%d %s", seq, sip.Invite))
		j.Early.Sent = append(j.Early.Sent, savedSent{string(m.Append(nil)), journal.FlowOf(cl.Flow)})
	}
	return j
}

// resumeEarly ends a call that was not answered.
func (c *call) resumeEarly(e *savedEarly, now time.Time) {
	ex := c.setup
	c.exchanges = append(c.exchanges, ex)
	c.ahead, c.observed = e.Ahead, true
	for _, s := range e.Sent {
		req, _, err := sip.Parse([]byte(s.Invite), false)
		if err == nil && req.Method == sip.Invite && len(ex.clients) < exchangesMax {
			ex.clients = append(ex.clients, dialog.Proceeding(req, c.flowOf(s.Flow, c.at(dialog.Callee)), now))
		}
	}
	c.finish(now, media.CauseFailed)
	c.b.counters.CallsCut.Add(1)
	c.whenOpen(func(now time.Time) {
		c.refuse(ex, now, 503, "Service Unavailable")
		ex.cancelled = true
		for _, cl := range ex.clients {
			c.sendCancel(ex, cl, now)
		}
		c.after(sip.TransactionTimeout, now, func(now time.Time) {
			for _, cl := range ex.clients {
				if cl.Final() == 0 {
					cl.Fail(now)
				}
			}
		})
	})
}
