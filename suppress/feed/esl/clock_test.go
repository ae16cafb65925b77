package esl

import (
	"fmt"
	"testing"
	"time"
)

// TestImplausibleTime: a clock that is wrong by days places nothing.
func TestImplausibleTime(t *testing.T) {
	for _, stamp := range []string{"1", "99999999999999999999", "1572366400000000", "x", "-5"} {
		tr := NewTranslator("esl:pbx1", Trunks{})
		e := with(leg("T", "one", "external", ""), "CUSTOM", "Event-Subclass", "trunktap::signal", "event", "pause.start", "Event-Date-Timestamp", stamp)
		if got, _ := run(tr, e); got != "  1000 pause.start call=one\n" {
			t.Errorf("%s: %s", stamp, got)
		}
	}
}

// TestClockOff: a clock that is off places a signal where it belongs all the same.
func TestClockOff(t *testing.T) {
	for _, off := range []time.Duration{-25 * time.Hour, -time.Hour, -time.Second, time.Second, time.Hour, 25 * time.Hour} {
		tr := NewTranslator("esl:pbx1", Trunks{})
		for i, delay := range []time.Duration{0, 2 * time.Second} {
			at := noon.Add(time.Duration(i) * 5 * time.Second)
			e := with(leg("T", "one", "external", ""), "CUSTOM", "Event-Subclass", "trunktap::signal", "event", "pause.start",
				"Event-Date-Timestamp", fmt.Sprint(at.Add(off).UnixMicro()))
			got, _ := tr.Event(e, at.Add(delay))
			if len(got) != 1 || !got[0].At.Equal(at) || !got[0].Received.Equal(at.Add(delay)) {
				t.Errorf("%v off, %v delayed: %v", off, delay, got)
			}
		}
	}
}
