package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

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
func (c *SQLite) Save(ctx context.Context, r recorder.Row) error {
	enc, err := encodeRow(r)
	if err != nil {
		return fmt.Errorf("catalogue: save: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return c.fail("save", err)
	}
	w := c.saver.join(enc)
	turn := time.NewTimer(callTimeout - busyWait)
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
func (c *SQLite) saveWaiting() {
	batch := c.saver.take()
	rows := make([]row, len(batch))
	for i, w := range batch {
		rows[i] = w.row
	}
	err := c.transact(func(tx *sql.Tx) error { return c.put(tx, rows) })
	for _, w := range batch {
		w.err = err
		close(w.done)
	}
}

// transact runs f in a transaction. Nothing in it waits longer than busyWait
// but for the disk, which nobody can call off.
func (c *SQLite) transact(f func(tx *sql.Tx) error) error {
	tx, err := c.db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	if err := f(tx.Tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// put inserts or replaces rows.
func (c *SQLite) put(tx *sql.Tx, rows []row) error {
	ctx := context.Background()
	stmt := tx.StmtContext(ctx, c.upsert)
	defer func() { _ = stmt.Close() }() // its transaction tells what failed
	for i := range rows {
		if _, err := stmt.ExecContext(ctx, rows[i].values()...); err != nil {
			return err
		}
	}
	return nil
}

// SaveAll saves many rows, some hundred in one transaction.
func (c *SQLite) SaveAll(ctx context.Context, rs []recorder.Row) error {
	for len(rs) > 0 {
		n := min(len(rs), saveBatchMax)
		batch := make([]row, n)
		for i, r := range rs[:n] {
			var err error
			if batch[i], err = encodeRow(r); err != nil {
				return fmt.Errorf("catalogue: save: %w", err)
			}
		}
		rs = rs[n:]
		if err := c.writing(ctx, "save", func(tx *sql.Tx) error { return c.put(tx, batch) }); err != nil {
			return err
		}
	}
	return nil
}

// columns of the table, in the order of row.values; user is a word of SQL.
var columns = strings.Fields(`id conversation kind "user" trunk sip_call_id other_sip_call_id from_uri to_uri direction origin_ns start_ns real_ms audio_ms prefix store spooled manifest`)

func (r *row) values() []any {
	return []any{
		r.ID, r.Conversation, r.Kind, r.User, r.Trunk, r.SIPCallID, r.OtherCallID, r.From, r.To, r.Direction, r.OriginNS, r.StartNS, r.RealMS, r.AudioMS,
		r.Prefix, r.Store, r.Spooled, r.Manifest,
	}
}

// upsertSQL inserts a row, or replaces every column but the id.
func upsertSQL() string {
	sets := make([]string, 0, len(columns))
	for _, col := range columns[1:] {
		sets = append(sets, fmt.Sprintf("%[1]s = EXCLUDED.%[1]s", col))
	}
	return fmt.Sprintf("INSERT INTO recordings (%s) VALUES (%s) ON CONFLICT (id) DO UPDATE SET %s",
		strings.Join(columns, ", "), "?"+strings.Repeat(", ?", len(columns)-1), strings.Join(sets, ", "))
}
