package siprec

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/sip/siptest"
)

// raw is a peer that sends what it likes.
type raw struct {
	w    *bench
	conn *mediatest.Conn
	addr netip.AddrPort
	got  chan *siptest.Message
}

func (w *bench) raw(at string) *raw {
	w.t.Helper()
	r := &raw{w: w, addr: netip.MustParseAddrPort(at), got: make(chan *siptest.Message, 100)}
	var err error
	if r.conn, err = w.net.Listen(r.addr); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = r.conn.Close() }) // it may be closed
	go func() {
		buf := make([]byte, 65536)
		for {
			n, _, err := r.conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if m, err := siptest.ParseMessage(append([]byte(nil), buf[:n]...)); err == nil {
				select {
				case r.got <- m:
				default: // repetitions that nobody looks at
				}
			}
		}
	}()
	return r
}

// send sends a request; tag is ours of the server's side, empty outside of a dialog.
func (r *raw) send(method, branch string, seq int, tag, body string) {
	to := "<sip:srs@10.0.0.1>"
	if tag != "" {
		to += ";tag=" + tag
	}
	text := fmt.Sprintf("%s sip:srs@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%s\r\nFrom: <sip:src@x>;tag=a\r\nTo: %s\r\nCall-ID: raw\r\nCSeq: %d %s\r\nContact: <sip:src@%s>\r\n",
		method, r.addr, branch, to, seq, method, r.addr)
	if body != "" {
		text += "Content-Type: application/sdp\r\n"
	}
	text += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := r.conn.WriteToUDPAddrPort([]byte(text), serverAddr); err != nil {
		r.w.t.Error(err)
	}
	r.w.settle()
}

// next returns the status of the next response, 0 when there is none, and the tag of
// its To.
func (r *raw) next() (status int, tag string) {
	select {
	case m := <-r.got:
		_, tag, _ = strings.Cut(m.Get("To"), "tag=")
		return m.Code, tag
	default:
		return 0, ""
	}
}

func (r *raw) want(statuses ...int) (tag string) {
	r.w.t.Helper()
	for _, want := range statuses {
		got, to := r.next()
		if got != want {
			r.w.t.Errorf("answered with %d, want %d", got, want)
		}
		tag = to
	}
	if got, _ := r.next(); got != 0 {
		r.w.t.Errorf("answered with %d as well", got)
	}
	return tag
}

const rawSDP = "v=0\r\no=- 1 1 IN IP4 10.0.0.70\r\ns=-\r\nc=IN IP4 10.0.0.70\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=sendonly\r\n"

func TestOutsideOfDialogs(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		r := w.raw("10.0.0.70:5060")
		r.send("OPTIONS", "1", 1, "", "")
		m := <-r.got
		if m.Code != 200 || !strings.Contains(m.Get("Contact"), "+sip.srs") || !strings.Contains(m.Get("Supported"), "siprec") || !strings.Contains(m.Get("Accept"), TypeMetadata) {
			t.Errorf("OPTIONS: %s", m.Bytes())
		}
		r.send("BYE", "2", 1, "nobody", "")
		r.want(481)
		r.send("CANCEL", "3", 1, "", "")
		r.want(481)
		r.send("SUBSCRIBE", "4", 1, "", "")
		r.want(405)
		r.send("ACK", "5", 1, "x", "")
		r.want()
		stranger := w.raw("10.9.9.9:5060")
		stranger.send("INVITE", "6", 1, "", rawSDP)
		stranger.want()
		if w.srv.counters.Transport.Denied.Load() != 1 {
			t.Error("the stranger was not counted")
		}
	})
}

// Repetitions are answered as the first time, a 2xx is repeated until its ACK, and a
// dialog that nobody acknowledges ends.
func TestRepetitions(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		r := w.raw("10.0.0.70:5060")
		r.send("INVITE", "1", 1, "", rawSDP)
		tag := r.want(100, 200)
		r.send("INVITE", "1", 1, "", rawSDP)
		r.want()
		r.send("INVITE", "other", 1, "", rawSDP)
		r.want(482)
		r.send("ACK", "other", 1, "", "")
		time.Sleep(600 * time.Millisecond)
		r.want(200)
		r.send("ACK", "2", 1, tag, "")
		time.Sleep(5 * time.Second)
		r.want()
		r.send("INFO", "3", 1, tag, "")
		r.want(500) // its number is not new
		r.send("REFER", "4", 2, tag, "")
		r.want(405)
		r.send("OPTIONS", "5", 3, tag, "")
		r.want(200)
		r.send("INFO", "6", 4, "another", "")
		r.want(481)
		r.send("BYE", "7", 5, tag, "")
		r.want(200)
		r.send("BYE", "7", 5, tag, "")
		r.want(200)
		r.send("INFO", "8", 6, tag, "")
		r.want(481)
		if n := len(w.obs.sessions); n != 1 || !strings.HasSuffix(w.log(), "ended bye") {
			t.Errorf("%d sessions", n)
		}
	})
}

func TestNoACK(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		r := w.raw("10.0.0.70:5060")
		r.send("INVITE", "1", 1, "", rawSDP)
		time.Sleep(40 * time.Second)
		if !strings.HasSuffix(w.log(), "ended timeout") {
			t.Errorf("told:\n%s", w.log())
		}
	})
}

// A CANCEL while the recorder is asked ends what it began.
func TestCancel(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		w.obs.delay = time.Second
		r := w.raw("10.0.0.70:5060")
		r.send("INVITE", "1", 1, "", rawSDP)
		r.want(100)
		r.send("CANCEL", "1", 1, "", "")
		time.Sleep(1200 * time.Millisecond)
		r.want(200, 487)
		r.send("ACK", "1", 1, "", "")
		if got := w.log(); got != "ended failed" {
			t.Errorf("told:\n%s", got)
		}
	})
}

// Keys in INFO reach no manifest.
func TestKeysAreNotKept(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := plainDialog()
		d.Body = strings.Replace(d.Body, "--foobar--", "--foobar\r\nContent-Type: application/dtmf-relay\r\n\r\nSignal=7\r\n--foobar--", 1)
		c, _ := w.dial("call", d)
		for _, typ := range []string{"application/dtmf-relay", "application/dtmf", "text/plain"} {
			if _, err := c.Do(w.ctx, "INFO", typ, []byte("Signal=7\r\nDuration=160\r\n")); err != nil {
				t.Fatal(err)
			}
		}
		w.log()
		for _, doc := range w.obs.taps[0].docs {
			if strings.Contains(string(doc.Body), "Signal") {
				t.Errorf("kept %q", doc.Body)
			}
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

// Closing the server hangs up, and waits for the answer.
func TestCloseHangsUp(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		c, _ := w.dial("call", plainDialog())
		go func() {
			time.Sleep(time.Second)
			w.srv.mu.Lock()
			defer w.srv.mu.Unlock()
			for _, l := range w.srv.byID {
				l.stopOnce.Do(func() { close(l.stop) })
			}
		}()
		time.Sleep(2 * time.Second)
		if got := c.Requests(); len(got) != 1 || got[0].Method != "BYE" || !strings.HasSuffix(w.log(), "ended shutdown") {
			t.Errorf("requests %+v", got)
		}
	})
}

// More dialogs than are allowed are refused with 503, ended ones that linger count,
// and nothing is left of any.
func TestFloodIsBounded(t *testing.T) {
	inBubble(t, func(c *Config) { c.CallsMax = 5 }, func(w *bench) {
		r := w.raw("10.0.0.70:5060")
		statuses := map[int]int{}
		for i := range 200 {
			text := fmt.Sprintf("INVITE sip:srs@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%d\r\nFrom: <sip:src@x>;tag=a\r\nTo: <sip:srs@10.0.0.1>\r\nCall-ID: flood-%d\r\nCSeq: 1 INVITE\r\nContact: <sip:x@y>\r\nContent-Length: 0\r\n\r\n", r.addr, i, i)
			if i%2 == 1 {
				text = strings.Replace(text, "Contact", "Require: telepathy\r\nContact", 1)
			}
			if _, err := r.conn.WriteToUDPAddrPort([]byte(text), serverAddr); err != nil {
				t.Fatal(err)
			}
			w.settle()
			for s, _ := r.next(); s != 0; s, _ = r.next() {
				statuses[s]++
			}
			w.srv.mu.Lock()
			n := len(w.srv.byID)
			w.srv.mu.Unlock()
			if n > 10 {
				t.Fatalf("%d dialogs", n)
			}
		}
		if statuses[503] < 180 || statuses[200] != 5 {
			t.Errorf("answered with %v", statuses)
		}
		time.Sleep(2 * time.Minute)
	})
}

// Whoever is no source any more may end what it began, and begin nothing.
func TestReload(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		c, _ := w.dial("call", plainDialog())
		other := testSource()
		other.Peers = []netip.Prefix{netip.MustParsePrefix("10.0.0.200/32")}
		if err := w.srv.Reload([]Source{other}); err != nil {
			t.Fatal(err)
		}
		again, err := w.src.NewDialog("new", "", 1)
		if err != nil {
			t.Fatal(err)
		}
		if res, _ := again.Invite(w.ctx, "application/sdp", []byte(rawSDP), nil); res == nil || res.Code != 503 {
			t.Errorf("a former source is answered with %+v", res)
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
		if err := w.srv.Reload([]Source{{Name: "broken"}}); err == nil {
			t.Error("a source without peers was taken")
		}
	})
}
