package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

const (
	testID     = "20261122T163608Z-1f0c9a3b5d7e8f60"
	testPrefix = "2026/11/22/" + testID
	frameMS    = 500
)

var epoch = time.Date(2026, 11, 22, 16, 36, 8, 0, time.UTC)

var testSealer = sync.OnceValue(func() recorder.Sealer {
	s, err := seal.OpenLocal(seal.LocalConfig{Path: "/keys/kek.json", FS: vfstest.NewMem()})
	if err != nil {
		panic(err)
	}
	return s
})

// memCatalog is a catalogue in memory that can be told to fail.
type memCatalog struct {
	mu   sync.Mutex
	rows map[string]recorder.Row
	err  error
	dead func() bool // the machine died; nil: it does not
}

func newMemCatalog() *memCatalog { return &memCatalog{rows: map[string]recorder.Row{}} }

func (c *memCatalog) clone() *memCatalog {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &memCatalog{rows: maps.Clone(c.rows)}
}

func (c *memCatalog) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *memCatalog) Save(_ context.Context, r recorder.Row) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil && c.dead() {
		return vfstest.ErrCrashed
	}
	if c.err == nil {
		c.rows[r.Manifest.ID] = r
	}
	return c.err
}

func (c *memCatalog) Get(_ context.Context, id string) (recorder.Row, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return recorder.Row{}, c.err
	}
	r, ok := c.rows[id]
	if !ok {
		return r, recorder.ErrNotFound
	}
	return r, nil
}

func (c *memCatalog) Find(_ context.Context, q recorder.Query) (recorder.Page, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := recorder.Page{}
	for _, r := range c.rows {
		at := r.Manifest.Origin
		if !at.Before(q.From) && (q.To.IsZero() || at.Before(q.To)) && (q.Store == "" || q.Store == r.Store) {
			p.Rows = append(p.Rows, r)
		}
	}
	slices.SortFunc(p.Rows, func(a, b recorder.Row) int { return cmp.Compare(a.Manifest.ID, b.Manifest.ID) })
	return p, c.err
}

func (c *memCatalog) Delete(_ context.Context, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil && c.dead() {
		return vfstest.ErrCrashed
	}
	if c.err != nil {
		return c.err
	}
	if _, ok := c.rows[id]; !ok {
		return recorder.ErrNotFound
	}
	delete(c.rows, id)
	return nil
}

func (c *memCatalog) Check(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *memCatalog) Close() error { return nil }

func openOn(fsys vfs.FS, c recorder.Catalog) (*Archive, error) {
	return Open(Config{StoreDir: "/data/store", SpoolDir: "/data/spool", FS: fsys, Sealer: testSealer(), Catalog: c})
}

func mustOpenOn(t testing.TB, fsys vfs.FS, c recorder.Catalog) *Archive {
	t.Helper()
	a, err := openOn(fsys, c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// testCall is a call of which some spans of real time are kept, the rest being
// windows.
type testCall struct {
	id         string
	format     string
	kept       []span // real ms, whole frames long
	endMS      int64
	segmentMax int64 // audio ms, whole frames

	folder string        // empty: of the id's day
	kind   recorder.Kind // empty: trunk
	user   string
	mic    []span // real ms in which channel 1 alone is silenced
}

func newTestCall(id, format string) testCall {
	// Held from 2 to 5 s, and paused from 7.5 s to the end.
	return testCall{id: id, format: format, kept: []span{{0, 2000}, {5000, 7500}}, endMS: 9000, segmentMax: 1500}
}

func (c testCall) audioMS() (ms int64) {
	for _, k := range c.kept {
		ms += k.to - k.from
	}
	return ms
}

func (c testCall) prefix() string {
	if c.folder != "" {
		return c.folder
	}
	day, ok := dateOf(c.id)
	if !ok {
		day = epoch
	}
	return day.Format(dayLayout) + "/" + c.id
}

// windows returns what is not kept, up to a real time.
func (c testCall) windows(to int64) []recorder.Window {
	out := []recorder.Window{}
	at, audio := int64(0), int64(0)
	for _, k := range append(slices.Clone(c.kept), span{c.endMS, c.endMS}) {
		if end := min(k.from, to); end > at {
			out = append(out, recorder.Window{Reason: "hold", RealMS: at, EndRealMS: end, AudioMS: audio, Source: "sdp"})
		}
		audio += k.to - k.from
		at = k.to
	}
	for _, k := range c.mic {
		if end := min(k.to, to); end > k.from {
			one := 1
			out = append(out, recorder.Window{Reason: "hold", RealMS: k.from, EndRealMS: end, Source: "sdp", Channel: &one})
		}
	}
	return out
}

// pcm returns what is heard in audio time [from, to).
func pcm(from, to int64) [2][]int16 {
	var ch [2][]int16
	for i := from * 8; i < to*8; i++ {
		ch[0] = append(ch[0], int16(8000*tri(i, 40)))
		ch[1] = append(ch[1], int16(6000*tri(i, 24)))
	}
	return ch
}

// tri is a triangle wave of a period in samples, slowly changing its height.
func tri(i, period int64) float64 {
	x := float64(i%period) / float64(period)
	return (4*max(x, 1-x) - 3) * float64(1+i/800%7) / 7
}

// account is the manifest as of a real time and an audio time.
func (c testCall) account(real, audio int64, segs []recorder.Segment) *recorder.Manifest {
	return &recorder.Manifest{
		Version: 1, ID: c.id, Conversation: "conv", Kind: cmp.Or(c.kind, recorder.KindTrunk), User: c.user, Trunk: "carrier-a", Format: c.format, SampleRate: 8000,
		Channels: []recorder.Channel{{Side: "external"}, {Side: "internal"}}, Origin: epoch, RealMS: real, AudioMS: audio,
		Suppressed: "cut", Segments: slices.Clone(segs), Windows: c.windows(real), Gaps: []recorder.Gap{}, Streams: []recorder.Stream{},
		DTMF: []recorder.Digit{},
		Call: recorder.Call{SIPCallID: c.id + "@x", Direction: "inbound", From: "sip:+49301@x", To: "sip:100@y", Start: epoch.Add(-time.Second), Answer: epoch},
	}
}

// taking is one recording in progress.
type taking struct {
	c       testCall
	sink    recorder.Sink
	w       recorder.SegmentWriter
	enc     codec.Encoder
	segs    []recorder.Segment
	audio   int64 // taken
	durable int64 // acknowledged
	retries int
	cat     *memCatalog // of the archive, when a test asks it
	between func()      // called after each frame
}

var errGaveUp = errors.New("gave up")

// try does one operation as the recorder does: again and again, up to a number of times.
func (k *taking) try(f func() error) error {
	for i := 0; ; i++ {
		err := f()
		if err == nil {
			return nil
		}
		if i >= k.retries {
			return fmt.Errorf("%w: %w", errGaveUp, err)
		}
	}
}

// take records the call into the sink and publishes it.
func (k *taking) take() (*recorder.Manifest, error) {
	for _, span := range k.c.kept {
		for real := span.from; real < span.to; real += frameMS {
			if err := k.frame(real); err != nil {
				return nil, err
			}
		}
	}
	if err := k.finish(k.c.endMS); err != nil {
		return nil, err
	}
	m := k.c.account(k.c.endMS, k.audio, k.segs)
	m.Call.End, m.Call.EndCause = epoch.Add(time.Duration(k.c.endMS)*time.Millisecond), "bye"
	return m, k.try(func() error { return k.sink.Publish(m) })
}

func (k *taking) frame(real int64) error {
	if k.w == nil {
		if err := k.begin(real); err != nil {
			return err
		}
	}
	s := &k.segs[len(k.segs)-1]
	// The last frame of a segment gets out of a codec what it holds back.
	last := s.DurationMS+frameMS >= k.c.segmentMax || k.audio+frameMS == k.c.audioMS()
	code := k.enc.Encode
	if last {
		code = k.enc.Flush
	}
	data, err := code(nil, pcm(k.audio, k.audio+frameMS))
	if err != nil {
		return err
	}
	a := recorder.Audio{RealMS: real, AudioMS: k.audio, SegMS: s.DurationMS, Samples: frameMS * 8, Data: data}
	s.DurationMS, s.EndRealMS = s.DurationMS+frameMS, real+frameMS
	var account *recorder.Manifest
	if a.SegMS == 0 || k.audio%(2*frameMS) == 0 {
		account = k.c.account(real+frameMS, k.audio+frameMS, k.segs)
	}
	if err := k.try(func() error { return k.w.Write(a, account) }); err != nil {
		return err
	}
	k.audio += frameMS
	k.durable = k.audio
	if k.between != nil {
		k.between()
	}
	if s.DurationMS >= k.c.segmentMax {
		return k.finish(real + frameMS)
	}
	return nil
}

func (k *taking) begin(real int64) error {
	n := len(k.segs) + 1
	info := recorder.SegmentInfo{
		Recording: k.c.id, Prefix: k.c.prefix(), N: n, Format: k.c.format, SampleRate: 8000, Channels: 2,
		RealMS: real, AudioMS: k.audio, Start: epoch.Add(time.Duration(real) * time.Millisecond),
	}
	k.segs = append(k.segs, recorder.Segment{N: n, RealMS: real, AudioMS: k.audio, Parties: []string{"sip:100@y"}})
	enc, err := codec.NewEncoder(k.c.format, 8000, codec.Options{})
	if err != nil {
		return err
	}
	k.enc = enc
	return k.try(func() (err error) {
		k.w, err = k.sink.Begin(info)
		return err
	})
}

func (k *taking) finish(real int64) error {
	if k.w == nil {
		return nil
	}
	k.enc.Close()
	s := &k.segs[len(k.segs)-1]
	err := k.try(func() error {
		res, err := k.w.Finish(k.c.account(real, k.audio, k.segs))
		if err == nil {
			s.File, s.Bytes, s.SHA256, s.AudioSHA256 = res.File, res.Bytes, res.SHA256, res.AudioSHA256
		}
		return err
	})
	k.w = nil
	return err
}

// record takes a whole call into the archive.
func record(t testing.TB, a *Archive, c testCall) *recorder.Manifest {
	t.Helper()
	sink, err := a.NewSink(context.Background(), c.id, c.prefix())
	if err != nil {
		t.Fatal(err)
	}
	k := &taking{c: c, sink: sink}
	m, err := k.take()
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	return m
}

func mustVerify(t testing.TB, a *Archive, what string) Report {
	t.Helper()
	r, err := a.Verify(context.Background(), VerifyQuery{}, nil)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, f := range r.Findings {
		t.Errorf("%s: %s", what, f)
	}
	return r
}

// audioOn reads all audio of a recording off the frames.
func audioOn(a *Archive, m *recorder.Manifest, prefix string) (ch [2][]int16, err error) {
	t := track{a: a, ctx: context.Background(), m: m, from: place{a.shelves[0], prefix}, bad: &findings{}}
	defer t.close()
	for {
		b, err := t.next()
		if err != nil {
			break
		}
		dec, err := codec.NewCodedDecoder(b.format, 8000, 2)
		if err != nil {
			return ch, err
		}
		if ch, err = dec.Decode(ch, b.data, b.samples); err != nil {
			return ch, err
		}
	}
	if len(t.bad.list) > 0 {
		return ch, &DamageError{Findings: t.bad.list}
	}
	return ch, nil
}

// drainUploads carries what waits to the stores.
func drainUploads(t testing.TB, a *Archive, what string) {
	t.Helper()
	for _, s := range a.shelves {
		for it, _ := s.queue.take(time.Now()); it != nil; it, _ = s.queue.take(time.Now()) {
			err := s.queue.carry(context.Background(), it)
			if err != nil && !errors.Is(err, errOver) {
				t.Fatalf("%s: upload %s: %v", what, it.prefix, err)
			}
			s.queue.settle(it, err, time.Now())
		}
	}
}
