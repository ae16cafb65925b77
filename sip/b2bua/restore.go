package b2bua

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dialog"
	"github.com/trunktap/trunktap/sip/journal"
	"github.com/trunktap/trunktap/sip/sdp"
)

// Restored are the calls that another process had and that go on here.
type Restored struct {
	Sessions []string // of calls that live
	Lost     int      // calls that cannot go on
	Ended    []Ended  // calls that were over, and recorded

	calls []*call
}

// Ended is a call that was over when the process before died. What was recorded of it
// may have been on its way to the disk.
type Ended struct {
	Session  media.Session
	Answered time.Time
	Ended    time.Time
}

// ended returns what is known of the recording of a call that is over; false: it had none.
func (j *journalled) ended() (e Ended, ok bool) {
	if !j.Over || !j.Observed || j.Early != nil || j.Ended.IsZero() {
		return e, false
	}
	e = Ended{j.Session, journal.Live(j.Answered), journal.Live(j.Ended)}
	e.Session.Start = journal.Live(j.Session.Start)
	e.Session.Resumed = &media.Resumed{Answered: e.Answered, At: e.Ended, Restarts: j.Restarts + 1}
	return e, true
}

// Restore goes on with calls by what the journal of another process says of them.
// Their media flows when it returns; nothing is recorded before Observe. It must be
// called before Start, once.
func (b *B2BUA) Restore(states map[string][]byte) *Restored {
	r := &Restored{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for session, state := range states {
		wg.Add(1)
		done := func(c *call, err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				r.Lost++
				b.counters.CallsLost.Add(1)
				b.cfg.Journal.Drop(session)
				b.cfg.Log.Warn("a call does not go on after the restart", "session", session, "error", err)
			case !c.ended:
				r.Sessions = append(r.Sessions, session)
				r.calls = append(r.calls, c)
				b.counters.CallsRestored.Add(1)
			}
		}
		c, j, err := b.revive(state)
		if err == nil || errors.Is(err, errPast) {
			if e, ok := j.ended(); ok {
				r.Ended = append(r.Ended, e)
			}
		}
		if errors.Is(err, errPast) {
			b.cfg.Journal.Drop(session)
			wg.Done()
			continue
		}
		if err != nil {
			done(nil, err)
			continue
		}
		c.put(event{do: func() { done(c, c.resume(j)) }})
	}
	wg.Wait()
	slices.Sort(r.Sessions)
	return r
}

// Observe asks the observer to go on with the recordings of the calls, in the order
// in which they began: what belongs together hangs on it. It returns when all have
// their answer.
func (r *Restored) Observe() {
	slices.SortFunc(r.calls, func(a, b *call) int {
		return a.chronicle.session.Start.Compare(b.chronicle.session.Start)
	})
	for _, c := range r.calls {
		told := make(chan struct{})
		if c.put(event{do: func() { c.observeAgain(func() { close(told) }) }}) {
			<-told
		}
	}
}

var (
	errJournal = errors.New("its entry in the journal cannot be used")
	errPast    = errors.New("it is over, and no repetition can come any more")
)

// revive makes the call of an entry, and makes it known.
func (b *B2BUA) revive(state []byte) (*call, *journalled, error) {
	var j journalled
	if err := json.Unmarshal(state, &j); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errJournal, err)
	}
	if !j.known() {
		return nil, nil, fmt.Errorf("%w: it is of version %d, this one is %d", errJournal, j.V, journalVersion)
	}
	if j.Over && j.lingers() <= 0 && time.Until(j.Transfer) <= 0 {
		return nil, &j, errPast
	}
	req, _, err := sip.Parse([]byte(j.Setup), false)
	if err != nil || req.Method != sip.Invite {
		return nil, nil, fmt.Errorf("%w: its INVITE: %w", errJournal, err)
	}
	table := (*b.tables.Load())[0]
	peer, ok := sip.Peer{}, false
	trunks := table.Trunks()
	for i := range trunks {
		if trunks[i].Name == j.Trunk && j.Side <= media.Internal {
			peer, ok = sip.Peer{Trunk: &trunks[i], Side: j.Side}, true
		}
	}
	if !ok {
		return nil, nil, fmt.Errorf("there is no trunk %q any more", j.Trunk)
	}
	c := newCall(b, req, peer, table)
	c.id, c.branches, c.tag = j.ID, j.Branches+1<<16, j.Tag // branches that were not journalled are passed over
	j.Session.Start = journal.Live(j.Session.Start)
	req.Arrival = j.Session.Start
	req.Flow = c.flowOf(j.SetupVia, c.side)
	c.chronicle = chronicle{session: j.Session, at: journal.Live(j.Answered), restarts: j.Restarts + 1, written: state}
	c.setup = &exchange{from: dialog.Caller, method: sip.Invite, seq: c.seq, server: dialog.NewServer(req)}
	if err := c.restoreAlias(j.Alias); err != nil {
		return nil, nil, err
	}
	b.register(c, &j)
	return c, &j, nil
}

// known tells whether the version is one that goes with what is there.
func (j *journalled) known() bool {
	return j.V == journalVersion && j.Early == nil && !j.Media.secured() || j.V == earlyVersion && j.Early != nil ||
		j.V == secureVersion && j.Early == nil && j.Media.secured()
}

func (c *call) restoreAlias(a *savedAlias) error {
	if (c.alias != nil) != (a != nil) {
		return errors.New("the trunk hid identities and does not, or does and did not")
	}
	if a == nil {
		return nil
	}
	c.alias = &alias{callID: a.CallID, tag: a.Tag, uris: a.URIs}
	for _, f := range a.Forks {
		c.alias.forks = append(c.alias.forks, forkTag{f[0], f[1]})
	}
	return nil
}

// register makes a restored call known, as admit does.
func (b *B2BUA) register(c *call, j *journalled) {
	if e := j.Early; e != nil {
		for _, s := range e.Sent {
			c.table.Learn(sip.Peer{Trunk: c.trunk, Side: c.at(dialog.Callee)}, []netip.Addr{s.Flow.Remote.Addr()})
		}
	} else {
		for p, e := range j.Ends { // by whatever name it was found
			c.table.Learn(sip.Peer{Trunk: c.trunk, Side: c.at(dialog.Party(p))}, []netip.Addr{e.Flow.Remote.Addr()})
		}
		c.tags = append(c.tags, j.Dialog) // nobody else knows of it yet
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.byID[c.id] = c
	b.calls[c.key] = append(b.calls[c.key], c)
	b.mask(c)
	if c.alias != nil {
		for _, f := range c.alias.forks {
			c.tags = append(c.tags, f.callees)
		}
	}
	c.table.calls++
	b.sessions++
	b.perTrunk[c.trunk.Name]++
	b.wg.Add(1)
}

// resume brings the call to where it was. After an error it is over.
func (c *call) resume(j *journalled) error {
	now := time.Now()
	if j.Early != nil {
		c.resumeEarly(j.Early, now)
		return nil
	}
	c.restoreDialog(j, now)
	c.observed = true
	if left := time.Until(j.Transfer); !j.Transfer.IsZero() && left > 0 {
		c.transferring(left, now)
	}
	if j.Over {
		c.lingerOn(j, now)
		c.restoreExchanges(j.Exchanges, now)
		return nil
	}
	if err := c.media.restore(j.Media, now); err != nil {
		c.media.close()
		c.whenOpen(func(now time.Time) { c.hangUp(now, media.CauseFailed, "503", "media lost in a restart") })
		return err
	}
	c.restoreExchanges(j.Exchanges, now)
	c.media.answered(c.chronicle.at, c.b.cfg.Overlay)
	c.restoreTimers(j.Timers, now)
	c.after(max(0, callMax-now.Sub(c.chronicle.at)), now, func(now time.Time) { c.hangUp(now, media.CauseTimeout, "408", "call too long") })
	c.watchSilence(now)
	return nil
}

// lingers is how long an ended call still waits for repetitions of its BYE, however
// many processes it has seen.
func (j *journalled) lingers() time.Duration {
	if j.Ended.IsZero() { // of an earlier version
		return sip.TransactionTimeout
	}
	return min(sip.TransactionTimeout-time.Since(j.Ended), sip.TransactionTimeout)
}

// lingerOn keeps an ended call for repetitions of its BYE.
func (c *call) lingerOn(j *journalled, now time.Time) {
	c.pending++
	c.after(max(0, j.lingers()), now, func(time.Time) { c.pending-- })
	c.ended, c.chronicle.over, c.chronicle.observed = true, journal.Live(j.Ended), j.Observed
	if j.Ended.IsZero() {
		c.chronicle.over = now
	}
	c.b.over(c)
}

// restoreDialog restores the dialog and what is left of the INVITE.
func (c *call) restoreDialog(j *journalled, now time.Time) {
	d := &dialogState{to: j.To}
	d.Tag, d.Confirmed = j.Dialog, true
	for p := range d.Ends {
		d.Ends[p] = j.Ends[p].end(c, dialog.Party(p))
	}
	n := j.Numbers
	d.numbers = numbers{ahead: n.Ahead, invite: n.Invite, refer: n.Refer, moved: n.Ahead != [2]uint32{}}
	c.dialogs, c.answered, c.byeSent = []*dialogState{d}, d, j.ByeSent
	ex := c.setup
	ex.dlg, ex.ackDue = d, true
	c.b.reachable(c, d)
	if late := j.Media.Late; late != nil && late.From == c.at(dialog.Callee) && j.Media.Offer == "" {
		c.media.in.late = lateness{asked: true, open: true}
	}
	if p := j.Pending; p.Branch != "" {
		c.restoreAnswered(ex, p, now)
		return
	}
	ex.server.Respond(&sip.Message{Status: 200}, now)
	ex.server.Acked()
}

// restoreAnswered lets the answer to an INVITE and its ACK be repeated as before.
func (c *call) restoreAnswered(ex *exchange, p savedSetup, now time.Time) {
	to := c.at(ex.from.Other())
	ex.clients = []*dialog.Client{dialog.Answered(p.Branch, c.flowOf(p.Flow, to), now)}
	ex.ackDue = p.Acked
	if ack, _, err := sip.Parse([]byte(p.Ack), false); err == nil {
		ex.ack, ex.ackFlow = ack.Frozen(), c.flowOf(p.AckFlow, to)
	}
	c.exchanges = append(c.exchanges, ex)
	if ex.server == nil {
		return
	}
	answer, _, err := sip.Parse([]byte(p.Answer), false)
	if err != nil {
		answer = &sip.Message{Status: 200}
	}
	ex.server.Respond(answer, now)
	if p.Acked || err != nil {
		ex.server.Acked()
		return
	}
	c.whenOpen(func(time.Time) { // the process before may have died before it went out
		if !ex.ackDue {
			c.send(answer, c.replyFlow(ex))
		}
	})
}

func (c *call) restoreTimers(saved *[2]savedTimer, now time.Time) {
	if c.timers == nil || saved == nil {
		return
	}
	for i, s := range saved {
		l := &c.timers.legs[i]
		l.supports, l.update, l.theirs, l.min, l.interval, l.agreed = s.Supports, s.Update, s.Theirs, s.Min, s.Interval, s.Agreed
		if l.interval == 0 || !c.timers.keep() {
			continue
		}
		l.expires = journal.Live(s.Expires)
		at := l.expires
		if !l.theirs {
			at = now // ours may have been due meanwhile
		}
		c.watch(dialog.Party(i), max(refreshBehind, at.Sub(now)), now)
	}
}

// restore opens the streams where they were and lets media flow as agreed.
func (a *anchor) restore(m savedMedia, now time.Time) error {
	a.opened, a.changed = true, now
	var late *sdp.Description
	var err error
	if m.Late != nil {
		if late, err = sdp.Parse([]byte(m.Late.Offer)); err != nil || m.Late.From > media.Internal {
			return fmt.Errorf("%w: the offer that its ACK answers", errJournal)
		}
	}
	if m.Offer == "" { // nothing was agreed
		return a.restoreLate(m, late)
	}
	offer, err := sdp.Parse([]byte(m.Offer))
	if err != nil {
		return fmt.Errorf("%w: its offer: %w", errJournal, err)
	}
	answer, err := sdp.Parse([]byte(m.Answer))
	if err != nil || m.Answerer > media.Internal {
		return fmt.Errorf("%w: its answer", errJournal)
	}
	a.decided = true // forks that were early are not known any more
	if err := a.restoreLines(m, offer); err != nil {
		return err
	}
	a.neg.Restore(m.Holding)
	a.neg.OfferParsed(m.Answerer.Other(), offer)
	res, err := a.neg.AnswerParsed(m.Answerer, answer, now, false)
	if err != nil {
		return err
	}
	a.agree(res, now)
	return a.restoreLate(m, late)
}

// restoreLate lets an offer wait for the answer in its ACK again.
func (a *anchor) restoreLate(m savedMedia, late *sdp.Description) error {
	if late == nil {
		return nil
	}
	if m.Offer == "" {
		if err := a.restoreLines(m, late); err != nil {
			return err
		}
	}
	a.askOffer(m.Late.From.Other())
	if err := a.open(late); err != nil {
		return err
	}
	a.neg.OfferParsed(m.Late.From, late)
	return nil
}

func (a *anchor) restoreLines(m savedMedia, offered *sdp.Description) error {
	if len(m.Lines) > streamsMax {
		return fmt.Errorf("%w: %d media", errJournal, len(m.Lines))
	}
	for i, l := range m.Lines {
		a.lines = append(a.lines, line{})
		if err := a.restoreLine(i, l, offered.Media()); err != nil {
			return fmt.Errorf("anchor media %d where it was: %w", i, err)
		}
	}
	return nil
}

// restoreLine opens the stream of a line.
func (a *anchor) restoreLine(i int, saved savedLine, offered []sdp.Media) error {
	l := &a.lines[i]
	if saved.Local[0].IsValid() && i < len(offered) {
		s, err := a.relay.OpenAt(saved.Local, a.options(offered[i]))
		if err != nil {
			return err
		}
		*l = line{stream: s, rtp: isRTP(offered[i]), ice: checks{ours: saved.ICE}}
		for side, ice := range saved.ICE {
			s.SetICE(media.Side(side), ice)
		}
	}
	if saved.Sec == nil {
		return nil
	}
	return a.restoreProtection(l, saved.Sec)
}

// observeAgain asks the observer to go on with the call.
func (c *call) observeAgain(done func()) {
	if c.b.cfg.Observer == nil || c.ended || c.gone {
		done()
		return
	}
	c.state = c.b.callState.Load().Dialog(c.trunk.Name, c.setup.server.Req, c.side)
	session := c.chronicle.session
	session.Resumed = &media.Resumed{Answered: c.chronicle.at, At: time.Now(), Restarts: c.chronicle.restarts}
	c.pending++
	c.later = func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), observerWait)
		defer cancel()
		tap, err := ask(ctx, c.b.cfg.Observer, session)
		ok, orphan := c.box.put(event{do: func() { defer done(); c.observedAgain(tap, err) }})
		if !ok {
			c.unwanted(tap)
			done()
		}
		return orphan
	}
}

func (c *call) observedAgain(tap media.SessionTap, err error) {
	c.pending--
	switch {
	case c.ended:
		c.unwanted(tap)
		return
	case err != nil: // an answered call is never ended for its recording
		c.b.counters.Unrecorded.Add(1)
		c.log.Error("a call goes on unrecorded after the restart", "error", err)
		return
	case tap == nil:
		return
	}
	c.tap.Tap = tap
	c.tap.Answered(c.chronicle.at)
	if others := c.media.neg.Others(); len(others) > 0 {
		c.tap.OtherMedia(c.chronicle.at, others)
	}
	for i, st := range c.media.streams {
		st.At = c.chronicle.at // what the kernel has kept meanwhile was sent by it, too
		c.media.streams[i] = st
		if s := c.media.streamOf(st.ID); s != nil {
			s.SetTap(st.Side, c.tap.StreamStarted(st))
			c.media.overlay(st)
		}
	}
}
