package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// A daemon takes the copy that it sends itself: client and server of SIPREC
// understand each other, and the copy has both parties where the recording has them.
func TestLiveSIPRECTakesItsOwnCopies(t *testing.T) {
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16)
	copies, more := takesCopies(t)
	trunks[0].Recording = copies
	d := newLiveDaemon(t, liveConfig{Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, More: more})
	d.start()
	c := d.call(agents[0], [2]float64{440, 1000})
	time.Sleep(3 * time.Second)
	if err := c.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range d.recordings(2) {
		names[m.Trunk] = true
		pcm := d.export(m.ID)
		for ch, hz := range c.hz {
			own, foreign := tenths(pcm[ch], hz), tenths(pcm[ch], c.hz[1-ch])
			t.Logf("%s, channel %d: %d ms, its tone in %d tenths of a second, another in %d", m.Trunk, ch, len(pcm[ch])/8, own, foreign)
			if own < 15 || foreign > 0 {
				t.Errorf("%s, channel %d: its tone is in %d tenths of a second, another in %d; labels %+v", m.Trunk, ch, own, foreign, m.Labels)
			}
		}
	}
	if !names["copies"] || !names[trunks[0].Name] {
		t.Errorf("recordings of %v", names)
	}
	d.stop()
}

// takesCopies returns the keys of a trunk's recording that send copies to a daemon, and
// what that one has in its configuration.
func takesCopies(t *testing.T) (recording []string, more string) {
	t.Helper()
	listen := freeUDP(t, liveHost)
	return []string{fmt.Sprintf(`fork_to: ["sip:record@%s"]`, listen)}, fmt.Sprintf(`
siprec:
  listen: ["udp://%s"]
  sources:
    - name: copies
      peers: ["127.0.0.0/8"]
      media_address: "%s"
      sides: [{aor: "sip:desk@*", side: internal}]
      recording: {format: wav-pcm16, sample_rate: 8000}
`, listen, liveHost)
}
