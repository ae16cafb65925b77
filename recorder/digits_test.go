package recorder

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// info is a digit of SIP INFO that passes at ms and was down so long.
func info(side media.Side, ms int, digit byte, down time.Duration) step {
	t := at(ms)
	return step{at: t, do: func(c *testCall) { c.tap.(media.DigitTap).Digit(side, t, digit, down) }}
}

// infos are keys of 100 ms each, as INFO tells of them when they are up.
func infos(side media.Side, keys ...key) (out []step) {
	for _, k := range keys {
		out = append(out, info(side, k.ms+100, k.digit, 100*time.Millisecond))
	}
	return out
}

// toneless is answered for streams without telephone-event.
func toneless(ms int) []step {
	steps := answered(ms)
	steps[0].do = func(c *testCall) {
		c.tap.Answered(at(0))
		for _, side := range []media.Side{media.External, media.Internal} {
			id := media.StreamID(side)
			c.taps[id] = c.tap.StreamStarted(media.Stream{ID: id, Side: side, At: at(0), Formats: g711Formats[:2], Sending: true})
		}
	}
	return steps
}

// listed is the digits of an account, times to 20 ms.
func listed(m *Manifest) string {
	var out []string
	for _, d := range m.DTMF {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%d@%d %s %s", d.Channel, (d.RealMS+10)/20*20, d.Digit, d.Method)))
	}
	return strings.Join(out, ", ")
}

func TestDigitsOfEveryMethod(t *testing.T) {
	ext, keys := media.External, []key{{1000, '5'}, {1400, '*'}}
	voice := func() []step { return typed(ext, 4000, false) }
	both := func(tones, events []key) []step { // tones in the audio beside events
		a, b := typed(ext, 4000, true, tones...), events4733(ext, events...)
		return append(a, b...)
	}
	for _, tc := range []struct {
		name   string
		inband string
		steps  [][]step
		want   string
	}{
		{"RFC 4733", "", [][]step{answered(4000), typed(ext, 4000, false, keys...)}, "0@1000 5, 0@1400 *"},
		{"INFO", "", [][]step{answered(4000), voice(), infos(ext, keys...)}, "0@1000 5 info, 0@1400 * info"},
		{"INFO without a duration", "", [][]step{answered(4000), {info(media.Internal, 2000, '1', 0)}}, "1@1900 1 info"},
		{"the same key twice by INFO", "", [][]step{answered(4000), infos(ext, key{1000, '5'}, key{1200, '5'})}, "0@1000 5 info, 0@1200 5 info"},
		{"tones where nothing else was agreed", "", [][]step{toneless(4000), typed(ext, 4000, true, keys...)}, "0@1000 5 inband, 0@1400 * inband"},
		{"tones beside an agreement", "", [][]step{answered(4000), typed(ext, 4000, true, keys...)}, ""},
		{"tones everywhere", InbandOn, [][]step{answered(4000), typed(ext, 4000, true, keys...)}, "0@1000 5 inband, 0@1400 * inband"},
		{"tones nowhere", InbandOff, [][]step{toneless(4000), typed(ext, 4000, true, keys...)}, ""},
		{"INFO beside RFC 4733", "", [][]step{answered(4000), typed(ext, 4000, false, keys...), infos(ext, keys...)}, "0@1000 5, 0@1400 *"},
		{"INFO before RFC 4733", "", [][]step{answered(4000), typed(ext, 4000, false, keys...), {info(ext, 999, '5', 0), info(ext, 1399, '*', 0)}}, "0@1000 5, 0@1400 *"},
		{"another INFO before RFC 4733", "", [][]step{answered(4000), typed(ext, 4000, false, keys...), {info(ext, 500, '7', 0)}}, "0@400 7 info, 0@1000 5, 0@1400 *"},
		{"tones beside INFO", InbandOn, [][]step{answered(4000), typed(ext, 4000, true, keys...), infos(ext, keys...)}, "0@1000 5 info, 0@1400 * info"},
		{"tones before RFC 4733", InbandOn, [][]step{answered(4000), both([]key{{940, '5'}, {1400, '*'}}, keys)}, "0@1000 5, 0@1400 *"},
		{"the other side types by itself", InbandOn, [][]step{
			answered(4000), typed(ext, 4000, false, keys...), infos(media.Internal, keys[0]),
		}, "0@1000 5, 1@1000 5 info, 0@1400 *"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plan := testPlan()
			plan.InbandDTMF = tc.inband
			sink, m := replayed(t, plan, script(tc.steps...))
			checkAccount(t, m, sink)
			if got := listed(m); got != tc.want {
				t.Errorf("%s; want %s", got, tc.want)
			}
		})
	}
}

// events4733 are events in packets of their own source order: sequence numbers
// behind those of typed, which they come beside.
func events4733(side media.Side, keys ...key) (out []step) {
	return events4733After(side, 0, keys...)
}

// events4733After is events4733 that come so much later.
func events4733After(side media.Side, delayMS int, keys ...key) (out []step) {
	for n, k := range keys {
		code := byte(strings.IndexByte("0123456789*#ABCD", k.digit))
		for i := range 5 {
			end := byte(0)
			if i == 4 {
				end = 0x80
			}
			t, dur := at(k.ms+20*i+1+delayMS), (i+1)*160
			wire := packet(101, uint16(5*n+i), uint32(8*k.ms), 0x2000+uint32(side), []byte{code, end | 10, byte(dur >> 8), byte(dur)})
			out = append(out, step{at: t, do: func(c *testCall) { c.put(side, t, wire) }})
		}
	}
	return out
}

// nowhere fails when a digit is in the account, or in one that was journalled.
func nowhere(t *testing.T, sink *memSink, m *Manifest) {
	t.Helper()
	for _, a := range append(slices.Clone(sink.accounts), m) {
		b, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(`"digit"`)) || a.Refused["dtmf"] > 0 {
			t.Fatalf("a key of a window shows: %s", b)
		}
	}
}

func TestKeysOfAPauseAreNowhere(t *testing.T) {
	ext := media.External
	pause := []step{signalAt(2000, suppress.PauseStart), signalAt(4000, suppress.PauseEnd)}
	many := func(ms int) (out []step) {
		for i := range 600 {
			out = append(out, info(ext, ms+i/4, '0'+byte(i%10), 0))
		}
		return out
	}
	for name, steps := range map[string][]step{
		"INFO":                            infos(ext, key{2100, '1'}, key{3800, '2'}),
		"INFO that comes after the pause": {info(ext, 4100, '1', 200*time.Millisecond), info(ext, 4690, '2', 0), info(ext, 6000, '3', 3*time.Second)},
		"tones":                           typed(ext, 6000, true, key{2000, '1'}, key{2500, '2'}, key{3880, '3'}),
		"a tone on either edge":           typed(ext, 6000, true, key{1980, '1'}, key{3940, '3'}),
		"more than there is room for":     many(2400),
	} {
		for _, mode := range []string{SuppressedCut, SuppressedSilence} {
			t.Run(name+" "+mode, func(t *testing.T) {
				plan := testPlan()
				plan.Suppressed = mode
				sink, m := replayed(t, plan, script(toneless(6500), pause, steps))
				checkAccount(t, m, sink)
				nowhere(t, sink, m)
			})
		}
	}
	t.Run("outside they are counted", func(t *testing.T) {
		_, m := replayed(t, testPlan(), script(toneless(6500), many(4800)))
		if len(m.DTMF) != digitsPendingMax || m.Refused["dtmf"] != 600-digitsPendingMax {
			t.Errorf("%d digits, %d refused", len(m.DTMF), m.Refused["dtmf"])
		}
	})
	t.Run("INFO long after the pause is listed", func(t *testing.T) {
		_, m := replayed(t, testPlan(), script(toneless(6500), pause, []step{info(ext, 4850, '1', 100*time.Millisecond)}))
		if got := listed(m); got != "0@4760 1 info" {
			t.Error(got)
		}
	})
}

// TestCodesByInfo: digits of INFO are codes too, and one that comes twice is one.
func TestCodesByInfo(t *testing.T) {
	code := func(ms int, digits string) (out []key) {
		for i := range digits {
			out = append(out, key{ms + 200*i, digits[i]})
		}
		return out
	}
	keys := append(code(1000, "7*#0"), code(3000, "*#1")...)
	for name, tc := range map[string]struct {
		side  media.Side
		steps []step
		want  []string
		dtmf  string
	}{
		"INFO alone": {
			media.Internal, append(infos(media.Internal, keys...), typed(media.Internal, 6000, false)...),
			[]string{"dtmf 1200–1700", "pause 1200–3500", "dtmf 3000–3500"},
			"1@1000 7 info",
		},
		"beside events": {
			media.Internal, append(infos(media.Internal, keys...), typed(media.Internal, 6000, false, keys...)...),
			[]string{"dtmf 1200–1700", "pause 1200–3500", "dtmf 3000–3500"},
			"1@1000 7",
		},
		"before the first event": {
			media.Internal, append([]step{info(media.Internal, 1195, '*', 0)}, typed(media.Internal, 6000, false, keys[1:]...)...),
			[]string{"dtmf 1200–1700", "pause 1200–3500", "dtmf 3000–3500"},
			"",
		},
		"of who may not": {media.External, infos(media.External, keys[:4]...), nil, "0@1000 7 info, 0@1200 * info, 0@1400 # info, 0@1600 0 info"},
	} {
		t.Run(name, func(t *testing.T) {
			plan := testPlan()
			plan.Codes[media.Internal] = []suppress.Code{{Digits: "*#0", Event: suppress.PauseStart}, {Digits: "*#1", Event: suppress.PauseEnd}}
			sink, m := replayed(t, plan, script(answered(6000), tc.steps))
			checkAccount(t, m, sink)
			windowsNear(t, m.Windows, tc.want, false)
			if got := listed(m); got != tc.dtmf {
				t.Errorf("digits %q, want %q", got, tc.dtmf)
			}
			for _, s := range m.Signals {
				if s.Source != sourceDTMF {
					t.Errorf("signal %+v", s)
				}
			}
		})
	}
}

// TestGapsWithout: what is left of a span are just the samples without the cause.
func TestGapsWithout(t *testing.T) {
	l := gapList{}
	for _, g := range []gap{{span: span{10, 20}, cause: GapMasked}, {span: span{20, 25}, cause: GapLoss}, {span: span{30, 40}, cause: GapMasked}} {
		l.add(g)
	}
	for _, tc := range []struct {
		of   span
		want []span
	}{
		{span{0, 50}, []span{{0, 10}, {20, 30}, {40, 50}}},
		{span{12, 18}, nil},
		{span{15, 35}, []span{{20, 30}}},
		{span{41, 42}, []span{{41, 42}}},
		{span{0, 10}, []span{{0, 10}}},
	} {
		if d := cmp.Diff(tc.want, l.without(GapMasked, tc.of), cmp.AllowUnexported(span{})); d != "" {
			t.Errorf("%v: %s", tc.of, d)
		}
	}
}
