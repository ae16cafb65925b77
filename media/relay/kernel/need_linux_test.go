package kernel_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/media/relay/kernel"
	"github.com/trunktap/trunktap/media/relay/kernel/kerneltest"
)

// Two capabilities suffice, and what is missing is named.
func TestWithTwoCapabilities(t *testing.T) {
	if kerneltest.EnterAs(t, []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN}) {
		if os.Getuid() == 0 {
			t.Fatal("still root")
		}
		e, p, s := start(t, config()), newPair(t), newSink()
		f, err := e.Add(p.spec(), s)
		if err != nil {
			t.Fatal(err)
		}
		p.take(f)
		for i := 1; i < 50; i++ {
			p.send(rtp(i, 160))
			p.want(p.to, rtp(i, 160))
		}
		if n := f.Remove(); n.Packets != 49 || s.len() != 49 {
			t.Fatalf("%+v, %d in the sink", n, s.len())
		}
	}
}

func TestMissingCapability(t *testing.T) {
	if kerneltest.EnterAs(t, []uintptr{unix.CAP_NET_ADMIN}) {
		_, err := kernel.Open(config())
		if text := fmt.Sprint(err); !errors.Is(err, kernel.ErrUnsupported) || !strings.Contains(text, "lacks CAP_BPF;") || !strings.Contains(text, "AmbientCapabilities=") {
			t.Fatal(text)
		}
	}
}

func TestPinDirIsChecked(t *testing.T) {
	if !kerneltest.Enter(t) {
		return
	}
	cfg := config()
	cfg.PinDir = t.TempDir()
	e := start(t, cfg)
	if err := e.Pinned(); err == nil || !strings.Contains(err.Error(), "mount -t bpf") {
		t.Fatalf("pinned to an ordinary directory: %v", err)
	}
	cfg.PinDir = ""
	if err := start(t, cfg).Pinned(); err == nil {
		t.Fatal("pinned to nothing")
	}
	cfg.Interfaces = []string{"lo", "eth77"}
	if _, err := kernel.Open(cfg); !errors.Is(err, kernel.ErrUnsupported) || !strings.Contains(err.Error(), "no interface eth77; interfaces may name lo") {
		t.Fatal(err)
	}
}
