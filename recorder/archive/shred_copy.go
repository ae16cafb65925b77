package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/segment"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// ErrCopyLeft says that the key of a recording is destroyed here, and that its store,
// which does not have the recording yet, may still have a copy of it.
var ErrCopyLeft = errors.New("its store may still have a copy of the key")

const copyTime = 10 * time.Second // to look for a copy and to replace it

// destroyCopy puts the end of a recording, which stands in the spool, in the place of
// the key that a waiting upload may have carried to its store. An upload that is under
// way is outwaited. What waits and was never sent has no copy.
func (a *Archive) destroyCopy(ctx context.Context, p place) error {
	defer a.lockKey(p.id())()
	if !a.isSpooled(p.id()) || !p.queued() {
		return nil
	}
	may, down := p.queue.mayHaveKey(p.id())
	switch {
	case !may:
		return nil
	case down:
		return fmt.Errorf("%w: it is down", ErrCopyLeft)
	}
	content, err := vfs.ReadFile(a.fsys, a.spool(p.id(), segment.KeyFile), segment.KeyFileBytesMax)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, copyTime)
	defer cancel()
	b, err := p.store.Open(ctx, p.object(segment.KeyFile))
	if errors.Is(err, recorder.ErrNotFound) {
		return nil
	}
	if err == nil {
		_ = b.Close() // only looked for
		err = p.store.Put(ctx, p.object(segment.KeyFile), content)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCopyLeft, err)
	}
	return nil
}

// mayHaveKey tells whether the store may have got the key of a recording that waits,
// and whether it is down.
func (q *queue) mayHaveKey(id string) (may, down bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[id]
	return it == nil || it.keyed || it.inherited, q.down
}
