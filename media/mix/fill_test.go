package mix_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media/mix"
)

// late lays packet n after its turn.
func late(t *mix.Track, n int) int64 {
	pcm := make([]int16, 160)
	for i := range pcm {
		pcm[i] = int16(n + 1)
	}
	return t.Fill(key, int64(n)*160, 8000, pcm)
}

// TestFill: a late packet is used as far as its place is not read.
func TestFill(t *testing.T) {
	lost := func(t *mix.Track, from, to int) { t.Hole(key, int64(from)*160, int64(to)*160, mix.Loss) }
	tests := []struct {
		name  string
		feed  func(*testing.T, *mix.Track)
		heard []int16 // packets 0 to 9
		marks []mix.Mark
		late  []mix.Resolution
	}{
		{"into a loss", func(_ *testing.T, t *mix.Track) {
			packet(t, key, 0, 0)
			lost(t, 1, 4)
			packet(t, key, 4, 0)
			late(t, 2)
		}, []int16{1, 0, 3, 0, 5}, []mix.Mark{{At: 160, N: 160}, {At: 480, N: 160}, {At: 800, N: 800, Cause: mix.Absent}}, nil},
		{"into all of a loss, in any order", func(_ *testing.T, t *mix.Track) {
			packet(t, key, 0, 0)
			lost(t, 1, 4)
			packet(t, key, 4, 0)
			for _, n := range []int{3, 1, 2} {
				late(t, n)
			}
		}, []int16{1, 2, 3, 4, 5}, []mix.Mark{{At: 800, N: 800, Cause: mix.Absent}}, nil},
		{"into silence", func(_ *testing.T, t *mix.Track) {
			packet(t, key, 0, 0)
			packet(t, key, 4, 0)
			late(t, 2)
		}, []int16{1, 0, 3, 0, 5}, []mix.Mark{{At: 800, N: 800, Cause: mix.Absent}}, nil},
		{"into a loss at the end", func(_ *testing.T, t *mix.Track) {
			packet(t, key, 0, 0)
			lost(t, 1, 4)
			late(t, 3)
			packet(t, key, 4, 0)
		}, []int16{1, 0, 0, 4, 5}, []mix.Mark{{At: 160, N: 320}, {At: 800, N: 800, Cause: mix.Absent}}, nil},
		{"instead of what was made up", func(_ *testing.T, t *mix.Track) {
			packet(t, key, 0, 0)
			t.Conceal(key, 160, make([]int16, 160), mix.Loss)
			packet(t, key, 2, 0)
			late(t, 1)
		}, []int16{1, 2, 3}, []mix.Mark{{At: 480, N: 1120, Cause: mix.Absent}}, nil},
		{"not over audio", func(test *testing.T, t *mix.Track) {
			packet(t, key, 0, 0)
			packet(t, key, 1, 0)
			if n := t.Fill(key, 160, 8000, make([]int16, 160)); n != 0 {
				test.Errorf("%d samples laid", n)
			}
		}, []int16{1, 2}, []mix.Mark{{At: 320, N: 1280, Cause: mix.Absent}}, nil},
		{"read in part", func(test *testing.T, t *mix.Track) {
			packet(t, key, 0, 0)
			lost(t, 1, 3)
			packet(t, key, 3, 0)
			read(t, 240)
			if n := late(t, 1); n != 80 {
				test.Errorf("%d samples laid, 80 were not read", n)
			}
		}, nil, []mix.Mark{{At: 320, N: 160}, {At: 640, N: 1200, Cause: mix.Absent}}, []mix.Resolution{{From: 160, To: 240, Cause: mix.Late}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			track := started()
			tt.feed(t, track)
			from := track.Cursor()
			dst, marks := read(track, 1600)
			if cmp.Diff(tt.marks, marks) != "" {
				t.Error(cmp.Diff(tt.marks, marks))
			}
			for n, want := range tt.heard {
				if dst[160*n] != want || dst[160*n+159] != want {
					t.Errorf("packet %d: %d..%d, want %d", n, dst[160*n], dst[160*n+159], want)
				}
			}
			if got := append([]mix.Resolution(nil), track.Resolved()...); cmp.Diff(tt.late, got) != "" {
				t.Error(cmp.Diff(tt.late, got))
			}
			if from > 0 && dst[0] != 2 {
				t.Errorf("the rest of the packet is %d", dst[0])
			}
			if s := track.Stats(); s.LateCut+s.Overlapped+s.Overrun != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestFillOfAnotherRate: a late wide-band packet lies where it belongs.
func TestFillOfAnotherRate(t *testing.T) {
	track := started()
	v := voice{500, 20000}
	for n := range 10 {
		track.Arrived(key, int64(160*n), 8000, int64(n)*20e6)
		if n == 4 {
			track.Hole(key, 640, 800, mix.Loss)
			continue
		}
		track.AudioAt(key, int64(160*n), 16000, v.packet(float64(n)/50, 16000, 320))
	}
	if n := track.Fill(key, 640, 16000, v.packet(0.08, 16000, 320)); n != 160 {
		t.Fatalf("%d samples laid", n)
	}
	if n := track.Fill(key, 640, 12345, make([]int16, 100)); n != 0 {
		t.Errorf("%d samples of an unknown rate laid", n)
	}
	dst, marks := read(track, 1600)
	if len(marks) != 0 {
		t.Error(marks)
	}
	if dB, _ := v.off(dst[640+60:800-60], 700.0/8000, 8000); dB > -40 {
		t.Errorf("%.1f dB off", dB)
	}
}
