package vault

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/openbao/openbao/api/v2"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
)

// What the transit engine answers with status 400; it tells the cases apart by
// text alone.
var (
	goneTexts     = []string{"encryption key not found", "disallowed by policy (too old)", "version is too new", "soft-deleted", "soft deleted"}
	tamperedTexts = []string{"message authentication failed", "invalid ciphertext", "could not decrypt", "unable to decrypt"}
)

// errDenied is a 403, which may mean that the token has expired.
var errDenied = fmt.Errorf("%w: permission denied", seal.ErrRevoked)

// class says what an error of the client means.
func class(err error) error {
	var r *api.ResponseError
	if !errors.As(err, &r) {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL tells nothing new
		}
		return fmt.Errorf("%w: %w", seal.ErrUnreachable, err)
	}
	said := text(r)
	switch {
	case r.StatusCode == http.StatusForbidden:
		return errDenied
	case r.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: status 404 (check address, namespace and mount): %s", seal.ErrRevoked, said)
	case r.StatusCode == http.StatusBadRequest && has(said, goneTexts):
		return fmt.Errorf("%w: %s", seal.ErrRevoked, said)
	case r.StatusCode == http.StatusBadRequest && has(said, tamperedTexts):
		return fmt.Errorf("%w: %s", recorder.ErrTampered, said)
	case r.StatusCode == http.StatusBadRequest, r.StatusCode == http.StatusMethodNotAllowed, r.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%w: status %d: %s", seal.ErrRevoked, r.StatusCode, said)
	}
	// 412: not yet replicated; 429, 472, 473: a standby; 5xx, 503 when it is sealed.
	return fmt.Errorf("%w: status %d: %s", seal.ErrUnreachable, r.StatusCode, said)
}

// text is what the server said, short and on one line.
func text(r *api.ResponseError) string {
	if r.RawError {
		return "an answer that is not of this protocol"
	}
	return fmt.Sprintf("%.200q", strings.Join(r.Errors, "; "))
}

func has(said string, texts []string) bool {
	for _, t := range texts {
		if strings.Contains(said, t) {
			return true
		}
	}
	return false
}
