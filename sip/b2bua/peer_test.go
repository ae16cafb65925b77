package b2bua

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/sip"
)

// The addresses of the test: we stand between a carrier and a PBX.
var (
	outside  = netip.MustParseAddrPort("192.0.2.1:5060")
	inside   = netip.MustParseAddrPort("10.0.0.1:5060")
	carrier  = netip.MustParseAddrPort("192.0.2.66:5060")
	pbx      = netip.MustParseAddrPort("10.0.0.66:5060")
	pbx2     = netip.MustParseAddrPort("10.0.0.67:5060")
	other    = netip.MustParseAddrPort("192.0.2.68:5060") // another peer outside
	stranger = netip.MustParseAddrPort("203.0.113.9:5060")
)

// bench is a B2BUA on an in-memory network with one peer on each side.
type bench struct {
	t     *testing.T
	net   *mediatest.Net
	b     *B2BUA
	relay *relay.Relay
	obs   *observer
	a     *peer // carrier, external
	p     *peer // PBX, internal
}

func trunk() sip.Trunk {
	return sip.Trunk{Name: "t", Sides: [2]sip.Side{
		media.External: {
			Peers:    []netip.Prefix{netip.MustParsePrefix("192.0.2.64/28")},
			NextHops: []sip.NextHop{{Host: "192.0.2.66", Port: 5060, Transport: "udp"}},
			Address:  outside.Addr(), MediaAddr: outside.Addr(),
		},
		media.Internal: {
			Peers:    []netip.Prefix{netip.MustParsePrefix("10.0.0.64/28")},
			NextHops: []sip.NextHop{{Host: "10.0.0.66", Port: 5060, Transport: "udp"}},
			Address:  inside.Addr(), MediaAddr: inside.Addr(),
		},
	}}
}

// inBubble runs f in a synctest bubble with a bench that is closed after it.
func inBubble(t *testing.T, edit func(*Config), f func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := mediatest.NewNet(1)
		r, err := relay.New(relay.Config{
			PortMin: 20000, PortMax: 20099, Quarantine: -1,
			Open: func(a netip.AddrPort) (relay.Conn, error) { return n.Listen(a) },
		})
		if err != nil {
			t.Fatal(err)
		}
		w := &bench{t: t, net: n, relay: r, obs: &observer{}}
		cfg := Config{
			Trunks:   []sip.Trunk{trunk()},
			Listen:   []sip.Listen{{Network: "udp", Addr: outside}, {Network: "udp", Addr: inside}},
			Net:      sip.Net{ListenPacket: func(_ string, a netip.AddrPort) (net.PacketConn, error) { return n.Listen(a) }},
			Relay:    r,
			Observer: w.obs,
		}
		if edit != nil {
			edit(&cfg)
		}
		if w.b, err = New(cfg); err != nil {
			t.Fatal(err)
		}
		if err := w.b.Start(); err != nil {
			t.Fatal(err)
		}
		w.a, w.p = newPeer(t, n, carrier), newPeer(t, n, pbx)
		t.Cleanup(func() { w.finish() })
		f(w)
	})
}

func (w *bench) finish() {
	t, r := w.t, w.relay
	w.a.drain()
	w.p.drain()
	time.Sleep(time.Second)
	if err := w.b.Close(); err != nil && !strings.Contains(err.Error(), "already") {
		t.Error(err)
	}
	if got := r.Streams(); got != 0 {
		t.Errorf("%d relay streams left open", got)
	}
	if got := w.b.counters.Panics.Load(); got != 0 {
		t.Errorf("%d faults survived", got)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	w.a.close()
	w.p.close()
}

// peer is a raw SIP peer: it sends what it is told and shows what comes.
type peer struct {
	t    *testing.T
	c    *mediatest.Conn
	addr netip.AddrPort
	in   chan *sip.Message
	done chan struct{}
	skip bool // repetitions of what came before

	lenient bool // towards answers to what was no message of SIP/2.0
	seen    map[string]bool
	sent    string // last
}

func newPeer(t *testing.T, n *mediatest.Net, addr netip.AddrPort) *peer {
	t.Helper()
	c, err := n.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, c: c, addr: addr, in: make(chan *sip.Message, 1000), done: make(chan struct{}), skip: true, seen: map[string]bool{}}
	go func() {
		defer close(p.done)
		buf := make([]byte, 65536)
		for {
			k, src, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			m, _, err := sip.Parse(buf[:k], false)
			if err != nil && p.lenient {
				continue
			}
			if err != nil {
				t.Errorf("%s got what is no message: %v\n%s", addr, err, buf[:k])
				continue
			}
			m.Flow.Remote, m.Arrival = src, time.Now()
			p.in <- m
		}
	}()
	return p
}

func (p *peer) close() {
	_ = p.c.Close()
	<-p.done
}

func (p *peer) drain() {
	for len(p.in) > 0 {
		<-p.in
	}
}

// send writes a message; lines are given with LF.
func (p *peer) send(to netip.AddrPort, text string) {
	p.t.Helper()
	p.sent = text
	if _, err := p.c.WriteToUDPAddrPort([]byte(text), to); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) sendMessage(to netip.AddrPort, m *sip.Message) { p.send(to, string(m.Append(nil))) }

// next returns the next message that is no repetition, nil when none comes.
func (p *peer) next(within time.Duration) *sip.Message {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		select {
		case m := <-p.in:
			text := string(m.Append(nil))
			if p.skip && p.seen[text] {
				continue
			}
			p.seen[text] = true
			return m
		case <-timer.C:
			return nil
		}
	}
}

// want returns the next message, which must be that request or response.
func (p *peer) want(what string) *sip.Message {
	p.t.Helper()
	m := p.next(40 * time.Second)
	if m == nil {
		p.t.Fatalf("%s: no %s came", p.addr, what)
	}
	have := m.Method
	if !m.IsRequest() {
		have = fmt.Sprintf("%d", m.Status)
		if _, method := m.CSeq(); strings.Contains(what, " ") {
			have += " " + method
		}
	}
	if have != what {
		p.t.Fatalf("%s: want %s, got %s:\n%s", p.addr, what, have, m.Append(nil))
	}
	return m
}

// quiet makes sure that nothing comes.
func (p *peer) quiet(d time.Duration) {
	p.t.Helper()
	if m := p.next(d); m != nil {
		p.t.Fatalf("%s: unexpected:\n%s", p.addr, m.Append(nil))
	}
}

func message(start string, headers []string, body string) string {
	return start + "\r\n" + strings.Join(headers, "\r\n") + "\r\n" +
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
}

func sdpOf(addr netip.Addr, port int, extra ...string) string {
	return fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=audio %d RTP/AVP 0 101\r\n"+
		"a=rtpmap:101 telephone-event/8000\r\n%s", addr, addr, port, strings.Join(append(extra, ""), "\r\n"))
}

// dialogue is one end of a call as a peer sees it.
type dialogue struct {
	p        *peer
	us       netip.AddrPort
	callID   string
	local    string // From value with tag, as we send it
	remote   string
	target   string
	routes   []string
	cseq     int
	branches int
	invite   *sip.Message // as it came
}

func (d *dialogue) request(method string, extra []string, body string) string {
	if method != "ACK" && method != "CANCEL" {
		d.cseq++
	}
	return d.requestAt(method, d.cseq, extra, body)
}

func (d *dialogue) requestAt(method string, cseq int, extra []string, body string) string {
	d.branches++
	h := []string{
		fmt.Sprintf("Via: SIP/2.0/UDP %s;rport;branch=z9hG4bK-%s-%s-%d", d.p.addr, d.callID, d.p.addr.Addr(), d.branches),
		"Max-Forwards: 70", "From: " + d.local, "To: " + d.remote, "Call-ID: " + d.callID,
		fmt.Sprintf("CSeq: %d %s", cseq, method),
	}
	h = append(h, d.routes...)
	if body != "" && !strings.Contains(strings.Join(extra, "\n"), "Content-Type") {
		h = append(h, "Content-Type: application/sdp")
	}
	return message(method+" "+d.target+" SIP/2.0", append(h, extra...), body)
}

func (d *dialogue) send(method string, extra []string, body string) {
	d.p.send(d.us, d.request(method, extra, body))
}

// begin sends an INVITE.
func begin(p *peer, us netip.AddrPort, callID string, body string, extra ...string) *dialogue {
	d := &dialogue{
		p: p, us: us, callID: callID, cseq: 0,
		local: `"A. Caller" <sip:alice@example.net>;tag=from-` + callID, remote: "<sip:+4930123@example.com;user=phone>",
		target: "sip:+4930123@" + us.String() + ";user=phone",
	}
	extra = append(extra, fmt.Sprintf("Contact: <sip:alice@%s>;+sip.instance=\"x\"", p.addr))
	d.send("INVITE", extra, body)
	return d
}

// take reads an INVITE that came.
func (p *peer) take(us netip.AddrPort) *dialogue {
	p.t.Helper()
	m := p.want("INVITE")
	return &dialogue{
		p: p, us: us, callID: m.CallID(), invite: m, cseq: 100,
		local: m.Get("To"), remote: m.Get("From"), target: contactURIOf(p.t, m),
	}
}

func contactURIOf(t *testing.T, m *sip.Message) string {
	t.Helper()
	a, err := sip.ParseAddress(m.Get("Contact"))
	if err != nil {
		t.Fatalf("Contact %q: %v", m.Get("Contact"), err)
	}
	return a.URI
}

// reply answers a request that came.
func (p *peer) reply(req *sip.Message, status int, tag string, extra []string, body string) {
	p.t.Helper()
	res := sip.ResponseTo(req, status, "Because")
	if tag != "" && req.ToTag() == "" {
		res.Set("To", req.Get("To")+";tag="+tag)
	}
	for _, e := range extra {
		name, value, _ := strings.Cut(e, ": ")
		res.Add(name, value)
	}
	if body != "" {
		if !res.Has("Content-Type") {
			res.Add("Content-Type", "application/sdp")
		}
		res.Body = []byte(body)
	}
	p.sendMessage(req.Flow.Remote, res)
}

func (p *peer) contact() string { return fmt.Sprintf("Contact: <sip:%s;ob>", p.addr) }

// established sets up a call from the carrier to the PBX.
func (w *bench) established(callID string) (a, p *dialogue) {
	w.t.Helper()
	a = begin(w.a, outside, callID, sdpOf(carrier.Addr(), 7000))
	w.a.want("100")
	p = w.p.take(inside)
	w.p.reply(p.invite, 180, "pbx", []string{w.p.contact()}, "")
	w.a.want("180")
	w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
	w.acked(a, p, w.a.want("200"))
	return a, p
}

// acked finishes the caller's side with the ACK.
func (w *bench) acked(a, p *dialogue, ok *sip.Message) {
	w.t.Helper()
	a.remote, a.target = ok.Get("To"), contactURIOf(w.t, ok)
	p.local = ok.Get("To")
	w.a.send(a.us, a.requestAt("ACK", 1, nil, ""))
	w.p.want("ACK")
}

// hangUp ends a call with the caller's BYE.
func (w *bench) hangUp(a *dialogue) {
	w.t.Helper()
	a.send("BYE", nil, "")
	bye := w.p.want("BYE")
	w.p.reply(bye, 200, "", nil, "")
	w.a.want("200 BYE")
	synctest.Wait()
	if n := w.b.Calls(); n != 0 {
		w.t.Errorf("%d calls after BYE", n)
	}
}

// same checks that what one side got is what the other sent: header fields in
// order and verbatim, the body but for a description. Via, Contact and what
// counts hops or bytes may differ, routes are gone.
func same(t *testing.T, sent string, got *sip.Message) {
	t.Helper()
	m := mustParse(t, sent)
	strip := func(m *sip.Message) string {
		var lines []string
		vias := 0
		for _, h := range m.Headers {
			switch h.Name {
			case "Record-Route", "Route":
			case "Via":
				if vias++; vias == 1 {
					lines = append(lines, "Via")
				}
			case "Max-Forwards", "Contact", "Content-Length":
				lines = append(lines, h.Name)
			default:
				lines = append(lines, h.Name+": "+h.Value)
			}
		}
		return strings.Join(lines, "\n")
	}
	if s, g := strip(m), strip(got); s != g {
		t.Errorf("sent:\n%s\ngot:\n%s", s, g)
	}
	if !bytes.Equal(m.Body, got.Body) && m.Get("Content-Type") != "application/sdp" {
		t.Errorf("body sent %q, got %q", m.Body, got.Body)
	}
	if m.Method != got.Method || m.Status != got.Status || m.Reason != got.Reason {
		t.Errorf("sent %s %d %s, got %s %d %s", m.Method, m.Status, m.Reason, got.Method, got.Status, got.Reason)
	}
}

func mustParse(t *testing.T, text string) *sip.Message {
	t.Helper()
	m, _, err := sip.Parse([]byte(text), false)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return m
}
