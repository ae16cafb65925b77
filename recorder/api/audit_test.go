package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// fakeAudit keeps what is told, and fails when it is told to.
type fakeAudit struct {
	mu  sync.Mutex
	got []Access
	err error
}

func (f *fakeAudit) Access(_ context.Context, a Access) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.got = append(f.got, a)
	}
	return f.err
}

func (f *fakeAudit) Verified(a Access) { _ = f.Access(context.Background(), a) }
func (f *fakeAudit) Keys() AuditKeys {
	return AuditKeys{Node: "rec-a", Keys: []AuditKey{{ID: "0f", Created: time.Unix(0, 0)}}}
}

func (f *fakeAudit) Entries(_ context.Context, q AuditQuery) (AuditPage, error) {
	if q.Log != "" {
		return AuditPage{}, recorder.ErrNotFound
	}
	return AuditPage{Log: "l", Logs: []string{"l"}, Entries: []AuditEntry{{N: q.After + 1, Kind: "access.get"}}, Next: -1}, nil
}

func (f *fakeAudit) Proof(_ context.Context, _ string, n int64) (AuditProof, error) {
	if n > 3 {
		return AuditProof{}, recorder.ErrNotFound
	}
	return AuditProof{Log: "l", Entry: n}, nil
}

func (f *fakeAudit) Bundle(_ context.Context, id string, _ bool) (Bundle, error) {
	if id != "r1" {
		return Bundle{}, recorder.ErrNotFound
	}
	return Bundle{Name: "r1.zip", Close: func() {}, Write: func(w io.Writer) error {
		_, err := io.WriteString(w, "PK")
		return err
	}}, nil
}

// TestAccesses: each access is told with who and what before it is served, and
// nothing is served when it cannot be.
func TestAccesses(t *testing.T) {
	log := &fakeAudit{}
	f := mustServe(t, func(c *Config) { c.Audit = log })
	for _, c := range []struct {
		method, path, body string
		status             int
		kind, recording    string
		result             string
	}{
		{"GET", "/v1/recordings", "", 200, "access.list", "", "served"},
		{"GET", "/v1/recordings/r1", "", 200, "access.get", "r1", "served"},
		{"GET", "/v1/recordings/none", "", 404, "access.get", "none", "not-found"},
		{"GET", "/v1/recordings/r1/media", "", 200, "access.media", "r1", "served"},
		{"GET", "/v1/recordings/r1/bundle", "", 200, "access.bundle", "r1", "served"},
		{"GET", "/v1/recordings/none/bundle", "", 404, "access.bundle", "none", "not-found"},
		{"GET", "/v1/audit?after=4", "", 200, "access.audit", "", "served"},
		{"GET", "/v1/audit?log=other", "", 404, "access.audit", "", "not-found"},
		{"GET", "/v1/audit/entries/3/proof", "", 200, "access.audit", "", "served"},
		{"GET", "/v1/audit/entries/4/proof", "", 404, "access.audit", "", "not-found"},
		{"POST", "/v1/verify", `{"ids":["r1"]}`, 200, "access.verify", "r1", "served"},
	} {
		log.got, log.err = nil, nil
		if body, _ := f.mustDo(t, c.method, c.path, c.body, c.status); c.status == 404 && strings.Contains(c.path, "audit") && !strings.Contains(body, "audit log") {
			t.Errorf("%s %s: %s", c.method, c.path, body)
		}
		if len(log.got) == 0 {
			t.Errorf("%s %s leaves no trace", c.method, c.path)
			continue
		}
		if a := log.got[0]; a.Kind != c.kind || a.Recording != c.recording || a.Result != c.result || a.Who == "" || !strings.HasPrefix(a.From, "127.0.0.1:") {
			t.Errorf("%s %s: %+v", c.method, c.path, a)
		}
		log.err = errors.New("no space left on device")
		body, _ := f.mustDo(t, c.method, c.path, c.body, 503)
		if !strings.Contains(body, `"code":"audit-unavailable"`) || strings.Contains(body, "device") {
			t.Errorf("%s %s without a log: %s", c.method, c.path, body)
		}
	}
	if body, _ := f.mustDo(t, "GET", "/v1/audit/keys", "", 200); !strings.Contains(body, `"node":"rec-a"`) {
		t.Error(body)
	}
}
