package gcpkms

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/kektest"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

const keyName = "projects/p/locations/europe-west3/keyRings/trunktap/cryptoKeys/recordings"

// stand is the generated service with Encrypt and Decrypt of one key.
type stand struct {
	kmspb.UnimplementedKeyManagementServiceServer

	mu       sync.Mutex // guards all
	fail     codes.Code // of each request; OK: none
	disabled map[int]bool
	versions []cipher.AEAD
	calls    int
	damage   bool // checksums of answers are wrong
}

func newStand(t *testing.T) (*stand, Config) {
	t.Helper()
	s := &stand{disabled: map[int]bool{}}
	s.rotate(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	kmspb.RegisterKeyManagementServiceServer(srv, s)
	go func() { _ = srv.Serve(l) }() // ends with Stop
	t.Cleanup(srv.Stop)
	return s, Config{
		Key: keyName, Endpoint: l.Addr().String(), Attempts: service.Attempts{Timeout: 20 * time.Second, Tries: 2},
		options: []option.ClientOption{option.WithoutAuthentication(), option.WithTelemetryDisabled(), option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials()))},
	}
}

func (s *stand) rotate(t *testing.T) {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions = append(s.versions, g)
}

func (s *stand) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *stand) refuse(name string) error {
	s.calls++
	if s.fail != codes.OK {
		return status.Error(s.fail, "because")
	}
	if name != keyName {
		return status.Error(codes.NotFound, "CryptoKey not found")
	}
	return nil
}

func (s *stand) Encrypt(_ context.Context, in *kmspb.EncryptRequest) (*kmspb.EncryptResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refuse(in.Name); err != nil {
		return nil, err
	}
	n := len(s.versions)
	switch {
	case in.PlaintextCrc32C.GetValue() != sum(in.Plaintext).Value || in.AdditionalAuthenticatedDataCrc32C.GetValue() != sum(in.AdditionalAuthenticatedData).Value:
		return nil, status.Error(codes.InvalidArgument, "plaintext_crc32c did not match")
	case len(in.Plaintext)+len(in.AdditionalAuthenticatedData) > 8<<10: // of keys in an HSM
		return nil, status.Error(codes.InvalidArgument, "too long")
	case s.disabled[n]:
		return nil, status.Error(codes.FailedPrecondition, "CryptoKeyVersion is not enabled")
	}
	nonce := make([]byte, 12)
	_, _ = rand.Read(nonce) // never fails
	ct := append([]byte{byte(n)}, s.versions[n-1].Seal(nonce, nonce, in.Plaintext, in.AdditionalAuthenticatedData)...)
	check := sum(ct)
	if s.damage {
		check.Value++
	}
	return &kmspb.EncryptResponse{
		Name: fmt.Sprintf("%s/cryptoKeyVersions/%d", keyName, n), Ciphertext: ct, CiphertextCrc32C: check,
		VerifiedPlaintextCrc32C: true, VerifiedAdditionalAuthenticatedDataCrc32C: true,
	}, nil
}

func (s *stand) Decrypt(_ context.Context, in *kmspb.DecryptRequest) (*kmspb.DecryptResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refuse(in.Name); err != nil {
		return nil, err
	}
	invalid := status.Error(codes.InvalidArgument, "Decryption failed: the ciphertext is invalid.")
	ct := in.Ciphertext
	switch {
	case in.CiphertextCrc32C.GetValue() != sum(ct).Value:
		return nil, status.Error(codes.InvalidArgument, "ciphertext_crc32c did not match")
	case len(ct) < 29 || int(ct[0]) < 1 || int(ct[0]) > len(s.versions):
		return nil, invalid
	case s.disabled[int(ct[0])]:
		return nil, status.Error(codes.FailedPrecondition, "CryptoKeyVersion is not enabled")
	}
	b, err := s.versions[ct[0]-1].Open(nil, ct[1:13], ct[13:], in.AdditionalAuthenticatedData)
	if err != nil {
		return nil, invalid
	}
	check := sum(b)
	if s.damage {
		check.Value++
	}
	return &kmspb.DecryptResponse{Plaintext: b, PlaintextCrc32C: check}, nil
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
				s.set(func() { s.fail = codes.Unavailable })
				return func() { s.set(func() { s.fail = codes.OK }) }
			},
			Revoke:     func(*testing.T, string) { s.set(func() { s.disabled[1] = true }) },
			Allow:      func(*testing.T, string) { s.set(func() { clear(s.disabled) }) },
			Rotate:     func(t *testing.T) { s.rotate(t) },
			AnyVersion: true,
		}
	})
}

func TestCodes(t *testing.T) {
	s, cfg := newStand(t)
	k := mustOpen(t, cfg)
	defer func() { _ = k.Close() }() // the connection is a test's
	name, wrapped, err := k.Wrap(t.Context(), make([]byte, 32), nil)
	if err != nil || name != keyName+"/cryptoKeyVersions/1" {
		t.Fatalf("%s, %v", name, err)
	}
	for code, want := range map[codes.Code]error{
		codes.FailedPrecondition: seal.ErrRevoked, codes.NotFound: seal.ErrRevoked, codes.PermissionDenied: seal.ErrRevoked, codes.Unauthenticated: seal.ErrRevoked,
		codes.InvalidArgument: recorder.ErrTampered, codes.ResourceExhausted: seal.ErrUnreachable, codes.Internal: seal.ErrUnreachable, codes.Unavailable: seal.ErrUnreachable,
	} {
		s.set(func() { s.fail, s.calls = code, 0 })
		if _, err := k.Unwrap(t.Context(), name, wrapped, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", code, err, want)
		}
		if again := s.calls == 2; again != (want == seal.ErrUnreachable) {
			t.Errorf("%s: %d calls", code, s.calls)
		}
	}
	s.set(func() { s.fail, s.damage = codes.OK, true })
	if _, err := k.Unwrap(t.Context(), name, wrapped, nil); !errors.Is(err, seal.ErrUnreachable) {
		t.Errorf("an answer damaged on the way: %v", err)
	}
	if _, _, err := k.Wrap(t.Context(), make([]byte, 32), nil); !errors.Is(err, seal.ErrUnreachable) {
		t.Errorf("an answer damaged on the way: %v", err)
	}
}

func TestConfig(t *testing.T) {
	err := Config{Key: keyName + "/cryptoKeyVersions/1", Endpoint: "https://x/"}.Check().Err()
	for _, key := range []string{"key", "endpoint"} {
		if err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
}
