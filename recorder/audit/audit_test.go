package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var t0 = time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)

// clock counts milliseconds.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(time.Millisecond)
	return c.t
}

func mustIdentity(t testing.TB, fsys vfs.FS) *Identity {
	t.Helper()
	i, err := OpenIdentity(IdentityConfig{Path: "/keys/node.json", Node: "rec-a", FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func mustLog(t testing.TB, fsys vfs.FS, change func(*Config)) *Log {
	t.Helper()
	cfg := Config{Dir: "/audit", FS: fsys, Identity: mustIdentity(t, fsys), Now: (&clock{t: t0}).now, Checkpoint: time.Hour}
	if change != nil {
		change(&cfg)
	}
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func claim(id string) Claim {
	return Claim{
		Recording: id, Prefix: "2026/11/23/" + id, Trunk: "carrier-a", Start: t0, Reason: ReasonRecorded,
		ManifestSHA256: hexSum([]byte(id)), SealedSHA256: hexSum([]byte("sealed " + id)), SealedBytes: 700,
		Files: []File{{"0001.seg", 4000, hexSum([]byte("file " + id))}},
	}
}

// fill writes some entries and links and returns the links by recording.
func fill(t testing.TB, l *Log, n int) map[string]string {
	t.Helper()
	ctx, out := context.Background(), map[string]string{}
	for i := range n {
		id := fmt.Sprintf("r%d", i)
		signed, err := l.Link(ctx, claim(id))
		if err == nil {
			err = l.Append(ctx, Entry{Kind: KindGet, Recording: id, Who: "api", From: "127.0.0.1:1"})
		}
		if err != nil {
			t.Fatal(err)
		}
		out[id] = string(signed)
	}
	return out
}

// check checks the last log of a node on its disk.
func check(t testing.TB, fsys vfs.FS) (entries []Entry, findings []Finding) {
	t.Helper()
	rings := Rings{mustIdentity(t, fsys).Ring()}
	d := OpenDir(fsys, "/audit")
	epochs, err := d.Epochs()
	if err != nil || len(epochs) == 0 {
		t.Fatal(epochs, err)
	}
	e := d.Epoch(epochs[len(epochs)-1])
	_, err = e.Check(context.Background(), "rec-a", rings, func(e Entry) { entries = append(entries, e) }, func(f Finding) { findings = append(findings, f) })
	if err != nil {
		findings = append(findings, Finding{Fault: FaultUnreadable, Detail: err.Error()})
	}
	return entries, findings
}

func TestLog(t *testing.T) {
	mem := vfstest.NewMem()
	l := mustLog(t, mem, nil)
	if l.Unclean() {
		t.Error("a new log is unclean")
	}
	links := fill(t, l, 5)
	l.Note(Entry{Kind: KindStopped})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	entries, findings := check(t, mem)
	if len(entries) != 12 || len(findings) != 0 { // begun, 5 links, 5 reads, stopped
		t.Errorf("%d entries, %v", len(entries), findings)
	}
	ring := mustIdentity(t, mem).Ring()
	prev := zeroHash
	for i := range 5 {
		link, err := ring.OpenLink([]byte(links[fmt.Sprintf("r%d", i)]))
		if err != nil || link.Seq != int64(i+1) || link.Prev != prev || !link.SameFiles(claim(link.Recording).Files) {
			t.Fatalf("%+v %v", link, err)
		}
		prev = link.SHA256
		mustProve(t, mem, link)
	}
	l = mustLog(t, mem, func(c *Config) { c.Now = (&clock{t: t0.Add(time.Hour)}).now })
	if l.Unclean() {
		t.Error("it was stopped")
	}
	signed, err := l.Link(context.Background(), claim("r3")) // again: it replaces the first
	if err == nil {
		err = l.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	link, err := ring.OpenLink(signed)
	first, err1 := ring.OpenLink([]byte(links["r3"]))
	if err != nil || err1 != nil || link.Seq != 6 || link.Prev != prev || link.Replaces != first.SHA256 {
		t.Errorf("%+v %v", link, err)
	}
	if entries, findings = check(t, mem); len(findings) != 0 || entries[len(entries)-1].Kind != KindReplaced {
		t.Errorf("%+v", findings)
	}
}

// mustProve demands the proof of a link, read from its text.
func mustProve(t testing.TB, fsys vfs.FS, link *Link) {
	t.Helper()
	e := OpenDir(fsys, "/audit").Epoch(link.Epoch)
	line, err := e.Entry(link.Entry)
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.Prove(link.Entry)
	if err != nil {
		t.Fatal(err)
	}
	p, err = ParseProof(p.Text())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Check(mustIdentity(t, fsys).Ring(), line); err != nil {
		t.Error(err)
	}
	entry, err := ParseEntry(line)
	if err != nil || entry.Link == nil || entry.Link.SHA256 != link.SHA256 {
		t.Errorf("entry %s, %v", line, err)
	}
	if _, err := p.Check(mustIdentity(t, fsys).Ring(), append(line, ' ')); err == nil {
		t.Error("another entry is proved")
	}
}

// TestLogTogether: many who wait share a sync, each gets a place of its own.
func TestLogTogether(t *testing.T) {
	mem := vfstest.NewMem()
	hold := make(chan struct{})
	var once sync.Once
	l := mustLog(t, mem, func(c *Config) {
		c.Durable = func(f vfs.File, dirs ...string) error {
			if len(dirs) == 0 {
				once.Do(func() {}) // the first entry of the log
				select {
				case <-hold:
				case <-time.After(time.Millisecond):
				}
			}
			return vfs.Durable(mem, f, dirs...)
		}
	})
	const many = 200
	var wg sync.WaitGroup
	seqs := make([]int64, many)
	ring := l.Identity().Ring()
	for i := range many {
		wg.Go(func() {
			signed, err := l.Link(context.Background(), claim(fmt.Sprintf("r%d", i)))
			if err != nil {
				t.Error(err)
				return
			}
			link, err := ring.OpenLink(signed)
			if err != nil {
				t.Error(err)
				return
			}
			seqs[i] = link.Seq
		})
	}
	wg.Wait()
	close(hold)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	seen := map[int64]bool{}
	for _, s := range seqs {
		if s < 1 || s > many || seen[s] {
			t.Errorf("link %d is there twice or out of range", s)
		}
		seen[s] = true
	}
	if n := l.Stats().Commits.Load(); n > many {
		t.Errorf("%d syncs for %d entries", n, many)
	}
	if entries, findings := check(t, mem); len(entries) != many+1 || len(findings) != 0 {
		t.Errorf("%d entries, %v", len(entries), findings)
	}
}

// TestLogFaults fails and crashes at each operation: what was acknowledged is
// there, the chain neither forks nor has holes, and the log goes on.
func TestLogFaults(t *testing.T) {
	for _, kind := range []vfstest.Kind{vfstest.Crash, vfstest.Fail, vfstest.FailFrom, vfstest.DoneButErr} {
		for n, hit := 1, true; hit && n < 400; n++ {
			mem := vfstest.NewMem()
			id := mustIdentity(t, mem)
			f := &vfstest.Faults{FS: mem, At: n, Kind: kind, Err: syscall.EIO}
			cfg := Config{Dir: "/audit", FS: f, Identity: id, Now: (&clock{t: t0}).now, Checkpoint: time.Hour, FileBytesMax: 1500}
			var acked []string
			l, err := Open(cfg)
			if err == nil {
				acked = drive(l)
				_ = l.Close() // the fault may hit here
			}
			hit = f.Hit() != ""
			for seed := range uint64(3) {
				checkAcked(t, mem.CrashClone(seed), id, acked, fmt.Sprintf("%s, seed %d", f.Hit(), seed))
			}
		}
	}
}

func drive(l *Log) (acked []string) {
	for i := range 8 {
		c := claim(fmt.Sprintf("r%d", i))
		if _, err := l.Link(context.Background(), c); err == nil {
			acked = append(acked, c.Recording)
		}
		if i%3 == 2 {
			_ = l.CheckpointNow() // the fault may hit here
		}
	}
	return acked
}

func checkAcked(t *testing.T, mem *vfstest.Mem, id *Identity, acked []string, what string) {
	t.Helper()
	cfg := Config{Dir: "/audit", FS: mem, Identity: id, Now: (&clock{t: t0.Add(time.Minute)}).now, Checkpoint: time.Hour}
	l, err := Open(cfg)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	_, err = l.Link(context.Background(), claim("after"))
	if err = errors.Join(err, l.Close()); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	epochs, _ := l.Dir().Epochs()
	var entries []Entry
	for _, name := range epochs {
		_, err := l.Dir().Epoch(name).Check(context.Background(), "rec-a", Rings{id.Ring()}, func(e Entry) { entries = append(entries, e) }, func(f Finding) {
			if !f.Note {
				t.Errorf("%s: %+v", what, f)
			}
		})
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	have := map[string]bool{}
	for _, e := range entries {
		if e.Kind == KindBroken && !strings.Contains(e.What, "has no entry") {
			t.Errorf("%s: %s", what, e.What)
		}
		have[e.Recording] = true
	}
	for _, id := range append(acked, "after") {
		if !have[id] {
			t.Errorf("%s: the link of %s was acknowledged and is gone", what, id)
		}
	}
}

// TestLogRefuses: while the disk fails nothing is acknowledged, notes wait, and
// afterwards all goes on.
func TestLogRefuses(t *testing.T) {
	mem := vfstest.NewMem()
	var mu sync.Mutex
	var fault error
	var told []error
	l := mustLog(t, mem, func(c *Config) {
		c.Durable = func(f vfs.File, dirs ...string) error {
			mu.Lock()
			defer mu.Unlock()
			return errors.Join(fault, vfs.Durable(mem, f, dirs...))
		}
		c.Told = func(err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, err)
		}
	})
	set := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		fault = err
	}
	ctx := context.Background()
	set(syscall.ENOSPC)
	if err := l.Append(ctx, Entry{Kind: KindGet}); !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) || l.Err() == nil {
		t.Errorf("%v, %v", err, l.Err())
	}
	for range 3 * notesMax {
		l.Note(Entry{Kind: KindDeleted, Recording: "x"})
	}
	set(nil)
	if err := errors.Join(l.Append(ctx, Entry{Kind: KindGet}), l.Close()); err != nil || l.Err() != nil {
		t.Errorf("%v, %v", err, l.Err())
	}
	if len(told) != 2 || told[0] == nil || told[1] != nil {
		t.Errorf("told: %v", told)
	}
	entries, findings := check(t, mem)
	notes, loss := 0, ""
	for _, e := range entries {
		if e.Kind == KindDeleted {
			notes++
		}
		if e.Kind == KindLoss {
			loss += e.What
		}
	}
	if notes < notesMax || loss == "" || l.Stats().Lost.Load() == 0 {
		t.Errorf("%d notes, loss %q, %v", notes, loss, findings)
	}
	if err := l.Append(ctx, Entry{Kind: KindGet}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestLogRolledBack(t *testing.T) {
	mem := vfstest.NewMem()
	l := mustLog(t, mem, nil)
	fill(t, l, 3)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := find(t, mem, "/e-")
	content := read(t, mem, name)
	cut := bytes.LastIndexByte(content[:len(content)-1], '\n') + 1
	write(t, mem, name, content[:cut])
	if _, findings := check(t, mem); len(findings) != 1 || findings[0].Fault != FaultTruncated {
		t.Errorf("%v", findings)
	}
	l = mustLog(t, mem, func(c *Config) { c.Now = (&clock{t: t0.Add(time.Hour)}).now })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	entries, findings := check(t, mem)
	if len(entries) != 2 || entries[1].Kind != KindBroken || !strings.Contains(entries[1].What, "ends at entry") || len(findings) != 1 || !findings[0].Note {
		t.Errorf("%+v %+v", entries, findings)
	}
}

func TestDrop(t *testing.T) {
	mem := vfstest.NewMem()
	for i := range 3 {
		if err := Drop(mem, "/audit", Entry{Kind: KindMedia, Recording: fmt.Sprintf("r%d", i), Who: "root"}, t0.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, mem, "/audit/inbox/zz.json", []byte("{"))
	l := mustLog(t, mem, nil)
	if err := errors.Join(l.CheckpointNow(), l.Close()); err != nil {
		t.Fatal(err)
	}
	entries, _ := check(t, mem)
	if len(entries) != 5 || entries[1].Recording != "r0" || !entries[1].Happened.Equal(t0) || entries[4].Kind != KindLoss {
		t.Errorf("%+v", entries)
	}
	for _, f := range mem.Files() {
		if strings.Contains(f, "inbox/") {
			t.Errorf("%s is left", f)
		}
	}
}

func find(t testing.TB, mem *vfstest.Mem, part string) string {
	t.Helper()
	for _, f := range mem.Files() {
		if strings.Contains(f, part) {
			return f
		}
	}
	t.Fatalf("no file %s in %v", part, mem.Files())
	return ""
}

func read(t testing.TB, fsys vfs.FS, name string) []byte {
	t.Helper()
	b, err := vfs.ReadFile(fsys, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, fsys vfs.FS, name string, content []byte) {
	t.Helper()
	if err := errors.Join(vfs.MkdirAll(fsys, filepath.Dir(name)), vfs.WriteFile(fsys, name, content)); err != nil {
		t.Fatal(err)
	}
}

// memStore is a store in memory.
type memStore struct {
	mu      sync.Mutex
	objects map[string][]byte
	err     error
}

type memBlob struct{ *bytes.Reader }

func (memBlob) Close() error { return nil }

func (m *memStore) Put(_ context.Context, name string, content []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	if m.objects == nil {
		m.objects = map[string][]byte{}
	}
	m.objects[name] = bytes.Clone(content)
	return nil
}

func (m *memStore) Open(_ context.Context, name string) (recorder.Blob, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.objects[name]
	if !ok {
		return nil, recorder.ErrNotFound
	}
	return memBlob{bytes.NewReader(b)}, nil
}

func (m *memStore) List(_ context.Context, prefix string, f func(recorder.BlobInfo) error) error {
	m.mu.Lock()
	var names []string
	for n := range m.objects {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	m.mu.Unlock()
	slices.Sort(names)
	for _, n := range names {
		if err := f(recorder.BlobInfo{Name: n}); err != nil {
			return err
		}
	}
	return nil
}

func (m *memStore) Publish(context.Context, string, string) error { return fs.ErrInvalid }
func (m *memStore) Delete(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, name)
	return nil
}
func (m *memStore) Check(context.Context) error { return nil }
