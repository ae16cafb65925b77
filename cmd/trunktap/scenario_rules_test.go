package main

import (
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
	"github.com/trunktap/trunktap/suppress"
)

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

// prerolls are calls whose beginning is written when the customer agrees.
func prerolls() []scenario {
	call := func(event suppress.Event) func(s *scene) {
		return func(s *scene) {
			c := s.inbound(agent1)
			if event != "" {
				s.at(1500)
				c.event(event)
			}
			s.at(2500)
			c.bye()
		}
	}
	none := trunkOf(2500, nil, nil, window("consent", 0, 2500))
	withPhone := func(s *scene) {
		c := s.inbound(0)
		p := s.pickup(300, "agent1", agent1, customer)
		c.hears(agent1)
		s.at(1500)
		c.event(suppress.ConsentDenied)
		s.at(2500)
		c.bye()
		p.bye()
	}
	before := []string{"consent: {mode: required, preroll: true}"}
	return []scenario{
		{
			number: "14e", name: "consent given in mid-call, preroll", keys: before, script: call(suppress.ConsentGranted),
			want: []wantRecording{{kind: recorder.KindTrunk, to: 2500, channels: [2][]span{talk(0, 2500, customer), talk(0, 2500, agent1)}, consent: "granted"}},
		},
		{
			number: "14f", name: "consent denied, preroll", keys: before, script: call(suppress.ConsentDenied),
			want: []wantRecording{none.agreed("denied")},
		},
		{
			number: "14g", name: "consent never given, preroll", keys: before, script: call(""),
			want: []wantRecording{none.agreed("none")},
		},
		{
			number: "14h", name: "consent too late for the preroll", keys: []string{"consent: {mode: required, preroll: true, timeout: 1s}"},
			script: call(suppress.ConsentGranted),
			want:   []wantRecording{trunkOf(2500, talk(1500, 2500, customer), talk(1500, 2500, agent1), window("consent", 0, 1500)).agreed("granted")},
		},
		{
			number: "14i", name: "consent denied, station too", keys: []string{"consent: required"}, phones: seen, config: twoStations,
			script: withPhone, want: []wantRecording{none},
		},
		{
			number: "14j", name: "consent given by a digit", keys: []string{`consent: {mode: required, dtmf: {grant: "1", deny: "2"}}`},
			script: func(s *scene) {
				c := s.inbound(agent1)
				s.at(1500)
				c.types(c.far, "1", 1500, 1600)
				s.at(3000)
				c.bye()
			},
			want: []wantRecording{trunkOf(3000, talk(1600, 3000, customer), talk(1600, 3000, agent1),
				window("consent", 0, 1600), window("dtmf", 1500, 1600)).agreed("granted")},
		},
	}
}

// agreed adds what became of the question for consent.
func (w wantRecording) agreed(consent string) wantRecording {
	w.consent = consent
	return w
}

// holds are calls in which the customer waits, seen at the phone too.
func holds() []scenario {
	const private = third // what the agent says meanwhile
	return []scenario{{
		number: "1c", name: "hold, which silences the microphone of the station", phones: seen, config: twoStations,
		script: func(s *scene) {
			c := s.inbound(0)
			p := s.pickup(300, "agent1", agent1, customer)
			c.hears(agent1)
			s.at(1200)
			c.hears(music)
			p.hears(music)
			p.speaks(private)
			for _, l := range []*leg{c, p} {
				l.signal(suppress.Signal{Event: suppress.HoldStart, Party: "agent1"})
			}
			s.almost(2400)
			c.hears(agent1)
			p.speaks(agent1)
			s.at(2400)
			p.hears(customer)
			for _, l := range []*leg{c, p} {
				l.signal(suppress.Signal{Event: suppress.HoldEnd, Party: "agent1"})
			}
			s.at(3500)
			c.bye()
			p.bye()
		},
		want: []wantRecording{
			trunkOf(3500, []span{{0, 1200, []hz{customer}}, {2400, 3500, []hz{customer}}}, []span{{300, 1200, []hz{agent1}}, {2400, 3500, []hz{agent1}}},
				window("hold", 1200, 2400)),
			stationOf("agent1", 300, 3500, []span{{300, 1200, []hz{customer}}, {1200, 2400, []hz{music}}, {2400, 3500, []hz{customer}}},
				[]span{{300, 1200, []hz{agent1}}, {2400, 3500, []hz{agent1}}}, wantWindow{"hold", 1200, 2400, 1, 0}),
		},
	}}
}

// pauses are calls in which a card number is spoken; what must not be heard is
// spoken with a voice of its own.
func pauses() []scenario {
	const card = third
	late := func(by time.Duration) func(s *scene) {
		return func(s *scene) {
			c := s.inbound(agent1)
			s.at(2000 - int(by.Milliseconds()))
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
				c.wait()
				c.hears(music)
				s.at(1800)
				c.event(suppress.PauseStart)
				s.almost(2500)
				c.hears(agent1)
				s.at(2500)
				c.resume()
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
			number: "15b", name: "secure pause, late", script: late(400 * time.Millisecond),
			want: []wantRecording{trunkOf(4000, []span{{0, 1600, []hz{customer}}, {3000, 4000, []hz{customer}}},
				[]span{{0, 1600, []hz{agent1}}, {3000, 4000, []hz{agent1}}}, wantWindow{"pause", 1600, 3000, -1, 400})},
		},
		{
			number: "15e", name: "secure pause that ends by itself", keys: []string{"pause_auto_resume: 1s"},
			script: func(s *scene) {
				c := s.inbound(agent1)
				s.at(1000)
				c.event(suppress.PauseStart)
				c.speaks(card)
				from := s.when(1000)
				s.steps[2000] = step{from.first.Add(time.Second), from.last.Add(time.Second)}
				s.at(1600)
				c.speaks(customer)
				s.at(3000)
				c.bye()
			},
			want: []wantRecording{trunkOf(3000, []span{{0, 1000, []hz{customer}}, {2000, 3000, []hz{customer}}},
				[]span{{0, 1000, []hz{agent1}}, {2000, 3000, []hz{agent1}}}, window("pause", 1000, 2000))},
		},
	}
}

// pausesElsewhere are pauses that other recordings than the trunk's have too.
func pausesElsewhere() []scenario {
	const card = third
	return []scenario{
		{
			number: "15c", name: "secure pause, seen at the phone too", phones: seen, config: twoStations,
			script: func(s *scene) {
				c := s.inbound(0)
				p := s.pickup(300, "agent1", agent1, customer)
				c.hears(agent1)
				s.at(1200)
				c.speaks(card)
				p.hears(card)
				c.event(suppress.PauseStart)
				s.almost(2200)
				c.speaks(customer)
				p.hears(customer)
				s.at(2200)
				c.event(suppress.PauseEnd)
				s.at(3200)
				c.bye()
				p.bye()
			},
			want: []wantRecording{
				trunkOf(3200, []span{{0, 1200, []hz{customer}}, {2200, 3200, []hz{customer}}}, []span{{300, 1200, []hz{agent1}}, {2200, 3200, []hz{agent1}}},
					window("pause", 1200, 2200)),
				stationOf("agent1", 300, 3200, []span{{300, 1200, []hz{customer}}, {2200, 3200, []hz{customer}}}, []span{{300, 1200, []hz{agent1}}, {2200, 3200, []hz{agent1}}},
					window("pause", 1200, 2200)),
			},
		},
		{
			number: "15d", name: "secure pause during a snippet",
			script: func(s *scene) {
				c := s.inbound(music, queueStart)
				s.almost(600)
				c.hears(agent1)
				s.at(600)
				c.signal(queueEnd)
				c.signal(join("agent1", suppress.RoleAgent))
				s.at(1000)
				c.signal(suppress.Signal{Event: suppress.SnippetStart, User: "agent1"})
				s.at(1600)
				c.event(suppress.PauseStart)
				c.speaks(card)
				s.almost(2600)
				c.speaks(customer)
				s.at(2600)
				c.event(suppress.PauseEnd)
				s.at(3200)
				c.signal(suppress.Signal{Event: suppress.SnippetEnd, User: "agent1"})
				s.at(3800)
				c.bye()
			},
			want: []wantRecording{
				trunkOf(3800, []span{{600, 1600, []hz{customer}}, {2600, 3800, []hz{customer}}}, []span{{600, 1600, []hz{agent1}}, {2600, 3800, []hz{agent1}}},
					window("queue", 0, 600), window("pause", 1600, 2600)),
				{
					kind: recorder.KindSnippet, user: "agent1", from: 1000, to: 3200, windows: []wantWindow{window("pause", 1600, 2600)},
					channels: [2][]span{{{1000, 1600, []hz{customer}}, {2600, 3200, []hz{customer}}}, {{1000, 1600, []hz{agent1}}, {2600, 3200, []hz{agent1}}}},
				},
			},
		},
	}
}

// byUsers are recordings that users begin and end.
func byUsers() []scenario {
	own := func(e suppress.Event) suppress.Signal { return suppress.Signal{Event: e, User: "agent1"} }
	part := func(kind recorder.Kind, from, to int) wantRecording {
		return wantRecording{kind: kind, user: "agent1", from: from, to: to, channels: [2][]span{talk(from, to, customer), talk(from, to, agent1)}}
	}
	return []scenario{
		{
			number: "17", name: "adhoc recordings, a second one at once refused",
			script: func(s *scene) {
				c := s.inbound(agent1)
				s.at(800)
				c.signal(own(suppress.AdhocStart))
				s.at(1200)
				c.refuses(own(suppress.AdhocStart))
				s.at(1800)
				c.signal(own(suppress.AdhocEnd))
				s.at(2200)
				c.signal(own(suppress.AdhocStart))
				s.at(3500)
				c.bye()
			},
			want: []wantRecording{
				trunkOf(3500, talk(0, 3500, customer), talk(0, 3500, agent1)),
				part(recorder.KindAdhoc, 800, 1800), part(recorder.KindAdhoc, 2200, 3500),
			},
		},
		{
			number: "17b", name: "snippets",
			script: func(s *scene) {
				c := s.inbound(music, queueStart)
				s.almost(500)
				c.hears(agent1)
				s.at(500)
				c.signal(queueEnd)
				c.signal(join("agent1", suppress.RoleAgent))
				s.at(1000)
				c.signal(own(suppress.SnippetStart))
				s.at(1700)
				c.signal(own(suppress.SnippetEnd))
				s.at(2400)
				c.signal(own(suppress.SnippetStart))
				s.at(3100)
				c.signal(own(suppress.SnippetEnd))
				s.at(3700)
				c.bye()
			},
			want: []wantRecording{
				trunkOf(3700, talk(500, 3700, customer), talk(500, 3700, agent1), window("queue", 0, 500)),
				part(recorder.KindSnippet, 1000, 1700), part(recorder.KindSnippet, 2400, 3100),
			},
		},
		{
			number: "17c", name: "snippet of a call that is no ACD call, refused",
			script: func(s *scene) {
				c := s.inbound(agent1)
				s.at(800)
				c.refuses(own(suppress.SnippetStart))
				s.at(1800)
				c.bye()
			},
			want: []wantRecording{trunkOf(1800, talk(0, 1800, customer), talk(0, 1800, agent1))},
		},
	}
}

// stateHeaders makes signals of a header field that a dialplan can set.
const stateHeaders = `
signals:
  headers:
    - {header: X-Call-State, value: ivr, event: ivr.start}
    - {header: X-Call-State, value: queue, event: ivr.end}
    - {header: X-Call-State, value: queue, event: queue.start, queue: "$param:name"}
    - {header: X-Call-State, value: agent, event: queue.end}
    - {header: X-Call-State, value: agent, event: agent.join, user: "$param:user", role: agent}
`

// complete holds that the recorder gave nothing up.
func complete(s *scene, all []*recorder.Manifest) {
	for _, m := range all {
		for _, g := range m.Gaps {
			if g.Cause == recorder.GapOverrun {
				s.faultf("%s: gap %+v", m.Kind, g)
			}
		}
	}
}

// sources are signals that come in the signalling and the media of the call.
func sources() []scenario {
	const card = third
	paused := trunkOf(4000, []span{{0, 1500, []hz{customer}}, {3000, 4000, []hz{customer}}}, []span{{0, 1500, []hz{agent1}}, {3000, 4000, []hz{agent1}}},
		window("pause", 1500, 3000))
	return []scenario{
		{
			number: "1d", name: "IVR and queue told by header fields",
			config: stateHeaders,
			script: func(s *scene) {
				state := func(v string) siptest.Header { return siptest.Header{Name: "X-Call-State", Value: v} }
				s.headers = []siptest.Header{state("ivr")}
				c := s.inbound(menu)
				s.almost(800)
				c.hears(music)
				s.at(800)
				s.did(c.pbx.Reinvite(s.ctx, siptest.Offer{}, state("queue;name=sales")))
				s.almost(1800)
				c.hears(agent1)
				s.at(1800)
				s.did(c.pbx.Reinvite(s.ctx, siptest.Offer{}, state("agent;user=agent1")))
				s.at(3000)
				c.bye()
			},
			want: []wantRecording{trunkOf(3000, talk(1800, 3000, customer), talk(1800, 3000, agent1), window("ivr", 0, 800), window("queue", 800, 1800)).by(
				cast{1800, 3000, []string{"agent1"}})},
		},
		{
			number: "15f", name: "secure pause told by INFO", config: "\nsignals: {info: {enabled: true}}\n",
			script: func(s *scene) {
				c := s.inbound(agent1)
				s.at(1500)
				s.did(c.pbx.Info(s.ctx, "application/vnd.trunktap.signal+json", []byte(`{"event": "pause.start"}`)))
				c.speaks(card)
				s.almost(3000)
				c.speaks(customer)
				s.at(3000)
				s.did(c.pbx.Info(s.ctx, "application/vnd.trunktap.signal", []byte("event=pause.end\r\n")))
				s.at(4000)
				c.bye()
			},
			want: []wantRecording{paused},
		},
		{
			number: "15i", name: "a digit that might have begun a code", check: complete,
			config: "\nsignals: {dtmf: {pause: \"*#0\", resume: \"*#1\"}}\n",
			script: func(s *scene) {
				c := s.inbound(agent1)
				s.at(1500)
				c.types(c.pbx, "*", 1500, 1600) // nothing of the agent is sent meanwhile
				s.at(5000)
				c.bye()
			},
			want: []wantRecording{trunkOf(5000, talk(0, 5000, customer), []span{{0, 1500, []hz{agent1}}, {1600, 5000, []hz{agent1}}})},
		},
		{
			number: "15g", name: "secure pause typed by the agent",
			config: "\nsignals: {dtmf: {pause: \"*#0\", resume: \"*#1\"}}\n",
			script: func(s *scene) {
				c := s.inbound(agent1)
				s.at(1500)
				c.types(c.pbx, "*#0", 1500, 1960)
				c.speaks(card)
				s.at(2300)
				c.types(c.far, "42", 2300, 2580)
				c.speaks(customer)
				s.at(2800)
				c.types(c.pbx, "*#1", 2800, 3260)
				s.at(4200)
				c.bye()
			},
			// Three digits of 100 ms with 80 ms between them.
			want: []wantRecording{trunkOf(4200, []span{{0, 1500, []hz{customer}}, {3260, 4200, []hz{customer}}},
				[]span{{0, 1500, []hz{agent1}}, {3260, 4200, []hz{agent1}}},
				wantWindow{"dtmf", 1500, 1960, -1, 460}, wantWindow{"pause", 1500, 3260, -1, 460}, wantWindow{"dtmf", 2800, 3260, -1, 460})},
		},
	}
}
