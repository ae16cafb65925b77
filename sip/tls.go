package sip

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// ClientTLS is what a connection that we open over TLS is like.
type ClientTLS struct {
	Config *tls.Config // not changed any more
	Name   string      // that the peer's certificate must have; empty: the host of the next hop
}

// clientTLS is the configuration of a connection that is opened for f.
func (a *Agent) clientTLS(f Flow) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case f.TLS != nil && f.TLS.Config != nil:
		cfg = f.TLS.Config.Clone()
	case a.cfg.TLS != nil:
		cfg = a.cfg.TLS.Clone()
	}
	if f.TLS != nil && f.TLS.Name != "" {
		cfg.ServerName = f.TLS.Name
	}
	if cfg.ServerName == "" {
		cfg.ServerName = f.Name
	}
	if cfg.ServerName == "" {
		cfg.ServerName = f.Remote.Addr().String()
	}
	return cfg
}

// serverTLS is the configuration of a listener, which asks VerifyPeer with the
// address that a connection comes from.
func (a *Agent) serverTLS(base *tls.Config) *tls.Config {
	if a.cfg.VerifyPeer == nil {
		return base
	}
	outer := base.Clone()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		cfg := base
		if base.GetConfigForClient != nil {
			chosen, err := base.GetConfigForClient(hello)
			if err != nil {
				return nil, err
			}
			if chosen != nil {
				cfg = chosen
			}
		}
		cfg = cfg.Clone()
		src := addrPortOf(hello.Conn.RemoteAddr())
		verify := cfg.VerifyConnection
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			if verify != nil {
				if err := verify(state); err != nil {
					return err
				}
			}
			return a.cfg.VerifyPeer(src, state)
		}
		return cfg, nil
	}
	return outer
}

// VerifyName says why the certificate of a connection is not one of that name:
// a DNS name, an IP address, or a SIP URI without user (RFC 5922 section 7.2).
func VerifyName(state tls.ConnectionState, name string) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the peer has shown no certificate")
	}
	cert := state.PeerCertificates[0]
	for _, u := range cert.URIs {
		if parsed, err := ParseURI(u.String()); err == nil && parsed.User == "" && equalHost(parsed.Host, name) {
			return nil
		}
	}
	if err := cert.VerifyHostname(name); err != nil {
		var wrong x509.HostnameError
		if errors.As(err, &wrong) {
			return fmt.Errorf("the peer's certificate is not one of %s", name)
		}
		return err
	}
	return nil
}

// equalHost compares names of hosts (RFC 4343).
func equalHost(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}
