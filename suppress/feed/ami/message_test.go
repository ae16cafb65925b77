package ami

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParser(t *testing.T) {
	huge := strings.Repeat("x", messageBytesMax+1)
	for _, tc := range []struct {
		name, wire string
		want       []Message
		bad        uint64
	}{
		{
			"greeting and response", "Asterisk Call Manager/5.0.2\r\nResponse: Success\r\nMessage: ok\r\n\r\n",
			[]Message{{Banner: "5.0.2"}, {Headers: []Header{{"Response", "Success"}, {"Message", "ok"}}}},
			0,
		},
		{"bare line feeds", "Event: A\nB:c\n\n", []Message{{Headers: []Header{{"Event", "A"}, {"B", "c"}}}}, 0},
		{"colons in the value", "Variable: a:b: c\r\n\r\n", []Message{{Headers: []Header{{"Variable", "a:b: c"}}}}, 0},
		{"empty value", "AccountCode: \r\nExten:\r\n\r\n", []Message{{Headers: []Header{{"AccountCode", ""}, {"Exten", ""}}}}, 0},
		{"blank lines", "\r\n\r\n\r\nEvent: A\r\n\r\n\r\n", []Message{{Headers: []Header{{"Event", "A"}}}}, 0},
		{"a line without a colon", "Event: A\r\nwhat\r\n: x\r\nB: c\r\n\r\n", []Message{{Headers: []Header{{"Event", "A"}, {"B", "c"}}}}, 2},
		{"a greeting later is none", "Event: A\r\nAsterisk Call Manager/1\r\n\r\n", []Message{{Headers: []Header{{"Event", "A"}}}}, 1},
		{"a huge line", "Event: A\r\nB: " + huge + "\r\n\r\nEvent: C\r\n\r\n", []Message{{Headers: []Header{{"Event", "C"}}}}, 1},
		{"many lines", "Event: A\r\n" + strings.Repeat("B: c\r\n", headersMax) + "\r\nEvent: C\r\n\r\n", []Message{{Headers: []Header{{"Event", "C"}}}}, 1},
		{"many bytes", "Event: A\r\n" + strings.Repeat("B: "+huge[:1000]+"\r\n", 100) + "\r\nEvent: C\r\n\r\n", []Message{{Headers: []Header{{"Event", "C"}}}}, 1},
		{"not complete", "Event: A\r\n", nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, piece := range []int{1, 2, 7, 1 << 20} {
				got, bad := parseIn([]byte(tc.wire), piece)
				if diff := cmp.Diff(tc.want, got); diff != "" || bad != tc.bad {
					t.Errorf("in pieces of %d: %d bad, want %d (-want +got):\n%s", piece, bad, tc.bad, diff)
				}
			}
		})
	}
}

func parseIn(wire []byte, piece int) (list []Message, bad uint64) {
	var p Parser
	for len(wire) > 0 {
		n := min(piece, len(wire))
		p.Feed(wire[:n], func(m Message) { list = append(list, m) })
		wire = wire[n:]
		if len(p.line) > messageBytesMax+1 {
			panic("the line has no limit")
		}
	}
	return list, p.Bad()
}

func TestMessage(t *testing.T) {
	m := mustParse(t, "Event: UserEvent\r\nUniqueid: 1.1\r\nUserEvent: X\r\nEvent: ivr.start\r\nuniqueid: 2.2\r\n\r\n")[0]
	if m.Get("EVENT") != "UserEvent" || m.Get("none") != "" {
		t.Errorf("Get: %q %q", m.Get("EVENT"), m.Get("none"))
	}
	if after := m.After("userevent"); after.Get("Event") != "ivr.start" || after.Get("Uniqueid") != "2.2" {
		t.Errorf("After: %v", after)
	}
	if after := m.After("none"); len(after.Headers) != 0 {
		t.Errorf("After of none: %v", after)
	}
}

func TestActionIsOneMessage(t *testing.T) {
	wire := action("Getvar", "ActionID", "1", "Channel", "PJSIP/x\r\nAction: Originate\r\n\r\nSecret: y", "Variable", "v").Append(nil)
	want := "Action: Getvar\r\nActionID: 1\r\nChannel: PJSIP/xAction: OriginateSecret: y\r\nVariable: v\r\n\r\n"
	if string(wire) != want {
		t.Errorf("wire %q, want %q", wire, want)
	}
}

// FuzzParser: no input panics, takes unbounded memory or depends on how it is
// cut into pieces.
func FuzzParser(f *testing.F) {
	f.Add([]byte("Asterisk Call Manager/5.0.2\r\nResponse: Success\r\n\r\n"), 3)
	f.Add([]byte("Event: A\nB: c\n\nx\n\r\n"), 1)
	f.Add([]byte("Event: A\r\n"+strings.Repeat("B: c\r\n", 600)+"\r\n"), 11)
	f.Fuzz(func(t *testing.T, wire []byte, piece int) {
		whole, bad := parseIn(wire, max(1, len(wire)))
		cut, badCut := parseIn(wire, max(1, piece%5000))
		if diff := cmp.Diff(whole, cut); diff != "" || bad != badCut {
			t.Fatalf("%d and %d bad, pieces differ:\n%s", bad, badCut, diff)
		}
		for _, m := range whole {
			if len(m.Headers) > headersMax || m.Banner == "" && len(m.Headers) == 0 {
				t.Fatalf("message with %d headers", len(m.Headers))
			}
		}
	})
}
