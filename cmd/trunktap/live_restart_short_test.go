package main

import (
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// TestLiveRestartShort kills the daemon as soon as calls have ended that lasted so short
// that nothing of them can be on the disk: each has its recording all the same, in which
// what is missing is a gap.
func TestLiveRestartShort(t *testing.T) {
	trunks, agents := twoTrunks(t, recorder.FormatOggOpus)
	d := newLiveDaemon(t, liveConfig{Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}})
	d.start()
	agents[0][1].Script(func(in *siptest.Incoming) { in.Run(siptest.Answer{Play: siptest.Tone(1000, 0.5)}) })
	lasted := map[string]time.Duration{}
	for range 4 {
		c := must(agents[0][0].Call(t.Context(), "sip:desk@"+d.via().String(), d.via(), siptest.CallOptions{Play: siptest.Tone(440, 0.5)}))(t)
		began := time.Now()
		time.Sleep(80 * time.Millisecond)
		if err := c.Bye(t.Context()); err != nil {
			t.Fatal(err)
		}
		lasted[c.ID()] = time.Since(began)
		d.kill()
		c.Media().Halt()
		d.start()
	}
	for id, m := range d.recordings(len(lasted)) {
		checkAccount(t, m)
		if at := time.Duration(m.RealMS) * time.Millisecond; lasted[id] == 0 || at > lasted[id]+time.Second {
			t.Errorf("call %s lasted %s, its recording %s", id, lasted[id], at)
		}
		t.Logf("%s: %d ms, %s, gaps %+v", id, m.RealMS, m.Call.EndCause, m.Gaps)
	}
	if out := d.command("verify"); !strings.Contains(out, "0 findings") {
		t.Error(out)
	}
	d.stop()
}
