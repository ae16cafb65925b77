package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// Orders lie in a folder of the spool for their kind until they are carried out.

func (a *Archive) orderFile(dir, id string) string { return a.spool(dir, id+".json") }

// saveOrder makes an order durable.
func (a *Archive) saveOrder(dir, id string, o any) error {
	js, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := vfs.MkdirAll(a.fsys, a.spool(dir)); err != nil {
		return err
	}
	return vfs.WriteFile(a.fsys, a.orderFile(dir, id), js)
}

func (a *Archive) hasOrder(dir, id string) bool {
	_, err := a.fsys.Stat(a.orderFile(dir, id))
	return err == nil
}

// dropOrder forgets an order.
func (a *Archive) dropOrder(dir, id string) error { return a.removeFile(a.orderFile(dir, id)) }

// removeFile removes a file; that there is none is no error.
func (a *Archive) removeFile(name string) error {
	if err := a.fsys.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// deleteObject deletes an object; that there is none is no error.
func deleteObject(ctx context.Context, st recorder.Store, name string) error {
	if err := st.Delete(ctx, name); !errors.Is(err, recorder.ErrNotFound) {
		return err
	}
	return nil
}

// eachOrder calls f for every order in a folder of the spool, and returns how many f says
// are done.
func (a *Archive) eachOrder(ctx context.Context, dir string, f func(ctx context.Context, name string) (bool, error)) (n int, failed error) {
	entries, err := a.fsys.ReadDir(a.spool(dir))
	if err != nil || a.cfg.ReadOnly {
		return 0, nil //nolint:nilerr // there is none, or it is tried again
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			break
		}
		name := a.spool(dir, e.Name())
		if !strings.HasSuffix(e.Name(), ".json") || strings.HasPrefix(e.Name(), vfs.TempPrefix) {
			a.shredding.Lock() // nobody is at it: it was torn by a crash, and promised to nobody
			_ = a.fsys.Remove(name)
			a.shredding.Unlock()
			continue
		}
		done, err := f(ctx, name)
		if done {
			n++
		}
		failed = errors.Join(failed, err)
	}
	return n, failed
}

// readOrder reads an order; false: it was carried out just now, or the error says why not.
func (a *Archive) readOrder(name string, into any) (there bool, err error) {
	js, err := vfs.ReadFile(a.fsys, name, markerBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(js, into)
	}
	if err != nil {
		return false, fmt.Errorf("read order %s: %w", name, err)
	}
	return true, nil
}
