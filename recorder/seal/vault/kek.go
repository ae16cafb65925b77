// Package vault has a HashiCorp Vault or OpenBao server wrap data keys, by its
// transit engine.
package vault

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/openbao/openbao/api/v2"

	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

// KEK is a transit key. It is safe for concurrent use.
type KEK struct {
	cfg   Config
	login *login
	door  service.Door
}

var (
	_ seal.KEK     = (*KEK)(nil)
	_ seal.Rotator = (*KEK)(nil)
)

// Open reads the certificates and starts to keep a token. It does not ask the
// server: that may be away.
func Open(cfg Config) (*KEK, error) {
	if err := cfg.Check().Err(); err != nil {
		return nil, err
	}
	c := api.NewConfig()
	c.DisableEnvironment = true // what is not configured is not there
	c.Address = cfg.Address
	c.MaxRetries = 0 // Attempts does that
	if err := c.ConfigureTLS(&api.TLSConfig{CACert: cfg.CAFile, ClientCert: cfg.CertFile, ClientKey: cfg.CertKey}); err != nil {
		return nil, fmt.Errorf("ca_file, cert_file, cert_key: %w", err)
	}
	client, err := api.NewClient(c)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	client.SetCloneHeaders(true)
	k := &KEK{cfg: cfg, login: &login{cfg: cfg, client: client}}
	k.login.start()
	return k, nil
}

var (
	namePattern   = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]{0,127}):v([1-9][0-9]{0,8})$`)
	cipherPattern = regexp.MustCompile(`^vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]+=*)$`)
)

// Wrap implements seal.KEK.
func (k *KEK) Wrap(ctx context.Context, plaintext, aad []byte) (name string, wrapped []byte, err error) {
	if err := service.CheckWrap(plaintext, aad); err != nil {
		return "", nil, err
	}
	// A server older than associated data ignores it: so it is bound twice.
	bound := service.Bind(plaintext, aad)
	defer clear(bound)
	in := map[string]any{"plaintext": base64.StdEncoding.EncodeToString(bound)}
	if len(aad) > 0 {
		in["associated_data"] = base64.StdEncoding.EncodeToString(aad)
	}
	err = k.ask(ctx, "wrap data key", "encrypt/"+k.cfg.Key, in, func(s *api.Secret) error {
		text, _ := s.Data["ciphertext"].(string)
		m := cipherPattern.FindStringSubmatch(text)
		if m == nil {
			return fmt.Errorf("%w: the answer has no ciphertext of the transit engine", seal.ErrUnreachable)
		}
		name = k.cfg.Key + ":v" + m[1]
		wrapped, err = base64.StdEncoding.DecodeString(m[2])
		return err
	})
	if err != nil {
		return "", nil, err
	}
	return name, wrapped, nil
}

// Unwrap implements seal.KEK.
func (k *KEK) Unwrap(ctx context.Context, name string, wrapped, aad []byte) (plaintext []byte, err error) {
	if err := service.CheckUnwrap(name, wrapped, aad); err != nil {
		return nil, err
	}
	m := namePattern.FindStringSubmatch(name)
	if m == nil {
		return nil, fmt.Errorf("unwrap data key: %w: %.80q is no transit key", seal.ErrRevoked, name)
	}
	in := map[string]any{"ciphertext": "vault:v" + m[2] + ":" + base64.StdEncoding.EncodeToString(wrapped)}
	if len(aad) > 0 {
		in["associated_data"] = base64.StdEncoding.EncodeToString(aad)
	}
	err = k.ask(ctx, "unwrap data key", "decrypt/"+m[1], in, func(s *api.Secret) error {
		text, _ := s.Data["plaintext"].(string)
		bound, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return fmt.Errorf("%w: the answer has no plaintext", seal.ErrUnreachable)
		}
		plaintext, err = service.Unbind(bound, aad)
		return err
	})
	if err != nil {
		return nil, err
	}
	return plaintext, nil
}

// Rotate implements seal.Rotator. The name is that of the key with which the
// server then wraps.
func (k *KEK) Rotate(ctx context.Context) (string, error) {
	once := k.cfg.Attempts
	once.Tries = 1 // whether one that was not answered made a key cannot be told
	err := k.asks(ctx, once, "rotate key", "keys/"+k.cfg.Key+"/rotate", map[string]any{}, func(*api.Secret) error { return nil })
	if err != nil {
		return "", err
	}
	name, _, err := k.Wrap(ctx, make([]byte, service.PlaintextBytesMin), nil)
	return name, err
}

func (k *KEK) ask(ctx context.Context, what, path string, in map[string]any, take func(*api.Secret) error) error {
	return k.asks(ctx, k.cfg.Attempts, what, path, in, take)
}

// asks sends a request until it is answered, once more with a new token when the
// old one is refused: a token that has expired is not told apart from one that
// may not.
func (k *KEK) asks(ctx context.Context, a service.Attempts, what, path string, in map[string]any, take func(*api.Secret) error) error {
	ctx, leave, err := k.door.Enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return a.Do(ctx, what, func(ctx context.Context) error {
		token, err := k.login.current(ctx)
		if err != nil {
			return err
		}
		s, err := k.login.write(ctx, token, k.cfg.mount()+"/"+path, in)
		if errors.Is(err, errDenied) {
			if token, err = k.login.again(ctx, token); err != nil {
				return err
			}
			s, err = k.login.write(ctx, token, k.cfg.mount()+"/"+path, in)
		}
		if errors.Is(err, errDenied) {
			return fmt.Errorf("%w (the token's policy needs update on %s/%s)", err, k.cfg.mount(), path)
		}
		if err != nil {
			return err
		}
		return take(s)
	})
}

// Close implements seal.KEK.
func (k *KEK) Close() error {
	if !k.door.Close() {
		return nil
	}
	k.login.close()
	if t, ok := k.login.client.CloneConfig().HttpClient.Transport.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
	return nil
}
