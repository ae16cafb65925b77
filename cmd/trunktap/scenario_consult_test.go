package main

import (
	"slices"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

var consult = suppress.Signal{Event: suppress.ConsultStart, User: "agent1", Other: "agent2"}

// consultations are those of agent1 with agent2 while the customer is on hold.
func consultations() []scenario {
	script := func(s *scene) {
		c := s.inbound(0)
		p := s.pickup(300, "agent1", agent1, customer)
		c.hears(agent1)
		s.at(1200)
		c.wait()
		c.hears(music)
		p.hold()
		s.at(1400)
		k := s.dial("agent1", agent1, 0, consult)
		s.answered(1600)
		q := s.pickup(2000, "agent2", agent2, agent1)
		k.hears(agent2)
		s.almost(3000)
		c.hears(agent2)
		s.at(3000)
		k.bye()
		p.bye()
		q.hears(customer)
		c.resume()
		s.at(4500)
		c.bye()
		q.bye()
	}
	main := []wantRecording{
		trunkOf(4500, []span{{0, 1200, []hz{customer}}, {3000, 4500, []hz{customer}}}, []span{{300, 1200, []hz{agent1}}, {3000, 4500, []hz{agent2}}},
			window("hold", 1200, 3000)),
		stationOf("agent1", 300, 3000, talk(300, 1200, customer), talk(300, 1200, agent1), wantWindow{"hold", 1200, 3000, 1, 0}),
		stationOf("agent2", 2000, 4500, []span{{2000, 3000, []hz{agent1}}, {3000, 4500, []hz{customer}}}, talk(2000, 4500, agent2)),
	}
	private := wantRecording{
		kind: recorder.KindConsult, user: "agent1", other: "agent2", from: 1600, to: 3000,
		channels: [2][]span{talk(2000, 3000, agent2), talk(1600, 3000, agent1)},
	}
	on := []string{"consult: true"}
	return []scenario{
		{
			number: "8", name: "consultation and transfer", keys: on, phones: on, config: twoStations,
			script: script, want: append(slices.Clone(main), private),
		},
		{
			number: "8b", name: "consultation and transfer, not recorded", phones: seen, config: twoStations,
			script: script, want: main,
		},
		consultationOnTrunk(),
	}
}

// consultationOnTrunk is one that goes out again by the trunk.
func consultationOnTrunk() scenario {
	return scenario{
		number: "8c", name: "consultation over the trunk", keys: []string{"consult: true"},
		script: func(s *scene) {
			c := s.inbound(agent1)
			s.at(1000)
			c.wait()
			c.hears(music)
			s.at(1200)
			k := s.outbound(agent1, agent2, consult)
			s.answered(1400)
			s.at(2600)
			k.bye()
			s.almost(2800)
			c.hears(agent1)
			s.at(2800)
			c.resume()
			s.at(3800)
			c.bye()
		},
		want: []wantRecording{
			trunkOf(3800, []span{{0, 1000, []hz{customer}}, {2800, 3800, []hz{customer}}}, []span{{0, 1000, []hz{agent1}}, {2800, 3800, []hz{agent1}}},
				window("hold", 1000, 2800)),
			{
				kind: recorder.KindConsult, user: "agent1", other: "agent2", from: 1400, to: 2600,
				channels: [2][]span{talk(1400, 2600, agent2), talk(1400, 2600, agent1)},
			},
		},
	}
}
