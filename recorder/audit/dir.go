package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/trunktap/trunktap/recorder/vfs"
)

// Names in the directory of a log.
const (
	treeFile    = "tree"
	shippedFile = "shipped"
	inboxDir    = "inbox"
	entriesHead = "e-" // and the index of the first entry, 16 digits
	pointsHead  = "c-" // the checkpoints made while that file was written
)

func entriesFile(first int64) string { return fmt.Sprintf("%s%016d.log", entriesHead, first) }
func pointsFile(first int64) string  { return fmt.Sprintf("%s%016d.log", pointsHead, first) }

// epochLayout names a log by the time when it was begun.
const epochLayout = "20060102T150405.000Z"

// Dir reads the logs of a node on its own disk, while they are written as well.
type Dir struct {
	fsys vfs.FS
	path string
}

// OpenDir reads logs in a directory; nil is the machine's file system.
func OpenDir(fsys vfs.FS, path string) Dir {
	if fsys == nil {
		fsys = vfs.OS{}
	}
	return Dir{fsys, path}
}

// Epochs lists the logs, oldest first. A directory that is not there has none.
func (d Dir) Epochs() ([]string, error) {
	entries, err := d.fsys.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list audit logs: %w", err)
	}
	var out []string
	for _, e := range entries {
		if _, err := time.Parse(epochLayout, e.Name()); err == nil && e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Epoch is one log in a Dir.
type Epoch struct {
	fsys vfs.FS
	path string
	Name string
}

// Epoch returns the log of a name.
func (d Dir) Epoch(name string) Epoch { return Epoch{d.fsys, filepath.Join(d.path, name), name} }

// firsts lists the first indexes of the files of entries.
func (e Epoch) firsts() ([]int64, error) {
	entries, err := e.fsys.ReadDir(e.path)
	if err != nil {
		return nil, err
	}
	var out []int64
	for _, f := range entries {
		var n int64
		if strings.HasPrefix(f.Name(), entriesHead) {
			if _, err := fmt.Sscanf(f.Name(), entriesHead+"%016d.log", &n); err == nil && f.Name() == entriesFile(n) {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// fileOf returns the first index of the file that an entry is in, -1: none.
func fileOf(firsts []int64, n int64) int64 {
	i, found := slices.BinarySearch(firsts, n)
	switch {
	case found:
		return n
	case i == 0:
		return -1
	}
	return firsts[i-1]
}

// errStop ends a walk early.
var errStop = errors.New("stop")

// lines calls f for each whole line of a file, without the newline, and tells
// where it begins; at the end it returns the offset behind the last one.
func (e Epoch) lines(name string, f func(off int64, line []byte) error) (int64, error) {
	file, err := e.fsys.OpenFile(filepath.Join(e.path, name), os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }() // only read
	r := bufio.NewReaderSize(file, 64<<10)
	off := int64(0)
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return off, nil // what is not whole is being written, or torn
		case errors.Is(err, bufio.ErrBufferFull):
			return off, fmt.Errorf("%s: a line of more than %d bytes at byte %d", name, r.Size(), off)
		case err != nil:
			return off, err
		}
		if err := f(off, line[:len(line)-1]); err != nil {
			return off, err
		}
		off += int64(len(line))
	}
}

// Each calls line for every entry that is kept from index from on, in order,
// and point for every signed checkpoint behind the entries that it is of.
func (e Epoch) Each(ctx context.Context, from int64, line func(line []byte) error, point func(signed []byte) error) error {
	firsts, err := e.firsts()
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	start := max(fileOf(firsts, from), 0)
	for i, first := range firsts {
		if first < start || ctx.Err() != nil {
			continue
		}
		points, rest, err := e.points(first)
		if err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		n := first
		pass := func() error {
			for len(points) > 0 && points[0].c.Size <= n {
				if err := point(points[0].signed); err != nil {
					return err
				}
				points = points[1:]
			}
			return nil
		}
		_, err = e.lines(entriesFile(first), func(_ int64, l []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := pass(); err != nil {
				return err
			}
			if n++; n <= from {
				return nil
			}
			return line(l)
		})
		if err == nil && i == len(firsts)-1 {
			n = 1 << 62 // whoever reads finds out that it speaks of entries that are not there
		}
		if err == nil {
			err = pass()
		}
		if err == nil && len(rest) > 0 {
			err = point(rest[:min(len(rest), checkpointBytesMax)])
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

type point struct {
	c      Checkpoint
	signed []byte
}

// points returns the checkpoints made while a file was written, and what is
// behind them and none.
func (e Epoch) points(first int64) (out []point, rest []byte, err error) {
	b, err := vfs.ReadFile(e.fsys, filepath.Join(e.path, pointsFile(first)), pointsBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	out, good := splitPoints(b)
	return out, b[good:], nil
}

// pointsBytesMax bounds a file of checkpoints: 60,000 of them.
const pointsBytesMax = 32 << 20

// splitPoints returns the whole checkpoints of a file, each closed by an empty
// line, and how many bytes they are.
func splitPoints(b []byte) (out []point, good int) {
	for rest := b; ; {
		// A note has one empty line in it, and one behind it.
		text, more, ok := bytes.Cut(rest, []byte("\n\n"))
		sig, after, ok2 := bytes.Cut(more, []byte("\n\n"))
		if !ok || !ok2 {
			return out, good
		}
		n := len(text) + 2 + len(sig) + 1
		signed := rest[:n:n]
		c, err := peekCheckpoint(signed)
		if err != nil {
			return out, good
		}
		out = append(out, point{c, signed})
		good += n + 1
		rest = after
	}
}

// Entry returns an entry as it is stored.
func (e Epoch) Entry(n int64) ([]byte, error) {
	var out []byte
	at := n
	err := e.Each(context.Background(), n, func(line []byte) error {
		if out == nil {
			out = bytes.Clone(line)
		}
		return errStop
	}, func([]byte) error { return nil })
	if err != nil && !errors.Is(err, errStop) {
		return nil, err
	}
	got, err := ParseEntry(out)
	if err != nil || got.N != at {
		return nil, fmt.Errorf("entry %d of log %s: %w", n, e.Name, fs.ErrNotExist)
	}
	return out, nil
}

// Prove returns the proof of an entry at the first checkpoint that has it, which
// never changes. fs.ErrNotExist while there is none.
func (e Epoch) Prove(n int64) (Proof, error) {
	firsts, err := e.firsts()
	if err != nil {
		return Proof{}, fmt.Errorf("prove entry %d: %w", n, err)
	}
	start := fileOf(firsts, n)
	for _, first := range firsts {
		if first < start {
			continue
		}
		points, _, err := e.points(first)
		if err != nil {
			return Proof{}, fmt.Errorf("prove entry %d: %w", n, err)
		}
		for _, p := range points {
			if p.c.Size > n {
				return e.proveAt(n, p)
			}
		}
	}
	return Proof{}, fmt.Errorf("entry %d of log %s is in no checkpoint yet: %w", n, e.Name, fs.ErrNotExist)
}

func (e Epoch) proveAt(n int64, p point) (Proof, error) {
	file, err := e.fsys.OpenFile(filepath.Join(e.path, treeFile), os.O_RDONLY, 0)
	if err != nil {
		return Proof{}, err
	}
	defer func() { _ = file.Close() }() // only read
	t := &tree{file: file, stored: tlog.StoredHashCount(p.c.Size)}
	path, err := tlog.ProveRecord(p.c.Size, n, t)
	return Proof{Index: n, Path: path, Checkpoint: p.signed}, err
}

// Consistency shows that the log of an older size is the beginning of that of a newer one.
func (e Epoch) Consistency(older, newer int64) (tlog.TreeProof, error) {
	file, err := e.fsys.OpenFile(filepath.Join(e.path, treeFile), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	return tlog.ProveTree(newer, older, &tree{file: file, stored: tlog.StoredHashCount(newer)})
}

// Latest returns the last checkpoint, nil when there is none.
func (e Epoch) Latest() ([]byte, error) {
	p, err := e.latest()
	return p.signed, err
}

func (e Epoch) latest() (point, error) {
	firsts, err := e.firsts()
	if err != nil {
		return point{}, err
	}
	for _, first := range slices.Backward(firsts) {
		points, _, err := e.points(first)
		if err != nil {
			return point{}, err
		}
		if len(points) > 0 {
			return points[len(points)-1], nil
		}
	}
	return point{}, nil
}

// shipped is how far a log is in the store.
type shipped struct {
	Size int64 `json:"size"`
}

// Shipped returns how many entries the node has put into the store, by its own word; 0
// where that is not known.
func (e Epoch) Shipped() int64 {
	s, _ := e.shipped()
	return s.Size
}

// shipped is zero where nothing is known: the store tells then.
func (e Epoch) shipped() (s shipped, err error) {
	js, err := vfs.ReadFile(e.fsys, filepath.Join(e.path, shippedFile), 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return shipped{}, nil
	}
	if err != nil {
		return shipped{}, err
	}
	if json.Unmarshal(js, &s) != nil || s.Size < 0 {
		return shipped{}, nil //nolint:nilerr // torn by a crash: as if it were not there
	}
	return s, nil
}

// rootAt returns the root of the tree at a size, and how many entries it has.
func (e Epoch) rootAt(size int64) (tlog.Hash, int64, error) {
	file, err := e.fsys.OpenFile(filepath.Join(e.path, treeFile), os.O_RDONLY, 0)
	if err != nil {
		return tlog.Hash{}, 0, err
	}
	defer func() { _ = file.Close() }() // only read
	info, err := file.Stat()
	if err != nil {
		return tlog.Hash{}, 0, err
	}
	stored := info.Size() / tlog.HashSize
	root, err := tlog.TreeHash(size, &tree{file: file, stored: stored})
	return root, stored / 2, err
}

// Agrees tells whether the log here has, at its size, the root that a checkpoint
// of it says. The error says what differs.
func (e Epoch) Agrees(c Checkpoint) error {
	root, size, err := e.rootAt(c.Size)
	switch {
	case err != nil:
		return fmt.Errorf("the log here has about %d entries, the checkpoint speaks of %d: the disk was put back to an older state", size, c.Size)
	case root != c.Root:
		return fmt.Errorf("the log here differs from what was signed at %d entries", c.Size)
	}
	return nil
}
