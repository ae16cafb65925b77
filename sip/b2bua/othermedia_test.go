package b2bua

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
)

// lines makes a description of m= lines as they are given.
func lines(addr netip.Addr, version int, parts ...string) string {
	return fmt.Sprintf("v=0\r\no=- 1 %d IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\n%s", version, addr, addr, strings.Join(append(parts, ""), "\r\n"))
}

// mPort returns the port of an m= line.
func mPort(t *testing.T, body []byte, line int) uint16 {
	t.Helper()
	n := 0
	for l := range strings.Lines(string(body)) {
		if strings.HasPrefix(l, "m=") {
			if n == line {
				var kind string
				var port uint16
				if _, err := fmt.Sscan(l[2:], &kind, &port); err != nil {
					t.Fatal(err)
				}
				return port
			}
			n++
		}
	}
	t.Fatalf("no m= line %d in\n%s", line, body)
	return 0
}

// echoed sends a datagram from one address to one of ours and wants it at another.
func echoed(t *testing.T, n *mediatest.Net, from, to, at netip.AddrPort, what string) {
	t.Helper()
	src, err := n.Listen(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	dst, err := n.Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dst.Close() }()
	if _, err := src.WriteToUDPAddrPort([]byte(what), to); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	if err := dst.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	k, _, err := dst.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:k]) != what {
		t.Errorf("%s from %s to %s: %q, %v", what, from, to, buf[:k], err)
	}
}

// TestFaxInTheCall changes from audio to T.38 and back, in one m= line and in a
// second one.
func TestFaxInTheCall(t *testing.T) {
	udptl := func(port int) []string {
		return []string{fmt.Sprintf("m=image %d udptl t38", port), "a=T38FaxVersion:0", "a=T38FaxUdpEC:t38UDPRedundancy"}
	}
	audio := func(port int) []string { return []string{fmt.Sprintf("m=audio %d RTP/AVP 0", port)} }
	inBubble(t, nil, func(w *bench) {
		a, p := w.established2("fax")
		p.send("INVITE", []string{w.p.contact()}, lines(pbx.Addr(), 2, udptl(8100)...))
		offer := w.a.want("INVITE")
		ours := mPort(t, offer.Body, 0)
		if !strings.Contains(string(offer.Body), "udptl t38\r\na=T38FaxVersion:0\r\na=T38FaxUdpEC:t38UDPRedundancy\r\n") || ours == 8100 {
			t.Errorf("offer:\n%s", offer.Body)
		}
		w.a.reply(offer, 200, "", []string{w.a.contact()}, lines(carrier.Addr(), 2, udptl(7100)...))
		w.p.want("100 INVITE")
		answer := w.p.want("200 INVITE")
		p.requestAndAck()
		w.a.want("ACK")
		echoed(t, w.net, netip.AddrPortFrom(pbx.Addr(), 8100), netip.AddrPortFrom(inside.Addr(), mPort(t, answer.Body, 0)), netip.AddrPortFrom(carrier.Addr(), 7100), "\x00\x01\x02udptl")
		echoed(t, w.net, netip.AddrPortFrom(carrier.Addr(), 7100), netip.AddrPortFrom(outside.Addr(), ours), netip.AddrPortFrom(pbx.Addr(), 8100), "\x00\x02\x02udptl")
		reinvite(w, p, a, lines(pbx.Addr(), 3, audio(8000)...), lines(carrier.Addr(), 3, audio(7000)...))
		both := func(port int) []string { return append(audio(port), udptl(port+100)...) }
		reinvite(w, p, a, lines(pbx.Addr(), 4, both(8000)...), lines(carrier.Addr(), 4, both(7000)...))
		reinvite(w, p, a, lines(pbx.Addr(), 5, append(audio(8000), "m=image 0 udptl t38")...), lines(carrier.Addr(), 5, append(audio(7000), "m=image 0 udptl t38")...))
		w.hangUp(a)
		w.has(0, "answered",
			"stream external sending=true early=false from 192.0.2.66:7000 to 192.0.2.1:20000",
			"stream internal sending=true early=false from 10.0.0.66:8000 to 10.0.0.1:20000",
			"stream 0 ended", "stream 1 ended", "beside: 0 image udptl t38",
			"beside: ",
			"stream external sending=true early=false from 192.0.2.66:7000 to 192.0.2.1:20004",
			"stream internal sending=true early=false from 10.0.0.66:8000 to 10.0.0.1:20004",
			"beside: 1 image udptl t38", "beside: ",
			"ended bye")
	})
}

// TestOtherMedia: video and BFCP over UDP are relayed, what runs over TCP is left to
// the parties, and nothing of a line changes but where it leads.
func TestOtherMedia(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		parts := func(base int) []string {
			return []string{
				fmt.Sprintf("m=audio %d RTP/AVP 0", base),
				fmt.Sprintf("m=video %d RTP/AVP 96 97", base+2), "b=AS:512", "a=rtpmap:96 H264/90000", "a=fmtp:96 profile-level-id=42e01f;x", "a=rtpmap:97 VP8/90000", "a=rtcp-fb:96 nack pli", "a=content:main",
				fmt.Sprintf("m=message %d TCP/MSRP *", base+4), "a=accept-types:text/plain", fmt.Sprintf("a=path:msrp://192.0.2.9:%d/x;tcp", base+4), "a=setup:actpass",
				fmt.Sprintf("m=application %d UDP/BFCP *", base+6), "a=floorctrl:c-s", "a=confid:1",
				fmt.Sprintf("m=application %d TCP/TLS/BFCP *", base+8), "a=unknown attribute of  its own", "y=unknown line",
			}
		}
		begin(w.a, outside, "many", lines(carrier.Addr(), 1, parts(7000)...))
		w.a.want("100")
		p := w.p.take(inside)
		strip := func(body string) (out []string) {
			for l := range strings.Lines(body) {
				f := strings.Fields(l)
				if strings.HasPrefix(l, "c=") {
					continue
				}
				if strings.HasPrefix(l, "m=") {
					f[1] = "port"
					l = strings.Join(f, " ") + "\r\n"
				}
				out = append(out, l)
			}
			return out
		}
		if got, want := strip(string(p.invite.Body)), strip(lines(carrier.Addr(), 1, parts(7000)...)); strings.Join(got, "") != strings.Join(want, "") {
			t.Errorf("offer:\n%s\nwant\n%s", strings.Join(got, ""), strings.Join(want, ""))
		}
		if mPort(t, p.invite.Body, 2) != 7004 || mPort(t, p.invite.Body, 4) != 7008 || mPort(t, p.invite.Body, 3) == 7006 || mPort(t, p.invite.Body, 1) == 7002 {
			t.Errorf("ports:\n%s", p.invite.Body)
		}
		w.p.reply(p.invite, 200, "pbx", []string{w.p.contact()}, lines(pbx.Addr(), 1, parts(8000)...))
		ok := w.a.want("200")
		a := &dialogue{p: w.a, us: outside, callID: "many", local: p.invite.Get("From"), remote: ok.Get("To"), target: contactURIOf(t, ok), cseq: 1, branches: 9}
		w.a.send(outside, a.requestAt("ACK", 1, nil, ""))
		w.p.want("ACK")
		echoed(t, w.net, netip.AddrPortFrom(carrier.Addr(), 7002), netip.AddrPortFrom(outside.Addr(), mPort(t, ok.Body, 1)), netip.AddrPortFrom(pbx.Addr(), 8002),
			"\x80\x60\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01video")
		echoed(t, w.net, netip.AddrPortFrom(pbx.Addr(), 8006), netip.AddrPortFrom(inside.Addr(), mPort(t, p.invite.Body, 3)), netip.AddrPortFrom(carrier.Addr(), 7006), "\x20bfcp")
		w.hangUp(a)
		if got := w.obs.log(0); !strings.Contains(got, "beside: 1 video RTP/AVP H264,VP8; 2 message TCP/MSRP *; 3 application UDP/BFCP *; 4 application TCP/TLS/BFCP *") ||
			strings.Count(got, "stream ") != 2 {
			t.Errorf("told:\n%s", got)
		}
	})
}
