package overlay

import (
	"math"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/media/mediatest"
)

// silent runs a PCMU sender that says nothing through an overlay.
func silent(cfg Config, lasts, ptime, begin, jitter time.Duration) *call {
	c := g711Coder(pcmu, codec.MuLaw, codec.MuLawLinear)
	cfg.Formats, cfg.Epoch = []media.Format{pcmu}, epoch
	return run(c, c, New(cfg), make([]int16, lasts*8000/time.Second), ptime, epoch.Add(begin), jitter)
}

// sounds returns where in the samples something is heard: begin and end, silences
// of less than 2 ms not counted.
func sounds(pcm []int16) (spans [][2]int) {
	for i, v := range pcm {
		if v == 0 {
			continue
		}
		if n := len(spans); n > 0 && i-spans[n-1][1] < 16 {
			spans[n-1][1] = i + 1
			continue
		}
		spans = append(spans, [2]int{i, i + 1})
	}
	return spans
}

// A beep has its exact length and begins at its time, whatever the jitter and
// the packet time.
func TestBeepTimes(t *testing.T) {
	for _, ptime := range []time.Duration{10, 20, 30, 60} {
		ptime *= time.Millisecond
		for _, jitter := range []time.Duration{0, 15 * time.Millisecond, 60 * time.Millisecond} {
			b := genesys
			c := silent(Config{Beep: &b}, 30*time.Second, ptime, 3*time.Millisecond, jitter)
			spans := sounds(c.heard)
			if len(spans) != 3 {
				t.Fatalf("%v, jitter %v: heard %v", ptime, jitter, spans)
			}
			for k, span := range spans {
				want := k*14*8000 - 3*8 // in the stream
				late := 16
				if jitter > 0 {
					late = int((jitter + ptime) / (time.Second / 8000))
				}
				if k == 0 {
					want = 0 // what was before is over
				}
				if early := span[0] - want; early < -late || early > late {
					t.Errorf("%v, jitter %v: beep %d begins %d samples off", ptime, jitter, k, early)
				}
				if n := span[1] - span[0]; n < 1590 || n > 1600 { // its first samples are below the smallest code
					t.Errorf("%v, jitter %v: beep %d lasts %d samples", ptime, jitter, k, n)
				}
			}
		}
	}
}

// The phase goes on from packet to packet: the whole beep is one sine.
func TestBeepIsOneSine(t *testing.T) {
	for _, second := range []float64{0, 2100} {
		b := genesys
		b.Second = second
		c := silent(Config{Beep: &b}, time.Second, 20*time.Millisecond, 0, 15*time.Millisecond)
		power := 0.0
		for _, v := range c.heard[32:1568] {
			power += float64(v) * float64(v) / 1536
		}
		if db := 10 * math.Log10(2*power/(32767*32767)); math.Abs(db+24) > 0.1 {
			t.Errorf("%.2f dB", db)
		}
		whole := mediatest.Energy(c.heard[32:1568], 1400, 8000)
		if second != 0 {
			whole += mediatest.Energy(c.heard[32:1568], second, 8000)
		}
		if rest := (power - whole) / power; rest > 0.002 { // quantization noise alone
			t.Errorf("second %v: %.4f of the power is not the tone's", second, rest)
		}
		for i := 1; i < 32; i++ { // the fade
			if v := int(c.heard[i]); v > 100*(i+1) || v < -100*(i+1) {
				t.Errorf("sample %d of the fade is %d", i, v)
			}
		}
	}
}

func TestBeepOnlyWhileCapturing(t *testing.T) {
	now := epoch
	off := [][2]time.Duration{{0, 5 * time.Second}, {14100 * time.Millisecond, 20 * time.Second}, {27 * time.Second, 28050 * time.Millisecond}}
	b := genesys
	o := New(Config{Formats: []media.Format{pcmu}, Beep: &b, Epoch: epoch, Capturing: func() bool {
		for _, span := range off {
			if d := now.Sub(epoch); d >= span[0] && d < span[1] {
				return false
			}
		}
		return true
	}})
	s := mediatest.RTPStream{SSRC: 1}
	var heard []int16
	for i := range 30 * 50 {
		now = epoch.Add(time.Duration(i) * 20 * time.Millisecond)
		for _, octet := range o.Apply(now, s.Audio(make([]int16, 160)))[12:] {
			heard = append(heard, codec.MuLawLinear(octet))
		}
	}
	// None at 0 s; that of 14 s ends when capture does; that of 28 s begins when
	// capture does.
	spans := sounds(heard)
	if len(spans) != 2 || spans[0][0]/160 != 700 || spans[0][1] != 705*160 ||
		spans[1][0]/160 != 1403 || spans[1][1] != 1413*160 {
		t.Fatalf("heard %v", spans)
	}
}

// After a renegotiation in the midst of a beep the rest of it is heard, and the
// next ones when they would have been.
func TestBeepOverRenegotiation(t *testing.T) {
	b := genesys
	begin := 14*time.Second + 80*time.Millisecond
	c := silent(Config{Beep: &b, Since: epoch.Add(begin - time.Millisecond)}, 15*time.Second, 20*time.Millisecond, begin, 0)
	spans := sounds(c.heard)
	if len(spans) != 2 || spans[0][0] > 8 || spans[0][1] < 950 || spans[0][1] > 960 || spans[1][0]/8/20 != 13920/20 {
		t.Fatalf("heard %v", spans)
	}
}

// packets is a sender whose headers a test can bend.
type packets struct {
	o     media.Overlay
	s     mediatest.RTPStream
	now   time.Time
	heard []bool // by packet
}

func newPackets(b *Beep) *packets {
	return &packets{o: New(Config{Formats: []media.Format{pcmu, pcma}, Beep: b, Epoch: epoch}), s: mediatest.RTPStream{SSRC: 1, Seq: 65530}, now: epoch}
}

func (p *packets) next() (heard bool, wire []byte) {
	wire = p.s.Audio(make([]int16, 160))
	heard = &p.o.Apply(p.now, wire)[0] != &wire[0]
	p.now = p.now.Add(20 * time.Millisecond)
	p.heard = append(p.heard, heard)
	return heard, wire
}

func (p *packets) want(t *testing.T, want string) {
	t.Helper()
	got := ""
	for _, h := range p.heard {
		got += map[bool]string{true: "x", false: "."}[h]
	}
	if got != want {
		t.Errorf("heard in %s, want %s", got, want)
	}
}

func TestOddStreams(t *testing.T) {
	for name, c := range map[string]struct {
		bend func(*packets, int)
		want string
	}{
		"plain":              {func(*packets, int) {}, "xxxxxxxxxx......"},
		"timestamps jump":    {func(p *packets, i int) { p.s.Timestamp += map[int]uint32{4: 1 << 30}[i] }, "xxxxxxxxxx......"},
		"timestamps go back": {func(p *packets, i int) { p.s.Timestamp -= map[int]uint32{4: 100000}[i] }, "xxxxxxxxxx......"},
		"another source": {func(p *packets, i int) {
			if i == 4 {
				p.s = mediatest.RTPStream{SSRC: 2, Seq: 7, Timestamp: 1 << 31}
			}
		}, "xxxxxxxxxx......"},
		"numbers begin anew": {func(p *packets, i int) { p.s.Seq += map[int]uint16{4: 30000}[i] }, "xxxxxxxxxx......"},
		"another codec":      {func(p *packets, i int) { p.s.PayloadType = map[bool]uint8{true: 8}[i >= 4] }, "xxxxxxxxxx......"},
		"five packets lost": {func(p *packets, i int) {
			if i == 4 {
				p.s.Seq += 5
				p.s.Timestamp += 800
				p.now = p.now.Add(100 * time.Millisecond)
			}
		}, "xxxxx..........."},
		"the network stood still": {func(p *packets, i int) { p.now = p.now.Add(map[int]time.Duration{4: 700 * time.Millisecond}[i]) }, "xxxxxxxxxx......"},
		"not negotiated":          {func(p *packets, i int) { p.s.PayloadType = map[bool]uint8{true: 101}[i%2 == 1] }, "x.x.x.x.x......."},
	} {
		t.Run(name, func(t *testing.T) {
			b := genesys
			p := newPackets(&b)
			for i := range 16 {
				c.bend(p, i)
				p.next()
			}
			p.want(t, c.want)
		})
	}
}

// A packet that was overtaken, or that comes twice, gets the part of the tone
// that belongs there.
func TestOvertakenPackets(t *testing.T) {
	b := genesys
	p := newPackets(&b)
	var want, wires [][]byte
	for range 6 {
		_, wire := p.next()
		wires = append(wires, wire)
	}
	q := newPackets(&b)
	for i, at := range []int{0, 2, 1, 3, 3, 5, 4} {
		got := string(q.o.Apply(epoch.Add(time.Duration(i)*20*time.Millisecond), wires[at]))
		r := newPackets(&b)
		want = nil
		for k := 0; k <= at; k++ {
			want = append(want, append([]byte(nil), r.o.Apply(epoch.Add(time.Duration(k)*20*time.Millisecond), wires[k])...))
		}
		if got != string(want[at]) {
			t.Errorf("packet %d differs after it was overtaken", at)
		}
	}
}

// A codec with memory cannot code a packet out of its turn.
func TestOvertakenPacketsOfMemory(t *testing.T) {
	for _, name := range []string{"G722", "opus speech"} {
		b, counts := genesys, &Counts{}
		next := stream(coders(t)[name])
		o := New(Config{Formats: []media.Format{g722, opu}, Beep: &b, Epoch: epoch, Counts: counts})
		var wires [][]byte
		for range 4 {
			at, wire := next()
			wires = append(wires, append([]byte(nil), wire...))
			if i := len(wires) - 1; i != 1 { // the second comes last
				if out := o.Apply(at, wires[i]); &out[0] == &wires[i][0] {
					t.Errorf("%s: packet %d has no tone", name, i)
				}
			}
		}
		if out := o.Apply(epoch.Add(100*time.Millisecond), wires[1]); &out[0] != &wires[1][0] || counts.Late.Load() != 1 || counts.Mixed.Load() != 3 {
			t.Errorf("%s: the overtaken packet was changed, or not counted: %d late", name, counts.Late.Load())
		}
	}
}
