package suppress

import (
	"slices"
	"time"
)

// model is the naive account of a recording: it goes through time by ticks of
// a quarter millisecond, asks at each tick what all it was ever told amounts
// to, and keeps one set of reasons per millisecond. It shares no code with
// Timeline and remembers without limit.
type model struct {
	rules   Rules
	resume  int  // ticks after which a pause ends by itself, 0: never
	early   bool // the origin is not known
	sealed  int  // ms
	end     int  // ms, -1 until the BYE
	arrival int

	seen    []modelKey
	waiting []modelEvent // not sealed
	known   []modelEvent // ends that are sealed
	losses  []modelEvent // of sources, that are sealed
	active  []modelEvent // the latest start of each holder that is active
	starts  []modelEvent // of the pause that is active
	cells   []modelCell  // by millisecond, as sealed

	claimed   [modelReasons]map[int]bool // milliseconds that late starts would have had, and that were captured
	lateStart [modelReasons]int
	lateEnd   [modelReasons]int
}

type modelKey struct {
	source string
	seq    uint64
}

type modelEvent struct {
	tick, arrival int
	source        string
	seq           uint64
	reason        int
	who           string
	start, loss   bool
}

const ticksPerMS = 4

// The model's reasons; a cell has bit i set for reason i.
const (
	modelIVR = iota
	modelQueue
	modelHold
	modelMic
	modelPause
	modelConsent
	modelTransfer
	modelDTMF
	modelReasons
)

var modelNames = [modelReasons]Reason{"ivr", "queue", "hold", "hold", "pause", "consent", "external_transfer", "dtmf"}

type modelCell uint

func (c modelCell) suppressed() bool { return c&^(1<<modelMic) != 0 }
func (c modelCell) muted() bool      { return c == 1<<modelMic }

// names are sorted and each is there once.
func (c modelCell) names() []Reason {
	list := []Reason{}
	for i, name := range modelNames {
		if c>>i&1 == 1 && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

func newModel(r Rules) *model {
	m := &model{rules: r, resume: int(r.PauseAutoResume / (time.Millisecond / ticksPerMS)), early: true, end: -1}
	if r.ConsentRequired {
		m.active = append(m.active, modelEvent{tick: -1 << 40, reason: modelConsent, source: "rules", start: true})
	}
	return m
}

// copy is for a look ahead.
func (m *model) copy() *model {
	c := *m
	c.waiting, c.known, c.losses = slices.Clone(m.waiting), slices.Clone(m.known), slices.Clone(m.losses)
	c.active, c.starts, c.cells = slices.Clone(m.active), slices.Clone(m.starts), slices.Clone(m.cells)
	return &c
}

// translate tells what a signal is about, and whether the rules care.
func (m *model) translate(s Signal) (e modelEvent, ok bool) {
	byName := func(on bool, names map[string]bool, name string) bool {
		for n, v := range names {
			if n == name {
				return v
			}
		}
		return on
	}
	switch s.Event {
	case "ivr.start":
		return modelEvent{reason: modelIVR, who: s.Flow, start: true}, byName(m.rules.IVR, m.rules.Flows, s.Flow)
	case "ivr.end":
		return modelEvent{reason: modelIVR, who: s.Flow}, s.Flow == "" || byName(m.rules.IVR, m.rules.Flows, s.Flow)
	case "queue.start":
		return modelEvent{reason: modelQueue, who: s.Queue, start: true}, byName(m.rules.Queue, m.rules.Queues, s.Queue)
	case "queue.end":
		return modelEvent{reason: modelQueue, who: s.Queue}, s.Queue == "" || byName(m.rules.Queue, m.rules.Queues, s.Queue)
	case "hold.start", "hold.end":
		e = modelEvent{reason: modelHold, who: s.Party, start: s.Event == "hold.start"}
		if m.rules.HoldMic {
			e.reason = modelMic
		}
		return e, m.rules.Hold
	case "pause.start", "pause.end":
		return modelEvent{reason: modelPause, start: s.Event == "pause.start"}, true
	case "consent.granted", "consent.denied":
		return modelEvent{reason: modelConsent, start: s.Event == "consent.denied"}, true
	case "transfer.external":
		return modelEvent{reason: modelTransfer, start: true}, m.rules.ExternalTransferStop
	case "dtmf.start", "dtmf.end":
		return modelEvent{reason: modelDTMF, who: s.Party, start: s.Event == "dtmf.start"}, true
	case "source.lost":
		return modelEvent{reason: modelPause, loss: true}, true
	}
	return modelEvent{}, false
}

// apply returns how much a start missed and whether the signal is a repeat.
func (m *model) apply(s Signal) (missed int, repeat bool) {
	m.arrival++
	if s.Seq != 0 {
		if key := (modelKey{s.Source, s.Seq}); slices.Contains(m.seen, key) {
			return 0, true
		} else {
			m.seen = append(m.seen, key)
		}
	}
	e, ok := m.translate(s)
	e.tick = int(s.At.Sub(epoch) / (time.Millisecond / ticksPerMS))
	e.arrival, e.source, e.seq = m.arrival, s.Source, s.Seq
	switch {
	case !ok || m.end >= 0 && e.tick >= m.end*ticksPerMS:
		return 0, false
	case m.early || e.tick >= m.sealed*ticksPerMS:
		m.waiting = append(m.waiting, e)
		return 0, false
	case e.loss:
		return m.lateLoss(e), false
	case e.start:
		return m.lateBegin(e), false
	}
	m.lateFinish(e)
	return 0, false
}

// lateFinish ends what surely did not start after it.
func (m *model) lateFinish(e modelEvent) {
	m.lateEnd[e.reason]++
	m.active = slices.DeleteFunc(m.active, func(start modelEvent) bool {
		return start.reason == e.reason && (e.who == "" || start.who == e.who) && surelyAfter(e, start)
	})
	m.known = append(m.known, e)
}

// lateBegin begins what is not surely over, and claims its time: up to its end,
// or to the frontier when it opens a window there.
func (m *model) lateBegin(e modelEvent) (missed int) {
	m.lateStart[e.reason]++
	frontier := m.sealed * ticksPerMS
	to := frontier
	if e.reason == modelPause && m.resume > 0 {
		to = min(to, m.ownEnd(e))
	}
	was := m.reasons(frontier - 1)
	if over, until := m.overBy(e); over {
		to = min(to, until)
	} else {
		m.begin(e)
	}
	if m.reasons(frontier-1) != was {
		to = frontier
	}
	return m.claim(e.reason, floorDiv(e.tick, ticksPerMS), floorDiv(to+ticksPerMS-1, ticksPerMS))
}

// ownEnd is when the pause of a late start ended by itself: if its source was
// lost, only with the next start.
func (m *model) ownEnd(e modelEvent) int {
	if !m.lost(e, []modelEvent{e}) {
		return e.tick + m.resume
	}
	if m.paused() && after(m.latest(), e) && !m.lost(m.latest(), m.starts) {
		return m.latest().tick + m.resume
	}
	return 1 << 40
}

// lateLoss opens a pause again that ended by itself after the loss.
func (m *model) lateLoss(e modelEvent) (missed int) {
	frontier := m.sealed * ticksPerMS
	was := m.resumed(frontier)
	m.losses = append(m.losses, e)
	if !was || m.resumed(frontier) {
		return 0
	}
	m.lateStart[modelPause]++
	return m.claim(modelPause, floorDiv(m.latest().tick+m.resume+ticksPerMS-1, ticksPerMS), m.sealed)
}

// claim counts the captured milliseconds that a window should have had.
func (m *model) claim(reason, fromMS, toMS int) (missed int) {
	for ms := max(0, fromMS); ms < min(toMS, m.sealed); ms++ {
		if c := m.cells[ms]; c.suppressed() || reason == modelMic && c.muted() {
			continue
		}
		if m.claimed[reason] == nil {
			m.claimed[reason] = map[int]bool{}
		}
		m.claimed[reason][ms] = true
		missed++
	}
	return missed
}

// overBy looks for the latest end of the start's holder, and for the latest of
// all holders, that have its clock and surely follow it.
func (m *model) overBy(start modelEvent) (over bool, tick int) {
	for _, who := range []string{"", start.who} {
		var last *modelEvent
		for i := range m.known {
			if k := &m.known[i]; k.reason == start.reason && k.who == who && (last == nil || after(*k, *last)) {
				last = k
			}
		}
		if last != nil && last.source == start.source && surelyAfter(*last, start) && (!over || last.tick < tick) {
			over, tick = true, last.tick
		}
	}
	return over, tick
}

func (m *model) begin(e modelEvent) {
	if e.reason == modelPause {
		if !m.paused() || m.resumed(e.tick-1) { // a start at the very end still renews
			m.starts = nil
		}
		m.starts = append(m.starts, e)
	}
	for i, old := range m.active {
		if old.reason == e.reason && old.who == e.who {
			if after(e, old) {
				m.active[i] = e
			}
			return
		}
	}
	m.active = append(m.active, e)
}

func (m *model) paused() bool {
	return slices.ContainsFunc(m.active, func(e modelEvent) bool { return e.reason == modelPause })
}

// latest is the pause's latest start.
func (m *model) latest() modelEvent {
	last := m.starts[0]
	for _, s := range m.starts {
		if after(s, last) {
			last = s
		}
	}
	return last
}

// lost tells whether a source of the starts was lost between the latest of them
// and the end that it would have had.
func (m *model) lost(latest modelEvent, starts []modelEvent) bool {
	for _, l := range m.losses {
		for _, s := range starts {
			if s.source == l.source && after(l, latest) && l.tick <= latest.tick+m.resume {
				return true
			}
		}
	}
	return false
}

// resumed tells whether the pause has ended by itself at a tick.
func (m *model) resumed(tick int) bool {
	if m.resume == 0 || !m.paused() {
		return false
	}
	latest := m.latest()
	return tick >= latest.tick+m.resume && !m.lost(latest, m.starts)
}

// pausedBy tells whether a pause is on, at a tick, that has a start of the source.
func (m *model) pausedBy(source string, tick int) bool {
	return m.paused() && !m.resumed(tick) && slices.ContainsFunc(m.starts, func(s modelEvent) bool { return s.source == source })
}

func after(a, b modelEvent) bool {
	if a.tick != b.tick {
		return a.tick > b.tick
	}
	if a.source == b.source && a.seq > 0 && b.seq > 0 {
		return a.seq > b.seq
	}
	return a.arrival > b.arrival
}

func surelyAfter(a, b modelEvent) bool {
	contradicts := a.source == b.source && a.seq > 0 && b.seq > 0 && a.seq < b.seq
	return after(a, b) && !contradicts
}

func floorDiv(a, b int) int {
	if a < 0 {
		return -((-a + b - 1) / b)
	}
	return a / b
}

// seal walks the ticks of [sealed, to).
func (m *model) seal(to int) {
	if m.end >= 0 {
		to = min(to, m.end)
	}
	for ; m.sealed < to; m.sealed++ {
		var cell modelCell
		for tick := m.sealed * ticksPerMS; tick < (m.sealed+1)*ticksPerMS; tick++ {
			m.fold(tick)
			cell |= m.reasons(tick)
		}
		m.cells = append(m.cells, cell)
	}
}

// reasons are those active at a tick whose events are folded.
func (m *model) reasons(tick int) (c modelCell) {
	for _, e := range m.active {
		if e.reason != modelPause || !m.resumed(tick) {
			c |= 1 << e.reason
		}
	}
	return c
}

// foldUntil folds all ticks up to one, which the caller does not look at.
func (m *model) foldUntil(last int) {
	for {
		next := last + 1
		for _, e := range m.waiting {
			next = min(next, e.tick)
		}
		if next > last {
			return
		}
		m.fold(next)
	}
}

// fold lets the waiting events of a tick act in their order: as they arrived,
// but each before what its own source numbered higher of the same reason.
func (m *model) fold(tick int) {
	var now []modelEvent
	rest := m.waiting[:0]
	for _, e := range m.waiting {
		if e.tick != tick {
			rest = append(rest, e)
			continue
		}
		if e.loss {
			m.losses = append(m.losses, e)
			continue
		}
		i := slices.IndexFunc(now, func(n modelEvent) bool {
			return n.reason == e.reason && n.source == e.source && n.seq > e.seq && e.seq > 0
		})
		if i < 0 {
			i = len(now)
		}
		now = slices.Insert(now, i, e)
	}
	m.waiting = rest
	for _, e := range now {
		if e.start {
			m.begin(e)
			continue
		}
		m.active = slices.DeleteFunc(m.active, func(start modelEvent) bool {
			return start.reason == e.reason && (e.who == "" || start.who == e.who)
		})
		m.known = append(m.known, e)
	}
}

// spans are the runs of cells from a millisecond on.
func (m *model) spans(from int) (list []Span) {
	for ms := from; ms < m.sealed; ms++ {
		c, at := m.cells[ms], int64(ms)
		if n := len(list); n > 0 && list[n-1].Suppressed == c.suppressed() && list[n-1].Mic == c.muted() {
			list[n-1].ToMS++
		} else {
			list = append(list, Span{FromMS: at, ToMS: at + 1, Suppressed: c.suppressed(), Mic: c.muted()})
		}
	}
	return list
}

// windows are the runs of each reason's cells.
func (m *model) windows() (list []Window) {
	for i, name := range modelNames {
		open := false
		for ms, c := range m.cells {
			has := c>>i&1 == 1
			if has && !open {
				list = append(list, Window{Reason: name, RealMS: int64(ms), Mic: i == modelMic})
			}
			if has {
				list[len(list)-1].EndRealMS = int64(ms) + 1
			}
			open = has
		}
	}
	return list
}
