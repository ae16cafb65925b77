package quality

const (
	// windowPackets is how far behind the newest a packet may be to count as
	// reordered instead of late: over two seconds of 10 ms packets.
	windowPackets = 256
	// dropoutPacketsMax is the longest hole that counts as loss. A longer one
	// is a new beginning of the numbers.
	dropoutPacketsMax = 1 << 16
	// seqMax keeps differences of sequence numbers from overflowing.
	seqMax = int64(1) << 61
)

// window tells what became of each sequence number. A number is settled once
// it is windowPackets behind the newest.
type window struct {
	begun      bool
	newest     int64
	first      int64 // of those not yet settled, the lowest that was expected
	unseenOwed int64 // missing numbers that are to be taken for unseen,
	owedUntil  int64 // before this number

	came [windowPackets / 64]uint64 // received
	gone [windowPackets / 64]uint64 // received too late to be heard, or (when not received) unseen

	bursts    bursts
	received  uint64
	lost      uint64 // settled
	discarded uint64 // settled
	unseen    uint64
	reordered uint64
	late      uint64
}

func bit(seq int64) (word int, mask uint64) {
	return int(seq>>6) & (windowPackets/64 - 1), 1 << (uint64(seq) & 63)
}

// seen tells whether the number was received and is still in the window.
func (w *window) seen(seq int64) bool {
	if !w.begun || seq > w.newest || w.newest-seq >= windowPackets {
		return false
	}
	word, mask := bit(seq)
	return w.came[word]&mask != 0
}

// packet takes a number that was not seen; heard is false when it came too late to be played.
func (w *window) packet(seq int64, heard bool) {
	if seq > seqMax || seq < -seqMax {
		return
	}
	switch {
	case !w.begun:
		w.begin(seq)
	case seq > w.newest+dropoutPacketsMax:
		w.settleAll()
		w.begin(seq)
	case seq > w.newest:
		w.advance(seq)
	case w.newest-seq >= windowPackets:
		w.tooLate()
		return
	default:
		w.reordered++
		w.first = min(w.first, seq)
	}
	w.received++
	word, mask := bit(seq)
	w.came[word] |= mask
	w.gone[word] &^= mask
	if !heard {
		w.gone[word] |= mask
	}
}

func (w *window) begin(seq int64) {
	w.begun, w.newest, w.first = true, seq, seq
	clear(w.came[:])
	clear(w.gone[:])
}

// advance moves the window on to seq: what falls out of it is settled, what
// comes in is missing until it comes.
func (w *window) advance(seq int64) {
	hole := seq - w.newest - 1
	if w.newest >= w.owedUntil {
		w.unseenOwed = 0
	}
	unseen := min(w.unseenOwed, hole)
	w.unseenOwed -= unseen
	skip := max(hole-windowPackets, 0) // these fall out as soon as they are in
	for q := w.newest + 1; q <= seq; q++ {
		if q == w.newest+1+windowPackets && skip > 0 {
			w.skip(skip, &unseen)
			q += skip
		}
		w.settle(q - windowPackets)
		word, mask := bit(q)
		w.came[word] &^= mask
		w.gone[word] &^= mask
		if unseen > 0 {
			unseen--
			w.gone[word] |= mask
		}
	}
	w.newest = seq
}

// skip settles n numbers in the middle of a long hole without walking them.
func (w *window) skip(n int64, unseen *int64) {
	u := min(*unseen, n)
	*unseen -= u
	w.unseen += uint64(u)
	w.lost += uint64(n - u)
	w.bursts.missing(uint64(n - u))
}

// settle closes the account of one number.
func (w *window) settle(seq int64) {
	if seq < w.first {
		return
	}
	w.first = seq + 1
	word, mask := bit(seq)
	came, gone := w.came[word]&mask != 0, w.gone[word]&mask != 0
	switch {
	case came && !gone:
		w.bursts.received()
	case came:
		w.discarded++
		w.bursts.missing(1)
	case gone:
		w.unseen++
	default:
		w.lost++
		w.bursts.missing(1)
	}
}

// settleAll closes the account of everything up to the newest.
func (w *window) settleAll() {
	for q := w.newest - windowPackets + 1; w.begun && q <= w.newest; q++ {
		w.settle(q)
	}
}

// tooLate takes a packet that has been settled as lost. When none has, it is
// taken for a copy.
func (w *window) tooLate() {
	w.late++
	if w.lost > 0 {
		w.lost--
		w.received++
		w.discarded++
	}
}
