package store_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

const (
	localFolder = "/spool/rec"
	folderName  = "2026/11/22/rec"
)

func spoolFolder(t *testing.T, fsys vfs.FS, content string) {
	t.Helper()
	err := vfs.MkdirAll(fsys, localFolder)
	for _, name := range []string{"0001.seg", "recording.trm"} {
		err = errors.Join(err, vfs.WriteFile(fsys, localFolder+"/"+name, []byte(content+name)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func publishFolder(d *store.Dir, fsys vfs.FS) error {
	return d.PublishFolder(context.Background(), folderName, localFolder, func(dirs ...string) error {
		return vfs.Durable(fsys, nil, dirs...)
	})
}

// TestPublishFolder fails and crashes at each operation: what was published is
// in the store whole, what was not is whole in one of the two places.
func TestPublishFolder(t *testing.T) {
	for _, kind := range []vfstest.Kind{vfstest.Crash, vfstest.Fail, vfstest.FailFrom, vfstest.DoneButErr} {
		for n, hit := 1, true; hit; n++ {
			mem := vfstest.NewMem()
			spoolFolder(t, mem, "")
			mustOpenDir(t, store.DirConfig{Root: "/store", FS: mem})
			f := &vfstest.Faults{FS: mem, At: n, Kind: kind, Err: syscall.EIO}
			d, err := store.OpenDir(store.DirConfig{Root: "/store", FS: f})
			if err != nil {
				continue
			}
			if err = publishFolder(d, f); err != nil && kind != vfstest.Crash {
				err = publishFolder(d, f) // as the recorder does
				if err != nil && kind != vfstest.FailFrom {
					t.Errorf("%s: again: %v", f.Hit(), err)
				}
			}
			hit = f.Hit() != ""
			for seed := range uint64(8) {
				checkFolder(t, mem.CrashClone(seed), fmt.Sprintf("%s, seed %d", f.Hit(), seed), err == nil)
			}
		}
	}
}

func checkFolder(t *testing.T, mem *vfstest.Mem, what string, published bool) {
	t.Helper()
	d := mustOpenDir(t, store.DirConfig{Root: "/store", FS: mem})
	if err := publishFolder(d, mem); published && err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if _, err := mem.Stat(localFolder); published && err == nil {
		t.Errorf("%s: published and still in the spool", what)
	}
	for _, name := range []string{"0001.seg", "recording.trm"} {
		if got, err := read(d, folderName+"/"+name); err != nil || got != name {
			t.Errorf("%s: %s is %q, %v", what, name, got, err)
		}
	}
}

// TestPublishFolderIsDurable: nobody needs to finish it after a crash.
func TestPublishFolderIsDurable(t *testing.T) {
	for _, group := range []bool{false, true} {
		mem := vfstest.NewMem()
		spoolFolder(t, mem, "")
		d := mustOpenDir(t, store.DirConfig{Root: "/store", FS: mem})
		err := d.PublishFolder(context.Background(), folderName, localFolder, func(dirs ...string) error {
			if !group {
				return vfs.Durable(mem, nil, dirs...)
			}
			g, err := mem.OpenGroup("/")
			return errors.Join(err, g.Sync())
		})
		if err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(20) {
			c := mem.CrashClone(seed)
			if files := c.Files(); len(files) != 2 || files[0] != "/store/"+folderName+"/0001.seg" {
				t.Fatalf("group %v, seed %d: %v", group, seed, files)
			}
		}
	}
}

func TestPublishFolderRefuses(t *testing.T) {
	mem := vfstest.NewMem()
	d := mustOpenDir(t, store.DirConfig{Root: "/store", FS: mem})
	spoolFolder(t, mem, "a ")
	if err := publishFolder(d, mem); err != nil {
		t.Fatal(err)
	}
	spoolFolder(t, mem, "b ")
	if err := publishFolder(d, mem); !errors.Is(err, recorder.ErrExists) {
		t.Errorf("over another: %v", err)
	}
	if got, err := read(d, folderName+"/0001.seg"); err != nil || got != "a 0001.seg" {
		t.Errorf("what was there is %q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := d.PublishFolder(ctx, folderName, localFolder, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
	if err := d.PublishFolder(context.Background(), "../x", localFolder, nil); err == nil {
		t.Error("a bad name is taken")
	}
	mem.OtherDevice("/store")
	if err := d.PublishFolder(context.Background(), "2026/11/23/rec", localFolder, func(...string) error { return nil }); !errors.Is(err, syscall.EXDEV) {
		t.Errorf("from another file system: %v", err)
	}
}

// TestFolderIsMadeAgain: the store remembers the folder it used last, which an
// operator may remove, or a deletion.
func TestFolderIsMadeAgain(t *testing.T) {
	mem := vfstest.NewMem()
	d := mustOpenDir(t, store.DirConfig{Root: "/store", FS: mem})
	ctx := context.Background()
	for _, remove := range []func() error{
		func() error { return d.Delete(ctx, "2026/11/22/a") },
		func() error { return vfs.RemoveAll(mem, "/store/2026") },
	} {
		if err := errors.Join(d.Put(ctx, "2026/11/22/a", []byte("a")), remove()); err != nil {
			t.Fatal(err)
		}
		if _, err := mem.Stat("/store/2026"); err == nil {
			t.Fatal("the folder is still there")
		}
		spoolFolder(t, mem, "")
		err := publishFolder(d, mem)
		if err != nil {
			err = publishFolder(d, mem)
		}
		if err != nil {
			t.Errorf("after its folder was removed: %v", err)
		}
		if err := vfs.RemoveAll(mem, "/store/"+folderName); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPrepareFolder: what is made ahead is not made durable again; what was removed
// meanwhile, or was not made, is made as without it.
func TestPrepareFolder(t *testing.T) {
	for _, what := range []string{"made", "not durable", "removed", "another's"} {
		mem := vfstest.NewMem()
		spoolFolder(t, mem, "")
		d := mustOpenDir(t, store.DirConfig{Root: "/store", FS: mem})
		up, made := d.PrepareFolder(folderName)
		if up != "/store/2026/11" {
			t.Errorf("%s: to be made durable: %q", what, up)
		}
		err := vfs.Durable(mem, nil, up)
		switch what {
		case "made":
			made()
		case "removed":
			err = errors.Join(err, d.Put(context.Background(), "2026/11/22/a", nil), d.Delete(context.Background(), "2026/11/22/a"))
			made() // too late: it is not taken for durable
		case "another's":
			made()
			_, again := d.PrepareFolder(folderName)
			again()
		}
		if err != nil {
			t.Fatal(err)
		}
		rounds := 0
		err = d.PublishFolder(context.Background(), folderName, localFolder, func(dirs ...string) error {
			rounds++
			return vfs.Durable(mem, nil, dirs...)
		})
		want := map[string]int{"made": 1, "another's": 1}[what]
		if want == 0 {
			want = 2
		}
		if err != nil || rounds != want {
			t.Errorf("%s: %d rounds, want %d: %v", what, rounds, want, err)
		}
		for seed := range uint64(8) {
			checkFolder(t, mem.CrashClone(seed), what, true)
		}
	}
	d := mustOpenDir(t, store.DirConfig{Root: "/store", FS: vfstest.NewMem()})
	for _, name := range []string{"../x", "a"} {
		if up, made := d.PrepareFolder(name); up != "" {
			t.Errorf("%q needs %q", name, up)
		} else {
			made()
		}
	}
}
