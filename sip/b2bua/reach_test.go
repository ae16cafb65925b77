package b2bua

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// feed is a listener whose connections the test makes.
type feed struct {
	addr   netip.AddrPort
	conns  chan net.Conn
	closed chan struct{}
}

func (l *feed) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *feed) Close() error   { close(l.closed); return nil }
func (l *feed) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// fromConn is a connection of somebody at an address.
type fromConn struct {
	net.Conn
	remote netip.AddrPort
}

func (c fromConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// streamParty is a party on TCP inside, to which nobody can connect.
type streamParty struct {
	t    *testing.T
	feed *feed
	addr netip.Addr
	port uint16 // of the next connection
	conn net.Conn
	seq  int
	to   string // with the tag of the callee
}

// withStream lets a bench have such a party.
func withStream(t *testing.T) (edit func(*Config), party *streamParty) {
	party = &streamParty{t: t, addr: netip.MustParseAddr("10.0.0.70"), port: 4711, to: "<sip:+4930123@example.com>"}
	return func(cfg *Config) {
		overPipes(cfg, func(netip.AddrPort) (net.Conn, error) { return nil, errors.New("connection refused") })
		cfg.Net.Listen = func(_ string, a netip.AddrPort) (net.Listener, error) {
			f := &feed{addr: a, conns: make(chan net.Conn), closed: make(chan struct{})}
			if a == inside {
				party.feed = f
			}
			return f, nil
		}
	}, party
}

func (s *streamParty) connect() {
	near, far := net.Pipe()
	s.conn = far
	s.feed.conns <- fromConn{near, netip.AddrPortFrom(s.addr, s.port)}
	s.port++
}

func (s *streamParty) drop() {
	if err := s.conn.Close(); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

// send sends a request of its call.
func (s *streamParty) send(method, body string) {
	s.t.Helper()
	if method != sip.Ack {
		s.seq++
	}
	h := []string{
		fmt.Sprintf("Via: SIP/2.0/TCP 10.0.0.70:5060;branch=z9hG4bK-s%s%d", method, s.seq), "Max-Forwards: 70", "From: <sip:ann@example.net>;tag=ann",
		"To: " + s.to, "Call-ID: stream", fmt.Sprintf("CSeq: %d %s", s.seq, method), "Contact: <sip:ann@10.0.0.70:5060;transport=tcp>",
	}
	if body != "" {
		h = append(h, "Content-Type: application/sdp")
	}
	s.write(message(method+" sip:+4930123@10.0.0.1:5060;transport=tcp SIP/2.0", h, body))
}

func (s *streamParty) write(text string) {
	s.t.Helper()
	if _, err := s.conn.Write([]byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *streamParty) reply(req *sip.Message, status int) {
	s.t.Helper()
	s.write(string(sip.ResponseTo(req, status, "Because").Append(nil)))
}

// want reads the next message but for 100.
func (s *streamParty) want(what string) *sip.Message {
	s.t.Helper()
	for {
		m := readPipe(s.t, s.conn)
		got := m.Method
		if !m.IsRequest() {
			_, method := m.CSeq()
			got = fmt.Sprint(m.Status, " ", method)
		}
		switch got {
		case what:
			return m
		case "100 INVITE":
		default:
			s.t.Fatalf("%s instead of %s", got, what)
		}
	}
}

// call sets up a call to the carrier.
func (s *streamParty) call(w *bench) *dialogue {
	s.t.Helper()
	s.connect()
	s.send("INVITE", sdpOf(s.addr, 9000))
	c := w.a.take(outside)
	w.a.reply(c.invite, 200, "carrier", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
	ok := s.want("200 INVITE")
	s.to, c.local = ok.Get("To"), ok.Get("To")
	s.send("ACK", "")
	w.a.want("ACK")
	return c
}

// TestHeldRequests: what is for a party without a connection waits until it comes back,
// or its sender gives up, or for heldMax.
func TestHeldRequests(t *testing.T) {
	var edit func(*Config)
	var s *streamParty
	inBubble(t, func(cfg *Config) { edit, s = withStream(t); edit(cfg) }, func(w *bench) {
		s.t = w.t
		c := s.call(w)
		s.drop()

		c.send("INFO", nil, "")
		w.a.quiet(heldMax - 2*time.Second)
		w.a.want("480 INFO")
		c.send("INVITE", nil, sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		w.a.want("480 INVITE")
		w.a.send(outside, c.requestAt("ACK", c.cseq, nil, ""))
		if n := w.b.counters.Held.Load(); n != 2 || w.b.Calls() != 1 {
			t.Errorf("%d requests were held, %d calls", n, w.b.Calls())
		}

		c.send("INVITE", nil, sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		c.branches--
		w.a.send(outside, c.request("CANCEL", nil, ""))
		w.a.want("200 CANCEL")
		w.a.want("487")
		c.branches--
		w.a.send(outside, c.requestAt("ACK", c.cseq, nil, ""))

		c.send("INFO", nil, "")
		time.Sleep(5 * time.Second)
		s.connect()
		s.send("OPTIONS", "")
		info := s.want("INFO")
		w.a.reply(w.a.want("OPTIONS"), 200, "", nil, "")
		s.reply(info, 200)
		w.a.want("200 INFO")
		s.want("200 OPTIONS")

		s.drop()
		c.send("BYE", nil, "")
		w.a.want("200 BYE")
		time.Sleep(10 * time.Second)
		s.connect()
		s.send("OPTIONS", "")
		s.reply(s.want("BYE"), 200)
		w.a.want("OPTIONS")
		time.Sleep(time.Minute)
		s.drop()
		synctest.Wait()
		if w.b.Calls() != 0 || len(w.b.byID) != 0 {
			t.Error("something is left of the call")
		}
	})
}

// TestPhoneComesBack: a REGISTER that the registrar takes is a sign of life of the
// party, too.
func TestPhoneComesBack(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		want   bool
	}{"taken": {200, true}, "refused": {403, false}} {
		t.Run(name, func(t *testing.T) {
			var edit func(*Config)
			var s *streamParty
			inBubble(t, func(cfg *Config) { edit, s = withStream(t); edit(cfg) }, func(w *bench) {
				s.t = w.t
				d := s.call(w)
				s.drop()
				d.send("INFO", nil, "")
				time.Sleep(time.Second)
				s.connect()
				s.write(message("REGISTER sip:example.net SIP/2.0", []string{
					"Via: SIP/2.0/TCP 10.0.0.70:5060;branch=z9hG4bK-reg", "Max-Forwards: 70", "From: <sip:ann@example.net>;tag=r",
					"To: <sip:ann@example.net>", "Call-ID: reg", "CSeq: 1 REGISTER", "Contact: <sip:ann@10.0.0.70:5060;transport=tcp>",
				}, ""))
				w.a.reply(w.a.want("REGISTER"), c.status, "r", nil, "")
				s.want(fmt.Sprint(c.status, " REGISTER"))
				if c.want {
					s.reply(s.want("INFO"), 200)
					w.a.want("200 INFO")
				} else {
					w.a.want("480 INFO")
				}
				s.drop()
				w.a.skip = true
			})
		})
	}
}

// TestCallAwaitsPhone: soon after the start a call waits for a phone that nobody can
// connect to until it registers again, and not for ever; later it does not.
func TestCallAwaitsPhone(t *testing.T) {
	var edit func(*Config)
	var s *streamParty
	inBubble(t, func(cfg *Config) {
		phones(sip.RegistrationsContact)(cfg)
		edit, s = withStream(t)
		edit(cfg)
		cfg.PhonesAway = time.Minute
	}, func(w *bench) {
		s.t = w.t
		register := func(n int) (contact string) {
			t.Helper()
			s.connect()
			s.write(message("REGISTER sip:example.net SIP/2.0", []string{
				fmt.Sprintf("Via: SIP/2.0/TCP 10.9.9.9:5;branch=z9hG4bK-reg%d", n), "Max-Forwards: 70", fmt.Sprintf("From: <sip:ann@example.net>;tag=r%d", n),
				"To: <sip:ann@example.net>", fmt.Sprintf("Call-ID: reg%d", n), "CSeq: 1 REGISTER", "Contact: <sip:x7@q9.invalid;transport=tcp>",
			}, ""))
			reg := w.a.want("REGISTER")
			w.a.reply(reg, 200, "r", nil, "")
			s.want("200 REGISTER")
			return contactURIOf(t, reg)
		}
		contact := register(1)
		s.drop()
		call := func(id string) {
			a := &dialogue{p: w.a, us: outside, callID: id, local: "<sip:bob@x>;tag=b", remote: "<sip:ann@x>", target: contact}
			a.send("INVITE", []string{fmt.Sprintf("Contact: <sip:bob@%s>", carrier)}, sdpOf(carrier.Addr(), 7000))
			w.a.want("100")
		}
		call("waits")
		w.a.quiet(5 * time.Second)
		register(2)
		invite := s.want("INVITE")
		if invite.URI != "sip:x7@q9.invalid;transport=tcp" {
			t.Errorf("the phone gets\n%s", invite.Append(nil))
		}
		res := sip.ResponseTo(invite, 486, "Busy Here")
		res.Set("To", invite.Get("To")+";tag=p")
		s.write(string(res.Append(nil)))
		s.want("ACK")
		w.a.want("486")
		s.drop()
		call("in vain")
		begun := time.Now()
		w.a.want("480")
		if took := time.Since(begun); took < phoneWaitMax || took > phoneWaitMax+time.Second {
			t.Errorf("it waited %s", took)
		}
		time.Sleep(time.Minute)
		call("late")
		begun = time.Now()
		w.a.want("480")
		if took := time.Since(begun); took > time.Second {
			t.Errorf("long after the start it waited %s", took)
		}
		time.Sleep(time.Minute)
	})
}

func TestRegistersTarget(t *testing.T) {
	public, far := "192.0.2.70", "198.51.100.9"
	for _, c := range []struct {
		contact, target, instance, src string
		want                           bool
	}{
		{"<sip:ann@192.0.2.70:5060;transport=tcp>", "sip:ann@192.0.2.70:5060;transport=tcp;ob", "", public, true},
		{"<sip:ann@192.0.2.70:4712>", "sip:ann@192.0.2.70:4711", "", public, true},
		{"<sip:bob@192.0.2.70:5060>", "sip:ann@192.0.2.70:5060", "", public, false},
		{"<sip:x7@q9.invalid;transport=ws>", "sip:x7@Q9.invalid;transport=ws;ob", "", far, true},
		{"<sip:ann@192.168.1.5:5060>", "sip:ann@192.168.1.5:5060", "", far, false}, // as many have behind their NATs
		{`<sip:ann@192.168.1.5:9>;+sip.instance="<urn:uuid:1>"`, "sip:ann@192.168.1.5:5060", "urn:uuid:1", far, true},
		{`<sip:ann@192.0.2.70:5060>;+sip.instance="<urn:uuid:2>"`, "sip:ann@192.0.2.70:5060", "urn:uuid:1", public, false},
		{"<sip:ann@192.0.2.70:5060>", "", "", public, false},
	} {
		a, err := sip.ParseAddress(c.contact)
		if err != nil {
			t.Fatal(err)
		}
		instance := ""
		if c.instance != "" {
			of, err := sip.ParseAddress(`<sip:x@y>;+sip.instance="<` + c.instance + `>"`)
			if err != nil {
				t.Fatal(err)
			}
			instance, _ = of.Param("+sip.instance")
		}
		if got := registers([]sip.Address{a}, c.target, instance, netip.MustParseAddr(c.src)); got != c.want {
			t.Errorf("%s for %s from %s: %v", c.contact, c.target, c.src, got)
		}
	}
}
