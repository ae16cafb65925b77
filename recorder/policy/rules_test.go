package policy

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
)

func mustCompile(t testing.TB, rules ...Rule) *Rules {
	t.Helper()
	r, err := Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func call(from, to string, d media.Direction) media.Session {
	return media.Session{ID: "20260102T100000Z-00", From: from, To: to, Direction: d, Start: time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)}
}

func TestDecide(t *testing.T) {
	in := call("sip:+4930123@carrier", "sip:1001@pbx", media.Inbound)
	out := call("sip:1001@pbx", "sip:004930123@carrier", media.Outbound)
	anonymous := call("sip:anonymous@anonymous.invalid", "sip:1001@pbx", media.Inbound)
	for _, c := range []struct {
		name  string
		rules []Rule
		call  media.Session
		want  bool
		why   string
	}{
		{"no rules", nil, in, true, "no rule"},
		{"none matches", []Rule{{Percent: 100, Direction: media.Outbound}}, in, true, "no rule"},
		{"exclusion by caller", []Rule{{Percent: 100, From: []string{"0049 30 123"}}}, in, false, "rules[0]"},
		{"exclusion by called", []Rule{{Percent: 100, To: []string{"+49 30*"}}}, out, false, "rules[0]"},
		{"the other number", []Rule{{Percent: 100, To: []string{"+4930123"}}}, in, true, "no rule"},
		{"anonymous", []Rule{{Percent: 100, From: []string{"Anonymous"}}}, anonymous, false, "rules[0]"},
		{"direction", []Rule{{Percent: 100, Direction: media.Inbound}}, in, false, "rules[0]"},
		{"first decides", []Rule{{Percent: 100, From: []string{"+4930123"}, Record: true}, {Percent: 100}}, in, true, "rules[0]"},
		{"second decides", []Rule{{Percent: 100, From: []string{"+4930124"}, Record: true}, {Percent: 100}}, in, false, "rules[1]"},
		{"all conditions", []Rule{{Percent: 100, From: []string{"+4930123"}, Direction: media.Outbound}}, in, true, "no rule"},
		{"nobody", []Rule{{Percent: 0, Record: true}}, in, false, "rules[0], 0 percent"},
		{"nobody is excluded", []Rule{{Percent: 0}}, in, true, "rules[0], 0 percent"},
		{"hours", []Rule{{Percent: 100, Begin: 10 * time.Hour, End: 11 * time.Hour}}, in, false, "rules[0]"},
	} {
		got, why := mustCompile(t, c.rules...).Decide(c.call)
		if got != c.want || why != c.why {
			t.Errorf("%s: %v, %q", c.name, got, why)
		}
	}
	if ok, _ := new(Rules).Decide(in); !ok {
		t.Error("the zero value does not record")
	}
}

func TestCompileFaults(t *testing.T) {
	_, err := Compile([]Rule{{InZone: "Mars/Olympus"}, {Percent: 101}, {Percent: -1}, {Begin: day}, {End: day + 1}, {Begin: -1}, {End: day}})
	for i := range 6 {
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("rule %d:", i)) {
			t.Errorf("rule %d is not named: %v", i, err)
		}
	}
	if strings.Contains(err.Error(), "rule 6") {
		t.Error(err)
	}
}

// TestSchedule has the edges of spans, weeks and summer time. Berlin puts the
// clock on at 2026-03-29 02:00 (01:00 UTC) and back at 2026-10-25 03:00
// (01:00 UTC), both Sundays.
func TestSchedule(t *testing.T) {
	h := func(hours, minutes int) time.Duration {
		return time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	}
	office := Rule{Days: DaysOf(1, 2, 3, 4, 5), Begin: h(8, 0), End: h(18, 0), InZone: "Europe/Berlin"}
	night := Rule{Days: DaysOf(time.Saturday), Begin: h(22, 0), End: h(6, 0), InZone: "Europe/Berlin"}
	lost := Rule{Begin: h(2, 0), End: h(3, 0), InZone: "Europe/Berlin"}
	for _, c := range []struct {
		name, at string // UTC
		rule     Rule
		want     bool
	}{
		{"winter, before", "2026-01-05T06:59:59Z", office, false},
		{"winter, first", "2026-01-05T07:00:00Z", office, true},
		{"winter, last", "2026-01-05T16:59:59.999999999Z", office, true},
		{"winter, after", "2026-01-05T17:00:00Z", office, false},
		{"summer, first", "2026-07-06T06:00:00Z", office, true},
		{"summer, after", "2026-07-06T16:00:00Z", office, false},
		{"Saturday", "2026-01-03T10:00:00Z", office, false},
		{"Sunday there, Saturday here", "2026-01-03T23:30:00Z", Rule{Days: DaysOf(time.Sunday), InZone: "Europe/Berlin"}, true},
		{"over midnight, too early", "2026-01-03T20:59:00Z", night, false},
		{"over midnight, begins", "2026-01-03T21:00:00Z", night, true},
		{"over midnight, the next day", "2026-01-04T04:59:59Z", night, true},
		{"over midnight, ends", "2026-01-04T05:00:00Z", night, false},
		{"over midnight, of the day before", "2026-01-03T01:00:00Z", night, false},
		{"over midnight, of the day after", "2026-01-04T22:00:00Z", night, false},
		{"night of the lost hour, begins", "2026-03-28T21:00:00Z", night, true},
		{"night of the lost hour, ends an hour earlier", "2026-03-29T03:59:59Z", night, true},
		{"night of the lost hour, has ended", "2026-03-29T04:00:00Z", night, false},
		{"night of the repeated hour, ends an hour later", "2026-10-25T04:59:59Z", night, true},
		{"night of the repeated hour, has ended", "2026-10-25T05:00:00Z", night, false},
		{"the lost hour, before", "2026-03-29T00:59:59Z", lost, false},
		{"the lost hour, after", "2026-03-29T01:00:00Z", lost, false},
		{"the repeated hour, first time", "2026-10-25T00:30:00Z", lost, true},
		{"the repeated hour, second time", "2026-10-25T01:30:00Z", lost, true},
		{"the repeated hour, after", "2026-10-25T02:00:00Z", lost, false},
		{"any zone, any time", "2026-10-25T02:00:00Z", Rule{}, true},
		{"until midnight", "2026-01-05T23:59:59Z", Rule{Begin: h(20, 0), End: day}, true},
		{"from midnight", "2026-01-05T00:00:00Z", Rule{Begin: h(20, 0), End: day}, false},
		{"half hour zone", "2026-01-05T03:30:00Z", Rule{Begin: h(9, 0), End: h(10, 0), InZone: "Asia/Kolkata"}, true},
	} {
		at, err := time.Parse(time.RFC3339Nano, c.at)
		if err != nil {
			t.Fatal(err)
		}
		c.rule.Percent = 100
		s := media.Session{Start: at.In(time.FixedZone("elsewhere", -7*3600))}
		if record, _ := mustCompile(t, c.rule).Decide(s); record == c.want {
			t.Errorf("%s: %s matches: %v", c.name, c.at, !c.want)
		}
	}
}

// TestScheduleMinuteByMinute compares with a naive reading of the rule: walk
// back minute by minute to where the span began.
func TestScheduleMinuteByMinute(t *testing.T) {
	zones := []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"}
	rapid.Check(t, func(t *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		begin, end := rapid.IntRange(0, 1439).Draw(t, "begin"), rapid.IntRange(0, 1439).Draw(t, "end")
		if begin == end {
			end = (begin + 1) % 1440
		}
		days := Days(rapid.IntRange(0, 127).Draw(t, "days"))
		at := time.Unix(int64(rapid.IntRange(1767225600, 1798761600).Draw(t, "at")), 0) // of 2026
		r, err := Compile([]Rule{{Percent: 100, Days: days, Begin: time.Duration(begin) * time.Minute, End: time.Duration(end) * time.Minute, InZone: zone.String()}})
		if err != nil {
			t.Fatal(err)
		}
		local := at.In(zone)
		minute, weekday := local.Hour()*60+local.Minute(), local.Weekday()
		want := false
		for back := 0; back <= 1440; back++ { // minutes of the clock, not of time
			if m := ((minute-back)%1440 + 1440) % 1440; m == end && back >= 0 {
				break
			} else if m == begin {
				if back > minute {
					weekday = (weekday + 6) % 7
				}
				want = days == 0 || days&(1<<weekday) != 0
				break
			}
		}
		if record, _ := r.Decide(media.Session{Start: at}); record == want {
			t.Fatalf("%v, %02d:%02d to %02d:%02d, days %07b: %v", local, begin/60, begin%60, end/60, end%60, days, !want)
		}
	})
}

// TestPercent: as many as asked for, the same ones each time, and those of a
// smaller share among those of a larger one.
func TestPercent(t *testing.T) {
	const calls = 20_000
	start := time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)
	taken := map[int]map[string]bool{}
	for _, percent := range []int{0, 1, 10, 50, 99, 100} {
		record, exclude := mustCompile(t, Rule{Record: true, Percent: percent}), mustCompile(t, Rule{Percent: percent})
		taken[percent] = map[string]bool{}
		for i := range calls {
			s := media.Session{ID: media.SessionID(fmt.Sprintf("call-%d@pbx", i), "tag", start.Add(time.Duration(i)*time.Second))}
			yes, _ := record.Decide(s)
			if again, _ := record.Decide(s); again != yes {
				t.Fatal("the second decision differs")
			}
			if no, _ := exclude.Decide(s); no == yes {
				t.Fatal("an exclusion does not take the same calls")
			}
			taken[percent][s.ID] = yes
		}
	}
	last := -1
	for _, percent := range []int{0, 1, 10, 50, 99, 100} {
		n := 0
		for id, yes := range taken[percent] {
			if yes {
				n++
			}
			if last >= 0 && taken[last][id] && !yes {
				t.Fatalf("%s is among %d percent and not among %d", id, last, percent)
			}
		}
		p := float64(percent) / 100
		if sigma := math.Sqrt(calls * p * (1 - p)); math.Abs(float64(n)-calls*p) > 5*sigma {
			t.Errorf("%d percent: %d of %d calls", percent, n, calls)
		}
		last = percent
	}
}

// TestSampleSpreads: ids that differ a little are as far apart as any.
func TestSampleSpreads(t *testing.T) {
	var seen [100]int
	for i := range 10_000 {
		seen[sample(fmt.Sprintf("20260102T100000Z-%016x", i))]++
	}
	for i, n := range seen {
		if n < 50 || n > 150 {
			t.Errorf("%d of 10000 ids have the place %d", n, i)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	rules := make([]Rule, 1000)
	for i := range rules {
		rules[i] = Rule{Percent: 100, From: []string{fmt.Sprintf("+4930%d", i), fmt.Sprintf("+4931%d*", i)}, Begin: time.Hour, End: 23 * time.Hour, InZone: "Europe/Berlin"}
	}
	r := mustCompile(b, rules...)
	s := call("sip:+4940123@carrier", "sip:1001@pbx", media.Inbound)
	for b.Loop() {
		r.Decide(s)
	}
}
