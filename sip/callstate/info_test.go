package callstate

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
)

func TestInfo(t *testing.T) {
	const kindJSON, kindText = "Content-Type: " + TypeJSON, "c: Application/VND.trunktap.signal;charset=utf-8"
	at := func(d time.Duration) string { return t0.Add(d).Format(time.RFC3339Nano) }
	many := strings.Repeat("event=pause.start\n\n", infoSignalsMax+3)
	tests := []struct {
		name    string
		from    media.Side
		kind    string
		body    string
		want    []string
		at      time.Duration
		refused int
	}{
		{"object", media.Internal, kindJSON, `{"event":"pause.start"}`, []string{"info pause.start"}, 0, 0},
		{"array", media.Internal, kindJSON, ` [{"v":1,"event":"queue.end","queue":"q"}, {"event":"agent.join","user":"u","role":"barge"}] `, []string{"info queue.end queue=q", "info agent.join user=u role=barge"}, 0, 0},
		{"attributes and foreign bookkeeping", media.Internal, kindJSON, `{"event":"attrs.set","attrs":{"k":"v"},"seq":9,"source":"me","sip_call_id":"c1"}`, []string{"info attrs.set attrs=map[k:v]"}, 0, 0},
		{"its time", media.Internal, kindJSON, `{"event":"pause.start","at":"` + at(-2*time.Second) + `"}`, []string{"info pause.start"}, -2 * time.Second, 0},
		{"null for a time", media.Internal, kindJSON, `{"event":"pause.start","at":null}`, []string{"info pause.start"}, 0, 0},
		{"a clock ahead", media.Internal, kindJSON, `{"event":"pause.start","at":"` + at(time.Minute) + `"}`, []string{"info pause.start"}, 0, 0},
		{"a clock far behind", media.Internal, kindJSON, `{"event":"pause.start","at":"` + at(-48*time.Hour) + `"}`, []string{"info pause.start"}, 0, 0},
		{"a time in seconds", media.Internal, kindJSON, `{"event":"pause.start","at":5}`, nil, 0, 1},
		{"unknown key", media.Internal, kindJSON, `{"event":"pause.start","x":1}`, nil, 0, 1},
		{"unknown event", media.Internal, kindJSON, `{"event":"source.lost"}`, nil, 0, 1},
		{"an event of ours", media.Internal, kindJSON, `{"event":"call.linked"}`, nil, 0, 1},
		{"one of several", media.Internal, kindJSON, `[null,{"event":"pause.start"},7,[]]`, []string{"info pause.start"}, 0, 3},
		{"more than one value", media.Internal, kindJSON, `{"event":"pause.start"}{"event":"pause.end"}`, nil, 0, 1},
		{"another call", media.Internal, kindJSON, `[{"event":"pause.end","sip_call_id":"c2"},{"event":"pause.end","call":"x"}]`, nil, 0, 2},
		{"no JSON", media.Internal, kindJSON, "event=pause.start", nil, 0, 1},
		{"empty JSON", media.Internal, kindJSON, "", nil, 0, 1},
		{"lines", media.Internal, kindText, "event=pause.start\r\nqueue = a=b \r\n", []string{"info pause.start queue=a=b"}, 0, 0},
		{"lines with a time", media.Internal, kindText, "at=" + at(-time.Second) + "\nevent=hold.start\nparty=internal", []string{"info hold.start party=internal"}, -time.Second, 0},
		{"lines of two", media.Internal, kindText, "\nevent=ivr.end\nflow=f\n\n\n\nevent=attrs.set\nattrs.k=v\n", []string{"info ivr.end flow=f", "info attrs.set attrs=map[k:v]"}, 0, 0},
		{"unknown line", media.Internal, kindText, "event=pause.start\nx=1\n\nevent=pause.end", []string{"info pause.end"}, 0, 1},
		{"no line", media.Internal, kindText, "event=pause.start\nrubbish", nil, 0, 1},
		{"wrong time", media.Internal, kindText, "event=pause.start\nat=yesterday", nil, 0, 1},
		{"too many", media.Internal, kindText, many, slices.Repeat([]string{"info pause.start"}, infoSignalsMax), 0, 3},
		{"too many in JSON", media.Internal, kindJSON, "[" + strings.Repeat(`{"event":"pause.start"},`, infoSignalsMax) + "1,2]", slices.Repeat([]string{"info pause.start"}, infoSignalsMax), 0, 2},
		{"too long", media.Internal, kindText, "event=pause.start" + strings.Repeat("\n", infoBytesMax), nil, 0, 1},
		{"from outside", media.External, kindJSON, `{"event":"pause.end"}`, nil, 0, 1},
		{"compressed", media.Internal, kindJSON + "\r\nContent-Encoding: gzip", `{"event":"pause.end"}`, nil, 0, 1},
		{"a package is no matter", media.Internal, kindJSON + "\r\nInfo-Package: x\r\ne: identity", `{"event":"pause.end"}`, []string{"info pause.end"}, 0, 0},
		{"something else", media.Internal, "Content-Type: application/dtmf-relay", "Signal=5\r\nDuration=160", nil, 0, 0},
	}
	rules := mustNew(t, Config{InfoSignals: true})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := request(t, "INFO", tt.body, tt.kind)
			signals, refused := rules.Dialog("t", m, tt.from).Request(m, tt.from, t0)
			same(t, "signals", brief(signals), tt.want)
			if refused != tt.refused {
				t.Errorf("%d refused, want %d", refused, tt.refused)
			}
			for _, s := range signals {
				if got := s.At.Sub(t0); len(signals) == 1 && got != tt.at || !s.Received.Equal(t0) {
					t.Errorf("at %v, want %v; received %v", got, tt.at, s.Received)
				}
			}
			valid(t, signals, t0)
		})
	}
}

func TestInfoConfigured(t *testing.T) {
	m := request(t, "INFO", "event=pause.start", "Content-Type: application/x-rec")
	for _, tt := range []struct {
		name string
		cfg  Config
		from media.Side
		want int
	}{
		{"off", Config{InfoTypes: []string{"application/x-rec"}}, media.Internal, 0},
		{"another type", Config{InfoSignals: true}, media.Internal, 0},
		{"own type", Config{InfoSignals: true, InfoTypes: []string{"application/X-Rec"}}, media.Internal, 1},
		{"of any side", Config{InfoSignals: true, InfoTypes: []string{"application/x-rec"}, InfoFrom: FromAny}, media.External, 1},
		{"of outside alone", Config{InfoSignals: true, InfoTypes: []string{"application/x-rec"}, InfoFrom: FromExternal}, media.Internal, 0},
	} {
		signals, _ := mustNew(t, tt.cfg).Dialog("t", m, tt.from).Request(m, tt.from, t0)
		if len(signals) != tt.want {
			t.Errorf("%s: %d signals, want %d", tt.name, len(signals), tt.want)
		}
	}
}
