package siptest

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/trunktap/trunktap/media/mediatest"
)

func mustRTP(t *testing.T, wire []byte) *rtp.Packet {
	t.Helper()
	p := &rtp.Packet{}
	if err := p.Unmarshal(wire); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDigits(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		ac, bc := p.connect(t, ctx, CallOptions{})
		start := time.Now()
		if err := ac.Media().SendDigits(ctx, "1*#D"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 700*time.Millisecond || d > 760*time.Millisecond {
			t.Errorf("four digits took %s", d)
		}
		var events []byte
		var last *rtp.Packet
		ends := 0
		for _, pkt := range bc.Media().Received() {
			r := mustRTP(t, pkt.Wire)
			if r.PayloadType != eventPayloadType {
				continue
			}
			if r.Marker != (last == nil || last.Timestamp != r.Timestamp) {
				t.Errorf("marker %v on event at %d", r.Marker, r.Timestamp)
			}
			if r.Marker {
				events = append(events, r.Payload[0])
			}
			if r.Payload[1]&0x80 != 0 {
				ends++
				if d := binary.BigEndian.Uint16(r.Payload[2:]); d != 800 {
					t.Errorf("event of %d samples", d)
				}
			}
			last = r
		}
		if d := cmp.Diff([]byte{1, 10, 11, 15}, events); d != "" || ends != 12 {
			t.Errorf("%d ends; %s", ends, d)
		}
		if err := ac.Media().SendDigits(ctx, "12x"); err == nil {
			t.Error("x was dialled")
		}
	})
}

func TestImpair(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		ac, bc := p.connect(t, ctx, CallOptions{})
		is := func(n ...int) func(int) bool { return func(i int) bool { return slices.Contains(n, i) } }
		first := binary.BigEndian.Uint16(ac.Media().Sent()[0].Wire[2:])
		ac.Media().Impair(Impair{Lose: is(3, 4), Duplicate: is(6), Swap: is(8)})
		time.Sleep(time.Second + ptime/2) // nobody sends at this moment
		var got []uint16
		for _, pkt := range bc.Media().Received()[:12] {
			got = append(got, binary.BigEndian.Uint16(pkt.Wire[2:])-first)
		}
		if d := cmp.Diff([]uint16{0, 1, 2, 5, 6, 6, 7, 9, 8, 10, 11, 12}, got); d != "" {
			t.Error(d)
		}
		wantSame(t, "a to b", ac, bc)
	})
}

func TestJumpAndSSRC(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		ac, bc := p.connect(t, ctx, CallOptions{})
		time.Sleep(200*time.Millisecond + time.Millisecond)
		ac.Media().Jump(100, 8000)
		time.Sleep(200 * time.Millisecond)
		old := ac.Media().SSRC()
		ac.Media().NewSSRC()
		time.Sleep(200 * time.Millisecond)
		jumps, changes := 0, 0
		var last *rtp.Packet
		for _, pkt := range bc.Media().Received() {
			r := mustRTP(t, pkt.Wire)
			if last != nil && r.SSRC != last.SSRC {
				changes++
				if last.SSRC != old || r.SSRC != ac.Media().SSRC() || !r.Marker {
					t.Errorf("source went from %x to %x, marker %v", last.SSRC, r.SSRC, r.Marker)
				}
			} else if last != nil && r.SequenceNumber-last.SequenceNumber != 1 {
				jumps++
				if r.SequenceNumber-last.SequenceNumber != 101 || r.Timestamp-last.Timestamp != 8160 {
					t.Errorf("jumped by %d and %d", r.SequenceNumber-last.SequenceNumber, r.Timestamp-last.Timestamp)
				}
			}
			last = r
		}
		if jumps != 1 || changes != 1 {
			t.Errorf("%d jumps, %d changes of source", jumps, changes)
		}
	})
}

func TestSkewAndReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := memory()
		a.SkewPPM, a.RTCP = 200, true
		p := newPair(t, a, b)
		ac, bc := p.connect(t, t.Context(), CallOptions{})
		ac.Media().Play(Tone(440, 0.5))
		time.Sleep(10 * time.Minute)
		// 600 s of a clock 200 ppm fast are 600.12 s: 6 packets more.
		n := 0
		reports := 0
		for _, pkt := range bc.Media().Received() {
			if !pkt.RTCP {
				n++
				continue
			}
			packets, err := rtcp.Unmarshal(pkt.Wire)
			if err != nil || len(packets) != 2 {
				t.Fatalf("%d reports, error %v", len(packets), err)
			}
			if sr, ok := packets[0].(*rtcp.SenderReport); !ok || sr.SSRC != ac.Media().SSRC() || int(sr.PacketCount)-n < 0 || int(sr.PacketCount)-n > 1 {
				t.Fatalf("%v after %d packets", packets[0], n) // the last one may still lie in the other socket
			}
			reports++
		}
		if n < 30006 || n > 30007 {
			t.Errorf("%d packets in 10 minutes", n)
		}
		if reports < 118 || reports > 120 {
			t.Errorf("%d sender reports in 10 minutes", reports)
		}
	})
}

func TestSourcesOnTheWire(t *testing.T) {
	pcm := mediatest.Tone(440, 8000, 240, 8000)
	out := make([]int16, 160)
	source := PCM(pcm)
	var got []int16
	for range 3 {
		if !source.Read(out) {
			t.Fatal("PCM sends nothing")
		}
		got = append(got, out...)
	}
	if d := cmp.Diff(append(slices.Clone(pcm), make([]int16, 240)...), got); d != "" {
		t.Error(d)
	}
	tone := Tone(1000, 0.5)
	for range 3 {
		tone.Read(out)
		if e, want := mediatest.Energy(out, 1000, 8000), 16383.0*16383/2; e < want*0.99 || e > want*1.01 {
			t.Errorf("energy %.0f, want %.0f", e, want)
		}
	}
	if DTX().Read(out) {
		t.Error("DTX sends")
	}
}

// A sender that stood still sends what it should have sent, with the voice of
// that time, before it changes its voice.
func TestStalledSender(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		ac, bc := p.connect(t, ctx, CallOptions{})
		time.Sleep(time.Second + ptime/2)
		m := ac.Media()
		if d := m.Latest(); d > 0 {
			t.Errorf("late by %s on an idle machine", d)
		}
		m.mu.Lock()
		m.begun = m.begun.Add(-time.Second) // as if it had slept
		m.mu.Unlock()
		m.Play(Tone(440, 0.25))
		if d := m.Latest(); d < 900*time.Millisecond || d > time.Second {
			t.Errorf("late by %s, want a second less half a packet time", d)
		}
		time.Sleep(time.Second)
		silent, loud := 0, 0
		for _, pkt := range bc.Media().Received() {
			pcm := make([]int16, ptimeSamples)
			PCMU.Decode(pcm, mustRTP(t, pkt.Wire).Payload)
			switch {
			case mediatest.Energy(pcm, 440, 8000) > 1e6:
				loud++
			case loud > 0:
				t.Error("silence after the voice")
			default:
				silent++
			}
		}
		if silent < 100 || silent > 102 || loud < 49 || loud > 51 {
			t.Errorf("%d packets of silence and %d of the voice, want 2 s and 1 s", silent, loud)
		}
	})
}

func TestHeard(t *testing.T) {
	for _, codec := range []Codec{PCMU, PCMA} {
		bubble(t, func(t *testing.T, ctx context.Context, p pair) {
			ac, bc := p.connect(t, ctx, CallOptions{Offer: Offer{Codecs: []Codec{codec}}})
			ac.Media().Play(Tone(440, 0.25))
			time.Sleep(time.Second)
			ac.Media().Play(DTX())
			time.Sleep(time.Second)
			ac.Media().Play(Tone(1000, 0.25))
			time.Sleep(time.Second)
			start, pcm := bc.Media().Heard()
			if n := len(pcm); n < 23_500 || n > 24_500 || time.Since(start) > 3100*time.Millisecond {
				t.Fatalf("%s: %d samples from %s ago", codec.Name, n, time.Since(start))
			}
			for from, want := range map[int][2]bool{1600: {true, false}, 9600: {false, false}, 17_600: {false, true}} {
				for i, f := range []float64{440, 1000} {
					if e := mediatest.Energy(pcm[from:from+4800], f, 8000); (e > 1e7) != want[i] || e < 1e7 && e > 1e4 {
						t.Errorf("%s: %v Hz after %d samples has an energy of %.3g", codec.Name, f, from, e)
					}
				}
			}
		})
	}
}

func TestMix(t *testing.T) {
	pcm := make([]int16, ptimeSamples)
	if !Mix(Tone(440, 0.25), DTX(), Tone(1000, 0.25)).Read(pcm) {
		t.Error("nothing is sent though two of three speak")
	}
	for _, f := range []float64{440, 1000} {
		if e := mediatest.Energy(pcm, f, 8000); e < 2e7 || e > 5e7 { // half of (0.25 × 32767)²
			t.Errorf("%v Hz has an energy of %.3g", f, e)
		}
	}
	if Mix(DTX(), DTX()).Read(pcm) || Mix().Read(pcm) {
		t.Error("something is sent though nobody speaks")
	}
	full := []int16{math.MaxInt16, math.MinInt16}
	if Mix(PCM(full), PCM(full)).Read(pcm[:2]); !slices.Equal(pcm[:2], full) {
		t.Errorf("a sum beyond full scale is %v", pcm[:2])
	}
}

func TestDTXLeavesGapsInTime(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context, p pair) {
		ac, bc := p.connect(t, ctx, CallOptions{})
		time.Sleep(time.Second + time.Millisecond)
		ac.Media().Play(DTX())
		time.Sleep(time.Second)
		ac.Media().Play(nil)
		time.Sleep(time.Second)
		var last *rtp.Packet
		gaps := 0
		for _, pkt := range bc.Media().Received() {
			r := mustRTP(t, pkt.Wire)
			if last != nil && r.SequenceNumber != last.SequenceNumber+1 {
				t.Error("sequence number jumped")
			}
			if last != nil && r.Timestamp-last.Timestamp != 160 {
				gaps++
				if d := r.Timestamp - last.Timestamp; !r.Marker || d != 51*160 {
					t.Errorf("gap of %d samples, marker %v", d, r.Marker)
				}
			}
			last = r
		}
		if gaps != 1 {
			t.Errorf("%d gaps", gaps)
		}
	})
}

func TestKeepMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := memory()
		a.KeepMax = 10
		p := newPair(t, a, b)
		ac, _ := p.connect(t, t.Context(), CallOptions{})
		time.Sleep(time.Second)
		m := ac.Media()
		if len(m.Sent()) != 10 || len(m.Received()) != 10 || m.Dropped() < 80 {
			t.Errorf("kept %d and %d, dropped %d", len(m.Sent()), len(m.Received()), m.Dropped())
		}
	})
}
