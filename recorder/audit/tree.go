package audit

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/trunktap/trunktap/recorder/vfs"
)

// tree is the file of the hashes of a log, in the order of package tlog, 32
// bytes each. What lies behind the last checkpoint is not durable: it is made
// anew from the entries.
type tree struct {
	file   vfs.File
	stored int64       // hashes that the file has
	staged []tlog.Hash // behind them
}

// ReadHashes implements tlog.HashReader.
func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x >= t.stored {
			if x-t.stored >= int64(len(t.staged)) {
				return nil, fmt.Errorf("read tree: hash %d is not there", x)
			}
			out[i] = t.staged[x-t.stored]
			continue
		}
		if _, err := t.file.ReadAt(out[i][:], x*tlog.HashSize); err != nil {
			return nil, fmt.Errorf("read tree: %w", err)
		}
	}
	return out, nil
}

// add stages the hashes of entry n.
func (t *tree) add(n int64, line []byte) error {
	hashes, err := tlog.StoredHashes(n, line, t)
	if err == nil && t.stored+int64(len(t.staged)) != tlog.StoredHashCount(n) {
		err = errors.New("read tree: it is not as long as the log")
	}
	if err != nil {
		return err
	}
	t.staged = append(t.staged, hashes...)
	return nil
}

// write puts what is staged into the file; commit or drop follow.
func (t *tree) write() error {
	b := make([]byte, 0, len(t.staged)*tlog.HashSize)
	for _, h := range t.staged {
		b = append(b, h[:]...)
	}
	_, err := t.file.WriteAt(b, t.stored*tlog.HashSize)
	return err
}

func (t *tree) commit() { t.stored, t.staged = t.stored+int64(len(t.staged)), t.staged[:0] }
func (t *tree) drop()   { t.staged = t.staged[:0] }

// frontier computes the root of a tree whose leaves come one by one, in memory
// that grows with the logarithm of their number.
type frontier struct {
	n     int64
	nodes []tlog.Hash                           // roots of the complete subtrees, largest first
	inner func(level int, n int64, h tlog.Hash) // told of each complete subtree above a leaf; may be nil
}

func (f *frontier) add(leaf tlog.Hash) {
	f.nodes = append(f.nodes, leaf)
	level := 0
	for n := f.n; n&1 == 1; n >>= 1 {
		k := len(f.nodes)
		f.nodes[k-2] = tlog.NodeHash(f.nodes[k-2], f.nodes[k-1])
		f.nodes = f.nodes[:k-1]
		if level++; f.inner != nil {
			f.inner(level, n>>1, f.nodes[k-2])
		}
	}
	f.n++
}

func (f *frontier) root() tlog.Hash {
	if len(f.nodes) == 0 {
		h, err := tlog.TreeHash(0, nil)
		if err != nil {
			panic(err) // of an empty tree nothing is read
		}
		return h
	}
	h := f.nodes[len(f.nodes)-1]
	for i := len(f.nodes) - 2; i >= 0; i-- {
		h = tlog.NodeHash(f.nodes[i], h)
	}
	return h
}
