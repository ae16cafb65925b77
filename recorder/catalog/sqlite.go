package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"modernc.org/sqlite"
)

const (
	sqliteCacheKiB = 32 << 10  // pages kept by each connection
	sqliteMapBytes = 256 << 20 // of the file read through a mapping
)

// sqliteEngine is a catalogue in a file.
type sqliteEngine struct{ path string }

func (e *sqliteEngine) name() string                { return e.path }
func (e *sqliteEngine) writeTimeout() time.Duration { return callTimeout }

func (e *sqliteEngine) open(ctx context.Context, o Options) (*bun.DB, error) {
	if err := os.MkdirAll(filepath.Dir(e.path), 0o700); err != nil {
		return nil, err
	}
	// SQLite gives its own files the mode of the database's, so this sets all.
	f, err := os.OpenFile(e.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	conn, err := sqlite.NewConnector(e.dsn("journal_mode(WAL)", "synchronous(FULL)"))
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(conn)
	setPool(db, o)
	if err := migrateSQLite(ctx, db, numberPlan{o.Country}); err != nil {
		_ = db.Close() // the first error is the one to report
		return nil, err
	}
	return bun.NewDB(db, sqlitedialect.New()), nil
}

func (e *sqliteEngine) dsn(pragmas ...string) string {
	pragmas = append(pragmas, fmt.Sprintf("busy_timeout(%d)", busyWait.Milliseconds()),
		fmt.Sprintf("cache_size(-%d)", sqliteCacheKiB), fmt.Sprintf("mmap_size(%d)", sqliteMapBytes))
	q := url.Values{"_pragma": pragmas, "_txlock": {"immediate"}}
	return "file:" + (&url.URL{Path: e.path}).EscapedPath() + "?" + q.Encode()
}

func setPool(db *sql.DB, o Options) {
	n := o.ConnsMax
	if n == 0 {
		n = connsDefault
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxIdleTime(connIdleMax)
}

func (e *sqliteEngine) hint(err error) string {
	var se *sqlite.Error
	switch {
	case errors.As(err, &se):
		return hintOf(se.Code())
	case errors.Is(err, fs.ErrPermission):
		return "make file and directory writable for the daemon's user"
	case errors.Is(err, context.DeadlineExceeded):
		return hintOf(5)
	}
	return "check the file and its disk"
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

func (e *sqliteEngine) saveTerms(ctx context.Context, tx bun.Tx, rows []row) error {
	stmt, err := tx.Tx.PrepareContext(ctx, "INSERT INTO recordings_terms (rowid, terms) VALUES (?, ?)")
	if err != nil {
		return err
	}
	defer func() { _ = stmt.Close() }() // its transaction tells what failed
	for _, r := range rows {
		all := strings.Join(slices.Concat(r.Terms.short, r.Terms.other, timeTerms(r.Key)), " ")
		if _, err := stmt.ExecContext(ctx, r.Key, all); err != nil {
			return err
		}
	}
	return nil
}

func (e *sqliteEngine) dropTerms(ctx context.Context, tx bun.Tx, keys []int64) error {
	_, err := drop(tx, ftsRow.of, ftsRow.unaliased().among(keys)).Exec(ctx)
	return err
}
