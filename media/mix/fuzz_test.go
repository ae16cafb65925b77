package mix_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/mix"
)

// FuzzTrack plays arbitrary calls against the limits and the account.
func FuzzTrack(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Add([]byte("\x00\x01\x10\x01\x01\x10\x07\x00\x00\x01\x02\x20\x07\x00\x00"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		play(t, ops)
	})
}

var fuzzRates = [4]int{8000, 16000, 44100, 12345}

func play(t *testing.T, ops []byte) {
	t.Helper()
	track := mix.NewTrack(mix.Config{Rate: 8000, HorizonMaxNS: 500e6})
	pcm, block := make([]int16, 400), make([]int16, 320)
	var marks []mix.Mark
	now := int64(0)
	for ; len(ops) >= 3; ops = ops[3:] {
		k := mix.Key{SSRC: uint32(ops[1] & 7), Epoch: int(ops[1] >> 6)}
		v := int64(int8(ops[2]))
		ts := now/125000 + v*v*v
		switch ops[0] % 12 {
		case 0:
			now += (v + 128) * 1e6
		case 1:
			track.Arrived(k, ts, 8000+int(v)*100, now)
		case 2:
			track.Audio(k, ts, pcm[:(v+128)])
		case 3:
			track.Hole(k, ts, ts+v*v*v, mix.Cause(ops[1]>>3&7%5))
		case 4:
			track.Silent(k, ts, ts+v*v)
		case 5:
			track.Late(k, ts, int(v))
		case 6:
			track.Negotiated(now+v*1e6, ops[1]&1 == 0)
		case 7:
			at := track.Cursor()
			marks = track.Read(block[:v+128], marks[:0])
			for _, m := range marks {
				if m.At < at || m.N <= 0 || m.At+int64(m.N) > track.Cursor() {
					t.Fatalf("mark %+v outside of [%d, %d)", m, at, track.Cursor())
				}
				at = m.At + int64(m.N)
			}
		case 8:
			track.SetOrigin(now + v*1e6)
		case 9:
			track.Conceal(k, ts, pcm[:(v+128)], mix.Loss)
			track.Report(k, ts, now+v*1e3)
		case 10:
			track.Fill(k, ts, fuzzRates[ops[1]>>3&3], pcm[:(v+128)])
		case 11:
			track.AudioAt(k, ts, fuzzRates[ops[1]>>3&3], pcm[:(v+128)])
		}
		for _, r := range track.Resolved() {
			if r.From >= r.To || r.From < 0 || r.To > track.Cursor() {
				t.Fatalf("resolution %+v with the cursor at %d", r, track.Cursor())
			}
		}
	}
	if s := track.Stats(); s.Captured > s.Read {
		t.Fatalf("%+v", s)
	}
}

// TestArbitraryCalls is the fuzz target over fixed seeds, so that every run of
// the tests has it.
func TestArbitraryCalls(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	ops := make([]byte, 6000)
	for range 60 {
		for i := range ops {
			ops[i] = byte(rng.Uint32())
		}
		start := time.Now()
		play(t, ops)
		if took := time.Since(start); took > 2*time.Second {
			t.Fatalf("2000 operations took %v", took)
		}
	}
}
