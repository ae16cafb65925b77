package kernel

import (
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// wants tells whether the program belongs on an interface.
func (c *Config) wants(l network) bool {
	if len(c.Interfaces) > 0 {
		return slices.Contains(c.Interfaces, l.name)
	}
	return l.up && (l.loopback || l.ethernet)
}

// attachments are the interfaces that the program is on. Guarded by its owner.
type attachments struct {
	program *ebpf.Program
	dir     string // of pins; empty: none
	on      map[int]link.Link
}

func (a *attachments) path(index int) string {
	return filepath.Join(a.dir, fmt.Sprintf("link-%d", index))
}

// adopt takes the pinned links over and puts the new program in the old one's
// place, which misses no packet. Links whose interface is gone are removed.
func (a *attachments) adopt(present map[int]network) {
	paths, _ := filepath.Glob(filepath.Join(a.dir, "link-*")) // fails for a bad pattern alone
	for _, path := range paths {
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			continue // pinning in its place will tell
		}
		index := 0
		if info, err := l.Info(); err == nil && info.TCX() != nil {
			index = int(info.TCX().Ifindex)
		}
		if _, ok := present[index]; !ok || a.path(index) != path || l.Update(a.program) != nil {
			_, _ = l.Unpin(), l.Close() // what stays of a link without an interface does nothing
			continue
		}
		a.on[index] = l
	}
}

// attach puts the program on one more interface, after those that are there.
func (a *attachments) attach(n network) error {
	l, err := link.AttachTCX(link.TCXOptions{Interface: n.index, Program: a.program, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return explain("attach the program to "+n.name, err)
	}
	if a.dir != "" {
		if err := l.Pin(a.path(n.index)); err != nil {
			_ = l.Close() // the first error is the one to tell
			return fmt.Errorf("pin the program of %s: %w", n.name, err)
		}
	}
	a.on[n.index] = l
	return nil
}

// drop takes the program off an interface.
func (a *attachments) drop(index int) {
	l := a.on[index]
	delete(a.on, index)
	if a.dir != "" {
		_ = l.Unpin() // fails when somebody has removed the pin
	}
	_ = l.Close()
}

// follow attaches to the interfaces that came, forgets those that went, and
// returns the names of the former.
func (a *attachments) follow(cfg *Config, present map[int]network) (came []string, err error) {
	for index := range a.on {
		if n, ok := present[index]; !ok || !cfg.wants(n) {
			a.drop(index)
		}
	}
	for index, n := range present {
		if a.on[index] != nil || !cfg.wants(n) {
			continue
		}
		if e := a.attach(n); e != nil {
			err = e
			continue
		}
		came = append(came, n.name)
	}
	sort.Strings(came)
	return came, err
}

// unknown names the configured interfaces that are not there.
func (c *Config) unknown(present map[int]network) error {
	var there, missing []string
	for _, n := range present {
		there = append(there, n.name)
	}
	for _, name := range c.Interfaces {
		if !slices.Contains(there, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	sort.Strings(there)
	return &NeedError{
		What: "there is no interface " + strings.Join(missing, ", "),
		Hint: "interfaces may name " + strings.Join(there, ", "),
	}
}
