package siprec

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
)

// party is a participant with a stream of its own, labelled n.
func party(m *Metadata, n int, aor, name, value string) {
	p := Participant{ID: fmt.Sprintf("p%d", n), Names: []NameID{{AOR: aor, Name: name}}}
	if value != "" {
		k, v, _ := strings.Cut(value, "=")
		p.Extensions = []Extension{{Values: []Value{{k, v}}}}
	}
	m.Participants = append(m.Participants, p)
	m.Streams = append(m.Streams, Stream{ID: fmt.Sprintf("s%d", n), Label: fmt.Sprint(n)})
	m.Flows = append(m.Flows, ParticipantStream{Participant: p.ID, Send: []string{fmt.Sprintf("s%d", n)}})
}

func TestArrange(t *testing.T) {
	caller := media.External
	type who struct{ aor, name, value string }
	for name, c := range map[string]struct {
		source Source
		who    []who
		want   string // side and reason of each, in order
	}{
		"by rule":                       {Source{Sides: []SideRule{{AOR: "sip:*@agents.example", Side: media.Internal}}}, []who{{"sip:a@agents.example", "", ""}, {"sip:b@x", "", ""}}, "internal rule, external other"},
		"a rule without scheme":         {Source{Sides: []SideRule{{AOR: "4*@*", Side: media.Internal}}}, []who{{"sip:b@x", "", ""}, {"sips:42@y", "", ""}}, "external other, internal rule"},
		"by name":                       {Source{Sides: []SideRule{{Name: "agent *", Side: media.Internal}}}, []who{{"sip:a@x", "Customer", ""}, {"sip:b@x", "Agent 7", ""}}, "external other, internal rule"},
		"by label":                      {Source{Sides: []SideRule{{Label: "1", Side: media.Internal}}}, []who{{"sip:a@x", "", ""}, {"sip:b@x", "", ""}}, "internal rule, external other"},
		"by extension":                  {Source{Sides: []SideRule{{Value: "leg=B", Side: media.External}}}, []who{{"sip:a@x", "", "leg=a"}, {"sip:b@x", "", "LEG=b"}}, "internal other, external rule"},
		"the first rule counts":         {Source{Sides: []SideRule{{AOR: "*", Name: "x", Side: media.External}, {AOR: "*", Side: media.Internal}}}, []who{{"sip:a@x", "y", ""}, {"sip:b@x", "x", ""}}, "internal rule, external rule"},
		"by domain":                     {Source{InternalDomains: []string{"pbx.example"}}, []who{{"sip:a@x.example", "", ""}, {"sip:b@sub.PBX.example:5060;user=phone", "", ""}}, "external domain, internal domain"},
		"both internal, one extension":  {Source{InternalDomains: []string{"x"}}, []who{{"sip:491234567@x", "", ""}, {"sip:12@x", "", ""}}, "external number, internal number"},
		"by caller":                     {Source{Caller: &caller}, []who{{"sip:a@x", "", "callingParty=false"}, {"sip:b@x", "", "callingParty=true"}}, "internal caller, external caller"},
		"one number, one that is none":  {Source{}, []who{{"sip:alice@x", "", ""}, {"tel:+49301234567", "", ""}}, "internal other, external number"},
		"two numbers":                   {Source{}, []who{{"sip:+4930123456@x", "", ""}, {"tel:+49301234567", "", ""}}, "external unknown, internal unknown"},
		"nothing to tell":               {Source{}, []who{{"sip:a@x", "", ""}, {"sip:b@x", "", ""}, {"", "", ""}}, "external unknown, internal unknown, internal unknown"},
		"three, two of them internal":   {Source{InternalDomains: []string{"p"}}, []who{{"sip:a@p", "", ""}, {"sip:c@x", "", ""}, {"sip:b@p", "", ""}}, "internal domain, external domain, internal domain"},
		"one stream":                    {Source{InternalDomains: []string{"p"}}, []who{{"sip:a@p", "", ""}}, "internal domain"},
		"a domain that tells of nobody": {Source{InternalDomains: []string{"z"}}, []who{{"sip:a@p", "", ""}, {"sip:b@p", "", ""}}, "external unknown, internal unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			c.source.Name, c.source.MediaAddr = "s", serverAddr.Addr()
			c.source.Peers = testSource().Peers
			if err := c.source.validate(); err != nil {
				t.Fatal(err)
			}
			var m Metadata
			var tracks []track
			for i, p := range c.who {
				party(&m, i+1, p.aor, p.name, p.value)
				tracks = append(tracks, track{label: fmt.Sprint(i + 1)})
			}
			var got []string
			for _, p := range c.source.arrange(&m, tracks) {
				got = append(got, p.side.String()+" "+p.by)
			}
			if text := strings.Join(got, ", "); text != c.want {
				t.Errorf("%s, want %s", text, c.want)
			}
		})
	}
}

// Whoever sends nothing at the moment stays where it was: a hold turns nothing round.
func TestArrangeKeepsSides(t *testing.T) {
	s := testSource()
	var m Metadata
	party(&m, 1, "sip:1@pbx.example", "", "")
	party(&m, 2, "sip:2@x.example", "", "")
	tracks := []track{{label: "1"}, {label: "2"}}
	was := s.arrange(&m, tracks)
	m.Flows = []ParticipantStream{{Participant: "p1", Recv: []string{"s2"}}}
	for i := range tracks {
		tracks[i].was = was[i]
	}
	for i, p := range s.arrange(&m, tracks) {
		if p.side != was[i].side || p.by != ByDomain {
			t.Errorf("stream %d is %s by %s, was %s", i, p.side, p.by, was[i].side)
		}
	}
}

// The order of the streams in the description does not matter where something tells
// them apart.
func TestArrangeIsIndependentOfOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m Metadata
		n := rapid.IntRange(2, 5).Draw(t, "parties")
		for i := range n {
			party(&m, i, rapid.SampledFrom([]string{"sip:1@pbx.example", "sip:22@x.example", "sip:+49301234567@x.example"}).Draw(t, "aor"), "", "")
		}
		s := testSource()
		order := rapid.Permutation([]int{0, 1, 2, 3, 4}[:n]).Draw(t, "order")
		var tracks, shuffled []track
		for i := range n {
			tracks = append(tracks, track{label: fmt.Sprint(i)})
			shuffled = append(shuffled, track{label: fmt.Sprint(order[i])})
		}
		a, b := s.arrange(&m, tracks), s.arrange(&m, shuffled)
		if slices.ContainsFunc(a, func(p place) bool { return p.by == ByUnknown }) {
			return
		}
		for i, k := range order {
			if a[k].side != b[i].side || a[k].by != b[i].by {
				t.Fatalf("stream %d: %s by %s, in another order %s by %s", k, a[k].side, a[k].by, b[i].side, b[i].by)
			}
		}
	})
}

func TestUserHost(t *testing.T) {
	for aor, want := range map[string][2]string{
		"sip:a@b": {"a", "b"}, "sips:a:pw@b:5061;transport=tls": {"a", "b"}, "tel:+49;phone-context=x": {"+49", ""},
		"a@b:5060": {"a", "b"}, "sip:a@[2001:db8::1]:5060": {"a", "2001:db8::1"}, "a": {"a", ""}, "": {"", ""}, "sip:@": {"", ""},
	} {
		if u, h := userHost(aor); u != want[0] || h != want[1] {
			t.Errorf("userHost(%q) = %q, %q", aor, u, h)
		}
	}
}
