package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// Faults that checking a log finds.
const (
	FaultMissing    = "missing"    // entries, links or checkpoints are not there
	FaultAltered    = "altered"    // an entry, or the log before a checkpoint, differs from what was signed
	FaultTruncated  = "truncated"  // the log ends before a checkpoint that speaks of more
	FaultReordered  = "reordered"  // an entry stands in another place than its own
	FaultSignature  = "signature"  // a signature does not fit, or its key is not known
	FaultChain      = "chain"      // a link does not follow from the one before it
	FaultFork       = "fork"       // two logs of one node differ where both were signed
	FaultClock      = "clock"      // the node's clock went back
	FaultLoss       = "loss"       // the node says that entries are missing
	FaultUnreadable = "unreadable" // it could not be read
)

// Finding is one thing that is wrong with a log, or worth knowing.
type Finding struct {
	Log    string `json:"log"` // node/epoch
	Entry  int64  `json:"entry"`
	Fault  string `json:"fault"`
	Detail string `json:"detail"`
	Note   bool   `json:"note,omitempty"` // true: no damage
}

// Rings are the keys of several nodes, or of one that lost its keys once.
type Rings []*Ring

// Of returns the ring that a signed note says it is signed with; nil: none of them.
func (rs Rings) Of(signed []byte) *Ring {
	i := strings.LastIndex(strings.TrimSuffix(string(signed), "\n"), "\n— ")
	if i < 0 {
		return nil
	}
	f := strings.Fields(string(signed)[i:])
	if len(f) != 3 {
		return nil
	}
	for _, r := range rs {
		if r.Node != f[1] {
			continue
		}
		if slices.ContainsFunc(r.Keys, func(k Key) bool { return k.idIn(f[2]) }) {
			return r
		}
	}
	return nil
}

// idIn tells whether the signature of a note, in base64, names the key.
func (k Key) idIn(sig string) bool {
	raw, err := decodeSig(sig)
	return err == nil && len(raw) >= 4 && fmt.Sprintf("%x", raw[:4]) == k.ID
}

// OpenLink checks and reads a signed link. ErrSignature.
func (rs Rings) OpenLink(signed []byte) (*Link, error) {
	r := rs.Of(signed)
	if r == nil {
		return nil, fmt.Errorf("link: %w: its key is not known", ErrSignature)
	}
	return r.OpenLink(signed)
}

// Has tells whether a key is in one of the rings.
func (rs Rings) Has(key string) bool {
	return slices.ContainsFunc(rs, func(r *Ring) bool { return r.Has(key) })
}

// Checker checks the entries of one log as they come.
type Checker struct {
	rings  Rings
	name   string
	found  func(Finding)
	visit  func(Entry)
	hash   func(level int, n int64) (tlog.Hash, bool) // as the log's own tree has it
	front  frontier
	n      int64
	last   time.Time
	seq    int64
	prev   string
	broken bool // the tree cannot be computed any more, or does not begin at its beginning
	gaps   []gap

	remembered map[int64]Checkpoint // by size; nil: none

	Points int64      // checkpoints that fit
	At     Checkpoint // the last of them
}

// NewChecker checks a log of a name, node/epoch.
func NewChecker(rings Rings, name string, visit func(Entry), found func(Finding)) *Checker {
	return &Checker{rings: rings, name: name, visit: visit, found: found, prev: zeroHash}
}

// Remember makes the checker compare the log with checkpoints that somebody kept
// elsewhere, as far as they are of this log. Those of more entries than come are
// not told of: see Size.
func (c *Checker) Remember(points []Checkpoint) {
	for _, p := range points {
		if p.Name() == c.name {
			if c.remembered == nil {
				c.remembered = map[int64]Checkpoint{}
			}
			c.remembered[p.Size] = p
		}
	}
}

// recall compares the log with a checkpoint that was kept elsewhere.
func (c *Checker) recall() {
	p, ok := c.remembered[c.n]
	if ok && !c.broken && c.front.root() != p.Root {
		c.findf(c.n, FaultFork, "at %d entries it is another log than the one that was signed at %s, by the checkpoint that was kept", c.n, p.At.Format(time.RFC3339))
	}
}

// clockSlack is how much a clock may go back without a word of it.
const clockSlack = time.Second

func (c *Checker) findf(entry int64, fault string, format string, args ...any) {
	c.found(Finding{Log: c.name, Entry: entry, Fault: fault, Detail: fmt.Sprintf(format, args...)})
}

func (c *Checker) notef(entry int64, fault string, format string, args ...any) {
	c.found(Finding{Log: c.name, Entry: entry, Fault: fault, Detail: fmt.Sprintf(format, args...), Note: true})
}

// Line takes the next entry.
func (c *Checker) Line(line []byte) error {
	e, err := ParseEntry(line)
	switch {
	case err != nil:
		c.findf(c.n, FaultAltered, "%v", err)
		c.step(line)
		return nil
	case e.N > c.n:
		c.skip(e.N)
	case e.N < c.n:
		c.behind(e)
		return nil
	}
	if node, _, _ := strings.Cut(c.name, "/"); e.Node != node {
		c.findf(e.N, FaultAltered, "it is of node %s", e.Node)
	}
	if back := c.last.Sub(e.At); back > clockSlack {
		c.notef(e.N, FaultClock, "the clock went back by %v: times before and after it do not compare", back.Round(time.Millisecond))
	}
	c.last = e.At
	c.chain(e)
	if e.Kind == KindLoss || e.Kind == KindBroken || e.Kind == KindTorn {
		c.notef(e.N, FaultLoss, "%s: %s", e.Kind, e.What)
	}
	c.step(line)
	if c.visit != nil {
		c.visit(e)
	}
	return nil
}

// gapsMax bounds the stretches of entries that may still come.
const gapsMax = 1000

// skip notes that the entries up to one do not stand before it.
func (c *Checker) skip(n int64) {
	if len(c.gaps) == gapsMax {
		c.flush()
	}
	c.gaps = append(c.gaps, gap{c.n, n - 1, map[int64]bool{}})
	c.n, c.broken, c.seq = n, true, 0
}

// gap is a stretch of entries that do not stand in their place.
type gap struct {
	from, to int64
	came     map[int64]bool // later
}

// behind takes an entry that stands behind its place, or a second time.
func (c *Checker) behind(e Entry) {
	c.broken = true
	for _, g := range c.gaps {
		if e.N >= g.from && e.N <= g.to && !g.came[e.N] {
			g.came[e.N] = true
			c.findf(e.N, FaultReordered, "it stands behind entry %d", c.n-1)
			if c.visit != nil {
				c.visit(e)
			}
			return
		}
	}
	c.findf(e.N, FaultReordered, "it stands there again, behind entry %d", c.n-1)
}

// flush tells of entries that did not come.
func (c *Checker) flush() {
	for _, g := range c.gaps {
		at := g.from
		for _, n := range slices.Sorted(maps.Keys(g.came)) {
			c.absent(at, n-1)
			at = n + 1
		}
		c.absent(at, g.to)
	}
	c.gaps = nil
}

func (c *Checker) absent(from, to int64) {
	if from <= to {
		c.findf(from, FaultMissing, "entries %d to %d are not there", from, to)
	}
}

// step takes a leaf into the tree.
func (c *Checker) step(line []byte) {
	h := tlog.RecordHash(line)
	if c.hash != nil {
		if want, ok := c.hash(0, c.n); ok && want != h {
			c.findf(c.n, FaultAltered, "the entry differs from what the tree has")
		}
	}
	if !c.broken {
		c.front.add(h)
	}
	c.n++
	c.recall()
}

// chain follows the links.
func (c *Checker) chain(e Entry) {
	if e.Link == nil {
		return
	}
	if c.seq > 0 || !c.broken {
		if e.Link.Seq != c.seq+1 || e.Link.Prev != c.prev {
			c.findf(e.N, FaultChain, "link %d does not follow from link %d", e.Link.Seq, c.seq)
		}
	}
	c.seq, c.prev = e.Link.Seq, e.Link.SHA256
}

// Point takes a checkpoint that stands behind the entries it is of.
func (c *Checker) Point(signed []byte) error {
	c.flush()
	r := c.rings.Of(signed)
	if r == nil {
		c.findf(c.n, FaultSignature, "a checkpoint is signed with a key that is not known")
		return nil
	}
	p, err := r.OpenCheckpoint(signed)
	if err != nil {
		c.findf(c.n, FaultSignature, "%v", err)
		return nil
	}
	switch {
	case p.Name() != c.name:
		c.findf(c.n, FaultAltered, "the checkpoint is that of log %s", p.Name())
	case p.Size > c.n:
		c.findf(c.n, FaultTruncated, "the log ends at entry %d, its checkpoint speaks of %d", c.n, p.Size)
	case p.Size < c.n:
		c.findf(p.Size, FaultReordered, "the checkpoint of %d entries stands behind %d", p.Size, c.n)
	case c.broken:
		c.findf(c.n, FaultMissing, "the checkpoint of %d entries cannot be compared: entries before it are not in their place", p.Size)
	case c.front.root() != p.Root:
		c.findf(c.n, FaultAltered, "entries %d to %d differ from what was signed", c.At.Size, p.Size-1)
		c.broken = true
	default:
		c.Points, c.At = c.Points+1, p
	}
	return nil
}

// Size returns how many entries there were.
func (c *Checker) Size() int64 { return c.n }

// StoredLog is a log in a store.
type StoredLog struct {
	Node, Epoch string
	store       recorder.Store
	chunks      []string // in order
}

// Name returns node/epoch.
func (s StoredLog) Name() string { return s.Node + "/" + s.Epoch }

// Stored lists the logs in a store and reads the keys of their nodes. Node ""
// is all nodes.
func Stored(ctx context.Context, st recorder.Store, node string) (logs []StoredLog, rings Rings, err error) {
	prefix := StorePrefix
	if node != "" {
		prefix = path.Join(StorePrefix, node) + "/"
	}
	statements := map[string][][]byte{}
	var roots []string
	err = st.List(ctx, prefix, func(i recorder.BlobInfo) error {
		part := strings.Split(strings.TrimPrefix(i.Name, StorePrefix), "/")
		switch {
		case len(part) == 4 && part[1] == keysDir:
			b, err := readObject(ctx, st, i.Name)
			if err != nil {
				return err
			}
			root := part[0] + "/" + part[2]
			if statements[root] == nil {
				roots = append(roots, root)
			}
			statements[root] = append(statements[root], b)
		case len(part) == 3:
			if n := len(logs); n == 0 || logs[n-1].Node != part[0] || logs[n-1].Epoch != part[1] {
				logs = append(logs, StoredLog{Node: part[0], Epoch: part[1], store: st})
			}
			l := &logs[len(logs)-1]
			l.chunks = append(l.chunks, i.Name)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list audit logs: %w", err)
	}
	for _, root := range roots {
		r, rerr := ParseRing(statements[root])
		if rerr != nil {
			err = errors.Join(err, fmt.Errorf("keys of node %s: %w: %w", root, ErrSignature, rerr))
			continue
		}
		rings = append(rings, r)
	}
	return logs, rings, err
}

func readObject(ctx context.Context, st recorder.Store, name string) ([]byte, error) {
	b, err := st.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }() // only read
	return readBlob(b)
}

// Each is that of Epoch, for what the store has.
func (s StoredLog) Each(ctx context.Context, line func([]byte) error, point func([]byte) error) error {
	for _, name := range s.chunks {
		b, err := readObject(ctx, s.store, name)
		if err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		lines, points := splitChunk(b)
		for _, l := range lines {
			if err := line(l); err != nil {
				return err
			}
		}
		for _, p := range points {
			if err := point(p); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// Check checks a log in a store whole, and against checkpoints that were kept elsewhere.
func (s StoredLog) Check(ctx context.Context, rings Rings, visit func(Entry), found func(Finding), kept ...Checkpoint) (*Checker, error) {
	c := NewChecker(rings, s.Name(), visit, found)
	c.Remember(kept)
	defer c.flush()
	return c, s.Each(ctx, c.Line, c.Point)
}

// Check checks the log on the node's own disk whole, and against checkpoints that
// were kept elsewhere. What was removed by retention is not read, but its hashes are.
func (e Epoch) Check(ctx context.Context, node string, rings Rings, visit func(Entry), found func(Finding), kept ...Checkpoint) (*Checker, error) {
	c := NewChecker(rings, node+"/"+e.Name, visit, found)
	c.Remember(kept)
	defer c.flush()
	hash, done, err := e.hashes()
	if err != nil {
		return c, err
	}
	defer done()
	c.hash = hash
	c.front.inner = func(level int, n int64, h tlog.Hash) {
		if want, ok := hash(level, n); ok && want != h && !c.broken {
			c.findf(c.n, FaultAltered, "the tree has another hash at level %d, %d: repair it by starting anew without the file tree", level, n)
		}
	}
	firsts, err := e.firsts()
	if err != nil {
		return c, err
	}
	if len(firsts) > 0 {
		for c.n < firsts[0] {
			h, ok := hash(0, c.n)
			if !ok {
				c.findf(c.n, FaultTruncated, "the tree ends")
				break
			}
			c.front.add(h)
			c.n++
			c.recall()
		}
		c.seq, c.prev = 0, ""
		if c.n > 0 {
			c.broken = false
		}
	}
	return c, e.Each(ctx, c.n, c.firstLink(c.n > 0), c.Point)
}

// firstLink lets the chain begin anywhere when entries before it are in the store alone.
func (c *Checker) firstLink(anywhere bool) func([]byte) error {
	if !anywhere {
		c.prev = zeroHash
		return c.Line
	}
	return func(line []byte) error {
		if e, err := ParseEntry(line); anywhere && err == nil && e.Link != nil {
			c.seq, c.prev, anywhere = e.Link.Seq-1, e.Link.Prev, false
		}
		return c.Line(line)
	}
}

// hashes reads the hashes of the tree.
func (e Epoch) hashes() (hash func(level int, n int64) (tlog.Hash, bool), done func(), err error) {
	file, err := e.fsys.OpenFile(path.Join(e.path, treeFile), 0, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return func(int, int64) (tlog.Hash, bool) { return tlog.Hash{}, false }, func() {}, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read tree: %w", err)
	}
	return func(level int, n int64) (h tlog.Hash, ok bool) {
		_, err := file.ReadAt(h[:], tlog.StoredHashIndex(level, n)*tlog.HashSize)
		return h, err == nil
	}, func() { closeRead(file) }, nil
}

func closeRead(f vfs.File) { _ = f.Close() } // only read
