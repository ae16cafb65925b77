package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/sip/siptest"
)

// forkingPBX rings two phones with each INVITE, which both answer early by DTLS and
// speak. The one that is to have the call then answers without a description.
type forkingPBX struct {
	t      *testing.T
	agent  *sip.Agent
	addr   netip.AddrPort
	phones [2]*dtlsPhone
	winner int
	done   sync.WaitGroup
}

// dtlsPhone speaks a tone under the keys of its one handshake.
type dtlsPhone struct {
	conn  *net.UDPConn
	cert  *dtls.Certificate
	role  srtp.Role
	hz    float64
	end   *dtls.Endpoint
	keyed chan struct{}
	stop  chan struct{}
	to    atomic.Pointer[netip.AddrPort]

	mu    sync.Mutex
	in    *srtp.Unprotector
	out   *srtp.Protector
	heard []int16 // what could be decrypted
	wrong int
}

func newForkingPBX(t *testing.T, addr netip.Addr, role srtp.Role, winner int) *forkingPBX {
	t.Helper()
	p := &forkingPBX{t: t, winner: winner}
	p.agent = must(sip.New(sip.Config{
		Listen: []sip.Listen{{Network: "udp", Addr: netip.AddrPortFrom(addr, 0)}}, Allow: func(netip.AddrPort) bool { return true }, Handle: p.handle,
	}))(t)
	for i := range p.phones {
		p.phones[i] = newDTLSPhone(t, addr, role, []float64{600, 1500}[i])
	}
	if err := p.agent.Start(); err != nil {
		t.Fatal(err)
	}
	p.addr = p.agent.Addrs()[0]
	t.Cleanup(func() {
		if err := p.agent.Close(); err != nil {
			t.Error(err)
		}
		p.done.Wait()
	})
	return p
}

func newDTLSPhone(t *testing.T, addr netip.Addr, role srtp.Role, hz float64) *dtlsPhone {
	t.Helper()
	ph := &dtlsPhone{role: role, hz: hz, keyed: make(chan struct{}), stop: make(chan struct{})}
	ph.cert = must(dtls.NewCertificate(time.Now(), nil))(t)
	ph.conn = must(net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0))))(t)
	ph.end = must(dtls.New(dtls.Config{
		Certificate: ph.cert, Established: ph.established, Failed: func(err error) { t.Errorf("phone of %.0f Hz: %v", hz, err) },
		Send: func(b []byte) error {
			if to := ph.to.Load(); to != nil {
				_, err := ph.conn.WriteToUDPAddrPort(b, *to)
				return err
			}
			return net.ErrClosed
		},
	}))(t)
	var running sync.WaitGroup
	running.Go(ph.listen)
	running.Go(ph.speak)
	t.Cleanup(func() {
		close(ph.stop)
		_, _ = ph.end.Close(), ph.conn.Close() // it has said what it had to say
		running.Wait()
	})
	return ph
}

func (ph *dtlsPhone) established(k dtls.Keys) {
	ph.mu.Lock()
	ph.out, _ = srtp.NewProtector(k.Send) // without keys nothing is heard, and the test says so
	ph.in, _ = srtp.NewUnprotector(k.Receive, 0)
	ph.mu.Unlock()
	close(ph.keyed)
}

func (ph *dtlsPhone) listen() {
	b := make([]byte, 2000)
	for {
		n, _, err := ph.conn.ReadFromUDPAddrPort(b)
		switch {
		case err != nil:
			return
		case dtls.IsDTLS(b[:n]):
			ph.end.Deliver(b[:n])
			continue
		case n < 12 || b[1]&0x7f >= 64 && b[1]&0x7f < 96: // RTCP
			continue
		}
		ph.mu.Lock()
		if ph.in != nil {
			if plain, err := ph.in.RTP(b[:n], b[:n], time.Now()); err != nil {
				ph.wrong++
			} else {
				for _, code := range plain[12:] {
					ph.heard = append(ph.heard, codec.MuLawLinear(code))
				}
			}
		}
		ph.mu.Unlock()
	}
}

func (ph *dtlsPhone) speak() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	packet, wire := make([]byte, 12+160), make([]byte, 2000)
	for seq := uint16(1); ; seq++ {
		select {
		case <-ph.stop:
			return
		case <-tick.C:
		}
		ts := uint32(seq) * 160
		packet[0], packet[1] = 0x80, 0
		binary.BigEndian.PutUint16(packet[2:], seq)
		binary.BigEndian.PutUint32(packet[4:], ts)
		binary.BigEndian.PutUint32(packet[8:], uint32(ph.hz))
		for i := range 160 {
			packet[12+i] = codec.MuLaw(int16(12000 * math.Sin(2*math.Pi*ph.hz*float64(ts+uint32(i))/8000)))
		}
		ph.mu.Lock()
		if ph.out != nil {
			if sealed, err := ph.out.RTP(wire, packet); err == nil {
				_, _ = ph.conn.WriteToUDPAddrPort(sealed, *ph.to.Load()) // what is lost is a gap
			}
		}
		ph.mu.Unlock()
	}
}

func (ph *dtlsPhone) sdp() []byte {
	at := ph.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return fmt.Appendf(nil, "v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %[2]d UDP/TLS/RTP/SAVP 0\r\na=rtcp-mux\r\na=setup:%[3]s\r\na=fingerprint:%[4]s\r\n",
		at.Addr(), at.Port(), ph.role, ph.cert.Fingerprint())
}

func (p *forkingPBX) handle(m *sip.Message) {
	if !m.IsRequest() || m.Method == sip.Ack {
		return
	}
	sip.MarkSource(m)
	if m.Method != sip.Invite {
		p.reply(m, 200, m.ToTag(), nil)
		return
	}
	p.reply(m, 100, "", nil)
	p.done.Go(func() { p.ring(m) })
}

func (p *forkingPBX) reply(m *sip.Message, status int, tag string, body []byte) {
	res := sip.ResponseTo(m, status, "Because")
	if tag != "" && m.ToTag() == "" {
		res.Set("To", m.Get("To")+";tag="+tag)
	}
	if m.Method == sip.Invite && status > 100 {
		res.Add("Contact", fmt.Sprintf("<sip:%s>", p.addr))
	}
	if body != nil {
		res.Add("Content-Type", "application/sdp")
		res.Body = body
	}
	if err := p.agent.Send(res, sip.ReplyFlow(m), nil); err != nil {
		p.t.Error(err)
	}
}

// ring lets both phones answer early, one after the other, and one of them take the call.
func (p *forkingPBX) ring(m *sip.Message) {
	d, err := sdp.Parse(m.Body)
	if err != nil || len(d.Media()) != 1 {
		p.t.Errorf("offered %q: %v", m.Body, err)
		return
	}
	line := d.Media()[0]
	session, own := d.Protection(0)
	offered, _ := srtp.ReadMedia(line.Proto, session, own)
	to := netip.AddrPortFrom(line.Addr, line.Port)
	for i, ph := range p.phones {
		ph.to.Store(&to)
		p.reply(m, 183, fmt.Sprint("phone", i), ph.sdp())
		ph.end.Start(dtls.Association{Number: 1, Role: ph.role, Fingerprints: offered.Fingerprints})
		select {
		case <-ph.keyed:
		case <-time.After(15 * time.Second):
			p.t.Errorf("phone %d has no keys", i)
		}
		time.Sleep(500 * time.Millisecond)
	}
	p.reply(m, 200, fmt.Sprint("phone", p.winner), nil)
}

// TestLiveSRTPForks: the caller is heard by the phone that takes the call, and hears it;
// the recording has both, decrypted by the keys that each phone agreed on, once.
func TestLiveSRTPForks(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	for winner, role := range []srtp.Role{srtp.Active, srtp.Passive} { // package b2bua has the others
		t.Run(fmt.Sprintf("phones %v, number %d answers", role, winner+1), func(t *testing.T) { liveForks(t, role, winner) })
	}
}

func liveForks(t *testing.T, role srtp.Role, winner int) {
	t.Helper()
	caller := liveAgent(t, siptest.Config{Addr: netip.AddrPortFrom(liveTrunk[0][0], 0)})
	pbx := newForkingPBX(t, liveTrunk[0][1], role, winner)
	tc := liveTrunkConfig{Name: "forks", Format: recorder.FormatWAVPCM16}
	tc.Sides[0] = liveSide{Peer: liveTrunk[0][0], NextHop: "sip:" + caller.Addr().String(), Media: liveHost}
	tc.Sides[1] = liveSide{Peer: liveTrunk[0][1], NextHop: "sip:" + pbx.addr.String(), Media: liveHost, SRTP: []string{"srtp: required", "srtp_method: dtls"}}
	d := newLiveDaemon(t, liveConfig{Trunks: []liveTrunkConfig{tc}, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}})
	d.start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := must(caller.Call(ctx, "sip:desk@"+d.via().String(), d.via(), siptest.CallOptions{Play: siptest.Tone(440, 0.5)}))(t)
	time.Sleep(3 * time.Second)
	if err := c.Bye(ctx); err != nil {
		t.Fatal(err)
	}
	ph := pbx.phones[winner]
	ph.mu.Lock()
	heard, wrong := slices.Clone(ph.heard), ph.wrong
	ph.mu.Unlock()
	if n := tenths(heard, 440); n < 30 || wrong > 0 {
		t.Errorf("the phone hears the caller for %d tenths of a second; %d packets that it cannot decrypt", n, wrong)
	}
	var came []int16 // of that phone
	for _, p := range c.Media().Received() {
		if p.RTCP || binary.BigEndian.Uint32(p.Wire[8:]) != uint32(ph.hz) {
			continue
		}
		for _, code := range p.Wire[12:] {
			came = append(came, codec.MuLawLinear(code))
		}
	}
	if n := tenths(came, ph.hz); n < 30 {
		t.Errorf("the caller hears the phone for %d tenths of a second", n)
	}
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		pcm := d.export(m.ID)
		caller, phone, other := tenths(pcm[0], 440), tenths(pcm[1], ph.hz), tenths(pcm[1], pbx.phones[1-winner].hz)
		t.Logf("recorded: the caller for %d tenths of a second, the phone for %d, the other for %d; gaps %+v", caller, phone, other, m.Gaps)
		if caller < 28 || phone < 28 || other > 1 {
			t.Error("that is not the call")
		}
	}
	d.stop()
}
