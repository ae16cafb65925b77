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
	r := rand.Uint32N(1<<15 - 1)
	base := netip.AddrFrom4([4]byte{198, 18 + byte(r>>14), byte(r >> 6), byte(r << 2)})
	id := fmt.Sprintf("tt%x", r)
	n := &Namespace{Host: base.Next(), name: id}
	n.Peer = n.Host.Next()
	outside, inside := id+"h", id+"p"
	steps := [][]string{
		{"netns", "add", id},
		{"link", "add", outside, "type", "veth", "peer", "name", inside, "netns", id},
		{"addr", "add", n.Host.String() + "/30", "dev", outside},
		{"link", "set", outside, "up"},
		{"-n", id, "addr", "add", n.Peer.String() + "/30", "dev", inside},
		{"-n", id, "link", "set", inside, "up"},
		{"-n", id, "link", "set", "lo", "up"},
		{"-n", id, "route", "add", "default", "via", n.Host.String()},
	}
	for i, args := range steps {
		err := ip(ctx, args...)
		if err == nil {
			continue
		}
		if i == 0 {
			// A container without the capability is root as little as others are.
			return nil, fmt.Errorf("network namespace: %w: %w", ErrUnprivileged, err)
		}
		return nil, errors.Join(fmt.Errorf("network namespace: %w", err), n.Close())
	}
	return n, nil
}

func ip(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
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
	return ip(context.Background(), "netns", "del", n.name)
}
