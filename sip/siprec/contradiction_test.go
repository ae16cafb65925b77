package siprec

import (
	"fmt"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/sip/journal/journaltest"
)

// sent is a snapshot of who sends what: "p1>1" is the participant p1 in the stream of label 1.
func sent(flows ...string) *Metadata {
	m := &Metadata{}
	for _, f := range flows {
		who, label, _ := strings.Cut(f, ">")
		id, aor, _ := strings.Cut(who, "=")
		if _, ok := m.Participant(id); !ok {
			m.Participants = append(m.Participants, Participant{ID: id, Names: []NameID{{AOR: aor}}})
		}
		if _, ok := m.Labelled(label); !ok {
			m.Streams = append(m.Streams, Stream{ID: "s" + label, Label: label})
		}
		m.Flows = append(m.Flows, ParticipantStream{Participant: id, Send: []string{"s" + label}})
	}
	return m
}

// Rules and clients that say too much, too little or different things of one stream.
func TestArrangeContradictions(t *testing.T) {
	in, ext := media.Internal, media.External
	agents := []SideRule{{AOR: "*@agents", Side: in}, {AOR: "*@carrier", Side: ext}}
	for name, c := range map[string]struct {
		source Source
		flows  []string // of labels 1, 2, ...
		want   string
	}{
		"a rule for everybody":                 {Source{Sides: []SideRule{{AOR: "*", Side: in}}}, []string{"a=sip:a@agents>1", "b=sip:b@carrier>2"}, "internal rule, internal rule"},
		"two agents":                           {Source{Sides: agents}, []string{"a=sip:a@agents>1", "b=sip:b@agents>2"}, "internal rule, internal rule"},
		"rules for nobody":                     {Source{Sides: agents}, []string{"a=sip:a@x>1", "b=sip:b@x>2"}, "external unknown, internal unknown"},
		"both in one stream":                   {Source{Sides: agents, Mixed: ext}, []string{"a=sip:a@agents>1", "b=sip:b@carrier>1"}, "external rule mixed"},
		"both in one stream, the other order":  {Source{Sides: []SideRule{agents[1], agents[0]}, Mixed: in}, []string{"b=sip:b@carrier>1", "a=sip:a@agents>1"}, "internal rule mixed"},
		"two agents in one stream":             {Source{Sides: agents, Mixed: ext}, []string{"a=sip:a@agents>1", "b=sip:b@agents>1", "c=sip:c@carrier>2"}, "internal rule mixed, external rule"},
		"one of two in a stream has a rule":    {Source{Sides: agents[:1], Mixed: ext}, []string{"a=sip:a@agents>1", "b=sip:b@x>1", "c=sip:c@x>2"}, "internal rule mixed, external other"},
		"one party alone, in two streams":      {Source{}, []string{"a=sip:a@x>1", "a=sip:a@x>2"}, "external unknown, external unknown"},
		"one party in two of three streams":    {Source{}, []string{"a=sip:a@x>1", "a=sip:a@x>2", "b=sip:b@x>3"}, "external unknown, external unknown, internal unknown"},
		"one party in the first and the third": {Source{}, []string{"a=sip:a@x>1", "b=sip:b@x>2", "a=sip:a@x>3"}, "external unknown, internal unknown, external unknown"},
		"one stream of two of a party by rule": {Source{Sides: []SideRule{{Label: "1", Side: in}}}, []string{"a=sip:a@x>1", "a=sip:a@x>2"}, "internal rule, internal other"},
		"the same, and another party":          {Source{Sides: []SideRule{{Label: "1", Side: in}}}, []string{"a=sip:a@x>1", "a=sip:a@x>2", "b=sip:b@x>3"}, "internal rule, internal other, external other"},
		"rules that part one party":            {Source{Sides: []SideRule{{Label: "1", Side: in}, {Label: "2", Side: ext}}}, []string{"a=sip:a@x>1", "a=sip:a@x>2", "a=sip:a@x>3"}, "internal rule, external rule, internal unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			c.source.Name, c.source.MediaAddr, c.source.Peers = "s", serverAddr.Addr(), testSource().Peers
			if err := c.source.validate(); err != nil {
				t.Fatal(err)
			}
			m := sent(c.flows...)
			var tracks []track
			for _, s := range m.Streams {
				tracks = append(tracks, track{label: s.Label})
			}
			if got := arranged(c.source.arrange(m, tracks)); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func arranged(list []place) string {
	var out []string
	for _, p := range list {
		text := p.side.String() + " " + p.by
		if p.mixed {
			text += " mixed"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// Parties who change streams in the call take their side with them, be it known or guessed.
func TestArrangeFollowsWhoMoves(t *testing.T) {
	for name, s := range map[string]Source{
		"known":   {InternalDomains: []string{"pbx"}},
		"guessed": {},
	} {
		t.Run(name, func(t *testing.T) {
			s.Name, s.MediaAddr, s.Peers = "s", serverAddr.Addr(), testSource().Peers
			if err := s.validate(); err != nil {
				t.Fatal(err)
			}
			tracks := []track{{label: "1"}, {label: "2"}}
			step := func(want string, flows ...string) {
				t.Helper()
				got := ""
				for i, p := range s.arrange(sent(flows...), tracks) {
					tracks[i].was = p
					for _, q := range p.parties {
						got += fmt.Sprintf("%s %s,", q.ID, p.side)
					}
				}
				if got != want {
					t.Errorf("%v: %s, want %s", flows, got, want)
				}
			}
			step("a external,b internal,", "a=sip:a@x>1", "b=sip:b@pbx>2")
			step("b internal,a external,", "b=sip:b@pbx>1", "a=sip:a@x>2") // they swap
			step("c internal,a external,", "c=sip:c@pbx>1", "a=sip:a@x>2") // a transfer
			step("a external,c internal,", "a=sip:a@x>1", "c=sip:c@pbx>2")
			step("d external,c internal,", "d=sip:d@x>1", "c=sip:c@pbx>2") // another caller
		})
	}
}

// The recorder is told of parties who swap their streams, and of rules that leave a side empty.
func TestPartiesSwapStreams(t *testing.T) {
	inBubble(t, nil, func(w *bench) {
		c, _ := w.dial("call", dialogOf(told([]string{"S"}, "s1 1 S p1 "+carrierAOR, "s2 2 S p2 "+agentAOR), "1", "2"))
		w.want(`answered`, `stream 1 "1" external by domain sending true [`+carrierAOR+`]`, `stream 2 "2" internal by domain sending true [`+agentAOR+`]`,
			`attrs.set [siprec.session]`, `agent.join 4711`)
		swap := partial(`<participantstreamassoc participant_id="p1"><send>s2</send></participantstreamassoc><participantstreamassoc participant_id="p2"><send>s1</send></participantstreamassoc>`)
		if _, err := c.Do(w.ctx, "INFO", TypeMetadata, []byte(swap)); err != nil {
			t.Fatal(err)
		}
		w.want(`stream 1 ended`, `stream 3 "1" internal by domain sending true [`+agentAOR+`]`, `stream 2 ended`, `stream 4 "2" external by domain sending true [`+carrierAOR+`]`)
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
		if n := w.srv.counters.OneSided.Load(); n != 0 {
			t.Errorf("%d dialogs of one side", n)
		}
	})
	inBubble(t, func(c *Config) { c.Sources[0].Sides = []SideRule{{AOR: "*", Side: media.Internal}} }, func(w *bench) {
		c, _ := w.dial("call", dialogOf(told([]string{"S"}, "s1 1 S p1 "+carrierAOR, "s2 2 S p2 "+agentAOR), "1", "2"))
		if n := w.srv.counters.OneSided.Load(); n != 1 || !strings.Contains(w.log(), `"1" internal by rule`) {
			t.Errorf("%d dialogs of one side, told\n%s", n, w.log())
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}

// A side that was guessed stays where it is in the next process, whoever sends what by then.
func TestGuessOverRestart(t *testing.T) {
	j := &journaltest.Mem{}
	guessing := func(c *Config) { c.Sources[0].InternalDomains = nil }
	inBubble(t, func(c *Config) { journalling(j)(c); guessing(c) }, func(w *bench) {
		c, _ := w.dial("call", dialogOf(told([]string{"S"}, "s1 1 S p1 sip:a@x", "s2 2 S p2 sip:b@x"), "1", "2"))
		swap := partial(`<participantstreamassoc participant_id="p1"><send>s2</send></participantstreamassoc><participantstreamassoc participant_id="p2"><send>s1</send></participantstreamassoc>`)
		if _, err := c.Do(w.ctx, "INFO", TypeMetadata, []byte(swap)); err != nil {
			t.Fatal(err)
		}
		if log := w.log(); !strings.Contains(log, `stream 3 "1" internal by unknown sending true [sip:b@x]`) {
			t.Errorf("told\n%s", log)
		}
		w.killed(j, func(c *Config, _ map[string][]byte) { guessing(c) })
		if log := w.log(); !strings.Contains(log, `"1" internal by unknown sending true [sip:b@x]`) || !strings.Contains(log, `"2" external by unknown sending true [sip:a@x]`) {
			t.Errorf("told after a restart\n%s", log)
		}
		if err := c.Bye(w.ctx); err != nil {
			t.Error(err)
		}
	})
}
