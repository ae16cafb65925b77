package recorder

import (
	"fmt"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
)

func TestKindOf(t *testing.T) {
	session := media.SessionID("call@example.net", "tag", time.Date(2026, 11, 22, 16, 36, 8, 0, time.UTC))
	for kind, suffix := range suffixes {
		for _, n := range []int{1, 10, recordingsMax} {
			if got := KindOf(fmt.Sprintf("%s-%s%d", session, suffix, n)); got != kind {
				t.Errorf("%s%d is %s, want %s", suffix, n, got, kind)
			}
		}
	}
	for _, id := range []string{session, "20261122T163608Z-ad12345678901234", session + "-st", session + "-xy1", session + "-st1x", "", "-st1", "st1"} {
		if got := KindOf(id); got != KindTrunk {
			t.Errorf("%s is %s", id, got)
		}
	}
}
