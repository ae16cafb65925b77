package replay

import (
	"net/netip"
	"strings"
	"testing"
)

// anew is a message of another transaction than the one that the script would make.
func anew(m string) string { return strings.Replace(m, "branch=z9hG4bK", "branch=z9hG4bKanew", 1) }

// dialogs plays a recording dialog that is answered at 5 ms, then what follows.
func dialogs(t *testing.T, follow func(s *script)) []string {
	t.Helper()
	s := newScript(t)
	s.sip(0, client, server, told(d1.first(1, ""), twoLines(client1, client2, "sendonly"), sessionXML)).
		sip(5, server, client, d1.res(200, "INVITE", 1, twoLines(server1, server2, "recvonly"))).
		sip(10, client, server, d1.req("ACK", 1, "")).
		rtp(20, client1, server1, "agent")
	follow(s)
	b, _, err := s.run(recordings())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range b.calls {
		out = append(out, strings.Join(c.log, "\n"))
	}
	return out
}

// A client that has lost its dialog and begins it anew is recorded anew, as by the
// live server: the dialog of before ends there. What is merged (RFC 3261 section
// 8.2.2.2) begins nothing.
func TestRecordingClientBeginsAnew(t *testing.T) {
	d2 := dlg{d1.callID, d1.from, "b2"}
	server3, server4 := netip.MustParseAddrPort("192.0.2.9:9004"), netip.MustParseAddrPort("192.0.2.9:9006")
	begin := func(s *script, ms, cseq int, src netip.AddrPort) {
		s.sip(ms, src, server, anew(told(d2.first(cseq, ""), twoLines(client1, client2, "sendonly"), sessionXML))).
			sip(ms+5, server, src, anew(d2.res(200, "INVITE", cseq, twoLines(server3, server4, "recvonly")))).
			sip(ms+10, src, server, d2.req("ACK", cseq, "")).
			rtp(ms+20, client1, server3, "again").
			sip(ms+100, src, server, d2.req("BYE", cseq+1, ""))
	}
	for _, c := range []struct {
		name   string
		follow func(*script)
		want   []string // the last line of each recording
	}{
		{"a minute later", func(s *script) { begin(s, 60_000, 1, client) }, []string{"60000 ended timeout", "60100 ended bye"}},
		{"with the next number", func(s *script) { begin(s, 1000, 2, client) }, []string{"1000 ended timeout", "1100 ended bye"}},
		{"over another connection", func(s *script) { begin(s, 60_000, 1, netip.AddrPortFrom(client.Addr(), 40001)) }, []string{"60000 ended timeout", "60100 ended bye"}},
		{"after its BYE", func(s *script) {
			s.sip(50_000, client, server, d1.req("BYE", 2, ""))
			begin(s, 60_000, 1, client)
		}, []string{"50000 ended bye", "60100 ended bye"}},
		{"merged", func(s *script) {
			s.sip(1000, client, server, anew(told(d1.first(1, ""), twoLines(client1, client2, "sendonly"), sessionXML))).
				sip(1005, server, client, anew(dlg{d1.callID, d1.from, "b1"}.res(482, "INVITE", 1, ""))).
				sip(2000, client, server, d1.req("BYE", 2, ""))
		}, []string{"2000 ended bye"}},
		{"of another host", func(s *script) {
			begin(s, 60_000, 1, netip.MustParseAddrPort("192.0.2.77:5060"))
			s.sip(70_000, client, server, d1.req("BYE", 2, ""))
		}, []string{"70000 ended bye"}},
		{"repeated", func(s *script) {
			s.sip(1000, client, server, told(d1.first(1, ""), twoLines(client1, client2, "sendonly"), sessionXML)).
				sip(2000, client, server, d1.req("BYE", 2, ""))
		}, []string{"2000 ended bye"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := dialogs(t, c.follow)
			if len(got) != len(c.want) {
				t.Fatalf("%d recordings, want %d:\n%s", len(got), len(c.want), strings.Join(got, "\n--\n"))
			}
			for i := range got {
				if !strings.HasSuffix(got[i], c.want[i]) {
					t.Errorf("recording %d ends\n%s\nwant %s", i, got[i], c.want[i])
				}
			}
		})
	}
}

// Dialogs of one Call-ID with other From tags are dialogs of their own: of a client
// that has restarted without a word, or that names all of its own alike.
func TestRecordingDialogsOfOneCallID(t *testing.T) {
	d2 := dlg{d1.callID, "a2", "b2"}
	third := netip.MustParseAddrPort("192.0.2.7:7004")
	other := strings.ReplaceAll(sessionXML, `"s"`, `"s2"`)
	got := dialogs(t, func(s *script) {
		s.sip(1000, client, server, told(d2.first(1, ""), twoLines(third, client2, "sendonly"), other)).
			sip(1005, server, client, d2.res(200, "INVITE", 1, twoLines(netip.MustParseAddrPort("192.0.2.9:9004"), server2, "recvonly"))).
			sip(1010, client, server, d2.req("ACK", 1, "")).
			sip(2000, client, server, told(d1.req("INFO", 2, ""), "", withdrawn)).
			sip(3000, client, server, d1.req("BYE", 3, "")).
			sip(4000, server, client, d2.swap().req("BYE", 1, ""))
	})
	if len(got) != 2 || !strings.Contains(got[0], "2000 hold.start internal") || !strings.HasSuffix(got[0], "3000 ended bye") ||
		!strings.Contains(got[1], "1005 stream 1 internal 192.0.2.7:7004") || !strings.HasSuffix(got[1], "4000 ended bye") {
		t.Errorf("%d recordings:\n%s", len(got), strings.Join(got, "\n--\n"))
	}
}
