package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// See FORMAT.md.
const (
	magic         = "trunktap calls "
	version       = '2'
	versionBefore = '1' // is read: its frames are the same, its key is told otherwise

	frameHeadBytes = 8 // length and sum

	kindKey   = 'K'
	kindState = 'S'
	kindNote  = 'N'
	kindDrop  = 'D'
	kindAlive = 'A'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newHead is the beginning of a file that is sealed with a key.
func newHead(wrapped []byte) []byte {
	head := append([]byte(magic), version, '\n')
	return appendFrame(head, append([]byte{kindKey}, wrapped...))
}

func appendFrame(dst, payload []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(payload, castagnoli))
	return append(dst, payload...)
}

// named is the beginning of a payload that belongs to a call.
func named(kind byte, key string) []byte {
	b := binary.LittleEndian.AppendUint16([]byte{kind}, uint16(len(key)))
	return append(b, key...)
}

// frame seals an entry.
func (j *Journal) frame(o op) ([]byte, error) {
	head := named(o.kind, o.key)
	sealed, err := j.key.Seal(o.data, head)
	if err != nil {
		return nil, fmt.Errorf("seal an entry: %w", err)
	}
	return appendFrame(nil, append(head, sealed...)), nil
}

func dropFrame(key string) []byte { return appendFrame(nil, named(kindDrop, key)) }

func aliveFrame(at time.Time) []byte {
	return appendFrame(nil, binary.LittleEndian.AppendUint64([]byte{kindAlive}, uint64(at.UnixNano())))
}

var errNoJournal = errors.New("not a journal of calls")

// Read returns what the bytes of a file hold. What follows the last good entry is
// ignored and counted. ErrVersion (wrapped) says that the file is of another
// version. open finds the key; its errors are returned.
func Read(data []byte, open func(wrapped []byte) (Key, error)) (*Contents, error) {
	c := &Contents{Calls: map[string]*Call{}}
	if len(data) == 0 {
		return c, nil
	}
	head := len(magic) + 2
	if len(data) < head || string(data[:len(magic)]) != magic || data[head-1] != '\n' {
		return nil, errNoJournal
	}
	if v := data[len(magic)]; v != version && v != versionBefore {
		return nil, fmt.Errorf("%w: %q, this one is %q", ErrVersion, v, version)
	}
	rest := data[head:]
	payload, rest := next(rest)
	if len(payload) < 1 || payload[0] != kindKey {
		return nil, fmt.Errorf("%w: no key", errNoJournal)
	}
	key, err := open(payload[1:])
	if err != nil {
		return nil, fmt.Errorf("the key of the journal: %w", err)
	}
	for len(rest) > 0 {
		payload, after := next(rest)
		if payload == nil || !c.take(payload, key) {
			break
		}
		rest = after
	}
	c.Torn = int64(len(rest))
	return c, nil
}

// next returns the payload of the first frame and what follows it; nil when it is torn.
func next(data []byte) (payload, rest []byte) {
	if len(data) < frameHeadBytes {
		return nil, data
	}
	n := binary.LittleEndian.Uint32(data)
	if uint64(n) > uint64(len(data)-frameHeadBytes) || n == 0 {
		return nil, data
	}
	payload = data[frameHeadBytes : frameHeadBytes+int(n)]
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(data[4:]) {
		return nil, data
	}
	return payload, data[frameHeadBytes+int(n):]
}

// take reads one payload; false when it cannot be read.
func (c *Contents) take(payload []byte, key Key) bool {
	kind := payload[0]
	if kind == kindAlive {
		if len(payload) != 9 {
			return false
		}
		c.Alive = time.Unix(0, int64(binary.LittleEndian.Uint64(payload[1:])))
		return true
	}
	if len(payload) < 3 {
		return false
	}
	n := 3 + int(binary.LittleEndian.Uint16(payload[1:]))
	if n > len(payload) || n > 3+keyBytesMax {
		return false
	}
	id := string(payload[3:n])
	if kind == kindDrop {
		delete(c.Calls, id)
		return true
	}
	if kind != kindState && kind != kindNote {
		return false
	}
	data, err := key.Open(payload[n:], payload[:n])
	if err != nil {
		return false
	}
	call := c.Calls[id]
	if call == nil {
		if len(c.Calls) >= CallsMax {
			return false
		}
		call = &Call{}
		c.Calls[id] = call
	}
	if kind == kindState {
		call.State = data
	} else if len(call.Notes) < NotesMax {
		call.Notes = append(call.Notes, data)
	}
	return true
}
