// Package gcpkms has Google Cloud KMS wrap data keys. It calls Encrypt and Decrypt
// itself: Tink's wrapper uses the REST API, without which key version wrapped, and
// hides which error was a refusal.
package gcpkms

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"strings"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

// Config says which key to use. Credentials are those that Google's libraries find:
// environment, file, the service account of the machine or pod.
type Config struct {
	Key             string // projects/P/locations/L/keyRings/R/cryptoKeys/K, for symmetric encryption
	Endpoint        string // host:port; "": Google's, or the region's of a regional key ring
	CredentialsFile string // of a service account; "": as Google's libraries find it
	Attempts        service.Attempts

	options []option.ClientOption // of tests
}

const part = `[A-Za-z0-9_.:-]{1,100}`

var (
	keyPattern  = regexp.MustCompile(`^projects/` + part + `/locations/` + part + `/keyRings/` + part + `/cryptoKeys/` + part + `$`)
	namePattern = regexp.MustCompile(`^(projects/` + part + `/locations/` + part + `/keyRings/` + part + `/cryptoKeys/` + part + `)/cryptoKeyVersions/[1-9][0-9]{0,8}$`)
)

// Check returns everything that is wrong with the configuration.
func (c Config) Check() service.Faults {
	var f service.Faults
	f.Add(!keyPattern.MatchString(c.Key), "key", "%.100q, must be projects/P/locations/L/keyRings/R/cryptoKeys/K, without a version", c.Key)
	f.Add(strings.Contains(c.Endpoint, "/"), "endpoint", "%.100q, must be host:port", c.Endpoint)
	c.Attempts.Check(&f)
	return f
}

// KEK is a key of Google Cloud KMS. It is safe for concurrent use. Google rotates
// it, by schedule or command.
type KEK struct {
	cfg    Config
	client *kms.KeyManagementClient
	calls  *service.Caller
}

var _ seal.KEK = (*KEK)(nil)

// Open finds credentials. It does not ask Google for keys.
func Open(ctx context.Context, cfg Config) (*KEK, error) {
	if err := cfg.Check().Err(); err != nil {
		return nil, err
	}
	var options []option.ClientOption
	if cfg.Endpoint != "" {
		options = append(options, option.WithEndpoint(cfg.Endpoint))
	}
	if cfg.CredentialsFile != "" {
		options = append(options, option.WithAuthCredentialsFile(option.ServiceAccount, cfg.CredentialsFile))
	}
	client, err := kms.NewKeyManagementClient(ctx, append(options, cfg.options...)...)
	if err != nil {
		return nil, fmt.Errorf("credentials_file: %w", err)
	}
	client.CallOptions.Encrypt, client.CallOptions.Decrypt = nil, nil // Attempts does that
	return &KEK{cfg: cfg, client: client, calls: service.NewCaller(cfg.Attempts)}, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the checksum that guards a field on its way.
func sum(b []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(b, castagnoli)))
}

// errDamaged says that a field was damaged on its way; it may pass.
var errDamaged = fmt.Errorf("%w: damaged on the way", seal.ErrUnreachable)

// Wrap implements seal.KEK. The name is that of the version which wrapped.
func (k *KEK) Wrap(ctx context.Context, plaintext, aad []byte) (string, []byte, error) {
	return k.calls.Wrap(ctx, plaintext, aad, func(ctx context.Context) (string, []byte, error) {
		out, err := k.client.Encrypt(ctx, &kmspb.EncryptRequest{
			Name: k.cfg.Key, Plaintext: plaintext, PlaintextCrc32C: sum(plaintext), AdditionalAuthenticatedData: aad, AdditionalAuthenticatedDataCrc32C: sum(aad),
		})
		switch {
		case err != nil:
			return "", nil, class(err, false)
		case !out.VerifiedPlaintextCrc32C || !out.VerifiedAdditionalAuthenticatedDataCrc32C || out.CiphertextCrc32C.GetValue() != sum(out.Ciphertext).Value:
			return "", nil, errDamaged
		case !namePattern.MatchString(out.Name):
			return "", nil, fmt.Errorf("%w: the answer does not tell the version", seal.ErrUnreachable)
		}
		return out.Name, out.Ciphertext, nil
	})
}

// Unwrap implements seal.KEK. Which version unwraps stands in what was wrapped;
// the name tells the key, and people the version.
func (k *KEK) Unwrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error) {
	m := namePattern.FindStringSubmatch(name)
	if m == nil {
		return nil, fmt.Errorf("unwrap data key: %w: %.80q is no key of Google Cloud KMS", seal.ErrRevoked, name)
	}
	return k.calls.Unwrap(ctx, name, wrapped, aad, func(ctx context.Context) ([]byte, error) {
		out, err := k.client.Decrypt(ctx, &kmspb.DecryptRequest{
			Name: m[1], Ciphertext: wrapped, CiphertextCrc32C: sum(wrapped), AdditionalAuthenticatedData: aad, AdditionalAuthenticatedDataCrc32C: sum(aad),
		})
		switch {
		case err != nil:
			return nil, class(err, true)
		case out.PlaintextCrc32C.GetValue() != sum(out.Plaintext).Value:
			return nil, errDamaged
		}
		return out.Plaintext, nil
	})
}

// class says what an error of the API means. An argument that is not valid is the
// ciphertext or what it is bound to, when unwrapping; or a field that was damaged.
func class(err error, unwrapping bool) error {
	s, ok := status.FromError(err)
	if !ok {
		var g interface{ GRPCStatus() *status.Status }
		if !errors.As(err, &g) {
			return fmt.Errorf("%w: %w", seal.ErrUnreachable, err)
		}
		s = g.GRPCStatus()
	}
	said := fmt.Sprintf("%s: %.200q", s.Code(), s.Message())
	switch s.Code() {
	case codes.InvalidArgument:
		switch {
		case strings.Contains(strings.ToLower(s.Message()), "crc32c"):
			return errDamaged
		case unwrapping:
			return fmt.Errorf("%w: %s", recorder.ErrTampered, said)
		}
		return fmt.Errorf("%w: %s", seal.ErrRevoked, said)
	case codes.FailedPrecondition, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("%w: %s", seal.ErrRevoked, said)
	default:
		return fmt.Errorf("%w: %s", seal.ErrUnreachable, said)
	}
}

// Close implements seal.KEK.
func (k *KEK) Close() error {
	if !k.calls.Close() {
		return nil
	}
	return k.client.Close()
}
