package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"github.com/trunktap/trunktap/recorder"
)

// saving is a row that a call of Save waits for.
type saving struct {
	row  row
	err  error         // valid once done is closed
	done chan struct{} // closed when the row is saved, or could not be
}

// saver lets calls of Save that come together share a transaction: whoever
// gets the turn to write takes along all that wait.
type saver struct {
	mu      sync.Mutex
	waiting []*saving // guarded by mu
}

func (s *saver) join(r row) *saving {
	w := &saving{row: r, done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, w)
	return w
}

// leave takes a row back; false when it is being saved.
func (s *saver) leave(w *saving) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiting, w)
	if i < 0 {
		return false
	}
	s.waiting = slices.Delete(s.waiting, i, i+1)
	return true
}

// take removes the first rows that wait, at most saveBatchMax.
func (s *saver) take() []*saving {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.waiting), saveBatchMax)
	batch := slices.Clone(s.waiting[:n])
	s.waiting = slices.Delete(s.waiting, 0, n)
	return batch
}

// Save implements recorder.Catalog.
func (c *Catalog) Save(ctx context.Context, r recorder.Row) error {
	enc, err := c.plan.encodeRow(&r)
	if err != nil {
		return fmt.Errorf("catalogue: save: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return c.fail("save", err)
	}
	w := c.saver.join(enc)
	turn := time.NewTimer(c.e.writeTimeout() - busyWait)
	defer turn.Stop()
	select {
	case <-w.done:
	case c.write <- struct{}{}:
		for !isClosed(w.done) {
			c.saveWaiting()
		}
		<-c.write
	case <-turn.C:
		err = context.DeadlineExceeded
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil && c.saver.leave(w) {
		return c.fail("save", err)
	}
	<-w.done // at once, or within busyWait and a transaction
	if w.err != nil {
		return c.fail("save", w.err)
	}
	return nil
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// saveWaiting saves what waits in one transaction. It is called by the one
// whose turn it is to write.
func (c *Catalog) saveWaiting() {
	batch := c.saver.take()
	rows := make([]row, len(batch))
	for i, w := range batch {
		rows[i] = w.row
	}
	err := c.transact(func(ctx context.Context, tx bun.Tx) error { return c.put(ctx, tx, rows) })
	for _, w := range batch {
		w.err = err
		close(w.done)
	}
}

// transact runs f in a transaction, whatever becomes of its caller, within the
// time that a write may take. SQLite waits no longer than busyWait but for the
// disk, which nobody can call off.
func (c *Catalog) transact(f func(ctx context.Context, tx bun.Tx) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.e.writeTimeout())
	defer cancel()
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(ctx, tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// SaveAll saves many rows, some hundred in one transaction.
func (c *Catalog) SaveAll(ctx context.Context, rs []recorder.Row) error {
	for len(rs) > 0 {
		n := min(len(rs), saveBatchMax)
		batch := make([]row, n)
		for i := range rs[:n] {
			var err error
			if batch[i], err = c.plan.encodeRow(&rs[i]); err != nil {
				return fmt.Errorf("catalogue: save: %w", err)
			}
		}
		rs = rs[n:]
		if err := c.writing(ctx, "save", func(ctx context.Context, tx bun.Tx) error { return c.put(ctx, tx, batch) }); err != nil {
			return err
		}
	}
	return nil
}

// put inserts or replaces rows. Each gets a key of its own, as near behind its
// origin as there is one.
func (c *Catalog) put(ctx context.Context, tx bun.Tx, rows []row) error {
	rows = lastOfEach(rows)
	sum := usageSums{}
	fresh, err := c.insert(ctx, tx, rows, sum)
	if err != nil {
		return err
	}
	ms := make([]manifestRow, len(fresh))
	for i, r := range fresh {
		ms[i] = manifestRow{Key: r.Key, Manifest: r.manifest}
		sum.add(r, 1)
	}
	if _, err := tx.NewInsert().Model(&ms).Exec(ctx); err != nil {
		return err
	}
	if err := c.e.saveTerms(ctx, tx, fresh); err != nil {
		return err
	}
	return sum.save(ctx, tx)
}

// lastOfEach drops rows that are replaced by later ones, and sorts: who locks
// several does so in one order.
func lastOfEach(rows []row) []row {
	last := map[string]int{}
	for i := range rows {
		last[rows[i].ID] = i
	}
	out := make([]row, 0, len(last))
	for i := range rows {
		if last[rows[i].ID] == i {
			out = append(out, rows[i])
		}
	}
	slices.SortFunc(out, func(a, b row) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.ID, b.ID)) })
	return out
}

const keyTriesMax = 2000 // recordings of one microsecond

var errCrowded = errors.New("too many recordings began in the same microsecond")

// insert writes rows in the place of those of their ids, and returns them with
// the keys that they got.
func (c *Catalog) insert(ctx context.Context, tx bun.Tx, rows []row, sum usageSums) ([]row, error) {
	done := make([]row, 0, len(rows))
	for range keyTriesMax {
		if len(rows) == 0 {
			return done, nil
		}
		// In the second round an id may be there that somebody else inserted meanwhile.
		old, err := c.take(ctx, tx, idsOf(rows), sum)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			if o, ok := old[rows[i].ID]; ok && o.OriginNS == rows[i].OriginNS {
				rows[i].Key = o.Key
			}
			rows[i].Terms.key = rows[i].Key
		}
		var in []string
		if err := tx.NewInsert().Model(&rows).On("CONFLICT DO NOTHING").Returning(recordings.ID.bare()).Scan(ctx, &in); err != nil {
			return nil, err
		}
		there := make(map[string]bool, len(in))
		for _, id := range in {
			there[id] = true
		}
		var left []row
		for _, r := range rows {
			if there[r.ID] {
				done = append(done, r)
				continue
			}
			r.Key++
			left = append(left, r)
		}
		rows = left
	}
	return nil, errCrowded
}

func idsOf(rows []row) []string {
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	slices.Sort(ids)
	return ids
}

// accounted is what take reads of a row: what tells it, and what is summed up of it.
var accounted = []named{
	recordings.Key, recordings.ID, recordings.OriginNS,
	recordings.Day, recordings.Trunk, recordings.User, recordings.Kind, recordings.Store, recordings.Node,
	recordings.AudioMS, recordings.Bytes, recordings.ManifestBytes, recordings.OtherBytes,
}

// take deletes rows and returns what they were accounted as, by id.
func (c *Catalog) take(ctx context.Context, tx bun.Tx, ids []string, sum usageSums) (map[string]row, error) {
	var old []row
	err := drop(tx, recordings.table, recordings.ID.unaliased().among(ids), accounted...).Scan(ctx, &old)
	if err != nil || len(old) == 0 {
		return nil, err
	}
	keys := make([]int64, len(old))
	byID := make(map[string]row, len(old))
	for i, r := range old {
		keys[i], byID[r.ID] = r.Key, r
		sum.add(r, -1)
	}
	if _, err := drop(tx, manifests.table, manifests.Key.unaliased().among(keys)).Exec(ctx); err != nil {
		return nil, err
	}
	return byID, c.e.dropTerms(ctx, tx, keys)
}
