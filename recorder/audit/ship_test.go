package audit

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// checkStored checks all logs of a store.
func checkStored(t testing.TB, st *memStore) (entries []Entry, findings []Finding) {
	t.Helper()
	logs, rings, err := Stored(context.Background(), st, "")
	if err != nil {
		findings = append(findings, Finding{Fault: FaultSignature, Detail: err.Error()})
	}
	for _, l := range logs {
		if _, err := l.Check(context.Background(), rings, func(e Entry) { entries = append(entries, e) }, func(f Finding) { findings = append(findings, f) }); err != nil {
			findings = append(findings, Finding{Fault: FaultUnreadable, Detail: err.Error()})
		}
	}
	return entries, findings
}

func TestShip(t *testing.T) {
	mem, st := vfstest.NewMem(), &memStore{}
	with := func(c *Config) { c.Store = st }
	l := mustLog(t, mem, with)
	fill(t, l, 4)
	if err := errors.Join(l.CheckpointNow(), l.Close()); err != nil {
		t.Fatal(err)
	}
	l = mustLog(t, mem, func(c *Config) {
		c.Store = st
		c.Now = (&clock{t: t0.Add(time.Hour)}).now
	})
	fill(t, l, 2)
	if err := errors.Join(l.Identity().Rotate(t0), l.Append(context.Background(), Entry{Kind: KindNodeKey}), l.Close()); err != nil {
		t.Fatal(err)
	}
	entries, findings := checkStored(t, st)
	if len(entries) != 1+8+4+1 || len(findings) != 0 {
		t.Errorf("%d entries, %+v; %d objects", len(entries), findings, len(st.objects))
	}
	last := entries[len(entries)-1]
	if last.Kind != KindNodeKey || l.Stats().ShippedSize.Load() != last.N+1 {
		t.Errorf("%+v, shipped %d", last, l.Stats().ShippedSize.Load())
	}
	var chunk string
	for name := range st.objects {
		if strings.HasSuffix(name, "0000000000000000.log") {
			chunk = name
		}
	}
	whole := st.objects[chunk]
	for what, c := range map[string]struct {
		content []byte
		fault   string
	}{
		"entry removed":   {cutLine(whole, 3), FaultMissing},
		"entries swapped": {swapLines(whole, 3), FaultReordered},
		"tail cut":        {append(bytes.Join(bytes.SplitAfter(whole, []byte("\n"))[:5], nil), whole[bytes.Index(whole, []byte("\n\n"))+1:]...), FaultTruncated},
		"entry altered":   {bytes.Replace(whole, []byte(`"who":"api"`), []byte(`"who":"apj"`), 1), FaultAltered},
	} {
		st.objects[chunk] = c.content
		_, findings := checkStored(t, st)
		if len(findings) == 0 || findings[0].Fault != c.fault {
			t.Errorf("%s: %+v", what, findings)
		}
	}
	st.objects[chunk] = whole
	delete(st.objects, chunk)
	if _, findings := checkStored(t, st); len(findings) == 0 || findings[0].Fault != FaultMissing {
		t.Errorf("object removed: %+v", findings)
	}
}

func cutLine(b []byte, n int) []byte {
	lines := bytes.SplitAfter(b, []byte("\n"))
	return bytes.Join(append(append([][]byte{}, lines[:n]...), lines[n+1:]...), nil)
}

func swapLines(b []byte, n int) []byte {
	lines := bytes.SplitAfter(bytes.Clone(b), []byte("\n"))
	lines[n], lines[n+1] = lines[n+1], lines[n]
	return bytes.Join(lines, nil)
}

// TestShipOldDisk: a disk that was put back does not write over the proof.
func TestShipOldDisk(t *testing.T) {
	mem, st := vfstest.NewMem(), &memStore{}
	l := mustLog(t, mem, nil)
	fill(t, l, 2)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	old := mem.CrashClone(1)
	later := func(c *Config) {
		c.Store = st
		c.Now = (&clock{t: t0.Add(time.Hour)}).now
	}
	l = mustLog(t, mem, later)
	fill(t, l, 3)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	before, _ := checkStored(t, st)
	var told error
	l = mustLog(t, old, func(c *Config) {
		later(c)
		c.Told = func(err error) { told = err }
	})
	fill(t, l, 1)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	after, findings := checkStored(t, st)
	if told == nil || !strings.Contains(told.Error(), "older state") || len(after) != len(before) || len(findings) != 0 {
		t.Errorf("told %v; %d entries, then %d, %+v", told, len(before), len(after), findings)
	}
}

// TestRetention: files of entries go, proofs stay.
func TestRetention(t *testing.T) {
	mem, st := vfstest.NewMem(), &memStore{}
	l := mustLog(t, mem, func(c *Config) { c.Store, c.FileBytesMax, c.LocalBytesMax = st, 2000, 4000 })
	links := fill(t, l, 30)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ring := l.Identity().Ring()
	epochs, _ := l.Dir().Epochs()
	e := l.Dir().Epoch(epochs[0])
	firsts, err := e.firsts()
	if err != nil || firsts[0] == 0 || len(firsts) > 4 {
		t.Fatalf("files left: %v, %v", firsts, err)
	}
	if entries, findings := check(t, mem); len(entries) == 0 || len(findings) != 0 {
		t.Errorf("%d entries, %+v", len(entries), findings)
	}
	if entries, findings := checkStored(t, st); len(entries) != 61 || len(findings) != 0 {
		t.Errorf("in the store: %d entries, %+v", len(entries), findings)
	}
	link, err := ring.OpenLink([]byte(links["r29"]))
	if err != nil {
		t.Fatal(err)
	}
	mustProve(t, mem, link)
	proof, err := e.Consistency(10, 61)
	if err != nil || len(proof) == 0 {
		t.Errorf("%v %v", proof, err)
	}
	l = mustLog(t, mem, func(c *Config) { c.Now = (&clock{t: t0.Add(time.Hour)}).now })
	if err := errors.Join(l.Append(context.Background(), Entry{Kind: KindGet}), l.Close()); err != nil {
		t.Error(err)
	}
}

// TestShipForgets: a node that does not know any more what it has put into the store
// goes on behind what is there, and writes nothing over it.
func TestShipForgets(t *testing.T) {
	for what, forget := range map[string]func(t *testing.T, mem *vfstest.Mem, name string){
		"lost": func(t *testing.T, mem *vfstest.Mem, name string) {
			if err := mem.Remove(name); err != nil {
				t.Fatal(err)
			}
		},
		"torn": func(t *testing.T, mem *vfstest.Mem, name string) {
			if err := vfs.WriteFile(mem, name, []byte(`{"si`)); err != nil {
				t.Fatal(err)
			}
		},
		"behind": func(t *testing.T, mem *vfstest.Mem, name string) {
			if err := vfs.WriteFile(mem, name, []byte(`{"size":0}`)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		mem, st := vfstest.NewMem(), &memStore{}
		write := func() *Log {
			l := mustLog(t, mem, func(c *Config) { c.Store = st })
			fill(t, l, 2)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return l
		}
		write()
		write()
		before := maps.Clone(st.objects)
		for _, name := range mem.Files() {
			if strings.HasSuffix(name, "/"+shippedFile) {
				forget(t, mem, name)
			}
		}
		l := write()
		for name, content := range before {
			if !bytes.Equal(st.objects[name], content) {
				t.Errorf("%s: %s was written over", what, name)
			}
		}
		entries, findings := checkStored(t, st)
		if len(findings) != 0 || int64(len(entries)) != l.Stats().ShippedSize.Load() || len(before) < 3 {
			t.Errorf("%s: %d entries of %d, %+v", what, len(entries), l.Stats().ShippedSize.Load(), findings)
		}
	}
}

// TestShipUnreadable: what cannot be read now is not taken for what was forgotten.
func TestShipUnreadable(t *testing.T) {
	mem, st := vfstest.NewMem(), &memStore{}
	l := mustLog(t, mem, func(c *Config) { c.Store = st })
	fill(t, l, 2)
	if err := errors.Join(l.CheckpointNow(), l.Close()); err != nil {
		t.Fatal(err)
	}
	f := &vfstest.Faults{FS: mem, Err: syscall.EIO}
	d := OpenDir(f, "/audit")
	epochs, err := d.Epochs()
	if err != nil {
		t.Fatal(err)
	}
	f.At = f.Ops() + 1
	if s, err := d.Epoch(epochs[0]).shipped(); !errors.Is(err, syscall.EIO) {
		t.Errorf("%+v, %v", s, err)
	}
}

// forgetShipped removes the notes of what is in the store.
func forgetShipped(t *testing.T, mem *vfstest.Mem) {
	t.Helper()
	for _, name := range mem.Files() {
		if strings.HasSuffix(name, "/"+shippedFile) {
			if err := mem.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// fillMany appends n long entries, 50 at a time.
func fillMany(t *testing.T, l *Log, n int) {
	t.Helper()
	const together = 50
	var ended sync.WaitGroup
	for range together {
		ended.Go(func() {
			for range n / together {
				if err := l.Append(context.Background(), Entry{Kind: KindGet, Who: "api", What: strings.Repeat("x", 3500)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	ended.Wait()
}

// TestShipForgetsBacklog: objects without a checkpoint, whose entries are kept nowhere
// else, stay as they are when the note of them is lost.
func TestShipForgetsBacklog(t *testing.T) {
	mem, st := vfstest.NewMem(), &memStore{}
	var told error
	open := func(s recorder.Store) *Log {
		return mustLog(t, mem, func(c *Config) {
			c.Store, c.FileBytesMax, c.LocalBytesMax = s, 1<<20, 2<<20
			c.Told, c.Now = func(err error) { told = err }, time.Now
		})
	}
	l := open(nil)
	fillMany(t, l, 20_000)
	if err := errors.Join(l.Close(), open(st).Close()); err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(st.objects)
	entries, _ := checkStored(t, st)
	forgetShipped(t, mem)
	l = open(st)
	fill(t, l, 1)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range before {
		if !bytes.Equal(st.objects[name], content) {
			t.Errorf("%s was written over: %d bytes, %d before", name, len(st.objects[name]), len(content))
		}
	}
	after, findings := checkStored(t, st)
	if len(before) < 3 || len(after) <= len(entries) || len(findings) != 0 || told != nil {
		t.Errorf("%d entries, then %d, %d findings, told %v", len(entries), len(after), len(findings), told)
	}
}

// TestShipDamaged: where the store's object is damaged, and the note lost, the good entries
// are not let go for it; what was logged since goes on to be put there. When somebody has moved
// it away it is written anew, up to the next one.
func TestShipDamaged(t *testing.T) {
	mem, st := vfstest.NewMem(), &memStore{}
	var told error
	write := func(local int64, later time.Duration) {
		t.Helper()
		told = nil
		l := mustLog(t, mem, func(c *Config) {
			c.Store, c.FileBytesMax, c.LocalBytesMax = st, 2000, local
			c.Now = (&clock{t: t0.Add(later)}).now
			c.Told = func(err error) { told = err }
		})
		fill(t, l, 10)
		if err := errors.Join(l.CheckpointNow(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write(0, 0)
	write(0, time.Minute)
	var first string
	for name := range st.objects {
		if strings.HasSuffix(name, "0000000000000000.log") {
			first = name
		}
	}
	whole, kept := st.objects[first], len(mem.Files())
	st.objects[first] = bytes.Replace(whole, []byte(`"who":"api"`), []byte(`"who":"apj"`), 1)
	damaged := st.objects[first]
	forgetShipped(t, mem)
	write(4000, 2*time.Minute)
	if !errors.Is(told, ErrNotStored) || !strings.Contains(told.Error(), "damaged") || !bytes.Equal(st.objects[first], damaged) || len(mem.Files()) < kept {
		t.Errorf("told %v; %d files, %d before", told, len(mem.Files()), kept)
	}
	if _, findings := check(t, mem); len(findings) != 0 {
		t.Errorf("of what is kept here: %+v", findings)
	}
	delete(st.objects, first)
	write(4000, 3*time.Minute)
	entries, findings := checkStored(t, st)
	if told != nil || len(findings) != 0 || len(entries) < 80 {
		t.Errorf("told %v; %d entries, %+v", told, len(entries), findings)
	}
	if lines, _ := splitChunk(whole); !bytes.HasPrefix(st.objects[first], bytes.Join(lines, []byte("\n"))) {
		t.Error("what is written anew is not what was there")
	}
}

// TestShipOther: an object of a backlog, in which nothing is signed, has other entries than this
// log, as of a disk that was put back: it is not written over. One that is cut is.
func TestShipOther(t *testing.T) {
	mem, st := vfstest.NewMem(), &memStore{}
	var told error
	open := func(s recorder.Store) *Log {
		return mustLog(t, mem, func(c *Config) {
			c.Store, c.Told, c.Now = s, func(err error) { told = err }, time.Now
		})
	}
	l := open(nil)
	fillMany(t, l, 15_000)
	if err := errors.Join(l.Close(), open(st).Close()); err != nil {
		t.Fatal(err)
	}
	var first string
	for name, content := range st.objects {
		if _, points := splitChunk(content); strings.HasSuffix(name, "0000000000000000.log") && len(points) == 0 {
			first = name
		}
	}
	whole := st.objects[first]
	for _, c := range []struct {
		name    string
		content []byte
		stays   bool
	}{
		{"other entries", bytes.Replace(whole, []byte(`"who":"api"`), []byte(`"who":"apj"`), 1), true},
		{"other entries, cut", bytes.Replace(whole[:len(whole)/2], []byte(`"who":"api"`), []byte(`"who":"apj"`), 1), true},
		{"cut in a line", whole[:len(whole)/2], false},
		{"cut behind a line", whole[:bytes.IndexByte(whole, '\n')+1], false},
		{"empty", []byte{}, false},
	} {
		st.objects[first] = c.content
		forgetShipped(t, mem)
		told = nil
		if err := open(st).Close(); err != nil {
			t.Fatal(err)
		}
		if c.stays && (!bytes.Equal(st.objects[first], c.content) || !errors.Is(told, ErrNotStored)) || !c.stays && (!bytes.Equal(st.objects[first], whole) || told != nil) {
			t.Errorf("%s: %d bytes of %d, told %v", c.name, len(st.objects[first]), len(whole), told)
		}
	}
}

// TestShipElsewhere: a log that differs from what the store has does not keep the others from it.
func TestShipElsewhere(t *testing.T) {
	for _, lost := range []bool{false, true} {
		shipElsewhere(t, lost)
	}
}

// shipElsewhere damages what the store has of a log, and what is here; or both are lost.
func shipElsewhere(t *testing.T, lost bool) {
	t.Helper()
	mem, st := vfstest.NewMem(), &memStore{}
	var told error
	write := func(years int) {
		t.Helper()
		l := mustLog(t, mem, func(c *Config) {
			c.Store = st
			c.Now = (&clock{t: t0.AddDate(years, 0, 0)}).now
			c.Told = func(err error) { told = err }
		})
		fill(t, l, 3)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	for name, content := range st.objects {
		if strings.HasSuffix(name, ".log") {
			st.objects[name] = bytes.Replace(content, []byte(`"who":"api"`), []byte(`"who":"apj"`), 1)
		}
		if strings.HasSuffix(name, ".log") && lost {
			delete(st.objects, name)
		}
	}
	forgetShipped(t, mem)
	epochs, err := OpenDir(mem, "/audit").Epochs()
	if err != nil || len(epochs) != 1 {
		t.Fatal(epochs, err)
	}
	name := "/audit/" + epochs[0] + "/" + entriesFile(0)
	content, err := vfs.ReadFile(mem, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := mem.Remove(name); err != nil {
		t.Fatal(err)
	}
	kept := name
	if lost { // the first file: another begins behind it
		dir := "/audit/" + epochs[0] + "/"
		kept = dir + entriesFile(2)
		if err := mem.Rename(dir+pointsFile(0), dir+pointsFile(2)); err != nil {
			t.Fatal(err)
		}
	}
	if err := vfs.WriteFile(mem, kept, content[:len(content)/2]); err != nil { // the next one is begun anew
		t.Fatal(err)
	}
	write(1)
	logs, _, err := Stored(context.Background(), st, "")
	if want := map[bool]int{false: 2, true: 1}[lost]; err != nil || len(logs) != want || told == nil {
		t.Errorf("lost %v: %d logs, %v; told %v", lost, len(logs), err, told)
	}
}
