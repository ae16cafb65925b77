package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // another process at the catalogue

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/catalog/pgtest"
)

// liveFault is a fault of the machine during two calls, one of which writes
// little and one so much that its budget does not outlast the fault.
type liveFault struct {
	name   string
	cfg    func(t *testing.T, c *liveConfig)
	begin  func(t *testing.T, c *liveConfig) (end func() error)
	detail string // of the gap of the call that writes much; empty: it loses nothing either
	rows   bool   // the list of recordings stays empty until the fault ends
}

// Times in a call of TestLiveFaults.
const (
	faultBefore = 1500 * time.Millisecond
	faultLasts  = 3500 * time.Millisecond
	faultAfter  = time.Second

	liveDiskFull = "no space left on device"
)

func liveFaults() []liveFault {
	return []liveFault{
		{
			name: "store read-only", // the spool lies elsewhere and takes all
			cfg: func(t *testing.T, c *liveConfig) {
				c.Store = mountTmpfs(t, 80<<20)
				c.SegmentMax = time.Second // so that the store is needed during the call
			},
			begin: func(t *testing.T, c *liveConfig) func() error {
				remount := func(flags uintptr) error {
					return unix.Mount("tmpfs", c.Store, "tmpfs", unix.MS_REMOUNT|flags, "")
				}
				if err := remount(unix.MS_RDONLY); err != nil {
					t.Fatal(err)
				}
				return func() error { return remount(0) }
			},
		},
		{
			name: "disk full", detail: liveDiskFull,
			cfg: func(t *testing.T, c *liveConfig) {
				dir := mountTmpfs(t, 80<<20)
				c.Store, c.Spool = filepath.Join(dir, "store"), filepath.Join(dir, "spool")
			},
			begin: func(t *testing.T, c *liveConfig) func() error {
				name := filepath.Join(filepath.Dir(c.Store), "filler")
				f := must(os.Create(name))(t)
				for size := int64(80 << 20); size > 0; size /= 2 { // all that is left, to the last page
					for at := int64(0); ; at += size {
						end := must(f.Stat())(t).Size()
						if err := unix.Fallocate(int(f.Fd()), 0, end, size); err != nil {
							break
						}
					}
				}
				return func() error { return errors.Join(f.Close(), os.Remove(name)) }
			},
		},
		{
			name: "catalogue locked", rows: true,
			begin: func(t *testing.T, c *liveConfig) func() error {
				db := must(sql.Open("sqlite", filepath.Join(c.Dir, "catalog.db")))(t)
				conn := must(db.Conn(context.Background()))(t)
				if _, err := conn.ExecContext(context.Background(), "BEGIN EXCLUSIVE"); err != nil {
					t.Fatal(err)
				}
				return func() error { return errors.Join(conn.Close(), db.Close()) }
			},
		},
		postgresStops(),
	}
}

// postgresStops is a catalogue whose server is not there for a time, in the middle of calls.
func postgresStops() liveFault {
	var pg *pgtest.Cluster
	return liveFault{
		name: "PostgreSQL stopped", rows: true,
		cfg: func(t *testing.T, c *liveConfig) {
			var err error
			if pg, err = pgtest.Start(""); errors.Is(err, pgtest.ErrMissing) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := pg.Close(); err != nil {
					t.Error(err)
				}
			})
			c.Catalog = must(pg.NewDatabase())(t)
		},
		begin: func(t *testing.T, _ *liveConfig) func() error {
			if err := pg.Stop(); err != nil {
				t.Fatal(err)
			}
			return pg.Start
		},
	}
}

// mountTmpfs mounts a file system of its own, whose faults harm nobody else.
func mountTmpfs(t *testing.T, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", bytes)); err != nil {
		t.Skipf("a file system that can fail needs root, and leave to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestLiveFaults holds promise 1 on a real machine: whatever becomes of store,
// disk and catalogue, every packet arrives unchanged, and the recordings say
// what they lack. How long packets took is told beside a daemon without a
// fault; that they are not later is held by TestSimCallIsUnharmed, to the
// nanosecond and on no machine's clock.
func TestLiveFaults(t *testing.T) {
	for _, f := range liveFaults() {
		t.Run(f.name, func(t *testing.T) {
			f.run(t)
		})
	}
}

func (f liveFault) run(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	healthy, others := faultWorld(t, liveConfig{Dir: t.TempDir()})
	cfg := liveConfig{Dir: t.TempDir()}
	if f.cfg != nil {
		f.cfg(t, &cfg)
	}
	d, calls := faultWorld(t, cfg)
	time.Sleep(faultBefore)
	end := f.begin(t, &d.cfg)
	from := time.Now()
	time.Sleep(faultLasts)
	if !f.rows {
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	to := time.Now() // it has ended by then, however long the machine took for it
	time.Sleep(faultAfter)
	all := append(slices.Clone(calls), others...)
	if err := together(len(all), func(i int) error { return all[i].bye(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	healthy.stop()
	f.checkPackets(t, calls, others, from, to)
	if f.rows {
		f.checkRows(t, d, end)
	}
	recordings := d.recordings(len(calls))
	f.checkRecording(t, d, recordings[calls[0].external.ID()], calls[0], "", to.Sub(from)) // its budget outlasts the fault
	f.checkRecording(t, d, recordings[calls[1].external.ID()], calls[1], f.detail, to.Sub(from))
	t.Log(strings.TrimSpace(d.command("verify")))
	d.stop()
}

// faultWorld is a daemon with a call that writes little and one that writes much.
func faultWorld(t *testing.T, cfg liveConfig) (*liveDaemon, []*livePair) {
	t.Helper()
	trunks, agents := twoTrunks(t, recorder.FormatOggOpus, recorder.FormatWAVPCM16)
	cfg.Trunks, cfg.Listen, cfg.WriteBudget = trunks, []string{"udp://" + freeUDP(t, liveHost).String()}, "64KiB"
	d := newLiveDaemon(t, cfg)
	d.start()
	return d, []*livePair{d.call(agents[0], [2]float64{440, 1000}), d.call(agents[1], [2]float64{620, 1300})}
}

// checkPackets compares all packets of all calls, and tells the time that they
// took beside that through the healthy daemon: what else the machine does meets both.
func (f liveFault) checkPackets(t *testing.T, calls, others []*livePair, from, to time.Time) {
	t.Helper()
	var all, control []livePacket
	for i := range calls {
		all = append(all, calls[i].packets(t)...)
		control = append(control, others[i].packets(t)...)
	}
	us := func(ps []livePacket, percent int) int64 { return percentile(ps, from, to, percent).Microseconds() }
	t.Logf("%d packets, none lost or changed; one way in us, median, 99 %%, most: %d, %d, %d with the fault, %d, %d, %d at the same time without",
		len(all), us(all, 50), us(all, 99), us(all, 100), us(control, 50), us(control, 99), us(control, 100))
}

// checkRows holds that recordings are made without the catalogue, and are listed when it
// is back.
func (f liveFault) checkRows(t *testing.T, d *liveDaemon, end func() error) {
	t.Helper()
	rows := filepath.Join(d.cfg.Spool, "rows")
	d.within(livePublishLimit, "the recordings wait for the catalogue", func() error {
		entries, err := os.ReadDir(rows)
		if len(entries) != 2 {
			err = cmp.Or(err, fmt.Errorf("%d rows wait", len(entries)))
		}
		return err
	})
	if err := end(); err != nil {
		t.Fatal(err)
	}
	free := time.Now()
	d.recordings(2)
	t.Logf("listed %d ms after the catalogue was free", time.Since(free).Milliseconds())
}

// checkRecording looks for the gap that a fault left, or for none.
func (f liveFault) checkRecording(t *testing.T, d *liveDaemon, m *recorder.Manifest, c *livePair, detail string, lasted time.Duration) {
	t.Helper()
	if m == nil {
		t.Fatal("a call has no recording")
	}
	checkAccount(t, m)
	if m.Call.EndCause != "bye" {
		t.Errorf("recording %s: end cause %q", m.ID, m.Call.EndCause)
	}
	var lost [2]int64
	for _, g := range m.Gaps {
		if g.Cause != recorder.GapOverrun && g.Cause != recorder.GapDisk {
			continue
		}
		lost[g.Channel] += g.DurationMS
		if !strings.Contains(g.Detail, cmp.Or(detail, "none is expected")) {
			t.Errorf("recording %s: gap %+v, want detail %q", m.ID, g, detail)
		}
	}
	t.Logf("%s: real time %d ms, lost to the fault %d ms", m.Format, m.RealMS, lost)
	most := lasted.Milliseconds() + 2000
	if lost[0] != lost[1] || detail != "" && (lost[0] == 0 || lost[0] > most) {
		t.Errorf("recording %s: %v ms of overrun", m.ID, lost)
	}
	if m.RealMS < (faultBefore + faultLasts + faultAfter).Milliseconds() {
		t.Errorf("recording %s: real time %d ms", m.ID, m.RealMS)
	}
	checkVoices(t, m, d.export(m.ID), c.hz)
}
