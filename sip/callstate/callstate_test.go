package callstate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/suppress"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// text writes a message of the call "c1"; a start of one word is a method.
func text(start, method, body string, headers ...string) string {
	if !strings.Contains(start, " ") {
		start += " sip:x@example.com SIP/2.0"
	}
	lines := append([]string{
		start, "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx", "From: <sip:a@example.com>;tag=a", "To: <sip:b@example.com>",
		"Call-ID: c1", "CSeq: 1 " + method,
	}, headers...)
	return strings.Join(append(lines, fmt.Sprintf("Content-Length: %d", len(body)), "", body), "\r\n")
}

func mustParse(t testing.TB, s string) *sip.Message {
	t.Helper()
	m, _, err := sip.Parse([]byte(s), false)
	if err != nil {
		t.Fatalf("%v in\n%s", err, s)
	}
	return m
}

func request(t testing.TB, method, body string, headers ...string) *sip.Message {
	t.Helper()
	return mustParse(t, text(method, method, body, headers...))
}

func mustNew(t testing.TB, cfg Config) *Rules {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// brief writes signals as "source event key=value …", without their times.
func brief(signals []suppress.Signal) (lines []string) {
	for _, s := range signals {
		line := s.Source + " " + string(s.Event)
		for _, f := range []struct{ name, value string }{
			{"flow", s.Flow},
			{"queue", s.Queue},
			{"user", s.User},
			{"role", string(s.Role)},
			{"party", s.Party},
			{"other", s.Other},
			{"conversation", s.Conversation},
			{"links", strings.Join(s.Links, " ")},
		} {
			if f.value != "" {
				line += " " + f.name + "=" + f.value
			}
		}
		if len(s.Attrs) > 0 {
			line += fmt.Sprint(" attrs=", s.Attrs)
		}
		lines = append(lines, line)
	}
	return lines
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// The examples are those of the RFCs.
func TestLinks(t *testing.T) {
	named := Config{Conversation: []string{"X-Conversation-ID"}, UserToUserConversation: "conv", ConversationFrom: FromAny}
	tests := []struct {
		name    string
		cfg     Config
		headers []string
		want    []string
	}{
		{"none", Config{}, nil, nil},
		{"Replaces, RFC 3891", Config{}, []string{"Replaces: 98732@sip.example.com\r\n  ;from-tag=r33th4x0r\r\n  ;to-tag=ff87ff"}, []string{"dialog:98732@sip.example.com;r33th4x0r", "dialog:98732@sip.example.com;ff87ff"}},
		{"early Replaces", Config{}, []string{"Replaces: 12adf2f34456gs5;to-tag=12345;from-tag=54321;early-only"}, []string{"dialog:12adf2f34456gs5;54321", "dialog:12adf2f34456gs5;12345"}},
		{"Join, RFC 3911", Config{}, []string{"Join: 12adf2f34456gs5;to-tag=12345;from-tag=54321"}, []string{"dialog:12adf2f34456gs5;54321", "dialog:12adf2f34456gs5;12345"}},
		{"Target-Dialog, RFC 4538", Config{}, []string{"Target-Dialog: fa77as7dad8-sd98ajzz@host.example.com\r\n ;local-tag=kkaz-\r\n ;remote-tag=6544"}, []string{"dialog:fa77as7dad8-sd98ajzz@host.example.com;kkaz-", "dialog:fa77as7dad8-sd98ajzz@host.example.com;6544"}},
		{"In-Reply-To, RFC 3261", Config{ConversationFrom: FromAny}, []string{"In-Reply-To: 70710@saturn.bell-tel.com, 17320@saturn.bell-tel.com"}, []string{"call-id:70710@saturn.bell-tel.com", "call-id:17320@saturn.bell-tel.com"}},
		{"a Call-ID of odd characters", Config{}, []string{`Replaces: a"<b?@[::1];to-tag=1;from-tag=2`}, []string{`dialog:a"<b?@[::1];2`, `dialog:a"<b?@[::1];1`}},
		{"Session-ID, RFC 7989", Config{}, []string{"Session-ID: ab30317f1a784dc48ff824d0d3715d86\r\n ;remote=47755a9de7794ba387653f2099600ef2"}, []string{"session-id:ab30317f1a784dc48ff824d0d3715d86", "session-id:47755a9de7794ba387653f2099600ef2"}},
		{"Session-ID with the nil UUID", Config{}, []string{"Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=00000000000000000000000000000000"}, []string{"session-id:ab30317f1a784dc48ff824d0d3715d86"}},
		{"Session-ID of RFC 7329", Config{}, []string{"Session-ID: F81D4FAE7DEC11D0A76500A0C91E6BF6"}, []string{"session-id:f81d4fae7dec11d0a76500a0c91e6bf6"}},
		{"Session-ID that is none", Config{}, []string{"Session-ID: ab30;remote=xb30317f1a784dc48ff824d0d3715d86"}, nil},
		{"Referred-By, RFC 3892", Config{}, []string{"Referred-By: sip:referrer@referrer.example\r\n  ;cid=\"20398823.2UWQFN309shb3@referrer.example\""}, []string{"referred-by:20398823.2UWQFN309shb3@referrer.example"}},
		{"Referred-By without an id names a person, no call", Config{}, []string{"b: <sip:agent@example.com>"}, nil},
		{"conversation", named, []string{"x-conversation-id:  A-17 ", "User-to-User: conv=b4;x=y;purpose=isdn-uui"}, []string{"header:x-conversation-id:A-17", "uui:conv:b4"}},
		{"conversation that nobody asked for", Config{}, []string{"X-Conversation-ID: A-17", "User-to-User: conv=b4"}, nil},
		{"all of User-to-User", Config{UserToUserConversation: "*", ConversationFrom: FromExternal}, []string{"User-to-User: 56a390f3d2b7310023a2;purpose=isdn-uui"}, []string{"uui:*:56a390f3d2b7310023a2"}},
		{"no name from outside", Config{Conversation: []string{"X-C"}, UserToUserConversation: "*"}, []string{"X-C: 1", "User-to-User: 2", "In-Reply-To: z", "Replaces: r;to-tag=1;from-tag=2"}, []string{"dialog:r;2", "dialog:r;1"}},
		{"the same twice, itself and nothing", Config{ConversationFrom: FromAny}, []string{"Replaces: r;to-tag=1", "Join: r;to-tag=1", "In-Reply-To: c1, ,,", "Target-Dialog: ;local-tag=x"}, []string{"dialog:r;1"}},
		{"too long, and no text", Config{ConversationFrom: FromAny}, []string{"Replaces: " + strings.Repeat("x", linkBytesMax), "Join: a\x01b", "In-Reply-To: \xff, ok"}, []string{"call-id:ok"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := mustNew(t, tt.cfg).Links(request(t, "INVITE", "", tt.headers...), media.External)
			same(t, "links", got, append([]string{"call-id:c1"}, tt.want...))
		})
	}
	var none *Rules
	same(t, "without rules", none.Links(request(t, "INVITE", "", "Replaces: r;to-tag=1;from-tag=2"), media.External), []string{"call-id:c1", "dialog:r;2", "dialog:r;1"})
}

// Between a PBX and its phones nobody is outside, whichever side sends.
func TestInside(t *testing.T) {
	rules := mustNew(t, Config{
		Conversation: []string{"X-C"}, InfoSignals: true, Inside: []string{"phones"},
		Headers: []HeaderRule{{Header: "X-Agent", Event: suppress.AgentJoin, User: "$value", From: FromInternal}},
	})
	body := "event=pause.end"
	for trunk, inside := range map[string]bool{"phones": true, "carrier": false, "": false} {
		d := rules.Dialog(trunk, request(t, "INVITE", "", "X-C: 1"), media.External)
		links := len(d.Links()) == 2
		info, _ := d.Request(request(t, "INFO", body, "Content-Type: "+TypeText), media.External, t0)
		invite, _ := d.Request(request(t, "INVITE", "", "X-Agent: a"), media.External, t0)
		refer, _ := d.Request(request(t, "REFER", "", "Refer-To: <sip:x@y?Call-ID=2>"), media.External, t0)
		answer := d.Response(mustParse(t, text("SIP/2.0 200 OK", "INVITE", "", "X-C: 3")), media.External, t0)
		for what, got := range map[string]bool{"link": links, "INFO": len(info) == 1, "header": len(invite) == 1, "REFER": len(refer) == 1, "answer": len(answer) == 1} {
			if got != inside {
				t.Errorf("trunk %q: %s from its external side taken: %v, want %v", trunk, what, got, inside)
			}
		}
	}
}

func TestRefer(t *testing.T) {
	tests := []struct {
		name    string
		headers []string
		want    []string
	}{
		// RFC 5589 section 7.2, RFC 3515 section 2.1
		{"attended", []string{"Refer-To: <sips:482n4z24kdg@gw.example.com?Replaces=090459243588173445%3Bto-tag%3D7553452%3Bfrom-tag%3D31431>"}, []string{"dialog:090459243588173445;31431", "dialog:090459243588173445;7553452"}},
		{"attended, escaped twice as needed", []string{"r: <sip:dave@denver.example.org?Replaces=12345%40192.168.118.3%3Bto-tag%3D12345%3Bfrom-tag%3D5FFE-3994>"}, []string{"dialog:12345@192.168.118.3;5FFE-3994", "dialog:12345@192.168.118.3;12345"}},
		{"escaped less than needed", []string{"Refer-To: <sip:dave@denver.example.org?Replaces=12345@192.168.118.3;to-tag=1;from-tag=2>"}, []string{"dialog:12345@192.168.118.3;2", "dialog:12345@192.168.118.3;1"}},
		{"with a Call-ID", []string{"Refer-To: <sip:bob@biloxi.example.net?Accept-Contact=sip:bobsdesk.biloxi.example.net&Call-ID%3D55432%40alicepc.atlanta.example.com>"}, []string{"call-id:55432@alicepc.atlanta.example.com"}},
		{"without brackets", []string{"Refer-To: sip:x@y?replaces=z%3Bto-tag%3D1"}, []string{"dialog:z;1"}},
		{"what the new request will say", []string{"Refer-To: <sip:x@y;transport=tcp?X-Conversation-ID=A%2D17&User-to-User=conv%3Db4&In-Reply-To=k>"}, []string{"call-id:k", "header:x-conversation-id:A-17", "uui:conv:b4"}},
		{"blind", []string{"Refer-To: <sip:+4930@example.com;user=phone>", "Referred-By: <sip:a@b>"}, nil},
		{"blind with an id", []string{"Refer-To: <tel:+4930>", "Referred-By: <sip:a@b>;cid=\"7@b\"", "Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=47755a9de7794ba387653f2099600ef2"}, []string{"referred-by:7@b", "session-id:ab30317f1a784dc48ff824d0d3715d86", "session-id:47755a9de7794ba387653f2099600ef2"}},
		{"of another dialog", []string{"Refer-To: <sip:x@y>", "Target-Dialog: other;local-tag=1;remote-tag=2"}, []string{"dialog:other;1", "dialog:other;2"}},
		{"nothing", nil, nil},
		{"broken", []string{"Refer-To: <sip:x@y?Replaces=%zz&=&?&Replaces>"}, nil},
	}
	rules := mustNew(t, Config{Conversation: []string{"X-Conversation-ID"}, UserToUserConversation: "conv"})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := rules.Dialog("t", request(t, "INVITE", ""), media.External)
			refer := request(t, "REFER", "", tt.headers...)
			signals, refused := d.Request(refer, media.Internal, t0)
			var want []string
			if tt.want != nil {
				want = []string{"header call.linked links=" + strings.Join(tt.want, " ")}
			}
			same(t, "signals", brief(signals), want)
			if refused != 0 || len(signals) > 0 && !signals[0].At.Equal(t0) {
				t.Errorf("refused %d, %v", refused, signals)
			}
			if again, _ := d.Request(refer, media.Internal, t0); again != nil {
				t.Errorf("told again: %v", brief(again))
			}
			same(t, "links", d.Links(), append([]string{"call-id:c1"}, tt.want...))
		})
	}
}

func TestLinksOfLaterMessages(t *testing.T) {
	const a, b, c = "session-id:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "session-id:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "session-id:cccccccccccccccccccccccccccccccc"
	field := func(local, remote string) string {
		return "Session-ID: " + strings.TrimPrefix(local, "session-id:") + ";remote=" + strings.TrimPrefix(remote, "session-id:")
	}
	var none *Rules
	invite := request(t, "INVITE", "", field(a, nilSession))
	d := none.Dialog("t", invite, media.External)
	response := func(status int, method string, headers ...string) []string {
		headers = append(headers, "Replaces: no;to-tag=1;from-tag=2")
		return brief(d.Response(mustParse(t, text(fmt.Sprintf("SIP/2.0 %d OK", status), method, "", headers...)), media.Internal, t0))
	}
	first, _ := d.Request(invite, media.External, t0)
	same(t, "the first INVITE tells nothing new", brief(first), nil)
	same(t, "ringing, maybe of another fork", response(180, "INVITE", field(c, a)), nil)
	same(t, "refused", response(486, "INVITE", field(c, a)), nil)
	same(t, "of another method", response(200, "OPTIONS", field(c, a)), nil)
	same(t, "answer", response(200, "INVITE", field(b, a)), []string{"header call.linked links=" + b})
	same(t, "answer to UPDATE", response(200, "UPDATE", field(b, a)), nil)
	re, _ := d.Request(request(t, "INVITE", "", field(a, c)), media.External, t0) // b was transferred
	same(t, "re-INVITE", brief(re), []string{"header call.linked links=" + c})
	for _, method := range []string{"OPTIONS", "MESSAGE", "NOTIFY", "INFO", "ACK", "BYE"} {
		got, refused := d.Request(request(t, method, "", "Replaces: z;to-tag=1;from-tag=2"), media.Internal, t0)
		if got != nil || refused != 0 {
			t.Errorf("%s tells %v, %d refused", method, got, refused)
		}
	}
	same(t, "all", d.Links(), []string{"call-id:c1", a, b, c})
}

func TestHeaderRules(t *testing.T) {
	rules := mustNew(t, Config{Headers: []HeaderRule{
		{Header: "X-State", Value: "ivr*", Event: suppress.IVRStart, Flow: "$param:flow"},
		{Header: "X-State", Value: "ivr-done", Event: suppress.IVREnd},
		{Header: "X-Queue", Event: suppress.QueueStart, Queue: "$value"},
		{Header: "x-agent", Value: "*@example.com", Event: suppress.AgentJoin, User: "$value", Role: "$param:role", Other: "lit"},
		{Header: "X-Hold", Value: "on", Event: suppress.HoldStart, Party: "internal", From: FromInternal},
		{Header: "Subject", Value: "pause", Event: suppress.PauseStart},
		{Header: "X-Left", Event: suppress.AgentLeave, User: "$value"},
	}})
	long := strings.Repeat("q", textBytesMax+1)
	tests := []struct {
		name    string
		from    media.Side
		headers []string
		want    []string
		refused int
	}{
		{"absent", media.Internal, nil, nil, 0},
		{"exact, but for case", media.Internal, []string{"x-state: IVR-Done"}, []string{"header ivr.start", "header ivr.end"}, 0},
		{"parameter", media.Internal, []string{`X-State: ivr ; flow="main \"menu\";x" ; z`}, []string{`header ivr.start flow=main "menu";x`}, 0},
		{"parameter in a URI is none", media.Internal, []string{"X-State: ivr<sip:a@b;flow=no>;FLOW=yes"}, []string{"header ivr.start flow=yes"}, 0},
		{"any value, several fields", media.External, []string{"X-Queue: sales", "X-Queue: \"gold, 1\";p=1"}, []string{"header queue.start queue=sales", "header queue.start queue=gold, 1"}, 0},
		{"empty value", media.External, []string{"X-Queue:"}, []string{"header queue.start"}, 0},
		{"pattern", media.Internal, []string{"X-Agent: Bob@Example.Com;role=Coach"}, []string{"header agent.join user=Bob@Example.Com role=coach other=lit"}, 0},
		{"pattern does not match", media.Internal, []string{"X-Agent: bob@example.com.evil"}, nil, 0},
		{"unknown role", media.Internal, []string{"X-Agent: bob@example.com;role=boss"}, nil, 1},
		{"allowed side", media.Internal, []string{"X-Hold: on"}, []string{"header hold.start party=internal"}, 0},
		{"other side", media.External, []string{"X-Hold: on"}, nil, 0},
		{"compact form", media.External, []string{"s: PAUSE"}, []string{"header pause.start"}, 0},
		{"too long for a signal: it suppresses namelessly", media.Internal, []string{"X-Queue: " + long}, []string{"header queue.start"}, 0},
		{"no text: it suppresses namelessly", media.Internal, []string{"X-Queue: a\x02b", "X-Queue: \xff"}, []string{"header queue.start", "header queue.start"}, 0},
		{"too long for a signal: nothing ends", media.Internal, []string{"X-Left: " + long}, nil, 1},
		{"too long for a pattern", media.Internal, []string{"X-Agent: " + strings.Repeat("x", valueBytesMax) + "@example.com"}, nil, 0},
	}
	for _, method := range []string{"INVITE", "UPDATE"} {
		for _, tt := range tests {
			t.Run(method+" "+tt.name, func(t *testing.T) {
				d := rules.Dialog("t", request(t, "INVITE", ""), media.External)
				for range 2 { // a repetition tells the same again
					signals, refused := d.Request(request(t, method, "", tt.headers...), tt.from, t0)
					same(t, "signals", brief(signals), tt.want)
					if refused != tt.refused {
						t.Errorf("%d refused, want %d", refused, tt.refused)
					}
					valid(t, signals, t0)
				}
			})
		}
	}
}

// valid checks what holds for every signal.
func valid(t testing.TB, signals []suppress.Signal, at time.Time) {
	t.Helper()
	for _, s := range signals {
		if s.Event == suppress.CallLinked {
			if len(s.Links) == 0 {
				t.Error("linked with nothing")
			}
			s.Event, s.Links = suppress.PauseEnd, nil
		}
		if err := s.Validate(); err != nil {
			t.Errorf("signal %s of %s: %v", s.Event, s.Source, err)
		}
		if s.At.After(at) || s.Source == "" || s.Seq != 0 || s.V != 1 || s.Call != "" || s.SIPCall != "" ||
			s.Source != SourceInfo && !s.At.Equal(at) {
			t.Errorf("signal %s of %s with other fields: %+v", s.Event, s.Source, s)
		}
	}
}

func TestOnChange(t *testing.T) {
	rules := mustNew(t, Config{
		Headers: []HeaderRule{
			{Header: "X-Queue", Event: suppress.QueueStart, Queue: "$value", OnChange: true},
			{Header: "X-Queue", Value: "p", Event: suppress.PauseStart},
		},
		UserToUser: []UserToUserRule{{Key: "q", Event: suppress.IVRStart, OnChange: true}},
	})
	d := rules.Dialog("t", request(t, "INVITE", ""), media.Internal)
	for i, step := range []struct {
		from    media.Side
		headers []string
		want    []string
	}{
		{media.Internal, []string{"X-Queue: p"}, []string{"header queue.start queue=p", "header pause.start"}},
		{media.Internal, []string{"X-Queue: p"}, []string{"header pause.start"}},
		{media.External, []string{"X-Queue: p"}, []string{"header queue.start queue=p", "header pause.start"}},
		{media.Internal, []string{"X-Queue: r", "User-to-User: q=1"}, []string{"header queue.start queue=r", "uui ivr.start"}},
		{media.Internal, []string{"X-Queue: r", "User-to-User: q=1"}, nil},
		{media.Internal, nil, nil},
		{media.Internal, []string{"X-Queue: r"}, []string{"header queue.start queue=r"}},
		{media.Internal, []string{"X-Queue: r", "X-Queue: s"}, []string{"header queue.start queue=r", "header queue.start queue=s"}},
	} {
		got, _ := d.Request(request(t, "INVITE", "", step.headers...), step.from, t0)
		same(t, fmt.Sprintf("step %d", i), brief(got), step.want)
	}
}

func TestUserToUser(t *testing.T) {
	rules := mustNew(t, Config{UserToUser: []UserToUserRule{
		{Key: "state", Value: "queue", Event: suppress.QueueStart, Queue: "$param:q"},
		{Key: "agent", Event: suppress.AgentJoin, User: "$value", From: FromInternal},
		{Key: "pay", Value: "1*", Event: suppress.PauseStart},
	}})
	hexed := func(s string) string { return fmt.Sprintf("%x", s) }
	queue := []string{"uui queue.start queue=gold"}
	tests := []struct {
		name    string
		from    media.Side
		headers []string
		want    []string
	}{
		{"hex, RFC 7433", media.Internal, []string{"User-to-User: " + hexed("state=queue;q=gold") + ";encoding=hex;purpose=isdn-uui;content=isdn-uui"}, queue},
		{"hex in capitals and quotes, with a protocol discriminator", media.Internal, []string{`User-to-User: "` + strings.ToUpper(hexed("\x04state=queue&q=gold\x00")) + `";encoding="HEX"`}, queue},
		{"hex that is not marked", media.Internal, []string{"User-to-User: " + hexed("state=queue,q=gold")}, queue},
		{"hex that is none", media.Internal, []string{"User-to-User: state=queue;encoding=hex", "User-to-User: 123;encoding=hex"}, nil},
		{"quoted", media.Internal, []string{`User-to-User: "state=queue;q=gold";purpose=x`}, queue},
		{"pairs as parameters", media.Internal, []string{"User-to-User: q=gold;purpose=x;STATE=Queue"}, queue},
		{"escaped", media.Internal, []string{"User-to-User: state%3Dqueue%3Bq%3Dgold;encoding=text"}, queue},
		{"a number is no hex", media.Internal, []string{"User-to-User: 31323334"}, nil},
		{"several elements and fields", media.Internal, []string{"User-to-User: a=b, " + hexed("state=queue&q=gold") + ";encoding=hex", "User-to-User: pay=10"}, append([]string{queue[0]}, "uui pause.start")},
		{"pair of another element is none of ours", media.Internal, []string{"User-to-User: state=queue, q=gold"}, []string{"uui queue.start"}},
		{"from outside", media.External, []string{"User-to-User: agent=bob;pay=1"}, []string{"uui pause.start"}},
		{"from inside", media.Internal, []string{"User-to-User: agent=\"bob b\" & pay=2"}, []string{"uui agent.join user=bob b"}},
		{"a value that is no text", media.Internal, []string{"User-to-User: " + hexed("state=queue;q=\xff\xfe") + ";encoding=hex"}, []string{"uui queue.start"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := request(t, "INVITE", "", tt.headers...)
			signals, _ := rules.Dialog("t", m, tt.from).Request(m, tt.from, t0)
			same(t, "signals", brief(signals), tt.want)
			valid(t, signals, t0)
		})
	}
}

// matches says the same as pattern.match, letter by letter.
func matches(p, v string) bool {
	switch {
	case p == "":
		return v == ""
	case p[0] == '*':
		return matches(p[1:], v) || v != "" && matches(p, v[1:])
	}
	return v != "" && p[0] == v[0] && matches(p[1:], v[1:])
}

// everything is a configuration that looks at all there is.
func everything() Config {
	return Config{
		Headers: []HeaderRule{
			{Header: "X-A", Event: suppress.QueueStart, Queue: "$value", User: "$param:u", OnChange: true},
			{Header: "X-A", Value: "*e*d*", Event: suppress.QueueEnd, Queue: "$value"},
			{Header: "X-A", Event: suppress.AgentJoin, User: "$value", Role: "$param:role"},
		},
		UserToUser: []UserToUserRule{
			{Key: "a", Event: suppress.IVRStart, Flow: "$value", Other: "$param:b"},
			{Key: "b", Value: "*", Event: suppress.IVREnd, Flow: "$value", OnChange: true},
		},
		UserToUserConversation: "c", Conversation: []string{"X-C", "X-A"},
		InfoSignals: true, InfoFrom: FromAny,
	}
}

func TestManyFieldsAreBounded(t *testing.T) {
	rules := mustNew(t, everything())
	var headers []string
	for i := range 400 {
		name := []string{"X-A", "User-to-User", "Replaces", "In-Reply-To", "Session-ID", "Referred-By"}[i%6]
		headers = append(headers, fmt.Sprintf("%s: a=%d,b=%d,%d;u=1;a=2;c=%d", name, i, i, i, i))
	}
	m := request(t, "INVITE", "", headers...)
	d := rules.Dialog("t", m, media.External)
	for range 50 {
		signals, _ := d.Request(m, media.Internal, t0)
		if len(signals) > signalsMax+1 {
			t.Fatalf("%d signals of one message", len(signals))
		}
	}
	if n := len(d.Links()); n > linksMax {
		t.Errorf("%d links", n)
	}
	if _, refused := d.Request(m, media.Internal, t0); refused == 0 {
		t.Error("nothing is counted as refused")
	}
}

func FuzzMessage(f *testing.F) {
	for _, seed := range []struct{ headers, body string }{
		{"X-A: end;u=v;role=coach\r\nX-C: c", ""},
		{"User-to-User: 613d313b623d32;encoding=hex, a=b;c=d", ""},
		{"Refer-To: <sip:a@b?Replaces=c%3Bto-tag%3Dd&X-C=1>\r\nReferred-By: <sip:x@y>;cid=\"z\"", ""},
		{"Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=47755a9de7794ba387653f2099600ef2\r\nJoin: x;to-tag=1", ""},
		{"Content-Type: " + TypeJSON, `[{"event":"pause.start","at":"2026-03-01T11:00:00Z"},{"event":"hold.end"}]`},
		{"Content-Type: " + TypeText, "event=attrs.set\nattrs.a=b\n\nevent=pause.end\nat=2026-03-01T11:00:00Z"},
	} {
		f.Add(seed.headers, seed.body)
	}
	rules, none := mustNew(f, everything()), (*Rules)(nil)
	f.Fuzz(func(t *testing.T, headers, body string) {
		for _, method := range []string{"INVITE", "REFER", "INFO", "200"} {
			start, of := method, method
			if method == "200" {
				start, of = "SIP/2.0 200 OK", "INVITE"
			}
			m, _, err := sip.Parse([]byte(text(start, of, body, headers)), false)
			if err != nil {
				return
			}
			for _, r := range []*Rules{rules, none} {
				d := r.Dialog("t", m, media.Internal)
				var signals []suppress.Signal
				if m.IsRequest() {
					signals, _ = d.Request(m, media.External, t0)
				} else {
					signals = d.Response(m, media.External, t0)
				}
				valid(t, signals, t0)
				if r == none && len(signals) > 1 || len(signals) > signalsMax+1 {
					t.Fatalf("%d signals", len(signals))
				}
				l := d.Links()
				if l[0] != "call-id:"+m.CallID() || len(l) > linksMax {
					t.Fatalf("%d links, first %q", len(l), l[0])
				}
				for _, key := range l[1:] {
					if !printable(key, linkBytesMax) {
						t.Fatalf("link %q", key)
					}
				}
			}
		}
	})
}
