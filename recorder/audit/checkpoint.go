package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is what a node says its log is at a time (C2SP tlog-checkpoint).
type Checkpoint struct {
	Node  string
	Epoch string // which log of the node
	Size  int64  // entries
	Root  tlog.Hash
	At    time.Time
}

// Name returns node/epoch.
func (c Checkpoint) Name() string { return c.Node + "/" + c.Epoch }

const originHead = "trunktap/"

func (c Checkpoint) text() string {
	return fmt.Sprintf("%s%s/%s\n%d\n%s\nat: %s\n", originHead, c.Node, c.Epoch, c.Size, c.Root, c.At.Format(time.RFC3339Nano))
}

// checkpointBytesMax bounds a signed checkpoint.
const checkpointBytesMax = 1024

func parseCheckpoint(text string) (c Checkpoint, err error) {
	lines := strings.Split(text, "\n")
	bad := errors.New("it is not in its form")
	if len(lines) != 5 || !strings.HasPrefix(lines[0], originHead) {
		return c, bad
	}
	node, epoch, ok := strings.Cut(lines[0][len(originHead):], "/")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || !ok || size < 0 {
		return c, bad
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return c, bad
	}
	c = Checkpoint{Node: node, Epoch: epoch, Size: size, Root: tlog.Hash(root)}
	if c.At, err = time.Parse(time.RFC3339Nano, strings.TrimPrefix(lines[3], "at: ")); err != nil || c.text() != text {
		return c, bad
	}
	return c, nil
}

// OpenCheckpoint checks and reads a signed checkpoint. ErrSignature.
func (r *Ring) OpenCheckpoint(signed []byte) (Checkpoint, error) {
	if len(signed) > checkpointBytesMax {
		return Checkpoint{}, fmt.Errorf("checkpoint of %d bytes: at most %d", len(signed), checkpointBytesMax)
	}
	text, _, _, err := r.Open(signed)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	c, err := parseCheckpoint(text)
	if err == nil && c.Node != r.Node {
		err = fmt.Errorf("it is that of node %s", c.Node)
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	return c, nil
}

// OpenCheckpoint checks and reads a signed checkpoint of one of the nodes. ErrSignature.
func (rs Rings) OpenCheckpoint(signed []byte) (Checkpoint, error) {
	r := rs.Of(signed)
	if r == nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w: its key is not known", ErrSignature)
	}
	return r.OpenCheckpoint(signed)
}

// peekCheckpoint reads a checkpoint that was checked before, or will be.
func peekCheckpoint(signed []byte) (Checkpoint, error) {
	text, _, ok := strings.Cut(string(signed), "\n\n")
	if !ok {
		return Checkpoint{}, errors.New("checkpoint: it is no signed note")
	}
	return parseCheckpoint(text + "\n")
}

// Proof shows that an entry is in a log at a checkpoint.
type Proof struct {
	Index      int64
	Path       tlog.RecordProof
	Checkpoint []byte // signed
}

const proofHead = "c2sp.org/tlog-proof@v1\n"

// Text returns the proof in the form of C2SP tlog-proof.
func (p Proof) Text() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%sindex %d\n", proofHead, p.Index)
	for _, h := range p.Path {
		b.WriteString(h.String() + "\n")
	}
	return []byte(b.String() + "\n" + string(p.Checkpoint))
}

// ParseProof reads a proof in the form that Text gives.
func ParseProof(text []byte) (p Proof, err error) {
	bad := errors.New("proof: it is not in its form")
	rest, ok := strings.CutPrefix(string(text), proofHead)
	head, checkpoint, split := strings.Cut(rest, "\n\n")
	if !ok || !split {
		return p, bad
	}
	lines := strings.Split(head, "\n")
	if p.Index, err = strconv.ParseInt(strings.TrimPrefix(lines[0], "index "), 10, 64); err != nil || p.Index < 0 || len(lines) > 65 {
		return p, bad
	}
	for _, line := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(h) != tlog.HashSize {
			return p, bad
		}
		p.Path = append(p.Path, tlog.Hash(h))
	}
	p.Checkpoint = []byte(checkpoint)
	if !bytes.Equal(p.Text(), text) {
		return p, bad
	}
	return p, nil
}

// Check tells whether line is the entry that the proof is about, at a
// checkpoint that the ring's node signed.
func (p Proof) Check(r *Ring, line []byte) (Checkpoint, error) {
	c, err := r.OpenCheckpoint(p.Checkpoint)
	if err != nil {
		return c, err
	}
	if err := tlog.CheckRecord(p.Path, c.Size, c.Root, p.Index, tlog.RecordHash(line)); err != nil {
		return c, fmt.Errorf("proof: entry %d is not in the log that the checkpoint is of", p.Index)
	}
	return c, nil
}
