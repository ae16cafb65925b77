package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
)

// RewrapQuery says whose keys are wrapped anew.
type RewrapQuery struct {
	From, To  time.Time // origin of the recordings, as in recorder.Query; zero: all
	PerSecond int       // recordings at most; 0: 200

	// Behind goes on behind a recording and So with the report up to it, by what At was
	// told in a run before: the recordings of the spool are looked at all the same. At
	// is called after each recording of a store, with a report that leaves those of
	// the spool out; nil: nobody listens.
	Behind string
	So     RewrapReport
	At     func(mark string, r RewrapReport)
}

// mark is where a run is, in the order in which Rewrap takes recordings.
func (p place) mark() string { return p.name + "\x00" + p.object(segment.ManifestFile) }

// RewrapReport is the result of Rewrap.
type RewrapReport struct {
	Recordings int       `json:"recordings"` // looked at
	Rewrapped  int       `json:"rewrapped"`
	Current    int       `json:"current"`        // wrapped by the active key before
	Live       int       `json:"live,omitempty"` // that go on, or are only in the spool of a crash: their keys are left as they are
	Shredded   int       `json:"shredded,omitempty"`
	Active     string    `json:"active"`   // stored name of the active key
	Findings   []Finding `json:"findings"` // never nil; of recordings that stay as they are
	Dropped    int       `json:"dropped,omitempty"`
}

const rewrapPerSecond = 200

// rewrapper is a Sealer that can wrap a data key anew.
type rewrapper interface {
	Rewrap(ctx context.Context, recording string, w recorder.WrappedKey) (recorder.WrappedKey, error)
	ActiveKey(ctx context.Context) (string, error)
}

// errNoRewrap says that the keys are not of a kind that can be wrapped anew.
var errNoRewrap = errors.New("the keys cannot be wrapped anew")

// Rewrap wraps the data keys of recordings with the active key-encryption key.
// Audio is not touched: of each recording one small object is replaced in one
// step. It may be ended anywhere and run again, beside readers and recordings;
// what is wrapped by the active key already costs a look.
func (a *Archive) Rewrap(ctx context.Context, q RewrapQuery, progress Progress) (RewrapReport, error) {
	r := q.So
	r.Findings = []Finding{}
	s, ok := a.sealer.(rewrapper)
	if !ok || a.cfg.ReadOnly {
		return r, errNoRewrap
	}
	var err error
	if r.Active, err = s.ActiveKey(ctx); err != nil {
		return r, fmt.Errorf("rewrap: %w", err)
	}
	var spooled RewrapReport
	var bad, badSpooled findings
	for _, f := range q.So.Findings {
		bad.add(f)
	}
	bad.dropped += q.So.Dropped
	total := int64(r.Recordings) + a.rewrapTotal(ctx, q)
	per := time.Second / time.Duration(cmpOr(q.PerSecond, rewrapPerSecond))
	err = a.eachManifest(ctx, func(p place) error {
		if !q.takes(a, p) {
			return ctx.Err()
		}
		began, into, found := time.Now(), &r, &bad
		if a.isSpooled(p.id()) {
			into, found = &spooled, &badSpooled
		}
		into.Recordings++
		if err := a.rewrapOne(ctx, s, p, into); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if stopsAll(err) {
				return fmt.Errorf("recording %s: %w", p.id(), err)
			}
			found.addErr(p.id(), segment.KeyFile, err)
		}
		done := int64(r.Recordings + spooled.Recordings)
		progress.tell(done, max(total, done))
		if q.At != nil && into == &r {
			r.Findings, r.Dropped = bad.list, bad.dropped
			q.At(p.mark(), r)
		}
		return pause(ctx, per-time.Since(began))
	})
	r.add(spooled)
	r.Findings = slices.Concat([]Finding{}, bad.list, badSpooled.list)
	r.Dropped = bad.dropped + badSpooled.dropped
	if err != nil {
		return r, fmt.Errorf("rewrap: %w", err)
	}
	return r, nil
}

// add takes the counts of another report in.
func (r *RewrapReport) add(o RewrapReport) {
	r.Recordings += o.Recordings
	r.Rewrapped += o.Rewrapped
	r.Current += o.Current
	r.Live += o.Live
	r.Shredded += o.Shredded
}

// rewrapTotal tells how many recordings a run will look at, by the account of the
// catalogue: no store is listed for it. A day that was begun counts whole; 0 when the
// catalogue cannot be asked.
func (a *Archive) rewrapTotal(ctx context.Context, q RewrapQuery) (n int64) {
	days, err := a.Usage(ctx, recorder.UsageQuery{Group: []string{"store", "day"}})
	if err != nil {
		return 0
	}
	for _, u := range days {
		s, err := a.shelf(u.Store)
		if err != nil {
			continue
		}
		p := place{s, strings.ReplaceAll(u.Day, "-", "/") + "/\uffff"} // behind all of the day
		if q.has(p) && (q.Behind == "" || p.mark() > q.Behind) {
			n += u.Recordings
		}
	}
	return n
}

// takes tells whether a run takes a recording.
func (q RewrapQuery) takes(a *Archive, p place) bool {
	return q.has(p) && (q.Behind == "" || p.mark() > q.Behind || a.isSpooled(p.id()))
}

// has tells by its folder whether a recording may be of the range: whole days.
func (q RewrapQuery) has(p place) bool {
	day, err := time.Parse("2006/01/02", dayIn(p.prefix))
	if err != nil {
		return q.From.IsZero() && q.To.IsZero()
	}
	return (q.From.IsZero() || day.Add(24*time.Hour).After(q.From)) && (q.To.IsZero() || day.Before(q.To))
}

func dayIn(prefix string) string {
	const day = len("2006/01/02")
	return prefix[:min(day, len(prefix))]
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// stopsAll tells whether an error will meet all recordings.
func stopsAll(err error) bool {
	return errors.Is(err, recorder.ErrKey) && !errors.Is(err, errKeyLost)
}

// rewrapOne wraps the key of one recording anew.
func (a *Archive) rewrapOne(ctx context.Context, s rewrapper, p place, r *RewrapReport) error {
	id := p.id()
	if a.isLive(id) {
		r.Live++
		return nil
	}
	defer a.lockKey(id)()
	rec, err := a.keyRecord(ctx, p)
	switch {
	case err != nil:
		return err
	case rec.Shredded != nil:
		r.Shredded++
		return nil
	}
	w, err := s.Rewrap(ctx, id, rec.Key)
	if err != nil {
		return err
	}
	if w.KEK == rec.Key.KEK && w.Form == rec.Key.Form && bytes.Equal(w.Bytes, rec.Key.Bytes) {
		r.Current++
		return nil
	}
	rec.Key, rec.Wrapped = w, time.Now().UTC()
	if err := a.replaceKeyRecord(ctx, p, rec); err != nil {
		return err
	}
	r.Rewrapped++
	a.rewrapped.Add(1)
	return nil
}

// Rewrapped tells how many recordings were wrapped anew since the archive was opened.
func (a *Archive) Rewrapped() int64 { return a.rewrapped.Load() }

// ShreddedHere tells how many were shredded since then.
func (a *Archive) ShreddedHere() int64 { return a.shredded.Load() }

// replaceKeyRecord is putKeyRecord, behind which the catalogue knows what is stored:
// now, or by CatchUp should it fail or the machine die. Its lock is held.
func (a *Archive) replaceKeyRecord(ctx context.Context, p place, rec segment.KeyRecord) error {
	if err := a.noteRow(p.id(), p.prefix, p.name); err != nil {
		return err
	}
	if err := a.putKeyRecord(ctx, p, rec); err != nil {
		return err
	}
	_ = a.saveAgain(ctx, p) // else CatchUp does
	return nil
}

// keyRecord returns what the file with a recording's key says, or would say of a
// recording of version 1.
func (a *Archive) keyRecord(ctx context.Context, p place) (segment.KeyRecord, error) {
	rec, err := a.keys(p).record(ctx, p.id())
	if !errors.Is(err, recorder.ErrNotFound) {
		return rec, err
	}
	b, err := a.open(ctx, p, segment.ManifestFile)
	if err != nil {
		return rec, err
	}
	defer func() { _ = b.Close() }() // only read
	_, head, err := segment.OpenManifest(ctx, b, a.sealer)
	switch {
	case err != nil && head.Key.IsZero():
		return rec, errKeyLost
	case err != nil:
		return rec, err
	}
	now := time.Now().UTC()
	return segment.KeyRecord{Recording: p.id(), Prefix: p.prefix, Key: head.Key, Created: now, Wrapped: now}, nil
}

// putKeyRecord replaces the file with a recording's key. Its lock is held.
func (a *Archive) putKeyRecord(ctx context.Context, p place, rec segment.KeyRecord) error {
	rec, err := a.signTombstone(ctx, p, rec)
	if err != nil {
		return err
	}
	content, err := rec.Encode()
	if err != nil {
		return err
	}
	return a.storeOf(p).Put(ctx, p.object(segment.KeyFile), content)
}
