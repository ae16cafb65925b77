package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/archive"
)

var _ api.Holds = (*keyWork)(nil)

// Holds implements api.Holds.
func (w *keyWork) Holds(ctx context.Context, id string) ([]api.Hold, error) {
	holds, err := w.archive.Holds(ctx, id)
	out := make([]api.Hold, 0, len(holds))
	for _, h := range holds {
		out = append(out, api.Hold(h))
	}
	return out, err
}

// PlaceHold implements api.Holds. The archive leaves the traces.
func (w *keyWork) PlaceHold(ctx context.Context, id string, o api.HoldOrder, by api.Actor) error {
	return noTrace(w.archive.PlaceHold(ctx, archive.HoldOrder{Recording: id, Name: o.Name, Reason: o.Reason, By: by.Who, From: by.From}))
}

// ReleaseHold implements api.Holds.
func (w *keyWork) ReleaseHold(ctx context.Context, id string, o api.HoldOrder, by api.Actor) error {
	return noTrace(w.archive.ReleaseHold(ctx, archive.HoldOrder{Recording: id, Name: o.Name, Reason: o.Reason, By: by.Who, From: by.From}))
}

// Holds implements keySource.
func (r remoteKeys) Holds(ctx context.Context, id string) ([]api.Hold, error) {
	var out struct{ Holds []api.Hold }
	err := r.decode(ctx, "/v1/recordings/"+url.PathEscape(id)+"/holds", &out)
	return out.Holds, err
}

// PlaceHold implements keySource. The daemon knows who asks.
func (r remoteKeys) PlaceHold(ctx context.Context, id string, o api.HoldOrder, _ api.Actor) error {
	var out struct{}
	return r.post(ctx, "/v1/recordings/"+url.PathEscape(id)+"/holds", o, &out)
}

// ReleaseHold implements keySource.
func (r remoteKeys) ReleaseHold(ctx context.Context, id string, o api.HoldOrder, _ api.Actor) error {
	var out struct{}
	return r.post(ctx, "/v1/recordings/"+url.PathEscape(id)+"/release", o, &out)
}

type holdCmd struct {
	configFlag
	ID     string `arg:"" help:"Id of the recording."`
	Name   string `help:"Name of the case; a recording may be held for several. Without it the holds are shown." optional:""`
	Reason string `help:"Why; it is kept." optional:""`
	JSON   bool   `help:"Print JSON." name:"json"`
}

// Run holds a recording, or shows its holds.
func (c *holdCmd) Run(e *env) error {
	if (c.Name == "") != (c.Reason == "") {
		return usagef("--name and --reason belong together")
	}
	return c.withKeySource(e, func(src keySource) error {
		if c.Name != "" {
			if err := src.PlaceHold(e.ctx, c.ID, api.HoldOrder{Name: c.Name, Reason: c.Reason}, commandActor()); err != nil {
				return err
			}
		}
		return showHolds(e, src, c.ID, c.JSON)
	})
}

type releaseCmd struct {
	configFlag
	ID     string `arg:"" help:"Id of the recording."`
	Name   string `help:"Name of the hold." required:""`
	Reason string `help:"Why; it is kept in the audit log." required:""`
	JSON   bool   `help:"Print JSON." name:"json"`
}

// Run releases a hold and shows those that are left.
func (c *releaseCmd) Run(e *env) error {
	return c.withKeySource(e, func(src keySource) error {
		if err := src.ReleaseHold(e.ctx, c.ID, api.HoldOrder{Name: c.Name, Reason: c.Reason}, commandActor()); err != nil {
			return err
		}
		return showHolds(e, src, c.ID, c.JSON)
	})
}

func showHolds(e *env, src keySource, id string, asJSON bool) error {
	holds, err := src.Holds(e.ctx, id)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(e.stdout).Encode(holds)
	}
	if len(holds) == 0 {
		_, err := fmt.Fprintf(e.stdout, "%s is not under legal hold\n", clean(id))
		return err
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tSINCE\tBY\tREASON") // Flush tells of errors
	for _, h := range holds {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", clean(h.Name), h.At.Format(time.RFC3339), dash(clean(h.By)), clean(h.Reason))
	}
	return w.Flush()
}
