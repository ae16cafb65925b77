package b2bua

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// TestRegistrarAnswersPass: what a registrar says to a phone gets there as it is: that
// its interval is too short, its challenges and their next nonce, GRUUs, Flow-Timer.
func TestRegistrarAnswersPass(t *testing.T) {
	inBubble(t, phones(sip.RegistrationsContact), func(w *bench) {
		contact := fmt.Sprintf("Contact: <sip:ann@%s>;+sip.instance=\"<urn:uuid:1>\";reg-id=1", pbx)
		for _, c := range []struct {
			status int
			fields []string
		}{
			{401, []string{`WWW-Authenticate: Digest realm="pbx.example", nonce="n1", qop="auth"`}},
			{423, []string{"Min-Expires: 3600"}},
			{200, []string{
				`Authentication-Info: nextnonce="n2"`, "Require: outbound", "Flow-Timer: 120",
				`P-Associated-URI: <sip:ann@pbx.example>`, "Date: Sat, 01 Jan 2000 00:00:00 GMT",
			}},
			{439, nil},
		} {
			d, reg := w.registerAt(contact, `Authorization: Digest username="ann", realm="pbx.example", nonce="n0", uri="sip:pbx.example", response="00"`, "Supported: path, outbound, gruu")
			if !strings.Contains(reg.Get("Authorization"), `nonce="n0", uri="sip:pbx.example"`) || !reg.HasToken("Supported", "outbound") {
				t.Errorf("the registrar gets\n%s", reg.Text())
			}
			fields := c.fields
			if c.status == 200 {
				fields = append(fields, "Contact: "+reg.Get("Contact")+`;pub-gruu="sip:ann@pbx.example;gr=urn:uuid:1";temp-gruu="sip:tgruu.7@pbx.example;gr";expires=600`)
			}
			w.a.reply(reg, c.status, "reg", fields, "")
			res := w.p.want(fmt.Sprint(c.status))
			for _, f := range c.fields {
				name, value, _ := strings.Cut(f, ": ")
				if res.Get(name) != value {
					t.Errorf("%d: %s: %s, want %s", c.status, name, res.Get(name), value)
				}
			}
			if c.status == 200 && !strings.HasSuffix(res.Get("Contact"), `temp-gruu="sip:tgruu.7@pbx.example;gr";expires=600`) {
				t.Errorf("Contact %s", res.Get("Contact"))
			}
			w.p.seen = map[string]bool{}
			_ = d
			time.Sleep(40 * time.Second) // the next is no repetition
		}
	})
}

// TestSeveralContacts: a phone registers at two addresses, one of IPv6, and takes one
// away; each is known to the registrar by one name of ours.
func TestSeveralContacts(t *testing.T) {
	inBubble(t, phones(sip.RegistrationsContact), func(w *bench) {
		a, b := "<sip:ann@10.0.0.66>", "<sip:ann@[2001:db8::7]:5062;transport=udp>"
		_, reg := w.registerAt("Contact: "+a+";q=1, "+b, "m: <tel:+49301>")
		first := reg.List("Contact")
		if len(first) != 3 || strings.Contains(reg.Text(), "2001:db8") || !strings.HasSuffix(first[0], ";q=1") {
			t.Fatalf("the registrar gets\n%s", reg.Text())
		}
		w.a.reply(reg, 200, "reg", []string{"Contact: " + strings.Join(first, ", ")}, "")
		if got := w.p.want("200").List("Contact"); len(got) != 3 || got[0] != a+";q=1" || got[1] != b || got[2] != "<tel:+49301>" {
			t.Errorf("the phone is told %s", got)
		}
		time.Sleep(40 * time.Second)
		_, reg = w.registerAt("Contact: " + b + ";expires=0")
		if got := reg.Get("Contact"); got != first[1]+";expires=0" {
			t.Errorf("%s is taken away, %s was registered", got, first[1])
		}
		w.a.reply(reg, 200, "reg", []string{"Contact: " + first[0]}, "")
		w.p.want("200")
	})
}

// TestServiceRoute: routes that the registrar wants to be used (RFC 3608) lead the phone
// over us, and from us over the routes.
func TestServiceRoute(t *testing.T) {
	for _, mode := range []sip.Registrations{sip.RegistrationsContact, sip.RegistrationsPath} {
		inBubble(t, func(cfg *Config) { phones(mode)(cfg) }, func(w *bench) {
			_, reg := w.registerAt("Contact: <sip:ann@10.0.0.66>")
			w.a.reply(reg, 200, "reg", []string{"Service-Route: <sip:orig@192.0.2.66;lr>, <sip:second.example;lr;x=1>"}, "")
			res := w.p.want("200")
			routes := res.List("Service-Route")
			foreign(t, res, "192.0.2.66;lr", "second.example")
			if len(routes) != 2 {
				t.Fatalf("%s", routes)
			}
			d := &dialogue{
				p: w.p, us: inside, callID: "out", local: "<sip:ann@pbx.example>;tag=o", remote: "<sip:bob@pbx.example>", target: "sip:bob@pbx.example",
				routes: []string{"Route: <sip:10.0.0.1;lr>", "Route: " + strings.Join(routes, ", "), "Route: <sip:tr.c2lwOmEK@10.0.0.1;lr>, <sip:evil.example;lr>"},
			}
			d.send("MESSAGE", nil, "")
			m := w.a.want("MESSAGE")
			if got := strings.Join(m.List("Route"), ", "); got != "<sip:orig@192.0.2.66;lr>, <sip:second.example;lr;x=1>" {
				t.Errorf("%v: Route %s", mode, got)
			}
			w.a.reply(m, 200, "x", nil, "")
			w.p.want("200 MESSAGE")
		})
	}
}

// TestFlowFails: who knows of flows (RFC 5626) is told that one is gone, so that it
// tries another.
func TestFlowFails(t *testing.T) {
	inBubble(t, phones(sip.RegistrationsPath), func(w *bench) {
		for contact, want := range map[string]string{
			"<sip:ann@10.0.0.66>;+sip.instance=\"<urn:uuid:1>\";reg-id=1": "430",
			"<sip:eve@10.0.0.66>": "480",
		} {
			_, reg := w.registerAt("Contact: " + contact)
			path := reg.List("Path")[0]
			if (want == "430") != strings.HasSuffix(path, ";lr;ob>") {
				t.Errorf("Path %s", path)
			}
			w.a.reply(reg, 200, "reg", nil, "")
			w.p.want("200")
			b, ok := bindingOf(strings.Trim(path, "<>"))
			if !ok {
				t.Fatal(path)
			}
			b.flow.Network = "tcp" // of which there is no connection, nor a way to open one
			user, _, _ := strings.Cut(strings.TrimPrefix(path, "<sip:"), "@")
			path = strings.Replace(path, user, b.user(), 1)
			a := &dialogue{
				p: w.a, us: outside, callID: "gone" + want, local: "<sip:bob@x>;tag=b", remote: "<sip:ann@x>", target: "sip:ann@10.0.0.66",
				routes: []string{"Route: " + path},
			}
			a.send("INVITE", []string{fmt.Sprintf("Contact: <sip:bob@%s>", carrier)}, sdpOf(carrier.Addr(), 7000))
			w.a.want("100")
			w.a.want(want)
			time.Sleep(40 * time.Second)
			w.a.drain()
			w.p.seen = map[string]bool{}
		}
	})
}

// TestGrantedForOurBinding: of the bindings that a registrar names ours counts.
func TestGrantedForOurBinding(t *testing.T) {
	req := &sip.Message{Method: sip.Register, Headers: []sip.Header{{Name: "Contact", Value: "<sip:4711@192.0.2.1:5060>"}}}
	for _, c := range []struct {
		contacts string
		want     time.Duration
	}{
		{"<sip:other@192.0.2.9>;expires=7, <sip:4711@192.0.2.1:5060>;expires=600, <sip:x@y>;expires=3", 600 * time.Second},
		{"<sip:4711@192.0.2.1>;expires=500, <sip:x@y>;expires=90", 90 * time.Second}, // written otherwise: the least
		{"", 1800 * time.Second},
		{"<sip:4711@192.0.2.1:5060>", 1800 * time.Second},
	} {
		res := &sip.Message{Status: 200, Headers: []sip.Header{{Name: "Contact", Value: c.contacts}, {Name: "Expires", Value: "1800"}}}
		if got := granted(req, res, time.Hour); got != c.want {
			t.Errorf("%s: %s, want %s", c.contacts, got, c.want)
		}
	}
}
