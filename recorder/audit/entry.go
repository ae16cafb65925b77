// Package audit is the tamper-evident log of a node: a Merkle tree (RFC 6962) of
// entries with signed checkpoints, and in it the chain of links that each
// manifest is published with. FORMAT.md describes what is stored.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Kind says what an entry tells of.
type Kind string

// Kinds of entries.
const (
	KindPublished Kind = "recording.published"
	KindReplaced  Kind = "recording.replaced"
	KindDeleted   Kind = "recording.deleted"
	KindShredded  Kind = "recording.shredded"
	KindTombstone Kind = "recording.tombstone" // what stays of a shredded recording was signed
	KindHeld      Kind = "recording.held"
	KindReleased  Kind = "recording.released"

	KindList   Kind = "access.list"
	KindGet    Kind = "access.get"
	KindMedia  Kind = "access.media"
	KindBundle Kind = "access.bundle"
	KindVerify Kind = "access.verify"
	KindAudit  Kind = "access.audit"

	KindKeyRotated   Kind = "key.rotated"
	KindKeyRewrapped Kind = "key.rewrapped"
	KindKeyRevoked   Kind = "key.revoked"
	KindKeyRetired   Kind = "key.retired"
	KindNodeKey      Kind = "key.node-rotated"

	KindConfig  Kind = "config.loaded"
	KindStarted Kind = "daemon.started"
	KindStopped Kind = "daemon.stopped"
	KindCrashed Kind = "daemon.crashed"

	KindVerified Kind = "verify.done"
	KindBegun    Kind = "log.begun"  // the first entry; tells of the log before it
	KindLoss     Kind = "log.loss"   // entries found no room while the log could not be written
	KindTorn     Kind = "log.torn"   // a crash cut off what was promised to nobody
	KindBroken   Kind = "log.broken" // the log before this one did not fit its last checkpoint
)

// Bounds of an entry, in bytes.
const (
	EntryBytesMax = 4096
	textBytesMax  = 512 // of each text in it
	textBytesMin  = 96  // of each, where they have no room otherwise
)

// Entry is one line of the log. Audio, digits, keys and bodies of SIP are never
// in it.
type Entry struct {
	N         int64     `json:"n"`  // index in the log, from 0
	At        time.Time `json:"at"` // when it was written, by the node's clock
	Node      string    `json:"node"`
	Kind      Kind      `json:"kind"`
	Recording string    `json:"recording,omitempty"`
	Who       string    `json:"who,omitempty"`    // name of the token, or the user of the machine
	From      string    `json:"from,omitempty"`   // address
	What      string    `json:"what,omitempty"`   // in a few words
	Result    string    `json:"result,omitempty"` // served | done | refused | not-found | failed | …

	Happened    time.Time `json:"happened,omitzero"`       // when it was noted elsewhere before it came here
	ClockBackMS int64     `json:"clock_back_ms,omitempty"` // the clock stood that much before the entry before it

	Link *EntryLink `json:"link,omitempty"` // of published and replaced recordings, and of tombstones
}

// EntryLink names a link.
type EntryLink struct {
	Seq      int64  `json:"seq"`
	SHA256   string `json:"sha256"` // of its text, hex
	Prev     string `json:"prev"`
	Replaces string `json:"replaces,omitempty"`
}

// clip keeps what comes from outside within its bounds.
func (e *Entry) clip(most int) {
	for _, s := range []*string{&e.Recording, &e.Who, &e.From, &e.What, &e.Result} {
		*s = oneLine(*s, most)
	}
	e.At = e.At.UTC().Round(0)
	if !e.Happened.IsZero() {
		e.Happened = e.Happened.UTC().Round(0)
	}
}

// line returns the entry as it is hashed and stored, without the newline.
func (e *Entry) line() ([]byte, error) {
	e.clip(textBytesMax)
	b, err := json.Marshal(e)
	if err == nil && len(b) > EntryBytesMax { // JSON spells some characters with six
		e.clip(textBytesMin)
		b, err = json.Marshal(e)
	}
	if err == nil && len(b) > EntryBytesMax {
		err = fmt.Errorf("entry of %d bytes: at most %d", len(b), EntryBytesMax)
	}
	return b, err
}

// ParseEntry reads a line of the log.
func ParseEntry(line []byte) (Entry, error) {
	var e Entry
	if len(line) > EntryBytesMax {
		return e, fmt.Errorf("entry of %d bytes: at most %d", len(line), EntryBytesMax)
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return e, errors.New("not the JSON of an entry")
	}
	if e.N < 0 || e.Kind == "" || e.Node == "" {
		return e, errors.New("an entry needs n, kind and node")
	}
	return e, nil
}
