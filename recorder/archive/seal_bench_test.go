package archive

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// bare is a sealer that does not encrypt: what is stored has the same shape and
// length, so that a difference to it is what encrypting costs.
type bare struct{}

type bareKey struct{}

const sealBytes = 33 // that a sealed text is longer

func (bare) NewKey(context.Context, string) (recorder.DataKey, error) { return bareKey{}, nil }
func (bare) OpenKey(context.Context, string, recorder.WrappedKey) (recorder.DataKey, error) {
	return bareKey{}, nil
}

func (bareKey) Wrapped() recorder.WrappedKey {
	return recorder.WrappedKey{KEK: "none:unsealed", Bytes: make([]byte, 37), Form: 1}
}

func (k bareKey) Seal(plaintext, bind []byte) ([]byte, error) {
	return k.AppendSeal(nil, plaintext, bind)
}

func (bareKey) AppendSeal(dst, plaintext, _ []byte) ([]byte, error) {
	var head [sealBytes]byte
	return append(append(dst, head[:]...), plaintext...), nil
}

func (bareKey) Open(sealed, _ []byte) ([]byte, error) {
	if len(sealed) < sealBytes {
		return nil, recorder.ErrTampered
	}
	return sealed[sealBytes:], nil
}

func (bareKey) Close() {}

// nowhere is a sink that stores nothing.
type nowhere struct{}

func (nowhere) Begin(recorder.SegmentInfo) (recorder.SegmentWriter, error) { return nowhere{}, nil }
func (nowhere) Write(recorder.Audio, *recorder.Manifest) error             { return nil }
func (nowhere) Finish(*recorder.Manifest) (recorder.Segment, error)        { return recorder.Segment{}, nil }
func (nowhere) Abort() error                                               { return nil }
func (nowhere) Publish(*recorder.Manifest) error                           { return nil }
func (nowhere) Discard() error                                             { return nil }
func (nowhere) Close() error                                               { return nil }

// sealings are the ways to seal that are compared.
var sealings = []struct {
	name string
	open func(keys string) (recorder.Sealer, error)
}{
	{"bare", func(string) (recorder.Sealer, error) { return bare{}, nil }},
	{"none", func(string) (recorder.Sealer, error) {
		return seal.NewEnvelope(seal.EnvelopeConfig{Active: seal.Source{Mode: seal.ModeNone, KEK: seal.None{}}, Direct: true}), nil
	}},
	{"local", func(keys string) (recorder.Sealer, error) { return seal.OpenLocal(seal.LocalConfig{Path: keys}) }},
	{"service", func(keys string) (recorder.Sealer, error) {
		l, err := seal.OpenLocal(seal.LocalConfig{Path: keys})
		if err != nil {
			return nil, err
		}
		e := seal.NewEnvelope(seal.EnvelopeConfig{Active: seal.Source{Mode: "bench", KEK: l.KEK()}})
		e.Start(context.Background())
		return e, nil
	}},
}

// BenchmarkSealing is what sealing and storing cost of a call: CPU time a packet
// while 300 calls go on, and beside their audio, by way of sealing. Discarded: the
// pipeline alone. As BenchmarkCalls, use -benchtime 5x.
func BenchmarkSealing(b *testing.B) {
	for _, format := range []string{recorder.FormatWAVPCMU, recorder.FormatWAVPCM16, recorder.FormatOggOpus} {
		b.Run(format+"/discarded", func(b *testing.B) {
			benchmarkSealing(b, format, func(context.Context, string, string) (recorder.Sink, error) { return nowhere{}, nil })
		})
		for _, s := range sealings {
			b.Run(format+"/"+s.name, func(b *testing.B) {
				dir := b.TempDir()
				a, err := Open(Config{
					StoreDir: filepath.Join(dir, "store"), SpoolDir: filepath.Join(dir, "spool"), CatalogPath: filepath.Join(dir, "c.db"), SyncPeriod: 250 * time.Millisecond,
					Sealing: func(vfs.FS, func() error) (recorder.Sealer, error) { return s.open(filepath.Join(dir, "keys.json")) },
				})
				if err != nil {
					b.Fatal(err)
				}
				benchmarkSealing(b, format, a.NewSink)
				if err := a.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

func benchmarkSealing(b *testing.B, format string, open func(context.Context, string, string) (recorder.Sink, error)) {
	const calls = 300
	plan := recorder.DefaultPlan()
	plan.SampleRate, plan.Kind, plan.Format = 8000, recorder.KindTrunk, format
	r, err := recorder.New(recorder.Config{Policy: everyCall{plan}, NewSink: open, Workers: runtime.NumCPU()})
	if err != nil {
		b.Fatal(err)
	}
	rings := make([]media.Tap, 2*calls)
	for i := range rings {
		rings[i] = media.NewRing(64<<10, time.Now())
	}
	idle := feeder{next: time.Now()}
	idleUser, idleSystem := idle.feed(rings, 2)
	feeds, sessions := startCalls(b, r, calls, 0)
	f := feeder{next: time.Now()}
	f.feed(feeds, 2)
	b.ResetTimer()
	user, system := f.feed(feeds, b.N)
	b.StopTimer()
	cpu := user + system - time.Duration(b.N)*(idleUser+idleSystem)/2
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N*100*calls)/1e3, "cpu-us/packet")
	b.ReportMetric(0, "ns/op")
	u0, s0 := cpuUsed()
	for _, s := range sessions {
		s.Ended(time.Now(), media.CauseBye)
	}
	if err := r.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	u1, s1 := cpuUsed()
	b.ReportMetric(float64((u1-u0+s1-s0).Microseconds())/calls, "end-us/call")
	if n := r.Stats().Published.Load(); n != calls {
		b.Fatalf("%d of %d recordings published", n, calls)
	}
}
