package recorder

import (
	"fmt"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// busy is running with several recordings and with codes to look for.
func busy(recordings int, codes bool) (*core, func()) {
	p := kindsPlan()
	p.SegmentMax = time.Hour
	p.Stations = stations{p, true}
	if codes {
		for i := range p.Codes {
			p.Codes[i] = []suppress.Code{{Digits: "*#0", Event: suppress.PauseStart}, {Digits: "*#1", Event: suppress.PauseEnd}}
		}
	}
	s := testSession("call-1")
	s.Parties = nil
	c := newCore(s, p, "", plainMemory{}, func(recordingInfo) output { return &discardOutput{} })
	c.answer(at(0))
	for i := 1; i < recordings; i++ {
		c.signal(suppress.Signal{V: 1, Event: suppress.AgentJoin, At: at(0), User: fmt.Sprint("agent", i), Role: suppress.RoleAgent})
	}
	for _, s := range []media.Side{media.External, media.Internal} {
		c.stream(media.Stream{ID: media.StreamID(s), Side: s, At: at(0), Formats: g711Formats, Sending: true})
	}
	return c, talking(c)
}

// TestNoAllocationPerPacketOfManyRecordings: what remains is per frame and
// account of each recording.
func TestNoAllocationPerPacketOfManyRecordings(t *testing.T) {
	c, next := busy(3, true)
	if len(c.recs) != 3 {
		t.Fatalf("%d recordings", len(c.recs))
	}
	const packets = 100
	perSecond := testing.AllocsPerRun(20, func() {
		for range packets / 2 {
			next()
		}
	})
	if perSecond > 3*packets/10 {
		t.Errorf("%.0f allocations for %d packets", perSecond, packets)
	}
	t.Logf("%.1f allocations in a second of a call (%d packets)", perSecond, packets)
}

func BenchmarkRecordings(b *testing.B) {
	for _, n := range []int{1, 3} {
		for _, codes := range []bool{false, true} {
			b.Run(fmt.Sprint(n, " codes ", codes), func(b *testing.B) {
				_, next := busy(n, codes)
				b.ReportAllocs()
				for b.Loop() {
					next()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2, "ns/packet")
			})
		}
	}
}

// BenchmarkState is what a round of a session without packets costs when its
// recordings have many windows.
func BenchmarkState(b *testing.B) {
	for _, windows := range []int{0, 1000} {
		b.Run(fmt.Sprint(windows, " windows"), func(b *testing.B) {
			c, _ := busy(3, false)
			s := &session{core: c}
			for i := range windows {
				ms := 11000 + 40*i
				c.signal(suppress.Signal{V: 1, Event: suppress.HoldStart, At: at(ms), Received: at(ms), Source: "test"})
				c.signal(suppress.Signal{V: 1, Event: suppress.HoldEnd, At: at(ms + 20), Received: at(ms + 20), Source: "test"})
			}
			c.advance(c.now + int64(5*time.Second))
			b.ReportAllocs()
			for b.Loop() {
				s.publishState()
			}
		})
	}
}
