// Package catalog finds recordings: one row each, in SQLite. What it holds can
// be rebuilt from the store.
package catalog

import (
	"context"
	"database/sql"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"modernc.org/sqlite"

	"github.com/trunktap/trunktap/recorder"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Limits.
const (
	busyWait      = time.Second     // how long SQLite waits for another process's lock; it cannot be called off
	callTimeout   = 2 * time.Second // how long a call may take to write, waiting for its turn included
	pageDefault   = 100
	pageMax       = 1000
	saveBatchMax  = 500 // rows in one transaction of SaveAll
	connsMax      = 4
	cursorMax     = 512 // bytes
	cursorVersion = "1"
)

// ErrCursor says that a cursor is not one that Find gave.
var ErrCursor = errors.New("cursor is not valid: take it from the page before, with the same order")

// Error says what the catalogue was doing when the database failed, and what
// to do about it. recorder.ErrNotFound is never wrapped in it.
type Error struct {
	Op   string
	Path string
	Hint string
	Err  error
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("catalogue %s: %s: %v (%s)", e.Path, e.Op, e.Err, e.Hint)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// SQLite is a catalogue in a file. It is safe for concurrent use, also by
// several processes.
type SQLite struct {
	path  string
	db    *bun.DB
	write chan struct{} // held by the one that writes: SQLite has one writer, and its own queue is a race of sleeps

	upsert *sql.Stmt
	saver  saver
}

var _ recorder.Catalog = (*SQLite)(nil)

// FileURL returns the file that a sqlite:// URL names.
func FileURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("catalogue url: %w", err)
	}
	if u.Scheme != "sqlite" || u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) || u.RawQuery != "" {
		return "", fmt.Errorf("catalogue url %q: want sqlite:///an/absolute/file", raw)
	}
	return filepath.Clean(u.Path), nil
}

// Open opens the catalogue at a path and brings its tables up to date. The file
// is made, mode 0600, when it does not exist.
func Open(ctx context.Context, path string) (*SQLite, error) {
	c := &SQLite{path: path, write: make(chan struct{}, 1)}
	if err := c.open(ctx); err != nil {
		return nil, c.fail("open", err)
	}
	return c, nil
}

func (c *SQLite) open(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		return err
	}
	// SQLite gives its own files the mode of the database's, so this sets all.
	f, err := os.OpenFile(c.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	q := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyWait.Milliseconds()), "journal_mode(WAL)", "synchronous(FULL)",
	}, "_txlock": {"immediate"}}
	dsn := "file:" + (&url.URL{Path: c.path}).EscapedPath() + "?" + q.Encode()
	conn, err := sqlite.NewConnector(dsn)
	if err != nil {
		return err
	}
	sqldb := sql.OpenDB(conn)
	sqldb.SetMaxOpenConns(connsMax)
	if err := migrate(ctx, sqldb); err != nil {
		_ = sqldb.Close() // the first error is the one to report
		return err
	}
	if c.upsert, err = sqldb.PrepareContext(ctx, upsertSQL()); err != nil {
		_ = sqldb.Close() // as above
		return err
	}
	c.db = bun.NewDB(sqldb, sqlitedialect.New())
	return nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, 4*callTimeout) // an index over a large table takes its time
	defer cancel()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	pending, err := p.HasPending(ctx)
	if err != nil || !pending {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// fail wraps an error of the database with a hint.
func (c *SQLite) fail(op string, err error) error {
	hint := "check the file and its disk"
	var se *sqlite.Error
	switch {
	case errors.As(err, &se):
		hint = hintOf(se.Code())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, fs.ErrPermission):
		hint = hintOf(5)
		if errors.Is(err, fs.ErrPermission) {
			hint = "make file and directory writable for the daemon's user"
		}
	case errors.Is(err, context.Canceled):
		hint = "the caller gave up"
	}
	return &Error{Op: op, Path: c.path, Hint: hint, Err: err}
}

// hintOf says what to do about a result code of SQLite (sqlite.org/rescode.html).
func hintOf(code int) string {
	switch code & 0xff {
	case 5, 6: // BUSY, LOCKED
		return "another process holds its lock: end it"
	case 8, 14: // READONLY, CANTOPEN
		return "make file and directory writable for the daemon's user"
	case 10, 13: // IOERR, FULL
		return "check the disk and its free space"
	case 11, 26: // CORRUPT, NOTADB
		return "stop the daemon, move the file aside, and run trunktap rebuild"
	}
	return "check the file and its disk"
}

// row is a recording as the table has it.
type row struct {
	bun.BaseModel `bun:"table:recordings"`

	ID           string `bun:"id,pk"`
	Conversation string `bun:"conversation"`
	Kind         string `bun:"kind"`
	User         string `bun:"user"`
	Trunk        string `bun:"trunk"`
	SIPCallID    string `bun:"sip_call_id"`
	OtherCallID  string `bun:"other_sip_call_id"`
	From         string `bun:"from_uri"`
	To           string `bun:"to_uri"`
	Direction    string `bun:"direction"`
	OriginNS     int64  `bun:"origin_ns"`
	StartNS      int64  `bun:"start_ns"`
	RealMS       int64  `bun:"real_ms"`
	AudioMS      int64  `bun:"audio_ms"`
	Prefix       string `bun:"prefix"`
	Store        string `bun:"store"`
	Spooled      int64  `bun:"spooled"` // 0 or 1
	Manifest     string `bun:"manifest"`
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// bound is the limit of a search as nanos, which do not reach as far as times do.
func bound(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

func encodeRow(r recorder.Row) (row, error) {
	m := &r.Manifest
	js, err := json.Marshal(m)
	if err != nil {
		return row{}, fmt.Errorf("manifest of %s: %w", m.ID, err)
	}
	origin := m.Origin
	if origin.IsZero() {
		origin = m.Call.Start
	}
	spooled := int64(0)
	if r.Spooled {
		spooled = 1
	}
	return row{
		Store: r.Store, Spooled: spooled,
		ID: m.ID, Conversation: m.Conversation, Kind: string(m.Kind), User: m.User, Trunk: m.Trunk, SIPCallID: m.Call.SIPCallID,
		OtherCallID: m.Call.OtherSIPCallID, From: m.Call.From, To: m.Call.To, Direction: m.Call.Direction, OriginNS: nanos(origin), StartNS: nanos(m.Call.Start),
		RealMS: m.RealMS, AudioMS: m.AudioMS, Prefix: r.Prefix, Manifest: string(js),
	}, nil
}

func decodeRow(r row) (recorder.Row, error) {
	out := recorder.Row{Prefix: r.Prefix, Store: r.Store, Spooled: r.Spooled != 0}
	if err := json.Unmarshal([]byte(r.Manifest), &out.Manifest); err != nil {
		return out, fmt.Errorf("row %s: %w", r.ID, err)
	}
	return out, nil
}

// writing runs f as the only writer of this process, within callTimeout.
func (c *SQLite) writing(ctx context.Context, op string, f func(tx *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	turn := time.NewTimer(callTimeout - busyWait)
	defer turn.Stop()
	select {
	case c.write <- struct{}{}:
		defer func() { <-c.write }()
	case <-turn.C:
		return c.fail(op, context.DeadlineExceeded)
	case <-ctx.Done():
		return c.fail(op, ctx.Err())
	}
	if err := c.transact(f); err != nil {
		return c.fail(op, err)
	}
	return nil
}

// Get implements recorder.Catalog.
func (c *SQLite) Get(ctx context.Context, id string) (recorder.Row, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var r row
	err := c.db.NewSelect().Model(&r).Where("id = ?", id).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return recorder.Row{}, fmt.Errorf("recording %s: %w", id, recorder.ErrNotFound)
	}
	if err != nil {
		return recorder.Row{}, c.fail("get", err)
	}
	out, err := decodeRow(r)
	if err != nil {
		return out, c.fail("get", err)
	}
	return out, nil
}

// Delete implements recorder.Catalog.
func (c *SQLite) Delete(ctx context.Context, id string) error {
	gone := false
	err := c.writing(ctx, "delete", func(tx *sql.Tx) error {
		res, err := tx.Exec("DELETE FROM recordings WHERE id = ?", id)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		gone = n > 0
		return err
	})
	if err == nil && !gone {
		return fmt.Errorf("recording %s: %w", id, recorder.ErrNotFound)
	}
	return err
}

// errRollBack ends the transaction of Check.
var errRollBack = errors.New("roll back")

// Check implements recorder.Catalog: it writes and takes it back.
func (c *SQLite) Check(ctx context.Context) error {
	err := c.writing(ctx, "check", func(tx *sql.Tx) error {
		if err := c.put(tx, []row{{ID: "check", Manifest: "{}"}}); err != nil {
			return err
		}
		return errRollBack
	})
	if errors.Is(err, errRollBack) {
		return nil
	}
	return err
}

// Close implements recorder.Catalog.
func (c *SQLite) Close() error {
	_ = c.upsert.Close() // it ends with the database at the latest
	if err := c.db.Close(); err != nil {
		return c.fail("close", err)
	}
	return nil
}

// Find implements recorder.Catalog. ErrCursor when the cursor is none.
func (c *SQLite) Find(ctx context.Context, q recorder.Query) (recorder.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*callTimeout) // a substring search reads the whole table
	defer cancel()
	limit := q.Limit
	if limit <= 0 {
		limit = pageDefault
	}
	limit = min(limit, pageMax)
	sel := c.db.NewSelect().Model((*row)(nil))
	sel = filter(sel, q)
	if q.Cursor != "" {
		ns, id, err := parseCursor(q.Cursor, q.OldestFirst)
		if err != nil {
			return recorder.Page{}, err
		}
		if q.OldestFirst {
			sel = sel.Where("(origin_ns, id) > (?, ?)", ns, id)
		} else {
			sel = sel.Where("(origin_ns, id) < (?, ?)", ns, id)
		}
	}
	if q.OldestFirst {
		sel = sel.OrderExpr("origin_ns ASC, id ASC")
	} else {
		sel = sel.OrderExpr("origin_ns DESC, id DESC")
	}
	var rows []row
	if err := sel.Limit(int64(limit)+1).Scan(ctx, &rows); err != nil {
		return recorder.Page{}, c.fail("find", err)
	}
	page := recorder.Page{Rows: []recorder.Row{}}
	for i, r := range rows {
		if i == limit {
			last := rows[limit-1]
			page.Next = makeCursor(last.OriginNS, last.ID, q.OldestFirst)
			break
		}
		out, err := decodeRow(r)
		if err != nil {
			return recorder.Page{}, c.fail("find", err)
		}
		page.Rows = append(page.Rows, out)
	}
	return page, nil
}

func filter(sel *bun.SelectQuery, q recorder.Query) *bun.SelectQuery {
	if !q.From.IsZero() {
		sel = sel.Where("origin_ns >= ?", bound(q.From))
	}
	if !q.To.IsZero() {
		sel = sel.Where("origin_ns < ?", bound(q.To))
	}
	for _, eq := range []struct{ col, val string }{
		{"trunk", q.Trunk}, {"conversation", q.Conversation}, {"kind", string(q.Kind)}, {"user", q.User},
	} {
		if eq.val != "" {
			sel = sel.Where("? = ?", bun.Ident(eq.col), eq.val)
		}
	}
	if q.SIPCallID != "" {
		sel = sel.Where("(sip_call_id = ? OR other_sip_call_id = ? AND other_sip_call_id <> '')", q.SIPCallID, q.SIPCallID)
	}
	if q.Number != "" {
		like := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.ToLower(q.Number)) + "%"
		sel = sel.Where(`(lower(from_uri) LIKE ? ESCAPE '\' OR lower(to_uri) LIKE ? ESCAPE '\')`, like, like)
	}
	return sel
}

// makeCursor names the last row of a page.
func makeCursor(ns int64, id string, oldestFirst bool) string {
	order := "d"
	if oldestFirst {
		order = "a"
	}
	return base64.RawURLEncoding.EncodeToString([]byte(cursorVersion + order + strconv.FormatInt(ns, 10) + "," + id))
}

func parseCursor(s string, oldestFirst bool) (int64, string, error) {
	if len(s) > cursorMax {
		return 0, "", ErrCursor
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return 0, "", ErrCursor
	}
	want := cursorVersion + "d"
	if oldestFirst {
		want = cursorVersion + "a"
	}
	rest, ok := strings.CutPrefix(string(b), want)
	if !ok {
		return 0, "", ErrCursor
	}
	num, id, ok := strings.Cut(rest, ",")
	ns, err := strconv.ParseInt(num, 10, 64)
	if !ok || err != nil || id == "" {
		return 0, "", ErrCursor
	}
	return ns, id, nil
}
