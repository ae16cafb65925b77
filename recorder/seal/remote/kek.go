// Package remote asks a key manager that the customer runs to wrap and unwrap
// data keys, over HTTPS with signed requests and answers; PROTOCOL.md.
package remote

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

const (
	connsMax    = 16
	idleTimeout = 90 * time.Second
	clientMax   = 64 // characters of a client's name
)

// Config says where the key manager is and who we are.
type Config struct {
	URL        string // https://host[:port][/path]
	Client     string // the name by which the key manager knows us
	KeyFile    string // our Ed25519 private key, PEM
	ServerKeys string // the key manager's Ed25519 public keys, PEM; several: any of them
	CAFile     string // who vouches for its certificate; "": the machine's authorities
	CertFile   string // our certificate and its key for mutual TLS; both or none
	CertKey    string
	Attempts   service.Attempts
}

// Check returns everything that is wrong with the configuration.
func (c Config) Check() service.Faults {
	var f service.Faults
	u, err := url.Parse(c.URL)
	f.Add(err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "",
		"url", "%.100q, must be https://host[:port][/path]: data keys travel through it", redacted(u))
	f.Add(!ValidName(c.Client), "client", "%.80q, must be 1 to %d letters, digits, '.', '_' or '-', as the key manager knows this daemon", c.Client, clientMax)
	f.Add(c.KeyFile == "", "key_file", "is missing: our Ed25519 private key (openssl genpkey -algorithm ed25519)")
	f.Add(c.ServerKeys == "", "server_keys", "is missing: the public keys with which the key manager signs its answers")
	f.Add((c.CertFile == "") != (c.CertKey == ""), "cert_key", "cert_file and cert_key go together")
	c.Attempts.Check(&f)
	return f
}

func redacted(u *url.URL) string {
	if u == nil {
		return ""
	}
	return u.Redacted()
}

// ValidName tells whether a name can be a client's.
func ValidName(s string) bool {
	return s != "" && len(s) <= clientMax && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	})
}

// KEK is a key manager over HTTPS. It is safe for concurrent use.
type KEK struct {
	cfg    Config
	base   string
	key    ed25519.PrivateKey
	server []ed25519.PublicKey
	http   *http.Client
	door   service.Door
}

var (
	_ seal.KEK     = (*KEK)(nil)
	_ seal.Rotator = (*KEK)(nil)
)

// Open reads the keys. It does not ask the key manager.
func Open(cfg Config) (*KEK, error) {
	if err := cfg.Check().Err(); err != nil {
		return nil, err
	}
	k := &KEK{cfg: cfg, base: strings.TrimRight(cfg.URL, "/")}
	var err error
	if k.key, err = ReadPrivateKey(cfg.KeyFile); err != nil {
		return nil, fmt.Errorf("key_file: %w", err)
	}
	if k.server, err = ReadPublicKeys(cfg.ServerKeys); err != nil {
		return nil, fmt.Errorf("server_keys: %w", err)
	}
	t, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	k.http = &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: t, ForceAttemptHTTP2: true,
			MaxConnsPerHost: connsMax, IdleConnTimeout: idleTimeout, MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return k, nil
}

func (c Config) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		b, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w (make it readable for the daemon's user)", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.CertKey)
		if err != nil {
			return nil, fmt.Errorf("cert_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// Wrap implements seal.KEK.
func (k *KEK) Wrap(ctx context.Context, plaintext, aad []byte) (string, []byte, error) {
	if err := service.CheckWrap(plaintext, aad); err != nil {
		return "", nil, err
	}
	var out WrapResponse
	err := k.ask(ctx, "wrap data key", PathWrap, WrapRequest{plaintext, aad}, &out, func() bool {
		return service.CheckUnwrap(out.Key, out.Wrapped, nil) == nil
	})
	if err != nil {
		return "", nil, err
	}
	return out.Key, out.Wrapped, nil
}

// Unwrap implements seal.KEK.
func (k *KEK) Unwrap(ctx context.Context, name string, wrapped, aad []byte) ([]byte, error) {
	if err := service.CheckUnwrap(name, wrapped, aad); err != nil {
		return nil, err
	}
	var out UnwrapResponse
	err := k.ask(ctx, "unwrap data key", PathUnwrap, UnwrapRequest{name, wrapped, aad}, &out, func() bool {
		return service.CheckWrap(out.Plaintext, nil) == nil
	})
	if err != nil {
		return nil, err
	}
	return out.Plaintext, nil
}

// Rotate implements seal.Rotator.
func (k *KEK) Rotate(ctx context.Context) (string, error) {
	var out RotateResponse
	err := k.ask(ctx, "rotate key", PathRotate, struct{}{}, &out, func() bool { return out.Key != "" })
	return out.Key, err
}

// Status asks what this client may do.
func (k *KEK) Status(ctx context.Context) (StatusResponse, error) {
	var out StatusResponse
	err := k.ask(ctx, "ask key manager", PathStatus, struct{}{}, &out, func() bool { return out.Client == k.cfg.Client })
	return out, err
}

// ask sends one request until it is answered.
func (k *KEK) ask(ctx context.Context, what, path string, in, out any, valid func() bool) error {
	ctx, leave, err := k.door.Enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	attempts := k.cfg.Attempts
	if path == PathRotate {
		attempts.Tries = 1 // whether one that was not answered made a key cannot be told
	}
	return attempts.Do(ctx, what, func(ctx context.Context) error {
		if err := k.post(ctx, path, body, out); err != nil {
			return err
		}
		if !valid() {
			return fmt.Errorf("%w: the key manager's answer is not complete", seal.ErrUnreachable)
		}
		return nil
	})
}

// post sends the request once. What the key manager did not sign is never
// believed: it is an outage, whatever it says.
func (k *KEK) post(ctx context.Context, path string, body []byte, out any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, k.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	sig := SignRequest(r, body, k.cfg.Client, k.key, time.Now())
	resp, err := k.http.Do(r)
	if err != nil {
		return fmt.Errorf("%w: %w", seal.ErrUnreachable, unwrapURL(err))
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, BodyBytesMax+1))
	if err != nil || len(answer) > BodyBytesMax {
		return fmt.Errorf("%w: the answer breaks off or is longer than %d bytes", seal.ErrUnreachable, BodyBytesMax)
	}
	defer clear(answer)
	if err := verifyResponse(resp.Header, resp.StatusCode, answer, sig, k.server); err != nil {
		return fmt.Errorf("%w: an answer with status %d that the key manager did not sign: %w", seal.ErrUnreachable, resp.StatusCode, err)
	}
	return decodeResponse(resp.StatusCode, answer, out)
}

// unwrapURL leaves out the URL, which may tell more than an operator wants in logs.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// Close implements seal.KEK.
func (k *KEK) Close() error {
	if k.door.Close() {
		k.http.CloseIdleConnections()
	}
	return nil
}
