package recorder

import (
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
)

// discardOutput takes everything.
type discardOutput struct{ frames int }

func (d *discardOutput) begin(SegmentInfo)           {}
func (d *discardOutput) audio(Audio, *Manifest) bool { d.frames++; return true }
func (d *discardOutput) finish(Segment, *Manifest)   {}
func (d *discardOutput) abandon()                    {}
func (d *discardOutput) publish(*Manifest)           {}
func (d *discardOutput) discard(string)              {}
func (d *discardOutput) refusal() (string, string)   { return "", "" }

// running returns a core in the middle of a call and a function that gives it
// the next packet of both sides.
func running(format string) (*core, func()) {
	p := testPlan()
	p.Format, p.SegmentMax = format, time.Hour
	c := newCore(testSession("call-1"), p, "", plainMemory{}, func(recordingInfo) output { return &discardOutput{} })
	c.answer(at(0))
	for _, s := range []media.Side{media.External, media.Internal} {
		c.stream(media.Stream{ID: media.StreamID(s), Side: s, At: at(0), Formats: g711Formats, Sending: true})
	}
	return c, talking(c)
}

// talking returns a function that gives a core the next packet of both sides,
// after ten seconds of them.
func talking(c *core) func() {
	wire := [2][]byte{packet(0, 0, 0, 1, make([]byte, 160)), packet(0, 0, 0, 2, make([]byte, 160))}
	n := 0
	next := func() {
		for s, w := range wire {
			seq, ts := uint16(n), uint32(160*n)
			w[2], w[3], w[4], w[5], w[6], w[7] = byte(seq>>8), byte(seq), byte(ts>>24), byte(ts>>16), byte(ts>>8), byte(ts)
			c.packet(media.StreamID(s), int64(time.Second)+int64(n)*20e6, w, 0)
		}
		n++
	}
	for range 500 {
		next()
	}
	return next
}

// TestNoAllocationPerPacket counts a second of both sides: what remains is per
// frame and account, not per packet.
func TestNoAllocationPerPacket(t *testing.T) {
	_, next := running(FormatWAVPCM16)
	const packets = 100
	perSecond := testing.AllocsPerRun(20, func() {
		for range packets / 2 {
			next()
		}
	})
	// Two frames a second with their data, and a fifth of an account.
	if perSecond > packets/10 {
		t.Errorf("%.0f allocations for %d packets", perSecond, packets)
	}
	t.Logf("%.1f allocations in a second of a call (%d packets)", perSecond, packets)
}

func BenchmarkPipeline(b *testing.B) {
	for _, format := range []string{FormatWAVPCM16, FormatWAVPCMU, FormatOggOpus} {
		b.Run(format, func(b *testing.B) {
			_, next := running(format)
			b.ReportAllocs()
			for b.Loop() {
				next()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2, "ns/packet")
		})
	}
}
