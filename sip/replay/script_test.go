package replay

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/pcap"
)

var (
	t0     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	alice  = netip.MustParseAddrPort("198.51.100.1:5060") // the external party's signalling
	bob    = netip.MustParseAddrPort("10.0.0.5:5060")
	relay  = netip.MustParseAddrPort("203.0.113.9:5060")
	aliceM = netip.MustParseAddrPort("198.51.100.1:4000") // and media
	bobM   = netip.MustParseAddrPort("10.0.0.5:6000")
)

// script writes a capture.
type script struct {
	t   testing.TB
	buf bytes.Buffer
	w   *pcap.Writer
}

func newScript(t testing.TB) *script {
	t.Helper()
	s := &script{t: t}
	w, err := pcap.NewWriter(&s.buf)
	if err != nil {
		t.Fatal(err)
	}
	s.w = w
	return s
}

func (s *script) udp(ms int, src, dst netip.AddrPort, payload string) *script {
	s.t.Helper()
	if err := s.w.WriteUDP(t0.Add(time.Duration(ms)*time.Millisecond), src, dst, []byte(payload)); err != nil {
		s.t.Fatal(err)
	}
	return s
}

// rtp writes a PCMU packet that carries text.
func (s *script) rtp(ms int, src, dst netip.AddrPort, text string) *script {
	s.t.Helper()
	return s.udp(ms, src, dst, rtpPacket(uint16(ms), text))
}

func rtpPacket(seq uint16, text string) string {
	return "\x80\x00" + string([]byte{byte(seq >> 8), byte(seq), 0, 0, byte(seq >> 8), byte(seq), 1, 2, 3, 4}) + text
}

const rtcpReport = "\x80\xc9\x00\x01\x01\x02\x03\x04"

// sip writes a message given as "first line|field|...||body" between two UAs.
func (s *script) sip(ms int, src, dst netip.AddrPort, m string) *script {
	s.t.Helper()
	return s.udp(ms, src, dst, m)
}

// dlg names the dialog of messages.
type dlg struct{ callID, from, to string }

var d1 = dlg{"call-1", "a1", "b1"}

// swap is the dialog as the callee sees it.
func (d dlg) swap() dlg { return dlg{d.callID, d.to, d.from} }

func (d dlg) message(start, cseq, branch, body string, extra ...string) string {
	tag := func(t string) string {
		if t == "" {
			return ""
		}
		return ";tag=" + t
	}
	lines := append([]string{
		start, "Via: SIP/2.0/UDP host:5060;branch=z9hG4bK" + branch,
		`From: "A" <sip:` + d.from + "@x.example>" + tag(d.from), "To: <sip:" + d.to + "@y.example>" + tag(d.to),
		"Call-ID: " + d.callID, "CSeq: " + cseq,
	}, extra...)
	if body != "" {
		lines = append(lines, "Content-Type: application/sdp")
	}
	lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)), "", body)
	return strings.Join(lines, "\r\n")
}

// req makes a request; INVITEs that begin a dialog have no To tag.
func (d dlg) req(method string, n int, body string, extra ...string) string {
	return d.message(method+" sip:u@h SIP/2.0", fmt.Sprintf("%d %s", n, method), fmt.Sprintf("%s%d%s", d.from, n, method), body, extra...)
}

func (d dlg) first(n int, body string, extra ...string) string {
	return dlg{d.callID, d.from, ""}.req("INVITE", n, body, extra...)
}

// res makes the response to such a request.
func (d dlg) res(code int, method string, n int, body string) string {
	return d.message(fmt.Sprintf("SIP/2.0 %d Reason", code), fmt.Sprintf("%d %s", n, method), fmt.Sprintf("%s%d%s", d.from, n, method), body)
}

// sdpOf describes audio at an address.
func sdpOf(a netip.AddrPort, attrs ...string) string {
	family := "IP4"
	if a.Addr().Is6() {
		family = "IP6"
	}
	lines := []string{
		"v=0", "o=- 1 1 IN " + family + " " + a.Addr().String(), "s=-", "c=IN " + family + " " + a.Addr().String(),
		"t=0 0", fmt.Sprintf("m=audio %d RTP/AVP 0", a.Port()),
	}
	return strings.Join(append(lines, attrs...), "\r\n") + "\r\n"
}

// call writes the messages of an answered call up to its ACK at 300 ms.
func (s *script) call(d dlg) *script {
	s.t.Helper()
	return s.sip(0, alice, bob, d.first(1, sdpOf(aliceM))).
		sip(10, bob, alice, dlg{d.callID, d.from, ""}.res(100, "INVITE", 1, "")).
		sip(100, bob, alice, d.res(180, "INVITE", 1, "")).
		sip(200, bob, alice, d.res(200, "INVITE", 1, sdpOf(bobM))).
		sip(300, alice, bob, d.req("ACK", 1, ""))
}

func (s *script) run(cfg Config) (*notebook, Stats, error) {
	s.t.Helper()
	r, err := pcap.NewReader(bytes.NewReader(s.buf.Bytes()))
	if err != nil {
		s.t.Fatal(err)
	}
	b := &notebook{start: t0}
	stats, err := Run(context.Background(), r, cfg, b, nil)
	if err := b.err(); err != nil {
		s.t.Error(err)
	}
	return b, stats, err
}

// played is the outcome of a capture that must be fine: the notes of all calls
// and how many packets they took.
func (s *script) played(cfg Config) string {
	s.t.Helper()
	b, _, err := s.run(cfg)
	if err != nil {
		s.t.Error(err)
	}
	var out []string
	for _, c := range b.calls {
		out = append(out, c.log...)
		out = append(out, fmt.Sprintf("rtp %d/%d rtcp %d/%d", c.rtp[0], c.rtp[1], c.rtcp[0], c.rtcp[1]))
	}
	return strings.Join(out, "\n")
}

func (s *script) expect(cfg Config, want ...string) {
	s.t.Helper()
	got := s.played(cfg)
	if w := strings.Join(want, "\n"); got != w {
		s.t.Errorf("got:\n%s\nwant:\n%s", got, w)
	}
}

// What most calls begin with.
var (
	streamA = "stream 0 external 198.51.100.1:4000>10.0.0.5:6000"
	streamB = "stream 1 internal 10.0.0.5:6000>198.51.100.1:4000"
)
