package nats

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

var (
	published = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	arrived   = published.Add(3 * time.Second)
	there     = arrival{source: "nats:main", at: published, received: arrived, seq: 7}
)

func TestParsePayload(t *testing.T) {
	one := suppress.Signal{
		V: 1, Event: suppress.PauseStart, At: published.Add(-time.Second), Received: arrived,
		Seq: 7 * signalsMax, Source: "nats:main", SIPCall: "a@b",
	}
	const text = `{"event":"pause.start","at":"2026-03-01T11:59:59Z","sip_call_id":"a@b"}`
	for _, c := range []struct {
		name, payload string
		want          []func(*suppress.Signal)
		faults        []string
	}{
		{name: "one", payload: text, want: []func(*suppress.Signal){nil}},
		{name: "space around", payload: "\n " + text + " \n", want: []func(*suppress.Signal){nil}},
		{name: "array", payload: "[" + text + "," + text + "]", want: []func(*suppress.Signal){nil, func(s *suppress.Signal) { s.Seq++ }}},
		{name: "batch", payload: `{"signals":[` + text + `]}`, want: []func(*suppress.Signal){nil}},
		{
			name: "own source and seq", payload: `{"event":"pause.start","at":"2026-03-01T11:59:59Z","sip_call_id":"a@b","source":"crm","seq":5}`,
			want: []func(*suppress.Signal){func(s *suppress.Signal) { s.Source, s.Seq = "crm", 5 }},
		},
		{
			name: "without a time", payload: `{"event":"pause.start","sip_call_id":"a@b"}`,
			want: []func(*suppress.Signal){func(s *suppress.Signal) { s.At = published }},
		},
		{
			name: "null for a time", payload: `{"event":"pause.start","at":null,"sip_call_id":"a@b"}`,
			want: []func(*suppress.Signal){func(s *suppress.Signal) { s.At = published }},
		},
		{
			name: "conversation alone", payload: `{"event":"pause.start","at":"2026-03-01T11:59:59Z","conversation":"c"}`,
			faults: []string{"neither call nor sip_call_id is given"},
		},
		{
			name: "a pause to come", payload: `{"event":"pause.start","at":"2026-03-01T13:00:00Z","sip_call_id":"a@b"}`,
			want: []func(*suppress.Signal){func(s *suppress.Signal) { s.At = s.Received }},
		},
		{
			name: "one of two is wrong", payload: `[{"event":"pause.begin","sip_call_id":"a@b"},` + text + `]`,
			want: []func(*suppress.Signal){func(s *suppress.Signal) { s.Seq++ }}, faults: []string{"the field event is wrong"},
		},
		{
			name: "received", payload: `{"event":"pause.start","sip_call_id":"a@b","received":"2026-03-01T11:59:59Z"}`,
			faults: []string{"received is not taken here, the signal arrives now"},
		},
		{
			name: "received of null", payload: `{"event":"pause.start","sip_call_id":"a@b","received":null}`,
			faults: []string{"received is not taken here, the signal arrives now"},
		},
		{name: "no call", payload: `{"event":"pause.start"}`, faults: []string{"neither call nor sip_call_id is given"}},
		{name: "two days old", payload: `{"event":"pause.start","at":"2026-02-27T11:59:59Z","call":"x"}`, faults: []string{"the field at is wrong"}},
		{name: "seconds", payload: `{"event":"pause.start","at":12,"call":"x"}`, faults: []string{"the field at is wrong"}},
		{name: "unknown key", payload: `{"event":"pause.start","call":"x","4111":1}`, faults: []string{"a signal with a key that is not known, or not JSON"}},
		{name: "name of an attribute", payload: `{"event":"attrs.set","call":"x","attrs":{"4111\n":"1"}}`, faults: []string{"the field attrs is wrong"}},
		{name: "empty object", payload: `{}`, faults: []string{"the field event is wrong"}},
		{name: "empty", payload: ` `, faults: []string{"empty"}},
		{name: "no JSON", payload: `pause`, faults: []string{"not a JSON object or array"}},
		{name: "half an array", payload: `[` + text, faults: []string{"not JSON"}},
		{name: "empty batch", payload: `{"signals":[]}`, faults: []string{"an empty list of signals"}},
		{name: "batch with more", payload: `{"signals":[],"x":1}`, faults: []string{"has keys beside signals"}},
		{name: "batch of no list", payload: `{"signals":5}`, faults: []string{"signals is no array"}},
		{name: "numbers", payload: `[1]`, faults: []string{"a signal that is no JSON object"}},
		{name: "null", payload: `[null]`, faults: []string{"a signal that is no JSON object"}},
		{name: "too many", payload: `[` + strings.Repeat(text+",", signalsMax) + text + `]`, faults: []string{"more than 1024 signals"}},
		{name: "too long", payload: `"` + strings.Repeat("x", payloadBytesMax) + `"`, faults: []string{"more than 1048576 bytes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want []suppress.Signal
			for _, f := range c.want {
				s := one
				if f != nil {
					f(&s)
				}
				want = append(want, s)
			}
			got, faults := parsePayload([]byte(c.payload), there)
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("signals\n%v, want\n%v", got, want)
			}
			var texts []string
			for _, f := range faults {
				texts = append(texts, string(f))
			}
			if !slices.Equal(texts, c.faults) {
				t.Errorf("faults %q, want %q", texts, c.faults)
			}
		})
	}
}

func FuzzPayload(f *testing.F) {
	for _, s := range []string{
		`{"event":"pause.start","sip_call_id":"a@b"}`, `[{"event":"hold.end","call":"x","at":"2026-03-01T11:59:59Z"}]`,
		`{"signals":[{}]}`, `{"event":"pause.start","call":"secret4111","received":1}`, `[]`, `{`, `{"AT":null}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		signals, faults := parsePayload(payload, there)
		if len(signals) == 0 && len(faults) == 0 {
			t.Error("a message of neither signals nor faults")
		}
		for _, s := range signals {
			if err := s.Validate(); err != nil {
				t.Errorf("signal is not valid: %v", err)
			}
			if s.Source == "" || s.Seq == 0 || !s.Received.Equal(arrived) || suppress.Plausible(s) != nil {
				t.Errorf("signal without source, number or time of arrival: %+v", s)
			}
		}
		for _, x := range faults {
			if strings.Contains(string(x), "4111") {
				t.Errorf("a fault repeats what was sent: %q", x)
			}
		}
	})
}

func TestValidate(t *testing.T) {
	good := Config{Name: "main", URLs: []string{"nats://localhost:4222"}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want   string
		change func(*Config)
	}{
		{"name", func(c *Config) { c.Name = "" }},
		{"urls: ", func(c *Config) { c.URLs = nil }},
		{"urls[0]", func(c *Config) { c.URLs = []string{"nats://user:hunter2@[::x"} }},
		{"subjects[0]", func(c *Config) { c.Subjects = []string{"a b"} }},
		{"subjects[1]: overlaps", func(c *Config) { c.Subjects = []string{"a.>", "a.*.c"} }},
		{"more than one", func(c *Config) { c.Token, c.User = "a", "b" }},
		{"both or none", func(c *Config) { c.Stream = "S" }},
		{"has no space", func(c *Config) { c.Stream, c.Durable = "S", "a.b" }},
		{"max_age", func(c *Config) { c.MaxAge = 25 * time.Hour }},
	} {
		cfg := good
		c.change(&cfg)
		err := cfg.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v, want one with %q and no password", err, c.want)
		}
	}
	apart := good
	apart.Subjects = []string{"a.b", "a.c.>", "b.>", "a.b.c"}
	if err := apart.Validate(); err != nil {
		t.Errorf("subjects that do not overlap: %v", err)
	}
}
