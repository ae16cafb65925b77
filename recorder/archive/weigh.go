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
	if !r.Spooled {
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

// weighIn asks a store.
func weighIn(ctx context.Context, s recorder.Store, r *recorder.Row) error {
	return s.List(ctx, r.Prefix+"/", func(i recorder.BlobInfo) error {
		dir, base := path.Split(i.Name)
		_, audio := segment.NumberOf(base)
		switch {
		case path.Clean(dir) != r.Prefix: // of a recording whose folder lies in this one
		case base == segment.ManifestFile:
			r.ManifestBytes = i.Size
		case !audio && !isEncoded(base) && base != markerFile:
			r.OtherBytes += i.Size
		}
		return nil
	})
}
