// Package azurekv has Azure Key Vault or a Managed HSM wrap data keys. Their wrap
// operations have no associated data and RSA takes few bytes, so what the service
// wraps is a key of 32 bytes that is used once, here, to seal the data key.
package azurekv

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

// Algorithms that wrap.
const (
	RSAOAEP256 = "RSA-OAEP-256" // RSA keys of 2,048 bits and more, in either service
	A256KW     = "A256KW"       // symmetric keys (oct-HSM) of a Managed HSM
)

// Config says which key to use. Credentials are those that Azure's libraries find:
// environment, workload identity, managed identity.
type Config struct {
	URL       string // https://NAME.vault.azure.net or https://NAME.managedhsm.azure.net
	Key       string // name of the key
	Algorithm string // RSA-OAEP-256 (also "") or A256KW
	ClientID  string // of a user-assigned managed identity; "": as Azure's libraries find it
	CAFile    string // who vouches for the service; "": the machine's authorities
	Attempts  service.Attempts

	credential azcore.TokenCredential // of tests
	anyVault   bool                   // of tests: the service is not in Azure's domain
}

var (
	keyPattern  = regexp.MustCompile(`^[A-Za-z0-9-]{1,127}$`)
	namePattern = regexp.MustCompile(`^([A-Za-z0-9-]{1,127})/([A-Za-z0-9]{1,64})$`)
)

// Check returns everything that is wrong with the configuration.
func (c Config) Check() service.Faults {
	var f service.Faults
	u, err := url.Parse(c.URL)
	f.Add(err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "", "url", "must be the https URL of the vault, e.g. https://NAME.vault.azure.net")
	f.Add(!keyPattern.MatchString(c.Key), "key", "%.80q, must be the name of a key: 1 to 127 letters, digits or '-'", c.Key)
	f.Add(c.Algorithm != "" && c.Algorithm != RSAOAEP256 && c.Algorithm != A256KW, "algorithm", "%.40q, must be %s or %s", c.Algorithm, RSAOAEP256, A256KW)
	c.Attempts.Check(&f)
	return f
}

// KEK is a key of Azure. It is safe for concurrent use.
type KEK struct {
	cfg    Config
	client *azkeys.Client
	http   *http.Client
	calls  *service.Caller
}

var (
	_ seal.KEK     = (*KEK)(nil)
	_ seal.Rotator = (*KEK)(nil)
)

// Open finds credentials. It does not ask Azure.
func Open(cfg Config) (*KEK, error) {
	if err := cfg.Check().Err(); err != nil {
		return nil, err
	}
	k := &KEK{cfg: cfg, calls: service.NewCaller(cfg.Attempts)}
	var err error
	if k.http, err = service.HTTPClient(cfg.CAFile); err != nil {
		return nil, err
	}
	credential := cfg.credential
	if credential == nil {
		if credential, err = find(cfg.ClientID); err != nil {
			return nil, fmt.Errorf("client_id: %w", err)
		}
	}
	k.client, err = azkeys.NewClient(cfg.URL, credential, &azkeys.ClientOptions{
		ClientOptions: azcore.ClientOptions{
			Transport: k.http,
			Retry:     policy.RetryOptions{MaxRetries: -1}, // Attempts does that
			Telemetry: policy.TelemetryOptions{Disabled: true},
		},
		DisableChallengeResourceVerification: cfg.anyVault,
	})
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	return k, nil
}

func find(clientID string) (azcore.TokenCredential, error) {
	if clientID != "" {
		return azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ID: azidentity.ClientID(clientID)})
	}
	return azidentity.NewDefaultAzureCredential(nil)
}

func (c Config) algorithm() azkeys.EncryptionAlgorithm {
	if c.Algorithm == "" {
		return RSAOAEP256
	}
	return azkeys.EncryptionAlgorithm(c.Algorithm)
}

// What is wrapped: version, algorithm, length of the wrapped key, wrapped key, and
// the data key sealed with it by AES-256-GCM. The key is used once: the nonce is zero.
const (
	wrappedVersion = 1
	headerBytes    = 4
	onceBytes      = 32
	tagBytes       = 16
)

var algorithms = map[byte]azkeys.EncryptionAlgorithm{1: RSAOAEP256, 2: A256KW}

func numberOf(a azkeys.EncryptionAlgorithm) byte {
	for n, x := range algorithms {
		if x == a {
			return n
		}
	}
	return 0
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Wrap implements seal.KEK. The name is the key's and its version's.
func (k *KEK) Wrap(ctx context.Context, plaintext, aad []byte) (string, []byte, error) {
	once := make([]byte, onceBytes)
	defer clear(once)
	_, _ = rand.Read(once) // never fails
	a, err := gcm(once)
	if err != nil {
		return "", nil, fmt.Errorf("wrap data key: %w", err)
	}
	algorithm := k.cfg.algorithm()
	return k.calls.Wrap(ctx, plaintext, aad, func(ctx context.Context) (string, []byte, error) {
		out, err := k.client.WrapKey(ctx, k.cfg.Key, "", azkeys.KeyOperationParameters{Algorithm: &algorithm, Value: once}, nil)
		if err != nil {
			return "", nil, class(err, false)
		}
		if out.KID == nil || !namePattern.MatchString(out.KID.Name()+"/"+out.KID.Version()) || len(out.Result) == 0 || len(out.Result) > service.WrappedBytesMax/2 {
			return "", nil, fmt.Errorf("%w: the answer is not complete", seal.ErrUnreachable)
		}
		name := out.KID.Name() + "/" + out.KID.Version()
		head := binary.BigEndian.AppendUint16([]byte{wrappedVersion, numberOf(algorithm)}, uint16(len(out.Result)))
		head = append(head, out.Result...)
		return name, a.Seal(head, make([]byte, a.NonceSize()), plaintext, bound(head, aad)), nil
	})
}

// bound is what the data key is bound to: the head too, so that no byte of it is free.
func bound(head, aad []byte) []byte { return append(append([]byte(nil), head...), aad...) }

// Unwrap implements seal.KEK.
func (k *KEK) Unwrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error) {
	m := namePattern.FindStringSubmatch(name)
	if m == nil {
		return nil, fmt.Errorf("unwrap data key: %w: %.80q is no key of Azure", seal.ErrRevoked, name)
	}
	head, sealed, err := split(wrapped)
	if err != nil {
		return nil, err
	}
	algorithm := algorithms[head[1]]
	return k.calls.Unwrap(ctx, name, wrapped, aad, func(ctx context.Context) ([]byte, error) {
		out, err := k.client.UnwrapKey(ctx, m[1], m[2], azkeys.KeyOperationParameters{Algorithm: &algorithm, Value: head[headerBytes:]}, nil)
		if err != nil {
			return nil, class(err, true)
		}
		defer clear(out.Result)
		if len(out.Result) != onceBytes {
			return nil, recorder.ErrTampered
		}
		a, err := gcm(out.Result)
		if err != nil {
			return nil, err
		}
		plaintext, err := a.Open(nil, make([]byte, a.NonceSize()), sealed, bound(head, aad))
		if err != nil {
			return nil, recorder.ErrTampered
		}
		return plaintext, nil
	})
}

// split cuts what Wrap made into the head, the wrapped key at its end, and the
// sealed data key.
func split(wrapped []byte) (head, sealed []byte, err error) {
	if len(wrapped) > headerBytes && wrapped[0] == wrappedVersion && algorithms[wrapped[1]] != "" {
		n := headerBytes + int(binary.BigEndian.Uint16(wrapped[2:]))
		if n > headerBytes && len(wrapped) >= n+service.PlaintextBytesMin+tagBytes {
			return wrapped[:n:n], wrapped[n:], nil
		}
	}
	return nil, nil, fmt.Errorf("unwrap data key: not wrapped by Azure: %w", recorder.ErrTampered)
}

// Rotate implements seal.Rotator: a new version of the key, by its rotation policy.
func (k *KEK) Rotate(ctx context.Context) (name string, err error) {
	err = k.calls.Once(ctx, "rotate key", func(ctx context.Context) error {
		out, err := k.client.RotateKey(ctx, k.cfg.Key, nil)
		if err != nil {
			return class(err, false)
		}
		if out.Key == nil || out.Key.KID == nil {
			return fmt.Errorf("%w: the answer does not tell the new key", seal.ErrUnreachable)
		}
		name = out.Key.KID.Name() + "/" + out.Key.KID.Version()
		return nil
	})
	return name, err
}

// class says what an error of the SDK means. A bad parameter is what was wrapped,
// when unwrapping.
func class(err error, unwrapping bool) error {
	var r *azcore.ResponseError
	var login *azidentity.AuthenticationFailedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &login):
		if login.RawResponse != nil && login.RawResponse.StatusCode < 429 {
			return fmt.Errorf("%w: the login is refused with status %d", seal.ErrRevoked, login.RawResponse.StatusCode)
		}
		return fmt.Errorf("%w: log in to Azure", seal.ErrUnreachable)
	case !errors.As(err, &r):
		return fmt.Errorf("%w: %w", seal.ErrUnreachable, err)
	}
	said := fmt.Sprintf("status %d, %.80q", r.StatusCode, r.ErrorCode)
	switch r.StatusCode {
	case http.StatusBadRequest:
		if unwrapping && r.ErrorCode == "BadParameter" {
			return fmt.Errorf("%w: %s", recorder.ErrTampered, said)
		}
		return fmt.Errorf("%w: %s", seal.ErrRevoked, said)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusConflict:
		return fmt.Errorf("%w: %s", seal.ErrRevoked, said)
	}
	return fmt.Errorf("%w: %s", seal.ErrUnreachable, said)
}

// Close implements seal.KEK.
func (k *KEK) Close() error {
	if k.calls.Close() {
		k.http.CloseIdleConnections()
	}
	return nil
}
