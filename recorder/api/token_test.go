package api

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestEnsureToken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new", "deep", "token")
	first, err := EnsureToken(path)
	if err != nil || len(first) != 43 {
		t.Fatalf("%q %v", first, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "new")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info, err)
	}
	if again, err := EnsureToken(path); err != nil || again != first {
		t.Errorf("%q %v", again, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("%v %v", left, err)
	}
}

func TestEnsureTokenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	var wg sync.WaitGroup
	got := make([]string, 8)
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = EnsureToken(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, g := range got {
		if g != got[0] {
			t.Error("two tokens were made")
		}
	}
}

func TestTokenFaults(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		want    string // part of the problem; empty: fine
	}{
		"fine":     {"abcdefghijklmnop\n", 0o600, ""},
		"readonly": {"abcdefghijklmnop", 0o400, ""},
		"dos":      {"abcdefghijklmnop\r\n", 0o600, ""},
		"group":    {"abcdefghijklmnop\n", 0o640, "mode 0640"},
		"world":    {"abcdefghijklmnop\n", 0o604, "mode 0604"},
		"empty":    {"", 0o600, "fewer than 16"},
		"short":    {"abc\n", 0o600, "fewer than 16"},
		"long":     {strings.Repeat("x", 5000), 0o600, "more than 1024"},
		"lines":    {"abcdefghijklmnop\nabcdefghijklmnop\n", 0o600, "more than one line"},
		"spaces":   {"abcdefghijkl mnop\n", 0o600, "more than one line"},
		"binary":   {"abcdefghijklmnop\x00\n", 0o600, "printable"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
			t.Fatal(err)
		}
		token, err := EnsureToken(path)
		var te *TokenError
		switch {
		case c.want == "" && (err != nil || token != "abcdefghijklmnop"):
			t.Errorf("%s: %q %v", name, token, err)
		case c.want != "" && (!errors.As(err, &te) || !strings.Contains(te.Problem, c.want) || te.Hint == "" || !strings.Contains(err.Error(), path)):
			t.Errorf("%s: %v", name, err)
		case c.want != "" && strings.Contains(err.Error(), "abc"):
			t.Errorf("%s: the error shows the token: %v", name, err)
		}
	}
	var te *TokenError
	if _, err := EnsureToken(dir); !errors.As(err, &te) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := EnsureToken(filepath.Join(dir, "fine", "below")); err == nil {
		t.Error("a file as directory")
	}
}
