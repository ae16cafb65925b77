package recorder

const (
	refusedMax    = 512 // spans kept of a side; beyond it the latest two become one
	refusedJoinMS = 200 // spans that are nearer than this are one
	refusedNearMS = 60  // how far beside a gap its packets may have come

	notDecrypted = "not decrypted"
)

// refusedList is when packets of a side came that could not be decrypted, in
// milliseconds of the call. What was not authenticated has no place of its own: it
// only says why there is nothing.
type refusedList struct {
	spans   []span
	packets int64
}

// add notes n packets of which the latest came at a time.
func (l *refusedList) add(ms int64, n uint32) {
	l.packets += int64(n)
	if last := len(l.spans) - 1; last >= 0 && (ms-l.spans[last].to < refusedJoinMS || last+1 >= refusedMax) {
		l.spans[last].to = max(l.spans[last].to, ms)
		return
	}
	l.spans = append(l.spans, span{ms, ms})
}

// near tells whether any came in [from, to), in milliseconds.
func (l *refusedList) near(from, to int64) bool {
	if l == nil {
		return false
	}
	for i := len(l.spans) - 1; i >= 0 && l.spans[i].to+refusedNearMS >= from; i-- {
		if l.spans[i].from-refusedNearMS < to {
			return true
		}
	}
	return false
}

// explain names what a gap consists of where packets came in it that could not be
// decrypted: they are no loss.
func (r *recording) explain(channel int, g gap) gap {
	if g.cause != GapAbsent && g.cause != GapLoss {
		return g
	}
	if r.undecrypted[channel].near(g.from/r.perMS+r.offsetMS, g.to/r.perMS+r.offsetMS) {
		g.cause, g.detail = GapUndecodable, notDecrypted
	}
	return g
}
