package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/recorder/vfs"
	"github.com/trunktap/trunktap/recorder/vfs/vfstest"
	"github.com/trunktap/trunktap/sip/siptest"
	"github.com/trunktap/trunktap/suppress"
)

// matrixFault is a column of the matrix of faults.
type matrixFault struct {
	name  string
	kind  vfstest.Kind
	err   error
	until int // operations that a full disk stays full; 0: for ever
	dies  bool
}

// matrixFaults are what each file operation of a call meets in turn. How a file loses
// its last blocks is drawn anew at each death (vfstest.Mem.CrashClone).
var matrixFaults = []matrixFault{
	{name: "EIO", kind: vfstest.Fail, err: syscall.EIO},
	{name: "ENOSPC", kind: vfstest.Fail, err: syscall.ENOSPC},
	{name: "EDQUOT", kind: vfstest.Fail, err: syscall.EDQUOT},
	{name: "short write", kind: vfstest.ShortWrite, err: syscall.ENOSPC},
	{name: "done, and EIO", kind: vfstest.DoneButErr, err: syscall.EIO},
	{name: "slow, 20 s", kind: vfstest.Slow},
	{name: "full for a while", kind: vfstest.FailFrom, err: syscall.ENOSPC, until: 25},
	{name: "full from here on", kind: vfstest.FailFrom, err: syscall.ENOSPC, dies: true},
	{name: "EIO from here on", kind: vfstest.FailFrom, err: syscall.EIO, dies: true},
	{name: "death, blocks torn", kind: vfstest.Crash, dies: true},
}

// matrixLost is what may not be durable yet of a call when the machine dies.
const matrixLost = 2 * time.Second

// TestSimFaultMatrix lets every file operation of a whole call meet every fault: the call
// does not notice, and its recording is published whole, or with what is missing named,
// by this process or by the next.
func TestSimFaultMatrix(t *testing.T) {
	for _, f := range matrixFaults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			hits := map[string]int{}
			n := 1
			for ; ; n++ {
				hit := matrixRun(t, f, n)
				if hit == "" {
					break
				}
				op, _, _ := strings.Cut(hit, " ")
				hits[op]++
			}
			if n < 30 {
				t.Errorf("only %d operations", n)
			}
			t.Logf("%d operations: %v", n-1, hits)
		})
	}
}

// matrixRun is one call whose n-th file operation meets the fault; it returns which
// operation that was.
func matrixRun(t *testing.T, mf matrixFault, n int) (hit string) {
	t.Helper()
	mem := vfstest.NewMem()
	f := &vfstest.Faults{FS: mem, Kind: mf.kind, Err: mf.err, Delay: 20 * time.Second}
	cat := &matrixCatalog{rows: map[string]recorder.Row{}}
	a := matrixOpen(t, f, cat)
	f.At = f.Ops() + n // after the start
	if mf.until > 0 {
		f.Until = f.At + mf.until
	}
	var origin, end time.Time
	cfg := worldConfig{plan: simPlan(), abandon: true}
	cfg.rec.NewSink, cfg.rec.Ready = a.NewSink, a.CanRecord
	inWorld(t, cfg, func(w *world) {
		c := w.inbound(siptest.CallOptions{}, siptest.Answer{})
		origin = time.Now()
		time.Sleep(2500 * time.Millisecond)
		c.signal(suppress.PauseStart, 0)
		time.Sleep(700 * time.Millisecond)
		c.signal(suppress.PauseEnd, 0)
		time.Sleep(1800 * time.Millisecond)
		c.external.Media().Play(siptest.DTX())
		c.internal.Media().Play(siptest.DTX())
		time.Sleep(100 * time.Millisecond)
		end = time.Now()
		c.bye(c.external)
		c.unharmed(240)
		if !mf.dies {
			time.Sleep(time.Minute) // it is tried again
		}
	})
	what := fmt.Sprintf("%s: %s", mf.name, f.Hit())
	if !mf.dies || f.Hit() == "" {
		f.At = 0
		matrixCheck(t, what, a, mem, end.Sub(origin), end.Sub(origin)-100*time.Millisecond)
		return f.Hit()
	}
	durable := max(0, min(f.When().Sub(origin), end.Sub(origin))-matrixLost)
	for seed := range uint64(2) {
		disk := mem.CrashClone(seed)
		next := matrixOpen(t, disk, cat)
		list, err := next.Recover(context.Background())
		if err != nil {
			t.Errorf("%s: recover: %v", what, err)
		}
		for _, r := range list {
			if r.Err != nil {
				t.Errorf("%s: recover %s: %v", what, r.ID, r.Err)
			}
		}
		matrixCheck(t, what, next, disk, end.Sub(origin), durable)
	}
	return f.Hit()
}

func matrixOpen(t *testing.T, fs vfs.FS, cat recorder.Catalog) *archive.Archive {
	t.Helper()
	return must(archive.Open(archive.Config{StoreDir: "/data/store", SpoolDir: "/data/spool", KeyFile: "/data/keys.json", FS: fs, Catalog: cat}))(t)
}

// matrixCheck holds the invariants: a call of that length has one recording with at
// least what was durable, whose account adds up, which verifies, and nothing is left over.
func matrixCheck(t *testing.T, what string, a *archive.Archive, disk *vfstest.Mem, length, durable time.Duration) {
	t.Helper()
	ctx := context.Background()
	if err := a.Rebuild(ctx, nil); err != nil {
		t.Errorf("%s: rebuild: %v", what, err)
	}
	page, err := a.Find(ctx, recorder.Query{})
	if err != nil || len(page.Rows) > 1 || len(page.Rows) == 0 && durable > 0 {
		t.Errorf("%s: %d recordings, %v; %s were durable", what, len(page.Rows), err, durable)
		return
	}
	for _, name := range disk.Files() {
		if strings.HasPrefix(name, "/data/spool/") && !strings.HasPrefix(name, "/data/spool/rows/") {
			t.Errorf("%s: left in the spool: %s", what, name)
		}
	}
	if len(page.Rows) == 0 {
		return
	}
	m := must(a.Get(ctx, page.Rows[0].Manifest.ID))(t)
	real := time.Duration(m.RealMS) * time.Millisecond
	if got := m.AudioMS + windowsMS(m); got != m.RealMS || real < durable || real > length+time.Second {
		t.Errorf("%s: audio and windows are %d ms of %d; at least %s of %s were durable", what, got, m.RealMS, durable, length)
	}
	missing := int64(0)
	for _, g := range m.Gaps {
		if g.Channel == 0 && g.Cause != "absent" {
			missing += g.DurationMS
		}
	}
	if m.Call.EndCause == "bye" && missing > 100 { // whatever it was, the queue has room for it
		t.Errorf("%s: %d ms missing: %+v", what, missing, m.Gaps)
	}
	if r, err := a.Verify(ctx, archive.VerifyQuery{}, nil); err != nil || len(r.Findings) > 0 {
		t.Errorf("%s: verify: %+v, %v", what, r.Findings, err)
	}
}

// matrixCatalog is a catalogue in memory.
type matrixCatalog struct {
	recorder.Catalog
	mu   sync.Mutex
	rows map[string]recorder.Row
}

func (c *matrixCatalog) Save(_ context.Context, r recorder.Row) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows[r.Manifest.ID] = r
	return nil
}

func (c *matrixCatalog) Get(_ context.Context, id string) (recorder.Row, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.rows[id]
	if !ok {
		return r, recorder.ErrNotFound
	}
	return r, nil
}

func (c *matrixCatalog) Find(context.Context, recorder.Query) (p recorder.Page, _ error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.rows {
		p.Rows = append(p.Rows, r)
	}
	return p, nil
}

func (c *matrixCatalog) Delete(_ context.Context, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.rows, id)
	return nil
}

func (c *matrixCatalog) Check(context.Context) error { return nil }
func (c *matrixCatalog) Close() error                { return nil }
