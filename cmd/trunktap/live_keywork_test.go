package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
)

// refusedCommand runs a command that must fail and returns what it said.
func (d *liveDaemon) refusedCommand(args ...string) string {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), d.binary, append(args, "-c", d.config)...)
	out, err := cmd.CombinedOutput()
	if e := (*exec.ExitError)(nil); !errors.As(err, &e) || e.ExitCode() != exitFailed {
		d.t.Errorf("%v: %v, %s", args, err, out)
	}
	return string(out)
}

// wantStored waits until the catalogue accounts for the bytes that a directory store has.
func (d *liveDaemon) wantStored() {
	d.t.Helper()
	u := must(url.Parse(d.cfg.StoreURL))(d.t)
	d.within(time.Minute, "usage is what is stored", func() error {
		stored := int64(0)
		err := filepath.WalkDir(u.Path, func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(name, filepath.Join(u.Path, "audit")) {
				return err
			}
			info, err := e.Info()
			if err == nil {
				stored += info.Size()
			}
			return err
		})
		var out struct{ Usage []recorder.Usage }
		if err := errors.Join(err, d.get("/v1/usage", &out)); err != nil {
			return err
		}
		if len(out.Usage) != 1 || out.Usage[0].Bytes() != stored {
			return fmt.Errorf("%+v, %d bytes are stored", out.Usage, stored)
		}
		return nil
	})
}

// TestLiveKeyWork rotates, rewraps, retires and shreds through the daemon while a
// call goes on: the call is not touched, keys that it needs stay, everybody is told
// of what is gone, the account fits and the log has all of it.
func TestLiveKeyWork(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	trunks, agents := twoTrunks(t, recorder.FormatOggOpus, recorder.FormatWAVPCM16)
	d := newLiveDaemon(t, liveConfig{Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, SegmentMax: time.Second})
	d.start()
	first := d.call(agents[0], [2]float64{440, 660})
	time.Sleep(1500 * time.Millisecond) // some audio
	if err := first.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := d.recordings(1)[first.external.ID()].ID
	going := d.call(agents[1], [2]float64{500, 800})
	goes := ""
	d.within(time.Minute, "the second call is recorded", func() error {
		var calls struct {
			Calls []struct {
				Recordings []struct{ ID string } `json:"recordings"`
			} `json:"calls"`
		}
		if err := d.get("/v1/calls", &calls); err != nil {
			return err
		}
		if len(calls.Calls) != 1 || len(calls.Calls[0].Recordings) != 1 {
			return fmt.Errorf("%+v", calls)
		}
		goes = calls.Calls[0].Recordings[0].ID
		return nil
	})
	var list api.KeyList
	keys := func() api.KeyList {
		t.Helper()
		list = api.KeyList{}
		if err := d.get("/v1/keys?uses=true", &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	d.within(time.Minute, "the key of what goes on is counted", func() error {
		if keys(); len(list.Keys) != 1 || list.Keys[0].Recordings != 2 || list.Keys[0].Live != 1 || list.Unknown != "" {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	old := list.Active
	d.command("keys", "rotate")
	if keys(); list.Active == old || len(list.Keys) != 2 {
		t.Errorf("after the rotation: %+v", list)
	}
	d.refusedCommand("keys", "retire", old)
	if out := d.command("keys", "rewrap"); !strings.Contains(out, "1 rewrapped") {
		t.Errorf("rewrap: %s", out)
	}
	d.refusedCommand("keys", "retire", old) // the call that goes on needs it
	checkVoices(t, d.recordings(1)[first.external.ID()], d.export(gone), first.hz)
	d.wantStored()

	var order api.ShredResult
	if err := d.do(http.MethodPost, "/v1/recordings/"+goes+"/shred", api.ShredOrder{Reason: "case 2"}, &order); err == nil || !strings.Contains(err.Error(), "409") {
		t.Errorf("shred what goes on: %v", err)
	}
	d.command("shred", goes, "--reason", "case 2", "--when-ended")
	if err := d.do(http.MethodPost, "/v1/recordings/"+gone+"/shred", api.ShredOrder{Reason: "case 1"}, &order); err != nil || order.State != "shredded" || order.Rest != "" {
		t.Fatalf("%+v, %v", order, err)
	}
	if err := d.get("/v1/recordings/"+gone, nil); err == nil || !strings.Contains(err.Error(), `"code":"shredded"`) || !strings.Contains(err.Error(), `"reason":"case 1"`) {
		t.Errorf("the API says of it: %v", err)
	}
	if out := d.command("show", gone); !strings.Contains(out, "case 1") || !strings.Contains(out, "shredded") {
		t.Errorf("show: %s", out)
	}
	if out := d.refusedCommand("export", gone, "-o", filepath.Join(t.TempDir(), "x.wav")); !strings.Contains(out, "case 1") {
		t.Errorf("export: %s", out)
	}
	d.wantStored()
	time.Sleep(time.Second)
	if err := going.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.within(time.Minute, "the recording is shredded that was to be when it had ended", func() error {
		if err := d.get("/v1/recordings/"+goes, nil); err == nil || !strings.Contains(err.Error(), `"code":"shredded"`) {
			return fmt.Errorf("the API says: %v", err)
		}
		return nil
	})
	d.wantStored()
	if out := d.command("verify"); !strings.Contains(out, "2 recordings are shredded") {
		t.Errorf("verify: %s", out)
	}
	if out := d.refusedCommand("keys", "retire", old); !strings.Contains(out, "journal") {
		t.Errorf("retire beside the journal: %s", out)
	}
	last := d.call(agents[0], [2]float64{440, 660})
	time.Sleep(1500 * time.Millisecond)
	if err := last.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.within(time.Minute, "the last recording is listed", func() error {
		if out := d.command("ls"); strings.Count(out, "shredded") != 2 || strings.Count(out, "\n") != 4 {
			return errors.New(out)
		}
		return nil
	})
	d.stop()
	d.start() // the journal takes the new key
	d.command("keys", "retire", old)
	d.command("keys", "rewrap", "--status")
	if keys(); len(list.Keys) != 1 || list.Keys[0].Recordings != 1 {
		t.Errorf("in the end: %+v", list)
	}
	if out := d.command("verify"); !strings.Contains(out, "3 recordings") {
		t.Errorf("verify: %s", out)
	}
	d.wantStored()
	wantTraces(t, d, map[string]int{
		"key.rotated done": 1, "key.rewrapped begun": 1, "key.rewrapped done": 1, "key.retired refused": 3, "key.retired done": 1,
		"recording.shredded done": 2, "recording.shredded refused": 1, "recording.shredded waits": 1,
	})
	d.stop()
}

// wantTraces demands entries by kind and result, each with who asked.
func wantTraces(t *testing.T, d *liveDaemon, want map[string]int) {
	t.Helper()
	var page api.AuditPage
	if err := d.get("/v1/audit?limit=1000", &page); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, e := range page.Entries {
		what := e.Kind + " " + e.Result
		if got[what]++; want[what] > 0 && (e.Who == "" || e.From == "") {
			t.Errorf("nobody did this: %+v", e)
		}
	}
	for what, n := range want {
		if got[what] != n {
			t.Errorf("the log has %s %d times, want %d", what, got[what], n)
		}
	}
}
