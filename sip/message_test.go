package sip

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const plain = "INVITE sip:bob@example.com;user=phone SIP/2.0\r\n" +
	"Via: SIP/2.0/UDP 192.0.2.1:5061;branch=z9hG4bK1;rport, SIP/2.0/TCP [2001:db8::1];branch=z9hG4bK0\r\n" +
	"f: \"A <\\\" B\" <sip:a@b>;tag=1\r\n" +
	"To: sip:bob@example.com\r\n" +
	"i: id@host\r\n" +
	"CSeq: 42 INVITE\r\n" +
	"X-Folded: one\r\n  two\r\n\tthree\r\n" +
	"Contact: <sip:a@192.0.2.1>, \"x, y\" <sip:b@c;p=q?h=v>;q=0.1\r\n" +
	"l: 4\r\n\r\nbody"

func mustParse(t *testing.T, text string) *Message {
	t.Helper()
	m, _, err := Parse([]byte(text), false)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestParse(t *testing.T) {
	m := mustParse(t, plain)
	seq, method := m.CSeq()
	via, err := m.TopVia()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, got, want string }{
		{"method", m.Method, "INVITE"},
		{"uri", m.URI, "sip:bob@example.com;user=phone"},
		{"call", m.CallID(), "id@host"},
		{"from tag", m.FromTag(), "1"},
		{"to tag", m.ToTag(), ""},
		{"cseq", method, "INVITE"},
		{"branch", via.Branch(), "z9hG4bK1"},
		{"host", via.Host, "192.0.2.1"},
		{"folded", m.Get("x-folded"), "one two three"},
		{"body", string(m.Body), "body"},
		{"contacts", strings.Join(m.List("Contact"), "|"), `<sip:a@192.0.2.1>|"x, y" <sip:b@c;p=q?h=v>;q=0.1`},
	} {
		if c.got != c.want {
			t.Errorf("%s %q, want %q", c.what, c.got, c.want)
		}
	}
	if seq != 42 || via.Port != 5061 {
		t.Errorf("CSeq %d, port %d", seq, via.Port)
	}
	if got := string(m.Append(nil)); got != strings.Replace(plain, "one\r\n  two\r\n\tthree", "one two three", 1) {
		t.Errorf("written differently:\n%s", got)
	}
}

func TestParseRefuses(t *testing.T) {
	edit := func(old, new string) string { return strings.Replace(plain, old, new, 1) }
	for name, text := range map[string]string{
		"empty":                 "",
		"no header end":         "INVITE sip:a SIP/2.0\r\nX: y\r\n",
		"other version":         edit("SIP/2.0\r\n", "SIP/3.0\r\n"),
		"three spaces":          edit("INVITE sip:bob", "INVITE  sip:bob"),
		"brackets in URI":       edit("sip:bob@example.com;user=phone SIP", "<sip:bob@example.com> SIP"),
		"bare LF":               edit("id@host", "id\n@host"),
		"bare CR":               edit("id@host", "id\r@host"),
		"LF only":               strings.ReplaceAll(plain, "\r\n", "\n"),
		"no colon":              edit("CSeq: 42", "CSeq 42"),
		"space in name":         edit("CSeq:", "C Seq:"),
		"no From":               edit("f: ", "x: "),
		"two To":                edit("CSeq:", "t: <sip:x>\r\nCSeq:"),
		"empty Call-ID":         edit("i: id@host", "i:"),
		"CSeq other method":     edit("42 INVITE", "42 BYE"),
		"CSeq too large":        edit("42 INVITE", "2147483648 INVITE"),
		"negative length":       edit("l: 4", "l: -4"),
		"differing lengths":     edit("l: 4", "l: 4\r\nContent-Length: 3"),
		"body too short":        edit("l: 4", "l: 5"),
		"Via without transport": edit("SIP/2.0/UDP 192", "SIP/2.0 192"),
		"Via port":              edit("192.0.2.1:5061", "192.0.2.1:99999"),
		"Via open bracket":      edit("192.0.2.1:5061", "[2001:db8::1"),
		"two Max-Forwards":      edit("CSeq:", "Max-Forwards: 1\r\nMax-Forwards: 2\r\nCSeq:"),
		"From without URI":      edit("<sip:a@b>;tag=1", "<>"),
		"text after To":         edit("To: sip:bob@example.com", "To: <sip:bob> x"),
		"status":                "SIP/2.0 99 Low\r\n" + plain[strings.Index(plain, "\r\n")+2:],
		"continuation first":    edit("Via:", " Via:"),
	} {
		if m, _, err := Parse([]byte(text), false); err == nil {
			t.Errorf("%s was taken: %+v", name, m)
		}
	}
}

func TestParseStream(t *testing.T) {
	two := "\r\n\r\n" + plain + strings.Replace(plain, "body", "BODY", 1)
	for cut := range len(plain) {
		if _, _, err := Parse([]byte(plain[:cut]), true); !errors.Is(err, ErrPartial) {
			t.Fatalf("after %d bytes: %v", cut, err)
		}
	}
	m, rest, err := Parse([]byte(two), true)
	if err != nil || string(m.Body) != "body" {
		t.Fatalf("%v %v", m, err)
	}
	m, rest, err = Parse(rest, true)
	if err != nil || string(m.Body) != "BODY" || len(rest) != 0 {
		t.Fatalf("%v %v %q", m, err, rest)
	}
	if _, _, err := Parse([]byte(strings.Replace(plain, "l: 4\r\n", "", 1)), true); err == nil || errors.Is(err, ErrPartial) {
		t.Errorf("without Content-Length: %v", err)
	}
	if _, _, err := Parse([]byte(strings.Replace(plain, "l: 4", "l: 99999", 1)), true); err == nil || errors.Is(err, ErrPartial) {
		t.Errorf("too long: %v", err)
	}
	if _, _, err := Parse(make([]byte, MessageBytesMax+1), true); err == nil || errors.Is(err, ErrPartial) {
		t.Errorf("header without end: %v", err)
	}
}

func TestSetKeepsOrder(t *testing.T) {
	m := &Message{Headers: []Header{{"A", "1"}, {"v", "x"}, {"B", "2"}, {"Via", "y"}, {"C", "3"}}}
	m.Set("Via", "new")
	m.Set("Route", "r")
	m.Set("B")
	var got []string
	for _, h := range m.Headers {
		got = append(got, h.Name+"="+h.Value)
	}
	if want := "A=1 v=new C=3 Route=r"; strings.Join(got, " ") != want {
		t.Errorf("%s, want %s", strings.Join(got, " "), want)
	}
}

func TestURIsAndAddresses(t *testing.T) {
	for _, s := range []string{
		"sip:a", "sip:user:pw@host:5061;lr;x=\"y;z\"?h=v", "sips:[2001:db8::1]:5060", "sip:+49;ext=1@host", "SIP:%61@h.example",
	} {
		u, err := ParseURI(s)
		if err != nil || u.String() != s {
			t.Errorf("%s: %s %v", s, u, err)
		}
	}
	for _, s := range []string{"", "tel:+49", "sip:", "sip:a@", "sip:a:0", "sip:a:x", "sip:[::1", "sip:[x]", "sip:a b"} {
		if u, err := ParseURI(s); err == nil {
			t.Errorf("%q was taken: %+v", s, u)
		}
	}
	a, err := ParseAddress(`"A \"q\" <x>" <sip:u@h;p>;tag=t;x="a;tag=no"`)
	if tag, _ := a.Param("tag"); err != nil || a.DisplayName() != `A "q" <x>` || a.URI != "sip:u@h;p" || tag != "t" {
		t.Errorf("%+v %q %v", a, a.DisplayName(), err)
	}
	if got := Params(";a;Transport=tcp;b=1").Without("transport"); got != ";a;b=1" {
		t.Errorf("%s", got)
	}
}

// Whatever is taken is written so that it is taken again as the same.
func checkRoundTrip(t interface{ Fatalf(string, ...any) }, data []byte) {
	m, _, err := Parse(data, false)
	if err != nil {
		return
	}
	_, _ = m.CSeq()
	_, _, _ = m.FromTag(), m.ToTag(), m.List("Contact")
	wire := m.Append(nil)
	if len(wire) > MessageBytesMax {
		return
	}
	again, rest, err := Parse(wire, true)
	if err != nil || len(rest) != 0 {
		t.Fatalf("own message refused: %v, %d bytes left\n%q", err, len(rest), wire)
	}
	if second := again.Append(nil); !bytes.Equal(second, wire) {
		t.Fatalf("changes each time:\n%q\n%q", wire, second)
	}
	MarkSource(again)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(plain))
	f.Add([]byte(strings.Replace(plain, "INVITE sip:bob@example.com;user=phone SIP/2.0", "SIP/2.0 180 Ringing", 1)))
	f.Add([]byte("OPTIONS sip:x SIP/2.0\r\nv:SIP/2.0/UDP h;branch=\"a,b\"\r\nf:x:y\r\nt:x:y\r\ni:1\r\nCSeq:0 OPTIONS\r\n\r\n"))
	f.Add([]byte("\r\n\r\n"))
	files, _ := filepath.Glob("../../shared/fixtures/public/torture/*.dat")
	for _, name := range files {
		if data, err := os.ReadFile(name); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkRoundTrip(t, data) })
}

func TestRoundTripOfDamaged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := []byte(plain)
		for range rapid.IntRange(0, 6).Draw(t, "edits") {
			i := rapid.IntRange(0, len(data)-1).Draw(t, "at")
			data[i] = rapid.SampledFrom([]byte("\r\n\t <>\";,:@\x00[]sip1")).Draw(t, "byte")
		}
		checkRoundTrip(t, data)
	})
}

// A plain parameter is found by ourselves, any other by sipgo: both must say the same.
func TestPlainParams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Params(rapid.StringMatching(`(;[a-c]{0,2}(=?[-a-c"=\[\]:. \t]{0,3})?){0,4}`).Draw(t, "params"))
		name := rapid.SampledFrom([]string{"a", "B", "ab", "c"}).Draw(t, "name")
		want, there := param(p.read(), name)
		if got, ok := p.Get(name); got != want || ok != there {
			t.Fatalf("%s of %q: %q %v, sipgo says %q %v", name, p, got, ok, want, there)
		}
	})
}
