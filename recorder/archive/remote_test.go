package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// errRemote is what a store somewhere else fails with.
var errRemote = errors.New("remote: 503 slow down")

// remote is a store somewhere else, in memory. It outlives the machine that uses
// it, and fails as told: at the n-th operation, or as long as it is down.
type remote struct {
	fsys vfs.FS // of who uploads

	unchecked bool // of halves

	mu      sync.Mutex
	objects map[string][]byte
	ops     int
	at      int  // operation that fails; 0: none
	times   int  // and so many from then on; 0: it alone
	done    bool // and has its effect all the same
	down    bool
	halves  []string // manifests that came before what they name

	part   int64 // size of a part; negative: none are taken
	open   map[int]*remoteUpload
	opened int // uploads so far
	parts  int // so far
}

func newRemote(fsys vfs.FS) *remote { return &remote{fsys: fsys, objects: map[string][]byte{}} }

// step is one operation.
func (r *remote) step(do func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops++
	hit := r.at > 0 && r.ops >= r.at && r.ops < r.at+max(r.times, 1)
	if r.down || hit && !r.done {
		return fmt.Errorf("operation %d: %w", r.ops, errRemote)
	}
	do()
	if hit {
		return fmt.Errorf("operation %d: %w", r.ops, errRemote)
	}
	return nil
}

// Upload implements recorder.Uploader.
func (r *remote) Upload(_ context.Context, name, localFile string) error {
	content, err := vfs.ReadFile(r.fsys, localFile, 1<<30)
	if err != nil {
		return err
	}
	serr := r.step(func() {
		if was, ok := r.objects[name]; ok && !bytes.Equal(was, content) {
			err = recorder.ErrExists
			return
		}
		r.objects[name] = content
	})
	return errors.Join(serr, err)
}

// Publish implements recorder.Store.
func (r *remote) Publish(ctx context.Context, name, localFile string) error {
	if err := r.Upload(ctx, name, localFile); err != nil {
		return err
	}
	return r.fsys.Remove(localFile)
}

// Put implements recorder.Store.
func (r *remote) Put(_ context.Context, name string, content []byte) error {
	return r.step(func() {
		if path.Base(name) == segment.ManifestFile && !r.unchecked {
			if half := r.lacks(path.Dir(name), content); half != "" {
				r.halves = append(r.halves, half)
			}
		}
		r.objects[name] = bytes.Clone(content)
	})
}

// lacks names what a manifest tells of that is not there.
func (r *remote) lacks(prefix string, content []byte) string {
	rec, err := segment.ParseKeyRecord(r.objects[prefix+"/"+segment.KeyFile])
	if err != nil {
		return err.Error()
	}
	m, _, err := segment.OpenManifest(context.Background(), memBlob{bytes.NewReader(content)}, segment.Keyed(testSealer(), rec.Key))
	if err != nil {
		return err.Error()
	}
	for _, s := range m.Segments {
		if int64(len(r.objects[prefix+"/"+s.File])) != s.Bytes {
			return prefix + "/" + s.File
		}
	}
	return ""
}

type memBlob struct{ *bytes.Reader }

func (memBlob) Close() error  { return nil }
func (b memBlob) Size() int64 { return b.Reader.Size() }

var _ io.ReaderAt = memBlob{}

// Open implements recorder.Store.
func (r *remote) Open(_ context.Context, name string) (b recorder.Blob, err error) {
	serr := r.step(func() {
		content, ok := r.objects[name]
		if !ok {
			err = recorder.ErrNotFound
		}
		b = memBlob{bytes.NewReader(content)}
	})
	if err = errors.Join(serr, err); err != nil {
		return nil, err
	}
	return b, nil
}

// List implements recorder.Store.
func (r *remote) List(_ context.Context, prefix string, f func(recorder.BlobInfo) error) error {
	var found []recorder.BlobInfo
	err := r.step(func() {
		for _, name := range slices.Sorted(maps.Keys(r.objects)) {
			if strings.HasPrefix(name, prefix) {
				found = append(found, recorder.BlobInfo{Name: name, Size: int64(len(r.objects[name]))})
			}
		}
	})
	for _, i := range found {
		if err == nil {
			err = f(i)
		}
	}
	return err
}

// Delete implements recorder.Store.
func (r *remote) Delete(_ context.Context, name string) (err error) {
	serr := r.step(func() {
		if _, ok := r.objects[name]; !ok {
			err = recorder.ErrNotFound
		}
		delete(r.objects, name)
	})
	return errors.Join(serr, err)
}

// Check implements recorder.Store.
func (r *remote) Check(context.Context) error { return r.step(func() {}) }

func (r *remote) set(f func(*remote)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

func (r *remote) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.objects))
}
