package api

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/trunktap/trunktap/recorder"
)

// Access is what somebody was about to get.
type Access struct {
	Kind      string // access.list | access.get | access.media | access.bundle | access.verify | access.audit
	Recording string
	Who       string // name of the token
	From      string // address of the client
	What      string // in a few words; of a search the names of its filters
	Result    string // served | not-found | failed
}

// Audit is the tamper-evident log. Safe for concurrent use.
type Audit interface {
	// Access writes an access into the log, durably, before it is served.
	Access(ctx context.Context, a Access) error
	// Verified notes what a verification found.
	Verified(a Access)
	// Entries lists entries, oldest first.
	Entries(ctx context.Context, q AuditQuery) (AuditPage, error)
	// Proof shows that an entry is in the log. ErrNotFound.
	Proof(ctx context.Context, log string, entry int64) (AuditProof, error)
	// Keys returns the node's public keys.
	Keys() AuditKeys
	// Bundle opens the evidence bundle of a recording. ErrNotFound.
	Bundle(ctx context.Context, id string, entries bool) (Bundle, error)
}

// Bundle is an evidence bundle that is written as it is read.
type Bundle struct {
	Name  string // file name to offer
	Write func(w io.Writer) error
	Close func()
}

// AuditQuery selects entries. Zero fields do not restrict.
type AuditQuery struct {
	Log       string // epoch of the node's log; empty: the current one
	After     int64  // entries behind this index; -1: from the first one
	From, To  time.Time
	Recording string
	Who       string
	Kind      string // or the beginning of one up to a dot: access
	Limit     int
}

// AuditEntry is one entry of the log.
type AuditEntry struct {
	N         int64      `json:"n"`
	At        time.Time  `json:"at"`
	Node      string     `json:"node"`
	Kind      string     `json:"kind"`
	Recording string     `json:"recording,omitempty"`
	Who       string     `json:"who,omitempty"`
	From      string     `json:"from,omitempty"`
	What      string     `json:"what,omitempty"`
	Result    string     `json:"result,omitempty"`
	Happened  *time.Time `json:"happened,omitempty" doc:"When it was noted elsewhere before."`
	Link      string     `json:"link,omitempty" doc:"SHA-256 of the link that a manifest was published with."`
	Line      string     `json:"line" doc:"The entry as it stands in the log: what the tree's leaf is the hash of."`
}

// AuditPage is one page of entries.
type AuditPage struct {
	Log        string       `json:"log"`
	Logs       []string     `json:"logs" nullable:"false" doc:"All logs of the node, oldest first."`
	Size       int64        `json:"size" doc:"Entries of the log."`
	Checkpoint string       `json:"checkpoint,omitempty" doc:"The last signed one."`
	Entries    []AuditEntry `json:"entries" nullable:"false"`
	Next       int64        `json:"next" doc:"after of the next page; -1 on the last."`
}

// AuditProof shows that an entry is in the log.
type AuditProof struct {
	Log   string `json:"log"`
	Entry int64  `json:"entry"`
	Line  string `json:"line"`
	Proof string `json:"proof" doc:"C2SP tlog-proof, with the signed checkpoint."`
}

// AuditKey is a public key of the node.
type AuditKey struct {
	Number    int       `json:"number"`
	ID        string    `json:"id"`
	Key       string    `json:"key"`
	Created   time.Time `json:"created"`
	PEM       string    `json:"pem"`
	Statement string    `json:"statement"`
}

// AuditKeys are the public keys of the node, oldest first; the last one signs.
type AuditKeys struct {
	Node string     `json:"node"`
	Keys []AuditKey `json:"keys" nullable:"false"`
}

// ErrAudit says that the log cannot be written: nothing is served then.
var ErrAudit = errors.New("the audit log cannot be written")

// client is who asks.
type client struct{ who, from string }

type clientKey struct{}

// withClient notes in a request who asks.
func withClient(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), clientKey{}, client{who: "api-token", from: r.RemoteAddr}))
}

// accessed writes an access into the log before it is served; err is why it is
// not. A log that cannot be written is why nothing is.
func (s *Server) accessed(ctx context.Context, kind, recording, what string, err error) error {
	if s.cfg.Audit == nil {
		return nil
	}
	a := Access{Kind: kind, Recording: recording, What: what, Result: "served"}
	c, _ := ctx.Value(clientKey{}).(client)
	a.Who, a.From = c.who, c.from
	switch {
	case errors.Is(err, recorder.ErrNotFound):
		a.Result = "not-found"
	case err != nil:
		a.Result = "failed"
	}
	if err := s.cfg.Audit.Access(ctx, a); err != nil {
		s.cfg.Log.Error("an access is refused: it cannot be logged", "kind", kind, "error", err)
		return newProblem(http.StatusServiceUnavailable, "audit-unavailable", "the audit log cannot be written, and nothing is served without a trace in it")
	}
	return nil
}

type auditInput struct {
	Log       string    `query:"log" maxLength:"32" doc:"Which log of the node, by the time when it was begun; without it the current one."`
	After     int64     `query:"after" minimum:"-1" default:"-1" doc:"next of the page before."`
	From      time.Time `query:"from" doc:"Entries not before this time (RFC 3339)."`
	To        time.Time `query:"to" doc:"Entries before this time (RFC 3339)."`
	Recording string    `query:"recording" maxLength:"128"`
	Who       string    `query:"who" maxLength:"128"`
	Kind      string    `query:"kind" maxLength:"64" doc:"A kind such as access.media, or what stands before its dot: access."`
	Limit     int       `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

type proofInput struct {
	Entry int64  `path:"entry" minimum:"0"`
	Log   string `query:"log" maxLength:"32"`
}

type bundleInput struct {
	ID      string `path:"id" maxLength:"128"`
	Entries bool   `query:"entries" doc:"Whether the entries of the log that name the recording are in it."`
}

type (
	auditAnswer struct{ Body AuditPage }
	proofAnswer struct{ Body AuditProof }
	keysAnswer  struct{ Body AuditKeys }
)

func (s *Server) auditRoutes() {
	if s.cfg.Audit == nil {
		return
	}
	huma.Register(s.api, operation("audit", http.MethodGet, "/v1/audit", "Entries of the audit log, oldest first", http.StatusNotFound, http.StatusUnprocessableEntity), s.audit)
	huma.Register(s.api, operation("audit-proof", http.MethodGet, "/v1/audit/entries/{entry}/proof", "The proof that an entry is in the audit log", http.StatusNotFound, http.StatusUnprocessableEntity),
		func(ctx context.Context, in *proofInput) (*proofAnswer, error) {
			p, err := s.cfg.Audit.Proof(ctx, in.Log, in.Entry)
			if aerr := s.accessed(ctx, "access.audit", "", "proof", err); aerr != nil {
				return nil, aerr
			}
			if err != nil {
				return nil, s.problem(doProve, err)
			}
			return &proofAnswer{p}, nil
		})
	huma.Register(s.api, operation("audit-keys", http.MethodGet, "/v1/audit/keys", "The public keys of the node"),
		func(context.Context, *nothing) (*keysAnswer, error) { return &keysAnswer{s.cfg.Audit.Keys()}, nil })
	huma.Register(s.api, raw(operation("bundle", http.MethodGet, "/v1/recordings/{id}/bundle", "The evidence bundle of a recording",
		http.StatusNotFound, http.StatusUnprocessableEntity), "application/zip", "A ZIP file that verifies itself: trunktap verify FILE"), s.bundle)
}

func (s *Server) audit(ctx context.Context, in *auditInput) (*auditAnswer, error) {
	page, err := s.cfg.Audit.Entries(ctx, AuditQuery(*in))
	if aerr := s.accessed(ctx, "access.audit", in.Recording, "entries", err); aerr != nil {
		return nil, aerr
	}
	if err != nil {
		return nil, s.problem(doReadLog, err)
	}
	return &auditAnswer{page}, nil
}

func (s *Server) bundle(ctx context.Context, in *bundleInput) (*huma.StreamResponse, error) {
	b, err := s.cfg.Audit.Bundle(ctx, in.ID, in.Entries)
	if aerr := s.accessed(ctx, "access.bundle", in.ID, "", err); aerr != nil {
		if err == nil {
			b.Close()
		}
		return nil, aerr
	}
	if err != nil {
		return nil, s.problem("make an evidence bundle", err)
	}
	return stream(func(w http.ResponseWriter, _ *http.Request) {
		defer b.Close()
		w.Header().Set("Content-Type", "application/zip")
		w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": b.Name}))
		if err := b.Write(w); err != nil {
			s.cfg.Log.Error("write an evidence bundle", "recording", in.ID, "error", err)
			panic(http.ErrAbortHandler) // half a bundle must not look whole
		}
	}), nil
}
