package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// PublishFolder moves a local folder of finished files into the store, all of
// them in one step; name is that of the folder there. It calls durable with the
// directories whose entries are to be made durable: when it returns nil they
// are, and the local folder is gone. It may be called again after an error.
// syscall.EXDEV when the folder lies on another file system; recorder.ErrExists
// when the name is taken.
func (d *Dir) PublishFolder(ctx context.Context, name, localDir string, durable func(dirs ...string) error) error {
	if err := d.publishFolder(ctx, name, localDir, durable); err != nil {
		d.forget() // what it remembers may be why
		return fmt.Errorf("publish %s: %w", name, err)
	}
	return nil
}

func (d *Dir) publishFolder(ctx context.Context, name, localDir string, durable func(dirs ...string) error) error {
	release, err := d.hold(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	if err := d.parent(name, durable); err != nil {
		return err
	}
	if err := d.moveFolder(name, localDir); err != nil {
		return err
	}
	return durable(filepath.Dir(d.path(name)))
}

// parent makes the folder that a folder is moved into. Its own entry becomes
// durable together with what others want durable then, and before anything is
// moved into it: else a crash could lose both.
func (d *Dir) parent(name string, durable func(dirs ...string) error) error {
	dir := filepath.Dir(d.path(name))
	up, err := d.makeParent(dir)
	if err == nil && up != "" {
		err = durable(up)
	}
	if err != nil {
		return err
	}
	d.mkdir.Lock()
	defer d.mkdir.Unlock()
	delete(d.ready, dir)
	d.made = dir
	return nil
}

// makeParent makes a folder to move others into, and returns the directory whose
// entries must be durable for it to be; empty: it is.
func (d *Dir) makeParent(dir string) (up string, err error) {
	d.mkdir.Lock()
	_, known := d.ready[dir]
	known = known || dir == d.made
	if up = filepath.Dir(dir); !known && dir != d.root && up != d.above {
		if err = vfs.MkdirAll(d.fsys, up); err == nil {
			d.above = up
		}
	}
	d.mkdir.Unlock()
	if err != nil || known {
		return "", err
	}
	err = d.fsys.Mkdir(dir, folderMode)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if dir == d.root {
		return "", nil
	}
	return up, nil
}

// readyMax bounds the folders that are made and not yet moved into.
const readyMax = 4096

// PrepareFolder makes, ahead of PublishFolder, what a folder is moved into. It
// returns the directory whose entries are to be made durable, with whatever else
// is, and what to call then; an empty one needs nothing. PublishFolder does by
// itself what was not done here.
func (d *Dir) PrepareFolder(name string) (up string, made func()) {
	made = func() {}
	if CheckName(name) != nil {
		return "", made
	}
	dir := filepath.Dir(d.path(name))
	d.mkdir.Lock()
	since := d.forgotten
	d.mkdir.Unlock()
	up, err := d.makeParent(dir)
	if err != nil || up == "" {
		return "", made
	}
	return up, func() {
		d.mkdir.Lock()
		defer d.mkdir.Unlock()
		if since == d.forgotten && len(d.ready) < readyMax { // else it may have been removed
			d.ready[dir] = struct{}{}
		}
	}
}

// folderMode keeps recordings from everybody but the daemon's user.
const folderMode fs.FileMode = 0o700

func (d *Dir) moveFolder(name, localDir string) error {
	target := d.path(name)
	err := d.fsys.Rename(localDir, target)
	switch {
	case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTEMPTY):
		return recorder.ErrExists
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if _, serr := d.fsys.Stat(localDir); serr == nil {
		return err // somebody removed the folder in the store
	} else if !errors.Is(serr, fs.ErrNotExist) {
		return serr
	}
	if _, serr := d.fsys.Stat(target); serr != nil {
		return err
	}
	return nil // a call before failed in its last step
}
