package keyserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/kektest"
	"github.com/trunktap/trunktap/recorder/seal/remote"
	"github.com/trunktap/trunktap/recorder/seal/remote/remotetest"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

const everything = "clients:\n  - {name: recorder-1, public_key: client.pub, may: [wrap, unwrap, rotate], rate: 10000}"

// running is a key server that can be stopped and started again.
type running struct {
	files remotetest.Files
	addr  string
	srv   *Server
	stop  func()
}

func start(t *testing.T, clients string) *running {
	t.Helper()
	r := &running{files: remotetest.Lay(t), addr: "127.0.0.1:0"}
	r.files.Write(t, r.addr, clients)
	r.up(t)
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *running) up(t *testing.T) {
	t.Helper()
	srv, err := New(r.files.Config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.srv, r.addr = srv, srv.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx, nil) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// write changes the configuration and has it read.
func (r *running) write(t *testing.T, clients string) {
	t.Helper()
	r.files.Write(t, r.addr, clients)
	if err := r.srv.Reload(); err != nil {
		t.Fatalf("Reload: %v", err)
	}
}

func (r *running) config() remote.Config {
	return remote.Config{
		URL: "https://" + r.addr, Client: "recorder-1", KeyFile: r.files.ClientKey, ServerKeys: r.files.SigningPub, CAFile: r.files.Cert,
		Attempts: service.Attempts{Timeout: 20 * time.Second, Tries: 2},
	}
}

func (r *running) open(t *testing.T) *remote.KEK {
	t.Helper()
	k, err := remote.Open(r.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() }) // never fails
	return k
}

func (r *running) lines(t *testing.T) []Line {
	t.Helper()
	f, err := os.Open(r.files.Audit)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	var lines []Line
	for s := bufio.NewScanner(f); s.Scan(); {
		var l Line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			t.Fatalf("%v: %s", err, s.Bytes())
		}
		lines = append(lines, l)
	}
	return lines
}

func TestConformance(t *testing.T) {
	kektest.Run(t, func(t *testing.T) kektest.Harness {
		r := start(t, everything)
		return kektest.Harness{
			Open: func(t *testing.T) seal.KEK {
				k, err := remote.Open(r.config())
				if err != nil {
					t.Fatal(err)
				}
				return k
			},
			Outage: func(t *testing.T) func() {
				r.stop()
				r.files.Write(t, r.addr, everything)
				return func() { r.up(t) }
			},
			Revoke: func(t *testing.T, name string) { r.write(t, everything+"\nrevoked_keys: ["+`"`+name+`"`+"]") },
			Allow:  func(t *testing.T, _ string) { r.write(t, everything) },
		}
	})
}

// Who may not, or not any more, is refused at once.
func TestPermissions(t *testing.T) {
	const as = "clients:\n  - {name: recorder-1, public_key: client.pub, may: [%s], rate: 10000%s}"
	r := start(t, fmt.Sprintf(as, "wrap", ""))
	k, ctx := r.open(t), t.Context()
	aad := []byte("trunktap data key 2\x00rec-7")
	name, wrapped, err := k.Wrap(ctx, make([]byte, 32), aad)
	if err != nil {
		t.Fatal(err)
	}
	calls := []struct {
		op   string
		call func() error
	}{
		{"wrap", func() error { _, _, err := k.Wrap(ctx, make([]byte, 32), aad); return err }},
		{"unwrap", func() error { _, err := k.Unwrap(ctx, name, wrapped, aad); return err }},
		{"rotate", func() error { _, err := k.Rotate(ctx); return err }},
	}
	for _, test := range []struct{ clients, allowed string }{
		{fmt.Sprintf(as, "wrap", ""), "wrap"},
		{fmt.Sprintf(as, "unwrap", ""), "unwrap"},
		{fmt.Sprintf(as, "wrap, rotate", ""), "wrap rotate"},
		{fmt.Sprintf(as, "wrap, unwrap, rotate", ", disabled: true"), ""},
		{"clients: []", ""},
		{fmt.Sprintf(as, "wrap, unwrap, rotate", ""), "wrap unwrap rotate"},
	} {
		r.write(t, test.clients)
		for _, c := range calls {
			err := c.call()
			if want := slices.Contains(strings.Fields(test.allowed), c.op); want != (err == nil) || err != nil && !errors.Is(err, seal.ErrRevoked) {
				t.Errorf("%s with %s: %v", c.op, test.clients, err)
			}
		}
		s, err := k.Status(ctx)
		if err == nil && strings.Join(s.May, " ") != test.allowed {
			t.Errorf("status tells %q, want %q", s.May, test.allowed)
		}
	}
}

// Who had which recording's key is in the log, and no key is.
func TestAudit(t *testing.T) {
	r := start(t, everything)
	k, ctx := r.open(t), t.Context()
	secret := []byte("a data key of 32 bytes, in plain")
	for _, aad := range []string{"trunktap data key 2\x00rec-7", "trunktap intermediate key 1\x00", "something else"} {
		name, wrapped, err := k.Wrap(ctx, secret, []byte(aad))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Unwrap(ctx, name, wrapped, []byte(aad)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.Unwrap(ctx, "17", make([]byte, 64), nil); !errors.Is(err, seal.ErrRevoked) {
		t.Errorf("unknown key: %v", err)
	}
	r.stop()
	var got []string
	for _, l := range r.lines(t) {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %.8s %s", l.Op, l.Client, l.For, l.ID, l.Outcome)))
	}
	want := `start    ok
wrap recorder-1 recording rec-7 ok
unwrap recorder-1 recording rec-7 ok
wrap recorder-1 intermediate  ok
unwrap recorder-1 intermediate  ok
wrap recorder-1 other f41f3fa6 ok
unwrap recorder-1 other f41f3fa6 ok
unwrap recorder-1 other e3b0c442 revoked
stop    ok`
	if strings.Join(got, "\n") != want {
		t.Errorf("log:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
	}
	b, err := os.ReadFile(r.files.Audit)
	if err != nil || bytes.Contains(b, secret[:16]) || bytes.Contains(b, []byte("YSBkYXRhIGtleSBvZiAz")) {
		t.Errorf("the log holds a key, or %v", err)
	}
}

// An answer that cannot be written down is not given.
func TestAuditFails(t *testing.T) {
	r := start(t, everything)
	k := r.open(t)
	name, wrapped, err := k.Wrap(t.Context(), make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := r.srv.audit.f
	if r.srv.audit.f, err = os.Open(r.files.Audit); err != nil { // cannot be written
		t.Fatal(err)
	}
	b, err := k.Unwrap(t.Context(), name, wrapped, nil)
	if !errors.Is(err, seal.ErrUnreachable) || b != nil {
		t.Errorf("%d bytes, error %v", len(b), err)
	}
	_ = r.srv.audit.f.Close() // only read
	r.srv.audit.f = f
}

// wire sends a request by hand.
func wire(t *testing.T, r *running, change func(*http.Request), body string) (int, string) {
	t.Helper()
	key, err := remote.ReadPrivateKey(r.files.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	q := httptest.NewRequest(http.MethodPost, "https://"+r.addr+remote.PathStatus, strings.NewReader(body))
	remote.SignRequest(q, []byte(body), "recorder-1", key, r.srv.now())
	change(q)
	w := httptest.NewRecorder()
	r.srv.ServeHTTP(w, q)
	var e struct{ Error struct{ Code string } }
	_ = json.Unmarshal(w.Body.Bytes(), &e) // a result has none
	return w.Code, e.Error.Code
}

// Everything that is not exactly a signed request of the client is refused.
func TestRequests(t *testing.T) {
	r := start(t, everything)
	now := time.Now()
	for _, test := range []struct {
		name   string
		body   string
		change func(*http.Request)
		status int
		code   string
	}{
		{"as it should be", "{}", func(*http.Request) {}, 200, ""},
		{"GET", "{}", func(q *http.Request) { q.Method = "GET" }, 404, remote.CodeNotFound},
		{"other path", "{}", func(q *http.Request) { q.URL.Path = "/v2/status" }, 404, remote.CodeNotFound},
		{"query", "{}", func(q *http.Request) { q.URL.RawQuery = "a=b" }, 404, remote.CodeNotFound},
		{"signed for another operation", "{}", func(q *http.Request) { q.URL.Path = remote.PathRotate }, 401, remote.CodeUnauthenticated},
		{"signed for another server", "{}", func(q *http.Request) { q.Host = "other:8443" }, 401, remote.CodeUnauthenticated},
		{"other body", "{}", func(q *http.Request) { q.Body = io.NopCloser(strings.NewReader("{ }")) }, 400, remote.CodeBadRequest},
		{"no signature", "{}", func(q *http.Request) { q.Header.Del("Signature") }, 400, remote.CodeBadRequest},
		{"two signatures", "{}", func(q *http.Request) { q.Header.Add("Signature", q.Header.Get("Signature")) }, 400, remote.CodeBadRequest},
		{"other client", "{}", func(q *http.Request) {
			q.Header.Set("Signature-Input", strings.Replace(q.Header.Get("Signature-Input"), "recorder-1", "recorder-2", 1))
		}, 401, remote.CodeUnauthenticated},
		{"not JSON", "hello", func(*http.Request) {}, 400, remote.CodeBadRequest},
		{"unknown field", `{"x":1}`, func(*http.Request) {}, 400, remote.CodeBadRequest},
		{"more behind it", `{}{}`, func(*http.Request) {}, 400, remote.CodeBadRequest},
		{"too large", strings.Repeat(" ", remote.BodyBytesMax+1), func(*http.Request) {}, 413, remote.CodeTooLarge},
	} {
		if status, code := wire(t, r, test.change, test.body); status != test.status || code != test.code {
			t.Errorf("%s: %d %s, want %d %s", test.name, status, code, test.status, test.code)
		}
	}
	for _, off := range []time.Duration{-61 * time.Second, 61 * time.Second} {
		r.srv.now = func() time.Time { return now.Add(off) }
		status, code := wire(t, r, func(*http.Request) { r.srv.now = time.Now }, "{}")
		if status != 401 || code != remote.CodeClock {
			t.Errorf("clock off by %s: %d %s", off, status, code)
		}
	}
}

func TestReplay(t *testing.T) {
	r := start(t, everything)
	var kept *http.Request
	if status, _ := wire(t, r, func(q *http.Request) { kept = q.Clone(t.Context()) }, "{}"); status != 200 {
		t.Fatal(status)
	}
	kept.Body = io.NopCloser(strings.NewReader("{}"))
	w := httptest.NewRecorder()
	r.srv.ServeHTTP(w, kept)
	if w.Code != 401 || !strings.Contains(w.Body.String(), remote.CodeReplay) {
		t.Errorf("the second time: %d %s", w.Code, w.Body)
	}
}

func TestRate(t *testing.T) {
	r := start(t, "clients:\n  - {name: recorder-1, public_key: client.pub, may: [wrap], rate: 0.001}")
	codes := map[int]int{}
	for range 4 {
		status, _ := wire(t, r, func(*http.Request) {}, "{}")
		codes[status]++
	}
	if codes[200] != 1 || codes[429] != 3 {
		t.Errorf("answers %v", codes)
	}
}

// What a man in the middle puts in place of an answer is never believed.
func TestMiddle(t *testing.T) {
	r := start(t, everything)
	k := r.open(t)
	name, wrapped, err := k.Wrap(t.Context(), make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var change func(status int, h http.Header, body []byte) (int, []byte)
	middle := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		inner := httptest.NewRecorder()
		q.Host = r.addr // as the client signed it
		r.srv.ServeHTTP(inner, q)
		mu.Lock()
		defer mu.Unlock()
		status, body := change(inner.Code, inner.Header(), inner.Body.Bytes())
		for n, v := range inner.Header() {
			w.Header()[n] = v
		}
		w.WriteHeader(status)
		_, _ = w.Write(body) // the test tells
	}))
	defer middle.Close()
	cfg := r.config()
	cfg.Attempts.Tries = 1
	cfg.URL = middle.URL
	pair, err := tls.LoadX509KeyPair(r.files.Cert, r.files.Dir+"/cert.key")
	if err != nil {
		t.Fatal(err)
	}
	middle.TLS.Certificates = []tls.Certificate{pair}
	q, err := remote.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }() // never fails
	r.addr = strings.TrimPrefix(middle.URL, "https://")
	var keptBody []byte
	keptHeader := http.Header{}
	tests := []struct {
		name   string
		change func(status int, h http.Header, body []byte) (int, []byte)
		want   error
	}{
		{"nothing", func(s int, h http.Header, b []byte) (int, []byte) {
			keptBody, keptHeader = bytes.Clone(b), h.Clone()
			return s, b
		}, nil},
		{"another key", func(s int, h http.Header, b []byte) (int, []byte) {
			return s, bytes.Replace(b, []byte("A"), []byte("B"), 1)
		}, seal.ErrUnreachable},
		{"status", func(_ int, h http.Header, b []byte) (int, []byte) { return 410, b }, seal.ErrUnreachable},
		{"an answer from before", func(s int, h http.Header, _ []byte) (int, []byte) {
			for n := range h {
				h[n] = keptHeader[n]
			}
			return s, keptBody
		}, seal.ErrUnreachable},
		{"an error of its own", func(_ int, h http.Header, _ []byte) (int, []byte) {
			return 410, []byte(`{"error":{"code":"revoked","message":"trust me"}}`)
		}, seal.ErrUnreachable},
		{"a redirect", func(_ int, h http.Header, _ []byte) (int, []byte) {
			h.Set("Location", "https://evil.example/")
			return 307, nil
		}, seal.ErrUnreachable},
	}
	for _, test := range tests {
		mu.Lock()
		change = test.change
		mu.Unlock()
		b, err := q.Unwrap(t.Context(), name, wrapped, nil)
		if !errors.Is(err, test.want) || test.want == nil && len(b) != 32 || test.want != nil && (b != nil || errors.Is(err, seal.ErrRevoked) || errors.Is(err, recorder.ErrTampered)) {
			t.Errorf("%s: %d bytes, error %v", test.name, len(b), err)
		}
	}
}

func TestMutualTLS(t *testing.T) {
	r := start(t, everything)
	b, err := os.ReadFile(r.files.Config)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte("key: cert.key}"), []byte("key: cert.key, client_ca: cert.pem}"), 1)
	if err := os.WriteFile(r.files.Config, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.srv.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.open(t).Status(t.Context()); !errors.Is(err, seal.ErrUnreachable) {
		t.Errorf("without a certificate: %v", err)
	}
	cfg := r.config()
	cfg.CertFile, cfg.CertKey = r.files.Cert, r.files.Dir+"/cert.key"
	k, err := remote.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.Close() }() // never fails
	if _, err := k.Status(t.Context()); err != nil {
		t.Errorf("with one: %v", err)
	}
}

// A configuration with a fault changes nothing.
func TestReloadRefused(t *testing.T) {
	r := start(t, everything)
	r.files.Write(t, r.addr, "clients: [{name: recorder-1, public_key: nowhere.pub}]")
	if err := r.srv.Reload(); err == nil || !strings.Contains(err.Error(), "clients[0].public_key") {
		t.Errorf("Reload: %v", err)
	}
	if _, err := r.open(t).Rotate(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestConfig(t *testing.T) {
	f := remotetest.Lay(t)
	for _, test := range []struct{ yaml, want string }{
		{"listen: nowhere", "listen: \"nowhere\", must be address:port"},
		{"listen: 127.0.0.1:1\nlisten: 127.0.0.1:1", "already defined"},
		{"colour: red", "colour"},
		{"window: 1s", "window: 1s, must be"},
		{"clients: [{name: a b}]", "clients[0].name"},
		{"clients: [{name: a, public_key: x, may: [sing], rate: -1}, {name: a, public_key: x}]", "clients[1].name: \"a\" is there twice"},
		{"tls: {cert: x}", "tls.key: is missing"},
		{"a: [", ""},
	} {
		if err := os.WriteFile(f.Config, []byte(test.yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(f.Config); err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), f.Config) {
			t.Errorf("%q: %v, want %q", test.yaml, err, test.want)
		}
	}
}

func TestNonces(t *testing.T) {
	var n nonces
	now, w := time.Now(), time.Minute
	if n.note("a", now, w) != fresh || n.note("a", now.Add(119*time.Second), w) != replayed || n.note("a", now.Add(239*time.Second), w) != replayed {
		t.Error("a nonce is forgotten within two windows")
	}
	for i := range noncesMax {
		n.note(fmt.Sprint(i), now.Add(239*time.Second), w)
	}
	if n.note("one more", now.Add(239*time.Second), w) != full {
		t.Error("nonces have no limit")
	}
	if n.note("one more", now.Add(480*time.Second), w) != fresh {
		t.Error("nonces stay full")
	}
}

// The configuration in the documentation is one that is accepted.
func TestDocumentation(t *testing.T) {
	b, err := os.ReadFile("../../../../docs/keyserver.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := bytes.Cut(b, []byte("```\nlisten:"))
	block, _, end := bytes.Cut(rest, []byte("```"))
	if !ok || !end {
		t.Fatal("there is no configuration in it")
	}
	c, err := parse(append([]byte("listen:"), block...))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.check().Err(); err != nil || len(c.Clients) != 2 {
		t.Errorf("%d clients, %v", len(c.Clients), err)
	}
}
