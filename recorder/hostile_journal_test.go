package recorder

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// What later packets take back is taken back in the journal too, however long ago it was.
func TestHostileJournalTakesBackOldGaps(t *testing.T) {
	plan := testPlan()
	ext := talk(media.External, 0, 5000, constant(0x30))
	for n, ms := 250, 60000; ms < 90000; n, ms = n+1, ms+20 { // the sender was silent (DTX): sequence numbers go on
		wire := packet(0, uint16(65500+n), uint32(4294960000+8*ms), 0x1000, slices.Repeat([]byte{0x30}, 160))
		w := at(ms)
		ext = append(ext, step{at: w, do: func(c *testCall) { c.put(media.External, w, wire) }})
	}
	sink, m := replayed(t, plan, script(answered(90000), ext, talk(media.Internal, 0, 90000, constant(0x20)),
		[]step{signalAt(10000, suppress.HoldStart), signalAt(11000, suppress.HoldEnd)}))
	var whole *Manifest
	for _, a := range sink.accounts {
		whole = Complete(whole, a)
	}
	if d := cmp.Diff(m.Gaps, whole.Gaps); d != "" {
		t.Errorf("gaps (-final +journal up to %d): %s", whole.RealMS, d)
	}
}
