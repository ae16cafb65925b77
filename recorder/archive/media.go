package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/codec/mp3"
	"github.com/trunktap/trunktap/recorder"
)

// FormatMP3 is a format of exports, never of recordings.
const FormatMP3 = "mp3"

// kind is what a file of a format is called, and how large it may become where
// it is held in memory, in bytes: beyond that ErrTooLong.
type kind struct {
	ext, contentType string
	bytesMax         int64
}

// kindOf tells what files of a format are.
func kindOf(format string) kind {
	switch format {
	case codec.OggOpus:
		return kind{".ogg", "audio/ogg", 64 << 20} // four hours
	case FormatMP3:
		return kind{".mp3", "audio/mpeg", 64 << 20} // three hours
	case codec.FLAC:
		return kind{".flac", "audio/flac", 128 << 20} // two hours or more at 8000 Hz
	}
	return kind{ext: ".wav", contentType: "audio/wav"} // never held
}

// ErrTooLong says that a recording is too long for what was asked.
var ErrTooLong = errors.New("recording is too long to be served in this format; take wav-pcm16, or export it")

// Media is the audio of a recording as one file.
type Media struct {
	io.ReadSeekCloser           // used by one goroutine
	Size              int64     // bytes
	ContentType       string    // audio/wav, audio/ogg, audio/flac or audio/mpeg
	Name              string    // proposed file name
	Modified          time.Time // end of the call

	bad *findings
}

// Damage returns what was found wrong with the recording so far: missing
// segments and wrong sizes at once, altered frames as they are read. Silence
// stands in their places.
func (m *Media) Damage() []Finding { return m.bad.list }

// Media opens the audio of a recording: all its segments as one file, silence
// where audio is missing. Format "" is the recording's own. WAV is read from
// the store as it is asked for and never held; Ogg, FLAC and MP3 are made in
// memory, whole, so that any range of them can be had: Ogg of a recording of
// several segments, FLAC and MP3 always, is coded anew. Closing it is the caller's.
func (a *Archive) Media(ctx context.Context, id, format string) (_ *Media, err error) {
	release := a.pin(id)
	defer func() {
		if err != nil {
			release()
		}
	}()
	m, at, err := a.load(ctx, id)
	if err != nil {
		return nil, err
	}
	if format == "" {
		format = m.Format
	}
	if err := playable(m, format); err != nil {
		return nil, fmt.Errorf("recording %s: %w", id, err)
	}
	bad := &findings{}
	t := track{a: a, ctx: ctx, m: m, from: at, bad: bad}
	a.checkSizes(ctx, &t)
	k := kindOf(format)
	out := &Media{Name: id + k.ext, ContentType: k.contentType, Modified: m.Call.End, bad: bad}
	if k.bytesMax > 0 {
		content, err := a.files.get(t, format)
		if err != nil {
			return nil, fmt.Errorf("recording %s: %w", id, err)
		}
		release()
		out.ReadSeekCloser, out.Size = nopCloser{bytes.NewReader(content)}, int64(len(content))
		return out, nil
	}
	w, err := newWAVReader(t, format)
	if err != nil {
		return nil, fmt.Errorf("recording %s: %w", id, err)
	}
	w.release = release
	out.ReadSeekCloser, out.Size = w, w.size
	return out, nil
}

// playable refuses formats and manifests that no file can be made of.
func playable(m *recorder.Manifest, format string) error {
	if n := len(m.Channels); n != 1 && n != 2 {
		return fmt.Errorf("%d channels: want 1 or 2", n)
	}
	if format == FormatMP3 {
		if !mp3.Supported {
			return mp3.ErrLeftOut
		}
		if mp3.Bitrates(m.SampleRate) == nil {
			return fmt.Errorf("%w: %d Hz", mp3.ErrShape, m.SampleRate)
		}
		return nil
	}
	enc, err := codec.NewEncoder(format, m.SampleRate, codec.Options{Channels: len(m.Channels)})
	if err != nil {
		return err
	}
	enc.Close()
	return nil
}

// checkSizes notes segments that are missing or have another size than they were
// published with.
func (a *Archive) checkSizes(ctx context.Context, t *track) {
	for _, s := range t.m.Segments {
		b, err := a.openNear(ctx, t.from, s.File)
		if err != nil {
			continue // noted when it is read
		}
		if b.Size() != s.Bytes {
			t.bad.addf(t.m.ID, s.File, sizeFault(b.Size(), s.Bytes), "%d bytes, the manifest says %d", b.Size(), s.Bytes)
		}
		_ = b.Close() // only opened
	}
}

func sizeFault(is, want int64) string {
	if is < want {
		return FaultTruncated
	}
	return FaultAltered
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

// wavReader is a WAV file that does not exist: its header and length are
// computed, its data read from the segments around the offset.
type wavReader struct {
	p      *player
	header []byte
	frame  int64 // bytes of a sample of all channels
	data   int64 // bytes of audio
	size   int64
	off    int64

	buf   bytes.Buffer // audio that was put out and not yet dropped
	bufAt int64        // its offset in the audio
	done  bool
	quiet []byte // a second of silence

	release func() // called by Close; nil after it
}

func newWAVReader(t track, format string) (*wavReader, error) {
	channels := len(t.m.Channels)
	w := &wavReader{frame: int64(frameBytes(format, channels))}
	w.data = t.total() * w.frame
	var err error
	if w.header, err = codec.WAVHeader(format, t.m.SampleRate, channels, w.data); err != nil {
		return nil, err
	}
	w.size = int64(len(w.header)) + w.data + w.data&1
	if w.quiet, err = silentSecond(format, t.m.SampleRate, channels); err != nil {
		return nil, err
	}
	w.p, err = newPlayer(t, format, w)
	return w, err
}

func silentSecond(format string, rate, channels int) ([]byte, error) {
	enc, err := codec.NewEncoder(format, rate, codec.Options{Channels: channels})
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	zero := make([]int16, rate)
	return enc.Encode(nil, [2][]int16{zero, zero})
}

// Write takes audio from the player.
func (w *wavReader) Write(data []byte, samples int) error {
	_, err := w.buf.Write(data[:int64(samples)*w.frame])
	return err
}

// Silence takes silence from the player, at most a second.
func (w *wavReader) Silence(samples int) error {
	_, err := w.buf.Write(w.quiet[:int64(samples)*w.frame])
	return err
}

// Read implements io.Reader.
func (w *wavReader) Read(p []byte) (int, error) {
	if w.off >= w.size {
		return 0, io.EOF
	}
	if h := int64(len(w.header)); w.off < h {
		n := copy(p, w.header[w.off:])
		w.off += int64(n)
		return n, nil
	}
	at := w.off - int64(len(w.header))
	if at >= w.data { // the byte that makes the chunk even
		p[0] = 0
		w.off++
		return 1, nil
	}
	if err := w.fill(at); err != nil {
		return 0, err
	}
	n := copy(p[:min(int64(len(p)), w.data-at)], w.buf.Bytes())
	w.off += int64(n)
	return n, nil
}

// fill makes the buffer begin with the byte at an offset of the audio.
func (w *wavReader) fill(at int64) error {
	end := w.bufAt + int64(w.buf.Len())
	// A leap forward by more than some blocks is cheaper by a restart, if
	// another segment holds the place.
	if at < w.bufAt || at > end+10*int64(len(w.quiet)) {
		if _, start := w.p.t.at(at / w.frame); at < w.bufAt || start*w.frame > end {
			w.buf.Reset()
			if err := w.p.restart(at / w.frame); err != nil {
				return err
			}
			w.bufAt, w.done = w.p.pos*w.frame, false
		}
	}
	for {
		if drop := min(at-w.bufAt, int64(w.buf.Len())); drop > 0 {
			w.buf.Next(int(drop))
			w.bufAt += drop
		}
		if w.buf.Len() > 0 && w.bufAt == at {
			return nil
		}
		if w.done {
			return fmt.Errorf("audio ends at byte %d of %d: %w", w.bufAt, w.data, io.ErrUnexpectedEOF)
		}
		err := w.p.step()
		if errors.Is(err, io.EOF) {
			w.done = true
		} else if err != nil {
			return err
		}
	}
}

// Seek implements io.Seeker. It reads nothing.
func (w *wavReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += w.off
	case io.SeekEnd:
		offset += w.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	w.off = offset
	return offset, nil
}

// Close implements io.Closer.
func (w *wavReader) Close() error {
	w.p.close()
	if w.release != nil {
		w.release()
		w.release = nil
	}
	return nil
}

// Export writes a recording into a file of a format ("" is its own). Missing
// audio becomes silence and is told in a *DamageError when all is written.
// Progress counts milliseconds of audio.
func (a *Archive) Export(ctx context.Context, id, format string, w io.WriteSeeker, progress Progress) error {
	defer a.pin(id)()
	m, at, err := a.load(ctx, id)
	if err != nil {
		return err
	}
	if format == "" {
		format = m.Format
	}
	bad := &findings{}
	t := track{a: a, ctx: ctx, m: m, from: at, bad: bad}
	a.checkSizes(ctx, &t)
	if err := export(t, format, w, progress); err != nil {
		return fmt.Errorf("export recording %s: %w", id, err)
	}
	if len(bad.list) > 0 {
		return &DamageError{Findings: bad.list}
	}
	return nil
}

func export(t track, format string, w io.WriteSeeker, progress Progress) (err error) {
	if err := playable(t.m, format); err != nil {
		return err
	}
	f, as, err := newFile(t.m, format, w)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error is the one to report; it lets go of the coder
		}
	}()
	p, err := newPlayer(t, as, f)
	if err != nil {
		return err
	}
	defer p.close()
	for {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		err := p.step()
		progress.tell(p.pos*1000/int64(p.rate), t.m.AudioMS)
		if errors.Is(err, io.EOF) {
			return f.Close()
		}
		if err != nil {
			return err
		}
	}
}

// fileCache keeps the file that was made last in memory, because a browser asks
// for one file many times.
type fileCache struct {
	mu      sync.Mutex // guards all following
	key     string
	content []byte
}

// drop forgets a recording.
func (c *fileCache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if strings.Contains(c.key+" ", " "+id+" ") {
		clear(c.content)
		c.key, c.content = "", nil
	}
}

// get returns the file of a recording in a format.
func (c *fileCache) get(t track, format string) ([]byte, error) {
	key := format + " " + cacheKey(t.m)
	c.mu.Lock()
	if c.key == key {
		defer c.mu.Unlock()
		return c.content, nil
	}
	c.mu.Unlock()
	w := &memFile{limit: kindOf(format).bytesMax}
	if err := export(t, format, w, nil); err != nil {
		return nil, err
	}
	if len(t.bad.list) == 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.key, c.content = key, w.b
	}
	return w.b, nil
}

// cacheKey names the content of a recording.
func cacheKey(m *recorder.Manifest) string {
	var b strings.Builder
	b.WriteString(m.ID)
	for _, s := range m.Segments {
		b.WriteString(" " + s.SHA256)
	}
	return b.String()
}

// memFile is a bounded file in memory.
type memFile struct {
	b     []byte
	off   int64
	limit int64
}

// Write implements io.Writer.
func (f *memFile) Write(p []byte) (int, error) {
	end := f.off + int64(len(p))
	if end > f.limit {
		return 0, ErrTooLong
	}
	if end > int64(len(f.b)) {
		f.b = append(f.b, make([]byte, end-int64(len(f.b)))...)
	}
	copy(f.b[f.off:], p)
	f.off = end
	return len(p), nil
}

// Seek implements io.Seeker.
func (f *memFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.off
	case io.SeekEnd:
		offset += int64(len(f.b))
	}
	if offset < 0 || offset > f.limit {
		return 0, ErrTooLong
	}
	f.off = offset
	return offset, nil
}
