package overlay

import (
	"fmt"
	"math"
	"testing"
	"time"

	opus "gopkg.in/hraban/opus.v2"

	"github.com/trunktap/trunktap/media"
)

// Packets of every duration that libopus makes, mono and stereo, speech and music.
func TestOpusDurations(t *testing.T) {
	for _, tenths := range []int{25, 50, 100, 200, 400, 600, 1200} {
		for _, c := range []struct {
			app      opus.Application
			channels int
		}{{opus.AppVoIP, 1}, {opus.AppVoIP, 2}, {opus.AppAudio, 1}, {opus.AppRestrictedLowdelay, 2}} {
			t.Run(fmt.Sprintf("%v ms app %d channels %d", float64(tenths)/10, c.app, c.channels), func(t *testing.T) {
				send, far := opusCoder(t, c.app, c.channels, 32000), opusCoder(t, c.app, c.channels, 32000)
				b, counts := genesys, &Counts{}
				b.Interval, b.Duration = 1200*time.Millisecond, 480*time.Millisecond
				o := New(Config{Formats: []media.Format{opu}, Beep: &b, Epoch: epoch, Counts: counts})
				ptime := time.Duration(tenths) * 100 * time.Microsecond
				got := run(send, far, o, speech(48000, 3*48000/10*12, c.channels, 6000), ptime, epoch, 0)
				wantBeeps(t, got, &b, counts)
			})
		}
	}
}

// wantBeeps demands three beeps at the beginning of every interval, as loud and
// as long as they are to be.
func wantBeeps(t *testing.T, got *call, b *Beep, counts *Counts) {
	t.Helper()
	if n := counts.Undecodable.Load(); n != 0 {
		t.Fatalf("%d undecodable", n)
	}
	for k := range 3 {
		at := time.Duration(k) * b.Interval
		in := got.slice(got.heard, at+20*time.Millisecond, at+b.Duration-20*time.Millisecond)
		if level := got.levelDB(in, b.Frequency); math.Abs(level-b.LevelDB) > 0.5 {
			t.Errorf("beep %d: %.2f dB", k, level)
		}
		if after := got.levelDB(got.slice(got.heard, at+b.Duration+20*time.Millisecond, at+b.Interval-10*time.Millisecond), b.Frequency); after > -45 {
			t.Errorf("%.1f dB of the tone after beep %d", after, k)
		}
	}
	spans := got.changed()
	if want := max(10, int((b.Duration+120*time.Millisecond+2*got.ptime)/got.ptime)); len(spans) != 3 || spans[0][1] > want {
		t.Errorf("changed packets %v", spans)
	}
}

// Durations that libopus does not make itself, but other senders may: several
// frames in one packet (RFC 6716 section 3.2.5).
func TestOpusOddDurations(t *testing.T) {
	for _, count := range []int{3, 6, 7, 11} { // of 10 ms, and of 2.5 ms
		for _, frame := range []int{120, 480} {
			ticks := frame * count
			if ticks > opusTicksMax {
				continue
			}
			t.Run(fmt.Sprintf("%d x %d", count, frame), func(t *testing.T) {
				send, far := opusCoder(t, opus.AppRestrictedLowdelay, 1, 32000), opusCoder(t, opus.AppRestrictedLowdelay, 1, 32000)
				var packer opusTranscoder
				e, err := newOpusEncoder(1)
				if err != nil {
					t.Fatal(err)
				}
				send.encode = func(pcm []int16) []byte {
					out, err := packer.several(make([]byte, 0, 2000), e, pcm, frame, count)
					if err != nil {
						t.Fatal(err)
					}
					return out
				}
				ptime := time.Duration(ticks) * time.Second / 48000
				b, counts := genesys, &Counts{}
				b.Interval, b.Duration = 1200*time.Millisecond, 480*time.Millisecond
				o := New(Config{Formats: []media.Format{opu}, Beep: &b, Epoch: epoch, Counts: counts})
				got := run(send, far, o, speech(48000, 3*48000/10*12, 1, 6000), ptime, epoch, 0)
				wantBeeps(t, got, &b, counts)
				for _, wire := range got.got {
					if n, ok := packer.duration(wire[12:]); !ok || n != ticks {
						t.Fatalf("a packet of %d ticks became one of %d", ticks, n)
					}
				}
			})
		}
	}
}

func TestOpusLength(t *testing.T) {
	for n, want := range map[int]string{0: "00", 251: "fb", 252: "fc00", 255: "ff00", 256: "fc01", 1275: "ffff"} {
		if got := fmt.Sprintf("%x", appendOpusLength(nil, n)); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// A sender in DTX sends packets of one octet: they can carry the tone as well.
func TestOpusDTX(t *testing.T) {
	send, far := opusCoder(t, opus.AppVoIP, 1, 20000), opusCoder(t, opus.AppVoIP, 1, 20000)
	b, counts := genesys, &Counts{}
	o := New(Config{Formats: []media.Format{opu}, Beep: &b, Epoch: epoch, Counts: counts})
	encode := send.encode
	send.encode = func(pcm []int16) []byte { return encode(pcm)[:1] }
	got := run(send, far, o, make([]int16, 48000), 20*time.Millisecond, epoch, 0)
	if level := got.levelDB(got.slice(got.heard, 20*time.Millisecond, 180*time.Millisecond), 1400); math.Abs(level+24) > 0.5 || counts.Undecodable.Load() != 0 {
		t.Errorf("%.1f dB, %d undecodable", level, counts.Undecodable.Load())
	}
}
