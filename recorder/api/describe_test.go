package api

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/suppress"
)

type openAPI struct {
	Paths map[string]map[string]struct {
		Description string
		RequestBody struct {
			Content map[string]json.RawMessage
		}
		Responses map[string]struct {
			Description string
			Content     map[string]struct{ Schema json.RawMessage }
		}
	}
	Components struct {
		Schemas map[string]struct {
			Properties map[string]struct {
				Type        any
				Description string
				Enum        []string
			}
		}
	}
}

func mustDescribe(t *testing.T) (openAPI, string) {
	t.Helper()
	f := mustServe(t, nil)
	text, _ := f.mustDo(t, "GET", "/openapi.json", "", 200)
	var doc openAPI
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	return doc, text
}

// TestVocabularyIsThatOfSuppress: the words that the document allows are those
// that a signal may have.
func TestVocabularyIsThatOfSuppress(t *testing.T) {
	doc, _ := mustDescribe(t)
	allowed := func(s suppress.Signal, field string) []string {
		var e *suppress.FieldError
		if err := s.Validate(); !errors.As(err, &e) || e.Field != field {
			t.Fatalf("%v", err)
		}
		_, list, _ := strings.Cut(e.Msg, "allowed are ")
		return strings.Split(list, ", ")
	}
	signal := doc.Components.Schemas["Signal"].Properties
	if want := allowed(suppress.Signal{Event: "x", At: time.Now()}, "event"); !slices.Equal(signal["event"].Enum, want) {
		t.Errorf("events %v, want %v", signal["event"].Enum, want)
	}
	if want := allowed(suppress.Signal{Event: suppress.AgentJoin, Role: "x", At: time.Now()}, "role"); !slices.Equal(signal["role"].Enum, want) {
		t.Errorf("roles %v, want %v", signal["role"].Enum, want)
	}
}

func TestDocumentIsComplete(t *testing.T) {
	doc, text := mustDescribe(t)
	for name := range meanings {
		schema, key, _ := strings.Cut(name, ".")
		if p, ok := doc.Components.Schemas[schema].Properties[key]; !ok || p.Description == "" {
			t.Errorf("%s is not described", name)
		}
	}
	for name := range vocabulary {
		schema, key, _ := strings.Cut(name, ".")
		if p := doc.Components.Schemas[schema].Properties[key]; len(p.Enum) < 2 {
			t.Errorf("%s has no words", name)
		}
	}
	if p := doc.Components.Schemas["Recording"].Properties; p["user"].Description == "" || len(p["kind"].Enum) != 5 {
		t.Errorf("an entry of a listing: %+v", p)
	}
	for name, s := range doc.Components.Schemas {
		for key, p := range s.Properties {
			if _, several := p.Type.([]any); several && name != "VerifyInputBody" {
				t.Errorf("%s.%s may be null", name, key)
			}
		}
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if c := op.RequestBody.Content; len(c) > 1 {
				t.Errorf("%s %s: bodies %v", method, path, c)
			}
			for status, r := range op.Responses {
				if s := r.Content["application/problem+json"].Schema; status >= "400" && path != "/readyz" && !strings.Contains(string(s), "/Problem") {
					t.Errorf("%s %s %s: %s", method, path, status, s)
				}
			}
		}
	}
	for _, path := range []string{"/v1/calls/{call}/signals", "/v1/calls/by-sip-call-id/{id}/signals"} {
		if _, ok := doc.Paths[path]["post"].Responses["409"]; !ok {
			t.Errorf("%s: 409 is not described", path)
		}
	}
	if d := doc.Paths["/v1/signals"]["post"].Description; !strings.Contains(d, "200") || !strings.Contains(d, "1000") {
		t.Errorf("batch: %q", d)
	}
	events := doc.Paths["/v1/events"]["get"].Responses["200"].Description
	for _, typ := range []string{"call.started", "call.ended", "signal", "recording.published", "recording.discarded", "recording.failed", "alarm"} {
		if !strings.Contains(events, typ) {
			t.Errorf("event %s is not described", typ)
		}
	}
	if strings.Contains(text, "ErrorModel") {
		t.Error("problems are described as what they are not")
	}
}
