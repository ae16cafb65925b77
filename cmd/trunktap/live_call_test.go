package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// livePair is a call through the daemon, seen from both ends.
type livePair struct {
	external, internal *siptest.Call
	hz                 [2]float64
}

// call makes a call inwards and lets each side speak its tone.
func (d *liveDaemon) call(agents [2]*siptest.Agent, hz [2]float64) *livePair {
	d.t.Helper()
	p := d.callAny(agents, hz)
	if p.internal.ID() != p.external.ID() {
		d.t.Fatal("the calls were mixed up")
	}
	return p
}

// callAny is call on a trunk that may hide identities.
func (d *liveDaemon) callAny(agents [2]*siptest.Agent, hz [2]float64) *livePair {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := &livePair{hz: hz}
	agents[1].Speak(func() siptest.Source { return siptest.Tone(hz[1], 0.5) })
	p.external = must(agents[0].Call(ctx, "sip:desk@"+d.via().String(), d.via(), siptest.CallOptions{Play: siptest.Tone(hz[0], 0.5)}))(d.t)
	p.internal = must(agents[1].Accept(ctx))(d.t)
	agents[1].Speak(nil)
	return p
}

// bye ends the call when all that was sent has arrived.
func (p *livePair) bye(ctx context.Context) error {
	p.quiet()
	return p.external.Bye(ctx)
}

// quiet lets both ends send no more, and waits for what is under way.
func (p *livePair) quiet() {
	p.external.Media().Halt()
	p.internal.Media().Halt()
	time.Sleep(200 * time.Millisecond)
	arrived(p.external, p.internal, 10*time.Second) // who counts packets sees what is lost
	arrived(p.internal, p.external, 10*time.Second)
}

// packets compares what was sent with what came, both ways.
func (p *livePair) packets(t *testing.T) []livePacket {
	t.Helper()
	return append(livePackets(t, "inwards", p.external, p.internal), livePackets(t, "outwards", p.internal, p.external)...)
}

// livePackets compares what was sent with what came, byte for byte, and returns how
// long each packet took, by the time of its sending.
func livePackets(t *testing.T, what string, from, to *siptest.Call) []livePacket {
	t.Helper()
	sent, got := from.Media().Sent(), to.Media().Received()
	if len(sent) != len(got) {
		t.Errorf("%s: %d packets sent, %d came", what, len(sent), len(got))
		return nil
	}
	out := make([]livePacket, len(sent))
	for i := range sent {
		if !bytes.Equal(sent[i].Wire, got[i].Wire) {
			t.Errorf("%s: packet %d was changed", what, i)
			return nil
		}
		out[i] = livePacket{sent[i].At, got[i].At.Sub(sent[i].At)}
	}
	return out
}

type livePacket struct {
	at   time.Time
	took time.Duration
}

// percentile is of what packets took that were sent in [from, to).
func percentile(ps []livePacket, from, to time.Time, percent int) time.Duration {
	var d []time.Duration
	for _, p := range ps {
		if !p.at.Before(from) && p.at.Before(to) {
			d = append(d, p.took)
		}
	}
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*percent/100)]
}

// windowsMS is the length of all windows together.
func windowsMS(m *recorder.Manifest) (sum int64) {
	ws := slices.Clone(m.Windows)
	slices.SortFunc(ws, func(a, b recorder.Window) int { return int(a.RealMS - b.RealMS) })
	end := int64(0)
	for _, w := range ws {
		if w.Channel != nil {
			continue // it takes out no time
		}
		if from := max(w.RealMS, end); w.EndRealMS > from {
			sum += w.EndRealMS - from
			end = w.EndRealMS
		}
	}
	return sum
}

// checkAccount holds that audio and windows are the whole of the call.
func checkAccount(t *testing.T, m *recorder.Manifest) {
	t.Helper()
	if got := m.AudioMS + windowsMS(m); got != m.RealMS {
		t.Errorf("recording %s: audio and windows are %d ms, the call %d ms", m.ID, got, m.RealMS)
	}
	if len(m.Channels) != 2 || m.Channels[0].Side != "external" || m.Channels[1].Side != "internal" {
		t.Errorf("recording %s: channels %+v", m.ID, m.Channels)
	}
}

// checkVoices holds that each channel has its own tone, and nothing of the
// other's, in nearly all of its tenths of a second; those with a gap do not count.
func checkVoices(t *testing.T, m *recorder.Manifest, pcm [2][]int16, hz [2]float64) {
	t.Helper()
	checkVoicesOf(t, m, pcm, hz, 0)
}

// checkVoicesOf is checkVoices of parties that were silent for a while.
func checkVoicesOf(t *testing.T, m *recorder.Manifest, pcm [2][]int16, hz [2]float64, silent time.Duration) {
	t.Helper()
	if ms := int64(len(pcm[0])) / 8; ms < m.AudioMS-1 || ms > m.AudioMS+1 {
		t.Errorf("recording %s: %d ms in the file, %d ms in the account", m.ID, ms, m.AudioMS)
	}
	const tenth = 800 // samples
	for ch := range pcm {
		own, other, spans := 0, 0, 0
		edges := 2 * len(m.Windows)
		for _, g := range m.Gaps {
			if g.Channel == ch {
				edges++
			}
		}
		for i := 0; i+tenth <= len(pcm[ch]); i += tenth {
			if slices.ContainsFunc(m.Gaps, func(g recorder.Gap) bool {
				return g.Channel == ch && int(g.AudioMS)*8 < i+tenth && int(g.AudioMS+g.DurationMS)*8 > i
			}) {
				continue
			}
			spans++
			// Spoken with 1.3e8; Opus leaves of some tones a quarter, in a moment less.
			if mediatest.Energy(pcm[ch][i:i+tenth], hz[ch], 8000) > 1e7 {
				own++
			}
			if mediatest.Energy(pcm[ch][i:i+tenth], hz[1-ch], 8000) > 1e5 {
				other++
			}
		}
		// A window leaves edges, a gap one.
		if spans < 5 || own < spans-4-edges-int(2*silent/(100*time.Millisecond)) || other > 2+2*len(m.Windows) {
			t.Errorf("recording %s, channel %d: own voice in %d of %d spans, the other's in %d", m.ID, ch, own, spans, other)
		}
	}
}

// together runs f for each index at once and returns what went wrong.
func together(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
