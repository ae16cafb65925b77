package replay

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/sip/siprec"
)

var (
	client  = netip.MustParseAddrPort("192.0.2.7:5060")
	server  = netip.MustParseAddrPort("192.0.2.9:5070")
	client1 = netip.MustParseAddrPort("192.0.2.7:7000")
	client2 = netip.MustParseAddrPort("192.0.2.7:7002")
	server1 = netip.MustParseAddrPort("192.0.2.9:9000")
	server2 = netip.MustParseAddrPort("192.0.2.9:9002")
)

const sessionXML = `<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>complete</datamode><session session_id="s"/>` +
	`<participant participant_id="a"><nameID aor="sip:+4930901820@carrier.example"/></participant>` +
	`<participant participant_id="b"><nameID aor="sip:4711@pbx.example"/></participant>` +
	`<stream stream_id="x" session_id="s"><label>1</label></stream><stream stream_id="y" session_id="s"><label>2</label></stream>` +
	`<participantstreamassoc participant_id="b"><send>x</send></participantstreamassoc><participantstreamassoc participant_id="a"><send>y</send></participantstreamassoc></recording>`

const withdrawn = `<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>partial</datamode>` +
	`<participantstreamassoc participant_id="b"><recv>y</recv></participantstreamassoc></recording>`

// twoLines describes two streams with their labels.
func twoLines(a, b netip.AddrPort, direction string) string {
	one := sdpOf(a, "a=label:1", "a="+direction)
	two := sdpOf(b, "a=label:2", "a="+direction)
	return one + two[strings.Index(two, "m="):]
}

// told is a message with metadata beside a description.
func told(m, sdp, xml string) string {
	body := "--x\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n--x\r\nContent-Type: application/rs-metadata+xml\r\n\r\n" + xml + "\r\n--x--\r\n"
	if sdp == "" {
		return strings.Replace(strings.Replace(m, "Content-Length: 0", "Content-Type: application/rs-metadata+xml\r\nContent-Length: "+itoa(len(xml)), 1), "\r\n\r\n", "\r\n\r\n"+xml, 1)
	}
	return strings.Replace(strings.Replace(m, "Content-Length: 0", "Content-Type: multipart/mixed;boundary=x\r\nContent-Length: "+itoa(len(body)), 1), "\r\n\r\n", "\r\n\r\n"+body, 1)
}

func itoa(n int) string {
	digits := ""
	for ; n > 0 || digits == ""; n /= 10 {
		digits = string(rune('0'+n%10)) + digits
	}
	return digits
}

func recordings() Config {
	return Config{Recording: &Recording{Sources: []siprec.Source{{
		Name: "sbc", Peers: prefixes("192.0.2.7/32"), InternalDomains: []string{"pbx.example"},
	}}}}
}

// A recording session whose first stream is the agent's, with a hold by INFO, a
// re-INVITE that is refused, and one that is not.
func TestRecordingSession(t *testing.T) {
	s := newScript(t)
	s.sip(0, client, server, told(d1.first(1, ""), twoLines(client1, client2, "sendonly"), sessionXML)).
		sip(5, server, client, d1.res(200, "INVITE", 1, twoLines(server1, server2, "recvonly"))).
		sip(10, client, server, d1.req("ACK", 1, "")).
		rtp(20, client1, server1, "agent").rtp(20, client2, server2, "caller").
		rtp(30, netip.MustParseAddrPort("203.0.113.5:1"), server1, "stranger").
		udp(35, client1, netip.AddrPortFrom(server1.Addr(), 9001), rtcpReport).
		sip(100, client, server, told(d1.req("INFO", 2, ""), "", withdrawn)).
		sip(101, server, client, d1.res(200, "INFO", 2, "")).
		sip(200, client, server, told(d1.req("INVITE", 3, ""), twoLines(client1, client2, "inactive"), sessionXML)).
		sip(210, server, client, d1.res(500, "INVITE", 3, "")).
		sip(211, client, server, d1.req("ACK", 3, "")).
		sip(300, client, server, told(d1.req("UPDATE", 4, ""), twoLines(client1, client2, "inactive"), sessionXML)).
		sip(310, server, client, d1.res(200, "UPDATE", 4, twoLines(server1, server2, "inactive"))).
		sip(400, client, server, d1.req("BYE", 5, ""))
	s.expect(recordings(),
		"5 answered",
		"5 stream 1 internal 192.0.2.7:7000>192.0.2.9:9000", "5 stream 2 external 192.0.2.7:7002>192.0.2.9:9002",
		"5 attrs.set ", "5 agent.join ",
		"100 stream 1 internal 192.0.2.7:7000>192.0.2.9:9000 silent", "100 hold.start internal",
		"200 stream 1 internal 192.0.2.7:7000>192.0.2.9:9000 silent", "200 stream 2 external 192.0.2.7:7002>192.0.2.9:9002 silent", "200 hold.start external",
		"210 stream 1 internal 192.0.2.7:7000>192.0.2.9:9000", "210 stream 2 external 192.0.2.7:7002>192.0.2.9:9002", "210 hold.end external", "210 hold.end internal",
		"300 stream 1 internal 192.0.2.7:7000>192.0.2.9:9000 silent", "300 stream 2 external 192.0.2.7:7002>192.0.2.9:9002 silent", "300 hold.start external", "300 hold.start internal",
		"400 gone 1", "400 gone 2", "400 ended bye",
		"rtp 1/1 rtcp 0/1")
}

// Of an INVITE without a description the server makes the offer.
func TestRecordingSessionLateOffer(t *testing.T) {
	s := newScript(t)
	ack := d1.req("ACK", 1, twoLines(client1, client2, "sendonly"))
	s.sip(0, client, server, told(d1.first(1, "", "Require: siprec"), "", sessionXML)).
		sip(5, server, client, d1.res(200, "INVITE", 1, twoLines(server1, server2, "recvonly"))).
		sip(10, client, server, ack).
		rtp(20, client1, server1, "agent").rtp(20, client2, server2, "caller")
	out := s.played(recordings())
	for _, want := range []string{"10 stream 1 internal 192.0.2.7:7000>192.0.2.9:9000\n", "10 stream 2 external 192.0.2.7:7002>192.0.2.9:9002\n", "rtp 1/1", "ended capture-end"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing:\n%s", want, out)
		}
	}
}

// What is no recording session, is refused, or of a client that nobody configured.
func TestRecordingSessionsAreTold(t *testing.T) {
	invite := told(d1.first(1, ""), twoLines(client1, client2, "sendonly"), sessionXML)
	answer := d1.res(200, "INVITE", 1, twoLines(server1, server2, "recvonly"))
	for _, c := range []struct {
		name, invite, answer string
		cfg                  Config
		want                 string
	}{
		{"refused", invite, d1.res(503, "INVITE", 1, ""), recordings(), "5 ended failed\nrtp 0/0 rtcp 0/0"},
		{"nobody follows them", invite, answer, Config{}, "5 stream 0 external"},
		{"an unknown client", invite, answer, Config{Recording: &Recording{Sources: []siprec.Source{{Name: "other", Peers: prefixes("203.0.113.0/24")}}}}, "5 stream 1 internal"},
		{"a call of a peer of a trunk", d1.first(1, sdpOf(client1)), answer, Config{
			Trunks: []Trunk{{Name: "t", External: prefixes("192.0.2.7/32")}}, Recording: recordings().Recording,
		}, "5 stream 0 external"},
		{"no audio", told(d1.first(1, ""), "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nt=0 0\r\nm=video 4000 RTP/AVP 96\r\n", sessionXML), d1.res(488, "INVITE", 1, ""), recordings(), ""},
	} {
		s := newScript(t)
		s.sip(0, client, server, c.invite).sip(5, server, client, c.answer)
		if got := s.played(c.cfg); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s:\n%s", c.name, got)
		}
	}
}
