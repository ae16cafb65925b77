package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/cmd/trunktap/config"
	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/suppress"
)

// mustConfig has two trunks, carrier and phones; each %s takes the keys of one.
func mustConfig(t *testing.T, carrier, phones, rest string) *config.Config {
	t.Helper()
	c, faults := config.Parse("t.yaml", fmt.Appendf(nil, `
trunks:
  - name: carrier
    external: {next_hops: ["sip:192.0.2.1"]}
    internal: {next_hops: ["sip:10.0.0.5"]}
    recording: {%s}
  - name: phones
    role: phones
    external: {next_hops: ["sip:10.0.0.6"]}
    internal: {next_hops: ["sip:10.0.0.7"]}
    recording: {%s}
%s`, carrier, phones, rest))
	if faults != nil {
		t.Fatal(faults)
	}
	return c
}

func TestPlanOfCaptureRules(t *testing.T) {
	cfg := mustConfig(t, `consent: {mode: required, preroll: true, timeout: 90s, dtmf: {grant: "1", deny: "2"}},
      suppress: {queue: false, flows: {a: false}, queues: {b: true}}, pause_auto_resume: 5m, discard_below: 2s,
      consult: true, adhoc: false, snippets: false, inband_dtmf: on, mask_dtmf: true`, "", `signals: {dtmf: {pause: "*#0", resume: "*#1", from: any}}`)
	want := recorder.DefaultPlan()
	want.Rules = suppress.Rules{
		IVR: true, Hold: true, Flows: map[string]bool{"a": false}, Queues: map[string]bool{"b": true},
		ConsentRequired: true, ExternalTransferStop: true, PauseAutoResume: 5 * time.Minute,
	}
	want.ConsentPreroll, want.ConsentTimeout, want.DiscardBelow = true, 90*time.Second, 2*time.Second
	want.InbandDTMF, want.MaskDTMF = recorder.InbandOn, true
	want.Consult, want.Adhoc, want.Snippets = true, false, false
	pause := []suppress.Code{{Digits: "*#0", Event: suppress.PauseStart}, {Digits: "*#1", Event: suppress.PauseEnd}}
	consent := []suppress.Code{{Digits: "1", Event: suppress.ConsentGranted}, {Digits: "2", Event: suppress.ConsentDenied}}
	want.Codes[media.External], want.Codes[media.Internal] = append(append([]suppress.Code{}, pause...), consent...), pause
	got := plan(cfg, &cfg.Trunks[0])
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for side, codes := range got.Codes {
		if err := suppress.CheckCodes(codes); err != nil {
			t.Errorf("%v side: %v", media.Side(side), err)
		}
	}
	phones := plan(cfg, &cfg.Trunks[1])
	if !phones.NoTrunk || got.NoTrunk || len(phones.Codes[media.External]) != 2 {
		t.Errorf("phones: %+v", phones)
	}
}

// TestCodesThatTheFileAllows: what config lets pass, the matcher takes.
func TestCodesThatTheFileAllows(t *testing.T) {
	words := []string{"1", "2", "12", "21", "*1", "1*", "*1*", "*12"}
	for _, pause := range words {
		for _, grant := range words {
			file := fmt.Sprintf("trunks:\n  - name: a\n    external: {next_hops: [\"sip:192.0.2.1\"]}\n    internal: {next_hops: [\"sip:10.0.0.5\"]}\n"+
				"    recording: {consent: {mode: required, dtmf: {grant: %q, from: internal}}}\nsignals: {dtmf: {pause: %q}}\n", grant, pause)
			cfg, faults := config.Parse("t.yaml", []byte(file))
			err := suppress.CheckCodes([]suppress.Code{{Digits: pause, Event: suppress.PauseStart}, {Digits: grant, Event: suppress.ConsentGranted}})
			if (err == nil) != (faults == nil) {
				t.Errorf("%s and %s: the file says %v, the matcher %v", pause, grant, faults, err)
			}
			if cfg != nil && len(plan(cfg, &cfg.Trunks[0]).Codes[media.Internal]) != 2 {
				t.Errorf("%s and %s: codes are missing", pause, grant)
			}
		}
	}
}

func TestPolicyDecides(t *testing.T) {
	p := newPolicy(mustConfig(t, `rules: [{record: false, from: ["+49 30 123*"]}, {record: false, days: [sun], hours: "22:00-06:00", time_zone: Europe/Berlin}]`, "enabled: false", ""))
	call := func(trunk, from, at string) media.Session {
		start, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		return media.Session{ID: "x", Trunk: trunk, Direction: media.Inbound, From: from, To: "sip:1001@pbx", Start: start}
	}
	for _, c := range []struct {
		call media.Session
		want bool
	}{
		{call("carrier", "sip:+4940123@sbc", "2026-01-05T12:00:00Z"), true},
		{call("carrier", "sip:004930123456@sbc", "2026-01-05T12:00:00Z"), false},
		{call("carrier", "sip:+4940123@sbc", "2026-01-04T21:00:00Z"), false}, // Sunday 22:00 there
		{call("carrier", "sip:+4940123@sbc", "2026-01-05T04:59:59Z"), false},
		{call("carrier", "sip:+4940123@sbc", "2026-01-05T05:00:00Z"), true},
		{call("phones", "sip:+4940123@sbc", "2026-01-05T12:00:00Z"), false},
		{call("unknown", "sip:+4940123@sbc", "2026-01-05T12:00:00Z"), false},
	} {
		if _, got := p.Plan(c.call); got != c.want {
			t.Errorf("%+v: %v", c.call, got)
		}
	}
}

// TestPolicyStations: who finds the stations, and begins their recordings.
func TestPolicyStations(t *testing.T) {
	const stations = "stations: [alice, {user: bob, recording: {enabled: false}}]\nstation_base: {format: wav-pcmu, discard_below: 2s}\n"
	agent := media.Participant{Side: media.Internal, URI: "sip:alice@10.0.0.7"}
	for _, c := range []struct {
		name, rest     string
		drop           bool // the trunk of the phones
		carrier, legs  bool // have stations
		byStateCarrier bool
	}{
		{"no stations", "", false, false, false, false},
		{"legs of the phones", stations, false, false, true, false},
		{"legs, said", stations + "stations_from: legs\n", false, false, true, false},
		{"state", stations, true, true, false, true},
		{"legs without phones", stations + "stations_from: legs\n", true, false, false, false},
	} {
		cfg := mustConfig(t, "consent: required", "", c.rest)
		if c.drop {
			cfg.Trunks = cfg.Trunks[:1]
		}
		p := newPolicy(cfg)
		carrier, _ := p.Plan(media.Session{Trunk: "carrier"})
		phones, _ := p.Plan(media.Session{Trunk: "phones"})
		if (carrier.Stations != nil) != c.carrier || (phones.Stations != nil) != c.legs {
			t.Fatalf("%s: carrier %v, phones %v", c.name, carrier.Stations, phones.Stations)
		}
		for _, plan := range []recorder.Plan{carrier, phones} {
			if plan.Stations == nil {
				continue
			}
			user, ok := plan.Stations.Station(agent)
			of, has := plan.Stations.Plan(user)
			if !ok || user != "alice" || !has || of.Kind != recorder.KindStation || of.Format != "wav-pcmu" || of.DiscardBelow != 2*time.Second ||
				!of.Rules.HoldMic || of.Rules.ExternalTransferStop || of.Rules.ConsentRequired != plan.Rules.ConsentRequired || of.Validate() != nil {
				t.Errorf("%s: %q %+v", c.name, user, of)
			}
			if _, ok := plan.Stations.Plan("bob"); ok {
				t.Errorf("%s: a station that is off has a plan", c.name)
			}
			if plan.Stations.ByState() != c.byStateCarrier {
				t.Errorf("%s: by state %v", c.name, !c.byStateCarrier)
			}
		}
	}
}

// TestPolicyOfIdlePhones: a trunk of phones on which nothing can be recorded
// is not tapped.
func TestPolicyOfIdlePhones(t *testing.T) {
	for keys, want := range map[string]bool{
		"":                              true,
		"adhoc: false, snippets: false": false,
		"adhoc: false, snippets: false, consult: true": true,
	} {
		if _, ok := newPolicy(mustConfig(t, "", keys, "")).Plan(media.Session{Trunk: "phones"}); ok != want {
			t.Errorf("{%s}: %v", keys, ok)
		}
	}
}

func TestPolicyReload(t *testing.T) {
	p := newPolicy(mustConfig(t, "", "", "stations: [alice]\n"))
	old, _ := p.Plan(media.Session{Trunk: "phones"})
	p.reload(mustConfig(t, "rules: [{record: false}]", "", "stations: [carol]\n"))
	if _, ok := p.Plan(media.Session{Trunk: "carrier"}); ok {
		t.Error("the new rules do not hold")
	}
	now, _ := p.Plan(media.Session{Trunk: "phones"})
	_, kept := old.Stations.Plan("alice")
	_, gone := now.Stations.Plan("alice")
	_, came := now.Stations.Plan("CAROL")
	if !kept || gone || !came {
		t.Errorf("kept %v, gone %v, came %v", kept, gone, came)
	}
}

// TestSignalsThatTheFileAllows: what config lets pass, the reader of SIP
// messages takes.
func TestSignalsThatTheFileAllows(t *testing.T) {
	for _, rule := range []string{
		`value: "a*b", flow: $value, queue: "$param:q", user: ä, role: $value, from: internal, on_change: true`,
		`role: barge, from: external, party: "x y"`, `role: monitor`,
	} {
		for _, e := range []suppress.Event{
			suppress.IVRStart, suppress.IVREnd, suppress.QueueStart, suppress.QueueEnd, suppress.AgentJoin, suppress.AgentLeave,
			suppress.HoldStart, suppress.HoldEnd, suppress.PauseStart, suppress.PauseEnd, suppress.ConsentGranted, suppress.ConsentDenied,
			suppress.ConsultStart, suppress.ConsultEnd, suppress.TransferExternal, suppress.TransferInternal,
			suppress.DTMFStart, suppress.DTMFEnd,
		} {
			cfg := mustConfig(t, "", "", fmt.Sprintf(`signals:
  headers: [{header: "X-A!%%*_+'~.b", event: %s, %s}]
  user_to_user: [{key: "a b", event: %s, %s}]
  info: {enabled: true, from: any, types: [application/vnd.x+json, text/plain]}
  conversation: {headers: [X-Conversation], user_to_user: "*", from: external}
`, e, rule, e, rule))
			if _, err := newCallState(cfg); err != nil {
				t.Errorf("%s, %s: %v", e, rule, err)
			}
		}
	}
}
