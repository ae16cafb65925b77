// Package remotetest lays out what a key server and its client need, for tests.
package remotetest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Files are the files of one key server and one client.
type Files struct {
	Dir                           string
	Config                        string // the server's; Write makes it
	Cert                          string // of the server; it vouches for itself
	ClientKey, ClientPub, Signing string
	SigningPub                    string
	Audit, Keyset                 string
}

// Lay makes keys and certificates in a directory of the test.
func Lay(t *testing.T) Files {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	f := Files{
		Dir: dir, Config: at("keyserver.yaml"), Cert: at("cert.pem"), ClientKey: at("client.key"), ClientPub: at("client.pub"),
		Signing: at("signing.key"), SigningPub: at("signing.pub"), Audit: at("audit.jsonl"), Keyset: at("keyset.json"),
	}
	Pair(t, f.ClientKey, f.ClientPub)
	Pair(t, f.Signing, f.SigningPub)
	certificate(t, f.Cert, at("cert.key"))
	return f
}

// Write writes the configuration of the server: clients and what else is in more.
func (f Files) Write(t *testing.T, listen, more string) {
	t.Helper()
	write(t, f.Config, 0o600, fmt.Appendf(nil, `listen: %s
tls: {cert: cert.pem, key: cert.key}
signing_key: signing.key
keyset: keyset.json
audit: audit.jsonl
%s
`, listen, more))
}

// Pair makes an Ed25519 key.
func Pair(t *testing.T, private, public string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, private, 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
	if b, err = x509.MarshalPKIXPublicKey(pub); err != nil {
		t.Fatal(err)
	}
	write(t, public, 0o644, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b}))
}

func certificate(t *testing.T, cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "keys.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	write(t, cert, 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, key, 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
}

func write(t *testing.T, path string, mode os.FileMode, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, mode); err != nil {
		t.Fatal(err)
	}
}
