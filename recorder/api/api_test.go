package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "test-token-0123456789"

// fakeRuntime knows one live call, "c1" with Call-ID "a/b c@example".
type fakeRuntime struct {
	mu      sync.Mutex
	got     []suppress.Signal
	err     error
	subs    map[chan recorder.Event]bool
	changed chan struct{} // one element whenever a subscriber comes or goes
}

func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{subs: map[chan recorder.Event]bool{}, changed: make(chan struct{}, 1000)}
}

func (f *fakeRuntime) Calls() []recorder.LiveCall {
	return []recorder.LiveCall{
		{ID: "c1", Trunk: "carrier-a", SIPCallID: "a/b c@example", Recording: true, Recordings: []recorder.LiveRecording{
			{ID: "c1", Kind: recorder.KindTrunk}, {ID: "c1-st1", Kind: recorder.KindStation, User: "alice", Reasons: []string{"hold"}},
		}},
		{ID: "c2"},
	}
}

func (f *fakeRuntime) Signal(_ context.Context, s suppress.Signal) (recorder.Applied, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return recorder.Applied{}, f.err
	}
	if s.Call != "c1" && s.SIPCall != "a/b c@example" {
		return recorder.Applied{}, fmt.Errorf("call %q: %w", s.Call, recorder.ErrNotFound)
	}
	f.got = append(f.got, s)
	a := recorder.Applied{AppliedAt: s.At}
	if s.Event == suppress.HoldStart {
		a.Reasons = []string{"hold"}
	}
	return a, nil
}

func (f *fakeRuntime) Signals(ctx context.Context, sigs []suppress.Signal) []recorder.Outcome {
	var out []recorder.Outcome
	for _, s := range sigs {
		a, err := f.Signal(ctx, s)
		out = append(out, recorder.Outcome{Applied: a, Err: err})
	}
	return out
}

func (f *fakeRuntime) Subscribe() (<-chan recorder.Event, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch := make(chan recorder.Event, 8)
	f.subs[ch] = true
	f.changed <- struct{}{}
	return ch, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.subs[ch] {
			delete(f.subs, ch)
			f.changed <- struct{}{}
		}
	}
}

func (f *fakeRuntime) publish(e recorder.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ch := range f.subs {
		ch <- e
	}
}

type closer struct {
	*bytes.Reader
	closed *int
}

func (c closer) Close() error { *c.closed++; return nil }

// fakeLibrary has the recordings r1 (with audio) and r2 (without).
type fakeLibrary struct {
	query   recorder.Query
	closed  int
	damaged bool
	err     error
}

var audio = bytes.Repeat([]byte("0123456789"), 100)

func (f *fakeLibrary) rows() []recorder.Row {
	m := recorder.Manifest{Version: 1, ID: "r1", Trunk: "carrier-a", Format: "wav-pcm16", Segments: []recorder.Segment{{N: 1, File: "0001.wav"}}}
	m.Kind, m.User, m.Signals = recorder.KindStation, "alice", []recorder.ManifestSignal{{Event: suppress.HoldStart}}
	return []recorder.Row{{Manifest: m}, {Manifest: recorder.Manifest{Version: 1, ID: "r2"}}}
}

func (f *fakeLibrary) Get(_ context.Context, id string) (*recorder.Manifest, error) {
	if f.err != nil {
		return nil, f.err
	}
	for _, r := range f.rows() {
		if r.Manifest.ID == id {
			return &r.Manifest, nil
		}
	}
	return nil, recorder.ErrNotFound
}

func (f *fakeLibrary) Find(_ context.Context, q recorder.Query) (recorder.Page, error) {
	f.query = q
	if q.Cursor == "bad" {
		return recorder.Page{}, ErrCursor
	}
	return recorder.Page{Rows: f.rows(), Next: "more"}, f.err
}

func (f *fakeLibrary) Media(_ context.Context, id, format string) (Media, error) {
	if id != "r1" {
		return Media{}, recorder.ErrNotFound
	}
	m := Media{Content: closer{bytes.NewReader(audio), &f.closed}, Type: "audio/wav", Name: "r1.wav", Modified: time.Unix(1700000000, 0), Damaged: f.damaged}
	if format == "ogg-opus" {
		m.Type, m.Name = "audio/ogg", "r1.ogg"
	}
	return m, f.err
}

func (f *fakeLibrary) Verify(_ context.Context, q VerifyQuery, progress func(done, total int64)) (Report, error) {
	ids := q.IDs
	r := Report{}
	for i, row := range f.rows() {
		if len(ids) == 0 || ids[0] == row.Manifest.ID {
			r.Recordings++
			progress(int64(i+1), 2)
		}
		if row.Manifest.ID == "r2" && r.Recordings > 0 {
			r.Findings = []Finding{{Recording: "r2", Fault: "missing", Detail: "it is gone"}}
		}
	}
	return r, f.err
}

type fixture struct {
	*Server
	rt  *fakeRuntime
	lib *fakeLibrary
	url string
}

// mustServe starts a server on a loopback socket and closes it with the test.
func mustServe(t *testing.T, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{rt: newFakeRuntime(), lib: &fakeLibrary{}}
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "trunktap_test"}))
	cfg := Config{Runtime: f.rt, Library: f.lib, Metrics: reg, Token: token, Version: "1.2.3"}
	if change != nil {
		change(&cfg)
	}
	f.Server = New(cfg)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.url = "http://" + ln.Addr().String()
	done := make(chan error, 1)
	go func() { done <- f.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(f.Close(ctx), <-done); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return f
}

func (f *fixture) request(t *testing.T, method, path, body string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(method, f.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func (f *fixture) mustDo(t *testing.T, method, path, body string, wantStatus int, header ...string) (string, http.Header) {
	t.Helper()
	resp := f.request(t, method, path, body, header...)
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != wantStatus {
		t.Fatalf("%s %s: status %d, want %d: %s", method, path, resp.StatusCode, wantStatus, content)
	}
	if wantStatus >= 400 && method != http.MethodHead && path != "/readyz" {
		checkProblem(t, content, resp)
	}
	return string(content), resp.Header
}

func checkProblem(t *testing.T, content []byte, resp *http.Response) {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(content, &p); err != nil || p.Status != resp.StatusCode || p.Code == "" || p.Detail == "" || p.Title == "" || p.Type == "" {
		t.Errorf("no problem document: %s", content)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("problem has type %q", ct)
	}
}

// operations of the OpenAPI document as "METHOD path", with the path
// parameters filled in.
func (f *fixture) operations(t *testing.T) []string {
	t.Helper()
	text, _ := f.mustDo(t, "GET", "/openapi.json", "", 200)
	var doc struct {
		OpenAPI string                                `json:"openapi"`
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Fatalf("OpenAPI %q: %v", doc.OpenAPI, err)
	}
	fill := strings.NewReplacer("{call}", "c1", "{id}", "r1")
	var ops []string
	for path, methods := range doc.Paths {
		for m := range methods {
			ops = append(ops, strings.ToUpper(m)+" "+fill.Replace(path))
		}
	}
	return ops
}

func TestEveryRouteWantsTheToken(t *testing.T) {
	f := mustServe(t, nil)
	ops := append(f.operations(t), "GET /", "GET /nothing", "POST /healthz/x", "GET /v1/../healthz/../v1/calls", "GET //healthz", "GET /debug/pprof/")
	if len(ops) < 19 {
		t.Fatalf("only %d operations: %v", len(ops), ops)
	}
	for _, op := range ops {
		method, path, _ := strings.Cut(op, " ")
		if path == "/healthz" || path == "/readyz" {
			f.mustDo(t, method, path, "", 200, "Authorization", "")
			continue
		}
		for _, auth := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Basic " + token, token, "Bearer " + token + "x", "Bearer " + token[:5]} {
			_, h := f.mustDo(t, method, path, "", 401, "Authorization", auth)
			if h.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: no WWW-Authenticate", op)
			}
		}
	}
	f.mustDo(t, "GET", "/v1/calls", "", 200, "Authorization", "bearer "+token)
}

func TestDocumentNamesTheContract(t *testing.T) {
	f := mustServe(t, nil)
	all := strings.Join(f.operations(t), "\n") + "\n"
	for _, want := range []string{
		"POST /v1/calls/c1/signals", "POST /v1/calls/by-sip-call-id/r1/signals", "GET /v1/calls", "GET /v1/recordings", "GET /v1/recordings/r1",
		"GET /v1/recordings/r1/media", "POST /v1/signals", "GET /v1/events", "GET /healthz", "GET /readyz", "GET /metrics", "GET /openapi.json", "POST /v1/verify",
	} {
		if !strings.Contains(all, want+"\n") {
			t.Errorf("%s is not described", want)
		}
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	f := mustServe(t, nil)
	f.mustDo(t, "GET", "/v1/nothing", "", 404)
	_, h := f.mustDo(t, "DELETE", "/v1/calls", "", 405)
	if !strings.Contains(h.Get("Allow"), "GET") {
		t.Errorf("Allow: %q", h.Get("Allow"))
	}
	f.mustDo(t, "GET", "/v1/recordings?limti=5", "", 422)
}

func TestLimits(t *testing.T) {
	f := mustServe(t, nil)
	f.mustDo(t, "POST", "/v1/calls/c1/signals", `{"event":"pause.start","flow":"`+strings.Repeat("x", bodyBytesMax)+`"}`, 413)
	resp := f.request(t, "GET", "/v1/calls", "", "X-Long", strings.Repeat("x", 4*headerBytesMax))
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("long header: %d", resp.StatusCode)
	}
	f.requests.Store(requestsMax + subscribersMax)
	f.mustDo(t, "GET", "/v1/calls", "", 503)
	f.requests.Store(0)
	f.mustDo(t, "GET", "/v1/calls", "", 200)
}

func TestPanicIsAProblem(t *testing.T) {
	f := mustServe(t, func(c *Config) { c.Library = nil }) // a nil Library panics when asked
	f.mustDo(t, "GET", "/v1/recordings/r1", "", 500)
	f.mustDo(t, "GET", "/v1/calls", "", 200)
}

func TestHealth(t *testing.T) {
	bad := errors.New("secret path /var/lib")
	var log bytes.Buffer
	keys := bad
	f := mustServe(t, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		c.Ready = func(context.Context) map[string]error {
			return map[string]error{"store": nil, "keys": keys, "catalogue": bad}
		}
	})
	if body, _ := f.mustDo(t, "GET", "/healthz", "", 200, "Authorization", ""); !strings.Contains(body, `"ok"`) {
		t.Error(body)
	}
	body, _ := f.mustDo(t, "GET", "/readyz", "", 503, "Authorization", "")
	if strings.TrimSpace(body) != `{"status":"unavailable","failing":["catalogue","keys"]}` {
		t.Error(body)
	}
	f.mustDo(t, "GET", "/readyz", "", 503)
	keys = nil
	f.mustDo(t, "GET", "/readyz", "", 503)
	text := log.String()
	if strings.Count(text, `"not ready"`) != 2 || strings.Count(text, `"ready again"`) != 1 || !strings.Contains(text, bad.Error()) {
		t.Errorf("each change is logged once: %s", text)
	}
}

func TestMetrics(t *testing.T) {
	f := mustServe(t, nil)
	if body, _ := f.mustDo(t, "GET", "/metrics", "", 200); !strings.Contains(body, "trunktap_test 0") {
		t.Error(body)
	}
	none := mustServe(t, func(c *Config) { c.Metrics = nil })
	none.mustDo(t, "GET", "/metrics", "", 404)
}

func TestProfilesAreApart(t *testing.T) {
	w := httptest.NewRecorder()
	Profiles().ServeHTTP(w, httptest.NewRequest("GET", "/debug/pprof/", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "goroutine") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	f := mustServe(t, nil)
	f.mustDo(t, "GET", "/debug/pprof/", "", 404)
}

func TestNewWithoutToken(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an open API")
		}
	}()
	New(Config{})
}
