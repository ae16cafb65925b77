package suppress

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	sequences = flag.Int("sequences", 30_000, "random signal sequences of TestModel")
	firstSeed = flag.Uint64("seed", 1, "seed of the first sequence of TestModel")
)

var modelEvents = []Event{
	IVRStart, IVREnd, QueueStart, QueueEnd, HoldStart, HoldEnd, HoldStart, HoldEnd, HoldStart, HoldEnd,
	PauseStart, PauseEnd, PauseStart, PauseStart, PauseEnd, SourceLost, SourceLost, SourceRestored,
	ConsentGranted, ConsentGranted, ConsentDenied, TransferExternal, DTMFStart, DTMFEnd, AgentJoin, AttrsSet,
}

var modelSources = [...]string{"sdp", "http", "ami"}

// randomSignal lies around a time in ms, up to 40 ms late or 20 ms early.
func randomSignal(rnd *rand.Rand, now int, seq *uint64) Signal {
	tick := now*ticksPerMS - rnd.IntN(160) + rnd.IntN(80)
	if rnd.IntN(4) == 0 {
		tick = now*ticksPerMS - rnd.IntN(4)
	}
	s := Signal{
		V: 1, Event: modelEvents[rnd.IntN(len(modelEvents))],
		At: epoch.Add(time.Duration(tick) * time.Millisecond / ticksPerMS), Source: modelSources[rnd.IntN(len(modelSources))],
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

func randomRules(rnd *rand.Rand) Rules {
	coin := func(n int) bool { return rnd.IntN(n) == 0 }
	names := func() map[string]bool {
		switch rnd.IntN(3) {
		case 0:
			return map[string]bool{"a": coin(2)}
		case 1:
			return map[string]bool{"a": coin(2), "b": coin(2)}
		}
		return nil
	}
	r := Rules{
		IVR: coin(3), Queue: coin(3), Hold: !coin(4), Flows: names(), Queues: names(),
		HoldMic: coin(2), ConsentRequired: coin(4), ExternalTransferStop: coin(10),
	}
	if !coin(3) {
		r.PauseAutoResume = time.Duration(1+rnd.IntN(80)) * time.Millisecond / ticksPerMS
	}
	return r
}

// sequence is one random recording, played on Timeline, Gate and the model.
type sequence struct {
	rnd    *rand.Rand
	rules  Rules
	tl     *Timeline
	gate   *Gate
	m      *model
	seq    uint64
	now    int // ms
	last   int // tick of the latest signal
	origin int // the step at which it becomes known
	step   int
	steps  int
}

// difference is what a comparison panics with.
type difference string

func (s *sequence) failf(format string, args ...any) {
	panic(difference(fmt.Sprintf("step %d, rules %+v, sealed %d: ", s.step, s.rules, s.m.sealed) + fmt.Sprintf(format, args...)))
}

// runSequence plays the sequence of a seed. Mostly short: each rule meets each
// other within few signals, and the many sequences cover more than long ones.
func runSequence(seed uint64) (steps int, err error) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	s := &sequence{rnd: rnd, rules: randomRules(rnd), gate: NewGate(Mode(rnd.IntN(2))), seq: 1, origin: rnd.IntN(5), steps: 6 + rnd.IntN(26)}
	if rnd.IntN(400) == 0 {
		s.steps = 400
	}
	s.tl, s.m = New(s.rules), newModel(s.rules)
	defer func() {
		if d, ok := recover().(difference); ok {
			err = fmt.Errorf("-seed %d -sequences 1: %s", seed, d)
		}
	}()
	for ; s.step < s.steps; s.step++ {
		s.play()
	}
	if s.m.early {
		s.setOrigin()
	}
	s.seal(s.now + 30)
	s.checkWindows(s.tl, s.m, int64(s.m.sealed))
	s.checkMissed()
	s.checkPositions()
	return s.steps, nil
}

func (s *sequence) setOrigin() {
	s.tl.SetOrigin(epoch)
	s.m.early = false
	s.m.foldUntil(-1)
}

func (s *sequence) play() {
	if s.step == s.origin {
		s.setOrigin()
	}
	switch s.rnd.IntN(5) {
	case 0:
		s.now += s.rnd.IntN(12)
		if !s.m.early {
			s.seal(s.now)
		}
	case 1:
		switch {
		case s.m.early:
		case s.rnd.IntN(30) == 0 && s.m.end < 0:
			s.m.end = max(s.now-5, s.m.sealed) + s.rnd.IntN(20)
			s.tl.End(int64(s.m.end))
		case s.rnd.IntN(3) == 0:
			s.lookAhead()
		}
	default:
		s.signal()
	}
}

func (s *sequence) signal() {
	sig := randomSignal(s.rnd, s.now+5, &s.seq)
	missed, repeat := s.m.apply(sig)
	eff := s.tl.Apply(sig)
	if eff.Duplicate != repeat || eff.MissedMS != int64(missed) {
		s.failf("%+v: effect %+v, want missed %d, repeat %v", sig, eff, missed, repeat)
	}
	s.last = int(sig.At.Sub(epoch) / (time.Millisecond / ticksPerMS))
	if s.rnd.IntN(3) == 0 {
		s.checkEffect(sig, eff)
	}
}

// checkEffect compares what is active right after a signal.
func (s *sequence) checkEffect(sig Signal, eff Effect) {
	m, at := s.m.copy(), s.last
	late := !m.early && at < m.sealed*ticksPerMS
	if late {
		at = m.sealed * ticksPerMS
	}
	m.foldUntil(at)
	want := m.reasons(at)
	ended := m.end >= 0 && s.last >= m.end*ticksPerMS
	if ended {
		want = 0
	}
	// What else happens at the instant at which a signal acts is not yet in its effect.
	same := late || slices.ContainsFunc(s.m.waiting, func(e modelEvent) bool { return e.tick == at }) || m.reasons(at) != m.reasons(at-1)
	if !same && !slices.Equal(eff.Reasons, want.names()) {
		s.failf("%+v: effect %+v, want %v", sig, eff, want.names())
	}
	for _, source := range modelSources {
		if got, want := s.tl.PausedBy(source), !ended && m.pausedBy(source, at); got != want {
			s.failf("%+v: paused by %s: %v, want %v", sig, source, got, want)
		}
	}
}

// lookAhead compares what is not sealed yet.
func (s *sequence) lookAhead() {
	m := s.m.copy()
	m.seal(m.sealed + s.rnd.IntN(25))
	s.checkWindows(s.tl, m, int64(m.sealed))
	if m.sealed == 0 {
		return
	}
	at := m.sealed - 1 - s.rnd.IntN(min(m.sealed, 3))
	if got := s.tl.Captured(int64(at)); got == m.cells[at].suppressed() {
		s.failf("captured(%d) = %v", at, got)
	}
	if got := s.tl.Reasons(int64(at)); !slices.Equal(got, m.cells[at].names()) {
		s.failf("reasons(%d) = %v, want %v", at, got, m.cells[at].names())
	}
}

// seal compares spans, and sends samples that tell their position through the
// gate.
func (s *sequence) seal(to int) {
	const rate = 2000
	from := s.m.sealed
	spans := s.tl.Seal(int64(to), nil)
	s.m.seal(to)
	if want := s.m.spans(from); !slices.Equal(spans, want) {
		s.failf("spans %v, want %v", spans, want)
	}
	var ch, want [2][]int16
	for i := range (s.m.sealed - from) * rate / 1000 {
		sample := int16((from*rate/1000+i)%30000) + 1
		c := s.m.cells[from+i*1000/rate]
		for side := range ch {
			ch[side] = append(ch[side], sample)
			switch {
			case !c.suppressed() && (side == 0 || !c.muted()):
				want[side] = append(want[side], sample)
			case !c.suppressed() || s.gate.Mode() == Silence:
				want[side] = append(want[side], 0)
			}
		}
	}
	kept := s.gate.Pass(spans, rate, int64(from), ch)
	for side := range kept {
		if !slices.Equal(kept[side], want[side]) {
			s.failf("channel %d from %d: gate kept\n%v, want\n%v", side, from, kept[side], want[side])
		}
		if slices.ContainsFunc(ch[side][len(kept[side]):], func(v int16) bool { return v != 0 }) {
			s.failf("the rest is not wiped")
		}
	}
}

// checkWindows compares the windows that take time; they must come in order.
func (s *sequence) checkWindows(tl *Timeline, m *model, to int64) {
	order := func(a, b Window) int { return cmp.Or(cmp.Compare(a.RealMS, b.RealMS), cmp.Compare(a.Reason, b.Reason)) }
	all := tl.Windows(to)
	if !slices.IsSortedFunc(all, order) {
		s.failf("windows out of order: %+v", all)
	}
	var got []Window
	for _, w := range all {
		if w.RealMS < w.EndRealMS {
			got = append(got, Window{Reason: w.Reason, RealMS: w.RealMS, EndRealMS: w.EndRealMS, Mic: w.Mic})
		}
	}
	want := m.windows()
	slices.SortStableFunc(want, order)
	if !slices.Equal(got, want) {
		s.failf("windows to %d\n%+v, want\n%+v", to, got, want)
	}
}

// checkMissed compares what the windows missed where one late start alone
// claims it, and that it is never too little where several starts do.
func (s *sequence) checkMissed() {
	for i, name := range modelNames {
		if s.m.lateEnd[i] > 0 || (i == modelMic || i == modelHold) && s.rules.HoldMic != (i == modelMic) {
			continue
		}
		sum := 0
		ws := s.tl.Windows(int64(s.m.sealed))
		for _, w := range ws {
			if w.Reason == name {
				sum += int(w.MissedMS)
			}
		}
		want := len(s.m.claimed[i])
		if sum < want || sum > want && s.m.lateStart[i] < 2 {
			s.failf("%s missed %d, want %d in %+v", name, sum, want, ws)
		}
	}
}

func (s *sequence) checkPositions() {
	audio := int64(0)
	for ms, c := range s.m.cells {
		at, want := int64(ms), audio
		if s.gate.Mode() == Silence {
			want = at
		}
		if got := s.gate.AudioMS(at); got != want {
			s.failf("AudioMS(%d) = %d, want %d", ms, got, want)
		}
		if s.gate.Kept(at) == c.suppressed() || s.gate.Heard(0, at) == c.suppressed() || s.gate.Heard(1, at) == (c.suppressed() || c.muted()) {
			s.failf("at %d: kept %v, heard %v and %v", ms, s.gate.Kept(at), s.gate.Heard(0, at), s.gate.Heard(1, at))
		}
		if s.tl.Captured(at) == c.suppressed() {
			s.failf("captured(%d) = %v", ms, !c.suppressed())
		}
		if !c.suppressed() {
			audio++
		}
	}
}

// TestModel plays random sequences of signals, out of order, late, repeated,
// under random rules; see `make model`.
func TestModel(t *testing.T) {
	began := time.Now()
	var next, steps atomic.Int64
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for failed.Load() == nil {
				i := next.Add(1) - 1
				if i >= int64(*sequences) {
					return
				}
				n, err := runSequence(*firstSeed + uint64(i))
				if err != nil {
					failed.Store(&err)
					return
				}
				steps.Add(int64(n))
			}
		})
	}
	workers.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	t.Logf("%d sequences of %d steps in %v: no difference", *sequences, steps.Load(), time.Since(began).Round(time.Millisecond))
}

// TestAnyOrder: what is not sealed comes out the same in whatever order it
// came, whenever it is looked at.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		rules := randomRules(rnd)
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
