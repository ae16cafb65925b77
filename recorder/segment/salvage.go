package segment

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// Run is a stretch of audio in a segment: frames that lie together in real time.
type Run struct {
	RealMS, AudioMS, SegMS int64
	Samples                int64
}

// Salvaged is what a spool file holds up to its first bad frame.
type Salvaged struct {
	Header   Header
	Complete bool  // the last frame is there: it needs no repair
	Good     int64 // bytes up to the end of the last good frame
	Torn     int64 // bytes behind them
	Beyond   int   // frames behind the first bad one that authenticate: not a torn tail but damage
	Account  *recorder.Manifest
	Runs     []Run
	EndMS    int64 // position in the segment's audio after the last good sample

	AudioSHA256 string // of the coded audio of all good frames, hex

	frames int // good ones
	sum    totals
}

// Salvage reads a spool file as far as it is good. An error means that not even
// the header can be used, that the key is missing (recorder.ErrKey), or that
// reading failed.
func Salvage(ctx context.Context, b recorder.Blob, opener Opener) (s Salvaged, err error) {
	r, err := Open(ctx, b, opener, Want{})
	if err != nil {
		return Salvaged{}, err
	}
	defer r.Close()
	s = Salvaged{Header: r.head, Good: r.off}
	audio := sha256.New()
	defer func() { s.AudioSHA256 = hex.EncodeToString(audio.Sum(nil)) }()
	for {
		a, err := r.Next()
		var bad *FrameError
		switch {
		case err == nil:
			s.add(a)
			_, _ = audio.Write(a.Data) // never fails
		case r.done:
			s.Complete = true
			s.mark(r.index, r.off, r)
			return s, nil
		case !errors.As(err, &bad):
			return s, fmt.Errorf("salvage segment: %w", err)
		default:
			s.mark(bad.Frame, bad.Offset, r)
			s.Beyond = countGood(r)
			return s, nil
		}
	}
}

func (s *Salvaged) add(a recorder.Audio) {
	rate := int64(s.Header.SampleRate)
	if n := len(s.Runs); n > 0 {
		l := &s.Runs[n-1]
		ms := l.Samples * 1000 / rate
		if near(l.RealMS+ms, a.RealMS) && near(l.SegMS+ms, a.SegMS) {
			l.Samples += int64(a.Samples)
			return
		}
	}
	s.Runs = append(s.Runs, Run{RealMS: a.RealMS, AudioMS: a.AudioMS, SegMS: a.SegMS, Samples: int64(a.Samples)})
}

// near allows for the rounding of positions to whole milliseconds.
func near(a, b int64) bool { return a-b <= 1 && b-a <= 1 }

func (s *Salvaged) mark(frames int, good int64, r *Reader) {
	s.frames, s.Good, s.Torn = frames, good, r.size-good
	s.Account, s.sum, s.EndMS = r.account, r.sum, r.sum.endMS
}

// countGood counts the frames that still open behind a bad one.
func countGood(r *Reader) int {
	n := 0
	for {
		_, err := r.Next()
		switch {
		case err == nil:
			n++
		case r.stop != nil:
			return n
		}
	}
}

// Repair cuts a spool file behind its last good frame and gives it a last
// frame. It is idempotent: after a crash in it, Salvage and Repair again.
func Repair(ctx context.Context, fsys vfs.FS, path string, opener Opener, s Salvaged) error {
	if s.Complete && s.Torn == 0 {
		return nil
	}
	f, err := fsys.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("repair segment: %w", err)
	}
	if err := repair(ctx, f, opener, s); err != nil {
		_ = f.Close() // the first error is the one to report
		return fmt.Errorf("repair segment: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("repair segment: %w", err)
	}
	return nil
}

func repair(ctx context.Context, f vfs.File, opener Opener, s Salvaged) error {
	key, err := opener.OpenKey(ctx, s.Header.Recording, s.Header.Key)
	if err != nil {
		return err
	}
	defer key.Close()
	end := s.Good
	if err := f.Truncate(end); err != nil {
		return err
	}
	if !s.Complete {
		head := make([]byte, preambleBytes)
		if _, err := f.ReadAt(head, 0); err != nil {
			return err
		}
		n, err := parsePreamble(head, kindSegment)
		if err != nil {
			return err
		}
		head = make([]byte, preambleBytes+n)
		if _, err := f.ReadAt(head, 0); err != nil {
			return err
		}
		bind := newBinding(head)
		last, err := appendFrame(nil, key, &bind, s.frames, frameLast, s.sum.encode())
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(last, end); err != nil {
			return err
		}
	}
	return f.Sync()
}

// Sum returns size and SHA-256 of a blob, in hex.
func Sum(b recorder.Blob) (int64, string, error) {
	h := sha256.New()
	n, err := io.Copy(h, io.NewSectionReader(b, 0, b.Size()))
	if err != nil {
		return 0, "", fmt.Errorf("hash: %w", err)
	}
	return n, hex.EncodeToString(h.Sum(nil)), nil
}

// OpenFile opens a local file as a Blob.
func OpenFile(fsys vfs.FS, name string) (recorder.Blob, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return &fileBlob{File: f, size: info.Size()}, nil
}

type fileBlob struct {
	vfs.File
	size int64
}

func (b *fileBlob) Size() int64 { return b.size }
