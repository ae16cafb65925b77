package siprec

import (
	"slices"

	"github.com/trunktap/trunktap/media"
)

// What the streams of a recording tell of one another's sides, once nothing tells of them by
// themselves.

// exclude puts the one stream that is left on the side that nobody is on.
func exclude(list []place) {
	open := -1
	for i := range list {
		if !list[i].known {
			if open >= 0 {
				return
			}
			open = i
		}
	}
	if open < 0 || len(list) < 2 {
		return
	}
	if ext, in := taken(list, media.External), taken(list, media.Internal); ext != in {
		side := media.External
		if ext {
			side = media.Internal
		}
		list[open].know(side, ByOther)
	}
}

// alone returns the one party of a stream.
func (p *place) alone() (Participant, bool) {
	if len(p.parties) != 1 {
		return Participant{}, false
	}
	return p.parties[0], true
}

// isSame tells whether two participants are one person.
func isSame(a, b Participant) bool {
	if a.ID != "" || b.ID != "" {
		return SameID(a.ID, b.ID)
	}
	return a.AOR() != "" && a.AOR() == b.AOR()
}

// sideOf returns the side of the streams that a party alone sends, of those that on picks;
// false when it has none, or both.
func sideOf(q Participant, list []place, on func(*place) bool) (side media.Side, ok bool) {
	for i := range list {
		p := &list[i]
		if other, one := p.alone(); !one || !on(p) || !isSame(q, other) {
			continue
		}
		if ok && p.side != side {
			return 0, false
		}
		side, ok = p.side, true
	}
	return side, ok
}

// accompany puts streams of a party where its other streams are known to be.
func accompany(list []place) {
	before := slices.Clone(list)
	for i := range list {
		if q, one := list[i].alone(); one && !list[i].known {
			if side, ok := sideOf(q, before, func(p *place) bool { return p.known }); ok {
				list[i].know(side, ByOther)
			}
		}
	}
}

// guess puts the streams somewhere that nothing tells of: a party stays on the side that it
// was on, whichever stream it sends by now, and has one side; the first that is left is
// external if nobody is, the others are internal.
func guess(list []place, tracks []track) {
	was := make([]place, len(tracks))
	for i := range tracks {
		was[i] = tracks[i].was
	}
	put := func(p *place, side media.Side) { p.side, p.by = side, ByUnknown }
	placed := func(p *place) bool { return p.by != "" }
	for i := range list {
		if q, one := list[i].alone(); one && !placed(&list[i]) {
			if side, ok := sideOf(q, was, placed); ok {
				put(&list[i], side)
			}
		}
	}
	for i := range list {
		p := &list[i]
		if placed(p) {
			continue
		}
		external := slices.ContainsFunc(list, func(o place) bool { return placed(&o) && o.side == media.External })
		side := media.Internal
		if p.mixed || !external {
			side = media.External
		}
		if q, one := p.alone(); one {
			if is, ok := sideOf(q, list, placed); ok {
				side = is
			}
		}
		put(p, side)
	}
}
