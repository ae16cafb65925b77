package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// KeyFileBytesMax bounds a file with a wrapped key.
const KeyFileBytesMax = 64 << 10

const keyFileVersion = 1

// KeyRecord is the content of KeyFile: the wrapped key of a recording, or what is
// known of its destruction.
type KeyRecord struct {
	Version   int                 `json:"version"` // 1
	Recording string              `json:"recording"`
	Prefix    string              `json:"prefix"` // folder in the store
	Key       recorder.WrappedKey `json:"key,omitzero"`
	Created   time.Time           `json:"created"` // the data key
	Wrapped   time.Time           `json:"wrapped"` // the data key, last
	Shredded  *recorder.Shredded  `json:"shredded,omitempty"`
	Link      string              `json:"link,omitempty"` // of a shredded one: what a node signed of it, see Claimed; empty: nobody did
}

// Claimed returns what a link of a shredded recording speaks of: the line of JSON
// as it is without the link.
func (r KeyRecord) Claimed() ([]byte, error) {
	r.Version, r.Link = keyFileVersion, ""
	return json.Marshal(r)
}

// ErrKeyFile says that a file with a wrapped key is torn or altered.
var ErrKeyFile = fmt.Errorf("the file with the recording's key: %w", recorder.ErrTampered)

// Encode returns the file: a line of JSON and one with its SHA-256.
func (r KeyRecord) Encode() ([]byte, error) {
	r.Version = keyFileVersion
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("write key of recording %s: %w", r.Recording, err)
	}
	js, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write key of recording %s: %w", r.Recording, err)
	}
	return summed(js), nil
}

func summed(js []byte) []byte {
	sum := sha256.Sum256(js)
	return fmt.Appendf(append([]byte{}, js...), "\n%s\n", hex.EncodeToString(sum[:]))
}

func (r KeyRecord) check() error {
	head := Header{Recording: r.Recording, Prefix: r.Prefix}
	switch {
	case head.check(kindManifest) != nil:
		return head.check(kindManifest)
	case (r.Shredded == nil) == r.Key.IsZero():
		return errors.New("want a key, or that it was destroyed")
	case r.Shredded == nil && r.Link != "":
		return errors.New("a link belongs to a key that was destroyed")
	}
	return nil
}

// ParseKeyRecord reads a file with a wrapped key. ErrKeyFile when it is not whole.
func ParseKeyRecord(content []byte) (KeyRecord, error) {
	var r KeyRecord
	if len(content) > KeyFileBytesMax {
		return r, fmt.Errorf("%w: more than %d bytes", ErrKeyFile, KeyFileBytesMax)
	}
	js, _, _ := strings.Cut(string(content), "\n")
	if !bytes.Equal(summed([]byte(js)), content) {
		return r, fmt.Errorf("%w: its sum is wrong", ErrKeyFile)
	}
	if err := json.Unmarshal([]byte(js), &r); err != nil {
		return KeyRecord{}, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	if r.Version != keyFileVersion {
		return KeyRecord{}, fmt.Errorf("%w: version %d, this program reads %d", recorder.ErrKey, r.Version, keyFileVersion)
	}
	if err := r.check(); err != nil {
		return KeyRecord{}, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	return r, nil
}

// KeyInside tells whether a file is of version 1, which has its key in its header.
func KeyInside(b recorder.Blob) (bool, error) {
	pre := make([]byte, preambleBytes)
	if b.Size() < int64(len(pre)) {
		return false, nil
	}
	if err := readFull(b, pre, 0); err != nil {
		return false, fmt.Errorf("read the header: %w", err)
	}
	return string(pre[:len(magic)]) == magic && pre[len(magic)] == versionKeyInside, nil
}

// WithoutKey returns the beginning of a file of version 1, up to its first frame,
// with the wrapped key in its header wiped; nil: it has none. The length does not
// change.
func WithoutKey(b recorder.Blob) ([]byte, error) {
	inside, err := KeyInside(b)
	if err != nil || !inside {
		return nil, err
	}
	pre := make([]byte, preambleBytes)
	if err := readFull(b, pre, 0); err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	n, err := parsePreamble(pre, pre[len(magic)+1])
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	head := make([]byte, preambleBytes+n)
	if err := readFull(b, head, 0); err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	var h Header
	if err := json.Unmarshal(head[preambleBytes:], &h); err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	key, err := json.Marshal(h.Key.Bytes)
	if err != nil {
		return nil, err
	}
	blank, err := json.Marshal(make([]byte, len(h.Key.Bytes)))
	if err != nil || bytes.Equal(key, blank) {
		return nil, err
	}
	return bytes.Replace(head, key, blank, 1), nil
}
