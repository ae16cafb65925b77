package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/trunktap/trunktap/recorder/catalog/pgtest"
)

// cluster is the PostgreSQL of all tests of this package.
var cluster struct {
	once sync.Once
	pg   *pgtest.Cluster
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if cluster.pg != nil {
		if err := cluster.pg.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

func mustPG(t testing.TB) *pgtest.Cluster {
	t.Helper()
	cluster.once.Do(func() { cluster.pg, cluster.err = pgtest.Start("") })
	if errors.Is(cluster.err, pgtest.ErrMissing) {
		t.Skip(cluster.err)
	}
	if cluster.err != nil {
		t.Fatal(cluster.err)
	}
	return cluster.pg
}

func mustOpenURL(t testing.TB, url string, o Options) *Catalog {
	t.Helper()
	c, err := OpenURL(context.Background(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// eachEngine runs a test with either engine; open opens the same empty
// catalogue each time.
func eachEngine(t *testing.T, f func(t *testing.T, open func() *Catalog)) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "c.db")
		f(t, func() *Catalog { return mustOpenURL(t, "sqlite://"+path, Options{Budget: testBudget}) })
	})
	t.Run("postgres", func(t *testing.T) {
		url, err := mustPG(t).NewDatabase()
		if err != nil {
			t.Fatal(err)
		}
		f(t, func() *Catalog { return mustOpenURL(t, url, Options{Budget: testBudget}) })
	})
}

// testBudget is one that no stalled machine spends.
const testBudget = 8 * findTimeout / 10
