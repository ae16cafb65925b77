package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// liveCapture is a capture of an interface, taken by tcpdump.
type liveCapture struct {
	t      *testing.T
	file   string
	cmd    *exec.Cmd
	stderr *captureLog
}

// captureLog is what tcpdump says; it says that it listens.
type captureLog struct {
	mu    sync.Mutex
	text  bytes.Buffer
	ready chan struct{}
	once  sync.Once
}

// Write implements io.Writer.
func (l *captureLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if bytes.Contains(l.text.Bytes(), []byte("listening on")) {
		l.once.Do(func() { close(l.ready) })
	}
	return len(p), nil
}

func newLiveCapture(t *testing.T, dev, filter string) *liveCapture {
	t.Helper()
	return newLiveCaptureOf(t, dev, filter, 4096)
}

// newLiveCaptureOf takes so much of each packet; the capture's buffer has places of that size.
func newLiveCaptureOf(t *testing.T, dev, filter string, snapBytes int) *liveCapture {
	t.Helper()
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("tcpdump is not installed; make deps installs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("a capture needs root")
	}
	c := &liveCapture{t: t, file: filepath.Join(t.TempDir(), "capture.pcap"), stderr: &captureLog{ready: make(chan struct{})}}
	c.cmd = exec.Command("tcpdump", "-i", dev, "-Z", "root", "-U", "-B", "8192", "--immediate-mode", "-s", strconv.Itoa(snapBytes), "--time-stamp-precision=nano", "-w", c.file, filter)
	c.cmd.Stderr = c.stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill() }) // only what a failed test left behind
	select {
	case <-c.stderr.ready:
	case <-time.After(liveReadyLimit):
		t.Fatalf("tcpdump does not listen: %s", c.stderr.text.String())
	}
	return c
}

// stop ends the capture and reads it.
func (c *liveCapture) stop() []pcap.Packet {
	c.t.Helper()
	time.Sleep(100 * time.Millisecond) // what is in the kernel's buffer comes yet
	if err := errors.Join(c.cmd.Process.Signal(syscall.SIGINT), c.cmd.Wait()); err != nil {
		c.t.Fatalf("tcpdump: %v: %s", err, c.stderr.text.String())
	}
	if s := c.stderr.text.String(); !strings.Contains(s, "\n0 packets dropped by kernel") {
		c.t.Fatalf("the capture has holes: %s", s)
	}
	r := must(pcap.Open(c.file))(c.t)
	defer func() { _ = r.Close() }() // only read
	var out []pcap.Packet
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			c.t.Fatal(err)
		}
		p.Payload = slices.Clone(p.Payload)
		out = append(out, p)
	}
}

// babble is noise with the rhythm of syllables: no stretch of it is like another.
func babble(seed uint64, seconds int) []int16 {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]int16, seconds*8000)
	low := 0.0
	for i := range out {
		low += 0.3 * (r.NormFloat64() - low)
		loud := 0.6 + 0.4*math.Sin(2*math.Pi*float64(i)/float64(2100+200*seed))
		out[i] = int16(max(-30000, min(30000, 9000*loud*low)))
	}
	return out
}

// TestLiveEqualsReplay holds promise 3 on real sockets: the external leg of a
// live call is captured, and the capture replayed gives the same recording, but
// for the time that packets spend in the daemon.
func TestLiveEqualsReplay(t *testing.T) {
	for n := 1; !liveEqualsReplay(t, n < attemptsMax); n++ {
	}
}

// liveEqualsReplay is false when the machine stood still: the run shows nothing
// and is to be repeated.
func liveEqualsReplay(t *testing.T, again bool) bool {
	t.Helper()
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16)
	d := newLiveDaemon(t, liveConfig{Lookback: liveLookback, Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}})
	d.start()
	capture := newLiveCapture(t, "lo", fmt.Sprintf("udp and host %s", liveTrunk[0][0]))
	c := d.call(agents[0], [2]float64{440, 1000})
	c.external.Media().Play(siptest.PCM(babble(1, 20)))
	c.internal.Media().Play(siptest.PCM(babble(2, 20)))
	machine := d.steady()
	signals := replayScript(t, d, c)
	stood := machine.stood()
	capture.stop()
	if late := max(c.external.Media().Latest(), c.internal.Media().Latest()); again && (late > stallMax || stood > 2*standMax) {
		t.Logf("repeated, for the machine stood still for %s: a packet was sent late by %s", stood, late)
		d.stop()
		return false
	}
	var live *recorder.Manifest
	for _, m := range d.recordings(1) {
		live = m
	}
	liveHeard := d.export(live.ID)
	d.stop()

	second, pcm := replayed(t, d, capture.file, signals)
	checkAccount(t, live)
	checkAccount(t, second)
	if len(live.Windows) != 3 || len(second.Windows) != 3 {
		t.Fatalf("windows live %+v, replayed %+v", live.Windows, second.Windows)
	}
	// The capture knows the answer when it leaves the daemon and the BYE before it comes there.
	inside := transit(t, agents[0][1], agents[0][0], "SIP/2.0 200") + transit(t, agents[0][0], agents[0][1], "BYE ")
	t.Logf("real time live %d ms, replayed %d ms; answer and BYE took %d us through the daemon", live.RealMS, second.RealMS, inside.Microseconds())
	if diff := live.RealMS - second.RealMS; max(diff, -diff) > 5+inside.Milliseconds() {
		t.Errorf("real time live %d ms, replayed %d ms", live.RealMS, second.RealMS)
	}
	compareRuns(t, live, second, liveHeard, pcm)
	return true
}

// transit is how long the first message that begins so took from one agent to
// the other.
func transit(t *testing.T, from, to *siptest.Agent, begins string) time.Duration {
	t.Helper()
	find := func(a *siptest.Agent, sent bool) time.Time {
		for _, m := range a.Traces() {
			if m.Sent == sent && bytes.HasPrefix(m.Raw, []byte(begins)) {
				return m.At
			}
		}
		t.Fatalf("no message %q", begins)
		return time.Time{}
	}
	return find(to, false).Sub(find(from, true))
}

// replayScript talks, holds, pauses, and ends the call. It returns the signals that the
// daemon was told, as a file for replay.
func replayScript(t *testing.T, d *liveDaemon, c *livePair) (signals []byte) {
	t.Helper()
	signal := func(event string) error {
		at, err := d.signal(c.external.ID(), event)
		line := must(json.Marshal(map[string]any{"v": 1, "event": event, "at": at, "source": "test", "sip_call_id": c.external.ID()}))(t)
		signals = append(append(signals, line...), '\n')
		return err
	}
	ctx := t.Context()
	for _, step := range []struct {
		wait time.Duration
		do   func() error
	}{
		{1500 * time.Millisecond, func() error { return c.internal.Hold(ctx, siptest.HoldSendOnly) }},
		{700 * time.Millisecond, func() error { return c.internal.Resume(ctx) }},
		{time.Second, func() error { return signal("pause.start") }},
		{700 * time.Millisecond, func() error { return signal("pause.end") }},
		{time.Second, func() error { return c.external.Hold(ctx, siptest.HoldInactive) }},
		{500 * time.Millisecond, func() error { return c.external.Resume(ctx) }},
		{time.Second, func() error { return c.bye(ctx) }},
	} {
		time.Sleep(step.wait)
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
	}
	return signals
}

// compareRuns compares the audio between windows, stretch by stretch, where both
// say that it was spoken: what ends a window takes its time through the daemon.
func compareRuns(t *testing.T, live, again *recorder.Manifest, a, b [2][]int16) {
	t.Helper()
	const lagMost = 20 // samples
	stretches := func(m *recorder.Manifest, n int) [][2]int {
		at, out := 0, [][2]int{}
		for _, w := range m.Windows {
			out = append(out, [2]int{at, int(w.AudioMS) * 8})
			at = int(w.AudioMS) * 8
		}
		return append(out, [2]int{at, n})
	}
	begin := func(m *recorder.Manifest, i int) time.Time {
		if i == 0 {
			return m.Origin
		}
		return atReal(m, m.Windows[i-1].EndRealMS)
	}
	sa, sb := stretches(live, len(a[0])), stretches(again, len(b[0]))
	for i := range sa {
		later := int(begin(live, i).Sub(begin(again, i)).Milliseconds()) * 8
		edge := 400 + max(later, -later)
		for ch := range 2 {
			x, y := a[ch][sa[i][0]:sa[i][1]], b[ch][sb[i][0]:sb[i][1]]
			n := min(len(x), len(y)) - 2*edge
			if n < 4000 {
				t.Fatalf("stretch %d is %d samples live, %d replayed", i, len(x), len(y))
			}
			best, lag := 0.0, 0
			for l := later - lagMost; l <= later+lagMost; l++ {
				if r := likeness(x[edge:edge+n], y[edge+l:edge+l+n]); r > best {
					best, lag = r, l
				}
			}
			t.Logf("stretch %d, channel %d: %d samples live, %d replayed, correlation %.4f at lag %d", i, ch, len(x), len(y), best, lag)
			if best < 0.98 {
				t.Errorf("stretch %d, channel %d is not the same: correlation %.4f", i, ch, best)
			}
		}
	}
}

// likeness is the correlation of two stretches of the same length.
func likeness(a, b []int16) float64 {
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / math.Sqrt(aa*bb)
}

// TestLiveIPv6 makes a call over IPv6 alone.
func TestLiveIPv6(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	hosts, err := v6Hosts(t, 2)
	if err != nil {
		t.Skip(err)
	}
	var agents [2]*siptest.Agent
	tc := liveTrunkConfig{Name: "v6", Format: recorder.FormatOggOpus}
	for side, addr := range hosts {
		agents[side] = liveAgent(t, siptest.Config{Addr: netip.AddrPortFrom(addr, 0)})
		tc.Sides[side] = liveSide{Peer: addr, NextHop: "sip:" + agents[side].Addr().String(), Media: netip.IPv6Loopback()}
	}
	d := newLiveDaemon(t, liveConfig{Trunks: []liveTrunkConfig{tc}, Listen: []string{"udp://" + freeUDP(t, netip.IPv6Loopback()).String()}})
	d.start()
	c := d.call(agents, [2]float64{440, 1000})
	start := time.Now()
	time.Sleep(2500 * time.Millisecond)
	if err := c.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := c.packets(t)
	t.Logf("%d packets, none lost or changed; one way 99 %%: %d us", len(all), percentile(all, start, time.Now(), 99).Microseconds())
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		checkVoices(t, m, d.export(m.ID), c.hz)
	}
	d.stop()
}

// v6Hosts gives addresses of their own to loopback, until the end of the test. The
// error says what this machine lacks for that.
func v6Hosts(t *testing.T, n int) (out []netip.Addr, err error) {
	t.Helper()
	prefix := fmt.Sprintf("fd74:7470:%x:%x::", rand.Uint32()&0xffff, rand.Uint32()&0xffff) // at random: tests may run side by side
	for i := range n {
		addr := netip.MustParseAddr(fmt.Sprintf("%s%x", prefix, i+2))
		ip := func(ctx context.Context, verb string, flags ...string) error {
			args := append([]string{"-6", "addr", verb, addr.String() + "/128", "dev", "lo"}, flags...)
			text, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("ip -6 addr %s: %w: %s", verb, err, bytes.TrimSpace(text))
			}
			return nil
		}
		// Without nodad nobody can bind to it until the kernel, some time later, takes it for its own.
		if err := ip(t.Context(), "add", "nodad"); err != nil {
			return nil, fmt.Errorf("IPv6 addresses on loopback need root, ip and a kernel with IPv6: %w", err)
		}
		t.Cleanup(func() {
			if err := ip(context.Background(), "del"); err != nil {
				t.Error(err)
			}
		})
		out = append(out, addr)
	}
	return out, nil
}
