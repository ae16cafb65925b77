package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// legWorld is a trunk of TestLiveRestartLegs: somebody over a stream on one side, and
// over UDP on the other.
type legWorld struct {
	name   string
	side   int // of the one over the stream
	host   string
	keys   []string
	via    netip.AddrPort // where the stream's party sends
	stream *siptest.Agent
	plain  *siptest.Agent
	calls  []*legCall
}

// legCall is one call, and who does what first after the restart.
type legCall struct {
	*livePair // external, internal
	stream    *siptest.Call
	plain     *siptest.Call
	what      string
}

// What is done first after the restart. Those over UDP speak before the others have a
// connection.
var legDeeds = []string{"plain re-INVITE", "plain BYE", "stream re-INVITE", "stream BYE"}

const keepTimers = "session_timer: keep"

// TestLiveRestartLegs kills the daemon in the middle of calls over TCP, TLS with
// certificates of both ends, TCP behind a NAT, and WebSockets: whoever speaks first
// then, the other one hears it, and media and recordings go on.
func TestLiveRestartLegs(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	ca := newAuthority(t)
	cert, key := ca.sign("tap.example", 10)
	tcp, tls, wss := freeTCP(t, liveHost), freeTCP(t, liveHost), freeTCP(t, liveHost)
	worlds := []*legWorld{
		{name: "tcp", via: tcp, keys: []string{keepTimers}},
		{name: "tls", via: tls},
		{name: "nat", via: tcp, host: "192.168.77.7:5060"},
		{name: "wss", via: wss, side: 1, keys: []string{"registrations: contact", keepTimers}},
	}
	cfg := liveConfig{
		Listen: []string{"udp://" + freeUDP(t, liveHost).String(), "tcp://" + tcp.String(), "tls://" + tls.String(), "wss://" + wss.String()},
		SIP:    []string{fmt.Sprintf("tls: {cert: %s, key: %s, client_ca: %s}", cert, key, ca.file)},
		Media:  []string{"engine: user"},
	}
	for i, w := range worlds {
		cfg.Trunks = append(cfg.Trunks, w.trunk(t, ca, byte(40+2*i)))
	}
	d := newLiveDaemon(t, cfg)
	d.start()
	for _, w := range worlds {
		w.begin(d)
	}
	time.Sleep(1500 * time.Millisecond)
	d.kill()
	d.start()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := together(len(worlds), func(i int) error { return worlds[i].goesOn(ctx, d) }); err != nil {
		t.Error(err)
	}
	recordings := d.recordings(len(worlds) * (len(legDeeds) + 1))
	for i, w := range worlds {
		for k, c := range w.calls {
			c.check(t, d, recordings[c.stream.ID()], k == i) // of each world another one is listened to
		}
	}
	text := d.metrics()
	for _, want := range []string{"trunktap_calls_restored_total 20\n", "trunktap_calls_lost_total 0\n", "trunktap_sip_sessions_expired_total 0\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics has no line %s", want)
		}
	}
	d.stop()
}

// trunk makes the agents of a world and its trunk.
func (w *legWorld) trunk(t *testing.T, ca *authority, first byte) liveTrunkConfig {
	t.Helper()
	tc := liveTrunkConfig{Name: w.name, Format: recorder.FormatWAVPCM16, Keys: w.keys}
	transport, _, _ := strings.Cut(strings.Replace(w.name, "nat", "tcp", 1), "-")
	for side := range 2 {
		addr := liveAddr(first + byte(side))
		cfg := siptest.Config{Addr: netip.AddrPortFrom(addr, 0)}
		s := liveSide{Peer: addr, Media: liveHost}
		if side != w.side {
			w.plain = liveAgent(t, cfg)
			s.NextHop = "sip:" + w.plain.Addr().String()
			tc.Sides[side] = s
			continue
		}
		cfg.Transport, cfg.Host, cfg.Name = transport, w.host, "stream"
		if transport != "tcp" {
			cfg.TLS = ca.peer("peer.example", int64(first))
		}
		w.stream = liveAgent(t, cfg)
		if transport != "wss" {
			s.NextHop = "sip:" + w.stream.Addr().String() + ";transport=" + transport
		}
		if transport == "tls" {
			clientCert, clientKey := ca.sign("tap-carrier.example", int64(first)+100)
			s.SRTP = []string{fmt.Sprintf("tls: {ca: %s, peer_name: peer.example, cert: %s, key: %s}", ca.file, clientCert, clientKey)}
		}
		tc.Sides[side] = s
	}
	return tc
}

// begin makes the calls: one for each deed by the party over the stream, and one to it.
func (w *legWorld) begin(d *liveDaemon) {
	t := d.t
	t.Helper()
	target := "sip:stream@" + d.via().String()
	if w.name == "wss" {
		if res := must(w.stream.Register(t.Context(), "sip:pbx.example", w.via))(t); res.Code != 200 {
			t.Fatalf("REGISTER is answered %d", res.Code)
		}
		target = registeredAt(t, w.plain, d.via())
	}
	for i := range len(legDeeds) + 1 {
		hz := [2]float64{400 + 20*float64(i), 1000 + 20*float64(i)}
		from, to, via := w.stream, w.plain, w.via
		if i == len(legDeeds) {
			from, to, via = w.plain, w.stream, d.via()
		}
		what := legDeeds[i%len(legDeeds)]
		if i == len(legDeeds) && slices.Contains(w.keys, keepTimers) {
			what = "refresh"
		}
		uri := "sip:desk@" + via.String()
		if from == w.plain {
			uri = target
		}
		callerHz, calleeHz := hz[0], hz[1]
		if (from == w.stream) == (w.side == 1) {
			callerHz, calleeHz = hz[1], hz[0] // the caller is the internal party
		}
		to.Speak(func() siptest.Source { return siptest.Tone(calleeHz, 0.5) })
		out := must(from.Call(t.Context(), uri, via, siptest.CallOptions{Play: siptest.Tone(callerHz, 0.5)}))(t)
		in := must(to.Accept(t.Context()))(t)
		to.Speak(nil)
		c := &legCall{what: what, stream: out, plain: in}
		if from == w.plain {
			c.stream, c.plain = in, out
		}
		c.livePair = &livePair{external: c.stream, internal: c.plain, hz: hz}
		if w.side == 1 {
			c.external, c.internal = c.plain, c.stream
		}
		w.calls = append(w.calls, c)
	}
}

// goesOn does what each call is for, and ends all.
func (w *legWorld) goesOn(ctx context.Context, d *liveDaemon) error {
	ended := make(chan error, len(w.calls))
	early := 0
	for _, c := range w.calls {
		if strings.HasPrefix(c.what, "plain") {
			early++
			go func() { ended <- c.first(ctx) }()
		}
	}
	if w.name == "nat" || w.name == "wss" { // nobody can connect to it: it comes by itself, later
		time.Sleep(700 * time.Millisecond)
		if err := w.comesBack(ctx); err != nil {
			return err
		}
	}
	var errs []error
	for range early {
		errs = append(errs, <-ended)
	}
	for _, c := range w.calls {
		if strings.HasPrefix(c.what, "stream") {
			errs = append(errs, c.first(ctx))
		}
	}
	for _, c := range w.calls {
		if !strings.HasSuffix(c.what, "BYE") {
			errs = append(errs, c.mediaGoesOn(ctx), c.refreshed(ctx), c.bye(ctx))
		}
		select {
		case <-c.stream.Done():
		case <-ctx.Done():
			errs = append(errs, errors.New("the party over the stream has not heard of the end"))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	return nil
}

// comesBack is what a party does whose connection broke.
func (w *legWorld) comesBack(ctx context.Context) error {
	if w.name == "wss" {
		_, err := w.stream.Register(ctx, "sip:pbx.example", w.via)
		return err
	}
	for _, c := range w.calls {
		if strings.HasPrefix(c.what, "plain") {
			if err := c.stream.Options(ctx); err != nil && c.what != "plain BYE" { // who has hung up is not there for it
				return fmt.Errorf("OPTIONS: %w", err)
			}
		}
	}
	return nil
}

// first is the deed of the call.
func (c *legCall) first(ctx context.Context) error {
	who := c.plain
	if strings.HasPrefix(c.what, "stream") {
		who = c.stream
	}
	var err error
	if strings.HasSuffix(c.what, "BYE") {
		c.quiet()
		err = who.Bye(ctx)
	} else if err = who.Hold(ctx, siptest.HoldSendOnly); err == nil {
		err = who.Resume(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.what, err)
	}
	return nil
}

func (c *legCall) mediaGoesOn(ctx context.Context) error {
	for _, end := range []*siptest.Call{c.stream, c.plain} {
		if err := end.Media().Await(ctx, len(end.Media().Received())+20); err != nil {
			return err
		}
	}
	return nil
}

// refreshed waits until the party over the stream has been asked to refresh its
// session, as the daemon does soon after a restart.
func (c *legCall) refreshed(ctx context.Context) error {
	for c.what == "refresh" {
		if slices.ContainsFunc(c.stream.Requests(), func(m *siptest.Message) bool {
			return m.Method == "UPDATE" || m.Method == "INVITE" && m.Get("Session-Expires") != ""
		}) {
			return nil
		}
		select {
		case <-time.After(livePollEvery):
		case <-ctx.Done():
			return errors.New("the session is not refreshed")
		}
	}
	return nil
}

// check looks at the recording of a call that lived through a restart.
func (c *legCall) check(t *testing.T, d *liveDaemon, m *recorder.Manifest, listen bool) {
	t.Helper()
	if m == nil {
		t.Fatalf("%s has no recording", c.what)
	}
	checkAccount(t, m)
	if m.Call.EndCause != "bye" || len(m.Segments) != 2 {
		t.Errorf("%s: end cause %q, %d segments", c.what, m.Call.EndCause, len(m.Segments))
	}
	for ch := range 2 {
		if !slices.ContainsFunc(m.Gaps, func(g recorder.Gap) bool {
			return g.Channel == ch && g.Cause == recorder.GapRestart && g.DurationMS > 0
		}) {
			t.Errorf("%s: no gap %q on channel %d: %+v", c.what, recorder.GapRestart, ch, m.Gaps)
		}
	}
	if listen && !strings.HasSuffix(c.what, "BYE") {
		checkVoices(t, m, d.export(m.ID), c.hz)
	}
}
