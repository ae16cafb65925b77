package siptest

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const invite = "INVITE sip:b@192.0.2.2 SIP/2.0\r\nv: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rport\r\n" +
	"Via: SIP/2.0/UDP 192.0.2.9\r\nf: \"A; b\" <sip:a@192.0.2.1;x=1>;tag=1\r\nTo: sip:b@192.0.2.2\r\ni: c1\r\nCSeq: 7 INVITE\r\n" +
	"Subject: folded\r\n line\r\nl: 3\r\n\r\nabcJUNK"

func TestParseMessage(t *testing.T) {
	m, err := ParseMessage([]byte(invite))
	if err != nil {
		t.Fatal(err)
	}
	n, method := m.CSeq()
	got := []any{
		m.Method, m.RequestURI, m.Get("Call-ID"), m.Values("via"), n, method, m.Get("subject"), string(m.Body),
		Param(m.Get("From"), "tag"), URI(m.Get("From")), URI(m.Get("To")), Param(m.Get("Via"), "branch"),
	}
	want := []any{
		"INVITE", "sip:b@192.0.2.2", "c1",
		[]string{"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rport", "SIP/2.0/UDP 192.0.2.9"},
		uint32(7), "INVITE", "folded line", "abc", "1", "sip:a@192.0.2.1;x=1", "sip:b@192.0.2.2", "z9hG4bKa",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseMessageRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no end":           "OPTIONS sip:a SIP/2.0\r\nVia: x\r\n",
		"no version":       "OPTIONS sip:a\r\n\r\n",
		"empty method":     " sip:a SIP/2.0\r\n\r\n",
		"no code":          "SIP/2.0 abc OK\r\n\r\n",
		"code too large":   "SIP/2.0 1000 OK\r\n\r\n",
		"line without ':'": "OPTIONS sip:a SIP/2.0\r\nVia\r\n\r\n",
		"length":           "OPTIONS sip:a SIP/2.0\r\nContent-Length: -1\r\n\r\n",
		"body too short":   "OPTIONS sip:a SIP/2.0\r\nContent-Length: 5\r\n\r\nabc",
	} {
		if m, err := ParseMessage([]byte(text)); err == nil {
			t.Errorf("%s: no error, got %+v", name, m)
		}
	}
}

func TestParseStream(t *testing.T) {
	whole := strings.TrimSuffix(invite, "JUNK")
	for n := range len(whole) {
		if _, _, err := parse([]byte(whole[:n]), true); !errors.Is(err, errPartial) {
			t.Fatalf("%d bytes of %d: %v", n, len(whole), err)
		}
	}
	if _, used, err := parse([]byte(invite), true); err != nil || used != len(whole) {
		t.Errorf("took %d of %d bytes, error %v", used, len(whole), err)
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte(invite))
	f.Add([]byte("SIP/2.0 200 OK\r\nTo: <sip:a@b>;tag=\r\n\r\n"))
	f.Add([]byte("ACK sip:a SIP/2.0\r\n folded first\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		again, err := ParseMessage(m.Bytes())
		if err != nil {
			t.Fatalf("own bytes are refused: %v\n%q", err, m.Bytes())
		}
		if again.StartLine() != m.StartLine() || string(again.Body) != string(m.Body) {
			t.Fatalf("%q became %q", m.Bytes(), again.Bytes())
		}
		for _, h := range m.Headers {
			URI(h.Value)
			Param(h.Value, "tag")
		}
	})
}
