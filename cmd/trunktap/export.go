package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/trunktap/trunktap/recorder/api"
)

type exportCmd struct {
	configFlag
	ID       string `arg:"" help:"Id of the recording."`
	Format   string `help:"Format of the file (wav-pcm16, wav-pcmu, wav-pcma, ogg-opus, flac, mp3); without it, the recording's own." enum:",wav-pcm16,wav-pcmu,wav-pcma,ogg-opus,flac,mp3" default:""`
	Bundle   bool   `help:"Write an evidence bundle (ZIP): audio, manifest, proof and public keys, which trunktap verify FILE checks."`
	Entries  bool   `help:"With --bundle: with the entries of the audit log that name the recording."`
	Output   string `help:"The file to write; - is standard output." short:"o" placeholder:"FILE" required:""`
	Progress bool   `help:"Show progress even when standard error is no terminal."`
}

// Run writes the audio of a recording.
func (c *exportCmd) Run(e *env) (err error) {
	src, err := c.source(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	if c.Bundle {
		return c.bundle(e, src)
	}
	r, size, err := src.media(e.ctx, c.ID, c.Format)
	if err != nil {
		return fmt.Errorf("export recording %s: %w", c.ID, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	p := newProgress(e.stderr, c.Progress)
	defer p.done()
	in := &counted{r: r, size: size, tell: func(n, size int64) { p.tell("exporting: %s bytes", of(n, size)) }}
	write := func(w io.Writer) error {
		if _, err := io.Copy(w, in); err != nil {
			return err
		}
		if size >= 0 && in.n != size {
			return fmt.Errorf("%d bytes came of %d", in.n, size)
		}
		return nil
	}
	if c.Output == "-" {
		err = write(e.stdout)
	} else {
		err = writeFile(c.Output, write)
	}
	if err != nil {
		return fmt.Errorf("export recording %s: %w", c.ID, err)
	}
	p.done()
	return damage(e, src, c.ID, c.Progress, "silence in the file")
}

// bundle writes an evidence bundle.
func (c *exportCmd) bundle(e *env, src source) error {
	write := func(w io.Writer) error { return src.bundle(e.ctx, c.ID, c.Entries, w) }
	var err error
	if c.Output == "-" {
		err = write(e.stdout)
	} else {
		err = writeFile(c.Output, write)
	}
	if err != nil {
		return fmt.Errorf("export recording %s: %w", c.ID, err)
	}
	return nil
}

// damage is an error when silence stands in a recording where audio is missing
// or altered; as says what became of it.
func damage(e *env, src source, id string, progress bool, as string) error {
	p := newProgress(e.stderr, progress)
	defer p.done()
	report, err := src.verify(e.ctx, api.VerifyQuery{IDs: []string{id}}, "", func(int64, int64) { p.tell("verifying") })
	if err != nil {
		return fmt.Errorf("verify recording %s: %w", id, err)
	}
	if len(report.Findings) == 0 {
		return nil
	}
	p.done()
	for _, f := range report.Findings {
		e.note("%s", finding(f))
	}
	return fmt.Errorf("recording %s is damaged: what is missing or altered is %s", id, as)
}
