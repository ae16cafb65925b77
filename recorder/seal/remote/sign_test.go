package remote

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
)

var testKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

func request(body string, now time.Time) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "https://Keys.example:443/base/v1/wrap", strings.NewReader(body))
	SignRequest(r, []byte(body), "recorder-1", testKey, now)
	return r
}

// The signature base is the example of PROTOCOL.md, byte for byte.
func TestSignatureBase(t *testing.T) {
	r := request("{}", time.Unix(1800000000, 0))
	r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), nonceOf(r), "AAAAAAAAAAAAAAAAAAAAAAAA", 1))
	s, err := ReadRequest(r, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	want := `"@method": POST
"@authority": keys.example
"@path": /base/v1/wrap
"content-digest": sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:
"@signature-params": ("@method" "@authority" "@path" "content-digest");created=1800000000;keyid="recorder-1";nonce="AAAAAAAAAAAAAAAAAAAAAAAA";alg="ed25519";tag="trunktap-keys-1"`
	if string(s.base) != want {
		t.Errorf("base:\n%s\nwant:\n%s", s.base, want)
	}
}

func nonceOf(r *http.Request) string {
	_, rest, _ := strings.Cut(r.Header.Get("Signature-Input"), `nonce="`)
	nonce, _, _ := strings.Cut(rest, `"`)
	return nonce
}

func TestSignedBothWays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "body")
		now := time.Unix(rapid.Int64Range(1, 1<<36).Draw(t, "now"), 0)
		r := request(string(body), now)
		s, err := ReadRequest(r, body)
		if err != nil || !s.By(testKey.Public().(ed25519.PublicKey)) || !s.Created.Equal(now) || s.KeyID != "recorder-1" {
			t.Fatalf("%+v, %v", s, err)
		}
		h, status := http.Header{}, rapid.IntRange(200, 599).Draw(t, "status")
		SignResponse(h, status, body, s.Signature, "keys", testKey, now)
		keys := []ed25519.PublicKey{testKey.Public().(ed25519.PublicKey)}
		if err := verifyResponse(h, status, body, s.Signature, keys); err != nil {
			t.Fatal(err)
		}
		if verifyResponse(h, status+1, body, s.Signature, keys) == nil || verifyResponse(h, status, append(body, 0), s.Signature, keys) == nil ||
			verifyResponse(h, status, body, make([]byte, 64), keys) == nil || verifyResponse(h, status, body, s.Signature, nil) == nil {
			t.Fatal("another answer is believed")
		}
	})
}

func TestParams(t *testing.T) {
	const c = requestComponents
	const rest = `;created=1;keyid="a";nonce="0123456789abcdef";alg="ed25519";tag="trunktap-keys-1"`
	for _, test := range []struct {
		field string
		ok    bool
	}{
		{"trunktap=" + c + rest, true},
		{"trunktap=" + c + `;tag="trunktap-keys-1";alg="ed25519";nonce="x";keyid="a";created=1`, true},
		{"sig1=" + c + rest, false},
		{`trunktap=("@method")` + rest, false},
		{"trunktap=" + c + rest + `;created=2`, false},
		{"trunktap=" + c + rest + `;expires=2`, false},
		{"trunktap=" + c + rest + `, sig2=("@method")`, false},
		{"trunktap=" + c + strings.Replace(rest, "ed25519", "none", 1), false},
		{"trunktap=" + c + strings.Replace(rest, "keys-1", "keys-2", 1), false},
		{"trunktap=" + c + strings.Replace(rest, "created=1", "created=-1", 1), false},
		{"trunktap=" + c + strings.Replace(rest, "created=1", "created=99999999999999", 1), false},
		{"trunktap=" + c + strings.Replace(rest, `"a"`, `"a\"b"`, 1), false},
		{"trunktap=" + c + strings.Replace(rest, `"a"`, `"`+strings.Repeat("a", 129)+`"`, 1), false},
		{"trunktap=" + c, false},
		{"", false},
	} {
		if _, err := parseParams(test.field, c); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.field, err)
		}
	}
}

func TestMeaning(t *testing.T) {
	for code, want := range map[string]error{
		CodeUnauthenticated: seal.ErrRevoked, CodeForbidden: seal.ErrRevoked, CodeUnknownKey: seal.ErrRevoked, CodeRevoked: seal.ErrRevoked,
		CodeTampered: recorder.ErrTampered, CodeClock: seal.ErrUnreachable, CodeReplay: seal.ErrUnreachable, CodeRate: seal.ErrUnreachable,
		CodeUnavailable: seal.ErrUnreachable, "of a later version": seal.ErrUnreachable,
	} {
		e := Errorf(code, "x")
		if err := decodeResponse(e.Status(), EncodeError(e), nil); !errors.Is(err, want) {
			t.Errorf("%s: %v", code, err)
		}
	}
	for _, body := range []string{"", "null", "{}", `{"error":null}`, `{"error":{}}`, "<html>"} {
		if err := decodeResponse(502, []byte(body), nil); !errors.Is(err, seal.ErrUnreachable) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestConfig(t *testing.T) {
	err := Config{URL: "http://user:secret@x", Client: "a b", CertFile: "c"}.Check().Err()
	for _, key := range []string{"url", "client", "key_file", "server_keys", "cert_key"} {
		if err == nil || !strings.Contains(err.Error(), key+": ") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", key, err)
		}
	}
	cfg := Config{URL: "https://x", Client: "a", KeyFile: filepath.Join(t.TempDir(), "none"), ServerKeys: "none"}
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "key_file") {
		t.Errorf("no key: %v", err)
	}
	if _, err := ParsePublicKeys([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")); err == nil {
		t.Error("no key is taken for one")
	}
}

func FuzzSignature(f *testing.F) {
	r := request("{}", time.Unix(1800000000, 0))
	f.Add(r.Header.Get("Signature-Input"), r.Header.Get("Signature"))
	f.Add(`trunktap=`+requestComponents+`;created=1;keyid="a";alg="ed25519";tag="trunktap-keys-1"`, "trunktap=::")
	f.Add(`trunktap=`+requestComponents+`;created=`, "trunktap=:AAAA:")
	f.Fuzz(func(t *testing.T, input, signature string) {
		if p, err := parseParams(input, requestComponents); err == nil && (p.KeyID == "" || label+"="+p.raw != input) {
			t.Errorf("%q became %+v", input, p)
		}
		if b, err := parseSignature(signature); err == nil && formatSignature(b) != signature {
			t.Errorf("%q is also written %q", signature, formatSignature(b))
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(200, []byte(`{"key":"1","wrapped":"AAAA"}`))
	f.Add(410, []byte(`{"error":{"code":"revoked","message":""}}`))
	f.Fuzz(func(t *testing.T, status int, b []byte) {
		var in UnwrapRequest
		if err := DecodeRequest(b, &in); err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("error %v", err)
			}
		}
		var out WrapResponse
		if err := decodeResponse(status, b, &out); status != 200 && err == nil {
			t.Error("an error is taken for a result")
		}
	})
}

// TestVector: who builds a key manager by PROTOCOL.md can check signatures by its example,
// which is what this code signs and believes.
func TestVector(t *testing.T) {
	doc, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "https://Keys.example:443/base/v1/wrap", strings.NewReader("{}"))
	created := time.Unix(1800000000, 0)
	p := newParams(requestComponents, "recorder-1", strings.Repeat("A", 24), created)
	base := requestBase(r.Method, r.Host, r.URL.EscapedPath(), digest([]byte("{}")), p.raw)
	asked := ed25519.Sign(testKey, base)
	r.Header.Set(headerDigest, digest([]byte("{}")))
	r.Header.Set(headerInput, label+"="+p.raw)
	r.Header.Set(headerSignature, formatSignature(asked))
	public := testKey.Public().(ed25519.PublicKey)
	if s, err := ReadRequest(r, []byte("{}")); err != nil || !s.By(public) || !bytes.Equal(s.base, base) {
		t.Errorf("%+v, %v", s, err)
	}
	answer, h := []byte(`{"key":"7"}`), http.Header{}
	SignResponse(h, http.StatusOK, answer, asked, "keys", testKey, created)
	if err := verifyResponse(h, http.StatusOK, answer, asked, []ed25519.PublicKey{public}); err != nil {
		t.Error(err)
	}
	signed := responseBase(http.StatusOK, digest(answer), asked, newParams(responseComponents, "keys", "", created).raw)
	for what, want := range map[string]string{
		"seed": hex.EncodeToString(testKey.Seed()), "public key": hex.EncodeToString(public), "what is signed of a request": string(base),
		"signature of the request": headerSignature + ": " + r.Header.Get(headerSignature), "body of the answer": string(answer),
		"fields of the answer":        headerInput + ": " + h.Get(headerInput) + "\n" + headerSignature + ": " + h.Get(headerSignature),
		"what is signed of an answer": string(signed),
	} {
		if !strings.Contains(string(doc), want+"\n") && !strings.Contains(string(doc), "`"+want+"`") {
			t.Errorf("PROTOCOL.md has another %s, want:\n%s", what, want)
		}
	}
}
