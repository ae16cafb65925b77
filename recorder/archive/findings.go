package archive

import (
	"errors"
	"fmt"
	"strings"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
)

// Faults that Findings name.
const (
	FaultMissing    = "missing"         // an object that the manifest names is not there
	FaultAltered    = "altered"         // content differs from what was sealed
	FaultTruncated  = "truncated"       // the end is missing
	FaultReordered  = "reordered"       // frames stand in another order than they were sealed in
	FaultPosition   = "position"        // authentic audio contradicts the manifest about its place
	FaultTotals     = "totals"          // the manifest contradicts itself
	FaultOrphan     = "orphan"          // an object that no manifest names
	FaultNoObject   = "no-object"       // the catalogue has a recording that the store has not
	FaultNoRow      = "no-row"          // the store has a recording that the catalogue has not
	FaultKey        = "key"             // its key is not at hand
	FaultKeyLost    = "key-lost"        // the file with its wrapped key is gone: nobody can read it
	FaultRevoked    = "key-revoked"     // the key service says that its key may not be used
	FaultNoService  = "key-unreachable" // the key service does not answer
	FaultUnreadable = "unreadable"      // the store or the catalogue failed

	FaultSignature  = "signature"   // a signature does not fit, or its key is not known
	FaultUnsigned   = "unsigned"    // a manifest has no link
	FaultRolledBack = "rolled-back" // an older manifest stands in the place of a newer one
	FaultNoLog      = "no-log"      // the log that a link is in is not at hand
	FaultSealed     = "sealed"      // without its key only stored bytes were checked
	FaultShredded   = "shredded"    // its key was destroyed on purpose
	FaultDeleted    = "deleted"     // it was deleted on purpose, as the log says
	FaultUndone     = "undone"      // it was shredded, and its key is there again
)

// Finding is one thing that is wrong with a recording.
type Finding struct {
	Recording string `json:"recording,omitempty"`
	File      string `json:"file,omitempty"`
	Fault     string `json:"fault"`
	Detail    string `json:"detail"`
}

// String returns the finding as a line of text.
func (f Finding) String() string {
	s := f.Fault + ": " + f.Detail
	if f.File != "" {
		s = f.File + ": " + s
	}
	if f.Recording != "" {
		s = f.Recording + ": " + s
	}
	return s
}

// Unopened counts recordings by why their keys are not at hand.
type Unopened struct{ Revoked, Unreachable, Missing int }

func (u *Unopened) count(err error) {
	switch {
	case errors.Is(err, errKeyLost): // which is found
	case errors.Is(err, recorder.ErrKeyRevoked):
		u.Revoked++
	case errors.Is(err, recorder.ErrKeyUnreachable):
		u.Unreachable++
	case errors.Is(err, recorder.ErrKey):
		u.Missing++
	}
}

// DamageError says that something was done as far as it could be done.
// recorder.ErrTampered is in its chain.
type DamageError struct {
	Findings []Finding
	Dropped  int // that were not kept beside them
}

// Error implements error.
func (e *DamageError) Error() string {
	const shown = 5
	var lines []string
	for _, f := range e.Findings[:min(len(e.Findings), shown)] {
		lines = append(lines, f.String())
	}
	if more := len(e.Findings) + e.Dropped - len(lines); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return "damaged: " + strings.Join(lines, "; ")
}

// Unwrap returns recorder.ErrTampered.
func (e *DamageError) Unwrap() error { return recorder.ErrTampered }

// findingsMax bounds the findings of one task; more are only counted.
const findingsMax = 10_000

// findings collects; what is found twice counts once.
type findings struct {
	list    []Finding
	seen    map[Finding]bool
	dropped int
}

func (fs *findings) add(f Finding) {
	if fs.seen[f] {
		return
	}
	if fs.seen == nil {
		fs.seen = map[Finding]bool{}
	}
	if len(fs.list) >= findingsMax {
		fs.dropped++
		return
	}
	fs.seen[f] = true
	fs.list = append(fs.list, f)
}

func (fs *findings) addf(recording, file, fault, format string, args ...any) {
	fs.add(Finding{recording, file, fault, fmt.Sprintf(format, args...)})
}

func (fs *findings) addErr(recording, file string, err error) {
	fs.add(Finding{recording, file, faultOf(err), err.Error()})
}

// faultOf classifies an error.
func faultOf(err error) string {
	var bad *segment.FrameError
	switch {
	case errors.As(err, &bad):
		return string(bad.Fault)
	case errors.Is(err, recorder.ErrNotFound):
		return FaultMissing
	case errors.Is(err, errKeyLost):
		return FaultKeyLost
	case errors.Is(err, recorder.ErrKeyRevoked):
		return FaultRevoked
	case errors.Is(err, recorder.ErrKeyUnreachable):
		return FaultNoService
	case errors.Is(err, recorder.ErrKey):
		return FaultKey
	case errors.Is(err, recorder.ErrTampered):
		return FaultAltered
	}
	return FaultUnreadable
}
