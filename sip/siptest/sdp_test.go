package siptest

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSDP(t *testing.T) {
	addr := netip.MustParseAddrPort
	for name, tc := range map[string]struct {
		text string
		want SDP
	}{
		"session address": {
			"v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8 0 101\r\n",
			SDP{Addr: addr("192.0.2.1:4000"), RTCP: addr("192.0.2.1:4001"), Direction: SendRecv, Payloads: []uint8{8, 0, 101}, Profile: "RTP/AVP"},
		},
		"media address wins, rtcp, direction, video ignored": {
			"v=0\nc=IN IP4 192.0.2.1\na=inactive\nm=video 1 RTP/AVP 31\nc=IN IP4 192.0.2.8\nm=audio 4000 RTP/AVP 0\nc=IN IP6 2001:db8::1\na=rtcp:5001\na=sendonly\nm=audio 6 RTP/AVP 3\na=recvonly\n",
			SDP{Addr: addr("[2001:db8::1]:4000"), RTCP: addr("[2001:db8::1]:5001"), Direction: SendOnly, Payloads: []uint8{0}, Profile: "RTP/AVP"},
		},
		"mux": {
			"c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\na=rtcp-mux\r\n",
			SDP{Addr: addr("192.0.2.1:4000"), RTCP: addr("192.0.2.1:4000"), Mux: true, Direction: SendRecv, Payloads: []uint8{0}, Profile: "RTP/AVP"},
		},
	} {
		got, err := ParseSDP([]byte(tc.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.AllowUnexported(SDP{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for name, text := range map[string]string{
		"no audio": "v=0\r\nc=IN IP4 192.0.2.1\r\n", "no address": "m=audio 4000 RTP/AVP 0\r\n",
		"port": "c=IN IP4 192.0.2.1\r\nm=audio 99999 RTP/AVP 0\r\n",
	} {
		if got, err := ParseSDP([]byte(text)); err == nil {
			t.Errorf("%s: no error, got %+v", name, got)
		}
	}
}

func TestOfferBuild(t *testing.T) {
	local := netip.MustParseAddrPort("192.0.2.1:4000")
	text := string(Offer{Codecs: []Codec{PCMA}, Direction: SendOnly, Mux: true, Lines: []string{"a=label:1"}}.build("a", 1, 2, local))
	want := "v=0\r\no=a 1 2 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8 101\r\n" +
		"a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=rtcp-mux\r\na=label:1\r\na=sendonly\r\n"
	if d := cmp.Diff(want, text); d != "" {
		t.Error(d)
	}
	if zero := string(Offer{Codecs: []Codec{PCMU}, Zero: true}.build("a", 1, 2, local)); !strings.Contains(zero, "c=IN IP4 0.0.0.0\r\n") {
		t.Errorf("hold of RFC 2543:\n%s", zero)
	}
}

func FuzzParseSDP(f *testing.F) {
	f.Add([]byte("v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8 0 101\r\na=rtcp:1 IN IP4 x\r\n"))
	f.Add([]byte("c=\nm=audio 65535 RTP/AVP 200 -1\na=rtcp-mux"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sdp, err := ParseSDP(b)
		if err == nil && (!sdp.Addr.IsValid() || !sdp.RTCP.Addr().IsValid()) {
			t.Fatalf("%q gave %+v", b, sdp)
		}
	})
}
