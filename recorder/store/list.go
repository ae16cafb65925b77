package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/trunktap/trunktap/recorder"
)

var _ FromLister = (*Dir)(nil)

// ListFrom implements FromLister.
func (d *Dir) ListFrom(ctx context.Context, from string, f func(recorder.BlobInfo) error) error {
	if err := d.list(ctx, "", "", from, f); err != nil {
		return fmt.Errorf("list from %q: %w", from, err)
	}
	return nil
}

// List implements recorder.Store.
func (d *Dir) List(ctx context.Context, prefix string, f func(recorder.BlobInfo) error) error {
	// Folders above the one that the prefix names hold nothing else that it names, and
	// may hold a day's thousands.
	dir := prefix[:strings.LastIndexByte(prefix, '/')+1]
	if dir != "" && CheckName(strings.TrimSuffix(dir, "/")) != nil {
		return nil //nolint:nilerr // nothing can be called so
	}
	if err := d.list(ctx, dir, prefix, "", f); err != nil {
		return fmt.Errorf("list %q: %w", prefix, err)
	}
	return nil
}

// list walks one folder; dir is empty or ends with a slash.
func (d *Dir) list(ctx context.Context, dir, prefix, from string, f func(recorder.BlobInfo) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := d.fsys.ReadDir(d.path(dir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		name := dir + e.Name()
		if e.IsDir() {
			name += "/"
		}
		if strings.HasPrefix(e.Name(), ".") || !strings.HasPrefix(name, prefix) && !(e.IsDir() && strings.HasPrefix(prefix, name)) {
			continue
		}
		names = append(names, name)
	}
	// With its slash a folder sorts where its objects belong.
	slices.Sort(names)
	for _, name := range names {
		if name < from && !(strings.HasSuffix(name, "/") && strings.HasPrefix(from, name)) {
			continue
		}
		if strings.HasSuffix(name, "/") {
			err = d.list(ctx, name, prefix, from, f)
		} else {
			err = d.listOne(name, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) listOne(name string, f func(recorder.BlobInfo) error) error {
	info, err := d.fsys.Stat(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if errors.Is(err, syscall.ELOOP) {
		return f(recorder.BlobInfo{Name: name}) // a link that leads nowhere: who opens it is told, and the rest is listed
	}
	if err != nil {
		return err
	}
	return f(recorder.BlobInfo{Name: name, Size: info.Size(), Modified: info.ModTime()})
}
