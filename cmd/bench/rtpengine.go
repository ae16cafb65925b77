//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	ngPort      = 2223
	ngTries     = 5
	ngTimeout   = time.Second
	ngWorkers   = 4 // calls that are set up at the same time
	mediaFirst  = 20000
	mediaLast   = 59999
	readyLimit  = 20 * time.Second
	stopGrace   = 15 * time.Second
	pollForThis = 20 * time.Millisecond
)

// rtpengine is Debian's rtpengine in user space, told of its calls by its ng protocol.
type rtpengine struct {
	record bool
	dir    string // for recordings
	proc   *process
	run    string
}

func (r *rtpengine) start(ctx context.Context, dir string) (err error) {
	r.dir, r.run = dir, "r"+strconv.FormatInt(time.Now().UnixNano(), 36)
	for _, d := range []string{"pcaps", "metadata", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	args := []string{
		"--config-file=none", "--foreground", "--log-stderr", "--log-level=3", "--table=-1",
		fmt.Sprintf("--interface=external/%s", relayMedia[0]), fmt.Sprintf("--interface=internal/%s", relayMedia[1]),
		fmt.Sprintf("--listen-ng=127.0.0.1:%d", ngPort), fmt.Sprintf("--port-min=%d", mediaFirst), fmt.Sprintf("--port-max=%d", mediaLast),
		"--timeout=3600", "--silent-timeout=3600", "--delete-delay=0",
	}
	if r.record {
		args = append(args, "--recording-method=pcap", "--recording-format=eth", "--recording-dir="+dir)
	}
	if r.proc, err = startProcess(filepath.Join(dir, "rtpengine.log"), "rtpengine", args...); err != nil {
		return err
	}
	c, err := r.dial()
	if err != nil {
		return err
	}
	defer c.close()
	return poll(ctx, readyLimit, func() error {
		if err := r.proc.running(); err != nil {
			return finalError{err}
		}
		_, err := c.ask(map[string]any{"command": "ping"}, 1, pollForThis)
		return err
	})
}

// setUp offers and answers all calls.
func (r *rtpengine) setUp(ctx context.Context, calls int) ([][2]netip.AddrPort, error) {
	targets := make([][2]netip.AddrPort, calls)
	return targets, eachOf(ngWorkers, func(worker int) error {
		c, err := r.dial()
		if err != nil {
			return err
		}
		defer c.close()
		for n := worker; n < calls; n += ngWorkers {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if targets[n], err = r.call(c, n); err != nil {
				return fmt.Errorf("call %d: %w", n, err)
			}
		}
		return nil
	})
}

// call sets one call up: both parties are in the RTP/AVP world and send from
// where their SDP says.
func (r *rtpengine) call(c *ngConn, n int) (targets [2]netip.AddrPort, err error) {
	common := func(command string, sdp string) map[string]any {
		q := map[string]any{
			"command": command, "call-id": callName(r.run, n), "from-tag": fmt.Sprintf("c%d", n), "sdp": sdp,
			"ICE": "remove", "replace": []any{"origin", "session-connection"}, "flags": []any{"trust-address"},
		}
		if r.record {
			q["record call"] = "yes"
		}
		return q
	}
	offer := common("offer", sdpOf(partyMediaAddr(0, n)))
	offer["direction"] = []any{"external", "internal"}
	if targets[1], err = c.sdp(offer); err != nil {
		return targets, err
	}
	answer := common("answer", sdpOf(partyMediaAddr(1, n)))
	answer["to-tag"] = fmt.Sprintf("a%d", n)
	targets[0], err = c.sdp(answer)
	return targets, err
}

// finish ends the process; what it recorded is counted in files.
func (r *rtpengine) finish(_ context.Context, calls int) (recorded, error) {
	if !r.record {
		return recorded{}, nil
	}
	files, err := filepath.Glob(filepath.Join(r.dir, "pcaps", "*.pcap"))
	if err != nil {
		return recorded{}, err
	}
	out := recorded{Files: len(files)}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			out.Bytes += st.Size()
		}
	}
	if len(files) < calls {
		return out, fmt.Errorf("%d of %d calls were recorded", len(files), calls)
	}
	return out, nil
}

func (r *rtpengine) process() *process { return r.proc }

func (r *rtpengine) stop() {
	if r.proc != nil {
		r.proc.stop(unix.SIGTERM)
	}
}

// rtpengineVersion asks the installed program.
func rtpengineVersion(ctx context.Context) (string, error) {
	path, err := exec.LookPath("rtpengine")
	if err != nil {
		return "", fmt.Errorf("rtpengine is not installed: run make bench, or apt-get install rtpengine-daemon: %w", err)
	}
	out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rtpengine --version: %w", err)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(out), "Version:")), nil
}

// ngConn speaks the ng protocol: a datagram is a cookie, a blank and a
// dictionary in bencode; the answer bears the same cookie.
type ngConn struct {
	conn *net.UDPConn
	n    int
}

func (r *rtpengine) dial() (*ngConn, error) {
	c := &ngConn{}
	return c, within(relayNS, func() (err error) {
		c.conn, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: ngPort})
		return err
	})
}

func (c *ngConn) close() { _ = c.conn.Close() } // every answer was read

// sdp asks and returns where the description in the answer wants media.
func (c *ngConn) sdp(q map[string]any) (netip.AddrPort, error) {
	a, err := c.ask(q, ngTries, ngTimeout)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s: %w", q["command"], err)
	}
	text, _ := a["sdp"].(string)
	return mediaOf(text)
}

// ask sends a command, and again with the same cookie when no answer comes:
// rtpengine repeats its answer then.
func (c *ngConn) ask(q map[string]any, tries int, timeout time.Duration) (map[string]any, error) {
	c.n++
	cookie := fmt.Sprintf("%s_%d", c.conn.LocalAddr(), c.n)
	request := bencode([]byte(cookie+" "), q)
	b := make([]byte, 65536)
	var last error
	for range tries {
		if _, last = c.conn.Write(request); last != nil {
			time.Sleep(timeout) // nobody listens yet
			continue
		}
		if last = c.conn.SetReadDeadline(time.Now().Add(timeout)); last != nil {
			return nil, last
		}
		for {
			n, err := c.conn.Read(b)
			if err != nil {
				last = err
				break
			}
			if rest, ok := bytes.CutPrefix(b[:n], []byte(cookie+" ")); ok {
				return ngAnswer(rest)
			}
		}
		if errors.Is(last, unix.ECONNREFUSED) {
			time.Sleep(timeout)
		}
	}
	return nil, last
}

// ngAnswer reads the dictionary of an answer; a refusal is an error.
func ngAnswer(b []byte) (map[string]any, error) {
	v, err := bdecode(b)
	if err != nil {
		return nil, err
	}
	a, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%w: no dictionary", errBencode)
	}
	if a["result"] != "ok" && a["result"] != "pong" {
		return nil, fmt.Errorf("refused: %v", a["error-reason"])
	}
	return a, nil
}
