package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/catalog"
	"github.com/trunktap/trunktap/recorder/segment"
)

// mustKeyWork opens the keys of a site with one recording; it keeps the traces.
func mustKeyWork(t *testing.T) (w *keyWork, id string, traces *[]audit.Entry) {
	t.Helper()
	dir, _, cfg := mustSite(t)
	id = mustRecord(t, dir, cfg)
	a, err := openArchive(t.Context(), cfg, func(c *archive.Config) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	w, traces = offlineWork(cfg, a), &[]audit.Entry{}
	w.trace = func(_ context.Context, e audit.Entry) error { *traces = append(*traces, e); return nil }
	return w, id, traces
}

// wantTrace demands that the last entry tells of something.
func wantTrace(t *testing.T, traces []audit.Entry, kind audit.Kind, result string) {
	t.Helper()
	if len(traces) == 0 {
		t.Fatalf("no trace of %s", kind)
	}
	if e := traces[len(traces)-1]; e.Kind != kind || e.Result != result || e.Who != "me" || e.From != "here" {
		t.Errorf("%+v, want %s %s", e, kind, result)
	}
}

var testActor = api.Actor{Who: "me", From: "here"}

// waitRewrap waits for a state of the job.
func waitRewrap(t *testing.T, w *keyWork, ok func(api.RewrapState) bool) api.RewrapState {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s := w.Rewrapping()
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", s)
		}
	}
}

// resumedRewrap is another process that goes on with a job, at its end.
func resumedRewrap(t *testing.T, w *keyWork) (*keyWork, api.RewrapState) {
	t.Helper()
	again := offlineWork(w.cfg, w.archive)
	again.trace = w.trace
	if err := again.resumeRewrap(); err != nil {
		t.Fatal(err)
	}
	return again, waitRewrap(t, again, func(s api.RewrapState) bool { return s.State == "done" })
}

// TestRewrapJob: one at a time, cancelled for good, kept over a restart, and each
// leaves its traces.
func TestRewrapJob(t *testing.T) {
	w, _, traces := mustKeyWork(t)
	if s := w.Rewrapping(); s.State != "idle" {
		t.Errorf("%+v", s)
	}
	var refused *recorder.RefusedError
	if _, err := w.CancelRewrap(t.Context(), testActor); !errors.As(err, &refused) {
		t.Errorf("cancel of nothing: %v", err)
	}
	wantTrace(t, *traces, audit.KindKeyRewrapped, audit.ResultRefused)
	if _, err := w.Rotate(t.Context(), testActor); err != nil {
		t.Fatal(err)
	}
	wantTrace(t, *traces, audit.KindKeyRotated, audit.ResultDone)
	slow := api.RewrapOrder{PerSecond: 1} // the pause behind the recording is what is cancelled
	if s, err := w.Rewrap(t.Context(), slow, testActor); err != nil || s.State != "running" || s.By != "me" {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := w.Rewrap(t.Context(), slow, testActor); !errors.As(err, &refused) {
		t.Errorf("a second one: %v", err)
	}
	waitRewrap(t, w, func(s api.RewrapState) bool { return s.Rewrapped == 1 })
	if s, err := w.CancelRewrap(t.Context(), testActor); err != nil || s.State != "cancelled" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := os.Stat(w.rewrapFile()); err == nil {
		t.Error("a cancelled job is kept")
	}

	if _, err := w.Rewrap(t.Context(), slow, testActor); err != nil {
		t.Fatal(err)
	}
	if err := w.stopRewrap(); err != nil { // the daemon stops
		t.Fatal(err)
	}
	again, s := resumedRewrap(t, w)
	if s.Current != 1 || s.By != "me" || s.Failed > 0 {
		t.Errorf("%+v", s)
	}
	if err := again.stopRewrap(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(w.rewrapFile()); err == nil {
		t.Error("a job that is done is kept")
	}
	wantTrace(t, *traces, audit.KindKeyRewrapped, audit.ResultDone)
}

// TestRewrapKeepsItsFindings: what could not be rewrapped is told in the end, also of a
// job that went on in another process.
func TestRewrapKeepsItsFindings(t *testing.T) {
	w, id, traces := mustKeyWork(t)
	var lost string
	_ = filepath.WalkDir(strings.TrimPrefix(w.cfg.Storage.URL, "file://"), func(p string, _ fs.DirEntry, _ error) error {
		if filepath.Base(p) == segment.KeyFile {
			lost = p
		}
		return nil
	})
	mustWrite(t, lost, "{}")
	if _, err := w.Rewrap(t.Context(), api.RewrapOrder{PerSecond: 1}, testActor); err != nil {
		t.Fatal(err)
	}
	waitRewrap(t, w, func(s api.RewrapState) bool { return s.Failed == 1 }) // told at once, and then there is a pause
	if err := w.stopRewrap(); err != nil {
		t.Fatal(err)
	}
	_, s := resumedRewrap(t, w)
	if s.Failed != 1 || len(s.Findings) != 1 || s.Findings[0].Recording != id {
		t.Errorf("%+v", s)
	}
	wantTrace(t, *traces, audit.KindKeyRewrapped, audit.ResultFailed)
}

// TestRewrapMarkIsBounded: however much has failed, what is kept of it fits the file.
func TestRewrapMarkIsBounded(t *testing.T) {
	var r archive.RewrapReport
	for i := range 500 {
		r.Findings = append(r.Findings, archive.Finding{Recording: fmt.Sprint(i), Detail: strings.Repeat("\x00\u20ac", 1000)})
	}
	got := bounded(r)
	js, err := json.Marshal(got)
	if err != nil || len(js) > rewrapBytesMax/2 || len(got.Findings)+got.Dropped != 500 {
		t.Errorf("%d bytes, %d and %d, %v", len(js), len(got.Findings), got.Dropped, err)
	}
	if len(r.Findings) != 500 || len(r.Findings[0].Detail) != 4000 {
		t.Error("the report itself was cut")
	}
}

// TestRetireAndShredTraces: what is refused, not there or done is told, and without
// a log nothing is done.
func TestRetireAndShredTraces(t *testing.T) {
	w, id, traces := mustKeyWork(t)
	list, err := w.List(t.Context(), true)
	if err != nil || len(list.Keys) != 1 || list.Keys[0].Recordings != 1 || !list.Counted {
		t.Fatalf("%+v, %v", list, err)
	}
	old := list.Active
	for key, result := range map[string]string{old: audit.ResultRefused, "17": "not-found"} {
		if err := w.Retire(t.Context(), api.RetireOrder{Key: key}, testActor); err == nil {
			t.Errorf("%s was retired", key)
		}
		wantTrace(t, *traces, audit.KindKeyRetired, result)
	}
	if _, err := w.Rotate(t.Context(), testActor); err != nil {
		t.Fatal(err)
	}
	if err := w.Retire(t.Context(), api.RetireOrder{Key: old}, testActor); err == nil || !strings.Contains(err.Error(), "rewrap first") {
		t.Errorf("retired under a recording: %v", err)
	}
	if r, err := w.archive.Rewrap(t.Context(), archive.RewrapQuery{}, nil); err != nil || r.Rewrapped != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	keep := w.trace
	w.trace = func(context.Context, audit.Entry) error { return audit.ErrUnavailable }
	if err := w.Retire(t.Context(), api.RetireOrder{Key: old}, testActor); !errors.Is(err, api.ErrAudit) {
		t.Errorf("retired without a trace: %v", err)
	}
	if _, err := w.Rewrap(t.Context(), api.RewrapOrder{}, testActor); !errors.Is(err, api.ErrAudit) {
		t.Errorf("rewrapped without a trace: %v", err)
	}
	w.trace = keep
	if err := w.Retire(t.Context(), api.RetireOrder{Key: old}, testActor); err != nil {
		t.Fatal(err)
	}
	wantTrace(t, *traces, audit.KindKeyRetired, audit.ResultDone)
	if s, err := w.Shred(t.Context(), id, api.ShredOrder{Reason: "case"}, testActor); err != nil || s.State != "shredded" || s.By != "me" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := w.Shred(t.Context(), "20261122T163608Z-00000000000000ff", api.ShredOrder{Reason: "case"}, testActor); !errors.Is(err, recorder.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
}

// TestRetireBesideOtherNodes: what goes on at nodes that share the key file is not
// seen from here, so a key stays until an operator says that he has asked there.
func TestRetireBesideOtherNodes(t *testing.T) {
	w, id, traces := mustKeyWork(t)
	r, err := w.Rotate(t.Context(), testActor)
	if err != nil {
		t.Fatal(err)
	}
	old := r.Before
	if r, err := w.archive.Rewrap(t.Context(), archive.RewrapQuery{}, nil); err != nil || r.Rewrapped != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	retire := func(asked bool, want ...string) {
		t.Helper()
		err := w.Retire(t.Context(), api.RetireOrder{Key: old, OtherNodesAsked: asked}, testActor)
		text := fmt.Sprint(err)
		if asked {
			text = (*traces)[len(*traces)-1].What
		}
		if refused := (*recorder.RefusedError)(nil); asked != (err == nil) || !asked && !errors.As(err, &refused) {
			t.Errorf("asked %t: %v", asked, err)
		}
		for _, part := range want {
			if !strings.Contains(text, part) {
				t.Errorf("asked %t: %q does not tell of %q", asked, text, part)
			}
		}
	}
	chunk := "audit/rec-b/00000000000000000001/0000000000000001.log"
	own := "audit/" + w.cfg.NodeName() + "/00000000000000000001/0000000000000001.log"
	for _, name := range []string{chunk, own} {
		if err := w.archive.Store().Put(t.Context(), name, []byte("a log")); err != nil {
			t.Fatal(err)
		}
	}
	retire(false, ": rec-b;", "--other-nodes-asked")
	wantTrace(t, *traces, audit.KindKeyRetired, audit.ResultRefused)
	if err := w.archive.Store().Delete(t.Context(), chunk); err != nil {
		t.Fatal(err)
	}
	c, err := catalog.OpenURL(t.Context(), w.cfg.Catalog.URL, catalogOptions(w.cfg))
	if err != nil {
		t.Fatal(err)
	}
	row, err := c.Get(t.Context(), id)
	row.Node = "rec-c"
	if err = errors.Join(err, c.Save(t.Context(), row), c.Close()); err != nil {
		t.Fatal(err)
	}
	retire(false, ": rec-c;", "--other-nodes-asked")
	retire(true, old, "rec-c", "asked")
	wantTrace(t, *traces, audit.KindKeyRetired, audit.ResultDone)
	if begun := (*traces)[len(*traces)-2]; begun.Result != audit.ResultBegun || !strings.Contains(begun.What, "rec-c") {
		t.Errorf("%+v", begun)
	}
}

// TestKeysByDaemon runs each command beside the daemon and reads the log.
func TestKeysByDaemon(t *testing.T) {
	dir, file, cfg := mustSite(t)
	id := mustRecord(t, dir, cfg)
	stop := serving(t, file, cfg)
	keysCommand(t, 0, "keys", "ls", "-c", file)
	keysCommand(t, 0, "keys", "ls", "--quick", "--json", "-c", file)
	keysCommand(t, 0, "keys", "rotate", "-c", file)
	if out := keysCommand(t, 0, "keys", "rewrap", "-c", file); !strings.Contains(out, "1 rewrapped") {
		t.Errorf("rewrap: %s", out)
	}
	if out := keysCommand(t, 0, "keys", "rewrap", "--status", "--json", "-c", file); !strings.Contains(out, `"state":"done"`) {
		t.Errorf("status: %s", out)
	}
	keysCommand(t, 1, "keys", "rewrap", "--cancel", "-c", file)
	keysCommand(t, 1, "keys", "retire", "17", "-c", file)
	keysCommand(t, 1, "shred", "20261122T163608Z-00000000000000ff", "--reason", "case", "-c", file)
	if out := keysCommand(t, 0, "shred", id, "--reason", "case 4711", "-c", file); !strings.Contains(out, "case 4711") {
		t.Errorf("shred: %s", out)
	}
	keysCommand(t, 0, "shred", id, "--reason", "again", "--json", "-c", file)
	if out := keysCommand(t, 0, "ls", "-c", file); !strings.Contains(out, "shredded") {
		t.Errorf("ls: %s", out)
	}
	if out := keysCommand(t, 0, "show", id, "-c", file); !strings.Contains(out, "case 4711") {
		t.Errorf("show: %s", out)
	}
	if out := keysCommand(t, 0, "verify", "-c", file); !strings.Contains(out, "1 recordings are shredded") {
		t.Errorf("verify: %s", out)
	}
	log := keysCommand(t, 0, "audit", "ls", "-c", file)
	for _, want := range []string{"key.rotated", "key.rewrapped", "key.retired", "recording.shredded", "not-found", "repeat", "begun", "api-token"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not tell of %s:\n%s", want, log)
		}
	}
	stop()
	keysCommand(t, 2, "keys", "rewrap", "--status", "-c", file)
	keysCommand(t, 0, "keys", "rotate", "-c", file)
	stop = serving(t, file, cfg)
	if log := keysCommand(t, 0, "audit", "ls", "-c", file); !strings.Contains(log, "command line") {
		t.Errorf("what was done without the daemon:\n%s", log)
	}
	stop()
}

// TestVerifyWithoutKeys: keys that are not at hand are counted and named apart, with
// what to do, and are another exit code than damage.
func TestVerifyWithoutKeys(t *testing.T) {
	dir, file, cfg := mustSite(t)
	mustRecord(t, dir, cfg)
	kept, err := os.ReadFile(cfg.Keys.File)
	if err != nil {
		t.Fatal(err)
	}
	_, _, other := mustSite(t)
	a, err := openArchive(t.Context(), other, nil) // makes keys
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	mustCopyKeys(t, other.Keys.File, cfg.Keys.File)
	if out := keysCommand(t, exitUnread, "verify", "-c", file); !strings.Contains(out, "1 recordings are not opened, their key is revoked") || !strings.Contains(out, "remedy: key-revoked") {
		t.Errorf("verify: %s", out)
	}
	if err := os.WriteFile(cfg.Keys.File, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	keysCommand(t, exitFine, "verify", "-c", file)
}

func mustCopyKeys(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
