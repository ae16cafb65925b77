package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/audit"
	"github.com/trunktap/trunktap/recorder/retention"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/store"
)

// RetentionConfig says how long recordings are kept.
type RetentionConfig struct {
	Policy retention.Policy
	Nodes  []string // whose recordings are deleted, besides this node's own

	// DeletionsMax is how many recordings one run deletes; the next one goes on. It
	// leaves time to stop what a wrong clock or a slip in the rules would delete.
	// 0: 10,000.
	DeletionsMax int
}

const (
	deletionsMax = 10_000
	expirePage   = 500 // rows that are looked at together
	// expireFailures in a row are not of single recordings: the run ends.
	expireFailures = 10
	// againAfter is when one is tried again that cannot be read, or whose lock tells no end.
	againAfter = 24 * time.Hour
	laterMax   = 100_000 // recordings of which that is remembered
)

// whyRetention is who deletes what need not be kept any more.
const whyRetention = "retention"

// ExpireQuery says what is to be deleted.
type ExpireQuery struct {
	// Stores has the names of those in which room is wanted: what may give way goes.
	// Nil: what is due goes, in all of them.
	Stores []string
	// Room tells, when the run begins, how much is enough in which stores; nil: there is
	// no such bound.
	Room func() []Room
	// DryRun deletes nothing. Each is told what would go, and since when; nil: nobody is.
	DryRun bool
	Each   func(m *recorder.Manifest, storeName string, due time.Time)
}

// Room is so much as is wanted on one disk.
type Room struct {
	Stores []string // that lie on it
	Bytes  int64
}

// ExpireReport is what a run has done.
type ExpireReport struct {
	At      time.Time `json:"at"`
	TookMS  int64     `json:"took_ms"`
	Room    bool      `json:"room,omitempty"` // it was run because a disk is low
	Deleted int       `json:"deleted"`
	Bytes   int64     `json:"bytes"` // of them

	// Recordings that are due and stay for now.
	Held       int  `json:"held"`       // they are under legal hold
	Busy       int  `json:"busy"`       // they are being read or changed
	Locked     int  `json:"locked"`     // the store keeps them from being deleted
	Unreadable int  `json:"unreadable"` // their account cannot be read: how long they are to be kept is not known
	Others     int  `json:"others"`     // they are other nodes', which delete them by their own rules
	Missing    int  `json:"missing"`    // the catalogue has them, and their store has not
	Failed     int  `json:"failed"`     // their store or the disk failed; what was begun goes on later
	More       bool `json:"more"`       // the bound of one run was reached
}

// expiring is one run of Expire.
type expiring struct {
	a   *Archive
	ctx context.Context
	q   ExpireQuery
	now time.Time
	low bool
	ExpireReport
	room   []Room          // what is still wanted, of q.Room
	last   error           // of Failed
	inARow int             // failures since the last one that succeeded
	gone   map[string]bool // that the catalogue has and no store; true: a log says that it was deleted
}

// errEnough ends a run.
var errEnough = errors.New("enough")

// Expire deletes the recordings of this node that need not be kept any more, the
// oldest first. The catalogue says which may be meant, their own authentic accounts
// how long they are kept: what cannot be read stays. The error tells what ended the
// run before its time; the report holds what was done until then.
func (a *Archive) Expire(ctx context.Context, q ExpireQuery) (ExpireReport, error) {
	x := &expiring{a: a, ctx: ctx, q: q, now: time.Now(), low: q.Stores != nil, gone: map[string]bool{}}
	x.At, x.Room = x.now.UTC().Round(0), x.low
	if !q.DryRun {
		a.expiring.Lock()
		defer a.expiring.Unlock()
		a.dropBallast()
		defer a.keepBallast()
	}
	err := x.run()
	if !q.DryRun && (err == nil || errors.Is(err, errEnough)) {
		x.last = errors.Join(x.last, x.forgetGone())
	}
	x.TookMS = time.Since(x.now).Milliseconds()
	if !q.DryRun {
		a.retained.note(x.ExpireReport, err == nil || errors.Is(err, errEnough))
	}
	if err == nil || errors.Is(err, errEnough) {
		err = x.last
	}
	if err != nil {
		return x.ExpireReport, fmt.Errorf("retention: %w", err)
	}
	return x.ExpireReport, nil
}

func (x *expiring) run() error {
	if x.a.cfg.ReadOnly && !x.q.DryRun {
		return errors.New("archive is read-only")
	}
	least, any := x.a.cfg.Retention.Policy.Least(x.low)
	if !any {
		return nil
	}
	if x.q.Room != nil { // while another run was waited for it may have been made
		if x.room = x.q.Room(); !wanting(x.room) {
			return nil
		}
	}
	c, err := x.a.catalogue.get(x.ctx)
	if err != nil {
		return err
	}
	// Nothing that begins later has ended by then. A row's time is its origin.
	q := recorder.Query{To: x.now.Add(-least).Add(time.Millisecond), Order: recorder.OrderOldest, Limit: expirePage}
	for {
		page, err := c.Find(x.ctx, q)
		if err != nil {
			return err
		}
		for i := range page.Rows {
			if err := x.row(&page.Rows[i]); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		q.Cursor = page.Next
	}
}

// wanting tells whether room is wanted anywhere still.
func wanting(rooms []Room) bool {
	return slices.ContainsFunc(rooms, func(r Room) bool { return r.Bytes > 0 })
}

// roomOf is what is wanted where a store lies; nil: nothing.
func (x *expiring) roomOf(storeName string) *Room {
	for i := range x.room {
		if r := &x.room[i]; r.Bytes > 0 && slices.Contains(r.Stores, storeName) {
			return r
		}
	}
	return nil
}

// own tells whether a node's recordings are deleted here.
func (x *expiring) own(node string) bool {
	return node == x.a.cfg.Node || slices.Contains(x.a.cfg.Retention.Nodes, node)
}

// row deletes what a row of the catalogue is about, if it is due.
func (x *expiring) row(r *recorder.Row) error {
	if err := x.ctx.Err(); err != nil {
		return err
	}
	if x.low && !slices.Contains(x.q.Stores, r.Store) || r.Spooled || x.q.Room != nil && x.roomOf(r.Store) == nil {
		return nil
	}
	if _, ok := x.due(&r.Manifest, r.Store); !ok {
		return nil
	}
	if !x.own(r.Node) {
		x.Others++
		return nil
	}
	if l, ok := x.a.retained.postponed(r.Manifest.ID, x.now); ok && l.unreadable {
		x.Unreadable++
		return nil
	} else if ok {
		x.Locked++
		return nil
	}
	s, err := x.a.shelf(r.Store)
	if err != nil {
		return nil //nolint:nilerr // a store that is configured no more is not ours to clear
	}
	p := place{s, r.Prefix}
	if err := x.a.checkName(r.Manifest.ID, r.Prefix); err != nil {
		return x.failed(r.Manifest.ID, errors.Join(recorder.ErrTampered, err)) // the catalogue is
	}
	m, err := x.account(p)
	if err != nil {
		return x.failed(r.Manifest.ID, err)
	}
	if m == nil {
		x.Others++
		return nil
	}
	due, ok := x.due(m, p.name)
	if !ok {
		return nil
	}
	if x.q.DryRun {
		if err := x.a.mayGo(x.ctx, p); err != nil {
			return x.failed(r.Manifest.ID, err)
		}
		if x.q.Each != nil {
			x.q.Each(m, p.name, due)
		}
		return x.count(r, m)
	}
	return x.delete(p, r, m, due)
}

// failed counts what stays, or cannot be read or deleted, and ends the run when that is not
// of one recording alone.
func (x *expiring) failed(id string, err error) error {
	var locked *store.LockedError
	var held *heldError
	switch {
	case errors.As(err, &held):
		x.Held++
		return nil
	case errors.Is(err, errBusy):
		x.Busy++
		return nil
	case errors.As(err, &locked):
		x.Locked++
		x.a.retained.postpone(id, later{until: locked.Until}, x.now)
		return nil
	case errors.Is(err, recorder.ErrNotFound):
		x.Missing++
		if len(x.gone) < laterMax {
			x.gone[id] = false
		}
		return nil
	case unreadable(err):
		x.Unreadable++
		x.a.retained.postpone(id, later{unreadable: true}, x.now)
		return nil
	case errors.Is(err, recorder.ErrKeyUnreachable), errors.Is(err, audit.ErrUnavailable), x.ctx.Err() != nil:
		return err // whatever comes next meets it as well
	}
	x.Failed++
	x.last = err
	if x.inARow++; x.inARow >= expireFailures {
		return err
	}
	return nil
}

// unreadable tells whether how long a recording is to be kept cannot be told, now or later.
func unreadable(err error) bool {
	return errors.Is(err, recorder.ErrTampered) || errors.Is(err, segment.ErrKeyFile) || errors.Is(err, recorder.ErrKey) && !errors.Is(err, recorder.ErrKeyUnreachable)
}

// forgetGone takes recordings out of the catalogue whose deletion this node's log has: a
// rebuild on another node that had read their manifest before has put them back.
func (x *expiring) forgetGone() error {
	log := x.a.proof.log.Load()
	if log == nil || len(x.gone) == 0 {
		return nil
	}
	if err := deletedIn(x.ctx, log.Dir(), x.gone); err != nil {
		return err
	}
	c, err := x.a.catalogue.get(x.ctx)
	if err != nil {
		return err
	}
	for id, deleted := range x.gone {
		if !deleted {
			continue
		}
		if err := c.Delete(x.ctx, id); err != nil && !errors.Is(err, recorder.ErrNotFound) {
			return err
		}
		x.Missing--
	}
	return nil
}

// deletedIn marks those recordings that the logs on a node's own disk say were deleted.
func deletedIn(ctx context.Context, d audit.Dir, ids map[string]bool) error {
	epochs, err := d.Epochs()
	if err != nil {
		return err
	}
	for _, epoch := range epochs {
		err := d.Epoch(epoch).Each(ctx, 0, func(line []byte) error {
			if !bytes.Contains(line, []byte(audit.KindDeleted)) {
				return nil
			}
			e, err := audit.ParseEntry(line)
			if _, asked := ids[e.Recording]; asked && err == nil && e.Kind == audit.KindDeleted && e.Done() {
				ids[e.Recording] = true
			}
			return nil
		}, func([]byte) error { return nil })
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *expiring) due(m *recorder.Manifest, storeName string) (time.Time, bool) {
	return x.a.cfg.Retention.Policy.Due(m, storeName, x.low, x.now)
}

// account reads the account of a recording that the store has; nil: it is another
// node's, as its link tells.
func (x *expiring) account(p place) (*recorder.Manifest, error) {
	m, node, err := x.a.known(x.ctx, p.id(), p)
	if err != nil || node != "" && !x.own(node) {
		return nil, err
	}
	return m, nil
}

// nodeOf is linkedBy by the name that rows have of it.
func (a *Archive) nodeOf(link []byte) string {
	node := linkedBy(link)
	if node == a.cfg.LogNode && a.cfg.Node != "" {
		return a.cfg.Node
	}
	return node
}

// linkedBy is the node that says it signed a link; empty: there is none.
func linkedBy(link []byte) string {
	if link == nil {
		return ""
	}
	text, err := audit.LinkText(link)
	if err != nil {
		return ""
	}
	l, err := audit.ParseLink(text)
	if err != nil {
		return ""
	}
	return l.Node
}

func (x *expiring) delete(p place, r *recorder.Row, m *recorder.Manifest, due time.Time) error {
	why := "it need not be kept since " + due.UTC().Format(time.RFC3339)
	if x.low {
		why = "a disk is low, and it may give way since " + due.UTC().Format(time.RFC3339)
	}
	err := x.a.delete(x.ctx, p, deleteOrder{
		Recording: m.ID, Prefix: p.prefix, Store: p.name, Why: why, By: whyRetention, Low: x.low, At: x.now.UTC().Round(0),
	})
	if err != nil {
		return x.failed(r.Manifest.ID, err)
	}
	return x.count(r, m)
}

// count counts one that was deleted, or would be.
func (x *expiring) count(r *recorder.Row, m *recorder.Manifest) error {
	x.inARow = 0
	x.Deleted++
	bytes := r.ManifestBytes + r.OtherBytes
	for _, s := range m.Segments { // by its own account: the catalogue's would let more go
		bytes += s.Bytes
	}
	x.Bytes += bytes
	if room := x.roomOf(r.Store); room != nil {
		room.Bytes -= bytes
		if !wanting(x.room) {
			return errEnough
		}
	}
	most := x.a.cfg.Retention.DeletionsMax
	if most <= 0 {
		most = deletionsMax
	}
	if x.Deleted >= most && !x.q.DryRun {
		x.More = true
		return errEnough
	}
	return nil
}
