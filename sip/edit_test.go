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
