package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/siptest"
)

// otherRecorder is a server of SIPREC as small as one can be: it takes every
// session and keeps what comes.
type otherRecorder struct {
	t     *testing.T
	agent *sip.Agent
	media [2]*net.UDPConn
	addr  netip.AddrPort
	wg    sync.WaitGroup

	mu       sync.Mutex
	messages []*sip.Message
	packets  [2][]rtp.Packet
}

func newOtherRecorder(t *testing.T, addr netip.Addr) *otherRecorder {
	t.Helper()
	o := &otherRecorder{t: t}
	var err error
	o.agent, err = sip.New(sip.Config{
		Listen: []sip.Listen{{Network: "udp", Addr: netip.AddrPortFrom(addr, 0)}},
		Allow:  func(netip.AddrPort) bool { return true }, Handle: o.handle,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.media {
		if o.media[i], err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0))); err != nil {
			t.Fatal(err)
		}
		o.wg.Go(func() {
			buf := make([]byte, 1500)
			for {
				n, err := o.media[i].Read(buf)
				if err != nil {
					return
				}
				var p rtp.Packet
				if p.Unmarshal(append([]byte(nil), buf[:n]...)) == nil {
					o.mu.Lock()
					o.packets[i] = append(o.packets[i], p)
					o.mu.Unlock()
				}
			}
		})
	}
	if err := o.agent.Start(); err != nil {
		t.Fatal(err)
	}
	o.addr = o.agent.Addrs()[0]
	t.Cleanup(func() {
		for _, c := range o.media {
			_ = c.Close() // its reader ends with it
		}
		o.wg.Wait()
		if err := o.agent.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func (o *otherRecorder) handle(m *sip.Message) {
	o.mu.Lock()
	o.messages = append(o.messages, m)
	o.mu.Unlock()
	if !m.IsRequest() || m.Method == sip.Ack {
		return
	}
	sip.MarkSource(m)
	res := sip.ResponseTo(m, 200, "OK")
	if m.ToTag() == "" {
		res.Set("To", m.Get("To")+";tag=other")
	}
	res.Add("Contact", fmt.Sprintf("<sip:%s>;+sip.srs", o.addr))
	if m.Method == sip.Invite {
		res.Add("Content-Type", "application/sdp")
		text := fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\n", o.addr.Addr(), o.addr.Addr())
		for i, c := range o.media {
			text += fmt.Sprintf("m=audio %d RTP/AVP 0\r\na=recvonly\r\na=label:%d\r\n", c.LocalAddr().(*net.UDPAddr).Port, i+1)
		}
		res.Body = []byte(text)
	}
	if err := o.agent.Send(res, sip.ReplyFlow(m), nil); err != nil {
		o.t.Error(err)
	}
}

// requests returns the requests of a method that came.
func (o *otherRecorder) requests(method string) (out []*sip.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range o.messages {
		if m.Method == method {
			out = append(out, m)
		}
	}
	return out
}

// pcm lays what came on one channel by its time stamps; what did not come is silent.
func (o *otherRecorder) pcm(channel int) []int16 {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []int16
	for _, p := range o.packets[channel] {
		at := int(p.Timestamp - o.packets[channel][0].Timestamp)
		if at < 0 || at > 60*8000 {
			continue
		}
		for len(out) < at {
			out = append(out, 0)
		}
		for _, b := range p.Payload {
			out = append(out[:min(at, len(out))], codec.MuLawLinear(b))
			at++
		}
	}
	return out
}

// TestLiveFork sends a call to another recorder while it goes on: it hears both
// sides on their channels, nothing of a secure pause, and is told of everything.
func TestLiveFork(t *testing.T) {
	trunks, agents := twoTrunks(t, recorder.FormatOggOpus)
	other := newOtherRecorder(t, liveTrunk[1][0])
	trunks[0].Recording = []string{fmt.Sprintf(`fork_to: ["sip:nobody@%s", "sip:record@%s"]`, freeUDP(t, liveTrunk[1][1]), other.addr)}
	d := newLiveDaemon(t, liveConfig{Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}})
	d.start()
	c := d.call(agents[0], [2]float64{440, 1000})
	await(t, "a session at the other recorder", func() bool { return len(other.requests(sip.Ack)) > 0 })
	time.Sleep(1500 * time.Millisecond)
	if _, err := d.signal(c.external.ID(), "pause.start"); err != nil {
		t.Fatal(err)
	}
	c.external.Media().Play(siptest.Tone(2222, 0.5)) // of the pause: no other recorder may hear it
	await(t, "the pause at the other recorder", func() bool { return len(other.requests(sip.Invite)) > 1 })
	time.Sleep(time.Second)
	c.external.Media().Play(siptest.Tone(440, 0.5))
	time.Sleep(300 * time.Millisecond)
	if _, err := d.signal(c.external.ID(), "pause.end"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond)
	if err := c.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "the end at the other recorder", func() bool { return len(other.requests(sip.Bye)) > 0 })
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		if len(m.Windows) != 1 {
			t.Errorf("windows %+v", m.Windows)
		}
		if len(m.Copies) != 1 {
			t.Fatalf("copies %+v", m.Copies)
		}
		checkCopy(t, m, &m.Copies[0], [2]int{len(other.pcm(0)) / 8, len(other.pcm(1)) / 8})
	}
	for ch, hz := range c.hz {
		pcm := other.pcm(ch)
		own, foreign := tenths(pcm, hz), tenths(pcm, 2222)+tenths(pcm, c.hz[1-ch])
		t.Logf("channel %d: %d ms, its tone in %d tenths of a second, another in %d", ch, len(pcm)/8, own, foreign)
		if own < 20 || foreign > 0 {
			t.Errorf("channel %d: its tone is in %d tenths of a second, another in %d", ch, own, foreign)
		}
	}
	invites := other.requests(sip.Invite)
	if text := string(invites[0].Body); !strings.Contains(text, "sip:desk@") || !strings.Contains(text, "a=sendonly") {
		t.Errorf("the session begins with\n%s", text)
	}
	if text := string(invites[1].Body); !strings.Contains(text, "a=inactive") {
		t.Errorf("the pause is told as\n%s", text)
	}
	d.stop()
}

// checkCopy holds that an account of a copy that began late says what came of it, and
// that it came to its end.
func checkCopy(t *testing.T, m *recorder.Manifest, k *recorder.Copy, heardMS [2]int) {
	t.Helper()
	if len(k.Servers) != 2 || k.ThroughMS != m.RealMS || len(k.Spans) < 4 {
		t.Fatalf("copy %+v of a recording of %d ms", k, m.RealMS)
	}
	for side := range 2 {
		first, last := k.Spans[side], k.Spans[len(k.Spans)-2+side]
		if k.SentMS[side]+k.UnsentMS[side] != m.AudioMS || first.Unsent != "no_server" || last.Server != k.Servers[1] || last.EndRealMS != m.RealMS {
			t.Errorf("side %d: copy %+v of a recording of %d ms", side, k, m.AudioMS)
		}
		if got := int64(heardMS[side]); got < last.EndRealMS-last.RealMS-20 || got > last.EndRealMS-last.RealMS+20 {
			t.Errorf("side %d: %d ms came, by time stamps, of %+v", side, got, last)
		}
	}
}

// tenths counts the tenths of a second in which a tone is heard.
func tenths(pcm []int16, hz float64) (n int) {
	for ; len(pcm) >= 800; pcm = pcm[800:] {
		if mediatest.Energy(pcm[:800], hz, 8000) > 1e6 { // spoken with 1.3e8
			n++
		}
	}
	return n
}

// await waits for something that another process does.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(liveReadyLimit); time.Now().Before(deadline); time.Sleep(livePollEvery) {
		if ok() {
			return
		}
	}
	t.Fatalf("no %s", what)
}
