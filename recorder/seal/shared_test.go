package seal

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

const (
	sharedPath  = "TRUNKTAP_TEST_SHARED_KEYS"
	sharedTurns = 100
)

// TestSharedRotation: two processes make one key file and rotate it 100 times each at
// once, sealing in between; whatever sealed anything is in the file afterwards.
func TestSharedRotation(t *testing.T) {
	if path := os.Getenv(sharedPath); path != "" {
		rotateShared(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	var wrapped []recorder.WrappedKey
	var mu sync.Mutex
	var processes sync.WaitGroup
	for range 2 {
		processes.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestSharedRotation$")
			cmd.Env, cmd.Stderr = append(os.Environ(), sharedPath+"="+path), os.Stderr
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Error(err)
				return
			}
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				var w recorder.WrappedKey
				if json.Unmarshal(lines.Bytes(), &w) == nil {
					mu.Lock()
					wrapped = append(wrapped, w)
					mu.Unlock()
				}
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	processes.Wait()
	l := mustOpen(t, nil, path)
	used := map[string]bool{}
	for _, w := range wrapped {
		k, err := l.OpenKey(context.Background(), rec, w)
		if err != nil {
			t.Fatalf("key %s: %v", w.KEK, err)
		}
		k.Close()
		used[w.KEK] = true
	}
	if len(wrapped) != 2*2*sharedTurns || len(used) < 2*sharedTurns {
		t.Errorf("%d were sealed with %d keys, want %d with at least %d", len(wrapped), len(used), 4*sharedTurns, 2*sharedTurns)
	}
	if n := len(l.current().ids); n != 2*sharedTurns+1 {
		t.Errorf("%d keys, want the first and one of each rotation", n)
	}
}

// rotateShared is one of the processes: it seals under what it knows and under what
// it has just made.
func rotateShared(t *testing.T, path string) {
	l := mustOpen(t, nil, path)
	out := json.NewEncoder(os.Stdout)
	for range sharedTurns {
		before := mustKey(t, l, rec).Wrapped()
		if _, err := l.Rotate(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, w := range []recorder.WrappedKey{before, mustKey(t, l, rec).Wrapped()} {
			if err := out.Encode(w); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestSharedFirst: of those that make a key file at once all use the same one.
func TestSharedFirst(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "keys.json")
		names := make([]string, 4)
		var all sync.WaitGroup
		for i := range names {
			all.Go(func() {
				l, err := OpenLocal(LocalConfig{Path: path})
				if err != nil {
					t.Error(err)
					return
				}
				names[i] = l.KEK().(interface{ Active() string }).Active()
			})
		}
		all.Wait()
		for _, n := range names {
			if n == "" || n != names[0] {
				t.Fatalf("keys %q", names)
			}
		}
	}
}

// TestSharedFollows: what another process has made wraps what is new, and what it has
// retired no longer does.
func TestSharedFollows(t *testing.T) {
	for name, path := range map[string]string{"disk": filepath.Join(t.TempDir(), "keys.json"), "memory": "/k/keys.json"} {
		t.Run(name, func(t *testing.T) {
			cfg := LocalConfig{Path: path}
			if name == "memory" {
				cfg.FS = vfstest.NewMem()
			}
			var told []map[string]string
			mine := cfg
			mine.Tell = func(event string, data map[string]string) {
				if event == EventRotated {
					told = append(told, data)
				}
			}
			l, err := OpenLocal(mine)
			if err != nil {
				t.Fatal(err)
			}
			other, err := OpenLocal(cfg)
			if err != nil {
				t.Fatal(err)
			}
			first := mustKey(t, l, rec).Wrapped().KEK
			second, err := other.Rotate(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if err := localRetire(other, first); err != nil {
				t.Fatal(err)
			}
			w := mustKey(t, l, rec).Wrapped()
			if w.KEK != second {
				t.Errorf("sealed with %s, which was retired; want %s", w.KEK, second)
			}
			if _, err := other.OpenKey(context.Background(), rec, w); err != nil {
				t.Error(err)
			}
			third, err := other.Rotate(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Renew(context.Background()); err != nil {
				t.Fatal(err)
			}
			if len(told) != 2 || told[0]["key"] != second || told[0]["before"] != first || told[1]["key"] != third {
				t.Errorf("told %v", told)
			}
			if err := l.Renew(context.Background()); err != nil || len(told) != 2 {
				t.Errorf("told of what was known: %v, %v", told, err)
			}
		})
	}
}

func localRetire(l *Local, name string) error {
	return l.KEK().(Retirer).Retire(context.Background(), name)
}
