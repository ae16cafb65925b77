// Package awskms has AWS KMS wrap data keys. It calls Encrypt and Decrypt itself,
// as Tink's wrapper of the same SDK hides which error was a refusal, which passes,
// and which key was used.
package awskms

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

// Config says which key to use. Credentials are those that the AWS SDK finds:
// environment, files, the role of the machine or pod.
type Config struct {
	Region          string // e.g. eu-central-1
	Key             string // key id, key ARN, alias/NAME or alias ARN, of a symmetric key
	Endpoint        string // https URL of a VPC endpoint; "": the region's
	Profile         string // of the shared configuration; "": default
	CredentialsFile string // "": as the SDK finds it
	CAFile          string // who vouches for the endpoint; "": the machine's authorities
	Attempts        service.Attempts
}

var (
	regionPattern = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]$`)
	keyPattern    = regexp.MustCompile(`^(alias/[A-Za-z0-9/_-]{1,250}|[A-Za-z0-9-]{1,64}|arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]{1,250})$`)
	namePattern   = regexp.MustCompile(`^arn:[a-z-]+:kms:([a-z0-9-]+):[0-9]{12}:key/[A-Za-z0-9-]{1,64}$`)
)

// Check returns everything that is wrong with the configuration.
func (c Config) Check() service.Faults {
	var f service.Faults
	f.Add(!regionPattern.MatchString(c.Region), "region", "%.40q, must be the name of a region, e.g. eu-central-1", c.Region)
	f.Add(!keyPattern.MatchString(c.Key), "key", "%.100q, must be a key id, alias/NAME or the ARN of either", c.Key)
	u, err := url.Parse(c.Endpoint)
	f.Add(c.Endpoint != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil), "endpoint", "must be an https URL: data keys travel through it")
	c.Attempts.Check(&f)
	return f
}

// KEK is a key of AWS KMS. It is safe for concurrent use. AWS rotates it itself.
type KEK struct {
	cfg    Config
	client *kms.Client
	http   *http.Client
	calls  *service.Caller
}

var _ seal.KEK = (*KEK)(nil)

// Open reads the configuration of the SDK. It does not ask AWS.
func Open(ctx context.Context, cfg Config) (*KEK, error) {
	if err := cfg.Check().Err(); err != nil {
		return nil, err
	}
	ca := cfg.CAFile
	if ca == "" {
		ca = os.Getenv("AWS_CA_BUNDLE") // which the SDK heeds for clients of its own alone
	}
	client, err := service.HTTPClient(ca)
	if err != nil {
		return nil, err
	}
	options := []func(*config.LoadOptions) error{
		config.WithRegion(cfg.Region),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }), // Attempts does that
	}
	if cfg.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(cfg.Profile))
	}
	if cfg.CredentialsFile != "" {
		options = append(options, config.WithSharedCredentialsFiles([]string{cfg.CredentialsFile}))
	}
	found, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("profile, credentials_file: %w", err)
	}
	k := &KEK{cfg: cfg, http: client, calls: service.NewCaller(cfg.Attempts)}
	k.client = kms.NewFromConfig(found, func(o *kms.Options) {
		o.HTTPClient = client
		if cfg.Endpoint != "" {
			o.BaseEndpoint = &cfg.Endpoint
		}
	})
	return k, nil
}

// encryptionContext is bound to what is wrapped, and is in CloudTrail's log.
func encryptionContext(aad []byte) map[string]string {
	return map[string]string{"trunktap": "1:" + base64.StdEncoding.EncodeToString(aad)}
}

// Wrap implements seal.KEK. The name is the key's ARN, whatever alias led to it.
func (k *KEK) Wrap(ctx context.Context, plaintext, aad []byte) (string, []byte, error) {
	return k.calls.Wrap(ctx, plaintext, aad, func(ctx context.Context) (string, []byte, error) {
		out, err := k.client.Encrypt(ctx, &kms.EncryptInput{KeyId: &k.cfg.Key, Plaintext: plaintext, EncryptionContext: encryptionContext(aad)})
		if err != nil {
			return "", nil, class(err)
		}
		name, wrapped := aws.ToString(out.KeyId), out.CiphertextBlob
		if !namePattern.MatchString(name) || len(wrapped) == 0 {
			return "", nil, fmt.Errorf("%w: the answer is not complete", seal.ErrUnreachable)
		}
		return name, wrapped, nil
	})
}

// Unwrap implements seal.KEK.
func (k *KEK) Unwrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error) {
	m := namePattern.FindStringSubmatch(name)
	if m == nil {
		return nil, fmt.Errorf("unwrap data key: %w: %.80q is no key of AWS KMS", seal.ErrRevoked, name)
	}
	if len(wrapped) > cipherBytesMax {
		return nil, fmt.Errorf("unwrap data key: %d bytes: %w", len(wrapped), recorder.ErrTampered)
	}
	return k.calls.Unwrap(ctx, name, wrapped, aad, func(ctx context.Context) ([]byte, error) {
		in := &kms.DecryptInput{KeyId: &name, CiphertextBlob: wrapped, EncryptionContext: encryptionContext(aad)}
		out, err := k.client.Decrypt(ctx, in, func(o *kms.Options) { o.Region = m[1] }) // the key may be of another one
		if err != nil {
			return nil, class(err)
		}
		return out.Plaintext, nil
	})
}

// cipherBytesMax is what Decrypt takes.
const cipherBytesMax = 6144

// Codes of errors, as the API reference of AWS KMS and its common errors name them.
var (
	tamperedCodes = []string{"InvalidCiphertextException", "IncorrectKeyException"}
	revokedCodes  = []string{
		"DisabledException", "KMSInvalidStateException", "NotFoundException", "InvalidKeyUsageException", "InvalidGrantTokenException",
		"AccessDeniedException", "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch",
		"IncompleteSignature", "MissingAuthenticationToken", "NotAuthorized", "OptInRequired", "ValidationException", "InvalidArnException",
	}
)

// class says what an error of the SDK means.
func class(err error) error {
	var api smithy.APIError
	switch {
	case !errors.As(err, &api):
		return fmt.Errorf("%w: %w", seal.ErrUnreachable, err)
	case slices.Contains(tamperedCodes, api.ErrorCode()):
		return fmt.Errorf("%w: %s", recorder.ErrTampered, api.ErrorCode())
	case slices.Contains(revokedCodes, api.ErrorCode()):
		return fmt.Errorf("%w: %s: %.200q", seal.ErrRevoked, api.ErrorCode(), api.ErrorMessage())
	}
	return fmt.Errorf("%w: %s: %.200q", seal.ErrUnreachable, api.ErrorCode(), api.ErrorMessage())
}

// Close implements seal.KEK.
func (k *KEK) Close() error {
	if k.calls.Close() {
		k.http.CloseIdleConnections()
	}
	return nil
}
