package sip

import (
	"fmt"
	"strings"
	"testing"
)

func edited(e HeaderEdit, headers ...string) string {
	m := &Message{Method: Invite}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		m.Add(name, value)
	}
	e.Apply(m)
	var out []string
	for _, h := range m.Headers {
		out = append(out, h.Name+": "+h.Value)
	}
	return strings.Join(out, "|")
}

func TestHeaderEdit(t *testing.T) {
	in := []string{"v: x", "From: f", "User-Agent: pbx", "k: timer", "X-A: 1", "X-B: 2", "x-a: 3", "Subject: s", "P-Early-Media: y", "Replaces: r"}
	for name, test := range map[string]struct {
		edit HeaderEdit
		want string
	}{
		"nothing":      {HeaderEdit{}, strings.Join(in, "|")},
		"remove":       {HeaderEdit{Remove: []string{"x-a", "USER-AGENT", "Supported"}}, "v: x|From: f|X-B: 2|Subject: s|P-Early-Media: y|Replaces: r"},
		"remove begin": {HeaderEdit{Remove: []string{"x-*", "s*", "P-*"}}, "v: x|From: f|User-Agent: pbx|k: timer|Replaces: r"},
		"remove all":   {HeaderEdit{Remove: []string{"*"}}, "v: x|From: f|k: timer|Replaces: r"},
		"pass only":    {HeaderEdit{PassOnly: []string{"X-B", "sub*"}}, "v: x|From: f|k: timer|X-B: 2|Subject: s|Replaces: r"},
		"set": {
			HeaderEdit{Set: []Header{{"User-Agent", "us"}, {"X-A", "0"}, {"Server", "us"}}},
			"v: x|From: f|User-Agent: us|k: timer|X-A: 0|X-B: 2|Subject: s|P-Early-Media: y|Replaces: r|Server: us",
		},
		"add after all": {
			HeaderEdit{PassOnly: []string{"none"}, Remove: []string{"k"}, Set: []Header{{"X-A", "9"}}, Add: []Header{{"X-A", "10"}}},
			"v: x|From: f|Replaces: r|X-A: 9|X-A: 10",
		},
	} {
		if got := edited(test.edit, in...); got != test.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, test.want)
		}
		if err := test.edit.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHeaderEditFaults(t *testing.T) {
	many := make([]string, HeaderEditsMax+1)
	for i := range many {
		many[i] = fmt.Sprint("X-", i)
	}
	for name, e := range map[string]HeaderEdit{
		"via":           {Remove: []string{"Via"}},
		"compact":       {Set: []Header{{"i", "x"}}},
		"line end":      {Add: []Header{{"X-A", "a\r\nVia: x"}}},
		"name":          {Add: []Header{{"X A", "a"}}},
		"line in name":  {Set: []Header{{"X\r\nA", "a"}}},
		"length":        {Add: []Header{{"Content-Length", "3"}}},
		"star inside":   {Remove: []string{"X-*-A"}},
		"too many":      {PassOnly: many},
		"long value":    {Add: []Header{{"X-A", strings.Repeat("x", HeaderEditBytesMax+1)}}},
		"long name":     {Add: []Header{{strings.Repeat("x", 65), "y"}}},
		"empty pattern": {Remove: []string{""}},
	} {
		if e.Validate() == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// Whoever writes rules can break no message: what SIP needs survives every spelling, and
// what cannot be one header field is refused.
func TestHeaderEditAttacked(t *testing.T) {
	mandatory := []string{"Via", "From", "To", "Call-ID", "CSeq", "Max-Forwards", "Contact", "Content-Length", "Content-Type", "Route", "Record-Route"}
	short := map[string]string{"Via": "v", "From": "f", "To": "t", "Call-ID": "i", "Contact": "m", "Content-Length": "l", "Content-Type": "c"}
	for _, name := range mandatory {
		for _, spelled := range []string{name, strings.ToUpper(name), strings.ToLower(name), short[name], strings.ToUpper(short[name])} {
			for what, e := range map[string]HeaderEdit{"remove": {Remove: []string{spelled}}, "pass": {PassOnly: []string{spelled}}, "set": {Set: []Header{{spelled, "x"}}}, "add": {Add: []Header{{spelled, "x"}}}} {
				if spelled != "" && e.Validate() == nil {
					t.Errorf("%s %q is taken", what, spelled)
				}
			}
			for _, e := range []HeaderEdit{{Remove: []string{"*"}}, {PassOnly: []string{"None"}}, {Remove: []string{name[:1] + "*"}}, {Remove: []string{strings.ToUpper(name[:2]) + "*"}}} {
				if got := edited(e, spelled+": kept"); spelled != "" && got != spelled+": kept" {
					t.Errorf("%+v leaves %q of %q", e, got, spelled)
				}
			}
		}
	}
	for _, name := range []string{"", " ", "X ", "X:", "X\t", "X\r\nVia", "X\x00", "\u212a", "X\u2028", "X\u00a0Y", "(X)", "X;Y", "X/Y", "<X>", "X\"", "@"} {
		if (&HeaderEdit{Add: []Header{{name, "x"}}}).Validate() == nil {
			t.Errorf("the name %q is taken", name)
		}
	}
	for _, value := range []string{"a\r\nVia: x", "a\nb", "a\rb", "\r\n\r\nv=0", "a\x00b", "a\x7f", "a\r\n folded", "\x1b[0m"} {
		if (&HeaderEdit{Set: []Header{{"X-A", value}}}).Validate() == nil {
			t.Errorf("the value %q is taken", value)
		}
	}
	for _, name := range []string{"!interesting-Method0123456789_*+`.%indeed'~"[:20], "X.Y", "P-%", "'", "~"} {
		e := HeaderEdit{Set: []Header{{name, "x"}}}
		if got := edited(e, strings.ToUpper(name)+": y"); e.Validate() != nil || got != strings.ToUpper(name)+": x" {
			t.Errorf("the name %q: %v, %q", name, e.Validate(), got)
		}
	}
}

func TestHeaderEditOnce(t *testing.T) {
	for name, e := range map[string]HeaderEdit{
		"twice by case":     {Set: []Header{{"X-A", "1"}, {"x-a", "2"}}},
		"twice by its form": {Set: []Header{{"Subject", "1"}, {"s", "2"}}},
		"a second agent":    {Add: []Header{{"User-Agent", "us"}}},
		"a second subject":  {Add: []Header{{"s", "us"}}},
		"grows":             {Set: grown("X-", 5), Add: grown("Y-", 5)},
	} {
		if e.Validate() == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if err := (&HeaderEdit{Set: grown("X-", 7)}).Validate(); err != nil {
		t.Error(err)
	}
}

func grown(prefix string, n int) (out []Header) {
	for i := range n {
		out = append(out, Header{fmt.Sprint(prefix, i), strings.Repeat("x", HeaderEditBytesMax)})
	}
	return out
}

// Lists, folded lines, compact forms and many fields go through as they came, or are
// taken whole; ten thousand of them are no message.
func TestHeaderEditOnTheWire(t *testing.T) {
	text := "INVITE sip:u@h SIP/2.0\r\nv: SIP/2.0/UDP h;branch=z9hG4bKx\r\nf: <sip:a@h>;tag=1\r\nt: <sip:b@h>\r\ni: c\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n" +
		"s: long\r\n subject\r\n\tfolded\r\nP-Asserted-Identity: <sip:a@h>,\r\n <tel:+1>\r\nX-A : 1\r\nx-a: 2, 3\r\n" + strings.Repeat("Y: z\r\n", 480) + "Content-Length: 0\r\n\r\n"
	m, _, err := Parse([]byte(text), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Parse([]byte(strings.Replace(text, "Y: z\r\n", strings.Repeat("Y: z\r\n", 9520), 1)), false); err == nil {
		t.Error("ten thousand header fields are a message")
	}
	many := make([]string, HeaderEditsMax)
	for i := range many {
		many[i] = fmt.Sprintf("Z-%d-*", i)
	}
	e := HeaderEdit{Remove: append(many[1:], "Y"), Set: []Header{{"Subject", "ours"}, {"X-A", "9"}}}
	if n := e.Apply(m); n != 482 {
		t.Errorf("%d fields are changed", n)
	}
	again, _, err := Parse(m.Append(nil), false)
	if err != nil {
		t.Fatal(err)
	}
	if again.Get("Subject") != "ours" || len(again.Fields("X-A")) != 1 || len(again.List("P-Asserted-Identity")) != 2 || again.Has("Y") || again.CallID() != "c" {
		t.Errorf("%s", m.Append(nil))
	}
}
