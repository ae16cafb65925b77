package seal

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"
)

// cache keeps intermediate keys open for reading: a recording has several files,
// and many recordings share a key.
type cache struct {
	keysMax int           // constant
	keepFor time.Duration // constant

	mu      sync.Mutex // guards all following
	entries map[[sha256.Size]byte]*cached
}

// cached is an open key, or one that is being opened.
type cached struct {
	ready chan struct{} // closed when key and err are set
	key   *dataKey
	err   error
	until time.Time // guarded by the cache's mu
}

// use calls with with the key, which open opens when it is not there; one caller
// opens it, the others wait. hit: nobody had to be asked.
func (c *cache) use(ctx context.Context, name string, wrapped []byte, open func(context.Context) (*dataKey, error), with func(*dataKey) error) (hit bool, err error) {
	id := sha256.Sum256(append([]byte(name+"\x00"), wrapped...))
	for range 3 { // an entry may be dropped in between
		x, mine := c.enter(id, time.Now())
		if mine {
			x.key, x.err = open(ctx)
			if x.err != nil {
				c.leave(id, x)
			}
			close(x.ready)
		}
		select {
		case <-x.ready:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		switch {
		case x.err == nil:
			if err = with(x.key); !errors.Is(err, errClosed) {
				return !mine, err
			}
		case mine || !errors.Is(x.err, context.Canceled):
			return false, x.err
		default:
			err = x.err // who asked gave up; ask again
		}
	}
	return false, err
}

// enter returns the entry of a key, and whether the caller has to open it.
func (c *cache) enter(id [sha256.Size]byte, now time.Time) (_ *cached, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.entries[id]; x != nil && now.Before(x.until) {
		return x, false
	}
	c.drop(func(x *cached) bool { return !now.Before(x.until) })
	if len(c.entries) >= c.keysMax {
		var oldest *cached
		for _, x := range c.entries {
			if oldest == nil || x.until.Before(oldest.until) {
				oldest = x
			}
		}
		c.drop(func(x *cached) bool { return x == oldest })
	}
	if c.entries == nil {
		c.entries = map[[sha256.Size]byte]*cached{}
	}
	x := &cached{ready: make(chan struct{}), until: now.Add(c.keepFor)}
	c.entries[id] = x
	return x, true
}

func (c *cache) leave(id [sha256.Size]byte, x *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[id] == x {
		delete(c.entries, id)
	}
}

// drop wipes entries. mu is held.
func (c *cache) drop(which func(*cached) bool) {
	for id, x := range c.entries {
		if !which(x) {
			continue
		}
		delete(c.entries, id)
		go func() { // it may still be opening
			<-x.ready
			if x.key != nil {
				x.key.Close()
			}
		}()
	}
}

// clear wipes all of it.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(func(*cached) bool { return true })
}

// tidy wipes what is too old.
func (c *cache) tidy(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(func(x *cached) bool { return !now.Before(x.until) })
}

func (c *cache) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}
