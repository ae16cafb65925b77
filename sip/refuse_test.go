package sip

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestLenientHead(t *testing.T) {
	edit := func(old, new string) string { return strings.Replace(plain, old, new, 1) }
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"whole":             {plain, true},
		"cut in the header": {plain[:strings.Index(plain, "CSeq")+9], true},
		"cut before CSeq":   {plain[:strings.Index(plain, "CSeq")], false},
		"bare line feeds":   {strings.ReplaceAll(plain, "\r\n", "\n"), true},
		"folded Via":        {edit("Via: ", "Via:\r\n "), true},
		"no Via":            {edit("Via: ", "Vla: "), false},
		"an ACK":            {edit("INVITE ", "ACK "), false},
		"a response":        {edit(plain[:strings.Index(plain, "\r\n")], "SIP/2.0 200 OK"), false},
		"HTTP":              {edit("SIP/2.0\r\n", "HTTP/1.1\r\n"), false},
		"nothing":           {"", false},
		"NUL in Via":        {edit("Via: ", "Via: \x00"), false},
		"method no token":   {edit("INVITE", "INV(ITE"), false},
	} {
		if m := lenientHead([]byte(c.text)); (m != nil) != c.want {
			t.Errorf("%s: got %+v", name, m)
		}
	}
}

func FuzzRefusals(f *testing.F) {
	f.Add([]byte(plain))
	f.Add([]byte(strings.Replace(plain, "Via: ", "v:\r\n\t", 1)))
	f.Add([]byte("OPTIONS x SIP/7.0\nVia: a\nTo: <x>;tag=1\nCSeq:9\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := lenientHead(data)
		if m == nil {
			return
		}
		for _, h := range m.Headers {
			if strings.ContainsAny(h.Value, "\r\n\x00") {
				t.Fatalf("%s: %q", h.Name, h.Value)
			}
		}
		m.Flow.Remote = netip.MustParseAddrPort("192.0.2.1:5060")
		MarkSource(m)
		ReplyFlow(m)
	})
}

// raw opens a connection to an agent and returns what it answers.
func raw(t *testing.T, network string, to netip.AddrPort, text string) string {
	t.Helper()
	c, err := net.Dial(network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestRefusalsAreSent(t *testing.T) {
	rport := strings.Replace(plain, ";branch", ";rport;branch", 1)
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct{ name, text, status, warning string }{
			{"number beyond its range", strings.Replace(rport, "CSeq: 42", "CSeq: 99999999999", 1), "400 Bad Request", "CSeq is not a number"},
			{"two From", strings.Replace(rport, "CSeq:", "From: <sip:x@y>\r\nCSeq:", 1), "400 Bad Request", "2 header fields From"},
			{"another version", strings.Replace(rport, " SIP/2.0\r\n", " SIP/3.1\r\n", 1), "505 Version Not Supported", "start line"},
		} {
			t.Run(network+", "+c.name, func(t *testing.T) {
				a, in := newAgent(t, nil, loopback(network))
				got := raw(t, network, a.Addrs()[0], strings.Replace(c.text, "Content-Length", "Content-Length: 0\r\nX-Length", 1))
				if !strings.HasPrefix(got, "SIP/2.0 "+c.status+"\r\n") || !strings.Contains(got, c.warning) || !strings.Contains(got, "id@host") {
					t.Errorf("got\n%s", got)
				}
				if n := a.Counters.Refusals.Load(); n != 1 || len(in) != 0 {
					t.Errorf("%d refusals counted, %d messages taken", n, len(in))
				}
			})
		}
	}
}

// TestRefusalsBeginNothing: what two agents could say to each other about broken
// messages ends with the first answer, and an answer is no larger than its cause.
func TestRefusalsBeginNothing(t *testing.T) {
	a, _ := newAgent(t, nil, loopback("udp"))
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ask := func(text string, wait time.Duration) string {
		t.Helper()
		if _, err := c.WriteToUDPAddrPort([]byte(text), a.Addrs()[0]); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 65536)
		n, err := c.Read(buf)
		if err != nil {
			return ""
		}
		return string(buf[:n])
	}
	rport := strings.Replace(plain, ";branch", ";rport;branch", 1)
	broken := strings.Replace(rport, "CSeq: 42", "CSeq: 99999999999", 1)
	broken = strings.Replace(broken, "\r\n\r\n", "\r\nAuthorization: Digest response=\"secret\"\r\n\r\na=crypto:secret", 1)
	res := ask(broken, 5*time.Second)
	if !strings.HasPrefix(res, "SIP/2.0 400 ") || strings.Contains(res, "secret") || len(res) > len(broken)+256 {
		t.Fatalf("%d bytes for %d:\n%s", len(res), len(broken), res)
	}
	for name, text := range map[string]string{
		"the answer itself":           res,
		"a broken answer":             strings.Replace(res, "CSeq: 99999999999", "CSeq: x", 1),
		"an answer of method and URI": strings.Replace(res, "SIP/2.0 400 Bad Request", "SIP/2.0 x SIP/2.0", 1),
		"an ACK":                      strings.Replace(broken, "INVITE ", "ACK ", 1),
	} {
		if got := ask(text, 50*time.Millisecond); got != "" {
			t.Errorf("%s is answered with\n%s", name, got)
		}
	}
	if n := a.Counters.Refusals.Load(); n != 1 {
		t.Errorf("%d refusals", n)
	}
	many := strings.Replace(broken, "CSeq:", strings.Repeat("Via: SIP/2.0/UDP h;branch=z9hG4bKx\r\n", 300)+"CSeq:", 1)
	if got := ask(many, 5*time.Second); len(got) > len(many)+256 {
		t.Errorf("%d bytes for %d", len(got), len(many))
	}
}
