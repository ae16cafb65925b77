package archive

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// v1Archive is a copy of a store, a spool and keys that the first version of the
// format left, the spool after a crash.
func v1Archive(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/v1")); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(dir, "keys.json")
	if err := os.Chmod(keys, 0o600); err != nil { // a working copy has the modes of its owner
		t.Fatal(err)
	}
	return Config{StoreDir: filepath.Join(dir, "store"), SpoolDir: filepath.Join(dir, "spool"), KeyFile: keys, Catalog: newMemCatalog()}
}

// v1IDs are the recordings in it; the last one is in the spool.
var v1IDs = []string{"20261122T163608Z-1f0c9a3b5d7e8f60", "20261122T163608Z-1f0c9a3b5d7e8f61", "20261122T163608Z-1f0c9a3b5d7e8f62"}

// TestV1Store: what the first version of the format left is recovered, verified,
// played and found.
func TestV1Store(t *testing.T) {
	a, err := Open(v1Archive(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	rs, err := a.Recover(context.Background())
	if err != nil || len(rs) != 1 || rs[0].Err != nil || rs[0].AudioMS != 1000 {
		t.Fatalf("Recover: %+v, %v", rs, err)
	}
	if err := a.Rebuild(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if r := mustVerify(t, a, "v1"); r.Recordings != 3 {
		t.Errorf("%d recordings", r.Recordings)
	}
	for _, id := range v1IDs {
		m, err := a.Media(context.Background(), id, "wav-pcm16")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(m)
		if err != nil || int64(len(b)) != m.Size || len(m.Damage()) > 0 {
			t.Errorf("%s: %d of %d bytes, %v, %v", id, len(b), m.Size, m.Damage(), err)
		}
		_ = m.Close()
	}
}
