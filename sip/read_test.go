package sip

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	sipgo "github.com/emiago/sipgo/sip"
	"pgregory.net/rapid"
)

// What sipgo alone would misread or refuse, each seen with the version in go.mod.
func TestReadsAsTheGrammarMeans(t *testing.T) {
	edit := func(old, new string) string { return strings.Replace(plain, old, new, 1) }
	via := func(v string) string {
		return edit(plain[strings.Index(plain, "Via: "):strings.Index(plain, "\r\nf:")], "Via: "+v)
	}
	for name, c := range map[string]struct {
		text, branch, host, fromTag string
	}{
		"quoted parameter before branch": {via(`SIP/2.0/UDP h;x="a;branch=no, y";branch=z9hG4bK1`), "z9hG4bK1", "h", "1"},
		"no parameter before the comma":  {via("SIP/2.0/UDP h, SIP/2.0/UDP i;branch=z9hG4bK0"), "", "h", "1"},
		"white space":                    {via("SIP / 2.0 /\tUDP   h : 5061 ;branch =\r\n z9hG4bK1 ; rport"), "z9hG4bK1", "h", "1"},
		"empty parameter":                {via("SIP/2.0/UDP h;;branch=z9hG4bK1;"), "z9hG4bK1", "h", "1"},
		"case of names":                  {via("SIP/2.0/UDP h;BRANCH=z9hG4bK1"), "z9hG4bK1", "h", "1"},
		"IPv6":                           {via("SIP/2.0/UDP [2001:db8::1]:5061;branch=z9hG4bK1"), "z9hG4bK1", "2001:db8::1", "1"},
		"quoted parameter of From":       {edit(";tag=1", `;tag=1;x="a;tag=2"`), "z9hG4bK1", "192.0.2.1", "1"},
		"equals sign in a tag":           {edit(";tag=1", ";TAG=MQ=="), "z9hG4bK1", "192.0.2.1", "MQ=="},
		"From whose URI has no port":     {edit("<sip:a@b>", "<sip:a@b:>"), "z9hG4bK1", "192.0.2.1", "1"},
		"Request-URI of another scheme":  {edit("sip:bob@", "soap.beep://bob@"), "z9hG4bK1", "192.0.2.1", "1"},
		"Request-URI without its port":   {edit("example.com;user", "example.com:;user"), "z9hG4bK1", "192.0.2.1", "1"},
		"no reason":                      {edit(plain[:strings.Index(plain, "\r\n")], "SIP/2.0 200"), "z9hG4bK1", "192.0.2.1", "1"},
		"reason SIP":                     {edit(plain[:strings.Index(plain, "\r\n")], "sip/2.0 200 SIP"), "z9hG4bK1", "192.0.2.1", "1"},
	} {
		m := mustParse(t, c.text)
		v, err := m.TopVia()
		if err != nil || v.Branch() != c.branch || v.Host != c.host || m.FromTag() != c.fromTag {
			t.Errorf("%s: %+v branch %q, tag %q, %v", name, v, v.Branch(), m.FromTag(), err)
		}
		if line, _, _ := strings.Cut(string(m.Append(nil)), "\r\n"); m.IsRequest() && !strings.HasPrefix(c.text, line+"\r\n") {
			t.Errorf("%s: start line became %s", name, line)
		}
	}
	for _, v := range []string{"SIP/2.0/UDP h:;branch=x", "SIP/2.0/UDP [::1]x;branch=y", "SIP/2.0/UDP h:-1", "SIP/2.0/UDP [x]", "SIP/2.0/UDP h:+5", ","} {
		if m, _, err := Parse([]byte(via(v)), false); err == nil {
			t.Errorf("Via %s was taken: %+v", v, m)
		}
	}
	u, err := ParseURI("sip:proxy.example;maddr=[2001:db8::1];transport=tcp")
	if transport, _ := u.Params.Get("Transport"); err != nil || u.Host != "proxy.example" || transport != "tcp" {
		t.Errorf("%+v %v", u, err)
	}
}

func TestReplacedFieldsAreReadAnew(t *testing.T) {
	m := mustParse(t, plain)
	c := m.Clone()
	c.Set("From", "<sip:x>;tag=new")
	c.Set("To", "<sip:x>;tag=other")
	c.Set("CSeq", "7 BYE")
	c.Set("Via", "SIP/2.0/TCP new;branch=b")
	v, err := c.TopVia()
	seq, method := c.CSeq()
	if err != nil || v.Host != "new" || c.FromTag() != "new" || c.ToTag() != "other" || seq != 7 || method != "BYE" {
		t.Errorf("%+v %s %s %d %s", v, c.FromTag(), c.ToTag(), seq, method)
	}
	if seq, _ := m.CSeq(); seq != 42 || m.FromTag() != "1" {
		t.Error("the original has changed")
	}
}

// FuzzNothingStopsTheLibrary holds what the stream transport relies on: what has
// passed the check before sipgo is read by it, as one message with that body.
func FuzzNothingStopsTheLibrary(f *testing.F) {
	f.Add([]byte(plain))
	f.Add([]byte(strings.Replace(plain, "sip:bob@example.com;user=phone", "x.y:", 1)))
	f.Add([]byte("sip/2.0 200 sip\r\nv:,\r\nf:x:y\r\nt:x:y\r\ni:\v\r\nCSeq:0\r\nl:0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, _, err := precheck(data, true)
		if err != nil {
			return
		}
		wire := m.excerpt(nil)
		n := 0
		err = parser.NewSIPStream().ParseSIPStream(wire, func(msg sipgo.Message) {
			n++
			if _, is := msg.(*sipgo.Request); is != m.IsRequest() {
				t.Fatalf("a request for a response, or the other way round: %q", wire)
			}
			if err := m.finish(msg); err == nil && len(m.Append(nil)) == 0 {
				t.Fatal("nothing")
			}
		})
		if err != nil || n != 1 {
			t.Fatalf("%d messages, %v: %q", n, err, wire)
		}
	})
}

// However a stream is cut, sipgo gets the messages that can be read, each once.
func TestStreamCutAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var text string
		var want []string
		broken := 0
		for i := range rapid.IntRange(1, 5).Draw(t, "messages") {
			m := strings.Replace(plain, "id@host", strconv.Itoa(i), 1)
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				m = "\r\n\r\n" + m
			case 1:
				m = strings.Replace(m, "To: sip", "To: ", 1)
				broken++
			case 2:
				m = strings.Replace(m, "sip:bob@example.com", "x.y:"+strings.Repeat("z", 5000), 1)
			}
			if text += m; strings.Contains(m, "To: sip") {
				want = append(want, strconv.Itoa(i))
			}
		}
		a, err := New(Config{Listen: []Listen{loopback("tcp")}, Allow: func(netip.AddrPort) bool { return true }, Handle: func(*Message) {}})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		c := a.newConn(Flow{Network: "tcp"})
		w := c.wire(&cutConn{text: text, next: func() int { return rapid.IntRange(1, 700).Draw(t, "cut") }})
		stream := parser.NewSIPStream()
		buf := make([]byte, 2048)
		for {
			n, err := w.Read(buf)
			if err != nil {
				break
			}
			if err := stream.ParseSIPStream(buf[:n], func(msg sipgo.Message) {
				if err := w.in.cur.finish(msg); err != nil {
					t.Fatal(err)
				}
				got = append(got, w.in.cur.CallID())
				w.in.cur = nil
			}); err != nil && !errors.Is(err, sipgo.ErrParseSipPartial) {
				t.Fatal(err)
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") || int(a.Counters.Unparseable.Load()) != broken {
			t.Fatalf("got %v, want %v, %d left out", got, want, a.Counters.Unparseable.Load())
		}
	})
}

// cutConn gives a text in pieces.
type cutConn struct {
	net.Conn
	text string
	next func() int
}

func (c *cutConn) Read(b []byte) (int, error) {
	if c.text == "" {
		return 0, io.EOF
	}
	n := copy(b, c.text[:min(c.next(), len(c.text))])
	c.text = c.text[n:]
	return n, nil
}

func (c *cutConn) Close() error { return nil }
