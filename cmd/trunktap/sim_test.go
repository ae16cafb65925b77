package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/media/relay"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/plain"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/b2bua"
	"github.com/trunktap/trunktap/sip/replay"
	"github.com/trunktap/trunktap/sip/siptest"
	"github.com/trunktap/trunktap/suppress"
)

// The hosts of the simulated world: the daemon stands between a carrier and a PBX.
var (
	simOutside = netip.MustParseAddrPort("192.0.2.1:5060")
	simInside  = netip.MustParseAddrPort("10.0.0.1:5060")
	simCarrier = netip.MustParseAddrPort("192.0.2.66:5060")
	simPBX     = netip.MustParseAddrPort("10.0.0.66:5060")
)

// world is the daemon's signalling, relay and recorder on a network in memory,
// with an agent on each side and a capture of the external leg.
type world struct {
	t   *testing.T
	ctx context.Context
	cfg worldConfig
	net *mediatest.Net
	rec *recorder.Recorder
	b   *b2bua.B2BUA

	carrier, pbx *siptest.Agent

	mu      sync.Mutex
	capture bytes.Buffer
	signals []suppress.Signal // as the API took them
}

// worldConfig is what a simulation changes of the usual world.
type worldConfig struct {
	rec          recorder.Config // Policy and NewSink are set already when nil
	plan         recorder.Plan
	carrier, pbx siptest.Config
	abandon      bool // the recorder is closed without waiting for its sinks
}

func simPlan() recorder.Plan {
	p := recorder.DefaultPlan()
	p.SampleRate = 8000
	p.Format = recorder.FormatWAVPCM16
	return p
}

type simPolicy struct{ plan recorder.Plan }

func (p simPolicy) Plan(media.Session) (recorder.Plan, bool) { return p.plan, true }

// inWorld runs f in a bubble and closes everything after it.
func inWorld(t *testing.T, cfg worldConfig, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, cfg)
		defer w.close() // also when f fails: running tickers would keep the bubble alive
		f(w)
	})
}

func newWorld(t *testing.T, cfg worldConfig) *world {
	t.Helper()
	w := &world{t: t, ctx: t.Context(), cfg: cfg, net: mediatest.NewNet(7)}
	writer := must(pcap.NewWriter(&w.capture))(t)
	take := func(at time.Time, src, dst netip.AddrPort, payload []byte) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if err := writer.WriteUDP(at, src, dst, payload); err != nil {
			t.Error(err)
		}
	}
	// The capture is taken at the daemon's external interface.
	w.net.OnDeliver(func(at time.Time, src, dst netip.AddrPort, payload []byte) {
		if src.Addr() == simCarrier.Addr() {
			take(at, src, dst, payload)
		}
	})
	w.net.OnPacket(func(at time.Time, src, dst netip.AddrPort, payload []byte) {
		if dst.Addr() == simCarrier.Addr() {
			take(at, src, dst, payload)
		}
	})
	w.net.Impair(netip.Addr{}, netip.Addr{}, mediatest.Impairment{Delay: 4 * time.Millisecond})
	if cfg.rec.Policy == nil {
		cfg.rec.Policy = simPolicy{cfg.plan}
	}
	w.rec = must(recorder.New(cfg.rec))(t)
	r := must(relay.New(relay.Config{
		PortMin: 20000, PortMax: 20199, Quarantine: -1,
		Open: func(a netip.AddrPort) (relay.Conn, error) { return w.net.Listen(a) },
	}))(t)
	w.b = must(b2bua.New(b2bua.Config{
		Trunks:   simTrunks(),
		Listen:   []sip.Listen{{Network: "udp", Addr: simOutside}, {Network: "udp", Addr: simInside}},
		Net:      sip.Net{ListenPacket: func(_ string, a netip.AddrPort) (net.PacketConn, error) { return w.net.Listen(a) }},
		Relay:    r,
		Observer: w.rec,
	}))(t)
	if err := w.b.Start(); err != nil {
		t.Fatal(err)
	}
	w.carrier = w.agent("alice", simCarrier, cfg.carrier)
	w.pbx = w.agent("desk", simPBX, cfg.pbx)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func simTrunks() []sip.Trunk {
	return []sip.Trunk{{Name: "trunk", Sides: [2]sip.Side{
		media.External: {
			Peers: []netip.Prefix{netip.PrefixFrom(simCarrier.Addr(), 32)}, NextHops: []sip.NextHop{{Host: simCarrier.Addr().String(), Port: 5060, Transport: "udp"}},
			Address: simOutside.Addr(), MediaAddr: simOutside.Addr(),
		},
		media.Internal: {
			Peers: []netip.Prefix{netip.PrefixFrom(simPBX.Addr(), 32)}, NextHops: []sip.NextHop{{Host: simPBX.Addr().String(), Port: 5060, Transport: "udp"}},
			Address: simInside.Addr(), MediaAddr: simInside.Addr(),
		},
	}}}
}

func (w *world) agent(name string, at netip.AddrPort, cfg siptest.Config) *siptest.Agent {
	cfg.Name, cfg.Addr = name, at
	cfg.Listen = func(a netip.AddrPort) (siptest.Conn, error) { return w.net.Listen(a) }
	return must(siptest.New(cfg))(w.t)
}

// close ends the world: signalling first, so that every call has its end.
func (w *world) close() {
	w.t.Helper()
	for _, err := range []error{w.carrier.Close(), w.pbx.Close(), w.b.Close()} {
		if err != nil {
			w.t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if w.cfg.abandon {
		cancel()
	}
	if err := w.rec.Close(ctx); err != nil && !w.cfg.abandon {
		w.t.Error(err)
	}
}

// simCall is a call through the daemon, seen from both ends.
type simCall struct {
	w                  *world
	external, internal *siptest.Call
}

// inbound makes a call from the carrier to the PBX with a voice on each side.
func (w *world) inbound(opts siptest.CallOptions, answer siptest.Answer) *simCall {
	w.t.Helper()
	ext, internal := w.connect(w.carrier, w.pbx, "sip:desk@"+simOutside.String(), simOutside, opts, answer)
	return (&simCall{w, ext, internal}).speak()
}

// outbound makes a call from the PBX to the carrier.
func (w *world) outbound() *simCall {
	w.t.Helper()
	internal, ext := w.connect(w.pbx, w.carrier, "sip:alice@"+simInside.String(), simInside, siptest.CallOptions{}, siptest.Answer{})
	return (&simCall{w, ext, internal}).speak()
}

// connect makes a call in which nobody speaks yet: media that comes at the very
// instant of the answer that negotiates it may be taken or not.
func (w *world) connect(from, to *siptest.Agent, target string, via netip.AddrPort, opts siptest.CallOptions, answer siptest.Answer) (caller, callee *siptest.Call) {
	w.t.Helper()
	early := answer.Play
	answer.Play = siptest.DTX()
	to.Script(func(in *siptest.Incoming) {
		if early != nil {
			time.AfterFunc(53*time.Millisecond, func() { in.Call().Media().Play(early) })
		}
		in.Run(answer)
	})
	caller = must(from.Start(w.ctx, target, via, opts))(w.t)
	caller.Media().Play(siptest.DTX())
	w.ok(caller.Wait(w.ctx))
	return caller, must(to.Accept(w.ctx))(w.t)
}

// speak begins both voices: 440 Hz outside, 1000 Hz inside.
func (c *simCall) speak() *simCall {
	time.Sleep(53 * time.Millisecond) // requests from here on are out of step with media: what is first of one instant is not defined
	c.external.Media().Play(siptest.Tone(440, 0.3))
	c.internal.Media().Play(siptest.Tone(1000, 0.3))
	return c
}

// ok fails the test on an error of a request.
func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// signal does what the API does with a signal of now, and remembers it for replay.
func (c *simCall) signal(e suppress.Event, before time.Duration) recorder.Applied {
	c.w.t.Helper()
	now := time.Now()
	s := suppress.Signal{V: 1, Event: e, At: now.Add(-before), Source: "http", SIPCall: c.external.ID()}
	got := must(c.w.rec.Signal(c.w.ctx, s))(c.w.t)
	s.Received = now
	c.w.signals = append(c.w.signals, s)
	return got
}

func (c *simCall) bye(from *siptest.Call) {
	c.w.t.Helper()
	c.apart()
	c.w.ok(from.Bye(c.w.ctx))
	time.Sleep(3 * time.Second) // bubble time: the recording is published
}

// apart waits until what is sent now leaves and arrives at other instants than
// all media: what is first of one instant is not defined.
func (c *simCall) apart() {
	const ptime, apart = 20 * time.Millisecond, 2 * time.Millisecond
	clear := func(m *siptest.Media) bool {
		d := time.Until(m.Due()) % ptime
		return d >= apart && d <= ptime-apart
	}
	for time.Sleep(apart); !clear(c.external.Media()) || !clear(c.internal.Media()); {
		time.Sleep(apart / 2)
	}
}

// replayed records the capture of the world's calls into a directory.
func (w *world) replayed(plan recorder.Plan, dir string) {
	w.t.Helper()
	r := must(recorder.New(recorder.Config{Policy: simPolicy{plan}, NewSink: plain.New(dir).NewSink, Synchronous: true}))(w.t)
	src := must(pcap.NewReader(bytes.NewReader(w.capture.Bytes())))(w.t)
	_, err := replay.Run(context.Background(), src, replay.Config{
		Trunks: []replay.Trunk{{
			Name: "trunk", External: []netip.Prefix{netip.PrefixFrom(simCarrier.Addr(), 32)}, Internal: []netip.Prefix{netip.PrefixFrom(simPBX.Addr(), 32)},
		}},
		Signals: w.signals, OnSignal: func(s suppress.Signal) {
			if !r.Post(s) {
				w.t.Errorf("no call takes %s", s.Event)
			}
		},
	}, r, nil)
	w.ok(err)
	_, err = r.Results()
	w.ok(errors.Join(err, r.Close(context.Background())))
}

// simTree reads all files below a directory.
func simTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		out[strings.TrimPrefix(p, dir)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// simScenario is a call whose capture must replay to the same files.
type simScenario struct {
	name string
	cfg  worldConfig
	plan func(*recorder.Plan)
	run  func(w *world)
}

func simScenarios() []simScenario {
	second := time.Second
	ring := 2*second + 7*time.Millisecond // out of step with early media, as is what follows
	plain := func(w *world) *simCall { return w.inbound(siptest.CallOptions{}, siptest.Answer{Ring: second}) }
	return []simScenario{
		{name: "plain", run: func(w *world) {
			c := plain(w)
			time.Sleep(5 * second)
			c.bye(c.external)
		}},
		{name: "outbound, the callee hangs up", run: func(w *world) {
			c := w.outbound()
			time.Sleep(4 * second)
			c.bye(c.external)
		}},
		{name: "hold and resume", run: func(w *world) {
			c := plain(w)
			time.Sleep(2 * second)
			w.ok(c.internal.Hold(w.ctx, siptest.HoldSendOnly))
			time.Sleep(2 * second)
			w.ok(c.internal.Resume(w.ctx))
			time.Sleep(2 * second)
			c.bye(c.internal)
		}},
		{name: "both hold, old and new manner", run: func(w *world) {
			c := plain(w)
			time.Sleep(second)
			w.ok(c.external.Hold(w.ctx, siptest.HoldZero))
			time.Sleep(second)
			w.ok(c.internal.Hold(w.ctx, siptest.HoldInactive))
			time.Sleep(second)
			w.ok(c.external.Resume(w.ctx))
			time.Sleep(second)
			w.ok(c.internal.Resume(w.ctx))
			time.Sleep(second)
			c.bye(c.internal)
		}},
		{name: "secure pause, late", run: func(w *world) {
			c := plain(w)
			time.Sleep(2 * second)
			c.signal(suppress.PauseStart, 300*time.Millisecond)
			w.ok(c.external.Media().SendDigits(w.ctx, "42"))
			time.Sleep(second)
			c.signal(suppress.PauseEnd, 0)
			time.Sleep(2 * second)
			c.signal(suppress.PauseStart, 900*time.Millisecond)
			time.Sleep(second)
			c.signal(suppress.PauseEnd, 0)
			w.ok(c.external.Media().SendDigits(w.ctx, "7#"))
			time.Sleep(second)
			c.bye(c.external)
		}},
		{name: "loss, jitter and reordering from outside", run: func(w *world) {
			w.net.Impair(simCarrier.Addr(), simOutside.Addr(), mediatest.Impairment{Delay: 30 * time.Millisecond, Jitter: 80 * time.Millisecond, Loss: 0.02, Duplicate: 0.01, Reorder: 0.05, ReorderBy: 45 * time.Millisecond})
			c := plain(w)
			time.Sleep(8 * second)
			w.net.Impair(simCarrier.Addr(), simOutside.Addr(), mediatest.Impairment{Delay: 30 * time.Millisecond})
			time.Sleep(second)
			c.bye(c.external)
		}},
		{name: "new source in mid-call", run: func(w *world) {
			c := plain(w)
			time.Sleep(2 * second)
			c.external.Media().NewSSRC()
			time.Sleep(2 * second)
			c.internal.Media().Jump(7, 1<<30)
			time.Sleep(2 * second)
			c.bye(c.external)
		}},
		{name: "codec change by re-INVITE", run: func(w *world) {
			c := plain(w)
			time.Sleep(2 * second)
			w.ok(c.external.Reinvite(w.ctx, siptest.Offer{Codecs: []siptest.Codec{siptest.PCMA}}))
			time.Sleep(2 * second)
			c.bye(c.external)
		}},
		{name: "early media recorded", plan: func(p *recorder.Plan) { p.EarlyMedia = true }, run: func(w *world) {
			c := w.inbound(siptest.CallOptions{}, siptest.Answer{Early: true, Ring: ring, Play: siptest.Tone(1000, 0.3)})
			time.Sleep(2 * second)
			c.bye(c.external)
		}},
		{name: "early media not recorded, reliable", run: func(w *world) {
			c := w.inbound(siptest.CallOptions{Reliable: true}, siptest.Answer{Early: true, Reliable: true, Ring: ring, Play: siptest.Tone(1000, 0.3)})
			time.Sleep(2 * second)
			c.bye(c.external)
		}},
		{name: "late offer", run: func(w *world) {
			c := w.inbound(siptest.CallOptions{Offer: siptest.Offer{NoSDP: true}}, siptest.Answer{Ring: second})
			time.Sleep(2 * second)
			c.bye(c.external)
		}},
		{
			name: "clocks apart, silence suppressed with silence", cfg: worldConfig{carrier: siptest.Config{SkewPPM: 200}, pbx: siptest.Config{SkewPPM: -200, RTCP: true}},
			plan: func(p *recorder.Plan) { p.Suppressed = recorder.SuppressedSilence }, run: func(w *world) {
				c := plain(w)
				time.Sleep(60 * second)
				w.ok(c.internal.Hold(w.ctx, siptest.HoldInactive))
				time.Sleep(2 * second)
				w.ok(c.internal.Resume(w.ctx))
				time.Sleep(30 * second)
				c.bye(c.external)
			},
		},
		{name: "one side pauses its sending", run: func(w *world) {
			c := plain(w)
			time.Sleep(second)
			c.internal.Media().Play(siptest.DTX())
			time.Sleep(2 * second)
			c.internal.Media().Play(siptest.Tone(1000, 0.3))
			time.Sleep(second)
			w.ok(c.internal.Update(w.ctx, siptest.Offer{Direction: siptest.RecvOnly}))
			time.Sleep(second)
			w.ok(c.internal.Update(w.ctx, siptest.Offer{}))
			time.Sleep(second)
			c.bye(c.internal)
		}},
		{name: "digits by INFO and as tones, masked", plan: func(p *recorder.Plan) { p.InbandDTMF, p.MaskDTMF = recorder.InbandOn, true }, run: func(w *world) {
			c := plain(w)
			time.Sleep(second)
			c.infoDigits(c.external, "15")
			time.Sleep(second)
			c.external.Media().Play(toneKeys("2#"))
			time.Sleep(second)
			c.signal(suppress.PauseStart, 0)
			c.infoDigits(c.internal, "42")
			c.signal(suppress.PauseEnd, 0)
			time.Sleep(second)
			c.infoDigits(c.internal, "7")
			time.Sleep(second)
			w.ok(c.external.Media().SendDigits(w.ctx, "9"))
			time.Sleep(second)
			c.bye(c.external)
		}},
		{name: "two segments, cut at their most", plan: func(p *recorder.Plan) { p.SegmentMax = 2 * second }, run: func(w *world) {
			c := plain(w)
			time.Sleep(5 * second)
			c.bye(c.external)
		}},
	}
}

// TestSimLiveEqualsReplay holds promise 3 through the whole daemon: a call is
// made through it, its external leg captured, and the capture replayed; both
// give the same files to the byte.
func TestSimLiveEqualsReplay(t *testing.T) {
	for _, s := range simScenarios() {
		t.Run(s.name, func(t *testing.T) {
			live, again := t.TempDir(), t.TempDir()
			s.cfg.plan = simPlan()
			if s.plan != nil {
				s.plan(&s.cfg.plan)
			}
			s.cfg.rec.NewSink = plain.New(live).NewSink
			inWorld(t, s.cfg, func(w *world) {
				s.run(w)
				w.replayed(s.cfg.plan, again)
			})
			want, got := simTree(t, live), simTree(t, again)
			if len(want) < 2 {
				t.Fatalf("the live call left %d files", len(want))
			}
			for name := range want {
				if strings.HasSuffix(name, ".json") {
					if d := cmp.Diff(strings.Split(want[name], "\n"), strings.Split(got[name], "\n")); d != "" {
						t.Errorf("%s (-live +replay):\n%s", name, d)
					}
				} else if want[name] != got[name] {
					t.Errorf("%s: %d bytes live, %d replayed, not the same", name, len(want[name]), len(got[name]))
				}
			}
			if len(want) != len(got) {
				t.Errorf("%d files live, %d replayed", len(want), len(got))
			}
		})
	}
}
