package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Holds works on legal holds and leaves a trace of it. Safe for concurrent use. Errors are
// those of Keys.
type Holds interface {
	Holds(ctx context.Context, id string) ([]Hold, error)
	PlaceHold(ctx context.Context, id string, o HoldOrder, by Actor) error
	ReleaseHold(ctx context.Context, id string, o HoldOrder, by Actor) error
}

// Hold keeps a recording from being deleted or shredded.
type Hold struct {
	Name   string    `json:"name"`
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at"`
}

// HoldOrder asks for a hold, or for its end.
type HoldOrder struct {
	Name   string `json:"name" minLength:"1" maxLength:"64" doc:"Of the case; without colons."`
	Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"It is kept, with the hold and in the audit log."`
}

type (
	holdsInput struct {
		ID string `path:"id" maxLength:"128"`
	}
	holdInput struct {
		ID   string `path:"id" maxLength:"128"`
		Body HoldOrder
	}
	holdsAnswer struct {
		Body struct {
			Holds []Hold `json:"holds" nullable:"false"`
		}
	}
)

func (s *Server) holdRoutes() {
	h := s.cfg.Holds
	if h == nil {
		return
	}
	answer := func(ctx context.Context, id, doing string, err error) (*holdsAnswer, error) {
		out := &holdsAnswer{}
		if err == nil {
			out.Body.Holds, err = h.Holds(ctx, id)
		}
		if out.Body.Holds == nil {
			out.Body.Holds = []Hold{}
		}
		return out, s.keyProblem(doing, err)
	}
	huma.Register(s.api, operation("holds", http.MethodGet, "/v1/recordings/{id}/holds", "Legal holds of a recording", http.StatusNotFound),
		func(ctx context.Context, in *holdsInput) (*holdsAnswer, error) {
			return answer(ctx, in.ID, "list legal holds", nil)
		})
	huma.Register(s.api, operation("hold", http.MethodPost, "/v1/recordings/{id}/holds", "Put a recording under legal hold: it is neither deleted nor shredded until that is released",
		http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity),
		func(ctx context.Context, in *holdInput) (*holdsAnswer, error) {
			const doing = "hold a recording"
			return answer(ctx, in.ID, doing, h.PlaceHold(ctx, in.ID, in.Body, actorOf(ctx)))
		})
	huma.Register(s.api, operation("release", http.MethodPost, "/v1/recordings/{id}/release", "Release a legal hold",
		http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity),
		func(ctx context.Context, in *holdInput) (*holdsAnswer, error) {
			const doing = "release a recording"
			return answer(ctx, in.ID, doing, h.ReleaseHold(ctx, in.ID, in.Body, actorOf(ctx)))
		})
}
