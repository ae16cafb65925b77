package vfstest

import (
	"errors"
	"slices"

	"github.com/trunktap/trunktap/recorder/vfs"
)

var (
	_ vfs.Grouper = (*Mem)(nil)
	_ vfs.Grouper = (*Faults)(nil)
)

type memGroup struct{ m *Mem }

// OpenGroup implements vfs.Grouper.
func (m *Mem) OpenGroup(string) (vfs.Group, error) { return memGroup{m}, nil }

func (g memGroup) Sync() error {
	g.m.mu.Lock()
	defer g.m.mu.Unlock()
	var walk func(n *node)
	walk = func(n *node) {
		if !n.dir {
			n.synced = slices.Clone(n.data)
		}
		for _, c := range n.children {
			walk(c)
		}
	}
	walk(g.m.root)
	for _, op := range g.m.pending {
		op.apply()
	}
	g.m.pending = nil
	return nil
}

func (memGroup) Close() error { return nil }

type faultGroup struct {
	f *Faults
	g vfs.Group
}

// OpenGroup implements vfs.Grouper.
func (f *Faults) OpenGroup(dir string) (vfs.Group, error) {
	under, ok := f.FS.(vfs.Grouper)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	var g vfs.Group
	err := f.step("opengroup", dir, func() (err error) {
		g, err = under.OpenGroup(dir)
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	return faultGroup{f, g}, nil
}

func (g faultGroup) Sync() error  { return g.f.step("syncfs", "/", g.g.Sync, nil) }
func (g faultGroup) Close() error { return g.g.Close() }
