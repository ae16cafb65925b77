package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip/siptest"
)

// The daemon reports to a recording client what it receives: a plain stream with two
// ports and one with a single port, each checked against what was sent, and a farewell.
func TestLiveSIPRECReports(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "SDES": true} {
		t.Run(name, func(t *testing.T) { t.Parallel(); reportedCall(t, secure) })
	}
}

func reportedCall(t *testing.T, secure bool) {
	listen := freeUDP(t, liveHost)
	dialect := siptest.Dialect{}
	if secure {
		dialect.Source = []string{"srtp: required"}
	}
	d := newLiveDaemon(t, siprecConfig(t, listen, []siptest.Dialect{dialect}))
	d.start()
	ctx, cancel := context.WithTimeout(t.Context(), siprecLimit)
	defer cancel()
	call, peers := reporting(ctx, t, listen, secure)
	told := func(p *siptest.Reported) bool {
		list, _, err := p.Receipts()
		if err != nil {
			t.Fatal(err)
		}
		return p.LastNTP() != 0 && len(list) > 0 && list[len(list)-1].Block.LastSenderReport == p.LastNTP()
	}
	for i := 0; ctx.Err() == nil && (!told(peers[0]) || !told(peers[1])); i++ {
		for _, p := range peers {
			if i == 25 {
				if err := p.SenderReport(); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Send(i%10 == 3); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := call.Bye(ctx); err != nil {
		t.Fatal(err)
	}
	for i, p := range peers {
		for bye := false; !bye; time.Sleep(10 * time.Millisecond) {
			var err error
			if _, bye, err = p.Receipts(); err != nil || ctx.Err() != nil {
				t.Fatalf("stream %d: farewell %v, %v, %v", i, bye, err, ctx.Err())
			}
		}
	}
	if n := d.metric("trunktap_relay_receiver_reports_total"); n < 4 {
		t.Errorf("%v reports are counted", n)
	}
	d.stop()
}

// reporting begins a recording session whose two streams speak RTCP, the second on the
// port of its media.
func reporting(ctx context.Context, t *testing.T, listen netip.AddrPort, secure bool) (*siptest.SRCDialog, []*siptest.Reported) {
	t.Helper()
	client := dialectAddr(0)
	c := must(siptest.NewSRC(siptest.SRCConfig{Addr: netip.AddrPortFrom(client, 0), Remote: listen}))(t)
	t.Cleanup(func() { _ = c.Close() }) // it may be closed
	call := must(c.NewDialog("reported", "", 0))(t)
	offer := fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\n", client, client)
	var peers []*siptest.Reported
	for _, mux := range []bool{false, true} {
		p := must(siptest.NewReported(func(a netip.AddrPort) (siptest.Conn, error) { return net.ListenUDP("udp", net.UDPAddrFromAddrPort(a)) }, client, mux, secure))(t)
		t.Cleanup(func() { _ = p.Close() }) // nothing is sent any more
		offer += p.Line()
		peers = append(peers, p)
	}
	must(call.Invite(ctx, "application/sdp", []byte(offer), nil))(t)
	for i, p := range peers {
		if err := p.Answered(call.Answer(), i); err != nil {
			t.Fatal(err)
		}
	}
	return call, peers
}
