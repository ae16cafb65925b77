package awskms

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/kektest"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

const keyARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

// stand is a stand-in for AWS KMS that knows Encrypt and Decrypt of the JSON 1.1
// protocol.
type stand struct {
	mu    sync.Mutex // guards all
	fail  string     // an error for each request
	gcm   cipher.AEAD
	calls int
}

func newStand(t *testing.T) (*stand, Config) {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{}
	if s.gcm, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewTLSServer(s)
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	return s, Config{Region: "eu-central-1", Key: "alias/trunktap", Endpoint: srv.URL, CAFile: ca, Attempts: service.Attempts{Timeout: 20 * time.Second, Tries: 2}}
}

type message struct {
	KeyId             string            `json:",omitempty"` //nolint:staticcheck // the protocol's spelling
	Plaintext         []byte            `json:",omitempty"`
	CiphertextBlob    []byte            `json:",omitempty"`
	EncryptionContext map[string]string `json:",omitempty"`
}

var credential = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/[0-9]{8}/eu-central-1/kms/aws4_request, SignedHeaders=[a-z0-9;-]*host[a-z0-9;-]*x-amz-target, Signature=[0-9a-f]{64}$`)

func (s *stand) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	out, code := s.answer(r)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if code != "" {
		status := 400
		if slices.Contains([]string{"KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException"}, code) {
			status = 500
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": "because"}) // the client sees it
		return
	}
	_ = json.NewEncoder(w).Encode(out) // the client sees it
}

func (s *stand) answer(r *http.Request) (out message, code string) {
	var in message
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	switch {
	case s.fail != "":
		return out, s.fail
	case r.Method != http.MethodPost || r.URL.Path != "/" || r.Header.Get("Content-Type") != "application/x-amz-json-1.1":
		return out, "UnknownOperationException"
	case !credential.MatchString(r.Header.Get("Authorization")):
		return out, "IncompleteSignature"
	case d.Decode(&in) != nil:
		return out, "SerializationException"
	}
	aad, err := json.Marshal(in.EncryptionContext) // sorted
	if err != nil || len(aad) > 8192 {
		return out, "ValidationException"
	}
	switch r.Header.Get("X-Amz-Target") {
	case "TrentService.Encrypt":
		if in.KeyId != "alias/trunktap" {
			return out, "NotFoundException"
		}
		if len(in.Plaintext) < 1 || len(in.Plaintext) > 4096 {
			return out, "ValidationException"
		}
		nonce := make([]byte, 12)
		_, _ = rand.Read(nonce) // never fails
		return message{KeyId: keyARN, CiphertextBlob: s.gcm.Seal(nonce, nonce, in.Plaintext, aad)}, ""
	case "TrentService.Decrypt":
		if in.KeyId != keyARN {
			return out, "NotFoundException"
		}
		if len(in.CiphertextBlob) < 1 || len(in.CiphertextBlob) > 6144 {
			return out, "ValidationException"
		}
		if len(in.CiphertextBlob) < 28 {
			return out, "InvalidCiphertextException"
		}
		b, err := s.gcm.Open(nil, in.CiphertextBlob[:12], in.CiphertextBlob[12:], aad)
		if err != nil {
			return out, "InvalidCiphertextException"
		}
		return message{KeyId: keyARN, Plaintext: b}, ""
	}
	return out, "UnknownOperationException"
}

func (s *stand) set(code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.calls = code, 0
}

func mustOpen(t *testing.T, cfg Config) *KEK {
	t.Helper()
	k, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestConformance(t *testing.T) {
	kektest.Run(t, func(t *testing.T) kektest.Harness {
		s, cfg := newStand(t)
		return kektest.Harness{
			Open: func(t *testing.T) seal.KEK { return mustOpen(t, cfg) },
			Outage: func(*testing.T) func() {
				s.set("KMSInternalException")
				return func() { s.set("") }
			},
			Revoke: func(*testing.T, string) { s.set("DisabledException") },
			Allow:  func(*testing.T, string) { s.set("") },
		}
	})
}

// What each code means, and which are tried again.
func TestCodes(t *testing.T) {
	s, cfg := newStand(t)
	k := mustOpen(t, cfg)
	defer func() { _ = k.Close() }() // never fails
	name, wrapped, err := k.Wrap(t.Context(), make([]byte, 32), nil)
	if err != nil || name != keyARN {
		t.Fatalf("%s, %v", name, err)
	}
	for want, codes := range map[error][]string{
		seal.ErrRevoked:      {"DisabledException", "KMSInvalidStateException", "NotFoundException", "AccessDeniedException", "UnrecognizedClientException"},
		recorder.ErrTampered: {"InvalidCiphertextException", "IncorrectKeyException"},
		seal.ErrUnreachable:  {"ThrottlingException", "KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException", "ExpiredTokenException", "OfALaterVersion"},
	} {
		for _, code := range codes {
			s.set(code)
			_, err := k.Unwrap(t.Context(), name, wrapped, nil)
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", code, err, want)
			}
			if again := s.calls == 2; again != (want == seal.ErrUnreachable) {
				t.Errorf("%s: %d calls", code, s.calls)
			}
		}
	}
}

func TestConfig(t *testing.T) {
	err := Config{Region: "Moon", Key: "no such thing", Endpoint: "http://x"}.Check().Err()
	for _, key := range []string{"region", "key", "endpoint"} {
		if err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
	for _, key := range []string{keyARN, "alias/a/b", "1234abcd-12ab-34cd-56ef-1234567890ab", "mrk-1234", "arn:aws-cn:kms:cn-north-1:111122223333:alias/x"} {
		if err := (Config{Region: "us-gov-west-1", Key: key}).Check().Err(); err != nil {
			t.Error(err)
		}
	}
}
