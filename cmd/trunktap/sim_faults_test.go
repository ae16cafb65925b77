package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/plain"
	"github.com/trunktap/trunktap/sip/siptest"
	"github.com/trunktap/trunktap/suppress"
)

// canaryHz is spoken inside windows only; canaryDigits are dialled there only.
const (
	canaryHz     = 1700
	canaryDigits = "908172635"
)

// heardSink keeps, decoded, every sample and every account that a recording
// hands on to be written.
type heardSink struct {
	recorder.Sink
	mu    *sync.Mutex
	heard *[2][]int16
	notes *bytes.Buffer
}

type heardSegment struct {
	recorder.SegmentWriter
	s *heardSink
}

func (s *heardSink) Begin(i recorder.SegmentInfo) (recorder.SegmentWriter, error) {
	w, err := s.Sink.Begin(i)
	return &heardSegment{w, s}, err
}

func (s *heardSink) note(m *recorder.Manifest) {
	if m == nil {
		return
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	s.notes.Write(b)
}

func (s *heardSink) Publish(m *recorder.Manifest) error {
	s.mu.Lock()
	s.note(m)
	s.mu.Unlock()
	return s.Sink.Publish(m)
}

func (w *heardSegment) Write(a recorder.Audio, m *recorder.Manifest) error {
	w.s.mu.Lock()
	for i := 0; i+3 < len(a.Data); i += 4 {
		for ch := range 2 {
			w.s.heard[ch] = append(w.s.heard[ch], int16(uint16(a.Data[i+2*ch])|uint16(a.Data[i+2*ch+1])<<8))
		}
	}
	w.s.note(m)
	w.s.mu.Unlock()
	return w.SegmentWriter.Write(a, m)
}

// canaryCall speaks and dials the canary inside pauses and holds of several
// kinds: at once, late within lookback, nested, and ended by the wrong signal.
// The digits come by RFC 4733, INFO or as tones.
func canaryCall(w *world, by string) {
	second := time.Second
	c := w.inbound(siptest.CallOptions{}, siptest.Answer{Ring: second})
	secret := func(dials *siptest.Call, d time.Duration) {
		c.external.Media().Play(siptest.Tone(canaryHz, 0.5))
		c.internal.Media().Play(siptest.Tone(canaryHz, 0.5))
		switch by {
		case "info":
			c.infoDigits(dials, canaryDigits)
		case "tones":
			dials.Media().Play(toneKeys(canaryDigits))
			time.Sleep(toneKeysLast(canaryDigits))
			dials.Media().Play(siptest.Tone(canaryHz, 0.5))
		default:
			w.ok(dials.Media().SendDigits(w.ctx, canaryDigits))
		}
		time.Sleep(d)
		c.external.Media().Play(siptest.Tone(440, 0.3))
		c.internal.Media().Play(siptest.Tone(1000, 0.3))
		time.Sleep(250 * time.Millisecond) // what is under way arrives inside the window
	}
	c.signal(suppress.IVRStart, 0) // from the first second on nothing is kept
	secret(c.external, second)
	c.signal(suppress.IVREnd, 0)
	time.Sleep(2 * second)
	c.signal(suppress.PauseStart, 0)
	time.Sleep(20 * time.Millisecond)
	secret(c.external, second)
	c.signal(suppress.PauseEnd, 0)
	time.Sleep(2 * second)

	c.external.Media().Play(siptest.Tone(canaryHz, 0.5)) // told 300 ms too late
	time.Sleep(300 * time.Millisecond)
	c.signal(suppress.PauseStart, 320*time.Millisecond)
	secret(c.external, second)
	w.ok(c.internal.Hold(w.ctx, siptest.HoldSendOnly))
	secret(c.internal, second)
	w.ok(c.internal.Resume(w.ctx)) // ends the hold, never the pause
	secret(c.external, second)
	c.signal(suppress.HoldEnd, 0)
	secret(c.external, second)
	c.signal(suppress.PauseEnd, 0)
	time.Sleep(2 * second)
	c.bye(c.external)
}

// TestSimCanary holds promise 2: what is spoken and dialled inside windows is in
// nothing that is written, logged, told or served, jitter and reordering included.
func TestSimCanary(t *testing.T) {
	for _, format := range []string{recorder.FormatWAVPCM16, recorder.FormatOggOpus} {
		for _, mode := range []string{recorder.SuppressedCut, recorder.SuppressedSilence} {
			for _, by := range []string{"events", "info", "tones"} {
				t.Run(format+" "+mode+" "+by, func(t *testing.T) { canary(t, format, mode, by) })
			}
		}
	}
}

func canary(t *testing.T, format, mode, by string) {
	dir := t.TempDir()
	var mu sync.Mutex
	var heard [2][]int16
	var told bytes.Buffer // logs, events, accounts and API answers
	var arch *archive.Archive
	cfg := worldConfig{plan: simPlan()}
	cfg.plan.Format, cfg.plan.Suppressed, cfg.plan.InbandDTMF = format, mode, recorder.InbandOn
	cfg.rec.Log = slog.New(slog.NewJSONHandler(&lockedWriter{w: &told, mu: &mu}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.rec.NewSink = func(ctx context.Context, id, prefix string) (recorder.Sink, error) {
		s, err := arch.NewSink(ctx, id, prefix)
		return &heardSink{s, &mu, &heard, &told}, err
	}
	inWorld(t, cfg, func(w *world) {
		arch = must(archive.Open(archive.Config{
			StoreDir: filepath.Join(dir, "store"), SpoolDir: filepath.Join(dir, "spool"), CatalogPath: filepath.Join(dir, "catalog.db"), KeyFile: filepath.Join(dir, "keys.json"),
		}))(w.t)
		w.net.Impair(simCarrier.Addr(), simOutside.Addr(), mediatest.Impairment{Delay: 4 * time.Millisecond, Jitter: 120 * time.Millisecond, Reorder: 0.05, Loss: 0.01})
		events, cancel := w.rec.Subscribe()
		canaryCall(w, by)
		cancel()
		for e := range events {
			w.ok(json.NewEncoder(&lockedWriter{w: &told, mu: &mu}).Encode(e))
		}
		page := must(arch.Find(w.ctx, recorder.Query{}))(w.t)
		if len(page.Rows) != 1 {
			w.t.Fatalf("%d recordings, want 1", len(page.Rows))
		}
		m := page.Rows[0].Manifest
		if len(m.Windows) < 3 || m.AudioMS < 5000 || len(m.DTMF) != 0 {
			w.t.Errorf("windows %+v, audio %d ms, %d digits", m.Windows, m.AudioMS, len(m.DTMF))
		}
		told.WriteString(mustJSON(w.t, page) + mustJSON(w.t, w.rec.Calls()))
		if format == recorder.FormatWAVPCM16 {
			noCanary(w.t, "handed to the sink", heard)
		}
		noCanary(w.t, "exported", exported(w.t, arch, m.ID))
		w.ok(arch.Close())
	})
	for name, content := range simTree(t, dir) {
		told.WriteString(name + content)
	}
	digitsNowhere(t, told.String())
}

// chance matches hashes, ids, keys and synchronisation sources, which are drawn
// anew each time: digits stand in a row there by chance.
var chance = regexp.MustCompile(`[0-9a-f]{16,}|[0-9A-Za-z+/=]{32,}|"ssrc":[0-9]+`)

// digitsNowhere looks for three dialled digits in a row, as text or as events.
func digitsNowhere(t *testing.T, told string) {
	t.Helper()
	told = chance.ReplaceAllString(told, " ")
	for i := range len(canaryDigits) - 4 {
		if s := canaryDigits[i : i+5]; strings.Contains(told, s) {
			t.Errorf("the digits %q of a secure pause are in what was written or told", s)
		}
	}
	if strings.Contains(told, `"digit"`) {
		t.Error("a digit is named though all were dialled inside windows")
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	return string(must(json.Marshal(v))(t))
}

type lockedWriter struct {
	w  io.Writer
	mu *sync.Mutex
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// exported plays a whole recording as PCM.
func exported(t *testing.T, a *archive.Archive, id string) (out [2][]int16) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "out.wav")
	f := must(os.Create(name))(t)
	if err := errors.Join(a.Export(t.Context(), id, recorder.FormatWAVPCM16, f, nil), f.Close()); err != nil {
		t.Fatal(err)
	}
	b := must(os.ReadFile(name))(t)
	for b = b[44:]; len(b) >= 4; b = b[4:] {
		for ch := range 2 {
			out[ch] = append(out[ch], int16(uint16(b[2*ch])|uint16(b[2*ch+1])<<8))
		}
	}
	return out
}

// noCanary looks at every 20 ms of both channels.
func noCanary(t *testing.T, what string, pcm [2][]int16) {
	t.Helper()
	for ch := range pcm {
		voice := []float64{440, 1000}[ch]
		most, spoken := 0.0, 0
		for i := 0; i+160 <= len(pcm[ch]); i += 80 {
			w := pcm[ch][i : i+160]
			most = max(most, mediatest.Energy(w, canaryHz, 8000))
			if mediatest.Energy(w, voice, 8000) > 1e6 {
				spoken++
			}
		}
		// The canary has an energy of 1.3e8 (half of full scale); the edges of the
		// voices leak a little into its band.
		if most > 3e6 {
			t.Errorf("%s: channel %d holds the canary with energy %.0f", what, ch, most)
		}
		if spoken < 300 {
			t.Errorf("%s: channel %d has its voice in %d windows only", what, ch, spoken)
		}
	}
}

// brokenSink fails, hangs or panics in every operation.
type brokenSink struct {
	recorder.Sink
	do func() error
}

func (b brokenSink) Begin(recorder.SegmentInfo) (recorder.SegmentWriter, error) { return nil, b.do() }
func (b brokenSink) Publish(*recorder.Manifest) error                           { return b.do() }
func (b brokenSink) Discard() error                                             { return nil }
func (b brokenSink) Close() error                                               { return nil }

// panicking is an observer whose pipeline faults at every turn.
type panicking struct{}

func (panicking) Plan(media.Session) (recorder.Plan, bool) { panic("policy fault") }

// TestSimCallIsUnharmed holds promise 1: whatever becomes of the recorder, every
// packet arrives, unchanged and exactly as early as without it.
func TestSimCallIsUnharmed(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	sinkOf := func(do func() error) func(*worldConfig) {
		return func(c *worldConfig) {
			c.rec.CallBudgetBytes = 64 << 10
			c.rec.NewSink = func(context.Context, string, string) (recorder.Sink, error) { return brokenSink{do: do}, nil }
		}
	}
	for name, spoil := range map[string]func(*worldConfig){
		"recording":     func(*worldConfig) {},
		"not recorded":  func(c *worldConfig) { c.rec.Policy = never{} },
		"disk full":     sinkOf(func() error { return errors.New("no space left on device") }),
		"sink panics":   sinkOf(func() error { panic("sink fault") }),
		"no key":        func(c *worldConfig) { c.rec.NewSink = noSink },
		"policy panics": func(c *worldConfig) { c.rec.Policy = panicking{} },
		"pipeline panics": func(c *worldConfig) {
			rounds := 0
			c.rec.Workers = 1 // rounds is its alone
			c.rec.Fault = func(string) {
				if rounds++; rounds > 500 { // 10 s into the call
					panic("pipeline fault")
				}
			}
		},
		"tiny tap rings": func(c *worldConfig) { c.rec.RingBytes = 512 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := worldConfig{plan: simPlan()}
			cfg.rec.NewSink = plain.New(t.TempDir()).NewSink
			spoil(&cfg)
			unharmed(t, cfg)
		})
	}
}

type never struct{}

func (never) Plan(media.Session) (recorder.Plan, bool) { return recorder.Plan{}, false }

func noSink(context.Context, string, string) (recorder.Sink, error) {
	return nil, errors.New("key not available")
}

func unharmed(t *testing.T, cfg worldConfig) {
	t.Helper()
	inBubble(t, cfg, func(w *world) {
		c := w.inbound(siptest.CallOptions{}, siptest.Answer{Ring: time.Second})
		time.Sleep(30 * time.Second)
		w.ok(c.internal.Hold(w.ctx, siptest.HoldInactive))
		w.ok(c.internal.Resume(w.ctx))
		time.Sleep(5 * time.Second)
		c.external.Media().Play(siptest.DTX())
		c.internal.Media().Play(siptest.DTX())
		time.Sleep(100 * time.Millisecond)
		c.bye(c.external)
		c.unharmed(1700)
	})
}

// unharmed compares what was sent with what came: every packet, unchanged and
// exactly as early as without a recorder.
func (c *simCall) unharmed(least int) {
	t := c.w.t
	t.Helper()
	const oneWay = 8 * time.Millisecond // two links of 4 ms
	for _, d := range []struct {
		name     string
		from, to *siptest.Call
	}{{"inwards", c.external, c.internal}, {"outwards", c.internal, c.external}} {
		sent, got := d.from.Media().Sent(), d.to.Media().Received()
		if len(sent) != len(got) || len(sent) < least {
			t.Fatalf("%s: %d packets sent, %d received", d.name, len(sent), len(got))
		}
		for i := range sent {
			if !bytes.Equal(sent[i].Wire, got[i].Wire) {
				t.Fatalf("%s: packet %d was changed", d.name, i)
			}
			if late := got[i].At.Sub(sent[i].At); late != oneWay {
				t.Fatalf("%s: packet %d took %v, want %v", d.name, i, late, oneWay)
			}
		}
	}
}

// inBubble is inWorld for a recorder that may be left with what it cannot publish.
func inBubble(t *testing.T, cfg worldConfig, f func(w *world)) {
	t.Helper()
	cfg.abandon = true
	inWorld(t, cfg, f)
}
