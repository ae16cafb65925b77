package sdp

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
)

// crlf writes lines as they go over the wire.
func crlf(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n" }

func mustParse(t testing.TB, body string) *Description {
	t.Helper()
	d, err := Parse([]byte(body))
	if err != nil {
		t.Fatalf("%v in\n%s", err, body)
	}
	return d
}

var (
	pcmu  = media.Format{PayloadType: 0, Name: "PCMU", ClockRate: 8000, Channels: 1}
	pcma  = media.Format{PayloadType: 8, Name: "PCMA", ClockRate: 8000, Channels: 1}
	event = media.Format{PayloadType: 101, Name: "TELEPHONE-EVENT", ClockRate: 8000, Channels: 1, Params: "0-16"}

	addr1 = netip.MustParseAddr("192.0.2.1")
	addr2 = netip.MustParseAddr("192.0.2.2")
	addr6 = netip.MustParseAddr("2001:db8::1")
)

func ap(addr netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }

var cmpAddr = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

const head = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"

func TestMedia(t *testing.T) {
	audio := Media{Kind: "audio", Port: 4000, Proto: "RTP/AVP", Formats: []media.Format{pcmu}, Addr: addr1, RTCP: ap(addr1, 4001), Direction: SendRecv}
	with := func(change func(*Media)) []Media {
		m := audio
		change(&m)
		return []Media{m}
	}
	for _, c := range []struct {
		name, body string
		want       []Media
	}{
		{"plain", head + "m=audio 4000 RTP/AVP 0\r\n", []Media{audio}},
		{"bare line feeds, none at the end", strings.ReplaceAll(head, "\r", "") + "m=audio 4000 RTP/AVP 0", []Media{audio}},
		{"mixed line ends", "\r\n" + head + "m=audio 4000 RTP/AVP 0\na=x\r\r\n", []Media{audio}},
		{"no s=, negative o=", "v=0\r\no=- -1 -5 IN IP4 x\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\n", []Media{audio}},
		{"unknown lines", head + "Z=1\r\nrubbish\r\n=\r\nm=audio 4000 RTP/AVP 0\r\n\r\ny\r\n", []Media{audio}},
		{"no media", head, []Media{}},
		{"half a line at the end", head + "m=audio 4000 RTP/AVP 0\r\nm", []Media{audio}},
		{
			"mapped and zoned addresses", head + "m=audio 4000 RTP/AVP 0\r\nc=IN IP6 ::ffff:192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP6 fe80::1%eth0\r\n",
			append(with(func(*Media) {}), with(func(m *Media) { m.Index, m.Addr = 1, netip.MustParseAddr("fe80::1"); m.RTCP = ap(m.Addr, 4001) })...),
		},
		{"the first direction counts", head + "m=audio 4000 RTP/AVP 0\r\na=sendonly\r\na=inactive\r\n", with(func(m *Media) { m.Direction = SendOnly })},
		{"no port above", head + "m=audio 65535 RTP/AVP 0\r\n", with(func(m *Media) { m.Port, m.RTCP = 65535, netip.AddrPort{} })},
		{"blanks", head + "m=audio  4000\tRTP/AVP   0 \r\n", []Media{audio}},
		{
			"formats", head + "m=audio 4000 RTP/AVP 8 0 101 96 97 9 8 200 x\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n" +
				"a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1;  stereo=0\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:96 second/1\r\na=rtpmap:9\r\n",
			with(func(m *Media) {
				m.Formats = []media.Format{
					pcma, pcmu, event,
					{PayloadType: 96, Name: "OPUS", ClockRate: 48000, Channels: 2, Params: "useinbandfec=1;  stereo=0"},
					{PayloadType: 97},
					{PayloadType: 9, Name: "G722", ClockRate: 8000, Channels: 1},
				}
			}),
		},
		{
			"a static type used for another codec", head + "m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 iLBC\r\n",
			with(func(m *Media) { m.Formats = []media.Format{{Name: "ILBC", Channels: 1}} }),
		},
		{
			"own address", head + "m=audio 4000 RTP/AVP 0\r\nc=IN IP6 2001:db8::1\r\nc=IN IP4 192.0.2.9\r\n",
			with(func(m *Media) { m.Addr, m.RTCP = addr6, ap(addr6, 4001) }),
		},
		{
			"multicast", head + "m=audio 4000/2 RTP/AVP 0\r\nc=IN IP4 224.2.1.1/127/3\r\n",
			with(func(m *Media) { m.Addr = netip.MustParseAddr("224.2.1.1"); m.RTCP = ap(m.Addr, 4001) }),
		},
		{
			"host name", head + "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 host.example.net\r\n",
			with(func(m *Media) { m.Addr, m.Host, m.RTCP = netip.Addr{}, "host.example.net", ap(netip.Addr{}, 4001) }),
		},
		{"no address", "v=0\r\nm=audio 4000 RTP/AVP 0\r\nc=IN\r\n", with(func(m *Media) { m.Addr, m.RTCP = netip.Addr{}, ap(netip.Addr{}, 4001) })},
		{
			"zero", head + "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n",
			with(func(m *Media) { m.Addr = netip.IPv4Unspecified(); m.RTCP = ap(m.Addr, 4001); m.Zero = true }),
		},
		{
			"zero of IPv6", head + "m=audio 4000 RTP/AVP 0\r\nc=IN IP6 ::\r\n",
			with(func(m *Media) { m.Addr = netip.IPv6Unspecified(); m.RTCP = ap(m.Addr, 4001); m.Zero = true }),
		},
		{"rtcp", head + "m=audio 4000 RTP/AVP 0\r\na=rtcp:53020\r\na=rtcp-mux\r\n", with(func(m *Media) { m.RTCP, m.RTCPMux = ap(addr1, 53020), true })},
		{"rtcp elsewhere", head + "m=audio 4000 RTP/AVP 0\r\na=rtcp:53020 IN IP4 192.0.2.2\r\n", with(func(m *Media) { m.RTCP = ap(addr2, 53020) })},
		{"rtcp cannot be read", head + "m=audio 4000 RTP/AVP 0\r\na=rtcp:x\r\n", []Media{audio}},
		{"direction", head + "m=audio 4000 RTP/AVP 0\r\na=sendonly\r\n", with(func(m *Media) { m.Direction = SendOnly })},
		{"direction of the session", head + "a=inactive\r\nm=audio 4000 RTP/AVP 0\r\n", with(func(m *Media) { m.Direction = Inactive })},
		{"direction over the session's", head + "a=inactive\r\nm=audio 4000 RTP/AVP 0\r\na=recvonly\r\n", with(func(m *Media) { m.Direction = RecvOnly })},
		{"refused", head + "m=audio 0 RTP/AVP 0\r\n", with(func(m *Media) { m.Port, m.Rejected, m.RTCP = 0, true, netip.AddrPort{} })},
		{"port out of range", head + "m=audio 65536 RTP/AVP 0\r\n", with(func(m *Media) { m.Port, m.Rejected, m.RTCP = 0, true, netip.AddrPort{} })},
		{"half a line", head + "m=audio\r\n", []Media{{Kind: "audio", Rejected: true, Addr: addr1, Direction: SendRecv}}},
		{"ptime", head + "m=audio 4000 RTP/AVP 0\r\na=ptime:30\r\n", with(func(m *Media) { m.Ptime = 30 * time.Millisecond })},
		{"ptime of nonsense", head + "m=audio 4000 RTP/AVP 0\r\na=ptime:NaN\r\na=ptime:30\r\n", []Media{audio}},
		{"secure by profile", head + "m=audio 4000 UDP/TLS/RTP/SAVPF 0\r\n", with(func(m *Media) { m.Proto, m.Secure = "UDP/TLS/RTP/SAVPF", true })},
		{"secure by key", head + "m=audio 4000 RTP/AVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n", with(func(m *Media) { m.Secure = true })},
		{"secure by the session's fingerprint", head + "a=fingerprint:sha-256 00\r\nm=audio 4000 RTP/AVP 0\r\n", with(func(m *Media) { m.Secure = true })},
		{"several", head + "m=audio 4000 RTP/AVP 0\r\nm=image 5000 udptl t38\r\na=sendonly\r\nm=Video 6000 RTP/AVP 31\r\n", []Media{
			audio,
			{Index: 1, Kind: "image", Port: 5000, Proto: "udptl", Addr: addr1, RTCP: ap(addr1, 5001), Direction: SendOnly},
			{
				Index: 2, Kind: "video", Port: 6000, Proto: "RTP/AVP", Addr: addr1, RTCP: ap(addr1, 6001), Direction: SendRecv,
				Formats: []media.Format{{PayloadType: 31, Name: "H261", ClockRate: 90000}},
			},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := mustParse(t, c.body)
			got := append([]Media{}, d.Media()...)
			if diff := cmp.Diff(c.want, got, cmpAddr); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if string(d.Bytes()) != c.body {
				t.Error("not the bytes that came")
			}
		})
	}
}

func TestParseLimits(t *testing.T) {
	for want, body := range map[error]string{
		ErrTooLarge:     head + strings.Repeat("a", bodyBytesMax),
		ErrTooManyLines: head + strings.Repeat("\n", linesMax),
		ErrTooManyMedia: head + strings.Repeat("m=audio 1 RTP/AVP 0\n", mediaMax+1),
		ErrNotSDP:       "INVITE sip:x SIP/2.0\r\n",
	} {
		if _, err := Parse([]byte(body)); !errors.Is(err, want) {
			t.Errorf("%v: got %v", want, err)
		}
	}
	if _, err := Parse(nil); !errors.Is(err, ErrNotSDP) {
		t.Errorf("an empty body: %v", err)
	}
	if d := mustParse(t, head+strings.Repeat("m=audio 1 RTP/AVP 0\n", mediaMax)); len(d.Media()) != mediaMax {
		t.Errorf("%d m= lines", len(d.Media()))
	}
}

// sdpLines are lines that peers send, and some that they should not.
var sdpLines = []string{
	"v=0", "o=- 1 -1 IN IP4 x", "s=", "s= ", "c=IN IP4 192.0.2.7", "c=IN IP4 0.0.0.0", "c=IN IP6 ::", "c=IN IP6 2001:db8::7", "c=IN IP4 host.example",
	"c=", "t=0 0", "b=AS:64", "i=title", "m=audio 4000 RTP/AVP 0 8 101", "m=audio 0 RTP/AVP 0", "m=audio 4000/2 RTP/AVP 9", "m=video 5000 RTP/AVP 31", "m=image 6000 udptl t38",
	"m=", "m=audio", "m=audio x y z", "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-16", "a=sendonly", "a=recvonly", "a=inactive",
	"a=rtcp:4001", "a=rtcp:4001 IN IP4 192.0.2.7", "a=rtcp:4000 IN IP4 0.0.0.0", "a=rtcp-mux", "a=candidate:1 1 UDP 1 192.0.2.7 4000 typ host", "a=ice-ufrag:x", "a=ice-lite",
	"a=ICE-pwd:y", "a=end-of-candidates", "a=ssrc:1 cname:x", "a=ptime:20", "", "x", "=", "a=", "a=crypto:1 X inline:y", "y=\xff\x00",
}

func drawBody(t *rapid.T) string {
	var b strings.Builder
	b.WriteString(rapid.SampledFrom([]string{"v=0\r\n", "v=0\n", "\r\nv=0\r\n"}).Draw(t, "begin"))
	n := rapid.IntRange(0, 25).Draw(t, "n")
	for i := range n {
		b.WriteString(rapid.SampledFrom(sdpLines).Draw(t, "line"))
		if i < n-1 || rapid.Bool().Draw(t, "last") {
			b.WriteString(rapid.SampledFrom([]string{"\r\n", "\r\n", "\n", "\r\r\n"}).Draw(t, "eol"))
		}
	}
	return b.String()
}

func TestBytesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := drawBody(t)
		d, err := Parse([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if string(d.Bytes()) != body || string(d.Rewrite(nil)) != body || string(d.Rewrite(make([]Target, 70))) != body {
			t.Fatalf("%q does not come back", body)
		}
	})
}

func TestParseCorpus(t *testing.T) {
	const name = "../../../shared/fixtures/public/fuzz/fuzz-sdp_seed_corpus.zip"
	z, err := zip.OpenReader(name)
	if err != nil {
		t.Skipf("the shared fixtures are not here: %v", err)
	}
	defer func() { _ = z.Close() }() // read only
	audio := 0
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(body) == 0 {
			continue
		}
		d := mustParse(t, string(body))
		if len(d.Media()) > 0 && d.Media()[0].Rejected {
			continue // damaged on purpose
		}
		for _, m := range d.Media() {
			if m.Host == "" || m.Port == 0 || len(m.Formats) == 0 || m.Formats[0].Name == "" {
				t.Errorf("%s: %+v", f.Name, m)
			}
			if m.Kind == "audio" {
				audio++
			}
		}
		out := mustParse(t, string(d.Rewrite([]Target{{Addr: addr2, Port: 9000}, {Addr: addr2, Port: 9002}, {Addr: addr2, Port: 9004}})))
		for i, m := range out.Media() {
			if m.Addr != addr2 || m.Port != uint16(9000+2*i) {
				t.Errorf("%s: rewritten to %+v", f.Name, m)
			}
		}
	}
	if audio < 5 {
		t.Errorf("%d audio descriptions, want 5 at least", audio)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(head + "m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=rtcp:4001 IN IP4 192.0.2.1\r\na=candidate:x\r\n"))
	f.Add([]byte("v=0\nm=audio 1 RTP/AVP 0"))
	f.Add([]byte("v=\nc=IN IP4 0.0.0.0\nm=\nm=a 1/ b\ni=\nc=\na=ice-lite"))
	for _, l := range sdpLines {
		f.Add([]byte("v=0\r\nm=audio 4000 RTP/AVP 0\r\n" + l))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := Parse(body)
		if err != nil {
			return
		}
		if !bytes.Equal(d.Bytes(), body) || !bytes.Equal(d.Rewrite(nil), body) {
			t.Fatalf("%q does not come back", body)
		}
		checkRewrite(t, d, []Target{{Addr: addr6, Port: 30000}, {}, {Addr: addr2, Port: 30002, RTCPPort: 30009}})
		n := NewNegotiation()
		if err := n.Offer(media.External, body); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Answer(media.Internal, body, time.Time{}, false); err != nil {
			t.Fatal(err)
		}
	})
}
