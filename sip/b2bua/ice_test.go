package b2bua

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RFC 8489 section 14.5
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
)

// attributeOf returns the value of the first attribute of that name.
func attributeOf(body []byte, name string) string {
	for l := range strings.Lines(string(body)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "a="+name+":"); ok {
			return v
		}
	}
	return ""
}

// checkOf is a connectivity check that nominates.
func checkOf(ufrag, pwd string) []byte {
	m := []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	add := func(kind uint16, v []byte) {
		m = binary.BigEndian.AppendUint16(m, kind)
		m = append(binary.BigEndian.AppendUint16(m, uint16(len(v))), v...)
		for len(m)%4 != 0 {
			m = append(m, 0)
		}
	}
	add(6, []byte(ufrag+":peer"))
	add(0x25, nil)
	binary.BigEndian.PutUint16(m[2:], uint16(len(m)-20+24))
	h := hmac.New(sha1.New, []byte(pwd))
	_, _ = h.Write(m)
	add(8, h.Sum(nil))
	return m
}

func asked(t *testing.T, c *mediatest.Conn, to netip.AddrPort, wire []byte) []byte {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort(wire, to); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, _, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}

func TestICELite(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.Trunks[0].Sides[media.External].ICELite = true }, func(w *bench) {
		a := begin(w.a, outside, "ice", sdpOf(carrier.Addr(), 7000, "a=ice-ufrag:peer", "a=ice-pwd:peerpeerpeerpeerpeerpeer", "a=candidate:1 1 UDP 1 192.0.2.66 7000 typ host"))
		w.a.want("100")
		p := w.p.take(inside)
		if text := string(p.invite.Body); strings.Contains(text, "ice-") || strings.Contains(text, "candidate") {
			t.Errorf("ICE passes:\n%s", text)
		}
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		ok := w.a.want("200")
		ours := netip.AddrPortFrom(outside.Addr(), mPort(t, ok.Body, 0))
		ufrag, pwd := attributeOf(ok.Body, "ice-ufrag"), attributeOf(ok.Body, "ice-pwd")
		session, section, _ := strings.Cut(string(ok.Body), "m=audio")
		if !strings.Contains(session, "a=ice-lite\r\n") || ufrag == "" || !strings.Contains(section, "a=candidate:1 1 UDP 2130706431 192.0.2.1 20000 typ host\r\na=candidate:1 2 UDP 2130706430 192.0.2.1 20001 typ host\r\n") {
			t.Errorf("answer:\n%s", ok.Body)
		}
		w.acked(a, p, ok)
		far, err := w.net.Listen(netip.MustParseAddrPort("192.0.2.66:7050")) // another candidate than that of c= and m=
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = far.Close() }()
		if res := asked(t, far, ours, checkOf(ufrag, "wrong")); res != nil {
			t.Errorf("a check with another password is answered: %x", res)
		}
		if res := asked(t, far, ours, checkOf(ufrag, pwd)); len(res) < 20 || res[0] != 1 || res[1] != 1 {
			t.Errorf("answer to a check: %x", res)
		}
		// A packet moves the packet path on to the new way; then media goes there.
		synctest.Wait()
		inner, err := w.net.Listen(netip.AddrPortFrom(pbx.Addr(), 8000))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = inner.Close() }()
		rtp := append([]byte{0x80, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1}, make([]byte, 160)...)
		if _, err := inner.WriteToUDPAddrPort(rtp, netip.AddrPortFrom(inside.Addr(), mPort(t, p.invite.Body, 0))); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1500)
		if err := far.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, _, err := far.ReadFromUDPAddrPort(buf); err != nil || n != len(rtp) {
			t.Errorf("media does not follow the nomination: %d, %v", n, err)
		}
		// The other side has none of it.
		if res := asked(t, inner, netip.AddrPortFrom(inside.Addr(), mPort(t, p.invite.Body, 0)), checkOf(ufrag, pwd)); res != nil {
			t.Errorf("a side without ICE is answered: %x", res)
		}
		// A refresh keeps the credentials, new ones of the peer change ours.
		again := func(peer string) string {
			a.send("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000, "a=ice-ufrag:"+peer, "a=ice-pwd:peerpeerpeerpeerpeerpeer"))
			w.a.want("100")
			m := w.p.want("INVITE")
			w.p.reply(m, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
			res := w.a.want("200 INVITE")
			a.requestAndAck()
			w.p.want("ACK")
			return attributeOf(res.Body, "ice-ufrag")
		}
		if got := again("peer"); got != ufrag {
			t.Errorf("credentials changed without a restart: %s, %s", got, ufrag)
		}
		if got := again("other"); got == ufrag || got == "" {
			t.Errorf("credentials after a restart: %q", got)
		}
		w.hangUp(a)
	})
}

// TestICELiteOffered: a side that may speak ICE is offered it; one that does not
// answer so hears no more of it.
func TestICELiteOffered(t *testing.T) {
	inBubble(t, func(cfg *Config) { cfg.Trunks[0].Sides[media.Internal].ICELite = true }, func(w *bench) {
		a, p := w.established("noice")
		if attributeOf(p.invite.Body, "ice-ufrag") == "" || !strings.Contains(string(p.invite.Body), "a=ice-lite") {
			t.Errorf("offer:\n%s", p.invite.Body)
		}
		a.send("INVITE", []string{w.a.contact()}, sdpOf(carrier.Addr(), 7000))
		w.a.want("100")
		m := w.p.want("INVITE")
		if strings.Contains(string(m.Body), "ice-") {
			t.Errorf("offered again:\n%s", m.Body)
		}
		w.p.reply(m, 200, "", []string{w.p.contact()}, sdpOf(pbx.Addr(), 8000))
		w.a.want("200 INVITE")
		a.requestAndAck()
		w.p.want("ACK")
		w.hangUp(a)
	})
}
