package dns

import (
	"net/netip"
	"os"
	"strings"
)

// systemBytesMax bounds what is read of the system's files.
const systemBytesMax = 1 << 20

// SystemServers are those of resolv.conf.
func SystemServers(file string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, line := range lines(file) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out
}

// HostsFile reads the addresses of a name in a file such as /etc/hosts.
func HostsFile(file string) func(name string) []netip.Addr {
	return func(name string) (out []netip.Addr) {
		for _, line := range lines(file) {
			line, _, _ = strings.Cut(line, "#")
			f := strings.Fields(line)
			for i := 1; i < len(f); i++ {
				if a, err := netip.ParseAddr(f[0]); err == nil && strings.EqualFold(f[i], name) {
					out = append(out, a.Unmap())
				}
			}
		}
		return out
	}
}

func lines(file string) []string {
	text, err := os.ReadFile(file)
	if err != nil || len(text) > systemBytesMax {
		return nil // a system without it has none
	}
	return strings.Split(string(text), "\n")
}
