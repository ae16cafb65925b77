package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip/siptest"
)

// TestLiveRestartSRTP kills the daemon, twice in a row, under calls whose SRTP it ends on
// one side, on both and on none: media goes on, the parties can decrypt all of it, a
// refresh keeps their keys, new ones are taken, and no key is in anything that was
// written.
func TestLiveRestartSRTP(t *testing.T) {
	s := newSecureLive(t, secureTrunks)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := together(len(s.trunks), func(i int) error { return s.begin(ctx, i) }); err != nil {
		t.Fatal(err)
	}
	for i, c := range s.calls {
		for side, hz := range secureVoices(i) {
			c[side].Media().Play(siptest.Tone(hz, 0.5))
		}
	}
	time.Sleep(2 * time.Second)
	s.kill()
	s.start()
	s.kill()
	s.start()
	if err := together(len(s.trunks), func(i int) error { return s.goesOn(ctx, i) }); err != nil {
		t.Error(err)
	}
	for id, m := range s.recordings(len(s.trunks)) {
		checkAccount(t, m)
		if m.Call.EndCause != "bye" || len(m.Segments) < 2 || restartMS(m) == 0 || m.AudioMS-restartMS(m) < 3000 {
			t.Errorf("call %s on trunk %s: end cause %q, %d segments, %d ms, %d of them missing for the restart", id, m.Trunk, m.Call.EndCause, len(m.Segments), m.AudioMS, restartMS(m))
		}
		for i, tr := range s.trunks {
			if tr.name == m.Trunk {
				checkVoices(t, m, s.export(m.ID), secureVoices(i))
				livePackets := s.calls[i][0].Media().Sent()
				t.Logf("trunk %s: %d packets sent by the carrier, %d heard by the PBX, %d ms of the recording are missing", tr.name, len(livePackets), len(s.calls[i][1].Media().Received()), restartMS(m))
			}
		}
	}
	if out := s.command("verify"); !strings.Contains(out, "0 findings") {
		t.Error(out)
	}
	for _, c := range s.undecrypted() {
		t.Error(c)
	}
	s.stop()
	s.noKeysOf(nil)
}

func secureVoices(i int) [2]float64 { return [2]float64{400 + 40*float64(i), 1000 + 60*float64(i)} }

// goesOn says whether a call is as it was: all that is sent is heard, and changes are agreed.
func (s *secureLive) goesOn(ctx context.Context, i int) error {
	a, p := s.calls[i][0], s.calls[i][1]
	renew := siptest.Offer{}
	if suite, ok := a.Media().Secured(); ok {
		renew.SRTP = &siptest.SRTP{Suites: []string{suite}, Renew: true, Must: true}
	}
	for _, change := range []struct {
		what string
		do   func() error
	}{
		{"restarted", func() error { return nil }},
		{"refreshed", func() error { return p.Reinvite(ctx, siptest.Offer{}) }},
		{"new keys", func() error { return a.Reinvite(ctx, renew) }},
	} {
		if err := change.do(); err != nil {
			return fmt.Errorf("trunk %s: %s: %w", s.trunks[i].name, change.what, err)
		}
		for side, c := range s.calls[i] {
			before := len(c.Media().Received())
			for len(c.Media().Received()) < before+40 {
				if err := ctx.Err(); err != nil {
					return fmt.Errorf("trunk %s: %s: side %d hears %d packets: %w", s.trunks[i].name, change.what, side, len(c.Media().Received())-before, err)
				}
				time.Sleep(livePollEvery)
			}
			if n := c.Media().Undecrypted(); n != 0 {
				return fmt.Errorf("trunk %s: %s: %d packets that side %d cannot decrypt", s.trunks[i].name, change.what, n, side)
			}
		}
	}
	a.Media().Halt()
	p.Media().Halt()
	return a.Bye(ctx)
}
