package recorder

import (
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// TestKeyInSeveralWays: a key of which tones, INFO and RFC 4733 tell, in whichever
// order, is one key for codes, too; and two keys are two.
func TestKeyInSeveralWays(t *testing.T) {
	in := media.Internal
	infoAt := func(after int, down time.Duration) func(...key) []step {
		return func(keys ...key) (out []step) {
			for _, k := range keys {
				out = append(out, info(in, k.ms+after, k.digit, down))
			}
			return out
		}
	}
	events := func(delay int) func(...key) []step {
		return func(keys ...key) []step { return events4733After(in, delay, keys...) }
	}
	voice := func(...key) []step { return typed(in, 6000, false) }
	tones := func(keys ...key) []step { return typed(in, 6000, true, keys...) }
	for name, ways := range map[string][]func(...key) []step{
		"INFO when it goes down, events later":     {voice, infoAt(0, 0), events(60)},
		"INFO that tells how long, events later":   {voice, infoAt(10, 100*time.Millisecond), events(120)},
		"events, INFO when it is up":               {voice, infoAt(100, 100*time.Millisecond), events(0)},
		"events, INFO late":                        {voice, infoAt(400, 100*time.Millisecond), events(0)},
		"tones, INFO when it is up":                {tones, infoAt(110, 100*time.Millisecond)},
		"tones, INFO late":                         {tones, infoAt(300, 0)},
		"INFO, tones":                              {tones, infoAt(0, 0)},
		"tones, events later":                      {tones, events(140)},
		"tones, INFO, events in the end":           {tones, infoAt(70, 0), events(140)},
		"INFO, tones, and events in the end":       {tones, infoAt(0, 0), events(140)},
		"events whose beginning is late, and INFO": {voice, infoAt(20, 0), events(180)},
	} {
		for _, c := range []struct {
			keys   []key
			listed string
			codes  bool
		}{
			{[]key{{500, '2'}, {1000, '1'}}, "2 1", false},
			{[]key{{1000, '1'}, {1300, '2'}, {1600, '1'}}, "1 2 1", false},
			{[]key{{1000, '1'}, {1600, '1'}}, "", true},
			{[]key{{1000, '2'}, {1600, '1'}, {2200, '1'}}, "2", true},
			{[]key{{1000, '1'}, {4000, '1'}}, "1 1", false},
		} {
			t.Run(name, func(t *testing.T) {
				plan := testPlan()
				plan.Codes[in] = []suppress.Code{{Digits: "11", Event: suppress.PauseStart}}
				all := [][]step{answered(6000), talk(media.External, 0, 6000, constant(0x20))}
				for _, way := range ways {
					all = append(all, way(c.keys...))
				}
				sink, m := replayed(t, plan, script(all...))
				checkAccount(t, m, sink)
				var got []string
				for _, d := range m.DTMF {
					got = append(got, d.Digit)
				}
				if g := strings.Join(got, " "); g != c.listed {
					t.Errorf("%v: listed %q, want %q", c.keys, g, c.listed)
				}
				if code := len(m.Windows) > 0; code != c.codes {
					t.Errorf("%v: windows %+v", c.keys, m.Windows)
				} else if code && c.listed == "" && strings.HasPrefix(name, "tones") && m.Windows[0].RealMS > 1000 {
					t.Errorf("the first tone is heard, windows %+v", m.Windows)
				}
			})
		}
	}
}

// TestMediaFarBehindSignalling: where media comes more than a quarter of a second behind
// the signalling, the INFO and the event of the first key are taken for two. It is the
// first one alone: who has sent an event is not listened to in INFO. So codes are found
// all the same; and of two keys that lie so near together none is passed over.
func TestMediaFarBehindSignalling(t *testing.T) {
	in := media.Internal
	for name, c := range map[string]struct {
		code string
		keys []key
		lost int // of the first events
		want bool
	}{
		"another digit follows":          {"12", []key{{1000, '1'}, {2000, '2'}}, 0, true},
		"the code comes later":           {"11", []key{{1000, '3'}, {2000, '1'}, {2600, '1'}}, 0, true},
		"one key of it comes later":      {"11", []key{{1000, '3'}, {2000, '1'}}, 0, false},
		"the event of the first is lost": {"11", []key{{1000, '1'}, {1550, '1'}}, 1, true}, // INFO tells when a key is up
	} {
		t.Run(name, func(t *testing.T) {
			plan := testPlan()
			plan.Codes[in] = []suppress.Code{{Digits: c.code, Event: suppress.PauseStart}}
			delay, up, down := 400, 0, time.Duration(0)
			if c.lost > 0 {
				delay, up, down = 0, 200, 200*time.Millisecond
			}
			all := [][]step{answered(6000), talk(media.External, 0, 6000, constant(0x20)), typed(in, 6000, false), events4733After(in, delay, c.keys[c.lost:]...)}
			for _, k := range c.keys {
				all = append(all, []step{info(in, k.ms+up, k.digit, down)})
			}
			sink, m := replayed(t, plan, script(all...))
			checkAccount(t, m, sink)
			if found := len(m.Windows) > 0; found != c.want {
				t.Errorf("the code is found: %v; windows %+v, digits %+v", found, m.Windows, m.DTMF)
			}
		})
	}
}
