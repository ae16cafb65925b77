// Package vfstest is a file system in memory that can lose power, and one that
// fails the operation that a test names.
package vfstest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/trunktap/trunktap/recorder/vfs"
)

// node is a file or a directory.
type node struct {
	dir      bool
	perm     fs.FileMode
	data     []byte           // file: content as a reader sees it
	synced   []byte           // file: content at the last Sync
	children map[string]*node // directory: entries as a reader sees them
	durable  map[string]*node // directory: entries that survive a crash
}

func newDir(perm fs.FileMode) *node {
	return &node{dir: true, perm: perm, children: map[string]*node{}, durable: map[string]*node{}}
}

// dirOp is a change of directory entries that no SyncDir has made durable.
// From and to are the directories it touches; either may be nil.
type dirOp struct {
	child             *node
	from, to          *node
	fromName, newName string
}

func (op dirOp) apply() {
	if op.from != nil && op.from.durable[op.fromName] == op.child {
		delete(op.from.durable, op.fromName)
	}
	if op.to != nil {
		op.to.durable[op.newName] = op.child
	}
}

// Mem is a file system in memory. It knows what a crash leaves: the content of
// files as of their last Sync, with a random part of what came later, and the
// entries of directories as of their last SyncDir, with a random choice of the
// later changes.
type Mem struct {
	mu        sync.Mutex
	root      *node
	pending   []dirOp
	freeBytes int64
	foreign   string // prefix of another file system; see OtherDevice
}

// NewMem returns an empty file system with 1 TiB free.
func NewMem() *Mem { return &Mem{root: newDir(0o700), freeBytes: memTotal} }

// SetFree sets what Free returns, in bytes.
func (m *Mem) SetFree(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.freeBytes = n
}

// OtherDevice makes renames into or out of dir fail with EXDEV.
func (m *Mem) OtherDevice(dir string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.foreign = filepath.Clean(dir)
}

// CrashClone returns the file system as a machine finds it after losing power
// now. The seed chooses what of the unsynced is left.
func (m *Mem) CrashClone(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	rnd := rand.New(rand.NewPCG(seed, 0x7472756e6b746170))
	// The choice is made on a copy of the durable view; the original goes on.
	view := cloneDurable(m.root, map[*node]*node{}, rnd)
	for _, op := range m.pending {
		if rnd.IntN(2) == 0 {
			continue
		}
		view.replay(op, rnd)
	}
	out := &Mem{root: view.nodes[m.root], freeBytes: m.freeBytes, foreign: m.foreign}
	settle(out.root)
	return out
}

// crashView maps the nodes of the original to those of the copy.
type crashView struct{ nodes map[*node]*node }

func cloneDurable(n *node, seen map[*node]*node, rnd *rand.Rand) crashView {
	v := crashView{nodes: seen}
	v.copyNode(n, rnd)
	return v
}

func (v crashView) copyNode(n *node, rnd *rand.Rand) *node {
	if c, ok := v.nodes[n]; ok {
		return c
	}
	c := &node{dir: n.dir, perm: n.perm}
	v.nodes[n] = c
	if !n.dir {
		c.data = tornContent(n, rnd)
		return c
	}
	c.children, c.durable = map[string]*node{}, map[string]*node{}
	// Sorted, so that one seed always makes one choice.
	for _, name := range sortedNames(n.durable) {
		c.durable[name] = v.copyNode(n.durable[name], rnd)
	}
	return c
}

func (v crashView) replay(op dirOp, rnd *rand.Rand) {
	mapped := op
	mapped.child = v.copyNode(op.child, rnd)
	if op.from != nil {
		mapped.from = v.copyNode(op.from, rnd)
	}
	if op.to != nil {
		mapped.to = v.copyNode(op.to, rnd)
	}
	mapped.apply()
}

// tornContent is what a crash leaves of a file: the synced content and a part
// of the tail written since, whose last bytes may be zeros (allocated, never
// written). Where synced bytes were overwritten, either version.
func tornContent(n *node, rnd *rand.Rand) []byte {
	if bytes.Equal(n.data, n.synced) {
		return slices.Clone(n.synced)
	}
	if len(n.data) < len(n.synced) || !bytes.HasPrefix(n.data, n.synced) {
		if rnd.IntN(2) == 0 {
			return slices.Clone(n.synced)
		}
		return slices.Clone(n.data)
	}
	keep := len(n.synced) + rnd.IntN(len(n.data)-len(n.synced)+1)
	out := slices.Clone(n.data[:keep])
	if zeros := rnd.IntN(4); zeros == 0 && keep > len(n.synced) {
		from := len(n.synced) + rnd.IntN(keep-len(n.synced))
		clear(out[from:])
	}
	return out
}

// settle makes the view after a crash both current and durable.
func settle(n *node) {
	if !n.dir {
		n.synced = slices.Clone(n.data)
		return
	}
	for name, c := range n.durable {
		n.children[name] = c
		settle(c)
	}
}

func sortedNames(m map[string]*node) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// lookup returns the directory of name, its last element and its node (nil
// when there is none).
func (m *Mem) lookup(name string) (parent *node, base string, n *node, err error) {
	parent, n = nil, m.root
	for _, part := range strings.Split(strings.Trim(filepath.Clean(name), "/"), "/") {
		if part == "" || part == "." {
			continue
		}
		if n == nil {
			return nil, "", nil, fs.ErrNotExist
		}
		if !n.dir {
			return nil, "", nil, syscall.ENOTDIR
		}
		parent, base, n = n, part, n.children[part]
	}
	return parent, base, n, nil
}

// OpenFile implements vfs.FS.
func (m *Mem) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	parent, base, n, err := m.lookup(name)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, pathError("open", name, fs.ErrNotExist)
	case n != nil && flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, pathError("open", name, fs.ErrExist)
	case n != nil && n.dir:
		return nil, pathError("open", name, syscall.EISDIR)
	case n == nil:
		n = &node{perm: perm}
		parent.children[base] = n
		m.pending = append(m.pending, dirOp{child: n, to: parent, newName: base})
	case flag&os.O_TRUNC != 0:
		n.data = nil
	}
	return &memFile{m: m, n: n, name: base}, nil
}

// Rename implements vfs.FS.
func (m *Mem) Rename(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.foreign != "" && m.below(oldName) != m.below(newName) {
		return &os.LinkError{Op: "rename", Old: oldName, New: newName, Err: syscall.EXDEV}
	}
	from, oldBase, n, err := m.lookup(oldName)
	if err == nil && n == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return pathError("rename", oldName, err)
	}
	to, newBase, there, err := m.lookup(newName)
	if err == nil && there != nil && there.dir && len(there.children) > 0 {
		err = syscall.ENOTEMPTY
	}
	if err != nil {
		return pathError("rename", newName, err)
	}
	delete(from.children, oldBase)
	to.children[newBase] = n
	m.pending = append(m.pending, dirOp{child: n, from: from, fromName: oldBase, to: to, newName: newBase})
	return nil
}

func (m *Mem) below(name string) bool {
	return strings.HasPrefix(filepath.Clean(name)+"/", m.foreign+"/")
}

// Remove implements vfs.FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	parent, base, n, err := m.lookup(name)
	if err == nil && n == nil {
		err = fs.ErrNotExist
	}
	if err == nil && n.dir && len(n.children) > 0 {
		err = syscall.ENOTEMPTY
	}
	if err != nil {
		return pathError("remove", name, err)
	}
	delete(parent.children, base)
	m.pending = append(m.pending, dirOp{child: n, from: parent, fromName: base})
	return nil
}

// Mkdir implements vfs.FS.
func (m *Mem) Mkdir(name string, perm fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	parent, base, n, err := m.lookup(name)
	if err == nil && n != nil {
		err = fs.ErrExist
	}
	if err != nil {
		return pathError("mkdir", name, err)
	}
	n = newDir(perm)
	parent.children[base] = n
	m.pending = append(m.pending, dirOp{child: n, to: parent, newName: base})
	return nil
}

// SyncDir implements vfs.FS. As in a journal, what happened to an entry of the
// directory elsewhere becomes durable with it.
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, dir, err := m.lookup(name)
	if err == nil && dir == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return pathError("sync", name, err)
	}
	touched := map[*node]bool{}
	for _, op := range m.pending {
		if op.from == dir || op.to == dir {
			touched[op.child] = true
		}
	}
	rest := m.pending[:0:0]
	for _, op := range m.pending {
		if touched[op.child] {
			op.apply()
		} else {
			rest = append(rest, op)
		}
	}
	m.pending = rest
	return nil
}

// Stat implements vfs.FS.
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, base, n, err := m.lookup(name)
	if err == nil && n == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	return info{name: base, n: n, size: int64(len(n.data))}, nil
}

// ReadDir implements vfs.FS.
func (m *Mem) ReadDir(name string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n, err := m.lookup(name)
	if err == nil && n == nil {
		err = fs.ErrNotExist
	}
	if err == nil && !n.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	var out []fs.DirEntry
	for _, base := range sortedNames(n.children) {
		c := n.children[base]
		out = append(out, fs.FileInfoToDirEntry(info{name: base, n: c, size: int64(len(c.data))}))
	}
	return out, nil
}

// Free implements vfs.FS.
func (m *Mem) Free(string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.freeBytes, nil
}

// memTotal is the size of the file system.
const memTotal = 1 << 40

// Total is the size of the file system: 1 TiB.
func (m *Mem) Total(string) (int64, error) { return memTotal, nil }

// Chmod changes permission bits.
func (m *Mem) Chmod(name string, perm fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n, err := m.lookup(name)
	if err != nil || n == nil {
		return pathError("chmod", name, fs.ErrNotExist)
	}
	n.perm = perm
	return nil
}

// Files returns the path of every file as a reader sees it, sorted.
func (m *Mem) Files() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	var walk func(dir string, n *node)
	walk = func(dir string, n *node) {
		for _, name := range sortedNames(n.children) {
			if c := n.children[name]; c.dir {
				walk(dir+"/"+name, c)
			} else {
				out = append(out, dir+"/"+name)
			}
		}
	}
	walk("", m.root)
	return out
}

type info struct {
	name string
	n    *node
	size int64
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.n.dir }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	if i.n.dir {
		return i.n.perm | fs.ModeDir
	}
	return i.n.perm
}

// memFile is an open file of Mem.
type memFile struct {
	m    *Mem
	n    *node
	name string
	pos  int64
}

func (f *memFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.pos)
	f.pos += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.pos)
	f.pos += int64(n)
	return n, err
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if need := int(off) + len(p); need > len(f.n.data) {
		f.n.data = append(f.n.data, make([]byte, need-len(f.n.data))...)
	}
	return copy(f.n.data[off:], p), nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if int(size) <= len(f.n.data) {
		f.n.data = f.n.data[:size:size]
		return nil
	}
	f.n.data = append(f.n.data, make([]byte, int(size)-len(f.n.data))...)
	return nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.n.synced = slices.Clone(f.n.data)
	return nil
}

func (f *memFile) Close() error { return nil }

func (f *memFile) Stat() (fs.FileInfo, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return info{name: f.name, n: f.n, size: int64(len(f.n.data))}, nil
}
