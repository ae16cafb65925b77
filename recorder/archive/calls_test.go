package archive

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/catalog"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
)

// recordingsOfOneCall are a trunk's, a station's whose microphone is not
// captured while it is held, a snippet, an adhoc recording, and a consultation.
func recordingsOfOneCall() []testCall {
	out := []testCall{newTestCall(testID, codec.WAVPCM16)}
	for _, k := range []struct {
		suffix string
		kind   recorder.Kind
		user   string
	}{
		{"-st1", recorder.KindStation, "alice"},
		{"-st2", recorder.KindStation, "bob"},
		{"-sn1", recorder.KindSnippet, "alice"},
		{"-ad1", recorder.KindAdhoc, "alice"},
		{"-co1", recorder.KindConsult, "bob"},
	} {
		c := newTestCall(testID+k.suffix, codec.WAVPCMU)
		c.kind, c.user = k.kind, k.user
		if k.kind == recorder.KindStation {
			c.kept, c.mic = []span{{0, 9000}}, []span{{2000, 5000}}
		}
		out = append(out, c)
	}
	return out
}

func mustTake(t *testing.T, a *Archive, c testCall) *taking {
	t.Helper()
	sink, err := a.NewSink(context.Background(), c.id, c.prefix())
	if err != nil {
		t.Fatal(err)
	}
	return &taking{c: c, sink: sink}
}

// TestRecoverOneCall: the daemon dies while a call has several recordings, of
// which one is published already. Each is recovered for itself.
func TestRecoverOneCall(t *testing.T) {
	mem, cat := vfstest.NewMem(), newMemCatalog()
	a := mustOpenOn(t, mem, cat)
	all := recordingsOfOneCall()
	var live []*taking
	for _, c := range all[1:] {
		live = append(live, mustTake(t, a, c))
	}
	whole := record(t, a, all[0])
	for i := range int64(6) { // all go on at once, up to 3 s
		for _, k := range live {
			if real := i * frameMS; len(k.c.mic) > 0 || real < 2000 {
				if err := k.frame(real); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	mem = mem.CrashClone(7)
	a = mustOpenOn(t, mem, cat)
	got, err := a.Recover(context.Background())
	if err != nil || len(got) != len(live) {
		t.Fatalf("%d recovered, %v", len(got), err)
	}
	for i, r := range got {
		k := live[slices.IndexFunc(live, func(k *taking) bool { return k.c.id == r.ID })]
		m := r.Manifest
		if r.Err != nil || m == nil || m.Kind != k.c.kind || m.User != k.c.user || m.Conversation != "conv" || r.Prefix != k.c.prefix() {
			t.Fatalf("%d: %+v %v", i, r, r.Err)
		}
		if m.AudioMS != k.durable || m.RealMS != k.durable {
			t.Errorf("%s: real %d, audio %d, durable %d", r.ID, m.RealMS, m.AudioMS, k.durable)
		}
		one := 1
		want := []recorder.Window{{Reason: "hold", RealMS: 2000, EndRealMS: 3000, Source: "sdp", Channel: &one}}
		if d := cmp.Diff(want, m.Windows); len(k.c.mic) > 0 && d != "" {
			t.Errorf("%s: windows:\n%s", r.ID, d)
		}
	}
	if r := mustVerify(t, a, "recovered"); r.Recordings != len(all) {
		t.Errorf("verified %+v", r)
	}
	if err := a.Rebuild(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if ids := slices.Sorted(maps.Keys(cat.rows)); len(ids) != len(all) {
		t.Errorf("rows %v", ids)
	}
	if m, err := a.Get(context.Background(), whole.ID); err != nil || cmp.Diff(whole, m) != "" {
		t.Errorf("the published one changed: %v", err)
	}
	if _, err := mem.Stat("/data/spool/quarantine"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something was set aside")
	}
}

// TestRecoverKindWithoutAccount: whose recording it was is lost with its
// accounts, but it does not turn into the trunk's.
func TestRecoverKindWithoutAccount(t *testing.T) {
	for _, c := range recordingsOfOneCall() {
		mem := vfstest.NewMem()
		k := mustTake(t, mustOpenOn(t, mem, newMemCatalog()), c)
		w, err := k.sink.Begin(recorder.SegmentInfo{
			Recording: c.id, Prefix: c.prefix(), N: 1, Format: codec.WAVPCMU, SampleRate: 8000, Channels: 2, Start: epoch,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(recorder.Audio{Samples: 800, Data: make([]byte, 1600)}, nil); err != nil {
			t.Fatal(err)
		}
		a := mustOpenOn(t, mem.CrashClone(1), newMemCatalog())
		got, err := a.Recover(context.Background())
		if err != nil || len(got) != 1 || got[0].Err != nil || got[0].Manifest.AudioMS != 100 {
			t.Fatalf("%s: %+v, %v", c.id, got, err)
		}
		want := c.kind
		if want == "" {
			want = recorder.KindTrunk
		}
		if m := got[0].Manifest; m.Kind != want {
			t.Errorf("%s is of kind %s", c.id, m.Kind)
		}
	}
}

// TestFindOneCall: the recordings of one call are told apart by kind and user,
// also by a catalogue that was rebuilt, and found in the store without one.
func TestFindOneCall(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{
		StoreDir: filepath.Join(dir, "store"), SpoolDir: filepath.Join(dir, "spool"), CatalogPath: filepath.Join(dir, "catalog.db"),
		KeyFile: filepath.Join(dir, "kek.json"),
	}
	a, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	want := map[string]*recorder.Manifest{}
	for _, c := range recordingsOfOneCall() {
		want[c.id] = record(t, a, c)
	}
	mustVerify(t, a, "taken")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.CatalogPath = filepath.Join(dir, "other.db") // it knows nothing
	if a, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	for id, m := range want {
		if got, err := a.Get(ctx, id); err != nil || cmp.Diff(m, got) != "" {
			t.Errorf("Get %s without a row: %v", id, err)
		}
	}
	if err := a.Rebuild(ctx, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		q    recorder.Query
		want []string
	}{
		{recorder.Query{Conversation: "conv"}, []string{"", "-ad1", "-co1", "-sn1", "-st1", "-st2"}},
		{recorder.Query{User: "alice"}, []string{"-ad1", "-sn1", "-st1"}},
		{recorder.Query{User: "bob", Kind: recorder.KindStation}, []string{"-st2"}},
		{recorder.Query{Kind: recorder.KindTrunk}, []string{""}},
		{recorder.Query{User: "carol"}, []string{}},
		{recorder.Query{User: "alice", Conversation: "other"}, []string{}},
	} {
		page, err := a.Find(ctx, c.q)
		ids := []string{}
		for _, r := range page.Rows {
			ids = append(ids, r.Manifest.ID[len(testID):])
		}
		slices.Sort(ids)
		if err != nil || !slices.Equal(ids, c.want) {
			t.Errorf("%+v: %v, %v", c.q, ids, err)
		}
	}
	if _, err := a.Find(ctx, recorder.Query{Cursor: "x"}); !errors.Is(err, catalog.ErrCursor) {
		t.Errorf("cursor: %v", err)
	}
}
