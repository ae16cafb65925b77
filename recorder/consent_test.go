package recorder

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

func TestConsent(t *testing.T) {
	of := func(ms int, e suppress.Event) step { return sig(ms, suppress.Signal{Event: e}) }
	late := step{at: at(3000), do: func(c *testCall) {
		c.tap.Signal(suppress.Signal{V: 1, Event: suppress.ConsentGranted, At: at(3000), Source: "test"})
	}}
	for name, tc := range map[string]struct {
		preroll time.Duration
		steps   []step
		consent string
		audio   int64 // ms of the trunk's recording
		others  int   // other recordings kept
	}{
		"granted at the answer":            {0, []step{of(0, suppress.ConsentGranted)}, "granted", 6000, 1},
		"granted in mid-call":              {0, []step{late}, "granted", 3000, 1},
		"granted with preroll":             {10 * time.Second, []step{late}, "granted", 6000, 1},
		"granted after the preroll's time": {2 * time.Second, []step{late}, "granted", 3000, 1},
		"denied":                           {0, []step{of(1000, suppress.ConsentDenied)}, "denied", 0, 0},
		"denied with preroll":              {10 * time.Second, []step{of(1000, suppress.ConsentDenied)}, "denied", 0, 0},
		"denied, then granted":             {10 * time.Second, []step{of(1000, suppress.ConsentDenied), late}, "granted", 3000, 1},
		"never":                            {0, nil, "none", 0, 0},
		"never, with preroll":              {10 * time.Second, nil, "none", 0, 0},
		"withdrawn":                        {0, []step{of(0, suppress.ConsentGranted), of(4000, suppress.ConsentDenied)}, "denied", 4000, 1},
		"paused within the preroll": {10 * time.Second, []step{
			of(1000, suppress.PauseStart), of(2000, suppress.PauseEnd), late,
		}, "granted", 5000, 1},
	} {
		t.Run(name, func(t *testing.T) {
			plan := kindsPlan()
			plan.Rules.ConsentRequired, plan.ConsentPreroll, plan.ConsentTimeout = true, tc.preroll > 0, tc.preroll
			st := stationPlan()
			st.Rules.ConsentRequired, st.ConsentPreroll, st.ConsentTimeout = true, tc.preroll > 0, tc.preroll
			plan.Stations = stations{st, false}
			sh := recordedBy(t, plan, testSession("call"), twoVoices(tc.steps...))
			m := sh.sinks["call"].manifest
			if m == nil || m.Consent != tc.consent || m.AudioMS != tc.audio || m.AudioMS == 0 && len(m.Segments) > 0 {
				t.Fatalf("manifest %+v", m)
			}
			if got := len(sh.kept()) - 1; got != tc.others {
				t.Errorf("%d other recordings kept, want %d", got, tc.others)
			}
			if tc.audio == 0 && len(sh.sinks["call"].accounts)+len(sh.sinks["call"].infos) > 0 {
				t.Error("something was written though nobody consented")
			}
			if pcm := sh.sinks["call"].pcm(); tc.audio > 0 && (spans(pcm[0]) != fmt.Sprintf("%d:0–%d", extPCM, tc.audio)) {
				t.Errorf("heard %s", spans(pcm[0]))
			}
		})
	}
}

// emptyVault has no memory.
type emptyVault struct{ plainMemory }

func (emptyVault) take(int) ([]int16, error) { return nil, errors.New("none left") }

// TestPrerollWithoutMemory: what cannot be held is lost, and said so.
func TestPrerollWithoutMemory(t *testing.T) {
	plan := testPlan()
	plan.Rules.ConsentRequired, plan.ConsentPreroll, plan.ConsentTimeout = true, true, time.Minute
	out := &collected{}
	c := newCore(testSession("x"), plan, "", emptyVault{}, func(recordingInfo) output { return out })
	c.answer(at(0))
	c.advance(c.ns(at(2000)))
	c.signal(suppress.Signal{V: 1, Event: suppress.ConsentGranted, At: at(2000), Source: "test"})
	c.end(at(3000), media.CauseBye)
	m := out.manifest
	if m.AudioMS != 1000 || m.Refused["consent_preroll"] == 0 || m.Consent != "granted" {
		t.Errorf("%+v", m)
	}
}
