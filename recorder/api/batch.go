package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

const batchPath = "/v1/signals"

const batchDoc = "The body is a list of at most 1000 signals, or an object with the list as signals. Each names its call by call or by sip_call_id. " +
	"Those of one call act in the order of the list; those of different calls act at the same time. " +
	"The answer is 200 and has one result for each signal, in the same order: a signal that is invalid, refused or without a call fails alone. " +
	"422 says that the body is no batch; nothing of it was applied then. It takes 2 seconds at most: " +
	"a signal whose effect is not known by then is queued and has a result with the code effect-unknown."

type batchInput struct{ RawBody []byte }

// Result is what became of one signal of a batch: exactly one of applied and
// problem is there.
type Result struct {
	Status  int               `json:"status" doc:"The status that the signal would have been answered with alone."`
	Applied *recorder.Applied `json:"applied,omitempty" doc:"What it did, when status is 200."`
	Problem *Problem          `json:"problem,omitempty" doc:"Why it did nothing, when status is not 200."`
}

type results struct {
	Body struct {
		Results []Result `json:"results" nullable:"false" doc:"One for each signal, in the same order."`
	}
}

// batchSchema describes the body: a list of signals, bare or in an object.
func (s *Server) batchSchema() *huma.Schema {
	most := batchSignalsMax
	list := &huma.Schema{Type: huma.TypeArray, Items: s.signalSchema(), MaxItems: &most}
	return &huma.Schema{OneOf: []*huma.Schema{
		list,
		{Type: huma.TypeObject, Properties: map[string]*huma.Schema{"signals": list}, Required: []string{"signals"}, AdditionalProperties: false},
	}}
}

// signals applies a batch. All that can be refused without asking the recorder
// is; the others are applied together.
func (s *Server) signals(ctx context.Context, in *batchInput) (*results, error) {
	if p := s.signalsOff(); p != nil {
		return nil, p
	}
	defer s.batches.Add(-1)
	if s.batches.Add(1) > batchesMax {
		return nil, newProblem(http.StatusServiceUnavailable, "busy", "too many batches of signals at once")
	}
	now := time.Now()
	list, err := parseBatch(in.RawBody)
	if err != nil {
		return nil, invalidBatch(err)
	}
	out := &results{}
	out.Body.Results = make([]Result, len(list))
	var sigs []suppress.Signal
	var at []int // of sigs in the batch
	for i, body := range list {
		sig, err := parseSignal(body, nil, now)
		if err != nil {
			out.Body.Results[i] = failed(invalidSignal(err))
			continue
		}
		sigs, at = append(sigs, sig), append(at, i)
	}
	for i, o := range s.cfg.Runtime.Signals(ctx, sigs) {
		out.Body.Results[at[i]] = s.result(o)
	}
	return out, nil
}

func failed(p *Problem) Result { return Result{Status: p.Status, Problem: p} }

func (s *Server) result(o recorder.Outcome) Result {
	if o.Err != nil {
		return failed(s.problem("apply a signal", o.Err))
	}
	a := complete(o.Applied)
	return Result{Status: http.StatusOK, Applied: &a}
}

// errBatchLong says that a batch has more signals than are taken at once.
var errBatchLong = errors.New("too many signals")

// parseBatch splits a body into the texts of its signals.
func parseBatch(body []byte) ([]json.RawMessage, error) {
	list := body
	if bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
		var object struct {
			Signals json.RawMessage `json:"signals"`
		}
		if err := decodeStrictly(body, &object); err != nil {
			return nil, err
		}
		if list = object.Signals; len(list) == 0 {
			return nil, &suppress.FieldError{Field: "signals", Msg: "is missing, wanted is a list of signals"}
		}
	}
	dec := json.NewDecoder(bytes.NewReader(list))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("no list")
	}
	out := []json.RawMessage{}
	for dec.More() {
		if len(out) == batchSignalsMax {
			return nil, errBatchLong
		}
		var one json.RawMessage
		if err := dec.Decode(&one); err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	if _, err := dec.Token(); err != nil { // the list breaks off
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the list")
	}
	return out, nil
}

// decodeStrictly reads exactly one JSON value without unknown fields.
func decodeStrictly(body []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}

func invalidBatch(err error) *Problem {
	p := newProblem(http.StatusUnprocessableEntity, "invalid", "the body is no batch of signals")
	item := ProblemItem{Location: "body", Message: "is not one JSON list of signals, nor an object with signals"}
	var field *suppress.FieldError
	switch {
	case errors.Is(err, errBatchLong):
		item.Message = fmt.Sprintf("has more than %d signals", batchSignalsMax)
	case errors.As(err, &field):
		item = ProblemItem{"body." + field.Field, field.Msg}
	}
	p.Errors = []ProblemItem{item}
	return p
}
