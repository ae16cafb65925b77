package archive

import (
	"context"
	"errors"
	neturl "net/url"
	"sync"
	"time"

	"github.com/trunktap/trunktap/recorder"
)

// lazyCatalog opens the catalogue when it is needed, and again after a failure.
type lazyCatalog struct {
	cfg   *Config // constant
	owned bool    // constant: Close closes it

	mu      sync.Mutex // guards all following
	open    recorder.Catalog
	opening *opening // nil: nobody opens it
	late    bool     // somebody has waited for that in vain
	down    bool     // the last save failed: publishing does not try before CatchUp or Check has succeeded
	closed  bool
}

// opening is one attempt.
type opening struct {
	done   chan struct{} // closed when it has ended
	cancel context.CancelFunc
	err    error // written before done is closed
}

func (l *lazyCatalog) get(ctx context.Context) (recorder.Catalog, error) {
	l.mu.Lock()
	if l.open != nil || l.closed || l.late {
		defer l.mu.Unlock()
		return l.openNow()
	}
	if l.opening == nil {
		l.begin()
	}
	o := l.opening
	l.mu.Unlock()
	var late <-chan time.Time
	if l.cfg.CatalogWait > 0 {
		t := time.NewTimer(l.cfg.CatalogWait)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-o.done:
	case <-late:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-o.done:
		if o.err != nil {
			return nil, o.err
		}
	default:
		l.late = l.opening == o
	}
	return l.openNow()
}

// openNow returns what there is. The lock is held.
func (l *lazyCatalog) openNow() (recorder.Catalog, error) {
	switch {
	case l.open != nil:
		return l.open, nil
	case l.closed:
		return nil, errors.New("archive is closed")
	}
	return nil, recorder.ErrUpgrading
}

// begin opens in a goroutine of its own, which ends with the attempt. The lock is held.
func (l *lazyCatalog) begin() {
	url := l.cfg.CatalogURL
	if url == "" {
		url = "sqlite://" + (&neturl.URL{Path: l.cfg.CatalogPath}).EscapedPath()
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &opening{done: make(chan struct{}), cancel: cancel}
	l.opening = o
	go func() {
		defer cancel()
		c, err := l.cfg.openCatalog(ctx, url, l.cfg.CatalogOptions)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.opening, l.late = nil, false
		if o.err = err; err == nil {
			l.open = c
		}
		close(o.done)
	}()
}

func (l *lazyCatalog) setDown(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
}

func (l *lazyCatalog) isDown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

// close ends an attempt to open it as well; what that has done is undone by its
// transaction, and begun again by the next one.
func (l *lazyCatalog) close() error {
	l.mu.Lock()
	l.closed = true
	o := l.opening
	l.mu.Unlock()
	if o != nil {
		o.cancel()
		<-o.done
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil || !l.owned {
		return nil
	}
	err := l.open.Close()
	l.open = nil
	return err
}
