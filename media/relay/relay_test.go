package relay

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
)

func TestForwardsBothWaysUnchanged(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		ext, in := s.Local(media.External), s.Local(media.Internal)
		if ext.Port()%2 != 0 || in.Port()%2 != 0 || ext.Addr() != locals[0] || in.Addr() != locals[1] {
			e.Fatalf("local addresses %v and %v", ext, in)
		}
		var bytes uint64
		const packets = 300
		for first := 0; first < packets; first += 100 { // bursts larger than a batch
			for i := first; i < first+100; i++ {
				wire := rtpPacket(1, uint16(i), i*5)
				bytes += uint64(len(wire))
				e.send(carrier.rtp, ext, wire)
				e.send(pbx.rtp, in, rtpPacket(2, uint16(i), i))
			}
			for i := first; i < first+100; i++ {
				e.want(pbx.rtp, in, rtpPacket(1, uint16(i), i*5))
				e.want(carrier.rtp, ext, rtpPacket(2, uint16(i), i))
			}
		}
		e.eventually("counts", func() bool { return s.Stats()[0].Forwarded == packets })
		st := s.Stats()[media.External]
		if st.Packets != packets || st.Bytes != bytes || st.Source != addrOf(carrier.rtp) || time.Since(st.LastRTP) > time.Minute || !st.LastRTCP.IsZero() {
			e.Fatalf("%+v, want %d packets of %d bytes from %v", st, packets, bytes, addrOf(carrier.rtp))
		}
	})
}

func TestNothingPassesBeforeNegotiation(t *testing.T) {
	onBoth(t, func(e env) {
		s := e.open(Options{RTP: true})
		carrier, pbx := e.party(carrierHost), e.party(pbxHost)
		s.SetRemote(media.Internal, pbx.remote(false))
		e.send(carrier.rtp, s.Local(media.External), rtpPacket(1, 1, 4))
		e.eventually("count", func() bool { return s.Stats()[0].Unnegotiated == 1 })
		e.send(pbx.rtp, s.Local(media.Internal), rtpPacket(2, 1, 4)) // the other side is nowhere yet
		e.eventually("count", func() bool { return s.Stats()[1].Unroutable == 1 })
		s.SetRemote(media.External, carrier.remote(false))
		e.send(carrier.rtp, s.Local(media.External), rtpPacket(1, 2, 4))
		e.want(pbx.rtp, s.Local(media.Internal), rtpPacket(1, 2, 4))
	})
}

func TestThirdAddressCannotSteal(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		thief := e.party(thiefHost)
		ext, in := s.Local(media.External), s.Local(media.Internal)
		e.send(carrier.rtp, ext, rtpPacket(1, 1, 4))
		e.want(pbx.rtp, in, rtpPacket(1, 1, 4))
		for i := range 10 {
			e.send(thief.rtp, ext, rtpPacket(1, uint16(2+i), 4))
			e.send(thief.rtcp, rtcpOf(ext), rtcpPacket(1))
		}
		e.send(carrier.rtp, ext, []byte("not RTP"))
		e.send(carrier.rtcp, rtcpOf(ext), []byte("not RTCP"))
		e.eventually("counts", func() bool {
			st := s.Stats()[media.External]
			return st.RejectedSource == 20 && st.RejectedForm == 2
		})
		e.send(carrier.rtp, ext, rtpPacket(1, 2, 4))
		e.want(pbx.rtp, in, rtpPacket(1, 2, 4)) // nothing of the thief before it
		e.send(pbx.rtp, in, rtpPacket(9, 1, 4))
		e.want(carrier.rtp, ext, rtpPacket(9, 1, 4)) // and nothing goes to the thief
	})
}

// A side behind NAT gets its media where it sends from; when its port changes,
// there.
func TestSymmetricRTP(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		behind := pbx.remote(false)
		behind.RTP = netip.MustParseAddrPort("127.0.9.9:4000")
		s.SetRemote(media.Internal, behind)
		ext, in := s.Local(media.External), s.Local(media.Internal)
		e.send(pbx.rtp, in, rtpPacket(2, 1, 4))
		e.want(carrier.rtp, ext, rtpPacket(2, 1, 4))
		e.send(carrier.rtp, ext, rtpPacket(1, 1, 4))
		e.want(pbx.rtp, in, rtpPacket(1, 1, 4))
		rebound := e.party(pbxHost)
		e.send(rebound.rtp, in, rtpPacket(2, 2, 4))
		e.want(carrier.rtp, ext, rtpPacket(2, 2, 4))
		e.send(carrier.rtp, ext, rtpPacket(1, 2, 4))
		e.want(rebound.rtp, in, rtpPacket(1, 2, 4))
		if got := s.Stats()[media.Internal].Source; got != addrOf(rebound.rtp) {
			e.Fatalf("source %v, want %v", got, addrOf(rebound.rtp))
		}
	})
}

func TestRenegotiation(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		ext, in := s.Local(media.External), s.Local(media.Internal)
		e.send(pbx.rtp, in, rtpPacket(2, 1, 4))
		e.want(carrier.rtp, ext, rtpPacket(2, 1, 4))
		other := e.party(thiefHost)
		s.SetRemote(media.Internal, other.remote(false))
		e.send(carrier.rtp, ext, rtpPacket(1, 1, 4))
		e.want(other.rtp, in, rtpPacket(1, 1, 4))
		e.send(pbx.rtp, in, rtpPacket(2, 2, 4)) // a straggler still passes,
		e.want(carrier.rtp, ext, rtpPacket(2, 2, 4))
		e.send(carrier.rtp, ext, rtpPacket(1, 2, 4))
		e.want(other.rtp, in, rtpPacket(1, 2, 4)) // but pulls nothing back
	})
}

// Hold in the manner of RFC 2543: nothing goes there, but what comes from the
// other side is still recorded.
func TestUnspecifiedRemoteGetsNothing(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		ext, in := s.Local(media.External), s.Local(media.Internal)
		e.send(pbx.rtp, in, rtpPacket(2, 1, 4))
		e.want(carrier.rtp, ext, rtpPacket(2, 1, 4))
		held := pbx.remote(false)
		held.RTP = netip.MustParseAddrPort("0.0.0.0:4000")
		s.SetRemote(media.Internal, held)
		tap := &collector{}
		s.SetTap(media.External, tap)
		e.send(carrier.rtp, ext, rtpPacket(1, 1, 4))
		e.eventually("tapped", func() bool { return tap.len() == 1 && s.Stats()[0].Unroutable == 1 })
		e.send(pbx.rtp, in, rtpPacket(2, 2, 4))
		e.want(carrier.rtp, ext, rtpPacket(2, 2, 4))
	})
}

func TestRTCP(t *testing.T) {
	for _, c := range []struct{ carrierMux, pbxMux bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("mux %v %v", c.carrierMux, c.pbxMux), func(t *testing.T) {
			onBoth(t, func(e env) {
				s, carrier, pbx := e.call()
				s.SetRemote(media.External, carrier.remote(c.carrierMux))
				s.SetRemote(media.Internal, pbx.remote(c.pbxMux))
				taps := [2]*collector{{}, {}}
				s.SetTap(media.External, taps[0])
				s.SetTap(media.Internal, taps[1])
				at := func(p party, mux bool, local netip.AddrPort) (testConn, netip.AddrPort) {
					if mux {
						return p.rtp, local
					}
					return p.rtcp, rtcpOf(local)
				}
				a, aLocal := at(carrier, c.carrierMux, s.Local(media.External))
				b, bLocal := at(pbx, c.pbxMux, s.Local(media.Internal))
				for range 2 { // by the SDP, then by where it came from
					e.send(a, aLocal, rtcpPacket(1))
					e.want(b, bLocal, rtcpPacket(1))
					e.send(b, bLocal, rtcpPacket(2))
					e.want(a, aLocal, rtcpPacket(2))
				}
				for i, tap := range taps {
					want := &collector{wires: [][]byte{rtcpPacket(byte(i + 1)), rtcpPacket(byte(i + 1))}}
					e.eventually("tapped", func() bool { return tap.String() == want.String() })
				}
				if st := s.Stats()[0]; st.LastRTCP.IsZero() || !st.LastRTP.IsZero() || st.Packets != 2 {
					e.Fatalf("%+v", st)
				}
			})
		})
	}
}

// RTCP goes to the port that it comes from, to the negotiated one, or beside RTP.
func TestRTCPAddress(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		ext, in := s.Local(media.External), s.Local(media.Internal)
		other := e.party(pbxHost) // RTCP from another port of the same host
		e.send(other.rtcp, rtcpOf(in), rtcpPacket(2))
		e.want(carrier.rtcp, rtcpOf(ext), rtcpPacket(2))
		e.send(carrier.rtcp, rtcpOf(ext), rtcpPacket(1))
		e.want(other.rtcp, rtcpOf(in), rtcpPacket(1))
		e.send(pbx.rtcp, rtcpOf(in), rtcpPacket(2)) // the negotiated one wins and stays
		e.want(carrier.rtcp, rtcpOf(ext), rtcpPacket(2))
		e.send(other.rtcp, rtcpOf(in), rtcpPacket(3))
		e.want(carrier.rtcp, rtcpOf(ext), rtcpPacket(3))
		e.send(carrier.rtcp, rtcpOf(ext), rtcpPacket(1))
		e.want(pbx.rtcp, rtcpOf(in), rtcpPacket(1))

		beside := Remote{RTP: netip.AddrPortFrom(pbxHost, addrOf(other.rtcp).Port()-1), PayloadTypes: []uint8{0}}
		s.SetRemote(media.Internal, beside)
		e.send(carrier.rtcp, rtcpOf(ext), rtcpPacket(4))
		e.want(other.rtcp, rtcpOf(in), rtcpPacket(4))
	})
}

func TestAnyDatagram(t *testing.T) {
	onBoth(t, func(e env) {
		s := e.open(Options{})
		carrier, pbx, thief := e.party(carrierHost), e.party(pbxHost), e.party(thiefHost)
		s.SetRemote(media.External, carrier.remote(false))
		s.SetRemote(media.Internal, Remote{}) // address unknown: the first that sends
		ext, in := s.Local(media.External), s.Local(media.Internal)
		e.send(carrier.rtp, ext, []byte("lost"))
		e.eventually("count", func() bool { return s.Stats()[0].Unroutable == 1 })
		e.send(pbx.rtp, in, []byte("t38"))
		e.want(carrier.rtp, ext, []byte("t38"))
		e.send(thief.rtp, in, []byte("bad"))
		large := make([]byte, 60000)
		large[59999] = 1
		e.send(carrier.rtp, ext, large)
		e.want(pbx.rtp, in, large)
		e.send(carrier.rtp, ext, nil)
		e.want(pbx.rtp, in, nil)
		e.send(pbx.rtcp, rtcpOf(in), []byte("x")) // the odd port, likewise
		e.want(carrier.rtcp, rtcpOf(ext), []byte("x"))
		e.eventually("count", func() bool { return s.Stats()[1].RejectedSource == 1 })
	})
}

// panicky panics at one packet.
type panicky struct {
	collector
	at int
}

func (p *panicky) Put(at time.Time, wire []byte) {
	if p.collector.len() == p.at {
		panic("fault of a tap")
	}
	p.collector.Put(at, wire)
}

func TestPanickingTapIsTakenOut(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		ext, in := s.Local(media.External), s.Local(media.Internal)
		bad, good := &panicky{at: 3}, &collector{}
		s.SetTap(media.External, bad)
		s.SetTap(media.Internal, good)
		for i := range 50 {
			e.send(carrier.rtp, ext, rtpPacket(1, uint16(i), 10))
			e.send(pbx.rtp, in, rtpPacket(2, uint16(i), 10))
		}
		for i := range 50 {
			e.want(pbx.rtp, in, rtpPacket(1, uint16(i), 10))
			e.want(carrier.rtp, ext, rtpPacket(2, uint16(i), 10))
		}
		e.eventually("tapped", func() bool { return good.len() == 50 && s.Stats()[0].TapPanics == 1 })
		if bad.len() != 3 || s.Stats()[1].TapPanics != 0 {
			e.Fatalf("the bad tap got %d packets; %+v", bad.len(), s.Stats())
		}
		again := &collector{} // a new recording may begin
		s.SetTap(media.External, again)
		e.send(carrier.rtp, ext, rtpPacket(1, 50, 10))
		e.eventually("tapped", func() bool { return again.len() == 1 })
	})
}

// A recorder that does not drain its ring costs it packets, the call nothing.
func TestFullRingDoesNotDisturb(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		ext, in := s.Local(media.External), s.Local(media.Internal)
		ring := media.NewRing(1024, time.Now())
		s.SetTap(media.External, ring)
		for i := range 100 {
			e.send(carrier.rtp, ext, rtpPacket(1, uint16(i), 160))
			e.want(pbx.rtp, in, rtpPacket(1, uint16(i), 160))
		}
		s.SetTap(media.External, nil)
		if got := uint64(ring.Len()) + ring.Dropped(); got != 100 || ring.Len() == 0 || ring.Dropped() == 0 {
			e.Fatalf("%d in the ring, %d dropped", ring.Len(), ring.Dropped())
		}
	})
}

// After SetTap or Close the tap before must not be called: its owner is gone.
func TestTapIsNotUsedAfterSwapOrClose(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, _ := e.call()
		ext := s.Local(media.External)
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Microsecond):
					_, _ = carrier.rtp.WriteToUDPAddrPort(rtpPacket(1, uint16(i), 160), ext)
				}
			}
		}()
		var taps []*mortal
		for range 100 {
			m := &mortal{}
			s.SetTap(media.External, m)
			taps = append(taps, m)
			<-time.After(200 * time.Microsecond)
			if len(taps) > 1 {
				taps[len(taps)-2].dead = true // a race, when it is still in use
			}
		}
		if err := s.Close(); err != nil {
			e.Fatal(err)
		}
		taps[len(taps)-1].dead = true
		close(stop)
		<-done
		puts := 0
		for _, m := range taps {
			puts += m.puts
			if m.late {
				e.Fatal("a tap was used after it was replaced")
			}
		}
		if puts == 0 {
			e.Fatal("no tap got anything")
		}
		s.SetTap(media.External, &mortal{}) // after Close: without effect
		if err := s.Close(); err != nil {
			e.Fatal(err)
		}
	})
}

type mortal struct {
	puts       int
	dead, late bool
}

func (m *mortal) Put(time.Time, []byte) {
	m.puts++
	m.late = m.late || m.dead
}

func TestQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := mediatest.NewNet(1)
		r := mustRelay(t, Config{
			PortMin: 20001, PortMax: 20006, Quarantine: 10 * time.Second,
			Open: func(a netip.AddrPort) (Conn, error) { return n.Listen(a) },
		})
		if free := r.PortsFree(locals[0]); free != 2 {
			t.Fatalf("%d pairs in 20001-20006, want 2", free)
		}
		open := func() *Stream {
			s, err := r.Open(locals, Options{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		first, second := open(), open()
		if _, err := r.Open(locals, Options{}); !errors.Is(err, ErrNoPorts) {
			t.Fatalf("a third stream: %v", err)
		}
		other := [2]netip.Addr{netip.MustParseAddr("127.0.0.4"), netip.MustParseAddr("127.0.0.5")}
		if _, err := r.Open(other, Options{}); err != nil {
			t.Fatalf("other addresses have ports of their own: %v", err)
		}
		port := first.Local(media.External).Port()
		_ = first.Close()
		<-time.After(10*time.Second - time.Nanosecond)
		if _, err := r.Open(locals, Options{}); !errors.Is(err, ErrNoPorts) || r.PortsFree(locals[0]) != 0 {
			t.Fatalf("in quarantine: %v", err)
		}
		_ = second.Close()
		<-time.After(time.Nanosecond)
		if got := open().Local(media.External).Port(); got != port || r.Streams() != 2 {
			t.Fatalf("port %d with %d streams, want %d with 2", got, r.Streams(), port)
		}
	})
}

func TestOpenPassesOverUsedPorts(t *testing.T) {
	onBoth(t, func(e env) {
		first := e.open(Options{}).Local(media.External)
		// The next pair's odd port is somebody else's.
		busy := netip.AddrPortFrom(first.Addr(), first.Port()+3)
		c, err := e.listen(busy)
		if err != nil {
			e.Fatal(err)
		}
		free := e.relay.PortsFree(locals[0])
		if got := e.open(Options{}).Local(media.External); got.Port() != first.Port()+4 {
			e.Fatalf("got %v after %v with %v in use", got, first, busy)
		}
		if now := e.relay.PortsFree(locals[0]); now != free-1 {
			e.Fatalf("%d free, want %d: the busy pair is tried again later", now, free-1)
		}
		_ = c.Close()
	})
}

func TestOpenFailsCleanly(t *testing.T) {
	onBoth(t, func(e env) {
		free := e.relay.PortsFree(locals[0])
		nowhere := [2]netip.Addr{locals[0], netip.MustParseAddr("0.0.0.0")}
		if e.Name() != "TestOpenFailsCleanly/in_memory" {
			nowhere[1] = netip.MustParseAddr("203.0.113.1")
		}
		if _, err := e.relay.Open(nowhere, Options{}); err == nil || errors.Is(err, ErrNoPorts) {
			e.Fatalf("bound an address that is not ours: %v", err)
		}
		if now := e.relay.PortsFree(locals[0]); now != free || e.relay.Streams() != 0 {
			e.Fatalf("%d pairs free, want %d", now, free)
		}
		e.open(Options{})
	})
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no ports":       {},
		"reversed":       {PortMin: 2000, PortMax: 1000},
		"one port":       {PortMin: 2000, PortMax: 2000},
		"odd pair":       {PortMin: 2001, PortMax: 2002},
		"DSCP":           {PortMin: 2000, PortMax: 3000, DSCP: 64},
		"negative loops": {PortMin: 2000, PortMax: 3000, Loops: -1},
	} {
		if r, err := New(cfg); err == nil {
			_ = r.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	r, err := New(Config{PortMin: 65534, PortMax: 65535})
	if err != nil {
		t.Fatal(err)
	}
	if free := r.PortsFree(locals[0]); free != 1 {
		t.Errorf("%d pairs in 65534-65535", free)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Open(locals, Options{}); !errors.Is(err, ErrClosed) {
		t.Errorf("open on a closed relay: %v", err)
	}
	if err := r.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("second close: %v", err)
	}
}

// The log of a panic helps its developer and says nothing of what was spoken.
func TestLogOfPanicHoldsNoSpeech(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		n := mediatest.NewNet(1)
		r := mustRelay(t, Config{
			PortMin: 20000, PortMax: 20999, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Open: func(a netip.AddrPort) (Conn, error) { return n.Listen(a) },
		})
		e := env{t, r, func(a netip.AddrPort) (testConn, error) { return n.Listen(a) }}
		s, carrier, _ := e.call()
		for _, value := range []any{"digits 4711", errors.New("digits 4711")} {
			s.SetTap(media.External, tapFunc(func() { panic(value) }))
			e.send(carrier.rtp, s.Local(media.External), rtpPacket(1, 1, 4))
			synctest.Wait()
		}
		s.SetTap(media.External, tapFunc(func() { _ = carrier.Name()[10000] }))
		e.send(carrier.rtp, s.Local(media.External), rtpPacket(1, 2, 4))
		synctest.Wait()
		text := log.String()
		if strings.Contains(text, "4711") || !strings.Contains(text, "index out of range") ||
			strings.Count(text, "tapFunc.Put") < 3 || s.Stats()[0].TapPanics != 3 {
			t.Fatal(text)
		}
	})
}

type tapFunc func()

func (f tapFunc) Put(time.Time, []byte) { f() }
