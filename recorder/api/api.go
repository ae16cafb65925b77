// Package api is the HTTP interface of the recorder: signals in; recordings,
// events, metrics and health out.
package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunktap/trunktap/recorder"
)

// Bounds of the server.
const (
	bodyBytesMax      = 64 << 10 // of a request
	batchBytesMax     = 1 << 20  // of a request with a batch of signals
	batchSignalsMax   = 1000
	batchesMax        = 4        // at once
	headerBytesMax    = 16 << 10 // of a request
	requestsMax       = 256      // at once, subscribers of events not counted
	subscribersMax    = 64       // default of Config.SubscribersMax
	headerTimeout     = 5 * time.Second
	readTimeout       = 30 * time.Second       // of a whole request
	idleTimeout       = 60 * time.Second       // of a kept connection
	writeTimeout      = 30 * time.Second       // without any progress of an answer
	heartbeatInterval = 15 * time.Second       // of the event stream
	readyTimeout      = 5 * time.Second        // of all checks of /readyz
	verifyEvery       = 200 * time.Millisecond // between two lines of progress
)

// Library is what is recorded. Safe for concurrent use.
type Library interface {
	// Get returns the manifest of a recording, ErrNotFound when there is none.
	Get(ctx context.Context, id string) (*recorder.Manifest, error)
	// Find lists recordings. A cursor that is none gives ErrCursor.
	Find(ctx context.Context, q recorder.Query) (recorder.Page, error)
	// Media returns the audio of a recording in a format, "" meaning the
	// recording's own. ErrNotFound when there is no recording or nothing was
	// captured of it.
	Media(ctx context.Context, id, format string) (Media, error)
	// Verify reads recordings whole, all of them when there are no ids, and reports
	// what does not fit. The error tells that it could not go on; the report
	// holds what was found until then.
	Verify(ctx context.Context, q VerifyQuery, progress func(done, total int64)) (Report, error)
}

// VerifyQuery says what to verify. Zero fields do not restrict.
type VerifyQuery struct {
	IDs          []string
	From, To     time.Time // the call's start in [From, To)
	Trunk        string
	FromID, ToID string // both included
}

// Media is the audio of one recording as a file.
type Media struct {
	Content  io.ReadSeekCloser
	Type     string // "audio/wav", "audio/ogg"
	Name     string // file name to offer
	Modified time.Time
	Damaged  bool // some of it is silence because it is missing or altered; told as Trunktap-Damaged
}

// Report is the result of verifying recordings.
type Report struct {
	Recordings int       `json:"recordings"`
	Segments   int       `json:"segments"`
	Frames     int64     `json:"frames"`
	Bytes      int64     `json:"bytes"`
	Shredded   int       `json:"shredded,omitempty" doc:"Recordings whose key was destroyed on purpose."`
	Unsealed   int       `json:"unsealed,omitempty" doc:"Recordings whose key lies in the open: whoever can write the store can change them."`
	Unopened   Unopened  `json:"unopened,omitzero" doc:"Recordings of which only stored bytes were compared, for want of a key."`
	Findings   []Finding `json:"findings" nullable:"false"`
	Notes      []Finding `json:"notes,omitempty"`   // worth knowing, and no damage
	Dropped    int       `json:"dropped,omitempty"` // findings beyond the archive's limit
}

// Unopened counts recordings by why their keys are not at hand.
type Unopened struct {
	Revoked     int `json:"key_revoked,omitempty"`
	Unreachable int `json:"key_unreachable,omitempty"`
	Missing     int `json:"key_missing,omitempty"`
}

// Finding is one thing that does not fit.
type Finding struct {
	Recording string `json:"recording,omitempty"`
	File      string `json:"file,omitempty"`
	Fault     string `json:"fault"`
	Detail    string `json:"detail"`
}

// Verification is one line of the answer to a request to verify: how far it
// is, or the report at the end, or why it could not go on.
type Verification struct {
	Done   int64   `json:"done"`            // recordings
	Total  int64   `json:"total,omitempty"` // recordings; 0 while it is not known
	Report *Report `json:"report,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// ErrCursor is returned by Library.Find for a cursor that is none.
var ErrCursor = errors.New("no cursor of a listing")

// Config of a Server.
type Config struct {
	Runtime recorder.Runtime
	Library Library
	// Warnings name what an operator should know though all is ready; nil: nothing.
	Warnings func() []string
	// Ready gives the error of each part that cannot take recordings now, by name:
	// store, spool, keys, catalogue. Nil: always ready.
	Ready   func(ctx context.Context) map[string]error
	Metrics prometheus.Gatherer // nil: none
	Trunks  func() Trunks       // nil: none
	Token   string              // bearer token, not empty
	Audit   Audit               // nil: accesses leave no trace
	Keys    Keys                // nil: keys are not worked on from here
	Holds   Holds               // nil: recordings are not held from here
	// Usage tells what is stored. Nil: nothing does.
	Usage func(context.Context, recorder.UsageQuery) ([]recorder.Usage, error)

	NoSignals      bool // refuse signals
	SubscribersMax int  // concurrent subscribers of events; 0: 64
	Version        string
	Log            *slog.Logger // nil: discarded
}

// Server serves the API.
type Server struct {
	// Constant after New.
	cfg      Config
	token    [sha256.Size]byte
	mux      *http.ServeMux
	api      huma.API
	http     *http.Server
	stopping context.Context // done when event streams have to end
	stop     context.CancelFunc

	failing     sync.Map // names of parts that were told to fail
	subscribers atomic.Int64
	requests    atomic.Int64
	batches     atomic.Int64
}

// New returns a server that does not listen yet. It panics without a token: an
// open API is never meant.
func New(cfg Config) *Server {
	if cfg.Token == "" {
		panic("api: no token")
	}
	if cfg.SubscribersMax == 0 {
		cfg.SubscribersMax = subscribersMax
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Version == "" {
		cfg.Version = "unknown"
	}
	s := &Server{cfg: cfg, token: sha256.Sum256([]byte(cfg.Token)), mux: http.NewServeMux()}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.api = humago.New(s.mux, humaConfig(cfg.Version))
	s.routes()
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug), // peers that hang up or speak no HTTP
	}
	s.http.RegisterOnShutdown(s.stop)
	return s
}

// humaConfig leaves out what changes answers ($schema links) and what serves
// pages of its own.
func humaConfig(version string) huma.Config {
	c := huma.DefaultConfig("trunktap", version)
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.CreateHooks = nil
	c.RejectUnknownQueryParameters = true
	c.Transformers = append(c.Transformers, problems)
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "The line of the token file."},
	}
	c.Security = []map[string][]string{{"token": {}}}
	return c
}

// Serve answers requests that come to ln until Close; then it returns nil.
func (s *Server) Serve(ln net.Listener) error {
	if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends event streams at once, lets other requests finish until ctx is
// done, and then closes every connection.
func (s *Server) Close(ctx context.Context) error {
	s.stop()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// Handler is the whole API with its bounds and its authentication.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w = &progressWriter{ResponseWriter: w, control: http.NewResponseController(w)}
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		if s.requests.Add(1) > int64(requestsMax+s.cfg.SubscribersMax) {
			s.requests.Add(-1)
			h.Set("Retry-After", "1")
			writeProblem(w, newProblem(http.StatusServiceUnavailable, "busy", "too many requests at once"))
			return
		}
		defer s.requests.Add(-1)
		if !open(r) && !s.authorized(r) {
			h.Set("WWW-Authenticate", `Bearer realm="trunktap"`)
			writeProblem(w, newProblem(http.StatusUnauthorized, "unauthorized", "send Authorization: Bearer and the token of the token file"))
			return
		}
		most := int64(bodyBytesMax)
		if r.URL.Path == batchPath {
			most = batchBytesMax
		}
		r.Body = http.MaxBytesReader(w, r.Body, most)
		s.serve(w, withClient(r))
	})
}

// open tells whether a request needs no token.
func open(r *http.Request) bool {
	return r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
}

// authorized compares hashes, so that neither the length nor the content of
// the token shows in the time it takes.
func (s *Server) authorized(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return subtle.ConstantTimeCompare(got[:], s.token[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

// serve hands the request to its route, and answers what has none with a
// problem document instead of the plain text of net/http.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	defer func() {
		e := recover()
		if e == nil {
			return
		}
		if err, ok := e.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(e)
		}
		s.cfg.Log.Error("a request handler panicked", "method", r.Method, "route", r.Pattern, "panic", e)
		if p, ok := w.(*progressWriter); ok && !p.begun {
			writeProblem(w, newProblem(http.StatusInternalServerError, "internal", "the server failed, its log says why"))
			return
		}
		panic(http.ErrAbortHandler) // half an answer must not look whole
	}()
	if _, pattern := s.mux.Handler(r); pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	n := &statusOnly{header: w.Header()}
	s.mux.ServeHTTP(n, r) // sets Allow on 405
	w.Header().Del("Content-Type")
	if n.status == http.StatusMethodNotAllowed {
		writeProblem(w, newProblem(n.status, "method-not-allowed", "allowed: "+w.Header().Get("Allow")))
		return
	}
	writeProblem(w, newProblem(http.StatusNotFound, "not-found", "there is no such resource"))
}

// statusOnly keeps the status and the header of an answer and drops the rest.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }

// progressWriter gives up on a peer that takes nothing for writeTimeout, for
// answers of any length.
type progressWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (p *progressWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p *progressWriter) WriteHeader(status int) {
	p.begun = true
	p.ResponseWriter.WriteHeader(status)
}

func (p *progressWriter) Write(b []byte) (int, error) {
	p.begun = true
	_ = p.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not supported by test recorders
	return p.ResponseWriter.Write(b)
}
