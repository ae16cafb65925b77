package catalog

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// A cursor is base64url of: version, hash of the query, real_ms and key of the
// last row that was looked at, as varints.
const (
	cursorVersion = 2
	cursorMax     = 64 // bytes
	hashLen       = 8
)

func (s *search) cursor(realMS, key int64) string {
	b := append([]byte{cursorVersion}, s.hash[:]...)
	b = binary.AppendVarint(b, realMS)
	b = binary.AppendVarint(b, key)
	return base64.RawURLEncoding.EncodeToString(b)
}

// resume makes the search begin behind a cursor.
func (s *search) resume(cursor string) error {
	if len(cursor) > cursorMax {
		return ErrCursor
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) < 1+hashLen {
		return ErrCursor
	}
	if b[0] != cursorVersion {
		return fmt.Errorf("%w (it is of another version of trunktap)", ErrCursor)
	}
	if [hashLen]byte(b[1:1+hashLen]) != s.hash {
		return fmt.Errorf("%w (it belongs to another query)", ErrCursor)
	}
	b = b[1+hashLen:]
	realMS, n := binary.Varint(b)
	if n <= 0 {
		return ErrCursor
	}
	key, m := binary.Varint(b[n:])
	if m <= 0 || n+m != len(b) {
		return ErrCursor
	}
	s.after, s.realMS, s.key = true, realMS, key
	return nil
}
