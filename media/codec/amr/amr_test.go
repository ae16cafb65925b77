package amr

import (
	"runtime"
	"testing"
)

func TestDecoder(t *testing.T) {
	for wide, want := range map[bool]int{false: NarrowSamples, true: WideSamples} {
		d, err := New(wide)
		if err != nil {
			t.Fatal(err)
		}
		frame := make([]byte, FrameBytesMax)
		frame[0] = 4 // the lowest mode
		if pcm := d.Frame(frame); len(pcm) != want {
			t.Errorf("wide %v: %d samples", wide, len(pcm))
		}
		frame[0] = NoData<<3 | 4
		if pcm := d.Frame(frame[:1]); len(pcm) != want {
			t.Errorf("wide %v: %d samples of no data", wide, len(pcm))
		}
		if n := testing.AllocsPerRun(20, func() { d.Frame(frame) }); n != 0 {
			t.Errorf("%v allocations a frame", n)
		}
		d.Close()
		d.Close()
		if pcm := d.Frame(frame); pcm != nil {
			t.Errorf("wide %v: %d samples of a closed decoder", wide, len(pcm))
		}
	}
}

// Decoders that nobody closes are freed all the same, once.
func TestForgottenDecoders(t *testing.T) {
	for i := range 200 {
		d, err := New(i%2 == 0)
		if err != nil {
			t.Fatal(err)
		}
		d.Frame([]byte{NoData<<3 | 4})
		if i%3 == 0 {
			d.Close()
		}
	}
	runtime.GC()
	runtime.GC()
}
