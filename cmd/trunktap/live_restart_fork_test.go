package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/siptest"
)

// TestLiveRestartFork kills the daemon twice while it sends a call to another recorder,
// the second time in a secure pause: the session there goes on, with packets of the same
// sources, and nothing of the pause.
func TestLiveRestartFork(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16)
	other := newOtherRecorder(t, liveTrunk[1][0])
	trunks[0].Recording = []string{fmt.Sprintf(`fork_to: ["sip:record@%s"]`, other.addr)}
	d := newLiveDaemon(t, liveConfig{Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, Media: []string{"engine: user"}})
	d.start()
	c := d.call(agents[0], [2]float64{440, 1000})
	await(t, "a session at the other recorder", func() bool { return len(other.requests(sip.Ack)) > 0 })
	time.Sleep(2 * time.Second)
	invites := len(other.requests(sip.Invite))
	d.kill()
	d.start()
	await(t, "a re-INVITE after the restart", func() bool { return len(other.requests(sip.Invite)) > invites })
	time.Sleep(2 * time.Second)
	if _, err := d.signal(c.external.ID(), "pause.start"); err != nil {
		t.Fatal(err)
	}
	c.external.Media().Play(siptest.Tone(2222, 0.5)) // of the pause: no other recorder may hear it
	await(t, "the pause at the other recorder", func() bool {
		list := other.requests(sip.Invite)
		return strings.Contains(string(list[len(list)-1].Body), "a=inactive")
	})
	d.kill()
	d.start()
	time.Sleep(1500 * time.Millisecond)
	c.external.Media().Play(siptest.Tone(440, 0.5))
	time.Sleep(300 * time.Millisecond)
	if _, err := d.signal(c.external.ID(), "pause.end"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	if err := c.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "the end at the other recorder", func() bool { return len(other.requests(sip.Bye)) > 0 })
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		if m.Call.EndCause != "bye" || len(m.Segments) != 3 {
			t.Errorf("end cause %q, %d segments", m.Call.EndCause, len(m.Segments))
		}
		checkRestartedCopy(t, m)
	}
	other.checkOneSession(t)
	for ch, hz := range c.hz {
		pcm := other.pcm(ch)
		own, foreign := tenths(pcm, hz), tenths(pcm, 2222)+tenths(pcm, c.hz[1-ch])
		t.Logf("channel %d: %d ms, its tone in %d tenths of a second, another in %d", ch, len(pcm)/8, own, foreign)
		if own < 20 || foreign > 0 {
			t.Errorf("channel %d: its tone is in %d tenths of a second, another in %d", ch, own, foreign)
		}
	}
	text := d.metrics()
	for _, want := range []string{"resumed_total 1\n", "calls_total 0\n", "failovers_total 0\n", "dismissed_total 0\n"} {
		if !strings.Contains(text, "trunktap_fork_"+want) {
			t.Errorf("/metrics has no line trunktap_fork_%s", want)
		}
	}
	d.stop()
}

// checkRestartedCopy holds that the account of a copy goes on over restarts: what was
// sent before and after, and that nobody knows of what was under way.
func checkRestartedCopy(t *testing.T, m *recorder.Manifest) {
	t.Helper()
	if len(m.Copies) != 1 {
		t.Fatalf("copies %+v", m.Copies)
	}
	c := m.Copies[0]
	unknown := int64(0)
	for _, s := range c.Spans {
		if s.Unsent == recorder.CopyUnknown {
			unknown += s.EndRealMS - s.RealMS
		}
	}
	t.Logf("copy %+v", c)
	if last := c.Spans[len(c.Spans)-1]; last.Server == "" || last.EndRealMS != m.RealMS || c.ThroughMS != m.RealMS || unknown == 0 || unknown > 2*2*2500 {
		t.Errorf("of a recording of %d ms the copy has %+v", m.RealMS, c)
	}
}

// checkOneSession demands one dialog, with CSeq numbers that rise, and packets of one
// source for each channel whose numbers and time stamps rise.
func (o *otherRecorder) checkOneSession(t *testing.T) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	var last uint32
	for _, m := range o.messages {
		if seq, _ := m.CSeq(); m.Method == sip.Invite {
			if m.CallID() != o.messages[0].CallID() || m.FromTag() != o.messages[0].FromTag() || seq < last {
				t.Errorf("another session, or an old number:\n%s", m.Append(nil))
			}
			last = seq
		}
	}
	for ch, list := range o.packets {
		ssrcs := map[uint32]bool{}
		for i, p := range list {
			ssrcs[p.SSRC] = true
			if i > 0 && (int16(p.SequenceNumber-list[i-1].SequenceNumber) <= 0 || int32(p.Timestamp-list[i-1].Timestamp) <= 0) {
				t.Errorf("channel %d: packet %d, %d follows %d, %d", ch, p.SequenceNumber, p.Timestamp, list[i-1].SequenceNumber, list[i-1].Timestamp)
			}
		}
		if len(ssrcs) != 1 {
			t.Errorf("channel %d: %d sources", ch, len(ssrcs))
		}
	}
}

// TestLiveRestartCopies lets one daemon record what another sends it, and kills first
// the one that sends, then the one that records.
func TestLiveRestartCopies(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16)
	copies, more := takesCopies(t)
	trunks[0].Recording = copies
	sends := newLiveDaemon(t, liveConfig{Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, Media: []string{"engine: user"}})
	records := newLiveDaemon(t, liveConfig{Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, More: more})
	records.start()
	sends.start()
	const n = 4
	calls := make([]*livePair, n)
	for i := range calls {
		calls[i] = sends.call(agents[0], [2]float64{400 + 20*float64(i), 1000 + 20*float64(i)})
	}
	for _, d := range []*liveDaemon{sends, records} {
		time.Sleep(2500 * time.Millisecond)
		d.kill()
		d.start()
	}
	time.Sleep(2500 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := together(n, func(i int) error { return calls[i].bye(ctx) }); err != nil {
		t.Fatal(err)
	}
	sends.recordings(n)
	parties := map[string]bool{}
	for _, m := range records.recordings(n) {
		checkAccount(t, m)
		if m.Call.EndCause != "bye" || len(m.Segments) != 2 {
			t.Errorf("end cause %q, %d segments", m.Call.EndCause, len(m.Segments))
		}
		i := slices.IndexFunc(calls, func(c *livePair) bool {
			return tenths(records.export(m.ID)[0], c.hz[0]) > 20
		})
		if i < 0 || parties[fmt.Sprint(i)] {
			t.Errorf("recording %s is of call %d", m.ID, i)
			continue
		}
		parties[fmt.Sprint(i)] = true
		pcm := records.export(m.ID)
		for ch, hz := range calls[i].hz {
			own, foreign := tenths(pcm[ch], hz), tenths(pcm[ch], calls[i].hz[1-ch])
			t.Logf("call %d, channel %d: %d ms, its tone in %d tenths of a second", i, ch, len(pcm[ch])/8, own)
			if own < 35 || foreign > 0 {
				t.Errorf("call %d, channel %d: its tone is in %d tenths of a second, another in %d; gaps %+v", i, ch, own, foreign, m.Gaps)
			}
		}
	}
	for _, d := range []*liveDaemon{sends, records} {
		if out := d.command("verify"); !strings.Contains(out, "0 findings") {
			t.Error(out)
		}
		d.stop()
	}
}
