package recorder

import (
	"testing"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// TestCodesOfAnotherPhone: after a transfer to a phone with which RFC 4733 is not agreed
// its keys count as it can send them, though the phone before it had a better way.
func TestCodesOfAnotherPhone(t *testing.T) {
	in := media.Internal
	codes := []key{{4000, '*'}, {4200, '#'}, {4400, '0'}, {6000, '*'}, {6200, '#'}, {6400, '1'}}
	transfer := step{at: at(3000), do: func(c *testCall) {
		c.taps[media.StreamID(in)] = c.tap.StreamStarted(media.Stream{ID: media.StreamID(in), Side: in, At: at(3000), Formats: g711Formats[:2], Sending: true})
	}}
	for name, steps := range map[string][][]step{
		"INFO":  {typed(in, 8000, false), infos(in, codes...)},
		"tones": {typed(in, 8000, true, codes...)},
	} {
		t.Run(name, func(t *testing.T) {
			plan := testPlan()
			plan.Codes[in] = []suppress.Code{{Digits: "*#0", Event: suppress.PauseStart}, {Digits: "*#1", Event: suppress.PauseEnd}}
			all := append([][]step{answered(8000), events4733(in, key{1000, '7'}), {transfer}}, steps...)
			sink, m := replayed(t, plan, script(all...))
			checkAccount(t, m, sink)
			windowsNear(t, m.Windows, []string{"dtmf 4000–4500", "pause 4000–6500", "dtmf 6000–6500"}, true)
			if got := listed(m); got != "1@1000 7" {
				t.Errorf("digits %q", got)
			}
		})
	}
}
