package archive

import (
	"context"
	"testing"

	"github.com/trunktap/trunktap/media"
)

// TestStuck: a recording whose key is not at hand when its call goes on is not gone on
// with, and none can begin under its name; recovery has it when the key is there.
func TestStuck(t *testing.T) {
	mem := crashed(t, 2)
	s := media.Session{ID: testID, Start: epoch}
	all := func(string) bool { return true }
	away, err := Open(Config{StoreDir: "/data/store", SpoolDir: "/data/spool", FS: mem.CrashClone(1), Sealer: noKeys{testSealer()}, Catalog: newMemCatalog()})
	if err != nil {
		t.Fatal(err)
	}
	held, err := away.Hold(context.Background(), all)
	if err != nil || len(held) != 0 || !away.Stuck(testID) || !away.Known(context.Background(), s) {
		t.Errorf("without its key: %d held, %v, stuck %v, known %v", len(held), err, away.Stuck(testID), away.Known(context.Background(), s))
	}
	a := mustOpenOn(t, mem, newMemCatalog())
	if held, err = a.Hold(context.Background(), all); err != nil || len(held) != 1 || a.Stuck(testID) {
		t.Errorf("with its key: %d held, %v, stuck %v", len(held), err, a.Stuck(testID))
	}
	a.Abandon(held[0])
	if got, err := a.Recover(context.Background()); err != nil || len(got) != 1 || got[0].Err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if a.Stuck(testID) || a.inSpool(testID) {
		t.Error("it is in the spool")
	}
}
