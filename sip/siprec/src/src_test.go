package src

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/siprec"
)

var (
	ours   = netip.MustParseAddr("192.0.2.1")
	first  = netip.MustParseAddr("192.0.2.50")
	second = netip.MustParseAddr("192.0.2.51")
)

type world struct {
	t    *testing.T
	c    *Client
	a, b *server
	f    *Fork

	fails atomic.Bool // nothing of media is sent
}

func session() media.Session {
	return media.Session{
		ID: "session-1", Trunk: "carrier", SIPCallID: "call-1", Direction: media.Inbound, Start: time.Now(),
		Parties: []media.Participant{{Side: media.External, URI: "sip:+4930123@carrier.example", Name: `A "Caller" <x>`}, {Side: media.Internal, URI: "sip:desk@pbx.example"}},
	}
}

func inBubble(t *testing.T, wide bool, f func(*world)) {
	t.Helper()
	inBubbleWith(t, wide, func(*Server) {}, f)
}

// inBubbleWith is inBubble with servers that are edited.
func inBubbleWith(t *testing.T, wide bool, edit func(*Server), f func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := mediatest.NewNet(1)
		w := &world{t: t}
		c, err := New(Config{
			Address: ours, Listen: []sip.Listen{{Network: "udp", Addr: netip.AddrPortFrom(ours, 5070)}},
			Net: sip.Net{ListenPacket: func(_ string, a netip.AddrPort) (net.PacketConn, error) { return n.Listen(a) }},
			Open: func(a netip.Addr) (net.PacketConn, error) {
				conn, err := n.Listen(netip.AddrPortFrom(a, 30000))
				return failing{conn, &w.fails}, err
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		w.c, w.a, w.b = c, newServer(t, n, first), newServer(t, n, second)
		defer w.b.close()
		defer w.a.close()
		defer func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}()
		var list []Server
		for _, a := range []netip.Addr{first, second} {
			s, err := ParseServer("sip:record@" + a.String())
			if err != nil {
				t.Fatal(err)
			}
			edit(&s)
			list = append(list, s)
		}
		w.f = c.Fork("", session(), list, wide)
		f(w)
	})
}

// tone is a stretch of a tone for each channel.
func tone(fromMS, ms int64, rate int) (ch [2][]int16) {
	for i, hz := range [2]float64{440, 1000} {
		for k := range ms * int64(rate) / 1000 {
			x := float64(fromMS)/1000 + float64(k)/float64(rate)
			ch[i] = append(ch[i], int16(12000*math.Sin(2*math.Pi*hz*x)))
		}
	}
	return ch
}

// speak gives a fork audio as a recorder does, in chunks of 100 ms.
func (w *world) speak(fromMS, toMS int64, rate int) {
	for ms := fromMS; ms < toMS; ms += 100 {
		time.Sleep(100 * time.Millisecond)
		w.f.Audio(ms, rate, tone(ms, 100, rate))
	}
}

// bye ends the call and answers the BYE.
func (w *world) bye(s *server) {
	w.t.Helper()
	w.f.End()
	m := s.want(sip.Bye)
	s.reply(m, 200, nil)
	<-w.f.done
	if n := w.c.counters.Live.Load(); n != 0 {
		w.t.Errorf("%d forks live", n)
	}
}

func TestAudioIsSent(t *testing.T) {
	for _, c := range []struct {
		codec uint8
		rate  int
		wide  bool
	}{{0, 8000, false}, {8, 8000, false}, {9, 16000, true}, {0, 48000, true}} {
		t.Run(fmt.Sprintf("%d at %d", c.codec, c.rate), func(t *testing.T) {
			inBubble(t, c.wide, func(w *world) {
				w.a.codec = c.codec
				invite := w.a.accept()
				d, x := parts(t, invite)
				if got := d.Media(); len(got) != 2 || got[0].Direction != "sendonly" || (got[0].Formats[0].Name == "G722") != c.wide {
					t.Errorf("offer %+v", got)
				}
				checkMetadata(t, x, "sip:desk@pbx.example")
				if !strings.Contains(invite.Get("Contact"), "+sip.src") || invite.Get("Require") != "siprec" {
					t.Errorf("\n%s", invite.Append(nil))
				}
				w.speak(0, 2000, c.rate)
				time.Sleep(300 * time.Millisecond)
				checkTones(t, w.a, c.codec, 95)
				w.bye(w.a)
			})
		})
	}
}

func checkMetadata(t *testing.T, x *siprec.Metadata, agent string) {
	t.Helper()
	for i, want := range []string{"sip:+4930123@carrier.example", agent} {
		st, ok := x.Labelled(labels[i])
		if !ok {
			t.Fatalf("no stream of label %s in %+v", labels[i], x)
		}
		if p := x.Senders(st.ID); len(p) != 1 || p[0].AOR() != want {
			t.Errorf("label %s is sent by %+v, want %s", labels[i], p, want)
		}
	}
	if x.Mode != siprec.Complete || len(x.Sessions) != 1 {
		t.Errorf("metadata %+v", x)
	}
}

// checkTones decodes what a server got: at least so many packets on each channel,
// each with its own tone, and time stamps that the sequence numbers agree with.
func checkTones(t *testing.T, s *server, pt uint8, packets int) {
	t.Helper()
	for ch, hz := range [2]float64{440, 1000} {
		list := s.heard(ch)
		if len(list) < packets {
			t.Fatalf("channel %d: %d packets, want %d", ch, len(list), packets)
		}
		d := codec.NewG722Decoder()
		var pcm []int16
		rate := 8000.0
		for i, p := range list {
			if p.PayloadType != pt || p.SSRC != list[0].SSRC || p.SequenceNumber != list[0].SequenceNumber+uint16(i) || len(p.Payload) != 160 {
				t.Fatalf("channel %d packet %d: %+v", ch, i, p.Header)
			}
			switch pt {
			case 9:
				rate = 16000
				out := make([]int16, 320)
				d.Decode(out, p.Payload)
				pcm = append(pcm, out...)
			case 8:
				for _, b := range p.Payload {
					pcm = append(pcm, codec.ALawLinear(b))
				}
			default:
				for _, b := range p.Payload {
					pcm = append(pcm, codec.MuLawLinear(b))
				}
			}
		}
		var total, own float64
		pcm = pcm[len(pcm)/8:]
		var re, im float64
		for i, v := range pcm {
			x := 2 * math.Pi * hz * float64(i) / rate
			re, im, total = re+float64(v)*math.Cos(x), im+float64(v)*math.Sin(x), total+float64(v)*float64(v)
		}
		own = 2 * (re*re + im*im) / float64(len(pcm))
		if own < 0.98*total {
			t.Errorf("channel %d: %.3f of the power is its tone", ch, own/total)
		}
	}
	if a, b := s.heard(0)[0].Timestamp, s.heard(1)[0].Timestamp; a != b {
		t.Errorf("time stamps %d and %d of one moment", a, b)
	}
}

func TestWindowsArePausesAndAgentsAreTold(t *testing.T) {
	inBubble(t, false, func(w *world) {
		w.a.accept()
		w.speak(0, 1000, 8000)
		w.f.Suppressed()
		d, _ := parts(t, w.a.accept())
		if got := d.Media()[0].Direction; got != "inactive" {
			t.Errorf("paused, the offer is %s", got)
		}
		time.Sleep(300 * time.Millisecond)
		before := len(w.a.heard(0))
		time.Sleep(2 * time.Second)
		if n := len(w.a.heard(0)) - before; n != 0 {
			t.Errorf("%d packets while paused", n)
		}
		w.f.Parties([]string{"ann"})
		w.f.Audio(4000, 8000, tone(4000, 100, 8000))
		d, x := parts(t, w.a.accept())
		if got := d.Media()[0].Direction; got != "sendonly" {
			t.Errorf("resumed, the offer is %s", got)
		}
		checkMetadata(t, x, "sip:ann")
		w.speak(4100, 5000, 8000)
		time.Sleep(300 * time.Millisecond)
		p := w.a.heard(0)
		jump := p[before].Timestamp - p[before-1].Timestamp
		if jump != 3000*8+160 || !p[before].Marker {
			t.Errorf("time stamps go on by %d behind a window of 3 s, marker %v", jump, p[before].Marker)
		}
		w.bye(w.a)
	})
}

func TestFailover(t *testing.T) {
	for name, refuse := range map[string]func(*server, *sip.Message){
		"busy":   func(s *server, m *sip.Message) { s.reply(m, 486, nil); s.want(sip.Ack) },
		"silent": func(*server, *sip.Message) {},
		"no audio": func(s *server, m *sip.Message) {
			s.reply(m, 200, []byte("v=0\r\no=- 1 1 IN IP4 192.0.2.50\r\ns=-\r\nc=IN IP4 192.0.2.50\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\nm=audio 0 RTP/AVP 0\r\n"))
			s.want(sip.Ack)
			s.reply(s.want(sip.Bye), 200, nil)
		},
		"rings for ever": func(s *server, m *sip.Message) {
			s.reply(m, 180, nil)
			cancel := s.want(sip.Cancel)
			s.reply(cancel, 200, nil)
			s.reply(m, 487, nil)
			s.want(sip.Ack)
		},
		"too late": func(s *server, m *sip.Message) {
			time.Sleep(5 * time.Second)
			s.reply(m, 200, s.answer())
			s.want(sip.Ack)
			s.reply(s.want(sip.Bye), 200, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, false, func(w *world) {
				refuse(w.a, w.a.want(sip.Invite))
				w.b.accept()
				w.speak(0, 1000, 8000)
				time.Sleep(time.Second)
				checkTones(t, w.b, 0, 45)
				if n := w.c.counters.Failovers.Load(); n != 1 {
					t.Errorf("%d failovers", n)
				}
				w.bye(w.b)
			})
		})
	}
}

// leave ends the session that an INVITE has begun.
func (s *server) leave(invite *sip.Message) {
	s.t.Helper()
	bye := &sip.Message{Method: sip.Bye, URI: "sip:x@" + ours.String()}
	for _, h := range []string{
		fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bKbye", s.addr), "From: " + invite.Get("To") + ";tag=" + s.tag, "To: " + invite.Get("From"),
		"Call-ID: " + invite.CallID(), "CSeq: 1 BYE",
	} {
		name, value, _ := strings.Cut(h, ": ")
		bye.Add(name, value)
	}
	s.send(bye, invite.Flow.Remote)
	if res := s.want("response"); res.Status != 200 {
		s.t.Errorf("BYE is answered %d", res.Status)
	}
}

func TestAServerThatLeavesOrDies(t *testing.T) {
	inBubble(t, false, func(w *world) {
		invite := w.a.accept()
		w.speak(0, 500, 8000)
		w.a.leave(invite)
		w.b.accept()
		w.speak(500, 1000, 8000)
		if len(w.b.heard(0)) == 0 {
			t.Error("the next server hears nothing")
		}
		// It dies: OPTIONS are not answered any more.
		for range 40 {
			w.speak(1000, 2000, 8000)
			if w.c.counters.Failovers.Load() > 1 {
				break
			}
			time.Sleep(2 * time.Second)
		}
		w.a.accept()
		w.bye(w.a)
	})
}

func TestNobodyTakesIt(t *testing.T) {
	inBubble(t, false, func(w *world) {
		for range 2 {
			for _, s := range []*server{w.a, w.b} {
				m := s.want(sip.Invite)
				s.reply(m, 503, nil)
				s.want(sip.Ack)
			}
		}
		w.speak(0, 5000, 8000)
		if n := w.c.counters.DroppedMS.Load(); n < 2000 {
			t.Errorf("%d ms dropped", n)
		}
		if n := len(w.f.out.blocks); n > bufferMSMax/100+1 {
			t.Errorf("%d blocks are kept", n)
		}
		w.a.accept() // it is tried again
		w.bye(w.a)
	})
}

func TestSnapshotIsSentWhenAsked(t *testing.T) {
	inBubble(t, false, func(w *world) {
		invite := w.a.accept()
		info := &sip.Message{Method: "INFO", URI: "sip:x@" + ours.String()}
		for _, h := range []string{
			"Via: SIP/2.0/UDP 192.0.2.50;branch=z9hG4bKinfo", "From: " + invite.Get("To") + ";tag=" + w.a.tag, "To: " + invite.Get("From"),
			"Call-ID: " + invite.CallID(), "CSeq: 1 INFO", "Content-Type: application/rs-metadata-request",
		} {
			name, value, _ := strings.Cut(h, ": ")
			info.Add(name, value)
		}
		info.Body = siprec.AppendSnapshotRequest(nil, siprec.SnapshotRequest{Reason: "lost"})
		w.a.send(info, invite.Flow.Remote)
		if res := w.a.want("response"); res.Status != 200 {
			t.Errorf("INFO is answered %d", res.Status)
		}
		_, x := parts(t, w.a.accept())
		checkMetadata(t, x, "sip:desk@pbx.example")
		w.bye(w.a)
	})
}

func TestTheCallEndsBeforeTheAnswer(t *testing.T) {
	inBubble(t, false, func(w *world) {
		invite := w.a.want(sip.Invite)
		w.a.reply(invite, 180, nil)
		synctest.Wait()
		w.f.End()
		cancel := w.a.want(sip.Cancel)
		w.a.reply(cancel, 200, nil)
		w.a.reply(invite, 200, w.a.answer()) // they cross
		w.a.want(sip.Ack)
		w.a.reply(w.a.want(sip.Bye), 200, nil)
		<-w.f.done
	})
}

func TestLimitsAndClose(t *testing.T) {
	inBubble(t, false, func(w *world) {
		w.a.accept()
		w.c.cfg.ForksMax = 1
		if f := w.c.Fork("", session(), w.f.servers, false); f != nil {
			t.Error("a fork beyond the limit")
		}
		closed := make(chan error)
		go func() { closed <- w.c.Close() }()
		w.a.reply(w.a.want(sip.Bye), 200, nil)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		w.f.Audio(0, 8000, tone(0, 100, 8000)) // nothing happens
		w.f.Suppressed()
		w.f.Parties(nil)
		w.f.End()
	})
}

func TestReportsTellOneClock(t *testing.T) {
	inBubble(t, false, func(w *world) {
		var mu sync.Mutex
		got := map[uint32][2]uint64{}
		for i := range w.a.media {
			c, err := w.a.n.Listen(netip.AddrPortFrom(first, uint16(7001+2*i)))
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			defer func() { _ = c.Close(); <-done }()
			go func() {
				defer close(done)
				buf := make([]byte, 1500)
				for {
					n, _, err := c.ReadFromUDPAddrPort(buf)
					if err != nil {
						return
					}
					if n >= 28 && buf[1] == 200 {
						mu.Lock()
						got[binary.BigEndian.Uint32(buf[4:])] = [2]uint64{binary.BigEndian.Uint64(buf[8:]), uint64(binary.BigEndian.Uint32(buf[16:]))}
						mu.Unlock()
					}
				}
			}()
		}
		w.a.accept()
		w.speak(0, 7000, 8000)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(got) != 2 {
			t.Fatalf("reports of %d sources", len(got))
		}
		var all [][2]uint64
		for _, v := range got {
			all = append(all, v)
		}
		if all[0] != all[1] {
			t.Errorf("reports differ: %v", all)
		}
		w.bye(w.a)
	})
}
