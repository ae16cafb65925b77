package api

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/trunktap/trunktap/recorder"
)

// findInput takes the parameters that recorder.QueryFields describe, and no others.
type findInput struct {
	query   recorder.Query
	filters []string // names of the parameters that were given
}

var _ huma.Resolver = (*findInput)(nil)

// Resolve implements huma.Resolver.
func (in *findInput) Resolve(ctx huma.Context) []error {
	u := ctx.URL()
	var all []error
	in.query, all = parseQuery(u.Query())
	in.filters = slices.Sorted(maps.Keys(u.Query()))
	return all
}

// parseQuery reads a query from parameters; errors are *huma.ErrorDetail.
func parseQuery(v url.Values) (q recorder.Query, all []error) {
	bad := func(name, why string) { all = append(all, &huma.ErrorDetail{Location: "query." + name, Message: why}) }
	for name := range v {
		if recorder.FieldOf(name) == nil {
			bad("?", "unknown query parameter; allowed: "+strings.Join(queryNames(), ", "))
			break
		}
	}
	for i := range recorder.QueryFields {
		f := &recorder.QueryFields[i]
		for _, value := range v[f.Name] {
			if err := f.Set(&q, value); err != nil {
				bad(f.Name, why(err))
				break
			}
		}
	}
	if err := q.Check(); err != nil && len(all) == 0 {
		var qe *recorder.QueryError
		errors.As(err, &qe)
		bad(qe.Field, qe.Why)
	}
	if q.Limit == 0 {
		q.Limit = 100
	}
	return q, all
}

func why(err error) string {
	var qe *recorder.QueryError
	if errors.As(err, &qe) {
		return qe.Why
	}
	return err.Error()
}

func queryNames() []string {
	names := make([]string, len(recorder.QueryFields))
	for i := range recorder.QueryFields {
		names[i] = recorder.QueryFields[i].Name
	}
	return names
}

// findOperation describes the search.
func findOperation() huma.Operation {
	op := operation("recordings", http.MethodGet, "/v1/recordings", "Recordings, newest first", http.StatusUnprocessableEntity)
	op.SkipValidateParams = true // Resolve does it
	for i := range recorder.QueryFields {
		op.Parameters = append(op.Parameters, parameter(&recorder.QueryFields[i]))
	}
	return op
}

func parameter(f *recorder.QueryField) *huma.Param {
	s := &huma.Schema{Type: huma.TypeString}
	switch f.Arg {
	case "TIME":
		s.Format = "date-time"
	case "N":
		s.Type = huma.TypeNumber
	case "BOOL":
		s.Type = huma.TypeBoolean
	}
	if f.Words != nil && s.Type == huma.TypeString {
		s.Enum = words(slices.Clone(f.Words)...)
	}
	p := &huma.Param{Name: f.Name, In: "query", Description: f.Doc, Schema: s}
	if f.Many {
		explode := true
		p.Schema, p.Explode = &huma.Schema{Type: huma.TypeArray, Items: s}, &explode
	}
	return p
}
