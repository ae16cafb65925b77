// Package plain writes recordings as ordinary files without a seal: what
// `trunktap replay` gives.
package plain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// ManifestFile is the name of the manifest in a recording's folder.
const ManifestFile = "recording.json"

// Dir writes recordings into a directory: DIR/<recording id>/0001.wav, .ogg or .flac,
// and recording.json. Safe for concurrent use.
type Dir struct{ root string }

// New returns the directory at root, which is made when it does not exist.
func New(root string) *Dir { return &Dir{root: root} }

// NewSink begins a recording. The folder of an earlier recording of the same
// id is replaced when this one is published.
func (d *Dir) NewSink(_ context.Context, recordingID, _ string) (recorder.Sink, error) {
	if err := segment.CheckID(recordingID); err != nil {
		return nil, fmt.Errorf("new recording: %w", err)
	}
	return &sink{root: d.root, id: recordingID, tmp: filepath.Join(d.root, vfs.TempPrefix+recordingID)}, nil
}

// sink gathers a recording under a temporary name.
type sink struct {
	root, id string
	tmp      string
	begun    bool
	open     []*writer
	done     bool
}

func (s *sink) begin() error {
	if s.begun {
		return nil
	}
	if err := os.RemoveAll(s.tmp); err != nil { // of a run that was killed
		return err
	}
	if err := os.MkdirAll(s.tmp, 0o755); err != nil {
		return err
	}
	s.begun = true
	return nil
}

var errDone = errors.New("recording is finished")

// Begin implements recorder.Sink.
func (s *sink) Begin(i recorder.SegmentInfo) (recorder.SegmentWriter, error) {
	if s.done {
		return nil, errDone
	}
	w, err := s.create(i)
	if err != nil {
		return nil, fmt.Errorf("begin segment %d: %w", i.N, err)
	}
	// Finished ones are let go: with their buffers they add up over a long call.
	s.open = append(slices.DeleteFunc(s.open, func(w *writer) bool { return w.file == nil }), w)
	return w, nil
}

// extensions of the files of segments.
var extensions = []string{".wav", ".ogg", ".flac"}

func (s *sink) create(i recorder.SegmentInfo) (*writer, error) {
	if i.SampleRate < 1000 || i.N < 1 {
		return nil, fmt.Errorf("segment %d at %d Hz", i.N, i.SampleRate)
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	ext := ".wav"
	switch i.Format {
	case codec.OggOpus:
		ext = ".ogg"
	case codec.FLAC:
		ext = ".flac"
	}
	w := &writer{info: i, dir: s.tmp, name: fmt.Sprintf("%04d%s", i.N, ext)}
	f, err := os.OpenFile(w.tmp(), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	if w.out, err = codec.NewFileWriter(i.Format, f, i.SampleRate, i.Channels); err != nil {
		_ = f.Close() // the first error is the one to report
		return nil, errors.Join(err, os.Remove(w.tmp()))
	}
	w.file = f
	return w, nil
}

// Publish implements recorder.Sink.
func (s *sink) Publish(m *recorder.Manifest) error {
	if s.done {
		return nil
	}
	if err := s.publish(m); err != nil {
		return fmt.Errorf("publish recording %s: %w", s.id, err)
	}
	s.done = true
	return nil
}

func (s *sink) publish(m *recorder.Manifest) error {
	if m.ID != s.id {
		return fmt.Errorf("manifest of recording %s", m.ID)
	}
	if err := s.begin(); err != nil {
		return err
	}
	js, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := vfs.WriteFile(vfs.OS{}, filepath.Join(s.tmp, ManifestFile), append(js, '\n')); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(s.tmp, ManifestFile), 0o644); err != nil {
		return err
	}
	final := filepath.Join(s.root, s.id)
	if err := s.clear(final); err != nil {
		return err
	}
	if err := os.Rename(s.tmp, final); err != nil {
		return err
	}
	return vfs.OS{}.SyncDir(s.root)
}

// clear removes the folder of an earlier run, and nothing that is not one: a
// wrong --out must not cost anybody his files.
func (s *sink) clear(final string) error {
	entries, err := os.ReadDir(final)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); e.IsDir() || e.Name() != ManifestFile && !slices.Contains(extensions, ext) && !strings.HasPrefix(e.Name(), vfs.TempPrefix) {
			return fmt.Errorf("%s: holds %s, which is no part of a recording: move it away", final, e.Name())
		}
	}
	return os.RemoveAll(final)
}

// Discard implements recorder.Sink.
func (s *sink) Discard() error {
	s.done = true
	s.release()
	return os.RemoveAll(s.tmp)
}

// Close implements recorder.Sink. What was not published is removed.
func (s *sink) Close() error {
	if s.done {
		return nil
	}
	return s.Discard()
}

func (s *sink) release() {
	for _, w := range s.open {
		w.close()
	}
	s.open = nil
}

// writer writes one segment. What is missing between two frames becomes
// silence, so that positions stay true.
type writer struct {
	info recorder.SegmentInfo
	dir  string
	name string
	file *os.File // nil once finished
	out  codec.FileWriter
	pos  int64 // samples written
}

func (w *writer) tmp() string { return filepath.Join(w.dir, vfs.TempPrefix+w.name) }

func (w *writer) close() {
	if w.file != nil {
		_ = w.file.Close() // it is given up
		w.file = nil
	}
}

// Write implements recorder.SegmentWriter. Accounts are for recovery, which
// plain files have not.
func (w *writer) Write(a recorder.Audio, _ *recorder.Manifest) error {
	if w.file == nil {
		return errDone
	}
	if a.Samples == 0 {
		return nil
	}
	rate := int64(w.info.SampleRate)
	if leap := a.SegMS*rate/1000 - w.pos; leap >= rate/1000 {
		if err := w.out.Silence(int(leap)); err != nil {
			return fmt.Errorf("write segment %d: %w", w.info.N, err)
		}
		w.pos += leap
	}
	if err := w.out.Write(a.Data, a.Samples); err != nil {
		return fmt.Errorf("write segment %d: %w", w.info.N, err)
	}
	w.pos += int64(a.Samples)
	return nil
}

// Finish implements recorder.SegmentWriter.
func (w *writer) Finish(*recorder.Manifest) (recorder.Segment, error) {
	s, err := w.finish()
	if err != nil {
		return s, fmt.Errorf("finish segment %d: %w", w.info.N, err)
	}
	return s, nil
}

func (w *writer) finish() (recorder.Segment, error) {
	if w.file == nil {
		return recorder.Segment{}, errDone
	}
	if err := w.out.Close(); err != nil {
		return recorder.Segment{}, err
	}
	if _, err := w.file.Seek(0, io.SeekStart); err != nil {
		return recorder.Segment{}, err
	}
	h := sha256.New()
	n, err := io.Copy(h, w.file)
	if err == nil {
		err = w.file.Sync()
	}
	if err != nil {
		return recorder.Segment{}, err
	}
	err = w.file.Close()
	w.file = nil
	if err == nil {
		err = os.Rename(w.tmp(), filepath.Join(w.dir, w.name))
	}
	return recorder.Segment{
		N: w.info.N, File: w.name, RealMS: w.info.RealMS, AudioMS: w.info.AudioMS, DurationMS: w.pos * 1000 / int64(w.info.SampleRate),
		Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil)),
	}, err
}

// Abort implements recorder.SegmentWriter.
func (w *writer) Abort() error {
	w.close()
	if err := os.Remove(w.tmp()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("abort segment %d: %w", w.info.N, err)
	}
	return nil
}
