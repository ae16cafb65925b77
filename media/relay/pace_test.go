package relay

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// steady feeds a pace with a steady rate for a second, in rounds of every, and
// returns what it says in the end.
func steady(p *pace, from time.Duration, rate int, every time.Duration) (now, sleep time.Duration, brisk bool) {
	per := int(int64(rate) * int64(every) / int64(time.Second))
	now = from
	for range int(time.Second / every) {
		now += every
		sleep, brisk = p.next(now, per, false)
	}
	return now, sleep, brisk
}

func TestPace(t *testing.T) {
	const bound = time.Millisecond
	for _, c := range []struct {
		name  string
		max   time.Duration
		rate  int // packets per second
		every time.Duration
		sleep time.Duration
		brisk bool
	}{
		{"idle", bound, 0, 10 * time.Millisecond, 0, false},
		{"one call", bound, 100, 10 * time.Millisecond, 0, false},
		{"10 calls", bound, 1000, time.Millisecond, 0, true},
		{"20 calls", bound, 2000, time.Millisecond, 0, true},
		{"22 calls: not worth it", bound, 2180, 50 * time.Millisecond, 0, true},
		{"40 calls", bound, 4000, time.Millisecond, bound / 2, true},
		{"60 calls", bound, 6000, time.Millisecond, bound, true},
		{"1000 calls", bound, 100000, time.Millisecond, bound, true},
		{"1000 calls, 5 ms", 5 * bound, 100000, time.Millisecond, 5 * bound, true},
		{"1000 calls, 20 us", 20 * time.Microsecond, 100000, time.Millisecond, 20 * time.Microsecond, true},
		{"never", 0, 100000, time.Millisecond, 0, true},
	} {
		p := pace{max: c.max}
		if _, sleep, brisk := steady(&p, 0, c.rate, c.every); sleep != c.sleep || brisk != c.brisk {
			t.Errorf("%s: sleep %v, brisk %v; want %v, %v", c.name, sleep, brisk, c.sleep, c.brisk)
		}
	}
}

// A loop that did not get through must look again at once, and go on as before afterwards.
func TestPaceDoesNotSleepOnWork(t *testing.T) {
	p := pace{max: time.Millisecond}
	now, _, _ := steady(&p, 0, 50000, time.Millisecond)
	if sleep, _ := p.next(now, batchPackets, true); sleep != 0 {
		t.Fatalf("sleep %v with packets unread", sleep)
	}
	if sleep, _ := p.next(now, 0, false); sleep != time.Millisecond {
		t.Fatalf("sleep %v after it", sleep)
	}
}

// When the calls have gone, the first packet of the next finds nobody asleep.
func TestPaceFollowsTheLoad(t *testing.T) {
	p := pace{max: time.Millisecond}
	now, _, _ := steady(&p, 0, 50000, time.Millisecond)
	if sleep, brisk := p.next(now+time.Second, 1, false); sleep != 0 || brisk {
		t.Fatalf("after a second of silence: sleep %v, brisk %v", sleep, brisk)
	}
	now, sleep, _ := steady(&p, now+time.Second, 50000, time.Millisecond)
	if sleep != time.Millisecond {
		t.Fatalf("sleep %v when they are back", sleep)
	}
	now, _, brisk := steady(&p, now, 0, time.Millisecond) // woken without packets
	if sleep, _ := p.next(now, 0, false); sleep != 0 || brisk {
		t.Fatalf("after empty rounds: sleep %v, brisk %v", sleep, brisk)
	}
}

func TestPaceBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pace{max: time.Duration(rapid.Int64Range(0, int64(10*time.Millisecond)).Draw(t, "max"))}
		now := time.Duration(0)
		for range rapid.IntRange(1, 200).Draw(t, "rounds") {
			now += time.Duration(rapid.Int64Range(0, int64(100*time.Millisecond)).Draw(t, "passed"))
			full := rapid.Bool().Draw(t, "full")
			sleep, brisk := p.next(now, rapid.IntRange(0, eventsPerRoundMax).Draw(t, "packets"), full)
			if sleep < 0 || sleep > p.max || full && sleep > 0 || sleep > 0 && !brisk {
				t.Fatalf("sleep %v of at most %v, full %v, brisk %v at %d packets/s", sleep, p.max, full, brisk, p.rate)
			}
		}
	})
}

// eventsPerRoundMax is more than a round can bring.
const eventsPerRoundMax = 1 << 16
