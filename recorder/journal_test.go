package recorder

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// TestJournalledAccountsAddUp holds what recovery relies on: the accounts that
// go with frames, taken together, list what the final manifest lists up to
// where they reach, and stay small however many gaps the call has.
func TestJournalledAccountsAddUp(t *testing.T) {
	const length = 120000
	rng := rand.New(rand.NewPCG(5, 5))
	plan := testPlan()
	plan.SegmentMax = 50e9
	steps := script(answered(length),
		impaired(rng, media.External, 0, length, 0, 0.10, 30, 0x30), impaired(rng, media.Internal, 0, length, 0, 0.10, 30, 0x20),
		digit(media.External, 20000, 3, 1), digit(media.Internal, 90000, 4, 1),
		[]step{signalAt(30000, suppress.HoldStart), signalAt(31000, suppress.HoldEnd)})
	sink, m := replayed(t, plan, steps)
	checkAccount(t, m, sink)
	if len(m.Gaps) < 500 || len(sink.accounts) < 100 {
		t.Fatalf("%d gaps, %d accounts: the test shows nothing", len(m.Gaps), len(sink.accounts))
	}
	var whole *Manifest
	most := 0
	for _, a := range sink.accounts {
		if a.SinceMS > 0 {
			most = max(most, len(a.Gaps))
		}
		whole = Complete(whole, a)
	}
	if most > len(m.Gaps)/3 {
		t.Errorf("an account lists %d of %d gaps, though it need only say what is new", most, len(m.Gaps))
	}
	reach := whole.RealMS - 2000 // what later packets may still correct
	if reach < length-10000 {
		t.Fatalf("accounts reach to %d ms of %d", whole.RealMS, length)
	}
	before := func(gaps []Gap) (out []Gap) {
		for _, g := range gaps {
			if g.RealMS+g.DurationMS < reach {
				out = append(out, g)
			}
		}
		slices.SortStableFunc(out, func(a, b Gap) int { return 2*int(a.RealMS-b.RealMS) + a.Channel - b.Channel })
		return out
	}
	if d := cmp.Diff(before(m.Gaps), before(whole.Gaps)); d != "" {
		t.Errorf("gaps (-final +journal): %s", d)
	}
	if d := cmp.Diff(m.DTMF, whole.DTMF); d != "" {
		t.Errorf("digits (-final +journal): %s", d)
	}
	if whole.SinceMS != 0 {
		t.Error("the completed account still says that something is missing")
	}
}
