package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/audit"
)

// keysCmd works on keys: by the daemon when it answers, else on the store itself.
type keysCmd struct {
	Ls     keysLsCmd     `cmd:"" help:"List key-encryption keys and how many recordings each is needed for."`
	Init   keysInitCmd   `cmd:"" help:"Make the key file of mode local in a store that was used with keys of another mode."`
	Rotate keysRotateCmd `cmd:"" help:"Make a new key-encryption key; older ones stay readable."`
	Rewrap keysRewrapCmd `cmd:"" help:"Wrap the keys of recordings with the active key; audio is not touched."`
	Retire keysRetireCmd `cmd:"" help:"Destroy an old key-encryption key that nothing of this node needs; refused beside other nodes until these were asked."`
}

// keySource is where commands work on keys: the running daemon, or the archive
// that they have for themselves.
type keySource interface {
	List(ctx context.Context, uses bool) (api.KeyList, error)
	Rotate(ctx context.Context, by api.Actor) (api.KeyRotation, error)
	Retire(ctx context.Context, o api.RetireOrder, by api.Actor) error
	Shred(ctx context.Context, id string, o api.ShredOrder, by api.Actor) (api.ShredResult, error)
	api.Holds
}

var (
	_ api.Keys  = (*keyWork)(nil)
	_ keySource = remoteKeys{}
)

// withKeys opens what a command works on: exactly one of far and near is there.
func (c configFlag) withKeys(e *env, f func(far *remoteKeys, near *keyWork) error) (err error) {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	if r := newRemote(cfg.API.Listen); r.alive(e.ctx) {
		if r.token, err = api.ReadToken(cfg.API.TokenFile); err != nil {
			return fmt.Errorf("the daemon runs, but its API cannot be used: %w", err)
		}
		defer func() { err = errors.Join(err, r.close()) }()
		return f(&remoteKeys{r}, nil)
	}
	unlock, err := lock(cfg)
	if err != nil {
		return fmt.Errorf("%w, and its API (api.listen) does not answer: stop the daemon first", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	a, err := openArchive(e.ctx, cfg, func(c *archive.Config) {
		c.Trace = func(e audit.Entry) error { return dropTrace(cfg, e) }
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return f(nil, offlineWork(cfg, a))
}

// withKeySource is withKeys for what is done in one step.
func (c configFlag) withKeySource(e *env, f func(keySource) error) error {
	return c.withKeys(e, func(far *remoteKeys, near *keyWork) error {
		if far != nil {
			return f(*far)
		}
		return f(near)
	})
}

// remoteKeys are the keys of the running daemon.
type remoteKeys struct{ *remote }

// post sends an order and reads the answer.
func (r remoteKeys) post(ctx context.Context, path string, order, into any) error {
	var body []byte
	if order != nil {
		var err error
		if body, err = json.Marshal(order); err != nil {
			return err
		}
	}
	resp, err := r.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if err := json.NewDecoder(io.LimitReader(resp.Body, answerBytesMax)).Decode(into); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// List implements keySource.
func (r remoteKeys) List(ctx context.Context, uses bool) (l api.KeyList, err error) {
	err = r.decode(ctx, fmt.Sprintf("/v1/keys?uses=%t", uses), &l)
	return l, err
}

// Rotate implements keySource. The daemon knows who asks.
func (r remoteKeys) Rotate(ctx context.Context, _ api.Actor) (k api.KeyRotation, err error) {
	err = r.post(ctx, "/v1/keys/rotate", nil, &k)
	return k, err
}

// Retire implements keySource.
func (r remoteKeys) Retire(ctx context.Context, o api.RetireOrder, _ api.Actor) error {
	var out struct{}
	return r.post(ctx, "/v1/keys/retire", o, &out)
}

// Shred implements keySource.
func (r remoteKeys) Shred(ctx context.Context, id string, o api.ShredOrder, _ api.Actor) (s api.ShredResult, err error) {
	err = r.post(ctx, "/v1/recordings/"+url.PathEscape(id)+"/shred", o, &s)
	return s, err
}

type keysLsCmd struct {
	configFlag
	Quick bool `help:"Do not ask recordings which keys they need."`
	JSON  bool `help:"Print the list as JSON." name:"json"`
}

// Run lists the keys.
func (c *keysLsCmd) Run(e *env) error {
	return c.withKeySource(e, func(src keySource) error {
		l, err := src.List(e.ctx, !c.Quick)
		if err != nil {
			return fmt.Errorf("list keys: %w", err)
		}
		if c.JSON {
			return json.NewEncoder(e.stdout).Encode(l)
		}
		w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "KEY\tSTATE\tRECORDINGS\tGOING ON\tFIRST USED") // Flush tells of errors
		for _, k := range l.Keys {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", clean(k.Name), keyState(k), usesOf(l, k.Recordings), usesOf(l, k.Live), stamp(k.First))
		}
		if l.Unknown != "" {
			err = fmt.Errorf("not all recordings could be asked which keys they need: %s", clean(l.Unknown))
		}
		return errors.Join(w.Flush(), err)
	})
}

func keyState(k api.Key) string {
	state := "old"
	switch {
	case k.Missing:
		state = "missing"
	case k.Active:
		state = "active"
	}
	if k.Journal {
		state += ", journal of calls"
	}
	return state
}

func usesOf(l api.KeyList, n int) string {
	if !l.Counted {
		return "-"
	}
	return fmt.Sprint(n)
}

type keysRotateCmd struct{ configFlag }

// Run rotates.
func (c *keysRotateCmd) Run(e *env) error {
	return c.withKeySource(e, func(src keySource) error {
		r, err := src.Rotate(e.ctx, commandActor())
		if err != nil {
			return err
		}
		if r.Elsewhere {
			e.note("the key service makes versions of its keys itself, by its own tools; the cached key was renewed")
		}
		_, err = fmt.Fprintf(e.stdout, "%s is the active key\n", clean(r.Key))
		return err
	})
}

type keysRewrapCmd struct {
	configFlag
	From      time.Time `help:"Recordings from this day on (RFC 3339)."`
	To        time.Time `help:"Recordings before this time (RFC 3339)."`
	PerSecond int       `help:"Recordings at most; without it 50 beside a daemon, else 200." placeholder:"N"`
	NoWait    bool      `help:"Begin it in the daemon and do not wait for its end."`
	Status    bool      `help:"Tell how the daemon's rewrapping stands."`
	Cancel    bool      `help:"End the daemon's rewrapping; what was wrapped stays so."`
	JSON      bool      `help:"Print the report as JSON." name:"json"`
	Progress  bool      `help:"Show progress even when standard error is no terminal."`
}

// Run rewraps and reports.
func (c *keysRewrapCmd) Run(e *env) error {
	return c.withKeys(e, func(far *remoteKeys, near *keyWork) error {
		switch {
		case far != nil:
			return c.remote(e, *far)
		case c.Status || c.Cancel || c.NoWait:
			return usagef("trunktap: keys rewrap: --status, --cancel and --no-wait are for a running daemon, and none answers")
		}
		return c.here(e, near)
	})
}

const rewrapPollEvery = 300 * time.Millisecond

// remote has the daemon do it.
func (c *keysRewrapCmd) remote(e *env, r remoteKeys) (err error) {
	var s api.RewrapState
	look := func() error { return r.decode(e.ctx, "/v1/keys/rewrap", &s) }
	switch {
	case c.Status:
		err = look()
	case c.Cancel:
		err = r.post(e.ctx, "/v1/keys/rewrap/cancel", nil, &s)
	default:
		err = r.post(e.ctx, "/v1/keys/rewrap", api.RewrapOrder{From: c.From, To: c.To, PerSecond: c.PerSecond}, &s)
	}
	if err != nil {
		return err
	}
	p := newProgress(e.stderr, c.Progress)
	for wait := !c.Status && !c.Cancel && !c.NoWait; wait && err == nil && (s.State == "running" || s.State == "waiting"); {
		p.tell("rewrapping: %s recordings", of(s.Done, s.Total))
		select {
		case <-time.After(rewrapPollEvery):
			s = api.RewrapState{}
			err = look()
		case <-e.ctx.Done():
			p.done()
			e.note("the daemon goes on: trunktap keys rewrap --status, --cancel")
			return e.ctx.Err()
		}
	}
	p.done()
	if err != nil {
		return err
	}
	return c.print(e, s)
}

// here does it without a daemon.
func (c *keysRewrapCmd) here(e *env, w *keyWork) error {
	by, what := commandActor(), "recordings "+rangeWhat(c.From, c.To)
	if err := w.trace(e.ctx, audit.Entry{Kind: audit.KindKeyRewrapped, Who: by.Who, From: by.From, What: what, Result: audit.ResultBegun}); err != nil {
		return noTrace(err)
	}
	p := newProgress(e.stderr, c.Progress)
	s := api.RewrapState{State: "done", By: by.Who}
	r, err := w.archive.Rewrap(e.ctx, archive.RewrapQuery{From: c.From, To: c.To, PerSecond: c.PerSecond},
		func(done, total int64) {
			s.Done, s.Total = done, total
			p.tell("rewrapping: %s recordings", of(done, total))
		})
	p.done()
	rewrapTake(&s, r)
	if err != nil {
		s.State, s.Error = "failed", err.Error()
	}
	return errors.Join(c.print(e, s), w.done(e.ctx, audit.KindKeyRewrapped, what+": "+rewrapWhat(s), by, err))
}

// print reports; keys that stay as they are make it fail.
func (c *keysRewrapCmd) print(e *env, s api.RewrapState) error {
	var b bytes.Buffer
	if c.JSON {
		if err := json.NewEncoder(&b).Encode(s); err != nil {
			return err
		}
	} else {
		for _, f := range s.Findings {
			fmt.Fprintf(&b, "%s\n", finding(f))
		}
		fmt.Fprintf(&b, "%s: %d of %d recordings: %s\n", s.State, s.Done, s.Total, rewrapWhat(s))
	}
	_, err := e.stdout.Write(b.Bytes())
	switch {
	case err != nil:
	case s.State == "failed" || s.State == "waiting" && s.Error != "":
		err = fmt.Errorf("rewrap keys: %s", clean(s.Error))
	case s.Failed > 0:
		err = fmt.Errorf("%d keys were not rewrapped", s.Failed)
	}
	return err
}

type keysRetireCmd struct {
	configFlag
	Key             string `arg:"" help:"Name of the key, as keys ls shows it."`
	OtherNodesAsked bool   `help:"Say that no call and no upload of another node that shares the key file needs the key; without it retiring is refused where the store or the catalogue knows other nodes."`
}

// Run destroys a key that nothing needs, as far as the whole store tells.
func (c *keysRetireCmd) Run(e *env) error {
	return c.withKeySource(e, func(src keySource) error {
		if err := src.Retire(e.ctx, api.RetireOrder{Key: c.Key, OtherNodesAsked: c.OtherNodesAsked}, commandActor()); err != nil {
			return fmt.Errorf("retire key %s: %w", clean(c.Key), err)
		}
		_, err := fmt.Fprintf(e.stdout, "%s is destroyed\n", clean(c.Key))
		return err
	})
}

type shredCmd struct {
	configFlag
	ID        string `arg:"" help:"Id of the recording."`
	Reason    string `help:"Why; it is kept." required:""`
	WhenEnded bool   `help:"Shred a recording that goes on when it has ended; without it that is refused."`
	JSON      bool   `help:"Print JSON." name:"json"`
}

// Run destroys the key of a recording.
func (c *shredCmd) Run(e *env) error {
	return c.withKeySource(e, func(src keySource) error {
		s, err := src.Shred(e.ctx, c.ID, api.ShredOrder{Reason: c.Reason, WhenEnded: c.WhenEnded}, commandActor())
		switch {
		case err != nil:
			return err
		case c.JSON:
			err = json.NewEncoder(e.stdout).Encode(s)
		case s.State == "waits" && s.At.IsZero():
			_, err = fmt.Fprintf(e.stdout, "%s is shredded when it has ended: %s\n", clean(c.ID), clean(s.Reason))
		case s.State == "waits":
			_, err = fmt.Fprintf(e.stdout, "%s was shredded here at %s, and is in its store when that answers: %s\n", clean(c.ID), s.At.Format(time.RFC3339), clean(s.Reason))
		default:
			_, err = fmt.Fprintf(e.stdout, "%s was shredded at %s: %s\n", clean(c.ID), s.At.Format(time.RFC3339), clean(s.Reason))
		}
		if s.Rest != "" {
			err = errors.Join(err, fmt.Errorf("its key is destroyed; what follows is done by the daemon, or by the same command again: %s", clean(s.Rest)))
		}
		return err
	})
}
