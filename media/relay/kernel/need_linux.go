package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// NeedError says what the engine lacks here. It is an ErrUnsupported.
type NeedError struct {
	What string // what failed
	Hint string // what to do
	Err  error  // nil: found out without trying
}

// Error tells what failed, why, and the remedy.
func (e *NeedError) Error() string {
	text := e.What
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + "; " + e.Hint
}

// Unwrap makes it an ErrUnsupported.
func (e *NeedError) Unwrap() []error { return []error{ErrUnsupported, e.Err} }

const hintRights = "run as root, or give the service AmbientCapabilities=CAP_BPF CAP_NET_ADMIN (setcap cap_bpf,cap_net_admin+ep)"

// rights checks the capabilities. CAP_SYS_ADMIN stands for CAP_BPF (capabilities(7)).
func rights() error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&h, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	has := func(c int) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	var missing []string
	if !has(unix.CAP_BPF) && !has(unix.CAP_SYS_ADMIN) {
		missing = append(missing, "CAP_BPF")
	}
	if !has(unix.CAP_NET_ADMIN) {
		missing = append(missing, "CAP_NET_ADMIN")
	}
	if len(missing) == 0 {
		return nil
	}
	return &NeedError{What: "the process lacks " + strings.Join(missing, " and "), Hint: hintRights}
}

// explain makes an error of loading or attaching one that an operator can act on; nil stays nil.
func explain(what string, err error) error {
	if err == nil {
		return nil
	}
	hint := "the kernel log may say more"
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		hint = "the capabilities are there, so a container's seccomp profile or a user namespace forbids bpf(2): " +
			"run it in the first user namespace and allow the call"
	case errors.Is(err, unix.ENOSYS):
		hint = "this kernel has no bpf(2)"
	case errors.Is(err, unix.EINVAL):
		hint = "Linux 6.6 or newer is needed, or 5.15 with CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF"
	case errors.Is(err, unix.ENOMEM):
		hint = "make ring_size smaller"
	}
	return &NeedError{What: what, Hint: hint, Err: err}
}

const bpffs = "/sys/fs/bpf"

// prepare makes the directory to pin to and takes it for this process alone.
// Closing the file gives it back.
func prepare(dir string) (*os.File, error) {
	if filepath.Clean(dir) == bpffs || strings.HasPrefix(filepath.Clean(dir), bpffs+"/") {
		mountBPF()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory to pin to: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, fmt.Errorf("statfs %s: %w", dir, err)
	}
	if uint32(st.Type) != unix.BPF_FS_MAGIC {
		return nil, fmt.Errorf("%s is not in a BPF file system; mount one: mount -t bpf bpf %s", dir, bpffs)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // only opened to be locked
		return nil, fmt.Errorf("%s is used by another process: %w", dir, err)
	}
	return f, nil
}

// mountBPF mounts the BPF file system where it belongs, when it is not. That it
// failed shows in what follows.
func mountBPF() {
	var st unix.Statfs_t
	if unix.Statfs(bpffs, &st) == nil && uint32(st.Type) != unix.BPF_FS_MAGIC {
		_ = unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700")
	}
}
