package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
)

// logGrace is how old a link may be that the log in the store does not have yet.
const logGrace = 15 * time.Minute

// manifest reads and checks the manifest of a recording and its link. Nil: it
// cannot be read, which is told; without its key what its link says of the files
// is checked all the same.
func (v *verification) manifest(id string, p place, objects []string) (*recorder.Manifest, error) {
	content, err := v.a.manifestFile(v.ctx, p)
	if err != nil {
		v.found.addErr(id, segment.ManifestFile, err)
		return nil, v.ctx.Err()
	}
	o, err := segment.OpenLinked(v.ctx, byteBlob{bytes.NewReader(content)}, v.keys)
	if err == nil && (o.Manifest.ID != id || o.Header.Prefix != p.prefix) {
		err = fmt.Errorf("in %s lies the manifest of recording %s, folder %s: %w", p.prefix, o.Manifest.ID, o.Header.Prefix, recorder.ErrTampered)
	}
	keyless := errors.Is(err, recorder.ErrKey) || errors.Is(err, recorder.ErrShredded)
	if err != nil && !keyless {
		v.found.addErr(id, segment.ManifestFile, err)
		o = segment.Opened{Header: o.Header}
	}
	v.Unopened.count(err)
	if v.keyLost = nil; errors.Is(err, errKeyLost) {
		v.keyLost = err
	}
	link := v.link(id, p.prefix, content, o)
	if v.keyLost != nil {
		v.found.addErr(id, segment.KeyFile, v.keyLost)
	}
	switch {
	case !keyless:
	case errors.Is(err, recorder.ErrShredded) && link == nil:
		v.notes.addf(id, "", FaultShredded, "%s; the recording has no link that its stored bytes could be compared with", v.ended)
	case link == nil || link.Files == nil && link.FileCount > 0:
		if !errors.Is(err, errKeyLost) {
			v.found.addErr(id, segment.ManifestFile, err)
		}
	default:
		v.withoutKey(p, link, objects, err)
	}
	return o.Manifest, v.ctx.Err()
}

// link checks the link of a manifest and returns it when its signature fits.
func (v *verification) link(id, prefix string, content []byte, o segment.Opened) *audit.Link {
	sealed, signed, err := segment.SplitManifest(content)
	if err != nil {
		if o.Manifest != nil {
			v.found.addErr(id, segment.ManifestFile, err)
		}
		return nil
	}
	if signed == nil {
		v.unsigned(id, o.Manifest)
		return nil
	}
	l, err := v.ringsOf(signed).OpenLink(signed)
	if err != nil {
		if v.led.rings.Of(signed) == nil && len(v.led.rings) == 0 {
			v.notes.addf(id, segment.ManifestFile, FaultSignature, "%v; no public key is at hand", err)
			v.led.seen(id)
			return nil
		}
		v.found.addf(id, segment.ManifestFile, FaultSignature, "%v", err)
		v.led.seen(id)
		return nil
	}
	sum := sha256.Sum256(sealed)
	switch {
	case l.Recording != id || l.Prefix != prefix:
		v.found.addf(id, segment.ManifestFile, FaultAltered, "its link is that of recording %s in %s", l.Recording, l.Prefix)
	case l.SealedBytes != int64(len(sealed)) || l.SealedSHA256 != hex.EncodeToString(sum[:]):
		v.found.addf(id, segment.ManifestFile, FaultAltered, "the manifest is not the one that link %d was signed for", l.Seq)
	}
	if o.Manifest != nil {
		if sum := sha256.Sum256(o.JSON); l.ManifestSHA256 != hex.EncodeToString(sum[:]) || !l.SameFiles(filesOf(o.Manifest)) {
			v.found.addf(id, segment.ManifestFile, FaultAltered, "what the manifest says is not what link %d was signed for", l.Seq)
		}
	}
	v.inLog(id, l)
	return l
}

// unsigned tells of a manifest without a link.
func (v *verification) unsigned(id string, m *recorder.Manifest) {
	w, logged := v.led.of(id)
	v.led.seen(id)
	switch {
	case logged && w.is&(markDeleted|markShredded) == 0:
		v.found.addf(id, segment.ManifestFile, FaultUnsigned, "entry %d of log %s says that it was published with a link; it has none", w.entry.n(), v.led.log(w.entry))
	case v.isUnlinked(id):
		v.notes.addf(id, segment.ManifestFile, FaultUnsigned, "published while the audit log could not be written; its link follows")
	case m != nil && !v.led.begun.IsZero() && m.Call.Start.After(v.led.begun):
		v.found.addf(id, segment.ManifestFile, FaultUnsigned, "it has no link, though the audit log was begun before its call, at %s", v.led.begun.Format(time.RFC3339))
	default:
		v.notes.addf(id, segment.ManifestFile, FaultUnsigned, "made before manifests were signed")
	}
}

// isUnlinked tells whether a recording waits for its link.
func (v *verification) isUnlinked(id string) bool {
	_, err := v.a.fsys.Stat(v.a.spool(unlinkedDir, id+".json"))
	return err == nil
}

// inLog compares a link with what the logs say.
func (v *verification) inLog(id string, l *audit.Link) {
	name := l.Node + "/" + l.Epoch
	size, known := v.led.sizes[name]
	w, logged := v.led.of(id)
	switch {
	case !v.led.whole:
		v.inOwnLog(id, l)
	case w.is&markLinked != 0 && w.link == v.led.digest(l.SHA256):
		v.led.seen(id)
		shredded, log := w.is&markShredded != 0, v.led.log(w.entry)
		switch {
		case shredded && v.keyLost != nil:
			v.tombstoneLost(id, log)
		case shredded && v.ended == "":
			v.found.addf(id, segment.KeyFile, FaultUndone, "log %s says that it was shredded, and its key is there: somebody put it back, or a crash came between", log)
		case w.is&markDeleted != 0:
			v.notes.addf(id, segment.ManifestFile, FaultDeleted, "log %s says so, and it is still there", log)
		}
	case !known:
		v.notes.addf(id, segment.ManifestFile, FaultNoLog, "log %s is not at hand: its place in it was not checked", name)
		v.led.seen(id)
	case l.Entry >= size:
		v.led.seen(id)
		detail := fmt.Sprintf("its link is entry %d of log %s, which ends at entry %d", l.Entry, name, size)
		if time.Since(l.At) < logGrace {
			v.notes.addf(id, segment.ManifestFile, audit.FaultTruncated, "%s; it is fresh, the rest may be on its way", detail)
			return
		}
		v.found.addf(id, segment.ManifestFile, audit.FaultTruncated, "%s: the end of the log is gone", detail)
	case !logged:
		v.found.addf(id, segment.ManifestFile, audit.FaultChain, "its link is none that log %s has", name)
	default:
		v.led.seen(id)
		v.rolledBack(id, l, w.entry.n(), v.led.log(w.entry))
	}
}

// rolledBack tells that a recording has an older manifest than it had, unless it
// is just being replaced.
func (v *verification) rolledBack(id string, l *audit.Link, entry int64, log string) {
	if j, err := v.a.readJob(id); err == nil && j != nil || v.beingTaken(id) {
		return
	}
	v.found.addf(id, segment.ManifestFile, FaultRolledBack, "it has link %d, entry %d; entry %d of log %s says that it was replaced", l.Seq, l.Entry, entry, log)
}

// inOwnLog is inLog for single recordings: it reads what it must of the log on
// the node's own disk.
func (v *verification) inOwnLog(id string, l *audit.Link) {
	dir, node, ok := v.a.own(v.query.Proof)
	if !ok || node != l.Node {
		v.notes.addf(id, segment.ManifestFile, FaultNoLog, "log %s/%s is not on this disk: verify all to check its place in it", l.Node, l.Epoch)
		return
	}
	e := dir.Epoch(l.Epoch)
	line, err := e.Entry(l.Entry)
	if errors.Is(err, fs.ErrNotExist) {
		v.notes.addf(id, segment.ManifestFile, FaultNoLog, "%v on this disk: verify all to check its place in it", err)
		return
	}
	if err != nil {
		v.found.addErr(id, segment.ManifestFile, err)
		return
	}
	if en, err := audit.ParseEntry(line); err != nil || en.Link == nil || en.Link.SHA256 != l.SHA256 {
		v.found.addf(id, segment.ManifestFile, audit.FaultChain, "entry %d of log %s/%s is not its link", l.Entry, l.Node, l.Epoch)
		return
	}
	hash, kind, err := newest(v.ctx, e, l.Entry, id)
	if err == nil && hash != l.SHA256 {
		v.rolledBack(id, l, l.Entry, l.Node+"/"+l.Epoch)
	}
	if err == nil && kind == audit.KindShredded && v.keyLost != nil {
		v.tombstoneLost(id, l.Node+"/"+l.Epoch)
	}
}

// tombstoneLost tells of a shredded recording without the file that says so. Its key
// is where it should be: nowhere.
func (v *verification) tombstoneLost(id, log string) {
	v.found.addf(id, segment.KeyFile, FaultMissing, "log %s says that it was shredded; what says so beside it is gone", log)
	v.keyLost = nil
}

// withoutKey checks the stored bytes of a recording against its link.
func (v *verification) withoutKey(p place, l *audit.Link, objects []string, why error) {
	var files []string
	for _, f := range l.Files {
		files = append(files, f.Name)
		v.Segments++
		v.file(l.Recording, p, f)
	}
	v.besides(l.Recording, p, objects, files, "its link does not name it")
	if errors.Is(why, recorder.ErrShredded) {
		v.notes.addf(l.Recording, "", FaultShredded, "%s; its stored bytes were compared with its link", v.ended)
		return
	}
	v.notes.addf(l.Recording, "", FaultSealed, "frames were not decrypted, only stored bytes compared with its link: %v", why)
}

// besides looks at the objects of a recording that are none of its files: why says what
// does not name those that belong to nothing.
func (v *verification) besides(id string, p place, objects, files []string, why string) {
	for _, o := range objects {
		switch {
		case o == segment.ManifestFile, o == segment.KeyFile, slices.Contains(files, o):
		case segment.IsHold(o):
			v.held(id, p, o)
		case !v.a.beingReplaced(v.ctx, p, o):
			v.found.addf(id, o, FaultOrphan, "%s", why)
		}
	}
}

// file compares the stored bytes of a file with what a link says.
func (v *verification) file(id string, p place, f audit.File) {
	b, err := v.a.open(v.ctx, p, f.Name)
	if err != nil {
		v.found.addErr(id, f.Name, err)
		return
	}
	defer func() { _ = b.Close() }() // only read
	v.Bytes += b.Size()
	if b.Size() != f.Bytes {
		v.found.addf(id, f.Name, sizeFault(b.Size(), f.Bytes), "%d bytes, its link says %d", b.Size(), f.Bytes)
		return
	}
	_, sum, err := segment.Sum(b)
	switch {
	case err != nil:
		v.found.addErr(id, f.Name, err)
	case sum != f.SHA256:
		v.found.addf(id, f.Name, FaultAltered, "SHA-256 is %s, its link says %s", sum, f.SHA256)
	}
}

// beingTaken tells whether a recording is in the spool, so that its manifest
// is still to come.
func (v *verification) beingTaken(id string) bool {
	return v.a.isLive(id) || v.a.inSpool(id)
}
