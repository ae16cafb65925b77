package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/trunktap/trunktap/recorder/vfs"
)

// core is one log and its files, owned by one goroutine. What commit has not
// said to be durable is not: it is cut off or written over.
type core struct {
	cfg   Config // constant
	dir   string // of the epoch
	epoch string

	n      int64     // entries
	last   time.Time // of the last one
	seq    int64     // of the last link
	prev   string    // its hash
	recent recent
	at     Checkpoint // the last one

	file   vfs.File // of entries
	first  int64    // index of its first one
	size   int64    // bytes
	ragged bool     // the file may be longer

	points     vfs.File // of checkpoints; nil: none yet
	pointsSize int64
	tree       *tree

	unclean bool // it did not end with daemon.stopped
}

// recent remembers the last links of recordings in two generations.
type recent struct{ young, old map[string]string }

func (r *recent) get(id string) string {
	if h, ok := r.young[id]; ok {
		return h
	}
	return r.old[id]
}

func (r *recent) put(id, hash string) {
	if r.young == nil || len(r.young) >= recentMax {
		r.old, r.young = r.young, map[string]string{}
	}
	r.young[id] = hash
}

// errRolledBack says that a log does not reach its last checkpoint, or differs from it.
var errRolledBack = errors.New("the log does not fit its last signed checkpoint")

func openCore(cfg Config) (*core, error) {
	if err := vfs.MkdirAll(cfg.FS, filepath.Join(cfg.Dir, inboxDir)); err != nil {
		return nil, err
	}
	epochs, err := OpenDir(cfg.FS, cfg.Dir).Epochs()
	if err != nil {
		return nil, err
	}
	if len(epochs) == 0 {
		return beginCore(cfg, "", []Entry{{Kind: KindBegun}})
	}
	last := epochs[len(epochs)-1]
	c := &core{cfg: cfg, epoch: last, dir: filepath.Join(cfg.Dir, last)}
	err = c.load()
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, errRolledBack), errors.Is(err, errEmpty):
		what := fmt.Sprintf("log %s: %v; it stays beside this one", last, err)
		if errors.Is(err, errEmpty) {
			what = fmt.Sprintf("log %s has no entry", last)
		}
		begun := Entry{Kind: KindBegun, What: "after " + last}
		return beginCore(cfg, last, []Entry{begun, {Kind: KindBroken, What: what}})
	}
	return nil, err
}

// errEmpty says that a crash came before the first entry.
var errEmpty = errors.New("the log is empty")

// beginCore makes a new log.
func beginCore(cfg Config, after string, first []Entry) (*core, error) {
	c := &core{cfg: cfg, prev: zeroHash}
	now := cfg.Now().UTC()
	for c.epoch = now.Format(epochLayout); c.epoch <= after; c.epoch = now.Format(epochLayout) {
		t, err := time.Parse(epochLayout, after) // the clock went back
		if err != nil {
			return nil, err
		}
		now = t.Add(time.Millisecond)
	}
	c.dir = filepath.Join(cfg.Dir, c.epoch)
	if err := vfs.MkdirAll(cfg.FS, c.dir); err != nil {
		return nil, err
	}
	if err := c.openTree(); err != nil {
		return nil, err
	}
	if err := c.rotate(); err != nil {
		return nil, err
	}
	batch := make([]*request, len(first))
	for i, e := range first {
		batch[i] = &request{entry: e}
	}
	err := c.commit(batch)
	return c, err
}

func (c *core) openTree() error {
	f, err := c.cfg.FS.OpenFile(filepath.Join(c.dir, treeFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	c.tree = &tree{file: f}
	return nil
}

// rotate begins a new file of entries.
func (c *core) rotate() error {
	if c.points != nil { // of a checkpoint that failed something may be left
		if err := c.points.Truncate(c.pointsSize); err != nil {
			return err
		}
		if err := c.points.Sync(); err != nil {
			return err
		}
	}
	f, err := c.cfg.FS.OpenFile(filepath.Join(c.dir, entriesFile(c.n)), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := c.cfg.Durable(f, c.dir); err != nil {
		_ = f.Close() // nothing was written
		return err
	}
	if c.file != nil {
		_ = c.file.Close() // all of it is durable
	}
	if c.points != nil {
		_ = c.points.Close() // as above
	}
	c.file, c.first, c.size, c.ragged = f, c.n, 0, true
	c.points, c.pointsSize = nil, 0
	return nil
}

// load reads the end of a log that is there.
func (c *core) load() error {
	e := Epoch{c.cfg.FS, c.dir, c.epoch}
	firsts, err := e.firsts()
	if err != nil {
		return err
	}
	if len(firsts) == 0 {
		return errEmpty
	}
	p, err := e.latest()
	if err != nil {
		return err
	}
	c.at, c.prev = p.c, zeroHash
	if err := c.openTree(); err != nil {
		return err
	}
	if p.signed != nil {
		if _, err := c.cfg.Identity.Ring().OpenCheckpoint(p.signed); err != nil {
			return fmt.Errorf("%w: %w", errRolledBack, err)
		}
		c.tree.stored = tlog.StoredHashCount(c.at.Size)
		if root, err := tlog.TreeHash(c.at.Size, c.tree); err != nil || root != c.at.Root {
			return fmt.Errorf("%w: the tree is another one at %d entries", errRolledBack, c.at.Size)
		}
	}
	return c.loadEntries(e, firsts)
}

// loadEntries reads the entries from the file on that the checkpoint ends in.
func (c *core) loadEntries(e Epoch, firsts []int64) error {
	start := fileOf(firsts, max(c.at.Size-1, 0))
	if start < 0 {
		return errRolledBack
	}
	c.n = start
	var last Entry
	for i, first := range firsts {
		if first < start {
			continue
		}
		if first != c.n && i > 0 {
			return fmt.Errorf("%w: entries %d to %d are missing", errRolledBack, c.n, first-1)
		}
		good, err := c.loadFile(e, first, &last)
		if err != nil {
			return err
		}
		c.first, c.size = first, good
	}
	if c.n < c.at.Size {
		return fmt.Errorf("%w: it ends at entry %d of %d", errRolledBack, c.n, c.at.Size)
	}
	if c.n == 0 {
		return errEmpty
	}
	if err := c.findLink(e, firsts, start); err != nil {
		return err
	}
	c.last, c.unclean = last.At, last.Kind != KindStopped
	return c.reopen(firsts)
}

// errTail ends the reading of a file at its first line that is none.
var errTail = errors.New("torn")

func (c *core) loadFile(e Epoch, first int64, last *Entry) (good int64, err error) {
	good, err = e.lines(entriesFile(first), func(_ int64, line []byte) error {
		entry, err := ParseEntry(line)
		if err != nil || entry.N != c.n {
			if c.n < c.at.Size {
				return fmt.Errorf("%w: entry %d is damaged", errRolledBack, c.n)
			}
			return errTail
		}
		if c.n >= c.at.Size {
			if err := c.tree.add(c.n, line); err != nil {
				return err
			}
		} else if h, err := c.tree.ReadHashes([]int64{tlog.StoredHashIndex(0, c.n)}); err != nil || h[0] != tlog.RecordHash(line) {
			return fmt.Errorf("%w: entry %d was altered", errRolledBack, c.n)
		}
		c.note(entry)
		c.n++
		*last = entry
		return nil
	})
	if errors.Is(err, errTail) {
		err = nil
	}
	return good, err
}

// note takes up what the chain of links goes on from.
func (c *core) note(e Entry) {
	if e.Link != nil {
		c.seq, c.prev = e.Link.Seq, e.Link.SHA256
		c.recent.put(e.Recording, e.Link.SHA256)
	}
}

// findLink looks for the last link in older files when there is none in those read.
func (c *core) findLink(e Epoch, firsts []int64, before int64) error {
	for i := len(firsts) - 1; i >= 0 && c.seq == 0; i-- {
		if firsts[i] >= before {
			continue
		}
		_, err := e.lines(entriesFile(firsts[i]), func(_ int64, line []byte) error {
			if !bytes.Contains(line, []byte(`"link":{`)) {
				return nil
			}
			entry, err := ParseEntry(line)
			if err == nil {
				c.note(entry)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%w: %w", errRolledBack, err)
		}
	}
	return nil
}

// healPoints cuts off a checkpoint that a crash has torn.
func (c *core) healPoints(first int64) error {
	name := filepath.Join(c.dir, pointsFile(first))
	b, err := vfs.ReadFile(c.cfg.FS, name, pointsBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, good := splitPoints(b)
	if good == len(b) {
		return nil
	}
	f, err := c.cfg.FS.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err = f.Truncate(int64(good)); err == nil {
		err = c.cfg.Durable(f)
	}
	return errors.Join(err, f.Close())
}

// reopen opens the files to write on.
func (c *core) reopen(firsts []int64) (err error) {
	for _, first := range firsts[max(0, len(firsts)-2):] {
		if err := c.healPoints(first); err != nil {
			return err
		}
	}
	if err := c.tree.write(); err != nil {
		return err
	}
	c.tree.commit()
	if c.file, err = c.cfg.FS.OpenFile(filepath.Join(c.dir, entriesFile(c.first)), os.O_RDWR, 0); err != nil {
		return err
	}
	info, err := c.file.Stat()
	if err != nil {
		return err
	}
	if torn := info.Size() - c.size; torn > 0 {
		c.ragged = true
		return c.commit([]*request{{entry: Entry{Kind: KindTorn, What: fmt.Sprintf("%d bytes behind entry %d, promised to nobody", torn, c.n-1)}}})
	}
	return nil
}

// commit writes a batch and makes it durable, or changes nothing.
func (c *core) commit(batch []*request) error {
	if c.size >= c.cfg.FileBytesMax {
		if err := c.rotate(); err != nil {
			return err
		}
	}
	before := *c
	buf, err := c.stage(batch)
	if err == nil {
		err = c.write(buf, before.size)
	}
	if err != nil {
		staged := c.tree
		*c = before
		c.tree = staged
		c.tree.drop()
		c.ragged = true
		return err
	}
	c.tree.commit()
	for _, r := range batch {
		if r.entry.Link != nil {
			c.recent.put(r.entry.Recording, r.entry.Link.SHA256)
		}
	}
	return nil
}

// stage makes the lines of a batch and gives each its place.
func (c *core) stage(batch []*request) ([]byte, error) {
	var buf []byte
	for _, r := range batch {
		now := c.cfg.Now()
		if r.claim != nil {
			if err := c.link(r, now); err != nil {
				return nil, err
			}
		}
		e := r.entry
		e.N, e.At, e.Node = c.n, now, c.cfg.Identity.Node()
		if back := c.last.Sub(now); back > 0 {
			e.ClockBackMS = max(back.Milliseconds(), 1)
		}
		line, err := e.line()
		if err != nil {
			return nil, err
		}
		if err := c.tree.add(c.n, line); err != nil {
			return nil, err
		}
		buf = append(append(buf, line...), '\n')
		c.n, c.last, c.unclean = c.n+1, now, false
	}
	return buf, nil
}

// link turns a claim into the next link of the chain.
func (c *core) link(r *request, now time.Time) error {
	l := Link{
		Claim: *r.claim, Node: c.cfg.Identity.Node(), Epoch: c.epoch, Entry: c.n, Seq: c.seq + 1, Prev: c.prev, At: now,
	}
	if l.Replaces == "" {
		l.Replaces = c.recent.get(l.Recording)
	}
	l.finish()
	signed, err := c.cfg.Identity.Sign(l.SignedText)
	if err != nil {
		return err
	}
	kind := KindPublished
	switch {
	case l.Reason == ReasonShredded:
		kind = KindTombstone
	case l.Replaces != "":
		kind = KindReplaced
	}
	r.signed = signed
	r.entry = Entry{
		Kind: kind, Recording: l.Recording, What: l.Reason,
		Link: &EntryLink{Seq: l.Seq, SHA256: l.SHA256, Prev: l.Prev, Replaces: l.Replaces},
	}
	c.seq, c.prev = l.Seq, l.SHA256
	return nil
}

func (c *core) write(buf []byte, at int64) error {
	if err := c.tree.write(); err != nil {
		return err
	}
	if c.ragged {
		if err := c.file.Truncate(at); err != nil {
			return err
		}
	}
	if _, err := c.file.WriteAt(buf, at); err != nil {
		return err
	}
	if err := c.cfg.Durable(c.file); err != nil {
		return err
	}
	c.size, c.ragged = at+int64(len(buf)), false
	return nil
}

// point makes a checkpoint durable when there are entries behind the last one.
func (c *core) point() (made bool, err error) {
	if c.n == c.at.Size {
		return false, nil
	}
	root, err := tlog.TreeHash(c.n, c.tree)
	if err != nil {
		return false, err
	}
	p := Checkpoint{Node: c.cfg.Identity.Node(), Epoch: c.epoch, Size: c.n, Root: root, At: c.cfg.Now().UTC().Round(0)}
	signed, err := c.cfg.Identity.Sign(p.text())
	if err != nil {
		return false, err
	}
	if err := c.tree.file.Sync(); err != nil { // the checkpoint promises it
		return false, err
	}
	if err := c.writePoint(signed); err != nil {
		return false, err
	}
	c.at = p
	return true, nil
}

func (c *core) writePoint(signed []byte) error {
	name := filepath.Join(c.dir, pointsFile(c.first))
	if c.points == nil {
		b, err := vfs.ReadFile(c.cfg.FS, name, pointsBytesMax)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		_, good := splitPoints(b)
		f, err := c.cfg.FS.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		c.points, c.pointsSize = f, int64(good)
	}
	b := append(bytes.Clone(signed), '\n')
	if err := c.points.Truncate(c.pointsSize); err != nil {
		return err
	}
	if _, err := c.points.WriteAt(b, c.pointsSize); err != nil {
		return err
	}
	if err := c.cfg.Durable(c.points, c.dir); err != nil {
		return err
	}
	c.pointsSize += int64(len(b))
	return nil
}

func (c *core) close() error {
	var errs []error
	for _, f := range []vfs.File{c.file, c.points, c.tree.file} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
