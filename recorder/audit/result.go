package audit

// Results of entries about keys and shredding.
const (
	ResultBegun   = "begun" // the rest follows in another entry, or a crash came between
	ResultDone    = "done"
	ResultRepeat  = "repeat"  // it had been done before
	ResultWaits   = "waits"   // it was ordered and is done later
	ResultRefused = "refused" // it may not be
	ResultFailed  = "failed"
)

// Done tells whether what the entry tells of happened. Entries of versions before
// results had none and told of nothing else.
func (e *Entry) Done() bool { return e.Result == "" || e.Result == ResultDone }
