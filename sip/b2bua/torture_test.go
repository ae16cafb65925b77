package b2bua

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/sip"
)

var update = flag.Bool("update", false, "rewrite docs/torture.md")

const (
	tortureDir = "../../../shared/fixtures/public/torture"
	tortureDoc = "../../docs/torture.md"
)

// tortured is what becomes of a message that tries a parser: what its sender is
// answered, and what the other side of the trunk gets.
type tortured struct {
	name, text string // without a text: the file of that name
	about      string
	want       string
	why        string
}

// TestTorture sends what RFC 4475 and RFC 5118 are about to a trunk in the
// middle of a call, and holds the table of docs/torture.md.
func TestTorture(t *testing.T) {
	var doc strings.Builder
	doc.WriteString(tortureHead)
	rows := func(title string, list []tortured) {
		fmt.Fprintf(&doc, "\n## %s\n\n| message | what it is about | what happens | why |\n|---|---|---|---|\n", title)
		for _, m := range list {
			fmt.Fprintf(&doc, "| `%s` | %s | %s | %s |\n", m.name, m.about, m.want, m.why)
			t.Run(m.name, func(t *testing.T) { m.check(t) })
		}
	}
	rows("RFC 4475", torture4475)
	rows("RFC 5118", torture5118)
	if *update {
		if err := os.WriteFile(tortureDoc, []byte(doc.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if is, err := os.ReadFile(tortureDoc); err != nil || string(is) != doc.String() {
		t.Errorf("docs/torture.md is stale (%v), run go test ./sip/b2bua -run TestTorture -update", err)
	}
	files, _ := filepath.Glob(filepath.Join(tortureDir, "*.dat"))
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".dat"); !strings.Contains(doc.String(), "| `"+name+"` |") {
			t.Errorf("%s is not in the table", name)
		}
	}
}

func (m tortured) check(t *testing.T) {
	text := m.text
	if text == "" {
		data, err := os.ReadFile(filepath.Join(tortureDir, m.name+".dat"))
		if err != nil {
			t.Skip("left out: the messages of RFC 4475 are not in ../shared/fixtures/public/torture")
		}
		text = string(data)
	}
	inBubble(t, nil, func(w *bench) {
		a, _ := w.established("torture")
		statuses := make(chan string, 100)
		from := heard(w.t, w.net, "192.0.2.67:5060", statuses)
		heard(w.t, w.net, "192.0.2.67:5050", statuses) // where one of the messages wants its answer
		if _, err := from.WriteToUDPAddrPort([]byte(text), outside); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		var got []string
		for len(statuses) > 0 {
			got = append(got, <-statuses)
		}
		for len(w.p.in) > 0 {
			m := <-w.p.in
			got = append(got, "passed on as "+m.Method)
			if u, err := sip.ParseURI(m.URI); err == nil && u.Query != "" {
				t.Errorf("Request-URI %s", m.URI)
			}
		}
		if len(got) == 0 {
			got = append(got, "nothing")
		}
		if g := strings.Join(got, ", "); g != m.want {
			t.Errorf("%s, want %s", g, m.want)
		}
		time.Sleep(2 * time.Minute) // what it began ends by itself
		w.p.drain()
		w.hangUp(a)
	})
}

// heard opens a socket and reads the statuses of what comes to it.
func heard(t *testing.T, n *mediatest.Net, addr string, statuses chan<- string) *mediatest.Conn {
	t.Helper()
	c, err := n.Listen(netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 65536)
		for {
			n, _, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			status, _, _ := strings.Cut(strings.TrimPrefix(string(buf[:n]), "SIP/2.0 "), " ")
			statuses <- status
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-ended })
	return c
}

// v6 is a request in the shape that RFC 5118 gives, with other names.
func v6(method, uri, via, contact string) string {
	return message(method+" "+uri+" SIP/2.0", []string{
		"Via: " + via, "Max-Forwards: 70", "From: <sip:user@example.net>;tag=v6", "To: <sip:desk@example.net>" + map[bool]string{true: ";tag=gone"}[method == "BYE"],
		"Call-ID: " + strings.Map(func(r rune) rune {
			if r == ' ' || r == '<' || r == '>' {
				return -1
			}
			return r
		}, uri+via+contact), "CSeq: 98176 " + method, "Contact: " + contact,
	}, "")
}

const via6 = "SIP/2.0/UDP [2001:db8:77::9];branch=z9hG4bKv6"

var torture5118 = []tortured{
	{
		"valid IPv6 reference", v6("REGISTER", "sip:[2001:db8:77::10]", via6, `"Desk" <sip:desk@[2001:db8:77::1]>;expires=600`),
		"addresses in brackets everywhere", "passed on as REGISTER", "as any other request",
	},
	{
		"no brackets", v6("REGISTER", "sip:2001:db8:77::10", via6, `<sip:desk@[2001:db8:77::1]>`),
		"an address without brackets in the Request-URI", "passed on as REGISTER", "the host of the Request-URI is replaced by that of the next hop, nothing depends on it",
	},
	{
		"port in brackets", v6("REGISTER", "sip:[2001:db8:77::10:5070]", via6, `<sip:desk@[2001:db8:77::1]>`),
		"what was meant for a port is a part of the address", "passed on as REGISTER", "it is a valid address",
	},
	{
		"port behind brackets", v6("REGISTER", "sip:[2001:db8:77::10]:5070", via6, `<sip:desk@[2001:db8:77::1]>`),
		"address and port told apart", "passed on as REGISTER", "as any other request",
	},
	{
		"received with brackets", v6("BYE", "sip:[2001:db8:77::10]", "SIP/2.0/UDP [2001:db8:77::9:1];received=[2001:db8:77::9:255];branch=z9hG4bKv6b", `<sip:desk@[2001:db8:77::1]>`),
		"brackets in received, which the grammar of RFC 3261 does not have", "481", "taken; the BYE is of no call",
	},
	{
		"received without brackets", v6("OPTIONS", "sip:[2001:db8:77::10]", "SIP/2.0/UDP [2001:db8:77::9:1];received=2001:db8:77::9:255;branch=z9hG4bKv6o", `<sip:desk@[2001:db8:77::1]>`),
		"the form of the grammar", "200", "taken; OPTIONS outside of a call is answered by the daemon",
	},
	{
		"three colons", v6("OPTIONS", "sip:user@[2001:db8:77:::192.0.2.1]", via6, `<sip:user@[2001:db8:77:::192.0.2.1]>`),
		"a form that an error in RFC 3261 allows", "200", "taken, nothing of it is used",
	},
	{
		"IPv4-mapped", v6("MESSAGE", "sip:desk@example.net", "SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bKv6m", `<sip:desk@[::ffff:192.0.2.10]>`),
		"mapped addresses in Via and Contact", "passed on as MESSAGE", "answers go to where the request came from",
	},
}
