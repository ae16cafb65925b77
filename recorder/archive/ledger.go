package archive

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/trunktap/trunktap/recorder/audit"
)

// ledger is what the logs, the stores and the catalogue say of recordings. Of each
// it keeps 32 bytes without a pointer, so that millions fit into memory; names are
// read again where they are to be told.
type ledger struct {
	rings  audit.Rings
	salt   [16]byte         // nobody can make ids or links up that look alike here
	words  map[uint64]word  // by recording
	graves map[uint64]grave // of shredded recordings
	names  []string         // of logs, in the order of their numbers
	sizes  map[string]int64 // entries of each log
	begun  time.Time        // of the first log; zero: there is none
	whole  bool             // all logs were read
	read   time.Time        // when they were read
}

// leavingMost is how long a deletion may be under way: a node goes on with what it has begun,
// unless its disk was lost. Then nobody knows whether what is gone was deleted.
const leavingMost = 7 * 24 * time.Hour

// word is the last that is known of a recording.
type word struct {
	link  uint64 // digest of the link's hash
	entry entryAt
	at    uint32 // seconds of Unix time
	is    marks
}

// marks are what is known of a recording.
type marks uint16

const (
	markLogged   marks = 1 << iota // a log speaks of it
	markLinked                     // with a link
	markDeleted                    // and says behind that that it was deleted
	markShredded                   // or shredded
	markSeen                       // what the log says of was seen in a store
	markStored                     // a store has it with its manifest
	markRow                        // the catalogue has it
	markWanted                     // it is to be named
	markLeaving                    // its deletion was begun, and no entry says that it was done
	markBegun                      // the same, so long ago that it should have ended
)

// entryAt is an entry of a log: the number of the log, and its own in 40 bits.
type entryAt uint64

const entryBits = 40

func (e entryAt) n() int64 { return int64(e & (1<<entryBits - 1)) }

// at is entry n of the log with the number; what an altered log says of n is cut.
func (e entryAt) at(n int64) entryAt { return e | entryAt(n)&(1<<entryBits-1) }

func newLedger() ledger {
	l := ledger{words: map[uint64]word{}, graves: map[uint64]grave{}, sizes: map[string]int64{}, read: time.Now()}
	_, _ = rand.Read(l.salt[:]) // never fails
	return l
}

// digest is 64 bits of the hash of an id or a link; 0 is none.
func (l *ledger) digest(s string) uint64 {
	var buf [160]byte
	sum := sha256.Sum256(append(append(buf[:0], l.salt[:]...), s...))
	return max(binary.LittleEndian.Uint64(sum[:]), 1)
}

// number returns the number of a log.
func (l *ledger) number(log string) entryAt {
	for i, n := range l.names {
		if n == log {
			return entryAt(i) << entryBits
		}
	}
	l.names = append(l.names, log)
	return entryAt(len(l.names)-1) << entryBits
}

// log returns the name of the log that an entry is of.
func (l *ledger) log(e entryAt) string { return l.names[e>>entryBits] }

// take notes what an entry of a log of that number says.
func (l *ledger) take(log entryAt, e audit.Entry) {
	if l.begun.IsZero() || e.At.Before(l.begun) {
		l.begun = e.At
	}
	k, at := l.digest(e.Recording), log.at(e.N)
	switch e.Kind {
	case audit.KindPublished, audit.KindReplaced:
		if e.Link != nil {
			l.words[k] = word{link: l.digest(e.Link.SHA256), entry: at, at: uint32(e.At.Unix()), is: markLogged | markLinked}
		}
	case audit.KindDeleted, audit.KindShredded:
		l.words[k] = l.ended(l.words[k], at, e)
		if e.Kind == audit.KindShredded && e.Done() {
			g := l.graves[k]
			g.entry, g.told = at, true
			l.graves[k] = g
		}
	case audit.KindTombstone:
		if e.Link != nil {
			g := l.graves[k]
			g.link = l.digest(e.Link.SHA256)
			l.graves[k] = g
		}
	default:
	}
}

// ended returns what is known of a recording behind an entry of its deletion or shredding.
func (l *ledger) ended(w word, at entryAt, e audit.Entry) word {
	if e.Kind == audit.KindDeleted {
		w.is &^= markLeaving | markBegun
		switch {
		case e.Result != audit.ResultBegun:
		case e.At.Before(l.read.Add(-leavingMost)):
			w.is |= markBegun
		default:
			w.is |= markLeaving
		}
	}
	if !e.Done() {
		return w // it was asked for, and may not have happened
	}
	if w.is&markLogged == 0 {
		w.entry, w.at = at, uint32(e.At.Unix())
		w.is |= markLogged
	}
	w.is &^= markDeleted | markShredded
	if e.Kind == audit.KindDeleted {
		w.is |= markDeleted
	} else {
		w.is |= markShredded
	}
	return w
}

// of returns what the logs say of a recording.
func (l *ledger) of(id string) (w word, logged bool) {
	w = l.words[l.digest(id)]
	return w, w.is&markLogged != 0
}

func (l *ledger) grave(id string) grave { return l.graves[l.digest(id)] }

// has tells whether a recording has a mark.
func (l *ledger) has(id string, m marks) bool { return l.words[l.digest(id)].is&m != 0 }

// mark sets a mark, or takes it away.
func (l *ledger) mark(id string, m marks, on bool) {
	k := l.digest(id)
	w := l.words[k]
	if w.is &^= m; on {
		w.is |= m
	}
	l.words[k] = w
}

// seen notes that what the logs say of a recording was seen.
func (l *ledger) seen(id string) {
	if _, logged := l.of(id); logged {
		l.mark(id, markSeen, true)
	}
}

// gone tells whether a recording was published, never deleted nor about to be, and not seen.
func (w word) gone() bool {
	return w.is&(markLinked|markDeleted|markLeaving|markSeen) == markLinked
}

func (w word) time() time.Time { return time.Unix(int64(w.at), 0) }

// want marks the recordings that are gone and returns how many there are.
func (l *ledger) want(near func(published time.Time) bool) (n int) {
	for k, w := range l.words {
		if w.gone() && near(w.time().Add(time.Second)) {
			w.is |= markWanted
			l.words[k] = w
			n++
		}
	}
	return n
}

// wants tells whether an entry is the one that a recording is to be named by.
func (l *ledger) wants(log entryAt, e audit.Entry) bool {
	w := l.words[l.digest(e.Recording)]
	return w.is&markWanted != 0 && w.gone() && w.entry == log.at(e.N)
}

// rowless tells whether a store has a recording that the catalogue has not.
func (l *ledger) rowless() bool {
	for _, w := range l.words {
		if w.is&(markStored|markRow) == markStored {
			return true
		}
	}
	return false
}
