package b2bua

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/siptest"
)

// sockets is a B2BUA on real sockets between two agents.
type sockets struct {
	t      *testing.T
	b      *B2BUA
	agents [2]*siptest.Agent // by side
	ours   [2]netip.AddrPort
}

func newSockets(t *testing.T, network string, hosts [2]netip.Addr, edit func(*Config)) *sockets {
	t.Helper()
	w := &sockets{t: t}
	// Below the ports that the system gives to the agents: nothing is sent to one of our own.
	r, err := relay.New(relay.Config{PortMin: 29000, PortMax: 29399, Quarantine: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	tr := sip.Trunk{Name: "real"}
	cfg := Config{Relay: r}
	for side, host := range hosts {
		a, err := siptest.New(siptest.Config{Name: "agent", Addr: netip.AddrPortFrom(host, 0), Transport: network})
		if err != nil {
			t.Skipf("no %s here: %v", host, err)
		}
		t.Cleanup(func() { _ = a.Close() })
		w.agents[side] = a
		tr.Sides[side] = sip.Side{
			Address: host, MediaAddr: host, Peers: []netip.Prefix{netip.PrefixFrom(host, host.BitLen())},
			NextHops: []sip.NextHop{{Host: host.String(), Port: int(a.Addr().Port()), Transport: network}},
		}
		if side == 0 || host != hosts[0] {
			cfg.Listen = append(cfg.Listen, sip.Listen{Network: network, Addr: netip.AddrPortFrom(host, 0)})
		}
	}
	cfg.Trunks = []sip.Trunk{tr}
	if edit != nil {
		edit(&cfg)
	}
	if w.b, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := w.b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.b.Close() })
	for side, host := range hosts {
		for _, at := range w.b.agent.Addrs() {
			if at.Addr() == host {
				w.ours[side] = at
			}
		}
	}
	return w
}

// call makes a call from a side to the other.
func (w *sockets) call(ctx context.Context, from media.Side, opts siptest.CallOptions) (caller, callee *siptest.Call) {
	w.t.Helper()
	caller, err := w.agents[from].Call(ctx, "sip:desk@"+w.ours[from].String(), w.ours[from], opts)
	if err != nil {
		w.t.Fatal(err)
	}
	callee, err = w.agents[from.Other()].Accept(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return caller, callee
}

// TestIPv4AndIPv6 makes calls between sides of different families, with more than 8
// kB of SDP and media both ways: each side sees its own family alone.
func TestIPv4AndIPv6(t *testing.T) {
	four, six := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	for _, network := range []string{"udp", "tcp"} {
		for name, edit := range map[string]func(*Config){"transparent": nil, "hidden": hiding} {
			for _, from := range []media.Side{media.External, media.Internal} {
				t.Run(fmt.Sprintf("%s %s from %s", network, name, from), func(t *testing.T) {
					w := newSockets(t, network, [2]netip.Addr{media.External: four, media.Internal: six}, edit)
					w.familyCall(from)
				})
			}
		}
	}
}

func (w *sockets) familyCall(from media.Side) {
	t := w.t
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var long []string
	for i := range 120 {
		long = append(long, fmt.Sprintf("a=x-unknown-attribute-%d:%s", i, strings.Repeat("y", 50)))
	}
	caller, callee := w.call(ctx, from, siptest.CallOptions{Offer: siptest.Offer{Lines: long}})
	if err := caller.Reinvite(ctx, siptest.Offer{Lines: long}); err != nil {
		t.Fatal(err)
	}
	if err := callee.Hold(ctx, siptest.HoldInactive); err != nil {
		t.Fatal(err)
	}
	if err := callee.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	caller.Media().Play(siptest.Tone(440, 0.5))
	callee.Media().Play(siptest.Tone(880, 0.5))
	for _, c := range []*siptest.Call{caller, callee} {
		if err := c.Media().Await(ctx, 10); err != nil {
			t.Error(err)
		}
	}
	if err := callee.Bye(ctx); err != nil {
		t.Fatal(err)
	}
	attributes := 0
	for side, a := range w.agents {
		foreign := []string{"127.0.0.1", "IP4"}
		if a.Addr().Addr().Is4() {
			foreign = []string{"::1", "IP6"}
		}
		for _, tr := range a.Traces() {
			if tr.Sent {
				continue
			}
			m, err := siptest.ParseMessage(tr.Raw)
			if err != nil {
				t.Fatal(err)
			}
			attributes = max(attributes, strings.Count(string(m.Body), "a=x-unknown-attribute-"))
			parts := []string{m.Get("Via"), m.Get("Contact"), m.RequestURI, m.Get("Route"), mediaLines(m.Body)}
			if w.b.cfg.Trunks[0].Hide {
				parts = []string{string(tr.Raw)}
			}
			for _, f := range foreign {
				if strings.Contains(strings.Join(parts, "\n"), f) {
					t.Errorf("the %s side sees %s in\n%s", media.Side(side), f, tr.Raw)
				}
			}
		}
	}
	if attributes != 120 {
		t.Errorf("%d of 120 attributes came", attributes)
	}
}

// mediaLines are those of a description that say where media goes.
func mediaLines(body []byte) (out string) {
	for l := range strings.Lines(string(body)) {
		if !strings.HasPrefix(l, "o=") {
			out += l
		}
	}
	return out
}
