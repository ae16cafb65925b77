package audit

import (
	"errors"

	"github.com/trunktap/trunktap/recorder"
)

// Results of entries about keys and shredding.
const (
	ResultBegun    = "begun" // the rest follows in another entry, or a crash came between
	ResultDone     = "done"
	ResultRepeat   = "repeat"  // it had been done before
	ResultWaits    = "waits"   // it was ordered and is done later
	ResultRefused  = "refused" // it may not be
	ResultNotFound = "not-found"
	ResultFailed   = "failed"
)

// ResultOf is how an entry spells what came of something.
func ResultOf(err error) string {
	var refused *recorder.RefusedError
	switch {
	case err == nil:
		return ResultDone
	case errors.As(err, &refused):
		return ResultRefused
	case errors.Is(err, recorder.ErrNotFound):
		return ResultNotFound
	}
	return ResultFailed
}

// Done tells whether what the entry tells of happened. Entries of versions before
// results had none and told of nothing else.
func (e *Entry) Done() bool { return e.Result == "" || e.Result == ResultDone }
