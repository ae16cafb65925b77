package api

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Bounds of a token, in bytes.
const (
	tokenBytes    = 32 // of entropy in one that we make
	tokenBytesMin = 16
	tokenBytesMax = 1024
)

// TokenError says what is wrong with a token file and what to do about it.
type TokenError struct {
	Path    string
	Problem string
	Hint    string
}

// Error names the file, the problem and the remedy.
func (e *TokenError) Error() string {
	return fmt.Sprintf("token file %s: %s; %s", e.Path, e.Problem, e.Hint)
}

// EnsureToken reads the one line of a token file. A file that is missing is
// made, readable by its owner alone, with a fresh token; so is its directory.
func EnsureToken(path string) (string, error) {
	token, err := ReadToken(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the directory of the token file: %w", err)
	}
	if err := makeToken(dir, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make the token file: %w", err)
	}
	return ReadToken(path) // whoever made it
}

// makeToken writes a fresh token aside and links it into place, so that the
// file is never seen empty and never replaces another.
func makeToken(dir, path string) (err error) {
	random := make([]byte, tokenBytes)
	rand.Read(random) // never fails (crypto/rand)
	f, err := os.CreateTemp(dir, ".api-token-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString(base64.RawURLEncoding.EncodeToString(random) + "\n")
	err = errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReadToken reads the one line of a token file that is there. The error is a
// *TokenError when it cannot be trusted or holds no token, and wraps
// fs.ErrNotExist when there is none.
func ReadToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open the token file: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("look at the token file: %w", err)
	}
	switch {
	case !info.Mode().IsRegular():
		return "", &TokenError{path, "is no regular file", "name a file in api.token_file"}
	case info.Mode().Perm()&0o077 != 0:
		return "", &TokenError{path, fmt.Sprintf("has mode %04o, others may read or write it", info.Mode().Perm()), "chmod 600 it, and make a new token if others may have read it"}
	}
	content, err := io.ReadAll(io.LimitReader(f, tokenBytesMax+2))
	if err != nil {
		return "", fmt.Errorf("read the token file: %w", err)
	}
	token := strings.TrimRight(string(content), "\r\n")
	const remedy = "remove the file to get a new one at the next start"
	switch {
	case len(token) < tokenBytesMin:
		return "", &TokenError{path, fmt.Sprintf("holds fewer than %d characters", tokenBytesMin), remedy}
	case len(token) > tokenBytesMax:
		return "", &TokenError{path, fmt.Sprintf("holds more than %d characters", tokenBytesMax), remedy}
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", &TokenError{path, "holds more than one line of printable ASCII without spaces", remedy}
	}
	return token, nil
}
