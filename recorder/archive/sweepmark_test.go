package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// manyObjects is a store and the catalogue of it, of so many recordings of three
// objects on each of so many days, made up as they are asked for. Of each hundred
// recordings one has no row, one no manifest, one no objects.
type manyObjects struct {
	recorder.Store
	recorder.Catalog
	days, calls int

	at       func(listed int) error // called before each day
	listed   int
	from     string // of the last listing
	noFrom   bool
	gets     int
	rowsRead int
}

const (
	manyNoRow      = 7
	manyNoManifest = 8
	manyNoObject   = 9
)

var manyFirst = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (*manyObjects) id(day, n int) string {
	return fmt.Sprintf("%sT%06dZ-%08d", manyFirst.AddDate(0, 0, day).Format("20060102"), n%86400, n)
}

func (m *manyObjects) prefix(day, n int) string {
	return path.Join(manyFirst.AddDate(0, 0, day).Format(dayLayout), m.id(day, n))
}

func (m *manyObjects) ListFrom(ctx context.Context, from string, f func(recorder.BlobInfo) error) error {
	if m.from = from; m.noFrom {
		m.from = ""
	}
	old := time.Now().Add(-48 * time.Hour)
	for day := range m.days {
		if m.prefix(day, 0) < m.from {
			continue
		}
		if m.at != nil {
			if err := m.at(m.listed); err != nil {
				return err
			}
		}
		for n := range m.calls {
			prefix := m.prefix(day, n)
			for _, name := range []string{"0001.seg", segment.KeyFile, segment.ManifestFile} {
				if n%100 == manyNoObject || n%100 == manyNoManifest && name == segment.ManifestFile {
					continue
				}
				m.listed++
				if err := f(recorder.BlobInfo{Name: prefix + "/" + name, Size: 1000, Modified: old}); err != nil {
					return err
				}
			}
		}
	}
	return ctx.Err()
}

func (m *manyObjects) List(ctx context.Context, _ string, f func(recorder.BlobInfo) error) error {
	return m.ListFrom(ctx, "", f)
}

// Open implements recorder.Store: nothing came meanwhile.
func (m *manyObjects) Open(context.Context, string) (recorder.Blob, error) {
	return nil, recorder.ErrNotFound
}

// Check implements recorder.Store and recorder.Catalog.
func (*manyObjects) Check(context.Context) error { return nil }

// Delete implements recorder.Store and recorder.Catalog.
func (*manyObjects) Delete(context.Context, string) error { return nil }

func (m *manyObjects) row(day, n int) recorder.Row {
	return recorder.Row{Prefix: m.prefix(day, n), Manifest: recorder.Manifest{
		ID: m.id(day, n), Origin: manyFirst.AddDate(0, 0, day).Add(time.Duration(n%86400) * time.Second),
		Segments: []recorder.Segment{{N: 1, File: "0001.seg"}},
	}}
}

func (m *manyObjects) Get(_ context.Context, id string) (recorder.Row, error) {
	m.gets++
	at, err := time.Parse("20060102", id[:8])
	n, nerr := strconv.Atoi(id[strings.LastIndexByte(id, '-')+1:])
	if err != nil || nerr != nil || n%100 == manyNoRow {
		return recorder.Row{}, recorder.ErrNotFound
	}
	return m.row(int(at.Sub(manyFirst)/(24*time.Hour)), n), nil
}

// Find has pages of a thousand, whose cursors are the numbers of the rows.
func (m *manyObjects) Find(_ context.Context, q recorder.Query) (p recorder.Page, _ error) {
	i, _ := strconv.Atoi(q.Cursor)
	if first := int(q.From.Sub(manyFirst) / (24 * time.Hour)); q.Cursor == "" && first > 0 {
		i = first * m.calls
	}
	for ; i < m.days*m.calls && len(p.Rows) < q.Limit; i++ {
		r := m.row(i/m.calls, i%m.calls)
		if at := r.Manifest.Origin; !q.To.IsZero() && !at.Before(q.To) {
			return p, nil
		}
		if i%m.calls%100 != manyNoRow {
			m.rowsRead++
			p.Rows = append(p.Rows, r)
		}
	}
	if i < m.days*m.calls {
		p.Next = strconv.Itoa(i)
	}
	return p, nil
}

// wholeStore hides that a store can be listed from a name on.
type wholeStore struct{ recorder.Store }

func openMany(t testing.TB, m *manyObjects) *Archive {
	t.Helper()
	return openManyOn(t, m, vfstest.NewMem())
}

func openManyOn(t testing.TB, m *manyObjects, fsys *vfstest.Mem) *Archive {
	t.Helper()
	var s recorder.Store = struct {
		recorder.Store
		store.FromLister
	}{m, m}
	if m.noFrom {
		s = wholeStore{m}
	}
	a, err := Open(Config{SpoolDir: "/spool", FS: fsys, Sealer: testSealer(), Store: s, Catalog: m})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestSweepDays: each day is compared for itself, with what is between the days
// that the store has, and every row is read once.
func TestSweepDays(t *testing.T) {
	m := &manyObjects{days: 40, calls: 300}
	r, err := openMany(t, m).Sweep(context.Background(), false)
	want := map[string]int{StrayNoRow: 120, StrayNoManifest: 240, StrayNoObject: 240}
	if err != nil || !maps.Equal(r.Counts, want) {
		t.Errorf("found %v, want %v, %v", r.Counts, want, err)
	}
	if rows := 40 * 300 * 99 / 100; m.rowsRead != rows || r.Recordings != 40*300*98/100 || r.Objects != m.listed {
		t.Errorf("%d rows were read, want %d; %d recordings, %d objects of %d", m.rowsRead, rows, r.Recordings, r.Objects, m.listed)
	}
}

// TestSweepGoesOn: a sweep that a process did not finish goes on in the next one, and
// finds the same as one that was not interrupted.
func TestSweepGoesOn(t *testing.T) {
	for _, noFrom := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			disk := vfstest.NewMem()
			m := &manyObjects{days: 30, calls: 100, noFrom: noFrom}
			whole, err := openMany(t, &manyObjects{days: 30, calls: 100}).Sweep(context.Background(), false)
			if err != nil {
				t.Fatal(err)
			}
			runs := 0
			var r SweepReport
			for until := 8; ; until += 8 {
				ctx, cancel := context.WithCancel(context.Background())
				day := 0
				m.at = func(int) error {
					time.Sleep(sweepSaveEvery + time.Second) // as long as a day takes
					if day++; day > 8 && until < 30 {
						cancel()
						return ctx.Err()
					}
					return nil
				}
				a := openManyOn(t, m, disk)
				if due := a.SweepDue(24*time.Hour, time.Now()); runs > 0 && due != sweepGoOn {
					t.Errorf("run %d is due in %v", runs, due)
				}
				r, err = a.Sweep(ctx, false)
				runs++
				cancel()
				disk = disk.CrashClone(1)
				if err == nil {
					break
				}
				if !errors.Is(err, context.Canceled) || runs > 10 {
					t.Fatal(err)
				}
			}
			objects := m.listed
			if runs < 3 || !maps.Equal(r.Counts, whole.Counts) || r.Objects != whole.Objects || r.Recordings != whole.Recordings || len(r.Strays) != len(whole.Strays) {
				t.Errorf("in %d runs %d objects, %d recordings, %v; in one %d, %d, %v", runs, r.Objects, r.Recordings, r.Counts, whole.Objects, whole.Recordings, whole.Counts)
			}
			if again := objects - whole.Objects; !noFrom && (again < 0 || again > runs*3*3*100) {
				t.Errorf("%d objects were listed again in %d runs", again, runs)
			}
			if due := openManyOn(t, m, disk).SweepDue(24*time.Hour, time.Now()); due > 24*time.Hour || due < 23*time.Hour {
				t.Errorf("after it the next one is due in %v", due)
			}
		})
	}
}

// TestSweepDue: the time between two sweeps runs on over restarts.
func TestSweepDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfstest.NewMem()
		m := &manyObjects{}
		for _, want := range []time.Duration{24 * time.Hour, 14 * time.Hour, 4 * time.Hour, sweepGoOn} {
			if due := openManyOn(t, m, disk).SweepDue(24*time.Hour, time.Now()); due != want {
				t.Errorf("due in %v, want %v", due, want)
			}
			time.Sleep(10 * time.Hour)
		}
	})
}

// BenchmarkSweep is what a sweep costs an object of a store with b.N of them on a
// year's days, beside what store and catalogue cost, and what it holds in memory.
// Run it with -benchtime 10000000x.
func BenchmarkSweep(b *testing.B) {
	m := &manyObjects{days: 365, calls: max(b.N/3/365, 1)}
	a := openMany(b, m)
	before, most := heapInUse(), int64(0)
	m.at = func(listed int) error {
		if listed > 0 && listed/(m.calls*3)%20 == 0 {
			most = max(most, heapInUse()-before)
		}
		return nil
	}
	b.ResetTimer()
	r, err := a.Sweep(context.Background(), false)
	if err != nil || r.Objects != m.listed {
		b.Fatal(err)
	}
	b.ReportMetric(float64(most)/1024/1024, "MiB-held")
	b.ReportMetric(float64(r.Objects), "objects")
}

// FuzzSweepMark: whatever stands in the file, a sweep is due within its time and
// tells what is there.
func FuzzSweepMark(f *testing.F) {
	for _, s := range []string{
		`{"version":1,"day":"2026/01/02","report":{"at":"2026-11-22T00:00:00Z","counts":{"no-row":1},"strays":[]}}`,
		`{"version":1,"done":true,"report":{"at":"2999-11-22T00:00:00Z","counts":{}}}`, `{"version":2}`, `{`, "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		disk, m := vfstest.NewMem(), &manyObjects{days: 2, calls: 10}
		a := openManyOn(t, m, disk)
		if err := vfs.WriteFile(disk, "/spool/"+sweepFile, content); err != nil {
			t.Fatal(err)
		}
		const every = 24 * time.Hour
		if due := a.SweepDue(every, time.Now()); due < sweepGoOn || due > every {
			t.Errorf("due in %v", due)
		}
		r, err := a.Sweep(context.Background(), false)
		if err != nil || r.Strays == nil || r.Counts == nil {
			t.Errorf("%+v, %v", r, err)
		}
		if r, err = a.Sweep(context.Background(), false); err != nil || r.Objects != m.objects() {
			t.Errorf("again: %d objects, %v", r.Objects, err)
		}
	})
}

// objects is how many the store has.
func (m *manyObjects) objects() (n int) {
	for i := range m.days * m.calls {
		switch i % m.calls % 100 {
		case manyNoObject:
		case manyNoManifest:
			n += 2
		default:
			n += 3
		}
	}
	return n
}
