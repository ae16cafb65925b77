package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/trunktap/trunktap/recorder"
)

// Torn tells whether a file is what a crash leaves of one that was never
// durable: it is cut short, or ends in zeros that nobody wrote, before the end
// of a segment's header or of a manifest. Nothing in it can be read, and nobody
// was promised anything of it. A file that cannot be read for any other reason
// is damaged.
func Torn(b recorder.Blob) (bool, error) {
	end, err := written(b)
	if err != nil {
		return false, fmt.Errorf("look for a torn end: %w", err)
	}
	want, err := leastBytes(b, end)
	if err != nil {
		return false, fmt.Errorf("look for a torn end: %w", err)
	}
	return end < want, nil
}

// written returns where the zeros at the end of a file begin.
func written(b recorder.Blob) (int64, error) {
	buf := make([]byte, 32<<10)
	for end := b.Size(); end > 0; {
		n := min(end, int64(len(buf)))
		if err := readFull(b, buf[:n], end-n); err != nil {
			return 0, err
		}
		if left := len(bytes.TrimRight(buf[:n], "\x00")); left > 0 {
			return end - n + int64(left), nil
		}
		end -= n
	}
	return 0, nil
}

// leastBytes returns how long a file must be that begins as this one does, of
// which end bytes were written: a segment up to its first frame, a manifest
// whole. 0 when it is neither.
func leastBytes(b recorder.Blob, end int64) (int64, error) {
	pre := make([]byte, min(end, int64(preambleBytes)))
	if err := readFull(b, pre, 0); err != nil {
		return 0, err
	}
	if !bytes.HasPrefix([]byte(magic), pre[:min(len(pre), len(magic))]) {
		return 0, nil
	}
	if len(pre) < preambleBytes {
		return int64(preambleBytes), nil
	}
	kind := pre[len(magic)+1]
	n, err := parsePreamble(pre, kind)
	if err != nil || kind != kindSegment && kind != kindManifest {
		return 0, nil //nolint:nilerr // what is not readable is of unknown length, which is what 0 says
	}
	head := int64(preambleBytes + n)
	if kind == kindSegment {
		return head, nil
	}
	if end < head+frameHead {
		return head + frameHead, nil
	}
	frame := make([]byte, frameHead)
	if err := readFull(b, frame, head); err != nil {
		return 0, err
	}
	sealed := binary.BigEndian.Uint32(frame[1:])
	if sealed > FrameBytesMax {
		return 0, nil
	}
	return leastLinked(b, end, head+frameHead+int64(sealed))
}

// leastLinked adds the link behind a manifest, of which at least a part was to
// be there when the file is longer than the manifest.
func leastLinked(b recorder.Blob, end, least int64) (int64, error) {
	if end < least || b.Size() == least {
		return least, nil
	}
	if end < least+frameHead {
		return least + frameHead, nil
	}
	frame := make([]byte, frameHead)
	if err := readFull(b, frame, least); err != nil {
		return 0, err
	}
	if n := binary.BigEndian.Uint32(frame[1:]); frame[0] == frameLink && n <= LinkBytesMax {
		return least + frameHead + int64(n), nil
	}
	return 0, nil
}

func readFull(b recorder.Blob, p []byte, off int64) error {
	n, err := b.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
