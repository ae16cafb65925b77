package kernel

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// wants tells whether the program belongs on an interface.
func (c *Config) wants(l network) bool {
	if len(c.Interfaces) > 0 {
		return slices.Contains(c.Interfaces, l.name)
	}
	return l.up && (l.loopback || l.ethernet)
}

// place is where the program is on an interface.
type place interface {
	// remove takes it off.
	remove() error
	// leave forgets it, when it is pinned; else it is as remove.
	leave() error
}

// attachments are the interfaces that the program is on. Guarded by its owner.
type attachments struct {
	program *ebpf.Program
	dir     string // of pins; empty: none
	hook    Hook   // HookAuto: nothing was attached yet
	filters *filters
	tcx     func(link.TCXOptions) (link.Link, error)
	on      map[int]place
}

func newAttachments(p *ebpf.Program, nl *netlink, cfg *Config, dir string) (attachments, error) {
	a := attachments{program: p, dir: dir, hook: cfg.Hook, tcx: link.AttachTCX, on: map[int]place{}}
	if cfg.Hook != HookAuto && cfg.Hook != HookTCX && cfg.Hook != HookClsact {
		return a, fmt.Errorf("hook %q: it is %s or %s", cfg.Hook, HookTCX, HookClsact)
	}
	var err error
	a.filters, err = newFilters(nl, dir)
	return a, err
}

// tcxPlace is a link.
type tcxPlace struct {
	link   link.Link
	pinned bool
}

func (t tcxPlace) remove() error {
	if t.pinned {
		_ = t.link.Unpin() // fails when somebody has removed the pin
	}
	return t.link.Close()
}

func (t tcxPlace) leave() error { return t.link.Close() }

func (a *attachments) path(index int) string {
	return filepath.Join(a.dir, fmt.Sprintf("link-%d", index))
}

// adopt takes over what an owner before has pinned and puts the new program in
// the old one's place, which misses no packet. Links whose interface is gone,
// and filters whose owner cannot come back, are removed.
func (a *attachments) adopt(present map[int]network) error {
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
		if _, ok := present[index]; !ok || a.path(index) != path || a.hook == HookClsact || l.Update(a.program) != nil {
			_, _ = l.Unpin(), l.Close() // what stays of a link without an interface does nothing
			continue
		}
		a.on[index], a.hook = tcxPlace{l, true}, HookTCX
	}
	for index := range present {
		found, err := a.filters.adopt(index, a.program, a.hook != HookTCX)
		if err != nil {
			return fmt.Errorf("look at the filters of %s: %w", present[index].name, err)
		}
		if found != nil {
			a.on[index], a.hook = found, HookClsact
		}
	}
	return nil
}

// attach puts the program on one more interface, after those that are there.
func (a *attachments) attach(n network) error {
	var refused error
	if a.hook != HookClsact {
		err := a.attachTCX(n)
		if err == nil || a.hook == HookTCX || !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
			return explain("attach the program to "+n.name, err)
		}
		refused = fmt.Errorf("tcx: %w", err)
	}
	p, err := a.filters.attach(n.index, a.program)
	if err != nil {
		return explain("attach the program to "+n.name, errors.Join(refused, fmt.Errorf("clsact: %w", err)))
	}
	a.on[n.index], a.hook = p, HookClsact
	return nil
}

func (a *attachments) attachTCX(n network) error {
	l, err := a.tcx(link.TCXOptions{Interface: n.index, Program: a.program, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return err
	}
	if a.dir != "" {
		if err := l.Pin(a.path(n.index)); err != nil {
			_ = l.Close() // the first error is the one to tell
			return fmt.Errorf("pin it: %w", err)
		}
	}
	a.on[n.index], a.hook = tcxPlace{l, a.dir != ""}, HookTCX
	return nil
}

// drop takes the program off an interface.
func (a *attachments) drop(index int) error {
	p := a.on[index]
	delete(a.on, index)
	return p.remove()
}

// leave forgets all that is pinned and takes the rest off.
func (a *attachments) leave() {
	for _, p := range a.on {
		_ = p.leave() // the interface may be gone
	}
	a.on = nil
	if a.filters != nil {
		a.filters.close()
	}
}

// follow attaches to the interfaces that came, forgets those that went, and
// returns the names of the former.
func (a *attachments) follow(cfg *Config, present map[int]network) (came []string, err error) {
	for index := range a.on {
		if n, ok := present[index]; !ok || !cfg.wants(n) {
			_ = a.drop(index) // the interface may be gone, and the program with it
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
