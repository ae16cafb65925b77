package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/trunktap/trunktap/recorder/api"
)

type verifyCmd struct {
	configFlag
	IDs      []string `arg:"" optional:"" name:"id" help:"Ids of recordings; without any, all."`
	JSON     bool     `help:"Print the report as JSON." name:"json"`
	Progress bool     `help:"Show progress even when standard error is no terminal."`
}

const verifyIDsMax = 1000 // of one request to the daemon

// Run verifies recordings and names what does not fit.
func (c *verifyCmd) Run(e *env) (err error) {
	if len(c.IDs) > verifyIDsMax {
		return usagef("trunktap: verify: %d ids; allowed: at most %d, or none for all", len(c.IDs), verifyIDsMax)
	}
	src, err := c.source(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	p := newProgress(e.stderr, c.Progress)
	report, err := src.verify(e.ctx, c.IDs, func(done, total int64) { p.tell("verifying: %s recordings", of(done, total)) })
	p.done()
	if c.JSON {
		err = errors.Join(err, json.NewEncoder(e.stdout).Encode(report))
	} else {
		err = errors.Join(err, printReport(e, report))
	}
	if n := len(report.Findings) + report.Dropped; err == nil && n > 0 {
		err = fmt.Errorf("%d findings", n)
	}
	if err != nil {
		return fmt.Errorf("verify recordings: %w", err)
	}
	return nil
}

func printReport(e *env, r api.Report) error {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s\n", finding(f))
	}
	if r.Dropped > 0 {
		fmt.Fprintf(&b, "and %d more\n", r.Dropped)
	}
	fmt.Fprintf(&b, "%d recordings, %d segments, %d bytes verified: %d findings\n", r.Recordings, r.Segments, r.Bytes, len(r.Findings)+r.Dropped)
	_, err := fmt.Fprint(e.stdout, b.String())
	return err
}

// finding is a line of text.
func finding(f api.Finding) string {
	var parts []string
	for _, s := range []string{f.Recording, f.File, f.Fault, f.Detail} {
		if s != "" {
			parts = append(parts, clean(s))
		}
	}
	return strings.Join(parts, ": ")
}
