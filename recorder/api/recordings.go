package api

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/trunktap/trunktap/recorder"
)

// Recording is one entry of a listing: the fields of the manifest, and where
// to find more.
type Recording struct {
	recorder.Manifest
	Links  Links  `json:"links"`
	Store  string `json:"store,omitempty" doc:"The region that it lies in; left out: storage.url."`
	Stored bool   `json:"stored" doc:"Whether its store has all of it; until then the spool of its node has."`
}

// Links are paths relative to the server.
type Links struct {
	Self  string `json:"self"`
	Media string `json:"media,omitempty"` // empty when nothing was captured
}

// Listing is one page of recordings.
type Listing struct {
	Recordings []Recording `json:"recordings" nullable:"false"`
	Next       string      `json:"next"` // cursor of the next page; empty on the last
	Partial    bool        `json:"partial,omitempty" doc:"The search was so broad that it ended before the page was full; next goes on from there."`
	Total      *int64      `json:"total,omitempty" doc:"How many match, when asked for."`
	TotalMore  bool        `json:"total_more,omitempty" doc:"There are more than total."`
}

type byID struct {
	ID string `path:"id" maxLength:"128"`
}

type mediaInput struct {
	ID     string `path:"id" maxLength:"128"`
	Format string `query:"format" enum:"wav-pcm16,wav-pcmu,wav-pcma,ogg-opus,flac,mp3" doc:"Without it, the format of the recording."`
}

// VerifyBody is VerifyQuery as it is sent.
type VerifyBody struct {
	IDs    []string  `json:"ids,omitempty" maxItems:"1000" doc:"Ids of recordings; without any, all."`
	From   time.Time `json:"from,omitzero" doc:"Recordings whose call began not before this time."`
	To     time.Time `json:"to,omitzero" doc:"Recordings whose call began before this time."`
	Trunk  string    `json:"trunk,omitempty" maxLength:"63"`
	FromID string    `json:"from_id,omitempty" maxLength:"128" doc:"Recordings from this id on."`
	ToID   string    `json:"to_id,omitempty" maxLength:"128" doc:"Recordings up to this id."`
}

type verifyInput struct {
	Body VerifyBody
}

type listing struct{ Body Listing }

type manifest struct{ Body recorder.Manifest }

func (s *Server) recordingRoutes() {
	huma.Register(s.api, findOperation(), s.find)
	huma.Register(s.api, operation("recording", http.MethodGet, "/v1/recordings/{id}", "The manifest of a recording", http.StatusNotFound),
		func(ctx context.Context, in *byID) (*manifest, error) {
			m, err := s.cfg.Library.Get(ctx, in.ID)
			if aerr := s.accessed(ctx, "access.get", in.ID, "", err); aerr != nil {
				return nil, aerr
			}
			if err != nil {
				return nil, s.problem("read a recording", err)
			}
			return &manifest{Complete(*m)}, nil
		})
	media := raw(operation("media", http.MethodGet, "/v1/recordings/{id}/media", "The audio of a recording; takes Range", http.StatusNotFound,
		http.StatusUnprocessableEntity), "audio/*", "A file")
	huma.Register(s.api, media, s.media)
	head := media
	head.OperationID, head.Method, head.Summary = "media-head", http.MethodHead, "Size and type of the audio of a recording"
	huma.Register(s.api, head, s.media)
	verify := raw(operation("verify", http.MethodPost, "/v1/verify", "Verify recordings", http.StatusUnprocessableEntity),
		"application/x-ndjson", "Lines of progress, the last one with the report")
	verify.Responses["200"].Content["application/x-ndjson"].Schema = s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Verification](), true, "Verification")
	verify.MaxBodyBytes = bodyBytesMax
	huma.Register(s.api, verify, s.verify)
}

func (s *Server) find(ctx context.Context, in *findInput) (*listing, error) {
	page, err := s.cfg.Library.Find(ctx, in.query)
	if aerr := s.accessed(ctx, "access.list", "", Listed(len(page.Rows), in.filters), err); aerr != nil {
		return nil, aerr
	}
	if err != nil {
		return nil, s.problem("list recordings", err)
	}
	out := &listing{Listing{Recordings: make([]Recording, 0, len(page.Rows)), Next: page.Next, Partial: page.Partial}}
	if in.query.Total {
		out.Body.Total, out.Body.TotalMore = &page.Total, page.TotalMore
	}
	for _, row := range page.Rows {
		self := "/v1/recordings/" + url.PathEscape(row.Manifest.ID)
		r := Recording{Manifest: Complete(row.Manifest), Links: Links{Self: self}, Store: row.Store, Stored: !row.Spooled}
		if len(row.Manifest.Segments) > 0 {
			r.Links.Media = self + "/media"
		}
		out.Body.Recordings = append(out.Body.Recordings, r)
	}
	return out, nil
}

// Listed says what was shown of a search by the names of its filters, as an entry of
// the audit log: its values are not in the log.
func Listed(n int, filters []string) string {
	what := fmt.Sprintf("%d recordings", n)
	if len(filters) > 0 {
		what += "; filters: " + strings.Join(filters, ", ")
	}
	return what
}

// Complete turns lists that are nil into empty ones: the contract has no null.
func Complete(m recorder.Manifest) recorder.Manifest {
	if m.Channels == nil {
		m.Channels = []recorder.Channel{}
	}
	m.Segments = append([]recorder.Segment{}, m.Segments...)
	for i := range m.Segments {
		if m.Segments[i].Parties == nil {
			m.Segments[i].Parties = []string{}
		}
	}
	if m.Windows == nil {
		m.Windows = []recorder.Window{}
	}
	if m.Gaps == nil {
		m.Gaps = []recorder.Gap{}
	}
	if m.Streams == nil {
		m.Streams = []recorder.Stream{}
	}
	if m.DTMF == nil {
		m.DTMF = []recorder.Digit{}
	}
	m.Signals = slices.Clone(m.Signals)
	for i := range m.Signals {
		if m.Signals[i].Reasons == nil {
			m.Signals[i].Reasons = []string{}
		}
	}
	return m
}

func (s *Server) media(ctx context.Context, in *mediaInput) (*huma.StreamResponse, error) {
	m, err := s.cfg.Library.Media(ctx, in.ID, in.Format)
	if aerr := s.accessed(ctx, "access.media", in.ID, in.Format, err); aerr != nil {
		if err == nil {
			_ = m.Content.Close() // nothing was read
		}
		return nil, aerr
	}
	if err != nil {
		return nil, s.problem("open the audio of a recording", err)
	}
	return stream(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if err := m.Content.Close(); err != nil {
				s.cfg.Log.Error("close the audio of a recording", "recording", in.ID, "error", err)
			}
		}()
		w.Header().Set("Content-Type", m.Type)
		w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": m.Name}))
		if m.Damaged {
			w.Header().Set("Trunktap-Damaged", "true")
		}
		http.ServeContent(w, r, "", m.Modified, m.Content)
	}), nil
}

// verify streams JSON lines: progress, and at the end the report or an error.
func (s *Server) verify(ctx context.Context, in *verifyInput) (*huma.StreamResponse, error) {
	only := ""
	if len(in.Body.IDs) == 1 {
		only = in.Body.IDs[0]
	}
	if err := s.accessed(ctx, "access.verify", only, fmt.Sprintf("%d ids", len(in.Body.IDs)), nil); err != nil {
		return nil, err
	}
	return stream(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusOK)
		control := http.NewResponseController(w)
		enc := json.NewEncoder(w)
		var at Verification
		var last time.Time
		report, err := s.cfg.Library.Verify(r.Context(), VerifyQuery(in.Body), func(done, total int64) {
			at.Done, at.Total = done, total
			if time.Since(last) >= verifyEvery {
				last = time.Now()
				_ = enc.Encode(at) // a peer that is gone ends the context
				_ = control.Flush()
			}
		})
		if report.Findings == nil {
			report.Findings = []Finding{}
		}
		if at.Report = &report; err != nil {
			at.Error = s.problem("verify recordings", err).Error()
		}
		if s.cfg.Audit != nil {
			what := fmt.Sprintf("%d recordings, %d findings", report.Recordings, len(report.Findings)+report.Dropped)
			s.cfg.Audit.Verified(Access{Kind: "verify.done", Recording: only, What: what})
		}
		_ = enc.Encode(at) // the peer is gone
	}), nil
}
