package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// phoneWorld is a trunk between a PBX and a phone of TestLiveRestartPhones.
type phoneWorld struct {
	name       string // of the transport, which is the phone's, too
	path       bool   // the registrar is told a Path
	reconnects bool   // nobody can connect to the phone
	via        netip.AddrPort
	phone, pbx *siptest.Agent
	up         *livePair // a call that the phone made
}

// TestLiveRestartPhones kills the daemon between a PBX and the phones that registered
// through it. Their calls go on, those of stations recorded; and the PBX reaches them
// by what it has been told: at once, or as soon as those have registered again that
// nobody can connect to.
func TestLiveRestartPhones(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	udp, tcp, web := freeUDP(t, liveHost), freeTCP(t, liveHost), freeTCP(t, liveHost)
	worlds := []*phoneWorld{
		{name: "udp", via: udp}, {name: "udp", path: true, via: udp}, {name: "tcp", via: tcp}, {name: "ws", reconnects: true, via: web},
	}
	cfg := liveConfig{
		Listen: []string{"udp://" + udp.String(), "tcp://" + tcp.String(), "ws://" + web.String()},
		Media:  []string{"engine: user"}, More: "stations: [udp, tcp, ws]\nstation_base: {format: wav-pcm16}\n",
	}
	for i, w := range worlds {
		cfg.Trunks = append(cfg.Trunks, w.trunk(t, i))
	}
	d := newLiveDaemon(t, cfg)
	d.start()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i, w := range worlds {
		if res := must(w.phone.Register(ctx, "sip:pbx.example", w.via))(t); res.Code != 200 {
			t.Fatalf("REGISTER is answered %d", res.Code)
		}
		w.up = w.call(ctx, t, [2]float64{400 + 40*float64(i), 1000 + 40*float64(i)})
	}
	time.Sleep(1500 * time.Millisecond)
	d.kill()
	d.start()
	if err := together(len(worlds), func(i int) error { return worlds[i].after(ctx, d) }); err != nil {
		t.Error(err)
	}
	seen := 0
	for id, m := range d.recordings(len(worlds) + 1) { // of the calls to phones, that by Path names its station
		for _, w := range worlds {
			if w.up.external.ID() != id {
				continue
			}
			seen++
			checkAccount(t, m)
			if m.Call.EndCause != "bye" || len(m.Segments) != 2 {
				t.Errorf("%s: end cause %q, %d segments", w.name, m.Call.EndCause, len(m.Segments))
			}
			checkVoices(t, m, d.export(m.ID), w.up.hz)
		}
	}
	if seen != len(worlds) {
		t.Errorf("%d of %d calls of the stations are recorded", seen, len(worlds))
	}
	d.stop()
}

func (w *phoneWorld) trunk(t *testing.T, i int) liveTrunkConfig {
	t.Helper()
	outer, inner := liveAddr(byte(60+2*i)), liveAddr(byte(61+2*i))
	w.pbx = liveAgent(t, siptest.Config{Addr: netip.AddrPortFrom(outer, 0)})
	w.phone = liveAgent(t, siptest.Config{Addr: netip.AddrPortFrom(inner, 0), Transport: w.name, Name: w.name})
	keys := []string{"registrations: contact"}
	if w.path {
		keys = []string{"registrations: path"}
	}
	return liveTrunkConfig{
		Name: fmt.Sprintf("phones-%d", i), Role: "phones", Format: recorder.FormatWAVPCM16, Keys: keys,
		Sides: [2]liveSide{{Peer: outer, NextHop: "sip:" + w.pbx.Addr().String(), Media: liveHost}, {Peer: inner, Media: liveHost}},
	}
}

// call is one of the phone to the PBX.
func (w *phoneWorld) call(ctx context.Context, t *testing.T, hz [2]float64) *livePair {
	t.Helper()
	w.pbx.Speak(func() siptest.Source { return siptest.Tone(hz[0], 0.5) })
	p := &livePair{hz: hz}
	p.internal = must(w.phone.Call(ctx, "sip:ivr@"+w.via.String(), w.via, siptest.CallOptions{Play: siptest.Tone(hz[1], 0.5)}))(t)
	p.external = must(w.pbx.Accept(ctx))(t)
	w.pbx.Speak(nil)
	return p
}

// after calls the phone, and ends the call that it had.
func (w *phoneWorld) after(ctx context.Context, d *liveDaemon) error {
	called := make(chan error, 1)
	go func() { called <- w.callPhone(ctx, d) }()
	if w.reconnects { // the call waits for it
		time.Sleep(500 * time.Millisecond)
		if _, err := w.phone.Register(ctx, "sip:pbx.example", w.via); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	if err := <-called; err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	for _, end := range []*siptest.Call{w.up.external, w.up.internal} {
		if err := end.Media().Await(ctx, len(end.Media().Received())+20); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return w.up.bye(ctx) // by the PBX
}

// callPhone calls where the registrar has last been told that the phone is.
func (w *phoneWorld) callPhone(ctx context.Context, d *liveDaemon) error {
	contact, path := "", ""
	for _, m := range w.pbx.Requests() {
		if m.Method == "REGISTER" {
			contact, path = siptest.URI(m.Get("Contact")), m.Get("Path")
		}
	}
	opts := siptest.CallOptions{}
	if w.path {
		if !strings.Contains(path, "@"+d.via().String()) {
			return fmt.Errorf("the Path is %q", path)
		}
		opts.Headers = []siptest.Header{{Name: "Route", Value: path}}
	}
	call, err := w.pbx.Call(ctx, contact, d.via(), opts)
	if err != nil {
		return err
	}
	if _, err := w.phone.Accept(ctx); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond) // a station's call of no time has no recording
	return call.Bye(ctx)
}
