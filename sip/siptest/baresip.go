package siptest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	baresipModules   = "/usr/lib/baresip/modules"
	baresipSIPPort   = 5060
	baresipCtrlPort  = 4444
	baresipStartTime = 30 * time.Second
	baresipStopTime  = 15 * time.Second
	baresipReplyMax  = 1 << 20 // bytes
)

// BaresipCodec is a codec as baresip knows it.
type BaresipCodec struct {
	Name     string // of its rtpmap
	Rate     int    // of its samples, Hz; that of its rtpmap may be another one (G722, RFC 3551)
	Channels int
	Module   string // that has it: "g722"
}

// baresipPCMU is what baresip speaks when nothing else is asked for.
var baresipPCMU = BaresipCodec{Name: "PCMU", Rate: 8000, Channels: 1, Module: "g711"}

// BaresipConfig says what baresip (Debian: baresip-core) does.
type BaresipConfig struct {
	Net    *Namespace
	Dir    string // for its configuration, and for what it records; must exist
	User   string
	Answer bool         // calls are answered at once; else they ring
	Codec  BaresipCodec // the one that it offers and takes; zero: PCMU
	Source string       // a WAV file of 16 bits, with the codec's rate and channels, that it speaks

	// Encryption of its media: srtp-mand (SDES) or dtls_srtp, the latter with
	// rtcp-mux; empty: none.
	Encryption string
	Mux        bool // a=rtcp-mux

	// Domain is where it registers, over Outbound; empty: it does not.
	Domain   string
	Outbound netip.AddrPort
}

// Baresip is a running baresip, one host of its own. Its methods wait for what
// it says to the command, not for what the command leads to.
type Baresip struct {
	cfg    BaresipConfig
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
	ended  error         // how; after exited
	output lockedBuffer

	mu   sync.Mutex // one command at a time
	ctrl net.Conn
	read *bufio.Reader
}

// StartBaresip starts baresip in its namespace; Close ends it.
func StartBaresip(ctx context.Context, cfg BaresipConfig) (*Baresip, error) {
	if _, err := exec.LookPath("baresip"); err != nil {
		return nil, fmt.Errorf("baresip: %w", ErrNotInstalled)
	}
	if cfg.Codec.Name == "" {
		cfg.Codec = baresipPCMU
	}
	module := filepath.Join(baresipModules, cfg.Codec.Module+".so")
	if _, err := os.Stat(module); err != nil {
		return nil, fmt.Errorf("baresip's module %s: %w: %w", cfg.Codec.Module, ErrNotInstalled, err)
	}
	b := &Baresip{cfg: cfg, exited: make(chan struct{})}
	if err := b.configure(); err != nil {
		return nil, fmt.Errorf("configure baresip: %w", err)
	}
	b.cmd = cfg.Net.Command(context.WithoutCancel(ctx), "baresip", "-4", "-f", cfg.Dir) // Close ends it
	b.cmd.Stdout, b.cmd.Stderr = &b.output, &b.output
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start baresip: %w", err)
	}
	go func() {
		defer close(b.exited)
		b.ended = b.cmd.Wait()
	}()
	if err := b.connect(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// URI is its address.
func (b *Baresip) URI() string {
	return fmt.Sprintf("sip:%s@%s", b.cfg.User, b.Addr())
}

// Addr is where it listens for SIP over UDP.
func (b *Baresip) Addr() netip.AddrPort {
	return netip.AddrPortFrom(b.cfg.Net.Peer, baresipSIPPort)
}

func (b *Baresip) configure() error {
	c := b.cfg
	mode := "manual"
	if c.Answer {
		mode = "auto"
	}
	encryption, mux := "", "no"
	if c.Encryption != "" {
		encryption = ";mediaenc=" + c.Encryption
	}
	if c.Mux || c.Encryption == "dtls_srtp" {
		mux = "yes"
	}
	codec := c.Codec
	home, register := c.Net.Peer.String(), "0"
	if c.Domain != "" {
		home, register = c.Domain, fmt.Sprintf("60;outbound=\"sip:%s\";auth_pass=none", c.Outbound)
	}
	account := fmt.Sprintf("<sip:%s@%s>;regint=%s;answermode=%s;audio_codecs=%s/%d/%d%s\n",
		c.User, home, register, mode, codec.Name, codec.Rate, codec.Channels, encryption)
	config := fmt.Sprintf(`sip_listen %[1]s
sip_cafile
call_max_calls 4
audio_player aubridge,out
audio_source aufile,%[2]s
audio_alert aubridge,alert
ausrc_srate %[3]d
auplay_srate %[3]d
ausrc_channels %[4]d
auplay_channels %[4]d
rtp_ports 20000-20100
rtcp_mux %[5]s
jitter_buffer_delay 5-10
snd_path %[6]s
module_path %[7]s
module %[8]s.so
module aufile.so
module aubridge.so
module sndfile.so
module srtp.so
module dtls_srtp.so
module_app account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen %[9]s
`, b.Addr(), c.Source, codec.Rate, codec.Channels, mux, c.Dir, baresipModules, codec.Module, b.control())
	return errors.Join(
		os.WriteFile(filepath.Join(c.Dir, "config"), []byte(config), 0o600),
		os.WriteFile(filepath.Join(c.Dir, "accounts"), []byte(account), 0o600),
		os.WriteFile(filepath.Join(c.Dir, "contacts"), nil, 0o600),
	)
}

func (b *Baresip) control() netip.AddrPort {
	return netip.AddrPortFrom(b.cfg.Net.Peer, baresipCtrlPort)
}

// connect opens the control connection as soon as baresip takes it.
func (b *Baresip) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, baresipStartTime, errors.New("baresip does not listen for commands"))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var dialer net.Dialer
		c, err := dialer.DialContext(ctx, "tcp", b.control().String())
		if err == nil {
			b.ctrl, b.read = c, bufio.NewReader(c)
			return nil
		}
		select {
		case <-tick.C:
		case <-b.exited:
			return fmt.Errorf("baresip ended: %w: %s", b.ended, b.output.tail())
		case <-ctx.Done():
			return fmt.Errorf("%w: %w: %s", context.Cause(ctx), err, b.output.tail())
		}
	}
}

// Dial calls a URI.
func (b *Baresip) Dial(ctx context.Context, uri string) error { return b.command(ctx, "dial", uri) }

// Hold puts the current call on hold.
func (b *Baresip) Hold(ctx context.Context) error { return b.command(ctx, "hold", "") }

// Resume takes the current call back.
func (b *Baresip) Resume(ctx context.Context) error { return b.command(ctx, "resume", "") }

// Hangup ends the current call.
func (b *Baresip) Hangup(ctx context.Context) error { return b.command(ctx, "hangup", "") }

// Digit dials one RFC 4733 digit in the current call.
func (b *Baresip) Digit(ctx context.Context, digit rune) error {
	return b.command(ctx, "sndcode", string(digit))
}

// command sends one command of the menu as a netstring of JSON and waits for
// the response (events come in between).
func (b *Baresip) command(ctx context.Context, command, params string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { _ = b.ctrl.SetDeadline(time.Now()) }) // ends the read below
	defer stop()
	id := token(4)
	text, err := json.Marshal(map[string]string{"command": command, "params": params, "token": id})
	if err != nil {
		return fmt.Errorf("baresip %s: %w", command, err)
	}
	if _, err := fmt.Fprintf(b.ctrl, "%d:%s,", len(text), text); err != nil {
		return fmt.Errorf("baresip %s: %w", command, err)
	}
	for {
		raw, err := b.netstring()
		if err != nil {
			return fmt.Errorf("baresip %s: %w", command, errors.Join(err, context.Cause(ctx)))
		}
		var answer struct {
			Response bool   `json:"response"`
			OK       bool   `json:"ok"`
			Data     string `json:"data"`
			Token    string `json:"token"`
		}
		if err := json.Unmarshal(raw, &answer); err != nil {
			return fmt.Errorf("baresip %s: %w", command, err)
		}
		if !answer.Response || answer.Token != id {
			continue
		}
		if !answer.OK {
			return fmt.Errorf("baresip %s: %s", command, answer.Data)
		}
		return nil
	}
}

func (b *Baresip) netstring() ([]byte, error) {
	head, err := b.read.ReadString(':')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(head, ":"))
	if err != nil || n < 0 || n > baresipReplyMax {
		return nil, fmt.Errorf("%q is no length of a netstring", head)
	}
	text := make([]byte, n+1)
	if _, err := io.ReadFull(b.read, text); err != nil {
		return nil, err
	}
	return text[:n], nil
}

// Heard are the files with what it heard in its calls: WAV, one a call and
// more where the media changed, complete after Close.
func (b *Baresip) Heard() ([]string, error) {
	return filepath.Glob(filepath.Join(b.cfg.Dir, "*-dec.wav"))
}

// Spoke are the files with what it spoke, as Heard.
func (b *Baresip) Spoke() ([]string, error) {
	return filepath.Glob(filepath.Join(b.cfg.Dir, "*-enc.wav"))
}

// Close ends baresip, which hangs up.
func (b *Baresip) Close() error {
	if b.ctrl != nil {
		_ = b.ctrl.Close() // only commands went over it
	}
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop baresip: %w", err)
	}
	timer := time.NewTimer(baresipStopTime)
	defer timer.Stop()
	select {
	case <-b.exited: // its code tells nothing but that it was ended
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("baresip did not stop in %s: %s", baresipStopTime, b.output.tail()), b.cmd.Process.Kill())
	}
}

// lockedBuffer keeps what a program prints, up to a limit.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const (
	outputBytesMax  = 1 << 20
	outputTailBytes = 4000
)

// Write never fails: what is too much is left out.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() < outputBytesMax {
		l.buf.Write(p)
	}
	return len(p), nil
}

func (l *lockedBuffer) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buf.Bytes()
	return strings.TrimSpace(string(b[max(0, len(b)-outputTailBytes):]))
}

// PID is the process that it is.
func (b *Baresip) PID() int { return b.cmd.Process.Pid }

// Output is the end of what it has printed.
func (b *Baresip) Output() string { return b.output.tail() }
