package main

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestQuantile compares with sorting.
func TestQuantile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, int64(10*time.Second)), 1, 300).Draw(t, "values")
		var h histogram
		for _, v := range values {
			h.add(time.Duration(v))
		}
		slices.Sort(values)
		for _, q := range []float64{0, 0.5, 0.99, 0.999, 1} {
			want := time.Duration(values[min(len(values)-1, int(q*float64(len(values))))])
			got := h.quantile(q)
			if got > want || float64(got) < float64(want)*(1-1.0/subBuckets)-1 {
				t.Fatalf("quantile %v: %v, sorted %v", q, got, want)
			}
		}
	})
}

func TestHistogramEdges(t *testing.T) {
	var h, o histogram
	if h.quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	h.add(-time.Second)
	o.add(time.Hour)
	h.merge(&o)
	if h.quantile(0) != 0 || h.quantile(1) != time.Hour || h.total != 2 {
		t.Errorf("%v %v %d", h.quantile(0), h.quantile(1), h.total)
	}
	for i := range bucketOf(math.MaxInt64) {
		if d := bucketStart(i); d >= bucketStart(i+1) || bucketOf(d) != i {
			t.Fatalf("bucket %d begins at %d, which is in bucket %d", i, d, bucketOf(d))
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want spread
		text string
	}{
		{nil, spread{}, "0.00"},
		{[]float64{3}, spread{3, 3, 3}, "3.00"},
		{[]float64{3, 1, 200}, spread{3, 1, 200}, "3.00 (1.00–200)"},
		{[]float64{4, 1, 2, 3}, spread{2.5, 1, 4}, "2.50 (1.00–4.00)"},
	} {
		if got := spreadOf(c.in); got != c.want || got.ranged() != c.text {
			t.Errorf("%v: %v %q", c.in, got, got.ranged())
		}
	}
}
