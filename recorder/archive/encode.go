package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// encodeJob codes the PCM and FLAC segments of a published recording as Opus, into new
// files, puts the manifest that names them in the place of the old one in one
// step, and deletes the old files. It may die or fail anywhere and be repeated:
// before the manifest is replaced nothing has changed, behind it only files that
// no manifest names are left to delete.
func (a *Archive) encodeJob(ctx context.Context, j *job) error {
	if a.isLive(j.Recording) {
		return errBusy
	}
	s, err := a.shelf(j.Store)
	if err != nil {
		return err
	}
	j.at = place{s, j.Prefix}
	if !a.isSpooled(j.Recording) {
		if _, err := a.fsys.Stat(a.spool(j.Recording)); err == nil && !a.has(ctx, j.at) {
			return errBusy // it is noted before it is published: recovery is still to do it
		}
		// While the spool has the recording, Recover would put its manifest over ours.
		if err := a.dropSpool(j.Recording); err != nil {
			return err
		}
	}
	m, err := a.manifest(ctx, j.Recording, j.at)
	switch {
	case errors.Is(err, recorder.ErrTampered), errors.Is(err, recorder.ErrShredded):
		return a.dropJob(j) // not to be touched; verify tells
	case errors.Is(err, recorder.ErrNotFound):
		m = &recorder.Manifest{} // deleted since
	case err != nil:
		return err
	}
	if m.Format != codec.OggOpus && slices.ContainsFunc(m.Segments, func(s recorder.Segment) bool { return isLossless(formatOf(m, s)) }) {
		if err := a.sweep(ctx, j, m); err != nil { // what was begun before a crash
			return err
		}
		if m, err = a.encodeRecording(ctx, j, m); errors.Is(err, recorder.ErrShredded) {
			return a.dropJob(j)
		} else if err != nil {
			return err
		}
	}
	if m.ID != "" {
		err := a.whileKeyed(ctx, j.at, func() error { return a.saveRow(ctx, j.at.row(m, a.isSpooled(j.Recording))) })
		if err != nil && !errors.Is(err, recorder.ErrShredded) {
			return err
		}
	}
	if err := a.sweep(ctx, j, m); err != nil {
		return err
	}
	return a.dropJob(j)
}

// sweep deletes those files of a job that the manifest does not name. Replaced
// ones stay as long as somebody may be reading them.
func (a *Archive) sweep(ctx context.Context, j *job, m *recorder.Manifest) error {
	var gone []string
	st := a.storeOf(j.at)
	err := st.List(ctx, j.Prefix+"/", func(i recorder.BlobInfo) error {
		name := path.Base(i.Name)
		named := slices.ContainsFunc(m.Segments, func(s recorder.Segment) bool { return s.File == name })
		if !named && (isEncoded(name) || slices.Contains(j.Replaced, name)) {
			gone = append(gone, i.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(gone) > 0 && a.pinned(j.Recording) {
		return errBusy
	}
	for _, name := range j.Replaced { // not listed, but perhaps not gone durably
		if !slices.ContainsFunc(m.Segments, func(s recorder.Segment) bool { return s.File == name }) && !slices.Contains(gone, j.at.object(name)) {
			gone = append(gone, j.at.object(name))
		}
	}
	for _, name := range gone {
		if err := deleteObject(ctx, st, name); err != nil {
			return err
		}
	}
	return nil
}

// dropJob ends a job.
func (a *Archive) dropJob(j *job) error {
	if err := vfs.RemoveAll(a.fsys, a.workDir(j.Recording)); err != nil {
		return err
	}
	return vfs.RemoveAll(a.fsys, a.jobFile(j.Recording)) // should a crash undo it, it is found done
}

// encodeRecording codes the segments, replaces the manifest and returns it. A
// segment that cannot be read whole stays as it is.
func (a *Archive) encodeRecording(ctx context.Context, j *job, old *recorder.Manifest) (*recorder.Manifest, error) {
	m := *old
	m.Format, m.Segments = codec.OggOpus, slices.Clone(old.Segments)
	j.Replaced = nil
	if err := vfs.RemoveAll(a.fsys, a.workDir(j.Recording)); err != nil { // left by a crash
		return nil, err
	}
	if err := vfs.MkdirAll(a.fsys, a.workDir(j.Recording)); err != nil {
		return nil, err
	}
	key, err := a.keyOf(ctx, j)
	if err != nil {
		return nil, err
	}
	defer key.Close()
	for i := range m.Segments {
		s := &m.Segments[i]
		from := formatOf(old, *s)
		s.Format = "" // the recording's
		if !isLossless(from) {
			continue
		}
		e := encoding{a: a, ctx: ctx, j: j, m: old, s: *s, t: newTimeline(old)}
		done, err := e.run(key)
		switch {
		case errors.Is(err, recorder.ErrTampered), errors.Is(err, recorder.ErrNotFound), errors.Is(err, codec.ErrCoded):
			s.Format = from // verify tells what is wrong with it
		case err != nil:
			return nil, err
		default:
			j.Replaced = append(j.Replaced, s.File)
			s.File, s.Bytes, s.SHA256, s.AudioSHA256 = done.File, done.Bytes, done.SHA256, done.AudioSHA256
		}
	}
	if len(j.Replaced) == 0 {
		return old, nil
	}
	return &m, a.replaceManifest(ctx, j, key, &m)
}

// keyOf opens the data key of a recording.
func (a *Archive) keyOf(ctx context.Context, j *job) (recorder.DataKey, error) {
	b, err := a.open(ctx, j.at, segment.ManifestFile)
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }() // only read
	ring := a.keys(j.at)
	_, head, err := segment.OpenManifest(ctx, b, ring)
	if err != nil {
		return nil, err
	}
	defer a.lockKey(j.Recording)()
	if _, err := a.keys(j.at).record(ctx, j.Recording); errors.Is(err, recorder.ErrNotFound) {
		// What is written of it from now on does not have the key inside.
		content, err := upgraded(j.Recording, j.Prefix, head.Key)
		if err != nil {
			return nil, err
		}
		if err := a.storeOf(j.at).Put(ctx, j.at.object(segment.KeyFile), content); err != nil {
			return nil, err
		}
	}
	return ring.OpenKey(ctx, j.Recording, head.Key)
}

// replaceManifest makes the new segments those of the recording.
func (a *Archive) replaceManifest(ctx context.Context, j *job, key recorder.DataKey, m *recorder.Manifest) error {
	content, err := a.sealManifest(ctx, key, j.at, m, audit.ReasonEncoded, a.linkHash(ctx, j.at))
	if err != nil {
		return err
	}
	if err := a.writeJob(j); err != nil { // which files go, before they may
		return err
	}
	if err := a.whileKeyed(ctx, j.at, func() error { return a.replaceManifestFile(ctx, j.at, content) }); err != nil {
		return err
	}
	a.deferred.stats.Done.Add(1)
	a.deferred.stats.AudioMS.Add(m.AudioMS)
	return nil
}

// whileKeyed calls f unless the recording was shredded, which it cannot be meanwhile:
// coding takes minutes, and nothing of what was read before is to come back behind it.
func (a *Archive) whileKeyed(ctx context.Context, p place, f func() error) error {
	defer a.lockKey(p.id())()
	rec, err := a.keys(p).record(ctx, p.id())
	switch {
	case err == nil && rec.Shredded != nil:
		return &recorder.ShreddedError{Recording: p.id(), Shredded: *rec.Shredded}
	case err != nil && !errors.Is(err, recorder.ErrNotFound): // of version 1, or deleted since
		return err
	}
	return f()
}

// encoding codes one segment.
type encoding struct {
	a   *Archive
	ctx context.Context
	j   *job
	m   *recorder.Manifest
	s   recorder.Segment
	t   timeline

	rate  int64
	enc   codec.Encoder
	dec   codec.CodedDecoder
	out   *segment.Writer
	pend  [2][]int16 // not yet written
	pos   int64      // sample of the segment that pend begins with
	marks []mark     // of pend, in order; the first one is at or before pos
	data  []byte
}

// mark says where in real time a sample of the segment lies, and those behind it.
type mark struct{ sample, realMS int64 }

// encodeFrame is how much a frame holds, in milliseconds. Whole granules of
// every rate make it up.
const encodeFrame = 1000

// run writes and publishes the segment. recorder.ErrTampered: it cannot be
// read whole.
func (e *encoding) run(key recorder.DataKey) (recorder.Segment, error) {
	b, err := e.a.open(e.ctx, e.j.at, e.s.File)
	if err != nil {
		return recorder.Segment{}, err
	}
	defer func() { _ = b.Close() }() // only read
	r, err := segment.Open(e.ctx, b, e.a.keys(e.j.at), segment.Want{Recording: e.m.ID, N: e.s.N})
	if err != nil {
		return recorder.Segment{}, err
	}
	defer r.Close()
	if err := e.begin(r.Header(), key); err != nil {
		return recorder.Segment{}, err
	}
	defer e.enc.Close()
	defer e.out.Release()
	if err := e.frames(r); err != nil {
		return recorder.Segment{}, errors.Join(err, e.out.Abort())
	}
	return e.out.Finish(nil)
}

// begin opens decoder, encoder and file.
func (e *encoding) begin(h segment.Header, key recorder.DataKey) error {
	t := track{m: e.m}
	if err := t.fits(h); err != nil {
		return err
	}
	var err error
	e.rate = int64(h.SampleRate)
	if e.dec, err = codec.NewCodedDecoder(h.Format, h.SampleRate, h.Channels); err != nil {
		return err
	}
	e.enc, err = codec.NewEncoder(codec.OggOpus, h.SampleRate, codec.Options{
		Channels: h.Channels, Bitrate: e.j.Bitrate, Complexity: e.j.Complexity, Application: e.j.Application,
	})
	if err != nil {
		return err
	}
	e.out, err = segment.Create(segment.WriterConfig{
		FS: e.a.fsys, Store: e.a.storeOf(e.j.at), Key: key, Dir: e.a.workDir(e.m.ID), File: encodedName(h.N), SyncEvery: encodeSync,
		Info: recorder.SegmentInfo{
			Recording: h.Recording, Prefix: h.Prefix, N: h.N, Format: codec.OggOpus, SampleRate: h.SampleRate, Channels: h.Channels,
			RealMS: h.RealMS, AudioMS: h.AudioMS, Start: h.Start,
		},
	})
	return err
}

// encodeSync bounds the frames that wait in memory for a sync. Nobody was
// promised any of them before Finish.
const encodeSync = 16

// frames codes all of a segment. What its manifest has a gap for, because it
// could not be written, becomes the silence that the gap says it is filled with.
func (e *encoding) frames(r *segment.Reader) error {
	for {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		a, err := r.Next()
		if errors.Is(err, io.EOF) {
			return e.finish()
		}
		if err != nil {
			return err
		}
		if err := e.take(a); err != nil {
			return err
		}
		for int64(len(e.pend[0])) > e.rate*encodeFrame/1000 { // one sample stays: the last frame gets out what the encoder holds
			if err := e.write(int(e.rate * encodeFrame / 1000)); err != nil {
				return err
			}
		}
	}
}

// take decodes a frame of the old segment.
func (e *encoding) take(a recorder.Audio) error {
	at := a.SegMS * e.rate / 1000
	end := e.pos + int64(len(e.pend[0]))
	if hole := at - end; hole > e.rate/1000 { // positions are whole milliseconds
		if hole > e.s.DurationMS*e.rate/1000 {
			return fmt.Errorf("segment %d leaps to %d ms: %w", e.s.N, a.SegMS, recorder.ErrTampered)
		}
		_, real := e.t.real(e.s.AudioMS + end*1000/e.rate)
		e.marks = append(e.marks, mark{end, real})
		for i := range e.m.Channels {
			e.pend[i] = append(e.pend[i], make([]int16, hole)...)
		}
		end = at
	}
	if err := e.leap(end, a.RealMS); err != nil {
		return err
	}
	var err error
	e.pend, err = e.dec.Decode(e.pend, a.Data, a.Samples) // of one channel the second stays nil: the first is the mix
	return err
}

// leap notes where a frame lies. When it does not follow in real time, what is
// before it goes out as far as it fills granules, so that frames tell where a
// window was.
func (e *encoding) leap(sample, realMS int64) error {
	if n := len(e.marks); n > 0 {
		last := e.marks[n-1]
		if d := last.realMS + (sample-last.sample)*1000/e.rate - realMS; d >= -1 && d <= 1 {
			return nil
		}
		if whole := len(e.pend[0]) / e.enc.Granule() * e.enc.Granule(); whole > 0 && int64(whole) <= e.rate {
			if err := e.write(whole); err != nil {
				return err
			}
		}
	}
	e.marks = append(e.marks, mark{sample, realMS})
	return nil
}

// realMS is where the first sample of pend lies; marks behind it stay.
func (e *encoding) realMS() int64 {
	for len(e.marks) > 1 && e.marks[1].sample <= e.pos {
		e.marks = e.marks[1:]
	}
	return e.marks[0].realMS + (e.pos-e.marks[0].sample)*1000/e.rate
}

// write codes the first n waiting samples, whole granules.
func (e *encoding) write(n int) error {
	data, err := e.enc.Encode(e.data[:0], first(e.pend, n))
	if err != nil {
		return err
	}
	return e.put(data, n)
}

func (e *encoding) put(data []byte, n int) error {
	e.data = data
	ms := e.pos * 1000 / e.rate
	err := e.out.Write(recorder.Audio{RealMS: e.realMS(), AudioMS: e.s.AudioMS + ms, SegMS: ms, Samples: n, Data: data}, nil)
	if err != nil {
		return err
	}
	e.pos += int64(n)
	for i := range e.m.Channels {
		e.pend[i] = e.pend[i][:copy(e.pend[i], e.pend[i][n:])]
	}
	return nil
}

// finish writes what is left, and what the encoder holds back.
func (e *encoding) finish() error {
	n := len(e.pend[0])
	if n == 0 {
		return fmt.Errorf("segment %d has no audio: %w", e.s.N, recorder.ErrTampered)
	}
	data, err := e.enc.Flush(e.data[:0], e.pend)
	if err != nil {
		return err
	}
	return e.put(data, n)
}
