// Command demo places a real call through a real trunktap and shows what was
// recorded of it. It exits 1 when anything is not as promised.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// runLimit ends a demonstration that hangs.
const runLimit = 90 * time.Second

func main() {
	trunktap := flag.String("trunktap", "bin/trunktap", "the daemon's binary")
	out := flag.String("out", "demo-out", "directory for what the demonstration writes; what it wrote before is replaced")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeoutCause(ctx, runLimit, fmt.Errorf("not finished after %s", runLimit))
	err := run(ctx, *trunktap, *out)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: FAILED:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, trunktap, out string) (err error) {
	if err := prepare(out); err != nil {
		return err
	}
	voices, spoken := speak(ctx)
	fmt.Println(spoken)
	site, err := newSite(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.close()) }()
	d, err := startDaemon(ctx, trunktap, site)
	if err != nil {
		return err
	}
	defer func() {
		if serr := d.stop(); serr != nil {
			err = errors.Join(err, serr)
		}
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, d.tail())
		}
	}()
	c, err := placeCall(ctx, site, d, voices)
	if err != nil {
		return err
	}
	m, err := d.recording(ctx, c.id)
	if err != nil {
		return err
	}
	wav := filepath.Join(out, "recording.wav")
	if err := show(ctx, d, m, out, wav); err != nil {
		return err
	}
	return verdict(os.Stdout, c, m, wav)
}

// marker is in every directory that a demonstration made, so that it replaces
// no other.
const marker = ".trunktap-demo"

// prepare makes dir an empty directory.
func prepare(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("output directory: %w", err)
	}
	if len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
			return fmt.Errorf("output directory %s is not empty and not of a demonstration: name another one with -out", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("replace the last demonstration: %w", err)
		}
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, marker), nil, 0o600); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	return nil
}
