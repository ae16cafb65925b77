package b2bua

import (
	"strings"
	"testing"
)

// TestFieldsPass sends what belongs to the parties, not to who stands between them.
func TestFieldsPass(t *testing.T) {
	invite := []string{
		"Privacy: id;critical",
		"Identity: eyJhbGciOiJFUzI1NiJ9.e30.c2ln;info=<https://cert.example/a.pem>;alg=ES256;ppt=shaken",
		"P-Charging-Vector: icid-value=1234bc9876e;icid-generated-at=192.0.6.8;orig-ioi=home1.example",
		"P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=262010000000000",
		"Contact: <sip:alice@192.0.2.66;gr=urn:uuid:f81d4fae>;+sip.instance=\"<urn:uuid:f81d4fae>\"",
		"Supported: gruu, outbound, tdialog", "Session-ID: ab30317f1a784dc48ff824d0d3715d86;remote=00000000000000000000000000000000",
		"Resource-Priority: esnet.0", "Geolocation: <cid:alice@example.net>",
	}
	inBubble(t, nil, func(w *bench) {
		a := begin(w.a, outside, "fields", sdpOf(carrier.Addr(), 7000), invite...)
		w.a.want("100")
		p := w.p.take(inside)
		got := string(p.invite.Append(nil))
		for _, line := range invite {
			if !strings.HasPrefix(line, "Contact") && !strings.Contains(got, "\r\n"+line+"\r\n") {
				t.Errorf("%q is missing in\n%s", line, got)
			}
		}
		if c := p.invite.Get("Contact"); !strings.Contains(c, ";gr=urn:uuid:f81d4fae") || !strings.Contains(c, "+sip.instance") {
			t.Errorf("Contact %s", c)
		}
		w.p.reply(p.invite, 480, "pbx", []string{`Reason: Q.850;cause=19;text="no answer"`, "Warning: 399 pbx \"x\""}, "")
		res := w.a.want("480")
		if res.Get("Reason") != `Q.850;cause=19;text="no answer"` || res.Get("Warning") == "" {
			t.Errorf("response changed:\n%s", res.Append(nil))
		}
		a.branches--
		a.send("ACK", nil, "")
		w.p.want("ACK")

		b, _ := w.established("reason")
		b.send("BYE", []string{`Reason: Q.850;cause=16;text="normal"`}, "")
		bye := w.p.want("BYE")
		if bye.Get("Reason") != `Q.850;cause=16;text="normal"` {
			t.Errorf("BYE changed:\n%s", bye.Append(nil))
		}
		w.p.reply(bye, 200, "", nil, "")
		w.a.want("200 BYE")
	})
}
