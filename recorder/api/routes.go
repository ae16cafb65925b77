package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// routes registers every operation. What is registered here is in the OpenAPI
// document, and a test walks that for authentication.
func (s *Server) routes() {
	s.signalRoutes()
	s.recordingRoutes()
	s.auditRoutes()
	s.eventRoute()
	s.trunkRoute()
	s.usageRoute()
	s.keyRoutes()
	s.holdRoutes()
	s.healthRoutes()
	s.metricsRoute()
	s.openAPIRoute()
	describe(s.api.OpenAPI())
}

func operation(id, method, path, summary string, errors ...int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary,
		Errors: append([]int{http.StatusUnauthorized, http.StatusServiceUnavailable}, errors...),
	}
}

// raw marks an operation that streams an answer of the given type.
func raw(op huma.Operation, mediaType, description string) huma.Operation {
	op.Responses = map[string]*huma.Response{"200": {
		Description: description,
		Content:     map[string]*huma.MediaType{mediaType: {}},
	}}
	return op
}

// stream answers by a plain HTTP handler.
func stream(f http.HandlerFunc) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		r, w := humago.Unwrap(ctx)
		f(w, r)
	}}
}

type nothing struct{}

func (s *Server) metricsRoute() {
	if s.cfg.Metrics == nil {
		return
	}
	h := promhttp.HandlerFor(s.cfg.Metrics, promhttp.HandlerOpts{})
	op := raw(operation("metrics", http.MethodGet, "/metrics", "Metrics for Prometheus"), "text/plain", "Prometheus exposition format")
	huma.Register(s.api, op, func(context.Context, *nothing) (*huma.StreamResponse, error) { return stream(h.ServeHTTP), nil })
}

func (s *Server) openAPIRoute() {
	op := raw(operation("openapi", http.MethodGet, "/openapi.json", "This description (OpenAPI 3.1)"), "application/json", "OpenAPI 3.1")
	huma.Register(s.api, op, func(context.Context, *nothing) (*huma.StreamResponse, error) {
		text, err := s.api.OpenAPI().MarshalJSON()
		if err != nil {
			return nil, s.problem("describe the API", err)
		}
		return stream(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(text) // the peer is gone
		}), nil
	})
}

// health is the answer of /healthz and /readyz.
type health struct {
	Status int `json:"-"`
	Body   struct {
		Status  string   `json:"status" enum:"ok,unavailable"`
		Failing []string `json:"failing,omitempty" doc:"What is not ready: store, spool, keys, catalogue, capture, sip."`

		Warnings []string `json:"warnings,omitempty" doc:"What an operator should know though all is ready: unsealed, recordings are not sealed; key-service, the cached key is used because the key service does not answer or has revoked it."`
	}
}

func (s *Server) healthRoutes() {
	open := func(op huma.Operation) huma.Operation {
		op.Security = []map[string][]string{}
		return op
	}
	huma.Register(s.api, open(operation("healthz", http.MethodGet, "/healthz", "The daemon is alive")),
		func(context.Context, *nothing) (*health, error) {
			h := &health{Status: http.StatusOK}
			h.Body.Status = "ok"
			return h, nil
		})
	huma.Register(s.api, open(operation("readyz", http.MethodGet, "/readyz", "Calls can be recorded")),
		func(ctx context.Context, _ *nothing) (*health, error) { return s.ready(ctx), nil })
}

// ready asks every part. The names of those that fail are public, the reasons
// go to the log.
func (s *Server) ready(ctx context.Context) *health {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	h := &health{Status: http.StatusOK}
	h.Body.Status = "ok"
	if s.cfg.Warnings != nil {
		h.Body.Warnings = s.cfg.Warnings()
	}
	if s.cfg.Ready == nil {
		return h
	}
	for name, err := range s.cfg.Ready(ctx) {
		s.tellReady(name, err)
		if err != nil {
			h.Status, h.Body.Status = http.StatusServiceUnavailable, "unavailable"
			h.Body.Failing = append(h.Body.Failing, name)
		}
	}
	slices.Sort(h.Body.Failing)
	return h
}

// tellReady logs when a part fails and when it works again, not at each probe.
func (s *Server) tellReady(part string, err error) {
	_, failing := s.failing.Load(part)
	switch {
	case err != nil && !failing:
		s.failing.Store(part, true)
		s.cfg.Log.Warn("not ready", "part", part, "error", err)
	case err == nil && failing:
		s.failing.Delete(part)
		s.cfg.Log.Info("ready again", "part", part)
	}
}
