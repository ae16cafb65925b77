package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
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
	op := func(id, path, summary string) huma.Operation {
		o := operation(id, http.MethodPost, path, summary, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity,
			http.StatusRequestEntityTooLarge, http.StatusGatewayTimeout)
		o.MaxBodyBytes = bodyBytesMax
		o.SkipValidateBody = true // suppress holds the vocabulary
		o.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: s.signalSchema()}}}
		return o
	}
	huma.Register(s.api, op("signal", "/v1/calls/{call}/signals", "Report a change of state of a live call"),
		func(ctx context.Context, in *signalByCall) (*applied, error) {
			return s.signal(ctx, in.RawBody, suppress.Signal{Call: in.Call})
		})
	huma.Register(s.api, op("signal-by-sip-call-id", "/v1/calls/by-sip-call-id/{id}/signals", "Report a change of state of a live call, named by its Call-ID"),
		func(ctx context.Context, in *signalBySIP) (*applied, error) {
			return s.signal(ctx, in.RawBody, suppress.Signal{SIPCall: in.ID})
		})
	huma.Register(s.api, operation("calls", http.MethodGet, "/v1/calls", "The live calls, oldest first"),
		func(context.Context, *nothing) (*calls, error) {
			out := &calls{}
			out.Body.Calls = s.cfg.Runtime.Calls()
			if out.Body.Calls == nil {
				out.Body.Calls = []recorder.LiveCall{}
			}
			for i := range out.Body.Calls {
				if out.Body.Calls[i].Reasons == nil {
					out.Body.Calls[i].Reasons = []string{}
				}
			}
			return out, nil
		})
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
	return ref
}

// signal applies the body to the live call named by the path.
func (s *Server) signal(ctx context.Context, body []byte, path suppress.Signal) (*applied, error) {
	if s.cfg.NoSignals {
		return nil, newProblem(http.StatusForbidden, "signals-off", "signals.http is switched off in the configuration")
	}
	sig, err := parseSignal(body, path, time.Now())
	if err != nil {
		return nil, invalidSignal(err)
	}
	got, err := s.cfg.Runtime.Signal(ctx, sig)
	if err != nil {
		return nil, s.problem("apply a signal", err)
	}
	if got.Reasons == nil {
		got.Reasons = []string{}
	}
	return &applied{got}, nil
}

// parseSignal reads the body of a signal. path has the name of the call, which
// the body may repeat but not contradict.
func parseSignal(body []byte, path suppress.Signal, now time.Time) (suppress.Signal, error) {
	var sig suppress.Signal
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&sig); err != nil {
		return sig, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return sig, errors.New("something follows the object")
	}
	if !sig.Received.IsZero() {
		return sig, &suppress.FieldError{Field: "received", Msg: "is not taken here, the signal arrives now"}
	}
	if sig.Call != "" && sig.Call != path.Call {
		return sig, &suppress.FieldError{Field: "call", Msg: "is not the call of the path"}
	}
	if sig.SIPCall != "" && sig.SIPCall != path.SIPCall {
		return sig, &suppress.FieldError{Field: "sip_call_id", Msg: "is not the call of the path"}
	}
	sig.Call, sig.SIPCall, sig.Received = path.Call, path.SIPCall, now
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
	return sig, suppress.Plausible(sig)
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
