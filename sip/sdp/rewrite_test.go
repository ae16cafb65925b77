package sdp

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestRewrite(t *testing.T) {
	one := []Target{{Addr: addr2, Port: 9000}}
	two := []Target{{Addr: addr2, Port: 9000}, {Addr: addr2, Port: 9002}}
	h := func(c string) string { return "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n" + c + "t=0 0\r\n" }
	for _, c := range []struct {
		name    string
		targets []Target
		in, out string
	}{
		{"session address", one, h("c=IN IP4 192.0.2.1\r\n") + "m=audio 4000 RTP/AVP 0\r\n", h("c=IN IP4 192.0.2.2\r\n") + "m=audio 9000 RTP/AVP 0\r\n"},
		{"media address, line ends as they were", one, h("") + "m=audio 4000/2  RTP/AVP 0\nc=IN IP4 host.example/127", h("") + "m=audio 9000/2  RTP/AVP 0\nc=IN IP4 192.0.2.2"},
		{"other family", []Target{{Addr: addr6, Port: 9000}}, h("c=IN IP4 192.0.2.1\r\n") + "m=audio 4000 RTP/AVP 0\r\n", h("c=IN IP6 2001:db8::1\r\n") + "m=audio 9000 RTP/AVP 0\r\n"},
		{"zero address stays", one, h("c=IN IP4 0.0.0.0\r\n") + "m=audio 4000 RTP/AVP 0\r\n", h("c=IN IP4 0.0.0.0\r\n") + "m=audio 9000 RTP/AVP 0\r\n"},
		{"zero address of the media stays", one, h("c=IN IP4 192.0.2.1\r\n") + "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n", h("c=IN IP4 192.0.2.2\r\n") + "m=audio 9000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n"},
		{"refused stays", one, h("c=IN IP4 192.0.2.1\r\n") + "m=audio 4000 RTP/AVP 0\r\nm=video 0 RTP/AVP 31\r\n", h("c=IN IP4 192.0.2.2\r\n") + "m=audio 9000 RTP/AVP 0\r\nm=video 0 RTP/AVP 31\r\n"},
		{"refused gets no address", two, h("") + "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.1\r\nm=video 0 RTP/AVP 31\r\n", h("") + "m=audio 9000 RTP/AVP 0\r\nc=IN IP4 192.0.2.2\r\nm=video 0 RTP/AVP 31\r\n"},
		{
			"rtcp", one, h("") + "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.1\r\na=rtcp:4001 IN IP4 192.0.2.1\r\na=rtcp:4001\r\na=rtcp:4000\r\na=rtcp-mux\r\n",
			h("") + "m=audio 9000 RTP/AVP 0\r\nc=IN IP4 192.0.2.2\r\na=rtcp:9001 IN IP4 192.0.2.2\r\na=rtcp:9001\r\na=rtcp:9000\r\na=rtcp-mux\r\n",
		},
		{
			"rtcp by name",
			[]Target{{Addr: addr2, Port: 9000, RTCPPort: 9100}},
			h("") + "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.1\r\na=rtcp:9 IN IP4 0.0.0.0\r\n",
			h("") + "m=audio 9000 RTP/AVP 0\r\nc=IN IP4 192.0.2.2\r\na=rtcp:9100 IN IP4 0.0.0.0\r\n",
		},
		{
			"ice", one, h("c=IN IP4 192.0.2.1\r\n") + "a=ice-lite\r\na=group:BUNDLE 0\r\nm=audio 4000 RTP/AVP 0\r\na=candidate:1 1 UDP 1 192.0.2.1 4000 typ host\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\na=ice-options:trickle\r\na=mid:0\r\na=end-of-candidates\r\na=remote-candidates:1 x 1\r\n",
			h("c=IN IP4 192.0.2.2\r\n") + "a=group:BUNDLE 0\r\nm=audio 9000 RTP/AVP 0\r\na=mid:0\r\n",
		},
		{
			"one of two anchored", one, h("c=IN IP4 192.0.2.1\r\n") + "m=audio 4000 RTP/AVP 0\r\ni=title\r\na=x\r\nm=video 5000 RTP/AVP 31\r\na=ice-ufrag:a\r\n",
			h("c=IN IP4 192.0.2.1\r\n") + "m=audio 9000 RTP/AVP 0\r\ni=title\r\nc=IN IP4 192.0.2.2\r\na=x\r\nm=video 5000 RTP/AVP 31\r\na=ice-ufrag:a\r\n",
		},
		{
			"the other has its own", one, h("c=IN IP4 192.0.2.1\r\n") + "m=audio 4000 RTP/AVP 0\r\nm=video 5000 RTP/AVP 31\r\nc=IN IP4 192.0.2.9\r\n",
			h("c=IN IP4 192.0.2.2\r\n") + "m=audio 9000 RTP/AVP 0\r\nm=video 5000 RTP/AVP 31\r\nc=IN IP4 192.0.2.9\r\n",
		},
		{"nobody inherits the session's", one, h("c=IN IP4 192.0.2.1\r\n") + "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.9\r\n", h("c=IN IP4 192.0.2.2\r\n") + "m=audio 9000 RTP/AVP 0\r\nc=IN IP4 192.0.2.2\r\n"},
		{"no address at all, no last line end", one, h("") + "m=audio 4000 RTP/AVP 0", h("") + "m=audio 9000 RTP/AVP 0\r\nc=IN IP4 192.0.2.2"},
		{"added with the line end of its neighbour", one, "v=0\nm=audio 4000 RTP/AVP 0\na=x\n", "v=0\nm=audio 9000 RTP/AVP 0\nc=IN IP4 192.0.2.2\na=x\n"},
		{"nothing anchored", []Target{{}}, h("c=IN IP4 192.0.2.1\r\n") + "a=ice-lite\r\nm=audio 4000 RTP/AVP 0\r\n", h("c=IN IP4 192.0.2.1\r\n") + "a=ice-lite\r\nm=audio 4000 RTP/AVP 0\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.out, string(mustParse(t, c.in).Rewrite(c.targets))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// checkRewrite demands what Rewrite promises of any description.
func checkRewrite(t interface{ Fatalf(string, ...any) }, d *Description, targets []Target) {
	out := d.Rewrite(targets)
	got, err := Parse(out)
	if err != nil { // what was added may pass a limit
		return
	}
	if a, b := rest(d), rest(got); a != b {
		t.Fatalf("other lines changed:\n%q\n%q", a, b)
	}
	for i, m := range got.Media() {
		was := d.Media()[i]
		anchored := i < len(targets) && targets[i].anchored()
		switch {
		case m.Rejected != was.Rejected || m.Zero != was.Zero || m.Direction != was.Direction || m.Kind != was.Kind:
			t.Fatalf("%+v became %+v", was, m)
		case !anchored && (m.Port != was.Port || m.Addr != was.Addr || m.Host != was.Host) && !was.Rejected:
			t.Fatalf("not anchored, but %+v became %+v in %q", was, m, out)
		case anchored && !was.Rejected && !was.Zero && (m.Addr != targets[i].Addr || m.Port != targets[i].Port):
			t.Fatalf("anchored at %+v, but it is %+v in %q", targets[i], m, out)
		}
	}
}

// rest is a description without the lines that Rewrite may change, and
// without line ends that an added line may bring.
func rest(d *Description) string {
	var b strings.Builder
	for _, l := range d.lines {
		typ, value := d.field(l)
		name, _ := attribute(value)
		switch {
		case typ == 'c', typ == 'a' && (isICE(value) || name == "rtcp"):
		case typ == 'm':
			m := parseMLine(value)
			b.WriteString(value[:m.portAt] + value[m.portTo:] + "\n")
		default:
			b.WriteString(d.body[l.start:l.end])
			b.WriteString("\n")
		}
	}
	return b.String()
}

func TestRewriteProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, err := Parse([]byte(drawBody(t)))
		if err != nil {
			t.Fatal(err)
		}
		targets := make([]Target, rapid.IntRange(0, 4).Draw(t, "targets"))
		for i := range targets {
			targets[i] = rapid.SampledFrom([]Target{{}, {Addr: addr2, Port: 30000}, {Addr: addr2, Port: 30002, RTCPPort: 30007}, {Addr: addr6, Port: 30004}}).Draw(t, "target")
		}
		checkRewrite(t, d, targets)
	})
}

// TestRewriteRefused: a refused line gets port 0, and where a section's protection is
// replaced the other configurations that it proposes go with it.
func TestRewriteRefused(t *testing.T) {
	const body = "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/SAVP 0\r\na=crypto:1 x inline:y\r\na=acap:1 crypto:1 z\r\na=pcfg:1 a=1\r\na=ptime:20\r\n" +
		"m=audio 4002/1 RTP/AVP 0\r\na=tcap:1 RTP/SAVP\r\nm=video 4004 RTP/AVP 31\r\na=pcfg:1 t=1\r\n"
	const want = "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 30000 RTP/AVP 0\r\nc=IN IP4 198.51.100.7\r\na=ptime:20\r\n" +
		"m=audio 0/1 RTP/AVP 0\r\nc=IN IP4 198.51.100.7\r\nm=video 4004 RTP/AVP 31\r\na=pcfg:1 t=1\r\n"
	d, err := Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddr("198.51.100.7")
	got := d.Rewrite([]Target{
		{Addr: at, Port: 30000, Protection: &Protection{Profile: "RTP/AVP"}},
		{Addr: at, Port: 30002, Protection: &Protection{Profile: "RTP/AVP", Refused: true}},
	})
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
