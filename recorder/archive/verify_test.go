package archive

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

const harmPrefix = "/data/store/" + testPrefix + "/"

// harms are what can happen to a recording at rest.
var harms = []struct {
	name string
	harm func(t *testing.T, a *Archive, mem *vfstest.Mem, cat *memCatalog) error
	want []string // file fault
}{
	{"segment missing", func(_ *testing.T, _ *Archive, mem *vfstest.Mem, _ *memCatalog) error {
		return mem.Remove(objectPath(2))
	}, []string{"0002.seg missing"}},
	{"byte altered", func(t *testing.T, _ *Archive, mem *vfstest.Mem, _ *memCatalog) error {
		alter(t, mem, 1, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		return nil
	}, []string{"0001.seg altered", "0001.seg altered"}},
	{"truncated", func(t *testing.T, _ *Archive, mem *vfstest.Mem, _ *memCatalog) error {
		alter(t, mem, 3, func(b []byte) []byte { return b[:len(b)-1] })
		return nil
	}, []string{"0003.seg truncated", "0003.seg altered", "0003.seg truncated"}},
	{"segments swapped", func(_ *testing.T, _ *Archive, mem *vfstest.Mem, _ *memCatalog) error {
		return errors.Join(mem.Rename(objectPath(1), harmPrefix+"x"), mem.Rename(objectPath(2), objectPath(1)), mem.Rename(harmPrefix+"x", objectPath(2)))
	}, []string{"0001.seg altered", "0001.seg altered", "0001.seg altered", "0002.seg truncated", "0002.seg altered", "0002.seg altered"}},
	{"manifest altered", func(_ *testing.T, _ *Archive, mem *vfstest.Mem, _ *memCatalog) error {
		b, err := vfs.ReadFile(mem, harmPrefix+segment.ManifestFile, 1<<20)
		if err != nil {
			return err
		}
		b[len(b)-1] ^= 1
		return vfs.WriteFile(mem, harmPrefix+segment.ManifestFile, b)
	}, []string{"recording.trm altered"}},
	{"manifest missing", func(_ *testing.T, _ *Archive, mem *vfstest.Mem, _ *memCatalog) error {
		return mem.Remove(harmPrefix + segment.ManifestFile)
	}, []string{"0001.seg orphan", "0002.seg orphan", "0003.seg orphan", "recording.key orphan", " no-object"}},
	{"manifest of another", func(t *testing.T, a *Archive, mem *vfstest.Mem, _ *memCatalog) error {
		record(t, a, newTestCall(idOf(7), codec.WAVPCM16))
		b, err := vfs.ReadFile(mem, "/data/store/2026/11/22/"+idOf(7)+"/"+segment.ManifestFile, 1<<20)
		if err != nil {
			return err
		}
		return vfs.WriteFile(mem, harmPrefix+segment.ManifestFile, b)
	}, []string{"recording.trm altered"}},
	{"orphan beside it", func(_ *testing.T, _ *Archive, mem *vfstest.Mem, _ *memCatalog) error {
		return vfs.WriteFile(mem, harmPrefix+"0009.seg", []byte("x"))
	}, []string{"0009.seg orphan"}},
	{"row missing", func(_ *testing.T, _ *Archive, _ *vfstest.Mem, cat *memCatalog) error {
		return cat.Delete(context.Background(), testID)
	}, []string{" no-row"}},
	{"recording missing", func(_ *testing.T, _ *Archive, mem *vfstest.Mem, _ *memCatalog) error {
		return vfs.RemoveAll(mem, harmPrefix)
	}, []string{" no-object"}},
	{"catalogue fails", func(_ *testing.T, _ *Archive, _ *vfstest.Mem, cat *memCatalog) error {
		cat.fail(errors.New("locked"))
		return nil
	}, []string{" unreadable"}},
}

// TestVerifyFinds does every kind of harm and wants it named.
func TestVerifyFinds(t *testing.T) {
	for _, c := range harms {
		t.Run(c.name, func(t *testing.T) {
			mem, cat := vfstest.NewMem(), newMemCatalog()
			a := mustOpenOn(t, mem, cat)
			record(t, a, newTestCall(testID, codec.WAVPCM16))
			if err := c.harm(t, a, mem, cat); err != nil {
				t.Fatal(err)
			}
			r, err := a.Verify(context.Background(), VerifyQuery{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{}
			for _, f := range r.Findings {
				got = append(got, f.File+" "+f.Fault)
			}
			if d := cmp.Diff(c.want, got); d != "" || r.OK() {
				t.Errorf("findings (-want +got):\n%s\n%v", d, r.Findings)
			}
		})
	}
}

// TestVerifyPositions makes manifests that contradict the audio, sealed all right.
func TestVerifyPositions(t *testing.T) {
	for _, c := range []struct {
		name string
		harm func(*recorder.Manifest)
		want string
	}{
		{"window elsewhere", func(m *recorder.Manifest) { m.Windows[0].RealMS, m.Windows[0].EndRealMS = 500, 3500 }, FaultPosition},
		{"window shorter", func(m *recorder.Manifest) { m.Windows[0].EndRealMS -= 100 }, FaultTotals},
		{"segment elsewhere", func(m *recorder.Manifest) { m.Segments[1].RealMS += 100 }, FaultPosition},
		{"segment longer", func(m *recorder.Manifest) { m.Segments[0].DurationMS += 100 }, FaultPosition},
		{"audio longer", func(m *recorder.Manifest) { m.AudioMS += 100 }, FaultTotals},
		{"other rate", func(m *recorder.Manifest) { m.SampleRate = 16000 }, FaultPosition},
	} {
		mem := vfstest.NewMem()
		a := mustOpenOn(t, mem, newMemCatalog())
		sink, err := a.NewSink(context.Background(), testID, testPrefix)
		if err != nil {
			t.Fatal(err)
		}
		k := &taking{c: newTestCall(testID, codec.WAVPCM16), sink: &harmingSink{sink, c.harm}}
		if _, err := k.take(); err != nil {
			t.Fatal(err)
		}
		r, err := a.Verify(context.Background(), VerifyQuery{IDs: []string{testID}}, nil)
		if err != nil || !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Fault == c.want }) {
			t.Errorf("%s: %v, %v; want %s", c.name, r.Findings, err, c.want)
		}
	}
}

// harmingSink alters the manifest before it is published.
type harmingSink struct {
	recorder.Sink
	harm func(*recorder.Manifest)
}

func (s *harmingSink) Publish(m *recorder.Manifest) error {
	s.harm(m)
	return s.Sink.Publish(m)
}

func TestRebuildDropsAndNames(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := mustOpenOn(t, mem, cat)
	record(t, a, newTestCall(idOf(1), codec.WAVPCMU))
	record(t, a, newTestCall(testID, codec.WAVPCMU))
	stale := *newTestCall(idOf(2), "x").account(1, 1, nil)
	if err := cat.Save(context.Background(), recorder.Row{Manifest: stale, Prefix: "2020/01/01/x"}); err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFile(mem, "/data/store/"+testPrefix+"/"+segment.ManifestFile, []byte("torn")); err != nil {
		t.Fatal(err)
	}
	if err := cat.Delete(context.Background(), idOf(1)); err != nil {
		t.Fatal(err)
	}
	var de *DamageError
	if err := a.Rebuild(context.Background(), nil); !errors.As(err, &de) || len(de.Findings) != 1 || de.Findings[0].Recording != testID {
		t.Errorf("Rebuild: %v", err)
	}
	var ids []string
	for id := range cat.rows {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if !slices.Equal(ids, []string{idOf(1), testID}) {
		t.Errorf("rows %v", ids)
	}
}
