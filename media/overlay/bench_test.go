package overlay

import (
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
)

// The packet path must not wait for the collector.
func TestApplyDoesNotAllocate(t *testing.T) {
	for name, c := range coders(t) {
		t.Run(name, func(t *testing.T) {
			next := stream(c)
			b := genesys
			b.Interval = time.Second
			o := New(Config{Formats: []media.Format{c.format}, Beep: &b, Epoch: epoch})
			changed := 0
			n := testing.AllocsPerRun(400, func() { // whole beeps and the time around them
				at, wire := next()
				if &o.Apply(at, wire)[0] != &wire[0] {
					changed++
				}
			})
			if n != 0 || changed < 80 {
				t.Fatalf("%v allocations per packet, %d changed", n, changed)
			}
		})
	}
}

// stream prepares a sender, whose packets come again and again.
func stream(c coder) func() (time.Time, []byte) {
	const packets = 50
	s := mediatest.RTPStream{SSRC: 7, PayloadType: c.format.PayloadType}
	frame, ticks := c.rate/50, c.format.ClockRate/50
	pcm := speech(c.rate, packets*frame, c.channels, 6000)
	var wires [][]byte
	for i := range packets {
		wires = append(wires, s.Next(c.encode(pcm[i*frame*c.channels:(i+1)*frame*c.channels]), ticks))
	}
	i := 0
	return func() (time.Time, []byte) {
		wire := wires[i%packets]
		wire[2], wire[3] = byte(i>>8), byte(i)
		ts := uint32(i * ticks)
		wire[4], wire[5], wire[6], wire[7] = byte(ts>>24), byte(ts>>16), byte(ts>>8), byte(ts)
		i++
		return epoch.Add(time.Duration(i) * 20 * time.Millisecond), wire
	}
}

// BenchmarkApply is the cost of a packet of 20 ms: while nothing is heard nor
// will be soon, while the decoder follows, and while the tone is heard.
func BenchmarkApply(b *testing.B) {
	for _, name := range []string{"PCMU", "G722", "opus speech", "opus music"} {
		for phase, shift := range map[string]time.Duration{"idle": 5 * time.Second, "following": 13500 * time.Millisecond, "beep": 100 * time.Millisecond} {
			b.Run(name+"/"+phase, func(b *testing.B) {
				c := coders(b)[name]
				next := stream(c)
				beep := Beep{Frequency: 1400, Duration: 200 * time.Millisecond, Interval: 14 * time.Second, LevelDB: -24}
				if phase == "beep" {
					beep.Duration, beep.Interval = time.Hour, time.Hour
				}
				o := New(Config{Formats: []media.Format{c.format}, Beep: &beep, Epoch: epoch})
				b.ReportAllocs()
				for b.Loop() {
					_, wire := next()
					if phase == "beep" {
						o.(*overlay).beep.on, o.(*overlay).last = false, -1
					}
					o.Apply(epoch.Add(shift), wire)
				}
			})
		}
	}
}
