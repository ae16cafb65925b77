package audit

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder/vfs"
)

// waitingMax bounds what is read of an inbox at a time.
const waitingMax = 10_000

// readInbox reads the entries that others left, oldest first.
func (c *core) readInbox(most int) []*request {
	dir := filepath.Join(c.cfg.Dir, inboxDir)
	files, err := c.cfg.FS.ReadDir(dir)
	if err != nil {
		return nil // none, or tried again
	}
	var out []*request
	for _, f := range files {
		if strings.HasPrefix(f.Name(), vfs.TempPrefix) || !strings.HasSuffix(f.Name(), ".json") || len(out) == most {
			continue
		}
		name := filepath.Join(dir, f.Name())
		js, err := vfs.ReadFile(c.cfg.FS, name, EntryBytesMax)
		if err != nil {
			continue // tried again
		}
		var e Entry
		if json.Unmarshal(js, &e) != nil || e.Kind == "" || e.Link != nil {
			e = Entry{Kind: KindLoss, What: "an entry of the inbox was not readable: " + f.Name()}
		}
		out = append(out, &request{entry: e, file: name})
	}
	return out
}

// dropInbox removes what the log has now. What stays is written twice.
func (c *core) dropInbox(batch []*request) {
	for _, r := range batch {
		if r.file != "" {
			_ = c.cfg.FS.Remove(r.file) // it is tried again
		}
	}
	_ = c.cfg.FS.SyncDir(filepath.Join(c.cfg.Dir, inboxDir)) // it is tried again
}

// Drop leaves an entry in the inbox of a log that another process may own; it is
// durable when it returns nil, and the log takes it up later.
func Drop(fsys vfs.FS, dir string, e Entry, now time.Time) error {
	e.Happened = now
	js, err := e.line()
	if err != nil {
		return err
	}
	inbox := filepath.Join(dir, inboxDir)
	if err := vfs.MkdirAll(fsys, inbox); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	name, err := vfs.TempName(filepath.Join(inbox, "x"))
	if err != nil {
		return err
	}
	unique := strings.TrimPrefix(filepath.Base(name), vfs.TempPrefix)
	if err := vfs.WriteFile(fsys, filepath.Join(inbox, now.UTC().Format("20060102T150405.000000000Z-")+unique+".json"), js); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// Waiting returns the entries that others left and that the log has not taken up.
func (d Dir) Waiting() (out []Entry) {
	c := &core{cfg: Config{FS: d.fsys, Dir: d.path}}
	for _, r := range c.readInbox(waitingMax) {
		out = append(out, r.entry)
	}
	return out
}
