package b2bua

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// partiesEnv makes the test binary the parties of the benchmarks and nothing
// else: what they cost must not be counted as ours.
const partiesEnv = "TRUNKTAP_BENCH_PARTIES"

func TestMain(m *testing.M) {
	if os.Getenv(partiesEnv) != "" {
		if err := playParties(); err != nil {
			fmt.Fprintln(os.Stderr, "parties:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// order is what the parties are to do.
type order struct {
	Server netip.AddrPort
	First  int           // number of the first call
	Calls  int           // how many
	Rate   float64       // calls a second; 0: as fast as InFlight allows
	Flight int           // calls at most that are not over
	Hold   time.Duration // from answer to BYE; negative: no BYE
}

// outcome is what came of an order. The delays are what lies between the
// caller's sending and the kernel's stamp where the message arrives.
type outcome struct {
	Ended, Refused, Repeated int
	Invite, Ring             quantiles
}

type quantiles struct{ P50, P99, P999, Max time.Duration }

func quantilesOf(v []time.Duration) (q quantiles) {
	if len(v) == 0 {
		return q
	}
	slices.Sort(v)
	at := func(f float64) time.Duration { return v[min(len(v)-1, int(f*float64(len(v))))] }
	return quantiles{at(0.5), at(0.99), at(0.999), v[len(v)-1]}
}

// partyCall is one call as both parties see it.
type partyCall struct {
	number                 int
	inviteSent, inviteSeen time.Time
	ringSent, ringSeen     time.Time
	answered, over         bool
	refused                bool
	pending                []byte // request without an answer
	resend, hangUp         time.Time
}

// parties are a caller and a callee with one socket each.
type parties struct {
	caller, callee *net.UDPConn

	mu       sync.Mutex // guards all following
	order    order
	calls    []partyCall
	held     []*partyCall // in the order of their hangUp
	flight   int
	left     int
	repeated int
	changed  chan struct{} // capacity 1: a call is over
}

func playParties() error {
	runtime.GOMAXPROCS(4)
	p := &parties{changed: make(chan struct{}, 1)}
	var err error
	if p.caller, err = listenParty("127.0.0.1:0"); err != nil {
		return err
	}
	if p.callee, err = listenParty("127.0.0.2:0"); err != nil {
		return err
	}
	go p.read(p.caller, p.atCaller) // end with the process
	go p.read(p.callee, p.atCallee)
	fmt.Println(p.caller.LocalAddr(), p.callee.LocalAddr())
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		var o order
		if err := json.Unmarshal(orders.Bytes(), &o); err != nil {
			return err
		}
		text, err := json.Marshal(p.run(o))
		if err != nil {
			return err
		}
		fmt.Println(string(text))
	}
	return orders.Err()
}

func listenParty(at string) (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // the kernel may give less
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	})
	return c, errors.Join(err, failed)
}

func (p *parties) read(c *net.UDPConn, take func(m []byte, from netip.AddrPort, at time.Time)) {
	buf, oob := make([]byte, 65536), make([]byte, 128)
	for {
		n, oobn, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			continue // an ICMP error of an earlier datagram
		}
		take(buf[:n], from, stampOf(oob[:oobn]))
	}
}

func stampOf(oob []byte) time.Time {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	for i := range cmsgs {
		if h := cmsgs[i].Header; err == nil && h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_TIMESTAMPNS && len(cmsgs[i].Data) >= 16 {
			ts := cmsgs[i].Data // struct timespec
			return time.Unix(int64(binary.NativeEndian.Uint64(ts)), int64(binary.NativeEndian.Uint64(ts[8:])))
		}
	}
	return time.Now()
}

// run does what is ordered and returns when all calls are over, or answered
// where they are to stay.
func (p *parties) run(o order) outcome {
	p.mu.Lock()
	p.order, p.calls, p.held = o, make([]partyCall, o.Calls), nil
	p.left, p.flight, p.repeated = o.Calls, 0, 0
	p.mu.Unlock()
	start, next := time.Now(), 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for repeated := start; ; {
		p.mu.Lock()
		for next < o.Calls && p.flight < o.Flight && (o.Rate == 0 || time.Since(start).Seconds()*o.Rate >= float64(next)) {
			p.invite(next)
			next++
		}
		p.hangUp()
		left := p.left
		if time.Since(repeated) > 100*time.Millisecond {
			repeated = time.Now()
			p.repeat()
		}
		p.mu.Unlock()
		if left == 0 {
			return p.outcome()
		}
		select {
		case <-p.changed:
		case <-tick.C:
		}
	}
}

func (p *parties) outcome() (res outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var invite, ring []time.Duration
	for i := range p.calls {
		c := &p.calls[i]
		if c.refused {
			res.Refused++
			continue
		}
		res.Ended++
		invite = append(invite, c.inviteSeen.Sub(c.inviteSent))
		ring = append(ring, c.ringSeen.Sub(c.ringSent))
	}
	res.Repeated = p.repeated
	res.Invite, res.Ring = quantilesOf(invite), quantilesOf(ring)
	return res
}

const callIDPrefix = "c0ffee24-5b1d-4a52-9a43-"

// request writes a request of the caller.
func (p *parties) request(method string, number, seq int, to, body string) []byte {
	b := make([]byte, 0, 1500)
	local := p.caller.LocalAddr().String()
	b = fmt.Appendf(b, "%s sip:+4930901820%d@%s;user=phone SIP/2.0\r\n", method, number%10, p.order.Server)
	b = fmt.Appendf(b, "Via: SIP/2.0/UDP %s;branch=z9hG4bK%x.%d;rport\r\nMax-Forwards: 70\r\n", local, number, seq)
	b = fmt.Appendf(b, "From: \"Anna Berger\" <sip:+493012345678@%s;user=phone>;tag=f%d\r\n", local, number)
	b = fmt.Appendf(b, "To: <sip:+493090182010@%s;user=phone>%s\r\n", p.order.Server, to)
	b = fmt.Appendf(b, "Call-ID: %s%d@carrier.example\r\nCSeq: %d %s\r\n", callIDPrefix, number, seq, method)
	if method == "INVITE" {
		b = fmt.Appendf(b, "Contact: <sip:+493012345678@%s;transport=udp>\r\n"+
			"Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE, PRACK, INFO, REFER, NOTIFY\r\nSupported: timer, 100rel, replaces\r\n"+
			"Session-Expires: 1800;refresher=uac\r\nP-Asserted-Identity: <sip:+493012345678@carrier.example;user=phone>\r\n"+
			"User-Agent: Carrier-SBC/7.2\r\n", local)
	}
	if body != "" {
		b = append(b, "Content-Type: application/sdp\r\n"...)
	}
	return fmt.Appendf(b, "Content-Length: %d\r\n\r\n%s", len(body), body)
}

func partySDP(host string, port int) string {
	return fmt.Sprintf("v=0\r\no=- 20518 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %[2]d RTP/AVP 8 0 9 101\r\n"+
		"a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:9 G722/8000\r\na=rtpmap:101 telephone-event/8000\r\n"+
		"a=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n", host, port)
}

// invite begins a call. p.mu is held, as by all of the following.
func (p *parties) invite(i int) {
	c := &p.calls[i]
	c.number = p.order.First + i
	p.flight++
	text := p.request("INVITE", c.number, 1, "", partySDP("127.0.0.1", 6000))
	c.pending, c.resend = text, time.Now().Add(500*time.Millisecond)
	c.inviteSent = time.Now()
	p.send(p.caller, text, p.order.Server)
}

func (p *parties) send(c *net.UDPConn, b []byte, to netip.AddrPort) {
	_, _ = c.WriteToUDPAddrPort(b, to) // what is lost is repeated
}

func (p *parties) hangUp() {
	now := time.Now()
	for len(p.held) > 0 && !now.Before(p.held[0].hangUp) {
		p.bye(p.held[0])
		p.held = p.held[1:]
	}
}

func (p *parties) bye(c *partyCall) {
	c.pending, c.resend = p.request("BYE", c.number, 2, ";tag=t", ""), time.Now().Add(500*time.Millisecond)
	p.send(p.caller, c.pending, p.order.Server)
}

func (p *parties) repeat() {
	now := time.Now()
	for i := range p.calls {
		if c := &p.calls[i]; c.pending != nil && now.After(c.resend) {
			c.resend = now.Add(500 * time.Millisecond)
			p.repeated++
			p.send(p.caller, c.pending, p.order.Server)
		}
	}
}

func (p *parties) done(c *partyCall) {
	if c.over {
		return
	}
	c.over, c.pending = true, nil
	p.left--
	p.flight--
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// callOf finds the call of a message; nil when it belongs to none of the order.
func (p *parties) callOf(m []byte) *partyCall {
	i := bytes.Index(m, []byte(callIDPrefix))
	if i < 0 {
		return nil
	}
	digits, _, _ := bytes.Cut(m[i+len(callIDPrefix):], []byte("@"))
	n, err := strconv.Atoi(string(digits))
	if n -= p.order.First; err != nil || n < 0 || n >= len(p.calls) {
		return nil
	}
	return &p.calls[n]
}

// atCaller takes responses.
func (p *parties) atCaller(m []byte, _ netip.AddrPort, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.callOf(m)
	if c == nil || len(m) < 12 {
		return
	}
	bye := bytes.Contains(m, []byte("CSeq: 2 BYE"))
	switch status := string(m[8:11]); {
	case bye:
		p.done(c)
	case status == "180":
		c.ringSeen = at
	case status == "200":
		p.send(p.caller, p.request("ACK", c.number, 1, ";tag=t", ""), p.order.Server)
		if c.answered {
			return
		}
		c.answered, c.pending = true, nil
		switch hold := p.order.Hold; {
		case hold < 0:
			p.done(c)
		case hold == 0:
			p.bye(c)
		default:
			c.hangUp = time.Now().Add(hold)
			p.held = append(p.held, c)
		}
	case status >= "300":
		c.refused = true
		p.done(c)
	default:
		c.pending = nil
	}
}

// atCallee takes requests: it rings and answers at once.
func (p *parties) atCallee(m []byte, from netip.AddrPort, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case bytes.HasPrefix(m, []byte("INVITE ")):
		c := p.callOf(m)
		if c == nil || !c.inviteSeen.IsZero() {
			return
		}
		c.inviteSeen = at
		ring := p.response(m, "180 Ringing", "")
		answer := p.response(m, "200 OK", partySDP("127.0.0.2", 6002))
		c.ringSent = time.Now()
		p.send(p.callee, ring, from)
		p.send(p.callee, answer, from)
	case bytes.HasPrefix(m, []byte("BYE ")):
		p.send(p.callee, p.response(m, "200 OK", ""), from)
	}
}

func (p *parties) response(req []byte, status, body string) []byte {
	b := fmt.Appendf(make([]byte, 0, 1200), "SIP/2.0 %s\r\n", status)
	for line := range bytes.Lines(req) {
		switch {
		case bytes.HasPrefix(line, []byte("To: ")) && !bytes.Contains(line, []byte(";tag=")):
			b = append(append(b, bytes.TrimRight(line, "\r\n")...), ";tag=t\r\n"...)
		case bytes.HasPrefix(line, []byte("Via: ")), bytes.HasPrefix(line, []byte("From: ")), bytes.HasPrefix(line, []byte("To: ")),
			bytes.HasPrefix(line, []byte("Call-ID: ")), bytes.HasPrefix(line, []byte("CSeq: ")), bytes.HasPrefix(line, []byte("Record-Route: ")):
			b = append(b, line...)
		}
	}
	b = fmt.Appendf(b, "Contact: <sip:agent12@%s>\r\nAllow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE, INFO\r\nServer: PBX/1.0\r\n", p.callee.LocalAddr())
	if body != "" {
		b = append(b, "Content-Type: application/sdp\r\n"...)
	}
	return fmt.Appendf(b, "Content-Length: %d\r\n\r\n%s", len(body), body)
}
