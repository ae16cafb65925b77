package segment

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/trunktap/trunktap/recorder"
)

// Fault says what is wrong with a file.
type Fault string

// Faults of files.
const (
	FaultTruncated Fault = "truncated" // it ends before its last frame
	FaultAltered   Fault = "altered"   // bytes differ from what was sealed, or were sealed for another file
	FaultReordered Fault = "reordered" // a frame of this file stands in another place than its own
)

// FrameError names the frame at which a file is bad. recorder.ErrTampered is in
// its chain.
type FrameError struct {
	Recording string
	N         int   // segment number, 0 for a manifest
	Frame     int   // index
	Offset    int64 // of the frame in the file, bytes
	Fault     Fault
	Err       error
}

// Error implements error.
func (e *FrameError) Error() string {
	return fmt.Sprintf("recording %s segment %d frame %d at byte %d: %s: %v", e.Recording, e.N, e.Frame, e.Offset, e.Fault, e.Err)
}

// Unwrap returns the causes.
func (e *FrameError) Unwrap() []error { return []error{recorder.ErrTampered, e.Err} }

// Reader reads a segment and verifies everything it returns. It is used by one
// goroutine.
type Reader struct {
	blob recorder.Blob
	size int64
	head Header
	bind binding
	key  recorder.DataKey

	off, at      int64 // of the next frame and of the current one
	index, cur   int   // of the next frame and of the current one
	buf          []byte
	account      *recorder.Manifest
	sum          totals
	damaged      bool  // a frame was bad: totals are not comparable
	done         bool  // the last frame is authentic
	searchBudget int64 // bytes that may still be spent on finding out where frames belong
	stop         error
}

// Opener opens data keys; every recorder.Sealer does. Files of version 2 name no
// key, so wrapped is zero then and the Opener must know where the key lies.
type Opener interface {
	OpenKey(ctx context.Context, recording string, wrapped recorder.WrappedKey) (recorder.DataKey, error)
}

// Keyed returns an Opener of files whose key is w, if they do not have it themselves.
func Keyed(o Opener, w recorder.WrappedKey) Opener { return keyed{o, w} }

type keyed struct {
	o Opener
	w recorder.WrappedKey
}

func (k keyed) OpenKey(ctx context.Context, recording string, w recorder.WrappedKey) (recorder.DataKey, error) {
	if w.IsZero() {
		w = k.w
	}
	return k.o.OpenKey(ctx, recording, w)
}

// Open reads and checks the header of a segment and opens its data key. Want
// names what it must be: a segment put in the place of another is FaultAltered.
// The caller closes the blob after the Reader.
func Open(ctx context.Context, b recorder.Blob, opener Opener, want Want) (*Reader, error) {
	r, err := open(ctx, b, opener, kindSegment)
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	if want != (Want{}) && (r.head.Recording != want.Recording || r.head.N != want.N) {
		r.Close()
		return nil, fmt.Errorf("open segment: %w", r.fault(FaultAltered,
			fmt.Errorf("stands in the place of recording %s segment %d", want.Recording, want.N)))
	}
	return r, nil
}

// Want is the place that a segment stands in; zero: any.
type Want struct {
	Recording string
	N         int
}

func open(ctx context.Context, b recorder.Blob, opener Opener, kind byte) (*Reader, error) {
	r := &Reader{blob: b, size: b.Size(), searchBudget: searchBytesMax}
	pre, err := r.read(0, preambleBytes)
	if err != nil {
		return nil, err
	}
	n, err := parsePreamble(pre, kind)
	if err != nil {
		return nil, r.fault(FaultAltered, err)
	}
	version := pre[len(magic)] // the buffer is used again
	head, err := r.read(0, preambleBytes+n)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(head[preambleBytes:], &r.head); err != nil {
		return nil, r.fault(FaultAltered, fmt.Errorf("header: %w", err))
	}
	if err := errors.Join(r.head.check(kind), r.head.checkKey(version)); err != nil {
		return nil, r.fault(FaultAltered, fmt.Errorf("header: %w", err))
	}
	r.bind = newBinding(head)
	r.off, r.at = int64(len(head)), int64(len(head))
	r.key, err = opener.OpenKey(ctx, r.head.Recording, r.head.Key)
	if err != nil {
		return nil, fmt.Errorf("recording %s: %w", r.head.Recording, err)
	}
	return r, nil
}

// Header returns the header. It is authentic once a frame was read.
func (r *Reader) Header() Header { return r.head }

// note adds an account to those before it.
func (r *Reader) note(plain []byte) error {
	m, err := decodeAccount(plain)
	if err == nil {
		r.account = recorder.Complete(r.account, m)
	}
	return err
}

// Account returns what the accounts passed so far say together, nil when there
// was none.
func (r *Reader) Account() *recorder.Manifest { return r.account }

// Close forgets the data key. It does not close the blob.
func (r *Reader) Close() { r.key.Close() }

// read returns n bytes at off in the reader's buffer.
func (r *Reader) read(off int64, n int) ([]byte, error) {
	if off+int64(n) > r.size {
		return nil, r.fault(FaultTruncated, io.ErrUnexpectedEOF)
	}
	if cap(r.buf) < n {
		r.buf = make([]byte, n, max(n, 32<<10))
	}
	b := r.buf[:n]
	if got, err := r.blob.ReadAt(b, off); got < n {
		if errors.Is(err, io.EOF) {
			return nil, r.fault(FaultTruncated, io.ErrUnexpectedEOF)
		}
		return nil, fmt.Errorf("read at byte %d: %w", off, err)
	}
	return b, nil
}

func (r *Reader) fault(f Fault, err error) *FrameError {
	return &FrameError{Recording: r.head.Recording, N: r.head.N, Frame: r.cur, Offset: r.at, Fault: f, Err: err}
}

// frame opens the next frame and moves on, past a frame that does not open as well.
func (r *Reader) frame() (byte, []byte, error) {
	r.at, r.cur = r.off, r.index
	if r.off == r.size {
		return 0, nil, io.EOF
	}
	h, err := r.read(r.off, frameHead)
	if err != nil {
		return 0, nil, err
	}
	typ, n := h[0], binary.BigEndian.Uint32(h[1:])
	switch {
	case n > FrameBytesMax || n < sealedBytesMin:
		return 0, nil, r.fault(FaultAltered, fmt.Errorf("frame of %d bytes: want %d to %d", n, sealedBytesMin, FrameBytesMax))
	case r.index >= FramesMax:
		return 0, nil, r.fault(FaultAltered, fmt.Errorf("more than %d frames", FramesMax))
	}
	sealed, err := r.read(r.off+frameHead, int(n))
	if err != nil {
		return 0, nil, err
	}
	plain, err := r.key.Open(sealed, r.bind.at(r.index, typ))
	if err != nil {
		bad := r.fault(FaultAltered, err)
		if home, ok := r.home(typ, sealed); ok {
			bad.Fault, bad.Err = FaultReordered, fmt.Errorf("it is frame %d", home)
		}
		r.off, r.index = r.off+frameHead+int64(n), r.index+1
		return 0, nil, bad
	}
	r.off, r.index = r.off+frameHead+int64(n), r.index+1
	return typ, plain, nil
}

// Bounds of the search for the place of a frame that does not open where it stands.
const (
	homeSearchMax  = 64       // places to either side
	searchBytesMax = 32 << 20 // bytes tried in one file
	sealedBytesMin = 16       // no authenticated encryption gives less
)

// home looks for the index at which a frame was sealed.
func (r *Reader) home(typ byte, sealed []byte) (int, bool) {
	for d := 1; d <= homeSearchMax; d++ {
		for _, i := range [2]int{r.index + d, r.index - d} {
			if i < 0 {
				continue
			}
			if r.searchBudget -= int64(len(sealed)); r.searchBudget < 0 {
				return 0, false
			}
			if _, err := r.key.Open(sealed, r.bind.at(i, typ)); err == nil {
				return i, true
			}
		}
	}
	return 0, false
}

// Next returns the next audio frame; io.EOF after the last frame has confirmed
// that nothing is missing. A *FrameError tells of a bad frame; after
// FaultAltered and FaultReordered Next may be called again and goes on behind
// it when the framing allows. The data belongs to the caller.
func (r *Reader) Next() (recorder.Audio, error) {
	for r.stop == nil {
		before := r.index
		typ, plain, err := r.frame()
		if err == nil {
			var a recorder.Audio
			a, err = r.take(typ, plain)
			if err == nil && typ == frameAudio {
				return a, nil
			}
		} else if errors.Is(err, io.EOF) {
			err = r.fault(FaultTruncated, errors.New("no last frame"))
		}
		if err == nil {
			continue
		}
		r.damaged = true
		if r.index == before || errors.Is(err, io.EOF) {
			r.stop = err // the framing is lost, or all is read
		}
		return recorder.Audio{}, err
	}
	return recorder.Audio{}, r.stop
}

// More tells whether Next may go on behind the fault that it told of last.
func (r *Reader) More() bool { return r.stop == nil }

// take interprets an authentic frame. Its plaintext is our own; what is wrong
// in it was wrong when it was sealed.
func (r *Reader) take(typ byte, plain []byte) (recorder.Audio, error) {
	var a recorder.Audio
	var err error
	switch typ {
	case frameAudio:
		if a, err = parseAudio(plain, r.head); err == nil {
			r.sum.add(a, r.head.SampleRate)
		}
	case frameAccount:
		err = r.note(plain)
	case frameLast:
		return a, r.last(plain)
	default:
		err = fmt.Errorf("frame type %d", typ)
	}
	if err != nil {
		return a, r.fault(FaultAltered, err)
	}
	return a, nil
}

// last compares the totals; io.EOF when they fit.
func (r *Reader) last(plain []byte) error {
	t, err := parseTotals(plain)
	if err != nil {
		return r.fault(FaultAltered, err)
	}
	r.done = true
	if err := r.trailing(); err != nil {
		r.stop = err
		return err
	}
	if !r.damaged && t != r.sum {
		r.stop = r.fault(FaultAltered, fmt.Errorf("totals: %d samples in %d frames, sealed were %d in %d", r.sum.samples, r.sum.audios, t.samples, t.audios))
		return r.stop
	}
	return io.EOF
}

func (r *Reader) trailing() error {
	if r.off != r.size {
		return r.fault(FaultAltered, fmt.Errorf("%d bytes after the last frame", r.size-r.off))
	}
	return nil
}
