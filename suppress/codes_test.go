package suppress

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const second = int64(1e9)

var pauseCodes = []Code{{"*#0", PauseStart}, {"*#1", PauseEnd}, {"9", ConsentGranted}}

// press is one thing that happens at a key, in milliseconds: '+' advances, '-'
// ends the key, everything else begins that digit.
type press struct {
	what byte
	ms   int64
}

// script reads "1@0-80 *@100-180 +@2200": digits from and to, or a time alone.
func script(t *testing.T, text string) (list []press) {
	for _, word := range strings.Fields(text) {
		var from, to int64
		if n, _ := fmt.Sscanf(word[1:], "@%d-%d", &from, &to); n == 0 {
			t.Fatalf("no press: %q", word)
		}
		list = append(list, press{word[0], from})
		if to > 0 {
			list = append(list, press{'-', to})
		}
	}
	return list
}

func (p press) do(c *Codes) (CodeMatch, bool) {
	switch ns := p.ms * msNS; p.what {
	case '+':
		return c.Advance(ns)
	case '-':
		return c.End(ns)
	default:
		return c.Begin(p.what, ns)
	}
}

func TestCodes(t *testing.T) {
	match := func(e Event, from, to int64) CodeMatch { return CodeMatch{e, from * msNS, to * msNS} }
	for _, c := range []struct {
		name, script string
		matches      []CodeMatch
		taken        string // digits
		held         int64  // ms, -1 for nothing
	}{
		{"code", "*@10-50 #@100-150 0@200-260", []CodeMatch{match(PauseStart, 10, 260)}, "", -1},
		{"not before the last key is up", "*@10-50 #@100-150 0@200", nil, "", 10},
		{"two codes", "*@10-50 #@100-150 0@200-260 *@300-350 #@400-450 1@500-550", []CodeMatch{match(PauseStart, 10, 260), match(PauseEnd, 300, 550)}, "", -1},
		{"one digit", "9@10-50", []CodeMatch{match(ConsentGranted, 10, 50)}, "", -1},
		{"other digits", "1@10-50 2@100-150", nil, "12", -1},
		{"a key that is down and no part", "1@10", nil, "1", -1},
		{"wrong last digit", "*@10-50 #@100-150 7@200-260", nil, "*#7", -1},
		{"begins again", "*@10-50 *@100-150 #@200-250 0@300-350", []CodeMatch{match(PauseStart, 100, 350)}, "*", -1},
		{"begins again after two", "*@10-50 #@100-150 *@200-250 #@300-350 1@400-450", []CodeMatch{match(PauseEnd, 200, 450)}, "*#", -1},
		{"ends with another code", "*@10-50 9@100-150", []CodeMatch{match(ConsentGranted, 100, 150)}, "*", -1},
		{"digits around", "5@0-9 *@10-50 #@100-150 0@200-260 6@300-350", []CodeMatch{match(PauseStart, 10, 260)}, "56", -1},
		{"waits", "*@10-50 #@100-150 +@2009", nil, "", 10},
		{"gives up", "*@10-50 #@100-150 +@2010", nil, "*#", -1},
		{"gives up the first alone", "*@10-50 *@1500-1550 +@2500", nil, "*", 1500},
		{"digits too far apart", "*@10-50 #@100-150 0@2010-2050", nil, "*#0", -1},
		{"just in time", "*@10-50 #@100-150 0@2009-2500", []CodeMatch{match(PauseStart, 10, 2500)}, "", -1},
		{"a last key that stays down", "*@10-50 #@100-150 0@200 +@2199", nil, "", 10},
		{"a last key that stays down too long", "*@10-50 #@100-150 0@200 +@2300", []CodeMatch{match(PauseStart, 10, 2200)}, "", -1},
		{"the same at its end", "*@10-50 #@100-150 0@200-2300", []CodeMatch{match(PauseStart, 10, 2200)}, "", -1},
		{"the same at the next key", "*@10-50 #@100-150 0@200 9@2300-2400", []CodeMatch{match(PauseStart, 10, 2200), match(ConsentGranted, 2300, 2400)}, "", -1},
		{"a lost end", "*@10 #@100 0@200 9@300-350", []CodeMatch{match(PauseStart, 10, 300), match(ConsentGranted, 300, 350)}, "", -1},
		{"an end without a key", "+@10 *@20-30 #@40-50 0@60-70", []CodeMatch{match(PauseStart, 20, 70)}, "", -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			codes := NewCodes(pauseCodes)
			if _, ok := codes.End(0); ok {
				t.Error("an end of nothing is a match")
			}
			var matches []CodeMatch
			for _, p := range script(t, c.script) {
				if m, ok := p.do(codes); ok {
					matches = append(matches, m)
				}
			}
			if diff := cmp.Diff(c.matches, matches); diff != "" {
				t.Errorf("matches (-want +got):\n%s", diff)
			}
			taken := ""
			for _, p := range codes.Take(nil) {
				taken += string(p.Digit)
			}
			if taken != c.taken {
				t.Errorf("taken %q, want %q", taken, c.taken)
			}
			if from, ok := codes.Held(); ok != (c.held >= 0) || ok && from != c.held*msNS {
				t.Errorf("held from %d, %v; want %d ms", from, ok, c.held)
			}
		})
	}
}

func TestCodesPresses(t *testing.T) {
	c := NewCodes(pauseCodes)
	c.Begin('*', 10)
	c.End(20)
	c.Begin('5', 30) // speaks against it
	want := []Press{{'*', 10, 20}, {'5', 30, 0}}
	if got := c.Take(nil); !slices.Equal(got, want) {
		t.Errorf("while the key is down: %v, want %v", got, want)
	}
	c.End(40)
	c.Begin('6', 50)
	c.Begin('7', 60) // ends the former
	c.End(70)
	want = []Press{{'6', 50, 60}, {'7', 60, 70}}
	if got := c.Take(nil); !slices.Equal(got, want) {
		t.Errorf("taken later: %v, want %v", got, want)
	}
	for i := range releasedMax + 3 {
		c.Begin('5', int64(100+i))
	}
	if n := len(c.Take(nil)); n != releasedMax || c.Dropped() != 3 {
		t.Errorf("%d taken, %d dropped", n, c.Dropped())
	}
}

func TestCodesDoNotAllocate(t *testing.T) {
	c, ns := NewCodes(pauseCodes), int64(0)
	taken := make([]Press, 0, 16)
	matches := 0
	if n := testing.AllocsPerRun(1000, func() {
		for _, d := range []byte("5*#*#09") {
			c.Begin(d, ns)
			ns += second / 10
			if _, ok := c.End(ns); ok {
				matches++
			}
			c.Advance(ns)
			taken = c.Take(taken[:0])
		}
	}); n != 0 || matches < 2000 {
		t.Errorf("%v allocations, %d matches", n, matches)
	}
}

func TestCheckCodes(t *testing.T) {
	if err := CheckCodes(pauseCodes); err != nil {
		t.Error(err)
	}
	if err := CheckCodes(nil); err != nil {
		t.Error(err)
	}
	many := make([]Code, codesMax+1)
	for i := range many {
		many[i] = Code{fmt.Sprintf("%02d", i), PauseStart}
	}
	if err := CheckCodes(many[:codesMax]); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		want  string
		codes []Code
	}{
		{"33 codes, allowed are 32", many},
		{"code 1 (pause.start): has no digits", []Code{{"", PauseStart}}},
		{"code 2 (pause.end): has 9 digits, allowed are 1 to 8", []Code{{"1", PauseStart}, {"234567890", PauseEnd}}},
		{"has something else than digits", []Code{{"1a2", PauseStart}}},
		{"stands for no event", []Code{{"12", ""}}},
		{"code 2 (pause.end) is the same as code 1 (pause.start)", []Code{{"12", PauseStart}, {"12", PauseEnd}}},
		{"code 1 (pause.start) lies within code 2 (pause.end)", []Code{{"12", PauseStart}, {"123", PauseEnd}}},
		{"code 2 (pause.end) lies within code 1 (pause.start)", []Code{{"1234", PauseStart}, {"23", PauseEnd}}},
	} {
		if err := CheckCodes(c.codes); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.codes, err, c.want)
		}
	}
	if err := CheckCodes([]Code{{"", ""}, {"x", PauseEnd}, {"1", PauseEnd}, {"1", PauseEnd}}); strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("not every fault: %v", err)
	}
}

// naiveCodes judges all digits ever typed from the first on, each time anew.
type naiveCodes struct {
	codes []Code
	typed []Press
}

func (n *naiveCodes) do(p press) {
	ns, last := p.ms*msNS, len(n.typed)-1
	if p.what != '+' && last >= 0 && n.typed[last].ToNS == 0 {
		n.typed[last].ToNS = ns
	}
	if p.what != '+' && p.what != '-' {
		n.typed = append(n.typed, Press{Digit: p.what, FromNS: ns})
	}
}

func (n *naiveCodes) judge(now int64) (matches []CodeMatch, released []Press, held int64) {
	i := 0
next:
	for i < len(n.typed) {
		first := n.typed[i].FromNS
		var digits []byte // typed in time
		for _, p := range n.typed[i:] {
			if p.FromNS-first >= 2*second {
				break
			}
			digits = append(digits, p.Digit)
		}
		for _, c := range n.codes {
			if !strings.HasPrefix(string(digits), c.Digits) {
				continue
			}
			last := n.typed[i+len(c.Digits)-1]
			upAt := last.FromNS + 2*second
			if last.ToNS == 0 && now < upAt {
				return matches, released, first
			}
			if last.ToNS != 0 {
				upAt = min(upAt, last.ToNS)
			}
			matches = append(matches, CodeMatch{c.Event, first, upAt})
			i += len(c.Digits)
			continue next
		}
		for _, c := range n.codes {
			if len(digits) == len(n.typed)-i && strings.HasPrefix(c.Digits, string(digits)) && now-first < 2*second {
				return matches, released, first
			}
		}
		released = append(released, n.typed[i])
		i++
	}
	return matches, released, -1
}

type fataler interface{ Fatalf(string, ...any) }

// compareCodes plays presses on Codes and on the naive matcher.
func compareCodes(t fataler, codes []Code, presses []press) (matched int) {
	c, n := NewCodes(codes), &naiveCodes{codes: codes}
	var matches []CodeMatch
	var taken []Press
	for i, p := range presses {
		if m, ok := p.do(c); ok {
			matches = append(matches, m)
		}
		n.do(p)
		taken = c.Take(taken)
		wantMatches, wantTaken, wantHeld := n.judge(p.ms * msNS)
		held, ok := c.Held()
		if !slices.Equal(matches, wantMatches) || ok != (wantHeld >= 0) || ok && held != wantHeld {
			t.Fatalf("%v: step %d: matches %v, held %d %v; want %v, %d", presses, i, matches, held, ok, wantMatches, wantHeld)
		}
		if !slices.EqualFunc(taken, wantTaken, func(a, b Press) bool { return a.Digit == b.Digit && a.FromNS == b.FromNS }) {
			t.Fatalf("%v: step %d: taken %v, want %v", presses, i, taken, wantTaken)
		}
		if due, waits := c.Deadline(); waits != ok || ok && (due <= p.ms*msNS || due > p.ms*msNS+2*second) {
			t.Fatalf("%v: step %d: due at %d, %v", presses, i, due, waits)
		}
	}
	return len(matches)
}

func TestCodesAgainstNaive(t *testing.T) {
	matched := 0
	rapid.Check(t, func(t *rapid.T) {
		var codes []Code
		for i := range rapid.IntRange(1, 4).Draw(t, "codes") {
			codes = append(codes, Code{rapid.StringOfN(rapid.SampledFrom([]rune("12*")), 1, 4, -1).Draw(t, "digits"), Event(fmt.Sprint("e", i))})
		}
		if CheckCodes(codes) != nil {
			codes = pauseCodes
		}
		var presses []press
		ms := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "presses") {
			ms += rapid.SampledFrom([]int64{0, 1, 60, 100, 400, 900, 1999, 2000, 2600}).Draw(t, "after")
			presses = append(presses, press{rapid.SampledFrom([]byte("12*12*12*#09---------+")).Draw(t, "what"), ms + 1})
		}
		matched += compareCodes(t, codes, presses)
	})
	if matched == 0 {
		t.Error("nothing ever matched")
	}
}

func FuzzCodes(f *testing.F) {
	f.Add("*#0,*#1", []byte("*\x01-\x02#\x02-\x02"+"0\x04-\x09"))
	f.Add("1,22,*1", []byte("*\x01*\x01-\x01"+"1\x01-\x70+\x90"))
	f.Add("12345678", []byte("1\x012\x013\x014\x015\x016\x017\x018\x01-\x01"))
	f.Fuzz(func(t *testing.T, digits string, presses []byte) {
		var codes []Code
		for i, d := range strings.Split(digits, ",") {
			codes = append(codes, Code{d, Event(fmt.Sprint("e", i))})
		}
		var list []press
		ms := int64(1)
		for i := 0; i+1 < min(len(presses), 120); i += 2 {
			ms += int64(presses[i+1]) * 16
			list = append(list, press{presses[i], ms})
		}
		if CheckCodes(codes) == nil {
			compareCodes(t, codes, list)
			return
		}
		c := NewCodes(codes)
		for _, p := range list {
			p.do(c)
			c.Take(nil)
		}
	})
}

// TestCodesMove: a digit of which is known better when it began is the same digit.
func TestCodesMove(t *testing.T) {
	const ms = int64(time.Millisecond)
	c := NewCodes([]Code{{Digits: "*1", Event: PauseStart}})
	c.Begin('7', 100*ms)
	c.Begin('*', 1000*ms)
	c.End(1100 * ms)
	for _, m := range []struct{ was, is, want int64 }{
		{1000, 900, 900}, {900, 1200, 1200}, {900, 800, 900}, {100, 50, 100},
	} {
		if got := c.Move(m.was*ms, m.is*ms); got != m.want*ms {
			t.Errorf("%d moved to %d is at %d, want %d", m.was, m.is, got/ms, m.want)
		}
	}
	c.Begin('1', 1300*ms)
	for _, m := range []struct{ was, is, want int64 }{{1300, 1200, 1300}, {1200, 1300, 1200}, {1300, 1250, 1250}} {
		if got := c.Move(m.was*ms, m.is*ms); got != m.want*ms {
			t.Errorf("%d moved to %d is at %d, want %d", m.was, m.is, got/ms, m.want)
		}
	}
	if m, ok := c.End(1400 * ms); !ok || m.FromNS != 1200*ms || m.ToNS != 1400*ms {
		t.Errorf("%+v %v", m, ok)
	}
}
