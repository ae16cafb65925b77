package recorder

import (
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
)

// TestRingsHoldSeconds fills the rings of all kinds of streams with packets as
// they come, until one has no room.
func TestRingsHoldSeconds(t *testing.T) {
	event := media.Format{Name: "telephone-event", ClockRate: 8000, PayloadType: 101}
	for _, c := range []struct {
		name    string
		formats []media.Format
		payload int           // bytes
		every   time.Duration // between packets
		least   time.Duration
	}{
		{"G.711", []media.Format{{Name: "PCMU", ClockRate: 8000}, event}, 160, 20 * time.Millisecond, 3 * time.Second},
		{"G.711 of 10 ms", []media.Format{{Name: "PCMA", ClockRate: 8000}}, 80, 10 * time.Millisecond, 3 * time.Second},
		{"G.711 of 30 ms", []media.Format{{Name: "PCMA", ClockRate: 8000}}, 240, 30 * time.Millisecond, 3 * time.Second},
		{"G.729", []media.Format{{Name: "G729", ClockRate: 8000}}, 20, 20 * time.Millisecond, 8 * time.Second},
		{"Opus", []media.Format{{Name: "opus", ClockRate: 48000, Channels: 2}}, 160, 20 * time.Millisecond, 5 * time.Second},
		{"L16 at 48 kHz, stereo", []media.Format{{Name: "L16", ClockRate: 48000, Channels: 2}}, 1920, 10 * time.Millisecond, 3 * time.Second},
		{"the largest of several", []media.Format{{Name: "PCMU", ClockRate: 8000}, {Name: "L16", ClockRate: 16000}}, 640, 20 * time.Millisecond, 3 * time.Second},
		{"RED of G.711", []media.Format{{Name: "RED", ClockRate: 8000}, {Name: "PCMU", ClockRate: 8000}}, 325, 20 * time.Millisecond, 3 * time.Second},
		{"unknown", []media.Format{{Name: "X-NEW", ClockRate: 8000}}, 160, 20 * time.Millisecond, 3 * time.Second},
		{"nothing", nil, 160, 20 * time.Millisecond, time.Second},
	} {
		r := media.NewRing(ringBytes(c.formats), t0)
		wire := make([]byte, 12+c.payload)
		held := time.Duration(0)
		for r.Dropped() == 0 {
			r.Put(t0.Add(held), wire)
			held += c.every
		}
		if held < c.least || held > 20*time.Second {
			t.Errorf("%s: %d bytes hold %s", c.name, ringBytes(c.formats), held)
		}
	}
}

// TestRingsGrowWithTheCodec changes a call from G.711 to L16.
func TestRingsGrowWithTheCodec(t *testing.T) {
	sink := newMemSink()
	r := mustRecorder(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: sink.open, Workers: 1})
	tap, err := r.SessionStarted(t.Context(), testSession("call-1"))
	if err != nil {
		t.Fatal(err)
	}
	st := media.Stream{ID: 0, Side: media.External, At: time.Now(), Formats: g711Formats, Sending: true}
	first := tap.StreamStarted(st)
	if again := tap.StreamStarted(st); again != first {
		t.Error("a renegotiation that changes nothing gets another ring")
	}
	st.Formats = []media.Format{{PayloadType: 96, Name: "L16", ClockRate: 48000, Channels: 2}}
	wide := tap.StreamStarted(st)
	if wide == first {
		t.Error("L16 gets the ring of G.711")
	}
	st.Formats = g711Formats
	if back := tap.StreamStarted(st); back != wide {
		t.Error("G.711 does not stay in the larger ring")
	}
	tap.Ended(time.Now(), media.CauseBye)
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
