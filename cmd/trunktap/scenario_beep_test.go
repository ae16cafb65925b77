package main

import (
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

// beeps are calls whose parties are told of the recording.
func beeps() []scenario {
	withBeeps := func(to int, voice hz, at ...int) []span {
		var out []span
		from := 0
		for _, b := range at {
			out = append(out, span{from, b, []hz{voice}}, span{b, b + 200, []hz{voice, beep}})
			from = b + 200
		}
		return append(out, span{from, to, []hz{voice}})
	}
	without := func(list []span, from, to int) (out []span) {
		for _, sp := range list {
			if sp.from < from && sp.to > sp.from {
				out = append(out, span{sp.from, min(sp.to, from), sp.tones})
			}
			if sp.to > to {
				out = append(out, span{max(sp.from, to), sp.to, sp.tones})
			}
		}
		return out
	}
	inward, outward := withBeeps(4500, customer, 1, 1000, 4000), withBeeps(4500, agent1, 1, 1000, 4000)
	return []scenario{{
		number: "18", name: "beep, absent while paused",
		keys: []string{"beep: {enabled: true, frequency: 1400, duration: 200ms, interval: 1s, level: -14}"}, // the voices' level
		script: func(s *scene) {
			c := s.inbound(agent1)
			s.at(1700)
			c.event(suppress.PauseStart)
			s.at(3500)
			c.event(suppress.PauseEnd)
			s.at(4500)
			c.bye()
		},
		check: func(s *scene, ms []*recorder.Manifest) {
			for _, m := range ms { // beeps keep to the answer
				for _, at := range []int{1, 201, 1000, 1200, 4000, 4200} {
					due := m.Origin.Add(time.Duration(at) * time.Millisecond)
					s.steps[at] = step{due, due}
				}
			}
			const begin = 150 * time.Millisecond // the first one waits until the recording has begun
			for _, at := range []int{1, 201} {
				s.steps[at] = step{s.steps[at].first, s.steps[at].last.Add(begin)}
			}
		},
		want:  []wantRecording{trunkOf(4500, without(inward, 1700, 3500), without(outward, 1700, 3500), window("pause", 1700, 3500))},
		heard: [2][]span{outward, inward},
	}}
}
