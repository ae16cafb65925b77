package catalog

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"

	"github.com/trunktap/trunktap/recorder"
)

//go:embed migrations
var migrations embed.FS

// Migrations of SQLite that this file does.
const (
	sqliteSearchVersion  = 5
	sqliteClassesVersion = 6 // did what the next one does
	sqliteHoursVersion   = 7
)

func migrateSQLite(ctx context.Context, db *sql.DB, plan numberPlan) error {
	search := goose.NewGoMigration(sqliteSearchVersion, &goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
		return searchable(ctx, bun.NewDB(db, sqlitedialect.New()), plan)
	}}, nil)
	classes := goose.NewGoMigration(sqliteClassesVersion, &goose.GoFunc{RunDB: func(context.Context, *sql.DB) error { return nil }}, nil)
	hours := goose.NewGoMigration(sqliteHoursVersion, &goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
		return indexAgain(ctx, bun.NewDB(db, sqlitedialect.New()), plan)
	}}, nil)
	return migrate(ctx, db, goose.DialectSQLite3, "migrations/sqlite", goose.WithGoMigrations(search, classes, hours))
}

// migratePostgres closes db. Of several daemons the first one migrates, the
// others wait for it.
func migratePostgres(ctx context.Context, db *sql.DB) error {
	defer func() { _ = db.Close() }() // nothing is left in it
	one, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	return migrate(ctx, db, goose.DialectPostgres, "migrations/postgres", goose.WithSessionLocker(one))
}

func migrate(ctx context.Context, db *sql.DB, d goose.Dialect, dir string, opts ...goose.ProviderOption) error {
	ctx, cancel := context.WithTimeout(ctx, migrateMax)
	defer cancel()
	files, err := fs.Sub(migrations, dir)
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(d, db, files, append(opts, goose.WithDisableGlobalRegistry(true))...)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	short, done := context.WithTimeout(ctx, 2*callTimeout)
	defer done()
	pending, err := p.HasPending(short)
	if err != nil || !pending {
		return err
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if have > want {
		return fmt.Errorf("its tables are of a newer version, %d; this program knows %d", have, want)
	}
	_, err = p.Up(ctx)
	return err
}

// searchable moves the rows of earlier versions into the tables that can be
// searched by everything, in one transaction. A row whose manifest is damaged
// stays behind; rebuild brings it back.
func searchable(ctx context.Context, db *bun.DB, plan numberPlan) error {
	script, err := fs.ReadFile(migrations, "migrations/sqlite_00005.sql")
	if err != nil {
		return err
	}
	return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		var done int // a crash came between this and the note that it is done
		if err := tx.NewRaw("SELECT count(*) FROM sqlite_master WHERE name = 'manifests'").Scan(ctx, &done); err != nil || done > 0 {
			return err
		}
		if _, err := tx.Tx.ExecContext(ctx, string(script)); err != nil {
			return err
		}
		c := &Catalog{e: &sqliteEngine{}, plan: plan}
		for last, more := "", true; more; {
			batch, next, err := oldRows(ctx, tx.Tx, plan, last)
			if err != nil {
				return err
			}
			if len(batch) > 0 {
				if err := c.put(ctx, tx, batch); err != nil {
					return err
				}
			}
			last, more = next, next != ""
		}
		_, err := tx.Tx.ExecContext(ctx, "DROP TABLE recordings_before")
		return err
	})
}

// oldRows reads some rows behind an id, and returns the last id; empty: there are no more.
func oldRows(ctx context.Context, tx *sql.Tx, plan numberPlan, last string) (batch []row, next string, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT id, prefix, store, spooled, manifest FROM recordings_before WHERE id > ? ORDER BY id LIMIT ?", last, saveBatchMax)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id, js string
		r := recorder.Row{}
		if err := rows.Scan(&id, &r.Prefix, &r.Store, &r.Spooled, &js); err != nil {
			return nil, "", err
		}
		next = id
		if json.Unmarshal([]byte(js), &r.Manifest) != nil || r.Manifest.ID != id {
			continue
		}
		x, err := plan.encodeRow(&r)
		if err != nil {
			return nil, "", err
		}
		batch = append(batch, x)
	}
	return batch, next, rows.Err()
}

// indexAgain makes the index of terms anew, of what terms are now. A row whose manifest is
// damaged is not in it; rebuild brings it back.
func indexAgain(ctx context.Context, db *bun.DB, plan numberPlan) error {
	e := &sqliteEngine{}
	return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.Tx.ExecContext(ctx, "INSERT INTO recordings_terms (recordings_terms) VALUES ('delete-all')"); err != nil {
			return err
		}
		for last := int64(math.MinInt64); ; {
			var batch []found
			err := tx.NewRaw(`SELECT r.key, r.prefix, r.node, r.store, m.manifest FROM recordings AS r JOIN manifests AS m ON m.key = r.key
				WHERE r.key > ? ORDER BY r.key LIMIT ?`, last, saveBatchMax).Scan(ctx, &batch)
			if err != nil || len(batch) == 0 {
				return err
			}
			last = batch[len(batch)-1].Key
			rows := make([]row, 0, len(batch))
			for i := range batch {
				r, err := batch[i].decode()
				if err != nil {
					continue
				}
				rows = append(rows, plan.encodeTerms(batch[i].Key, &r))
			}
			if err := e.saveTerms(ctx, tx, rows); err != nil {
				return err
			}
		}
	})
}
