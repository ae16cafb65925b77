package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
)

func TestRecordings(t *testing.T) {
	f := mustServe(t, nil)
	body, _ := f.mustDo(t, "GET", "/v1/recordings", "", 200)
	var l Listing
	if err := json.Unmarshal([]byte(body), &l); err != nil || len(l.Recordings) != 2 || l.Next != "more" {
		t.Fatalf("%s: %v", body, err)
	}
	if got := l.Recordings[0].Links; got != (Links{"/v1/recordings/r1", "/v1/recordings/r1/media"}) || l.Recordings[1].Links.Media != "" {
		t.Errorf("links %+v", l.Recordings)
	}
	if got := l.Recordings[0]; got.Kind != recorder.KindStation || got.User != "alice" || !strings.Contains(body, `"kind":"station","user":"alice"`) {
		t.Errorf("kind and user: %s", body)
	}
	if strings.Contains(body, "null") || strings.Contains(body, "$schema") {
		t.Errorf("not as in the contract: %s", body)
	}
	if f.lib.query.Limit != 100 || f.lib.query.Order != "" {
		t.Errorf("defaults %+v", f.lib.query)
	}
	f.mustDo(t, "GET", "/v1/recordings?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00%2B01:00&trunk=a&number=%2B49&sip_call_id=x%40y&conversation=c&kind=station&user=J%C3%BCrgen+K&limit=7&cursor=z&order=oldest", "", 200)
	want := recorder.Query{
		From: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 1, 31, 23, 0, 0, 0, time.UTC),
		Trunk: "a", Number: "+49", SIPCallID: "x@y", Conversation: "c", Kind: "station", User: "Jürgen K", Limit: 7, Cursor: "z", Order: "oldest",
	}
	if d := cmp.Diff(want, f.lib.query); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"limit=0", "limit=1001", "limit=x", "from=yesterday", "kind=x", "order=up", "cursor=bad", "user=" + strings.Repeat("x", 1025), "trunk=", "trunk=a&trunk=b", "attr==x", "total=x", "nosuch=1", "mos_below=9", "duration_min=2h&duration_max=1h"} {
		f.mustDo(t, "GET", "/v1/recordings?"+bad, "", 422)
	}
}

func TestManifestIsExact(t *testing.T) {
	f := mustServe(t, nil)
	body, _ := f.mustDo(t, "GET", "/v1/recordings/r1", "", 200)
	want, err := json.Marshal(Complete(f.lib.rows()[0].Manifest))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), strings.TrimSpace(body)); d != "" {
		t.Error(d)
	}
	f.mustDo(t, "GET", "/v1/recordings/r9", "", 404)
	for err, status := range map[error]int{recorder.ErrKey: 503, recorder.ErrTampered: 500, errors.New("SELECT failed"): 500} {
		f.lib.err = err
		if body, _ := f.mustDo(t, "GET", "/v1/recordings/r1", "", status); strings.Contains(body, "SELECT") {
			t.Error(body)
		}
	}
}

func TestMedia(t *testing.T) {
	f := mustServe(t, nil)
	body, h := f.mustDo(t, "GET", "/v1/recordings/r1/media", "", 200)
	if body != string(audio) || h.Get("Content-Type") != "audio/wav" || h.Get("Content-Disposition") != "attachment; filename=r1.wav" || h.Get("Accept-Ranges") != "bytes" {
		t.Errorf("%d bytes, %v", len(body), h)
	}
	_, h = f.mustDo(t, "HEAD", "/v1/recordings/r1/media?format=ogg-opus", "", 200)
	if h.Get("Content-Length") != "1000" || h.Get("Content-Type") != "audio/ogg" {
		t.Errorf("HEAD: %v", h)
	}
	body, h = f.mustDo(t, "GET", "/v1/recordings/r1/media", "", 206, "Range", "bytes=995-")
	if body != "56789" || h.Get("Content-Range") != "bytes 995-999/1000" {
		t.Errorf("%q %v", body, h)
	}
	if h.Get("Trunktap-Damaged") != "" {
		t.Errorf("damage out of nothing: %v", h)
	}
	resp := f.request(t, "GET", "/v1/recordings/r1/media", "", "Range", "bytes=5000-")
	if resp.StatusCode != 416 {
		t.Errorf("range beyond the end: %d", resp.StatusCode)
	}
	f.lib.damaged = true
	if _, h = f.mustDo(t, "GET", "/v1/recordings/r1/media", "", 200); h.Get("Trunktap-Damaged") != "true" {
		t.Errorf("damage is not told: %v", h)
	}
	f.mustDo(t, "GET", "/v1/recordings/r2/media", "", 404)
	f.mustDo(t, "GET", "/v1/recordings/r1/media?format=aiff", "", 422)
	if f.lib.closed != 5 {
		t.Errorf("closed %d times", f.lib.closed)
	}
}

func TestVerify(t *testing.T) {
	f := mustServe(t, nil)
	report := `"report":{"recordings":2,"segments":0,"frames":0,"bytes":0,"findings":[{"recording":"r2","fault":"missing","detail":"it is gone"}]}`
	body, h := f.mustDo(t, "POST", "/v1/verify", `{}`, 200)
	if body != `{"done":1,"total":2}`+"\n"+`{"done":2,"total":2,`+report+"}\n" || h.Get("Content-Type") != "application/x-ndjson" {
		t.Error(body)
	}
	if body, _ := f.mustDo(t, "POST", "/v1/verify", `{"ids":["r2"]}`, 200); !strings.Contains(body, `"recordings":1,`) {
		t.Error(body)
	}
	f.mustDo(t, "POST", "/v1/verify", `{"id":"r2"}`, 422)
	f.lib.err = errors.New("/var/lib is gone")
	if body, _ := f.mustDo(t, "POST", "/v1/verify", `{}`, 200); !strings.HasSuffix(body, report+`,"error":"the server failed, its log says why"}`+"\n") {
		t.Error(body)
	}
}
