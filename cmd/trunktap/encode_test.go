package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/archive"
)

func TestPlanOfCoding(t *testing.T) {
	cfg := mustConfig(t, "opus: {bitrate: 24000, complexity: 0, application: audio}", "encode: {mode: deferred, as: wav-pcma}", "")
	live, phones := plan(cfg, &cfg.Trunks[0]), plan(cfg, &cfg.Trunks[1])
	if live.Format != recorder.FormatOggOpus || live.OpusBitrate != 24000 || live.OpusComplexity != 0 || live.OpusApplication != codec.OpusAudio {
		t.Errorf("%+v", live)
	}
	if phones.Format != recorder.FormatWAVPCMA {
		t.Errorf("%s during the call", phones.Format)
	}
}

// TestDeferredByPolicy: what is coded after its call is what the configuration
// wants as Opus and what was recorded for that, of stations by their own format.
func TestDeferredByPolicy(t *testing.T) {
	p := newPolicy(mustConfig(t, "", "encode: deferred, opus: {bitrate: 20000, complexity: 3}",
		"stations: [alice, {user: bob, recording: {format: wav-pcmu}}]\n"))
	for _, c := range []struct {
		what string
		m    recorder.Manifest
		want bool
	}{
		{"alice", recorder.Manifest{Trunk: "phones", Kind: recorder.KindStation, User: "alice", Format: "wav-pcmu"}, true},
		{"bob wants it so", recorder.Manifest{Trunk: "phones", Kind: recorder.KindStation, User: "bob", Format: "wav-pcmu"}, false},
		{"a consultation", recorder.Manifest{Trunk: "phones", Kind: recorder.KindConsult, User: "bob", Format: "wav-pcmu"}, true},
		{"recorded before a reload", recorder.Manifest{Trunk: "phones", Kind: recorder.KindStation, User: "alice", Format: "wav-pcm16"}, false},
		{"coded already", recorder.Manifest{Trunk: "phones", Kind: recorder.KindStation, User: "alice", Format: "ogg-opus"}, false},
		{"a trunk that codes live", recorder.Manifest{Trunk: "carrier", Kind: recorder.KindTrunk, Format: "wav-pcmu"}, false},
		{"a trunk that is gone", recorder.Manifest{Trunk: "gone", Kind: recorder.KindTrunk, Format: "wav-pcmu"}, false},
	} {
		opt, ok := p.deferred(&c.m)
		if ok != c.want {
			t.Errorf("%s: %v", c.what, ok)
		}
		if d := cmp.Diff(codec.Options{Bitrate: 20000, Complexity: 3, Application: "voip"}, opt); ok && d != "" {
			t.Errorf("%s: %s", c.what, d)
		}
	}
	stations := (*p.plans.Load())["phones"].Stations
	for user, format := range map[string]string{"alice": "wav-pcmu", "bob": "wav-pcmu"} {
		if s, ok := stations.Plan(user); !ok || s.Format != format {
			t.Errorf("%s is recorded as %s", user, s.Format)
		}
	}
}

// TestDeferredInTheDaemon: a recording that waits is coded by the daemon, told
// in its metrics, and verifies before and after.
func TestDeferredInTheDaemon(t *testing.T) {
	dir, file, _ := mustSite(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, file, strings.Replace(string(text), "storage:", "    recording: {encode: deferred}\nstorage:", 1))
	cfg, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	p := newPolicy(cfg)
	c := archiveConfig(cfg)
	c.Deferred = archive.DeferredConfig{Options: p.deferred}
	id := mustRecordIn(t, dir, cfg, c)
	mustVerifyAll(t, file)
	stop := serving(t, file, cfg)
	a, err := archive.Open(func() archive.Config { c := archiveConfig(cfg); c.ReadOnly = true; return c }())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		m, err := a.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if m.Format == recorder.FormatOggOpus {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %s", m.Format)
		}
	}
	if code, log := stop(); code != 0 {
		t.Errorf("exit %d: %s", code, log)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	mustVerifyAll(t, file)
	if left, err := os.ReadDir(filepath.Join(cfg.Storage.Spool, "deferred")); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

func mustVerifyAll(t *testing.T, file string) {
	t.Helper()
	var out, log strings.Builder
	if code := run(t.Context(), []string{"verify", "--config", file}, &out, &log); code != 0 {
		t.Errorf("verify: exit %d: %s%s", code, out.String(), log.String())
	}
}
