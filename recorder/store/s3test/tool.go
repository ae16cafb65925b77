package s3test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Tool returns the path of a program that is installed by Go's own means at a
// pinned version, built at the first use and kept below the user's cache
// directory. The test is skipped where it cannot be had.
func Tool(t testing.TB, module, version string) string {
	t.Helper()
	name := filepath.Base(module)
	path, err := tool(name, module, version)
	if err != nil {
		t.Skipf("NOT TESTED: %s %s cannot be installed here: %v", name, version, err)
	}
	return path
}

func tool(name, module, version string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "trunktap-test")
	path := filepath.Join(dir, name+"-"+version)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// Packages are tested in processes of their own, at the same time.
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }() // and with it the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	return path, install(dir, name, module+"@"+version, path)
}

func install(dir, name, what, path string) error {
	bin, err := os.MkdirTemp(dir, "build")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(bin) }() // it is in a cache
	cmd := exec.Command("go", "install", what)
	cmd.Dir = bin // no module's directory: its go.mod must not count
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=-trimpath", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go install %s: %w: %s", what, err, lastLine(out))
	}
	return os.Rename(filepath.Join(bin, name), path)
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
