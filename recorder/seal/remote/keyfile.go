package remote

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	"github.com/trunktap/trunktap/recorder/seal/service"
)

const publicBytesMax = 16 << 10

// ReadPrivateKey reads an Ed25519 key in PEM (PKCS #8), as
// `openssl genpkey -algorithm ed25519` makes it.
func ReadPrivateKey(path string) (ed25519.PrivateKey, error) {
	b, err := service.ReadSecret(path)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: holds no PEM (openssl genpkey -algorithm ed25519 -out %s)", path, path)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := k.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s: holds no Ed25519 key (openssl genpkey -algorithm ed25519 -out %s)", path, path)
	}
	return key, nil
}

// ReadPublicKeys reads Ed25519 keys in PEM, as `openssl pkey -pubout` makes them.
// Several let the peer change its key.
func ReadPublicKeys(path string) ([]ed25519.PublicKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w (make it readable for the daemon's user)", err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	b, err := io.ReadAll(io.LimitReader(f, publicBytesMax))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	keys, err := ParsePublicKeys(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// ParsePublicKeys reads Ed25519 keys in PEM.
func ParsePublicKeys(b []byte) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		k, err := x509.ParsePKIXPublicKey(block.Bytes)
		key, ok := k.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("holds a %.30q that is no Ed25519 public key (openssl pkey -in KEY -pubout)", block.Type)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("holds no public key (openssl pkey -in KEY -pubout)")
	}
	return keys, nil
}
