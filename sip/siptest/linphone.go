package siptest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	linphoneSIPPort   = 5060
	linphoneStartTime = 30 * time.Second
	linphoneStopTime  = 15 * time.Second
)

// LinphoneConfig says what linphonec (Debian: linphone-cli) does.
type LinphoneConfig struct {
	Net    *Namespace
	Dir    string // its home; must exist
	User   string
	Answer bool   // calls are answered at once
	Source string // a WAV file of 16 bits that it speaks
}

// Linphone is a running linphonec, one host of its own.
type Linphone struct {
	cfg    LinphoneConfig
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	output lockedBuffer
	exited chan struct{} // closed when it has ended
	ended  error         // how; after exited
}

// StartLinphone starts linphonec in its namespace; Close ends it.
func StartLinphone(ctx context.Context, cfg LinphoneConfig) (*Linphone, error) {
	if _, err := exec.LookPath("linphonec"); err != nil {
		return nil, fmt.Errorf("linphonec: %w", ErrNotInstalled)
	}
	file := filepath.Join(cfg.Dir, "linphonerc")
	text := fmt.Sprintf("[sip]\nsip_port=%d\nsip_tcp_port=0\nsip_tls_port=0\nuse_ipv6=0\nauto_net_state_mon=0\nguess_hostname=0\nkeepalive_period=0\n"+
		"media_encryption=none\ncontact=\"%s\" <sip:%s@%s>\n[rtp]\naudio_rtp_port=20000\n[video]\nautomatically_initiate=0\nautomatically_accept=0\n",
		linphoneSIPPort, cfg.User, cfg.User, cfg.Net.Peer)
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.MkdirAll(filepath.Join(cfg.Dir, ".local", "share", "linphone"), 0o700)); err != nil {
		return nil, fmt.Errorf("configure linphonec: %w", err)
	}
	args := []string{"-c", file, "-d", "0"}
	if cfg.Answer {
		args = append(args, "-a")
	}
	l := &Linphone{cfg: cfg, exited: make(chan struct{})}
	l.cmd = cfg.Net.Command(context.WithoutCancel(ctx), "linphonec", args...) // Close ends it
	l.cmd.Env = append(os.Environ(), "HOME="+cfg.Dir)
	l.cmd.Stdout, l.cmd.Stderr = &l.output, &l.output
	var err error
	if l.stdin, err = l.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start linphonec: %w", err)
	}
	go func() {
		defer close(l.exited)
		l.ended = l.cmd.Wait()
	}()
	err = l.Do("soundcard use files", "play "+cfg.Source, "record "+l.Heard())
	if err == nil {
		err = l.says(ctx, "Using wav files", linphoneStartTime)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Addr is where it listens for SIP over UDP.
func (l *Linphone) Addr() netip.AddrPort { return netip.AddrPortFrom(l.cfg.Net.Peer, linphoneSIPPort) }

// Heard is the WAV file of what it heard.
func (l *Linphone) Heard() string { return filepath.Join(l.cfg.Dir, "heard.wav") }

// Do types commands.
func (l *Linphone) Do(commands ...string) error {
	_, err := io.WriteString(l.stdin, strings.Join(commands, "\n")+"\n")
	return err
}

// Call calls, and returns when media flows.
func (l *Linphone) Call(ctx context.Context, uri string) error {
	if err := l.Do("call " + uri); err != nil {
		return err
	}
	return l.says(ctx, "Media streams established", linphoneStartTime)
}

// says waits until it has said something.
func (l *Linphone) says(ctx context.Context, what string, limit time.Duration) error {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if strings.Contains(l.Output(), what) {
			return nil
		}
		select {
		case <-l.exited:
			return fmt.Errorf("linphonec has ended: %w", errors.Join(l.ended, errors.New(l.Output())))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("linphonec does not say %q: %s", what, l.Output())
}

// Output is what it said last.
func (l *Linphone) Output() string { return l.output.tail() }

// Close ends it.
func (l *Linphone) Close() error {
	_ = l.Do("quit") // it may have ended
	select {
	case <-l.exited:
		return nil
	case <-time.After(linphoneStopTime):
	}
	err := l.cmd.Process.Kill()
	<-l.exited
	return errors.Join(errors.New("linphonec did not quit"), err)
}
