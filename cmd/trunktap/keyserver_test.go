package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder/seal"
	keyclient "github.com/trunktap/trunktap/recorder/seal/remote"
	"github.com/trunktap/trunktap/recorder/seal/remote/remotetest"
)

// sharedBuffer is written by a command and read by its test.
type sharedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *sharedBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sharedBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func untilTrue(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s until %s", what)
		}
	}
}

// The key server by its command: it answers, reads its configuration again on
// SIGHUP, and ends when told.
func TestKeyserver(t *testing.T) {
	const clients = "clients: [{name: recorder-1, public_key: client.pub, may: [wrap, unwrap]}]"
	f := remotetest.Lay(t)
	f.Write(t, "127.0.0.1:0", clients)
	var out, stderr sharedBuffer
	if code := run(t.Context(), []string{"keyserver", "--config", f.Config, "--check"}, &out, &stderr); code != exitFine {
		t.Fatalf("--check: exit %d, %s", code, stderr.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"keyserver", "--config", f.Config}, &out, &stderr) }()
	var addr string
	untilTrue(t, "the key server is up", func() bool {
		_, rest, ok := strings.Cut(stderr.String(), "listen=")
		addr, _, _ = strings.Cut(rest, "\n")
		return ok && addr != ""
	})
	k, err := keyclient.Open(keyclient.Config{URL: "https://" + addr, Client: "recorder-1", KeyFile: f.ClientKey, ServerKeys: f.SigningPub, CAFile: f.Cert})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.Close() }() // never fails
	name, wrapped, err := k.Wrap(ctx, make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Unwrap(ctx, name, wrapped, nil); err != nil {
		t.Fatal(err)
	}
	f.Write(t, addr, strings.Replace(clients, "may:", "disabled: true, may:", 1))
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	untilTrue(t, "the client is refused", func() bool {
		_, err := k.Unwrap(ctx, name, wrapped, nil)
		return errors.Is(err, seal.ErrRevoked)
	})
	cancel()
	select {
	case code := <-ended:
		if code != exitFine {
			t.Errorf("exit %d: %s", code, stderr.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatal("does not end")
	}
	if err := os.WriteFile(f.Config, []byte("listen: nowhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var faults bytes.Buffer
	if code := run(t.Context(), []string{"keyserver", "--config", f.Config}, &out, &faults); code != exitUsage || !strings.Contains(faults.String(), "signing_key: is missing") {
		t.Errorf("exit %d: %s", code, faults.String())
	}
}
