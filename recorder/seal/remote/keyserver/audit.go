package keyserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Line is one line of the audit log: who asked for what, and what came of it. It
// holds no key.
type Line struct {
	Time    time.Time `json:"time"`
	Client  string    `json:"client,omitempty"` // as it called itself; see Outcome
	From    string    `json:"from,omitempty"`   // address
	Op      string    `json:"op"`               // wrap, unwrap, rotate, status; start, reload and stop of the server
	Key     string    `json:"key,omitempty"`    // the key-encryption key
	For     string    `json:"for,omitempty"`    // what the data key is for: recording, intermediate or other
	ID      string    `json:"id,omitempty"`     // the recording; of other: SHA-256 of what it is bound to
	Outcome string    `json:"outcome"`          // ok, or the code of the error; the client is proven unless unauthenticated or bad_request
	Nonce   string    `json:"nonce,omitempty"`
}

// purpose tells from what a data key is bound to what it is for.
func (l *Line) purpose(aad []byte) {
	kind, id, ok := bytes.Cut(aad, []byte{0})
	switch k := string(kind); {
	case ok && strings.HasPrefix(k, "trunktap data key ") && len(id) > 0 && utf8.Valid(id):
		l.For, l.ID = "recording", string(id)
	case ok && strings.HasPrefix(k, "trunktap intermediate key "):
		l.For = "intermediate"
	default:
		h := sha256.Sum256(aad)
		l.For, l.ID = "other", hex.EncodeToString(h[:])
	}
}

// audit is the log. A line is written before its answer goes out; that of an
// unwrapped key is on the disk by then.
type audit struct {
	mu sync.Mutex // guards f
	f  *os.File
}

func openAudit(path string) (*audit, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit: %w (make its directory writable for the server's user)", err)
	}
	return &audit{f: f}, nil
}

func (a *audit) write(l Line) error {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := a.f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if l.Op != mayUnwrap || l.Outcome != outcomeOK {
		return nil
	}
	if err := a.f.Sync(); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

func (a *audit) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.f.Close()
}
