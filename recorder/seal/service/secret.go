package service

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// secretBytesMax bounds files with a token, a PIN or a key.
const secretBytesMax = 64 << 10

// ReadSecret returns what a file holds without white space around it. Errors tell
// the remedy and nothing of the content. Others than the owner and the group must
// not be able to read it.
func ReadSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w (make it readable for the daemon's user)", err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if perm := info.Mode().Perm(); perm&0o007 != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets everybody read a secret (chmod 600 %s)", path, perm, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, secretBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > secretBytesMax {
		return nil, fmt.Errorf("%s: more than %d bytes are no secret that this can be", path, secretBytesMax)
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return nil, fmt.Errorf("%s: is empty (write the secret into it)", path)
	}
	return b, nil
}
