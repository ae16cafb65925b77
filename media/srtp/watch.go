package srtp

import "github.com/trunktap/trunktap/media"

// Watch follows the SDES of one m= line between two parties without a part in it:
// by which keys each side protects its media, as the SDP of a capture tells. The
// zero value knows nothing. One goroutine uses it.
type Watch struct {
	agreed [2]Crypto // by side; zero: in clear, or by keys that SDP does not hold
	before [2]Crypto // the open offer
	from   media.Side
	open   bool
	asked  bool // the next description of to is an offer
	to     media.Side
	offer  []Crypto
}

// Offer takes an offer. It replaces an open one.
func (w *Watch) Offer(from media.Side, m Media) {
	w.before, w.from, w.open, w.asked, w.offer = w.agreed, from, true, false, m.Crypto
}

// Ask notes that a side leaves the offer to the other one.
func (w *Watch) Ask(from media.Side) { w.open, w.asked, w.to, w.offer = false, true, from.Other(), nil }

// Answer takes an answer, early ones and those of forks too: the last one counts,
// until one is not early. Of an exchange whose offer is not known the answerer's key
// alone is. A description of a side that was asked for one is an offer.
func (w *Watch) Answer(from media.Side, m Media, early bool) {
	switch {
	case w.asked && w.to == from:
		w.Offer(from, m)
		return
	case w.open && w.from == from:
		return // it repeats what was agreed before its own offer
	}
	var next [2]Crypto
	if !m.Refused && len(m.Crypto) > 0 {
		next[from], next[from.Other()] = m.Crypto[0], w.agreed[from.Other()]
		if w.open {
			next[from.Other()], _ = match(w.offer, m.Crypto[0]) // zero: it was not usable
		}
	}
	w.agreed = next
	if !early {
		w.open, w.offer, w.before = false, nil, [2]Crypto{}
	}
}

// Reject drops a side's open offer and what early answers to it agreed.
func (w *Watch) Reject(from media.Side) {
	if w.open && w.from == from || w.asked {
		w.asked = false
		w.restore()
	}
}

func (w *Watch) restore() {
	if w.open {
		w.agreed, w.open, w.offer = w.before, false, nil
	}
}

// Sends returns what a side protects its media with; zero: nothing that is known.
func (w *Watch) Sends(s media.Side) Crypto { return w.agreed[s] }

// Wipe zeroes the keys.
func (w *Watch) Wipe() {
	for i := range w.agreed {
		w.agreed[i].Wipe()
		w.before[i].Wipe()
	}
	for _, c := range w.offer {
		c.Wipe()
	}
	*w = Watch{}
}
