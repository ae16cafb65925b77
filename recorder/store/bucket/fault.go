package bucket

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"gocloud.dev/gcerrors"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/store"
)

// What an operator can do.
const (
	hintAccess   = "check the credentials and that they allow what docs/storage.md lists"
	hintBucket   = "make the bucket, or correct storage.url"
	hintClock    = "set the clock: run an NTP client"
	hintSpace    = "make room, or raise the quota"
	hintNetwork  = "check the network, name resolution and proxy between here and the service"
	hintBusy     = "the service is overloaded or asks for fewer requests: it is tried again"
	hintCorrupt  = "it is tried again; if it stays, something between here and the service changes what passes"
	hintExists   = "another writer uses the same bucket and prefix, or the object was made by hand"
	hintEndpoint = "check endpoint and bucket in storage.url"
	hintTLS      = "the service's certificate is not trusted here: install its authority's"
)

// is tells whether an error of the service is of a kind.
func (b *Bucket) is(err, kind error) bool {
	if err == nil {
		return false
	}
	_, k := b.kind(err)
	return errors.Is(k, kind) || errors.Is(err, kind)
}

// fail makes an error of a store out of one of the service. What is one already
// stays, and so does what is about the caller's context.
func (b *Bucket) fail(ctx context.Context, op, name string, err error) error {
	var done *store.Error
	if errors.As(err, &done) {
		return err
	}
	var u *url.Error
	if errors.As(err, &u) {
		u.URL, _, _ = strings.Cut(u.URL, "?") // a shared access signature is a secret
	}
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(cause, err) // clients hide it behind texts of their own
	}
	hint, kind := b.kind(err)
	return &store.Error{Op: op, Name: name, Store: b.String(), Hint: hint, Kind: kind, Err: err}
}

// hinted is an error that brings its hint.
type hinted struct {
	error
	hint string
}

// Unwrap returns the error.
func (h hinted) Unwrap() error { return h.error }

func (b *Bucket) kind(err error) (hint string, kind error) {
	var h hinted
	if errors.As(err, &h) {
		return h.hint, nil
	}
	for _, known := range []error{recorder.ErrNotFound, recorder.ErrExists, store.ErrLocked, store.ErrCorrupt, store.ErrNoBucket, store.ErrNoLock} {
		if errors.Is(err, known) {
			return hints[known], nil
		}
	}
	if hint, kind = b.service.fault(err); kind != nil || hint != "" {
		return hint, kind
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return "", recorder.ErrNotFound
	case gcerrors.AlreadyExists, gcerrors.FailedPrecondition:
		return hintExists, recorder.ErrExists
	case gcerrors.PermissionDenied:
		return hintAccess, fs.ErrPermission
	default:
		return network(err)
	}
}

var hints = map[error]string{
	recorder.ErrExists: hintExists,
	store.ErrCorrupt:   hintCorrupt,
	store.ErrNoBucket:  hintBucket,
}

// network looks for what lies below the services.
func network(err error) (hint string, kind error) {
	var dns *net.DNSError
	var op *net.OpError
	var cert *x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case errors.As(err, &cert), errors.As(err, &host):
		return hintTLS, nil
	case errors.Is(err, context.Canceled):
		return "", nil
	case errors.As(err, &dns), errors.As(err, &op), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, context.DeadlineExceeded):
		return hintNetwork, nil
	}
	return "", nil
}

// status tells what an answer's HTTP status says where the service names no reason.
func status(code int) (hint string, kind error) {
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return hintAccess, fs.ErrPermission
	case http.StatusPreconditionFailed:
		return hintExists, recorder.ErrExists
	case http.StatusNotFound:
		return "", recorder.ErrNotFound
	case http.StatusInsufficientStorage:
		return hintSpace, syscall.ENOSPC
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return hintBusy, nil
	}
	return "", nil
}
