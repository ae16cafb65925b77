package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/sip/replay"
	"github.com/trunktap/trunktap/suppress"
)

// mustSite writes a configuration on loopback into a fresh directory.
func mustSite(t *testing.T) (dir, file string, cfg *config.Config) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "trunktap.yaml")
	mustWrite(t, file, fmt.Sprintf(`
sip: {listen: ["udp://%s"]}
media: {address: %s, ports: 10000-10099}
trunks:
  - name: carrier-a
    external: {next_hops: ["sip:127.0.0.2:5060"]}
    internal: {next_hops: ["sip:127.0.0.3:5060"]}
storage: {url: "file://%[3]s/recordings", spool: "%[3]s/spool"}
catalog: {url: "sqlite://%[3]s/catalog.db"}
api: {listen: "%[4]s"}
`, freeUDP(t, liveHost), liveHost, dir, freeTCP(t, liveHost)))
	cfg, faults := config.Load(file)
	if faults != nil {
		t.Fatal(faults)
	}
	return dir, file, cfg
}

// mustRecord puts the recording of writeCall, with a pause of a second, into
// the archive of a site.
func mustRecord(t *testing.T, dir string, cfg *config.Config) string {
	t.Helper()
	return mustRecordIn(t, dir, cfg, archiveConfig(cfg))
}

func mustRecordIn(t *testing.T, dir string, cfg *config.Config, c archive.Config) string {
	t.Helper()
	capture := filepath.Join(dir, "call.pcap")
	writeCall(t, capture)
	a, err := archive.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := recorder.New(recorder.Config{Policy: newPolicy(cfg), NewSink: a.NewSink, Synchronous: true})
	if err != nil {
		t.Fatal(err)
	}
	src, err := pcap.Open(capture)
	if err != nil {
		t.Fatal(err)
	}
	signals := []suppress.Signal{
		{V: 1, Event: suppress.PauseStart, At: captureStart.Add(1100 * time.Millisecond), Source: "test"},
		{V: 1, Event: suppress.PauseEnd, At: captureStart.Add(2100 * time.Millisecond), Source: "test"},
	}
	_, err = replay.Run(t.Context(), src, replay.Config{Trunks: replayTrunks(cfg), Signals: signals, OnSignal: func(s suppress.Signal) { rec.Post(s) }}, rec, nil)
	if err != nil {
		t.Fatal(err)
	}
	done, err := rec.Results()
	if err != nil || len(done) != 1 {
		t.Fatalf("%d recordings, %v", len(done), err)
	}
	for _, err := range []error{src.Close(), rec.Close(t.Context()), a.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return done[0].ID
}

// serving runs the daemon until the returned function is called, which gives
// its exit code and log.
func serving(t *testing.T, file string, cfg *config.Config) (stop func() (int, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var log bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"serve", "--config", file}, io.Discard, &log) }()
	deadline := time.Now().Add(liveReadyLimit)
	for !newRemote(cfg.API.Listen).alive(ctx) {
		select {
		case c := <-code:
			cancel()
			t.Fatalf("the daemon ended with %d: %s", c, log.String())
		default:
		}
		if time.Now().After(deadline) {
			cancel()
			t.Fatal("the daemon does not answer")
		}
	}
	return func() (int, string) {
		cancel()
		return <-code, log.String()
	}
}

// TestCommandsOnStoreAndDaemon: what the commands print does not depend on
// whether they ask the daemon or the store.
func TestCommandsOnStoreAndDaemon(t *testing.T) {
	dir, file, cfg := mustSite(t)
	id := mustRecord(t, dir, cfg)
	commands := [][]string{
		{"ls"},
		{"ls", "--json"},
		{"ls", "--json", "--number", "123", "--oldest", "--kind", "trunk", "--limit", "1"},
		{"ls", "--trunk", "none"},
		{"ls", "--user", "nobody", "--json"},
		{"ls", "--json", "--from", "2026-11-22T16:36:08Z", "--to", "2026-11-22T16:36:09Z"},
		{"show", id},
		{"show", id, "--json"},
		{"show", id, "--no-picture"},
		{"show", id, "--columns", "60"},
		{"usage", "--json"},
		{"usage", "--group", "day,trunk,user,kind,store"},
		{"ls", "--json", "--total", "--text", "198*", "--recorded", "yes", "--order", "longest"},
		{"verify"},
		{"verify", id, "--json"},
		{"verify", id},
		{"export", id, "-o", "-", "--format", "wav-pcm16"},
		{"export", id, "-o", "-"},
	}
	each := func() map[string]string {
		out := map[string]string{}
		for _, c := range commands {
			out[strings.Join(c, " ")] = mustRun(t, append(c, "--config", file)...)
		}
		return out
	}
	fromStore := each()
	stop := serving(t, file, cfg)
	fromDaemon := each()
	if r := command(t, "rebuild", "--config", file); r.code != exitFailed || !strings.Contains(r.errOut, "another trunktap works on this archive") {
		t.Errorf("rebuild beside the daemon: %+v", r)
	}
	code, log := stop()
	if code != exitFine || strings.Contains(log, "level=ERROR") {
		t.Errorf("the daemon ended with %d: %s", code, log)
	}
	if d := cmp.Diff(fromStore, fromDaemon); d != "" {
		t.Errorf("-store +daemon: %.3000s", d)
	}
	for c, want := range map[string]string{
		"ls": id, "ls --trunk none": "STARTED", "ls --user nobody --json": `{"recordings":[],"next":""}`, "show " + id: "░", "verify": "1 recordings, 1 segments", "export " + id + " -o -": "OggS",
		"show " + id + " --json": `"sip_call_id": "test-call@198.51.100.7"`,
	} {
		if !strings.Contains(fromStore[c], want) {
			t.Errorf("%s: %.500s", c, fromStore[c])
		}
	}
	if wav := fromStore["export "+id+" -o - --format wav-pcm16"]; !strings.HasPrefix(wav, "RIFF") || len(wav) != 44+2000*8*4 {
		t.Errorf("%d bytes of WAV", len(wav))
	}
}

func TestFilesOfCommands(t *testing.T) {
	dir, file, cfg := mustSite(t)
	id := mustRecord(t, dir, cfg)
	wav, png := filepath.Join(dir, "x.wav"), filepath.Join(dir, "x.png")
	mustRun(t, "export", id, "--config", file, "--format", "wav-pcmu", "-o", wav)
	mustRun(t, "show", id, "--config", file, "--png", png)
	for path, magic := range map[string]string{wav: "RIFF", png: "\x89PNG"} {
		content, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(content), magic) {
			t.Errorf("%s: %v", path, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: others may read it: %v", path, err)
		}
	}
	for _, c := range [][]string{
		{"show", "20261122T163608Z-0000000000000000"},
		{"export", "20261122T163608Z-0000000000000000", "-o", wav + "2"},
		{"verify", "20261122T163608Z-0000000000000000"},
		{"show", "../../etc"},
		{"export", id, "-o", filepath.Join(dir, "none", "x.wav")},
	} {
		if r := command(t, append(c, "--config", file)...); r.code != exitFailed || r.errOut == "" {
			t.Errorf("%v: %+v", c, r)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".x.wav*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestVerifyAndExportTellDamage(t *testing.T) {
	dir, file, cfg := mustSite(t)
	id := mustRecord(t, dir, cfg)
	var segment string
	for path := range files(t, cfg.Storage.Dir) {
		if filepath.Base(path) != "recording.json" && strings.Contains(path, id) && strings.HasPrefix(filepath.Base(path), "0001") {
			segment = filepath.Join(cfg.Storage.Dir, path)
		}
	}
	content, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.Chmod(segment, 0o600); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, segment, string(content))
	r := command(t, "verify", "--config", file)
	if r.code != exitFailed || !strings.Contains(r.out, id) || !strings.Contains(r.out, "altered") {
		t.Errorf("verify: %+v", r)
	}
	r = command(t, "export", id, "--config", file, "-o", filepath.Join(dir, "x.wav"), "--format", "wav-pcm16")
	if r.code != exitFailed || !strings.Contains(r.errOut, "is damaged") {
		t.Errorf("export: %+v", r)
	}
	r = command(t, "show", id, "--config", file)
	if r.code != exitFailed || !strings.Contains(r.errOut, "is damaged") || !strings.Contains(r.out, id) {
		t.Errorf("show: %+v", r)
	}
}

func TestRebuild(t *testing.T) {
	dir, file, cfg := mustSite(t)
	mustRecord(t, dir, cfg)
	want := mustRun(t, "ls", "--json", "--config", file)
	old, err := filepath.Glob(cfg.Catalog.Path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	const lost = "lists none of the store's recordings"
	if r := command(t, "ls", "--config", file); r.code != exitFine || !strings.Contains(r.errOut, lost) {
		t.Errorf("a lost catalogue is passed over: %+v", r)
	}
	if _, log := serving(t, file, cfg)(); !strings.Contains(log, lost) {
		t.Errorf("the daemon passes over a lost catalogue: %s", log)
	}
	if out := mustRun(t, "rebuild", "--config", file); out != "1 recordings in the catalogue\n" {
		t.Error(out)
	}
	if d := cmp.Diff(want, mustRun(t, "ls", "--json", "--config", file)); d != "" {
		t.Error(d)
	}
}

func TestServe(t *testing.T) {
	_, file, cfg := mustSite(t)
	stop := serving(t, file, cfg)
	base := "http://" + cfg.API.Listen.String()
	get := func(path string) (int, string) {
		req, err := http.NewRequest(http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		token, err := os.ReadFile(cfg.API.TokenFile)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	code, body := get("/readyz")
	for deadline := time.Now().Add(liveReadyLimit); code != 200 && time.Now().Before(deadline); { // it answers before calls are taken
		code, body = get("/readyz")
	}
	if code != 200 {
		t.Errorf("%d %s", code, body)
	}
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, "trunktap_calls 0") || !strings.Contains(body, "trunktap_build_info{") {
		t.Errorf("%d %.300s", code, body)
	}
	if code, body := get("/v1/calls"); code != 200 || strings.TrimSpace(body) != `{"calls":[]}` {
		t.Errorf("%d %s", code, body)
	}
	r := command(t, "serve", "--config", file)
	if r.code != exitFailed || !strings.Contains(r.errOut, "another trunktap works on this archive") {
		t.Errorf("a second daemon: %+v", r)
	}
	if err := os.Chmod(cfg.API.TokenFile, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := command(t, "ls", "--config", file); r.code != exitFailed || !strings.Contains(r.errOut, "chmod 600") {
		t.Errorf("a token for all: %+v", r)
	}
	http.DefaultClient.CloseIdleConnections()
	if code, log := stop(); code != exitFine {
		t.Errorf("%d %s", code, log)
	}
}

func TestReload(t *testing.T) {
	_, file, cfg := mustSite(t)
	var log bytes.Buffer
	d, err := start(t.Context(), cfg, newLog(&env{stderr: &log}, cfg.Log))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, file, string(old)+"nonsense: 1\n")
	d.reload(file)
	if !strings.Contains(log.String(), "nonsense") || d.cfg != cfg {
		t.Errorf("a bad file was taken: %s", log.String())
	}
	changed := strings.Replace(string(old), `["sip:127.0.0.3:5060"]}`, "[\"sip:127.0.0.3:5060\"]}\n    recording: {format: wav-pcmu}\n  - name: b\n    external: {next_hops: [\"sip:127.0.0.4\"]}\n    internal: {next_hops: [\"sip:127.0.0.5\"]}", 1) + "limits: {calls_max: 3}\n"
	mustWrite(t, file, changed)
	d.reload(file)
	plans := *d.policy.plans.Load()
	if plans["carrier-a"].Format != "wav-pcmu" || plans["b"].Format != "ogg-opus" || !strings.Contains(log.String(), "limits.calls_max") {
		t.Errorf("%+v %s", plans, log.String())
	}
}

// TestPlan: the configuration's words reach the pipeline.
func TestPlan(t *testing.T) {
	cfg := config.Default()
	want := recorder.DefaultPlan()
	if d := cmp.Diff(want, plan(cfg, &cfg.Trunks[0])); d != "" {
		t.Errorf("the defaults differ: %s", d)
	}
	r := &cfg.Trunks[0].Recording
	r.SampleRate, r.LevelControl, want.SampleRate, want.Level = 16000, true, 16000, true
	r.G726Packing, want.G726AAL2 = "aal2", true
	r.DualChannel, r.OnFailure, r.Consent, r.ExternalTransfer, r.Suppress.Hold, r.EarlyMedia = false, "refuse", "required", "continue", false, true
	cfg.Recording.Lookback, cfg.Recording.SegmentMax = time.Second, time.Minute
	got := plan(cfg, &cfg.Trunks[0])
	want.Mono, want.RefuseUnready, want.Rules.ConsentRequired, want.Rules.ExternalTransferStop, want.Rules.Hold, want.EarlyMedia = true, true, true, false, false, true
	want.Lookback, want.SegmentMax = time.Second, time.Minute
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestReportIsJSON(t *testing.T) {
	dir, file, cfg := mustSite(t)
	mustRecord(t, dir, cfg)
	var r struct{ Findings []any }
	if err := json.Unmarshal([]byte(mustRun(t, "verify", "--json", "--config", file)), &r); err != nil || r.Findings == nil {
		t.Errorf("%+v %v", r, err)
	}
}
