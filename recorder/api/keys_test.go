package api

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// fakeKeys answers with one error, or with what it was asked.
type fakeKeys struct {
	err error
	by  Actor
	got string
}

func (f *fakeKeys) List(_ context.Context, uses bool) (KeyList, error) {
	return KeyList{Mode: "local", Active: "7", Keys: []Key{{Name: "7", Active: true}}, Counted: uses}, f.err
}

func (f *fakeKeys) Rotate(_ context.Context, by Actor) (KeyRotation, error) {
	f.by = by
	return KeyRotation{Key: "8", Before: "7"}, f.err
}

func (f *fakeKeys) Rewrap(_ context.Context, o RewrapOrder, by Actor) (RewrapState, error) {
	f.by = by
	return RewrapState{State: "running", Total: int64(o.PerSecond)}, f.err
}
func (f *fakeKeys) Rewrapping() RewrapState { return RewrapState{State: "idle"} }

func (f *fakeKeys) CancelRewrap(_ context.Context, by Actor) (RewrapState, error) {
	f.by = by
	return RewrapState{State: "cancelled"}, f.err
}

func (f *fakeKeys) Retire(_ context.Context, o RetireOrder, by Actor) error {
	if f.by, f.got = by, o.Key; o.OtherNodesAsked {
		f.got += " others asked"
	}
	return f.err
}

func (f *fakeKeys) Shred(_ context.Context, id string, o ShredOrder, by Actor) (ShredResult, error) {
	f.by, f.got = by, id+" "+o.Reason
	return ShredResult{Shredded: recorder.Shredded{Reason: o.Reason}, State: "shredded"}, f.err
}

// TestKeys: each route hands on what it was asked, with who asks, and each error
// has its code.
func TestKeys(t *testing.T) {
	keys := &fakeKeys{}
	f := mustServe(t, func(c *Config) { c.Keys = keys })
	for _, c := range []struct{ method, path, body, want, got string }{
		{"GET", "/v1/keys?uses=true", "", `"counted":true`, ""},
		{"POST", "/v1/keys/rotate", "", `"key":"8"`, ""},
		{"POST", "/v1/keys/rewrap", `{"per_second":9}`, `"total":9`, ""},
		{"POST", "/v1/keys/rewrap", `{}`, `"total":50`, ""},
		{"GET", "/v1/keys/rewrap", "", `"state":"idle"`, ""},
		{"POST", "/v1/keys/rewrap/cancel", "", `"state":"cancelled"`, ""},
		{"POST", "/v1/keys/retire", `{"key":"7"}`, `"retired":"7"`, "7"},
		{"POST", "/v1/keys/retire", `{"key":"7","other_nodes_asked":true}`, `"retired":"7"`, "7 others asked"},
		{"POST", "/v1/recordings/r1/shred", `{"reason":"case 1"}`, `"reason":"case 1"`, "r1 case 1"},
	} {
		*keys = fakeKeys{}
		body, _ := f.mustDo(t, c.method, c.path, c.body, 200)
		if !strings.Contains(body, c.want) || keys.got != c.got {
			t.Errorf("%s %s: %s, asked for %q", c.method, c.path, body, keys.got)
		}
		if c.method == "POST" && (keys.by.Who == "" || !strings.HasPrefix(keys.by.From, "127.0.0.1:")) {
			t.Errorf("%s %s: nobody asks: %+v", c.method, c.path, keys.by)
		}
	}
	for _, body := range []string{`{"key":""}`, `{}`, `{"key":"7","also":1}`, ``} {
		f.mustDo(t, "POST", "/v1/keys/retire", body, map[bool]int{true: 400, false: 422}[body == ""])
	}
	f.mustDo(t, "POST", "/v1/recordings/r1/shred", `{"reason":""}`, 422)
	f.mustDo(t, "POST", "/v1/keys/rewrap", `{"per_second":100000}`, 422)
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		err    error
		status int
		want   string
	}{
		{&recorder.RefusedError{Why: "it goes on"}, 409, `"code":"refused"`},
		{recorder.ErrNotFound, 404, `"code":"not-found"`},
		{ErrAudit, 503, `"code":"audit-unavailable"`},
		{recorder.ErrKeyRevoked, 503, `"code":"key-revoked"`},
		{recorder.ErrKeyUnreachable, 503, `"code":"key-unavailable"`},
		{&recorder.ShreddedError{Recording: "r1", Shredded: recorder.Shredded{At: at, Reason: "case", By: "who"}}, 410, `"shredded":{"recording":"r1","at":"2026-11-22T00:00:00Z","reason":"case","by":"who"}`},
		{errors.New("disk /dev/sda1"), 500, `"code":"internal"`},
	} {
		*keys = fakeKeys{err: c.err}
		for _, path := range []string{"/v1/keys/rotate", "/v1/keys/rewrap/cancel"} {
			if body, _ := f.mustDo(t, "POST", path, "", c.status); !strings.Contains(body, c.want) || strings.Contains(body, "sda1") {
				t.Errorf("%v: %s", c.err, body)
			}
		}
		f.mustDo(t, "POST", "/v1/recordings/r1/shred", `{"reason":"case"}`, c.status)
		if body, _ := f.mustDo(t, "POST", "/v1/keys/retire", `{"key":"7"}`, c.status); c.status == 404 && !strings.Contains(body, "no such key") {
			t.Errorf("%v: %s", c.err, body)
		}
	}
}
