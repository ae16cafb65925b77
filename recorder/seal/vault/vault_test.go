package vault

import (
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/kektest"
	"github.com/trunktap/trunktap/recorder/seal/service"
	"github.com/trunktap/trunktap/recorder/seal/vault/vaulttest"
)

const keyName = "trunktap"

// put writes a file of the test.
func put(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// configOf logs in with a token that may everything.
func configOf(t *testing.T, s *vaulttest.Server, g vaulttest.Token) Config {
	t.Helper()
	g.Policy = vaulttest.Everything(keyName)
	return Config{
		Address: s.HTTP.URL, Key: keyName, CAFile: put(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.HTTP.Certificate().Raw})),
		Auth: AuthToken, TokenFile: put(t, "token", []byte(s.Issue(g)+"\n")),
		Attempts: service.Attempts{Timeout: 20 * time.Second, Tries: 2},
	}
}

func mustOpen(t *testing.T, cfg Config) *KEK {
	t.Helper()
	k, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return k
}

// set changes the server.
func set(s *vaulttest.Server, change func()) {
	s.Lock()
	defer s.Unlock()
	change()
}

func TestConformance(t *testing.T) {
	for name, noAAD := range map[string]bool{"associated data": false, "a server that ignores associated data": true} {
		t.Run(name, func(t *testing.T) {
			kektest.Run(t, func(t *testing.T) kektest.Harness {
				s := vaulttest.New(t, keyName)
				s.NoAAD = noAAD
				cfg := configOf(t, s, vaulttest.Token{})
				return kektest.Harness{
					Open: func(t *testing.T) seal.KEK {
						k, err := Open(cfg)
						if err != nil {
							t.Fatal(err)
						}
						return k
					},
					Outage: func(*testing.T) func() {
						set(s, func() { s.Status = 503 })
						return func() { set(s, func() { s.Status = 0 }) }
					},
					Revoke: func(t *testing.T, _ string) { // all versions so far
						set(s, func() { s.Keys[keyName].Min = len(s.Keys[keyName].Versions) + 1 })
						set(s, func() { s.Keys[keyName].Versions = append(s.Keys[keyName].Versions, make([]byte, 32)) })
					},
					Allow: func(*testing.T, string) { set(s, func() { s.Keys[keyName].Min = 1 }) },
				}
			})
		})
	}
}

// What each answer means.
func TestAnswers(t *testing.T) {
	s := vaulttest.New(t, keyName)
	k := mustOpen(t, configOf(t, s, vaulttest.Token{}))
	ctx := t.Context()
	name, wrapped, err := k.Wrap(ctx, make([]byte, 32), nil)
	if err != nil || name != "trunktap:v1" {
		t.Fatalf("%s %v", name, err)
	}
	for status, want := range map[int]error{412: seal.ErrUnreachable, 429: seal.ErrUnreachable, 473: seal.ErrUnreachable, 500: seal.ErrUnreachable, 502: seal.ErrUnreachable, 404: seal.ErrRevoked, 403: seal.ErrRevoked} {
		set(s, func() { s.Status = status })
		if _, err := k.Unwrap(ctx, name, wrapped, nil); !errors.Is(err, want) {
			t.Errorf("status %d: %v, want %v", status, err, want)
		}
	}
	set(s, func() { s.Status = 0 })
	if _, err := k.Unwrap(ctx, "other:v1", wrapped, nil); !errors.Is(err, seal.ErrRevoked) || !strings.Contains(err.Error(), "needs update on transit/decrypt/other") {
		t.Errorf("a key that the policy does not name: %v", err)
	}
	// A deleted key must not come into being again by wrapping.
	set(s, func() { delete(s.Keys, keyName) })
	if _, _, err := k.Wrap(ctx, make([]byte, 32), nil); !errors.Is(err, seal.ErrRevoked) {
		t.Errorf("wrapping with a deleted key: %v", err)
	}
	if _, err := k.Unwrap(ctx, name, wrapped, nil); !errors.Is(err, seal.ErrRevoked) {
		t.Errorf("unwrapping with a deleted key: %v", err)
	}
	s.HTTP.CloseClientConnections()
	s.HTTP.Close()
	if _, err := k.Unwrap(ctx, name, wrapped, nil); !errors.Is(err, seal.ErrUnreachable) {
		t.Errorf("no server: %v", err)
	}
}

func TestLogins(t *testing.T) {
	secretID, jwt := put(t, "secret", []byte("s3cret")), put(t, "jwt", []byte("eyJ.x.y"))
	for _, test := range []struct {
		name  string
		path  string
		says  map[string]string
		setUp func(*Config)
	}{
		{"approle", "auth/approle/login", map[string]string{"role_id": "r1", "secret_id": "s3cret"}, func(c *Config) { c.Auth, c.RoleID, c.SecretID = AuthAppRole, "r1", secretID }},
		{"kubernetes", "auth/k8s/east/login", map[string]string{"role": "recorder", "jwt": "eyJ.x.y"}, func(c *Config) {
			c.Auth, c.AuthMount, c.Role, c.JWTFile = AuthKubernetes, "k8s/east", "recorder", jwt
		}},
		{"cert", "auth/cert/login", map[string]string{"name": "recorder"}, func(c *Config) { c.Auth, c.Role = AuthCert, "recorder" }},
		{"namespace", "auth/approle/login", map[string]string{"role_id": "r1", "secret_id": "s3cret"}, func(c *Config) {
			c.Namespace, c.Auth, c.RoleID, c.SecretID = "team/voice/", AuthAppRole, "r1", secretID
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := vaulttest.New(t, keyName)
			cfg := configOf(t, s, vaulttest.Token{})
			test.setUp(&cfg)
			s.Namespace, s.Logins[test.path] = strings.Trim(cfg.Namespace, "/"), test.says
			s.Grant = vaulttest.Token{Policy: vaulttest.Everything(keyName), TTL: time.Hour}
			k := mustOpen(t, withCert(t, cfg))
			name, wrapped, err := k.Wrap(t.Context(), make([]byte, 32), nil)
			if err != nil {
				t.Fatal(err)
			}
			set(s, func() { clear(s.Tokens) }) // revoked, or the server was restored
			if _, err := k.Unwrap(t.Context(), name, wrapped, nil); err != nil {
				t.Errorf("after the token was lost: %v", err)
			}
			set(s, func() { clear(s.Tokens); s.Logins[test.path] = map[string]string{"x": "y"} })
			_, err = k.Unwrap(t.Context(), name, wrapped, nil)
			if !errors.Is(err, seal.ErrRevoked) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "eyJ") {
				t.Errorf("when the login is refused: %v", err)
			}
		})
	}
}

// withCert adds a certificate where the login is by one; the stand-in does not
// look at it.
func withCert(t *testing.T, c Config) Config {
	t.Helper()
	if c.Auth != AuthCert {
		return c
	}
	cert, key := remoteCert(t)
	c.CertFile, c.CertKey = cert, key
	return c
}

// A token is renewed before it ends, with nobody asking for keys.
func TestRenewal(t *testing.T) {
	s := vaulttest.New(t, keyName)
	cfg := configOf(t, s, vaulttest.Token{TTL: 4 * time.Second, Renewable: true})
	k := mustOpen(t, cfg)
	if _, _, err := k.Wrap(t.Context(), make([]byte, 32), nil); err != nil {
		t.Fatal(err)
	}
	// The lease is what the owner goes by: as if it had been short all along.
	l := k.login
	l.mu.Lock()
	l.until = time.Now().Add(l.lease / 4)
	l.mu.Unlock()
	if err := l.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(seen(s), "PUT /v1/auth/token/renew-self") || l.left() < 2*time.Second {
		t.Errorf("not renewed: %s left, %v", l.left(), seen(s))
	}
	if d := l.next(nil); d < renewMin || d > 3*time.Second {
		t.Errorf("looked at again in %s", d)
	}
}

func seen(s *vaulttest.Server) []string {
	s.Lock()
	defer s.Unlock()
	return slices.Clone(s.Seen)
}

// An agent that renews the token file is followed.
func TestTokenFileIsReadAgain(t *testing.T) {
	s := vaulttest.New(t, keyName)
	cfg := configOf(t, s, vaulttest.Token{})
	k := mustOpen(t, cfg)
	name, wrapped, err := k.Wrap(t.Context(), make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	set(s, func() { clear(s.Tokens) })
	if _, err := k.Unwrap(t.Context(), name, wrapped, nil); !errors.Is(err, seal.ErrRevoked) || !strings.Contains(err.Error(), "token_file") && !strings.Contains(err.Error(), cfg.TokenFile) {
		t.Errorf("with a token that ended: %v", err)
	}
	fresh := s.Issue(vaulttest.Token{Policy: vaulttest.Everything(keyName)})
	if err := os.WriteFile(cfg.TokenFile, []byte(fresh), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Unwrap(t.Context(), name, wrapped, nil); err != nil {
		t.Errorf("with a fresh one: %v", err)
	}
}

func TestConfig(t *testing.T) {
	err := Config{Address: "http://x", Namespace: "/../", Key: "a b", Mount: "x y", CertFile: "c"}.Check().Err()
	for _, key := range []string{"address", "namespace", "key", "mount", "cert_key", "auth"} {
		if err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
	for auth, key := range map[string]string{AuthToken: "token_file", AuthAppRole: "secret_id_file", AuthKubernetes: "role", AuthCert: "cert_file"} {
		if err := (Config{Address: "https://x", Key: "k", Auth: auth}).Check().Err(); err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("%s without %s: %v", auth, key, err)
		}
	}
}

func FuzzNames(f *testing.F) {
	f.Add("trunktap:v1", "vault:v1:AAAA")
	f.Fuzz(func(t *testing.T, name, ciphertext string) {
		if m := namePattern.FindStringSubmatch(name); m != nil && m[1]+":v"+m[2] != name {
			t.Errorf("%q", name)
		}
		if m := cipherPattern.FindStringSubmatch(ciphertext); m != nil && "vault:v"+m[1]+":"+m[2] != ciphertext {
			t.Errorf("%q", ciphertext)
		}
	})
}

// The words that tell the cases apart are those of the transit engine.
func TestTexts(t *testing.T) {
	for text, want := range map[string]error{
		"encryption key not found": seal.ErrRevoked, "ciphertext or signature version is disallowed by policy (too old)": seal.ErrRevoked,
		"invalid ciphertext: version is too new": seal.ErrRevoked, "cipher: message authentication failed": recorder.ErrTampered,
		"invalid ciphertext: wrong number of fields": recorder.ErrTampered, "missing 'context' for key derivation": seal.ErrRevoked,
	} {
		if err := class(responseError(400, text)); !errors.Is(err, want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
