package recorder

import (
	"fmt"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// TestHeldBackAudioIsKept: however long audio is held back, nothing of it is lost.
func TestHeldBackAudioIsKept(t *testing.T) {
	for _, lookback := range []time.Duration{0, 500 * time.Millisecond, 2 * time.Second, 5 * time.Second} {
		for _, keys := range [][]key{nil, {{2000, '*'}}, {{2000, '*'}, {3900, '#'}}} {
			plan := testPlan()
			plan.Lookback = lookback
			plan.Codes[media.Internal] = []suppress.Code{{Digits: "*#0", Event: suppress.PauseStart}}
			sh := recordedBy(t, plan, testSession("call"), script(answered(9000),
				typed(media.Internal, 9000, false, keys...), talk(media.External, 0, 9000, constant(0x20))))
			m := sh.sinks["call"].manifest
			pcm := sh.sinks["call"].pcm()
			if m.AudioMS != 9000 || len(m.Gaps) > 0 || spans(pcm[0]) != fmt.Sprintf("%d:0–9000", extPCM) {
				t.Errorf("lookback %v, %d keys: %d ms, gaps %+v", lookback, len(keys), m.AudioMS, m.Gaps)
			}
		}
	}
}
