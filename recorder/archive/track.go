package archive

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
)

// block is a run of authentic coded audio of one segment.
type block struct {
	start   int64 // sample of the recording at which it begins
	samples int
	data    []byte
	end     int64 // sample at which its segment ends
	format  string
	fresh   bool // it does not follow the block before: another segment, or something is missing between
}

// track reads the audio of a recording in order. What is missing or does not
// authenticate is left out and noted.
type track struct {
	a    *Archive
	ctx  context.Context
	m    *recorder.Manifest
	from place
	bad  *findings

	keys  *keyring
	i     int // index of the open or next segment
	blob  recorder.Blob
	r     *segment.Reader // nil: segment i is not open
	base  int64           // sample at which segment i begins
	until int64           // sample behind the last block
	lost  bool            // something is missing before the next block
}

// sample returns the position of an audio time.
func (t *track) sample(ms int64) int64 { return ms * int64(t.m.SampleRate) / 1000 }

// total is the length of the recording in samples.
func (t *track) total() int64 { return t.sample(t.m.AudioMS) }

// seek makes segment i the next one, that which holds the sample, and returns
// where it begins.
func (t *track) seek(sample int64) int64 {
	t.close()
	var start int64
	t.i, start = t.at(sample)
	return start
}

// at returns the segment to read from for a sample, and the sample to begin with.
func (t *track) at(sample int64) (i int, start int64) {
	for k, s := range t.m.Segments {
		if at := t.sample(s.AudioMS); at <= sample {
			i, start = k, at
		}
	}
	return i, start
}

func (t *track) close() {
	if t.r == nil {
		return
	}
	t.r.Close()
	_ = t.blob.Close() // only read
	t.r, t.blob = nil, nil
}

// next returns the next block; io.EOF behind the last.
func (t *track) next() (block, error) {
	for t.i < len(t.m.Segments) {
		seg := t.m.Segments[t.i]
		if t.r == nil {
			if err := t.open(seg); err != nil {
				return block{}, err
			}
			if t.r == nil {
				t.i++
				continue
			}
		}
		a, err := t.r.Next()
		if err == nil {
			if b := t.place(a, seg); b.samples > 0 {
				return b, nil
			}
			continue
		}
		more, err := t.fault(seg, err)
		if err != nil {
			return block{}, err
		}
		if !more {
			t.close()
			t.i++
		}
	}
	return block{}, io.EOF
}

// keyring returns what opens the segments.
func (t *track) keyring() *keyring {
	if t.keys == nil {
		t.keys = t.a.keys(t.from)
	}
	return t.keys
}

// open opens a segment; without an error and without a reader it cannot be used.
func (t *track) open(seg recorder.Segment) error {
	b, err := t.a.openNear(t.ctx, t.from, seg.File)
	if err == nil {
		var r *segment.Reader
		if r, err = segment.Open(t.ctx, b, t.keyring(), segment.Want{Recording: t.m.ID, N: seg.N}); err == nil {
			err = t.fits(r.Header())
			if err == nil {
				t.blob, t.r = b, r
				t.base = t.sample(seg.AudioMS)
				t.until, t.lost = t.base, true
				return nil
			}
			r.Close()
		}
		_ = b.Close() // only read
	}
	if _, err := t.fault(seg, err); err != nil {
		return err
	}
	return nil
}

// fits refuses a segment of another shape than its recording.
func (t *track) fits(h segment.Header) error {
	if h.SampleRate != t.m.SampleRate || h.Channels != len(t.m.Channels) {
		return fmt.Errorf("segment of %d channels at %d Hz in a recording of %d at %d: %w",
			h.Channels, h.SampleRate, len(t.m.Channels), t.m.SampleRate, recorder.ErrTampered)
	}
	return nil
}

// place gives a frame its position. Positions are whole milliseconds; within a
// segment frames that lie together are kept together to the sample.
func (t *track) place(a recorder.Audio, seg recorder.Segment) block {
	b := block{
		start: t.base + t.sample(a.SegMS), samples: a.Samples, data: a.Data, format: t.r.Header().Format,
		end: t.base + t.sample(seg.DurationMS), fresh: t.lost,
	}
	t.lost = false
	if slack := t.sample(1); b.start-t.until <= slack && t.until-b.start <= slack {
		b.start = t.until
	} else {
		b.fresh = true
	}
	b.samples = int(min(int64(b.samples), b.end-b.start))
	t.until = b.start + int64(max(b.samples, 0))
	return b
}

// fault notes what is wrong with a segment and tells whether to read on in it.
// The error is that of a store or a key, which is no fault of the recording.
func (t *track) fault(seg recorder.Segment, err error) (more bool, _ error) {
	var bad *segment.FrameError
	switch {
	case errors.Is(err, io.EOF):
		return false, nil
	case errors.As(err, &bad):
		t.bad.addErr(t.m.ID, seg.File, err)
		t.lost = true
		return t.r != nil && bad.Fault != segment.FaultTruncated && t.r.More(), nil
	case errors.Is(err, recorder.ErrNotFound), errors.Is(err, recorder.ErrTampered):
		t.bad.addErr(t.m.ID, seg.File, err)
		return false, nil
	}
	return false, fmt.Errorf("recording %s, %s: %w", t.m.ID, seg.File, err)
}
