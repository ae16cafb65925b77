//go:build linux

package kerneltest

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// VLAN makes an interface for a VLAN on another one, and returns what is to be
// called when every other program is on that. Where the kernel has no VLANs, two
// programs do for it what the kernel does: tagged frames that nothing at the
// ingress of the parent took come again, untagged, through the interface, and what
// is sent out there leaves the parent with the tag. Nothing else leaves the parent then.
func (h *Host) VLAN(t testing.TB, parent, name string, id int) (finish func()) {
	t.Helper()
	if h.TryIP(fmt.Sprintf("link add link %s name %s type vlan id %d", parent, name, id)) == nil {
		h.IP(t, "link set "+name+" up")
		return func() {}
	}
	h.IP(t, fmt.Sprintf("link add %s type veth peer name %s.x", name, name))
	var on, of *net.Interface
	var errs [2]error
	h.In(func() {
		of, errs[0] = net.InterfaceByName(parent)
		on, errs[1] = net.InterfaceByName(name)
	})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	h.IP(t, "link set "+name+" address "+of.HardwareAddr.String())
	h.IP(t, "link set "+name+".x up")
	h.IP(t, "link set "+name+" up")
	h.attach(t, on.Index, ebpf.AttachTCXEgress, asm.Instructions{
		asm.Mov.Imm(asm.R2, 0x0081), // ETH_P_8021Q in network order, on a little-endian machine
		asm.Mov.Imm(asm.R3, int32(id)),
		asm.FnSkbVlanPush.Call(),
		asm.Mov.Imm(asm.R1, int32(of.Index)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
	})
	const vlanPresent, vlanTCI, next, drop, ingress = 20, 24, -1, 2, 1 // of struct __sk_buff; TCX_NEXT, TCX_DROP; BPF_F_INGRESS
	h.attach(t, of.Index, ebpf.AttachTCXEgress, asm.Instructions{      // a test with untagged frames must fail
		asm.Mov.Imm(asm.R0, next),
		asm.LoadMem(asm.R2, asm.R1, vlanPresent, asm.Word),
		asm.JNE.Imm(asm.R2, 0, "done"),
		asm.Mov.Imm(asm.R0, drop),
		asm.Return().WithSymbol("done"),
	})
	return func() {
		h.attach(t, of.Index, ebpf.AttachTCXIngress, asm.Instructions{
			asm.Mov.Imm(asm.R0, next),
			asm.LoadMem(asm.R2, asm.R1, vlanPresent, asm.Word),
			asm.JEq.Imm(asm.R2, 0, "done"),
			asm.LoadMem(asm.R2, asm.R1, vlanTCI, asm.Word),
			asm.And.Imm(asm.R2, 0xfff),
			asm.JNE.Imm(asm.R2, int32(id), "done"),
			asm.FnSkbVlanPop.Call(),
			asm.Mov.Imm(asm.R1, int32(on.Index)),
			asm.Mov.Imm(asm.R2, ingress),
			asm.FnRedirect.Call(),
			asm.Return().WithSymbol("done"),
		})
	}
}

// attach puts a program on an interface for the time of the test.
func (h *Host) attach(t testing.TB, index int, at ebpf.AttachType, code asm.Instructions) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, AttachType: at, Instructions: code, License: "GPL"})
	if err != nil {
		t.Skipf("a program in place of VLANs: %v", err)
	}
	var l link.Link
	h.In(func() { l, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: at}) })
	_ = p.Close() // the link keeps it
	if err != nil {
		t.Skipf("a program in place of VLANs: %v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
}
