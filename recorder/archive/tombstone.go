package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
)

// signTombstone gives what stays of a shredded recording its link in the chain of
// the node: who can only write to the store cannot pass off a key that he
// destroyed as shredded. Without a log it goes without; while the log cannot be
// written it waits.
func (a *Archive) signTombstone(ctx context.Context, p place, rec segment.KeyRecord) (segment.KeyRecord, error) {
	l := a.proof.log.Load()
	if l == nil || rec.Shredded == nil || rec.Link != "" {
		return rec, nil
	}
	js, err := rec.Claimed()
	if err != nil {
		return rec, err
	}
	sum := sha256.Sum256(js)
	hexSum := hex.EncodeToString(sum[:])
	signed, err := l.Link(ctx, audit.Claim{
		Recording: rec.Recording, Prefix: p.prefix, Start: tombstone(p, rec).Call.Start, Reason: audit.ReasonShredded,
		ManifestSHA256: hexSum, SealedSHA256: hexSum, SealedBytes: int64(len(js)), Replaces: a.linkHash(ctx, p),
	})
	if err != nil {
		return rec, fmt.Errorf("sign what stays of it: %w", err)
	}
	rec.Link = string(signed)
	return rec, nil
}

// grave is the last that the logs say about the end of a recording.
type grave struct {
	link  uint64 // digest of that of its tombstone; 0: none was signed
	entry entryAt
	told  bool // an entry says that it was shredded
}

// tombstone checks what stays of a shredded recording and says how it ended.
func (v *verification) tombstone(id string, p place, rec segment.KeyRecord) string {
	ended := fmt.Sprintf("shredded at %s", rec.Shredded.At.UTC().Format(time.RFC3339))
	if rec.Shredded.By != "" {
		ended += " by " + rec.Shredded.By
	}
	ended += ", reason: " + rec.Shredded.Reason
	if rec.Link == "" {
		return ended + v.unsignedTombstone(id, rec)
	}
	rings := v.ringsOf([]byte(rec.Link))
	l, err := rings.OpenLink([]byte(rec.Link))
	if err != nil {
		if len(rings) == 0 {
			return ended + "; whether its signature fits was not checked: no public key is at hand"
		}
		v.found.addf(id, segment.KeyFile, FaultSignature, "what stays of the recording, as %s: %v", ended, err)
		return ended
	}
	js, err := rec.Claimed()
	sum := sha256.Sum256(js)
	if err != nil || l.Recording != id || l.Prefix != p.prefix || l.Reason != audit.ReasonShredded || l.ManifestSHA256 != hex.EncodeToString(sum[:]) {
		v.found.addf(id, segment.KeyFile, FaultAltered, "it says %s; link %d of node %s was signed for something else, of recording %s in %s", ended, l.Seq, l.Node, l.Recording, l.Prefix)
		return ended
	}
	return ended + v.buried(id, l)
}

// unsignedTombstone says what vouches for a tombstone without a link, if anything.
func (v *verification) unsignedTombstone(id string, rec segment.KeyRecord) string {
	g := v.led.grave(id)
	w, logged := v.led.of(id)
	switch {
	case g.told:
		return fmt.Sprintf("; it is not signed, but entry %d of log %s says so, too", g.entry.n(), v.led.log(g.entry))
	case v.waits(id):
		return "; it is not signed, and the entry about it waits for the log"
	case !v.led.whole || v.led.begun.IsZero():
		return "; it is not signed, and no log was asked: who can write to the store could have made it up"
	case rec.Shredded.At.After(v.led.begun), logged && rec.Shredded.At.Before(w.time()):
		v.found.addf(id, segment.KeyFile, FaultUnsigned, "it says that the recording was shredded at %s; it is not signed, and no log says so: somebody else may have destroyed the key",
			rec.Shredded.At.UTC().Format(time.RFC3339))
	}
	return "; it is not signed: who can write to the store could have made it up"
}

// waits tells whether an entry about the end of a recording is in the inbox of the log.
func (v *verification) waits(id string) bool {
	dir, _, ok := v.a.own(v.query.Proof)
	if !ok {
		return false
	}
	for _, e := range dir.Waiting() {
		if e.Recording == id && e.Kind == audit.KindShredded && e.Done() {
			return true
		}
	}
	return false
}

// buried compares the link of a tombstone with the log.
func (v *verification) buried(id string, l *audit.Link) string {
	name := l.Node + "/" + l.Epoch
	where := fmt.Sprintf("; signed: link %d, entry %d of log %s", l.Seq, l.Entry, name)
	if !v.led.whole {
		return where + v.buriedHere(id, l)
	}
	g := v.led.grave(id)
	size, known := v.led.sizes[name]
	switch {
	case g.link == v.led.digest(l.SHA256):
	case !known:
		return where + ", which is not at hand"
	case l.Entry >= size && time.Since(l.At) < logGrace:
		return where + ", which is on its way"
	case l.Entry >= size:
		v.found.addf(id, segment.KeyFile, audit.FaultTruncated, "its tombstone is entry %d of log %s, which ends at entry %d: the end of the log is gone", l.Entry, name, size)
	default:
		v.found.addf(id, segment.KeyFile, audit.FaultChain, "its tombstone is none that log %s has", name)
	}
	return where
}

// buriedHere is buried for single recordings, by the log on the node's own disk.
func (v *verification) buriedHere(id string, l *audit.Link) string {
	dir, node, ok := v.a.own(v.query.Proof)
	if !ok || node != l.Node {
		return ", which is not on this disk"
	}
	line, err := dir.Epoch(l.Epoch).Entry(l.Entry)
	if errors.Is(err, fs.ErrNotExist) {
		return ", which is not on this disk"
	}
	if err != nil {
		v.found.addErr(id, segment.KeyFile, err)
		return ""
	}
	if e, err := audit.ParseEntry(line); err != nil || e.Link == nil || e.Link.SHA256 != l.SHA256 {
		v.found.addf(id, segment.KeyFile, audit.FaultChain, "entry %d of log %s/%s is not its tombstone", l.Entry, l.Node, l.Epoch)
	}
	return ""
}

// gone tells of a recording that is nowhere what the logs say became of it.
func (v *verification) gone(id string, err error) error {
	var last audit.Entry
	log := ""
	note := func(name string) func(audit.Entry) {
		return func(e audit.Entry) {
			if e.Recording == id && aboutEnd(e) && !e.At.Before(last.At) {
				last, log = e, name
			}
		}
	}
	if err := v.eachLog(note); err != nil {
		return err
	}
	switch {
	case v.a.deleting(id):
		v.notes.addf(id, "", FaultDeleted, "it is being deleted")
	case log == "":
		v.found.addErr(id, "", err)
	case last.Kind == audit.KindDeleted:
		v.notes.addf(id, "", FaultDeleted, "%s, says entry %d of log %s", endOf(last), last.N, log)
	default:
		v.found.addf(id, "", FaultMissing, "entry %d of log %s says: %s at %s; no entry says that it was deleted: %v",
			last.N, log, last.Kind, last.At.Format(time.RFC3339), recorder.ErrNotFound)
	}
	return nil
}

// aboutEnd tells whether an entry says that a recording came or went.
func aboutEnd(e audit.Entry) bool {
	switch e.Kind {
	case audit.KindPublished, audit.KindReplaced:
		return true
	case audit.KindDeleted, audit.KindShredded:
		return e.Done()
	default:
		return false
	}
}

// endOf says in words who deleted a recording, when and why.
func endOf(e audit.Entry) string {
	at := e.At
	if !e.Happened.IsZero() {
		at = e.Happened
	}
	s := "deleted at " + at.Format(time.RFC3339)
	if e.Who != "" {
		s += " by " + e.Who
	}
	if e.What != "" {
		s += ": " + e.What
	}
	return s
}

// eachLog goes through all logs that can be read, in the stores and on the disk,
// without a word about what is wrong with them.
func (v *verification) eachLog(visit func(log string) func(audit.Entry)) error {
	ignore := func(audit.Finding) {}
	if v.stored == nil {
		v.stored, _, _ = audit.Stored(v.ctx, v.a.Store(), "") // told where logs are checked
	}
	for _, s := range v.stored {
		if _, err := s.Check(v.ctx, v.led.rings, visit(s.Name()), ignore); err != nil && v.ctx.Err() != nil {
			return err
		}
	}
	dir, node, ok := v.a.own(v.query.Proof)
	if !ok {
		return nil
	}
	epochs, err := dir.Epochs()
	if err != nil {
		return nil //nolint:nilerr // told where logs are checked
	}
	for _, epoch := range epochs {
		_, err := dir.Epoch(epoch).Check(v.ctx, node, v.led.rings, visit(node+"/"+epoch), ignore)
		if err != nil && v.ctx.Err() != nil {
			return err
		}
	}
	return nil
}
