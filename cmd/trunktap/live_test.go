package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// The live tests run the daemon as a process of its own, with real sockets,
// files and clocks.

var liveDir string // of the binary; removed after all tests

func TestMain(m *testing.M) {
	code := m.Run()
	if liveDir != "" {
		_ = os.RemoveAll(liveDir) // a temporary directory
	}
	os.Exit(code)
}

// liveBinary builds the daemon once.
var liveBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "trunktap-live-")
	if err != nil {
		return "", err
	}
	liveDir = dir
	name := filepath.Join(dir, "trunktap")
	args := []string{"build", "-o", name}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race") // as these tests are
	}
	// The go command puts itself first in the PATH of the tests that it runs.
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the daemon: %w\n%s", err, out)
	}
	return name, nil
})

// Addresses of the live world: the daemon, and the agents of two trunks. Linux has all of
// 127.0.0.0/8 on loopback; they are taken at random, so that runs side by side do not meet.
var (
	liveNet   = [2]byte{byte(1 + rand.IntN(254)), byte(rand.IntN(256))}
	liveHost  = liveAddr(1)
	liveTrunk = [2][2]netip.Addr{{liveAddr(2), liveAddr(3)}, {liveAddr(4), liveAddr(5)}}
)

func liveAddr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{127, liveNet[0], liveNet[1], n}) }

const (
	liveReadyLimit   = 20 * time.Second
	livePublishLimit = 20 * time.Second
	livePollEvery    = 20 * time.Millisecond
	liveLookback     = "2s" // where each packet counts: the daemon's own is too short for a machine that stands still
)

// liveConfig is what a live test says of its daemon.
type liveConfig struct {
	Dir         string   // of everything; a temporary one when empty
	Store       string   // "": below Dir
	StoreURL    string   // "": of the directory Store
	Storage     []string // further keys of it
	Catalog     string   // its URL; "": a file in Dir
	Spool       string
	Listen      []string
	SIP         []string // further keys of it
	Media       []string // further keys of it
	Ports       int      // of media; 0: 200
	MediaFirst  int
	MediaLast   int
	API         netip.AddrPort
	SegmentMax  time.Duration
	WriteBudget string
	Lookback    string // "": the daemon's own
	Trunks      []liveTrunkConfig
	More        string // further keys of the file
}

type liveTrunkConfig struct {
	Name      string
	Role      string
	Passive   bool
	Format    string
	Keys      []string    // further keys of its own
	Recording []string    // further keys of its recording
	Sides     [2]liveSide // external, internal
}

type liveSide struct {
	Peer    netip.Addr
	Also    netip.Addr // another peer
	NextHop string
	Media   netip.Addr // of the daemon, to this side
	SRTP    []string   // keys about it
}

var liveTemplate = template.Must(template.New("live").Parse(`
sip:
  listen: [{{range $i, $l := .Listen}}{{if $i}}, {{end}}"{{$l}}"{{end}}]
{{- range .SIP}}
  {{.}}
{{- end}}
media:
  ports: {{.MediaFirst}}-{{.MediaLast}}
  quarantine: 0s
{{- range .Media}}
  {{.}}
{{- end}}
{{- if .Trunks}}
trunks:
{{- end}}
{{- range .Trunks}}
  - name: {{.Name}}
{{- with .Role}}
    role: {{.}}
{{- end}}
{{- if .Passive}}
    passive: true
{{- end}}
{{- range .Keys}}
    {{.}}
{{- end}}
{{- range $i, $s := .Sides}}
    {{if $i}}internal{{else}}external{{end}}:
      peers: ["{{$s.Peer}}"{{if $s.Also.IsValid}}, "{{$s.Also}}"{{end}}]
{{- with $s.NextHop}}
      next_hops: ["{{.}}"]
{{- end}}
      media_address: "{{$s.Media}}"
{{- range $s.SRTP}}
      {{.}}
{{- end}}
{{- end}}
    recording:
      format: {{.Format}}
{{- range .Recording}}
      {{.}}
{{- end}}
{{- end}}
recording:
  segment_max: {{.SegmentMax}}
  write_budget: {{.WriteBudget}}
{{- with .Lookback}}
  lookback: {{.}}
{{- end}}
storage:
  url: "{{.StoreURL}}"
{{- range .Storage}}
  {{.}}
{{- end}}
  spool: "{{.Spool}}"
catalog:
  url: "{{.Catalog}}"
api:
  listen: "{{.API}}"
{{.More}}
`))

// liveDaemon is the daemon as a child process. Start may be called again after
// Kill or Stop; the configuration stays.
type liveDaemon struct {
	t      *testing.T
	cfg    liveConfig
	binary string
	config string
	log    string // file name; all runs append
	base   string // of its HTTP interface

	token  string
	unit   *liveUnit // nil: cmd is the daemon
	cmd    *exec.Cmd
	exited chan error
}

func newLiveDaemon(t *testing.T, cfg liveConfig) *liveDaemon {
	t.Helper()
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Store == "" {
		cfg.Store = filepath.Join(cfg.Dir, "recordings")
	}
	if cfg.StoreURL == "" {
		cfg.StoreURL = "file://" + cfg.Store
	}
	if cfg.Spool == "" {
		cfg.Spool = filepath.Join(cfg.Dir, "spool")
	}
	if cfg.Catalog == "" {
		cfg.Catalog = "sqlite://" + cfg.Dir + "/catalog.db"
	}
	if cfg.SegmentMax == 0 {
		cfg.SegmentMax = 5 * time.Minute
	}
	if cfg.WriteBudget == "" {
		cfg.WriteBudget = "4MiB"
	}
	cfg.API = freeTCP(t, liveHost)
	cfg.MediaFirst = 10_000 + 200*rand.IntN(45) // below the ports that Linux gives to others
	cfg.MediaLast = cfg.MediaFirst + max(cfg.Ports, 200) - 1
	if !slices.ContainsFunc(cfg.Media, func(key string) bool { return strings.HasPrefix(key, "kernel:") }) {
		// That of all daemons, and what is left in it, may be another test's.
		cfg.Media = append(slices.Clone(cfg.Media), "kernel: {pin: "+livePins(t)+"}")
	}
	var text bytes.Buffer
	if err := liveTemplate.Execute(&text, cfg); err != nil {
		t.Fatal(err)
	}
	d := &liveDaemon{
		t: t, cfg: cfg, binary: must(liveBinary())(t), config: filepath.Join(cfg.Dir, "trunktap.yaml"), log: filepath.Join(cfg.Dir, "log"),
		base: "http://" + cfg.API.String(),
	}
	if err := os.WriteFile(d.config, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.kill() // only what a failed test left behind
		if t.Failed() {
			b, _ := os.ReadFile(d.log) // what is there is shown
			t.Logf("end of the daemon's log:\n%s", b[max(0, len(b)-6000):])
		}
	})
	return d
}

// twoTrunks are both trunks of loopback with the agents that listen there.
func twoTrunks(t *testing.T, formats ...string) (trunks []liveTrunkConfig, agents [][2]*siptest.Agent) {
	t.Helper()
	for i, f := range formats {
		var pair [2]*siptest.Agent
		tc := liveTrunkConfig{Name: fmt.Sprintf("trunk-%d", i), Format: f}
		for side, addr := range liveTrunk[i] {
			pair[side] = liveAgent(t, siptest.Config{Addr: netip.AddrPortFrom(addr, 0)})
			tc.Sides[side] = liveSide{Peer: addr, NextHop: "sip:" + pair[side].Addr().String(), Media: liveHost}
		}
		trunks, agents = append(trunks, tc), append(agents, pair)
	}
	return trunks, agents
}

func liveAgent(t *testing.T, cfg siptest.Config) *siptest.Agent {
	t.Helper()
	a := must(siptest.New(cfg))(t)
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// start starts the daemon and waits until it is ready.
func (d *liveDaemon) start() {
	d.t.Helper()
	d.startTo("/readyz")
}

// startTo starts the daemon and waits until it gives an answer.
func (d *liveDaemon) startTo(path string) {
	d.t.Helper()
	if d.unit != nil {
		d.unit.systemctl("start", "trunktap")
		d.within(liveReadyLimit, "the daemon is ready", func() error { return d.get(path, nil) })
		d.readToken()
		return
	}
	log := must(os.OpenFile(d.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600))(d.t)
	defer func() { _ = log.Close() }() // the daemon has its own descriptor of it
	d.cmd = exec.Command(d.binary, "serve", "--config", d.config)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	exited, cmd := make(chan error, 1), d.cmd
	d.exited = exited
	go func() { exited <- cmd.Wait() }()
	d.within(liveReadyLimit, "the daemon is ready", func() error {
		if len(exited) > 0 {
			d.cmd = nil // there is nothing left to kill
			d.t.Fatalf("the daemon ended: %v", <-exited)
		}
		return d.get(path, nil)
	})
	d.readToken()
}

func (d *liveDaemon) readToken() {
	d.t.Helper()
	token := must(os.ReadFile(filepath.Join(d.cfg.Dir, "api-token")))(d.t)
	d.token = strings.TrimSpace(string(token))
}

// kill ends the daemon as power loss does, as far as a process can.
func (d *liveDaemon) kill() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Kill() // it may have ended by itself
	<-d.exited
	d.cmd = nil
}

// stop ends the daemon as an operator does.
func (d *liveDaemon) stop() {
	d.t.Helper()
	if d.unit != nil {
		d.unit.systemctl("stop", "trunktap")
		return
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	d.ended()
}

// within calls f until it succeeds.
func (d *liveDaemon) within(limit time.Duration, what string, f func() error) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(livePollEvery)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			d.t.Fatalf("%s: not after %s: %v", what, limit, err)
		}
	}
}

func (d *liveDaemon) get(path string, into any) error { return d.do(http.MethodGet, path, nil, into) }

func (d *liveDaemon) do(method, path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, d.base+path, content)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+d.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := liveClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	if err == nil && into != nil {
		err = json.Unmarshal(answer, into)
	}
	return err
}

// signal reports a state of a call that begins or ends now, and returns when.
func (d *liveDaemon) signal(sipCallID, event string) (time.Time, error) {
	now := time.Now()
	return now, d.do(http.MethodPost, "/v1/calls/by-sip-call-id/"+sipCallID+"/signals", map[string]any{"v": 1, "event": event, "at": now, "source": "test"}, nil)
}

// recordings waits until n recordings are listed and returns them by Call-ID.
func (d *liveDaemon) recordings(n int) map[string]*recorder.Manifest {
	d.t.Helper()
	out := map[string]*recorder.Manifest{}
	d.within(livePublishLimit, fmt.Sprintf("%d recordings are listed", n), func() error {
		var page listing
		if err := d.get("/v1/recordings?limit=1000", &page); err != nil {
			return err
		}
		clear(out)
		for _, m := range page.Recordings {
			out[m.Call.SIPCallID] = &m
		}
		if len(page.Recordings) != n || len(out) != n {
			return fmt.Errorf("%d recordings of %d calls", len(page.Recordings), len(out))
		}
		return nil
	})
	return out
}

// command runs the daemon's command line beside it; a code other than 0 fails the test.
func (d *liveDaemon) command(args ...string) string {
	d.t.Helper()
	out, err := exec.Command(d.binary, append(args, "--config", d.config)...).CombinedOutput()
	if err != nil {
		d.t.Errorf("trunktap %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// export plays a recording by the command line.
func (d *liveDaemon) export(id string) [2][]int16 {
	d.t.Helper()
	name := filepath.Join(d.t.TempDir(), "out.wav")
	d.command("export", id, "--format", "wav-pcm16", "-o", name)
	return readPCM(d.t, name)
}

// readPCM reads the samples of a WAV file of 16 bits and two channels.
func readPCM(t *testing.T, name string) (out [2][]int16) {
	t.Helper()
	b := must(os.ReadFile(name))(t)
	for b = b[44:]; len(b) >= 4; b = b[4:] {
		for ch := range 2 {
			out[ch] = append(out[ch], int16(uint16(b[2*ch])|uint16(b[2*ch+1])<<8))
		}
	}
	return out
}

// via is where an agent of the loopback trunks sends its calls.
func (d *liveDaemon) via() netip.AddrPort {
	_, at, _ := strings.Cut(d.cfg.Listen[0], "://")
	return netip.MustParseAddrPort(at)
}
