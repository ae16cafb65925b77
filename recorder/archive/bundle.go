package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/evidence"
	"github.com/trunktap/trunktap/recorder/segment"
)

// Bundle is the evidence bundle of a recording.
type Bundle struct {
	Name string // proposed file name

	a       *Archive
	ctx     context.Context
	at      place
	content evidence.Content
	media   *Media
	release func()
}

// bundleLogMax bounds the entries of the log in a bundle.
const bundleLogMax = 10_000

// Bundle opens the evidence bundle of a recording; entries: with what else the
// log on this disk says of it. Write may be called once, Close must be.
func (a *Archive) Bundle(ctx context.Context, id string, q ProofQuery, entries bool) (_ *Bundle, err error) {
	b := &Bundle{Name: id + ".zip", a: a, ctx: ctx, release: a.pin(id)}
	defer func() {
		if err != nil {
			b.Close()
			err = fmt.Errorf("bundle recording %s: %w", id, err)
		}
	}()
	if b.at, err = a.locate(ctx, id); err != nil {
		return nil, err
	}
	file, err := a.manifestFile(ctx, b.at)
	if err != nil {
		return nil, err
	}
	o, err := segment.OpenLinked(ctx, byteBlob{bytes.NewReader(file)}, a.keys(b.at))
	if err != nil {
		return nil, err
	}
	if o.Manifest.ID != id || o.Header.Prefix != b.at.prefix {
		return nil, fmt.Errorf("in %s lies the manifest of recording %s: %w", b.at.prefix, o.Manifest.ID, recorder.ErrTampered)
	}
	b.content = evidence.Content{Manifest: o.JSON, Audio: b.audio}
	if err := b.prove(o.Link, q, entries); err != nil {
		return nil, err
	}
	err = b.playable(o.Manifest)
	return b, err
}

// prove adds what shows whose the recording is.
func (b *Bundle) prove(signed []byte, q ProofQuery, entries bool) error {
	if log := b.a.proof.log.Load(); log != nil {
		b.content.Ring = log.Identity().Ring()
		b.content.Sign = b.sign(log.Identity())
	}
	if signed == nil {
		return nil
	}
	logs, stored, err := audit.Stored(b.ctx, b.a.Store(), "")
	if err != nil && b.content.Ring == nil && q.Ring == nil {
		return err
	}
	rings := b.a.rings(q, stored)
	l, err := rings.OpenLink(signed)
	if err != nil {
		return err
	}
	if r := rings.Of(signed); r != b.content.Ring {
		b.content.Ring, b.content.Sign = r, nil // another node's: it is not ours to sign for
	}
	b.content.Link = signed
	if dir, node, ok := b.a.own(q); ok && node == l.Node {
		if err := b.place(dir.Epoch(l.Epoch), l, entries); err != nil || b.content.Proof != nil {
			return err
		}
	}
	for _, log := range logs {
		if log.Node == l.Node && log.Epoch == l.Epoch {
			return b.placeStored(log, l, entries)
		}
	}
	return nil // README and verify say that its place is not proved
}

// placeStored adds the place of the link in a log in the store: that of another
// node, or what the disk of this one has no more.
func (b *Bundle) placeStored(log audit.StoredLog, l *audit.Link, entries bool) error {
	line, proof, err := log.Prove(b.ctx, l.Entry)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // as above
	}
	if err != nil {
		return err
	}
	if _, err := proof.Check(b.content.Ring, line); err != nil {
		return fmt.Errorf("log %s in the store does not prove entry %d (trunktap verify tells more): %w: %w", log.Name(), l.Entry, recorder.ErrTampered, err)
	}
	b.content.Entry, b.content.Proof = line, &proof
	if !entries {
		return nil
	}
	return log.Each(b.ctx, b.about(l.Recording), func([]byte) error { return nil })
}

// about takes the entries that name a recording.
func (b *Bundle) about(id string) func(line []byte) error {
	b.content.Log = nil
	needle := []byte(`"recording":"` + id + `"`)
	return func(line []byte) error {
		if bytes.Contains(line, needle) && len(b.content.Log) < bundleLogMax {
			b.content.Log = append(b.content.Log, bytes.Clone(line))
		}
		return nil
	}
}

// place adds the place of the link in the log.
func (b *Bundle) place(e audit.Epoch, l *audit.Link, entries bool) error {
	line, err := e.Entry(l.Entry)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // as above
	}
	if err != nil {
		return err
	}
	b.content.Entry = line
	proof, err := e.Prove(l.Entry)
	if log := b.a.proof.log.Load(); errors.Is(err, fs.ErrNotExist) && log != nil {
		if err = log.CheckpointNow(); err == nil {
			proof, err = e.Prove(l.Entry)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		b.content.Proof = &proof
	}
	if !entries {
		return nil
	}
	return e.Each(b.ctx, 0, b.about(l.Recording), func([]byte) error { return nil })
}

// sign signs for the node.
func (b *Bundle) sign(id *audit.Identity) func(text string) ([]byte, error) {
	return func(text string) ([]byte, error) {
		signed, err := id.Sign(text)
		if err != nil {
			return nil, err
		}
		_, _, sig, err := id.Ring().Open(signed)
		return sig, err
	}
}

// playable opens the recording as one file, in its own format where it is short
// enough for that.
func (b *Bundle) playable(m *recorder.Manifest) (err error) {
	if len(m.Segments) == 0 {
		return nil
	}
	b.media, err = b.a.Media(b.ctx, m.ID, "")
	if errors.Is(err, ErrTooLong) {
		b.media, err = b.a.Media(b.ctx, m.ID, codec.WAVPCM16)
	}
	if err != nil {
		return err
	}
	b.content.PlayableExt = ".wav"
	switch b.media.ContentType {
	case "audio/ogg":
		b.content.PlayableExt = ".ogg"
	case "audio/flac":
		b.content.PlayableExt = ".flac"
	}
	b.content.Playable = func(w io.Writer) error {
		if _, err := io.Copy(w, b.media); err != nil {
			return err
		}
		if bad := b.media.Damage(); len(bad) > 0 {
			return &DamageError{Findings: bad}
		}
		return nil
	}
	return nil
}

// audio writes the sound of a segment.
func (b *Bundle) audio(w io.Writer, s recorder.Segment) error {
	blob, err := b.a.open(b.ctx, b.at, s.File)
	if err != nil {
		return err
	}
	defer func() { _ = blob.Close() }() // only read
	r, err := segment.Open(b.ctx, blob, b.a.keys(b.at), segment.Want{Recording: b.at.id(), N: s.N})
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		a, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(a.Data); err != nil {
			return err
		}
	}
}

// Write writes the bundle as it reads the recording. The same recording gives
// the same bytes, as long as its node has the same keys. A damaged recording gives
// none: an error ends it halfway.
func (b *Bundle) Write(w io.Writer) error { return evidence.Write(w, b.content) }

// Close lets go of the recording.
func (b *Bundle) Close() {
	if b.media != nil {
		_ = b.media.Close() // only read
	}
	b.release()
}
