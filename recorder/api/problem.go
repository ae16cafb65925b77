package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/trunktap/trunktap/recorder"
)

// Problem is an error as the client sees it (RFC 9457). It never repeats what
// the client sent and tells nothing of the inside.
type Problem struct {
	Type   string        `json:"type"`
	Title  string        `json:"title"`
	Status int           `json:"status"`
	Detail string        `json:"detail"`
	Code   string        `json:"code"` // for programs; stable
	Errors []ProblemItem `json:"errors,omitempty"`

	Shredded *Tombstone `json:"shredded,omitempty"` // of code shredded: what is left of the recording
}

// Tombstone is what is left of a shredded recording.
type Tombstone struct {
	Recording string `json:"recording"`
	recorder.Shredded
}

// ProblemItem is one thing that is wrong with a request.
type ProblemItem struct {
	Location string `json:"location"` // "body.event", "query.limit"
	Message  string `json:"message"`
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the status of the answer.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType turns JSON into the type of RFC 9457.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func newProblem(status int, code, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Code: code}
}

// codes of the problems that huma finds before a handler runs.
var codes = map[int]string{
	http.StatusBadRequest:            "bad-request",
	http.StatusNotAcceptable:         "not-acceptable",
	http.StatusRequestTimeout:        "timeout",
	http.StatusRequestEntityTooLarge: "too-large",
	http.StatusUnsupportedMediaType:  "media-type",
	http.StatusUnprocessableEntity:   "invalid",
}

// problems is a huma transformer: it gives huma's own errors the shape of
// ours, without the values that they quote.
func problems(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	code := codes[e.Status]
	if code == "" {
		code = "internal"
	}
	p := newProblem(e.Status, code, e.Detail)
	for _, d := range e.Errors {
		p.Errors = append(p.Errors, ProblemItem{d.Location, d.Message})
	}
	return p, nil
}

// writeProblem answers outside of huma.
func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the peer is gone
}

// missing is what is not found, where it is neither a call nor a recording.
var missing = map[string]string{
	doRetire:  "there is no such key",
	doProve:   "there is no such entry in the audit log",
	doReadLog: "there is no such audit log",
}

// What may be asked of keys and log, for problem.
const (
	doRetire  = "retire a key"
	doProve   = "prove an entry of the audit log"
	doReadLog = "read the audit log"
)

// problem turns an error of the recorder into one for the client and logs what
// the operator has to know.
func (s *Server) problem(doing string, err error) *Problem {
	var refused *recorder.RefusedError
	var shredded *recorder.ShreddedError
	var query *recorder.QueryError
	switch {
	case errors.As(err, &query):
		p := newProblem(http.StatusUnprocessableEntity, "invalid", "query."+query.Error())
		p.Errors = []ProblemItem{{"query." + query.Field, query.Why}}
		return p
	case errors.As(err, &refused):
		return newProblem(http.StatusConflict, "refused", refused.Why)
	case errors.Is(err, recorder.ErrNotFound):
		return newProblem(http.StatusNotFound, "not-found", cmp.Or(missing[doing], "there is no such call or recording"))
	case errors.Is(err, recorder.ErrEnded):
		return newProblem(http.StatusNotFound, "ended", "the call has ended")
	case errors.Is(err, ErrCursor):
		return newProblem(http.StatusUnprocessableEntity, "invalid", "query.cursor is no cursor of a listing")
	case errors.Is(err, context.Canceled):
		return newProblem(http.StatusServiceUnavailable, "cancelled", "the request was given up")
	case errors.Is(err, context.DeadlineExceeded):
		return newProblem(http.StatusGatewayTimeout, "effect-unknown", "it is queued, its effect is not known yet")
	case errors.As(err, &shredded):
		p := newProblem(http.StatusGone, "shredded", fmt.Sprintf("the recording was shredded at %s, reason: %s", shredded.At.UTC().Format(time.RFC3339), shredded.Reason))
		p.Shredded = &Tombstone{shredded.Recording, shredded.Shredded}
		return p
	case errors.Is(err, recorder.ErrUpgrading):
		return newProblem(http.StatusServiceUnavailable, "upgrading", recorder.ErrUpgrading.Error())
	case errors.Is(err, recorder.ErrKeyRevoked):
		s.cfg.Log.Error(doing, "error", err)
		return newProblem(http.StatusServiceUnavailable, "key-revoked", "the key that opens the recording is disabled, destroyed or not permitted: "+
			"enable it again at its service, or allow this daemon to use it")
	case errors.Is(err, recorder.ErrKeyUnreachable):
		s.cfg.Log.Error(doing, "error", err)
		return newProblem(http.StatusServiceUnavailable, "key-unavailable", "the key service does not answer: see that it runs and can be reached by the daemon, then ask again")
	case errors.Is(err, recorder.ErrKey):
		s.cfg.Log.Error(doing, "error", err)
		return newProblem(http.StatusServiceUnavailable, "key-unavailable", "the key of the recording is not available")
	case errors.Is(err, recorder.ErrTampered):
		s.cfg.Log.Error(doing, "error", err)
		return newProblem(http.StatusInternalServerError, "tampered", "the recording does not authenticate")
	}
	s.cfg.Log.Error(doing, "error", err)
	return newProblem(http.StatusInternalServerError, "internal", "the server failed, its log says why")
}
