package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/audit"
)

type auditCheckpointCmd struct{ configFlag }

// Run prints the last signed checkpoint: kept where the owner of the node cannot
// reach, it shows years later that the log was not exchanged.
func (c *auditCheckpointCmd) Run(e *env) (err error) {
	src, err := c.source(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	page, err := src.entries(e.ctx, api.AuditQuery{After: -1, Limit: 1})
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	if page.Checkpoint == "" {
		return errors.New("the log has no checkpoint yet: the daemon makes one each audit.checkpoint")
	}
	_, err = fmt.Fprint(e.stdout, page.Checkpoint)
	return err
}

// checkpointFileBytesMax bounds a file that a checkpoint was kept in.
const checkpointFileBytesMax = 64 << 10

// readCheckpoints reads files with checkpoints: as audit checkpoint prints them, or
// the proof.txt of an evidence bundle.
func readCheckpoints(files []string) (out [][]byte, err error) {
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read checkpoint: %w", err)
		}
		b, err := io.ReadAll(io.LimitReader(f, checkpointFileBytesMax+1))
		_ = f.Close() // only read
		if err != nil {
			return nil, fmt.Errorf("read checkpoint: %w", err)
		}
		if p, perr := audit.ParseProof(b); perr == nil {
			b = p.Checkpoint
		}
		if len(b) > checkpointFileBytesMax || !bytes.Contains(b, []byte("\n\n")) {
			return nil, fmt.Errorf("read checkpoint: %s is neither what trunktap audit checkpoint prints nor the proof.txt of a bundle", name)
		}
		out = append(out, b)
	}
	return out, nil
}

// verify verifies by the daemon, or against checkpoints that were kept: these the
// daemon is not asked about.
func (c *verifyCmd) verify(ctx context.Context, src source, q api.VerifyQuery, progress func(done, total int64)) (api.Report, error) {
	l, ok := src.(local)
	if len(c.Checkpoint) == 0 || !ok {
		return src.verify(ctx, q, c.Key, progress)
	}
	kept, err := readCheckpoints(c.Checkpoint)
	if err != nil {
		return api.Report{}, err
	}
	proof := proofQuery(l.cfg)
	proof.Pin, proof.Kept = c.Key, kept
	return l.verifyWith(ctx, q, proof, progress)
}
