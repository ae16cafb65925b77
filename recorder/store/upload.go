package store

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/trunktap/trunktap/recorder"
)

var _ recorder.Uploader = (*Dir)(nil)

// Upload implements recorder.Uploader.
func (d *Dir) Upload(ctx context.Context, name, localFile string) error {
	if err := d.upload(ctx, name, localFile); err != nil {
		d.forget() // what it remembers may be why
		return fmt.Errorf("upload %s: %w", name, err)
	}
	return nil
}

func (d *Dir) upload(ctx context.Context, name, localFile string) error {
	release, err := d.hold(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	target := d.path(name)
	if _, err := d.fsys.Stat(localFile); err != nil {
		return err // else a target that is there would be taken for it
	}
	same, err := d.same(target, localFile)
	if err != nil {
		return err
	}
	if same { // it may be of a call that failed in its last step
		return d.fsys.SyncDir(filepath.Dir(target))
	}
	if err := d.folder(name); err != nil {
		return err
	}
	return d.copyTo(target, localFile)
}
