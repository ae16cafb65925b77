package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// site is what somebody attacks who can write to the store and, for some attacks, to
// the disk of the node.
type site struct {
	t     *testing.T
	store recorder.Store
	disk  *vfstest.Mem
	scene *scene
	kept  bool // verify knows the checkpoint that was kept elsewhere
}

// scene is three recordings of a node whose log went to the store in two parts.
type scene struct {
	whole, older, forked *vfstest.Mem // older: before the last recording; forked: another one in its place
	kept                 []byte       // the last checkpoint of whole
	foreign              []byte       // a checkpoint of another node
	foreignKey           []byte       // the statement of its key
}

const lastRec = "20261122T163608Z-1f0c9a3b5d7e8f63"

func run(t *testing.T, mem *vfstest.Mem, ids ...string) {
	t.Helper()
	a := mustOpenOn(t, mem, newMemCatalog())
	l := mustProve(t, a, mem)
	for _, id := range ids {
		record(t, a, newTestCall(id, codec.WAVPCMU))
	}
	if err := errors.Join(l.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{older: vfstest.NewMem()}
	run(t, s.older, testID, idOf(7))
	s.whole, s.forked = s.older.CrashClone(1), s.older.CrashClone(1)
	run(t, s.whole, lastRec)
	run(t, s.forked, idOf(9))
	s.kept = latest(t, audit.OpenDir(s.whole, "/data/audit"))
	mem := vfstest.NewMem()
	id, err := audit.OpenIdentity(audit.IdentityConfig{Path: "/b.json", Node: "rec-b", FS: mem})
	if err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(audit.Config{Dir: "/audit", FS: mem, Identity: id, Now: logNow})
	if err == nil {
		err = l.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.foreign, s.foreignKey = latest(t, l.Dir()), []byte(id.Ring().Keys[0].Statement)
	return s
}

func latest(t *testing.T, d audit.Dir) []byte {
	t.Helper()
	epochs, err := d.Epochs()
	if err != nil || len(epochs) != 1 {
		t.Fatal(epochs, err)
	}
	b, err := d.Epoch(epochs[0]).Latest()
	if err != nil || b == nil {
		t.Fatal("no checkpoint", err)
	}
	return b
}

func (s *site) get(name string) []byte {
	s.t.Helper()
	b, err := s.store.Open(context.Background(), name)
	if err != nil {
		s.t.Fatal(name, err)
	}
	defer func() { _ = b.Close() }() // only read
	content, err := readBlob(b, 1<<24)
	if err != nil {
		s.t.Fatal(name, err)
	}
	return content
}

func (s *site) put(name string, b []byte) {
	s.t.Helper()
	if err := s.store.Put(context.Background(), name, b); err != nil {
		s.t.Fatal(name, err)
	}
}

func (s *site) names(prefix string) (out []string) {
	s.t.Helper()
	err := s.store.List(context.Background(), prefix, func(i recorder.BlobInfo) error {
		out = append(out, i.Name)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *site) remove(prefix string) {
	s.t.Helper()
	for _, n := range s.names(prefix) {
		if err := s.store.Delete(context.Background(), n); err != nil {
			s.t.Fatal(n, err)
		}
	}
}

// swap exchanges two objects.
func (s *site) swap(a, b string) {
	x, y := s.get(a), s.get(b)
	s.put(a, y)
	s.put(b, x)
}

// chunks are the objects of the log.
func (s *site) chunks() (out []string) {
	for _, n := range s.names(audit.StorePrefix + "rec-a/2") {
		if strings.HasSuffix(n, ".log") {
			out = append(out, n)
		}
	}
	return out
}

// storeOfScene puts what the store of a scene has into the site's.
func (s *site) storeOfScene(mem *vfstest.Mem) {
	s.t.Helper()
	s.remove("")
	for _, name := range mem.Files() {
		if object, ok := strings.CutPrefix(name, "/data/store/"); ok {
			b, err := vfs.ReadFile(mem, name, 1<<24)
			if err != nil {
				s.t.Fatal(err)
			}
			s.put(object, b)
		}
	}
}

// diskOfScene puts the log of a scene onto the disk of the node.
func (s *site) diskOfScene(mem *vfstest.Mem) {
	s.t.Helper()
	if err := vfs.RemoveAll(s.disk, "/data/audit"); err != nil {
		s.t.Fatal(err)
	}
	for _, name := range mem.Files() {
		if !strings.HasPrefix(name, "/data/audit/") {
			continue
		}
		b, err := vfs.ReadFile(mem, name, 1<<24)
		if err == nil {
			err = vfs.MkdirAll(s.disk, name[:strings.LastIndex(name, "/")])
		}
		if err = errors.Join(err, vfs.WriteFile(s.disk, name, b)); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *site) verify(change func(*VerifyQuery)) Report {
	s.t.Helper()
	a, err := Open(Config{Store: s.store, SpoolDir: "/data/spool", FS: s.disk, Sealer: testSealer(), Catalog: newMemCatalog(), ReadOnly: true})
	if err != nil {
		s.t.Fatal(err)
	}
	q := VerifyQuery{FromID: "0", Proof: ProofQuery{Dir: audit.OpenDir(s.disk, "/data/audit"), Node: "rec-a", Ring: mustIdentity(s.t, s.disk).Ring()}}
	if s.kept {
		q.Proof.Kept = [][]byte{s.scene.kept}
	}
	if change != nil {
		change(&q)
	}
	r, err := a.Verify(context.Background(), q, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// parts cuts a file into what stands before its frames, and the frames.
func parts(t *testing.T, b []byte) (head []byte, frames [][]byte) {
	t.Helper()
	n := 14 + int(binary.BigEndian.Uint32(b[10:]))
	head, b = b[:n], b[n:]
	for len(b) > 0 {
		n := 5 + int(binary.BigEndian.Uint32(b[1:]))
		frames, b = append(frames, b[:n]), b[n:]
	}
	if len(frames) < 3 {
		t.Fatalf("%d frames", len(frames))
	}
	return head, frames
}

// reframe changes the frames of an object.
func (s *site) reframe(name string, f func([][]byte) [][]byte) {
	head, frames := parts(s.t, s.get(name))
	s.put(name, append(bytes.Clone(head), bytes.Join(f(frames), nil)...))
}

func object(id, name string) string { return "2026/11/22/" + id + "/" + name }

// attack is one thing that is done; each finding must say where and what.
type attack struct {
	name  string
	harm  func(s *site)
	fault string
	says  []string
}

var seg1, seg2, otherSeg = object(testID, "0001.seg"), object(testID, "0002.seg"), object(idOf(7), "0001.seg")

var frameAttacks = []attack{
	{"frames swapped", func(s *site) {
		s.reframe(seg1, func(f [][]byte) [][]byte { f[0], f[1] = f[1], f[0]; return f })
	}, FaultAltered, []string{testID, "0001.seg", "segment 1 frame 0 at byte"}},
	{"a frame repeated", func(s *site) {
		s.reframe(seg1, func(f [][]byte) [][]byte { return append([][]byte{f[0]}, f...) })
	}, FaultAltered, []string{testID, "0001.seg", "segment 1 frame 1 at byte"}},
	{"a frame left out", func(s *site) {
		s.reframe(seg1, func(f [][]byte) [][]byte { return f[1:] })
	}, FaultAltered, []string{testID, "0001.seg", "segment 1 frame 0 at byte"}},
	{"the last frame left out", func(s *site) {
		s.reframe(seg1, func(f [][]byte) [][]byte { return f[:len(f)-1] })
	}, FaultTruncated, []string{testID, "0001.seg", "segment 1 frame"}},
	{"cut within a frame", func(s *site) { b := s.get(seg1); s.put(seg1, b[:len(b)-7]) }, FaultTruncated, []string{testID, "0001.seg"}},
	{"cut to nothing", func(s *site) { s.put(seg1, []byte{}) }, FaultTruncated, []string{testID, "0001.seg"}},
	{"something behind the last frame", func(s *site) { s.put(seg1, append(s.get(seg1), "more"...)) }, FaultAltered, []string{testID, "0001.seg"}},
	{"a frame of another segment, of the same key", func(s *site) {
		_, other := parts(s.t, s.get(seg2))
		s.reframe(seg1, func(f [][]byte) [][]byte { f[1] = other[1]; return f })
	}, FaultAltered, []string{testID, "0001.seg", "segment 1 frame 1 at byte"}},
	{"a frame of another recording", func(s *site) {
		_, other := parts(s.t, s.get(otherSeg))
		s.reframe(seg1, func(f [][]byte) [][]byte { f[1] = other[1]; return f })
	}, FaultAltered, []string{testID, "0001.seg", "segment 1 frame 1 at byte"}},
	{"segments swapped", func(s *site) { s.swap(seg1, seg2) }, FaultAltered, []string{testID, "0001.seg", "0002.seg"}},
	{"segments swapped between recordings", func(s *site) { s.swap(seg1, otherSeg) }, FaultAltered, []string{testID, idOf(7), "0001.seg"}},
	{"segments and their keys swapped between recordings", func(s *site) {
		s.swap(seg1, otherSeg)
		s.swap(object(testID, segment.KeyFile), object(idOf(7), segment.KeyFile))
	}, FaultAltered, []string{testID, idOf(7), segment.KeyFile}},
	{"a segment removed", func(s *site) { s.remove(seg1) }, FaultMissing, []string{testID, "0001.seg"}},
	{"a segment added", func(s *site) { s.put(object(testID, "0009.seg"), s.get(seg1)) }, FaultOrphan, []string{testID, "0009.seg"}},
}

var manifestAttacks = []attack{
	{"the manifest of another recording", func(s *site) {
		s.put(object(testID, segment.ManifestFile), s.get(object(idOf(7), segment.ManifestFile)))
	}, FaultAltered, []string{testID, segment.ManifestFile, idOf(7)}},
	{"manifests swapped", func(s *site) {
		s.swap(object(testID, segment.ManifestFile), object(idOf(7), segment.ManifestFile))
	}, FaultAltered, []string{testID, idOf(7), segment.ManifestFile}},
	{"links swapped", func(s *site) {
		a, la, _ := segment.SplitManifest(s.get(object(testID, segment.ManifestFile)))
		b, lb, _ := segment.SplitManifest(s.get(object(idOf(7), segment.ManifestFile)))
		x, err1 := segment.AppendLink(bytes.Clone(a), lb)
		y, err2 := segment.AppendLink(bytes.Clone(b), la)
		if err := errors.Join(err1, err2); err != nil {
			s.t.Fatal(err)
		}
		s.put(object(testID, segment.ManifestFile), x)
		s.put(object(idOf(7), segment.ManifestFile), y)
	}, FaultAltered, []string{testID, idOf(7), segment.ManifestFile}},
	{"a link taken out", func(s *site) {
		a, _, _ := segment.SplitManifest(s.get(object(testID, segment.ManifestFile)))
		s.put(object(testID, segment.ManifestFile), a)
	}, FaultUnsigned, []string{testID, segment.ManifestFile}},
	{"the manifest removed", func(s *site) { s.remove(object(testID, segment.ManifestFile)) }, FaultOrphan, []string{testID}},
	{"the key removed", func(s *site) { s.remove(object(testID, segment.KeyFile)) }, FaultKeyLost, []string{testID, segment.KeyFile, "restore it from a backup"}},
	{"a recording removed whole", func(s *site) { s.remove("2026/11/22/" + testID) }, FaultMissing, []string{testID, "entry 1 of log rec-a/", "no entry that it was deleted"}},
	{"a recording under the name of another", func(s *site) {
		for _, n := range s.names("2026/11/22/" + testID) {
			s.put(strings.Replace(n, testID, idOf(8), 1), s.get(n))
		}
	}, FaultAltered, []string{idOf(8)}},
}

// line changes the lines of the last object of the log.
func lines(f func(lines [][]byte) [][]byte) func(s *site) {
	return func(s *site) {
		all := s.chunks()
		name := all[0]
		head, tail, _ := bytes.Cut(s.get(name), []byte("\n\n"))
		s.put(name, append(append(bytes.Join(f(bytes.Split(head, []byte("\n"))), []byte("\n")), "\n\n"...), tail...))
	}
}

var logAttacks = []attack{
	{"leaves reordered", lines(func(l [][]byte) [][]byte { l[1], l[2] = l[2], l[1]; return l }), audit.FaultReordered, []string{"audit/rec-a/", "entry 1: it stands behind entry 2"}},
	{"a leaf removed", lines(func(l [][]byte) [][]byte { return append(l[:1:1], l[2:]...) }), audit.FaultMissing, []string{"audit/rec-a/", "entry 1"}},
	{"a leaf repeated", lines(func(l [][]byte) [][]byte { return append([][]byte{l[0]}, l...) }), audit.FaultReordered, []string{"audit/rec-a/", "entry 0: it stands there again"}},
	{"a leaf altered", lines(func(l [][]byte) [][]byte {
		l[1] = bytes.Replace(l[1], []byte("recorded"), []byte("Recorded"), 1)
		return l
	}), audit.FaultAltered, []string{"audit/rec-a/", "entries 0 to"}},
	{"the log cut at a checkpoint, in the store", func(s *site) { all := s.chunks(); s.remove(all[len(all)-1]) }, audit.FaultMissing, []string{"audit/rec-a/", "the store has"}},
	{"the log cut at a checkpoint, on the disk", func(s *site) { s.diskOfScene(s.scene.older) }, audit.FaultFork, []string{"audit/rec-a/", "the disk was put back"}},
	{"the log cut at a checkpoint, everywhere", func(s *site) {
		all := s.chunks()
		s.remove(all[len(all)-1])
		s.diskOfScene(s.scene.older)
	}, audit.FaultTruncated, []string{lastRec, "the end of the log is gone"}},
	{"everything put back to an older state", func(s *site) {
		s.storeOfScene(s.scene.older)
		s.diskOfScene(s.scene.older)
		s.kept = true
	}, audit.FaultTruncated, []string{"audit/rec-a/", "the checkpoint that was kept"}},
	{"the log removed everywhere", func(s *site) {
		s.remove(audit.StorePrefix)
		_ = vfs.RemoveAll(s.disk, "/data/audit")
		s.kept = true
	}, audit.FaultTruncated, []string{"audit/rec-a/", "the checkpoint that was kept"}},
	{"a checkpoint of another node", func(s *site) {
		s.put(audit.StorePrefix+"rec-b/keys/00000000/0001.txt", s.scene.foreignKey)
		head, _, _ := bytes.Cut(s.get(s.chunks()[0]), []byte("\n\n"))
		s.put(s.chunks()[0], append(append(head, "\n\n"...), s.scene.foreign...))
	}, audit.FaultAltered, []string{"audit/rec-a/", "the checkpoint is that of log rec-b/"}},
	{"a checkpoint of a node that nobody knows", func(s *site) {
		head, _, _ := bytes.Cut(s.get(s.chunks()[0]), []byte("\n\n"))
		s.put(s.chunks()[0], append(append(head, "\n\n"...), s.scene.foreign...))
	}, audit.FaultSignature, []string{"audit/rec-a/"}},
	{"two forks of one size, in the store and on the disk", func(s *site) { s.diskOfScene(s.scene.forked) }, audit.FaultFork, []string{"audit/rec-a/", "differs from what was signed"}},
	{"a fork of one size in the place of both", func(s *site) {
		s.storeOfScene(s.scene.forked)
		s.diskOfScene(s.scene.forked)
		s.kept = true
	}, audit.FaultFork, []string{"audit/rec-a/", "another log than the one that was signed", "by the checkpoint that was kept"}},
}

// withstand does each attack in turn and demands that verify names it; open gives a
// fresh store.
func withstand(t *testing.T, open func(t *testing.T, disk *vfstest.Mem) recorder.Store) {
	sc := newScene(t)
	fresh := func(t *testing.T) *site {
		s := &site{t: t, disk: sc.whole.CrashClone(1), scene: sc}
		s.store = open(t, s.disk)
		return s
	}
	s := fresh(t)
	s.kept = true
	if r := s.verify(nil); !r.OK() || len(r.Notes) > 0 || r.Recordings != 3 {
		t.Fatalf("before any attack: %d recordings, %v %v", r.Recordings, r.Findings, r.Notes)
	}
	for _, list := range [][]attack{frameAttacks, manifestAttacks, logAttacks} {
		for _, c := range list {
			t.Run(c.name, func(t *testing.T) {
				s := fresh(t)
				c.harm(s)
				r := s.verify(nil)
				text := faults(r)
				if !strings.Contains(text, ": "+c.fault+": ") {
					t.Errorf("want %s, got\n%s\nnotes %v", c.fault, text, r.Notes)
				}
				for _, say := range c.says {
					if !strings.Contains(text, say) {
						t.Errorf("%q is not in\n%s", say, text)
					}
				}
			})
		}
	}
	t.Run("a recording removed whole, asked for by a range", func(t *testing.T) { removedFromRange(t, fresh(t)) })
}

// removedFromRange: a range that a removed recording is of names it, another does not.
func removedFromRange(t *testing.T, s *site) {
	s.remove("2026/11/22/" + testID)
	before := epoch.Add(-2 * time.Hour) // the clock of the log stands an hour before that of the calls
	for _, c := range []struct {
		change func(*VerifyQuery)
		want   bool
	}{
		{func(q *VerifyQuery) { q.From = before }, true},
		{func(q *VerifyQuery) { q.From, q.To = before, epoch.Add(1) }, true},
		{func(q *VerifyQuery) { q.From, q.To = before, epoch }, false},
		{func(q *VerifyQuery) { q.FromID, q.ToID = testID, testID }, true},
		{func(q *VerifyQuery) { q.FromID = lastRec + "0" }, false},
		{func(q *VerifyQuery) { q.IDs = []string{testID} }, true},
	} {
		r := s.verify(c.change)
		if got := strings.Contains(faults(r), testID+": missing: entry 1"); got != c.want {
			t.Errorf("named %v, want %v: %v", got, c.want, r.Findings)
		}
	}
	if r := s.verify(func(q *VerifyQuery) { q.Trunk = "carrier-a" }); !r.OK() || len(r.Notes) != 1 || r.Notes[0].Recording != testID {
		t.Errorf("by trunk: %v %v", r.Findings, r.Notes)
	}
}

// TestAttacks attacks a store in a directory.
func TestAttacks(t *testing.T) {
	withstand(t, func(t *testing.T, disk *vfstest.Mem) recorder.Store {
		a, err := Open(Config{StoreDir: "/data/store", SpoolDir: "/data/spool", FS: disk, Sealer: testSealer(), Catalog: newMemCatalog(), ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		return a.Store()
	})
}
