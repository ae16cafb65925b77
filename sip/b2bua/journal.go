package b2bua

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/ice"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
	"github.com/trunktap/trunktap/sip/journal"
)

// journalVersion is that of journalled. What has another one is not restored.
const journalVersion = 1

// journalled is what is kept of an answered call.
type journalled struct {
	V        int
	ID       uint64 // in our branches
	Branches uint64
	Session  media.Session
	Observed bool // the observer took it
	Restarts int  `json:",omitempty"`
	Trunk    string
	Side     media.Side // the caller's
	Setup    string     // the INVITE, without its body
	SetupVia journal.Flow
	Tag      string
	Answered time.Time
	Over     bool      `json:",omitempty"` // a BYE has passed: only repetitions are waited for
	Ended    time.Time `json:",omitzero"`  // when it did
	ByeSent  [2]bool   `json:",omitzero"`

	To      string
	Dialog  string // the callee's tag
	Ends    [2]savedEnd
	Numbers savedNumbers `json:",omitzero"`
	Pending savedSetup   `json:",omitzero"` // while the ACK of the answer is not through for sure

	Media  savedMedia
	Alias  *savedAlias    `json:",omitempty"`
	Timers *[2]savedTimer `json:",omitempty"`

	Exchanges []savedExchange `json:",omitempty"`
	Transfer  time.Time       `json:",omitzero"`  // until when NOTIFYs of one may come
	Early     *savedEarly     `json:",omitempty"` // it is not answered
}

type savedEnd struct {
	Target   string
	Instance string   `json:",omitempty"`
	Routes   []string `json:",omitempty"`
	Flow     journal.Flow
	Seq      uint32
}

type savedNumbers struct{ Ahead, Invite, Refer [2]uint32 }

// savedSetup is what is left of the transactions of the INVITE.
type savedSetup struct {
	Answer  string `json:",omitempty"` // the 2xx, while the caller's ACK is missing
	Acked   bool   `json:",omitempty"`
	Branch  string `json:",omitempty"` // of the INVITE that was answered
	Flow    journal.Flow
	Ack     string       `json:",omitempty"` // as it was passed on
	AckFlow journal.Flow `json:",omitzero"`
}

type savedMedia struct {
	Lines    []savedLine
	Answerer media.Side
	Offer    string // empty: nothing is agreed
	Answer   string
	Holding  [2]bool
	Late     *savedLate `json:",omitempty"`
}

// savedLate is an offer in a 2xx to an INVITE without one, to which the ACK has the answer.
type savedLate struct {
	From  media.Side
	Offer string
}

// savedLine is the place of a stream at the relay; without ports there is none.
type savedLine struct {
	Local [2]netip.AddrPort
	ICE   [2]*ice.Lite     `json:",omitzero"`
	Sec   *savedProtection `json:",omitempty"`
}

type savedAlias struct {
	CallID, Tag string
	Forks       [][2]string
	URIs        [2][2]string
}

type savedTimer struct {
	Supports, Update, Theirs bool
	Min, Interval            time.Duration
	Expires                  time.Time
	Agreed                   []byte `json:",omitempty"`
}

// flowOf is a flow of the journal, on a side.
func (c *call) flowOf(f journal.Flow, side media.Side) sip.Flow {
	out := f.Flow()
	out.TLS = c.trunk.Sides[side].TLS
	return out
}

// chronicle is what a call knows of its entry in the journal. Owned by the call.
type chronicle struct {
	session  media.Session // of the observer
	at       time.Time     // the answer
	over     time.Time     // the end
	observed bool          // the observer had it until then
	restarts int
	written  []byte // as it stands in the journal
	attempts int    // of which that knows, while nobody has answered
	early    bool   // it stands there as not answered
	refused  bool   // it cannot be restored; counted
	replies  []reply
}

// reply is an answer that waits for the journal.
type reply struct {
	res  *sip.Message
	flow sip.Flow
}

// ends tells whether an answer says that the call is over. Whoever has it does not
// ask again: a process after this one must know of it, or it would go on with a
// call that nobody has.
func (c *call) ends(ex *exchange, res *sip.Message) bool {
	return ex.method == sip.Bye && res.Status >= 200 && c.ended && c.chronicle.written != nil
}

// begins tells whether an answer begins the call for the caller: a process after this
// one must have it, or nobody would anchor and record what the parties say, and their
// BYE would get 481.
func (c *call) begins(ex *exchange, res *sip.Message) bool {
	return c.b.cfg.Journal != nil && ex == c.setup && ex.method == sip.Invite && res.Status >= 200 && res.Status < 300
}

// reply lets the answers go that say that the call is there, or over, behind the journal.
func (c *call) reply() {
	for _, r := range c.chronicle.replies {
		c.b.cfg.Journal.After(func() { c.send(r.res, r.flow) })
	}
	c.chronicle.replies = nil
}

// journal brings the entry of the call up to date. It is done after every turn, so
// that whoever was answered finds the daemon as it was when it answered.
func (c *call) journal() {
	if c.b.cfg.Journal == nil || c.method != sip.Invite || c.gone {
		return
	}
	if c.answered == nil {
		c.journalEarly()
		return
	}
	if c.media.secures() && (!c.b.cfg.JournalSealed || !c.ended && c.media.neg.Agreed() == nil) { // keys that are only offered are not kept
		c.unjournalled()
		return
	}
	state, err := json.Marshal(c.save())
	if err != nil || bytes.Equal(state, c.chronicle.written) {
		return
	}
	if !c.b.cfg.Journal.Put(c.chronicle.session.ID, state) {
		c.unjournalled() // the next turn tries again
		return
	}
	c.chronicle.written, c.chronicle.early = state, false
}

// unjournalled counts a call that would not survive a restart, or not as it is.
func (c *call) unjournalled() {
	if c.chronicle.early { // it would be taken for one that rings
		c.unjournal()
		c.chronicle.written, c.chronicle.early = nil, false
	}
	if !c.chronicle.refused {
		c.chronicle.refused = true
		c.b.counters.Unjournalled.Add(1)
	}
}

// unjournal takes the entry away: nothing is left of the call.
func (c *call) unjournal() {
	if c.chronicle.written != nil {
		c.b.cfg.Journal.Drop(c.chronicle.session.ID)
	}
}

// sessionOf is the session that the observer was asked for, or would have been.
func (c *call) sessionOf() media.Session {
	req := c.setup.server.Req
	if c.chronicle.session.ID == "" {
		c.chronicle.session = media.Session{
			ID: media.SessionID(req.CallID(), req.FromTag(), req.Arrival), Trunk: c.trunk.Name,
			SIPCallID: req.CallID(), FromTag: req.FromTag(), Start: req.Arrival,
		}
	}
	return c.chronicle.session
}

// save returns the state of an answered call.
func (c *call) save() *journalled {
	if c.chronicle.at.IsZero() {
		c.chronicle.at = time.Now()
	}
	j, d := c.saveHead(), c.answered
	j.Answered, j.Over, j.ByeSent = journal.Wall(c.chronicle.at), c.ended, c.byeSent
	j.To, j.Dialog, j.Numbers = d.to, d.Tag, savedNumbers{d.ahead, d.numbers.invite, d.refer}
	j.Pending, j.Exchanges = c.saveSetup(), c.saveExchanges()
	if c.transfer != nil {
		j.Transfer = journal.Wall(c.transfer.at)
	}
	for p, e := range d.Ends {
		j.Ends[p] = savedEnd{e.Target, e.Instance, e.Routes, journal.FlowOf(e.Flow), e.Seq}
	}
	if c.ended {
		j.Ended = journal.Wall(c.chronicle.over)
	} else {
		j.Media = c.media.save()
		j.Media.Late = c.saveLate()
		if j.Media.secured() {
			j.V = secureVersion
		}
	}
	if c.timers != nil {
		j.Timers = c.timers.save()
	}
	return j
}

// saveHead returns what the entries of all calls have.
func (c *call) saveHead() *journalled {
	req := c.setup.server.Req
	head := req.Clone()
	head.Body = nil
	j := &journalled{
		V: journalVersion, ID: c.id, Branches: c.branches, Session: c.sessionOf(), Observed: c.tap.Tap != nil || c.chronicle.observed, Restarts: c.chronicle.restarts,
		Trunk: c.trunk.Name, Side: c.side, Setup: string(head.Append(nil)), SetupVia: journal.FlowOf(req.Flow), Tag: c.tag,
	}
	j.Session.Start = journal.Wall(j.Session.Start)
	if a := c.alias; a != nil {
		j.Alias = &savedAlias{CallID: a.callID, Tag: a.tag, URIs: a.uris}
		for _, f := range a.forks {
			j.Alias.Forks = append(j.Alias.Forks, [2]string{f.callers, f.callees})
		}
	}
	return j
}

// saveSetup keeps what repetitions of the answer and of its ACK need.
func (c *call) saveSetup() (s savedSetup) {
	ex := c.setup
	if ex.done(time.Now()) || ex.client() == nil {
		return s
	}
	return ex.saveAnswered()
}

func (t *timers) save() *[2]savedTimer {
	var out [2]savedTimer
	for i := range t.legs {
		l := &t.legs[i]
		out[i] = savedTimer{l.supports, l.update, l.theirs, l.min, l.interval, journal.Wall(l.expires), l.agreed}
	}
	return &out
}

// save returns what was agreed last, and where its media passes.
func (a *anchor) save() (m savedMedia) {
	if p := a.neg.Agreed(); p != nil {
		m.Answerer = p.Offerer.Other()
		m.Offer, m.Answer = string(p.Offer.Bytes()), string(p.Answer.Bytes())
	}
	m.Holding = [2]bool{a.neg.Holding(media.External), a.neg.Holding(media.Internal)}
	for i := range a.lines {
		var l savedLine
		if s := a.lines[i].stream; s != nil {
			l.Local = [2]netip.AddrPort{s.Local(media.External), s.Local(media.Internal)}
			l.ICE = a.lines[i].ice.ours
		}
		if p := a.lines[i].sec; p != nil {
			l.Sec = p.save(a.lines[i].stream)
		}
		m.Lines = append(m.Lines, l)
	}
	return m
}

// saveLate returns the offer that waits for an ACK. Of SRTP that is ended here it is not
// kept: what was agreed before goes on.
func (c *call) saveLate() *savedLate {
	for _, ex := range c.exchanges {
		if ex.method != sip.Invite || ex != c.setup && ex.dlg != c.answered || !c.lateness(ex).open || c.media.secures() {
			continue
		}
		side := c.at(ex.from.Other())
		if d := c.media.neg.Offered(side); d != nil {
			return &savedLate{From: side, Offer: string(d.Bytes())}
		}
	}
	return nil
}

// end is the state of a party's end of a dialog.
func (e savedEnd) end(c *call, p dialog.Party) dialog.End {
	return dialog.End{Target: e.Target, Instance: e.Instance, Routes: e.Routes, Flow: c.flowOf(e.Flow, c.at(p)), Seq: e.Seq}
}
