package siprec

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip/siptest"
)

// Metadata and bodies that are built to cost, in a re-INVITE and in INFO, leave the session
// as it is: both streams go on, on their sides, and the BYE ends one recording.
func TestCostlyMetadata(t *testing.T) {
	nested := func(n int) string {
		return `<recording xmlns="urn:ietf:params:xml:ns:recording:1">` + strings.Repeat("<x>", n) + strings.Repeat("</x>", n) + `</recording>`
	}
	for name, body := range map[string]string{
		"billion laughs":    `<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><recording xmlns="urn:ietf:params:xml:ns:recording:1"><session session_id="&c;&c;&c;"/></recording>`,
		"external entity":   `<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><recording xmlns="urn:ietf:params:xml:ns:recording:1"><session session_id="s"><groupref>&x;</groupref></session></recording>`,
		"deep":              nested(7000),
		"wide":              partial(strings.Repeat(`<participant participant_id="p"/>`, 1500)),
		"many participants": partial(manyParticipants(700)),
		"long value":        partial(`<participant participant_id="` + strings.Repeat("p", 50000) + `"/>`),
		"many attributes":   partial(`<participant ` + strings.Repeat(`a="b" `, 8000) + `/>`),
		"namespaces":        `<recording xmlns="urn:ietf:params:xml:ns:recording:1" ` + manyNamespaces(1500) + `/>`,
		"never ends":        `<recording xmlns="urn:ietf:params:xml:ns:recording:1">` + strings.Repeat("<participant>", 4000),
		"text":              partial(strings.Repeat("x", 55000)),
		"processing":        strings.Repeat(`<?x y?>`, 8000) + partial(""),
		"comments":          partial(strings.Repeat("<!--x-->", 7000)),
		"no XML":            strings.Repeat("\x00\xff<", 18000),
		"everybody left":    partial(strings.Repeat(`<participantsessionassoc participant_id="nobody" session_id="none"><disassociate-time>x</disassociate-time></participantsessionassoc>`, 400)),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(w *bench) {
				d := plainDialog()
				c, _ := w.dial("call", d)
				if err := c.Play(d.Tones...); err != nil {
					t.Fatal(err)
				}
				before := w.log()
				var m [2]runtime.MemStats
				runtime.ReadMemStats(&m[0])
				for _, method := range []string{"INFO", "UPDATE", "MESSAGE"} {
					if _, err := c.Do(w.ctx, method, TypeMetadata, []byte(body)); err != nil {
						t.Error(err)
					}
				}
				runtime.ReadMemStats(&m[1])
				if n := m[1].TotalAlloc - m[0].TotalAlloc; n > 64<<20 {
					t.Errorf("it cost %d MiB", n>>20)
				}
				time.Sleep(time.Second)
				if log := strings.TrimPrefix(w.log(), before); strings.Contains(log, "ended") || strings.Contains(log, "hold") || strings.Contains(log, "agent.leave") {
					t.Errorf("the session was told:%s", log)
				}
				if p := w.obs.taps[0].packets; p[0] < 40 || p[1] < 40 {
					t.Errorf("packets %v", p)
				}
				if err := c.Bye(w.ctx); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func manyParticipants(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `<participant participant_id="p%d"><nameID aor="sip:%d@x"/></participant>`, i, i)
	}
	return b.String()
}

func manyNamespaces(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `xmlns:n%d="urn:%d" `, i, i)
	}
	return b.String()
}

// Descriptions with lines without number open no ports without number.
func TestCostlyOffers(t *testing.T) {
	head := "v=0\r\no=- 1 1 IN IP4 10.0.0.66\r\ns=-\r\nc=IN IP4 10.0.0.66\r\nt=0 0\r\n"
	for name, body := range map[string]string{
		"lines":         head + strings.Repeat("m=audio 4000 RTP/AVP 0\r\n", 2400),
		"seventeen":     head + strings.Repeat("m=audio 4000 RTP/AVP 0\r\n", linesMax+1),
		"nothing":       head,
		"nested parts":  strings.Repeat("--b\r\nContent-Type: multipart/mixed;boundary=b\r\n\r\n", 1100) + head,
		"payload types": head + "m=audio 4000 RTP/AVP" + strings.Repeat(" 96", 18000) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(w *bench) {
				free := w.srv.cfg.Relay.PortsFree(serverAddr.Addr())
				c, err := w.src.NewDialog("costly", "", 0)
				if err != nil {
					t.Fatal(err)
				}
				typ := "application/sdp"
				if name == "nested parts" {
					typ = "multipart/mixed;boundary=b"
				}
				_, err = c.Invite(w.ctx, typ, []byte(body), nil, siptest.Header{Name: "Require", Value: "siprec"})
				if n := free - w.srv.cfg.Relay.PortsFree(serverAddr.Addr()); n > linesMax {
					t.Errorf("%d pairs of ports are taken, %v", n, err)
				}
				if err == nil {
					_ = c.Bye(w.ctx) // where an offer of ours was not answered, the session has ended
				}
				time.Sleep(time.Minute)
				if n := w.srv.cfg.Relay.PortsFree(serverAddr.Addr()); n != free {
					t.Errorf("%d pairs of ports are free, %d before", n, free)
				}
			})
		})
	}
}

// Requests with the Call-ID of a session, other tags and another address of the source end
// nothing.
func TestForgedRequests(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		c, _ := w.dial("raw", plainDialog()) // of the client; raw speaks in its name from another address
		evil := w.raw("10.0.0.70:5060")
		before := w.log()
		for i, method := range []string{"BYE", "INVITE", "UPDATE", "INFO", "MESSAGE", "CANCEL", "ACK", "OPTIONS"} {
			evil.send(method, fmt.Sprint("forged", i), 4000+i, "nobody", rawSDP)
			for n, _ := evil.next(); n != 0; n, _ = evil.next() {
				if n < 400 {
					t.Errorf("%s is answered with %d", method, n)
				}
			}
		}
		if log := w.log(); log != before {
			t.Errorf("told %s", strings.TrimPrefix(log, before))
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}
