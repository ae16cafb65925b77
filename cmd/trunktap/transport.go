package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/sip"
	"github.com/trunktap/trunktap/sip/dns"
)

// sipTLS is how the listeners of SIP identify themselves. Its files may be read
// again while connections are open.
type sipTLS struct {
	now atomic.Pointer[tls.Config] // nil: no certificate is configured

	secret [32]byte // keys the nonces of our challenges, across reloads
}

// load reads the files. After an error all is as it was.
func (s *sipTLS) load(c config.ListenTLS) error {
	if c.Cert == "" {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return fmt.Errorf("sip.tls: %w", err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if c.ClientCA != "" {
		if cfg.ClientCAs, err = authorities(c.ClientCA); err != nil {
			return fmt.Errorf("sip.tls.client_ca: %w", err)
		}
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	s.now.Store(cfg)
	return nil
}

// listener is the configuration of listeners; nil without a certificate.
func (s *sipTLS) listener() *tls.Config {
	if s.now.Load() == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.now.Load(), nil },
	}
}

// dialer is the configuration of connections that we open to those who ask for
// nothing else: the system's authorities, and our certificate when it is asked for.
func (s *sipTLS) dialer() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cfg := s.now.Load(); cfg != nil {
				return &cfg.Certificates[0], nil
			}
			return &tls.Certificate{}, nil
		},
	}
}

// side is how connections to one side of a trunk are opened; nil: as all are.
func (s *sipTLS) side(c config.SideTLS) (*sip.ClientTLS, error) {
	if c == (config.SideTLS{}) {
		return nil, nil
	}
	cfg := s.dialer()
	if c.Cert != "" {
		cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		cfg.GetClientCertificate, cfg.Certificates = nil, []tls.Certificate{cert}
	}
	if c.CA != "" {
		pool, err := authorities(c.CA)
		if err != nil {
			return nil, fmt.Errorf("tls.ca: %w", err)
		}
		cfg.RootCAs = pool
	}
	return &sip.ClientTLS{Config: cfg, Name: c.PeerName}, nil
}

// credentials reads those of a side; nil: it has none.
func credentials(c config.Auth) (*sip.Credentials, error) {
	if c.Username == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("auth.password_file: %w", err)
	}
	password, _, _ := strings.Cut(string(text), "\n")
	if password = strings.TrimSuffix(password, "\r"); password == "" {
		return nil, fmt.Errorf("auth.password_file: the first line of %s is empty", c.PasswordFile)
	}
	return &sip.Credentials{Username: c.Username, Password: password, Realm: c.Realm}, nil
}

// authenticate tells a side of signalling about credentials. secret keys the
// nonces of its challenges.
func authenticate(s *config.Side, to *sip.Side, secret [32]byte) error {
	by, err := credentials(s.Auth)
	if err != nil || by == nil {
		return err
	}
	to.Auth = by
	if s.Challenge {
		to.Gate = sip.NewGate(*by, secret)
	}
	if r := &s.Register; r.Server.Host != "" {
		to.Register = &sip.Registrar{Server: nextHops([]config.NextHop{r.Server})[0], Contact: r.Contact, Expires: r.Expires}
	}
	return nil
}

// resolver asks the servers that the file names, else those of the system; nil: there
// are none, and the system is asked for addresses.
func resolver(servers []netip.AddrPort) *dns.Resolver {
	if len(servers) == 0 {
		servers = dns.SystemServers("/etc/resolv.conf")
	}
	if len(servers) == 0 {
		return nil
	}
	return dns.New(dns.Config{Servers: servers, Hosts: dns.HostsFile("/etc/hosts")})
}

func authorities(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return pool, nil
}
