package main

import (
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
	"github.com/trunktap/trunktap/suppress"
)

// twoStations records the phones of both agents.
const twoStations = `
stations:
  - user: agent1
  - user: agent2
`

// seen is for trunks whose recording has no keys of its own.
var seen = []string{}

// scenarios is the table.
func scenarios() []scenario {
	var all []scenario
	for _, part := range [][]scenario{arrivals(), transfers(), gatherings(), consents(), pauses()} {
		all = append(all, part...)
	}
	return all
}

// trunkOf is a recording of the trunk from the answer on.
func trunkOf(to int, external, internal []span, windows ...wantWindow) wantRecording {
	return wantRecording{kind: recorder.KindTrunk, to: to, channels: [2][]span{external, internal}, windows: windows}
}

// stationOf is a recording of a user's phone.
func stationOf(user string, from, to int, external, internal []span, windows ...wantWindow) wantRecording {
	return wantRecording{kind: recorder.KindStation, user: user, from: from, to: to, channels: [2][]span{external, internal}, windows: windows}
}

// talk is a voice, or several at once, from one moment to another.
func talk(from, to int, tones ...hz) []span { return []span{{from, to, tones}} }

func join(user string, role suppress.Role) suppress.Signal {
	return suppress.Signal{Event: suppress.AgentJoin, User: user, Role: role}
}

func leave(user string) suppress.Signal {
	return suppress.Signal{Event: suppress.AgentLeave, User: user}
}

var (
	menuStart  = suppress.Signal{Event: suppress.IVRStart, Flow: "welcome"}
	menuEnd    = suppress.Signal{Event: suppress.IVREnd, Flow: "welcome"}
	queueStart = suppress.Signal{Event: suppress.QueueStart, Queue: "sales"}
	queueEnd   = suppress.Signal{Event: suppress.QueueEnd, Queue: "sales"}
)

// arrivals are calls that come in, go out or stay inside.
func arrivals() []scenario {
	acd := func(s *scene) {
		c := s.inbound(menu, menuStart)
		s.almost(800)
		c.hears(music)
		s.at(800)
		c.signal(menuEnd)
		c.signal(queueStart)
		p := s.pickup(2000, "agent1", agent1, customer)
		c.hears(agent1)
		s.at(2100)
		c.signal(queueEnd)
		c.signal(join("agent1", suppress.RoleAgent))
		s.at(4000)
		c.bye()
		p.bye()
	}
	return []scenario{
		{
			number: "1", name: "inbound ACD", phones: seen, config: twoStations, pending: pendingStations, script: acd,
			want: []wantRecording{
				trunkOf(4000, talk(2100, 4000, customer), talk(2100, 4000, agent1), window("ivr", 0, 800), window("queue", 800, 2100)),
				stationOf("agent1", 2000, 4000, talk(2000, 4000, customer), talk(2000, 4000, agent1)),
			},
		},
		{
			number: "2", name: "inbound DID", phones: seen, config: twoStations, pending: pendingStations,
			script: func(s *scene) {
				c := s.inbound(0)
				p := s.pickup(300, "agent1", agent1, customer)
				c.hears(agent1)
				s.at(2500)
				c.bye()
				p.bye()
			},
			want: []wantRecording{
				trunkOf(2500, talk(0, 2500, customer), talk(300, 2500, agent1)),
				stationOf("agent1", 300, 2500, talk(300, 2500, customer), talk(300, 2500, agent1)),
			},
		},
		{
			number: "3", name: "IVR alone", phones: seen, config: twoStations, pending: pendingStations,
			script: func(s *scene) {
				c := s.inbound(menu, menuStart)
				s.at(2000)
				c.bye()
			},
			want: []wantRecording{trunkOf(2000, nil, nil, window("ivr", 0, 2000))},
		},
		{
			number: "3b", name: "IVR alone, not suppressed", keys: []string{"suppress: {ivr: false}"},
			script: func(s *scene) {
				c := s.inbound(menu, menuStart)
				s.at(2000)
				c.bye()
			},
			want: []wantRecording{trunkOf(2000, talk(0, 2000, customer), talk(0, 2000, menu))},
		},
		{
			number: "4", name: "abandoned in the queue", phones: seen, config: twoStations, pending: pendingStations,
			script: func(s *scene) {
				c := s.inbound(menu, menuStart)
				s.almost(800)
				c.hears(music)
				s.at(800)
				c.signal(menuEnd)
				c.signal(queueStart)
				s.at(2500)
				c.bye()
			},
			want: []wantRecording{trunkOf(2500, nil, nil, window("ivr", 0, 800), window("queue", 800, 2500))},
		},
		internalCall("5", "internal call, both recorded", twoStations, []wantRecording{
			stationOf("agent1", 0, 2500, talk(600, 2500, agent2), talk(0, 2500, agent1)),
			stationOf("agent2", 500, 2500, talk(500, 2500, agent1), talk(500, 2500, agent2)),
		}),
		internalCall("5b", "internal call, one recorded", "\nstations: [{user: agent2}]\n", []wantRecording{
			stationOf("agent2", 500, 2500, talk(500, 2500, agent1), talk(500, 2500, agent2)),
		}),
		{
			number: "6", name: "outbound", phones: seen, config: twoStations, pending: pendingStations,
			script: func(s *scene) {
				p := s.dial("agent1", agent1)
				c := s.outbound(agent1, customer)
				s.step(300)
				p.hears(customer)
				s.at(2500)
				c.bye()
				p.bye()
			},
			want: []wantRecording{
				{kind: recorder.KindTrunk, from: 300, to: 2500, channels: [2][]span{talk(300, 2500, customer), talk(300, 2500, agent1)}},
				stationOf("agent1", 0, 2500, talk(300, 2500, customer), talk(0, 2500, agent1)),
			},
		},
		{
			number: "16", name: "IVR and queue left out", script: acd,
			want: []wantRecording{
				trunkOf(4000, talk(2100, 4000, customer), talk(2100, 4000, agent1), window("ivr", 0, 800), window("queue", 800, 2100)),
			},
		},
		{
			number: "16b", name: "IVR and queue left silent", script: acd, keys: []string{"suppressed: silence"},
			want: []wantRecording{
				trunkOf(4000, talk(2100, 4000, customer), talk(2100, 4000, agent1), window("ivr", 0, 800), window("queue", 800, 2100)),
			},
		},
	}
}

// internalCall is a call from agent1's phone by the PBX to agent2's.
func internalCall(number, name, stations string, want []wantRecording) scenario {
	return scenario{
		number: number, name: name, phones: seen, config: stations, pending: "stations of internal calls", want: want,
		script: func(s *scene) {
			one := s.dial("agent1", agent1)
			two := s.pickup(500, "agent2", agent2, agent1)
			s.at(600)
			one.hears(agent2)
			s.at(2500)
			one.bye()
			two.bye()
		},
	}
}

// transfers are calls that go from one agent to another, or out again.
func transfers() []scenario {
	return []scenario{
		{
			number: "7", name: "blind transfer", phones: seen, config: twoStations, pending: pendingStations,
			script: func(s *scene) {
				c := s.inbound(0)
				p := s.pickup(300, "agent1", agent1, customer)
				c.hears(agent1)
				c.signal(join("agent1", suppress.RoleAgent))
				s.at(1800)
				c.hears()
				c.signal(leave("agent1"))
				p.bye()
				q := s.pickup(2300, "agent2", agent2, customer)
				c.hears(agent2)
				c.signal(join("agent2", suppress.RoleAgent))
				s.at(4000)
				c.bye()
				q.bye()
			},
			want: []wantRecording{
				trunkOf(4000, talk(0, 4000, customer), []span{{300, 1800, []hz{agent1}}, {2300, 4000, []hz{agent2}}}),
				stationOf("agent1", 300, 1800, talk(300, 1800, customer), talk(300, 1800, agent1)),
				stationOf("agent2", 2300, 4000, talk(2300, 4000, customer), talk(2300, 4000, agent2)),
			},
		},
		externalTransfer("13", "external transfer, stop", "stop", wantTransferred(2500, window("external_transfer", 2500, 4000))),
		externalTransfer("13b", "external transfer, continue", "continue", wantTransferred(4000)),
	}
}

// wantTransferred is the trunk and the station of an external transfer; the
// third party is heard until to.
func wantTransferred(to int, windows ...wantWindow) []wantRecording {
	internal := []span{{300, 2000, []hz{agent1}}}
	if to > 2500 {
		internal = append(internal, span{2500, to, []hz{third}})
	}
	return []wantRecording{
		trunkOf(4000, talk(0, to, customer), internal, windows...),
		stationOf("agent1", 300, 2500, talk(300, 2000, customer), talk(300, 2500, agent1)),
	}
}

// externalTransfer is a call that the PBX bridges to an external party that it
// reaches elsewhere.
func externalTransfer(number, name, rule string, want []wantRecording) scenario {
	return scenario{
		number: number, name: name, phones: seen, config: twoStations, pending: pendingStations,
		keys: []string{"external_transfer: " + rule}, want: want,
		script: func(s *scene) {
			c := s.inbound(0)
			p := s.pickup(300, "agent1", agent1, customer)
			c.hears(agent1)
			s.at(2000)
			c.hears()
			p.hears()
			s.at(2500)
			c.event(suppress.TransferExternal)
			c.hears(third)
			p.bye()
			s.at(4000)
			c.bye()
		},
	}
}

// gatherings are calls of more than two.
func gatherings() []scenario {
	supervised := func(role suppress.Role, customerHears, agentHears []hz) func(s *scene) {
		return func(s *scene) {
			c := s.inbound(0)
			p := s.pickup(300, "agent1", agent1, customer)
			c.hears(agent1)
			c.signal(join("agent1", suppress.RoleAgent))
			q := s.pickup(1500, "boss", supervisor, customer, agent1)
			c.signal(join("boss", role))
			c.hears(customerHears...)
			p.hears(agentHears...)
			s.at(3000)
			c.hears(agent1)
			p.hears(customer)
			c.signal(leave("boss"))
			q.bye()
			s.at(4000)
			c.bye()
			p.bye()
		}
	}
	parts := func(a, b, c []hz) []span { return []span{{300, 1500, a}, {1500, 3000, b}, {3000, 4000, c}} }
	one, both := []hz{agent1}, []hz{agent1, supervisor}
	cust, coached := []hz{customer}, []hz{customer, supervisor}
	return []scenario{
		{
			number: "9", name: "ACD conference", phones: seen, config: twoStations, pending: pendingStations,
			script: func(s *scene) {
				c := s.inbound(music, queueStart)
				p := s.pickup(500, "agent1", agent1, customer)
				c.hears(agent1)
				s.at(600)
				c.signal(queueEnd)
				c.signal(join("agent1", suppress.RoleAgent))
				q := s.pickup(1800, "agent2", agent2, customer, agent1)
				c.hears(agent1, agent2)
				p.hears(customer, agent2)
				c.signal(join("agent2", suppress.RoleAgent))
				s.at(3000)
				c.hears(agent2)
				q.hears(customer)
				c.signal(leave("agent1"))
				p.bye()
				s.at(4000)
				c.bye()
				q.bye()
			},
			want: []wantRecording{
				trunkOf(4000, talk(600, 4000, customer), []span{{600, 1800, one}, {1800, 3000, []hz{agent1, agent2}}, {3000, 4000, []hz{agent2}}}, window("queue", 0, 600)),
				stationOf("agent1", 500, 3000, []span{{500, 1800, cust}, {1800, 3000, []hz{customer, agent2}}}, talk(500, 3000, agent1)),
				stationOf("agent2", 1800, 4000, []span{{1800, 3000, []hz{customer, agent1}}, {3000, 4000, cust}}, talk(1800, 4000, agent2)),
			},
		},
		{
			number: "10", name: "monitoring", phones: seen, config: twoStations, pending: pendingStations,
			script: supervised(suppress.RoleMonitor, one, cust),
			want: []wantRecording{
				trunkOf(4000, talk(0, 4000, customer), talk(300, 4000, agent1)),
				stationOf("agent1", 300, 4000, talk(300, 4000, customer), talk(300, 4000, agent1)),
			},
		},
		{
			number: "11", name: "coaching", phones: seen, config: twoStations, pending: pendingStations,
			script: supervised(suppress.RoleCoach, one, coached),
			want: []wantRecording{
				trunkOf(4000, talk(0, 4000, customer), talk(300, 4000, agent1)),
				stationOf("agent1", 300, 4000, parts(cust, coached, cust), talk(300, 4000, agent1)),
			},
		},
		{
			number: "12", name: "barge-in", phones: seen, config: twoStations, pending: pendingStations,
			script: supervised(suppress.RoleBarge, both, coached),
			want: []wantRecording{
				trunkOf(4000, talk(0, 4000, customer), parts(one, both, one)),
				stationOf("agent1", 300, 4000, parts(cust, coached, cust), talk(300, 4000, agent1)),
			},
		},
	}
}

// consents are calls that may be recorded when the customer agrees.
func consents() []scenario {
	required := []string{"consent: required"}
	asked := func(event suppress.Event, at int) func(s *scene) {
		return func(s *scene) {
			c := s.inbound(agent1)
			if event != "" {
				s.at(at)
				c.event(event)
			}
			s.at(3000)
			c.bye()
		}
	}
	return []scenario{
		{
			number: "14", name: "consent given before the answer", keys: required,
			script: func(s *scene) {
				c := s.inbound(agent1, suppress.Signal{Event: suppress.ConsentGranted})
				s.at(3000)
				c.bye()
			},
			want: []wantRecording{trunkOf(3000, talk(0, 3000, customer), talk(0, 3000, agent1))},
		},
		{
			number: "14b", name: "consent given in mid-call", keys: required, script: asked(suppress.ConsentGranted, 1500),
			want: []wantRecording{trunkOf(3000, talk(1500, 3000, customer), talk(1500, 3000, agent1), window("consent", 0, 1500))},
		},
		{
			number: "14c", name: "consent denied", keys: required, script: asked(suppress.ConsentDenied, 1500),
			want: []wantRecording{trunkOf(3000, nil, nil, window("consent", 0, 3000))},
		},
		{
			number: "14d", name: "consent never given", keys: required, script: asked("", 0),
			want: []wantRecording{trunkOf(3000, nil, nil, window("consent", 0, 3000))},
		},
	}
}

// pauses are calls in which a card number is spoken; what must not be heard is
// spoken with a voice of its own.
func pauses() []scenario {
	const card = third
	late := func(by time.Duration) func(s *scene) {
		return func(s *scene) {
			c := s.inbound(agent1)
			s.at(1500)
			c.speaks(card)
			s.at(2000)
			c.signal(suppress.Signal{Event: suppress.PauseStart, At: s.now.Add(-by)})
			s.almost(3000)
			c.speaks(customer)
			s.at(3000)
			c.event(suppress.PauseEnd)
			s.at(4000)
			c.bye()
		}
	}
	return []scenario{
		{
			number: "15", name: "secure pause overlapping hold",
			script: func(s *scene) {
				c := s.inbound(agent1)
				s.at(1000)
				s.ok(c.pbx.Hold(s.ctx, siptest.HoldSendOnly))
				c.hears(music)
				s.at(1800)
				c.event(suppress.PauseStart)
				s.almost(2500)
				c.hears(agent1)
				s.at(2500)
				s.ok(c.pbx.Resume(s.ctx))
				c.speaks(card)
				s.almost(3200)
				c.speaks(customer)
				s.at(3200)
				c.event(suppress.PauseEnd)
				s.at(4200)
				c.bye()
			},
			want: []wantRecording{trunkOf(4200, []span{{0, 1000, []hz{customer}}, {3200, 4200, []hz{customer}}},
				[]span{{0, 1000, []hz{agent1}}, {3200, 4200, []hz{agent1}}}, window("hold", 1000, 2500), window("pause", 1800, 3200))},
		},
		{
			number: "15b", name: "secure pause, late", script: late(500 * time.Millisecond), keys: nil,
			want: []wantRecording{trunkOf(4000, []span{{0, 1500, []hz{customer}}, {3000, 4000, []hz{customer}}},
				[]span{{0, 1500, []hz{agent1}}, {3000, 4000, []hz{agent1}}}, wantWindow{"pause", 1500, 3000, -1, 500})},
		},
	}
}
