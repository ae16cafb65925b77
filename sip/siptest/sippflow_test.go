package siptest

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestFlowScenario(t *testing.T) {
	text, err := flowScenario("> INVITE sendrecv | X-A: b\n<? 180\n< 200 | Contact ~ <sip:.*>\n> ACK\n> BYE\n< 200\n", "desk", "one")
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("no XML: %v\n%s", err, text)
		}
	}
	for _, want := range []string{
		"CSeq: 1 INVITE\n", "\nX-A: b\n", `<recv response="100" optional="true"/>`, `<recv response="180" optional="true" rrs="true">`,
		`regexp="&lt;sip:.*&gt;" search_in="hdr" header="Contact:" check_it="true"`, "CSeq: 1 ACK\n", "BYE [next_url] SIP/2.0", "CSeq: 2 BYE\n", ";tag=one\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for flow, want := range map[string]string{
		"> INVITE\n<": "line 2", "x y": "begins with none", "> 200": "answers nothing", "> INVITE mono": "no description", "< 200 | To": "field without ~",
	} {
		if _, err := flowScenario(flow, "desk", "one"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", flow, err, want)
		}
	}
}
