package siptest

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
	"syscall"
	"text/template"
	"time"
)

// KamailioConfig says what kamailio does: it is the registrar of its domain and a
// proxy that stays on the path of what it passes on (Record-Route).
type KamailioConfig struct {
	Dir  string         // for its configuration; must exist
	Addr netip.AddrPort // of SIP over UDP
	// Next gets calls of users that are not registered; zero: they get 404.
	Next netip.AddrPort
}

// Kamailio is a running kamailio.
type Kamailio struct {
	cmd    *exec.Cmd
	output lockedBuffer
}

const kamailioStartTime = 20 * time.Second

var kamailioTemplate = template.Must(template.New("kamailio").Parse(`#!KAMAILIO
debug=1
log_stderror=yes
fork=yes
children=2
disable_tcp=yes
listen=udp:{{.Addr}}
loadmodule "sl"
loadmodule "tm"
loadmodule "rr"
loadmodule "pv"
loadmodule "maxfwd"
loadmodule "textops"
loadmodule "siputils"
loadmodule "usrloc"
loadmodule "registrar"
request_route {
	if (!mf_process_maxfwd_header("10")) { sl_send_reply("483", "Too Many Hops"); exit; }
	if (is_method("CANCEL")) { if (t_check_trans()) t_relay(); exit; }
	if (has_totag()) {
		if (loose_route()) { t_relay(); exit; }
		if (is_method("ACK")) { if (t_check_trans()) t_relay(); exit; }
		sl_send_reply("404", "Not Here"); exit;
	}
	t_check_trans();
	if (is_method("REGISTER")) { save("location"); exit; }
	record_route();
	if (!lookup("location")) {
{{- if .Next.IsValid}}
		$du = "sip:{{.Next}}";
{{- else}}
		sl_send_reply("404", "Not Found"); exit;
{{- end}}
	}
	t_relay();
}
`))

// StartKamailio starts kamailio and returns when it answers; Close ends it.
func StartKamailio(ctx context.Context, cfg KamailioConfig) (*Kamailio, error) {
	binary, err := exec.LookPath("kamailio")
	if err != nil {
		return nil, fmt.Errorf("kamailio: %w", ErrNotInstalled)
	}
	var text bytes.Buffer
	if err := kamailioTemplate.Execute(&text, cfg); err != nil {
		return nil, fmt.Errorf("configure kamailio: %w", err)
	}
	file := filepath.Join(cfg.Dir, "kamailio.cfg")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return nil, fmt.Errorf("configure kamailio: %w", err)
	}
	k := &Kamailio{cmd: exec.CommandContext(ctx, binary, "-f", file, "-DD", "-E", "-m", "32", "-M", "4", "-Y", cfg.Dir, "-w", cfg.Dir)}
	k.cmd.Stdout, k.cmd.Stderr = &k.output, &k.output
	k.cmd.Cancel = func() error { return k.cmd.Process.Signal(syscall.SIGTERM) } // it ends its children
	k.cmd.WaitDelay = 10 * time.Second
	if err := k.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start kamailio: %w", err)
	}
	if err := answers(ctx, cfg.Addr); err != nil {
		return nil, errors.Join(fmt.Errorf("kamailio does not answer: %w", err), k.Close(), errors.New(k.Output()))
	}
	return k, nil
}

// answers waits until OPTIONS to addr are answered with anything.
func answers(ctx context.Context, addr netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, kamailioStartTime)
	defer cancel()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr.Addr(), 0)))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // nothing is lost with it
	buf := make([]byte, 2048)
	for n := 1; ctx.Err() == nil; n++ {
		local := c.LocalAddr()
		_, err := c.WriteToUDPAddrPort(fmt.Appendf(nil, "OPTIONS sip:%[1]s SIP/2.0\r\nVia: SIP/2.0/UDP %[2]s;branch=z9hG4bK%[3]d\r\nMax-Forwards: 0\r\nFrom: <sip:x@%[2]s>;tag=1\r\n"+
			"To: <sip:%[1]s>\r\nCall-ID: %[3]d@%[2]s\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n", addr, local, n), addr)
		if err == nil {
			err = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		}
		if err == nil {
			if _, err = c.Read(buf); err == nil {
				return nil
			}
		}
		time.Sleep(50 * time.Millisecond) // a closed port answers at once
	}
	return ctx.Err()
}

// Output is the end of what it has printed.
func (k *Kamailio) Output() string { return k.output.tail() }

// Close ends it.
func (k *Kamailio) Close() error {
	if err := k.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end kamailio: %w", err)
	}
	_ = k.cmd.Wait() // it was told to
	return nil
}
