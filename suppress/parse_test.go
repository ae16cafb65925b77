package suppress

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseSignalLine(t *testing.T) {
	base := time.Date(2020, 1, 1, 0, 0, 0, 123456789, time.UTC)
	for _, c := range []struct {
		line string
		want Signal
	}{
		{`{"event":"pause.start","at":0}`, Signal{V: 1, Event: PauseStart, At: base}},
		{`{"v":1,"event":"pause.end","at":12.345678901}` + "\r\n", Signal{V: 1, Event: PauseEnd, At: base.Add(12345678901)}},
		{`{"event":"pause.end","at":0.3}`, Signal{V: 1, Event: PauseEnd, At: base.Add(300 * time.Millisecond)}},
		{`{"event":"pause.end","at":-1.5}`, Signal{V: 1, Event: PauseEnd, At: base.Add(-1500 * time.Millisecond)}},
		{`{"event":"pause.end","at":1e1}`, Signal{V: 1, Event: PauseEnd, At: base.Add(10 * time.Second)}},
		{`{"event":"pause.end","at":0.1234567899999}`, Signal{V: 1, Event: PauseEnd, At: base.Add(123456789)}},
		{
			`{"event":"hold.start","at":"2020-01-01T00:00:01.5Z","received":3,"seq":18446744073709551615,"source":"http","call":"c","sip_call_id":"s","party":"external"}`,
			Signal{
				V: 1, Event: HoldStart, At: time.Date(2020, 1, 1, 0, 0, 1, 5e8, time.UTC), Received: base.Add(3 * time.Second),
				Seq: 1<<64 - 1, Source: "http", Call: "c", SIPCall: "s", Party: "external",
			},
		},
		{`{"event":"agent.join","at":1,"user":"u","role":"coach"}`, Signal{V: 1, Event: AgentJoin, At: base.Add(time.Second), User: "u", Role: RoleCoach}},
		{
			`{"event":"attrs.set","at":1,"attrs":{"ticket":"7"},"conversation":"x","other":"y","flow":"f","queue":"q"}`,
			Signal{V: 1, Event: AttrsSet, At: base.Add(time.Second), Attrs: map[string]string{"ticket": "7"}, Conversation: "x", Other: "y", Flow: "f", Queue: "q"},
		},
	} {
		got, err := ParseSignalLine([]byte(c.line), base)
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", c.line, err, diff)
		}
	}
}

func TestParseSignalLineErrors(t *testing.T) {
	for line, want := range map[string]string{
		``:                                     "empty",
		`{"event":"pause.start"`:               "breaks off",
		`{"event":}`:                           "byte 10",
		`[]`:                                   "one JSON object a line",
		`{"event":"pause.start","at":1} {}`:    "something follows",
		`{"event":"pause.start","at":1,"x":1}`: `unknown field "x"`,
		`{"at":1}`:                             "event: is missing, allowed are ivr.start",
		`{"event":"pause","at":1}`:             "event: is not known, allowed are ivr.start",
		`{"event":"pause.start"}`:              "at: is missing",
		`{"event":"pause.start","at":null}`:    "at: is missing",
		`{"event":"pause.start","at":"yesterday"}`:                                 "at: is no time, allowed are RFC 3339",
		`{"event":"pause.start","at":true}`:                                        "at: is no time",
		`{"event":"pause.start","at":1e300}`:                                       "at: is no time",
		`{"event":"pause.start","at":1e999}`:                                       "at: is no time",
		`{"event":"pause.start","at":1000000001}`:                                  "at: is no time",
		`{"event":"pause.start","at":99999999999999999999999}`:                     "at: is no time",
		`{"event":"pause.start","at":1,"received":[]}`:                             "received: is no time",
		`{"event":"pause.start","at":1,"seq":-1}`:                                  "seq: is a number",
		`{"event":"pause.start","at":1,"source":7}`:                                "source: is a number, allowed is string",
		`{"v":2,"event":"pause.start","at":1}`:                                     "v: version 2",
		`{"event":"agent.join","at":1,"role":"boss"}`:                              "role: is not known, allowed are agent, consult, monitor, coach, barge",
		`{"event":"attrs.set","at":1}`:                                             "attrs: is missing",
		`{"event":"hold.start","at":1,"party":"a\u0000b"}`:                         "party: has a control character",
		`{"event":"hold.start","at":1,"party":"` + strings.Repeat("x", 257) + `"}`: "party: has 257 bytes, allowed are 256",
		strings.Repeat(" ", lineBytesMax+1):                                        "allowed are 131072",
	} {
		_, err := ParseSignalLine([]byte(line), epoch)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: error %v, want %q", line, err, want)
		}
	}
	if _, err := ParseSignalLine([]byte(`{"event":"pause.start","at":1}`), time.Time{}); err == nil || !strings.Contains(err.Error(), "no capture") {
		t.Errorf("a number without a capture: %v", err)
	}
}

func TestValidate(t *testing.T) {
	many := map[string]string{}
	for i := range attrsMax + 1 {
		many[strings.Repeat("k", i+1)] = ""
	}
	ok := Signal{V: 1, Event: AttrsSet, At: epoch, Attrs: map[string]string{"a": "b"}}
	if err := ok.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*Signal){
		"v":        func(s *Signal) { s.V = -1 },
		"event":    func(s *Signal) { s.Event = "" },
		"at":       func(s *Signal) { s.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"received": func(s *Signal) { s.Received = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) },
		"role":     func(s *Signal) { s.Role = "x" },
		"user":     func(s *Signal) { s.User = "\xff" },
		"attrs":    func(s *Signal) { s.Attrs = many },
		"attrs.k":  func(s *Signal) { s.Attrs = map[string]string{"k": strings.Repeat("v", attrValueBytesMax+1)} },
	} {
		s := ok
		change(&s)
		var fe *FieldError
		if err := s.Validate(); !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, key := range []string{"", strings.Repeat("k", attrKeyBytesMax+1), "a\nb"} {
		s := ok
		s.Attrs = map[string]string{key: ""}
		if s.Validate() == nil {
			t.Errorf("attribute %q is allowed", key)
		}
	}
}

func TestPlausible(t *testing.T) {
	for d, want := range map[time.Duration]bool{0: true, 24 * time.Hour: true, -24 * time.Hour: true, 24*time.Hour + 1: false, -24*time.Hour - 1: false} {
		err := Plausible(Signal{At: epoch, Received: epoch.Add(d)})
		if (err == nil) != want {
			t.Errorf("%v: %v", d, err)
		}
	}
	if err := Plausible(Signal{At: epoch}); err != nil {
		t.Error(err)
	}
}

func FuzzParseSignalLine(f *testing.F) {
	for _, s := range []string{
		`{"event":"pause.start","at":1.25}`, `{"v":1,"event":"hold.end","at":"2020-01-01T00:00:01.5Z","received":3e0,"seq":7,"source":"s","party":"a"}`,
		`{"event":"attrs.set","at":-0.000000001,"attrs":{"a":"b"}}`, `{"event":"agent.join","at":1,"role":"barge"}`, `{`, `[[[[`, `{"at":1e-400,"event":"pause.end"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		s, err := ParseSignalLine(line, epoch)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error that says nothing")
			}
			return
		}
		if s.V != 1 || s.Validate() != nil {
			t.Fatalf("taken but not valid: %+v", s)
		}
		tl := New(all)
		tl.SetOrigin(epoch)
		tl.Seal(50, nil)
		eff := tl.Apply(s)
		if eff.LateMS < 0 || eff.MissedMS < 0 || eff.MissedMS > 50 {
			t.Fatalf("%+v: %+v", s, eff)
		}
	})
}
