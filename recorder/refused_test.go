package recorder

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
)

// refusals are packets of a side that came and could not be decrypted.
func refusals(side media.Side, fromMS, toMS int) (out []step) {
	for ms := fromMS; ms < toMS; ms += 20 {
		t := at(ms)
		out = append(out, step{at: t, do: func(c *testCall) {
			if tap, ok := c.taps[media.StreamID(side)].(interface {
				Refused(time.Time, uint32)
			}); ok {
				tap.Refused(t, 2)
			}
		}})
	}
	return out
}

// TestNotDecrypted: where packets came that could not be decrypted the account says
// so, and nowhere else.
func TestNotDecrypted(t *testing.T) {
	ext := talk(media.External, 0, 6000, constant(0x30))
	ext = slices.Delete(ext, 50, 100) // 1000 to 2000
	ext = slices.Delete(ext, 100, 110)
	sink, m := replayed(t, testPlan(), script(answered(6000), ext, refusals(media.External, 1000, 2000), refusals(media.Internal, 0, 6000)))
	checkAccount(t, m, sink)
	want := []Gap{
		{Channel: 1, RealMS: 0, AudioMS: 0, DurationMS: 6000, Cause: GapUndecodable, Filled: "silence", Detail: notDecrypted},
		{Channel: 0, RealMS: 1000, AudioMS: 1000, DurationMS: 1000, Cause: GapUndecodable, Filled: "silence", Detail: notDecrypted},
		{Channel: 0, RealMS: 3000, AudioMS: 3000, DurationMS: 200, Cause: GapLoss, Filled: "silence"},
	}
	if d := cmp.Diff(want, m.Gaps); d != "" {
		t.Error(d)
	}
	var rows [][3]int64
	for _, s := range m.Streams {
		rows = append(rows, [3]int64{int64(s.Channel), s.Packets, s.Undecrypted})
	}
	if d := cmp.Diff([][3]int64{{0, 240, 100}, {1, 0, 600}}, rows); d != "" {
		t.Error(d)
	}
	if m.Streams[1].Codec != "SRTP" {
		t.Errorf("codec %q", m.Streams[1].Codec)
	}
}

// TestRefusedListIsBounded: there are so many spans, and a gap that is near one beyond
// them is explained all the same.
func TestRefusedListIsBounded(t *testing.T) {
	var l refusedList
	for i := range int64(3 * refusedMax) {
		l.add(i*1000, 1)
	}
	if len(l.spans) != refusedMax || l.packets != 3*refusedMax || !l.near(2*refusedMax*1000, 2*refusedMax*1000+1) || l.near(500, 900) || !l.near(900, 950) {
		t.Errorf("%d spans, %d packets", len(l.spans), l.packets)
	}
}
