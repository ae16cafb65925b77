// Package vaulttest is a small stand-in for a Vault or OpenBao server: what its
// published HTTP API says of tokens, logins and the transit engine, and nothing
// that a real server would refuse.
package vaulttest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is the stand-in. Its fields may be changed while it runs, under Lock.
type Server struct {
	sync.Mutex
	HTTP *httptest.Server

	Namespace string // requests must name it
	Status    int    // 503: sealed; 429, 473: a standby; 0: well
	Keys      map[string]*Key
	Tokens    map[string]*Token
	// Logins tells what a login at a path must say; the token is made with Grant.
	Logins map[string]map[string]string
	Grant  Token
	Seen   []string // method and path of each request
	// NoAAD: a server older than associated data, which ignores it.
	NoAAD bool
}

// Key is a transit key with its versions.
type Key struct {
	Versions [][]byte
	Min      int // min_decryption_version
}

// Token is what a token may do.
type Token struct {
	Policy    []string // "update transit/encrypt/trunktap"
	Until     time.Time
	TTL       time.Duration
	Renewable bool
	Renewals  int
}

// Everything is the policy that docs/keys-providers.md asks for, for a key.
func Everything(key string) []string {
	return []string{"update transit/encrypt/" + key, "update transit/decrypt/" + key, "update transit/keys/" + key + "/rotate", "update auth/token/renew-self", "read auth/token/lookup-self"}
}

// New starts a server with one key of one version.
func New(t *testing.T, key string) *Server {
	t.Helper()
	s := &Server{Keys: map[string]*Key{key: {Versions: [][]byte{secret(32)}, Min: 1}}, Tokens: map[string]*Token{}, Logins: map[string]map[string]string{}}
	s.HTTP = httptest.NewTLSServer(s)
	t.Cleanup(s.HTTP.Close)
	return s
}

func secret(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// Issue makes a token.
func (s *Server) Issue(g Token) string {
	s.Lock()
	defer s.Unlock()
	return s.issue(g)
}

func (s *Server) issue(g Token) string {
	name := "hvs." + hex.EncodeToString(secret(12))
	if g.TTL > 0 {
		g.Until = time.Now().Add(g.TTL)
	}
	s.Tokens[name] = &g
	return name
}

// fail is an answer that is no success.
type fail struct {
	status int
	text   string
}

func refuse(status int, format string, a ...any) *fail {
	return &fail{status, fmt.Sprintf(format, a...)}
}

var denied = refuse(403, "permission denied")

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.Lock()
	defer s.Unlock()
	s.Seen = append(s.Seen, r.Method+" "+r.URL.Path)
	out, f := s.answer(r)
	w.Header().Set("Content-Type", "application/json")
	switch {
	case f != nil:
		w.WriteHeader(f.status)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{f.text}}) // the client sees it
	case out == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		_ = json.NewEncoder(w).Encode(out) // the client sees it
	}
}

func (s *Server) answer(r *http.Request) (map[string]any, *fail) {
	if s.Status == 503 {
		return nil, refuse(503, "Vault is sealed")
	}
	if s.Status != 0 {
		return nil, refuse(s.Status, "standby")
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	if !ok || r.URL.RawQuery != "" {
		return nil, refuse(404, "unsupported path")
	}
	if r.Header.Get("X-Vault-Namespace") != s.Namespace {
		return nil, refuse(404, "no handler for route %q", path)
	}
	in, f := body(r)
	if f != nil {
		return nil, f
	}
	if login, ok := s.Logins[path]; ok {
		return s.login(r, login, in)
	}
	token, f := s.token(r, path)
	if f != nil {
		return nil, f
	}
	switch {
	case path == "auth/token/renew-self" && write(r):
		return s.renew(r, token)
	case path == "auth/token/lookup-self" && r.Method == http.MethodGet:
		ttl := 0
		if !token.Until.IsZero() {
			ttl = int(time.Until(token.Until).Seconds())
		}
		return map[string]any{"data": map[string]any{"ttl": ttl, "renewable": token.Renewable}}, nil
	case strings.HasPrefix(path, "transit/") && write(r):
		return s.transit(strings.Split(path, "/")[1:], in)
	}
	return nil, refuse(404, "no handler for route %q", path)
}

func write(r *http.Request) bool { return r.Method == http.MethodPut || r.Method == http.MethodPost }

// body reads a JSON object of strings.
func body(r *http.Request) (map[string]string, *fail) {
	if !write(r) {
		return nil, nil
	}
	in := map[string]string{}
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 32<<20)).Decode(&in); err != nil {
		return nil, refuse(400, "failed to parse JSON input: %v", err)
	}
	return in, nil
}

// login compares what is said with what must be.
func (s *Server) login(r *http.Request, want, in map[string]string) (map[string]any, *fail) {
	if r.Header.Get("X-Vault-Token") != "" || !write(r) {
		return nil, refuse(405, "unsupported operation")
	}
	for k, v := range want {
		if in[k] != v {
			return nil, refuse(400, "invalid role or secret ID")
		}
	}
	if len(in) != len(want) {
		return nil, refuse(400, "unknown fields")
	}
	return auth(s.issue(s.Grant), s.Grant), nil
}

func auth(name string, t Token) map[string]any {
	return map[string]any{"auth": map[string]any{"client_token": name, "lease_duration": int(t.TTL.Seconds()), "renewable": t.Renewable, "policies": []string{"trunktap"}}}
}

// token finds the token and what it may do there.
func (s *Server) token(r *http.Request, path string) (*Token, *fail) {
	t := s.Tokens[r.Header.Get("X-Vault-Token")]
	if t == nil || !t.Until.IsZero() && time.Now().After(t.Until) {
		return nil, denied
	}
	capability := "update"
	if !write(r) {
		capability = "read"
	}
	// Encrypting with a key that does not exist creates it: another capability.
	if key, ok := strings.CutPrefix(path, "transit/encrypt/"); ok && s.Keys[key] == nil {
		capability = "create"
	}
	if !slices.Contains(t.Policy, capability+" "+path) {
		return nil, denied
	}
	return t, nil
}

func (s *Server) renew(r *http.Request, t *Token) (map[string]any, *fail) {
	if !t.Renewable {
		return nil, refuse(400, "lease is not renewable")
	}
	t.Renewals++
	t.Until = time.Now().Add(t.TTL)
	return auth(r.Header.Get("X-Vault-Token"), *t), nil
}

func (s *Server) transit(path []string, in map[string]string) (map[string]any, *fail) {
	if len(path) == 3 && path[0] == "keys" && path[2] == "rotate" {
		k := s.Keys[path[1]]
		if k == nil {
			return nil, refuse(400, "key not found")
		}
		if len(in) > 0 {
			return nil, refuse(400, "unknown fields")
		}
		k.Versions = append(k.Versions, secret(32))
		return nil, nil
	}
	if len(path) != 2 || path[0] != "encrypt" && path[0] != "decrypt" {
		return nil, refuse(404, "no handler for route")
	}
	k := s.Keys[path[1]]
	if k == nil {
		return nil, refuse(400, "encryption key not found")
	}
	for f := range in {
		if f != "plaintext" && f != "ciphertext" && f != "associated_data" {
			return nil, refuse(400, "unknown field %s", f)
		}
	}
	aad, err := base64.StdEncoding.DecodeString(in["associated_data"])
	if err != nil {
		return nil, refuse(400, "failed to base64-decode associated_data")
	}
	if s.NoAAD {
		aad = nil
	}
	if path[0] == "encrypt" {
		return k.encrypt(in["plaintext"], aad)
	}
	return k.decrypt(in["ciphertext"], aad)
}

func (k *Key) encrypt(plaintext string, aad []byte) (map[string]any, *fail) {
	b, err := base64.StdEncoding.DecodeString(plaintext)
	if err != nil {
		return nil, refuse(400, "failed to base64-decode plaintext")
	}
	n := len(k.Versions)
	nonce := secret(12)
	ct := gcm(k.Versions[n-1]).Seal(nonce, nonce, b, aad)
	return map[string]any{"data": map[string]any{"ciphertext": fmt.Sprintf("vault:v%d:%s", n, base64.StdEncoding.EncodeToString(ct)), "key_version": n}}, nil
}

func (k *Key) decrypt(ciphertext string, aad []byte) (map[string]any, *fail) {
	rest, ok := strings.CutPrefix(ciphertext, "vault:v")
	if !ok {
		return nil, refuse(400, "invalid ciphertext: no prefix")
	}
	version, text, ok := strings.Cut(rest, ":")
	n, err := strconv.Atoi(version)
	ct, err2 := base64.StdEncoding.DecodeString(text)
	switch {
	case !ok:
		return nil, refuse(400, "invalid ciphertext: wrong number of fields")
	case err != nil:
		return nil, refuse(400, "invalid ciphertext: version number could not be decoded")
	case n > len(k.Versions):
		return nil, refuse(400, "invalid ciphertext: version is too new")
	case n < k.Min:
		return nil, refuse(400, "ciphertext or signature version is disallowed by policy (too old)")
	case err2 != nil:
		return nil, refuse(400, "invalid ciphertext: could not decode base64")
	case len(ct) < 12:
		return nil, refuse(400, "invalid ciphertext: too short")
	}
	b, err := gcm(k.Versions[n-1]).Open(nil, ct[:12], ct[12:], aad)
	if err != nil {
		return nil, refuse(400, "%v", err)
	}
	return map[string]any{"data": map[string]any{"plaintext": base64.StdEncoding.EncodeToString(b)}}, nil
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key is ours
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the block size of GCM
	}
	return a
}
