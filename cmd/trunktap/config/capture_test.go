package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// recording is a file whose only trunk has these lines under recording; they
// begin at line 6, column 7.
func recording(lines ...string) string {
	return minimal + "    recording:\n      " + strings.Join(lines, "\n      ") + "\n"
}

func TestCaptureRules(t *testing.T) {
	c := mustParse(t, recording(
		`consent: {mode: required, preroll: true, timeout: 90s, dtmf: {grant: "1", deny: "2", from: any}}`,
		`suppress: {ivr: false, flows: {card: true, "vip line": false}, queues: {complaints: false}}`,
		`pause_auto_resume: 10m`, `discard_below: 2s`, `consult: true`, `adhoc: false`, `snippets: false`,
		`announce: {file: /srv/notice.wav, to: external}`,
		`beep: {enabled: true, preset: fs1037c, second_frequency: 440, level: -30, to: internal}`,
		`rules:`,
		`  - {record: false, from: ["+49 30 123*", anonymous], to: ["0800*"], direction: inbound}`,
		`  - {record: true, percent: 20, days: [mon, sun], hours: "22:00-06:00", time_zone: Europe/Berlin}`,
		`  - record: false`,
	))
	want := TrunkRecording{
		Storage: "default", Priority: "normal",
		Enabled: true, OnFailure: "allow", Format: "ogg-opus", Opus: opusDefault, Encode: encodeDefault, DualChannel: true, Conceal: true, G726Packing: "rfc3551", InbandDTMF: "auto",
		Suppress: Suppress{
			Queue: true, Hold: true, Flows: map[string]bool{"card": true, "vip line": false}, Queues: map[string]bool{"complaints": false},
		},
		Suppressed: "cut", ExternalTransfer: "stop", PauseAutoResume: 10 * time.Minute, DiscardBelow: 2 * time.Second,
		Consent: "required", ConsentPreroll: true, ConsentTimeout: 90 * time.Second,
		ConsentDTMF: ConsentDTMF{Grant: "1", Deny: "2", From: "any"},
		Consult:     true,
		ForkMode:    "failover",
		Announce:    Announce{File: "/srv/notice.wav", To: "external"},
		Beep: Beep{
			Enabled: true, Preset: "fs1037c", Frequency: 1400, SecondFrequency: 440,
			Duration: 500 * time.Millisecond, Interval: 15 * time.Second, Level: -30, To: "internal",
		},
		Rules: []Rule{
			{Percent: 100, Direction: "inbound", From: []string{"+49 30 123*", "anonymous"}, To: []string{"0800*"}, TimeZone: "UTC"},
			{Record: true, Percent: 20, Direction: "any", Days: []string{"mon", "sun"}, Hours: Hours{22 * 60, 6 * 60}, TimeZone: "Europe/Berlin"},
			{Percent: 100, Direction: "any", TimeZone: "UTC"},
		},
	}
	if d := gocmp.Diff(want, c.Trunks[0].Recording); d != "" {
		t.Error(d)
	}
}

// TestAlone: a mapping may be written as the one value that it is about.
func TestAlone(t *testing.T) {
	for _, c := range []struct{ short, long string }{
		{recording("consent: required"), recording("consent: {mode: required}")},
		{recording("consent: off"), recording("consent: {}")},
		{recording("announce: notice.wav"), recording("announce: {file: notice.wav, to: both}")},
		{minimal + "stations: [alice, {user: bob}]\n", minimal + "stations:\n  - user: alice\n  - user: bob\n"},
		{minimal + "signals: {conversation: [X-A, X-B]}\n", minimal + "signals: {conversation: {headers: [X-A, X-B]}}\n"},
	} {
		if d := gocmp.Diff(mustParse(t, c.long), mustParse(t, c.short), cmpNet); d != "" {
			t.Errorf("%s%s", c.short, d)
		}
	}
	if _, faults := Parse("t.yaml", []byte(minimal+"media: auto\n")); len(faults) != 1 {
		t.Errorf("a mapping without such a value: %v", faults)
	}
}

// TestBeepPresets: what the file says comes before what the preset says.
func TestBeepPresets(t *testing.T) {
	for _, c := range []struct {
		text               string
		frequency          int
		duration, interval time.Duration
		level              int
	}{
		{"{}", 1400, 200 * time.Millisecond, 14 * time.Second, -24},
		{"{preset: none}", 1400, 200 * time.Millisecond, 14 * time.Second, -24},
		{"{preset: genesys}", 1400, 200 * time.Millisecond, 14 * time.Second, -24},
		{"{preset: fs1037c}", 1400, 500 * time.Millisecond, 15 * time.Second, -24},
		{"{preset: fs1037c, duration: 200ms, frequency: 440}", 440, 200 * time.Millisecond, 15 * time.Second, -24},
		{"{preset: genesys, interval: 5s, level: 0}", 1400, 200 * time.Millisecond, 5 * time.Second, 0},
	} {
		b := mustParse(t, recording("beep: "+c.text)).Trunks[0].Recording.Beep
		if b.Frequency != c.frequency || b.Duration != c.duration || b.Interval != c.interval || b.Level != c.level {
			t.Errorf("%s: %+v", c.text, b)
		}
	}
}

func TestAnnounceBesideTheFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "trunktap.yaml")
	if err := os.WriteFile(file, []byte(recording("announce: sounds/notice.WAV")), 0o600); err != nil {
		t.Fatal(err)
	}
	c, faults := Load(file)
	if faults != nil {
		t.Fatal(faults)
	}
	if got := c.Trunks[0].Recording.Announce.File; got != filepath.Join(dir, "sounds/notice.WAV") {
		t.Error(got)
	}
}

func TestStations(t *testing.T) {
	c := mustParse(t, minimal+`
station_base: {enabled: false, format: wav-pcm16, discard_below: 3s}
stations:
  - alice
  - user: bob
    addresses: ["SIP:bob@pbx.example.net", "+49 30 1234-5", "1002", "sip:bob@[2001:db8::1]:5060"]
    recording: {enabled: true, suppressed: silence}
  - {user: "1003", recording: {}}
stations_from: legs
`)
	base := StationRecording{Format: "wav-pcm16", DualChannel: true, Suppressed: "cut", DiscardBelow: 3 * time.Second}
	bob := base
	bob.Enabled, bob.Suppressed = true, "silence"
	want := []Station{
		{User: "alice", Recording: base},
		{User: "bob", Addresses: []string{"SIP:bob@pbx.example.net", "+49 30 1234-5", "1002", "sip:bob@[2001:db8::1]:5060"}, Recording: bob},
		{User: "1003", Recording: base},
	}
	if d := gocmp.Diff(want, c.Stations); d != "" {
		t.Error(d)
	}
	if d := gocmp.Diff(base, c.StationBase); d != "" {
		t.Error(d)
	}
}

func TestStationsByState(t *testing.T) {
	phones := strings.Replace(minimal, "name: a", "name: a\n    role: phones", 1)
	for text, want := range map[string]bool{
		minimal:                            true,
		minimal + "stations_from: auto\n":  true,
		minimal + "stations_from: state\n": true,
		minimal + "stations_from: legs\n":  false,
		phones:                             false,
		phones + "stations_from: legs\n":   false,
	} {
		if c := mustParse(t, text); c.StationsByState() != want {
			t.Errorf("%v for\n%s", !want, text)
		}
	}
}

// TestManyStations: as many as are allowed, written out.
func TestManyStations(t *testing.T) {
	var b strings.Builder
	b.WriteString(minimal + "stations:\n")
	for i := range stationsMax {
		fmt.Fprintf(&b, "- {user: user%d, addresses: [\"sip:u%d@pbx.example\"]}\n", i, i)
	}
	begin := time.Now()
	c := mustParse(t, b.String())
	if took := time.Since(begin); len(c.Stations) != stationsMax || took > 30*time.Second {
		t.Errorf("%d stations in %v", len(c.Stations), took)
	}
	if _, faults := Parse("t.yaml", []byte(minimal+"stations:\n"+strings.Repeat("- u\n", stationsMax+1))); len(faults) != 1 || !strings.Contains(faults[0].Problem, "the list has 100001 entries") {
		t.Errorf("one too many: %v", faults)
	}
}

func TestSignalKeys(t *testing.T) {
	c := mustParse(t, minimal+`
signals:
  headers:
    - {header: X-Call-State, value: "queue*", event: queue.start, queue: "$param:queue", from: internal, on_change: true}
    - {header: X-Agent, event: agent.join, user: $value, role: agent}
  user_to_user: [{key: state, value: ivr, event: ivr.start, flow: "$param:flow"}]
  info: {enabled: true, from: any, types: [application/json]}
  conversation: {headers: [X-Conversation-ID], user_to_user: conv, from: internal}
  dtmf: {pause: "*#0", resume: "*#1", from: any}
`)
	want := Signals{
		HTTP: true,
		Headers: []SignalRule{
			{Name: "X-Call-State", Value: "queue*", Event: "queue.start", Queue: "$param:queue", From: "internal", OnChange: true},
			{Name: "X-Agent", Event: "agent.join", User: "$value", Role: "agent", From: "any"},
		},
		UserToUser:   []SignalRule{{Name: "state", Value: "ivr", Event: "ivr.start", Flow: "$param:flow", From: "any"}},
		Info:         Info{Enabled: true, From: "any", Types: []string{"application/json"}},
		Conversation: Conversation{Headers: []string{"X-Conversation-ID"}, UserToUser: "conv", From: "internal"},
		DTMF:         SignalsDTMF{Pause: "*#0", Resume: "*#1", From: "any"},
		NATS:         NATS{Name: "main", Subjects: []string{"trunktap.signals.>"}, MaxAge: time.Hour},
	}
	if d := gocmp.Diff(want, c.Signals); d != "" {
		t.Error(d)
	}
}

// TestDiffCapture: what is recorded, and by which signals, acts for new calls.
func TestDiffCapture(t *testing.T) {
	old := mustParse(t, minimal)
	now := mustParse(t, strings.Replace(recording(
		"consent: {mode: required, dtmf: {grant: \"1\"}}", "suppress: {flows: {card: true}}", "rules: [{record: false}]",
		"discard_below: 1s", "consult: true", "beep: {enabled: true}", "announce: notice.wav",
	), "name: a", "name: a\n    role: trunk", 1)+`
stations: [alice]
stations_from: state
signals: {headers: [{header: X-A, event: ivr.start}], conversation: [X-B], dtmf: {pause: "*#0"}}
`)
	want := Changes{
		NewCalls: []string{
			"stations", "stations_from", "signals.headers", "signals.conversation.headers", "signals.dtmf.pause",
			"trunks[a].recording.consent.mode", "trunks[a].recording.consent.dtmf.grant", "trunks[a].recording.suppress.flows",
			"trunks[a].recording.discard_below", "trunks[a].recording.consult", "trunks[a].recording.rules",
		},
		Restart: []string{"trunks[a].recording.announce.file", "trunks[a].recording.beep.enabled"},
	}
	if d := gocmp.Diff(want, Diff(old, now)); d != "" {
		t.Error(d)
	}
}

// everyKey writes a node with every key that this version has, each with its
// default or the value that the example shows.
func everyKey(n *node, indent string) string {
	var b strings.Builder
	for _, f := range n.fields {
		value := cmp.Or(f.def, f.example)
		switch {
		case f.kind == objectKind:
			b.WriteString(indent + f.key + ":\n" + everyKey(f, indent+"  "))
		case f.names != nil:
			b.WriteString(indent + f.key + ":\n" + indent + "  " + f.example + ":\n" + everyKey(f.proto(), indent+"    "))
		case f.kind == listKind && f.proto().kind == objectKind:
			item := everyKey(f.proto(), indent+"    ")
			b.WriteString(indent + f.key + ":\n" + indent + "  - " + strings.TrimPrefix(item, indent+"    "))
		default:
			b.WriteString(indent + f.key + ": " + value + "\n")
		}
	}
	return b.String()
}

// TestEveryKey: what the example shows may stand there.
func TestEveryKey(t *testing.T) {
	text := everyKey(table(&Config{}), "")
	text = strings.ReplaceAll(text, "mode: off", "mode: required")
	calls, sessions, _ := strings.Cut(text, "siprec:\n") // to which nothing can be played
	text = calls + "siprec:\n" + regexp.MustCompile("(?m)^ *announce:\n(         .*\n)*").ReplaceAllString(sessions, "")
	text = regexp.MustCompile("(?m)^ *(token_file: /etc/trunktap/nats|user: trunktap\n|password_file: /etc/trunktap/nats).*\n").ReplaceAllString(text, "") // one way to log in
	text = regexp.MustCompile("(?m)^ *former_trunk:.*\n").ReplaceAllString(text, "")                                                                       // or trunk
	c := mustParse(t, text)
	if len(c.Stations) != 1 || len(c.Trunks[0].Recording.Rules) != 1 || c.Signals.Headers[0].Other != "$param:other" ||
		c.Trunks[0].Recording.ConsentDTMF.Grant != "1" || c.Media.Address.String() != "203.0.113.10" {
		t.Errorf("%+v", c)
	}
	s, _ := compiled(t)
	if err := s.Validate(yamlToJSON(t, text)); err != nil {
		t.Error(err)
	}
}

var listInComment = regexp.MustCompile(`^( *)# ([a-z_]+):$`)

// TestExampleListsUncommented: the lists that the example has in comments may
// be taken out of them.
func TestExampleListsUncommented(t *testing.T) {
	_, body, _ := strings.Cut(Example, "\n\n")
	var lines, lists []string
	lead := "none"
	for line := range strings.SplitSeq(body, "\n") {
		if m := listInComment.FindStringSubmatch(line); m != nil {
			lead, lists = m[1], append(lists, m[2])
			line = m[1] + m[2] + ":"
		} else if rest, ok := strings.CutPrefix(line, lead+"#   "); ok {
			line = lead + "  " + rest
		} else {
			lead = "none"
		}
		lines = append(lines, line)
	}
	c := mustParse(t, strings.Join(lines, "\n"))
	want := []string{"tls", "dns", "tls", "auth", "register", "tls", "auth", "register", "fork_auth", "rules", "stations", "siprec", "headers", "user_to_user", "ami", "esl", "regions", "rules"}
	if d := gocmp.Diff(want, lists); d != "" || len(c.Stations) != 1 || len(c.Trunks[0].Recording.Rules) != 1 || len(c.Signals.UserToUser) != 1 || len(c.Retention.Rules) != 1 {
		t.Errorf("%s %+v", d, c)
	}
}

// TestSources: every key of the sources that connect.
func TestSources(t *testing.T) {
	c := mustParse(t, minimal+`
signals:
  ami:
    - name: pbx1
      address: pbx1.example.net:5039
      tls: true
      username: trunktap
      secret_file: /etc/trunktap/ami
      challenge: false
      trunks: [PJSIP/carrier-a, "SIP/carrier-*"]
      stations: ["PJSIP/1*"]
      call_id_variables: [SBC_CALLID]
      users: {PJSIP/1001: alice}
      member_names: true
      queue_agents_only: true
      spy_role: coach
    - {name: pbx2, address: "[2001:db8::5]:5038", tls: {enabled: true, ca_file: /etc/ca.pem}, username: x, secret_file: /s, trunks: [DAHDI/]}
  esl: [{name: fs, address: "10.0.0.6:8021", user: u@d, password_file: /p, trunks: {gateways: [g], profiles: [p], networks: [192.0.2.0/24]}}]
  nats: {name: bus, urls: ["nats://10.0.0.7", "tls://n2:4223"], subjects: ["a.*.b", ">"], stream: S, durable: d, max_age: 2h, user: u, password_file: /n, ca_file: /ca}
`)
	want := Signals{
		HTTP: true, Info: Info{From: "internal"}, Conversation: Conversation{From: "internal"}, DTMF: SignalsDTMF{From: "internal"},
		AMI: []AMI{
			{
				Name: "pbx1", Address: "pbx1.example.net:5039", TLS: TLS{Enabled: true}, Username: "trunktap", SecretFile: "/etc/trunktap/ami",
				Trunks: []string{"PJSIP/carrier-a", "SIP/carrier-*"}, Stations: []string{"PJSIP/1*"}, CallIDVariables: []string{"SBC_CALLID"},
				Users: map[string]string{"PJSIP/1001": "alice"}, MemberNames: true, QueueAgentsOnly: true, SpyRole: "coach",
			},
			{
				Name: "pbx2", Address: "[2001:db8::5]:5038", TLS: TLS{Enabled: true, CAFile: "/etc/ca.pem"}, Username: "x", SecretFile: "/s",
				Challenge: true, Trunks: []string{"DAHDI/"}, SpyRole: "monitor",
			},
		},
		ESL: []ESL{{
			Name: "fs", Address: "10.0.0.6:8021", User: "u@d", PasswordFile: "/p",
			Gateways: []string{"g"}, Profiles: []string{"p"}, Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		}},
		NATS: NATS{
			Name: "bus", URLs: []string{"nats://10.0.0.7", "tls://n2:4223"}, Subjects: []string{"a.*.b", ">"}, Stream: "S", Durable: "d",
			MaxAge: 2 * time.Hour, User: "u", PasswordFile: "/n", CAFile: "/ca",
		},
	}
	if d := gocmp.Diff(want, c.Signals, cmpNet); d != "" {
		t.Error(d)
	}
}
