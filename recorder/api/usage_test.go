package api

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/recorder"
)

func TestUsage(t *testing.T) {
	var asked recorder.UsageQuery
	f := mustServe(t, func(c *Config) {
		c.Usage = func(_ context.Context, q recorder.UsageQuery) ([]recorder.Usage, error) {
			asked = q
			return []recorder.Usage{{Day: "2026-11-22", Recordings: 2, AudioBytes: 5}}, q.Check()
		}
	})
	body, _ := f.mustDo(t, "GET", "/v1/usage?group=day,trunk&from=2026-11-01&to=2026-12-01&kind=station&user=a", "", 200)
	if want := `{"usage":[{"day":"2026-11-22","recordings":2,"audio_ms":0,"audio_bytes":5,"manifest_bytes":0,"other_bytes":0}]}`; strings.TrimSpace(body) != want {
		t.Error(body)
	}
	if d := cmp.Diff(recorder.UsageQuery{Group: []string{"day", "trunk"}, From: "2026-11-01", To: "2026-12-01", Kind: "station", User: "a"}, asked); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"group=week", "group=day,day", "from=yesterday", "x=1"} {
		f.mustDo(t, "GET", "/v1/usage?"+bad, "", 422)
	}
}
