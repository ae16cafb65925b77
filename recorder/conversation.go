package recorder

import (
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// Bounds of what is remembered of conversations.
const (
	conversationKeysMax = 200_000          // keys of all conversations
	stickyMax           = 256              // signals of a conversation that calls which join it must know
	conversationWait    = 15 * time.Minute // that an ended conversation can still be joined, by the calls' own times
	linksMax            = 16               // keys of one signal
	expireEvery         = 256              // calls
)

// conversations groups the calls that belong together: a transfer, a
// consultation and a conference make several of one conversation. Two calls
// belong together when they share a key. Guarded by Recorder.mu.
type conversations struct {
	byKey map[string]*conversation
	tags  map[string]string        // by Call-ID: the From tag of the call that is known by it
	home  map[string]*conversation // of live calls, by their ids
	order []*conversation          // some of them over
	joins int
}

// conversation is a group of calls.
type conversation struct {
	id      string
	named   bool // by a signal, not derived from its first call
	start   time.Time
	last    time.Time // its latest call began
	calls   map[string]bool
	keys    []string
	sticky  []suppress.Signal
	bridged bool          // both parties are external: what its oldest call has is all of it
	consent *Plan         // of a call that may be recorded with consent alone: so may all of them
	into    *conversation // it turned out to be part of that one
}

func newConversations() *conversations {
	return &conversations{byKey: make(map[string]*conversation), tags: make(map[string]string), home: make(map[string]*conversation)}
}

// keysOf are the keys of a call: its Call-ID, its dialog, and what it names.
func keysOf(s media.Session) []string {
	own := "call-id:" + s.SIPCallID
	keys := []string{own, "dialog:" + s.SIPCallID + ";" + s.FromTag}
	for _, k := range s.Links {
		if k != own && len(keys) < linksMax {
			keys = append(keys, k)
		}
	}
	return keys
}

// join puts a call that begins into its conversation and returns the id of that,
// and which other conversations turned out to be the same.
func (c *conversations) join(s media.Session) (id string, changed []*conversation) {
	c.expire(s.Start)
	own := &conversation{id: media.ConversationID(s.SIPCallID), start: s.Start, last: s.Start, calls: map[string]bool{}}
	keys := keysOf(s)
	if tag, taken := c.tags[s.SIPCallID]; taken && tag != s.FromTag {
		keys = keys[1:] // another dialog that uses the same Call-ID, by chance or by intent
		own.id = media.ConversationID(s.SIPCallID + ";" + s.FromTag)
	} else if len(c.tags) < conversationKeysMax {
		c.tags[s.SIPCallID] = s.FromTag
	}
	conv, changed := c.merge(own, keys)
	conv.calls[s.ID], c.home[s.ID] = true, conv
	conv.last = later(conv.last, s.Start)
	return conv.id, changed
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// merge makes one conversation of c and all that share one of the keys: that
// with a name, else the oldest. It returns it and those that became part of it.
func (c *conversations) merge(conv *conversation, keys []string) (*conversation, []*conversation) {
	group := []*conversation{conv}
	for _, k := range keys {
		if o := c.byKey[k]; o != nil && !slices.Contains(group, o) {
			group = append(group, o)
		}
	}
	best := group[0]
	for _, o := range group[1:] {
		if o.named && !best.named || o.named == best.named && (len(o.keys) > 0 && len(best.keys) == 0 || o.start.Before(best.start)) {
			best = o
		}
	}
	if !slices.Contains(c.order, best) {
		c.order = append(c.order, best)
	}
	var changed []*conversation
	for _, o := range group {
		if o == best {
			continue
		}
		for id := range o.calls {
			best.calls[id] = true
		}
		for _, sig := range o.sticky {
			best.stick(sig)
		}
		if best.consent == nil {
			best.consent = o.consent
		}
		best.last, best.bridged = later(best.last, o.last), best.bridged || o.bridged
		for _, k := range o.keys {
			c.byKey[k] = best
		}
		best.keys = append(best.keys, o.keys...)
		o.into, o.keys = best, nil
		if len(o.calls) > 0 {
			changed = append(changed, o)
		}
		c.order = slices.DeleteFunc(c.order, func(x *conversation) bool { return x == o })
	}
	for _, k := range keys {
		if _, known := c.byKey[k]; !known && len(c.byKey) < conversationKeysMax {
			c.byKey[k] = best
			best.keys = append(best.keys, k)
		}
	}
	return best, changed
}

// agree makes the plan of a call that joins a conversation ask for consent when
// another of its calls does.
func (c *conversations) agree(s media.Session, p *Plan) {
	o := c.of(s)
	switch {
	case o == nil:
	case p.Rules.ConsentRequired:
		as := *p
		o.consent = &as
	case o.consent != nil:
		p.requireConsent(*o.consent)
	}
}

// secondLeg tells whether a call that joins a conversation is the second leg of a
// bridge between external parties, which its oldest call has all of already.
func (c *conversations) secondLeg(s media.Session) bool {
	o := c.of(s)
	return o != nil && o.bridged && len(o.calls) > 1 && s.Direction == media.Outbound
}

// of returns the conversation of a live call.
func (c *conversations) of(s media.Session) *conversation {
	o := c.home[s.ID]
	for o != nil && o.into != nil {
		o = o.into
	}
	return o
}

// leave takes a call that has ended out of its conversation. A secure pause
// ends with the last of its calls; what was said about consent holds for those
// that may join yet.
func (c *conversations) leave(s media.Session) {
	o := c.of(s)
	if o == nil {
		return
	}
	delete(o.calls, s.ID)
	delete(c.home, s.ID)
	if len(o.calls) == 0 {
		o.bridged = false
		o.sticky = slices.DeleteFunc(o.sticky, func(sig suppress.Signal) bool {
			return stickyKind(sig.Event) != "consent"
		})
	}
}

// expire forgets, now and then, conversations without calls that nobody has
// joined for long.
func (c *conversations) expire(now time.Time) {
	if c.joins++; c.joins%expireEvery != 0 {
		return
	}
	c.order = slices.DeleteFunc(c.order, func(o *conversation) bool {
		if len(o.calls) > 0 || now.Sub(o.last) < conversationWait {
			return false
		}
		for _, k := range o.keys {
			delete(c.byKey, k)
			delete(c.tags, strings.TrimPrefix(k, "call-id:"))
		}
		return true
	})
}

// regroup tells the calls of conversations that became part of another one. r.mu
// is held, so that the latest word is the last.
func (r *Recorder) regroup(changed []*conversation) {
	for _, old := range changed {
		for id := range old.calls {
			if s := r.sessions[id]; s != nil {
				s.belongTo(old.into.id)
			}
		}
	}
}

// peers are the live calls of a call's conversation, itself among them, oldest first.
func (r *Recorder) peers(s *session) []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	conv := r.convs.of(s.info)
	if conv == nil || len(conv.calls) < 2 {
		return []*session{s}
	}
	return r.callsOf(conv)
}

// callsOf lists the live calls of a conversation, oldest first. r.mu is held.
func (r *Recorder) callsOf(conv *conversation) []*session {
	var all []*session
	for id := range conv.calls {
		if o := r.sessions[id]; o != nil {
			all = append(all, o)
		}
	}
	sortSessions(all)
	return all
}

// belongTo puts a live call into a conversation.
func (s *session) belongTo(conv string) {
	s.belongsTo(conv)
	s.add(control{at: s.info.Start, kind: controlConversation, conv: conv, passed: true})
}

func (s *session) belongsTo(conv string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conv = conv
}

// pass lets a signal act on the conversation: links join calls, and what a
// caller says about being recorded, or a secure pause, holds for all of them.
// The session's owner calls it.
func (r *Recorder) pass(s *session, sig suppress.Signal) {
	shared := sticky(sig.Event)
	bridge := sig.Event == suppress.TransferExternal
	if len(sig.Links) == 0 && sig.Conversation == "" && !shared && !bridge && sig.Event != suppress.SourceLost {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	conv, changed, renamed := r.convs.follow(s.info, sig)
	if conv == nil {
		return
	}
	conv.bridged = conv.bridged || bridge
	id := conv.id
	r.regroup(changed)
	for i, o := range r.callsOf(conv) {
		switch {
		case !renamed && len(changed) == 0:
		case o == s:
			s.belongsTo(id)
			s.core.belongTo(id)
		default:
			o.belongTo(id)
		}
		if (shared || bridge) && o != s {
			o.add(control{at: sig.Received, kind: controlSignal, sig: sig, passed: true})
		}
		if bridge && i > 0 {
			o.add(control{at: sig.Received, kind: controlBridged, sig: sig, passed: true})
		}
	}
}

// follow applies what a signal on a call says about conversations. It returns
// the call's own, nil when there is none, those that became part of it, and
// whether it has another name now.
func (c *conversations) follow(s media.Session, sig suppress.Signal) (conv *conversation, changed []*conversation, renamed bool) {
	if conv = c.of(s); conv == nil {
		return nil, nil, false
	}
	if len(sig.Links) > 0 {
		conv, changed = c.merge(conv, sig.Links[:min(len(sig.Links), linksMax)])
	}
	if sig.Conversation != "" {
		if renamed = !conv.named; renamed {
			conv.id, conv.named = sig.Conversation, true
		}
		var more []*conversation
		conv, more = c.merge(conv, []string{"conversation:" + sig.Conversation})
		changed = append(changed, more...)
	}
	if sticky(sig.Event) || sig.Event == suppress.SourceLost {
		conv.stick(sig)
	}
	return conv, changed, renamed
}

// stick remembers a signal for calls that join later. When there are too many,
// one is forgotten that a later one of its kind makes void.
func (c *conversation) stick(sig suppress.Signal) {
	lost := sig.Event == suppress.SourceLost // every call is told of that
	if lost && slices.ContainsFunc(c.sticky, func(o suppress.Signal) bool {
		return o.Event == sig.Event && o.Source == sig.Source && o.At.Equal(sig.At)
	}) {
		return
	}
	c.sticky = append(c.sticky, sig)
	for len(c.sticky) > stickyMax {
		i := slices.IndexFunc(c.sticky, c.void)
		c.sticky = slices.Delete(c.sticky, max(i, 0), max(i, 0)+1)
	}
}

// void tells whether a later signal of the same kind is remembered.
func (c *conversation) void(sig suppress.Signal) bool {
	kind := stickyKind(sig.Event)
	return slices.ContainsFunc(c.sticky, func(o suppress.Signal) bool { return stickyKind(o.Event) == kind && o.At.After(sig.At) })
}

func stickyKind(e suppress.Event) string {
	kind, _, _ := strings.Cut(string(e), ".")
	return kind
}

// sticky tells which signals hold for every call of a conversation, those that
// join it later included.
func sticky(e suppress.Event) bool {
	switch e {
	case suppress.PauseStart, suppress.PauseEnd, suppress.ConsentGranted, suppress.ConsentDenied:
		return true
	default:
	}
	return false
}

// deliverSticky tells a call that joins a conversation what holds in it.
func (r *Recorder) deliverSticky(s *session) {
	r.mu.Lock()
	var all []suppress.Signal
	if conv := r.convs.of(s.info); conv != nil {
		all = slices.Clone(conv.sticky)
	}
	r.mu.Unlock()
	for _, sig := range all {
		s.add(control{at: s.info.Start, kind: controlSignal, sig: sig, passed: true})
	}
}
