package b2bua

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/emiago/sipgo"
	sipgosip "github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
)

// TestWithAnotherStack calls through real sockets between two agents of another
// implementation, over UDP and TCP, IPv4 and IPv6.
func TestWithAnotherStack(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent(), // its sockets outlive its Close; ours must not
		goleak.IgnoreAnyFunction("github.com/emiago/sipgo/sip.(*TransportUDP).readUDPConnection"),
		goleak.IgnoreAnyFunction("github.com/emiago/sipgo/sip.(*TransportTCP).readConnection"))
	sipgosip.SetDefaultLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))
	for _, host := range []string{"127.0.0.1", "::1"} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(network+" "+host, func(t *testing.T) { callWithSipgo(t, network, netip.MustParseAddr(host)) })
		}
	}
}

func callWithSipgo(t *testing.T, network string, host netip.Addr) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	callee, calleeAddr := sipgoServer(t, ctx, network, host)
	defer func() { _ = callee.Close() }()
	r, err := relay.New(relay.Config{PortMin: 34000, PortMax: 34099, Quarantine: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	one := []netip.Prefix{netip.PrefixFrom(host, host.BitLen())}
	b, err := New(Config{
		Listen: []sip.Listen{{Network: network, Addr: netip.AddrPortFrom(host, 0)}}, Relay: r,
		Trunks: []sip.Trunk{{Name: "real", Sides: [2]sip.Side{
			media.External: {Peers: one, MediaAddr: host, NextHops: []sip.NextHop{{Host: host.String(), Port: 1, Transport: network}}},
			media.Internal: {MediaAddr: host, NextHops: []sip.NextHop{
				{Host: host.String(), Port: 1, Transport: "tcp"}, // refuses, or has no transport: the next is tried
				{Host: host.String(), Port: int(calleeAddr.Port()), Transport: network},
			}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	us := b.agent.Addrs()[0]
	ua, err := sipgo.NewUA()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ua.Close() }()
	client, err := sipgo.NewClient(ua, sipgo.WithClientHostname(host.String()))
	if err != nil {
		t.Fatal(err)
	}
	dialogs := sipgo.NewDialogClientCache(client, sipgosip.ContactHeader{Address: sipgosip.Uri{Scheme: "sip", User: "a", Host: inURI(host), Port: 5099}})
	uri := sipgosip.Uri{Scheme: "sip", User: "bob", Host: inURI(host), Port: int(us.Port()), UriParams: sipgosip.NewParams()}
	uri.UriParams.Add("transport", network)
	session, err := dialogs.Invite(ctx, uri, []byte(sdpOf(host, 40000)), sipgosip.NewHeader("Content-Type", "application/sdp"))
	if err != nil {
		t.Fatal(err)
	}
	if err := session.WaitAnswer(ctx, sipgo.AnswerOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := session.Ack(ctx); err != nil {
		t.Fatal(err)
	}
	if n := b.Calls(); n != 1 {
		t.Errorf("%d calls", n)
	}
	if err := session.Bye(ctx); err != nil {
		t.Fatal(err)
	}
	if n := b.Calls(); n != 0 {
		t.Errorf("%d calls after BYE", n)
	}
}

// sipgoServer is a callee that rings and answers.
func sipgoServer(t *testing.T, ctx context.Context, network string, host netip.Addr) (*sipgo.UserAgent, netip.AddrPort) {
	t.Helper()
	ua, err := sipgo.NewUA()
	if err != nil {
		t.Fatal(err)
	}
	srv, err := sipgo.NewServer(ua)
	if err != nil {
		t.Fatal(err)
	}
	client, err := sipgo.NewClient(ua, sipgo.WithClientHostname(host.String()))
	if err != nil {
		t.Fatal(err)
	}
	var at netip.AddrPort
	var serve func() error
	if network == "udp" {
		pc, err := net.ListenPacket("udp", netip.AddrPortFrom(host, 0).String())
		if err != nil {
			t.Skipf("no %s here: %v", host, err)
		}
		t.Cleanup(func() { _ = pc.Close() })
		at = netip.MustParseAddrPort(pc.LocalAddr().String())
		serve = func() error { return srv.ServeUDP(pc) }
	} else {
		l, err := net.Listen("tcp", netip.AddrPortFrom(host, 0).String())
		if err != nil {
			t.Skipf("no %s here: %v", host, err)
		}
		t.Cleanup(func() { _ = l.Close() })
		at = netip.MustParseAddrPort(l.Addr().String())
		serve = func() error { return srv.ServeTCP(l) }
	}
	contact := sipgosip.ContactHeader{Address: sipgosip.Uri{Scheme: "sip", User: "bob", Host: inURI(host), Port: int(at.Port()), UriParams: sipgosip.NewParams()}}
	contact.Address.UriParams.Add("transport", network)
	dialogs := sipgo.NewDialogServerCache(client, contact)
	srv.OnInvite(func(req *sipgosip.Request, tx sipgosip.ServerTransaction) {
		d, err := dialogs.ReadInvite(req, tx)
		if err != nil {
			return
		}
		_ = d.Respond(180, "Ringing", nil)
		_ = d.Respond(200, "OK", []byte(sdpOf(host, 41000)), sipgosip.NewHeader("Content-Type", "application/sdp"))
		<-tx.Done()
	})
	srv.OnAck(func(req *sipgosip.Request, tx sipgosip.ServerTransaction) { _ = dialogs.ReadAck(req, tx) })
	srv.OnBye(func(req *sipgosip.Request, tx sipgosip.ServerTransaction) { _ = dialogs.ReadBye(req, tx) })
	go func() { _ = serve() }() // ends with its socket
	return ua, at
}

func inURI(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}
