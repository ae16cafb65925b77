// Package store keeps finished objects durably; this is the store in a
// directory. The suite in storetest says what every store must do.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// Limits of names.
const (
	nameBytesMax = 512
	nameDepthMax = 16 // parts between slashes
)

// NameError tells why a name is none.
type NameError struct{ Name, Why string }

// Error implements error.
func (e *NameError) Error() string { return fmt.Sprintf("object name %q: %s", e.Name, e.Why) }

// CheckName tells whether a name can name an object: relative, slash separated
// parts of lower-case letters, digits, '-', '.', '_', 'T' and 'Z', none of which begins
// with '.'.
func CheckName(name string) error {
	switch {
	case name == "":
		return &NameError{name, "is empty"}
	case len(name) > nameBytesMax:
		return &NameError{name[:32] + "…", fmt.Sprintf("has %d bytes, at most %d", len(name), nameBytesMax)}
	}
	parts := strings.Split(name, "/")
	if len(parts) > nameDepthMax {
		return &NameError{name, fmt.Sprintf("has %d parts, at most %d", len(parts), nameDepthMax)}
	}
	for _, p := range parts {
		if p == "" || p[0] == '.' {
			return &NameError{name, "has a part that is empty or begins with '.'"}
		}
		for _, c := range []byte(p) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("-._TZ", rune(c)) {
				return &NameError{name, fmt.Sprintf("character %q is not allowed", c)}
			}
		}
	}
	return nil
}

// DirConfig configures a store in a directory.
type DirConfig struct {
	Root         string // made when it does not exist
	FS           vfs.FS // nil: the machine's
	FreeBytesMin int64  // Check fails when fewer bytes are free; 0: no limit
	ReadOnly     bool   // nothing is made or checked at Open
}

// Dir is a store in a directory. It is safe for concurrent use by one process.
type Dir struct {
	root         string
	fsys         vfs.FS
	freeBytesMin int64

	// Lock order: names before tree. Names makes steps on one object follow
	// each other; tree keeps Delete from removing a folder that another call has just made.
	names [64]sync.Mutex
	tree  sync.RWMutex
	mkdir sync.Mutex // a folder is used only when its entry is durable
	made  string     // guarded by mkdir: the folder that was made or found last
	above string     // the same: the folder above one that folders were moved into last

	ready     map[string]struct{} // the same: folders that are durable, and into which one is about to be moved
	forgotten uint64              // the same: how often what is remembered was dropped
}

var _ recorder.Store = (*Dir)(nil)

// OpenDir opens the store and makes its directory.
func OpenDir(cfg DirConfig) (*Dir, error) {
	d := &Dir{root: filepath.Clean(cfg.Root), fsys: cfg.FS, freeBytesMin: cfg.FreeBytesMin, ready: map[string]struct{}{}}
	if d.fsys == nil {
		d.fsys = vfs.OS{}
	}
	if cfg.ReadOnly {
		return d, nil
	}
	if err := vfs.MkdirAll(d.fsys, d.root); err != nil {
		return nil, &CheckError{d.root, "make the directory writable for the daemon's user", err}
	}
	return d, nil
}

func (d *Dir) lock(name string) *sync.Mutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return &d.names[h.Sum32()%uint32(len(d.names))]
}

func (d *Dir) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

// folder makes the folder of an object.
func (d *Dir) folder(name string) error {
	dir := filepath.Dir(d.path(name))
	d.mkdir.Lock()
	defer d.mkdir.Unlock()
	if dir == d.made {
		return nil
	}
	if err := vfs.MkdirAll(d.fsys, dir); err != nil {
		return err
	}
	d.made = dir
	return nil
}

// forget makes the next call of folder look again.
func (d *Dir) forget() {
	d.mkdir.Lock()
	defer d.mkdir.Unlock()
	d.made, d.above = "", ""
	d.forgotten++
	clear(d.ready)
}

// hold keeps others from changing an object, and folders on the way to it from
// being removed, until release is called.
func (d *Dir) hold(ctx context.Context, name string) (release func(), err error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l := d.lock(name)
	l.Lock()
	d.tree.RLock()
	return func() {
		d.tree.RUnlock()
		l.Unlock()
	}, nil
}

// Publish implements recorder.Store. The local file may lie on another file
// system; it is copied then.
func (d *Dir) Publish(ctx context.Context, name, localFile string) error {
	if err := d.publish(ctx, name, localFile); err != nil {
		d.forget() // what it remembers may be why
		return fmt.Errorf("publish %s: %w", name, err)
	}
	return nil
}

func (d *Dir) publish(ctx context.Context, name, localFile string) error {
	release, err := d.hold(ctx, name)
	if err != nil {
		return err
	}
	defer release()

	target := d.path(name)
	same, err := d.same(target, localFile)
	switch {
	case err != nil:
		return err
	case same:
		return d.adopt(target, localFile)
	}
	if err := d.folder(name); err != nil {
		return err
	}
	if err := d.sync(localFile); err != nil {
		return err
	}
	err = d.fsys.Rename(localFile, target)
	if errors.Is(err, syscall.EXDEV) {
		return d.copyIn(target, localFile)
	}
	if err != nil {
		return err
	}
	return d.fsys.SyncDir(filepath.Dir(target))
}

// same tells whether the target has the local file's content already; it is an
// error when it has other content. A local file that is gone while the target
// exists was published by a call that failed in its last step.
func (d *Dir) same(target, localFile string) (bool, error) {
	there, err := d.fsys.OpenFile(target, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = there.Close() }() // only read
	local, err := d.fsys.OpenFile(localFile, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = local.Close() }() // only read
	equal, err := equalContent(there, local)
	if err != nil {
		return false, err
	}
	if !equal {
		return false, recorder.ErrExists
	}
	return true, nil
}

func equalContent(a, b io.Reader) (bool, error) {
	var bufA, bufB [32 << 10]byte
	for {
		n, errA := io.ReadFull(a, bufA[:])
		m, errB := io.ReadFull(b, bufB[:])
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		endA, endB := ended(errA), ended(errB)
		switch {
		case errA != nil && !endA:
			return false, errA
		case errB != nil && !endB:
			return false, errB
		case endA || endB:
			return endA == endB, nil
		}
	}
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// adopt makes sure that content found in place is durable and removes the local file.
func (d *Dir) adopt(target, localFile string) error {
	if err := d.sync(target); err != nil {
		return err
	}
	if err := d.fsys.SyncDir(filepath.Dir(target)); err != nil {
		return err
	}
	return d.removeLocal(localFile)
}

func (d *Dir) removeLocal(localFile string) error {
	if err := d.fsys.Remove(localFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d *Dir) sync(name string) error {
	f, err := d.fsys.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close() // the sync's error is the one to report
		return err
	}
	return f.Close()
}

// copyIn publishes a file of another file system.
func (d *Dir) copyIn(target, localFile string) error {
	if err := d.copyTo(target, localFile); err != nil {
		return err
	}
	return d.removeLocal(localFile)
}

// copyTo makes the target a durable copy of the local file, in one step.
func (d *Dir) copyTo(target, localFile string) error {
	tmp, err := vfs.TempName(target)
	if err != nil {
		return err
	}
	err = d.copyFile(tmp, localFile)
	if err == nil {
		err = d.fsys.Rename(tmp, target)
	}
	if err != nil {
		_ = d.fsys.Remove(tmp) // the first error is the one to report
		return err
	}
	return d.fsys.SyncDir(filepath.Dir(target))
}

func (d *Dir) copyFile(to, from string) error {
	src, err := d.fsys.OpenFile(from, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // only read
	dst, err := d.fsys.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = io.Copy(dst, src); err == nil {
		err = dst.Sync()
	}
	if err != nil {
		_ = dst.Close() // the first error is the one to report
		return err
	}
	return dst.Close()
}

// Put implements recorder.Store.
func (d *Dir) Put(ctx context.Context, name string, content []byte) error {
	release, err := d.hold(ctx, name)
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	defer release()
	if err = d.folder(name); err == nil {
		err = vfs.WriteFile(d.fsys, d.path(name), content)
	}
	if err != nil {
		d.forget() // what it remembers may be why
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// blob is an open object.
type blob struct {
	vfs.File
	size int64
}

// Size implements recorder.Blob.
func (b blob) Size() int64 { return b.size }

// Open implements recorder.Store.
func (d *Dir) Open(_ context.Context, name string) (recorder.Blob, error) {
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	// A pipe that somebody put there is waited for by nobody.
	f, err := d.fsys.OpenFile(d.path(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, notFound(err))
	}
	info, err := f.Stat()
	switch {
	case err != nil: // told below
	case info.IsDir():
		err = recorder.ErrNotFound
	case !info.Mode().IsRegular():
		err = fmt.Errorf("it is no file (%s)", info.Mode().Type())
	}
	if err != nil {
		_ = f.Close() // only read
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return blob{f, info.Size()}, nil
}

// notFound translates what the file system says of a missing object.
func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) {
		return recorder.ErrNotFound
	}
	return err
}

// Delete implements recorder.Store. Folders that become empty go too.
func (d *Dir) Delete(ctx context.Context, name string) error {
	if err := d.delete(ctx, name); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

func (d *Dir) delete(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	l := d.lock(name)
	l.Lock()
	defer l.Unlock()
	target := d.path(name)
	info, err := d.fsys.Stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		// A Delete before may have failed to make it durable.
		if serr := d.fsys.SyncDir(filepath.Dir(target)); serr != nil && !errors.Is(serr, fs.ErrNotExist) {
			return serr
		}
	}
	if err != nil {
		return notFound(err)
	}
	if info.IsDir() {
		return recorder.ErrNotFound
	}
	if err := d.remove(target); err != nil {
		return err
	}
	d.prune(filepath.Dir(target))
	return nil
}

func (d *Dir) remove(target string) error {
	d.tree.RLock()
	defer d.tree.RUnlock()
	if err := d.fsys.Remove(target); err != nil {
		return notFound(err)
	}
	return d.fsys.SyncDir(filepath.Dir(target))
}

// prune removes folders upwards as long as they are empty.
func (d *Dir) prune(dir string) {
	d.tree.Lock()
	defer d.tree.Unlock()
	defer d.forget()
	for dir != d.root && strings.HasPrefix(dir, d.root) {
		if d.fsys.Remove(dir) != nil {
			return // not empty, or it stays: an empty folder harms nobody
		}
		dir = filepath.Dir(dir)
	}
}
