package siptest

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"
)

//go:embed scenarios/*.xml
var scenarios embed.FS

// Errors of peers that are other programs.
var (
	ErrNotInstalled = errors.New("program is not installed; make deps installs it")
	ErrUnprivileged = errors.New("needs root: raw sockets or network namespaces")
)

// SIPpReinvite is a re-INVITE of the uac scenario.
type SIPpReinvite struct {
	Direction Direction
	Then      time.Duration // until the next step
}

// SIPpConfig says what SIPp (Debian: sip-tester) does.
type SIPpConfig struct {
	Dir       string         // for its scenario and its logs; must exist
	Answer    bool           // it is called (uas); else it calls (uac)
	User      string         // who is called
	Addr      netip.AddrPort // its own; port 0 is 5060
	Remote    netip.AddrPort // whom it calls
	TCP       bool
	MediaPort uint16 // of its first call, each further call takes the next ones; 0: 6000
	Codec     Codec  // zero: PCMU
	Calls     int    // in all; 0: 1
	Rate      int    // new calls a second; 0: 10

	// Play is a capture of RTP that it plays to the other side once the call is
	// answered, at the pace of the capture; see WriteRTP. Needs root.
	Play string

	Ring      time.Duration  // of uas
	Talk      time.Duration  // of uac, until the first re-INVITE or the BYE
	Reinvites []SIPpReinvite // of uac
	Limit     time.Duration  // after which it gives up; 0: 60 s

	// Flow is what it does instead, see flowScenario, with this tag and Call-ID.
	Flow, Tag, CallID string

	// Secure is what a flow says of itself when a forwarder stands between: the
	// package of SIPp has no TLS. Remote is the forwarder then.
	Secure *SIPpSecure
}

// SIPpSecure are the ends over TLS that lie behind forwarders.
type SIPpSecure struct {
	Local, Remote netip.AddrPort // where this SIPp is reached, and whom it calls
}

// SIPp is a running SIPp.
type SIPp struct {
	cmd    *exec.Cmd
	dir    string
	stderr bytes.Buffer
}

// StartSIPp starts SIPp. It ends after its calls, or with ctx; Wait must be called.
func StartSIPp(ctx context.Context, cfg SIPpConfig) (*SIPp, error) {
	binary, err := exec.LookPath("sipp")
	if err != nil {
		return nil, fmt.Errorf("sipp: %w", ErrNotInstalled)
	}
	if cfg.Play != "" && os.Geteuid() != 0 {
		return nil, fmt.Errorf("sipp plays a capture: %w", ErrUnprivileged)
	}
	scenario, err := cfg.scenario()
	if err != nil {
		return nil, err
	}
	s := &SIPp{dir: cfg.Dir, cmd: exec.CommandContext(ctx, binary, cfg.args(scenario)...)}
	s.cmd.Dir = cfg.Dir
	s.cmd.Stderr = &s.stderr
	s.cmd.Env = append(os.Environ(), "TERM=dumb")
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sipp: %w", err)
	}
	return s, nil
}

func (c SIPpConfig) args(scenario string) []string {
	or := func(n, otherwise int) string {
		if n == 0 {
			n = otherwise
		}
		return strconv.Itoa(n)
	}
	limit := c.Limit
	if limit == 0 {
		limit = time.Minute
	}
	transport := "u1"
	if c.TCP {
		transport = "t1"
	}
	host := c.Addr.Addr().String()
	if c.Addr.Addr().Is6() {
		host = "[" + host + "]"
	}
	args := []string{
		"-sf", scenario, "-i", host, "-p", or(int(c.Addr.Port()), 5060), "-mi", host, "-mp", or(int(c.MediaPort), 6000),
		"-m", or(c.Calls, 1), "-r", or(c.Rate, 10), "-t", transport, "-nostdin", "-trace_err",
		"-timeout", fmt.Sprintf("%ds", int(limit.Seconds())), "-timeout_error",
	}
	if c.CallID != "" {
		args = append(args, "-cid_str", c.CallID)
	}
	if !c.Answer {
		args = append(args, c.Remote.String())
	}
	return args
}

// scenario writes the scenario's file and returns its name.
func (c SIPpConfig) scenario() (string, error) {
	if c.Flow != "" {
		text, err := flowScenario(c.Flow, c.User, c.Tag)
		if err != nil {
			return "", fmt.Errorf("scenario: %w", err)
		}
		if c.Secure != nil {
			text = strings.NewReplacer(
				"SIP/2.0/[transport]", "SIP/2.0/TLS", "transport=[transport]", "transport=tls",
				"[local_ip]:[local_port]", c.Secure.Local.String(), "[remote_ip]:[remote_port]", c.Secure.Remote.String(),
			).Replace(text)
		}
		file := filepath.Join(c.Dir, "flow.xml")
		return file, os.WriteFile(file, []byte(text), 0o600)
	}
	name := "uac.xml"
	if c.Answer {
		name = "uas.xml"
	}
	type reinvite struct {
		CSeq      int
		Direction Direction
		ThenMS    int64
	}
	values := struct {
		SIPpConfig
		PayloadType    uint8
		Encoding       string
		RingMS, TalkMS int64
		Reinvites      []reinvite
	}{
		SIPpConfig: c, PayloadType: c.Codec.PayloadType, Encoding: c.Codec.Name,
		RingMS: c.Ring.Milliseconds(), TalkMS: c.Talk.Milliseconds(),
	}
	if values.Encoding == "" {
		values.Encoding = PCMU.Name
	}
	for i, r := range c.Reinvites {
		values.Reinvites = append(values.Reinvites, reinvite{i + 2, r.Direction, r.Then.Milliseconds()})
	}
	var text bytes.Buffer
	t, err := template.ParseFS(scenarios, "scenarios/"+name)
	if err != nil {
		return "", fmt.Errorf("scenario %s: %w", name, err)
	}
	if err := t.Execute(&text, values); err != nil {
		return "", fmt.Errorf("scenario %s: %w", name, err)
	}
	file := filepath.Join(c.Dir, name)
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return "", fmt.Errorf("scenario %s: %w", name, err)
	}
	return file, nil
}

// Wait waits until SIPp has ended; nil when all of its calls went through the
// whole scenario.
func (s *SIPp) Wait() error {
	err := s.cmd.Wait()
	if err == nil {
		return nil
	}
	// What went wrong with which message stands in its error log.
	logs, gerr := filepath.Glob(filepath.Join(s.dir, "*_errors.log"))
	text := s.stderr.String()
	for _, name := range logs {
		b, rerr := os.ReadFile(name)
		gerr = errors.Join(gerr, rerr)
		text += string(b)
	}
	const textMax = 4000
	return errors.Join(fmt.Errorf("sipp: %w: %s", err, strings.TrimSpace(text[:min(len(text), textMax)])), gerr)
}
