// Command trunktap records the calls of SIP trunks.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
)

// Exit codes.
const (
	exitFine   = 0
	exitFailed = 1
	exitUsage  = 2 // usage or configuration
	exitUnread = 3 // verify found nothing wrong with what it could read, and some it could not for want of a key
)

// commands is the command line.
type commands struct {
	Serve     serveCmd     `cmd:"" help:"Run the daemon."`
	Replay    replayCmd    `cmd:"" help:"Record the calls of packet captures."`
	Check     checkCmd     `cmd:"" help:"Check a configuration file."`
	Ls        lsCmd        `cmd:"" help:"List recordings."`
	Show      showCmd      `cmd:"" help:"Show one recording: its account and its waveforms."`
	Export    exportCmd    `cmd:"" help:"Write a recording to a file that players open."`
	Verify    verifyCmd    `cmd:"" help:"Verify that recordings are whole and unaltered."`
	Sweep     sweepCmd     `cmd:"" help:"Look for what nobody owns in stores and spool, and for what is missing."`
	Retention retentionCmd `cmd:"" help:"Show which recordings need not be kept any more; the daemon deletes them."`
	Audit     auditCmd     `cmd:"" help:"The tamper-evident log of what was published, deleted and accessed."`
	Rebuild   rebuildCmd   `cmd:"" help:"Make the catalogue anew from the store."`
	Keyserver keyserverCmd `cmd:"" help:"Run a key manager of your own, for keys of mode remote."`
	Keys      keysCmd      `cmd:"" help:"List, rotate, rewrap and retire keys."`
	Shred     shredCmd     `cmd:"" help:"Destroy the key of a recording: it can never be read again."`
	Hold      holdCmd      `cmd:"" help:"Put a recording under legal hold: it is neither deleted nor shredded. Without a name: show its holds."`
	Release   releaseCmd   `cmd:"" help:"Release a legal hold."`
	Usage     usageCmd     `cmd:"" help:"Show what is stored, by trunk, user, kind and day."`
	Backup    backupCmd    `cmd:"" help:"Back up the catalogue, while the daemon runs."`
	Restore   restoreCmd   `cmd:"" help:"Bring a backup of the catalogue back."`
	Version   versionCmd   `cmd:"" help:"Show the version."`
}

// env is what a command may use of its surroundings.
type env struct {
	ctx    context.Context
	stdout io.Writer
	stderr io.Writer
}

// note tells a person something that is no result.
func (e *env) note(format string, a ...any) {
	_, _ = fmt.Fprintf(e.stderr, "trunktap: "+format+"\n", a...) // nobody is left to tell
}

// usageError makes run return exitUsage.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// unreadError makes run return exitUnread.
type unreadError struct{ error }

func (u unreadError) Unwrap() error { return u.error }

func usagef(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends what does not heed the first
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// exit is thrown by kong when it wants to leave (after --help).
type exit int

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	e := &env{ctx: ctx, stdout: stdout, stderr: stderr}
	defer func() {
		if p := recover(); p != nil {
			x, ok := p.(exit)
			if !ok {
				panic(p)
			}
			code = int(x)
		}
	}()
	cli := commands{Ls: newLs()}
	parser, err := kong.New(&cli,
		kong.Name("trunktap"),
		kong.Description("Records the calls of SIP trunks."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
	if err != nil {
		panic(err) // the struct above is wrong
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if err != nil {
		e.note("%v (trunktap --help)", err)
		return exitUsage
	}
	return e.exitCode(command.Run(e))
}

// exitCode tells the error and what it means.
func (e *env) exitCode(err error) int {
	var faults config.Faults
	var usage usageError
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &faults):
		_, _ = fmt.Fprintln(e.stderr, faults) // nobody is left to tell
		return exitUsage
	case errors.Is(err, context.Canceled) && e.ctx.Err() != nil:
		e.note("interrupted")
		return exitFailed
	case errors.As(err, &usage):
		_, _ = fmt.Fprintln(e.stderr, strings.TrimSpace(usage.Error()))
		return exitUsage
	}
	e.note("%v", err)
	if errors.As(err, new(unreadError)) {
		return exitUnread
	}
	return exitFailed
}

// configFlag is the configuration of commands that cannot do without.
type configFlag struct {
	Config string `help:"Configuration file." placeholder:"FILE" required:"" short:"c"`
}

func (c configFlag) load() (*config.Config, error) { return loadConfig(c.Config) }

func loadConfig(path string) (*config.Config, error) {
	cfg, faults := config.Load(path, keyChecks)
	if faults != nil {
		return nil, faults
	}
	return cfg, nil
}
