package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/catalog/pgtest"
)

var (
	scaleRows   = flag.Int("rows", 0, "rows of TestScale; 0: it is skipped")
	scaleEngine = flag.String("engine", "sqlite,postgres", "engines of TestScale")
	scaleDir    = flag.String("dir", "", "where TestScale puts its databases; it removes them. Default: the temporary folder")
	scaleKeep   = flag.String("keep", "", "a folder with a short name where TestScale leaves its databases, and finds those of before")
	scaleOnly   = flag.String("only", "", "a regular expression of the searches that TestScale measures")
)

// TestScale searches among very many rows and prints what it takes. See `make catalog-bench`.
func TestScale(t *testing.T) {
	if *scaleRows == 0 {
		t.Skip("only by make catalog-bench")
	}
	for _, e := range strings.Split(*scaleEngine, ",") {
		t.Run(e, func(t *testing.T) {
			switch e {
			case "sqlite":
				scaleSQLite(t)
			case "postgres":
				scalePostgres(t)
			default:
				t.Fatalf("no engine %q", e)
			}
		})
	}
}

func scaleSQLite(t *testing.T) {
	dir := *scaleKeep
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp(*scaleDir, "catalog-bench"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	path := filepath.Join(dir, "c.db")
	if _, err := os.Stat(path); err != nil {
		c := mustOpen(t, path)
		began := time.Now()
		loadSQLite(t, c, *scaleRows)
		t.Logf("loaded %d rows in %v", *scaleRows, time.Since(began).Round(time.Second))
	}
	evict := func() { dropCache(t, path) }
	scaleMeasure(t, func() *Catalog { return mustOpen(t, path) }, evict)
	for _, ext := range []string{"", "-wal"} {
		if info, err := os.Stat(path + ext); err == nil {
			t.Logf("file%s: %d MB", ext, info.Size()>>20)
		}
	}
}

func loadSQLite(t *testing.T, c *Catalog, rows int) {
	c.db.SetMaxOpenConns(1)
	for _, p := range []string{"PRAGMA synchronous = OFF", "PRAGMA cache_size = -400000"} {
		if _, err := c.db.Exec(p); err != nil {
			t.Fatal(err)
		}
	}
	var base []row
	generate(t, rows/scaleCopies, 1000, func(rows []row) error {
		base = append(base, lastOfEach(rows)...)
		return nil
	})
	slices.SortFunc(base, func(a, b row) int { return cmp.Compare(a.Key, b.Key) })
	for i := scaleCopies - 1; i >= 0; i-- {
		began := time.Now()
		for at := 0; at < len(base); at += 20_000 {
			insertRows(t, c, base[at:min(at+20_000, len(base))], i)
		}
		t.Logf("copy %d: %v", i, time.Since(began).Round(time.Second))
	}
	if _, err := c.db.Exec(scaleUsage); err != nil {
		t.Fatal(err)
	}
	if _, err := c.db.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
}

// scaleCopy is a row so many microseconds before its time, with an identity of its own.
func scaleCopy(r row, copy int, shift int64) row {
	r.ID = fmt.Sprint(copy) + r.ID
	r.Key -= shift
	r.OriginNS -= shift * 1000
	r.Day = time.UnixMicro(r.Key).UTC().Format(time.DateOnly)
	return r
}

// insertRows inserts rows as they are, so long before their time.
func insertRows(t *testing.T, c *Catalog, rows []row, copy int) {
	t.Helper()
	tx, err := c.db.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	prepare := func(q string) *sql.Stmt {
		s, err := tx.Tx.Prepare(q)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	r1 := prepare("INSERT OR IGNORE INTO recordings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)") //nolint:sqlclosecheck // its transaction closes it
	r2 := prepare("INSERT OR IGNORE INTO manifests VALUES (?, ?)")                                                                    //nolint:sqlclosecheck // its transaction closes it
	r3 := prepare("INSERT INTO recordings_terms (rowid, terms) VALUES (?, ?)")                                                        //nolint:sqlclosecheck // its transaction closes it
	for i := range rows {
		r := scaleCopy(rows[i], copy, int64(copy)*scaleSpan.Microseconds())
		short := strings.Join(r.Terms.short, " ")
		_, err1 := r1.Exec(r.Key, r.ID, r.OriginNS, r.Prefix, r.FromNumber, r.ToNumber, r.RealMS, r.AudioMS, r.SuppressedMS, r.GapMS, r.MOS, r.Loss, r.Windows,
			" "+short+" ", r.Day, r.Trunk, r.User, r.Kind, r.Store, r.Node, r.Bytes, r.ManifestBytes, r.OtherBytes, r.Spooled)
		_, err2 := r2.Exec(r.Key, r.manifest)
		_, err3 := r3.Exec(r.Key, strings.Join(slices.Concat(r.Terms.short, r.Terms.other, timeTerms(r.Key)), " "))
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func scalePostgres(t *testing.T) {
	pg, loaded, err := startPostgres("shared_buffers=1GB", "maintenance_work_mem=4GB", "max_wal_size=4GB", "work_mem=32MB", "autovacuum=off", "wal_level=minimal", "max_wal_senders=0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Close(); err != nil {
			t.Error(err)
		}
	})
	url := pg.URL("t1")
	if !loaded {
		if url, err = pg.NewDatabase(); err != nil {
			t.Fatal(err)
		}
		c := mustOpenURL(t, url, Options{})
		began := time.Now()
		loadPostgres(t, pg, c, "t1", *scaleRows)
		t.Logf("loaded %d rows in %v", *scaleRows, time.Since(began).Round(time.Second))
	}
	evict := func() {
		if err := pg.Stop(); err != nil {
			t.Fatal(err)
		}
		dropCache(t, pg.Dir())
		if err := pg.Start(); err != nil {
			t.Fatal(err)
		}
	}
	scaleMeasure(t, func() *Catalog { return mustOpenURL(t, url, Options{}) }, evict)
	out, err := pg.SQL("t1", "SELECT relname, pg_relation_size(oid)/1000000 FROM pg_class WHERE pg_relation_size(oid) > 1000000 ORDER BY 2 DESC")
	t.Logf("sizes in MB: %s %v", strings.ReplaceAll(out, "\n", "  "), err)
}

// startPostgres tells whether its rows are there from a run before.
func startPostgres(settings ...string) (pg *pgtest.Cluster, loaded bool, err error) {
	if *scaleKeep == "" {
		pg, err = pgtest.Start(*scaleDir, settings...)
		return pg, false, err
	}
	dir := filepath.Join(*scaleKeep, "pg")
	_, err = os.Stat(dir)
	loaded = err == nil
	pg, err = pgtest.Open(dir, settings...)
	return pg, loaded, err
}

// dropCache makes the kernel forget what it has of a file, or of all files in a folder.
func dropCache(t *testing.T, path string) {
	t.Helper()
	err := filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // it went away meanwhile
		}
		f, err := os.Open(name)
		if err != nil {
			return nil // likewise
		}
		defer func() { _ = f.Close() }()
		_ = f.Sync()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// scaleMeasure prints what each kind of search takes.
func scaleMeasure(t *testing.T, open func() *Catalog, evict func()) {
	t.Logf("%-34s %28s   %28s %8s %s", "search", "cold p50/p95/max ms", "warm p50/p95/p99 ms", "partial", "rows")
	only := regexp.MustCompile(*scaleOnly)
	for _, k := range scaleKinds {
		if !only.MatchString(k.name) {
			continue
		}
		evict()
		c := open()
		rng := rand.New(rand.NewPCG(1, 2))
		cold := k.measure(t, c, rng, 20)
		warm := k.measure(t, c, rng, 200)
		t.Logf("%-34s %8.1f %8.1f %8.1f     %8.1f %8.1f %8.1f   %7.0f%% %5.0f", k.name, cold.at(50), cold.at(95), cold.at(100), warm.at(50), warm.at(95), warm.at(99),
			100*warm.partial/float64(len(warm.ms)), warm.rows/float64(len(warm.ms)))
	}
	c := open()
	for _, group := range [][]string{nil, {"day"}, {"trunk", "kind"}, {"user"}} {
		began := time.Now()
		rows, err := c.Usage(context.Background(), recorder.UsageQuery{Group: group})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("usage by %v: %d rows in %v", group, len(rows), time.Since(began).Round(100*time.Microsecond))
	}
	if *scaleKeep == "" {
		scaleSave(t, c)
	}
}

// scaleSave measures how many recordings a second can be saved beside these rows.
func scaleSave(t *testing.T, c *Catalog) {
	for _, callers := range []int{1, 16, 128} {
		var n atomic.Int64
		var wg sync.WaitGroup
		end := time.Now().Add(8 * time.Second)
		began := time.Now()
		for g := range callers {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(callers), uint64(g)))
				for time.Now().Before(end) {
					r := scaleRow(rng, time.Now(), fmt.Sprintf("n%d-%d-%d", callers, g, n.Load()))
					if err := c.Save(context.Background(), r); err != nil {
						t.Error(err)
						return
					}
					n.Add(1)
				}
			})
		}
		wg.Wait()
		t.Logf("saved by %d at once: %.0f/s", callers, float64(n.Load())/time.Since(began).Seconds())
	}
}

// timings of one kind of search.
type timings struct {
	ms            []float64
	partial, rows float64
}

func (x *timings) at(percent int) float64 {
	return x.ms[min(len(x.ms)*percent/100, len(x.ms)-1)]
}

type scaleKind struct {
	name  string
	query func(rng *rand.Rand) recorder.Query
	pages int // that are gone through; 0: one
}

func (k *scaleKind) measure(t *testing.T, c *Catalog, rng *rand.Rand, n int) *timings {
	x := &timings{}
	for len(x.ms) < n {
		q := k.query(rng)
		for range max(k.pages, 1) {
			began := time.Now()
			p, err := c.Find(context.Background(), q)
			if err != nil {
				t.Fatalf("%s: %+v: %v", k.name, q, err)
			}
			x.ms = append(x.ms, float64(time.Since(began).Microseconds())/1000)
			if p.Partial {
				x.partial++
			}
			x.rows += float64(len(p.Rows))
			if q.Cursor = p.Next; q.Cursor == "" {
				break
			}
		}
	}
	slices.Sort(x.ms)
	return x
}
