// Package catalog finds recordings: one row each, in SQLite or PostgreSQL. What
// it holds can be rebuilt from the store.
package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"github.com/uptrace/bun"

	"github.com/trunktap/trunktap/recorder"
)

// Limits.
const (
	busyWait     = time.Second      // how long SQLite waits for another process's lock; it cannot be called off
	callTimeout  = 2 * time.Second  // how long a call may take to write, waiting for its turn included
	findTimeout  = 10 * time.Second // of a search, which its budget ends long before
	migrateMax   = 6 * time.Hour    // a new shape of a large table takes its time
	pageDefault  = 100
	pageMax      = 1000
	saveBatchMax = 500 // rows in one transaction
	connsDefault = 4
	connIdleMax  = 5 * time.Minute
)

// ErrCursor says that a cursor is not one that Find gave for this query.
var ErrCursor = errors.New("cursor is not valid: take it from the page before, with everything else unchanged")

// Error says what the catalogue was doing when the database failed, and what
// to do about it. recorder.ErrNotFound is never wrapped in it.
type Error struct {
	Op   string
	Path string // file, or URL without its password
	Hint string
	Err  error
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("catalogue %s: %s: %v (%s)", e.Path, e.Op, e.Err, e.Hint)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Options are what a URL does not say. Zero values are the defaults.
type Options struct {
	PasswordFile string        // of PostgreSQL: its first line. Else that of the URL, PGPASSWORD or PGPASSFILE
	ConnsMax     int           // connections at once; 0: 4
	Timeout      time.Duration // of one statement of PostgreSQL; 0: 5 s
	Budget       time.Duration // how long a search looks on before it gives what it has; 0: 80 ms
	Country      string        // country code of numbers that are written with one leading 0
}

// engine is a database.
type engine interface {
	// name is what errors and operators call it.
	name() string
	open(ctx context.Context, o Options) (*bun.DB, error)
	// hint says what to do about an error.
	hint(err error) string
	// writeTimeout is how long saving may take.
	writeTimeout() time.Duration

	// saveTerms and dropTerms keep the index of terms where that is no column.
	saveTerms(ctx context.Context, tx bun.Tx, rows []row) error
	dropTerms(ctx context.Context, tx bun.Tx, keys []int64) error

	searcher
	backuper
}

// Catalog is a catalogue in a database. It is safe for concurrent use, also by
// several processes.
type Catalog struct {
	e    engine
	db   *bun.DB
	plan numberPlan
	pace pace

	write chan struct{} // held by the one that writes: SQLite has one writer, and its own queue is a race of sleeps
	saver saver
}

var _ recorder.Catalog = (*Catalog)(nil)

// FileURL returns the file that a sqlite:// URL names.
func FileURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("catalogue url: %w", err)
	}
	if u.Scheme != "sqlite" || u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) || u.RawQuery != "" {
		return "", fmt.Errorf("catalogue url %q: want sqlite:///an/absolute/file", u.Redacted())
	}
	return filepath.Clean(u.Path), nil
}

// OpenURL opens the catalogue that a URL names, sqlite:///file or
// postgres://user@host/database, and brings its tables up to date.
func OpenURL(ctx context.Context, raw string, o Options) (*Catalog, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("catalogue url: cannot be read; want sqlite:///file or postgres://user@host/database") // it may hold a password
	}
	switch u.Scheme {
	case "sqlite":
		path, err := FileURL(raw)
		if err != nil {
			return nil, err
		}
		return open(ctx, &sqliteEngine{path: path}, o)
	case "postgres", "postgresql":
		return open(ctx, &postgresEngine{url: raw, shown: u.Redacted()}, o)
	}
	return nil, fmt.Errorf("catalogue url: scheme %q is not known; want sqlite:///file or postgres://user@host/database", u.Scheme)
}

// Open opens the catalogue in a file of SQLite and brings its tables up to date.
// The file is made, mode 0600, when it does not exist.
func Open(ctx context.Context, path string) (*Catalog, error) {
	return open(ctx, &sqliteEngine{path: path}, Options{})
}

func open(ctx context.Context, e engine, o Options) (*Catalog, error) {
	c := &Catalog{e: e, write: make(chan struct{}, 1), plan: numberPlan{o.Country}}
	if c.pace = paceDefault; o.Budget > 0 {
		c.pace.budget = o.Budget
	}
	var err error
	if c.db, err = e.open(ctx, o); err != nil {
		return nil, c.fail("open", err)
	}
	return c, nil
}

// fail wraps an error of the database with a hint.
func (c *Catalog) fail(op string, err error) error {
	hint := c.e.hint(err)
	if errors.Is(err, context.Canceled) {
		hint = "the caller gave up"
	}
	return &Error{Op: op, Path: c.e.name(), Hint: hint, Err: err}
}

// writing runs f as the only writer of this process, within the time that a
// write may take.
func (c *Catalog) writing(ctx context.Context, op string, f func(ctx context.Context, tx bun.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.e.writeTimeout())
	defer cancel()
	turn := time.NewTimer(c.e.writeTimeout() - busyWait)
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
func (c *Catalog) Get(ctx context.Context, id string) (recorder.Row, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var f found
	err := recordings.ID.is(clean(id)).on(c.selectFound()).Limit(1).Scan(ctx, &f)
	if errors.Is(err, sql.ErrNoRows) {
		return recorder.Row{}, fmt.Errorf("recording %s: %w", id, recorder.ErrNotFound)
	}
	if err != nil {
		return recorder.Row{}, c.fail("get", err)
	}
	out, err := f.decode()
	if err != nil {
		return out, c.fail("get", err)
	}
	return out, nil
}

// withManifests joins recordings with their manifests.
var withManifests = "JOIN " + manifests.as() + " ON " + manifests.Key.sql() + " = " + recordings.Key.sql()

func (c *Catalog) selectFound() *bun.SelectQuery {
	return recordings.from(c.db).Join(withManifests).Column(foundColumns...)
}

// Delete implements recorder.Catalog.
func (c *Catalog) Delete(ctx context.Context, id string) error {
	gone := false
	err := c.writing(ctx, "delete", func(ctx context.Context, tx bun.Tx) error {
		sum := usageSums{}
		old, err := c.take(ctx, tx, []string{clean(id)}, sum)
		if gone = len(old) > 0; err != nil || !gone {
			return err
		}
		return sum.save(ctx, tx)
	})
	if err == nil && !gone {
		return fmt.Errorf("recording %s: %w", id, recorder.ErrNotFound)
	}
	return err
}

// errRollBack ends the transaction of Check.
var errRollBack = errors.New("roll back")

// Check implements recorder.Catalog: it writes and takes it back.
func (c *Catalog) Check(ctx context.Context) error {
	err := c.writing(ctx, "check", func(ctx context.Context, tx bun.Tx) error {
		if err := c.put(ctx, tx, []row{{Key: -1, ID: "check", Windows: "{}", manifest: []byte{packedPlain}}}); err != nil {
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
func (c *Catalog) Close() error {
	if err := c.db.Close(); err != nil {
		return c.fail("close", err)
	}
	return nil
}
