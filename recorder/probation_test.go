package recorder

import (
	"slices"
	"testing"

	"github.com/trunktap/trunktap/media"
)

// TestSequenceResetLosesNothing: a sender that begins anew under its SSRC is
// recorded from its first packet on; a stray packet that nothing confirms is not.
func TestSequenceResetLosesNothing(t *testing.T) {
	type jump struct {
		seq uint16
		ts  uint32
	}
	tests := []struct {
		name  string
		after jump // what the packets from 1 s on add to theirs
		stray bool // one alone in between, instead
	}{
		{name: "forward", after: jump{seq: 20000, ts: 1 << 30}},
		{name: "backward", after: jump{seq: 65536 - 1000, ts: 1 << 30}},
		{name: "numbers alone", after: jump{seq: 20000}},
		{name: "one stray packet", after: jump{seq: 20000, ts: 1 << 30}, stray: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var ext []step
			for n := range 100 {
				seq, ts, when := uint16(5000+n), uint32(160*n), at(20*n)
				if n >= 50 && !tt.stray {
					seq, ts = seq+tt.after.seq, ts+tt.after.ts
				}
				put := func(seq uint16, ts uint32, value byte) {
					wire := packet(0, seq, ts, 7, slices.Repeat([]byte{value}, 160))
					ext = append(ext, step{at: when, do: func(c *testCall) { c.put(media.External, when, wire) }})
				}
				put(seq, ts, 0x30)
				if n == 50 && tt.stray {
					put(seq+tt.after.seq, ts+tt.after.ts, 0x10)
				}
			}
			sink, m := replayed(t, testPlan(), script(answered(2000), ext, talk(media.Internal, 0, 2000, constant(0x20))))
			checkAccount(t, m, sink)
			if len(m.Gaps) > 0 {
				t.Errorf("gaps %+v", m.Gaps)
			}
			if s := m.Streams[0]; s.Packets != 100 || s.Lost != 0 || s.Late != 0 {
				t.Errorf("%+v", s)
			}
			pcm := sink.pcm()[0]
			for i, v := range pcm {
				if v != pcm[0] {
					t.Fatalf("sample %d is %d", i, v)
				}
			}
		})
	}
}
