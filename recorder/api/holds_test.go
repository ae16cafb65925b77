package api

import (
	"context"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/recorder"
)

// fakeHolds answers with one error, or with what it was asked.
type fakeHolds struct {
	err error
	by  Actor
	got string
}

func (f *fakeHolds) Holds(_ context.Context, id string) ([]Hold, error) {
	if f.got == "" {
		return nil, f.err
	}
	return []Hold{{Name: id}}, f.err
}

func (f *fakeHolds) PlaceHold(_ context.Context, id string, o HoldOrder, by Actor) error {
	f.by, f.got = by, "hold "+id+" "+o.Name+" "+o.Reason
	return f.err
}

func (f *fakeHolds) ReleaseHold(_ context.Context, id string, o HoldOrder, by Actor) error {
	f.by, f.got = by, "release "+id+" "+o.Name+" "+o.Reason
	return f.err
}

// TestHolds: each route hands on what it was asked, with who asks, and errors have codes.
func TestHolds(t *testing.T) {
	holds := &fakeHolds{}
	f := mustServe(t, func(c *Config) { c.Holds = holds })
	for _, c := range []struct{ method, path, body, want, got string }{
		{"GET", "/v1/recordings/r1/holds", "", `"holds":[]`, ""},
		{"POST", "/v1/recordings/r1/holds", `{"name":"case 1","reason":"letter"}`, `"name":"r1"`, "hold r1 case 1 letter"},
		{"POST", "/v1/recordings/r1/release", `{"name":"case 1","reason":"over"}`, `"name":"r1"`, "release r1 case 1 over"},
	} {
		*holds = fakeHolds{}
		body, _ := f.mustDo(t, c.method, c.path, c.body, 200)
		if !strings.Contains(body, c.want) || holds.got != c.got {
			t.Errorf("%s %s: %s, asked for %q", c.method, c.path, body, holds.got)
		}
		if c.method == "POST" && (holds.by.Who == "" || !strings.HasPrefix(holds.by.From, "127.0.0.1:")) {
			t.Errorf("%s %s: nobody asks: %+v", c.method, c.path, holds.by)
		}
	}
	for _, path := range []string{"/v1/recordings/r1/holds", "/v1/recordings/r1/release"} {
		*holds = fakeHolds{}
		for _, body := range []string{`{"name":"case 1"}`, `{"name":"","reason":"x"}`, `{"reason":"x"}`} {
			f.mustDo(t, "POST", path, body, 422)
		}
		if holds.got != "" {
			t.Errorf("%s: asked for %q", path, holds.got)
		}
		for _, c := range []struct {
			err    error
			status int
			want   string
		}{
			{&recorder.RefusedError{Why: "it goes on"}, 409, `"code":"refused"`},
			{recorder.ErrNotFound, 404, `"code":"not-found"`},
			{ErrAudit, 503, `"code":"audit-unavailable"`},
		} {
			*holds = fakeHolds{err: c.err}
			if body, _ := f.mustDo(t, "POST", path, `{"name":"n","reason":"r"}`, c.status); !strings.Contains(body, c.want) {
				t.Errorf("%s: %s", path, body)
			}
		}
	}
}
