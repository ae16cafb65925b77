package catalog

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

const (
	pgTimeoutDefault = 5 * time.Second // of a statement
	pgConnectMax     = 2 * time.Second
	pgIdleMax        = 30 * time.Second // of a transaction in which nothing happens
	passwordBytesMax = 4096
)

// postgresEngine is a catalogue in a database of PostgreSQL.
type postgresEngine struct {
	url     string
	shown   string // without the password
	timeout time.Duration
}

func (e *postgresEngine) name() string                { return e.shown }
func (e *postgresEngine) writeTimeout() time.Duration { return e.timeout }

// open connects. Several daemons may do so at once: one of them brings the
// tables up to date.
func (e *postgresEngine) open(ctx context.Context, o Options) (*bun.DB, error) {
	e.timeout = o.Timeout
	if e.timeout == 0 {
		e.timeout = pgTimeoutDefault
	}
	cfg, err := e.config(o)
	if err != nil {
		return nil, err
	}
	slow := cfg.Copy()
	slow.RuntimeParams["statement_timeout"] = strconv.FormatInt(migrateMax.Milliseconds(), 10)
	if err := migratePostgres(ctx, stdlib.OpenDB(*slow)); err != nil {
		return nil, err
	}
	db := stdlib.OpenDB(*cfg)
	setPool(db, o)
	return bun.NewDB(db, pgdialect.New()), nil
}

// config is the URL's with what it leaves open: encryption and verification of
// servers that are no part of this machine, limits, UTC.
func (e *postgresEngine) config(o Options) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(e.url)
	if err != nil {
		return nil, errors.New("the URL cannot be read; want postgres://user@host/database?sslmode=verify-full&sslrootcert=FILE") // it may hold a password
	}
	if o.PasswordFile != "" {
		if cfg.Password, err = readPassword(o.PasswordFile); err != nil {
			return nil, err
		}
	}
	if !strings.Contains(e.url, "sslmode=") && os.Getenv("PGSSLMODE") == "" {
		for _, host := range append([]*pgconn.FallbackConfig{{Host: cfg.Host}}, cfg.Fallbacks...) {
			if !isLocal(host.Host) {
				cfg.TLSConfig = &tls.Config{ServerName: cfg.Host, MinVersion: tls.VersionTLS12}
			}
		}
		cfg.Fallbacks = nil // they would do without
	}
	cfg.ConnectTimeout = pgConnectMax
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // what is asked differs each time, and a pooler may stand between
	for key, v := range map[string]string{
		"application_name":                    "trunktap",
		"timezone":                            "UTC",
		"statement_timeout":                   strconv.FormatInt(e.timeout.Milliseconds(), 10),
		"idle_in_transaction_session_timeout": strconv.FormatInt(pgIdleMax.Milliseconds(), 10),
		"jit":                                 "off", // costs more than these queries take
	} {
		if cfg.RuntimeParams[key] == "" {
			cfg.RuntimeParams[key] = v
		}
	}
	return cfg, nil
}

// isLocal tells whether a server is reached without leaving the machine.
func isLocal(host string) bool {
	if host == "" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// readPassword reads the first line of a file that nobody else may read.
func readPassword(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("password file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 || info.Size() > passwordBytesMax {
		return "", fmt.Errorf("password file %s: mode %04o, %d bytes; want 0600 or less and one line", path, info.Mode().Perm(), info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("password file: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// hint says what to do about an error (PostgreSQL, appendix A).
func (e *postgresEngine) hint(err error) string {
	var pe *pgconn.PgError
	var ne net.Error
	switch {
	case errors.As(err, &pe):
		return hintOfState(pe.Code)
	case errors.Is(err, context.DeadlineExceeded):
		return "the server does not answer in time: see its load and its locks"
	case errors.As(err, &ne), errors.Is(err, sql.ErrConnDone), errors.Is(err, net.ErrClosed):
		return "see that the server runs and is reached; what is recorded meanwhile is listed later"
	}
	return "see the server's log"
}

func hintOfState(code string) string {
	switch {
	case strings.HasPrefix(code, "28"): // invalid authorization
		return "check user, password_file and pg_hba.conf"
	case code == "3D000": // no such database
		return "make the database: createdb -O USER NAME"
	case code == "42501": // insufficient privilege
		return "make the user owner of the database, or give it CREATE on its schema"
	case code == queryCanceled:
		return "the server takes longer than catalog.timeout: see its load"
	case strings.HasPrefix(code, "53"): // insufficient resources
		return "see the server's disk, memory and max_connections"
	case strings.HasPrefix(code, "57P"), strings.HasPrefix(code, "08"): // shutdown, connection
		return "the server stops or starts; what is recorded meanwhile is listed later"
	case code == "25006": // read only
		return "this is a standby: name the primary"
	}
	return "see the server's log"
}

func (e *postgresEngine) saveTerms(context.Context, bun.Tx, []row) error   { return nil }
func (e *postgresEngine) dropTerms(context.Context, bun.Tx, []int64) error { return nil }
