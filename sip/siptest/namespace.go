package siptest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strings"
)

// Namespace is a network namespace with one link to this one: a host of its
// own for a peer that needs an interface other than loopback. Linux alone,
// root alone.
type Namespace struct {
	Host netip.Addr // our end of the link
	Peer netip.Addr // the end in the namespace

	name string
}

// namespaceTries bounds how many names are tried that others have taken.
const namespaceTries = 8

// NewNamespace makes a namespace; Close removes it. Its addresses are taken at
// random from 198.18.0.0/15, the range for tests of networks (RFC 2544), so that
// tests may run side by side.
func NewNamespace(ctx context.Context) (*Namespace, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("network namespace: %w", ErrUnprivileged)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, fmt.Errorf("ip: %w", ErrNotInstalled)
	}
	var n *Namespace
	for range namespaceTries {
		r := rand.Uint32N(1<<15 - 1)
		base := netip.AddrFrom4([4]byte{198, 18 + byte(r>>14), byte(r >> 6), byte(r << 2)})
		n = &Namespace{Host: base.Next(), Peer: base.Next().Next(), name: fmt.Sprintf("tt%x", r)}
		err := ip(ctx, "", "netns", "add", n.name)
		if err == nil {
			break
		}
		if n = nil; !strings.Contains(err.Error(), "File exists") {
			// A container without the capability is root as little as others are.
			return nil, fmt.Errorf("network namespace: %w: %w", ErrUnprivileged, err)
		}
	}
	if n == nil {
		return nil, fmt.Errorf("network namespace: %d names are taken", namespaceTries)
	}
	outside, inside := n.name+"h", n.name+"p"
	err := ip(ctx, fmt.Sprintf("link add %[1]s type veth peer name %[2]s netns %[3]s\naddr add %[4]s/30 dev %[1]s\nlink set %[1]s up\n",
		outside, inside, n.name, n.Host), "-batch", "-")
	if err == nil {
		err = ip(ctx, fmt.Sprintf("addr add %[2]s/30 dev %[1]s\nlink set %[1]s up\nlink set lo up\nroute add default via %[3]s\n",
			inside, n.Peer, n.Host), "-n", n.name, "-batch", "-")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("network namespace: %w", err), n.Close())
	}
	return n, nil
}

// ip runs the command of that name; what it is to read as a batch is in input.
func ip(ctx context.Context, input string, args ...string) error {
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Command is exec.CommandContext for a program inside the namespace.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.name, name}, args...)...)
}

// Close removes the namespace and its link. What runs in it loses the network.
func (n *Namespace) Close() error {
	return ip(context.Background(), "", "netns", "del", n.name)
}
