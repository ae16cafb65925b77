package dtmf_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media/dtmf"
	"github.com/trunktap/trunktap/media/mediatest"
)

// dialled is a second and a half of noise with three digits in it.
func dialled(r *rand.Rand, rate int) []int16 {
	pcm := make([]int16, rate*3/2)
	for i, digit := range []byte("*#0") {
		from := rate/5 + i*rate*2/5 + r.IntN(rate/10)
		mediatest.DTMF{Rate: rate, Low: -14, High: -12}.Add(pcm[from:from+rate/12], digit)
	}
	addNoise(r, pcm, -40)
	return pcm
}

// TestChunks: how the samples are cut into calls changes nothing.
func TestChunks(t *testing.T) {
	for _, rate := range []int{8000, 11025, 16000, 48000} {
		pcm := dialled(rand.New(rand.NewPCG(5, 6)), rate)
		d := dtmf.New(rate)
		want := d.Flush(d.Feed(-1000, pcm, nil))
		if got := text(want); got != "*#0" {
			t.Fatalf("%d Hz: got %q, want *#0", rate, got)
		}
		rapid.Check(t, func(t *rapid.T) {
			var got []dtmf.Event
			for i := 0; i < len(pcm); {
				n := min(rapid.IntRange(0, rate/10).Draw(t, "samples"), len(pcm)-i)
				got = d.Feed(int64(i-1000), pcm[i:i+n], got)
				i += n
			}
			if diff := cmp.Diff(want, d.Flush(got)); diff != "" {
				t.Fatalf("%d Hz: in one call -, in many +\n%s", rate, diff)
			}
		})
	}
}

func TestJump(t *testing.T) {
	const rate = 8000
	tone := make([]int16, rate/5)
	mediatest.DTMF{Rate: rate, Low: -10, High: -10}.Add(tone, '5')
	half := len(tone) / 2

	for _, c := range []struct {
		name    string
		at      int64 // of the second half; the first one is at 1000…1800
		from    int
		want    []dtmf.Event
		flushed []dtmf.Event
	}{
		{
			"no jump", 1800, half,
			[]dtmf.Event{{Digit: '5', At: 1000}},
			[]dtmf.Event{{Digit: '5', At: 2600, End: true}},
		},
		{
			"forward", 1960, half,
			[]dtmf.Event{{Digit: '5', At: 1000}, {Digit: '5', At: 1800, End: true}, {Digit: '5', At: 1960}},
			[]dtmf.Event{{Digit: '5', At: 2760, End: true}},
		},
		{
			"back", 200, half,
			[]dtmf.Event{{Digit: '5', At: 1000}, {Digit: '5', At: 1800, End: true}, {Digit: '5', At: 200}},
			[]dtmf.Event{{Digit: '5', At: 1000, End: true}},
		},
		{
			"to what is too short", 1960, len(tone) - rate/50,
			[]dtmf.Event{{Digit: '5', At: 1000}, {Digit: '5', At: 1800, End: true}},
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := dtmf.New(rate)
			got := d.Feed(1000, tone[:half], nil)
			got = d.Feed(c.at, tone[c.from:], got)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("fed: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(c.flushed, d.Flush(nil)); diff != "" {
				t.Errorf("flushed: -want +got\n%s", diff)
			}
			if again := d.Flush(nil); again != nil {
				t.Errorf("flushed twice: got %v, want nothing", again)
			}
		})
	}
}

// TestFlushBehindTone: an end that is known and not yet told is told as it is.
func TestFlushBehindTone(t *testing.T) {
	const rate = 8000
	pcm := make([]int16, 1000)
	mediatest.DTMF{Rate: rate, Low: -10, High: -10}.Add(pcm[:800], '#')
	events, _ := found(rate, pcm)
	if err := checkOne(events, rate, '#', 0, 800); err != nil {
		t.Error(err)
	}
}

// TestRates: a rate that is of no use makes a detector that finds nothing.
func TestRates(t *testing.T) {
	for _, rate := range []int{-8000, -1, 0, 1, 199, 3999, 1 << 30} {
		d := dtmf.New(rate)
		if events := d.Flush(d.Feed(0, make([]int16, 1000), nil)); len(events) > 0 {
			t.Errorf("%d Hz: got %v", rate, events)
		}
	}
}

func TestFeedDoesNotAllocate(t *testing.T) {
	for _, rate := range []int{8000, 16000, 48000} {
		pcm := dialled(rand.New(rand.NewPCG(7, 8)), rate)
		d, at, n := dtmf.New(rate), int64(0), 0
		dst := make([]dtmf.Event, 0, 16)
		if allocs := testing.AllocsPerRun(20, func() {
			dst = d.Feed(at, pcm, dst[:0])
			at += int64(len(pcm))
			n += len(dst)
		}); allocs != 0 || n < 100 {
			t.Errorf("%d Hz: %v allocations and %d events, want 0 and at least 100", rate, allocs, n)
		}
	}
}

// FuzzFeed: whatever is fed, digits begin and end by turns, inside of what was
// fed. The input is cut into calls of one length byte and samples; an odd length
// jumps.
func FuzzFeed(f *testing.F) {
	var seed []byte
	for chunk := range slices.Chunk(dialled(rand.New(rand.NewPCG(1, 1)), 8000)[:6000], 128) {
		seed = append(seed, 128)
		for _, s := range chunk {
			seed = binary.LittleEndian.AppendUint16(seed, uint16(s))
		}
	}
	f.Add(uint16(8000), seed)
	f.Add(uint16(16000), seed)
	f.Add(uint16(0), []byte{2, 0xff, 0x7f, 0, 0x80})
	f.Add(uint16(8000), []byte(strings.Repeat("\x0f\x00\x80\xff\x7f", 500)))
	f.Fuzz(func(t *testing.T, rate uint16, data []byte) {
		d := dtmf.New(int(rate))
		var events []dtmf.Event
		var at int64
		for len(data) > 0 {
			n, odd := min(int(data[0]), len(data[1:])/2), data[0]%2 == 1
			pcm := make([]int16, n)
			for i := range pcm {
				pcm[i] = int16(binary.LittleEndian.Uint16(data[1+2*i:]))
			}
			data = data[1+2*n:]
			if odd {
				at += int64(n) * 3
			}
			events = d.Feed(at, pcm, events)
			at += int64(n)
			if n == 0 {
				break
			}
		}
		events = d.Flush(events)
		if len(events)%2 != 0 {
			t.Fatalf("%d events: %v", len(events), events)
		}
		for i := 0; i < len(events); i += 2 {
			b, e := events[i], events[i+1]
			if b.End || !e.End || b.Digit != e.Digit || !strings.ContainsRune(alphabet, rune(b.Digit)) || b.At < 0 || e.At <= b.At || e.At > at {
				t.Fatalf("events %d: %v and %v in 0…%d", i, b, e, at)
			}
		}
	})
}

// BenchmarkFeed takes the worst: noise, which no look is cut short for.
func BenchmarkFeed(b *testing.B) {
	for _, rate := range []int{8000, 16000, 48000} {
		b.Run(fmt.Sprintf("20ms@%d", rate), func(b *testing.B) {
			pcm := make([]int16, rate/50)
			addNoise(rand.New(rand.NewPCG(1, 2)), pcm, -20)
			d, at := dtmf.New(rate), int64(0)
			dst := make([]dtmf.Event, 0, 16)
			b.ReportAllocs()
			for b.Loop() {
				dst = d.Feed(at, pcm, dst[:0])
				at += int64(len(pcm))
			}
		})
	}
}
