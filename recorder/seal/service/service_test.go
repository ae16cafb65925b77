package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
)

func TestAttempts(t *testing.T) {
	passing := fmt.Errorf("503: %w", seal.ErrUnreachable)
	for _, test := range []struct {
		name  string
		fails []error // then it succeeds
		tries int     // configured
		calls int
		want  error
	}{
		{"at once", nil, 0, 1, nil},
		{"the second time", []error{passing}, 0, 2, nil},
		{"never", []error{passing, passing, passing, passing}, 0, 3, seal.ErrUnreachable},
		{"one try", []error{passing}, 1, 1, seal.ErrUnreachable},
		{"refused", []error{seal.ErrRevoked}, 0, 1, seal.ErrRevoked},
		{"tampered", []error{passing, recorder.ErrTampered}, 5, 2, recorder.ErrTampered},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls, began := 0, time.Now()
				err := Attempts{Tries: test.tries}.Do(t.Context(), "wrap", func(context.Context) error {
					if calls++; calls <= len(test.fails) {
						return test.fails[calls-1]
					}
					return nil
				})
				if calls != test.calls || !errors.Is(err, test.want) {
					t.Errorf("%d calls, error %v; want %d and %v", calls, err, test.calls, test.want)
				}
				if d := time.Since(began); d > 2*pauseMax {
					t.Errorf("took %s", d)
				}
			})
		})
	}
}

// A service that never answers costs its tries, and no more than the caller has.
func TestAttemptsAreBounded(t *testing.T) {
	hang := func(ctx context.Context) error { <-ctx.Done(); return errors.New("gave up") }
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := Attempts{Timeout: 10 * time.Second}.Do(t.Context(), "wrap", hang)
		if !errors.Is(err, seal.ErrUnreachable) || time.Since(began) > 34*time.Second {
			t.Errorf("error %v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		began = time.Now()
		err = Attempts{Timeout: 10 * time.Second}.Do(ctx, "wrap", hang)
		if !errors.Is(err, seal.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 15*time.Second {
			t.Errorf("error %v after %s", err, time.Since(began))
		}
	})
}

func TestDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Door
		var inside sync.WaitGroup
		ended := make(chan error, 9)
		for range 3 {
			ctx, leave, err := d.Enter(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			inside.Go(func() {
				defer leave()
				<-ctx.Done()
				ended <- context.Cause(ctx)
			})
		}
		_, leave, _ := d.Enter(t.Context())
		leave()
		if !d.Close() || d.Close() {
			t.Error("Close does not tell the first time")
		}
		if len(ended) != 3 {
			t.Errorf("Close waited for %d calls, want 3", len(ended))
		}
		for range 3 {
			if err := <-ended; !errors.Is(err, ErrClosed) {
				t.Errorf("ended by %v", err)
			}
		}
		if _, _, err := d.Enter(t.Context()); !errors.Is(err, recorder.ErrKey) {
			t.Errorf("Enter after Close: %v", err)
		}
		inside.Wait()
	})
}

func TestBind(t *testing.T) {
	key := []byte("0123456789abcdef")
	b := Bind(key, []byte("a"))
	if got, err := Unbind(b, []byte("a")); err != nil || string(got) != string(key) {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range [][]byte{nil, b[:40], append([]byte{b[0] ^ 1}, b[1:]...)} {
		if _, err := Unbind(bad, []byte("a")); !errors.Is(err, recorder.ErrTampered) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
	if _, err := Unbind(b, []byte("b")); !errors.Is(err, recorder.ErrTampered) {
		t.Errorf("other aad: %v", err)
	}
}

func TestReadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for _, test := range []struct {
		content string
		mode    os.FileMode
		want    string
	}{
		{" s3cret\n", 0o600, ""},
		{"s3cret", 0o640, ""},
		{"s3cret", 0o604, "chmod 600"},
		{" \n", 0o600, "is empty"},
		{strings.Repeat("s", secretBytesMax+1), 0o600, "more than"},
	} {
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, test.mode); err != nil {
			t.Fatal(err)
		}
		b, err := ReadSecret(path)
		switch {
		case test.want == "" && (err != nil || string(b) != "s3cret"):
			t.Errorf("mode %o: %q, %v", test.mode, b, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret")):
			t.Errorf("mode %o: error %v, want %q", test.mode, err, test.want)
		}
	}
	if _, err := ReadSecret(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
