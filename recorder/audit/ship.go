package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// StorePrefix begins the names of objects of logs. No recording lies below it.
const StorePrefix = "audit/"

// Owned tells whether an object of a store is one of a log.
func Owned(name string) bool { return strings.HasPrefix(name, StorePrefix) }

func chunkName(node, epoch string, first int64) string {
	return path.Join(StorePrefix, node, epoch, fmt.Sprintf("%016d.log", first))
}

// keyName names the statement of a key; root is the id of the first one of its ring.
func keyName(node, root string, number int) string {
	return path.Join(StorePrefix, node, keysDir, root, fmt.Sprintf("%04d.txt", number))
}

const keysDir = "keys"

// ship is the goroutine that puts into the store what the log has.
func (l *Log) ship() {
	s := shipper{cfg: l.cfg, stats: &l.stats}
	defer func() {
		<-l.gone
		s.round() // what the last checkpoint covers
	}()
	retry := time.NewTicker(l.cfg.Checkpoint)
	defer retry.Stop()
	for {
		s.round()
		select {
		case <-l.shipWake:
		case <-retry.C:
		case <-l.closing:
			return
		}
	}
}

type shipper struct {
	cfg   Config
	stats *Stats
	keys  int // statements that the store has by now
	bad   bool
}

func (s *shipper) round() {
	ctx, cancel := context.WithTimeout(context.Background(), shipTimeout)
	defer cancel()
	err := s.all(ctx)
	if err != nil {
		s.stats.ShipFailed.Add(1)
	}
	if told := s.cfg.Told; told != nil && err != nil && !s.bad {
		told(fmt.Errorf("audit log: put it into the store: %w", err))
	}
	s.bad = err != nil
}

func (s *shipper) all(ctx context.Context) error {
	ring := s.cfg.Identity.Ring()
	for ; s.keys < len(ring.Keys); s.keys++ {
		if err := s.cfg.Store.Put(ctx, keyName(ring.Node, ring.Keys[0].ID, s.keys+1), []byte(ring.Keys[s.keys].Statement)); err != nil {
			return err
		}
	}
	d := OpenDir(s.cfg.FS, s.cfg.Dir)
	epochs, err := d.Epochs()
	if err != nil {
		return err
	}
	for _, name := range epochs {
		if err := s.epoch(ctx, d.Epoch(name)); err != nil {
			return err
		}
	}
	return nil
}

// epoch puts the entries up to the last checkpoint into the store.
func (s *shipper) epoch(ctx context.Context, e Epoch) error {
	last, err := e.latest()
	if err != nil || last.signed == nil {
		return err
	}
	done, err := e.shipped()
	if err != nil {
		return err
	}
	from := done.Size
	for from < last.c.Size {
		content, n, err := s.stored(ctx, e.Name, from)
		if err == nil && n <= from {
			content, n, err = e.chunk(ctx, from, last)
		}
		if err != nil {
			return err
		}
		// Of what is there the same again: it may have come there without being durable.
		if err := s.cfg.Store.Put(ctx, chunkName(s.cfg.Identity.Node(), e.Name, from), content); err != nil {
			return err
		}
		from = n
		js, err := json.Marshal(shipped{from})
		if err != nil {
			return err
		}
		if err := vfs.WriteFile(s.cfg.FS, filepath.Join(e.path, shippedFile), js); err != nil {
			return err
		}
		s.stats.Shipped.Add(1)
	}
	s.stats.ShippedSize.Store(from)
	return s.retain(e)
}

// stored returns the object that the store has of the entries from an index on, and how
// far it goes: no other is written in its place, since others begin behind it. At most from: there is
// none, or none with a checkpoint of its own, which is the same each time it is
// written. It is an error when it has more than this log: then the disk was put back to
// an older state, and what the store has is the proof.
func (s *shipper) stored(ctx context.Context, epoch string, from int64) (there []byte, end int64, err error) {
	name := chunkName(s.cfg.Identity.Node(), epoch, from)
	b, err := s.cfg.Store.Open(ctx, name)
	if errors.Is(err, recorder.ErrNotFound) {
		return nil, from, nil
	}
	if err != nil {
		return nil, from, err
	}
	defer func() { _ = b.Close() }() // only read
	there, err = readBlob(b)
	if err != nil {
		return nil, from, err
	}
	_, points := splitChunk(there)
	end = from
	for _, p := range points {
		c, err := peekCheckpoint(p)
		if err != nil {
			continue
		}
		root, size, err := OpenDir(s.cfg.FS, s.cfg.Dir).Epoch(epoch).rootAt(c.Size)
		if err != nil || root != c.Root {
			return nil, from, fmt.Errorf("%s: the store has a log of %d entries that differs from the one here, of %d: the disk was put back to an older state", name, c.Size, size)
		}
		end = max(end, c.Size)
	}
	return there, end, nil
}

// retain removes files of entries that the store has, beyond the room for them.
// The tree stays, and with it every proof.
func (s *shipper) retain(e Epoch) error {
	if s.cfg.LocalBytesMax <= 0 {
		return nil
	}
	firsts, err := e.firsts()
	if err != nil {
		return err
	}
	var total int64
	sizes := make([]int64, len(firsts))
	for i, first := range firsts {
		info, err := s.cfg.FS.Stat(filepath.Join(e.path, entriesFile(first)))
		if err != nil {
			return err
		}
		sizes[i] = info.Size()
		total += sizes[i]
	}
	done, err := e.shipped()
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(firsts) && total > s.cfg.LocalBytesMax && firsts[i+1] <= done.Size; i++ {
		if err := s.cfg.FS.Remove(filepath.Join(e.path, entriesFile(firsts[i]))); err != nil {
			return err
		}
		total -= sizes[i]
	}
	return nil
}

// chunk returns the object of the entries from an index on, and the index behind it.
func (e Epoch) chunk(ctx context.Context, from int64, last point) (content []byte, n int64, err error) {
	n = from
	err = e.Each(ctx, from, func(line []byte) error {
		if n == last.c.Size || len(content)+len(line) > shipBytesMax {
			return errStop
		}
		content = append(append(content, line...), '\n')
		n++
		return nil
	}, func([]byte) error { return nil })
	if err != nil && !errors.Is(err, errStop) {
		return nil, 0, err
	}
	if n == from {
		return nil, 0, fmt.Errorf("entry %d is not there", from)
	}
	content = append(content, '\n')
	if n == last.c.Size {
		content = append(content, last.signed...)
	}
	return content, n, nil
}

// splitChunk returns the lines and the checkpoints of an object.
func splitChunk(b []byte) (lines [][]byte, points [][]byte) {
	head, tail, _ := bytes.Cut(b, []byte("\n\n"))
	if len(head) > 0 {
		lines = bytes.Split(head, []byte("\n"))
	}
	if len(tail) > 0 {
		points = append(points, tail)
	}
	return lines, points
}

// chunkBytesMax bounds what is read of an object of a log.
const chunkBytesMax = shipBytesMax + EntryBytesMax + checkpointBytesMax

func readBlob(b recorder.Blob) ([]byte, error) {
	if b.Size() > chunkBytesMax {
		return nil, fmt.Errorf("object of %d bytes: at most %d", b.Size(), chunkBytesMax)
	}
	out := make([]byte, b.Size())
	n, err := b.ReadAt(out, 0)
	if n == len(out) {
		err = nil
	}
	return out, err
}
