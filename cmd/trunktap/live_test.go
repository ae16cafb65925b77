package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
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
	// The go command puts itself first in the PATH of the tests that it runs.
	if out, err := exec.Command("go", "build", "-o", name, ".").CombinedOutput(); err != nil {
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
)

// liveConfig is what a live test says of its daemon.
type liveConfig struct {
	Dir         string // of everything; a temporary one when empty
	Store       string // "": below Dir
	Spool       string
	Listen      []string
	MediaFirst  int
	MediaLast   int
	API         netip.AddrPort
	SegmentMax  time.Duration
	WriteBudget string
	Trunks      []liveTrunkConfig
}

type liveTrunkConfig struct {
	Name   string
	Format string
	Sides  [2]liveSide // external, internal
}

type liveSide struct {
	Peer    netip.Addr
	NextHop string
	Media   netip.Addr // of the daemon, to this side
}

var liveTemplate = template.Must(template.New("live").Parse(`
sip:
  listen: [{{range $i, $l := .Listen}}{{if $i}}, {{end}}"{{$l}}"{{end}}]
media:
  ports: {{.MediaFirst}}-{{.MediaLast}}
  quarantine: 0s
trunks:
{{- range .Trunks}}
  - name: {{.Name}}
{{- range $i, $s := .Sides}}
    {{if $i}}internal{{else}}external{{end}}:
      peers: ["{{$s.Peer}}"]
      next_hops: ["{{$s.NextHop}}"]
      media_address: "{{$s.Media}}"
{{- end}}
    recording:
      format: {{.Format}}
{{- end}}
recording:
  segment_max: {{.SegmentMax}}
  write_budget: {{.WriteBudget}}
storage:
  url: "file://{{.Store}}"
  spool: "{{.Spool}}"
catalog:
  url: "sqlite://{{.Dir}}/catalog.db"
api:
  listen: "{{.API}}"
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
	if cfg.Spool == "" {
		cfg.Spool = filepath.Join(cfg.Dir, "spool")
	}
	if cfg.SegmentMax == 0 {
		cfg.SegmentMax = 5 * time.Minute
	}
	if cfg.WriteBudget == "" {
		cfg.WriteBudget = "4MiB"
	}
	cfg.API = freeTCP(t, liveHost)
	cfg.MediaFirst = 10_000 + 200*rand.IntN(45) // below the ports that Linux gives to others
	cfg.MediaLast = cfg.MediaFirst + 199
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

// freeUDP and freeTCP are addresses that are free now.
func freeUDP(t *testing.T, host netip.Addr) netip.AddrPort {
	t.Helper()
	c := must(net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host, 0))))(t)
	defer func() { _ = c.Close() }() // nothing was sent
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

func freeTCP(t *testing.T, host netip.Addr) netip.AddrPort {
	t.Helper()
	c := must(net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(host, 0))))(t)
	defer func() { _ = c.Close() }() // nothing was sent
	return netip.MustParseAddrPort(c.Addr().String())
}

// start starts the daemon and waits until it is ready.
func (d *liveDaemon) start() {
	d.t.Helper()
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
			d.t.Fatalf("the daemon ended: %v", <-exited)
		}
		return d.get("/readyz", nil)
	})
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
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	if err := <-d.exited; err != nil {
		d.t.Errorf("the daemon ended: %v", err)
	}
	d.cmd = nil
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
	resp, err := http.DefaultClient.Do(req)
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

// livePair is a call through the daemon, seen from both ends.
type livePair struct {
	external, internal *siptest.Call
	hz                 [2]float64
}

// call makes a call inwards and lets each side speak its tone.
func (d *liveDaemon) call(agents [2]*siptest.Agent, hz [2]float64) *livePair {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	p := &livePair{hz: hz}
	p.external = must(agents[0].Call(ctx, "sip:desk@"+d.via().String(), d.via(), siptest.CallOptions{}))(d.t)
	p.internal = must(agents[1].Accept(ctx))(d.t)
	if p.internal.ID() != p.external.ID() {
		d.t.Fatal("the calls were mixed up")
	}
	p.external.Media().Play(siptest.Tone(hz[0], 0.3))
	p.internal.Media().Play(siptest.Tone(hz[1], 0.3))
	return p
}

// bye ends the call when all that was sent has had time to arrive.
func (p *livePair) bye(ctx context.Context) error {
	p.external.Media().Play(siptest.DTX())
	p.internal.Media().Play(siptest.DTX())
	time.Sleep(200 * time.Millisecond)
	return p.external.Bye(ctx)
}

// packets compares what was sent with what came, both ways.
func (p *livePair) packets(t *testing.T) []livePacket {
	t.Helper()
	return append(livePackets(t, "inwards", p.external, p.internal), livePackets(t, "outwards", p.internal, p.external)...)
}

// livePackets compares what was sent with what came, byte for byte, and returns how
// long each packet took, by the time of its sending.
func livePackets(t *testing.T, what string, from, to *siptest.Call) []livePacket {
	t.Helper()
	sent, got := from.Media().Sent(), to.Media().Received()
	if len(sent) != len(got) {
		t.Errorf("%s: %d packets sent, %d came", what, len(sent), len(got))
		return nil
	}
	out := make([]livePacket, len(sent))
	for i := range sent {
		if !bytes.Equal(sent[i].Wire, got[i].Wire) {
			t.Errorf("%s: packet %d was changed", what, i)
			return nil
		}
		out[i] = livePacket{sent[i].At, got[i].At.Sub(sent[i].At)}
	}
	return out
}

type livePacket struct {
	at   time.Time
	took time.Duration
}

// percentile is of what packets took that were sent in [from, to).
func percentile(ps []livePacket, from, to time.Time, percent int) time.Duration {
	var d []time.Duration
	for _, p := range ps {
		if !p.at.Before(from) && p.at.Before(to) {
			d = append(d, p.took)
		}
	}
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*percent/100)]
}

// windowsMS is the length of all windows together.
func windowsMS(m *recorder.Manifest) (sum int64) {
	ws := slices.Clone(m.Windows)
	slices.SortFunc(ws, func(a, b recorder.Window) int { return int(a.RealMS - b.RealMS) })
	end := int64(0)
	for _, w := range ws {
		if from := max(w.RealMS, end); w.EndRealMS > from {
			sum += w.EndRealMS - from
			end = w.EndRealMS
		}
	}
	return sum
}

// checkAccount holds that audio and windows are the whole of the call.
func checkAccount(t *testing.T, m *recorder.Manifest) {
	t.Helper()
	if got := m.AudioMS + windowsMS(m); got != m.RealMS {
		t.Errorf("recording %s: audio and windows are %d ms, the call %d ms", m.ID, got, m.RealMS)
	}
	if len(m.Channels) != 2 || m.Channels[0].Side != "external" || m.Channels[1].Side != "internal" {
		t.Errorf("recording %s: channels %+v", m.ID, m.Channels)
	}
}

// checkVoices holds that each channel has its own tone, and nothing of the
// other's, in nearly all of its tenths of a second; those with a gap do not count.
func checkVoices(t *testing.T, m *recorder.Manifest, pcm [2][]int16, hz [2]float64) {
	t.Helper()
	if ms := int64(len(pcm[0])) / 8; ms < m.AudioMS-1 || ms > m.AudioMS+1 {
		t.Errorf("recording %s: %d ms in the file, %d ms in the account", m.ID, ms, m.AudioMS)
	}
	const tenth = 800 // samples
	for ch := range pcm {
		own, other, spans := 0, 0, 0
		for i := 0; i+tenth <= len(pcm[ch]); i += tenth {
			if slices.ContainsFunc(m.Gaps, func(g recorder.Gap) bool {
				return g.Channel == ch && int(g.AudioMS)*8 < i+tenth && int(g.AudioMS+g.DurationMS)*8 > i
			}) {
				continue
			}
			spans++
			if mediatest.Energy(pcm[ch][i:i+tenth], hz[ch], 8000) > 1e7 { // spoken with 4.8e7
				own++
			}
			if mediatest.Energy(pcm[ch][i:i+tenth], hz[1-ch], 8000) > 1e5 {
				other++
			}
		}
		// The voice begins after the answer; a window leaves an edge.
		if spans < 10 || own < spans-4-2*len(m.Windows) || other > 2+2*len(m.Windows) {
			t.Errorf("recording %s, channel %d: own voice in %d of %d spans, the other's in %d", m.ID, ch, own, spans, other)
		}
	}
}

// together runs f for each index at once and returns what went wrong.
func together(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
