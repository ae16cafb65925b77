package bucket

import (
	"context"
	"io"
	"net"
	"net/http"
	"time"
)

// newTransport is the transport of stores.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       60 * time.Second,
		MaxIdleConns:          64,
		MaxIdleConnsPerHost:   32,
		MaxConnsPerHost:       64,
	}
}

// limited bounds the time of each request, its answer's body included: a
// service that hangs must not hold what waits behind it.
type limited struct {
	base    http.RoundTripper
	timeout time.Duration
}

// RoundTrip implements http.RoundTripper.
func (l *limited) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeoutCause(r.Context(), l.timeout+timeOf(max(r.ContentLength, readBytesMax)), errSlow)
	resp, err := l.base.RoundTrip(r.WithContext(ctx))
	if err != nil {
		if ctx.Err() != nil && r.Context().Err() == nil {
			err = slowError{err}
		}
		cancel()
		return nil, err
	}
	resp.Body = &limitedBody{resp.Body, cancel}
	return resp, nil
}

// slowError is a request that took too long: worth another attempt.
type slowError struct{ error }

// Timeout makes it one for package net, and for those who ask in its way.
func (slowError) Timeout() bool { return true }

// Temporary says that another attempt may do better.
func (slowError) Temporary() bool { return true }

// Unwrap returns what it is and what the request ended with.
func (e slowError) Unwrap() []error { return []error{errSlow, e.error} }

type limitedBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (b *limitedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
