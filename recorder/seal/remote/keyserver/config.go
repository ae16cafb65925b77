package keyserver

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/trunktap/trunktap/recorder/seal/remote"
	"github.com/trunktap/trunktap/recorder/seal/service"
)

// Limits and defaults.
const (
	configBytesMax = 1 << 20
	clientsMax     = 1000
	rateDefault    = 50 // requests a second
	rateMax        = 10_000
	windowDefault  = time.Minute
	windowMin      = 5 * time.Second
	windowMax      = 10 * time.Minute
)

// What a client may be allowed.
const (
	mayWrap   = "wrap"
	mayUnwrap = "unwrap"
	mayRotate = "rotate"
)

// Config is the configuration file of the key server. Paths are relative to it.
type Config struct {
	Listen     string         `yaml:"listen"` // address:port
	TLS        TLS            `yaml:"tls"`
	Name       string         `yaml:"name"`        // in the signatures of answers
	SigningKey string         `yaml:"signing_key"` // Ed25519, PEM, mode 0600
	Keyset     string         `yaml:"keyset"`      // made when it does not exist
	Audit      string         `yaml:"audit"`       // one JSON line for each request
	Window     time.Duration  `yaml:"window"`      // how old or new a request may be; default 1m
	Clients    []ClientConfig `yaml:"clients"`
	// RevokedKeys neither wrap nor unwrap; they stay in the keyset.
	RevokedKeys []string `yaml:"revoked_keys"`

	path string
}

// TLS is how the server shows who it is.
type TLS struct {
	Cert     string `yaml:"cert"`
	Key      string `yaml:"key"`
	ClientCA string `yaml:"client_ca"` // clients must have a certificate of it; "": none is asked for
}

// ClientConfig is who may ask for what.
type ClientConfig struct {
	Name      string   `yaml:"name"`
	PublicKey string   `yaml:"public_key"` // file with one or more, or the PEM itself
	May       []string `yaml:"may"`        // wrap, unwrap, rotate
	Rate      float64  `yaml:"rate"`       // requests a second; default 50
	Disabled  bool     `yaml:"disabled"`
}

// Load reads and checks the configuration file; the error tells every fault.
func Load(path string) (*Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b) > configBytesMax {
		return nil, fmt.Errorf("%s: more than %d bytes", path, configBytesMax)
	}
	c, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	c.path = path
	if err := c.check().Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func parse(b []byte) (*Config, error) {
	c := &Config{Window: windowDefault, Name: "keyserver"}
	if err := yaml.NewDecoder(bytes.NewReader(b), yaml.DisallowUnknownField()).Decode(c); err != nil {
		return nil, fmt.Errorf(" %s", yaml.FormatError(err, false, true))
	}
	return c, nil
}

// check returns what the file itself tells to be wrong.
func (c *Config) check() service.Faults {
	var f service.Faults
	_, err := netip.ParseAddrPort(c.Listen)
	f.Add(err != nil, "listen", "%q, must be address:port, e.g. 0.0.0.0:8443", c.Listen)
	for key, v := range map[string]string{"tls.cert": c.TLS.Cert, "tls.key": c.TLS.Key, "signing_key": c.SigningKey, "keyset": c.Keyset, "audit": c.Audit} {
		f.Add(v == "", key, "is missing: the path of a file")
	}
	f.Add(!remote.ValidName(c.Name), "name", "%.80q, must be 1 to 64 letters, digits, '.', '_' or '-'", c.Name)
	f.Add(c.Window < windowMin || c.Window > windowMax, "window", "%s, must be %s to %s", c.Window, windowMin, windowMax)
	f.Add(len(c.Clients) > clientsMax, "clients", "%d, at most %d", len(c.Clients), clientsMax)
	seen := map[string]bool{}
	for i, cl := range c.Clients {
		key := fmt.Sprintf("clients[%d]", i)
		f.Add(!remote.ValidName(cl.Name), key+".name", "%.80q, must be 1 to 64 letters, digits, '.', '_' or '-'", cl.Name)
		f.Add(seen[cl.Name], key+".name", "%.80q is there twice", cl.Name)
		seen[cl.Name] = true
		f.Add(cl.PublicKey == "", key+".public_key", "is missing: a file with the client's Ed25519 public key, or the PEM")
		f.Add(cl.Rate < 0 || cl.Rate > rateMax, key+".rate", "%g, must be more than 0 and at most %d a second", cl.Rate, rateMax)
		for _, m := range cl.May {
			f.Add(!slices.Contains([]string{mayWrap, mayUnwrap, mayRotate}, m), key+".may", "%.40q, must be wrap, unwrap or rotate", m)
		}
	}
	slices.SortFunc(f, func(a, b service.Fault) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	return f
}

// at returns a path of the file relative to the file.
func (c *Config) at(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(c.path), path)
}

// publicKeys reads the keys of a client.
func (c *Config) publicKeys(cl ClientConfig) ([]ed25519.PublicKey, error) {
	if bytes.HasPrefix([]byte(cl.PublicKey), []byte("-----BEGIN")) {
		return remote.ParsePublicKeys([]byte(cl.PublicKey))
	}
	return remote.ReadPublicKeys(c.at(cl.PublicKey))
}

// tls reads the certificates.
func (c *Config) tls() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.at(c.TLS.Cert), c.at(c.TLS.Key))
	if err != nil {
		return nil, fmt.Errorf("tls.cert: %w", err)
	}
	t := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if c.TLS.ClientCA == "" {
		return t, nil
	}
	b, err := os.ReadFile(c.at(c.TLS.ClientCA))
	if err != nil {
		return nil, fmt.Errorf("tls.client_ca: %w", err)
	}
	t.ClientCAs, t.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !t.ClientCAs.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("tls.client_ca: %s holds no certificate in PEM", c.TLS.ClientCA)
	}
	return t, nil
}
