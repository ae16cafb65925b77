package mix_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media/mix"
)

var key = mix.Key{SSRC: 1}

// started returns a track with the origin at 0 that may be silent from there.
func started() *mix.Track {
	t := mix.NewTrack(mix.Config{Rate: 8000})
	t.SetOrigin(0)
	t.Negotiated(0, true)
	return t
}

// packet feeds packet n of a run, that arrives in time.
func packet(t *mix.Track, k mix.Key, n int, delayNS int64) {
	ts := int64(n) * 160
	t.Arrived(k, ts, 8000, int64(n)*20e6+delayNS)
	pcm := make([]int16, 160)
	for i := range pcm {
		pcm[i] = int16(n + 1)
	}
	t.Audio(k, ts, pcm)
}

func read(t *mix.Track, samples int) ([]int16, []mix.Mark) {
	dst := make([]int16, samples)
	return dst, t.Read(dst, nil)
}

func TestMarks(t *testing.T) {
	tests := []struct {
		name string
		feed func(*mix.Track)
		want []mix.Mark // of the first 1600 samples
	}{
		{"nothing came", func(*mix.Track) {}, []mix.Mark{{N: 1600, Cause: mix.Absent}}},
		{"all came", func(t *mix.Track) {
			for n := range 10 {
				packet(t, key, n, 0)
			}
		}, nil},
		{"came later, ended earlier", func(t *mix.Track) {
			for n := range 5 {
				packet(t, key, n, 40e6)
			}
		}, []mix.Mark{{N: 320, Cause: mix.Absent}, {At: 1120, N: 480, Cause: mix.Absent}}},
		{"began before the origin", func(t *mix.Track) {
			for n := range 15 {
				packet(t, key, n, -70e6)
			}
		}, nil},
		{"lost", func(t *mix.Track) {
			packet(t, key, 0, 0)
			t.Hole(key, 160, 480, mix.Loss)
			for n := 3; n < 10; n++ {
				packet(t, key, n, 0)
			}
		}, []mix.Mark{{At: 160, N: 320, Cause: mix.Loss}}},
		{"silence suppressed", func(t *mix.Track) {
			packet(t, key, 0, 0)
			for n := 6; n < 10; n++ {
				packet(t, key, n, 0)
			}
		}, nil},
		{"an event, then nothing", func(t *mix.Track) {
			packet(t, key, 0, 0)
			t.Silent(key, 160, 800)
		}, []mix.Mark{{At: 800, N: 800, Cause: mix.Absent}}},
		{"concealed", func(t *mix.Track) {
			packet(t, key, 0, 0)
			t.Conceal(key, 160, make([]int16, 160), mix.Loss)
			for n := 2; n < 10; n++ {
				packet(t, key, n, 0)
			}
		}, []mix.Mark{{At: 160, N: 160, Cause: mix.Loss, Concealed: true}}},
		{"undecodable", func(t *mix.Track) {
			t.Arrived(key, 0, 8000, 0)
			t.Hole(key, 0, 1600, mix.Undecodable)
			t.Negotiated(20e6, false)
		}, []mix.Mark{{N: 1600, Cause: mix.Undecodable}}},
		{"not negotiated in the middle", func(t *mix.Track) {
			t.Negotiated(50e6, false)
			t.Negotiated(100e6, true)
		}, []mix.Mark{{N: 400, Cause: mix.Absent}, {At: 800, N: 800, Cause: mix.Absent}}},
		{"the end", func(t *mix.Track) { t.End(150e6) }, []mix.Mark{{N: 1200, Cause: mix.Absent}}},
		{"a new source at once", func(t *mix.Track) {
			for n := range 5 {
				packet(t, key, n, 0)
			}
			for n := 5; n < 10; n++ {
				packet(t, mix.Key{SSRC: 2}, n, 10e6)
			}
		}, nil},
		{"a new source later", func(t *mix.Track) {
			for n := range 4 {
				packet(t, key, n, 0)
			}
			for n := 6; n < 10; n++ {
				packet(t, mix.Key{SSRC: 2}, n, 0)
			}
		}, []mix.Mark{{At: 640, N: 320, Cause: mix.Absent}}},
		{"a new source that overlaps", func(t *mix.Track) {
			for n := range 8 {
				packet(t, key, n, 0)
			}
			for n := 4; n < 10; n++ {
				packet(t, mix.Key{SSRC: 2}, n, 0)
			}
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			track := started()
			tt.feed(track)
			if _, marks := read(track, 1600); cmp.Diff(tt.want, marks) != "" {
				t.Error(cmp.Diff(tt.want, marks))
			}
		})
	}
}

// The end may be known before the origin is, and cuts what was sent after it.
func TestEnd(t *testing.T) {
	track := mix.NewTrack(mix.Config{})
	track.End(1_050e6)
	track.Negotiated(0, true)
	for n := range 60 {
		packet(track, key, n, 0)
	}
	track.SetOrigin(1_000e6)
	dst, marks := read(track, 1600)
	if dst[399] != 53 || dst[400] != 0 || dst[1599] != 0 || len(marks) != 0 || track.Cursor() != 1600 {
		t.Errorf("%d, %d, %v", dst[399], dst[400], marks)
	}
}

func TestNewerRunWins(t *testing.T) {
	track := started()
	for n := range 8 {
		packet(track, key, n, 0)
	}
	for n := 4; n < 10; n++ {
		packet(track, mix.Key{SSRC: 2, Epoch: 1}, 100+n, -2000e6)
	}
	dst, _ := read(track, 1600)
	for i, want := range []int16{1, 2, 3, 4, 105, 106, 107, 108, 109, 110} {
		if dst[160*i] != want || dst[160*i+159] != want {
			t.Errorf("packet %d: %d..%d, want %d", i, dst[160*i], dst[160*i+159], want)
		}
	}
}

// Two sources in turn, as with music on hold from another device.
func TestOlderRunGoesOn(t *testing.T) {
	track := started()
	for n := range 100 {
		switch {
		case n < 20 || n >= 55:
			packet(track, key, n, 0)
		case n < 50:
			packet(track, mix.Key{SSRC: 2}, n, 0)
		}
	}
	dst, marks := read(track, 100*160)
	for n := range 100 {
		want := int16(n + 1)
		if n >= 50 && n < 55 {
			want = 0
		}
		if dst[160*n+80] != want {
			t.Errorf("packet %d: %d", n, dst[160*n+80])
		}
	}
	if len(marks) != 0 { // the older source went on in sequence
		t.Error(marks)
	}
}

func TestResolved(t *testing.T) {
	tests := []struct {
		name string
		then func(*mix.Track)
		want []mix.Resolution
	}{
		{
			"silence was suppressed", func(t *mix.Track) { packet(t, key, 12, 0) },
			[]mix.Resolution{{From: 160, To: 1600, Withdrawn: true}},
		},
		{
			"packets were lost", func(t *mix.Track) { t.Hole(key, 480, 1920, mix.Loss) },
			[]mix.Resolution{{From: 160, To: 480, Withdrawn: true}, {From: 480, To: 1600, Cause: mix.Loss}},
		},
		{
			"a packet was late", func(t *mix.Track) { t.Late(key, 320, 160) },
			[]mix.Resolution{{From: 320, To: 480, Cause: mix.Late}},
		},
		{
			"audio came late", func(t *mix.Track) { packet(t, key, 1, 0) },
			[]mix.Resolution{{From: 160, To: 320, Cause: mix.Late}},
		},
		{
			"an event went on", func(t *mix.Track) { t.Silent(key, 160, 800) },
			[]mix.Resolution{{From: 160, To: 800, Withdrawn: true}},
		},
		{"nothing happened", func(*mix.Track) {}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			track := started()
			packet(track, key, 0, 0)
			_, marks := read(track, 1600)
			if want := []mix.Mark{{At: 160, N: 1440, Cause: mix.Absent}}; cmp.Diff(want, marks) != "" {
				t.Fatal(cmp.Diff(want, marks))
			}
			tt.then(track)
			got := append([]mix.Resolution(nil), track.Resolved()...)
			if cmp.Diff(tt.want, got) != "" {
				t.Error(cmp.Diff(tt.want, got))
			}
			if again := track.Resolved(); len(again) != 0 {
				t.Errorf("given twice: %v", again)
			}
		})
	}
}

func TestHorizon(t *testing.T) {
	track := started()
	for n := range 200 { // 4 s ahead, 2 s are kept
		packet(track, key, n, 0)
	}
	dst, marks := read(track, 200*160)
	want := []mix.Mark{{At: 100 * 160, N: 100 * 160, Cause: mix.Overrun}}
	if cmp.Diff(want, marks) != "" {
		t.Error(cmp.Diff(want, marks))
	}
	if dst[100*160-1] != 100 || track.Stats().Overrun != 100*160 {
		t.Errorf("last %d, %+v", dst[100*160-1], track.Stats())
	}
}

func TestBeforeTheOrigin(t *testing.T) {
	track := mix.NewTrack(mix.Config{})
	for n := range 5000 { // early media of 100 s
		packet(track, key, n, 0)
	}
	if _, marks := read(track, 160); marks != nil || track.Cursor() != 0 {
		t.Error("read before the origin")
	}
	track.Negotiated(0, true)
	track.SetOrigin(99e9)
	dst, marks := read(track, 8000)
	if dst[0] != 4951 || dst[7999] != 5000 || len(marks) != 0 {
		t.Errorf("%d..%d, %v", dst[0], dst[7999], marks)
	}
}

// A packet that is later placed too late is moved in the silence after it.
func TestJumpInSilence(t *testing.T) {
	track := started()
	packet(track, key, 0, 180e6) // late
	for n := 1; n < 5; n++ {
		packet(track, key, n, 180e6)
	}
	if _, marks := read(track, 160*14); len(marks) != 1 {
		t.Fatal(marks)
	}
	for n := 50; n < 60; n++ {
		packet(track, key, n, 0) // in time
	}
	dst, _ := read(track, 160*46)
	for n := 50; n < 60; n++ {
		at := 160*n - 160*14
		if dst[at] != int16(n+1) || dst[at+159] != int16(n+1) {
			t.Fatalf("packet %d is not in its place: %d", n, dst[at])
		}
	}
	if s := track.Stats(); s.Resampled != 0 || s.Corrections != 1 {
		t.Errorf("%+v", s)
	}
}

// sine feeds a tone through a stream that drifts and returns what is read, and
// how many samples of each block of 160 were resampled.
func sine(hz, skewPPM, seconds float64, jitterNS int64) ([]int16, []int64) {
	t := started()
	rng := rand.New(rand.NewPCG(1, 2))
	pcm, block := make([]int16, 160), make([]int16, 160)
	var out []int16
	var resampled []int64
	for n := range int(seconds * 50) {
		for i := range pcm {
			pcm[i] = int16(math.Round(16000 * math.Sin(2*math.Pi*hz*float64(160*n+i)/8000)))
		}
		at := int64(float64(n) * 20e6 / (1 + skewPPM*1e-6))
		if jitterNS > 0 {
			at += rng.Int64N(jitterNS)
		}
		t.Arrived(key, int64(160*n), 8000, at)
		t.Audio(key, int64(160*n), pcm)
		if n >= 25 {
			before := t.Stats().Resampled
			t.Read(block, nil)
			out = append(out, block...)
			resampled = append(resampled, t.Stats().Resampled-before)
		}
	}
	return out, resampled
}

// A correction is not heard: no step that the tone itself has not, and little
// but the tone in each tenth of a second.
func TestSlewWithoutClick(t *testing.T) {
	const hz = 440
	for _, skew := range []float64{-200, 200} {
		out, resampled := sine(hz, skew, 60, 20e6)
		out, resampled = out[8000:], resampled[50:]
		step := 16000 * 2 * math.Pi * hz / 8000 * 1.002
		worst := 0.0
		for i := 1; i < len(out); i++ {
			worst = math.Max(worst, math.Abs(float64(out[i])-float64(out[i-1])))
		}
		if worst > step+2 {
			t.Errorf("skew %+.0f: a step of %.0f, the tone's steepest is %.0f", skew, worst, step)
		}
		// In a block at one rate a tone stays a tone.
		thd, slewing := 0.0, 0
		for i, n := range resampled {
			if n == simPacket {
				slewing++
				thd = math.Max(thd, residueAt(out[simPacket*i:simPacket*(i+1)], hz, 8000))
			}
		}
		t.Logf("skew %+.0f: largest step %.0f (tone %.0f), worst THD+N of %d blocks %.1f dB", skew, worst, step, slewing, 20*math.Log10(thd))
		if slewing == 0 || 20*math.Log10(thd) > -60 {
			t.Errorf("skew %+.0f: THD+N %.1f dB in %d blocks", skew, 20*math.Log10(thd), slewing)
		}
	}
}

func TestReportsTellTheRateUntilArrivalsDo(t *testing.T) {
	track := started()
	packet(track, key, 0, 0)
	track.Report(key, 0, 1_000e9)
	track.Report(key, 8000*30, 1_000e9+30e9-3e6) // the media clock is 100 ppm fast
	if got := track.Skew(key); math.Abs(got-100) > 1 {
		t.Errorf("skew %.1f ppm", got)
	}
	track.Report(key, 8000*60, 5_000e9) // the sender's clock was set
	if got := track.Skew(key); math.Abs(got-100) > 1 {
		t.Errorf("skew %.1f ppm after an implausible report", got)
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	track := started()
	pcm, block, marks := make([]int16, 160), make([]int16, 160), make([]mix.Mark, 0, 16)
	n := 0
	rng := rand.New(rand.NewPCG(3, 4))
	step := func() {
		ts := int64(n) * 160
		track.Arrived(key, ts, 8000, int64(float64(n)*20e6*1.0002)+rng.Int64N(20e6))
		if n%10 == 3 {
			track.Hole(key, ts, ts+160, mix.Loss)
		} else {
			track.Audio(key, ts, pcm)
		}
		if n > 25 {
			marks = track.Read(block, marks[:0])
		}
		track.Resolved()
		n++
	}
	for range 2000 {
		step()
	}
	if got := testing.AllocsPerRun(2000, step); got != 0 {
		t.Errorf("%v allocations a packet", got)
	}
}

func BenchmarkPacket(b *testing.B) {
	track := started()
	pcm, block, marks := make([]int16, 160), make([]int16, 160), make([]mix.Mark, 0, 16)
	b.ReportAllocs()
	for n := range b.N {
		ts := int64(n) * 160
		track.Arrived(key, ts, 8000, int64(float64(n)*20e6*1.0001))
		track.Audio(key, ts, pcm)
		if n > 25 {
			marks = track.Read(block, marks[:0])
		}
	}
}
