package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
)

type checkCmd struct {
	Config  string `help:"Configuration file to check." placeholder:"FILE" short:"c" xor:"what"`
	Schema  bool   `help:"Print the JSON Schema of the file." xor:"what"`
	Example bool   `help:"Print a commented example with every key." xor:"what"`
	Probe   bool   `help:"Also ask the key services to wrap and unwrap something."`
}

// Run prints what was asked for, or every fault of the file.
func (c *checkCmd) Run(e *env) error {
	switch {
	case c.Schema:
		text, err := config.Schema()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(e.stdout, string(text))
		return err
	case c.Example:
		_, err := fmt.Fprint(e.stdout, config.Example)
		return err
	case c.Config == "":
		return usagef("trunktap: check: one of --config, --schema and --example is wanted")
	}
	cfg, faults := config.Load(c.Config, keyChecks)
	if faults != nil {
		return faults
	}
	if err := checkFiles(cfg, newLog(e, cfg.Log)); err != nil {
		return fmt.Errorf("%s: fine, but this machine lacks what it names:\n%w", c.Config, err)
	}
	if c.Probe {
		if err := probeKeys(e, &cfg.Keys); err != nil {
			return fmt.Errorf("%s: fine, but its keys cannot be used:\n%w", c.Config, err)
		}
	}
	_, err := fmt.Fprintf(e.stdout, "%s: fine\n", c.Config)
	return err
}

// checkFiles says which files that the configuration names cannot be used here.
func checkFiles(cfg *config.Config, log *slog.Logger) error {
	_, sounds := newSounds(cfg)
	_, feeds := newFeeds(cfg, log)
	return errors.Join(sounds, feeds, keyFiles(&cfg.Keys))
}
