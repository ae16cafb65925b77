package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/seal"
	"github.com/trunktap/trunktap/recorder/segment"
)

// VerifyQuery says what to verify.
type VerifyQuery struct {
	IDs []string // recordings; none: everything in store and catalogue

	// What follows selects among everything.
	From, To     time.Time // the call's start in [From, To); zero: no bound
	Trunk        string
	FromID, ToID string // ids in [FromID, ToID], by their bytes; empty: no bound

	Proof ProofQuery
}

// all tells whether nothing is left out.
func (q VerifyQuery) all() bool {
	return len(q.IDs) == 0 && q.From.IsZero() && q.To.IsZero() && q.Trunk == "" && q.FromID == "" && q.ToID == ""
}

// near tells whether what was published last at a time may be of the range.
func (q VerifyQuery) near(published time.Time) bool { return !published.Before(q.From) }

// began tells whether a recording that is gone is of the range, by the time in its
// id, or else by that of its publication.
func (q VerifyQuery) began(e audit.Entry) bool {
	at := e.At
	if stamp, _, ok := strings.Cut(e.Recording, "-"); ok {
		if t, err := time.Parse("20060102T150405Z", stamp); err == nil {
			at = t
		}
	}
	return !at.Before(q.From.Truncate(time.Second)) && (q.To.IsZero() || at.Before(q.To))
}

// skips tells whether a recording is beyond the range by its id or folder alone.
func (q VerifyQuery) skips(id, prefix string) bool {
	if id < q.FromID || q.ToID != "" && id > q.ToID {
		return true
	}
	day, err := time.Parse("2006/01/02", prefix[:min(len(prefix), 10)])
	if err != nil {
		return false
	}
	return !q.From.IsZero() && day.Before(q.From.Add(-48*time.Hour)) || !q.To.IsZero() && day.After(q.To.Add(24*time.Hour))
}

// has tells whether a recording is in the range.
func (q VerifyQuery) has(trunk string, start time.Time) bool {
	return (q.Trunk == "" || trunk == q.Trunk) && !start.Before(q.From) && (q.To.IsZero() || start.Before(q.To))
}

// Report is the result of Verify.
type Report struct {
	Recordings int       `json:"recordings"`
	Segments   int       `json:"segments"`
	Frames     int64     `json:"frames"`
	Bytes      int64     `json:"bytes"`
	Shredded   int       `json:"shredded,omitempty"` // whose key was destroyed on purpose
	Unsealed   int       `json:"unsealed,omitempty"` // whose key lies in the open: whoever can write the store can change them
	Unopened   Unopened  `json:"unopened"`           // of which no key was at hand
	Findings   []Finding `json:"findings"`           // never nil
	Notes      []Finding `json:"notes,omitempty"`    // worth knowing, and no damage
	Dropped    int       `json:"dropped,omitempty"`  // findings beyond the limit of 10,000
}

// OK tells whether nothing was found.
func (r Report) OK() bool { return len(r.Findings) == 0 }

// verification is one run of Verify.
type verification struct {
	a     *Archive
	ctx   context.Context
	query VerifyQuery
	led   ledger
	Report
	found       findings
	notes       findings
	stored      []audit.StoredLog
	unread      error           // logs in the store could not be read
	asked       bool            // the store was asked for the keys of other nodes
	keys        *keyring        // of the recording that is looked at
	ended       string          // how it ended; empty: it was not shredded
	keyLost     error           // errKeyLost of the recording that is looked at, until it is told
	down        map[string]bool // stores that cannot be read
	done, total int64
	progress    Progress
}

// Verify reads recordings whole and compares everything with everything: the
// manifest is authentic, every segment is there with its size and sum, every
// frame is authentic, in order and complete, and lies where the manifest says.
// Without ids it also names objects that no manifest tells of and recordings that
// only the catalogue knows, or does not. The error tells that it could not go
// on; the report holds what was found until then.
func (a *Archive) Verify(ctx context.Context, q VerifyQuery, progress Progress) (Report, error) {
	v := &verification{a: a, ctx: ctx, query: q, progress: progress, down: map[string]bool{}, led: newLedger()}
	var err error
	if len(q.IDs) > 0 {
		v.led.rings = a.rings(q.Proof, nil)
		v.pinned()
		err = v.some(q.IDs)
	} else if err = v.readLogs(q.Proof); err == nil {
		err = v.all()
	}
	v.Findings, v.Dropped, v.Notes = v.found.list, v.found.dropped, v.notes.list
	if v.Findings == nil {
		v.Findings = []Finding{}
	}
	if err != nil {
		return v.Report, fmt.Errorf("verify: %w", err)
	}
	return v.Report, nil
}

func (v *verification) some(ids []string) error {
	v.total = int64(len(ids))
	for _, id := range ids {
		p, err := v.a.locate(v.ctx, id)
		switch {
		case errors.Is(err, recorder.ErrNotFound):
			if err := v.gone(id, err); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			objects, err := v.a.objects(v.ctx, p)
			if err != nil {
				return err
			}
			if err := v.recording(id, p, objects); err != nil {
				return err
			}
		}
		v.tick()
	}
	return nil
}

func (v *verification) tick() {
	v.done++
	v.progress.tell(v.done, v.total)
}

// all goes through spool and stores folder by folder, then through the catalogue.
func (v *verification) all() error {
	v.total, _ = v.a.countManifests(v.ctx) // a store that cannot be listed is told below
	for _, p := range v.a.spooledPlaces() {
		v.led.mark(p.id(), markStored, true)
		names, err := v.a.objects(v.ctx, p)
		if err != nil {
			return err
		}
		if err := v.folder(p, names); err != nil {
			return err
		}
	}
	for _, s := range v.a.shelves {
		if err := v.shelf(s); err != nil {
			if v.ctx.Err() != nil {
				return err
			}
			v.down[s.name] = true
			v.found.addf("", "", FaultUnreadable, "%s: %v", storeName(s.name), err)
		}
	}
	if v.unread != nil && !v.down[""] {
		v.found.addf("", audit.StorePrefix, FaultUnreadable, "%v", v.unread)
	}
	if err := v.missing(v.query); err != nil || !v.query.all() {
		return err
	}
	return v.rows()
}

// shelf goes through one store, past what was verified in the spool.
func (v *verification) shelf(s *shelf) error {
	at := place{shelf: s}
	var names []string
	folder := func() error {
		if len(names) == 0 || v.led.has(at.id(), markStored) && v.a.isSpooled(at.id()) {
			return nil
		}
		v.led.mark(at.id(), markStored, slices.Contains(names, segment.ManifestFile))
		return v.folder(at, names)
	}
	err := s.store.List(v.ctx, "", func(i recorder.BlobInfo) error {
		if audit.Owned(i.Name) {
			return nil
		}
		if dir := path.Dir(i.Name); dir != at.prefix {
			if err := folder(); err != nil {
				return err
			}
			at.prefix, names = dir, names[:0]
		}
		if name := path.Base(i.Name); name != markerFile {
			names = append(names, name)
		}
		return nil
	})
	if err == nil {
		err = folder()
	}
	return err
}

// folder verifies what lies in one folder of the store.
func (v *verification) folder(p place, names []string) error {
	id := p.id()
	if v.query.skips(id, p.prefix) {
		v.led.seen(id)
		v.tick()
		return nil
	}
	if slices.Contains(names, segment.ManifestFile) {
		err := v.recording(id, p, slices.Clone(names))
		v.tick()
		return err
	}
	if v.beingTaken(id) {
		return nil
	}
	if v.leaving(id) {
		v.notes.addf(id, "", FaultDeleted, "it is being deleted: %d objects are left", len(names))
		return nil
	}
	left, err := v.a.objects(v.ctx, p) // what was deleted since it was listed is none
	if err != nil {
		return err
	}
	for _, n := range names {
		if slices.Contains(left, n) {
			v.found.addf(id, n, FaultOrphan, "%s has no manifest", p.prefix)
		}
	}
	return nil
}

// rows compares the catalogue with the store.
func (v *verification) rows() error {
	c, err := v.a.catalogue.get(v.ctx)
	if err == nil {
		err = eachRow(v.ctx, c, func(r recorder.Row) {
			id := r.Manifest.ID
			if !v.down[r.Store] && !v.led.has(id, markStored) && !v.there(r) && !v.beingTaken(id) && !v.leaving(id) {
				v.found.addf(id, "", FaultNoObject, "the catalogue has it in %s, the store has not", r.Prefix)
			}
			v.led.mark(id, markRow, true)
		})
	}
	if err == nil && v.led.rowless() {
		err = v.a.eachManifest(v.ctx, v.withoutRow) // their ids were not kept
		if len(v.down) > 0 && v.ctx.Err() == nil {
			err = nil // told
		}
	}
	if err != nil && v.ctx.Err() == nil {
		v.found.addf("", "", FaultUnreadable, "%v", err)
		return nil
	}
	return err
}

// there tells whether a recording is where the catalogue has it.
func (v *verification) there(r recorder.Row) bool {
	s, err := v.a.shelf(r.Store)
	return err == nil && v.a.has(v.ctx, place{s, r.Prefix})
}

func (v *verification) withoutRow(p place) error {
	id := p.id()
	if v.led.has(id, markRow) || !v.led.has(id, markStored) || v.beingTaken(id) {
		return nil
	}
	if _, err := v.a.fsys.Stat(v.a.spool(rowsDir, id+".json")); err == nil {
		return nil // the catalogue was down; its row follows
	}
	v.found.addf(id, "", FaultNoRow, "the store has it, the catalogue has not: rebuild the catalogue")
	return nil
}

// recording verifies one recording whose folder holds the named objects.
func (v *verification) recording(id string, p place, objects []string) error {
	defer v.a.pin(id)()
	v.Recordings++
	v.key(id, p)
	m, err := v.manifest(id, p, objects)
	if err != nil || m == nil {
		return err
	}
	if !v.query.has(m.Trunk, m.Call.Start) {
		v.Recordings--
		return nil
	}
	var files []string
	for _, s := range m.Segments {
		files = append(files, s.File)
		if err := v.segment(m, p, s); err != nil {
			return err
		}
	}
	v.besides(id, p, objects, files, "its manifest does not name it")
	v.totals(m)
	return nil
}

// key looks at the file with the recording's key.
func (v *verification) key(id string, p place) {
	v.keys, v.ended = v.a.keys(p), ""
	rec, err := v.keys.record(v.ctx, id)
	switch {
	case errors.Is(err, recorder.ErrNotFound): // of version 1; else the manifest does not open
	case err != nil:
		v.found.addErr(id, segment.KeyFile, err)
	case rec.Shredded != nil:
		v.Shredded++
		v.ended = v.tombstone(id, p, rec)
	case seal.Unsealed(rec.Key):
		v.Unsealed++
	}
}

// segment verifies one segment against its manifest.
func (v *verification) segment(m *recorder.Manifest, p place, s recorder.Segment) error {
	if err := v.ctx.Err(); err != nil {
		return err
	}
	v.Segments++
	b, err := v.a.open(v.ctx, p, s.File)
	if err != nil {
		v.found.addErr(m.ID, s.File, err)
		return nil
	}
	defer func() { _ = b.Close() }() // only read
	v.Bytes += b.Size()
	if b.Size() != s.Bytes {
		v.found.addf(m.ID, s.File, sizeFault(b.Size(), s.Bytes), "%d bytes, the manifest says %d", b.Size(), s.Bytes)
	}
	_, sum, err := segment.Sum(b)
	switch {
	case err != nil:
		v.found.addErr(m.ID, s.File, err)
	case sum != s.SHA256:
		v.found.addf(m.ID, s.File, FaultAltered, "SHA-256 is %s, the manifest says %s", sum, s.SHA256)
	}
	r, err := segment.Open(v.ctx, b, v.keys, segment.Want{Recording: m.ID, N: s.N})
	if err != nil {
		v.found.addErr(m.ID, s.File, err)
		return nil
	}
	defer r.Close()
	v.frames(m, s, r)
	return nil
}

// frames reads all frames of a segment.
func (v *verification) frames(m *recorder.Manifest, s recorder.Segment, r *segment.Reader) {
	h := r.Header()
	if h.RealMS != s.RealMS || h.AudioMS != s.AudioMS {
		v.found.addf(m.ID, s.File, FaultPosition, "begins at %d ms, audio %d ms, the manifest says %d and %d", h.RealMS, h.AudioMS, s.RealMS, s.AudioMS)
	}
	if f := formatOf(m, s); h.Format != f || h.SampleRate != m.SampleRate || h.Channels != len(m.Channels) {
		v.found.addf(m.ID, s.File, FaultPosition, "is %s with %d channels at %d Hz, the manifest says %s, %d, %d",
			h.Format, h.Channels, h.SampleRate, f, len(m.Channels), m.SampleRate)
	}
	at := positions{m: m, s: s, t: newTimeline(m), rate: int64(h.SampleRate), plain: sha256.New()}
	bad := 0
	for {
		a, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			// Behind the first fault others follow from it.
			if bad++; bad == 1 {
				v.found.addErr(m.ID, s.File, err)
			}
			if !r.More() {
				return
			}
			at.skip = true
			continue
		}
		v.Frames++
		_, _ = at.plain.Write(a.Data) // never fails
		if why := at.check(a); why != "" {
			v.found.addf(m.ID, s.File, FaultPosition, "%s", why)
			return
		}
	}
	if why := at.end(); why != "" {
		v.found.addf(m.ID, s.File, FaultPosition, "%s", why)
	}
	if sum := hex.EncodeToString(at.plain.Sum(nil)); bad == 0 && s.AudioSHA256 != "" && sum != s.AudioSHA256 {
		v.found.addf(m.ID, s.File, FaultAltered, "SHA-256 of its audio is %s, the manifest says %s", sum, s.AudioSHA256)
	}
}

// positions checks that the frames of a segment lie where the manifest says.
type positions struct {
	m    *recorder.Manifest
	s    recorder.Segment
	t    timeline
	rate int64 // Hz

	plain hash.Hash // of the audio
	endMS int64     // in the segment's audio, behind the last frame
	skip  bool      // frames before this one were bad: a leap is no news
}

// slackMS allows for the rounding of positions to whole milliseconds.
const slackMS = 2

func (p *positions) check(a recorder.Audio) string {
	audio := p.s.AudioMS + a.SegMS
	if d := a.AudioMS - audio; d > slackMS || d < -slackMS {
		return fmt.Sprintf("frame at %d ms of the audio stands at %d ms", a.AudioMS, audio)
	}
	if first, next := p.t.real(a.AudioMS); a.RealMS < first-slackMS || a.RealMS > next+slackMS {
		return fmt.Sprintf("frame at %d ms of the audio lies at %d ms, by the windows at %d", a.AudioMS, a.RealMS, next)
	}
	if !p.skip && a.SegMS > p.endMS+slackMS && !p.told(p.s.AudioMS+p.endMS, audio) {
		return fmt.Sprintf("nothing from %d to %d ms of the audio, and no gap tells of it", p.s.AudioMS+p.endMS, audio)
	}
	p.skip = false
	p.endMS = a.SegMS + int64(a.Samples)*1000/p.rate
	return ""
}

// end checks that the segment is as long as the manifest says.
func (p *positions) end() string {
	if p.skip || p.endMS+slackMS >= p.s.DurationMS && p.endMS <= p.s.DurationMS+slackMS || p.endMS < p.s.DurationMS && p.told(p.s.AudioMS+p.endMS, p.s.AudioMS+p.s.DurationMS) {
		return ""
	}
	return fmt.Sprintf("holds %d ms of audio, the manifest says %d", p.endMS, p.s.DurationMS)
}

// told tells whether gaps cover a stretch of audio, on all channels.
func (p *positions) told(from, to int64) bool {
	for ch := range p.m.Channels {
		at := from
		for _, g := range p.m.Gaps { // in order of position
			if g.Channel == ch && g.AudioMS <= at+slackMS {
				at = max(at, g.AudioMS+g.DurationMS)
			}
		}
		if at+slackMS < to {
			return false
		}
	}
	return true
}

// totals checks the manifest against itself: audio and windows are the real time.
func (v *verification) totals(m *recorder.Manifest) {
	cut := newTimeline(m).length(m.RealMS)
	if d := m.AudioMS + cut - m.RealMS; d > slackMS || d < -slackMS {
		v.found.addf(m.ID, "", FaultTotals, "%d ms of audio and %d ms of windows make %d ms, the manifest says %d", m.AudioMS, cut, m.AudioMS+cut, m.RealMS)
	}
	end := int64(0)
	for _, s := range m.Segments {
		if s.AudioMS+slackMS < end {
			v.found.addf(m.ID, s.File, FaultTotals, "begins at %d ms of the audio, before the end of the segment before it at %d", s.AudioMS, end)
		}
		end = s.AudioMS + s.DurationMS
	}
	if end > m.AudioMS+slackMS {
		v.found.addf(m.ID, "", FaultTotals, "segments reach to %d ms of the audio, the manifest says %d", end, m.AudioMS)
	}
}
