package main

import (
	"bytes"
	"context"
	_ "embed" // of the configuration
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
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

//go:embed demo.yaml
var configText string

// Limits of waiting for the daemon.
const (
	readyLimit   = 20 * time.Second
	publishLimit = 15 * time.Second
	stopLimit    = 10 * time.Second
	pollEvery    = 50 * time.Millisecond
	answerMax    = 16 << 20 // bytes of one HTTP answer
)

// site is where the demonstration takes place: the two agents and the
// addresses of the daemon between them.
type site struct {
	Dir                   string // absolute
	SIP, API              netip.AddrPort
	External, Internal    netip.AddrPort
	MediaFirst, MediaLast int

	caller, agent *siptest.Agent
	config        string // file name
}

func newSite(dir string) (*site, error) {
	loopback := func(n byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, n}), 0) }
	s := &site{config: filepath.Join(dir, "trunktap.yaml")}
	var err error
	if s.Dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("output directory: %w", err)
	}
	// The trunk tells its two sides by their addresses; Linux has all of 127.0.0.0/8.
	if s.caller, err = siptest.New(siptest.Config{Name: "caller", Addr: loopback(2)}); err != nil {
		return nil, err
	}
	if s.agent, err = siptest.New(siptest.Config{Name: "agent", Addr: loopback(3)}); err != nil {
		return nil, errors.Join(err, s.caller.Close())
	}
	s.External, s.Internal = s.caller.Addr(), s.agent.Addr()
	if err := s.choosePorts(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	var text bytes.Buffer
	if err := template.Must(template.New("demo.yaml").Parse(configText)).Execute(&text, s); err != nil {
		return nil, errors.Join(fmt.Errorf("configuration: %w", err), s.close())
	}
	if err := os.WriteFile(s.config, text.Bytes(), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("configuration: %w", err), s.close())
	}
	return s, nil
}

// choosePorts finds ports that are free now.
func (s *site) choosePorts() error {
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return fmt.Errorf("find a free port for SIP: %w", err)
	}
	s.SIP = netip.MustParseAddrPort(udp.LocalAddr().String())
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return errors.Join(fmt.Errorf("find a free port for HTTP: %w", err), udp.Close())
	}
	s.API = netip.MustParseAddrPort(tcp.Addr().String())
	// Below the ports that Linux gives to others.
	s.MediaFirst = 20_000 + 100*rand.IntN(120)
	s.MediaLast = s.MediaFirst + 99
	return errors.Join(udp.Close(), tcp.Close())
}

func (s *site) close() error { return errors.Join(s.caller.Close(), s.agent.Close()) }

// daemon is a running trunktap.
type daemon struct {
	binary, config string
	base           string // of its HTTP interface
	token          string
	cmd            *exec.Cmd
	exited         chan error
	log            string // file name
	seq            int
}

// startDaemon starts trunktap and waits until it is ready.
func startDaemon(ctx context.Context, binary string, s *site) (*daemon, error) {
	d := &daemon{
		binary: binary, config: s.config, base: "http://" + s.API.String(), exited: make(chan error, 1),
		log: filepath.Join(s.Dir, "trunktap.log"),
	}
	log, err := os.Create(d.log)
	if err != nil {
		return nil, fmt.Errorf("log of the daemon: %w", err)
	}
	defer func() { _ = log.Close() }() // the daemon has its own descriptor of it
	// It is stopped by stop, also when ctx ends.
	d.cmd = exec.CommandContext(context.WithoutCancel(ctx), binary, "serve", "--config", s.config)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	go func() { d.exited <- d.cmd.Wait() }()
	if err := d.waitReady(ctx, filepath.Join(s.Dir, "api-token")); err != nil {
		return nil, fmt.Errorf("%w\n%s", errors.Join(err, d.stop()), d.tail())
	}
	return d, nil
}

func (d *daemon) waitReady(ctx context.Context, tokenFile string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyLimit, fmt.Errorf("the daemon is not ready after %s", readyLimit))
	defer cancel()
	err := poll(ctx, func() error {
		select {
		case err := <-d.exited:
			d.exited <- err
			return finalError{fmt.Errorf("the daemon ended: %w", err)}
		default:
		}
		return d.get(ctx, "/readyz", nil)
	})
	if err != nil {
		return err
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return fmt.Errorf("token of the daemon: %w", err)
	}
	d.token = strings.TrimSpace(string(token))
	return nil
}

// finalError is an error after which nothing is to be hoped for.
type finalError struct{ error }

// poll calls f until it succeeds; the last error tells why it did not.
func poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := f()
		var final finalError
		if err == nil || errors.As(err, &final) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

func (d *daemon) get(ctx context.Context, path string, into any) error {
	return d.do(ctx, http.MethodGet, path, nil, into)
}

// do makes one HTTP request and decodes the JSON of the answer into into.
func (d *daemon) do(ctx context.Context, method, path string, body, into any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, content)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Authorization", "Bearer "+d.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(answer))
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// liveCall returns the id of the live call with that Call-ID.
func (d *daemon) liveCall(ctx context.Context, sipCallID string) (string, error) {
	var live struct {
		Calls []recorder.LiveCall `json:"calls"`
	}
	if err := d.get(ctx, "/v1/calls", &live); err != nil {
		return "", err
	}
	for _, c := range live.Calls {
		if c.SIPCallID == sipCallID {
			return c.ID, nil
		}
	}
	return "", fmt.Errorf("the call is not among the %d live calls of the daemon", len(live.Calls))
}

// signal reports a call-state event that happens now.
func (d *daemon) signal(ctx context.Context, call, event string) error {
	d.seq++
	return d.do(ctx, http.MethodPost, "/v1/calls/"+call+"/signals", map[string]any{
		"v": 1, "event": event, "at": time.Now(), "seq": d.seq, "source": "demo",
	}, nil)
}

// recording waits for the manifest of a recording.
func (d *daemon) recording(ctx context.Context, id string) (*recorder.Manifest, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, publishLimit, fmt.Errorf("the recording is not published after %s", publishLimit))
	defer cancel()
	m := &recorder.Manifest{}
	err := poll(ctx, func() error { return d.get(ctx, "/v1/recordings/"+id, m) })
	return m, err
}

// command runs the daemon's command line beside it; what it prints is shown.
func (d *daemon) command(ctx context.Context, args ...string) error {
	args = append(args, "--config", d.config)
	fmt.Printf("\n$ %s %s\n", d.binary, strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, d.binary, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("trunktap %s: %w", args[0], err)
	}
	return nil
}

// stop ends the daemon as an operator does.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the daemon: %w", err)
	}
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case err := <-d.exited:
		if err != nil {
			return fmt.Errorf("the daemon ended: %w", err)
		}
		return nil
	case <-timer.C:
		err := d.cmd.Process.Kill()
		return errors.Join(fmt.Errorf("the daemon did not stop in %s", stopLimit), err, <-d.exited)
	}
}

// tail returns the last lines of the daemon's log.
func (d *daemon) tail() string {
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	lines = lines[max(0, len(lines)-15):]
	return "end of " + d.log + ":\n  " + strings.Join(lines, "\n  ")
}
