package siprec

import (
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/srtp"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/sdp"
	"github.com/trunktap/trunktap/sip/siptest"
)

func timed(value string, more ...siptest.Header) siptest.DialectDialog {
	d := plainDialog()
	d.Headers = append([]siptest.Header{{Name: "Supported", Value: "timer"}, {Name: "Session-Expires", Value: value}}, more...)
	return d
}

// A client that is to refresh its session and does not is gone.
func TestSessionExpires(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		c, res := w.dial("call", timed("90;refresher=uac"))
		if got := res.Get("Session-Expires"); got != "90;refresher=uac" || !strings.Contains(res.Get("Require"), "timer") {
			t.Errorf("Session-Expires %q, Require %q", got, res.Get("Require"))
		}
		time.Sleep(50 * time.Second)
		if _, err := c.Do(w.ctx, "UPDATE", "", nil, siptest.Header{Name: "Session-Expires", Value: "90;refresher=uac"}, siptest.Header{Name: "Supported", Value: "timer"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		if n := len(c.Requests()); n != 0 {
			t.Errorf("%d requests though the session was refreshed", n)
		}
		time.Sleep(20 * time.Second)
		if got := c.Requests(); len(got) != 1 || got[0].Method != sip.Bye {
			t.Errorf("requests %+v", got)
		}
		if !strings.HasSuffix(w.log(), "ended timeout") || w.srv.counters.Expired.Load() != 1 {
			t.Errorf("told:\n%s", w.log())
		}
	})
}

// Where the client leaves refreshing to us we do, by what it understands.
func TestSessionIsRefreshed(t *testing.T) {
	for allow, method := range map[string]string{"INVITE, ACK, BYE, UPDATE": sip.Update, "INVITE, ACK, BYE": sip.Invite} {
		t.Run(method, func(t *testing.T) {
			inBubble(t, nil, func(w *bench) {
				c, res := w.dial("call", timed("100;refresher=uas", siptest.Header{Name: "Allow", Value: allow}))
				if got := res.Get("Session-Expires"); got != "100;refresher=uas" {
					t.Errorf("Session-Expires %q", got)
				}
				time.Sleep(160 * time.Second)
				got := c.Requests()
				if len(got) != 3 || got[0].Method != method || !strings.HasPrefix(got[0].Get("Session-Expires"), "100") {
					t.Errorf("requests %+v", got)
				}
				if method == sip.Invite && !strings.Contains(string(got[0].Body), "a=label:10") {
					t.Errorf("re-INVITE with %s", got[0].Body)
				}
				if err := c.Bye(w.ctx); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A client that sends nothing though it said it would is hung up; one on hold is not.
func TestMediaSilence(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		d := plainDialog()
		held := d
		held.Body = d.Paused()
		a, _ := w.dial("a", held)
		time.Sleep(10 * time.Minute)
		if n := len(a.Requests()); n != 0 {
			t.Errorf("%d requests to a client on hold", n)
		}
		if _, err := a.Invite(w.ctx, d.ContentType, []byte(a.Expand(d.Body)), nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute)
		if got := a.Requests(); len(got) != 1 || got[0].Method != sip.Bye || !strings.HasSuffix(w.log(), "ended media-silence") {
			t.Errorf("requests %+v", got)
		}
	})
}

// Streams that are protected by SDES are decrypted before they reach the recorder,
// and none is taken in clear.
func TestSDES(t *testing.T) {
	inBubble(t, func(c *Config) {
		c.Sources[0].SRTP = &srtp.Config{Sides: [2]srtp.SideConfig{media.External: {Policy: srtp.Required}}}
	}, func(w *bench) {
		c, res := w.dial("call", sdesDialog())
		answer, err := sdp.Parse(res.Body)
		if err != nil || len(answer.Media()) != 2 || answer.Media()[0].Proto != "RTP/SAVP" {
			t.Fatalf("%v: %s", err, res.Body)
		}
		if _, own := answer.Protection(0); len(own) != 1 || !strings.HasPrefix(own[0], "crypto:1 AES_CM_128_HMAC_SHA1_80 inline:") || strings.Contains(own[0], "d0RmdmcmVC") {
			t.Errorf("answered with %q", own)
		}
		w.sdes(c, &mediatest.RTPStream{SSRC: 7})
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}
