package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

func dialogForTest() *dialogText {
	return &dialogText{run: "r1", call: 17, local: callerSIP, server: relaySIP}
}

// TestRequestsAreSIP: a parser that is not ours reads them.
func TestRequestsAreSIP(t *testing.T) {
	d := dialogForTest()
	invite := d.request("INVITE", 1, sdpOf(partyMediaAddr(0, 17)))
	p := sip.NewParser()
	m, err := p.ParseSIP(invite)
	if err != nil {
		t.Fatal(err)
	}
	req := m.(*sip.Request)
	if req.CallID().Value() != callName("r1", 17) || req.CSeq().MethodName != sip.INVITE || req.Recipient.User != "agent17" || len(req.Body()) == 0 {
		t.Errorf("%s", invite)
	}
	ours, err := parseSIP(invite)
	if err != nil {
		t.Fatal(err)
	}
	answer := ours.response(200, "OK", calleeSIP, "a17", sdpOf(partyMediaAddr(1, 17)))
	m, err = p.ParseSIP(answer)
	if err != nil {
		t.Fatal(err)
	}
	resp := m.(*sip.Response)
	if tag, _ := resp.To().Params.Get("tag"); resp.StatusCode != 200 || tag != "a17" || resp.Via().Params == nil {
		t.Errorf("%s", answer)
	}
	read, err := parseSIP(answer)
	if err != nil {
		t.Fatal(err)
	}
	d.to, d.target = read.get("to"), read.contact()
	bye := string(d.request("BYE", 2, ""))
	if !strings.HasPrefix(bye, "BYE sip:callee@10.231.3.3:5060 SIP/2.0\r\n") || !strings.Contains(bye, ";tag=a17\r\n") {
		t.Errorf("%s", bye)
	}
	// A tag that is there already is not doubled.
	again, err := parseSIP([]byte(bye))
	if err != nil {
		t.Fatal(err)
	}
	if ok := string(again.response(200, "OK", calleeSIP, "other", "")); strings.Contains(ok, "other") {
		t.Errorf("%s", ok)
	}
}

func TestParseSIP(t *testing.T) {
	m, err := parseSIP([]byte("SIP/2.0 183 Session Progress\r\nv: SIP/2.0/UDP a\r\nVia: SIP/2.0/UDP b\r\ni: x\r\nCSeq: 1 INVITE\r\nm: \"n\" <sip:a@b;x=1>;q=1\r\n folded\r\n\r\nbody"))
	if err != nil {
		t.Fatal(err)
	}
	if m.status != 183 || m.get("call-id") != "x" || m.cseqMethod() != "INVITE" || m.contact() != "sip:a@b;x=1" || m.body != "body" || m.get("none") != "" {
		t.Errorf("%+v", m)
	}
	for _, bad := range []string{"", "\r\n\r\n", "SIP/2.0 x\r\n\r\n", "SIP/2.0 99 x\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "INVITE a SIP/2.0\r\n"} {
		if _, err := parseSIP([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func FuzzParseSIP(f *testing.F) {
	f.Add(dialogForTest().request("INVITE", 1, "v=0\r\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if m, err := parseSIP(b); err == nil {
			_ = m.contact()
			_ = m.response(200, "OK", calleeSIP, "t", "")
		}
	})
}

func TestCallNumber(t *testing.T) {
	if n, ok := callNumber("r1", callName("r1", 4000)); n != 4000 || !ok {
		t.Error(n, ok)
	}
	for _, other := range []string{"", "x", "r2-1@bench", "r1-x@bench"} {
		if n, ok := callNumber("r1", other); ok {
			t.Errorf("%q is call %d", other, n)
		}
	}
}

func TestMediaOf(t *testing.T) {
	want := netip.MustParseAddrPort("10.231.1.2:10034")
	if got, err := mediaOf(sdpOf(partyMediaAddr(0, 17))); got != want || err != nil {
		t.Error(got, err)
	}
	// A connection of the medium itself comes after the session's and counts.
	if got, err := mediaOf("c=IN IP4 1.1.1.1\r\nm=audio 4 RTP/AVP 0\r\nc=IN IP4 2.2.2.2\r\n"); err != nil || got.String() != "2.2.2.2:4" {
		t.Error(got, err)
	}
	for _, bad := range []string{"", "c=IN IP4 x\r\n", "m=audio 70000 RTP/AVP 0\r\n", "c=IN IP4 1.1.1.1\r\nm=audio 0 RTP/AVP 0\r\n"} {
		if got, err := mediaOf(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func FuzzMediaOf(f *testing.F) {
	f.Add(sdpOf(partyMediaAddr(0, 1)))
	f.Fuzz(func(t *testing.T, s string) {
		if at, err := mediaOf(s); err == nil && !at.IsValid() {
			t.Error(at)
		}
	})
}
