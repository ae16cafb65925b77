package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// waitFor lets other goroutines run until something holds.
func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: does not come about", what)
		}
	}
}

func (s *saver) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

// TestSaveTogether: rows that come while somebody writes share one transaction;
// one whose caller gives up meanwhile is not saved.
func TestSaveTogether(t *testing.T) {
	c := mustOpen(t, filepath.Join(t.TempDir(), "c.db"))
	const n = 50
	c.write <- struct{}{} // somebody writes
	ctx, cancel := context.WithCancel(context.Background())
	gaveUp := make(chan error)
	go func() { gaveUp <- c.Save(ctx, testRow(n)) }()
	waitFor(t, "the one that gives up waits", func() bool { return c.saver.len() == 1 })
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := c.Save(context.Background(), testRow(i)); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, "all wait", func() bool { return c.saver.len() == n+1 })
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that gave up: %v", err)
	}
	c.saveWaiting()
	wg.Wait() // none needs a turn of its own, which nobody gives back
	<-c.write
	for i := range n + 1 {
		want := testRow(i)
		got, err := c.Get(context.Background(), want.Manifest.ID)
		if i == n {
			if err == nil {
				t.Error("the row of the one that gave up is there")
			}
			continue
		}
		if d := gocmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("row %d: %v\n%s", i, err, d)
		}
	}
}

// TestSaveTogetherFails: what fails for one fails for all, and each is told.
func TestSaveTogetherFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	c := mustOpen(t, path)
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if _, err := other.Exec("DROP TABLE recordings"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			var ce *Error
			if err := c.Save(context.Background(), testRow(i)); !errors.As(err, &ce) || ce.Hint == "" {
				t.Errorf("saved into a table that is gone: %v", err)
			}
		})
	}
	wg.Wait()
	if n := c.saver.len(); n > 0 {
		t.Errorf("%d rows are left waiting", n)
	}
}

// BenchmarkSaveTogether saves rows from as many goroutines as write recordings.
func BenchmarkSaveTogether(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", n), func(b *testing.B) {
			c := mustOpen(b, filepath.Join(b.TempDir(), "c.db"))
			b.SetParallelism((n + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if err := c.Save(context.Background(), testRow(i%1000)); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
