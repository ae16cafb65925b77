package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
)

// plainSinks makes sinks that write plain, unsealed files below a directory:
// DIR/<recording-id>/recording.json and its segments.
type plainSinks struct{ dir string }

func (p plainSinks) open(_ context.Context, recording, _ string) (recorder.Sink, error) {
	return &plainSink{dir: filepath.Join(p.dir, recording)}, nil
}

// plainSink takes one recording.
type plainSink struct {
	dir  string
	open []*plainSegment // begun and neither finished nor aborted
	done []string        // files of finished segments
}

// Begin implements recorder.Sink.
func (s *plainSink) Begin(i recorder.SegmentInfo) (recorder.SegmentWriter, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%04d%s", i.N, extension(i.Format))
	f, err := os.CreateTemp(s.dir, "."+name+".*")
	if err != nil {
		return nil, err
	}
	w, err := codec.NewFileWriter(i.Format, f, i.SampleRate, i.Channels)
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	seg := &plainSegment{sink: s, info: i, name: name, file: f, out: w}
	s.open = append(s.open, seg)
	return seg, nil
}

// extension of the files of a format.
func extension(format string) string {
	if format == recorder.FormatOggOpus {
		return ".opus" // RFC 7845 section 9
	}
	return ".wav"
}

// Publish implements recorder.Sink.
func (s *plainSink) Publish(m *recorder.Manifest) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return writeFile(filepath.Join(s.dir, "recording.json"), func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(m)
	})
}

// Discard implements recorder.Sink.
func (s *plainSink) Discard() error {
	err := s.Close()
	for _, name := range s.done {
		err = errors.Join(err, os.Remove(filepath.Join(s.dir, name)))
	}
	s.done = nil
	if left, readErr := os.ReadDir(s.dir); readErr == nil && len(left) == 0 {
		err = errors.Join(err, os.Remove(s.dir))
	}
	return err
}

// Close implements recorder.Sink.
func (s *plainSink) Close() (err error) {
	for len(s.open) > 0 {
		err = errors.Join(err, s.open[0].Abort())
	}
	return err
}

// plainSegment is one file.
type plainSegment struct {
	sink *plainSink
	info recorder.SegmentInfo
	name string
	file *os.File
	out  codec.FileWriter
}

// Write implements recorder.SegmentWriter.
func (p *plainSegment) Write(a recorder.Audio, _ *recorder.Manifest) error {
	if a.Samples == 0 {
		return nil
	}
	return p.out.Write(a.Data, a.Samples)
}

// Finish implements recorder.SegmentWriter.
func (p *plainSegment) Finish(*recorder.Manifest) (recorder.Segment, error) {
	seg := recorder.Segment{N: p.info.N, File: p.name}
	if err := p.out.Close(); err != nil {
		return seg, errors.Join(err, p.Abort())
	}
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return seg, errors.Join(err, p.Abort())
	}
	h := sha256.New()
	n, err := io.Copy(h, p.file)
	if err != nil {
		return seg, errors.Join(err, p.Abort())
	}
	seg.Bytes, seg.SHA256 = n, hex.EncodeToString(h.Sum(nil))
	if err := errors.Join(p.file.Sync(), p.file.Close()); err != nil {
		return seg, errors.Join(err, p.forget())
	}
	if err := os.Rename(p.file.Name(), filepath.Join(p.sink.dir, p.name)); err != nil {
		return seg, errors.Join(err, p.forget())
	}
	p.sink.leave(p)
	p.sink.done = append(p.sink.done, p.name)
	return seg, nil
}

// Abort implements recorder.SegmentWriter.
func (p *plainSegment) Abort() error { return errors.Join(p.file.Close(), p.forget()) }

// forget removes the unfinished file.
func (p *plainSegment) forget() error {
	p.sink.leave(p)
	return os.Remove(p.file.Name())
}

func (s *plainSink) leave(p *plainSegment) {
	for i, x := range s.open {
		if x == p {
			s.open = append(s.open[:i], s.open[i+1:]...)
			return
		}
	}
}

// clearStale removes what an interrupted run left of a recording: files that
// are no segment of the run that wrote the manifest would look like audio.
func clearStale(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if name == "recording.json" || strings.HasSuffix(name, ".wav") || strings.HasSuffix(name, ".opus") || strings.HasPrefix(name, ".0") {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
