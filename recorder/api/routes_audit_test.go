package api

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

// audited says of each operation what entry it leaves in the log before it answers.
// An operation that is not listed fails the test: decide what it shows.
var audited = map[string]string{
	"GET /v1/recordings":                  "access.list",
	"GET /v1/recordings/r1":               "access.get",
	"GET /v1/recordings/r1/media":         "access.media",
	"HEAD /v1/recordings/r1/media":        "access.media",
	"GET /v1/recordings/r1/bundle":        "access.bundle",
	"POST /v1/verify":                     "access.verify",
	"GET /v1/audit":                       "access.audit",
	"GET /v1/audit/entries/{entry}/proof": "access.audit",
}

// unaudited shows nothing of what was recorded, for a reason. What keys and shred do
// is written by who does it: see recorder/archive and cmd/trunktap.
var unaudited = map[string]string{
	"GET /v1/audit/keys":               "public keys",
	"GET /v1/keys":                     "names of keys and numbers of recordings",
	"POST /v1/keys/rotate":             "an entry of its own, key.rotated",
	"POST /v1/keys/rewrap":             "an entry of its own, key.rewrapped",
	"GET /v1/keys/rewrap":              "how far it is",
	"POST /v1/keys/rewrap/cancel":      "ends what key.rewrapped tells",
	"POST /v1/keys/retire":             "an entry of its own, key.retired",
	"POST /v1/recordings/r1/shred":     "an entry of its own, recording.shredded",
	"GET /v1/recordings/{id}/holds":    "who holds it, and why",
	"POST /v1/recordings/{id}/holds":   "an entry of its own, recording.held",
	"POST /v1/recordings/{id}/release": "an entry of its own, recording.released",
	"GET /v1/calls":                    "calls that go on, none of their audio; it must work while the log does not",
	"GET /v1/events":                   "the same",
	"GET /v1/trunks":                   "configuration and counters",
	"GET /v1/usage":                    "sums",
	"POST /v1/signals":                 "it takes, and shows nothing; what came of it is in the manifest. The call comes first",
	"POST /v1/signals/batch":           "the same",
	"GET /metrics":                     "counters",
	"GET /openapi.json":                "this description",
	"GET /healthz":                     "open to all",
	"GET /readyz":                      "open to all",
}

// TestEveryRouteIsAudited walks the OpenAPI document: what shows something of
// recordings leaves its entry first, and without a log shows nothing.
func TestEveryRouteIsAudited(t *testing.T) {
	log := &fakeAudit{}
	f := mustServe(t, func(c *Config) { c.Audit = log })
	seen := map[string]bool{}
	for _, op := range f.operations(t) {
		if unaudited[op] != "" || strings.HasPrefix(op, "POST /v1/calls/") { // signals to a call
			continue
		}
		kind := audited[op]
		if kind == "" {
			t.Errorf("%s: does it show something of recordings? list it in audited or unaudited", op)
			continue
		}
		seen[op] = true
		method, path, _ := strings.Cut(op, " ")
		path, body := strings.Replace(path, "{entry}", "3", 1), ""
		if method == "POST" {
			body = "{}"
		}
		log.got, log.err = nil, nil
		f.mustDo(t, method, path, body, 200)
		if len(log.got) == 0 || log.got[0].Kind != kind || log.got[0].Who == "" || log.got[0].From == "" {
			t.Errorf("%s leaves %+v, want %s", op, log.got, kind)
		}
		log.err = errors.New("no space left on device")
		f.mustDo(t, method, path, body, 503)
	}
	for op := range maps.Keys(audited) {
		if !seen[op] {
			t.Errorf("there is no %s: %v", op, slices.Sorted(maps.Keys(seen)))
		}
	}
}

// TestListedFilters: of a search the log has the names of its filters, and none of
// what was looked for.
func TestListedFilters(t *testing.T) {
	log := &fakeAudit{}
	f := mustServe(t, func(c *Config) { c.Audit = log })
	f.mustDo(t, "GET", "/v1/recordings?number=%2B49301234&limit=7", "", 200)
	if len(log.got) != 1 || !strings.HasSuffix(log.got[0].What, "; filters: limit, number") || strings.Contains(log.got[0].What, "4930") {
		t.Errorf("%+v", log.got)
	}
}
