package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/api"
)

// source is where commands find recordings: the running daemon or the store.
type source interface {
	find(ctx context.Context, q recorder.Query) (listing, error)
	get(ctx context.Context, id string) (*recorder.Manifest, error)
	// media returns the audio and its size, -1 when that is not known.
	media(ctx context.Context, id, format string) (io.ReadCloser, int64, error)
	// verify compares everything with everything; pin is a public key that must
	// be the node's, empty: none.
	verify(ctx context.Context, q api.VerifyQuery, pin string, progress func(done, total int64)) (api.Report, error)
	bundle(ctx context.Context, id string, entries bool, w io.Writer) error
	entries(ctx context.Context, q api.AuditQuery) (api.AuditPage, error)
	proof(ctx context.Context, log string, entry int64) (api.AuditProof, error)
	keys(ctx context.Context) (api.AuditKeys, error)
	usage(ctx context.Context, q recorder.UsageQuery) ([]recorder.Usage, error)
	close() error
}

// listing is one page of recordings.
type listing struct {
	Recordings []recorder.Manifest `json:"recordings"`
	Next       string              `json:"next"`
	Total      *int64              `json:"total,omitempty"`
	TotalMore  bool                `json:"total_more,omitempty"`
}

// add adds a page behind those before.
func (l *listing) add(page listing) {
	l.Recordings, l.Next = append(l.Recordings, page.Recordings...), page.Next
	if page.Total != nil {
		l.Total, l.TotalMore = page.Total, page.TotalMore
	}
}

const (
	aliveTimeout   = 2 * time.Second
	headerTimeout  = 60 * time.Second // until an answer begins
	answerBytesMax = 64 << 20         // of a listing or a manifest
)

// source loads the configuration and opens what it names.
func (c configFlag) source(e *env) (source, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	return openSource(e, cfg)
}

// openSource asks the running daemon when it answers, else opens the store.
func openSource(e *env, cfg *config.Config) (source, error) {
	if r := newRemote(cfg.API.Listen); r.alive(e.ctx) {
		token, err := api.ReadToken(cfg.API.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("the daemon runs, but its API cannot be used: %w", err)
		}
		r.token = token
		return r, nil
	}
	return openLocal(e, cfg)
}

// remote is the API of the running daemon.
type remote struct {
	base   string // empty: the configuration has no API
	token  string
	client *http.Client
}

func newRemote(listen netip.AddrPort) *remote {
	if !listen.IsValid() {
		return &remote{}
	}
	addr := listen.Addr()
	switch {
	case addr == netip.IPv4Unspecified():
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case addr == netip.IPv6Unspecified():
		addr = netip.IPv6Loopback()
	}
	t := &http.Transport{
		Proxy:                 nil, // the token goes to the daemon and to nobody else
		DialContext:           (&net.Dialer{Timeout: aliveTimeout}).DialContext,
		ResponseHeaderTimeout: headerTimeout,
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &remote{base: "http://" + netip.AddrPortFrom(addr, listen.Port()).String(), client: &http.Client{Transport: t, CheckRedirect: stay}}
}

// alive tells whether the daemon answers.
func (r *remote) alive(ctx context.Context) bool {
	if r.base == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	var h struct{ Status string }
	return resp.StatusCode == http.StatusOK && json.NewDecoder(io.LimitReader(resp.Body, 4096)).Decode(&h) == nil && h.Status == "ok"
}

// do sends a request and turns a problem document into an error.
func (r *remote) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	var p api.Problem
	_ = json.NewDecoder(io.LimitReader(resp.Body, answerBytesMax)).Decode(&p) // the status tells enough
	if p.Shredded != nil {
		return nil, &recorder.ShreddedError{Recording: p.Shredded.Recording, Shredded: p.Shredded.Shredded}
	}
	if p.Code == "not-found" {
		return nil, fmt.Errorf("%s: %w", p.Detail, recorder.ErrNotFound)
	}
	for _, item := range p.Errors {
		p.Detail += "; " + item.Location + ": " + item.Message
	}
	return nil, fmt.Errorf("the daemon answers %s: %s", resp.Status, p.Detail)
}

func (r *remote) decode(ctx context.Context, path string, into any) error {
	resp, err := r.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerBytesMax)).Decode(into); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

func (r *remote) find(ctx context.Context, q recorder.Query) (l listing, err error) {
	err = r.decode(ctx, "/v1/recordings?"+parameters(&q).Encode(), &l)
	return l, err
}

func (r *remote) get(ctx context.Context, id string) (*recorder.Manifest, error) {
	m := &recorder.Manifest{}
	if err := r.decode(ctx, "/v1/recordings/"+url.PathEscape(id), m); err != nil {
		return nil, err
	}
	return m, nil
}

func (r *remote) media(ctx context.Context, id, format string) (io.ReadCloser, int64, error) {
	path := "/v1/recordings/" + url.PathEscape(id) + "/media"
	if format != "" {
		path += "?format=" + url.QueryEscape(format)
	}
	resp, err := r.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, 0, err
	}
	return resp.Body, resp.ContentLength, nil
}

func (r *remote) verify(ctx context.Context, q api.VerifyQuery, pin string, progress func(done, total int64)) (api.Report, error) {
	if pin != "" {
		k, err := r.keys(ctx)
		if err != nil {
			return api.Report{}, err
		}
		if !slices.ContainsFunc(k.Keys, func(k api.AuditKey) bool { return k.Key == pin }) {
			return api.Report{}, fmt.Errorf("the public key that was given is none of node %s", k.Node)
		}
	}
	body, err := json.Marshal(api.VerifyBody(q))
	if err != nil {
		return api.Report{}, err
	}
	resp, err := r.do(ctx, http.MethodPost, "/v1/verify", body)
	if err != nil {
		return api.Report{}, err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	dec := json.NewDecoder(io.LimitReader(resp.Body, answerBytesMax))
	for {
		var v api.Verification
		if err := dec.Decode(&v); err != nil {
			return api.Report{}, fmt.Errorf("read the daemon's answer: %w", err)
		}
		progress(v.Done, v.Total)
		switch {
		case v.Error != "" && v.Report != nil:
			return *v.Report, errors.New(v.Error)
		case v.Report != nil:
			return *v.Report, nil
		}
	}
}

func (r *remote) bundle(ctx context.Context, id string, entries bool, w io.Writer) error {
	path := "/v1/recordings/" + url.PathEscape(id) + "/bundle"
	if entries {
		path += "?entries=true"
	}
	resp, err := r.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

func (r *remote) entries(ctx context.Context, q api.AuditQuery) (page api.AuditPage, err error) {
	v := url.Values{"after": {strconv.FormatInt(q.After, 10)}, "limit": {strconv.Itoa(q.Limit)}}
	for key, text := range map[string]string{"log": q.Log, "recording": q.Recording, "who": q.Who, "kind": q.Kind} {
		if text != "" {
			v.Set(key, text)
		}
	}
	for key, at := range map[string]time.Time{"from": q.From, "to": q.To} {
		if !at.IsZero() {
			v.Set(key, at.Format(time.RFC3339Nano))
		}
	}
	err = r.decode(ctx, "/v1/audit?"+v.Encode(), &page)
	return page, err
}

func (r *remote) proof(ctx context.Context, log string, entry int64) (p api.AuditProof, err error) {
	err = r.decode(ctx, fmt.Sprintf("/v1/audit/entries/%d/proof?log=%s", entry, url.QueryEscape(log)), &p)
	return p, err
}

func (r *remote) keys(ctx context.Context) (k api.AuditKeys, err error) {
	err = r.decode(ctx, "/v1/audit/keys", &k)
	return k, err
}

func (r *remote) close() error {
	r.client.CloseIdleConnections()
	return nil
}
