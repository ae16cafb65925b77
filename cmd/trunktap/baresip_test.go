package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// baresipTalk is a codec that two baresip talk in through the daemon.
type baresipTalk struct {
	name  string
	codec siptest.BaresipCodec
	rate  int // of the recording, Hz
	with  [2]baresipMedia
	sent  float64  // correlation that what is heard has at least with what was spoken: how good the codec is, and that a source which waits a moment moves
	keys  []string // of the recording
}

var (
	sdesMedia = baresipMedia{encryption: "srtp-mand", srtp: []string{"srtp: required"}}
	dtlsMedia = baresipMedia{encryption: "dtls_srtp", srtp: []string{"srtp: required", "srtp_method: dtls"}}
	muxMedia  = baresipMedia{mux: true}
)

func baresipTalks() []baresipTalk {
	codec := func(name string, rate, channels int, module string) siptest.BaresipCodec {
		return siptest.BaresipCodec{Name: name, Rate: rate, Channels: channels, Module: module}
	}
	plain := [2]baresipMedia{}
	return []baresipTalk{
		{"PCMA", codec("PCMA", 8000, 1, "g711"), 8000, [2]baresipMedia{sdesMedia, sdesMedia}, 0.99, nil},
		{"G722", codec("G722", 16000, 1, "g722"), 16000, [2]baresipMedia{sdesMedia, {}}, 0.98, nil},
		{"GSM", codec("GSM", 8000, 1, "gsm"), 8000, plain, 0.8, nil},
		{"G726-32", codec("G726-32", 8000, 1, "g726"), 8000, plain, 0.98, []string{"g726_packing: aal2"}}, // its order of bits, against RFC 3551
		{"AMR", codec("AMR", 8000, 1, "amr"), 8000, [2]baresipMedia{{}, sdesMedia}, 0.5, nil},
		{"AMR-WB", codec("AMR-WB", 16000, 1, "amr"), 16000, plain, 0.8, nil},
		{"L16 8 kHz", codec("L16", 8000, 1, "l16"), 8000, plain, 0.99, nil},
		{"L16 16 kHz", codec("L16", 16000, 1, "l16"), 16000, plain, 0.99, nil},
		{"L16 44.1 kHz stereo", codec("L16", 44100, 2, "l16"), 48000, plain, 0.99, nil},
		{"OPUS", codec("opus", 48000, 2, "opus"), 48000, [2]baresipMedia{dtlsMedia, muxMedia}, 0.9, nil},
	}
}

// baresipPair is a call of two baresip, each a host of its own.
type baresipPair struct {
	baresipTalk
	seed  uint64
	ns    [2]*siptest.Namespace
	peers [2]*siptest.Baresip
	dirs  [2]string
	err   error // of its preparation

	waited time.Duration // of the thread, theirs or the daemon's, that waited most for a processor, and of the machine as a whole
}

// baresipTalkTime is how long they talk.
const baresipTalkTime = 3 * time.Second

// TestLiveBaresipCodecs makes a call in each codec, plain and by SRTP, all at once:
// what a side is recorded with is what the other side has heard of it, and nothing
// of anybody else. A call that was kept from the processor and differs is repeated, at
// most twice.
func TestLiveBaresipCodecs(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	var pairs []*baresipPair
	for i, talk := range baresipTalks() {
		pairs = append(pairs, &baresipPair{baresipTalk: talk, seed: uint64(i)})
	}
	const rounds = 3
	for n := 1; n <= rounds && len(pairs) > 0; n++ {
		var again []*baresipPair
		baresipRound(t, pairs, func(t *testing.T, p *baresipPair, faults []string) {
			switch {
			case len(faults) == 0:
			case p.waited < baresipWait:
				t.Error(strings.Join(faults, "\n"))
			case n < rounds:
				t.Logf("waited %s for a processor, and is repeated: %s", p.waited, strings.Join(faults, "; "))
				again = append(again, &baresipPair{baresipTalk: p.baresipTalk, seed: p.seed})
			default:
				t.Skipf("this machine has no time for the call: a thread waited %s for a processor", p.waited)
			}
		})
		pairs = again
	}
}

// baresipRound makes the calls of all pairs and tells for each what is wrong with its
// recording.
func baresipRound(t *testing.T, pairs []*baresipPair, told func(*testing.T, *baresipPair, []string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	for _, p := range pairs {
		p.dirs = [2]string{t.TempDir(), t.TempDir()}
	}
	defer func() {
		for _, p := range pairs {
			if err := p.leave(); err != nil {
				t.Error(p.name, err)
			}
		}
	}()
	atOnce(pairs, func(p *baresipPair) error { return p.hosts(ctx) })
	for _, p := range pairs {
		skipWithout(t, p.err)
	}
	d := baresipDaemon(t, pairs)
	atOnce(pairs, func(p *baresipPair) error { return p.start(ctx) })
	ready := pairsReady(pairs)
	if len(ready) == 0 {
		skipWithout(t, pairs[0].err)
	}
	atOnce(ready, func(p *baresipPair) error {
		return p.peers[0].Dial(ctx, fmt.Sprintf("sip:desk@%s:%d", p.ns[0].Host, d.via().Port()))
	})
	ready = pairsReady(ready)
	d.answered(len(ready))
	before, machine, from := waits(ready, d), machine(), time.Now()
	time.Sleep(baresipTalkTime)
	stood := machine.stood(from, time.Now())
	for i, w := range waits(ready, d) {
		for k := range w {
			ready[i].waited = max(ready[i].waited, w[k]-before[i][k])
		}
		ready[i].waited += stood
	}
	atOnce(ready, func(p *baresipPair) error { return p.peers[0].Hangup(ctx) })
	time.Sleep(200 * time.Millisecond)
	atOnce(ready, func(p *baresipPair) error { return errors.Join(p.peers[0].Close(), p.peers[1].Close()) })
	list := d.recordings(len(ready))
	for _, p := range pairs {
		t.Run(p.name, func(t *testing.T) {
			skipWithout(t, p.err)
			checked := 0
			for _, m := range list {
				if m.Trunk == p.trunk() {
					told(t, p, p.check(t, m, d.export(m.ID)))
					checked++
				}
			}
			if checked != 1 {
				t.Errorf("%d recordings of the trunk %s", checked, p.trunk())
			}
		})
	}
	d.stop()
	noKeys(t, d)
}

// baresipWait is the time without a processor from which on a peer may have sent late
// or lost what came.
const baresipWait = 200 * time.Millisecond

// waits are how long both peers of each pair, and the daemon, have waited so far.
func waits(pairs []*baresipPair, d *liveDaemon) (out [][3]time.Duration) {
	daemon := waited(d.cmd.Process.Pid)
	for _, p := range pairs {
		out = append(out, [3]time.Duration{waited(p.peers[0].PID()), waited(p.peers[1].PID()), daemon})
	}
	return out
}

// waited is how long the thread of a process that waited most was ready to run and had
// no processor (schedstat of proc(5)); 0 where the system does not tell.
func waited(pid int) (most time.Duration) {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) // the pattern is right
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		var ran, wait time.Duration
		if _, err := fmt.Sscan(string(b), &ran, &wait); err == nil {
			most = max(most, wait)
		}
	}
	return most
}

// atOnce does something for all that nothing has failed for.
func atOnce(pairs []*baresipPair, f func(*baresipPair) error) {
	var wg sync.WaitGroup
	for _, p := range pairs {
		if p.err == nil {
			wg.Go(func() { p.err = f(p) })
		}
	}
	wg.Wait()
}

// pairsReady are those that can make a call.
func pairsReady(pairs []*baresipPair) (out []*baresipPair) {
	for _, p := range pairs {
		if p.err == nil {
			out = append(out, p)
		}
	}
	return out
}

func (p *baresipPair) trunk() string {
	return strings.NewReplacer(" ", "-", ".", "").Replace(strings.ToLower(p.name))
}

func (p *baresipPair) hosts(ctx context.Context) (err error) {
	for side := range p.ns {
		if p.ns[side], err = siptest.NewNamespace(ctx); err != nil {
			return err
		}
	}
	return nil
}

// start starts both; the callee first, which must be there for the call.
func (p *baresipPair) start(ctx context.Context) (err error) {
	for side := 1; side >= 0; side-- {
		source := filepath.Join(p.dirs[side], "speech.wav")
		if err := writeSpeech(source, p.seed*2+uint64(side), p.codec.Rate, p.codec.Channels); err != nil {
			return err
		}
		p.peers[side], err = siptest.StartBaresip(ctx, siptest.BaresipConfig{
			Net: p.ns[side], Dir: p.dirs[side], User: "desk", Answer: side == 1, Codec: p.codec, Source: source,
			Encryption: p.with[side].encryption, Mux: p.with[side].mux,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// leave removes what a call has left behind, also a failed one.
func (p *baresipPair) leave() (err error) {
	for side := range p.ns {
		if p.ns[side] != nil {
			err = errors.Join(err, p.ns[side].Close())
		}
	}
	return err
}

func baresipDaemon(t *testing.T, pairs []*baresipPair) *liveDaemon {
	t.Helper()
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), freeUDP(t, netip.IPv4Unspecified()).Port())
	cfg := liveConfig{WriteBudget: "32MiB", Listen: []string{"udp://" + at.String()}}
	for _, p := range pairs {
		tc := liveTrunkConfig{Name: p.trunk(), Format: recorder.FormatWAVPCM16, Recording: p.keys}
		for side, n := range p.ns {
			tc.Sides[side] = liveSide{Peer: n.Peer, NextHop: fmt.Sprintf("sip:%s:5060", n.Peer), Media: n.Host, SRTP: p.with[side].srtp}
		}
		cfg.Trunks = append(cfg.Trunks, tc)
	}
	d := newLiveDaemon(t, cfg)
	d.start()
	return d
}

// answered waits until so many calls are answered.
func (d *liveDaemon) answered(n int) {
	d.t.Helper()
	d.within(30*time.Second, "the calls are answered", func() error {
		var live struct{ Calls []recorder.LiveCall }
		if err := d.get("/v1/calls", &live); err != nil {
			return err
		}
		var waiting []string
		have := 0
		for _, c := range live.Calls {
			if c.Answer.IsZero() {
				waiting = append(waiting, c.Trunk)
				continue
			}
			have++
		}
		if have != n {
			return fmt.Errorf("%d of %d, not those of %v", have, n, waiting)
		}
		return nil
	})
}

// check compares the recording with what both sides have heard and spoken, and returns
// what is wrong.
func (p *baresipPair) check(t *testing.T, m *recorder.Manifest, pcm [2][]int16) []string {
	t.Helper()
	checkAccount(t, m)
	faults := p.checkManifest(m)
	var heard [2][]int16 // what a side has said, as the other has heard it
	var same [2]resemblance
	for side := range pcm {
		heard[side] = atRate(t, must(p.peers[1-side].Heard())(t), m.SampleRate)
		same[side] = alike(pcm[side], heard[side], m.SampleRate)
		spoke := alike(pcm[side], atRate(t, must(p.peers[side].Spoke())(t), m.SampleRate), m.SampleRate)
		t.Logf("%s from side %d: as heard: %s; as spoken: %s", p.name, side, same[side], spoke)
		if l := same[side]; l.correlation < 0.98 || l.seconds < baresipTalkTime.Seconds()/2 || l.torn > l.seconds/4 {
			faults = append(faults, fmt.Sprintf("side %d is not recorded with what the other has heard of it: %s", side, l))
		}
		if spoke.correlation < p.sent {
			faults = append(faults, fmt.Sprintf("side %d is not recorded with what it has spoken: %s", side, spoke))
		}
	}
	for side := range pcm {
		c := crossTalk(pcm[side], heard[1-side], same[1-side].lag, m.SampleRate)
		if t.Logf("%s: side %d is like the other by %.3f; waited %s", p.name, side, c, p.waited); c > 0.1 {
			faults = append(faults, fmt.Sprintf("side %d has something of the other: correlation %.3f", side, c))
		}
	}
	return faults
}

// checkManifest checks what was noted of codec and rate, and that all of both voices
// is there.
func (p *baresipPair) checkManifest(m *recorder.Manifest) (faults []string) {
	if m.SampleRate != p.rate || len(m.Windows) != 0 || len(m.Streams) != 2 {
		faults = append(faults, fmt.Sprintf("recorded at %d Hz, not %d; windows %+v; streams %+v", m.SampleRate, p.rate, m.Windows, m.Streams))
	}
	name, _, _ := strings.Cut(p.name, " ")
	for i, s := range m.Streams {
		if s.Channel != i || s.Codec != name || s.Packets < 50 || s.Lost+s.Undecoded+s.Rejected+s.Overrun != 0 {
			faults = append(faults, fmt.Sprintf("stream %+v", s))
		}
	}
	for _, g := range m.Gaps {
		if g.Cause != recorder.GapAbsent || g.RealMS != 0 && g.RealMS+g.DurationMS != m.RealMS {
			faults = append(faults, fmt.Sprintf("gap %+v of %d ms", g, m.RealMS))
		}
	}
	return faults
}
