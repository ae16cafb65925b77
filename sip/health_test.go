package sip

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHealth(t *testing.T) {
	now := time.Unix(1e9, 0)
	pinged := Ping{Interval: time.Second, DownAfter: 2, UpAfter: 3}
	var h Health
	for i, step := range []struct {
		failed, changed, usable bool
	}{
		{true, false, true},
		{false, false, true},
		{true, false, true},
		{true, true, false},
		{true, false, false},
		{false, false, false},
		{false, false, false},
		{true, false, false},
		{false, false, false},
		{false, false, false},
		{false, true, true},
	} {
		var changed bool
		if step.failed {
			changed = h.Failed(pinged, now)
		} else {
			changed = h.Answered(pinged, now)
		}
		if changed != step.changed || h.Usable(now) != step.usable {
			t.Errorf("step %d: changed %v, usable %v", i, changed, h.Usable(now))
		}
	}
	h = Health{}
	h.Rest(time.Hour, now)
	if h.Usable(now.Add(HopRestMax-1)) || !h.Usable(now.Add(HopRestMax)) {
		t.Error("a rest is not bounded")
	}
	h = Health{}
	for range HopDownAfter {
		if h.Failed(Ping{}, now) {
			t.Error("a next hop that nobody pings is down")
		}
	}
	if h.Usable(now) || !h.Usable(now.Add(hopRest)) {
		t.Error("a next hop that nobody pings is not tried again")
	}
}

// TestChooseWeights: equals share according to their weights.
func TestChooseWeights(t *testing.T) {
	hops := Ranked([]NextHop{
		{Host: "c", Priority: 2, Weight: 1}, {Host: "a", Priority: 1, Weight: 3}, {Host: "b", Priority: 1, Weight: 1},
	})
	r, first := rand.New(rand.NewPCG(1, 2)), map[string]int{}
	for range 4000 {
		order := Choose(hops, func(NextHop) bool { return true }, r.IntN)
		first[order[0].Host]++
		if order[2].Host != "c" {
			t.Fatalf("%v", order)
		}
	}
	if first["a"] < 2850 || first["a"] > 3150 || first["a"]+first["b"] != 4000 {
		t.Errorf("%v, want three quarters for a", first)
	}
}

func TestChooseProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []NextHop
		down := map[string]bool{}
		for i := range rapid.IntRange(1, 8).Draw(t, "hops") {
			name := string(rune('a' + i))
			list = append(list, NextHop{Host: name, Priority: rapid.IntRange(0, 3).Draw(t, "priority"), Weight: rapid.IntRange(0, 5).Draw(t, "weight")})
			down[name] = rapid.Bool().Draw(t, "down")
		}
		hops, up := Ranked(list), 0
		for _, h := range hops {
			if !down[h.Host] {
				up++
			}
		}
		seen, last := map[string]bool{}, 0
		order := Choose(hops, func(h NextHop) bool { return !down[h.Host] }, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "random") })
		for _, h := range order {
			if seen[h.Host] || h.Priority < last || up > 0 && down[h.Host] {
				t.Fatalf("%v of %v", order, hops)
			}
			seen[h.Host], last = true, h.Priority
		}
		if want := max(up, 0); up > 0 && len(order) != want || up == 0 && len(order) != len(hops) {
			t.Fatalf("%d of %d, %d up", len(order), len(hops), up)
		}
	})
}

func TestChooseAllocates(t *testing.T) {
	hops := Ranked([]NextHop{{Host: "a"}, {Host: "b"}})
	if n := testing.AllocsPerRun(100, func() { Choose(hops, func(NextHop) bool { return true }, rand.IntN) }); n != 0 {
		t.Errorf("%v allocations where nothing is to be ordered", n)
	}
}
