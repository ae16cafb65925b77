package catalog

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"time"

	"github.com/uptrace/bun"

	"github.com/trunktap/trunktap/recorder"
)

// A backup is text: a line that says what it is, a line for each row, and a
// line with their number and the SHA-256 of all before it. It fits either engine.
const (
	backupFormat  = "trunktap-catalogue"
	backupVersion = 1
	backupLineMax = 80 << 20 // bytes
	backupBatch   = 500      // rows
)

// backuper is how an engine reads all rows as they are at one time.
type backuper interface {
	// snapshot is the command that begins a transaction which sees no later change.
	snapshot() string
	// copyTo writes the whole database into a file of its own kind.
	copyTo(ctx context.Context, db *bun.DB, path string) error
}

func (e *sqliteEngine) snapshot() string   { return "BEGIN DEFERRED" }
func (e *postgresEngine) snapshot() string { return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" }

func (e *sqliteEngine) copyTo(ctx context.Context, db *bun.DB, path string) error {
	_, err := db.NewRaw("VACUUM INTO ?", path).Exec(ctx)
	return err
}

// ErrNoCopy says that PostgreSQL has tools of its own for copies.
var ErrNoCopy = errors.New("a copy of a database of PostgreSQL is made by pg_dump")

func (e *postgresEngine) copyTo(context.Context, *bun.DB, string) error { return ErrNoCopy }

// CopyTo writes the catalogue as it is now into a new file of SQLite, while
// others go on writing.
func (c *Catalog) CopyTo(ctx context.Context, path string) error {
	if err := c.e.copyTo(ctx, c.db, path); err != nil {
		if errors.Is(err, ErrNoCopy) {
			return err
		}
		return c.fail("copy", err)
	}
	return nil
}

type backupHead struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	At      time.Time `json:"at"`
}

type backupRow struct {
	Prefix        string            `json:"prefix"`
	Store         string            `json:"store,omitempty"`
	Spooled       bool              `json:"spooled,omitempty"`
	Node          string            `json:"node,omitempty"`
	ManifestBytes int64             `json:"manifest_bytes"`
	OtherBytes    int64             `json:"other_bytes,omitempty"`
	Manifest      recorder.Manifest `json:"manifest"`
}

type backupEnd struct {
	Rows   *int64 `json:"rows"`
	SHA256 string `json:"sha256"`
}

// Backup writes all rows as they are at one time, while others go on writing,
// and returns their number.
func (c *Catalog) Backup(ctx context.Context, to io.Writer) (n int64, err error) {
	conn, err := c.db.Conn(ctx)
	if err != nil {
		return 0, c.fail("backup", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, c.e.snapshot()); err != nil {
		return 0, c.fail("backup", err)
	}
	defer func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") }() // it only read
	sum := sha256.New()
	enc := json.NewEncoder(io.MultiWriter(to, sum))
	if err := enc.Encode(backupHead{backupFormat, backupVersion, time.Now().UTC()}); err != nil {
		return 0, err
	}
	for last := int64(math.MinInt64); ; {
		var rows []found
		if err := recordings.Key.above(last).on(c.selectFound().Conn(conn)).OrderExpr(recordings.Key.sql()).Limit(backupBatch).Scan(ctx, &rows); err != nil {
			return n, c.fail("backup", err)
		}
		for i := range rows {
			r, err := rows[i].decode()
			if err != nil {
				return n, c.fail("backup", err)
			}
			if err := enc.Encode(backupRow{r.Prefix, r.Store, r.Spooled, r.Node, r.ManifestBytes, r.OtherBytes, r.Manifest}); err != nil {
				return n, err
			}
			last = rows[i].Key
			n++
		}
		if len(rows) < backupBatch {
			break
		}
	}
	err = json.NewEncoder(to).Encode(backupEnd{&n, hex.EncodeToString(sum.Sum(nil))})
	return n, err
}

// ErrBackup says that a file is no whole backup.
var ErrBackup = errors.New("no whole backup of a catalogue, or altered")

// Restore saves the rows of a backup, after it was read whole and found
// unaltered. Rows of the same recordings are replaced, others stay. It may be
// repeated.
func (c *Catalog) Restore(ctx context.Context, from io.ReadSeeker) (int64, error) {
	if err := readBackup(from, func([]recorder.Row) error { return ctx.Err() }); err != nil {
		return 0, err
	}
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	n := int64(0)
	err := readBackup(from, func(rows []recorder.Row) error {
		n += int64(len(rows))
		return c.SaveAll(ctx, rows)
	})
	return n, err
}

// readBackup reads a backup, gives away its rows and tells at the end whether it is whole.
func readBackup(from io.Reader, save func([]recorder.Row) error) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 0, 64<<10), backupLineMax)
	sum := sha256.New()
	var head backupHead
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil || head.Format != backupFormat {
		return ErrBackup
	}
	if head.Version != backupVersion {
		return fmt.Errorf("%w: it is of version %d, this program knows %d", ErrBackup, head.Version, backupVersion)
	}
	addLine(sum, lines.Bytes())
	var batch []recorder.Row
	for n := int64(0); lines.Scan(); n++ {
		var end backupEnd
		if json.Unmarshal(lines.Bytes(), &end) == nil && end.Rows != nil {
			if *end.Rows != n || end.SHA256 != hex.EncodeToString(sum.Sum(nil)) || lines.Scan() {
				return ErrBackup
			}
			return save(batch)
		}
		var r backupRow
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil || r.Manifest.ID == "" {
			return fmt.Errorf("%w: row %d", ErrBackup, n+1)
		}
		addLine(sum, lines.Bytes())
		batch = append(batch, recorder.Row{
			Manifest: r.Manifest, Prefix: r.Prefix, Store: r.Store, Spooled: r.Spooled, Node: r.Node, ManifestBytes: r.ManifestBytes, OtherBytes: r.OtherBytes,
		})
		if len(batch) == backupBatch {
			if err := save(batch); err != nil {
				return err
			}
			batch = nil
		}
	}
	return errors.Join(ErrBackup, lines.Err())
}

func addLine(sum hash.Hash, line []byte) {
	_, _ = sum.Write(line) // a hash takes everything
	_, _ = sum.Write([]byte{'\n'})
}
