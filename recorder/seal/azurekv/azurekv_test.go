package azurekv

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/kektest"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

const bearer = "eyJ.token.of-a-test"

// credential gives the token that the stand-in wants.
type credential struct{}

func (credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: bearer, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// stand is a stand-in for a vault with one RSA key: wrapkey, unwrapkey, rotate.
type stand struct {
	url string

	mu       sync.Mutex // guards all
	status   int        // of each request; 0: well
	code     string
	disabled map[int]bool
	versions []*rsa.PrivateKey
	calls    int
}

func newStand(t *testing.T) (*stand, Config) {
	t.Helper()
	s := &stand{disabled: map[int]bool{}}
	s.rotate(t)
	srv := httptest.NewTLSServer(s)
	s.url = srv.URL
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, Config{URL: srv.URL, Key: "recordings", CAFile: ca, Attempts: service.Attempts{Timeout: 20 * time.Second, Tries: 2}, credential: credential{}, anyVault: true}
}

// Keys for the tests are made once: RSA takes its time.
var keys = sync.OnceValues(func() (k [2]*rsa.PrivateKey, err error) {
	for i := range k {
		var e error
		k[i], e = rsa.GenerateKey(rand.Reader, 2048)
		err = errors.Join(err, e)
	}
	return k, err
})

func (s *stand) rotate(t *testing.T) {
	t.Helper()
	k, err := keys()
	if err != nil {
		t.Fatal(err)
	}
	s.versions = append(s.versions, k[len(s.versions)%2])
}

type fault struct {
	status int
	code   string
}

func (s *stand) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out, f := s.answer(w, r)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if f != nil {
		w.WriteHeader(f.status)
		out = map[string]any{"error": map[string]string{"code": f.code, "message": "because"}}
	}
	_ = json.NewEncoder(w).Encode(out) // the client sees it
}

func (s *stand) answer(w http.ResponseWriter, r *http.Request) (any, *fault) {
	if r.Header.Get("Authorization") != "Bearer "+bearer {
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000", resource="https://vault.azure.net"`)
		return nil, &fault{401, "Unauthorized"}
	}
	s.calls++
	if s.status != 0 {
		return nil, &fault{s.status, s.code}
	}
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if r.Method != http.MethodPost || r.URL.Query().Get("api-version") == "" || path[0] != "keys" || len(path) < 3 {
		return nil, &fault{400, "BadParameter"}
	}
	if path[1] != "recordings" {
		return nil, &fault{404, "KeyNotFound"}
	}
	if len(path) == 3 && path[2] == "rotate" {
		k, _ := keys() // made by newStand
		s.versions = append(s.versions, k[len(s.versions)%2])
		return map[string]any{"key": map[string]string{"kid": s.kid(len(s.versions)), "kty": "RSA"}}, nil
	}
	version, op := len(s.versions), path[len(path)-1]
	if len(path) == 4 {
		n, err := strconv.Atoi(strings.TrimPrefix(path[2], "v"))
		if err != nil || n < 1 || n > version {
			return nil, &fault{404, "KeyNotFound"}
		}
		version = n
	}
	if s.disabled[version] {
		return nil, &fault{403, "Forbidden"}
	}
	return s.use(r, op, version)
}

func (s *stand) kid(version int) string { return fmt.Sprintf("%s/keys/recordings/v%d", s.url, version) }

func (s *stand) use(r *http.Request, op string, version int) (any, *fault) {
	var in struct{ Alg, Value string }
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(&in)
	value, err2 := base64.RawURLEncoding.DecodeString(in.Value)
	if err != nil || err2 != nil || in.Alg != RSAOAEP256 {
		return nil, &fault{400, "BadParameter"}
	}
	switch op {
	case "wrapkey":
		value, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, &s.versions[version-1].PublicKey, value, nil)
	case "unwrapkey":
		value, err = rsa.DecryptOAEP(sha256.New(), nil, s.versions[version-1], value, nil)
	default:
		return nil, &fault{404, "NotFound"}
	}
	if err != nil {
		return nil, &fault{400, "BadParameter"}
	}
	return map[string]string{"kid": s.kid(version), "value": base64.RawURLEncoding.EncodeToString(value)}, nil
}

func (s *stand) set(status int, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.code, s.calls = status, code, 0
}

func mustOpen(t *testing.T, cfg Config) *KEK {
	t.Helper()
	k, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestConformance(t *testing.T) {
	kektest.Run(t, func(t *testing.T) kektest.Harness {
		s, cfg := newStand(t)
		disable := func(v bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.disabled[1] = v
		}
		return kektest.Harness{
			Open: func(t *testing.T) seal.KEK { return mustOpen(t, cfg) },
			Outage: func(*testing.T) func() {
				s.set(503, "ServiceUnavailable")
				return func() { s.set(0, "") }
			},
			Revoke: func(*testing.T, string) { disable(true) },
			Allow:  func(*testing.T, string) { disable(false) },
		}
	})
}

func TestCodes(t *testing.T) {
	s, cfg := newStand(t)
	k := mustOpen(t, cfg)
	defer func() { _ = k.Close() }() // never fails
	name, wrapped, err := k.Wrap(t.Context(), make([]byte, 32), nil)
	if err != nil || name != "recordings/v1" {
		t.Fatalf("%s, %v", name, err)
	}
	for _, test := range []struct {
		status int
		code   string
		want   error
	}{
		{403, "Forbidden", seal.ErrRevoked},
		{404, "KeyNotFound", seal.ErrRevoked},
		{409, "ObjectIsDeletedButRecoverable", seal.ErrRevoked},
		{400, "BadParameter", recorder.ErrTampered},
		{400, "KeyOperationNotPermitted", seal.ErrRevoked},
		{429, "Throttled", seal.ErrUnreachable},
		{500, "InternalError", seal.ErrUnreachable},
		{503, "", seal.ErrUnreachable},
	} {
		s.set(test.status, test.code)
		if _, err := k.Unwrap(t.Context(), name, wrapped, nil); !errors.Is(err, test.want) {
			t.Errorf("%d %s: %v, want %v", test.status, test.code, err, test.want)
		}
		if again := s.calls == 2; again != (test.want == seal.ErrUnreachable) {
			t.Errorf("%d %s: %d calls", test.status, test.code, s.calls)
		}
	}
}

func TestConfig(t *testing.T) {
	err := Config{URL: "http://x", Key: "a b", Algorithm: "ROT13"}.Check().Err()
	for _, key := range []string{"url", "key", "algorithm"} {
		if err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(append([]byte{1, 1, 0, 2}, make([]byte, 40)...))
	f.Add([]byte{1, 2, 255, 255, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		head, sealed, err := split(b)
		if err == nil && (len(head)+len(sealed) != len(b) || len(head) <= headerBytes) || err != nil && !errors.Is(err, recorder.ErrTampered) {
			t.Errorf("%d + %d of %d, %v", len(head), len(sealed), len(b), err)
		}
	})
}
