// Package pgtest runs a real PostgreSQL for tests: a cluster of its own in a
// temporary folder, reached by a socket in it.
package pgtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrMissing says that there is no PostgreSQL on this machine.
var ErrMissing = errors.New("no PostgreSQL is installed (Debian: postgresql)")

const startMax = 60 * time.Second

// Cluster is a PostgreSQL with trust authentication on a socket. It dies with
// the process that started it.
type Cluster struct {
	bin, dir string
	args     []string
	cred     *syscall.Credential // nil: this user
	kept     bool                // Close leaves it where it is

	mu  sync.Mutex
	cmd *exec.Cmd // nil: stopped
	out bytes.Buffer
	dbs atomic.Int64
}

// Start makes a cluster and runs it. Settings are "name=value" of
// postgresql.conf; without any, nothing is safe against a crash and everything
// fast. Dir is where it lies, and must be short; empty: the temporary folder.
func Start(dir string, settings ...string) (*Cluster, error) {
	c := &Cluster{}
	var err error
	if c.dir, err = os.MkdirTemp(dir, "pg"); err != nil {
		return nil, err
	}
	if err := c.open(settings); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.dir))
	}
	return c, nil
}

// Open runs the cluster in dir, and makes it when there is none yet. Close leaves it there.
func Open(dir string, settings ...string) (*Cluster, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, kept: true}
	err := c.open(settings)
	return c, err
}

func (c *Cluster) open(settings []string) error {
	if err := c.find(); err != nil {
		return err
	}
	if len(settings) == 0 {
		settings = []string{"fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=32MB"}
	}
	c.args = []string{"-D", c.data(), "-k", c.dir, "-h", ""}
	for _, s := range settings {
		c.args = append(c.args, "-c", s)
	}
	if err := c.init(); err != nil {
		return err
	}
	return c.Start()
}

// find looks for the newest PostgreSQL of this machine.
func (c *Cluster) find() error {
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(bins) == 0 {
		if p, err := exec.LookPath("initdb"); err == nil {
			bins = []string{p}
		} else {
			return ErrMissing
		}
	}
	slices.SortFunc(bins, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	c.bin = filepath.Dir(bins[len(bins)-1])
	return nil
}

// init makes the cluster, by a user that is not root: PostgreSQL refuses that.
func (c *Cluster) init() error {
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			if u, err = user.Lookup("nobody"); err != nil {
				return err
			}
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32) // numbers, on Unix
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		c.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(c.dir, int(uid), int(gid)); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(c.data(), "PG_VERSION")); err == nil {
		return nil // it was made before
	}
	cmd := c.command(context.Background(), "initdb", "-D", c.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "PGOPTIONS=", "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred, Pdeathsig: syscall.SIGQUIT}
	return cmd
}

// Start runs the cluster again and waits until it takes connections.
func (c *Cluster) Start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd != nil {
		return nil
	}
	c.out.Reset()
	cmd := c.command(context.Background(), "postgres", c.args...)
	cmd.Stdout, cmd.Stderr = &c.out, &c.out
	// The signal of Pdeathsig comes when the thread ends that started the process.
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread lives as long as the process waits here
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // Stop looks at what became of it
			started <- nil
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	c.cmd = cmd
	ended := started
	for deadline := time.Now().Add(startMax); ; {
		if c.command(context.Background(), "pg_isready", "-q", "-h", c.dir).Run() == nil {
			go func() { <-ended }() //nolint:errcheck // how it ends is no matter
			return nil
		}
		select {
		case <-ended: //nolint:errcheck // its output says it
			c.cmd = nil
			return fmt.Errorf("postgres ended: %s", c.out.String())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill() // it is given up
			return fmt.Errorf("postgres does not start: %s", c.out.String())
		}
	}
}

// Stop ends the cluster as an administrator in a hurry does: connections are
// cut, transactions rolled back.
func (c *Cluster) Stop() error { return c.end(syscall.SIGINT) }

// Kill ends the cluster as a crash does.
func (c *Cluster) Kill() error { return c.end(syscall.SIGQUIT) }

func (c *Cluster) end(sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		return nil
	}
	p := c.cmd.Process
	c.cmd = nil
	if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	for deadline := time.Now().Add(startMax); p.Signal(syscall.Signal(0)) == nil; {
		if time.Now().After(deadline) {
			return errors.Join(errors.New("postgres does not end"), p.Kill())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// Close ends the cluster and removes it, unless it was there before.
func (c *Cluster) Close() error {
	if c.kept {
		return c.Stop()
	}
	return errors.Join(c.Kill(), os.RemoveAll(c.dir))
}

// Dir is the folder of its socket, and of its data.
func (c *Cluster) Dir() string { return c.dir }

// URL names a database, as user postgres.
func (c *Cluster) URL(database string) string {
	return "postgres://postgres@/" + database + "?host=" + url.QueryEscape(c.dir)
}

// NewDatabase makes an empty database and returns its URL.
func (c *Cluster) NewDatabase() (string, error) {
	name := fmt.Sprintf("t%d", c.dbs.Add(1))
	if _, err := c.SQL("postgres", "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	return c.URL(name), nil
}

// SQL runs commands by psql and returns what it prints, without headings.
func (c *Cluster) SQL(database, commands string) (string, error) {
	cmd := c.command(context.Background(), "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", c.dir, "-U", "postgres", "-d", database, "-c", commands)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
