package main

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	for _, c := range []struct {
		n, done, total int64
		took           time.Duration
		want           string
	}{
		{0, 256, 0, 0, "256 recordings"},
		{100, 356, 1000, time.Millisecond, "356 of 1000 recordings"},
		{100, 356, 0, 10 * time.Second, "356 recordings, 10 a second"},
		{100, 356, 1000, 10 * time.Second, "356 of 1000 recordings, 10 a second, 1m4s left"},
		{100, 1000, 1000, 10 * time.Second, "1000 of 1000 recordings, 10 a second"},
	} {
		if got := pace(c.n, c.done, c.total, c.took); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
