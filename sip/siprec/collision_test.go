package siprec

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/media/srtp/dtls"
	"github.com/trunktap/trunktap/sip/journal/journaltest"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/sip/siptest"
)

// told is a complete document: streams as "id label session participant aor".
func told(sessions []string, streams ...string) string {
	var b strings.Builder
	b.WriteString(`<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>complete</datamode>`)
	for _, s := range sessions {
		fmt.Fprintf(&b, `<session session_id="%s"/>`, s)
	}
	for _, text := range streams {
		f := strings.Fields(text)
		id, label, session, who, aor := f[0], f[1], f[2], f[3], f[4]
		fmt.Fprintf(&b, `<participant participant_id="%s"><nameID aor="%s"/></participant><stream stream_id="%s" session_id="%s"><label>%s</label></stream>`, who, aor, id, session, label)
		fmt.Fprintf(&b, `<participantsessionassoc participant_id="%s" session_id="%s"/><participantstreamassoc participant_id="%s"><send>%s</send></participantstreamassoc>`, who, session, who, id)
	}
	b.WriteString(`</recording>`)
	return b.String()
}

// dialogOf is an INVITE with lines of these labels and a document.
func dialogOf(document string, labels ...string) siptest.DialectDialog {
	return siptest.DialectDialog{
		ContentType: "multipart/mixed;boundary=b", Tones: make([]float64, len(labels)), Headers: []siptest.Header{{Name: "Require", Value: "siprec"}},
		Body: "--b\r\nContent-Type: application/sdp\r\n\r\n" + sdpOf(labels...) + "\r\n--b\r\nContent-Type: " + TypeMetadata + "\r\nContent-Disposition: recording-session\r\n\r\n" + document + "\r\n--b--\r\n",
	}
}

const carrierAOR, agentAOR = "sip:+4930901820@carrier.example", "sip:4711@pbx.example"

// Labels are of one dialog (RFC 4574): what another dialog of the call says of its own
// label 1 says nothing of this one's.
func TestLabelsOfTwoDialogs(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		mine := told([]string{"S"}, "s1 1 S p1 "+carrierAOR)
		other := told([]string{"S"}, "s2 1 S p2 "+agentAOR)
		a, _ := w.dial("a", dialogOf(mine, "1"))
		w.want(`answered`, `stream 1 "1" external by domain sending true [`+carrierAOR+`]`, `attrs.set [siprec.session]`)
		b, _ := w.dial("b", dialogOf(other, "1"))
		w.want(`stream 2 "1" internal by domain sending true [`+agentAOR+`]`, `agent.join 4711`)
		for range 2 { // whoever repeats what it knows changes nothing
			if _, err := a.Do(w.ctx, "INFO", TypeMetadata, []byte(mine)); err != nil {
				t.Fatal(err)
			}
			w.want()
			if _, err := b.Do(w.ctx, "UPDATE", TypeMetadata, []byte(other)); err != nil {
				t.Fatal(err)
			}
			w.want()
		}
		// a partial document of one's own
		update := partial(`<participant participant_id="p3"><nameID aor="sip:4712@pbx.example"/></participant><stream stream_id="s3"><label>1</label></stream>` +
			`<participantstreamassoc participant_id="p3"><send>s3</send></participantstreamassoc>`)
		if _, err := b.Do(w.ctx, "INFO", TypeMetadata, []byte(update)); err != nil {
			t.Fatal(err)
		}
		w.want(`stream 2 "1" internal by domain sending true [sip:4712@pbx.example]`, `agent.join 4712`, `agent.leave 4711`)
		for _, c := range []*siptest.SRCDialog{a, b} {
			if err := c.Bye(w.ctx); err != nil {
				t.Error(err)
			}
		}
	})
}

// One document about the lines of two dialogs, with one label in both: it does not tell
// which of them is whose.
func TestOneLabelForTwoStreams(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		both := told([]string{"S"}, "s1 1 S p1 "+agentAOR, "s2 1 S p2 "+carrierAOR)
		for _, id := range []string{"a", "b"} {
			w.dial(id, dialogOf(both, "1"))
		}
		if log := w.log(); !strings.Contains(log, `stream 1 "1" external by unknown sending true []`) || !strings.Contains(log, `stream 2 "1" internal by unknown sending true []`) {
			t.Errorf("told\n%s", log)
		}
	})
}

// A dialog belongs to the session of its own streams: that its document names another
// one too, of which they were transferred or are consulted, joins it to nothing.
func TestDocumentsThatNameOtherSessions(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		w.dial("a", dialogOf(told([]string{"S1"}, "s1 1 S1 p1 "+carrierAOR, "s2 2 S1 p2 "+agentAOR), "1", "2"))
		w.dial("b", dialogOf(told([]string{"S1", "S2"}, "s1 1 S1 p1 "+carrierAOR, "s3 3 S2 p3 sip:+4940123456@carrier.example", "s4 4 S2 p4 sip:4712@pbx.example"), "3", "4"))
		w.settle()
		w.obs.mu.Lock()
		defer w.obs.mu.Unlock()
		if n := len(w.obs.sessions); n != 2 || w.srv.counters.DialogsJoined.Load() != 0 {
			t.Fatalf("%d recordings", n)
		}
		if p := w.obs.sessions[1].Parties; p[0].URI != "sip:+4940123456@carrier.example" || p[1].URI != "sip:4712@pbx.example" {
			t.Errorf("parties of the other %+v", p)
		}
	})
}

// A client that has lost its dialogs and begins them anew is recorded anew, under
// whichever Call-ID; what it repeats is repeated.
func TestClientThatBeginsAnew(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		r := w.raw("10.0.0.70:5060")
		r.send("INVITE", "1", 7, "", rawSDP)
		first := r.want(100, 200)
		r.send("ACK", "2", 7, first, "")
		time.Sleep(5 * time.Second)
		r.want()
		r.send("INVITE", "other", 7, "", rawSDP) // merged, RFC 3261 section 8.2.2.2
		r.want(482)
		r.send("ACK", "other", 7, "", "")
		time.Sleep(time.Minute)
		for len(r.got) > 0 {
			<-r.got
		}
		r.send("INVITE", "anew", 7, "", rawSDP)
		second, status := "", 0
		for len(r.got) > 0 {
			m := <-r.got
			if m.Method == "BYE" {
				t.Error("a BYE, which the client may take for one of the new dialog")
			}
			if status = m.Code; status == 200 {
				_, second, _ = strings.Cut(m.Get("To"), "tag=")
			}
		}
		if status != 200 || second == first || second == "" {
			t.Fatalf("answered with %d, tag %q after %q", status, second, first)
		}
		r.send("ACK", "anew2", 7, second, "")
		r.send("OPTIONS", "o", 8, second, "")
		r.want(200)
		r.send("OPTIONS", "p", 9, first, "")
		r.want(481)
		w.obs.mu.Lock()
		if n := len(w.obs.taps); n != 2 || !strings.Contains(strings.Join(w.obs.taps[0].lines, "\n"), "ended") || strings.Contains(strings.Join(w.obs.taps[1].lines, "\n"), "ended") {
			t.Errorf("%d recordings", n)
		}
		w.obs.mu.Unlock()
		r.send("BYE", "bye", 9, second, "")
		r.want(200)
		time.Sleep(time.Minute)
		w.srv.mu.Lock()
		defer w.srv.mu.Unlock()
		if n := len(w.srv.byID); n != 0 || len(w.srv.legs) != 0 {
			t.Errorf("%d dialogs, %d keys are left", n, len(w.srv.legs))
		}
	})
}

// A client whose fingerprint changes makes another handshake; the keys of the one before
// open nothing any more. One that repeats its offer does not.
func TestFingerprintChanges(t *testing.T) {
	inBubble(t, securing(&journaltest.Mem{}, 0, true), func(w *bench) {
		certificates := make([]*dtls.Certificate, 2)
		for i := range certificates {
			var err error
			if certificates[i], err = dtls.NewCertificate(time.Now(), nil); err != nil {
				t.Fatal(err)
			}
		}
		c, client := w.dtls(certificates[0])
		w.settle()
		packets := func() int { w.log(); return w.obs.taps[0].packets[0] + w.obs.taps[0].packets[1] }
		client.send(t, 10)
		if n := packets(); n != 10 {
			t.Fatalf("%d packets", n)
		}
		offer := func(at string, certificate *dtls.Certificate) []srtp.Fingerprint {
			t.Helper()
			ap := netip.MustParseAddrPort(at)
			text := fmt.Sprintf("v=0\r\no=- 1 2 IN IP4 %s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %d UDP/TLS/RTP/SAVP 0\r\na=sendonly\r\na=rtcp-mux\r\na=setup:active\r\na=fingerprint:%s\r\n", ap.Addr(), ap.Port(), certificate.Fingerprint())
			res, err := c.Invite(w.ctx, "application/sdp", []byte(text), nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := sdp.Parse(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			session, own := answer.Protection(0)
			theirs, faults := srtp.ReadMedia(answer.Media()[0].Proto, session, own)
			if len(faults) > 0 || !strings.Contains(string(res.Body), "a=setup:passive") {
				t.Fatalf("%v in\n%s", faults, res.Body)
			}
			return theirs.Fingerprints
		}
		shaken := client.shaken.Load()
		offer("10.0.0.66:7000", certificates[0]) // a refresh
		client.send(t, 10)
		if n := packets(); n != 20 || client.shaken.Load() != shaken {
			t.Errorf("%d packets after a refresh", n)
		}
		theirs := offer("10.0.0.66:7001", certificates[1])
		conn, err := w.net.Listen(netip.MustParseAddrPort("10.0.0.66:7001"))
		if err != nil {
			t.Fatal(err)
		}
		next := &dtlsClient{conn: conn, to: client.to, stream: client.stream}
		keys := next.shake(t, certificates[1], theirs)
		if next.p, err = srtp.NewProtector(keys.Send); err != nil {
			t.Fatal(err)
		}
		next.stream.SSRC = 10
		w.settle()
		next.send(t, 10)
		if n := packets(); n != 30 {
			t.Errorf("%d packets after another handshake", n)
		}
		client.send(t, 10) // by the keys of before
		if n := packets(); n != 30 {
			t.Errorf("%d packets, what the keys of before protect is taken", n)
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
		client.close(t)
		next.close(t)
	})
}

// What two dialogs say of one label is kept apart in the next process, too.
func TestLabelsOfTwoDialogsOverRestart(t *testing.T) {
	j := &journaltest.Mem{}
	byValue := func(c *Config) {
		c.Sources[0].InternalDomains, c.Sources[0].Sides = nil, []SideRule{{Value: "role=agent", Side: media.Internal}}
	}
	inBubble(t, func(c *Config) { journalling(j)(c); byValue(c) }, func(w *bench) {
		mine := strings.Replace(told([]string{"S"}, "s1 1 S p1 "+agentAOR), "</participant>", `<x:role xmlns:x="urn:x">agent</x:role></participant>`, 1)
		other := told([]string{"S"}, "s2 1 S p2 "+carrierAOR)
		a, _ := w.dial("a", dialogOf(mine, "1"))
		b, _ := w.dial("b", dialogOf(other, "1"))
		before := strings.Split(w.log(), "\n")
		if _, restored := w.killed(j, func(c *Config, _ map[string][]byte) { byValue(c) }); len(restored.Sessions) != 1 {
			t.Fatalf("restored %+v", restored)
		}
		w.want(`answered`, `stream 1 "1" internal by rule sending true [`+agentAOR+`]`, `stream 2 "1" external by number sending true [`+carrierAOR+`]`)
		for c, document := range map[*siptest.SRCDialog]string{a: mine, b: other} {
			if _, err := c.Do(w.ctx, "INFO", TypeMetadata, []byte(document)); err != nil {
				t.Fatal(err)
			}
		}
		if log := w.log(); log != "" {
			t.Errorf("told before the restart\n%s\nand after it, once the same came again\n%s", strings.Join(before, "\n"), log)
		}
		for _, c := range []*siptest.SRCDialog{a, b} {
			if err := c.Bye(w.ctx); err != nil {
				t.Error(err)
			}
		}
	})
}
