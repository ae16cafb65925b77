package overlay

import (
	"math"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
)

// Every codec: the beep is heard at its times, at its level, and nowhere else;
// around it the sender's own packets go out.
func TestBeepInEveryCodec(t *testing.T) {
	far := coders(t)
	for name, c := range coders(t) {
		t.Run(name, func(t *testing.T) {
			counts := &Counts{}
			b := genesys
			b.Interval = 2 * time.Second
			o := New(Config{Formats: []media.Format{c.format}, Beep: &b, Epoch: epoch, Counts: counts})
			pcm := speech(c.rate, 69*c.rate/10, c.channels, 6000)
			const offset = 7 * time.Millisecond // of the stream against the beeps
			got := run(c, far[name], o, pcm, 20*time.Millisecond, epoch.Add(-time.Second+offset), 0)
			spans := got.changed()
			if len(spans) != 3 || counts.Undecodable.Load() != 0 || counts.Late.Load() != 0 {
				t.Fatalf("changed %v, %d undecodable", spans, counts.Undecodable.Load())
			}
			for k, span := range spans {
				at := time.Second + time.Duration(k)*b.Interval - offset // in the stream
				if packet := int(at / got.ptime); span[0] != packet {
					t.Errorf("beep %d begins in packet %d, want %d", k, span[0], packet)
				}
				if n := span[1] - span[0]; n < 10 || n > 11+30 {
					t.Errorf("beep %d changed %d packets", k, n)
				}
				in := got.slice(got.heard, at+10*time.Millisecond, at+190*time.Millisecond)
				if level := got.levelDB(in, 1400); math.Abs(level-b.LevelDB) > 0.5 {
					t.Errorf("beep %d: %.2f dB, want %v", k, level, b.LevelDB)
				}
				for d := b.Duration + 10*time.Millisecond; d < b.Duration+200*time.Millisecond; d += 50 * time.Millisecond {
					after := got.slice(got.heard, at+d, at+d+50*time.Millisecond)
					if level := got.levelDB(after, 1400); level > -50 {
						t.Errorf("beep %d, %v after its beginning: 1400 Hz at %.1f dB", k, d, level)
					}
				}
				next := at + b.Interval - 20*time.Millisecond
				settled := time.Duration(span[1]) * got.ptime
				heard, clean := got.slice(got.heard, settled+20*time.Millisecond, next), got.slice(got.clean, settled+20*time.Millisecond, next)
				if snr := snrDB(heard, clean); snr < 20 {
					t.Errorf("beep %d: after it the far end hears the sender with an SNR of %.1f dB", k, snr)
				}
			}
		})
	}
}
