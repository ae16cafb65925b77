//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
)

const (
	apiAddr      = "127.0.0.1:8080"
	pprofAddr    = "127.0.0.1:6060"
	publishLimit = 60 * time.Second
	hangUpRate   = 1000.0 // a second
)

// daemonConfig is what the daemon under test runs with; everything that is not
// said is the default.
var daemonConfig = template.Must(template.New("trunktap.yaml").Parse(`sip:
  listen: ["udp://{{.SIP}}"]
media:
  ports: {{.First}}-{{.Last}}
  engine: {{.Engine}}
  kernel: {pin: "{{.Pin}}"}
trunks:
  - name: bench
    external:
      peers: [{{.Caller.Addr}}/32]
      next_hops: ["sip:{{.Caller}}"]
      media_address: {{index .Media 0}}
    internal:
      peers: [{{.Callee.Addr}}/32]
      next_hops: ["sip:{{.Callee}}"]
      media_address: {{index .Media 1}}
    recording:
      enabled: {{.Record}}
      format: {{.Format}}
storage: {url: "file://{{.Dir}}/recordings"}
catalog: {url: "sqlite://{{.Dir}}/catalog.db"}
api: {listen: "{{.API}}"}
pprof: {listen: "{{.PProf}}"}
limits: {calls_max: 10000}
log: {level: warn}
`))

// trunktap is the real daemon, told of its calls by SIP.
type trunktap struct {
	binary  string
	engine  string
	format  string // of recordings; empty: none are made
	rate    float64
	dir     string
	proc    *process
	parties *parties
	client  http.Client // dials in the namespace of the relay
}

// configText is the configuration for a directory.
func (t *trunktap) configText(dir string) ([]byte, error) {
	format := t.format
	if format == "" {
		format = "wav-pcmu"
	}
	var b bytes.Buffer
	err := daemonConfig.Execute(&b, map[string]any{
		"SIP": relaySIP, "First": mediaFirst, "Last": mediaLast, "Engine": t.engine, "Caller": callerSIP, "Callee": calleeSIP,
		"Media": relayMedia, "Record": t.format != "", "Format": format, "Dir": dir, "Pin": pinDir(dir), "API": apiAddr, "PProf": pprofAddr,
	})
	return b.Bytes(), err
}

// pinDir is where the kernel engine of a run keeps what outlives the daemon: in
// the BPF file system of the benchmark.
func pinDir(dir string) string { return filepath.Join(filepath.Dir(dir), pinMount, filepath.Base(dir)) }

// check tells whether the daemon takes the configuration: an engine that it does
// not have is refused.
func (t *trunktap) check(ctx context.Context, dir string) error {
	config, err := t.writeConfig(dir)
	if err != nil {
		return err
	}
	return command(ctx, t.binary, "check", "--config", config)
}

func (t *trunktap) writeConfig(dir string) (string, error) {
	text, err := t.configText(dir)
	if err != nil {
		return "", err
	}
	config := filepath.Join(dir, "trunktap.yaml")
	return config, os.WriteFile(config, text, 0o600)
}

func (t *trunktap) start(ctx context.Context, dir string) (err error) {
	t.dir = dir
	config, err := t.writeConfig(dir)
	if err != nil {
		return err
	}
	t.dialInside()
	if t.proc, err = startProcess(filepath.Join(dir, "trunktap.log"), t.binary, "serve", "--config", config); err != nil {
		return err
	}
	return poll(ctx, readyLimit, func() error {
		if err := t.proc.running(); err != nil {
			return finalError{err}
		}
		_, err := t.get(ctx, "/readyz")
		return err
	})
}

// dialInside lets HTTP requests reach the daemon, which listens in the other
// namespace.
func (t *trunktap) dialInside() {
	t.client.Transport = &http.Transport{DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = within(relayNS, func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return c, err
	}}
}

func (t *trunktap) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+apiAddr+path, nil)
	if err != nil {
		return nil, err
	}
	if token, err := os.ReadFile(filepath.Join(t.dir, "api-token")); err == nil {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return b.Bytes(), nil
}

// setUp makes all calls by SIP through the daemon.
func (t *trunktap) setUp(ctx context.Context, calls int) (targets [][2]netip.AddrPort, err error) {
	if t.parties, err = newParties(newRunName(), calls, false); err != nil {
		return nil, err
	}
	if err := t.parties.setUp(ctx, t.rate); err != nil {
		return nil, err
	}
	return t.parties.mediaTargets(), nil
}

// newRunName makes Call-IDs unique.
func newRunName() string { return "r" + strconv.FormatInt(time.Now().UnixNano(), 36) }

// finish hangs up and waits for the recordings. Audio that the daemon was given
// and could not record stands in their manifests as a gap.
func (t *trunktap) finish(ctx context.Context, calls int) (recorded, error) {
	if err := t.parties.hangUp(ctx, hangUpRate); err != nil {
		return recorded{}, fmt.Errorf("hang up: %w", err)
	}
	if t.format == "" {
		return recorded{}, nil
	}
	var ids []string
	err := poll(ctx, publishLimit, func() (err error) {
		if ids, err = t.recordingIDs(ctx); err == nil && len(ids) < calls {
			err = fmt.Errorf("%d of %d recordings are published", len(ids), calls)
		}
		return err
	})
	if err != nil {
		return recorded{}, err
	}
	out := recorded{Files: len(ids), GapMS: map[string]int{}}
	for _, id := range ids {
		text, err := t.get(ctx, "/v1/recordings/"+id)
		if err == nil {
			err = out.addManifest(text)
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// recordingIDs lists all recordings.
func (t *trunktap) recordingIDs(ctx context.Context) (ids []string, err error) {
	for cursor := ""; ; {
		text, err := t.get(ctx, "/v1/recordings?limit=1000&cursor="+url.QueryEscape(cursor))
		if err != nil {
			return nil, err
		}
		var page struct {
			Recordings []struct {
				ID string `json:"id"`
			} `json:"recordings"`
			Next string `json:"next"`
		}
		if err := json.Unmarshal(text, &page); err != nil {
			return nil, fmt.Errorf("listing: %w", err)
		}
		for _, r := range page.Recordings {
			ids = append(ids, r.ID)
		}
		if cursor = page.Next; cursor == "" {
			return ids, nil
		}
	}
}

func (t *trunktap) process() *process { return t.proc }

func (t *trunktap) stop() {
	if t.parties != nil {
		t.parties.close()
	}
	t.client.CloseIdleConnections()
	if t.proc != nil {
		t.proc.stop(unix.SIGTERM)
	}
}

// trunktapVersion asks the binary.
func trunktapVersion(ctx context.Context, binary string) (string, error) {
	out, err := exec.CommandContext(ctx, binary, "version").Output()
	if err != nil {
		return "", fmt.Errorf("%s version: %w", binary, err)
	}
	return strings.Join(strings.Fields(string(out)), " "), nil
}
