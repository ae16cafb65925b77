package suppress

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is the naive account of a recording: it goes through time by ticks of
// a quarter millisecond, keeps every event it was ever told and one flag per
// millisecond and reason. It shares no code with Timeline.
type model struct {
	rules   Rules
	sealed  int // ms
	end     int // ms, -1 until the BYE
	arrival int
	seen    map[string]bool
	waiting []modelEvent          // not sealed
	known   []modelEvent          // ends that are sealed
	active  map[string]modelEvent // reason + holder -> its start
	cells   [][]string            // reasons by millisecond, as sealed
}

type modelEvent struct {
	tick, arrival int
	source        string
	seq           uint64
	reason, who   string
	start         bool
}

const ticksPerMS = 4

func newModel(r Rules) *model {
	m := &model{rules: r, end: -1, seen: map[string]bool{}, active: map[string]modelEvent{}}
	if r.ConsentRequired {
		m.active["consent/"] = modelEvent{tick: -1 << 40, reason: "consent", source: "rules", start: true}
	}
	return m
}

func (m *model) translate(s Signal) (e modelEvent, ok bool) {
	switch s.Event {
	case IVRStart, IVREnd:
		return modelEvent{reason: "ivr", who: s.Flow, start: s.Event == IVRStart}, m.rules.IVR
	case QueueStart, QueueEnd:
		return modelEvent{reason: "queue", who: s.Queue, start: s.Event == QueueStart}, m.rules.Queue
	case HoldStart, HoldEnd:
		return modelEvent{reason: "hold", who: s.Party, start: s.Event == HoldStart}, m.rules.Hold
	case PauseStart, PauseEnd:
		return modelEvent{reason: "pause", start: s.Event == PauseStart}, true
	case ConsentGranted, ConsentDenied:
		return modelEvent{reason: "consent", start: s.Event == ConsentDenied}, true
	case TransferExternal:
		return modelEvent{reason: "external_transfer", start: true}, m.rules.ExternalTransferStop
	}
	return modelEvent{}, false
}

// apply returns how much a start missed and whether the signal is a repeat.
func (m *model) apply(s Signal) (missed int, repeat bool) {
	m.arrival++
	if s.Seq != 0 {
		key := fmt.Sprint(s.Source, "#", s.Seq)
		if m.seen[key] {
			return 0, true
		}
		m.seen[key] = true
	}
	e, ok := m.translate(s)
	e.tick = int(s.At.Sub(epoch) / (time.Millisecond / ticksPerMS))
	e.arrival, e.source, e.seq = m.arrival, s.Source, s.Seq
	if !ok || m.end >= 0 && e.tick >= m.end*ticksPerMS {
		return 0, false
	}
	if e.tick >= m.sealed*ticksPerMS {
		m.waiting = append(m.waiting, e)
		return 0, false
	}
	return m.applyLate(e), false
}

func (m *model) applyLate(e modelEvent) (missed int) {
	if !e.start {
		for key, start := range m.active {
			if start.reason == e.reason && (e.who == "" || start.who == e.who) && surelyAfter(e, start) {
				delete(m.active, key)
			}
		}
		m.known = append(m.known, e)
		return 0
	}
	over, until := m.overBy(e)
	to := m.sealed
	if over {
		to = min(to, (until+ticksPerMS-1)/ticksPerMS)
	} else {
		m.begin(e)
	}
	for ms := max(0, floorDiv(e.tick, ticksPerMS)); ms < to; ms++ {
		if len(m.cells[ms]) == 0 {
			missed++
		}
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
	key := e.reason + "/" + e.who
	if old, ok := m.active[key]; !ok || after(e, old) {
		m.active[key] = e
	}
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
		cell := map[string]bool{}
		for sub := range ticksPerMS {
			tick := m.sealed*ticksPerMS + sub
			for _, e := range m.at(tick) {
				m.fold(e)
			}
			for _, start := range m.active {
				cell[start.reason] = true
			}
		}
		reasons := make([]string, 0, len(cell))
		for r := range cell {
			reasons = append(reasons, r)
		}
		m.cells = append(m.cells, reasons)
	}
}

// at takes the waiting events of a tick, in their order.
func (m *model) at(tick int) []modelEvent {
	var now []modelEvent
	m.waiting = slices.DeleteFunc(m.waiting, func(e modelEvent) bool {
		if e.tick != tick {
			return false
		}
		// as it arrived, but before what its own source numbered higher
		i := slices.IndexFunc(now, func(n modelEvent) bool { return n.source == e.source && n.seq > e.seq && e.seq > 0 })
		if i < 0 {
			i = len(now)
		}
		now = slices.Insert(now, i, e)
		return true
	})
	return now
}

func (m *model) fold(e modelEvent) {
	if e.start {
		m.begin(e)
		return
	}
	for key, start := range m.active {
		if start.reason == e.reason && (e.who == "" || start.who == e.who) {
			delete(m.active, key)
		}
	}
	m.known = append(m.known, e)
}

// windows are the runs of each reason's cells.
func (m *model) windows() map[Reason][][2]int64 {
	ws := map[Reason][][2]int64{}
	for ms, reasons := range m.cells {
		for _, name := range reasons {
			r := Reason(name)
			if n := len(ws[r]); n > 0 && ws[r][n-1][1] == int64(ms) {
				ws[r][n-1][1]++
			} else {
				ws[r] = append(ws[r], [2]int64{int64(ms), int64(ms) + 1})
			}
		}
	}
	return ws
}

var allEvents = []Event{
	IVRStart, IVREnd, QueueStart, QueueEnd, HoldStart, HoldEnd, HoldStart, HoldEnd, PauseStart, PauseEnd, PauseStart, PauseEnd,
	ConsentGranted, ConsentGranted, ConsentDenied, TransferExternal, AgentJoin, AttrsSet,
}

// randomSignal lies around a time in ms, up to 40 ms late or 20 ms early.
func randomSignal(rnd *rand.Rand, now int, seq *uint64) Signal {
	tick := now*ticksPerMS - rnd.IntN(160) + rnd.IntN(80)
	if rnd.IntN(4) == 0 {
		tick = now*ticksPerMS - rnd.IntN(4)
	}
	s := Signal{
		V: 1, Event: allEvents[rnd.IntN(len(allEvents))],
		At: epoch.Add(time.Duration(tick) * time.Millisecond / ticksPerMS), Source: [...]string{"sdp", "http"}[rnd.IntN(2)],
	}
	who := [...]string{"", "a", "b"}[rnd.IntN(3)]
	s.Flow, s.Queue, s.Party = who, who, who
	switch rnd.IntN(4) {
	case 0: // no number
	case 1: // a number of before: a repeat, or one that comes out of order
		s.Seq = *seq - min(*seq-1, uint64(rnd.IntN(6)))
	default:
		*seq++
		s.Seq = *seq
	}
	return s
}

// run plays a random recording on Timeline, Gate and the model, and compares
// them as it goes. It returns the number of steps.
func run(t *rapid.T, seed uint64, rules Rules, mode Mode) int {
	const rate = 2000
	rnd := rand.New(rand.NewPCG(seed, 1))
	tl, m, g, seq := New(rules), newModel(rules), NewGate(mode), uint64(1)
	var frontier, steps int
	originAt := rnd.IntN(5)
	for ; steps < 400; steps++ {
		if steps == originAt {
			tl.SetOrigin(epoch)
			m.sealed = 0
			m.before0()
		}
		switch rnd.IntN(5) {
		case 0:
			frontier += rnd.IntN(12)
			from := tl.Sealed()
			if steps < originAt {
				continue
			}
			spans := tl.Seal(int64(frontier), nil)
			m.seal(frontier)
			pass(t, g, m, spans, rate, from)
			if rnd.IntN(6) == 0 {
				checkWindows(t, tl, m)
			}
		case 1:
			if rnd.IntN(200) == 0 && m.end < 0 && steps > originAt {
				m.end = max(frontier-5, m.sealed) + rnd.IntN(20)
				tl.End(int64(m.end))
			}
		default:
			s := randomSignal(rnd, frontier+5, &seq)
			missed, repeat := m.applyAny(s, steps < originAt)
			eff := tl.Apply(s)
			if eff.Duplicate != repeat || eff.MissedMS != int64(missed) {
				t.Fatalf("step %d: %+v: effect %+v, want missed %d, repeat %v", steps, s, eff, missed, repeat)
			}
		}
	}
	checkWindows(t, tl, m)
	checkPositions(t, g, m, mode)
	return steps
}

// applyAny keeps events of a recording without origin waiting whatever their time.
func (m *model) applyAny(s Signal, early bool) (int, bool) {
	if early {
		m.sealed = -1 << 30
	}
	return m.apply(s)
}

// before0 folds what happened before the origin, which acts at 0.
func (m *model) before0() {
	var ticks []int
	for _, e := range m.waiting {
		if e.tick < 0 {
			ticks = append(ticks, e.tick)
		}
	}
	slices.Sort(ticks)
	for _, tick := range slices.Compact(ticks) {
		for _, e := range m.at(tick) {
			m.fold(e)
		}
	}
}

// pass sends samples that tell their position through the gate and compares
// with the model sample by sample.
func pass(t *rapid.T, g *Gate, m *model, spans []Span, rate, from int64) {
	n := (int64(m.sealed) - from) * rate / 1000
	var ch [2][]int16
	var want []int16
	for i := range n {
		sample := int16((from*rate/1000+i)%30000) + 1
		ch[0], ch[1] = append(ch[0], sample), append(ch[1], -sample)
		suppressed := len(m.cells[from+i*1000/rate]) > 0
		switch {
		case !suppressed:
			want = append(want, sample)
		case g.Mode() == Silence:
			want = append(want, 0)
		}
	}
	kept := g.Pass(spans, int(rate), from, ch)
	for i := range kept[1] {
		kept[1][i] = -kept[1][i]
	}
	if !slices.Equal(kept[0], want) || !slices.Equal(kept[1], want) {
		t.Fatalf("from %d: gate kept\n%v, want\n%v", from, kept[0], want)
	}
	for _, s := range ch[0][len(kept[0]):] {
		if s != 0 {
			t.Fatal("the rest is not wiped")
		}
	}
}

func checkWindows(t *rapid.T, tl *Timeline, m *model) {
	got := map[Reason][][2]int64{}
	last := Window{}
	for _, w := range tl.Windows(int64(m.sealed)) {
		if w.RealMS < last.RealMS || w.RealMS == last.RealMS && w.Reason < last.Reason {
			t.Fatalf("%+v after %+v", w, last)
		}
		last = w
		if w.RealMS < w.EndRealMS {
			got[w.Reason] = append(got[w.Reason], [2]int64{w.RealMS, w.EndRealMS})
		}
	}
	want := m.windows()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("sealed %d: windows\n%v, want\n%v", m.sealed, got, want)
	}
}

func checkPositions(t *rapid.T, g *Gate, m *model, mode Mode) {
	audio := int64(0)
	for ms, reasons := range m.cells {
		want := audio
		if mode == Silence {
			want = int64(ms)
		}
		if got := g.AudioMS(int64(ms)); got != want {
			t.Fatalf("AudioMS(%d) = %d, want %d", ms, got, want)
		}
		if g.Kept(int64(ms)) != (len(reasons) == 0) {
			t.Fatalf("Kept(%d) = %v", ms, len(reasons) > 0)
		}
		if len(reasons) == 0 {
			audio++
		}
	}
}

func TestAgainstModel(t *testing.T) {
	steps := 0
	began := time.Now()
	rapid.Check(t, func(t *rapid.T) {
		rules := Rules{
			IVR: rapid.Bool().Draw(t, "ivr"), Queue: rapid.Bool().Draw(t, "queue"), Hold: rapid.Bool().Draw(t, "hold"),
			ConsentRequired: rapid.Bool().Draw(t, "consent"), ExternalTransferStop: rapid.IntRange(0, 9).Draw(t, "transfer") == 0,
		}
		mode := Mode(rapid.IntRange(0, 1).Draw(t, "mode"))
		for range 12 {
			steps += run(t, rapid.Uint64().Draw(t, "seed"), rules, mode)
		}
	})
	t.Logf("%d steps in %v", steps, time.Since(began).Round(time.Millisecond))
}

// TestAnyOrder: what is not sealed comes out the same in whatever order it
// came, whenever it is looked at.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		rules := Rules{IVR: true, Queue: true, Hold: true, ConsentRequired: rnd.IntN(2) == 0}
		var signals []Signal
		for i := range 60 { // the numbers agree with the times, so the order is without doubt
			s := randomSignal(rnd, 50, new(uint64))
			s.At, s.Seq = epoch.Add(time.Duration(rnd.IntN(10)+i*10)*time.Millisecond/8), uint64(i+1)
			s.Source = "s"
			signals = append(signals, s)
		}
		slices.SortStableFunc(signals, func(a, b Signal) int { return a.At.Compare(b.At) })
		for i := range signals {
			signals[i].Seq = uint64(i + 1)
		}
		var want string
		for round := range 5 {
			tl := New(rules)
			originAt := rnd.IntN(len(signals))
			for i, s := range signals {
				if i == originAt {
					tl.SetOrigin(epoch)
				}
				tl.Apply(s)
				tl.Apply(s)
				tl.Windows(int64(rnd.IntN(100)))
			}
			got := fmt.Sprint(tl.Windows(100), tl.Seal(100, nil), tl.Windows(100))
			if round == 0 {
				want = got
			}
			if got != want {
				t.Fatalf("round %d:\n%s, want\n%s", round, got, want)
			}
			rnd.Shuffle(len(signals), func(i, j int) { signals[i], signals[j] = signals[j], signals[i] })
		}
	})
}
