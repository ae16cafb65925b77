package dtls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/trunktap/trunktap/media/srtp"
)

// Certificate is what the process shows in handshakes. It vouches for nothing:
// peers know it by its fingerprint in SDP. Safe for concurrent use.
type Certificate struct {
	tls   tls.Certificate
	print srtp.Fingerprint
}

// NewCertificate makes a self-signed one with an ECDSA key on P-256 (RFC 8827
// section 6.5). It is valid from a day before now for ten years; peers do not look.
// random is the source of the serial number; nil: the system's, as for the key.
func NewCertificate(now time.Time, random io.Reader) (*Certificate, error) {
	if random == nil {
		random = rand.Reader
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a DTLS key: %w", err)
	}
	serial := make([]byte, 16)
	if _, err := io.ReadFull(random, serial); err != nil {
		return nil, fmt.Errorf("make a DTLS certificate: %w", err)
	}
	serial[0] &= 0x7f // positive
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		Subject:      pkix.Name{CommonName: "trunktap"},
		NotBefore:    now.Add(-24 * time.Hour),
		NotAfter:     now.AddDate(10, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a DTLS certificate: %w", err)
	}
	return CertificateOf(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
}

// CertificateOf takes one that was made elsewhere.
func CertificateOf(c tls.Certificate) (*Certificate, error) {
	if len(c.Certificate) == 0 || c.PrivateKey == nil {
		return nil, fmt.Errorf("a DTLS certificate needs a certificate and its key")
	}
	return &Certificate{tls: c, print: srtp.FingerprintOf(c.Certificate[0])}, nil
}

// Fingerprint is what SDP announces, by SHA-256.
func (c *Certificate) Fingerprint() srtp.Fingerprint { return c.print }
