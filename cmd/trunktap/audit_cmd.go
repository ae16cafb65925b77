package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/audit"
)

// auditCmd is what can be done with the audit log.
type auditCmd struct {
	Ls         auditLsCmd         `cmd:"" help:"List entries of the audit log."`
	Show       auditShowCmd       `cmd:"" help:"Show an entry and the proof that it is in the log."`
	Export     auditExportCmd     `cmd:"" help:"Write entries with their proofs, a line of JSON each."`
	Verify     auditVerifyCmd     `cmd:"" help:"Verify the logs of this node: on its disk and in the store."`
	Keys       auditKeysCmd       `cmd:"" help:"Print the node's public keys."`
	Checkpoint auditCheckpointCmd `cmd:"" help:"Print the last signed checkpoint, to be kept elsewhere."`
	Rotate     auditRotateCmd     `cmd:"" help:"Make a new signing key, which the old one vouches for; the daemon must not run."`
}

// auditFlags select entries.
type auditFlags struct {
	configFlag
	From      moment `help:"Entries at or after this time."`
	To        moment `help:"Entries before this time."`
	Recording string `help:"Entries that name this recording." placeholder:"ID"`
	Who       string `help:"Entries of this token or user."`
	Kind      string `help:"Entries of this kind, such as access.media, or what stands before its dot."`
	Log       string `help:"Which log, by the time when it was begun; without it the current one."`
}

// each calls f for all entries that are selected, up to a limit.
func (c auditFlags) each(e *env, src source, limit int, f func(api.AuditPage, api.AuditEntry) error) error {
	q := api.AuditQuery{
		Log: c.Log, After: -1, From: c.From.Time, To: c.To.Time, Recording: c.Recording, Who: c.Who, Kind: c.Kind, Limit: min(limit, pageMax),
	}
	for n := 0; n < limit; {
		page, err := src.entries(e.ctx, q)
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		for _, en := range page.Entries {
			if n++; n > limit {
				return nil
			}
			if err := f(page, en); err != nil {
				return err
			}
		}
		if page.Next < 0 {
			return nil
		}
		q.After, q.Log = page.Next, page.Log // it goes on in the same log
	}
	e.note("%d entries, and the log may have more behind them: --limit, --from", limit)
	return nil
}

type auditLsCmd struct {
	auditFlags
	Limit int  `help:"At most so many." default:"1000"`
	JSON  bool `help:"Print JSON, a line for each." name:"json"`
}

// Run lists entries.
func (c *auditLsCmd) Run(e *env) (err error) {
	src, err := c.source(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	if c.JSON {
		enc := json.NewEncoder(e.stdout)
		return c.each(e, src, c.Limit, func(_ api.AuditPage, en api.AuditEntry) error { return enc.Encode(en) })
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ENTRY\tTIME\tKIND\tRECORDING\tWHO\tFROM\tRESULT\tWHAT") // Flush reports
	err = c.each(e, src, c.Limit, func(_ api.AuditPage, en api.AuditEntry) error {
		at := en.At
		if en.Happened != nil {
			at = *en.Happened
		}
		_, err := fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", en.N, at.Local().Format(time.DateTime), clean(en.Kind), clean(en.Recording),
			clean(en.Who), clean(en.From), clean(en.Result), clean(en.What))
		return err
	})
	return errors.Join(err, w.Flush())
}

type auditShowCmd struct {
	configFlag
	Entry int64  `arg:"" help:"Index of the entry."`
	Log   string `help:"Which log, by the time when it was begun; without it the current one."`
	JSON  bool   `help:"Print JSON." name:"json"`
}

// Run shows an entry with its proof.
func (c *auditShowCmd) Run(e *env) (err error) {
	src, err := c.source(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	p, err := src.proof(e.ctx, c.Log, c.Entry)
	if err != nil {
		return fmt.Errorf("show entry %d: %w", c.Entry, err)
	}
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(p)
	}
	_, err = fmt.Fprintf(e.stdout, "%s\n\n%s", p.Line, p.Proof)
	return err
}

type auditExportCmd struct {
	auditFlags
	Limit  int    `help:"At most so many." default:"100000"`
	Output string `help:"The file to write; - is standard output." short:"o" placeholder:"FILE" required:""`
}

// exportedEntry is a line of an export.
type exportedEntry struct {
	api.AuditProof
	Keys []string `json:"keys,omitempty"` // statements; in the first line alone
}

// Run writes entries, each with its proof.
func (c *auditExportCmd) Run(e *env) (err error) {
	src, err := c.source(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	keys, err := src.keys(e.ctx)
	if err != nil {
		return fmt.Errorf("export audit log: %w", err)
	}
	write := func(w io.Writer) error {
		enc, first := json.NewEncoder(w), true
		return c.each(e, src, c.Limit, func(page api.AuditPage, en api.AuditEntry) error {
			p, err := src.proof(e.ctx, page.Log, en.N)
			if err != nil {
				return err
			}
			line := exportedEntry{AuditProof: p}
			for _, k := range keys.Keys {
				if first {
					line.Keys = append(line.Keys, k.Statement)
				}
			}
			first = false
			return enc.Encode(line)
		})
	}
	if c.Output == "-" {
		return write(e.stdout)
	}
	return writeFile(c.Output, write)
}

type auditVerifyCmd struct {
	configFlag
	Key  string `help:"Public key that must be the node's." placeholder:"KEY"`
	JSON bool   `help:"Print JSON." name:"json"`
}

// auditReport is the result of verifying logs.
type auditReport struct {
	Logs        int             `json:"logs"`
	Entries     int64           `json:"entries"`
	Checkpoints int64           `json:"checkpoints"`
	Findings    []audit.Finding `json:"findings"`
	Notes       []audit.Finding `json:"notes,omitempty"`
}

func (r *auditReport) take(f audit.Finding) {
	if f.Note {
		r.Notes = append(r.Notes, f)
	} else {
		r.Findings = append(r.Findings, f)
	}
}

// Run verifies the logs, without the daemon.
func (c *auditVerifyCmd) Run(e *env) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	q := proofQuery(cfg)
	if q.Ring == nil {
		return fmt.Errorf("verify audit log: %s has no keys of node %s: name the node and its keys in audit.node and audit.key_file", cfg.Audit.KeyFile, q.Node)
	}
	r := auditReport{Findings: []audit.Finding{}}
	if c.Key != "" && !q.Ring.Has(c.Key) {
		r.take(audit.Finding{Log: q.Node, Fault: audit.FaultSignature, Detail: "the key that was given is none of the node's"})
	}
	epochs, err := q.Dir.Epochs()
	if err != nil {
		return fmt.Errorf("verify audit log: %w", err)
	}
	for _, name := range epochs {
		k, err := q.Dir.Epoch(name).Check(e.ctx, q.Node, audit.Rings{q.Ring}, nil, r.take)
		if err != nil {
			return fmt.Errorf("verify audit log: %w", err)
		}
		r.Logs, r.Entries, r.Checkpoints = r.Logs+1, r.Entries+k.Size(), r.Checkpoints+k.Points
	}
	if c.JSON {
		err = json.NewEncoder(e.stdout).Encode(r)
	} else {
		err = printAudit(e, r)
	}
	if err == nil && len(r.Findings) > 0 {
		err = fmt.Errorf("verify audit log: %d findings", len(r.Findings))
	}
	return err
}

func printAudit(e *env, r auditReport) error {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s: entry %d: %s: %s\n", f.Log, f.Entry, f.Fault, clean(f.Detail))
	}
	for _, f := range r.Notes {
		fmt.Fprintf(&b, "note: %s: entry %d: %s: %s\n", f.Log, f.Entry, f.Fault, clean(f.Detail))
	}
	fmt.Fprintf(&b, "%d logs, %d entries, %d checkpoints verified: %d findings\n", r.Logs, r.Entries, r.Checkpoints, len(r.Findings))
	_, err := fmt.Fprint(e.stdout, b.String())
	return err
}

type auditKeysCmd struct {
	configFlag
	PEM  bool `help:"As OpenSSL reads them." name:"pem"`
	JSON bool `help:"Print JSON." name:"json"`
}

// Run prints the public keys.
func (c *auditKeysCmd) Run(e *env) (err error) {
	src, err := c.source(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	k, err := src.keys(e.ctx)
	if err != nil {
		return fmt.Errorf("read the node's keys: %w", err)
	}
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(k)
	}
	for _, k := range k.Keys {
		text := k.Key + "\n"
		if c.PEM {
			text = k.PEM
		}
		if _, err := fmt.Fprint(e.stdout, text); err != nil {
			return err
		}
	}
	return nil
}

type auditRotateCmd struct{ configFlag }

// Run makes a new signing key.
func (c *auditRotateCmd) Run(e *env) (err error) {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	unlock, err := lock(cfg)
	if err != nil {
		return fmt.Errorf("rotate the node's key: stop the daemon first: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	id, err := audit.OpenIdentity(audit.IdentityConfig{Path: cfg.Audit.KeyFile, Node: cfg.NodeName(), ReadOnly: true})
	if err != nil {
		return err
	}
	if err := trace(cfg, audit.KindNodeKey, "", "after "+id.Ring().Active().ID); err != nil {
		return err
	}
	if err := id.Rotate(time.Now()); err != nil {
		return fmt.Errorf("rotate the node's key: %w", err)
	}
	_, err = fmt.Fprintln(e.stdout, id.Ring().Active().VKey)
	return err
}
