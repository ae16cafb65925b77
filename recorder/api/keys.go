package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/trunktap/trunktap/recorder"
)

// Actor is who asks for something, as the audit log names him.
type Actor struct {
	Who  string // name of the token
	From string // address of the client
}

func actorOf(ctx context.Context) Actor {
	c, _ := ctx.Value(clientKey{}).(client)
	return Actor{Who: c.who, From: c.from}
}

// Keys works on keys and leaves a trace of it, also of what fails. Safe for
// concurrent use. Errors are *recorder.RefusedError, recorder.ErrNotFound, ErrKey,
// and ErrAudit: nothing irreversible is done without a trace.
type Keys interface {
	// List lists key-encryption keys; with uses it asks every recording, which may
	// take long.
	List(ctx context.Context, uses bool) (KeyList, error)
	// Rotate makes a new key that wraps what is new.
	Rotate(ctx context.Context, by Actor) (KeyRotation, error)
	// Rewrap begins to wrap the keys of recordings anew; one such job at a time.
	Rewrap(ctx context.Context, o RewrapOrder, by Actor) (RewrapState, error)
	// Rewrapping tells of the job that runs or was the last one.
	Rewrapping() RewrapState
	// CancelRewrap ends the job; what was wrapped stays so.
	CancelRewrap(ctx context.Context, by Actor) (RewrapState, error)
	// Retire destroys a key that no recording needs.
	Retire(ctx context.Context, o RetireOrder, by Actor) error
	// Shred destroys the key of a recording.
	Shred(ctx context.Context, id string, o ShredOrder, by Actor) (ShredResult, error)
}

// Key is a key-encryption key.
type Key struct {
	Name       string    `json:"name"`
	Active     bool      `json:"active" doc:"It wraps what is new."`
	Recordings int       `json:"recordings" doc:"That need it, when it was asked for."`
	Live       int       `json:"live,omitempty" doc:"Of them: that go on, or that a crash left in the spool."`
	First      time.Time `json:"first,omitzero" doc:"When the oldest data key was made that it wraps."`
	Missing    bool      `json:"missing,omitempty" doc:"Recordings name it, and the source of keys does not list it."`
	Journal    bool      `json:"journal,omitempty" doc:"The journal of calls is sealed with it, until the daemon is started again."`
}

// KeyList is what is known of keys.
type KeyList struct {
	Mode    string `json:"mode"`
	Active  string `json:"active" doc:"Empty: there is none now."`
	Keys    []Key  `json:"keys" nullable:"false"`
	Counted bool   `json:"counted" doc:"Whether recordings were asked which keys they need."`
	Unknown string `json:"unknown,omitempty" doc:"Why some recordings could not be asked."`
}

// KeyRotation is what came of a rotation.
type KeyRotation struct {
	Key       string `json:"key" doc:"It wraps what is new."`
	Before    string `json:"before"`
	Elsewhere bool   `json:"elsewhere,omitempty" doc:"The service makes versions of its keys itself; the intermediate key alone is new."`
}

// RewrapOrder says whose keys are wrapped anew.
type RewrapOrder struct {
	From      time.Time `json:"from,omitzero" doc:"Recordings from this day on."`
	To        time.Time `json:"to,omitzero" doc:"Recordings before this time."`
	PerSecond int       `json:"per_second,omitempty" minimum:"1" maximum:"1000" default:"50" doc:"Recordings at most."`
}

// RetireOrder says which key is destroyed.
type RetireOrder struct {
	Key             string `json:"key" minLength:"1" maxLength:"256"`
	OtherNodesAsked bool   `json:"other_nodes_asked,omitempty" doc:"Who asks says that no call and no upload of another node that shares the key file needs the key. Without it retiring is refused where a store or the catalogue knows other nodes. The audit log tells of it."`
}

// RewrapState is how a job stands.
type RewrapState struct {
	State     string    `json:"state" enum:"idle,running,waiting,done,cancelled,failed" doc:"waiting: the key service is not there; it is asked again. A daemon that is stopped goes on at its next start."`
	Began     time.Time `json:"began,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	By        string    `json:"by,omitempty"`
	Active    string    `json:"active,omitempty" doc:"The key that wraps."`
	Done      int64     `json:"done" doc:"Recordings that were looked at."`
	Total     int64     `json:"total"`
	Rewrapped int       `json:"rewrapped"`
	Current   int       `json:"current" doc:"Were wrapped by it before."`
	Live      int       `json:"live" doc:"Go on, and are left as they are."`
	Shredded  int       `json:"shredded"`
	Failed    int       `json:"failed"`
	Findings  []Finding `json:"findings,omitempty" doc:"Of what failed; 100 at most."`
	Error     string    `json:"error,omitempty"`
}

// ShredOrder asks for the end of a recording.
type ShredOrder struct {
	Reason    string `json:"reason" minLength:"1" maxLength:"500" doc:"It is kept: in the place of the key and in the audit log."`
	WhenEnded bool   `json:"when_ended,omitempty" doc:"A recording that goes on is shredded when it has ended; else that is refused."`
}

// ShredResult is what became of it.
type ShredResult struct {
	recorder.Shredded
	State string `json:"state" enum:"shredded,waits" doc:"waits: until the recording has ended, or, with at, until its store has no copy of the key either."`
	Rest  string `json:"rest,omitempty" doc:"The key is destroyed; this is still to be done, and is tried again."`
}

type (
	keysInput struct {
		Uses bool `query:"uses" doc:"Whether every recording is asked which key it needs; that may take long."`
	}
	rewrapInput struct{ Body RewrapOrder }
	retireInput struct{ Body RetireOrder }
	shredInput  struct {
		ID   string `path:"id" maxLength:"128"`
		Body ShredOrder
	}
	keyListAnswer  struct{ Body KeyList }
	rotationAnswer struct{ Body KeyRotation }
	rewrapAnswer   struct{ Body RewrapState }
	retireAnswer   struct {
		Body struct {
			Retired string `json:"retired"`
		}
	}
	shredAnswer struct{ Body ShredResult }
)

func (s *Server) keyRoutes() {
	if s.cfg.Keys == nil {
		return
	}
	k := s.cfg.Keys
	huma.Register(s.api, operation("keys", http.MethodGet, "/v1/keys", "Key-encryption keys"),
		func(ctx context.Context, in *keysInput) (*keyListAnswer, error) {
			list, err := k.List(ctx, in.Uses)
			return &keyListAnswer{list}, s.keyProblem("list keys", err)
		})
	huma.Register(s.api, operation("keys-rotate", http.MethodPost, "/v1/keys/rotate", "Make a new key that wraps what is new; older ones stay readable", http.StatusConflict),
		func(ctx context.Context, _ *nothing) (*rotationAnswer, error) {
			r, err := k.Rotate(ctx, actorOf(ctx))
			return &rotationAnswer{r}, s.keyProblem("rotate keys", err)
		})
	huma.Register(s.api, operation("keys-rewrap", http.MethodPost, "/v1/keys/rewrap", "Begin to wrap the keys of recordings with the active key", http.StatusConflict, http.StatusUnprocessableEntity),
		func(ctx context.Context, in *rewrapInput) (*rewrapAnswer, error) {
			r, err := k.Rewrap(ctx, in.Body, actorOf(ctx))
			return &rewrapAnswer{r}, s.keyProblem("rewrap keys", err)
		})
	huma.Register(s.api, operation("keys-rewrapping", http.MethodGet, "/v1/keys/rewrap", "How rewrapping stands"),
		func(context.Context, *nothing) (*rewrapAnswer, error) { return &rewrapAnswer{k.Rewrapping()}, nil })
	huma.Register(s.api, operation("keys-rewrap-cancel", http.MethodPost, "/v1/keys/rewrap/cancel", "End rewrapping; what was wrapped stays so", http.StatusConflict),
		func(ctx context.Context, _ *nothing) (*rewrapAnswer, error) {
			r, err := k.CancelRewrap(ctx, actorOf(ctx))
			return &rewrapAnswer{r}, s.keyProblem("end rewrapping", err)
		})
	huma.Register(s.api, operation("keys-retire", http.MethodPost, "/v1/keys/retire", "Destroy an old key that nothing of this node needs", http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity),
		func(ctx context.Context, in *retireInput) (*retireAnswer, error) {
			out := &retireAnswer{}
			out.Body.Retired = in.Body.Key
			return out, s.keyProblem(doRetire, k.Retire(ctx, in.Body, actorOf(ctx)))
		})
	huma.Register(s.api, operation("shred", http.MethodPost, "/v1/recordings/{id}/shred", "Destroy the key of a recording: it can never be read again",
		http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity),
		func(ctx context.Context, in *shredInput) (*shredAnswer, error) {
			r, err := k.Shred(ctx, in.ID, in.Body, actorOf(ctx))
			return &shredAnswer{r}, s.keyProblem("shred a recording", err)
		})
}

// keyProblem is problem for work on keys.
func (s *Server) keyProblem(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrAudit):
		s.cfg.Log.Error("not done, because it cannot be logged", "what", doing, "error", err)
		return newProblem(http.StatusServiceUnavailable, "audit-unavailable", "the audit log cannot be written, and nothing is done without a trace in it")
	}
	return s.problem(doing, err)
}
