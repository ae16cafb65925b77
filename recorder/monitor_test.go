package recorder

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// ear is a Monitor that remembers what it heard, by millisecond.
type ear struct {
	raw     bool
	heard   map[int64][2]int16
	said    []string
	panicAt int64
}

func (e *ear) Raw() bool { return e.raw }
func (e *ear) Audio(realMS int64, rate int, ch [2][]int16) {
	if e.panicAt > 0 && realMS >= e.panicAt {
		panic("no more")
	}
	for i := range len(ch[0]) * 1000 / rate {
		at := realMS + int64(i)
		if _, twice := e.heard[at]; twice {
			e.say(fmt.Sprintf("twice at %d", at))
		}
		e.heard[at] = [2]int16{ch[0][i*rate/1000], ch[1][i*rate/1000]}
	}
}

func (e *ear) Suppressed()        { e.say("suppressed") }
func (e *ear) Parties(p []string) { e.say(fmt.Sprint("parties ", p)) }
func (e *ear) End()               { e.say("end") }
func (e *ear) say(s string) {
	if !slices.Contains(e.said, s) {
		e.said = append(e.said, s)
	}
}

// heardBy plays a call of five seconds with a pause from 1 to 2 s, and an agent
// who joins at 3 s.
func heardBy(t *testing.T, e *ear, plan Plan) (*memSink, *Recorder) {
	t.Helper()
	e.heard = map[int64][2]int16{}
	sink := newMemSink()
	r := mustRecorder(t, Config{Policy: fixedPolicy{plan}, NewSink: sink.open, Synchronous: true, Monitor: func(media.Session) Monitor { return e }})
	tap, err := r.SessionStarted(context.Background(), testSession("call-1"))
	if err != nil {
		t.Fatal(err)
	}
	c := &testCall{tap: tap, taps: map[media.StreamID]media.Tap{}}
	join := step{at: at(3000), do: func(c *testCall) {
		c.tap.Signal(suppress.Signal{V: 1, Event: suppress.AgentJoin, At: at(3000), Source: "test", User: "ann", Role: suppress.RoleAgent})
	}}
	for _, s := range script(answered(5000), talk(media.External, 0, 5000, constant(0x10)), talk(media.Internal, 0, 5000, constant(0x90)), []step{
		signalAt(1000, suppress.PauseStart), signalAt(2000, suppress.PauseEnd), join,
	}) {
		s.do(c)
	}
	if _, err := r.Results(); err != nil {
		t.Fatal(err)
	}
	checkAccount(t, sink.manifest, sink)
	return sink, r
}

func TestMonitorHearsWhatIsKept(t *testing.T) {
	for _, suppressed := range []string{SuppressedCut, SuppressedSilence} {
		plan := testPlan()
		plan.Suppressed = suppressed
		e := &ear{}
		heardBy(t, e, plan)
		want := [2]int16{loud(t, 0x10), loud(t, 0x90)}
		for ms := range int64(5000) {
			got, ok := e.heard[ms]
			if paused := ms >= 1000 && ms < 2000; ok == paused || ok && got != want {
				t.Fatalf("%s: at %d ms heard %v %v", suppressed, ms, got, ok)
			}
		}
		if said := fmt.Sprint(e.said); said != "[parties [sip:desk@pbx.example] suppressed parties [ann] end]" {
			t.Errorf("%s: told %s", suppressed, said)
		}
	}
}

func TestMonitorOfAllHearsWindows(t *testing.T) {
	e := &ear{raw: true}
	heardBy(t, e, testPlan())
	if len(e.heard) != 5000 || slices.Contains(e.said, "suppressed") {
		t.Errorf("%d ms heard, told %v", len(e.heard), e.said)
	}
}

func TestMonitorHearsNothingWithoutConsent(t *testing.T) {
	for name, c := range map[string]struct {
		raw, required bool
		signals       []step
		from, to      int64
	}{
		"granted":                 {false, true, []step{signalAt(2000, suppress.ConsentGranted)}, 2000, 3000},
		"granted, all is wanted":  {true, true, []step{signalAt(2000, suppress.ConsentGranted)}, 2000, 3000},
		"never, all is wanted":    {true, true, nil, 0, 0},
		"denied, all is wanted":   {true, true, []step{signalAt(1000, suppress.ConsentDenied)}, 0, 0},
		"withdrawn":               {false, false, []step{signalAt(2000, suppress.ConsentDenied)}, 0, 2000},
		"withdrawn, all wanted":   {true, false, []step{signalAt(2000, suppress.ConsentDenied)}, 0, 2000},
		"withdrawn after a grant": {true, true, []step{signalAt(1000, suppress.ConsentGranted), signalAt(2000, suppress.ConsentDenied)}, 1000, 2000},
	} {
		t.Run(name, func(t *testing.T) {
			plan := testPlan()
			plan.Rules.ConsentRequired = c.required
			e := &ear{raw: c.raw, heard: map[int64][2]int16{}}
			sink := newMemSink()
			r := mustRecorder(t, Config{Policy: fixedPolicy{plan}, NewSink: sink.open, Synchronous: true, Monitor: func(media.Session) Monitor { return e }})
			tap, err := r.SessionStarted(context.Background(), testSession("call-1"))
			if err != nil {
				t.Fatal(err)
			}
			call := &testCall{tap: tap, taps: map[media.StreamID]media.Tap{}}
			for _, s := range script(answered(3000), talk(media.External, 0, 3000, constant(0x10)), c.signals) {
				s.do(call)
			}
			for ms := range e.heard {
				if ms < c.from || ms >= c.to {
					t.Fatalf("heard at %d ms", ms)
				}
			}
			if int64(len(e.heard)) != c.to-c.from {
				t.Errorf("%d ms heard", len(e.heard))
			}
		})
	}
}

func TestMonitorThatPanicsCostsNothingElse(t *testing.T) {
	e := &ear{panicAt: 3000}
	sink, r := heardBy(t, e, testPlan())
	if sink.manifest.AudioMS != 4000 || r.Stats().MonitorsFailed.Load() != 1 || !slices.Contains(e.said, "end") {
		t.Errorf("%d ms recorded, %d monitors failed, told %v", sink.manifest.AudioMS, r.Stats().MonitorsFailed.Load(), e.said)
	}
}
