package policy

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

func directory() *Directory {
	return NewDirectory([]Station{
		{User: "Alice", Settings: Settings{Format: "wav-pcmu", Suppressed: "cut"}},
		{User: "bob", Addresses: []string{"sip:bob@pbx.example.net", "1002", "+49 30 1234-2"}, Settings: Settings{Format: "ogg-opus", Mono: true, Suppressed: "silence", DiscardBelow: 3 * time.Second}},
		{User: "carol", Addresses: []string{"1002", "1003"}},
	})
}

func TestStation(t *testing.T) {
	s := directory().On(recorder.DefaultPlan(), true)
	for uri, want := range map[string]string{
		"sip:alice@pbx":                         "Alice",
		"SIP:ALICE@10.0.0.5:5080":               "Alice",
		"sip:bob@pbx.example.net;transport=tcp": "bob",
		"sip:Bob@PBX.example.net:5060":          "bob",
		"sip:bob@elsewhere.example":             "",
		"sip:1002@pbx":                          "bob", // the first that has it
		"sip:004930-12342@pbx":                  "bob",
		"tel:+49-30-12342":                      "bob",
		"sip:1003@pbx":                          "carol",
		"sip:carol@pbx":                         "", // has addresses of its own
		"sip:10020@pbx":                         "",
		"sip:pbx":                               "",
		"":                                      "",
	} {
		user, ok := s.Station(media.Participant{Side: media.Internal, URI: uri})
		if user != want || ok != (want != "") {
			t.Errorf("%q is %q, want %q", uri, user, want)
		}
		if user, ok := s.Station(media.Participant{Side: media.External, URI: uri}); ok {
			t.Errorf("%q outside is %q", uri, user)
		}
	}
}

func TestStationPlan(t *testing.T) {
	trunk := recorder.DefaultPlan()
	trunk.Format, trunk.EarlyMedia, trunk.Lookback, trunk.SegmentMax = "wav-pcm16", true, time.Second, time.Minute
	trunk.DiscardBelow, trunk.ConsentPreroll, trunk.ConsentTimeout = 7*time.Second, true, time.Minute
	trunk.Rules = suppress.Rules{
		IVR: true, Queue: false, Hold: false, Flows: map[string]bool{"a": false}, Queues: map[string]bool{"b": true},
		ConsentRequired: true, ExternalTransferStop: true, PauseAutoResume: time.Minute,
	}
	d := directory()
	trunk.Stations = d.On(recorder.DefaultPlan(), false)
	s := d.On(trunk, true)
	want := trunk
	want.Kind, want.Format, want.Mono, want.Suppressed, want.DiscardBelow = recorder.KindStation, "ogg-opus", true, "silence", 3*time.Second
	want.Rules.Hold, want.Rules.HoldMic, want.Rules.ExternalTransferStop, want.Stations = true, true, false, nil
	for _, user := range []string{"bob", "BOB", "1002", "sip:bob@pbx.example.net"} {
		got, ok := s.Plan(user)
		if d := cmp.Diff(want, got); d != "" || !ok {
			t.Errorf("%s: %s", user, d)
		}
		if err := got.Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, user := range []string{"", "dave", "bo"} {
		if _, ok := s.Plan(user); ok {
			t.Errorf("%q is a station", user)
		}
	}
	if !s.ByState() || trunk.Stations.ByState() || d.Len() != 3 {
		t.Error("by state, or the number of stations, is wrong")
	}
}

// TestEveryStationIsFound, however its number is written in the signalling.
func TestEveryStationIsFound(t *testing.T) {
	const n = 5000
	list := make([]Station, n)
	for i := range list {
		list[i] = Station{User: fmt.Sprintf("user%d", i), Addresses: []string{fmt.Sprintf("+49 30 7%05d", i), fmt.Sprintf("sip:u%d@pbx.example", i)}}
	}
	s := NewDirectory(list).On(recorder.DefaultPlan(), false)
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(0, n-1).Draw(t, "i")
		uri := rapid.SampledFrom([]string{
			"sip:+49307%05d@sbc", "sip:0049307%05d@sbc;user=phone", "tel:+49-30-7%05d", "SIPS:+49(30)7%05d@x:5061",
		}).Draw(t, "form")
		want := list[i].User
		for _, u := range []string{fmt.Sprintf(uri, i), fmt.Sprintf("sip:U%d@PBX.example:5060", i)} {
			if got, ok := s.Station(media.Participant{Side: media.Internal, URI: u}); !ok || got != want {
				t.Fatalf("%s is %q, want %q", u, got, want)
			}
		}
	})
}
