package relay

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPoolHoldsEvenPairs(t *testing.T) {
	for _, c := range []struct {
		min, max uint16
		want     []uint16
	}{
		{20000, 20005, []uint16{20000, 20002, 20004}},
		{20001, 20006, []uint16{20002, 20004}},
		{20000, 20000, nil},
		{20001, 20002, nil},
		{65534, 65535, []uint16{65534}},
		{65535, 65535, nil},
		{2, 1, nil},
	} {
		if got := newPool(c.min, c.max).free; !slices.Equal(got, c.want) {
			t.Errorf("%d-%d: %v, want %v", c.min, c.max, got, c.want)
		}
	}
}

// TestPoolNeverGivesAPairTwice takes and gives back at random: no pair is given
// out while in use or in quarantine, none is lost, and the one that rested
// longest comes first.
func TestPoolNeverGivesAPairTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const quarantine = 30
		now := time.Unix(1700000000, 0)
		p := newPool(20000, 20019)
		used := map[uint16]bool{}
		back := map[uint16]time.Time{}
		pick := func(t *rapid.T) (uint16, bool) {
			var ports []uint16
			for port := range used {
				ports = append(ports, port)
			}
			if slices.Sort(ports); len(ports) == 0 {
				return 0, false
			}
			port := rapid.SampledFrom(ports).Draw(t, "port")
			delete(used, port)
			return port, true
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				port, ok := p.take()
				if !ok {
					return
				}
				if until := back[port]; used[port] || now.Before(until) {
					t.Fatalf("%d given out at %v, in quarantine until %v", port, now, until)
				}
				for _, other := range p.free {
					if back[other].Before(back[port]) {
						t.Fatalf("%d given out before %d, which rested longer", port, other)
					}
				}
				used[port] = true
			},
			"rest": func(t *rapid.T) {
				if port, ok := pick(t); ok {
					back[port] = now.Add(quarantine * time.Second)
					p.rest(port, back[port])
				}
			},
			"unused": func(t *rapid.T) {
				if port, ok := p.take(); ok {
					p.unused(port)
				}
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second)
				p.wake(now)
			},
			"": func(t *rapid.T) {
				if n := len(used) + len(p.free) + len(p.resting); n != p.total {
					t.Fatalf("%d pairs of %d", n, p.total)
				}
			},
		})
	})
}
