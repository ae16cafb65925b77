package sip

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"
)

// selfSigned makes a certificate for 127.0.0.1 and the pool that trusts it.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"pbx.example"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTLS(t *testing.T) {
	cert, pool := selfSigned(t)
	listen := loopback("tls")
	listen.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	b, in := newAgent(t, nil, listen)
	for _, c := range []struct {
		name string
		pool *x509.CertPool
		ok   bool
	}{{"", pool, true}, {"pbx.example", pool, true}, {"other.example", pool, false}, {"", x509.NewCertPool(), false}} {
		a, err := New(Config{
			Listen: []Listen{listen}, TLS: &tls.Config{RootCAs: c.pool, MinVersion: tls.VersionTLS12},
			Allow: func(netip.AddrPort) bool { return true }, Handle: func(*Message) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 1)
		flow := Flow{Network: "tls", Remote: b.Addrs()[0], Name: c.name}
		if err := a.Send(mustParse(t, plain), flow, func(err error) { failed <- err }); err != nil {
			t.Fatal(err)
		}
		select {
		case m := <-in:
			if !c.ok || m.Flow.Network != "tls" {
				t.Errorf("%q: a message came through", c.name)
			}
		case err := <-failed:
			if c.ok {
				t.Errorf("%q: %v", c.name, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%q: neither sent nor failed", c.name)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}
