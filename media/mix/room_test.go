package mix

import "testing"

// TestRingGrowsWithNeed: a run takes the memory of half a second and, when its
// packets are further ahead of their reading, more, losing nothing.
func TestRingGrowsWithNeed(t *testing.T) {
	tr := NewTrack(Config{Rate: 8000})
	tr.SetOrigin(0)
	k := Key{SSRC: 1}
	pcm, out := make([]int16, 160), make([]int16, 160)
	value := func(n int) int16 { return int16(n%30000 + 1) }
	put := func(n int) {
		for i := range pcm {
			pcm[i] = value(n)
		}
		tr.Arrived(k, int64(160*n), 8000, int64(n)*20e6)
		tr.Audio(k, int64(160*n), pcm)
	}
	written, read := 0, 0
	readOne := func() {
		tr.Read(out, nil)
		if out[80] != value(read) {
			t.Fatalf("packet %d: sample %d, want %d", read, out[80], value(read))
		}
		read++
	}
	for ; written < 3000; written++ {
		put(written)
		if written-read >= 25 {
			readOne()
		}
	}
	if n := len(tr.runs[0].ring); n > 8192 {
		t.Errorf("ring of %d samples for half a second", n)
	}
	for ; written-read < 95; written++ {
		put(written)
	}
	if n := int64(len(tr.runs[0].ring)); n > tr.size || n < 95*160 {
		t.Errorf("ring of %d samples for 1.9 s, the most is %d", n, tr.size)
	}
	for read < written {
		readOne()
	}
}
