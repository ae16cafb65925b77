package recorder

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/suppress"
)

// key is a digit typed for 100 ms.
type key struct {
	ms    int
	digit byte
}

// typed is a side's voice with digits in it, as RFC 4733 events or as tones.
func typed(side media.Side, toMS int, tones bool, keys ...key) []step {
	var out []step
	for ms, n := 0, 0; ms < toMS; ms, n = ms+20, n+1 {
		payload := make([]byte, 160)
		for i := range payload {
			payload[i] = 0x30
		}
		pt, ts := uint8(0), uint32(160*n)
		for _, k := range keys {
			if ms < k.ms || ms >= k.ms+100 {
				continue
			}
			if tones {
				payload = tonePart(k.digit, ms-k.ms)
				continue
			}
			into := ms - k.ms
			pt, ts = 101, uint32(8*k.ms)
			payload = []byte{byte(strings.IndexByte("0123456789*#ABCD", k.digit)), 10, byte((into + 20) * 8 >> 8), byte((into + 20) * 8)}
			if into == 80 {
				payload[1] |= 0x80
			}
		}
		wire := packet(pt, uint16(n), ts, 0x1000+uint32(side), payload)
		t := at(ms)
		out = append(out, step{at: t, do: func(c *testCall) { c.put(side, t, wire) }})
	}
	return out
}

func tonePart(digit byte, fromMS int) []byte {
	pcm := make([]int16, 800)
	mediatest.DTMF{Rate: 8000, Low: -10, High: -10}.Add(pcm, digit)
	out := make([]byte, 160)
	for i, v := range pcm[8*fromMS : 8*fromMS+160] {
		out[i] = muLaw(v)
	}
	return out
}

// muLaw is the coding of G.711, by search.
func muLaw(v int16) byte {
	best, dist := byte(0), 1<<30
	for b := range 256 {
		x := ^byte(b)
		m := (int(x&0x0f)<<3 + 0x84) << (x >> 4 & 7)
		m -= 0x84
		if x&0x80 != 0 {
			m = -m
		}
		if d := m - int(v); max(d, -d) < dist {
			best, dist = byte(b), max(d, -d)
		}
	}
	return best
}

func TestTypedCodes(t *testing.T) {
	code := func(ms int, digits string) []key {
		var out []key
		for i := range digits {
			out = append(out, key{ms + 200*i, digits[i]})
		}
		return out
	}
	for name, tc := range map[string]struct {
		keys    []key
		side    media.Side
		windows []string // reason from–to
		dtmf    string
	}{
		"pause and resume": {
			append(code(1000, "*#0"), code(3000, "*#1")...), media.Internal,
			[]string{"dtmf 1000–1500", "pause 1000–3500", "dtmf 3000–3500"},
			"",
		},
		"digits around a code are kept": {
			append(code(1000, "7**#0"), code(3000, "*#1")...), media.Internal,
			[]string{"dtmf 1400–1900", "pause 1400–3500", "dtmf 3000–3500"},
			"7*",
		},
		"too slow is no code":     {[]key{{1000, '*'}, {2000, '#'}, {3100, '0'}}, media.Internal, nil, "*#0"},
		"nobody else may type it": {code(1000, "*#0"), media.External, nil, "*#0"},
	} {
		for _, tones := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " tones ", tones), func(t *testing.T) {
				plan := testPlan()
				plan.Codes[media.Internal] = []suppress.Code{{Digits: "*#0", Event: suppress.PauseStart}, {Digits: "*#1", Event: suppress.PauseEnd}}
				plan.Codes[media.External] = []suppress.Code{{Digits: "1", Event: suppress.ConsentGranted}, {Digits: "2", Event: suppress.ConsentDenied}}
				sh := recordedBy(t, plan, testSession("call"), script(answered(6000), typed(tc.side, 6000, tones, tc.keys...), talk(tc.side.Other(), 0, 6000, constant(0x20))))
				m := sh.sinks["call"].manifest
				got := ""
				for _, d := range m.DTMF {
					got += d.Digit
					if inband := d.Method == DigitInband; inband != tones {
						t.Errorf("digit %+v", d)
					}
				}
				if got != tc.dtmf {
					t.Errorf("digits %q, want %q", got, tc.dtmf)
				}
				windowsNear(t, m.Windows, tc.windows, tones)
			})
		}
	}
}

// TestConsentDigits: they answer the question once, and are digits after that.
func TestConsentDigits(t *testing.T) {
	plan := testPlan()
	plan.Rules.ConsentRequired = true
	plan.Codes[media.External] = []suppress.Code{{Digits: "1", Event: suppress.ConsentGranted}, {Digits: "2", Event: suppress.ConsentDenied}}
	sh := recordedBy(t, plan, testSession("call"), script(answered(6000), typed(media.External, 6000, false, key{1000, '1'}, key{3000, '2'})))
	m := sh.sinks["call"].manifest
	windowsNear(t, m.Windows, []string{"consent 0–1100", "dtmf 1000–1100"}, false)
	if len(m.DTMF) != 1 || m.DTMF[0].Digit != "2" || m.Consent != "granted" || m.AudioMS != 4900 {
		t.Errorf("%+v", m)
	}
}

// windowsNear compares windows, those of tones to within what the detector is exact to.
func windowsNear(t *testing.T, got []Window, want []string, tones bool) {
	t.Helper()
	round := func(ms int64) int64 {
		if tones {
			return (ms + 50) / 100 * 100
		}
		return ms
	}
	var list []string
	for _, w := range got {
		list = append(list, fmt.Sprintf("%s %d–%d", w.Reason, round(w.RealMS), round(w.EndRealMS)))
	}
	if d := cmp.Diff(want, list); d != "" {
		t.Error(d)
	}
}

// TestCodesCutTheirTones: nothing of a code's tones is in the audio, however
// long before its end they began.
func TestCodesCutTheirTones(t *testing.T) {
	plan := testPlan()
	plan.Lookback = 0
	plan.Codes[media.Internal] = []suppress.Code{{Digits: "*#0", Event: suppress.PauseStart}}
	sh := recordedBy(t, plan, testSession("call"), script(answered(6000),
		typed(media.Internal, 6000, true, key{2000, '*'}, key{2800, '#'}, key{3700, '0'})))
	pcm := sh.sinks["call"].pcm()[1]
	if n := len(pcm) / 8; n < 1980 || n > 2000 {
		t.Errorf("%d ms of audio, want up to the first tone", n)
	}
	for i, v := range pcm {
		if v != intPCM {
			t.Fatalf("sample %d is %d: not the voice", i, v)
		}
	}
	if m := sh.sinks["call"].manifest; m.Windows[0].MissedMS+m.Windows[1].MissedMS != 0 {
		t.Errorf("windows %+v", m.Windows)
	}
}

// TestHeldDigitsDoNotHoldForLong: audio waits for a code two seconds at most.
func TestHeldDigitsDoNotHoldForLong(t *testing.T) {
	plan := testPlan()
	plan.Codes[media.Internal] = []suppress.Code{{Digits: "*#0", Event: suppress.PauseStart}}
	out := &collected{}
	c := newCore(testSession("x"), plan, "", plainMemory{}, func(recordingInfo) output { return out })
	steps := typed(media.Internal, 4000, false, key{1000, '*'})
	tc := &testCall{taps: map[media.StreamID]media.Tap{0: coreTap{c, 0}, 1: coreTap{c, 1}}}
	c.answer(at(0))
	for i := range 2 {
		c.stream(media.Stream{ID: media.StreamID(i), Side: media.Side(i), At: at(0), Formats: g711Formats, Sending: true})
	}
	for _, s := range steps {
		s.do(tc)
		behind := s.at.Sub(at(0)) - time.Duration(c.sealedMS)*time.Millisecond
		if behind > 2600*time.Millisecond {
			t.Fatalf("at %v the seal is %v behind", s.at.Sub(at(0)), behind)
		}
	}
	if c.sealedMS < 3400 {
		t.Errorf("sealed up to %d ms", c.sealedMS)
	}
}

// coreTap puts packets straight into a core.
type coreTap struct {
	c  *core
	id media.StreamID
}

func (t coreTap) Put(arrival time.Time, wire []byte) { t.c.packet(t.id, t.c.ns(arrival), wire, 0) }
