package siprec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/sip/siptest"
)

// configured gives the source what the dialect's client needs.
func configured(d siptest.Dialect) func(*Config) {
	return func(c *Config) {
		s := &c.Sources[0]
		s.InternalDomains = nil
		if slices.ContainsFunc(d.Source, func(l string) bool { return strings.Contains(l, "pbx.example") }) {
			s.InternalDomains = []string{"pbx.example"}
		}
		if slices.Contains(d.Source, "caller: external") {
			side := media.External
			s.Caller = &side
		}
	}
}

// Every dialect is answered as RFC 7866 says, and its parties are on their sides.
func TestDialects(t *testing.T) {
	for _, d := range siptest.Dialects() {
		t.Run(d.Name, func(t *testing.T) {
			inBubble(t, configured(d), func(w *bench) { speakDialect(w, d) })
		})
	}
}

func speakDialect(w *bench, d siptest.Dialect) {
	t := w.t
	var calls []*siptest.SRCDialog
	for i, one := range d.Dialogs {
		c, res := w.dial(fmt.Sprintf("call-%d", i), one)
		if !strings.Contains(res.Get("Contact"), "+sip.srs") || !strings.Contains(res.Get("Supported"), "siprec") {
			t.Errorf("Contact %q, Supported %q", res.Get("Contact"), res.Get("Supported"))
		}
		checkAnswer(t, []byte(c.Expand(one.Body)), c.Answer(), len(one.Tones))
		if err := c.Play(one.Tones...); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, c)
	}
	time.Sleep(time.Second)
	w.log()
	tap, s := w.obs.taps[0], w.obs.sessions[0]
	for side, user := range map[media.Side]string{media.External: "49", media.Internal: "4711"} {
		if uri := s.Parties[side].URI; !strings.Contains(uri, user) && !d.Mixed {
			t.Errorf("the %s party is %q", side, uri)
		}
		if got := tap.packets[side]; (got < 40) != (d.Mixed && side == media.Internal) {
			t.Errorf("%d packets of the %s side", got, side)
		}
	}
	if !strings.Contains(w.log(), " by "+d.SideBy+" ") || d.Mixed != strings.Contains(w.log(), " mixed ") {
		t.Errorf("sides by something else than %q:\n%s", d.SideBy, w.log())
	}
	docs := len(tap.docs)
	if d.Kept != (docs > 0) {
		t.Errorf("kept %d documents", docs)
	}
	for i, c := range calls {
		if _, err := c.Invite(w.ctx, d.Dialogs[i].ContentType, []byte(c.Expand(d.Dialogs[i].Paused())), nil); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(w.log(), "hold.start external") {
		t.Errorf("no hold:\n%s", w.log())
	}
	for i, c := range calls {
		if _, err := c.Invite(w.ctx, d.Dialogs[i].ContentType, []byte(c.Expand(d.Dialogs[i].Body)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if log := w.log(); strings.Count(log, "hold.start") != strings.Count(log, "hold.end") || strings.Contains(log, "agent.leave") {
		t.Errorf("resumed:\n%s", log)
	}
	if n := len(tap.docs); n != docs {
		t.Errorf("kept %d documents after the same came again, %d before", n, docs)
	}
	for _, c := range calls {
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	}
	if !strings.HasSuffix(w.log(), "ended bye") || strings.Count(w.log(), "answered") != 1 || strings.Contains(w.log(), "INVALID") {
		t.Errorf("ended:\n%s", w.log())
	}
}

// checkAnswer compares an answer with its offer: as many lines, labels echoed,
// receiving alone.
func checkAnswer(t *testing.T, offer, answer []byte, streams int) {
	t.Helper()
	c := split("", offer)
	if c.sdp == nil {
		c.sdp = offer
	}
	o, err := sdp.Parse(c.sdp)
	if err != nil {
		t.Fatal(err)
	}
	a, err := sdp.Parse(answer)
	if err != nil || len(a.Media()) != len(o.Media()) || len(a.Media()) != streams {
		t.Fatalf("%v: %s", err, answer)
	}
	for i, m := range a.Media() {
		want, _ := o.Attribute(i, "label")
		got, _ := a.Attribute(i, "label")
		if m.Direction != sdp.RecvOnly || got != want || m.Port == 0 || m.Proto != o.Media()[i].Proto || m.Formats[0].PayloadType != o.Media()[i].Formats[0].PayloadType {
			t.Errorf("line %d is answered with %+v, label %q", i, m, got)
		}
	}
}

// plainDialog is an INVITE with two streams and metadata of RFC 7865.
func plainDialog() siptest.DialectDialog {
	for _, d := range siptest.Dialects() {
		if d.Name == "Webex" {
			return d.Dialogs[0]
		}
	}
	return siptest.DialectDialog{}
}

func partial(text string) string {
	return `<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>partial</datamode>` + text + `</recording>`
}

const (
	idOne, idTwo         = "cGFydGljaXBhbnQtb25lLQ==", "cGFydGljaXBhbnQtdHdvLQ==" // participants of the dialects
	idSession            = "c2Vzc2lvbi1vZi10aGUtcw=="
	streamOne, streamTwo = "c3RyZWFtLW51bWJlci1vbg==", "c3RyZWFtLW51bWJlci10dw=="
)

// Metadata in INFO, UPDATE and re-INVITE: hold, an agent who leaves and another who
// comes, a stream that is added and one that is removed.
func TestMetadataUpdates(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := plainDialog()
		d.Tones = append(d.Tones, 1500)
		c, _ := w.dial("call", d)
		w.want(`answered`, `stream 1 "10" external by domain sending true [sip:+4930901820@carrier.example]`,
			`stream 2 "20" internal by domain sending true [sip:4711@pbx.example]`, `attrs.set [siprec.session siprec.sip_session_id]`, `agent.join 4711`)
		send := func(method, body string) {
			t.Helper()
			if _, err := c.Do(w.ctx, method, TypeMetadata, []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		send("INFO", partial(`<participantstreamassoc participant_id="`+idTwo+`"><recv>`+streamOne+`</recv></participantstreamassoc>`))
		w.want(`stream 2 "20" internal by domain sending false []`, `hold.start internal`)
		send("UPDATE", partial(`<participantstreamassoc participant_id="`+idTwo+`"><send>`+streamTwo+`</send></participantstreamassoc>`))
		w.want(`stream 2 "20" internal by domain sending true [sip:4711@pbx.example]`, `hold.end internal`)
		send("UPDATE", partial(`<participantsessionassoc participant_id="`+idTwo+`" session_id="`+idSession+`"><disassociate-time>2026-03-01T12:01:00Z</disassociate-time></participantsessionassoc>`+
			`<participant participant_id="p3"><nameID aor="sip:4712@pbx.example"/></participant>`+
			`<participantstreamassoc participant_id="p3"><send>`+streamTwo+`</send></participantstreamassoc>`))
		w.want(`stream 2 "20" internal by domain sending true [sip:4712@pbx.example]`, `agent.join 4712`, `agent.leave 4711`)

		body := c.Expand(strings.Replace(plainDialog().Body, "--foobar\r\nContent-Type: application/rs", "m=audio {port3} RTP/AVP 0\r\na=label:30\r\na=sendonly\r\n\r\n--foobar\r\nContent-Type: application/rs", 1))
		body = body[:strings.Index(body, "--foobar\r\nContent-Type: application/rs")] + "--foobar--\r\n"
		if _, err := c.Invite(w.ctx, d.ContentType, []byte(body), nil); err != nil {
			t.Fatal(err)
		}
		w.want(`stream 3 "30" internal by unknown sending true []`)
		if _, err := c.Invite(w.ctx, d.ContentType, []byte(strings.Replace(body, fmt.Sprintf("m=audio %s", c.Expand("{port3}")), "m=audio 0", 1)), nil); err != nil {
			t.Fatal(err)
		}
		w.want(`stream 3 ended`)
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
		w.want(`stream 1 ended`, `stream 2 ended`, `ended bye`)
	})
}

// A hold by c=0.0.0.0, and a stream alone that stops.
func TestPauses(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := plainDialog()
		c, _ := w.dial("call", d)
		body := c.Expand(d.Body)
		again := func(text string) {
			t.Helper()
			if _, err := c.Invite(w.ctx, d.ContentType, []byte(text), nil); err != nil {
				t.Fatal(err)
			}
		}
		w.want(strings.Split(w.log(), "\n")...)
		again(strings.Replace(body, "c=IN IP4 "+clientAddr.Addr().String(), "c=IN IP4 0.0.0.0", 1))
		if log := w.log(); !strings.Contains(log, "hold.start external") || !strings.Contains(log, "hold.start internal") {
			t.Errorf("zero address:\n%s", log)
		}
		again(body)
		w.want(strings.Split(w.log(), "\n")...)
		again(strings.Replace(body, "a=sendonly", "a=inactive", 1))
		w.want(`stream 1 "10" external by domain sending false [sip:+4930901820@carrier.example]`, `hold.start external`)
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

// An INVITE without a description is offered two streams; what the ACK answers is
// recorded.
func TestLateOffer(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		c, err := w.src.NewDialog("call", "", 2)
		if err != nil {
			t.Fatal(err)
		}
		answer := c.Expand("v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port1} RTP/AVP 0\r\na=sendonly\r\na=label:20\r\nm=audio {port2} RTP/AVP 0\r\na=sendonly\r\na=label:10\r\n")
		meta := plainDialog()
		i := strings.Index(meta.Body, "<?xml")
		xml := meta.Body[i:strings.LastIndex(meta.Body, "--foobar--")]
		res, err := c.Invite(w.ctx, TypeMetadata, []byte(xml), []byte(answer), siptest.Header{Name: "Require", Value: "siprec"})
		if err != nil {
			t.Fatal(err)
		}
		d, err := sdp.Parse(res.Body)
		if err != nil || len(d.Media()) != 2 || d.Media()[0].Direction != sdp.RecvOnly {
			t.Fatalf("%v: offered %s", err, res.Body)
		}
		if err := c.Play(1000, 440); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if log := w.log(); !strings.Contains(log, `"20" internal by domain sending true`) || !strings.Contains(log, `"10" external by domain sending true`) {
			t.Errorf("told:\n%s", log)
		}
		if p := w.obs.taps[0].packets; p[media.External] < 40 || p[media.Internal] < 40 {
			t.Errorf("packets %v", p)
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

// Without metadata a session is recorded too; when it comes later, the sides are put
// right from then on.
func TestMetadataComesLater(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := plainDialog()
		d.Body = strings.Replace(d.Body[:strings.Index(d.Body, "--foobar\r\nContent-Type: application/rs")]+"--foobar--\r\n", "label:10", "label:99", 1)
		d.Body = strings.Replace(strings.Replace(d.Body, "label:20", "label:10", 1), "label:99", "label:20", 1)
		c, _ := w.dial("call", d)
		w.want(`answered`, `stream 1 "20" external by unknown sending true []`, `stream 2 "10" internal by unknown sending true []`)
		if got := w.srv.counters.SidesUnknown.Load(); got != 1 {
			t.Errorf("%d dialogs of unknown sides are counted", got)
		}
		full := plainDialog().Body
		if _, err := c.Invite(w.ctx, d.ContentType, []byte(c.Expand(strings.Replace(d.Body, "--foobar--\r\n", full[strings.Index(full, "--foobar\r\nContent-Type: application/rs"):], 1))), nil); err != nil {
			t.Fatal(err)
		}
		w.want(`stream 1 ended`, `stream 3 "20" internal by domain sending true [sip:4711@pbx.example]`, `stream 2 ended`,
			`stream 4 "10" external by domain sending true [sip:+4930901820@carrier.example]`, `attrs.set [siprec.session siprec.sip_session_id]`,
			`call.linked [session-id:a0b1c2d3e4f5061728394a5b6c7d8e9f]`, `call.linked [session-id:9f8e7d6c5b4a39281706f5e4d3c2b1a0]`, `agent.join 4711`)
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

// Two dialogs of one session feed one recording, which lasts as long as one of them.
func TestTwoDialogsOfOneSession(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := plainDialog()
		half := func(label string) siptest.DialectDialog {
			one := d
			sdp := "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port1} RTP/AVP 0\r\na=sendonly\r\na=label:" + label + "\r\n"
			one.Body = "--foobar\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n" + d.Body[strings.Index(d.Body, "--foobar\r\nContent-Type: application/rs"):]
			one.Tones = []float64{1}
			return one
		}
		a, _ := w.dial("a", half("10"))
		b, _ := w.dial("b", half("20"))
		if got := w.srv.counters.DialogsJoined.Load(); got != 1 {
			t.Errorf("%d dialogs were joined", got)
		}
		if err := a.Bye(w.ctx); err != nil {
			t.Error(err)
		}
		if log := w.log(); strings.Contains(log, "ended bye") || !strings.Contains(log, `"20" internal by domain sending true`) {
			t.Errorf("after the first BYE:\n%s", log)
		}
		if err := b.Bye(w.ctx); err != nil {
			t.Error(err)
		}
		if log := w.log(); !strings.HasSuffix(log, "ended bye") {
			t.Errorf("after the second BYE:\n%s", log)
		}
	})
}

// A partial document that cannot be understood alone makes us ask for a snapshot.
func TestSnapshotIsRequested(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := plainDialog()
		c, _ := w.dial("call", d)
		if _, err := c.Do(w.ctx, "INFO", TypeMetadata, []byte(partial(`<participantstreamassoc participant_id="nobody"><send>nothing</send></participantstreamassoc>`))); err != nil {
			t.Fatal(err)
		}
		w.settle()
		got := c.Requests()
		if len(got) != 1 || got[0].Method != "UPDATE" || got[0].Get("Content-Type") != TypeMetadataRequest || !strings.Contains(string(got[0].Body), "requestsnapshot") {
			t.Fatalf("%+v", got)
		}
		if _, err := c.Do(w.ctx, "UPDATE", TypeMetadata, []byte(d.Body[strings.Index(d.Body, "<?xml"):strings.LastIndex(d.Body, "--foobar--")])); err != nil {
			t.Fatal(err)
		}
		w.settle()
		if n := len(c.Requests()); n != 1 {
			t.Errorf("%d requests after the snapshot", n)
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestRefusals(t *testing.T) {
	bare := "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port1} RTP/AVP 0\r\na=sendonly\r\n"
	for name, c := range map[string]struct {
		edit    func(*Config)
		obs     func(*observer)
		body    string
		headers []siptest.Header
		status  int
	}{
		"the recorder cannot":      {obs: func(o *observer) { o.err = errors.New("disk full") }, body: bare, status: 503},
		"the recorder panics":      {obs: func(o *observer) { o.panics = true }, body: bare, status: 503},
		"the recorder hangs":       {obs: func(o *observer) { o.delay = 10 * time.Second }, body: bare, status: 503},
		"an unknown extension":     {body: bare, headers: []siptest.Header{{Name: "Require", Value: "siprec, telepathy"}}, status: 420},
		"no audio":                 {body: strings.Replace(bare, "m=audio", "m=video", 1), status: 488},
		"no description":           {body: "v=", status: 488},
		"SRTP where it is off":     {body: strings.Replace(bare, "RTP/AVP", "RTP/SAVP", 1), status: 488},
		"nothing is wrong with it": {body: bare, status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, c.edit, func(w *bench) {
				if c.obs != nil {
					c.obs(w.obs)
				}
				d, err := w.src.NewDialog("call", "", 1)
				if err != nil {
					t.Fatal(err)
				}
				res, err := d.Invite(w.ctx, "application/sdp", []byte(d.Expand(c.body)), nil, c.headers...)
				if res == nil || res.Code != c.status {
					t.Fatalf("%v %+v", err, res)
				}
				if c.status == 200 {
					if err := d.Bye(w.ctx); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(15 * time.Second)
				if w.obs.delay > 0 && !strings.HasSuffix(w.log(), "ended failed") {
					t.Errorf("a recorder that came late was told %q", w.log())
				}
			})
		})
	}
}
