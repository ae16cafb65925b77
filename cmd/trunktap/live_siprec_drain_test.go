package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"github.com/trunktap/trunktap/sip/siptest"
)

// A daemon that stops gracefully waits for its recording sessions as it does for calls:
// it takes no new one, tells how many are left, and leaves when the last has ended.
func TestLiveSIPRECDrain(t *testing.T) {
	listen := freeUDP(t, liveHost)
	dialect := siptest.Dialects()[0]
	cfg := siprecConfig(t, listen, []siptest.Dialect{dialect})
	cfg.More += "shutdown: {drain: 2m}\n"
	d := newLiveDaemon(t, cfg)
	d.start()
	ctx, cancel := context.WithTimeout(t.Context(), siprecLimit)
	defer cancel()
	c := must(siptest.NewSRC(siptest.SRCConfig{Addr: netip.AddrPortFrom(dialectAddr(0), 0), Remote: listen}))(t)
	t.Cleanup(func() { _ = c.Close() }) // it may be closed
	call := &siprecLive{dialect: dialect, src: c}
	if err := call.begin(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	taken := 0
	d.within(liveReadyLimit, "new sessions are refused", func() error {
		taken++
		late, err := c.NewDialog(fmt.Sprintf("late-%d", taken), "", 1)
		if err != nil {
			return err
		}
		_, err = late.Invite(ctx, "application/sdp", []byte(late.Expand("v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port1} RTP/AVP 0\r\na=sendonly\r\n")), nil)
		var refused *siptest.RejectedError
		switch {
		case err == nil: // the signal has not arrived yet
			return errors.Join(errors.New("it was not"), late.Bye(ctx))
		case errors.As(err, &refused) && refused.Response.Code == 503 && refused.Response.Get("Retry-After") != "":
			return nil
		}
		return fmt.Errorf("it was not: %w", err)
	})
	for line, want := range map[string]float64{`trunktap_drain_waiting`: 1, `trunktap_siprec_drained_total`: 1, `trunktap_siprec_dialogs`: 1} {
		if got := d.metric(line); got != want {
			t.Errorf("%s is %v, want %v", line, got, want)
		}
	}
	if err := call.bye(ctx); err != nil {
		t.Fatal(err)
	}
	d.ended()
	d.start()
	defer d.stop()
	m := d.recordings(taken)["call-0-0"]
	if m == nil || m.Call.EndCause != "bye" {
		t.Errorf("recording %+v", m)
	}
}
