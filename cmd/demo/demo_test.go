package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-audio/audio"
	"github.com/go-audio/wav"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

func TestResample(t *testing.T) {
	for _, from := range []int{11025, 16000, 22050, 44100, 48000} {
		tone := func(hz float64) []float64 {
			out := make([]float64, from)
			for i, s := range mediatest.Tone(hz, from, from, 10_000) {
				out[i] = float64(s)
			}
			return out
		}
		for _, tc := range []struct{ hz, low, high float64 }{
			{300, 0.97, 1.03}, {1000, 0.97, 1.03}, {3000, 0.95, 1.05}, // kept
			{4500, 0, 0.001}, {5000, 0, 0.001}, // would come back as 3500 and 3000 Hz
		} {
			pcm := resample(tone(tc.hz), from)
			if len(pcm) != rate {
				t.Fatalf("%d samples of a second at %d Hz", len(pcm), from)
			}
			pcm = pcm[rate/10 : rate*9/10]
			at := tc.hz
			if at > rate/2 {
				at = rate - at
			}
			if e := mediatest.Energy(pcm, at, rate) / (10_000 * 10_000 / 2); e < tc.low || e > tc.high {
				t.Errorf("%d Hz: a tone of %.0f Hz keeps %.4f of its energy at %.0f Hz", from, tc.hz, e, at)
			}
		}
	}
}

func TestConfigurationIsValid(t *testing.T) {
	dir := t.TempDir()
	s, err := newSite(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	cfg, faults := config.Load(s.config)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if got := cfg.SIP.Listen[0].Addr; got != s.SIP {
		t.Errorf("listens on %s, want %s", got, s.SIP)
	}
}

func TestPrepareReplacesOnlyItsOwn(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	for range 2 {
		if err := prepare(out); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(out, "recording.wav"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(out, marker)); err != nil {
		t.Fatal(err)
	}
	if err := prepare(out); err == nil {
		t.Error("a directory of somebody else was taken")
	}
	if _, err := os.Stat(filepath.Join(out, "recording.wav")); err != nil {
		t.Error(err)
	}
}

func TestSignalAndListing(t *testing.T) {
	var got map[string]any
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer secret":
			http.Error(w, "no", http.StatusUnauthorized)
		case r.URL.Path == "/v1/calls":
			_, _ = w.Write([]byte(`{"calls":[{"id":"x","sip_call_id":"other"},{"id":"c1","sip_call_id":"abc"}]}`))
		case r.Method == http.MethodPost && r.URL.Path == "/v1/calls/c1/signals":
			_ = json.NewDecoder(r.Body).Decode(&got)
		default:
			http.Error(w, "nothing here", http.StatusNotFound)
		}
	}))
	defer server.Close()
	d := &daemon{base: server.URL, token: "secret"}
	id, err := d.liveCall(t.Context(), "abc")
	if err != nil || id != "c1" {
		t.Fatalf("id %q, error %v", id, err)
	}
	if err := d.signal(t.Context(), id, "pause.start"); err != nil || got["event"] != "pause.start" {
		t.Errorf("sent %v, error %v", got, err)
	}
	if _, err := d.liveCall(t.Context(), "none"); err == nil {
		t.Error("found a call that is not there")
	}
	if err := d.get(t.Context(), "/else", nil); err == nil || !strings.Contains(err.Error(), "nothing here") {
		t.Errorf("error %v", err)
	}
}

// staged is a call of two agents without a daemon between them, and the
// recording that a true recorder would make of it.
type staged struct {
	c   *call
	m   *recorder.Manifest
	wav string
}

// stage makes a call of 10 s with a hold from 3 to 4 s and a pause from 6 to 8 s.
func stage(t *testing.T) staged {
	t.Helper()
	s := staged{wav: filepath.Join(t.TempDir(), "r.wav")}
	net := mediatest.NewNet(1)
	listen := func(at netip.AddrPort) (siptest.Conn, error) { return net.Listen(at) }
	a := mustAgent(t, siptest.Config{Addr: netip.MustParseAddrPort("192.0.2.1:5060"), Listen: listen})
	b := mustAgent(t, siptest.Config{Addr: netip.MustParseAddrPort("192.0.2.2:5060"), Listen: listen})
	out, err := a.Call(t.Context(), b.URI(), b.Addr(), siptest.CallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	in, err := b.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	s.c = &call{caller: out.Media(), agent: in.Media(), answer: start, bye: at(10_000), hold: span{at(3000), at(4000)}, pause: span{at(6000), at(8000)}}
	caller, agent := bursts(440, 0), bursts(620, 1)
	s.c.caller.Play(siptest.PCM(caller))
	s.c.agent.Play(siptest.PCM(agent))
	time.Sleep(10 * time.Second)
	if err := out.Bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.m = &recorder.Manifest{RealMS: 10_000, AudioMS: 7000, Windows: []recorder.Window{
		{Reason: "hold", RealMS: 3000, EndRealMS: 4000}, {Reason: "pause", RealMS: 6000, EndRealMS: 8000},
	}}
	s.write(t, caller, agent)
	return s
}

// bursts are ten seconds of tone that come and go; the two parties' at other times.
func bursts(hz float64, party int) []int16 {
	pcm := mediatest.Tone(hz, rate, 10*rate, 9000)
	for i := range pcm {
		if (i/(rate/2)+i/(rate*3/4))%2 != party {
			pcm[i] = 0
		}
	}
	return pcm
}

// write puts both voices, without the windows, into the playable file.
func (s staged) write(t *testing.T, left, right []int16) {
	t.Helper()
	buf := &audio.IntBuffer{Format: &audio.Format{NumChannels: 2, SampleRate: rate}, SourceBitDepth: 16}
	for i := range left {
		if !suppressed(s.m, int64(i)*1000/rate) {
			buf.Data = append(buf.Data, int(left[i]), int(right[i]))
		}
	}
	file, err := os.Create(s.wav)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	e := wav.NewEncoder(file, rate, 16, 2, 1)
	if err := e.Write(buf); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustAgent(t *testing.T, cfg siptest.Config) *siptest.Agent {
	t.Helper()
	agent, err := siptest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := agent.Close(); err != nil {
			t.Error(err)
		}
	})
	return agent
}

// TestVerdict: a true recording passes, and each fault is named.
func TestVerdict(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, s *staged)
		want  string
	}{
		"true":             {func(*testing.T, *staged) {}, ""},
		"no hold":          {func(_ *testing.T, s *staged) { s.m.Windows = s.m.Windows[1:]; s.m.AudioMS += 1000 }, "the hold was cut out: 0 windows"},
		"pause too late":   {func(_ *testing.T, s *staged) { s.m.Windows[1].RealMS += 500; s.m.AudioMS += 500 }, "the secure pause was cut out: window from 6500"},
		"pause missed":     {func(_ *testing.T, s *staged) { s.m.Windows[1].MissedMS = 20 }, "20 ms missed"},
		"account":          {func(_ *testing.T, s *staged) { s.m.RealMS += 100 }, "audio and windows"},
		"digits":           {func(_ *testing.T, s *staged) { s.m.DTMF = []recorder.Digit{{Digit: "4"}} }, "1 digits are in the manifest"},
		"length":           {func(t *testing.T, s *staged) { s.write(t, bursts(440, 0)[:9*rate], bursts(620, 1)[:9*rate]) }, "it lasts 6000 ms"},
		"channels swapped": {func(t *testing.T, s *staged) { s.write(t, bursts(620, 1), bursts(440, 0)) }, "channel 0 is like its own voice by -"},
		"leak":             {func(t *testing.T, s *staged) { s.write(t, bursts(440, 0), bursts(620, 0)) }, "channel 1 is like"},
		"packets lost":     {func(_ *testing.T, s *staged) { s.c.caller = s.c.agent }, "byte for byte"},
		"early BYE":        {func(_ *testing.T, s *staged) { s.c.bye = s.c.answer.Add(-time.Hour) }, "nothing was sent"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := stage(t)
				tc.spoil(t, &s)
				err := verdict(io.Discard, s.c, s.m, s.wav)
				if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
					t.Errorf("verdict %v, want %q", err, tc.want)
				}
			})
		})
	}
}

func TestCorrelation(t *testing.T) {
	a := []float64{1, 2, 3, 4}
	for _, tc := range []struct {
		b    []float64
		want float64
	}{{[]float64{2, 4, 6, 8, 100}, 1}, {[]float64{4, 3, 2, 1}, -1}, {[]float64{5, 5, 5, 5}, 0}, {nil, 0}} {
		if got := correlation(a, tc.b); math.Abs(got-tc.want) > 1e-9 {
			t.Errorf("correlation with %v is %v, want %v", tc.b, got, tc.want)
		}
	}
}

func TestVoicesDiffer(t *testing.T) {
	v, how := speak(t.Context())
	t.Log(how)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // espeak-ng cannot be started
	beeps, how := speak(ctx)
	if !strings.Contains(how, "tones") {
		t.Errorf("without espeak-ng: %s", how)
	}
	for _, set := range []voices{v, beeps} {
		total := time.Duration(0)
		for _, pcm := range [][]int16{set.greeting, set.wish, set.announcement, set.card, set.farewell, set.thanks} {
			if lasts(pcm) < 500*time.Millisecond {
				t.Errorf("a line lasts %s", lasts(pcm))
			}
			total += lasts(pcm)
		}
		if total < 8*time.Second || total > 18*time.Second {
			t.Errorf("all lines last %s", total)
		}
	}
}

func TestConfigTemplateNamesAllOfTheSite(t *testing.T) {
	for _, field := range []string{"SIP", "API", "External", "Internal", "MediaFirst", "MediaLast", "Dir"} {
		if !bytes.Contains([]byte(configText), []byte("{{."+field+"}}")) {
			t.Errorf("the configuration does not use %s", field)
		}
	}
}
