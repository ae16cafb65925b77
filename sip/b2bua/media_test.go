package b2bua

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/sip"
)

func rtpPacket(seq int, payloadType byte) []byte {
	p := []byte{0x80, payloadType, byte(seq >> 8), byte(seq), 0, 0, byte(seq), 0, 1, 2, 3, 4}
	return append(p, bytes.Repeat([]byte{byte(seq)}, 160)...)
}

// pair is the RTP sockets of the two parties.
type pair struct{ a, p *mediatest.Conn }

func (w *bench) mediaPair() pair {
	w.t.Helper()
	a, err := w.net.Listen(netip.MustParseAddrPort("192.0.2.66:7000"))
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := w.net.Listen(netip.MustParseAddrPort("10.0.0.66:8000"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = a.Close(); _ = p.Close() })
	return pair{a, p}
}

// carries sends packets from one socket and returns an error when they do not
// come out at the other unchanged.
func (w *bench) carries(from, to *mediatest.Conn, at string, payloadType byte, n int) error {
	for i := range n {
		sent := rtpPacket(i, payloadType)
		if _, err := from.WriteToUDPAddrPort(sent, netip.MustParseAddrPort(at)); err != nil {
			return err
		}
		synctest.Wait()
		got := make([]byte, 2000)
		if to == nil {
			continue
		}
		k, _, err := to.ReadFromUDPAddrPort(got)
		if err != nil || !bytes.Equal(got[:k], sent) {
			return fmt.Errorf("packet %d changed or lost: %v", i, err)
		}
	}
	return nil
}

func TestMediaIsRelayedAndTapped(t *testing.T) {
	for _, fault := range []string{"", "none", "stream"} {
		inBubble(t, nil, func(w *bench) {
			w.obs.none = fault == "none"
			w.obs.panics = map[string]string{"stream": "stream"}[fault]
			a, _ := w.established("media" + fault)
			m := w.mediaPair()
			if err := w.carries(m.a, m.p, "192.0.2.1:20000", 0, 20); err != nil {
				t.Errorf("%s: carrier to PBX: %v", fault, err)
			}
			if err := w.carries(m.p, m.a, "10.0.0.1:20000", 0, 30); err != nil {
				t.Errorf("%s: PBX to carrier: %v", fault, err)
			}
			w.hangUp(a)
			if fault == "" && w.obs.taps[0].packets != [2]int{20, 30} {
				t.Errorf("the recorder got %v", w.obs.taps[0].packets)
			}
		})
	}
}

func TestMediaBeforeTheAnswer(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		begin(w.a, outside, "em", sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		p := w.p.take(inside)
		m := w.mediaPair()
		// A callee may send as soon as it has the offer.
		if err := w.carries(m.p, m.a, "10.0.0.1:20000", 0, 3); err != nil {
			t.Error(err)
		}
		w.p.reply(p.invite, 183, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.a.want("183")
		if err := w.carries(m.a, m.p, "192.0.2.1:20000", 0, 3); err != nil {
			t.Error(err)
		}
		w.p.reply(p.invite, 404, "pbx", nil, "")
		w.p.want("ACK")
		w.a.want("404")
		synctest.Wait()
		if w.relay.Streams() != 0 {
			t.Error("streams of a failed call are open")
		}
	})
}

func TestRefusedReinviteLeavesMedia(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, _ := w.established("rej")
		m := w.mediaPair()
		a.send("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7100))
		re := w.p.want("INVITE")
		w.a.want("100")
		if !strings.Contains(string(re.Body), "m=audio 20000 ") {
			t.Errorf("the relay's port changed:\n%s", re.Body)
		}
		w.p.reply(re, 488, "", nil, "")
		w.p.want("ACK")
		w.a.want("488")
		if err := w.carries(m.p, m.a, "10.0.0.1:20000", 0, 5); err != nil {
			t.Error(err)
		}
		w.hangUp(a)
	})
}

func TestAudioBecomesFax(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		a, p := w.established("fax")
		p.target = contactURIOf(t, p.invite)
		fax := func(addr netip.Addr, port int) string {
			return fmt.Sprintf("v=0\r\no=- 1 2 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=image %d udptl t38\r\n", addr, addr, port)
		}
		reinvite(w, p, a, fax(pbx.Addr(), 8000), fax(carrier.Addr(), 7000))
		m := w.mediaPair()
		got := make([]byte, 100)
		at := w.b.cfg.Relay
		if at.Streams() != 1 {
			t.Errorf("%d streams", at.Streams())
		}
		if _, err := m.p.WriteToUDPAddrPort([]byte("not RTP at all"), netip.MustParseAddrPort("10.0.0.1:20002")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if k, _, _ := m.a.ReadFromUDPAddrPort(got); string(got[:k]) != "not RTP at all" {
			t.Errorf("got %q", got[:k])
		}
		// And back to audio in the same place.
		reinvite(w, p, a, sdpOf(pbx.Addr(), 8000), sdpOf(carrier.Addr(), 7000))
		w.hangUp(a)
		if got := w.obs.log(0); strings.Count(got, "ended") != 3 || strings.Count(got, "stream external") != 2 {
			t.Errorf("told:\n%s", got)
		}
	})
}

func TestBadOffer(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		begin(w.a, outside, "bo", "this is no description")
		w.a.want("100")
		w.a.want("488")
		w.p.quiet(sip.T4)
	})
}
