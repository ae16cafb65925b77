package b2bua

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dns"
)

// answerSRV is a server that knows the SRV of pbx.example.net and its two machines.
func answerSRV(t *testing.T, query []byte) []byte {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		t.Fatal(err)
	}
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	add := func(body dnsmessage.ResourceBody) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60}, Body: body})
	}
	switch name := q.Name.String(); {
	case name == "_sip._udp.pbx.example.net." && q.Type == dnsmessage.TypeSRV:
		add(&dnsmessage.SRVResource{Priority: 2, Port: 5060, Target: dnsmessage.MustNewName("b.pbx.example.net.")})
		add(&dnsmessage.SRVResource{Priority: 1, Port: 5060, Target: dnsmessage.MustNewName("a.pbx.example.net.")})
	case name == "a.pbx.example.net." && q.Type == dnsmessage.TypeA:
		add(&dnsmessage.AResource{A: pbx.Addr().As4()})
	case name == "b.pbx.example.net." && q.Type == dnsmessage.TypeA:
		add(&dnsmessage.AResource{A: pbx2.Addr().As4()})
	case q.Type == dnsmessage.TypeAAAA, q.Type == dnsmessage.TypeSRV:
	default:
		m.RCode = dnsmessage.RCodeNameError
	}
	out, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestNamesBySRV: a next hop that is a name leads to its machines in their order, and
// still does when DNS is gone.
func TestNamesBySRV(t *testing.T) {
	down := false
	inBubble(t, func(cfg *Config) {
		cfg.DNS = dns.New(dns.Config{
			Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")},
			Exchange: func(_ context.Context, _ netip.AddrPort, query []byte) ([]byte, error) {
				if down {
					return nil, errors.New("no route to host")
				}
				return answerSRV(t, query), nil
			},
		})
		side := &cfg.Trunks[0].Sides[media.Internal]
		side.NextHops, side.Peers = []sip.NextHop{{Host: "pbx.example.net"}}, nil
		side.Ping = sip.Ping{Interval: time.Hour}
	}, func(w *bench) {
		w.p.reply(w.p.want("OPTIONS"), 200, "x", nil, "") // from an address that only DNS tells of
		time.Sleep(time.Second)
		if s := w.hop("pbx.example.net"); s.Pings != 1 || s.PingsFailed != 0 {
			t.Errorf("%+v", s)
		}
		q := newPeer(t, w.net, pbx2)
		defer q.close()
		for _, gone := range []bool{false, true} {
			down = gone
			id := map[bool]string{false: "srv", true: "stale"}[gone]
			begin(w.a, outside, id, sdpOf(carrier.Addr(), 7000))
			w.a.want("100")
			p := w.p.take(inside)
			if p.invite.URI != "sip:+4930123@pbx.example.net;user=phone" {
				t.Errorf("Request-URI %s", p.invite.URI)
			}
			w.p.reply(p.invite, 503, "x", nil, "")
			w.p.want("ACK")
			second := q.take(inside)
			q.reply(second.invite, 486, "x", nil, "")
			q.want("ACK")
			w.a.want("486")
			time.Sleep(5 * time.Minute)
		}
		if n := w.b.cfg.DNS.Counters.Stale.Load(); n == 0 {
			t.Error("nothing was used beyond its time")
		}
	})
}
