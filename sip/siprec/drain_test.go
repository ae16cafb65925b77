package siprec

import (
	"strings"
	"testing"

	"github.com/trunktap/trunktap/sip/siptest"
)

// While the server waits for its last session it takes no new one, but all that belongs to
// those that go on: changes, metadata, and a second dialog.
func TestDrain(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := plainDialog()
		c, _ := w.dial("live", d)
		w.srv.Drain()
		late, err := w.src.NewDialog("late", "", 1)
		if err != nil {
			t.Fatal(err)
		}
		res, _ := late.Invite(w.ctx, "application/sdp", []byte(late.Expand(rawSDP)), nil)
		if res == nil || res.Code != 503 || res.Get("Retry-After") == "" {
			t.Fatalf("a new session is answered with %+v", res)
		}
		if n, refused := w.srv.counters.Drained.Load(), w.srv.counters.DialogsRefused.Load(); n != 1 || refused != 1 {
			t.Errorf("%d are counted as drained, %d as refused", n, refused)
		}
		if _, err := c.Invite(w.ctx, d.ContentType, []byte(c.Expand(d.Paused())), nil); err != nil {
			t.Error(err)
		}
		half := d
		half.Body = "--foobar\r\nContent-Type: application/sdp\r\n\r\n" + strings.Replace(rawSDP, "m=audio 4000", "m=audio {port1}", 1) + "\r\n" + d.Body[strings.Index(d.Body, "--foobar\r\nContent-Type: application/rs"):]
		half.Tones = []float64{1}
		second, _ := w.dial("second", half)
		if n := w.srv.Dialogs(); n != 2 || len(w.obs.sessions) != 1 {
			t.Errorf("%d dialogs, %d sessions", n, len(w.obs.sessions))
		}
		for _, x := range []*siptest.SRCDialog{second, c} {
			if err := x.Bye(w.ctx); err != nil {
				t.Error(err)
			}
		}
		if n := w.srv.Dialogs(); n != 0 || !strings.HasSuffix(w.log(), "ended bye") {
			t.Errorf("%d dialogs are waited for", n)
		}
	})
}
