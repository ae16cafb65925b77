package b2bua

import (
	"slices"

	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
)

// branch is what is said about media in one dialog of a call. An INVITE may make
// several until it is answered, and each has its own offers and answers behind that of
// the INVITE; the streams at the relay are the call's.
type branch struct {
	talk *sdp.Dialog
	sec  []*protection // by index of the m= line; while it is not the current one
	late lateness      // of the first INVITE
}

// fork begins a dialog where those are that have said nothing yet.
func (a *anchor) fork() *branch {
	was := a.in
	a.enter(a.root)
	b := &branch{talk: a.neg.Fork(), late: a.root.late}
	for i := range a.lines {
		p := a.lines[i].sec
		if p != nil {
			own := *p
			own.line = p.line.Fork()
			p = &own
		}
		b.sec = append(b.sec, p)
	}
	a.branches = append(a.branches, b)
	a.enter(was)
	return b
}

// enter makes a branch the one that is spoken of.
func (a *anchor) enter(b *branch) {
	if a.in == b {
		return
	}
	a.leave()
	a.in = b
	a.neg.Switch(b.talk)
	for i := range a.lines {
		if a.lines[i].sec = nil; i < len(b.sec) {
			a.lines[i].sec = b.sec[i]
		}
	}
}

// leave lets the current branch keep what it knows.
func (a *anchor) leave() {
	a.in.sec = a.in.sec[:0]
	for i := range a.lines {
		a.in.sec = append(a.in.sec, a.lines[i].sec)
	}
}

// chosen forgets what was said in the dialogs that are not the current one, but for the
// keys: others may have them too.
func (a *anchor) chosen() {
	for _, b := range a.branches {
		if b != a.in {
			b.talk = nil
		}
	}
}

// decide says that the current branch has the call, and that what it agreed to is in
// force.
func (a *anchor) decide() {
	a.decided = true
	for i := range a.lines {
		for _, s := range []*relay.Stream{a.lines[i].stream, a.lines[i].next} {
			if s != nil {
				s.Decided()
			}
		}
	}
}

// wipe forgets the keys of a branch that is not the current one.
func (b *branch) wipe() {
	for _, p := range b.sec {
		if p != nil {
			p.line.Wipe()
		}
	}
	b.sec = nil
}

// within makes a dialog the one whose descriptions are spoken of; nil: none is there
// yet. From the answer on there is one alone.
func (c *call) within(d *dialogState) {
	switch {
	case c.answered != nil:
	case d == nil:
		c.media.enter(c.media.root)
	default:
		if d.media == nil {
			d.media = c.media.fork()
		}
		c.media.enter(d.media)
	}
}

// withinResponse is within for a response to an exchange.
func (c *call) withinResponse(ex *exchange, res *sip.Message) {
	if ex == c.setup {
		c.within(c.dialogOf(res.ToTag()))
		return
	}
	c.within(ex.dlg)
}

// lost tells whether a dialog is of a fork that did not answer the call.
func (c *call) lost(d *dialogState) bool {
	return c.answered != nil && d != nil && d != c.answered
}

// lateness returns that of the INVITE which an exchange is, or which its PRACK belongs to.
func (c *call) lateness(ex *exchange) *lateness {
	if ex == c.setup {
		return &c.media.in.late
	}
	if ex.method != sip.Prack {
		return &ex.late
	}
	i := slices.IndexFunc(c.exchanges, func(invite *exchange) bool {
		return invite.reinvite && invite.dlg == ex.dlg && invite.from == ex.from
	})
	switch {
	case i >= 0:
		return &c.exchanges[i].late
	case c.answered == nil && ex.from == c.setup.from:
		return &c.media.in.late
	}
	return &ex.late
}
