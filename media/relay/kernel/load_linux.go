package kernel

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
)

//go:embed bpf/relay.o
var object []byte

// objects are the kernel's side of an engine.
type objects struct {
	places, flows, cpus, rings *ebpf.Map
	ring                       []*ebpf.Map
	program                    *ebpf.Program

	found bool // they were pinned and hold flows
}

func (o *objects) shared() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{"places": &o.places, "flows": &o.flows, "cpus": &o.cpus, "rings": &o.rings}
}

func (o *objects) close() {
	for _, m := range append(o.ring, o.places, o.flows, o.cpus, o.rings) {
		if m != nil {
			_ = m.Close() // closes a descriptor
		}
	}
	if o.program != nil {
		_ = o.program.Close()
	}
}

// ringPath is where a ring is pinned.
func ringPath(dir string, n int) string { return filepath.Join(dir, fmt.Sprintf("ring-%d", n)) }

// load makes the maps, or takes those that are pinned in dir when they hold
// flows or are as they would be made, and loads the program with them.
func load(cfg Config, dir string, cpus int) (_ *objects, err error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("the program's object: %w", err)
	}
	spec.Maps["places"].MaxEntries = uint32(cfg.FlowsMax)
	spec.Maps["flows"].MaxEntries = uint32(cfg.FlowsMax)
	spec.Maps["cpus"].MaxEntries = uint32(cpus)
	spec.Maps["rings"].MaxEntries = uint32(cfg.Rings)
	for name, v := range map[string]uint16{"port_min": cfg.PortMin, "port_max": cfg.PortMax} {
		if err := spec.Variables[name].Set(v); err != nil {
			return nil, fmt.Errorf("the program's object: %w", err)
		}
	}
	o := &objects{}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	if dir == "" || !o.loadPinned(spec, dir, cfg) {
		if err := o.create(spec, dir, cfg); err != nil {
			return nil, err
		}
	}
	opts := ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{}}
	for name, m := range o.shared() {
		opts.MapReplacements[name] = *m
		spec.Maps[name].MaxEntries = (*m).MaxEntries()
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, opts)
	if err != nil {
		return nil, explain("load the program", err)
	}
	o.program = coll.DetachProgram("relay")
	coll.Close()
	return o, nil
}

// ringBytes is the size of each ring: a power of two of whole pages.
func ringBytes(cfg Config) uint32 {
	each := max(cfg.RingBytes/cfg.Rings, os.Getpagesize())
	return 1 << min(bits.Len(uint(each-1)), 30)
}

func (o *objects) create(spec *ebpf.CollectionSpec, dir string, cfg Config) error {
	if dir != "" {
		if err := unpinAll(dir); err != nil {
			return err
		}
	}
	for name, m := range o.shared() {
		var err error
		if *m, err = ebpf.NewMap(spec.Maps[name]); err != nil {
			return explain("make the map "+name, err)
		}
	}
	for n := range cfg.Rings {
		inner := spec.Maps["rings"].InnerMap.Copy()
		inner.MaxEntries = ringBytes(cfg)
		r, err := ebpf.NewMap(inner)
		if err != nil {
			return explain(fmt.Sprintf("make a ring of %d bytes", inner.MaxEntries), err)
		}
		o.ring = append(o.ring, r)
		if err := o.rings.Put(uint32(n), r); err != nil {
			return explain("make a ring known", err)
		}
	}
	if dir == "" {
		return nil
	}
	return o.pin(dir)
}

func (o *objects) pin(dir string) error {
	for name, m := range o.shared() {
		if err := (*m).Pin(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("pin the map %s: %w", name, err)
		}
	}
	for n, r := range o.ring {
		if err := r.Pin(ringPath(dir, n)); err != nil {
			return fmt.Errorf("pin a ring: %w", err)
		}
	}
	return nil
}

// loadPinned takes what is pinned. Without flows in it, it has to be of the
// configured sizes; flows are worth more than the configuration.
func (o *objects) loadPinned(spec *ebpf.CollectionSpec, dir string, cfg Config) bool {
	ok := func() bool {
		for name, m := range o.shared() {
			var err error
			if *m, err = ebpf.LoadPinnedMap(filepath.Join(dir, name), nil); err != nil {
				return false
			}
		}
		for n := range o.rings.MaxEntries() {
			r, err := ebpf.LoadPinnedMap(ringPath(dir, int(n)), nil)
			if err != nil {
				return false
			}
			o.ring = append(o.ring, r)
		}
		if o.cpus.MaxEntries() != spec.Maps["cpus"].MaxEntries || o.places.MaxEntries() != o.flows.MaxEntries() {
			return false
		}
		var key keyState
		o.found = o.places.NextKey(nil, &key) == nil
		return o.found || o.places.MaxEntries() == uint32(cfg.FlowsMax) &&
			len(o.ring) == cfg.Rings && o.ring[0].MaxEntries() == ringBytes(cfg)
	}()
	if !ok {
		o.close()
		*o = objects{}
	}
	return ok
}

// pinDir is where this version's objects are pinned. Those of another layout are
// removed, which ends their flows.
func pinDir(root string) (string, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "abi-"+abi)
	for _, e := range entries {
		if other := filepath.Join(root, e.Name()); e.IsDir() && strings.HasPrefix(e.Name(), "abi-") && other != dir {
			if err := errors.Join(unpinAll(other), os.Remove(other)); err != nil {
				return "", fmt.Errorf("remove what another version left: %w", err)
			}
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, nil
}

// unpinAll removes everything in a directory of pins.
func unpinAll(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}
