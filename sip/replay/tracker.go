package replay

import (
	"container/list"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/sip/siprec"
	"github.com/trunktap/trunktap/suppress"
)

// tracker holds what is known of a capture so far. Run's goroutine owns it.
type tracker struct {
	ctx     context.Context
	cfg     Config
	obs     media.Observer
	now     time.Time
	signals []suppress.Signal // not delivered yet
	stats   Stats
	err     error // of the observer

	calls    map[string]*call // by Call-ID (but see recordingDialog): open ones and tombstones
	active   list.List        // of *call, the longest silent first
	ended    list.List        // of *call, in order of their ends
	held     int              // bytes of descriptions in all calls
	framers  framers
	byDest   map[netip.AddrPort][]destination
	bySource map[netip.AddrPort][]*flow
	plain    []byte           // of the packet that is being taken
	swept    time.Time        // live: when silent calls were looked for
	follower *siprec.Follower // nil: recording sessions are calls like others
}

func newTracker(ctx context.Context, cfg Config, obs media.Observer) *tracker {
	return &tracker{
		ctx: ctx, cfg: cfg, obs: obs, signals: cfg.Signals,
		calls:    map[string]*call{},
		byDest:   map[netip.AddrPort][]destination{},
		bySource: map[netip.AddrPort][]*flow{},
	}
}

// open begins a call with m, whose dialog began with a request from caller to callee.
func (t *tracker) open(m *message, caller, callee netip.AddrPort) *call {
	if t.cfg.Live != nil && t.cfg.Live.Trunks != nil {
		t.cfg.Trunks, t.cfg.CallState = t.cfg.Live.Trunks()
	}
	if s := t.source(m, caller); s != nil {
		return t.openFollowed(m, s, caller, callee)
	}
	p, known := t.cfg.locate(caller, callee)
	if t.cfg.Live != nil && !known {
		t.stats.Strangers++
		return nil
	}
	from := p.caller
	if !m.IsRequest() {
		from = from.Other()
	}
	state := t.cfg.CallState.Dialog(p.trunk, m.Message, from)
	tap, err := t.obs.SessionStarted(t.ctx, t.session(m, p, t.now, state.Links()))
	switch {
	case err != nil && t.cfg.Live != nil:
		t.stats.Unrecorded++ // the call goes on by itself
		tap = nil
	case err != nil:
		t.err = fmt.Errorf("start the recording of call %s: %w", m.CallID(), err)
		return nil
	}
	t.makeRoom()
	c := &call{
		callID: m.CallID(), fromTag: m.fromTag, caller: p.caller, cseq: m.cseq,
		tap: tap, state: state, last: t.now, leg: []pair{{caller, callee}},
		sdp: sdp.NewNegotiation(), flows: map[media.StreamID]*flow{},
	}
	c.root = c.sdp.Dialog
	t.begin(c)
	return c
}

// makeRoom closes calls that were silent longest until another one may begin.
func (t *tracker) makeRoom() {
	for t.active.Len() >= callsMax {
		t.stats.CallsDropped++
		t.silent(t.active.Front().Value.(*call))
	}
}

// begin follows a call from now on.
func (t *tracker) begin(c *call) {
	c.el = t.active.PushBack(c)
	t.calls[c.key()] = c
	t.stats.Calls++
}

// hold accounts for the bytes of descriptions that a call keeps. When all calls
// together keep too much, the longest silent ones are closed, c itself never.
func (t *tracker) hold(c *call, more int) {
	c.held += more
	t.held += more
	for t.held > descriptionBytesMax && t.active.Front().Value != c {
		t.stats.CallsDropped++
		t.silent(t.active.Front().Value.(*call))
	}
}

// touch notes a packet of the call.
func (t *tracker) touch(c *call) {
	c.last = t.now
	t.active.MoveToBack(c.el)
}

func (t *tracker) answer(c *call) {
	if c.answered {
		return
	}
	c.answered = true
	t.stats.Answered++
	if c.tap != nil {
		c.tap.Answered(t.now)
	}
}

// end closes a call and leaves its tombstone.
func (t *tracker) end(c *call, at time.Time, cause media.Cause) {
	if c.ended {
		return
	}
	if c.tap != nil {
		c.tap.Ended(at, cause)
	}
	if c.followed != nil {
		c.followed.End(at, cause)
	}
	t.forget(c)
	c.wipe()
	t.active.Remove(c.el)
	c.ended, c.last = true, t.now
	t.held -= c.held
	c.tap, c.state, c.sdp, c.flows, c.half, c.root, c.early, c.held, c.followed = nil, nil, nil, nil, nil, nil, nil, 0, nil
	c.media = [2][]sdp.Media{}
	c.el = t.ended.PushBack(c)
}

// silent ends a call whose BYE did not pass, at its last packet.
func (t *tracker) silent(c *call) {
	cause := media.CauseMediaSilence
	if !c.answered {
		cause = media.CauseFailed
	}
	t.end(c, c.last, cause)
}

// expire closes calls that are silent for too long and forgets those that ended.
func (t *tracker) expire() {
	if t.cfg.Live != nil {
		t.sweep()
	}
	for el := t.active.Front(); el != nil && t.now.Sub(el.Value.(*call).last) > CallIdleMax; el = t.active.Front() {
		t.silent(el.Value.(*call))
	}
	for el := t.ended.Front(); el != nil && t.now.Sub(el.Value.(*call).last) > tombstoneAge; el = t.ended.Front() {
		t.bury(el.Value.(*call))
	}
}

// bury removes a tombstone.
func (t *tracker) bury(c *call) {
	t.ended.Remove(c.el)
	if key := c.key(); t.calls[key] == c {
		delete(t.calls, key)
	}
}

// close ends all calls at the end of the capture, each at its last packet.
func (t *tracker) close(cause media.Cause) {
	t.stats.SignalsLate = int64(len(t.signals))
	for el := t.active.Front(); el != nil; el = t.active.Front() {
		c := el.Value.(*call)
		if c.answered {
			t.end(c, c.last, cause)
		} else {
			t.end(c, c.last, media.CauseFailed)
		}
	}
}

// message finds the call of a message and takes it.
func (t *tracker) message(m *message) {
	c := t.find(m)
	if c != nil && c.ended {
		if !t.again(c, m) {
			return
		}
		t.bury(c)
		c = nil
	}
	if c == nil {
		c = t.first(m)
		if c == nil {
			return
		}
	}
	t.inCall(c, m)
}

// again tells whether m begins a new call after one of the same Call-ID has
// ended: a request sent again with credentials has a higher CSeq (RFC 3261 section 22.2).
func (t *tracker) again(c *call, m *message) bool {
	return m.Method == sip.Invite && m.toTag == "" && (m.fromTag != c.fromTag || m.cseq > c.cseq || t.unmerged(c, m)) &&
		!slices.ContainsFunc(c.seen, func(tx *transaction) bool { return tx.branch == m.branch })
}

// first opens a call at the first of its messages that is in the capture, nil
// when the message tells of none.
func (t *tracker) first(m *message) *call {
	inDialog := m.fromTag != "" && m.toTag != ""
	switch {
	case m.Method == sip.Invite && m.toTag == "":
		return t.open(m, m.src, m.dst)
	case !inDialog:
	case m.Method == sip.Invite, m.Method == sip.Update, m.Method == sip.Ack, m.Method == sip.Bye:
		if c := t.open(m, m.src, m.dst); c != nil {
			t.stats.InProgress++
			c.toTag = m.toTag
			t.answer(c)
			return c
		}
	case m.Status > 100 && m.Status < 300 && (m.method == sip.Invite || m.method == sip.Update && m.Status >= 200):
		if c := t.open(m, m.dst, m.src); c != nil {
			t.stats.InProgress++
			if m.method == sip.Update {
				c.toTag = m.toTag
				t.answer(c)
			}
			return c
		}
	}
	if t.err == nil {
		t.stats.OtherDialogs++
	}
	return nil
}
