package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// What recording clients do while the daemon is killed.
const (
	siprecPlain    = iota
	siprecPaused   // every line is inactive
	siprecLeaves   // it sends a BYE that nobody takes
	siprecMetadata // tells of another party, by a partial document
	siprecKinds
)

// siprecParty is the internal party in most dialects.
const siprecParty = `participant_id="cGFydGljaXBhbnQtdHdvLQ=="`

// siprecLive is one call of a recording client.
type siprecLive struct {
	kind    int
	dialect siptest.Dialect
	tcp     bool
	src     *siptest.SRC
	dialogs []*siptest.SRCDialog
	byes    chan error
}

// TestLiveRestartSIPREC kills the daemon twice in the middle of recording sessions: they
// go on, and so do their recordings.
func TestLiveRestartSIPREC(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	const n, kills = 20, 2
	dialects := slices.Concat(siptest.Dialects(), siptest.Dialects())[:n] // each call has a source of its own
	listen := freeUDP(t, liveHost)
	d := newLiveDaemon(t, siprecConfig(t, listen, dialects))
	d.start()
	calls := make([]*siprecLive, n)
	for i := range calls {
		calls[i] = &siprecLive{kind: i / 2 % siprecKinds, dialect: dialects[i], tcp: i%2 == 1, byes: make(chan error, 1)}
		calls[i].src = must(siptest.NewSRC(siptest.SRCConfig{Addr: netip.AddrPortFrom(dialectAddr(i), 0), Remote: listen, TCP: calls[i].tcp}))(t)
		t.Cleanup(func() {
			if err := calls[i].src.Close(); err != nil && !calls[i].tcp { // its connections are those that were killed
				t.Error(err)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	phase := func(f func(c *siprecLive, i int) error) {
		t.Helper()
		if err := together(n, func(i int) error {
			if err := f(calls[i], i); err != nil {
				return fmt.Errorf("call %d, %s: %w", i, calls[i].dialect.Name, err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	phase(func(c *siprecLive, i int) error { return c.begin(ctx, i) })
	time.Sleep(siprecTalk)
	phase(func(c *siprecLive, _ int) error { return c.before(ctx) })
	for k := range kills {
		time.Sleep(siprecTalk)
		d.kill()
		if k == kills-1 {
			phase(func(c *siprecLive, _ int) error { return c.leave(ctx) })
			time.Sleep(100 * time.Millisecond)
		}
		d.start()
		phase(func(c *siprecLive, _ int) error {
			if !c.tcp {
				return nil
			}
			return c.src.Reconnect()
		})
	}
	time.Sleep(siprecTalk)
	phase(func(c *siprecLive, _ int) error { return c.after(ctx) })
	recordings := d.recordings(n)
	for i, c := range calls {
		t.Run(fmt.Sprintf("%d %s", i, c.dialect.Name), func(t *testing.T) {
			m := recordings[fmt.Sprintf("call-%d-0", i)]
			if m == nil {
				t.Fatal("no recording")
			}
			c.check(t, m, kills)
			c.checkTones(t, m, d.export(m.ID))
		})
	}
	text := d.metrics()
	for _, want := range []string{"restored_total 20\n", "lost_total 0\n", "unjournalled_total 0\n", "panics_total 0\n", "dialogs 0\n"} {
		if !strings.Contains(text, "trunktap_siprec_"+want) {
			t.Errorf("/metrics has no line trunktap_siprec_%s", want)
		}
	}
	if out := d.command("verify"); !strings.Contains(out, "0 findings") {
		t.Error(out)
	}
	d.stop()
}

func (c *siprecLive) begin(ctx context.Context, i int) error {
	for k, one := range c.dialect.Dialogs {
		s, err := c.src.NewDialog(fmt.Sprintf("call-%d-%d", i, k), one.From, len(one.Tones))
		if err != nil {
			return err
		}
		c.dialogs = append(c.dialogs, s)
		if _, err := s.Invite(ctx, one.ContentType, []byte(s.Expand(one.Body)), nil, one.Headers...); err != nil {
			return err
		}
		if err := s.Play(one.Tones...); err != nil {
			return err
		}
	}
	return nil
}

// invite offers again.
func (c *siprecLive) invite(ctx context.Context, paused bool) error {
	for k, one := range c.dialect.Dialogs {
		body, tones := one.Body, one.Tones
		if paused {
			body, tones = one.Paused(), make([]float64, len(one.Tones))
		}
		if _, err := c.dialogs[k].Invite(ctx, one.ContentType, []byte(c.dialogs[k].Expand(body)), nil, one.Headers...); err != nil {
			return err
		}
		if err := c.dialogs[k].Play(tones...); err != nil {
			return err
		}
	}
	return nil
}

func (c *siprecLive) before(ctx context.Context) error {
	if c.kind == siprecPaused {
		return c.invite(ctx, true)
	}
	return nil
}

// leave ends the call of who does so while nobody listens: over TCP as soon as there is
// a connection again.
func (c *siprecLive) leave(ctx context.Context) error {
	if c.kind == siprecLeaves && !c.tcp {
		go func() { c.byes <- c.bye(ctx) }()
	}
	return nil
}

func (c *siprecLive) bye(ctx context.Context) error {
	for _, s := range c.dialogs {
		if err := s.Bye(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *siprecLive) after(ctx context.Context) error {
	switch {
	case c.kind == siprecLeaves && !c.tcp:
		return <-c.byes
	case c.kind == siprecPaused:
		if err := c.invite(ctx, false); err != nil {
			return err
		}
	case c.kind == siprecMetadata:
		if err := c.another(ctx); err != nil {
			return err
		}
	case c.kind == siprecPlain:
		if err := c.invite(ctx, false); err != nil {
			return err
		}
	}
	time.Sleep(siprecTalk)
	return c.bye(ctx)
}

// another tells that a party has got another name, and nothing else: what the document
// refers to was told before the kill.
func (c *siprecLive) another(ctx context.Context) error {
	const body = `<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>partial</datamode>` +
		`<participant ` + siprecParty + `><nameID aor="sip:4712@pbx.example"/></participant></recording>`
	_, err := c.dialogs[0].Do(ctx, "INFO", "application/rs-metadata+xml", []byte(body))
	return err
}

// checkTones demands the right voice on each channel, where there is no gap: that of a
// kill is as long as the machine takes to start the daemon.
func (c *siprecLive) checkTones(t *testing.T, m *recorder.Manifest, pcm [2][]int16) {
	t.Helper()
	hz := [2]float64{siptest.ExternalTone, siptest.InternalTone}
	for ch := range pcm {
		if c.dialect.Mixed && ch == 1 {
			continue
		}
		there := len(pcm[ch]) / 800
		for _, g := range m.Gaps {
			if g.Channel == ch {
				there -= int(g.DurationMS+199) / 100
			}
		}
		if own, foreign := tenths(pcm[ch], hz[ch]), tenths(pcm[ch], hz[1-ch]); own < 10 || own*10 < there*7 || foreign > 0 {
			t.Errorf("channel %d: its tone is in %d of %d tenths of a second, another in %d", ch, own, there, foreign)
		}
	}
}

func (c *siprecLive) check(t *testing.T, m *recorder.Manifest, kills int) {
	t.Helper()
	checkAccount(t, m)
	if m.Call.EndCause != "bye" {
		t.Errorf("ended by %s", m.Call.EndCause)
	}
	if len(m.Segments) < 2 || len(m.Segments) > 1+kills+1 { // another party begins one, too
		t.Errorf("segments %+v of %d ms", m.Segments, m.RealMS)
	}
	streams := 0
	for _, one := range c.dialect.Dialogs {
		streams += len(one.Tones)
	}
	if n := len(m.Labels); n < streams || c.kind == siprecPlain && n > 2*streams {
		t.Errorf("labels %+v", m.Labels)
	}
	if c.dialect.Kept != (len(m.RawMetadata) > 0) && c.kind != siprecMetadata {
		t.Errorf("%d documents are kept", len(m.RawMetadata))
	}
	for i, a := range m.RawMetadata {
		if slices.ContainsFunc(m.RawMetadata[:i], func(b recorder.RawMetadata) bool { return a.Text == b.Text }) {
			t.Errorf("document %d is there twice", i)
		}
	}
	for ch := range 2 {
		if c.kind == siprecPlain && !(c.dialect.Mixed && ch == 1) && !slices.ContainsFunc(m.Gaps, func(g recorder.Gap) bool {
			return g.Channel == ch && g.Cause == recorder.GapRestart && g.DurationMS > 0
		}) {
			t.Errorf("no gap %q on channel %d: %+v", recorder.GapRestart, ch, m.Gaps)
		}
	}
	windows := slices.DeleteFunc(slices.Clone(m.Windows), func(w recorder.Window) bool { return w.Reason == "unknown" })
	for _, w := range windows {
		if w.Reason != "hold" || w.Source != "siprec" || c.kind != siprecPaused {
			t.Errorf("window %+v", w)
		}
	}
	if c.kind == siprecPaused && (len(windows) == 0 || windows[0].EndRealMS-windows[0].RealMS < 2*siprecTalk.Milliseconds()) {
		t.Errorf("windows %+v, want holds over the restarts", windows)
	}
	if c.kind == siprecMetadata && strings.Contains(c.dialect.Dialogs[0].Body, siprecParty) && !slices.ContainsFunc(m.Labels, func(l recorder.Label) bool {
		return l.Channel == 1 && slices.Equal(l.Parties, []string{"sip:4712@pbx.example"})
	}) {
		t.Errorf("what came after the restart was not laid over what was known: %+v", m.Labels)
	}
}

// TestLiveRestartSIPRECSecure is TestLiveRestartSIPREC with SRTP: packets that come after
// the kills are read with the keys of before, and reports are written with them.
func TestLiveRestartSIPRECSecure(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	listen := freeUDP(t, liveHost)
	d := newLiveDaemon(t, siprecConfig(t, listen, []siptest.Dialect{{Source: []string{"srtp: required"}}}))
	d.start()
	ctx, cancel := context.WithTimeout(t.Context(), siprecLimit)
	defer cancel()
	call, peers := reporting(ctx, t, listen, true)
	const stretch = 100 // packets, before, between and behind the kills
	for k := range 3 {
		if k > 0 {
			d.kill()
			d.start()
		}
		for range stretch {
			for _, p := range peers {
				if err := p.Send(false); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	reports := func() (n int) {
		for _, p := range peers {
			list, _, err := p.Receipts()
			if err != nil && strings.Contains(err.Error(), "decrypt") {
				t.Fatal(err)
			}
			n += len(list)
		}
		return n
	}
	had := reports()
	await(t, "report under the keys of before", func() bool { return reports() > had })
	if err := call.Bye(ctx); err != nil {
		t.Fatal(err)
	}
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		if m.Call.EndCause != "bye" || len(m.Segments) != 3 {
			t.Errorf("ended by %s, %d segments", m.Call.EndCause, len(m.Segments))
		}
		for _, s := range m.Streams {
			if s.Packets <= stretch || s.Undecoded+s.Undecrypted > 0 { // those of the last process, and what was durable of the others
				t.Errorf("stream %+v", s)
			}
		}
		if len(m.Streams) != 2 {
			t.Errorf("%d streams", len(m.Streams))
		}
	}
	if text := d.metrics(); !strings.Contains(text, "trunktap_siprec_unjournalled_total 0\n") || !strings.Contains(text, "trunktap_siprec_restored_total 1\n") {
		t.Error("/metrics tells of something else than one session that went on")
	}
	d.stop()
}
