package main

import (
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// TestLiveRegions: a region of a trunk, another one of a station, and a trunk without any:
// what each of them records lies in its own store and in no other.
func TestLiveRegions(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	dir := t.TempDir()
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16, recorder.FormatWAVPCM16)
	trunks[0].Recording = append(trunks[0].Recording, "storage: eu", "adhoc: true")
	d := newLiveDaemon(t, liveConfig{
		Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, Store: filepath.Join(dir, "home"), Storage: []string{
			fmt.Sprintf("regions: {eu: {url: %q}, us: {url: %q}}", "file://"+filepath.Join(dir, "eu"), "file://"+filepath.Join(dir, "us")),
		},
		More: "stations: [{user: desk, recording: {storage: us}}]\n",
	})
	d.start()
	calls := []*livePair{d.call(agents[0], [2]float64{440, 660}), d.call(agents[1], [2]float64{500, 800})}
	signal := map[string]any{"v": 1, "event": "adhoc.start", "user": "desk", "source": "test"}
	if err := d.do(http.MethodPost, "/v1/calls/by-sip-call-id/"+calls[0].external.ID()+"/signals", signal, nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond)
	if err := together(len(calls), func(i int) error { return calls[i].bye(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	var page listing
	d.within(livePublishLimit, "all are stored", func() error {
		if err := d.get("/v1/recordings?limit=100", &page); err != nil || len(page.Recordings) != 5 {
			return fmt.Errorf("%d recordings: %w", len(page.Recordings), err)
		}
		return nil
	})
	d.waitMetric("trunktap_upload_waiting", isZero)
	want := map[string][]string{"home": nil, "eu": nil, "us": nil}
	for _, m := range page.Recordings {
		where := "home"
		switch {
		case m.Kind == recorder.KindStation:
			where = "us"
		case m.Trunk == trunks[0].Name:
			where = "eu"
		}
		want[where] = append(want[where], m.ID)
	}
	if len(want["home"]) != 1 || len(want["eu"]) != 2 || len(want["us"]) != 2 {
		t.Fatalf("recorded: %v", want)
	}
	for where, ids := range want {
		slices.Sort(ids)
		if got := storedUnder(t, filepath.Join(dir, where)); !slices.Equal(got, ids) {
			t.Errorf("the store of %s has %v, want %v", where, got, ids)
		}
	}
	t.Log(strings.TrimSpace(d.command("verify")))
	d.stop()
}

// storedUnder are the recordings of which a file lies in a store, its audit log aside.
func storedUnder(t *testing.T, store string) []string {
	t.Helper()
	ids := map[string]bool{}
	err := filepath.WalkDir(store, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && name == filepath.Join(store, "audit") {
			return fs.SkipDir
		}
		if err == nil && !e.IsDir() {
			ids[filepath.Base(filepath.Dir(name))] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(ids))
}
