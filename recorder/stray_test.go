package recorder

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// TestKeptSpans: the list of windows tells the same as the milliseconds.
func TestKeptSpans(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plan := testPlan()
		plan.Rules.HoldMic = rapid.Bool().Draw(rt, "mic")
		c := newCore(testSession("x"), plan, "", plainMemory{}, func(recordingInfo) output { return &discardOutput{} })
		c.answer(at(0))
		events := []suppress.Event{suppress.HoldStart, suppress.HoldEnd, suppress.PauseStart, suppress.PauseEnd}
		for ms := 0; ms < 5000; ms += rapid.IntRange(10, 900).Draw(rt, "pause") {
			c.signal(suppress.Signal{Event: events[rapid.IntRange(0, 3).Draw(rt, "event")], At: at(ms)})
		}
		c.advance(c.ns(at(6000)))
		r := c.recs[0]
		from := rapid.Int64Range(-8, 48000).Draw(rt, "from")
		to := from + rapid.Int64Range(1, 7999).Draw(rt, "samples")
		for ch := range 2 {
			if want, got := r.keptSpans(ch, span{from, to}), r.keptOfLong(ch, span{from, to}); !slices.Equal(want, got) {
				rt.Fatalf("channel %d, %d to %d: %v, want %v", ch, from, to, got, want)
			}
		}
	})
}

// TestManyStrays: those for which there is no room are not let pass.
func TestManyStrays(t *testing.T) {
	var l strayList
	for i := range int64(3 * straysMax) {
		l.add(stray{i, i, 1000 + i})
	}
	last, first := l.list[len(l.list)-1], l.list[0]
	if len(l.list) != straysMax || first.arrivalMS != 0 || first.lastMS != 2*straysMax || first.end != 1000+2*straysMax || last.lastMS != 3*straysMax-1 {
		t.Errorf("%d: %+v … %+v", len(l.list), first, last)
	}
}

// TestTypedCodesTellTheirEffect: in the events, as other signals do.
func TestTypedCodesTellTheirEffect(t *testing.T) {
	plan := testPlan()
	plan.Codes[media.Internal] = []suppress.Code{{Digits: "*#0", Event: suppress.PauseStart}}
	c := newCore(testSession("x"), plan, "", plainMemory{}, func(recordingInfo) output { return &discardOutput{} })
	tc := &testCall{taps: map[media.StreamID]media.Tap{1: coreTap{c, 1}}}
	c.answer(at(0))
	c.stream(media.Stream{ID: 1, Side: media.Internal, At: at(0), Formats: g711Formats, Sending: true})
	for _, s := range typed(media.Internal, 3000, false, key{1000, '*'}, key{1200, '#'}, key{1400, '0'}) {
		s.do(tc)
	}
	c.advance(c.ns(at(3000)))
	if len(c.emitted) != 3 || !c.emitted[1].effect.AppliedAt.Equal(at(1000)) || !slices.Contains(c.emitted[1].effect.Reasons, suppress.ReasonPause) {
		t.Errorf("%+v", c.emitted)
	}
}
