package dialog

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/sip"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func request(t testing.TB, method, network string, extra ...string) *sip.Message {
	t.Helper()
	text := fmt.Sprintf("%s sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\nFrom: <sip:a@h>;tag=a\r\n"+
		"To: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 7 %s\r\n%s\r\n", method, method, strings.Join(append(extra, ""), "\r\n"))
	m, _, err := sip.Parse([]byte(text), false)
	if err != nil {
		t.Fatal(err)
	}
	m.Flow.Network = network
	return m
}

func response(req *sip.Message, status int) *sip.Message {
	res := sip.ResponseTo(req, status, "x")
	res.Set("To", req.Get("To")+";tag=b")
	return res
}

// times runs a transaction's clock and returns when it acts, in seconds.
func times(until time.Duration, deadline func() time.Time, due func(time.Time) (again *sip.Message, gaveUp bool)) string {
	var out []string
	for now := start; ; {
		next := deadline()
		if next.IsZero() || next.After(start.Add(until)) {
			return strings.Join(out, " ")
		}
		if next.Before(now) {
			return "clock runs backwards"
		}
		now = next
		again, gaveUp := due(now)
		switch {
		case gaveUp:
			out = append(out, fmt.Sprintf("!%g", now.Sub(start).Seconds()))
		case again != nil:
			out = append(out, fmt.Sprintf("%g", now.Sub(start).Seconds()))
		default:
			return strings.Join(out, " ")
		}
	}
}

func TestClientTimers(t *testing.T) {
	for _, c := range []struct{ method, network, want string }{
		{"INVITE", "udp", "0.5 1.5 3.5 7.5 15.5 31.5 !32"},
		{"INVITE", "tcp", "!32"},
		{"BYE", "udp", "0.5 1.5 3.5 7.5 11.5 15.5 19.5 23.5 27.5 31.5 !32"},
		{"BYE", "tcp", "!32"},
	} {
		req := request(t, c.method, "")
		cl := NewClient(req, sip.Flow{Network: c.network}, start)
		if got := times(time.Hour, cl.Deadline, cl.Due); got != c.want {
			t.Errorf("%s over %s: %s, want %s", c.method, c.network, got, c.want)
		}
		if !cl.Done(start.Add(sip.TransactionTimeout)) {
			t.Errorf("%s over %s is not done after its time", c.method, c.network)
		}
	}
}

func TestServerTimers(t *testing.T) {
	for _, c := range []struct {
		method, network string
		status          int
		want            string
	}{
		{"INVITE", "udp", 200, "0.5 1.5 3.5 7.5 11.5 15.5 19.5 23.5 27.5 31.5 !32"},
		{"INVITE", "tcp", 200, "0.5 1.5 3.5 7.5 11.5 15.5 19.5 23.5 27.5 31.5 !32"}, // section 13.3.1.4: whatever the transport
		{"INVITE", "udp", 486, "0.5 1.5 3.5 7.5 11.5 15.5 19.5 23.5 27.5 31.5 !32"},
		{"INVITE", "tcp", 486, "!32"},
		{"INVITE", "udp", 180, ""},
		{"BYE", "udp", 200, ""},
	} {
		s := NewServer(request(t, c.method, c.network))
		s.Respond(response(s.Req, c.status), start)
		if got := times(time.Hour, s.Deadline, s.Due); got != c.want {
			t.Errorf("%d to %s over %s: %s, want %s", c.status, c.method, c.network, got, c.want)
		}
		if c.status >= 200 && !s.Done(start.Add(sip.TransactionTimeout)) {
			t.Errorf("%d to %s over %s lives on", c.status, c.method, c.network)
		}
	}
}

func TestServerAbsorbs(t *testing.T) {
	s := NewServer(request(t, "INVITE", "udp"))
	if s.Receive(s.Req, start) != nil {
		t.Error("something was sent before there was anything to send")
	}
	ringing := response(s.Req, 180)
	s.Respond(ringing, start)
	if s.Receive(s.Req, start) != ringing {
		t.Error("a repetition does not get the last response")
	}
	ack := request(t, "ACK", "udp")
	if s.Matches(ack) {
		t.Error("an ACK before the final response")
	}
	s.Respond(response(s.Req, 486), start)
	if !s.Matches(ack) || s.Receive(ack, start) != nil {
		t.Error("the ACK of a 486 is not taken")
	}
	if _, noAck := s.Due(start.Add(time.Minute)); noAck {
		t.Error("the ACK is still waited for")
	}
	if s.Done(start.Add(4*time.Second)) || !s.Done(start.Add(sip.T4)) {
		t.Error("timer I")
	}
	if !s.Cancels(request(t, "CANCEL", "udp")) || s.Matches(request(t, "BYE", "udp")) {
		t.Error("matching by method")
	}
	ok := NewServer(request(t, "INVITE", "udp"))
	ok.Respond(response(ok.Req, 200), start)
	if ok.Receive(ok.Req, start) != nil || ok.Matches(ack) {
		t.Error("a 2xx is repeated by its own schedule alone")
	}
	ok.Acked()
	if again, noAck := ok.Due(start.Add(time.Minute)); again != nil || noAck {
		t.Error("an acknowledged 2xx is repeated")
	}
}

func TestOldBranchesProveNothing(t *testing.T) {
	old := func(seq string) *sip.Message {
		m := request(t, "INVITE", "udp")
		m.Set("Via", "SIP/2.0/UDP 192.0.2.1;branch=1")
		m.Set("CSeq", seq+" INVITE")
		return m
	}
	s := NewServer(old("7"))
	if !s.Matches(old("7")) || s.Matches(old("8")) {
		t.Error("RFC 2543 matching")
	}
}

func TestClientInvite(t *testing.T) {
	type step struct {
		status    int
		pass, ack bool
	}
	for name, steps := range map[string][]step{
		"refused":  {{100, true, false}, {183, true, false}, {486, true, true}, {486, false, true}, {180, false, false}, {200, false, false}},
		"answered": {{180, true, false}, {200, true, false}, {200, true, false}, {486, false, false}, {180, false, false}},
	} {
		req := request(t, "INVITE", "udp", "Route: <sip:r;lr>")
		cl := NewClient(req, sip.Flow{Network: "udp"}, start)
		for i, s := range steps {
			pass, ack := cl.Receive(response(req, s.status), start)
			if pass != s.pass || (ack != nil) != s.ack {
				t.Errorf("%s, step %d (%d): pass %v, ack %v", name, i, s.status, pass, ack != nil)
			}
			if ack != nil && (ack.Get("Via") != req.Get("Via") || ack.ToTag() != "b" || ack.Get("CSeq") != "7 ACK" || ack.Get("Route") == "") {
				t.Errorf("ACK does not fit:\n%s", ack.Append(nil))
			}
			if again, timedOut := cl.Due(start.Add(time.Second)); again != nil || timedOut {
				t.Errorf("%s: still repeated after %d", name, s.status)
			}
		}
		if !cl.Done(start.Add(sip.TransactionTimeout)) {
			t.Errorf("%s: not done", name)
		}
	}
}

func TestClientOther(t *testing.T) {
	cl := NewClient(request(t, "INFO", "udp"), sip.Flow{Network: "udp"}, start)
	if !cl.Matches(response(cl.Req, 200)) || cl.Matches(response(request(t, "BYE", "udp"), 200)) {
		t.Error("matching")
	}
	cl.Receive(response(cl.Req, 100), start)
	if got := times(time.Hour, cl.Deadline, cl.Due); got != "0.5 4.5 8.5 12.5 16.5 20.5 24.5 28.5 !32" {
		t.Errorf("repeated at %s", got)
	}
	cl = NewClient(request(t, "INFO", "tcp"), sip.Flow{Network: "tcp"}, start)
	if pass, ack := cl.Receive(response(cl.Req, 404), start); !pass || ack != nil || !cl.Done(start) {
		t.Error("a final response over TCP does not end it")
	}
	cl = NewClient(request(t, "INFO", "tcp"), sip.Flow{Network: "tcp"}, start)
	if cl.Fail(start); !cl.Done(start) {
		t.Error("a failure does not end it")
	}
}

func TestCancelOf(t *testing.T) {
	invite := request(t, "INVITE", "udp", "Route: <sip:r;lr>", "Max-Forwards: 69", "X: y", "Contact: <sip:me>")
	theirs := request(t, "CANCEL", "udp", "Reason: SIP;cause=200", "Route: <sip:not;lr>", "X-More: z")
	c := CancelOf(invite, theirs)
	text := string(c.Append(nil))
	for _, want := range []string{"CANCEL sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n", "Route: <sip:r;lr>\r\n", "CSeq: 7 CANCEL\r\n", "Reason: SIP;cause=200\r\n", "X-More: z\r\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	for _, leak := range []string{"X: y", "Contact", "sip:not"} {
		if strings.Contains(text, leak) {
			t.Errorf("%q does not belong into\n%s", leak, text)
		}
	}
	if CancelOf(invite, nil).Method != "CANCEL" {
		t.Error("a CANCEL of our own")
	}
}

func TestRouteSets(t *testing.T) {
	req := request(t, "INVITE", "udp", "Record-Route: <sip:p1;lr>, <sip:p2;lr>", "Record-Route: <sip:p3;lr>", "Contact: \"x\" <sip:me@h;a>;q=1")
	e := FromRequest(req)
	uri, routes, next := e.Route()
	if uri != "sip:me@h;a" || strings.Join(routes, " ") != "<sip:p1;lr> <sip:p2;lr> <sip:p3;lr>" || next != "sip:p1;lr" || e.Seq != 7 {
		t.Errorf("caller: %s %s %s", uri, routes, next)
	}
	res := response(req, 200)
	res.Add("Record-Route", "<sip:p1;lr>, <sip:p2>")
	res.Add("Contact", "<sip:them>")
	e = FromResponse(res)
	uri, routes, next = e.Route()
	if uri != "sip:p2" || strings.Join(routes, " ") != "<sip:p1;lr> <sip:them>" || next != "sip:p2" {
		t.Errorf("callee behind a strict router: %s %s %s", uri, routes, next)
	}
	e.Refresh(response(req, 200))
	if e.Target != "sip:them" {
		t.Error("a message without Contact takes the target away")
	}
}

func TestGlare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d Dialog
		var going [2]bool
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			by := Party(rapid.IntRange(0, 1).Draw(t, "by"))
			if rapid.Bool().Draw(t, "done") {
				d.InviteDone(by)
				going[by] = false
				continue
			}
			want := 0
			switch {
			case going[by]:
				want = StatusOverlap
			case going[by.Other()]:
				want = StatusGlare
			default:
				going[by] = true
			}
			if got := d.Invite(by); got != want {
				t.Fatalf("%d, want %d", got, want)
			}
		}
	})
}
