package src

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/sip/siprec"
)

// server is a recorder that does what a test tells it.
type server struct {
	t     *testing.T
	n     *mediatest.Net
	addr  netip.Addr
	sip   *mediatest.Conn
	media [2]*mediatest.Conn
	in    chan *sip.Message
	mu    sync.Mutex
	rtp   [2][]rtp.Packet // guarded by mu
	codec uint8
	tag   string
	done  []chan struct{}
	seen  map[string]bool
}

func newServer(t *testing.T, n *mediatest.Net, addr netip.Addr) *server {
	t.Helper()
	s := &server{t: t, n: n, addr: addr, in: make(chan *sip.Message, 100), tag: "srs-" + addr.String(), seen: map[string]bool{}}
	open := func(port uint16) *mediatest.Conn {
		c, err := n.Listen(netip.AddrPortFrom(addr, port))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	s.sip, s.media = open(5060), [2]*mediatest.Conn{open(7000), open(7002)}
	read := func(c *mediatest.Conn, take func([]byte, netip.AddrPort)) {
		done := make(chan struct{})
		s.done = append(s.done, done)
		go func() {
			defer close(done)
			buf := make([]byte, 65536)
			for {
				n, src, err := c.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				take(buf[:n], src)
			}
		}()
	}
	read(s.sip, func(b []byte, src netip.AddrPort) {
		m, _, err := sip.Parse(b, false)
		if err != nil {
			t.Errorf("%v in\n%s", err, b)
			return
		}
		m.Flow.Remote = src
		s.in <- m
	})
	for i := range s.media {
		read(s.media[i], func(b []byte, _ netip.AddrPort) {
			var p rtp.Packet
			if err := p.Unmarshal(append([]byte(nil), b...)); err != nil {
				t.Error(err)
			}
			s.mu.Lock()
			s.rtp[i] = append(s.rtp[i], p)
			s.mu.Unlock()
		})
	}
	return s
}

// heard are the packets of a channel that have come.
func (s *server) heard(channel int) []rtp.Packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rtp[channel])
}

func (s *server) close() {
	_ = s.sip.Close()
	for _, c := range s.media {
		_ = c.Close()
	}
	for _, d := range s.done {
		<-d
	}
}

// want returns the next request of a method.
func (s *server) want(method string) *sip.Message {
	s.t.Helper()
	timer := time.NewTimer(100 * time.Second)
	defer timer.Stop()
	for {
		select {
		case m := <-s.in:
			if text := string(m.Append(nil)); s.seen[text] {
				continue
			} else {
				s.seen[text] = true
			}
			if m.IsRequest() && m.Method == sip.Options && method != sip.Options {
				s.reply(m, 200, nil)
				continue
			}
			if m.Method != method && !(method == "response" && !m.IsRequest()) {
				s.t.Fatalf("%s: want %s, got\n%s", s.addr, method, m.Append(nil))
			}
			return m
		case <-timer.C:
			s.t.Fatalf("%s: no %s came", s.addr, method)
		}
	}
}

func (s *server) reply(req *sip.Message, status int, body []byte) {
	s.t.Helper()
	res := sip.ResponseTo(req, status, "Because")
	if req.ToTag() == "" && status > 100 {
		res.Set("To", req.Get("To")+";tag="+s.tag)
	}
	res.Add("Contact", fmt.Sprintf("<sip:%s>;+sip.srs", s.addr))
	if body != nil {
		res.Add("Content-Type", "application/sdp")
		res.Body = body
	}
	s.send(res, req.Flow.Remote)
}

func (s *server) send(m *sip.Message, to netip.AddrPort) {
	s.t.Helper()
	if _, err := s.sip.WriteToUDPAddrPort(m.Append(nil), to); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) answer() []byte {
	out := fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\n", s.addr, s.addr)
	for i := range s.media {
		out += fmt.Sprintf("m=audio %d RTP/AVP %d\r\na=recvonly\r\na=label:%d\r\n", 7000+2*i, s.codec, i+1)
	}
	return []byte(out)
}

// accept takes an INVITE.
func (s *server) accept() *sip.Message {
	s.t.Helper()
	invite := s.want(sip.Invite)
	s.reply(invite, 200, s.answer())
	s.want(sip.Ack)
	return invite
}

// parts returns the description and the metadata of an INVITE.
func parts(t *testing.T, m *sip.Message) (*sdp.Description, *siprec.Metadata) {
	t.Helper()
	text, _, ok := sdp.SplitBody(m.Get("Content-Type"), m.Body)
	if !ok {
		t.Fatalf("no description in\n%s", m.Append(nil))
	}
	d, err := sdp.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(m.Body), "<?xml")
	to := strings.LastIndex(string(m.Body), "\r\n--")
	if at < 0 || to < at {
		t.Fatalf("no metadata in\n%s", m.Body)
	}
	x, err := siprec.Parse(m.Body[at:to])
	if err != nil || len(x.Faults) > 0 {
		t.Fatalf("%v %v in\n%s", err, x, m.Body)
	}
	return d, x
}
