package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

type signalByCall struct {
	Call    string `path:"call" doc:"Id of the live call."`
	RawBody []byte
}

type signalBySIP struct {
	ID      string `path:"id" doc:"Call-ID of the live call, URL-escaped."`
	RawBody []byte
}

type applied struct{ Body recorder.Applied }

type calls struct {
	Body struct {
		Calls []recorder.LiveCall `json:"calls" nullable:"false"`
	}
}

func (s *Server) signalRoutes() {
	op := func(id, path, summary string, body *huma.Schema) huma.Operation {
		o := operation(id, http.MethodPost, path, summary, http.StatusForbidden, http.StatusUnprocessableEntity,
			http.StatusRequestEntityTooLarge)
		o.MaxBodyBytes = bodyBytesMax
		o.SkipValidateBody = true // suppress holds the vocabulary
		o.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: body}}}
		return o
	}
	one := func(id, path, summary string) huma.Operation {
		o := op(id, path, summary, s.signalSchema())
		o.Errors = append(o.Errors, http.StatusNotFound, http.StatusConflict, http.StatusGatewayTimeout)
		o.Description = "409 with the code refused says why what the signal asks for cannot be, such as a second adhoc recording of a user."
		return o
	}
	huma.Register(s.api, one("signal", "/v1/calls/{call}/signals", "Report a change of state of a live call"),
		func(ctx context.Context, in *signalByCall) (*applied, error) {
			return s.signal(ctx, in.RawBody, suppress.Signal{Call: in.Call})
		})
	huma.Register(s.api, one("signal-by-sip-call-id", "/v1/calls/by-sip-call-id/{id}/signals", "Report a change of state of a live call, named by its Call-ID"),
		func(ctx context.Context, in *signalBySIP) (*applied, error) {
			return s.signal(ctx, in.RawBody, suppress.Signal{SIPCall: in.ID})
		})
	batch := op("signals", batchPath, "Report many changes of state of live calls", s.batchSchema())
	batch.MaxBodyBytes = batchBytesMax
	batch.Description = batchDoc
	huma.Register(s.api, batch, s.signals)
	huma.Register(s.api, operation("calls", http.MethodGet, "/v1/calls", "The live calls, oldest first"),
		func(context.Context, *nothing) (*calls, error) {
			out := &calls{}
			out.Body.Calls = liveCalls(s.cfg.Runtime.Calls())
			return out, nil
		})
}

// liveCalls turns lists that are nil into empty ones: the contract has no null.
func liveCalls(all []recorder.LiveCall) []recorder.LiveCall {
	out := append([]recorder.LiveCall{}, all...)
	for i := range out {
		c := &out[i]
		c.Recordings = append([]recorder.LiveRecording{}, c.Recordings...)
		if c.Reasons == nil {
			c.Reasons = []string{}
		}
		for j := range c.Recordings {
			if c.Recordings[j].Reasons == nil {
				c.Recordings[j].Reasons = []string{}
			}
		}
	}
	return out
}

// signalSchema describes the body: a suppress.Signal of which only the event
// is required.
func (s *Server) signalSchema() *huma.Schema {
	registry := s.api.OpenAPI().Components.Schemas
	ref := registry.Schema(reflect.TypeFor[suppress.Signal](), true, "Signal")
	sch := registry.SchemaFromRef(ref.Ref)
	sch.Required = []string{"event"}
	delete(sch.Properties, "received")
	sch.Properties["event"].Description = "What happened, such as pause.start or hold.end."
	sch.Properties["at"].Description = "When it happened; without it, now."
	sch.Properties["seq"].Description = "Counts up per source. A signal that was seen already changes nothing."
	sch.Properties["source"].Description = "Who says so; without it, http."
	sch.Properties["v"].Description = "Version of the vocabulary; without it, 1."
	sch.Properties["call"].Description = "Id of the live call. In a batch, this or sip_call_id; where the path names the call, neither is needed."
	sch.Properties["sip_call_id"].Description = "Call-ID of the live call."
	sch.Properties["user"].Description = "The user or agent that it is about; required for snippet.* and adhoc.*."
	return ref
}

// signal applies the body to the live call named by the path.
func (s *Server) signal(ctx context.Context, body []byte, path suppress.Signal) (*applied, error) {
	if p := s.signalsOff(); p != nil {
		return nil, p
	}
	sig, err := parseSignal(body, &path, time.Now())
	if err != nil {
		return nil, invalidSignal(err)
	}
	got, err := s.cfg.Runtime.Signal(ctx, sig)
	if err != nil {
		return nil, s.problem("apply a signal", err)
	}
	return &applied{complete(got)}, nil
}

func complete(a recorder.Applied) recorder.Applied {
	if a.Reasons == nil {
		a.Reasons = []string{}
	}
	return a
}

func (s *Server) signalsOff() *Problem {
	if !s.cfg.NoSignals {
		return nil
	}
	return newProblem(http.StatusForbidden, "signals-off", "signals.http is switched off in the configuration")
}

// parseSignal reads the body of a signal. path has the name of the call, which
// the body may repeat but not contradict; nil: the body names it.
func parseSignal(body []byte, path *suppress.Signal, now time.Time) (suppress.Signal, error) {
	var sig suppress.Signal
	if err := decodeStrictly(body, &sig); err != nil {
		return sig, err
	}
	if !sig.Received.IsZero() {
		return sig, &suppress.FieldError{Field: "received", Msg: "is not taken here, the signal arrives now"}
	}
	if err := nameCall(&sig, path); err != nil {
		return sig, err
	}
	sig.Received = now
	if sig.V == 0 {
		sig.V = 1
	}
	if sig.Source == "" {
		sig.Source = "http"
	}
	if sig.At.IsZero() {
		sig.At = now
	}
	if err := sig.Validate(); err != nil {
		return sig, err
	}
	return suppress.Prompt(sig), suppress.Plausible(sig)
}

// nameCall gives a signal the call of the path, or holds it to naming one itself.
func nameCall(sig, path *suppress.Signal) error {
	switch {
	case path == nil && sig.Call == "" && sig.SIPCall == "":
		return &suppress.FieldError{Field: "call", Msg: "is missing, wanted is the id of the live call, or sip_call_id"}
	case path == nil && sig.Call != "" && sig.SIPCall != "":
		return &suppress.FieldError{Field: "sip_call_id", Msg: "stands beside call, allowed is one of them"}
	case path == nil:
		return nil
	case sig.Call != "" && sig.Call != path.Call:
		return &suppress.FieldError{Field: "call", Msg: "is not the call of the path"}
	case sig.SIPCall != "" && sig.SIPCall != path.SIPCall:
		return &suppress.FieldError{Field: "sip_call_id", Msg: "is not the call of the path"}
	}
	sig.Call, sig.SIPCall = path.Call, path.SIPCall
	return nil
}

// invalidSignal says what is wrong with a body without repeating any of it: a
// client may have sent what belongs into no log.
func invalidSignal(err error) *Problem {
	p := newProblem(http.StatusUnprocessableEntity, "invalid", "the body is no signal")
	item := ProblemItem{Location: "body", Message: "is not one JSON object"}
	var field *suppress.FieldError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &field):
		item = ProblemItem{"body." + field.Field, field.Msg}
	case errors.As(err, &typ) && typ.Field != "":
		item = ProblemItem{"body." + typ.Field, "has the wrong type, allowed is " + typ.Type.String()}
	case strings.HasPrefix(err.Error(), "json: unknown field"):
		item.Message = "has a field that is not known"
	case strings.HasPrefix(err.Error(), "parsing time"):
		item.Message = "has a time that is not RFC 3339"
	}
	p.Errors = []ProblemItem{item}
	return p
}
