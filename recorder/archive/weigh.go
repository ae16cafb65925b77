package archive

import (
	"context"
	"path"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
)

// weigh completes a row by who recorded it and by the sizes of its objects but
// for its audio, which the manifest tells. Of a recording that the store has not
// yet, the spool is asked.
func (a *Archive) weigh(ctx context.Context, r *recorder.Row) error {
	if r.Node == "" {
		r.Node = a.cfg.Node
	}
	if r.ManifestBytes > 0 {
		return nil
	}
	s, err := a.shelf(r.Store)
	if err != nil {
		return err
	}
	switch {
	case r.Spooled && r.Manifest.Shredded != nil:
		return a.weighShredded(ctx, s, r)
	case !r.Spooled:
		err = weighIn(ctx, s.store, r)
	}
	if err != nil || r.ManifestBytes > 0 {
		return err
	}
	r.OtherBytes = 0
	if info, err := a.fsys.Stat(a.spool(r.Manifest.ID, segment.ManifestFile)); err == nil {
		r.ManifestBytes = info.Size()
	}
	if info, err := a.fsys.Stat(a.spool(r.Manifest.ID, segment.KeyFile)); err == nil {
		r.OtherBytes = info.Size()
	}
	return nil
}

// row is that of the recording with the sizes of what was written here.
func (s *sink) row(m *recorder.Manifest, spooled bool) recorder.Row {
	r := s.at.row(m, spooled)
	if s.keySize > 0 { // else a process before wrote it
		r.ManifestBytes, r.OtherBytes = int64(len(s.content)), s.keySize
	}
	return r
}

// weighIn asks a store.
func weighIn(ctx context.Context, s recorder.Store, r *recorder.Row) error {
	return s.List(ctx, r.Prefix+"/", func(i recorder.BlobInfo) error {
		dir, base := path.Split(i.Name)
		switch {
		case path.Clean(dir) != r.Prefix: // of a recording whose folder lies in this one
		case base == segment.ManifestFile:
			r.ManifestBytes = i.Size
		case other(base) || r.Manifest.Shredded != nil && base != markerFile:
			r.OtherBytes += i.Size // audio that nobody can read is none, and takes room all the same
		}
		return nil
	})
}

// weighShredded weighs a shredded recording of which the spool has some and its
// store the rest: no manifest tells of its audio any more.
func (a *Archive) weighShredded(ctx context.Context, s *shelf, r *recorder.Row) error {
	sizes := map[string]int64{}
	note := func(i recorder.BlobInfo) error {
		if dir, base := path.Split(i.Name); path.Clean(dir) == r.Prefix && base != markerFile {
			sizes[base] = i.Size
		}
		return nil
	}
	if err := s.store.List(ctx, r.Prefix+"/", note); err != nil {
		return err
	}
	if err := (spoolStore{a, place{s, r.Prefix}}).List(ctx, "", note); err != nil {
		return err
	}
	r.ManifestBytes, r.OtherBytes = 0, 0
	for name, size := range sizes {
		if name == segment.ManifestFile {
			r.ManifestBytes = size
			continue
		}
		r.OtherBytes += size
	}
	return nil
}

// weight is what weighIn finds of a recording of which so many bytes were carried.
func weight(manifest int64, sizes map[string]int64) (r recorder.Row) {
	r.ManifestBytes = manifest
	for name, size := range sizes {
		if other(name) {
			r.OtherBytes += size
		}
	}
	return r
}

// other tells whether an object is neither audio nor the manifest.
func other(name string) bool {
	_, audio := segment.NumberOf(name)
	return !audio && !isEncoded(name) && name != markerFile && name != segment.ManifestFile
}
