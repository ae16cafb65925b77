package main

import (
	"net/url"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
	"github.com/trunktap/trunktap/suppress"
)

// twoStations records the phones of both agents.
const twoStations = `
stations: [agent1, agent2]
station_base: {format: wav-pcm16}
`

// seen is for trunks whose recording has no keys of its own.
var seen = []string{}

// scenarios is the table.
func scenarios() []scenario {
	var all []scenario
	parts := [][]scenario{
		arrivals(), strays(), insiders(), transfers(), consultations(), gatherings(), supervisions(), holds(), consents(), prerolls(),
		pauses(), pausesElsewhere(), suppressions(), byUsers(), sources(), told(), beeps(),
	}
	for _, part := range parts {
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

// by adds whose segments the recording has.
func (w wantRecording) by(casts ...cast) wantRecording {
	w.casts = casts
	return w
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

// acd is a call that comes by a menu and a queue to agent1.
func acd(s *scene) {
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

// arrivals are calls that come in and are answered by an agent.
func arrivals() []scenario {
	return []scenario{
		{
			number: "1", name: "inbound ACD", phones: seen, config: twoStations, script: acd,
			want: []wantRecording{
				trunkOf(4000, talk(2100, 4000, customer), talk(2100, 4000, agent1), window("ivr", 0, 800), window("queue", 800, 2100)),
				stationOf("agent1", 2000, 4000, talk(2000, 4000, customer), talk(2000, 4000, agent1)),
			},
		},
		{
			number: "1b", name: "inbound ACD, stations by state", config: twoStations + "stations_from: state\n", script: acd,
			want: []wantRecording{
				trunkOf(4000, talk(2100, 4000, customer), talk(2100, 4000, agent1), window("ivr", 0, 800), window("queue", 800, 2100)),
				stationOf("agent1", 2100, 4000, talk(2100, 4000, customer), talk(2100, 4000, agent1)),
			},
		},
		{
			number: "2", name: "inbound DID", phones: seen, config: twoStations,
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
			number: "2b", name: "a caller who is excluded",
			keys: []string{`rules: [{record: false, from: ["customer"]}]`},
			script: func(s *scene) {
				c := s.inbound(agent1)
				s.at(1000)
				c.bye()
			},
		},
	}
}

// strays are calls that come to no agent.
func strays() []scenario {
	return []scenario{
		{
			number: "3", name: "IVR alone", phones: seen, config: twoStations,
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
			number: "4", name: "abandoned in the queue", phones: seen, config: twoStations,
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
	}
}

// insiders are calls that stay inside or begin there.
func insiders() []scenario {
	return []scenario{
		internalCall("5", "internal call, both recorded", twoStations, []wantRecording{
			stationOf("agent1", 0, 2500, talk(600, 2500, agent2), talk(0, 2500, agent1)),
			stationOf("agent2", 500, 2500, talk(500, 2500, agent1), talk(500, 2500, agent2)),
		}),
		internalCall("5b", "internal call, one recorded", "\nstations: [agent2]\nstation_base: {format: wav-pcm16}\n", []wantRecording{
			stationOf("agent2", 500, 2500, talk(500, 2500, agent1), talk(500, 2500, agent2)),
		}),
		{
			number: "5c", name: "internal call to a queue by a user who is recorded", phones: seen, config: twoStations,
			script: func(s *scene) {
				one := s.dial("agent2", agent2, menu, menuStart)
				s.almost(800)
				one.hears(music)
				s.at(800)
				one.signal(menuEnd)
				one.signal(queueStart)
				two := s.pickup(1700, "agent1", agent1, agent2)
				one.hears(agent1)
				s.at(1800)
				one.signal(queueEnd)
				s.at(3300)
				one.bye()
				two.bye()
			},
			want: []wantRecording{
				stationOf("agent2", 0, 3300, talk(1800, 3300, agent1), talk(1800, 3300, agent2), window("ivr", 0, 800), window("queue", 800, 1800)),
				stationOf("agent1", 1700, 3300, talk(1700, 3300, agent2), talk(1700, 3300, agent1)),
			},
		},
		{
			number: "6", name: "outbound", phones: seen, config: twoStations,
			script: func(s *scene) {
				p := s.dial("agent1", agent1, 0)
				c := s.outbound(agent1, customer)
				s.answered(300)
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
	}
}

// suppressions show the two ways of leaving out what is suppressed.
func suppressions() []scenario {
	return []scenario{
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
		number: number, name: name, phones: seen, config: stations, want: want,
		script: func(s *scene) {
			one := s.dial("agent1", agent1, 0)
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
			number: "7", name: "blind transfer", phones: seen, config: twoStations,
			script: func(s *scene) {
				c := s.inbound(0)
				p := s.pickup(300, "agent1", agent1, customer)
				c.hears(agent1)
				c.signal(join("agent1", suppress.RoleAgent))
				s.at(1800)
				c.hears()
				p.bye()
				c.signal(leave("agent1"))
				q := s.pickup(2300, "agent2", agent2, customer)
				c.hears(agent2)
				c.signal(join("agent2", suppress.RoleAgent))
				s.at(4000)
				c.bye()
				q.bye()
			},
			want: []wantRecording{
				trunkOf(4000, talk(0, 4000, customer), []span{{300, 1800, []hz{agent1}}, {2300, 4000, []hz{agent2}}}).by(
					cast{300, 1800, []string{"agent1"}}, cast{2300, 4000, []string{"agent2"}}),
				stationOf("agent1", 300, 1800, talk(300, 1800, customer), talk(300, 1800, agent1)),
				stationOf("agent2", 2300, 4000, talk(2300, 4000, customer), talk(2300, 4000, agent2)),
			},
		},
		{
			number: "8d", name: "attended transfer on the customer's side, by Replaces",
			script: func(s *scene) {
				s.session = "" // nothing but Replaces tells
				c := s.inbound(agent1)
				s.at(1000)
				s.headers = []siptest.Header{{Name: "Replaces", Value: c.far.Dialog()}}
				d := s.connect(s.carrier, s.pbx, "sip:1000@", third, agent1, nil)
				s.answered(1200)
				s.at(1300)
				c.hangUp(c.pbx) // RFC 3891 section 3
				s.at(2500)
				d.bye()
			},
			want: []wantRecording{
				trunkOf(1300, talk(0, 1300, customer), talk(0, 1300, agent1)),
				{kind: recorder.KindTrunk, from: 1200, to: 2500, channels: [2][]span{talk(1200, 2500, third), talk(1200, 2500, agent1)}},
			},
		},
		{
			number: "13c", name: "external transfer by REFER with Replaces, both calls on the trunk",
			script: func(s *scene) {
				s.session = "" // nothing but REFER tells
				c := s.inbound(agent1)
				s.at(800)
				d := s.outbound(agent1, third)
				s.answered(1000)
				s.at(2000)
				dialog := url.QueryEscape(d.pbx.Dialog())
				s.did(c.pbx.Refer(s.ctx, "sip:third@example.net?Replaces="+dialog))
				s.at(2300)
				c.bye() // the carrier has bridged the two
				d.bye()
			},
			want: []wantRecording{
				trunkOf(2300, talk(0, 2300, customer), talk(0, 2300, agent1)),
				{kind: recorder.KindTrunk, from: 1000, to: 2300, channels: [2][]span{talk(1000, 2300, third), talk(1000, 2300, agent1)}},
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
		number: number, name: name, phones: seen, config: twoStations,
		keys: []string{"external_transfer: " + rule}, want: want,
		script: func(s *scene) {
			c := s.inbound(0)
			p := s.pickup(300, "agent1", agent1, customer)
			c.hears(agent1)
			s.at(2000)
			c.hears()
			p.hears()
			s.at(2500)
			c.hears(third)
			p.bye()
			c.event(suppress.TransferExternal)
			s.at(4000)
			c.bye()
		},
	}
}

// gatherings are calls of more than two.
func gatherings() []scenario {
	return []scenario{
		{
			number: "9", name: "ACD conference", phones: seen, config: twoStations,
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
				p.bye()
				c.signal(leave("agent1"))
				s.at(4000)
				c.bye()
				q.bye()
			},
			want: []wantRecording{
				trunkOf(4000, talk(600, 4000, customer), []span{{600, 1800, []hz{agent1}}, {1800, 3000, []hz{agent1, agent2}}, {3000, 4000, []hz{agent2}}}, window("queue", 0, 600)).by(
					cast{600, 1800, []string{"agent1"}}, cast{1800, 3000, []string{"agent1", "agent2"}}, cast{3000, 4000, []string{"agent2"}}),
				stationOf("agent1", 500, 3000, []span{{500, 1800, []hz{customer}}, {1800, 3000, []hz{customer, agent2}}}, talk(500, 3000, agent1)),
				stationOf("agent2", 1800, 4000, []span{{1800, 3000, []hz{customer, agent1}}, {3000, 4000, []hz{customer}}}, talk(1800, 4000, agent2)),
			},
		},
	}
}

// supervisions are calls that a supervisor listens to or speaks in.
func supervisions() []scenario {
	supervised := func(role suppress.Role, customerHears, agentHears []hz) func(s *scene) {
		return func(s *scene) {
			c := s.inbound(0)
			p := s.pickup(300, "agent1", agent1, customer)
			c.hears(agent1)
			c.signal(join("agent1", suppress.RoleAgent))
			q := s.pickup(1500, "boss", supervisor, customer, agent1)
			c.hears(customerHears...)
			p.hears(agentHears...)
			c.signal(join("boss", role))
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
			number: "10", name: "monitoring", phones: seen, config: twoStations,
			script: supervised(suppress.RoleMonitor, one, cust),
			want: []wantRecording{
				trunkOf(4000, talk(0, 4000, customer), talk(300, 4000, agent1)).by(cast{300, 4000, []string{"agent1"}}),
				stationOf("agent1", 300, 4000, talk(300, 4000, customer), talk(300, 4000, agent1)),
			},
		},
		{
			number: "11", name: "coaching", phones: seen, config: twoStations,
			script: supervised(suppress.RoleCoach, one, coached),
			want: []wantRecording{
				trunkOf(4000, talk(0, 4000, customer), talk(300, 4000, agent1)).by(cast{300, 4000, []string{"agent1"}}),
				stationOf("agent1", 300, 4000, parts(cust, coached, cust), talk(300, 4000, agent1)),
			},
		},
		{
			number: "12", name: "barge-in", phones: seen, config: twoStations,
			script: supervised(suppress.RoleBarge, both, coached),
			want: []wantRecording{
				trunkOf(4000, talk(0, 4000, customer), parts(one, both, one)).by(
					cast{300, 1500, []string{"agent1"}}, cast{1500, 3000, []string{"agent1", "boss"}}, cast{3000, 4000, []string{"agent1"}}),
				stationOf("agent1", 300, 4000, parts(cust, coached, cust), talk(300, 4000, agent1)),
			},
		},
	}
}
