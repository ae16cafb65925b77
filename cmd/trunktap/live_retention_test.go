package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/sip/replay"
)

// recordOld puts calls of a capture into the store of a daemon that does not run yet, as
// old as they are there, and returns their recordings.
func recordOld(t *testing.T, d *liveDaemon, captures ...string) (ids []string) {
	t.Helper()
	cfg := must(loadConfig(d.config))(t)
	a := must(openArchive(t.Context(), cfg, nil))(t)
	plain := config.Default()
	plain.Trunks[0].Recording.Encode = liveEncode
	for _, name := range captures {
		src := must(openCaptures([]string{filepath.Join("..", "..", "testdata", name)}))(t)
		rec := must(recorder.New(recorder.Config{Policy: newPolicy(plain), OpenSink: a.OpenSink, Synchronous: true}))(t)
		run := replay.Config{Trunks: replayTrunks(plain), Recording: &replay.Recording{Sources: followedSources(plain), Decodable: decodable}}
		if _, err := replay.Run(t.Context(), src, run, rec, func(replay.Progress) {}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(rec.Close(context.Background()), src.close()); err != nil {
			t.Fatal(err)
		}
		done, err := rec.Results()
		if err != nil || len(done) == 0 {
			t.Fatalf("%s: %d recordings, %v", name, len(done), err)
		}
		for _, m := range done {
			ids = append(ids, m.ID)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return ids
}

// TestLiveRetention: old recordings go while a call goes on, and what is younger stays;
// log, verify and metrics tell of it.
func TestLiveRetention(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	trunks, agents := twoTrunks(t, recorder.FormatOggOpus)
	d := newLiveDaemon(t, liveConfig{
		Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()},
		More: "retention:\n  every: 1s\n  rules:\n    - {delete_after: never, kind: consult}\n    - {delete_after: 90d}\n",
	})
	old := recordOld(t, d, "sim-codec-change-by-re-INVITE.pcap", "sim-new-source-in-mid-call.pcap")
	var shown []string
	for line := range strings.SplitSeq(strings.TrimSpace(d.command("retention", "--json")), "\n") {
		var x expiry
		if err := json.Unmarshal([]byte(line), &x); err != nil || x.Due.Sub(x.Ended) != 90*24*time.Hour || x.Ended.Year() > 2001 {
			t.Errorf("%s: %v", line, err)
		}
		shown = append(shown, x.ID)
	}
	slices.Sort(old)
	slices.Sort(shown)
	if !slices.Equal(shown, old) {
		t.Errorf("retention shows %v, want %v", shown, old)
	}
	d.command("hold", old[0], "--name", "case 1", "--reason", "letter of 2 November") // by the command alone
	d.start()
	c := d.call(agents[0], [2]float64{440, 660})
	d.waitMetric("trunktap_retention_deleted_total", func(v float64) bool { return v == float64(len(old)-1) })
	d.waitMetric("trunktap_retention_kept", func(v float64) bool { return v == 1 })
	d.command("hold", old[0], "--name", "case 2", "--reason", "another one") // by the daemon
	if text := d.command("release", old[0], "--name", "case 1", "--reason", "over"); !strings.Contains(text, "case 2") {
		t.Errorf("left: %s", text)
	}
	if text := d.command("retention"); !strings.Contains(text, "1 are under legal hold") {
		t.Errorf("retention: %s", text)
	}
	d.command("release", old[0], "--name", "case 2", "--reason", "over")
	d.waitMetric("trunktap_retention_deleted_total", func(v float64) bool { return v == float64(len(old)) })
	if err := c.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := d.recordings(1)[c.external.ID()]
	if m == nil {
		t.Fatal("the call is not recorded")
	}
	checkVoices(t, m, d.export(m.ID), c.hz)
	text := d.command("verify")
	if !strings.Contains(text, "1 recordings") {
		t.Errorf("verify: %s", text)
	}
	for _, id := range old {
		if text := d.command("verify", id); !strings.Contains(text, "by retention: it need not be kept since") {
			t.Errorf("verify %s: %s", id, text)
		}
	}
	done := 0
	for line := range strings.SplitSeq(d.command("audit", "ls", "--json"), "\n") {
		var e audit.Entry
		if json.Unmarshal([]byte(line), &e) == nil && e.Kind == audit.KindDeleted && e.Done() && slices.Contains(old, e.Recording) {
			done++
		}
	}
	if done != len(old) {
		t.Errorf("the log tells of %d of %d", done, len(old))
	}
	d.stop()
}

// TestLiveGiveWay: on a disk that is low old recordings make room, and calls are recorded
// as long as there are any; then none begins.
func TestLiveGiveWay(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	dir := mountTmpfs(t, 300<<20)
	trunks, agents := twoTrunks(t, recorder.FormatOggOpus)
	d := newLiveDaemon(t, liveConfig{
		Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()},
		Store: filepath.Join(dir, "store"), Spool: filepath.Join(dir, "spool"),
		Storage: []string{"on_disk_low: {warn: 60%, at: 40%, do: delete-expired}"},
		More:    "retention:\n  rules:\n    - {delete_after: never, give_way_after: 30d}\n",
	})
	old := recordOld(t, d, "sim-codec-change-by-re-INVITE.pcap")
	d.start()
	filler := filepath.Join(dir, "filler")
	fillUp(t, filler)
	d.waitMetric("trunktap_retention_gave_way_total", func(v float64) bool { return v == float64(len(old)) })
	d.waitMetric("trunktap_recordings_admitted", func(v float64) bool { return v == 0 })
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.waitMetric("trunktap_recordings_admitted", func(v float64) bool { return v == 1 })
	c := d.call(agents[0], [2]float64{440, 660})
	time.Sleep(1500 * time.Millisecond)
	if err := c.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := d.recordings(1)[c.external.ID()]
	if m == nil {
		t.Fatal("the call is not recorded")
	}
	checkAccount(t, m)
	if text := string(must(os.ReadFile(d.log))(t)); !strings.Contains(text, "event=storage.made_room") {
		t.Error("the log does not tell of the room")
	}
	d.command("verify")
	d.stop()
}

// fillUp fills a disk to its last byte.
func fillUp(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // full
	for block := make([]byte, 1<<20); len(block) > 0; {
		n, err := f.Write(block)
		if err != nil || n < len(block) {
			block = block[:len(block)/2]
		}
	}
}
