package remote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
)

// Paths of the operations, below the URL of the key manager.
const (
	PathWrap   = "/v1/wrap"
	PathUnwrap = "/v1/unwrap"
	PathRotate = "/v1/rotate"
	PathStatus = "/v1/status"
)

// BodyBytesMax bounds bodies of requests and responses.
const BodyBytesMax = 32 << 10

// WrapRequest asks for a data key to be wrapped by the active key. Binary fields
// are Base64 (RFC 4648, section 4) in JSON.
type WrapRequest struct {
	Plaintext []byte `json:"plaintext"`
	AAD       []byte `json:"aad"`
}

// WrapResponse answers it.
type WrapResponse struct {
	Key     string `json:"key"`
	Wrapped []byte `json:"wrapped"`
}

// UnwrapRequest asks for a data key.
type UnwrapRequest struct {
	Key     string `json:"key"`
	Wrapped []byte `json:"wrapped"`
	AAD     []byte `json:"aad"`
}

// UnwrapResponse answers it.
type UnwrapResponse struct {
	Plaintext []byte `json:"plaintext"`
}

// RotateResponse names the new active key.
type RotateResponse struct {
	Key string `json:"key"`
}

// StatusResponse tells what the client may do.
type StatusResponse struct {
	Client string   `json:"client"`
	May    []string `json:"may"`
}

// Codes of errors. Each has one status; PROTOCOL.md says what a client makes of it.
const (
	CodeBadRequest      = "bad_request"
	CodeUnauthenticated = "unauthenticated"
	CodeClock           = "clock"
	CodeReplay          = "replay"
	CodeForbidden       = "forbidden"
	CodeNotFound        = "not_found"
	CodeUnknownKey      = "unknown_key"
	CodeRevoked         = "revoked"
	CodeTooLarge        = "too_large"
	CodeTampered        = "tampered"
	CodeRate            = "rate"
	CodeUnavailable     = "unavailable"
)

var statusOf = map[string]int{
	CodeBadRequest:      http.StatusBadRequest,
	CodeUnauthenticated: http.StatusUnauthorized,
	CodeClock:           http.StatusUnauthorized,
	CodeReplay:          http.StatusUnauthorized,
	CodeForbidden:       http.StatusForbidden,
	CodeNotFound:        http.StatusNotFound,
	CodeUnknownKey:      http.StatusNotFound,
	CodeRevoked:         http.StatusGone,
	CodeTooLarge:        http.StatusRequestEntityTooLarge,
	CodeTampered:        http.StatusUnprocessableEntity,
	CodeRate:            http.StatusTooManyRequests,
	CodeUnavailable:     http.StatusServiceUnavailable,
}

// Error is what the key manager answers instead of a result.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s: %.200q", e.Code, e.Message) }

// Status is the HTTP status that carries the error.
func (e *Error) Status() int {
	if s := statusOf[e.Code]; s != 0 {
		return s
	}
	return http.StatusInternalServerError
}

// Errorf makes an Error.
func Errorf(code, format string, a ...any) *Error { return &Error{code, fmt.Sprintf(format, a...)} }

// meaning is what a client makes of an error that the key manager signed.
func (e *Error) meaning() error {
	switch e.Code {
	case CodeUnauthenticated, CodeForbidden, CodeUnknownKey, CodeRevoked:
		return fmt.Errorf("%w: %w", seal.ErrRevoked, e)
	case CodeTampered:
		return fmt.Errorf("%w: %w", recorder.ErrTampered, e)
	case CodeBadRequest, CodeTooLarge, CodeNotFound:
		return fmt.Errorf("the key manager does not understand: %w", e)
	}
	return fmt.Errorf("%w: %w", seal.ErrUnreachable, e)
}

// errorBody is the JSON of an error.
type errorBody struct {
	Error *Error `json:"error"`
}

// DecodeRequest reads a request strictly: one JSON object with known fields. Errors are
// *Error.
func DecodeRequest(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return Errorf(CodeBadRequest, "the body is not the JSON of this request: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Errorf(CodeBadRequest, "the body goes on behind the JSON")
	}
	return nil
}

// decodeResponse reads a response; fields of later versions are left alone.
func decodeResponse(status int, body []byte, v any) error {
	if status == http.StatusOK {
		if err := json.Unmarshal(body, v); err != nil {
			return fmt.Errorf("%w: the key manager's answer is not JSON of this protocol", seal.ErrUnreachable)
		}
		return nil
	}
	var e errorBody
	if err := json.Unmarshal(body, &e); err != nil || e.Error == nil || e.Error.Code == "" {
		return fmt.Errorf("%w: status %d without an error of this protocol", seal.ErrUnreachable, status)
	}
	return e.Error.meaning()
}

// EncodeError returns the body of an error.
func EncodeError(e *Error) []byte {
	b, _ := json.Marshal(errorBody{e}) // strings always encode
	return b
}
