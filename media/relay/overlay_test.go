package relay

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
)

// inverter is an overlay that inverts the payload of every packet whose sequence
// number is a multiple of every, into the same buffer each time.
type inverter struct {
	every      int
	buf        [1500]byte
	dead, late bool
	calls      int
}

func (v *inverter) Apply(_ time.Time, wire []byte) []byte {
	v.calls++
	v.late = v.late || v.dead
	if (int(wire[2])<<8|int(wire[3]))%v.every != 0 {
		return wire
	}
	return inverted(v.buf[:0], wire)
}

func inverted(dst, wire []byte) []byte {
	dst = append(dst, wire...)
	for i := 12; i < len(dst); i++ {
		dst[i] ^= 0xff
	}
	return dst
}

// The far side and the tap get the same bytes, and those of one packet never
// show up in another of the batch.
func TestOverlayIsForwardedAndTapped(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		ext, in := s.Local(media.External), s.Local(media.Internal)
		taps := [2]*collector{{}, {}}
		s.SetTap(media.External, taps[0])
		s.SetTap(media.Internal, taps[1])
		s.SetOverlay(media.External, &inverter{every: 3})
		want := &collector{}
		const packets = 150
		for i := range packets {
			e.send(carrier.rtp, ext, rtpPacket(1, uint16(i), 20+i))
			e.send(pbx.rtp, in, rtpPacket(2, uint16(i), 20))
		}
		for i := range packets {
			wire := rtpPacket(1, uint16(i), 20+i)
			if i%3 == 0 {
				wire = inverted(nil, wire)
			}
			want.Put(time.Time{}, wire)
			e.want(pbx.rtp, in, wire)
			e.want(carrier.rtp, ext, rtpPacket(2, uint16(i), 20)) // the other direction is its own
		}
		e.eventually("tapped", func() bool { return taps[0].len() == packets && taps[1].len() == packets })
		if taps[0].String() != want.String() {
			t := taps[0].String()
			e.Fatalf("the tap got other bytes than the far side: %.200s", t)
		}
		if st := s.Stats(); st[0].Overlaid != packets/3 || st[1].Overlaid != 0 || st[0].Forwarded != packets {
			e.Fatalf("%+v", st)
		}
		s.SetOverlay(media.External, nil)
		e.send(carrier.rtp, ext, rtpPacket(1, 300, 10))
		e.want(pbx.rtp, in, rtpPacket(1, 300, 10))
	})
}

func TestOverlayLeavesRTCPAndOtherMedia(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		s.SetRemote(media.External, carrier.remote(true))
		v := &inverter{every: 1}
		s.SetOverlay(media.External, v)
		e.send(carrier.rtp, s.Local(media.External), rtpPacket(1, 1, 4))
		e.want(pbx.rtp, s.Local(media.Internal), inverted(nil, rtpPacket(1, 1, 4)))
		e.send(carrier.rtcp, rtcpOf(s.Local(media.External)), rtcpPacket(1))
		e.want(pbx.rtcp, rtcpOf(s.Local(media.Internal)), rtcpPacket(1))
		e.send(carrier.rtp, s.Local(media.External), rtcpPacket(1)) // on the shared port
		e.want(pbx.rtcp, rtcpOf(s.Local(media.Internal)), rtcpPacket(1))
		s.SetOverlay(media.External, nil) // now it is ours
		if v.calls != 1 {
			e.Fatalf("the overlay saw %d packets", v.calls)
		}
		fax := e.open(Options{})
		fax.SetRemote(media.External, carrier.remote(false))
		fax.SetRemote(media.Internal, pbx.remote(false))
		fax.SetOverlay(media.External, &inverter{every: 1})
		e.send(carrier.rtp, fax.Local(media.External), []byte("a datagram of T.38"))
		e.want(pbx.rtp, fax.Local(media.Internal), []byte("a datagram of T.38"))
	})
}

// faulty panics at one packet, and returns what is no packet at another.
type faulty struct {
	inverter
	panicAt, emptyAt, hugeAt int
}

func (f *faulty) Apply(at time.Time, wire []byte) []byte {
	switch f.calls {
	case f.panicAt:
		f.calls++
		panic("fault of an overlay")
	case f.emptyAt:
		f.calls++
		return nil
	case f.hugeAt:
		f.calls++
		return make([]byte, datagramBytesMax+1)
	}
	return f.inverter.Apply(at, wire)
}

func TestFaultyOverlayHarmsNoPacket(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, pbx := e.call()
		ext, in := s.Local(media.External), s.Local(media.Internal)
		tap := &collector{}
		s.SetTap(media.External, tap)
		s.SetOverlay(media.External, &faulty{inverter: inverter{every: 1}, emptyAt: 2, hugeAt: 3, panicAt: 5})
		for i := range 20 {
			e.send(carrier.rtp, ext, rtpPacket(1, uint16(i), 10))
		}
		for i := range 20 {
			wire := rtpPacket(1, uint16(i), 10)
			if i < 2 || i == 4 {
				wire = inverted(nil, wire)
			}
			e.want(pbx.rtp, in, wire)
		}
		e.eventually("tapped", func() bool { return tap.len() == 20 })
		if st := s.Stats()[0]; st.OverlayPanics != 1 || st.Overlaid != 3 || st.TapPanics != 0 || e.relay.Totals().OverlayPanics != 1 {
			e.Fatalf("%+v", st)
		}
		s.SetOverlay(media.External, &inverter{every: 1}) // another may begin
		e.send(carrier.rtp, ext, rtpPacket(1, 20, 10))
		e.want(pbx.rtp, in, inverted(nil, rtpPacket(1, 20, 10)))
	})
}

func TestOverlayPanicIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		n := mediatest.NewNet(1)
		r := mustRelay(t, Config{
			PortMin: 20000, PortMax: 20999, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Open: func(a netip.AddrPort) (Conn, error) { return n.Listen(a) },
		})
		e := env{t, r, func(a netip.AddrPort) (testConn, error) { return n.Listen(a) }}
		s, carrier, _ := e.call()
		s.SetOverlay(media.External, &faulty{emptyAt: -1, hugeAt: -1})
		for i := range 5 {
			e.send(carrier.rtp, s.Local(media.External), rtpPacket(1, uint16(i), 4))
		}
		synctest.Wait()
		text := log.String()
		if strings.Count(text, "overlay panicked") != 1 || strings.Contains(text, "fault of") || !strings.Contains(text, "faulty") {
			t.Fatal(text)
		}
	})
}

// After SetOverlay or Close the overlay before must not be called: another
// goroutine may have it.
func TestOverlayIsNotUsedAfterSwapOrClose(t *testing.T) {
	onBoth(t, func(e env) {
		s, carrier, _ := e.call()
		ext := s.Local(media.External)
		stop, done := make(chan struct{}), make(chan struct{})
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
		var all []*inverter
		for range 100 {
			v := &inverter{every: 2}
			s.SetOverlay(media.External, v)
			if len(all) > 0 {
				all[len(all)-1].dead = true // a race, when it is still in use
			}
			all = append(all, v)
			<-time.After(200 * time.Microsecond)
		}
		if err := s.Close(); err != nil {
			e.Fatal(err)
		}
		all[len(all)-1].dead = true
		close(stop)
		<-done
		calls := 0
		for _, v := range all {
			calls += v.calls
			if v.late {
				e.Fatal("an overlay was used after it was replaced")
			}
		}
		if calls == 0 {
			e.Fatal("no overlay got anything")
		}
		s.SetOverlay(media.External, &inverter{every: 1}) // after Close: without effect
	})
}
