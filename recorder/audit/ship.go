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

	"golang.org/x/mod/sumdb/tlog"

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
	s := shipper{cfg: l.cfg, stats: &l.stats, unsure: map[string]bool{}}
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
	cfg    Config
	stats  *Stats
	keys   int             // statements that the store has by now
	unsure map[string]bool // epochs of which the store may have more than is known here
	bad    bool
}

// errDiffers says that the store has something else than the log here: that epoch waits
// until somebody has looked, and what the store has stays as it is.
var errDiffers = errors.New("the store has another log")

func (s *shipper) round() {
	ctx, cancel := context.WithTimeout(context.Background(), shipTimeout)
	defer cancel()
	err := s.all(ctx)
	if err != nil {
		s.stats.ShipFailed.Add(1)
	}
	if told := s.cfg.Told; told != nil && err != nil && !s.bad {
		told(fmt.Errorf("%w: %w", ErrNotStored, err))
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
	var differ error
	for _, name := range epochs {
		err := s.epoch(ctx, d.Epoch(name))
		if err != nil && !errors.Is(err, errDiffers) {
			return errors.Join(differ, err)
		}
		differ = errors.Join(differ, err)
	}
	return differ
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
	if from == 0 {
		s.unsure[e.Name] = true
	}
	for from < last.c.Size {
		content, n, err := s.stored(ctx, e, from, last)
		if err == nil && content == nil {
			content, n, err = s.fresh(ctx, e, from, last)
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

// stored returns the object that the store has of the entries from an index on, and the
// index behind it: no other is written in its place, since others begin behind it, and
// what was let go here is nowhere else. nil: there is none, or the beginning of the same
// entries in which nothing is signed. errDiffers when it is not what this log has.
func (s *shipper) stored(ctx context.Context, e Epoch, from int64, last point) (there []byte, end int64, err error) {
	name := chunkName(s.cfg.Identity.Node(), e.Name, from)
	there, err = readObject(ctx, s.cfg.Store, name)
	if errors.Is(err, recorder.ErrNotFound) {
		return nil, from, nil
	}
	if err != nil {
		return nil, from, err
	}
	lines, points := splitChunk(there)
	torn := len(lines) == 0
	if !torn && !bytes.Contains(there, []byte("\n\n")) {
		lines, torn = lines[:len(lines)-1], true // the last may be cut
	}
	end = from + int64(len(lines))
	size, signed := end, false
	for _, p := range points {
		c, err := peekCheckpoint(p)
		if err != nil {
			torn = true
			continue
		}
		size, signed = c.Size, true
		if root, _, err := e.rootAt(c.Size); err != nil || root != c.Root {
			size = max(size, last.c.Size+1)
		}
	}
	if max(size, end) > last.c.Size { // what the store has is the proof
		return nil, from, fmt.Errorf("%w: %s goes on where this one, of %d entries, ends or differs: the disk was put back to an older state", errDiffers, name, last.c.Size)
	}
	same, err := e.same(lines, from)
	switch {
	case err != nil:
		return nil, from, err
	case same && size == end && !torn:
		return there, end, nil
	case signed || !same:
		return nil, from, fmt.Errorf("%w: %s is damaged, and nothing that is kept here is let go: move it away, it is written anew from here", errDiffers, name)
	}
	return nil, from, nil
}

// same tells whether lines are the entries of the log from an index on.
func (e Epoch) same(lines [][]byte, from int64) (bool, error) {
	hash, done, err := e.hashes()
	if err != nil {
		return false, err
	}
	defer done()
	for i, l := range lines {
		if h, ok := hash(0, from+int64(i)); !ok || h != tlog.RecordHash(l) {
			return false, nil
		}
	}
	return true, nil
}

// fresh makes the object of the entries from an index on. It ends where one begins that
// the store has.
func (s *shipper) fresh(ctx context.Context, e Epoch, from int64, last point) (content []byte, n int64, err error) {
	to := last.c.Size
	if s.unsure[e.Name] {
		begins, err := s.begins(ctx, e, from, to)
		if err != nil {
			return nil, 0, err
		}
		s.unsure[e.Name] = begins < to
		to = begins
	}
	return e.chunk(ctx, from, to, last)
}

// begins returns where the first object begins that the store has behind an index, at most to.
func (s *shipper) begins(ctx context.Context, e Epoch, from, to int64) (int64, error) {
	dir := path.Dir(chunkName(s.cfg.Identity.Node(), e.Name, 0)) + "/"
	err := s.cfg.Store.List(ctx, dir, func(i recorder.BlobInfo) error {
		var n int64
		if _, err := fmt.Sscanf(path.Base(i.Name), "%d.log", &n); err == nil && n > from && n < to {
			to = n
		}
		return nil
	})
	return to, err
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

// chunk returns the object of the entries [from, to), or of as many as it takes, and the
// index behind it. The last checkpoint stands behind what it is of.
func (e Epoch) chunk(ctx context.Context, from, to int64, last point) (content []byte, n int64, err error) {
	firsts, err := e.firsts()
	if err != nil {
		return nil, 0, err
	}
	if n = from; fileOf(firsts, from) < 0 { // what is kept behind it would pass for it
		return nil, 0, fmt.Errorf("%w: entry %d of %s is kept neither here nor there", errDiffers, from, e.Name)
	}
	err = e.Each(ctx, from, func(line []byte) error {
		if n == to || len(content)+len(line) > shipBytesMax {
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
