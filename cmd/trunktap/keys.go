package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/seal"
)

// keysCmd works on the keys and the store themselves: the daemon must not run.
type keysCmd struct {
	Ls     keysLsCmd     `cmd:"" help:"List key-encryption keys and how many recordings each is needed for."`
	Rotate keysRotateCmd `cmd:"" help:"Make a new key-encryption key; older ones stay readable."`
	Rewrap keysRewrapCmd `cmd:"" help:"Wrap the keys of recordings with the active key; audio is not touched."`
	Init   keysInitCmd   `cmd:"" help:"Make the key file of mode local in a store that was used with keys of another mode."`
	Retire keysRetireCmd `cmd:"" help:"Destroy an old key-encryption key that no recording needs."`
}

// withArchive opens the archive for writing while a command works on it.
func (c configFlag) withArchive(e *env, f func(*archive.Archive) error) (err error) {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	unlock, err := lock(cfg)
	if err != nil {
		return fmt.Errorf("%w: stop the daemon first", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	a, err := openArchive(e.ctx, cfg, func(c *archive.Config) {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return f(a)
}

// withLocalKeys is withArchive for what can be done with the keys of mode local alone.
func (c configFlag) withLocalKeys(e *env, f func(*archive.Archive, *seal.Local) error) error {
	return c.withArchive(e, func(a *archive.Archive) error {
		keys, ok := a.Sealer().(*seal.Local)
		if !ok {
			return errors.New("the keys are not those of mode local: use the tools of their service")
		}
		return f(a, keys)
	})
}

type keysLsCmd struct {
	configFlag
	JSON bool `help:"Print the list as JSON." name:"json"`
}

// keyLine is a line of the list.
type keyLine struct {
	Name       string    `json:"name"`
	Active     bool      `json:"active"`
	Recordings int       `json:"recordings"`
	First      time.Time `json:"first,omitzero"` // the oldest data key that it wraps was made
	Missing    bool      `json:"missing,omitempty"`
}

// Run lists the keys.
func (c *keysLsCmd) Run(e *env) error {
	return c.withLocalKeys(e, func(a *archive.Archive, keys *seal.Local) error {
		list, failed := keyList(e.ctx, a, keys)
		if c.JSON {
			return errors.Join(failed, json.NewEncoder(e.stdout).Encode(list))
		}
		w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "KEY\tSTATE\tRECORDINGS\tFIRST USED") // Flush tells of errors
		for _, k := range list {
			state := "old"
			switch {
			case k.Missing:
				state = "missing"
			case k.Active:
				state = "active"
			}
			_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", clean(k.Name), state, k.Recordings, stamp(k.First))
		}
		return errors.Join(failed, w.Flush())
	})
}

// keyList puts together the keys that there are and those that recordings need.
func keyList(ctx context.Context, a *archive.Archive, keys *seal.Local) ([]keyLine, error) {
	infos, err := keys.KEK().(seal.Lister).Keys(ctx)
	if err != nil {
		return nil, err
	}
	uses, err := a.KeyUses(ctx)
	var list []keyLine
	for _, i := range infos {
		u := uses[i.Name]
		list = append(list, keyLine{Name: i.Name, Active: i.Active, Recordings: u.Recordings, First: u.First})
		delete(uses, i.Name)
	}
	for name, u := range uses {
		list = append(list, keyLine{Name: name, Recordings: u.Recordings, First: u.First, Missing: true})
	}
	slices.SortFunc(list, func(a, b keyLine) int { return a.First.Compare(b.First) })
	return list, err
}

type keysRotateCmd struct{ configFlag }

// Run rotates.
func (c *keysRotateCmd) Run(e *env) error {
	return c.withLocalKeys(e, func(_ *archive.Archive, keys *seal.Local) error {
		name, err := keys.Rotate(e.ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(e.stdout, "%s is the active key\n", name)
		return err
	})
}

type keysRewrapCmd struct {
	configFlag
	From      time.Time `help:"Recordings from this day on (RFC 3339)."`
	To        time.Time `help:"Recordings before this time (RFC 3339)."`
	PerSecond int       `help:"Recordings at most." default:"200"`
	JSON      bool      `help:"Print the report as JSON." name:"json"`
	Progress  bool      `help:"Show progress even when standard error is no terminal."`
}

// Run rewraps and reports.
func (c *keysRewrapCmd) Run(e *env) error {
	return c.withArchive(e, func(a *archive.Archive) error {
		p := newProgress(e.stderr, c.Progress)
		r, err := a.Rewrap(e.ctx, archive.RewrapQuery{From: c.From, To: c.To, PerSecond: c.PerSecond},
			func(done, total int64) { p.tell("rewrapping: %s recordings", of(done, total)) })
		p.done()
		if c.JSON {
			return errors.Join(err, json.NewEncoder(e.stdout).Encode(r))
		}
		for _, f := range r.Findings {
			_, _ = fmt.Fprintln(e.stdout, clean(f.String())) // the summary tells of errors
		}
		_, perr := fmt.Fprintf(e.stdout, "%d recordings: %d rewrapped with %s, %d were current, %d shredded, %d failed\n",
			r.Recordings, r.Rewrapped, r.Active, r.Current, r.Shredded, len(r.Findings)+r.Dropped)
		if n := len(r.Findings) + r.Dropped; err == nil && n > 0 {
			err = fmt.Errorf("%d keys were not rewrapped", n)
		}
		return errors.Join(err, perr)
	})
}

type keysRetireCmd struct {
	configFlag
	Key string `arg:"" help:"Name of the key, as keys ls shows it."`
}

// Run destroys a key that nothing needs, as far as the whole store tells.
func (c *keysRetireCmd) Run(e *env) error {
	return c.withLocalKeys(e, func(a *archive.Archive, keys *seal.Local) error {
		uses, err := a.KeyUses(e.ctx)
		if err != nil {
			return fmt.Errorf("retire key %s: not all recordings can be asked whether they need it: %w", c.Key, err)
		}
		if n := uses[c.Key].Recordings; n > 0 {
			return fmt.Errorf("retire key %s: %d recordings need it: trunktap keys rewrap", c.Key, n)
		}
		if err := keys.KEK().(seal.Retirer).Retire(e.ctx, c.Key); err != nil {
			return err
		}
		_, err = fmt.Fprintf(e.stdout, "%s is destroyed\n", clean(c.Key))
		return err
	})
}

type shredCmd struct {
	configFlag
	ID     string `arg:"" help:"Id of the recording."`
	Reason string `help:"Why; it is kept." required:""`
}

// Run destroys the key of a recording.
func (c *shredCmd) Run(e *env) error {
	by := ""
	if u, err := user.Current(); err == nil {
		by = u.Username
	}
	return c.withArchive(e, func(a *archive.Archive) error {
		s, err := a.Shred(e.ctx, archive.ShredOrder{Recording: c.ID, Reason: c.Reason, By: by})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(e.stdout, "%s was shredded at %s: %s\n", clean(c.ID), s.At.Format(time.RFC3339), clean(s.Reason))
		return err
	})
}
