package callstate

import (
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/suppress"
)

const signalsMax = 64 // of one message

// Dialog follows the messages of one call. It is used by one goroutine.
type Dialog struct {
	rules  *Rules
	callID string
	inside bool // whoever sends a message is internal
	links  links
	last   [2][]uint64 // by side and group: a hash of the header fields in its last INVITE or UPDATE
}

// Dialog begins to follow a call of a trunk at the first of its messages that is
// known, from being the side of who sent it. The message is to be given to
// Request as well when it is a request.
func (r *Rules) Dialog(trunk string, first *sip.Message, from media.Side) *Dialog {
	r = r.orNone()
	d := &Dialog{rules: r, callID: first.CallID(), inside: slices.Contains(r.inside, trunk)}
	d.links = *r.linksOf(first, d.trusted(from))
	return d
}

// trusted is the side as which the rules see the sender of a message.
func (d *Dialog) trusted(from media.Side) media.Side {
	if d.inside {
		return media.Internal
	}
	return from
}

// Links returns the keys found so far, as Rules.Links does.
func (d *Dialog) Links() []string { return slices.Clone(d.links.keys) }

// Request returns what a request of the call tells, which came from a side at a
// time. It is to be given each request once, without repetitions. INVITE and
// UPDATE are read by the rules for headers and User-to-User; INFO for signals in
// its body; INVITE, UPDATE and REFER for links: new ones make a signal
// call.linked. Other requests tell nothing. refused counts what could not be
// taken: signals of a side that may give none, unreadable or too many.
func (d *Dialog) Request(m *sip.Message, from media.Side, at time.Time) (signals []suppress.Signal, refused int) {
	switch m.Method {
	case sip.Invite, sip.Update:
		signals, refused = d.link(d.rules.linksOf(m, d.trusted(from)), at)
		more, left := d.read(m, from, at)
		signals, refused = append(signals, more...), refused+left
	case sip.Refer:
		l := d.rules.linksOf(m, d.trusted(from))
		d.rules.referred(l, m, d.trusted(from))
		return d.link(l, at)
	case methodInfo:
		return d.rules.info(m, d.callID, d.trusted(from), at)
	}
	return signals, refused
}

// Response returns what the response of a side to a request of the call tells:
// links in a 2xx to INVITE or UPDATE that are new.
func (d *Dialog) Response(m *sip.Message, from media.Side, at time.Time) []suppress.Signal {
	_, method := m.CSeq()
	if m.Status < 200 || m.Status > 299 || method != sip.Invite && method != sip.Update {
		return nil
	}
	l := &links{}
	d.rules.session(l, m, d.trusted(from))
	signals, _ := d.link(l, at)
	return signals
}

// link makes a signal of the links that are new.
func (d *Dialog) link(found *links, at time.Time) (signals []suppress.Signal, left int) {
	known, before := len(d.links.keys), d.links.left
	for _, key := range found.keys {
		if !slices.Contains(d.links.keys, key) {
			d.links.add("", key)
		}
	}
	left = found.left + d.links.left - before
	if fresh := d.links.keys[known:]; len(fresh) > 0 {
		signals = []suppress.Signal{{
			V: 1, Event: suppress.CallLinked, At: at, Source: SourceHeader, Links: slices.Clone(fresh),
		}}
	}
	return signals, left
}

// read applies the rules for header fields, in the order of their first mention,
// and then those for User-to-User.
func (d *Dialog) read(m *sip.Message, from media.Side, at time.Time) (signals []suppress.Signal, refused int) {
	take := func(s suppress.Signal, ok bool) {
		if !ok || len(signals) >= signalsMax {
			refused++
			return
		}
		signals = append(signals, s)
	}
	for i := range d.rules.headers {
		g := &d.rules.headers[i]
		values := fieldsOf(m, g.name)
		changed := d.changed(i, from, values)
		for k := range g.rules {
			r := &g.rules[k]
			if !r.from.allows(d.trusted(from)) || r.onChange && !changed {
				continue
			}
			for _, v := range values {
				bare, _, _ := cutText(v, ";")
				bare = unquote(bare)
				if r.pattern.match(bare) || r.pattern.match(v) {
					take(r.signal(SourceHeader, bare, func(name string) string { return paramOf(v, name) }, at))
				}
			}
		}
	}
	if len(d.rules.uui.rules) > 0 {
		values := fieldsOf(m, d.rules.uui.name)
		d.readUUI(userData(values), d.changed(len(d.rules.headers), from, values), from, at, take)
	}
	return signals, refused
}

func (d *Dialog) readUUI(texts []string, changed bool, from media.Side, at time.Time, take func(suppress.Signal, bool)) {
	for _, text := range texts {
		pairs := pairsOf(text)
		param := func(name string) string { return valueOf(pairs, name) }
		for k := range d.rules.uui.rules {
			r := &d.rules.uui.rules[k]
			if !r.from.allows(d.trusted(from)) || r.onChange && !changed {
				continue
			}
			for _, p := range pairs {
				if strings.EqualFold(p.key, r.key) && r.pattern.match(p.value) {
					take(r.signal(SourceUUI, p.value, param, at))
				}
			}
		}
	}
}

// changed says whether the header fields of a group differ from those of the
// side's INVITE or UPDATE before, and notes them.
func (d *Dialog) changed(group int, from media.Side, values []string) bool {
	if !d.rules.onChange {
		return true
	}
	last := d.last[from]
	if last == nil {
		last = make([]uint64, len(d.rules.headers)+1)
		d.last[from] = last
	}
	var now uint64
	if len(values) > 0 {
		h := fnv.New64a()
		for _, v := range values {
			_, _ = h.Write([]byte(v)) // a hash never fails
			_, _ = h.Write([]byte{0})
		}
		now = h.Sum64()
	}
	was := last[group]
	last[group] = now
	return now != was
}
