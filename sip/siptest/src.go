package siptest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/sip/sdp"
)

// SRC is a recording client (RFC 7866) for tests: it sends what it is told, message
// by message, and speaks tones on as many streams as its descriptions have. Requests
// of the server are answered with 200 and kept.
type SRC struct {
	cfg SRCConfig

	mu        sync.Mutex
	conn      srcConn                  // guarded by mu
	addr      netip.AddrPort           // guarded by mu
	waiting   map[string]chan *Message // guarded by mu: by branch
	dialogs   map[string]*SRCDialog    // guarded by mu: by Call-ID
	branches  int                      // guarded by mu
	done      sync.WaitGroup
	closeOnce sync.Once
}

// SRCConfig of an SRC.
type SRCConfig struct {
	Addr   netip.AddrPort // its own; port 0: any
	Remote netip.AddrPort // of the server
	TCP    bool           // SIP over a connection to it
	TLS    *tls.Config    // of that connection; nil: none
	// Listen opens a datagram socket, for SIP and for media; nil: a UDP socket.
	Listen func(netip.AddrPort) (Conn, error)
}

// NewSRC opens the socket of SIP.
func NewSRC(cfg SRCConfig) (*SRC, error) {
	if cfg.Listen == nil {
		cfg.Listen = func(a netip.AddrPort) (Conn, error) { return net.ListenUDP("udp", net.UDPAddrFromAddrPort(a)) }
	}
	var conn srcConn
	var err error
	if cfg.TCP {
		conn, err = cfg.dial(cfg.Addr)
	} else {
		conn, err = cfg.Listen(cfg.Addr)
	}
	if err != nil {
		return nil, fmt.Errorf("open the socket of a recording client: %w", err)
	}
	addr, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s := &SRC{cfg: cfg, conn: conn, addr: addr, waiting: map[string]chan *Message{}, dialogs: map[string]*SRCDialog{}}
	s.done.Go(func() { s.read(conn) })
	return s, nil
}

// Reconnect opens a new connection to the server in place of the one before.
func (s *SRC) Reconnect() error {
	conn, err := s.cfg.dial(netip.AddrPortFrom(s.Addr().Addr(), 0))
	if err != nil {
		return err
	}
	addr, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	s.mu.Lock()
	old := s.conn
	s.conn, s.addr = conn, addr
	s.mu.Unlock()
	s.done.Go(func() { s.read(conn) })
	return old.Close()
}

// link is what its messages go over.
func (s *SRC) link() srcConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

// Addr is the address of its SIP.
func (s *SRC) Addr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Close closes its sockets and waits for its goroutines.
func (s *SRC) Close() error {
	var err error
	s.closeOnce.Do(func() {
		s.mu.Lock()
		for _, d := range s.dialogs {
			err = errors.Join(err, d.stopMedia())
		}
		conn := s.conn
		s.mu.Unlock()
		err = errors.Join(err, conn.Close())
		s.done.Wait()
	})
	return err
}

func (s *SRC) read(conn srcConn) {
	buf := make([]byte, 65536)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		m, err := ParseMessage(append([]byte(nil), buf[:n]...))
		if err != nil {
			continue
		}
		s.mu.Lock()
		d := s.dialogs[m.Get("Call-ID")]
		to := s.waiting[branchIn(m.Get("Via"))]
		s.mu.Unlock()
		switch {
		case !m.IsRequest() && to != nil:
			select {
			case to <- m:
			default: // nobody wants so many
			}
		case m.IsRequest() && d != nil && m.Method != "ACK":
			d.asked(m, from)
		}
	}
}

func branchIn(via string) string {
	_, rest, _ := strings.Cut(via, "branch=")
	b, _, _ := strings.Cut(rest, ";")
	return strings.TrimSpace(b)
}

// SRCDialog is one recording dialog. Its methods are for one goroutine, but for
// Requests.
type SRCDialog struct {
	src    *SRC
	callID string
	from   string // with tag
	to     string
	target string
	seq    int
	invite *Message

	lines  []*srcLine
	answer []byte // the server's last description

	mu       sync.Mutex
	requests []*Message // guarded by mu
}

// srcLine is one stream.
type srcLine struct {
	conn  Conn
	local netip.AddrPort

	mu   sync.Mutex
	to   netip.AddrPort // guarded by mu: invalid: nothing is sent
	freq float64        // guarded by mu

	stop chan struct{}
	done sync.WaitGroup
}

// NewDialog makes a dialog with sockets for so many streams. from is the value of
// From without a tag; "": one that names the client alone.
func (s *SRC) NewDialog(callID, from string, streams int) (*SRCDialog, error) {
	if from == "" {
		from = "<sip:src@" + s.Addr().String() + ">"
	}
	d := &SRCDialog{
		src: s, callID: callID, from: from + ";tag=src-" + callID, to: "<sip:srs@" + s.cfg.Remote.String() + ">",
		target: "sip:srs@" + s.cfg.Remote.String(),
	}
	for range streams {
		conn, err := s.cfg.Listen(netip.AddrPortFrom(s.Addr().Addr(), 0))
		if err != nil {
			return nil, fmt.Errorf("open a stream's socket: %w", err)
		}
		l := &srcLine{conn: conn, stop: make(chan struct{})}
		l.local, _ = netip.ParseAddrPort(conn.LocalAddr().String()) // it is one
		d.lines = append(d.lines, l)
	}
	s.mu.Lock()
	s.dialogs[callID] = d
	s.mu.Unlock()
	return d, nil
}

// Expand puts the dialog's addresses into a text: {ip}, and {port1}, {port2} ... of
// its streams.
func (d *SRCDialog) Expand(text string) string {
	pairs := []string{"{ip}", d.src.Addr().Addr().String()}
	for i, l := range d.lines {
		pairs = append(pairs, fmt.Sprintf("{port%d}", i+1), fmt.Sprint(l.local.Port()))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// Invite sends an INVITE, the first one or another, and acknowledges its final
// response; ack is the body of the ACK, nil none. A response other than 2xx is a
// *RejectedError too.
func (d *SRCDialog) Invite(ctx context.Context, contentType string, body, ack []byte, headers ...Header) (*Message, error) {
	m := d.request("INVITE", contentType, body, headers...)
	res, err := d.src.exchange(ctx, m)
	if err != nil {
		return nil, err
	}
	out := d.request("ACK", "application/sdp", ack)
	d.seq--
	out.Set("CSeq", fmt.Sprintf("%d ACK", d.seq))
	out.Set("To", res.Get("To"))
	if res.Code >= 300 {
		out.Set("Via", m.Get("Via"))
		return res, errors.Join(d.src.send(out), &RejectedError{res})
	}
	d.to, d.invite = res.Get("To"), m
	if len(res.Body) > 0 {
		d.answer = res.Body
	}
	return res, d.src.send(out)
}

// Do sends any other request of the dialog and returns its final response.
func (d *SRCDialog) Do(ctx context.Context, method, contentType string, body []byte, headers ...Header) (*Message, error) {
	res, err := d.src.exchange(ctx, d.request(method, contentType, body, headers...))
	if err == nil && res.Code >= 300 {
		err = &RejectedError{res}
	}
	return res, err
}

// Bye stops sending and ends the dialog.
func (d *SRCDialog) Bye(ctx context.Context) error {
	err := d.stopMedia()
	_, bye := d.Do(ctx, "BYE", "", nil)
	return errors.Join(err, bye)
}

// Answer is the server's last description.
func (d *SRCDialog) Answer() []byte { return d.answer }

// Requests are those that the server sent.
func (d *SRCDialog) Requests() []*Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*Message(nil), d.requests...)
}

func (d *SRCDialog) asked(m *Message, from netip.AddrPort) {
	d.mu.Lock()
	d.requests = append(d.requests, m)
	d.mu.Unlock()
	res := &Message{Code: 200, Reason: "OK"}
	for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
		for _, v := range m.Values(name) {
			res.Add(name, v)
		}
	}
	_, _ = d.src.link().WriteToUDPAddrPort(res.Bytes(), from) // it asks again
}

func (d *SRCDialog) request(method, contentType string, body []byte, headers ...Header) *Message {
	s := d.src
	s.mu.Lock()
	s.branches++
	branch := fmt.Sprintf("z9hG4bKsrc%s%d", d.callID, s.branches)
	s.mu.Unlock()
	d.seq++
	m := &Message{Method: method, RequestURI: d.target}
	addr := s.Addr().String()
	transport, contact := "UDP", addr
	switch {
	case s.cfg.TLS != nil:
		transport, contact = "TLS", contact+";transport=tls"
	case s.cfg.TCP:
		transport, contact = "TCP", contact+";transport=tcp"
	}
	m.Add("Via", "SIP/2.0/"+transport+" "+addr+";branch="+branch+";rport")
	m.Add("Max-Forwards", "70")
	m.Add("From", d.from)
	m.Add("To", d.to)
	m.Add("Call-ID", d.callID)
	m.Add("CSeq", fmt.Sprintf("%d %s", d.seq, method))
	m.Add("Contact", "<sip:src@"+contact+">;+sip.src")
	m.Headers = append(m.Headers, headers...)
	if len(body) > 0 {
		m.Add("Content-Type", contentType)
		m.Body = body
	}
	return m
}

func (s *SRC) send(m *Message) error {
	_, err := s.link().WriteToUDPAddrPort(m.Bytes(), s.cfg.Remote)
	return err
}

// exchange sends a request until a response comes and returns the final one.
func (s *SRC) exchange(ctx context.Context, m *Message) (*Message, error) {
	branch := branchIn(m.Get("Via"))
	got := make(chan *Message, 16)
	s.mu.Lock()
	s.waiting[branch] = got
	s.mu.Unlock()
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	if err := s.send(m); err != nil {
		return nil, err
	}
	for {
		select {
		case res := <-got:
			if res.Code >= 200 {
				return res, nil
			}
		case <-again.C:
			if err := s.send(m); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("no answer to %s: %w", m.Method, ctx.Err())
		}
	}
}

// Play speaks tones from now on, one on each stream, to where the server's last
// description says: packets of 20 ms of PCMU. 0: that stream sends nothing.
func (d *SRCDialog) Play(hz ...float64) error {
	desc, err := sdp.Parse(d.answer)
	if err != nil {
		return fmt.Errorf("the server's description: %w", err)
	}
	list := desc.Media()
	for i, l := range d.lines {
		var to netip.AddrPort
		if i < len(list) && i < len(hz) && hz[i] != 0 && !list[i].Rejected {
			to = netip.AddrPortFrom(list[i].Addr, list[i].Port)
		}
		l.mu.Lock()
		idle := l.freq == 0
		l.to = to
		if i < len(hz) && hz[i] != 0 {
			l.freq = hz[i]
		}
		start := idle && l.freq != 0
		l.mu.Unlock()
		if start {
			ssrc := uint32(0x5000 + 16*i)
			l.done.Go(func() { l.speak(ssrc) })
		}
	}
	return nil
}

// Send puts any bytes on the wire from a stream's port, to where the server's last
// description wants that stream.
func (d *SRCDialog) Send(stream int, wire []byte) error {
	desc, err := sdp.Parse(d.answer)
	if err != nil {
		return fmt.Errorf("the server's description: %w", err)
	}
	m := desc.Media()[stream]
	_, err = d.lines[stream].conn.WriteToUDPAddrPort(wire, netip.AddrPortFrom(m.Addr, m.Port))
	return err
}

const srcFrame = 160 // samples of a packet

// speak sends packets by an absolute schedule, so that a stalled machine sends as
// many as another.
func (l *srcLine) speak(ssrc uint32) {
	stream := &mediatest.RTPStream{SSRC: ssrc + uint32(l.local.Port())<<8, Seq: 100, Timestamp: 16000}
	samples := make([]int16, srcFrame)
	next, phase := time.Now(), 0.0
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(time.Until(next)):
		}
		next = next.Add(20 * time.Millisecond)
		l.mu.Lock()
		to, freq := l.to, l.freq
		l.mu.Unlock()
		if !to.IsValid() {
			stream.Timestamp += srcFrame
			continue
		}
		for i := range samples {
			samples[i] = int16(8000 * math.Sin(phase))
			phase = math.Mod(phase+2*math.Pi*freq/8000, 2*math.Pi)
		}
		_, _ = l.conn.WriteToUDPAddrPort(stream.Audio(samples), to) // what is lost shows in the recording
	}
}

func (d *SRCDialog) stopMedia() error {
	var errs []error
	for _, l := range d.lines {
		select {
		case <-l.stop:
			continue
		default:
		}
		close(l.stop)
		l.done.Wait()
		errs = append(errs, l.conn.Close())
	}
	return errors.Join(errs...)
}
