package kernel

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Where the kernel has no tcx, the program is a filter of the queueing
// discipline clsact (tc-bpf(8)). A filter is nobody's: it stays when its process
// dies, pinned or not. So each carries the name of its owner, and an owner that
// lives holds an abstract socket of that name, in the namespace of the network
// as the filters are.

// Of linux/pkt_sched.h, pkt_cls.h and rtnetlink.h.
const (
	tcmsgBytes = 20

	qdiscHandle  = 0xffff0000
	qdiscParent  = 0xfffffff1 // TC_H_CLSACT
	blockIngress = 0xfffffff2 // TC_H_CLSACT and TC_H_MIN_INGRESS
	blockEgress  = 0xfffffff3

	tcaKind      = 1
	tcaOptions   = 2
	tcaBPFFD     = 6
	tcaBPFName   = 7
	tcaBPFFlags  = 8
	tcaBPFGen    = 9
	directAction = 1 // TCA_BPF_FLAG_ACT_DIRECT
	skipHardware = 1 // TCA_CLS_FLAGS_SKIP_HW
)

const (
	// filterPriority is behind what the kernel gives to filters that ask for none.
	filterPriority = 50000

	ownerPinned   = "trunktap pin "
	ownerUnpinned = "trunktap run "
)

// filters are those of one owner.
type filters struct {
	nl    *netlink
	owner string // of filters: the name of the socket, and with pins where they are
	alive int    // the socket; -1: none yet
}

// newFilters finds out the owner's name: with pins that of their directory, so
// that the next owner knows it.
func newFilters(nl *netlink, dir string) (*filters, error) {
	f := &filters{nl: nl, alive: -1, owner: ownerUnpinned + rand.Text()}
	if dir == "" {
		return f, nil
	}
	root := filepath.Dir(dir)
	name, err := pinOwner(root)
	f.owner = name + " " + root
	return f, err
}

func pinOwner(root string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", root, err)
	}
	return fmt.Sprintf("%s%d:%d", ownerPinned, st.Dev, st.Ino), nil
}

// socketOf is the name of an owner's socket.
func socketOf(owner string) string {
	name, _, _ := strings.Cut(owner[min(len(ownerPinned), len(owner)):], " ")
	return "@" + owner[:min(len(ownerPinned), len(owner))] + name
}

// live takes the owner's socket.
func live(owner string) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: socketOf(owner)}); err != nil {
		_ = unix.Close(fd) // the first error is the one to tell
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// stale tells whether an owner has died and cannot come back for its filter.
func stale(owner string) bool {
	if strings.HasPrefix(owner, ownerPinned) {
		name, root, _ := strings.Cut(owner[len(ownerPinned):], " ")
		if now, err := pinOwner(root); err == nil && now == ownerPinned+name {
			return false
		}
	} else if !strings.HasPrefix(owner, ownerUnpinned) {
		return false
	}
	fd, err := live(owner)
	if err == nil {
		_ = unix.Close(fd) // only taken to see whether it was free
	}
	return err == nil
}

func (f *filters) close() {
	if f.alive >= 0 {
		_ = unix.Close(f.alive)
		f.alive = -1
	}
}

// claim makes the owner known to be alive.
func (f *filters) claim() (err error) {
	if f.alive < 0 {
		f.alive, err = live(f.owner)
	}
	return err
}

// filterPlace is a filter on an interface.
type filterPlace struct {
	filters *filters
	index   int
	handle  uint32
	made    bool // the queueing discipline was made for it
}

// attach makes a filter, and the queueing discipline where there is none.
func (f *filters) attach(index int, p *ebpf.Program) (*filterPlace, error) {
	if err := f.claim(); err != nil {
		return nil, err
	}
	q := attr(tcmsg(index, qdiscHandle, qdiscParent, 0), tcaKind, []byte("clsact\x00"))
	err := f.nl.change(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, q)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make the queueing discipline: %w", err)
	}
	place := &filterPlace{filters: f, index: index, made: err == nil}
	if err = f.put(index, 0, p); err == nil {
		err = f.each(index, blockIngress, func(owner string, handle uint32) {
			if owner == f.owner {
				place.handle = handle
			}
		})
	}
	if err == nil && place.handle == 0 {
		err = errors.New("the filter is not there")
	}
	if err != nil {
		_ = place.sweep() // the first error is the one to tell
		return nil, err
	}
	return place, nil
}

// put makes a filter, or with a handle replaces the program of the one that is there.
func (f *filters) put(index int, handle uint32, p *ebpf.Program) error {
	options := attr(nil, tcaBPFFD, binary.NativeEndian.AppendUint32(nil, uint32(p.FD())))
	options = attr(options, tcaBPFName, append([]byte(f.owner), 0))
	options = attr(options, tcaBPFFlags, binary.NativeEndian.AppendUint32(nil, directAction))
	options = attr(options, tcaBPFGen, binary.NativeEndian.AppendUint32(nil, skipHardware))
	body := attr(tcmsg(index, handle, blockIngress, filterInfo), tcaKind, []byte("bpf\x00"))
	body = attr(body, tcaOptions|unix.NLA_F_NESTED, options)
	if err := f.nl.change(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE, body); err != nil {
		return fmt.Errorf("make the filter: %w", err)
	}
	return nil
}

// adopt takes over the owner's filter on an interface, putting a program in
// the place of the one before, or removes it when it is not wanted. Filters of
// owners that cannot come back are removed. A kernel without filters has none.
func (f *filters) adopt(index int, p *ebpf.Program, wanted bool) (found *filterPlace, err error) {
	var gone []uint32
	err = f.each(index, blockIngress, func(owner string, handle uint32) {
		switch {
		case owner == f.owner && wanted && found == nil:
			found = &filterPlace{filters: f, index: index, handle: handle}
		case owner == f.owner, stale(owner):
			gone = append(gone, handle)
		}
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	for _, handle := range gone {
		err = errors.Join(err, f.remove(index, handle))
	}
	if err != nil || found == nil {
		return nil, err
	}
	if err := f.claim(); err != nil {
		return nil, err
	}
	return found, f.put(index, found.handle, p)
}

// each gives the BPF filters of this priority.
func (f *filters) each(index int, block uint32, use func(owner string, handle uint32)) error {
	return f.nl.list(unix.RTM_GETTFILTER, tcmsg(index, 0, block, 0), func(answer []byte) {
		if len(answer) < tcmsgBytes {
			return
		}
		handle, info := binary.NativeEndian.Uint32(answer[8:]), binary.NativeEndian.Uint32(answer[16:])
		if handle == 0 || info>>16 != filterPriority {
			return // of another priority, or the chain that holds filters
		}
		attrs(answer[tcmsgBytes:], func(kind uint16, v []byte) {
			if kind != tcaOptions {
				return
			}
			attrs(v, func(kind uint16, v []byte) {
				if kind == tcaBPFName {
					use(unix.ByteSliceToString(v), handle)
				}
			})
		})
	})
}

func (f *filters) remove(index int, handle uint32) error {
	body := attr(tcmsg(index, handle, blockIngress, filterInfo), tcaKind, []byte("bpf\x00"))
	if err := f.nl.change(unix.RTM_DELTFILTER, 0, body); err != nil && !isGone(err) {
		return fmt.Errorf("remove a filter: %w", err)
	}
	return nil
}

// isGone tells that a filter, its discipline or its interface was gone already.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}

func (p *filterPlace) remove() error {
	return errors.Join(p.filters.remove(p.index, p.handle), p.sweep())
}

func (p *filterPlace) leave() error {
	if strings.HasPrefix(p.filters.owner, ownerPinned) {
		return nil
	}
	return p.remove()
}

// sweep removes the queueing discipline that was made for the filter, unless
// somebody else uses it by now.
func (p *filterPlace) sweep() error {
	if !p.made {
		return nil
	}
	used := false
	for _, block := range []uint32{blockIngress, blockEgress} {
		err := p.filters.nl.list(unix.RTM_GETTFILTER, tcmsg(p.index, 0, block, 0), func([]byte) { used = true })
		if err != nil {
			return fmt.Errorf("look for filters: %w", err)
		}
	}
	if used {
		return nil
	}
	err := p.filters.nl.change(unix.RTM_DELQDISC, 0, tcmsg(p.index, qdiscHandle, qdiscParent, 0))
	if err != nil && !isGone(err) {
		return fmt.Errorf("remove the queueing discipline: %w", err)
	}
	return nil
}

// filterInfo is priority and protocol (ETH_P_ALL, in network order) of a filter.
var filterInfo = uint32(filterPriority)<<16 | uint32(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}))

// tcmsg is struct tcmsg.
func tcmsg(index int, handle, parent, info uint32) []byte {
	b := make([]byte, 4, 96) // family and padding
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, handle)
	b = binary.NativeEndian.AppendUint32(b, parent)
	return binary.NativeEndian.AppendUint32(b, info)
}
