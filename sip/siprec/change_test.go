package siprec

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/sip/siptest"
)

// sdpOf is a description with a line for each label; a label behind "-" is one of port 0.
func sdpOf(labels ...string) string {
	out := "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n"
	for i, label := range labels {
		port := fmt.Sprintf("{port%d}", i+1)
		if strings.HasPrefix(label, "-") {
			label, port = label[1:], "0"
		}
		out += fmt.Sprintf("m=audio %s RTP/AVP 0\r\na=sendonly\r\n", port)
		if label != "" {
			out += "a=label:" + label + "\r\n"
		}
	}
	return out
}

// Lines come and go, labels move from one to the other: each party stays on its side, and
// a stream that ended is not the one that has its line next.
func TestLinesAndLabelsChange(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := plainDialog()
		d.Tones = make([]float64, 4)
		c, _ := w.dial("call", d)
		w.log()
		w.obs.taps[0].lines = nil
		free := w.srv.cfg.Relay.PortsFree(serverAddr.Addr())
		offer := func(labels ...string) {
			t.Helper()
			res, err := c.Invite(w.ctx, "application/sdp", []byte(c.Expand(sdpOf(labels...))), nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := sdp.Parse(res.Body)
			if err != nil || len(answer.Media()) < len(labels) {
				t.Fatalf("%v: answered %s", err, res.Body)
			}
			for i, l := range labels {
				if got, _ := answer.Attribute(i, "label"); answer.Media()[i].Rejected != strings.HasPrefix(l, "-") || !answer.Media()[i].Rejected && got != l {
					t.Errorf("line %d of %v is answered with\n%s", i, labels, res.Body)
				}
			}
		}
		offer("20", "10") // the labels change places
		w.want(`stream 1 ended`, `stream 3 "20" internal by domain sending true [sip:4711@pbx.example]`,
			`stream 2 ended`, `stream 4 "10" external by domain sending true [sip:+4930901820@carrier.example]`)
		offer("-20", "10") // port 0
		if log := w.log(); !strings.Contains(log, "stream 3 ended") || strings.Contains(log, "stream 4") {
			t.Errorf("told\n%s", log)
		}
		w.obs.taps[0].lines = nil
		offer("99", "10") // the line is used again, by a label that the metadata has not
		if log := w.log(); !strings.Contains(log, `stream 5 "99" internal by other sending true []`) {
			t.Errorf("told\n%s", log)
		}
		for i := range 60 {
			if i%2 == 0 {
				offer("10", "20", "", "10") // a label twice, none
			} else {
				offer("-10", "20", "-", "-10")
			}
		}
		if n := free - w.srv.cfg.Relay.PortsFree(serverAddr.Addr()); n > 2 {
			t.Errorf("%d more pairs of ports are taken", n)
		}
		offer("10", "20", "-", "-")
		if log := w.log(); strings.Contains(log, "INVALID") || !strings.Contains(log[strings.LastIndex(log, "stream"):], "sending") {
			t.Errorf("told\n%s", log)
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

// A line that comes back while fewer are offered than before: what is not offered any more
// ends (RFC 3264 section 8 forbids it; some do so).
func TestFewerLinesThanBefore(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		c, _ := w.dial("call", plainDialog())
		w.log()
		w.obs.taps[0].lines = nil
		if _, err := c.Invite(w.ctx, "application/sdp", []byte(c.Expand(sdpOf("10"))), nil); err != nil {
			t.Fatal(err)
		}
		if log := w.log(); !strings.Contains(log, "stream 2 ended") || strings.Contains(log, "stream 1 ended") {
			t.Errorf("told\n%s", log)
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

// A client whose key changes in the call is read with the new one.
func TestKeyChanges(t *testing.T) {
	inBubble(t, func(c *Config) {
		c.Sources[0].SRTP = &srtp.Config{Sides: [2]srtp.SideConfig{media.External: {Policy: srtp.Required}}}
	}, func(w *bench) {
		d := sdesDialog()
		c, _ := w.dial("call", d)
		stream := &mediatest.RTPStream{SSRC: 7}
		w.sdes(c, stream)
		const other = "2 AES_CM_128_HMAC_SHA1_80 inline:WnD7c1ksDGs+dIefCEo8omPg4uO8DYIinNGL5yxQ"
		if _, err := c.Invite(w.ctx, d.ContentType, []byte(c.Expand(strings.ReplaceAll(d.Body, clientKey, other))), nil); err != nil {
			t.Fatal(err)
		}
		line, err := srtp.ParseCrypto(other)
		if err != nil {
			t.Fatal(err)
		}
		p := protector(t, line)
		for range 10 {
			wire, err := p.RTP(make([]byte, 1500), stream.Audio(make([]int16, 160)))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Send(0, wire); err != nil {
				t.Fatal(err)
			}
		}
		w.log()
		if got := w.obs.taps[0].packets[media.External]; got != 20 {
			t.Errorf("%d packets, want 10 with each key", got)
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

// A client that ignores the request for a snapshot is asked again, at most every 30 s, and
// recorded all the same. Updates at a high rate are all taken, and kept within bounds.
func TestSnapshotIgnoredAndManyUpdates(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		c, _ := w.dial("call", plainDialog())
		if err := c.Play(1000, 440); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for i := range 200 {
			body := partial(fmt.Sprintf(`<participantstreamassoc participant_id="nobody%d"><send>nothing</send></participantstreamassoc><x:e xmlns:x="urn:x">%d</x:e>`, i, i))
			if _, err := c.Do(w.ctx, "INFO", TypeMetadata, []byte(body)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		most := int(time.Since(began)/snapshotEvery) + 1
		if n := len(c.Requests()); n == 0 || n > most {
			t.Errorf("%d requests in %s", n, time.Since(began))
		}
		if log := w.log(); strings.Contains(log, "ended") || strings.Contains(log, "agent.leave") {
			t.Errorf("told\n%s", log)
		}
		w.obs.mu.Lock()
		docs := len(w.obs.taps[0].docs)
		w.obs.mu.Unlock()
		w.srv.mu.Lock()
		var r *recording
		for _, l := range w.srv.byID {
			r = l.rec
		}
		w.srv.mu.Unlock()
		r.mu.Lock()
		flows := len(r.known.Flows)
		r.mu.Unlock()
		if docs > documentsMax || flows > 2000 {
			t.Errorf("%d documents are kept, %d associations known", docs, flows)
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

// Two dialogs of a call, one of which is silent: it ends, the other and the recording go on.
func TestOneOfTwoDialogsDies(t *testing.T) {
	inBubble(t, func(c *Config) { c.MediaTimeout = 30 * time.Second }, func(w *bench) {
		d := plainDialog()
		half := func(label string) siptest.DialectDialog {
			one := d
			one.Body = "--foobar\r\nContent-Type: application/sdp\r\n\r\n" + sdpOf(label) + "\r\n" + d.Body[strings.Index(d.Body, "--foobar\r\nContent-Type: application/rs"):]
			one.Tones = []float64{440}
			return one
		}
		a, _ := w.dial("a", half("10"))
		b, _ := w.dial("b", half("20"))
		if err := b.Play(440); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := a.Requests(); len(got) != 1 || got[0].Method != "BYE" || len(b.Requests()) != 0 {
			t.Errorf("%d requests to the silent one, %d to the other", len(got), len(b.Requests()))
		}
		if log := w.log(); !strings.Contains(log, "stream 1 ended") || strings.Contains(log, "stream 2 ended") || strings.Contains(log, "ended media") {
			t.Errorf("told\n%s", log)
		}
		if err := b.Bye(w.ctx); err != nil {
			t.Error(err)
		}
		if !strings.HasSuffix(w.log(), "ended bye") {
			t.Errorf("told\n%s", w.log())
		}
	})
}
