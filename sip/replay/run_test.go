package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/suppress"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestSides(t *testing.T) {
	carrier := Trunk{Name: "carrier", External: prefixes("198.51.100.0/24"), Internal: prefixes("10.0.0.0/24")}
	other := Trunk{Name: "other", External: prefixes("192.0.2.0/24"), Internal: prefixes("10.9.0.0/16")}
	tests := []struct {
		name     string
		cfg      Config
		src, dst netip.AddrPort
		trunk    string
		caller   media.Side
	}{
		{"nothing known", Config{}, bob, alice, "", media.External},
		{"external caller", Config{External: prefixes("198.51.100.0/24")}, alice, bob, "", media.External},
		{"external callee", Config{External: prefixes("198.51.100.0/24")}, bob, alice, "", media.Internal},
		{"neither", Config{External: prefixes("192.0.2.0/24")}, bob, alice, "", media.External},
		{"trunk, from outside", Config{Trunks: []Trunk{other, carrier}}, alice, relay, "carrier", media.External},
		{"trunk, from inside", Config{Trunks: []Trunk{other, carrier}}, bob, relay, "carrier", media.Internal},
		{"trunk, towards outside", Config{Trunks: []Trunk{other, carrier}}, relay, alice, "carrier", media.Internal},
		{"trunk, towards inside", Config{Trunks: []Trunk{other, carrier}}, relay, bob, "carrier", media.External},
		{"no trunk matches", Config{Trunks: []Trunk{other, carrier}}, relay, relay, "other", media.External},
		{"--external wins", Config{Trunks: []Trunk{other, carrier}, External: prefixes("10.0.0.0/8")}, alice, bob, "carrier", media.Internal},
		{"mapped addresses", Config{Trunks: []Trunk{carrier}}, netip.MustParseAddrPort("[::ffff:10.0.0.5]:5060"), relay, "carrier", media.Internal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := tt.cfg.locate(tt.src, tt.dst); got != (place{tt.trunk, tt.caller}) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestSession(t *testing.T) {
	cfg := Config{External: prefixes("10.0.0.0/8"), Headers: []string{"X-Customer", "user-to-user", "Absent"}}
	b, _, err := newScript(t).sip(7, alice, bob, d1.first(1, sdpOf(aliceM), "X-Customer: 42", "x-customer: 43", "User-to-User: abc")).run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	start := t0.Add(7 * time.Millisecond)
	want := media.Session{
		ID: media.SessionID("call-1", "a1", start), SIPCallID: "call-1", FromTag: "a1", Direction: media.Outbound,
		From: "sip:a1@x.example", To: "sip:@y.example", Start: start,
		Parties: []media.Participant{{Side: media.External, URI: "sip:@y.example"}, {Side: media.Internal, URI: "sip:a1@x.example", Name: "A"}},
		Headers: map[string][]string{"x-customer": {"42", "43"}, "user-to-user": {"abc"}},
		Links:   []string{"call-id:call-1"},
	}
	if got := b.calls[0].session; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSignalsComeInTime(t *testing.T) {
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	s := newScript(t).call(d1).rtp(500, aliceM, bobM, "x")
	r, err := pcap.NewReader(&s.buf)
	if err != nil {
		t.Fatal(err)
	}
	b := &notebook{start: t0}
	var log []string
	cfg := Config{
		Signals: []suppress.Signal{{Seq: 1, At: at(-5)}, {Seq: 2, At: at(100), Received: at(150)}, {Seq: 3, At: at(200)}, {Seq: 4, At: at(500)}, {Seq: 5, At: at(400), Received: at(501)}},
		OnSignal: func(s suppress.Signal) {
			log = append(log, fmt.Sprintf("%d after %d", s.Seq, len(b.calls)+len(notes(b))))
		},
	}
	stats, err := Run(context.Background(), r, cfg, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "[1 after 0 2 after 1 3 after 1 4 after 4]" // sessions and what was noted of them by then
	if got := fmt.Sprint(log); got != want || stats.SignalsLate != 1 {
		t.Errorf("%s, want %s; %d late", got, want, stats.SignalsLate)
	}
}

func notes(b *notebook) (all []string) {
	for _, c := range b.calls {
		all = append(all, c.log...)
	}
	return all
}

// tcp writes bytes of one direction of a connection.
type tcp struct {
	s        *script
	src, dst netip.AddrPort
	seq      uint32
}

func (c *tcp) send(ms int, data string) {
	c.s.t.Helper()
	if err := c.s.w.WriteTCP(t0.Add(time.Duration(ms)*time.Millisecond), c.src, c.dst, pcap.Segment{Seq: c.seq}, []byte(data)); err != nil {
		c.s.t.Fatal(err)
	}
	c.seq += uint32(len(data))
}

func (c *tcp) open(ms int) {
	c.s.t.Helper()
	if err := c.s.w.WriteTCP(t0.Add(time.Duration(ms)*time.Millisecond), c.src, c.dst, pcap.Segment{Seq: c.seq, SYN: true}, nil); err != nil {
		c.s.t.Fatal(err)
	}
	c.seq++
}

func TestSIPOverTCP(t *testing.T) {
	invite, ok := d1.first(1, sdpOf(aliceM)), d1.res(200, "INVITE", 1, sdpOf(bobM))
	ack, bye := d1.req("ACK", 1, ""), d1.req("BYE", 2, "")
	want := []string{"200 answered", "200 " + streamA, "200 " + streamB, "900 ended bye", "rtp 1/0 rtcp 0/0"}
	tests := []struct {
		name  string
		write func(a, b *tcp)
	}{
		{"whole messages", func(a, b *tcp) {
			a.open(0)
			a.send(0, invite)
			b.send(200, ok)
			a.send(300, ack)
			a.send(900, bye)
		}},
		{"in pieces, several in one segment", func(a, b *tcp) {
			a.open(0)
			a.send(0, "\r\n\r\n"+invite[:9])
			a.send(1, invite[9:200])
			a.send(2, invite[200:])
			b.open(2)
			b.send(100, ok[:len(ok)-3])
			b.send(200, ok[len(ok)-3:]+"\r\n\r\n")
			a.send(300, ack+"\r\n\r\n"+dlg{"x", "y", ""}.req("OPTIONS", 1, ""))
			a.send(900, "\r\n"+bye)
		}},
		{"bytes are missing", func(a, b *tcp) {
			a.send(0, "of a message that began before\r\nX: y\r\n\r\n"+invite)
			b.send(200, "INVITE in the middle of a line\r\n"+ok)
			a.seq += 100
			for range 200 { // until it is clear that the hole stays
				a.send(300, "v=0\r\n"+strings.Repeat("a=nonsense\r\n", 120))
			}
			a.send(900, bye)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			tt.write(&tcp{s: s, src: alice, dst: bob, seq: 1000}, &tcp{s: s, src: bob, dst: alice, seq: 7})
			// The media are in a second capture: merged, they lie between.
			m := newScript(t).rtp(400, aliceM, bobM, "x")
			signalling, err := pcap.NewReader(&s.buf)
			if err != nil {
				t.Fatal(err)
			}
			mediaOnly, err := pcap.NewReader(&m.buf)
			if err != nil {
				t.Fatal(err)
			}
			b := &notebook{start: t0}
			stats, err := Run(context.Background(), pcap.Merge(signalling, mediaOnly), Config{}, b, nil)
			if err := errors.Join(err, b.err()); err != nil {
				t.Fatal(err)
			}
			got := append(notes(b), fmt.Sprintf("rtp %d/%d rtcp 0/0", b.calls[0].rtp[0], b.calls[0].rtp[1]))
			if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
				t.Errorf("got:\n%s\nwant:\n%s\n%+v", g, w, stats)
			}
		})
	}
}

func TestOtherTCPIsLeftAlone(t *testing.T) {
	s := newScript(t)
	web := &tcp{s: s, src: alice, dst: bob, seq: 5}
	web.open(0)
	web.send(1, "GET / HTTP/1.1\r\n\r\n")
	web.send(2, d1.first(1, sdpOf(aliceM)))
	tls := &tcp{s: s, src: bob, dst: alice, seq: 5}
	tls.open(0)
	tls.send(3, "\x16\x03\x01")
	tls.send(4, strings.Repeat("\x00INVITE sip:a SIP/2.0\r\n", 10))
	if b, stats, _ := s.run(Config{}); len(b.calls) != 0 || stats.Messages != 0 || stats.Unparsable != 0 {
		t.Errorf("%+v", stats)
	}
}

func TestWhatTheParserRefusesIsRepaired(t *testing.T) {
	invite := d1.first(1, sdpOf(aliceM))
	for name, m := range map[string]string{
		"line feeds alone":          strings.ReplaceAll(invite, "\r\n", "\n"),
		"bare IPv6 address in Via":  strings.Replace(invite, "UDP host:5060", "UDP fec0:0:0:0:216:d3ff:fe0d:22c:5060", 1),
		"odd display name":          strings.Replace(invite, `"A" <`, `\"A\" <`, 1),
		"To twice":                  strings.Replace(invite, "Call-ID", "To: <sip:b@c>;tag=zzz\r\nCall-ID", 1),
		"too large Content-Length":  strings.Replace(invite, "Content-Length: 1", "Content-Length: 91", 1),
		"Content-Length is no word": strings.Replace(invite, "Content-Length: 1", "Content-Length: x", 1),
	} {
		t.Run(name, func(t *testing.T) {
			newScript(t).sip(0, alice, bob, m).sip(200, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM))).
				expect(Config{}, "200 answered", "200 "+streamA, "200 "+streamB, "200 ended capture-end", "rtp 0/0 rtcp 0/0")
		})
	}
	_, stats, _ := newScript(t).udp(0, alice, bob, "INVITE sip:a SIP/2.0\r\nFrom: nobody\r\n\r\n").udp(1, alice, bob, "SIP/2.0 200 OK and no more").run(Config{})
	if stats.Unparsable != 2 || stats.Messages != 0 {
		t.Errorf("%+v", stats)
	}
}

// Who sends media to whom is decided as the live relay does.
func TestMediaAddresses(t *testing.T) {
	nat := netip.MustParseAddrPort("203.0.113.77:61000") // where the external party really is
	thief := netip.MustParseAddrPort("192.0.2.66:666")
	next := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }
	tests := []struct {
		name string
		add  func(s *script)
		want string
		left [2]int64 // rejected, orphans
	}{
		{"another port than in the SDP", func(s *script) { s.rtp(400, netip.AddrPortFrom(aliceM.Addr(), 1), bobM, "x") }, "rtp 1/0 rtcp 0/0", [2]int64{}},
		{"behind a NAT", func(s *script) {
			s.rtp(400, nat, bobM, "x").rtp(401, bobM, nat, "y").rtp(420, nat, bobM, "x").rtp(421, bobM, nat, "y").udp(422, next(bobM), next(nat), rtcpReport)
		}, "rtp 2/2 rtcp 0/1", [2]int64{}},
		{"a third address", func(s *script) {
			s.rtp(400, aliceM, bobM, "x").rtp(401, thief, bobM, "x").rtp(402, bobM, aliceM, "y").rtp(403, bobM, thief, "y").udp(404, thief, next(bobM), rtcpReport)
		}, "rtp 1/1 rtcp 0/0", [2]int64{2, 1}},
		{"RTCP on the port of RTP", func(s *script) { s.udp(400, aliceM, bobM, rtcpReport) }, "rtp 0/0 rtcp 1/0", [2]int64{}},
		{"RTP on the port of RTCP", func(s *script) { s.rtp(400, aliceM, next(bobM), "x") }, "rtp 0/0 rtcp 0/0", [2]int64{}},
		{"STUN and nothing", func(s *script) {
			s.udp(400, aliceM, bobM, "\x00\x01\x00\x00\x21\x12\xa4\x42").udp(401, aliceM, bobM, "")
		}, "rtp 0/0 rtcp 0/0", [2]int64{2, 0}},
		{"nobody's", func(s *script) { s.rtp(400, thief, nat, "x").udp(401, thief, nat, "no media") }, "rtp 0/0 rtcp 0/0", [2]int64{0, 1}},
		{"to the port of before", func(s *script) {
			moved := netip.MustParseAddrPort("10.0.0.5:7000")
			s.sip(400, bob, alice, d1.swap().req("INVITE", 1, sdpOf(moved))).sip(410, alice, bob, d1.swap().res(200, "INVITE", 1, sdpOf(aliceM))).
				rtp(420, aliceM, bobM, "x").rtp(440, aliceM, moved, "x").rtp(441, moved, aliceM, "y")
		}, "rtp 2/1 rtcp 0/0", [2]int64{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t).call(d1)
			tt.add(s)
			got := strings.Split(s.played(Config{}), "\n")
			_, stats, _ := s.run(Config{})
			if last := got[len(got)-1]; last != tt.want || [2]int64{stats.Rejected, stats.OrphanRTP} != tt.left {
				t.Errorf("%s, want %s; %+v", last, tt.want, stats)
			}
		})
	}
}

func TestRTCPWhereTheDescriptionSays(t *testing.T) {
	elsewhere := netip.MustParseAddrPort("10.0.0.9:7777")
	newScript(t).sip(0, alice, bob, d1.first(1, sdpOf(aliceM))).
		sip(200, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM, "a=rtcp:7777 IN IP4 10.0.0.9"))).
		udp(300, netip.AddrPortFrom(aliceM.Addr(), 4001), elsewhere, rtcpReport).
		expect(Config{}, "200 answered", "200 "+streamA, "200 "+streamB, "300 ended capture-end", "rtp 0/0 rtcp 1/0")
}

// A capture's clock that steps back does not take the pipeline's with it.
func TestTimeNeverRunsBackwards(t *testing.T) {
	s := newScript(t).call(d1).rtp(1000, aliceM, bobM, "1").rtp(400, aliceM, bobM, "2").sip(500, alice, bob, d1.req("BYE", 2, ""))
	_, stats, _ := s.run(Config{})
	if stats.Backward != 2 {
		t.Errorf("%d packets back", stats.Backward)
	}
	s.expect(Config{}, "200 answered", "200 "+streamA, "200 "+streamB, "1000 ended bye", "rtp 2/0 rtcp 0/0")
}

func TestSilentCallsAreClosed(t *testing.T) {
	day := int(24 * time.Hour / time.Millisecond)
	d2 := dlg{"call-2", "c", "d"}
	newScript(t).call(d1).rtp(1000, aliceM, bobM, "1").sip(2000, alice, bob, d2.first(1, "")).
		rtp(day, aliceM, bobM, "2").
		expect(Config{}, "200 answered", "200 "+streamA, "200 "+streamB, "1000 ended media-silence", "rtp 1/0 rtcp 0/0",
			"2000 ended failed", "rtp 0/0 rtcp 0/0")
}

func TestTombstonesGoAway(t *testing.T) {
	s := newScript(t).call(d1).sip(1000, alice, bob, d1.req("BYE", 2, "")).
		sip(2000, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM))). // within the time of retransmissions
		sip(40_000, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM)))
	if b, _, _ := s.run(Config{}); len(b.calls) != 2 {
		t.Errorf("%d calls", len(b.calls))
	}
}

func TestCallsAreBounded(t *testing.T) {
	s := newScript(t)
	for i := range callsMax + 10 {
		d := dlg{fmt.Sprintf("call-%d", i), "a", "b"}
		s.sip(i, alice, bob, d.first(1, ""))
	}
	tr := newTracker(context.Background(), Config{}, &notebook{})
	r, err := pcap.NewReader(&s.buf)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.run(r, func(Progress) {}); err != io.EOF {
		t.Fatal(err)
	}
	if tr.stats.CallsDropped != 10 || tr.active.Len() != callsMax {
		t.Errorf("%d open, %+v", tr.active.Len(), tr.stats)
	}
	tr.close(media.CauseCaptureEnd)
	if len(tr.byDest) != 0 || len(tr.bySource) != 0 {
		t.Errorf("%d and %d addresses are left", len(tr.byDest), len(tr.bySource))
	}
}

func TestDescriptionsAreBounded(t *testing.T) {
	tr := newTracker(context.Background(), Config{}, &notebook{})
	body := sdpOf(aliceM, strings.Repeat("a=x:"+strings.Repeat("y", 1000)+"\r\n", 55))
	for i := range descriptionBytesMax/len(body) + 20 {
		d := dlg{fmt.Sprintf("call-%d", i), "a", "b"}
		tr.packet(pcap.Packet{At: t0, Proto: pcap.UDP, Src: alice, Dst: bob, Payload: []byte(d.first(1, body))})
		if tr.held > descriptionBytesMax {
			t.Fatalf("%d bytes are held", tr.held)
		}
	}
	if tr.stats.CallsDropped < 19 || tr.stats.CallsDropped > 21 {
		t.Errorf("%+v", tr.stats)
	}
	tr.close(media.CauseCaptureEnd)
	if tr.held != 0 {
		t.Errorf("%d bytes are left", tr.held)
	}
}

func TestAddressesAreForgotten(t *testing.T) {
	s := newScript(t).call(d1).rtp(400, bobM, relay, "x")
	for i := range 30 {
		moved := netip.AddrPortFrom(bobM.Addr(), uint16(7000+2*i))
		s.sip(1000+i, bob, alice, d1.swap().req("UPDATE", 1+i, sdpOf(moved))).sip(1000+i, alice, bob, d1.swap().res(200, "UPDATE", 1+i, sdpOf(aliceM)))
	}
	tr := newTracker(context.Background(), Config{}, &notebook{})
	r, err := pcap.NewReader(&s.buf)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.run(r, func(Progress) {}); err != io.EOF {
		t.Fatal(err)
	}
	if n := len(tr.byDest); n > 2*destinationsMax || n < destinationsMax {
		t.Errorf("%d addresses", n)
	}
	tr.close(media.CauseCaptureEnd)
	if len(tr.byDest) != 0 || len(tr.bySource) != 0 {
		t.Errorf("%d and %d addresses are left", len(tr.byDest), len(tr.bySource))
	}
}

func TestACaptureThatBreaksOff(t *testing.T) {
	s := newScript(t).call(d1).rtp(400, aliceM, bobM, "x")
	s.buf.Truncate(s.buf.Len() - 3)
	b, _, err := s.run(Config{})
	var cut *pcap.TruncatedError
	if !errors.As(err, &cut) || len(b.calls) != 1 || b.calls[0].cause != media.CauseCaptureEnd {
		t.Errorf("%v, %+v", err, b.calls)
	}
}

func TestWhatEndsAReplayEarly(t *testing.T) {
	full := errors.New("no room")
	d2 := dlg{"call-2", "c", "d"}
	s := newScript(t).call(d1).sip(1000, alice, bob, d2.first(1, "")).rtp(2000, aliceM, bobM, "x")
	r, err := pcap.NewReader(bytes.NewReader(s.buf.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	b := &notebook{refuse: map[string]error{"call-2": full}}
	stats, err := Run(context.Background(), r, Config{}, b, nil)
	if !errors.Is(err, full) || !strings.Contains(err.Error(), "call-2") || stats.RTP != 0 || b.calls[0].cause != media.CauseShutdown || b.err() != nil {
		t.Errorf("%v %+v %v", err, stats, b.err())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, r, Config{}, b, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestUnrecordedCallsAreFollowed(t *testing.T) {
	s := newScript(t).call(d1).rtp(400, aliceM, bobM, "x").
		sip(500, bob, alice, d1.swap().req("INVITE", 1, sdpOf(bobM, "a=sendonly"))).sip(600, alice, bob, d1.swap().res(200, "INVITE", 1, sdpOf(aliceM, "a=recvonly"))).
		sip(900, alice, bob, d1.req("BYE", 2, ""))
	r, err := pcap.NewReader(&s.buf)
	if err != nil {
		t.Fatal(err)
	}
	var last Progress
	stats, err := Run(context.Background(), r, Config{}, &notebook{deaf: true}, func(p Progress) { last = p })
	if err != nil || stats.Calls != 1 || stats.RTP != 1 || stats.OrphanRTP != 0 || last.Packets != stats.Packets || last.Calls != 1 {
		t.Errorf("%v %+v %+v", err, stats, last)
	}
}

// Cut media packets are left out: a shorter packet would pass for a whole one.
func TestCutMediaIsLost(t *testing.T) {
	b := &notebook{}
	tr := newTracker(context.Background(), Config{}, b)
	s := newScript(t).call(d1)
	r, err := pcap.NewReader(&s.buf)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.run(r, func(Progress) {}); err != io.EOF {
		t.Fatal(err)
	}
	p := pcap.Packet{At: t0.Add(time.Second), Proto: pcap.UDP, Src: aliceM, Dst: bobM, Payload: []byte(rtpPacket(1, "x")), Cut: true}
	tr.packet(p)
	p.Cut = false
	tr.packet(p)
	if tr.stats.CutRTP != 1 || b.calls[0].rtp[0] != 1 {
		t.Errorf("%+v", tr.stats)
	}
	if n := testing.AllocsPerRun(1000, func() { tr.packet(p) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// Two runs tell the same, and so does a capture that was merged from its halves.
func FuzzRun(f *testing.F) {
	f.Add(newScript(f).call(d1).rtp(400, aliceM, bobM, "x").sip(900, alice, bob, d1.req("BYE", 2, "")).buf.Bytes())
	f.Add(newScript(f).sip(0, alice, bob, d1.first(1, "")).sip(100, bob, alice, d1.res(183, "INVITE", 1, sdpOf(bobM))).
		sip(150, alice, bob, d1.req("PRACK", 2, sdpOf(aliceM))).sip(200, bob, alice, d1.res(200, "INVITE", 1, "")).buf.Bytes())
	f.Add(newScript(f).sip(0, bob, alice, d1.res(200, "INVITE", 1, sdpOf(bobM))).rtp(20, bobM, aliceM, "b").rtp(21, aliceM, bobM, "a").
		sip(40, alice, bob, d1.req("UPDATE", 5, sdpOf(aliceM, "a=inactive"))).sip(50, bob, alice, d1.res(200, "UPDATE", 5, sdpOf(bobM))).buf.Bytes())
	s := newScript(f)
	c := &tcp{s: s, src: alice, dst: bob, seq: 9}
	c.open(0)
	c.send(1, d1.first(1, sdpOf(aliceM))+d1.req("BYE", 2, ""))
	f.Add(s.buf.Bytes())
	f.Fuzz(func(t *testing.T, capture []byte) {
		var logs [2][]string
		for i := range logs {
			r, err := pcap.NewReader(bytes.NewReader(capture))
			if err != nil {
				return
			}
			b := &notebook{start: t0}
			stats, err := Run(context.Background(), r, Config{}, b, nil)
			var cut *pcap.TruncatedError
			if err != nil && !errors.As(err, &cut) {
				t.Fatal(err)
			}
			if err := b.err(); err != nil {
				t.Fatal(err)
			}
			if int(stats.Calls) != len(b.calls) {
				t.Fatalf("%d calls, %d told", stats.Calls, len(b.calls))
			}
			logs[i] = notes(b)
		}
		if !reflect.DeepEqual(logs[0], logs[1]) {
			t.Fatal("two runs differ")
		}
	})
}
