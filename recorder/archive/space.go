package archive

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// What is done when a disk is low.
const (
	DoStopNew       = "stop-new"       // calls go on without recordings, as their trunk's on_failure says
	DoRefuseCalls   = "refuse-calls"   // calls that would be recorded are refused
	DoDeleteExpired = "delete-expired" // what its retention lets go is deleted; where nothing is, stop-new
)

// Share is an amount of a disk: bytes, or a share of its size. Both zero: none.
type Share struct {
	Bytes   int64
	Percent float64 // 0 to 100
}

// of returns the bytes that it is of a disk.
func (s Share) of(total int64) int64 {
	if s.Percent > 0 {
		return int64(float64(total) * s.Percent / 100)
	}
	return s.Bytes
}

// SpaceConfig says what is done when disks fill up.
type SpaceConfig struct {
	SpoolMax Share  // beyond it recordings give way, those of the least priority first; none: no bound but the disk's
	Warn     Share  // less free space than that is an event
	Low      Share  // and less than that has consequences
	Do       string // which; empty: stop-new
}

const (
	spaceEvery  = time.Second // how often it is looked at
	probeWait   = 200 * time.Millisecond
	expireEvery = time.Minute // how often it is tried again to delete something when nothing could be
	// thinAfter is how long the spool may be full before audio is given up for it: the
	// queues in memory have room for so long.
	thinAfter     = 10 * time.Second
	thinStep      = 10  // one in so many recordings gives way, or comes back, at a time
	recoverFactor = 1.2 // so much more must be free for a state to end
	spoolFactor   = 0.9 // so much of SpoolMax must be used at most for thinning to end
)

// Level of a disk.
type Level uint8

// Levels, the worst last.
const (
	LevelFine Level = iota
	LevelWarned
	LevelLow
)

// String names the level.
func (l Level) String() string { return [...]string{"fine", "warn", "low"}[l] }

// DiskState is how full a disk is.
type DiskState struct {
	Dir         string
	Free, Total int64 // bytes; of what an unprivileged process may have
	Level       Level
}

// SpaceState is how full disks are, and what that does.
type SpaceState struct {
	Disks      []DiskState
	SpoolBytes int64  // of recordings in the spool
	Going      int    // recordings that go on
	Thinned    int    // of them, those that get gaps for want of room
	Refusing   string // why no recording begins; empty: they do
}

// space watches the disks. Its goroutine owns what is below it; others read
// what is in atomics.
type space struct {
	thinned atomic.Pointer[map[string]bool]      // recordings that get gaps
	refusal atomic.Pointer[recorder.NotAdmitted] // nil: recordings may begin
	last    atomic.Pointer[SpaceState]           // what was seen last
	cancel  context.CancelFunc
	ended   sync.WaitGroup

	levels    map[string]Level
	probes    map[string]*probe // of disks that have not answered yet
	giving    int               // recordings that give way
	fullSince time.Time         // the spool has no room; zero: it has
	behind    map[string]bool
	making    *making   // room is being made; nil: it is not
	barren    time.Time // when making room came to nothing; zero: it did not
}

// liveSpool is what a recording that goes on takes up in the spool.
type liveSpool struct {
	priority recorder.Priority
	since    uint64 // the smaller the older
	bytes    atomic.Int64
	key      liveKey // guarded by Archive.mu
}

func (a *Archive) notify(event string, data map[string]any) {
	if a.cfg.Notify != nil {
		a.cfg.Notify(event, data)
	}
}

// StartSpace begins to watch the disks, until StopSpace; once.
func (a *Archive) StartSpace() {
	var ctx context.Context
	ctx, a.space.cancel = context.WithCancel(context.Background())
	a.watchSpace(ctx, time.Now())
	a.space.ended.Go(func() {
		t := time.NewTicker(spaceEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-t.C:
				a.watchSpace(ctx, now)
			}
		}
	})
}

// StopSpace ends what StartSpace began.
func (a *Archive) StopSpace() {
	if a.space.cancel != nil {
		a.space.cancel()
		a.space.ended.Wait()
	}
}

// Admit tells whether a recording may begin: a *recorder.NotAdmitted when a disk
// is too low for that. It costs nothing.
func (a *Archive) Admit() error {
	if r := a.space.refusal.Load(); r != nil {
		return r
	}
	return nil
}

// Room tells why audio of a recording is to be given up for want of disk; empty:
// it is not. It costs nothing.
func (a *Archive) Room(recording string) string {
	if m := a.space.thinned.Load(); m == nil || !(*m)[recording] {
		return ""
	}
	return "the spool is full, and others go before by priority and age"
}

// Paused tells why nothing is to be sealed now, though the keys of recordings that
// go on are at hand; empty: it is. It asks nobody.
func (a *Archive) Paused() string {
	if s, ok := a.sealer.(interface{ Paused() string }); ok {
		return s.Paused()
	}
	return ""
}

// Space tells how full the disks were when they were looked at last.
func (a *Archive) Space() SpaceState {
	if s := a.space.last.Load(); s != nil {
		return *s
	}
	return SpaceState{SpoolBytes: a.spoolBytes.Load()}
}

// watchSpace is one look.
func (a *Archive) watchSpace(ctx context.Context, now time.Time) {
	s := SpaceState{SpoolBytes: a.spoolBytes.Load()}
	worst := LevelFine
	var low []DiskState
	for i, dir := range a.disks() {
		d, ok := a.look(dir, i > 0)
		if !ok {
			worst = max(worst, a.space.levels[dir]) // as it was when that was known
			continue
		}
		if worst = max(worst, d.Level); d.Level == LevelLow {
			low = append(low, d)
		}
		s.Disks = append(s.Disks, d)
		if i == 0 {
			s.Going, s.Thinned = a.thin(d, s.SpoolBytes, now)
		}
	}
	a.act(ctx, worst, low, now)
	if r := a.space.refusal.Load(); r != nil {
		s.Refusing = r.Why
	}
	a.watchQueues(now)
	a.expireKept(now, worst == LevelLow || s.Thinned > 0)
	a.space.last.Store(&s)
}

// disks are the directories that are watched, the spool first.
func (a *Archive) disks() []string {
	dirs := []string{a.cfg.SpoolDir}
	for _, s := range a.shelves {
		if s.dir != "" && s.apart.Load() {
			dirs = append(dirs, s.dir)
		}
	}
	return dirs
}

// probe measures the disk of a store, which may be that of another machine: a look does
// not wait for one that hangs.
type probe struct {
	done        chan struct{} // closed when it has ended
	free, total int64         // written before
	err         error
}

// measure tells how much of a disk is free; false: that is not known now.
func (a *Archive) measure(dir string, store bool) (free, total int64, ok bool) {
	if !store {
		free, err := a.fsys.Free(dir)
		return free, vfs.Total(a.fsys, dir), err == nil // recording finds out what an error means
	}
	sp := &a.space
	if sp.probes == nil {
		sp.probes = map[string]*probe{}
	}
	p := sp.probes[dir]
	if p == nil {
		p = &probe{done: make(chan struct{})}
		sp.probes[dir] = p
		go func() { // ends when the file system answers
			defer close(p.done)
			if p.free, p.err = a.fsys.Free(dir); p.err == nil {
				p.total = vfs.Total(a.fsys, dir)
			}
		}()
	}
	late := time.NewTimer(probeWait)
	defer late.Stop()
	select {
	case <-p.done:
		delete(sp.probes, dir)
		return p.free, p.total, p.err == nil
	case <-late.C:
		return 0, 0, false
	}
}

// look measures a disk, and tells of a change.
func (a *Archive) look(dir string, store bool) (DiskState, bool) {
	free, total, ok := a.measure(dir, store)
	if !ok {
		return DiskState{}, false
	}
	sp := &a.space
	if sp.levels == nil {
		sp.levels = map[string]Level{}
	}
	was := sp.levels[dir]
	d := DiskState{Dir: dir, Free: free, Total: total, Level: a.cfg.Space.level(was, free, total)}
	sp.levels[dir] = d.Level
	data := map[string]any{"disk": dir, "level": d.Level.String(), "free_bytes": free, "total_bytes": total}
	switch {
	case d.Level > was:
		if d.Level == LevelLow {
			data["do"] = cmp.Or(a.cfg.Space.Do, DoStopNew)
		}
		a.notify("storage.low", data)
	case d.Level < was:
		a.notify("storage.recovered", data)
	}
	return d, true
}

// level is that of a disk which was at another one: what has begun ends only
// when there is clearly more room.
func (c SpaceConfig) level(was Level, free, total int64) Level {
	below := func(limit Share, since bool) bool {
		n := float64(limit.of(total))
		if since {
			n *= recoverFactor
		}
		return float64(free) < n
	}
	switch {
	case below(c.Low, was == LevelLow):
		return LevelLow
	case below(c.Warn, was >= LevelWarned):
		return LevelWarned
	}
	return LevelFine
}

// act does what is to be done at a level.
func (a *Archive) act(ctx context.Context, worst Level, low []DiskState, now time.Time) {
	room := a.madeRoom(now)
	if worst < LevelLow {
		a.space.refusal.Store(nil)
		a.space.barren = time.Time{}
		return
	}
	do := cmp.Or(a.cfg.Space.Do, DoStopNew)
	if do == DoDeleteExpired && (room || a.makeRoom(ctx, low, now)) {
		a.space.refusal.Store(nil)
		return
	}
	a.space.refusal.Store(&recorder.NotAdmitted{
		Why: "the disk is low: no recording begins before there is more room", RefuseCall: do == DoRefuseCalls,
	})
}

// going is a recording that goes on, as thinning sees it.
type going struct {
	id       string
	priority recorder.Priority
	since    uint64
}

// thin decides which recordings give way to others: while the spool is too full
// more and more of them, those of the least priority first, the oldest of these
// first; when there is room again they come back in the reverse order.
func (a *Archive) thin(d DiskState, used int64, now time.Time) (count, thinned int) {
	a.mu.Lock()
	all := make([]going, 0, len(a.live))
	for id, l := range a.live {
		all = append(all, going{id, l.priority, l.since})
	}
	a.mu.Unlock()
	sp := &a.space
	was, c := sp.giving, a.cfg.Space.crowded(d, used, a.cfg.FreeBytesMin)
	switch {
	case c != crowdFull:
		sp.fullSince = time.Time{}
	case sp.fullSince.IsZero():
		sp.fullSince = now
	}
	if c == crowdFull && now.Sub(sp.fullSince) < thinAfter {
		c = crowdHold
	}
	sp.giving = giveWay(sp.giving, len(all), c)
	if sp.giving == 0 {
		sp.thinned.Store(nil)
	} else {
		m := firstToGive(all, sp.giving)
		sp.thinned.Store(&m)
	}
	data := map[string]any{"disk": d.Dir, "level": "full", "free_bytes": d.Free, "spool_bytes": used, "recordings": sp.giving}
	switch {
	case was == 0 && sp.giving > 0:
		a.notify("storage.low", data)
	case was > 0 && sp.giving == 0:
		a.notify("storage.recovered", data)
	}
	return len(all), sp.giving
}

// firstToGive returns the recordings that give way first.
func firstToGive(all []going, n int) map[string]bool {
	slices.SortFunc(all, func(x, y going) int {
		return cmp.Or(cmp.Compare(x.priority, y.priority), cmp.Compare(x.since, y.since))
	})
	m := make(map[string]bool, n)
	for _, g := range all[:n] {
		m[g.id] = true
	}
	return m
}

// crowd tells what the spool has room for.
type crowd uint8

const (
	crowdRoom crowd = iota // recordings can come back
	crowdHold              // neither more nor less
	crowdFull              // more must give way
)

func (c SpaceConfig) crowded(d DiskState, used, freeMin int64) crowd {
	limit := c.SpoolMax.of(d.Total)
	switch {
	case limit > 0 && used > limit, d.Free < freeMin:
		return crowdFull
	case limit > 0 && float64(used) > spoolFactor*float64(limit), float64(d.Free) < recoverFactor*float64(freeMin):
		return crowdHold
	}
	return crowdRoom
}

// giveWay is how many of so many recordings give way when so many did.
func giveWay(was, all int, c crowd) int {
	was = min(was, all)
	step := max(all/thinStep, 1)
	switch c {
	case crowdFull:
		was += step
	case crowdRoom:
		was = max(was-step, 0)
	case crowdHold:
	}
	return min(was, all)
}

// watchQueues tells of stores that do not keep up.
func (a *Archive) watchQueues(now time.Time) {
	limit := cmp.Or(a.cfg.Uploads.Behind, uploadBehind)
	sp := &a.space
	if sp.behind == nil {
		sp.behind = map[string]bool{}
	}
	for _, s := range a.shelves {
		u := s.queue.state(now)
		switch {
		case u.OldestAge > limit && !sp.behind[s.name]:
			sp.behind[s.name] = true
			a.notify("upload.behind", map[string]any{
				"store": s.name, "recordings": u.Recordings, "bytes": u.Bytes, "oldest_seconds": int64(u.OldestAge / time.Second),
			})
		case u.OldestAge < limit/2:
			sp.behind[s.name] = false
		}
	}
}
