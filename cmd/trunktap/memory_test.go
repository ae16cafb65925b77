package main

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestReclaim: memory is given back when a flood is over, again when its
// transactions are, and not while it is in use.
func TestReclaim(t *testing.T) {
	const mib = 1 << 20
	type step struct {
		held, cycles uint64 // MiB before the look, collections in the time before it
		after        uint64 // MiB after memory was freed, if it is
	}
	for _, c := range []struct {
		name  string
		steps []step
		want  []int // looks at which memory is freed
	}{
		{"nothing happens", []step{{held: 100}, {held: 105}, {held: 110}, {held: 115}}, nil},
		{"grows with use", []step{{held: 100}, {held: 200, cycles: 5}, {held: 300, cycles: 5}}, nil},
		{"a flood", []step{
			{held: 100},
			{held: 400, cycles: 9},
			{held: 400, after: 180},
			{held: 180},
			{held: 180},
			{held: 180},
			{held: 180},
			{held: 180, after: 100},
			{held: 100},
			{held: 100},
			{held: 100},
			{held: 100},
			{held: 100, after: 100},
			{held: 100},
			{held: 100},
			{held: 100},
			{held: 100},
			{held: 100},
		}, []int{2, 7, 12}},
		{"it is in use", []step{{held: 100}, {held: 200, after: 198}, {held: 198}, {held: 199}, {held: 210}, {held: 215}, {held: 220}, {held: 220}}, []int{1}},
		{"more and more is in use", []step{{held: 100}, {held: 140, after: 140}, {held: 170}, {held: 220, after: 220}, {held: 220}}, []int{1, 3}},
	} {
		var r reclaimer
		var got []int
		now, cycles, after := time.Unix(1e9, 0), uint64(0), uint64(0)
		for i, s := range c.steps {
			if cycles += s.cycles; after != 0 && s.held < after {
				t.Fatal("the table is wrong: " + fmt.Sprint(c.name, i))
			}
			if r.free(usage{s.held * mib, cycles}, now) {
				got, after = append(got, i), s.after
			}
			now = now.Add(reclaimEvery)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: freed at %v, want %v", c.name, got, c.want)
		}
	}
}
