package mediatest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var (
	alice = netip.MustParseAddrPort("192.0.2.1:4000")
	bob   = netip.MustParseAddrPort("198.51.100.1:5000")
)

func mustListen(t *testing.T, n *Net, at netip.AddrPort) *Conn {
	t.Helper()
	c, err := n.Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // closed twice by some tests
	return c
}

// receive reads until nothing has come for a second; it returns what came as
// "payload@milliseconds".
func receive(t *testing.T, c *Conn) []string {
	t.Helper()
	start := time.Now()
	var got []string
	b := make([]byte, 2000)
	for {
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, _, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s@%d", b[:n], time.Since(start).Milliseconds()))
	}
}

func TestNetDeliversAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNet(1)
		a, b := mustListen(t, n, alice), mustListen(t, n, bob)
		var sent []string
		n.OnPacket(func(at time.Time, src, dst netip.AddrPort, payload []byte) {
			sent = append(sent, fmt.Sprint(src, dst, string(payload)))
		})
		wire := []byte("hello")
		if _, err := a.WriteTo(wire, net.UDPAddrFromAddrPort(bob)); err != nil {
			t.Fatal(err)
		}
		wire[0] = 'j' // the network has its own copy
		buf := make([]byte, 3)
		k, from, err := b.ReadFrom(buf)
		if err != nil || string(buf[:k]) != "hel" || from.String() != alice.String() {
			t.Fatalf("got %q from %v, %v", buf[:k], from, err)
		}
		if want := []string{fmt.Sprint(alice, bob, "hello")}; !slices.Equal(sent, want) {
			t.Fatalf("hook saw %v, want %v", sent, want)
		}
	})
}

func TestNetAddresses(t *testing.T) {
	n := NewNet(1)
	a := mustListen(t, n, alice)
	if _, err := n.Listen(alice); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("second listener: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("second close: %v", err)
	}
	mustListen(t, n, alice)
	one := mustListen(t, n, netip.AddrPortFrom(alice.Addr(), 0))
	two := mustListen(t, n, netip.AddrPortFrom(alice.Addr(), 0))
	if one.LocalAddr().String() == two.LocalAddr().String() {
		t.Fatal("two listeners got one port")
	}
	if _, err := n.Listen(netip.MustParseAddrPort("0.0.0.0:1")); err == nil {
		t.Fatal("a listener without a host")
	}
	if _, err := one.WriteToUDPAddrPort([]byte{1}, bob); err != nil || n.Dropped() != 1 {
		t.Fatalf("to nobody: %v, %d dropped", err, n.Dropped())
	}
	if _, err := one.WriteToUDPAddrPort(nil, netip.AddrPort{}); err == nil {
		t.Fatal("wrote without a destination")
	}
}

func TestNetQueueIsBounded(t *testing.T) {
	n := NewNet(1)
	a, b := mustListen(t, n, alice), mustListen(t, n, bob)
	for range queuePackets + 5 {
		if _, err := a.WriteToUDPAddrPort([]byte{1}, bob); err != nil {
			t.Fatal(err)
		}
	}
	if n.Dropped() != 5 || len(b.in) != queuePackets {
		t.Fatalf("%d dropped, %d queued", n.Dropped(), len(b.in))
	}
}

func TestConnCloseAndDeadlineEndReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := mustListen(t, NewNet(1), alice)
		start := time.Now()
		errs := make(chan error)
		read := func() { _, _, err := c.ReadFromUDPAddrPort(nil); errs <- err }
		go read()
		synctest.Wait()
		_ = c.SetDeadline(time.Now().Add(time.Minute)) // moved under a waiting read
		if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Minute {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		_ = c.SetDeadline(time.Time{})
		go read()
		synctest.Wait()
		_ = c.Close()
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if _, err := c.WriteToUDPAddrPort([]byte{1}, bob); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	})
}

func TestNetImpairments(t *testing.T) {
	run := func(t *testing.T, seed uint64, i Impairment, packets int) (got []string, delivered int) {
		synctest.Test(t, func(t *testing.T) {
			n := NewNet(seed)
			n.Impair(alice.Addr(), netip.Addr{}, i)
			n.OnDeliver(func(time.Time, netip.AddrPort, netip.AddrPort, []byte) { delivered++ })
			a, b := mustListen(t, n, alice), mustListen(t, n, bob)
			for k := range packets {
				if _, err := a.WriteToUDPAddrPort(fmt.Appendf(nil, "%03d", k), bob); err != nil {
					t.Fatal(err)
				}
			}
			got = receive(t, b)
		})
		return got, delivered
	}
	t.Run("delay keeps order", func(t *testing.T) {
		got, _ := run(t, 1, Impairment{Delay: 40 * time.Millisecond}, 3)
		if want := []string{"000@40", "001@40", "002@40"}; !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
	t.Run("jitter keeps order", func(t *testing.T) {
		got, _ := run(t, 1, Impairment{Jitter: 200 * time.Millisecond}, 200)
		if len(got) != 200 || !slices.IsSorted(got) || got[0] == "000@0" && got[199] == "199@0" {
			t.Fatalf("%d packets: %v", len(got), got)
		}
	})
	t.Run("loss", func(t *testing.T) {
		got, delivered := run(t, 1, Impairment{Loss: 0.3}, 1000)
		if len(got) < 620 || len(got) > 780 || delivered != len(got) {
			t.Fatalf("%d of 1000 came, hook saw %d", len(got), delivered)
		}
	})
	t.Run("duplication", func(t *testing.T) {
		if got, _ := run(t, 1, Impairment{Duplicate: 1}, 2); len(got) != 4 || got[0] != got[1] {
			t.Fatalf("%v", got)
		}
	})
	t.Run("reorder", func(t *testing.T) {
		got, _ := run(t, 1, Impairment{Delay: time.Millisecond, Reorder: 0.5}, 100)
		if len(got) != 100 || slices.IsSorted(got) || !slices.ContainsFunc(got, func(s string) bool { return s[3:] == "@31" }) {
			t.Fatalf("%d packets: %v", len(got), got)
		}
	})
	t.Run("seeded", func(t *testing.T) {
		i := Impairment{Delay: time.Millisecond, Jitter: 30 * time.Millisecond, Loss: 0.2, Duplicate: 0.1, Reorder: 0.1}
		one, _ := run(t, 7, i, 300)
		same, _ := run(t, 7, i, 300)
		other, _ := run(t, 8, i, 300)
		if !slices.Equal(one, same) || slices.Equal(one, other) {
			t.Fatal("the seed does not decide what happens")
		}
	})
}

// What one flow sends must not change the fate of another one's packets.
func TestNetFlowsAreIndependent(t *testing.T) {
	run := func(noise bool) (got []string) {
		synctest.Test(t, func(t *testing.T) {
			n := NewNet(3)
			n.Impair(netip.Addr{}, netip.Addr{}, Impairment{Loss: 0.5, Jitter: 10 * time.Millisecond})
			a, b := mustListen(t, n, alice), mustListen(t, n, bob)
			c := mustListen(t, n, netip.AddrPortFrom(alice.Addr(), 4002))
			sink := mustListen(t, n, netip.AddrPortFrom(bob.Addr(), 5002))
			for k := range 100 {
				_, _ = a.WriteToUDPAddrPort(fmt.Appendf(nil, "%03d", k), bob)
				if noise {
					_, _ = c.WriteTo([]byte("noise"), sink.LocalAddr())
				}
			}
			got = receive(t, b)
		})
		return got
	}
	if quiet, noisy := run(false), run(true); len(quiet) == 0 || !slices.Equal(quiet, noisy) {
		t.Fatalf("alone %v\nbeside another flow %v", quiet, noisy)
	}
}
