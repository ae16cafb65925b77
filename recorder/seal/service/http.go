package service

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"time"
)

const (
	connsMax    = 16
	idleTimeout = 90 * time.Second
)

// HTTPClient returns a client whose connections its owner closes. CAFile vouches
// for servers; "": the machine's authorities.
func HTTPClient(caFile string) (*http.Client, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		b, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w (make it readable for the daemon's user)", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM", caFile)
		}
	}
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: t, ForceAttemptHTTP2: true, MaxConnsPerHost: connsMax, MaxIdleConnsPerHost: connsMax, IdleConnTimeout: idleTimeout,
	}}, nil
}
