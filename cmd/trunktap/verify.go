package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder/api"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/evidence"
)

type verifyCmd struct {
	Config  string   `help:"Configuration file; an evidence bundle needs none." placeholder:"FILE" short:"c"`
	IDs     []string `arg:"" optional:"" name:"id" help:"Ids of recordings, or one evidence bundle (a .zip file); without any, all recordings."`
	From    moment   `help:"Recordings whose call began at or after this time."`
	To      moment   `help:"Recordings whose call began before this time."`
	Trunk   string   `help:"Recordings of this trunk."`
	FromID  string   `help:"Recordings from this id on." name:"from-id" placeholder:"ID"`
	ToID    string   `help:"Recordings up to this id." name:"to-id" placeholder:"ID"`
	Offline bool     `help:"Read the store itself, even when the daemon answers."`
	Key     string   `help:"Public key of the node (trunktap audit keys) that must have signed." placeholder:"KEY"`
	JSON    bool     `help:"Print the report as JSON." name:"json"`

	Checkpoint []string `help:"File with a checkpoint that was kept elsewhere (trunktap audit checkpoint, or the proof.txt of a bundle): the log must still be what it says. Reads the store itself; may be repeated." placeholder:"FILE" sep:"none"`
	Progress   bool     `help:"Show progress even when standard error is no terminal."`
}

const verifyIDsMax = 1000 // of one request to the daemon

// Run verifies recordings and names what does not fit.
func (c *verifyCmd) Run(e *env) (err error) {
	if len(c.IDs) > verifyIDsMax {
		return usagef("trunktap: verify: %d ids; allowed: at most %d, or none for all", len(c.IDs), verifyIDsMax)
	}
	if len(c.IDs) == 1 && strings.HasSuffix(c.IDs[0], ".zip") {
		return c.bundle(e)
	}
	src, err := c.source(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	q := api.VerifyQuery{IDs: c.IDs, From: c.From.Time, To: c.To.Time, Trunk: c.Trunk, FromID: c.FromID, ToID: c.ToID}
	p := newProgress(e.stderr, c.Progress)
	report, err := c.verify(e.ctx, src, q, func(done, total int64) { p.tell("verifying: %s recordings", of(done, total)) })
	p.done()
	if c.JSON {
		err = errors.Join(err, json.NewEncoder(e.stdout).Encode(report))
	} else {
		err = errors.Join(err, printReport(e, report))
	}
	if n := len(report.Findings) + report.Dropped; err == nil && n > 0 {
		if err = fmt.Errorf("%d findings", n); onlyKeys(report) {
			err = unreadError{fmt.Errorf("%w, all of them keys that are not at hand", err)}
		}
	}
	if err != nil {
		return fmt.Errorf("verify recordings: %w", err)
	}
	return nil
}

// source is the daemon or the store; without the daemon's keys, too.
func (c *verifyCmd) source(e *env) (source, error) {
	if c.Config == "" {
		return nil, usagef("trunktap: verify: --config FILE is missing; only an evidence bundle (a .zip file) is verified without")
	}
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return nil, err
	}
	if len(c.Checkpoint) > 0 && len(c.IDs) > 0 {
		return nil, usagef("trunktap: verify: --checkpoint is about the whole log: leave the ids out")
	}
	if c.Offline || len(c.Checkpoint) > 0 {
		return openLocal(e, cfg)
	}
	return openSource(e, cfg)
}

// bundle verifies an evidence bundle.
func (c *verifyCmd) bundle(e *env) (err error) {
	f, err := os.Open(c.IDs[0])
	if err != nil {
		return fmt.Errorf("verify bundle: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("verify bundle: %w", err)
	}
	r, err := evidence.Verify(e.ctx, f, info.Size(), c.Key)
	if err != nil {
		return err
	}
	if c.JSON {
		err = json.NewEncoder(e.stdout).Encode(r)
	} else {
		err = printBundle(e, r)
	}
	if err == nil && !r.OK() {
		err = fmt.Errorf("verify bundle: %d findings: it does not prove what it says", len(r.Findings))
	} else if err == nil && r.Unvouched > 0 {
		err = unreadError{errors.New("verify bundle: nothing is wrong with what is signed, and nobody signed for the file that is made for listening")}
	}
	return err
}

func printBundle(e *env, r evidence.Report) error {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s\n", clean(f.String()))
	}
	for _, f := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", clean(f.String()))
	}
	fmt.Fprintf(&b, "recording %s: %d segments, %d files, %d bytes: %d findings\n", clean(r.Recording), r.Segments, r.Files, r.Bytes, len(r.Findings))
	if r.Key != "" {
		fmt.Fprintf(&b, "signed by node %s with %s\nlink %d, entry %d of log %s", clean(r.Node), clean(r.Key), r.Link, r.Entry, clean(r.Log))
		if !r.Checkpoint.IsZero() {
			fmt.Fprintf(&b, ", in the checkpoint of %s", r.Checkpoint.Format(time.RFC3339))
		}
		b.WriteString("\n")
	}
	_, err := fmt.Fprint(e.stdout, b.String())
	return err
}

func printReport(e *env, r api.Report) error {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s\n", finding(f))
	}
	for _, f := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", finding(f))
	}
	if r.Dropped > 0 {
		fmt.Fprintf(&b, "and %d more\n", r.Dropped)
	}
	for _, line := range remediesOf(r.Findings) {
		fmt.Fprintf(&b, "%s\n", line)
	}
	for _, line := range keptHow(r) {
		fmt.Fprintf(&b, "%s\n", line)
	}
	fmt.Fprintf(&b, "%d recordings, %d segments, %d bytes verified: %d findings\n", r.Recordings, r.Segments, r.Bytes, len(r.Findings)+r.Dropped)
	_, err := fmt.Fprint(e.stdout, b.String())
	return err
}

// keptHow counts recordings that nobody reads as others.
func keptHow(r api.Report) (out []string) {
	for _, c := range []struct {
		n    int
		what string
	}{
		{r.Shredded, "shredded: their keys were destroyed on purpose"},
		{r.Unsealed, "unsealed: whoever can write the store can change them (keys.mode none)"},
		{r.Unopened.Revoked, "not opened, their key is revoked: " + remedies[archive.FaultRevoked]},
		{r.Unopened.Unreachable, "not opened, their key service does not answer: " + remedies[archive.FaultNoService]},
		{r.Unopened.Missing, "not opened, their key is not at hand: " + remedies[archive.FaultKey]},
	} {
		if c.n > 0 {
			out = append(out, fmt.Sprintf("%d recordings are %s", c.n, c.what))
		}
	}
	return out
}

// onlyKeys tells whether nothing was found but keys that are not at hand.
func onlyKeys(r api.Report) bool {
	for _, f := range r.Findings {
		if f.Fault != archive.FaultKey && f.Fault != archive.FaultRevoked && f.Fault != archive.FaultNoService {
			return false
		}
	}
	return r.Dropped == 0
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

// remedies say what to do about a fault.
var remedies = map[string]string{
	archive.FaultMissing:    "put the object back from a copy of the store; what is gone without a word in the audit log was removed by somebody else than the recorder",
	archive.FaultAltered:    "put the object back from a copy of the store; what is left of it plays with silence where it is damaged",
	archive.FaultTruncated:  "put the object back from a copy of the store",
	archive.FaultReordered:  "put the object back from a copy of the store",
	archive.FaultOrphan:     "look what it is; remove it when nobody misses it",
	archive.FaultNoRow:      "stop the daemon and run trunktap rebuild",
	archive.FaultNoObject:   "put it back from a copy of the store, or run trunktap rebuild",
	archive.FaultPosition:   "keep the store as it is and say so to the makers: authentic audio contradicts its authentic manifest",
	archive.FaultTotals:     "keep the store as it is and say so to the makers: the authentic manifest contradicts itself",
	archive.FaultUnreadable: "make the store, the catalogue or the disk answer, then verify again",
	archive.FaultKey:        "make the key available, then verify again",
	archive.FaultKeyLost:    "put recording.key back from a copy of the store; without it nobody can read the recording. Shredding leaves a file in its place: this was not done by the recorder",
	archive.FaultRevoked:    "enable the key again at its service, or allow this machine to use it, then verify again",
	archive.FaultNoService:  "see that the key service runs and can be reached, then verify again",
	archive.FaultSignature:  "compare the public keys with those that you noted (trunktap audit keys); somebody may have put his own in their place",
	archive.FaultUnsigned:   "put its manifest back from a copy of the store",
	archive.FaultUndone:     "shred it again, and take its recording.key out of the backup that it came from",
	archive.FaultRolledBack: "put the newer manifest back from a copy of the store",
	audit.FaultChain:        "put the log back from a copy of the store; somebody may have made up entries",
	audit.FaultFork:         "the disk of the node was put back to an older state: keep both logs and start the node with a fresh audit.dir",
}

// remediesOf says what to do about the faults that were found.
func remediesOf(findings []api.Finding) (out []string) {
	seen := map[string]bool{}
	for _, f := range findings {
		if r := remedies[f.Fault]; r != "" && !seen[f.Fault] {
			seen[f.Fault] = true
			out = append(out, "remedy: "+f.Fault+": "+r)
		}
	}
	return out
}
