package config

import (
	"strings"
	"testing"
)

// TestCaptureFaults: see TestFaults. Line 6 is the first below recording.
func TestCaptureFaults(t *testing.T) {
	station := func(lines string) string { return minimal + "stations:\n" + lines }
	signals := func(lines string) string { return minimal + "signals:\n  " + lines + "\n" }
	phones := func(lines ...string) string {
		return strings.Replace(recording(lines...), "name: a", "name: a\n    role: phones", 1)
	}
	const ami = `name: p, address: "a:1", username: u, secret_file: /s, trunks: [SIP/a]`
	const esl = `name: p, address: "a:1", password_file: /s`
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		// consent
		{"consent word", recording("consent: maybe"), []string{`6:16: trunks[0].recording.consent: "maybe" is not known; allowed: off or required`}},
		{"consent list", recording("consent: [required]"), []string{"6:16: trunks[0].recording.consent: a list where a mapping belongs; allowed: off or required, or a mapping of mode, preroll"}},
		{"consent mode", recording("consent: {mode: requird}"), []string{`consent.mode: "requird" is not known, did you mean "required"?`}},
		{"consent key", recording("consent: {prerol: true}"), []string{`consent.prerol: the key is not known, did you mean "preroll"?`}},
		{"preroll without consent", recording("consent: {preroll: true}"), []string{"6:26: trunks[0].recording.consent.preroll: there is no consent to wait for; allowed: false, or consent.mode: required"}},
		{"digits without consent", recording(`consent: {dtmf: {grant: "1", deny: "2"}}`), []string{"6:31: trunks[0].recording.consent.dtmf.grant: there is no consent to ask for", "consent.dtmf.deny: there is no"}},
		{"consent timeout", recording("consent: {mode: required, timeout: 500ms}"), []string{"consent.timeout: 500ms is out of range; allowed: a duration such as 200ms, 14s or 5m, from 1s to 10m"}},
		{"consent from", recording("consent: {mode: required, dtmf: {from: both}}"), []string{`consent.dtmf.from: "both" is not known; allowed: any, external or internal`}},
		// coding
		{"opus bitrate", recording("opus: {bitrate: 5000}"), []string{"6:23: trunks[0].recording.opus.bitrate: 5000 is out of range; allowed: a whole number from 6000 to 128000"}},
		{"opus complexity", recording("opus: {complexity: 11}"), []string{"opus.complexity: 11 is out of range; allowed: a whole number from 0 to 10"}},
		{"opus application", recording("opus: {application: lowdelay}"), []string{`opus.application: "lowdelay" is not known; allowed: voip or audio`}},
		{"encode word", recording("encode: later"), []string{`6:15: trunks[0].recording.encode: "later" is not known; allowed: live or deferred`}},
		{"encode in Opus", recording("encode: {mode: deferred, as: ogg-opus}"), []string{`encode.as: "ogg-opus" is not known; allowed: wav-pcmu, wav-pcma, wav-pcm16 or flac`}},
		// rates
		{"rate", recording("sample_rate: 44100"), []string{`6:20: trunks[0].recording.sample_rate: "44100" is no sample rate of recordings; allowed: auto, 8000, 16000 or 48000`}},
		{"rate as text", recording(`sample_rate: "8000"`), []string{`sample_rate: "8000" is no sample rate`}},
		{"wide G.711", recording("format: wav-pcmu", "sample_rate: 16000"), []string{"7:20: trunks[0].recording.sample_rate: wav-pcmu has 8000 samples a second; allowed: 8000, or another format"}},
		{"any rate of G.711", recording("format: wav-pcma", "sample_rate: auto"), []string{"trunks[0].recording.sample_rate: wav-pcma has 8000"}},
		{
			"wide, and G.711 until it is coded", recording("encode: deferred", "sample_rate: auto"),
			[]string{"7:20: trunks[0].recording.sample_rate: wav-pcmu of encode.as has 8000 samples a second; allowed: 8000, or encode.as: wav-pcm16, or encode.as: flac"},
		},
		{
			"wide, and a station in G.711", recording("sample_rate: 48000") + "stations: [{user: a, recording: {format: wav-pcmu}}]\n",
			[]string{"6:20: trunks[0].recording.sample_rate: recordings of stations have the rate of the trunk, and wav-pcmu of stations[0] has 8000; allowed: 8000, or another format there"},
		},
		{"nothing to encode", recording("format: wav-pcmu", "encode: deferred"), []string{"trunks[0].recording.encode.mode: the format wav-pcmu is not coded afterwards; allowed: live, or format: ogg-opus"}},
		{"sync period", minimal + "recording: {sync_period: 2s}\n", []string{"recording.sync_period: 2s is out of range"}},
		{"deferred workers", minimal + "recording: {deferred: {workers: 0}}\n", []string{"recording.deferred.workers: 0 is out of range; allowed: a whole number from 1 to 64"}},
		// codes
		{"code of a number", recording(`consent: {mode: required, dtmf: {grant: 1}}`), []string{`consent.dtmf.grant: "1" is no text, put it into quotes; allowed: 1 to 8 digits`}},
		{"code of letters", signals(`dtmf: {pause: "*x"}`), []string{`6:17: signals.dtmf.pause: "*x" is no code; allowed: 1 to 8 digits of 0123456789*#ABCD`}},
		{"long code", signals(`dtmf: {pause: "123456789"}`), []string{"signals.dtmf.pause: the code has 9 digits"}},
		{"empty code", signals(`dtmf: {pause: ""}`), []string{`signals.dtmf.pause: "" is no code`}},
		{"one code twice", signals(`dtmf: {pause: "*1", resume: "*1"}`), []string{`6:31: signals.dtmf.resume: "*1" is the code of signals.dtmf.pause; allowed: digits of its own`}},
		{"code before another", signals(`dtmf: {pause: "*1", resume: "*12"}`), []string{`signals.dtmf.resume: "*1" of signals.dtmf.pause lies within "*12"`}},
		{"code within another", signals(`dtmf: {pause: "*12*", resume: "12"}`), []string{`signals.dtmf.resume: "12" lies within "*12*" of signals.dtmf.pause`}},
		{"grant and deny", recording(`consent: {mode: required, dtmf: {grant: "1", deny: "1"}}`), []string{`consent.dtmf.deny: "1" is the code of trunks[0].recording.consent.dtmf.grant`}},
		{
			"consent and pause of one party", recording(`consent: {mode: required, dtmf: {grant: "1", from: any}}`) + "signals: {dtmf: {pause: \"1*\"}}\n",
			[]string{`7:25: signals.dtmf.pause: "1" of trunks[0].recording.consent.dtmf.grant lies within "1*"`},
		},
		{"codes from outside", signals("dtmf: {from: external}"), []string{`signals.dtmf.from: "external" is not known`}},
		// flows and queues
		{"flows list", recording("suppress: {flows: [card]}"), []string{"suppress.flows: a list where a mapping belongs; allowed: a mapping of at most 1000 names, each to true or false"}},
		{"flow word", recording("suppress: {flows: {card: yes}}"), []string{`6:32: trunks[0].recording.suppress.flows.card: "yes" is no truth value`}},
		{"flow mapping", recording("suppress: {flows: {card: {a: b}}}"), []string{"suppress.flows.card: a mapping where one value belongs"}},
		{"flow without value", recording("suppress: {flows: {card: }}"), []string{"suppress.flows.card: a null where one value belongs"}},
		{"flow twice", recording("suppress: {flows: {a: true, a: false}}"), []string{"6:35: trunks[0].recording.suppress.flows.a: the name stands there twice"}},
		{"flow without name", recording(`suppress: {flows: {"": true}}`), []string{"suppress.flows: the text is empty; allowed: text of 1 to 256 bytes"}},
		{"long flow", recording("suppress: {flows: {" + strings.Repeat("a", 257) + ": true}}"), []string{"suppress.flows: the text has 257 bytes"}},
		{"control character", recording(`suppress: {queues: {"a\tb": true}}`), []string{"suppress.queues: the text holds a control character"}},
		{"many flows", recording("suppress:", "  flows:"+manyFlows(1001)), []string{"suppress.flows: the mapping has 1001 names; allowed: at most 1000"}},
		// beep and announcement
		{"beep word", recording("beep: true"), []string{"6:13: trunks[0].recording.beep: \"true\" where a mapping belongs"}},
		{"beep preset", recording("beep: {preset: genesis}"), []string{`beep.preset: "genesis" is not known, did you mean "genesys"?`}},
		{"low tone", recording("beep: {second_frequency: 50}"), []string{"6:32: trunks[0].recording.beep.second_frequency: 50 Hz is not heard on a telephone; allowed: 0, or 300 to 3400"}},
		{"loud tone", recording("beep: {level: 3}"), []string{"beep.level: 3 is out of range; allowed: a whole number from -60 to 0"}},
		{"endless tone", recording("beep: {duration: 2s, interval: 3s}"), []string{"6:24: trunks[0].recording.beep.duration: 2s of tone every 3s leave no room to speak; allowed: at most half of beep.interval"}},
		{"endless tone of a preset", recording("beep: {preset: fs1037c, duration: 5s, interval: 9s}"), []string{"5s of tone every 9s"}},
		{"beep to", recording("beep: {to: nobody}"), []string{`beep.to: "nobody" is not known; allowed: both, external or internal`}},
		{"announcement", recording("announce: notice.mp3"), []string{`6:17: trunks[0].recording.announce: "notice.mp3" is no WAV file; allowed: the path of a WAV file`}},
		{"announcement number", recording("announce: {file: 7}"), []string{`announce.file: "7" is no WAV file`}},
		{"nameless announcement", recording("announce: .wav"), []string{`".wav" is no WAV file`}},
		{
			"phones are not told", phones("beep: {enabled: true}", "announce: a.wav"),
			[]string{"7:23: trunks[0].recording.beep.enabled: the beep belongs to recordings of the trunk", "8:17: trunks[0].recording.announce.file: the announcement belongs"},
		},
		{"role", strings.Replace(minimal, "name: a", "name: a\n    role: phone", 1), []string{`3:11: trunks[0].role: "phone" is not known, did you mean "phones"?`}},
		// rules
		{"rule without decision", recording("rules: [{percent: 5}]"), []string{"6:15: trunks[0].recording.rules[0].record: the key is missing; allowed: true or false"}},
		{"percent", recording("rules: [{record: true, percent: 101}]"), []string{"rules[0].percent: 101 is out of range; allowed: a whole number from 0 to 100"}},
		{"half percent", recording("rules: [{record: true, percent: 0.5}]"), []string{`rules[0].percent: "0.5" is no whole number`}},
		{"rule direction", recording("rules: [{record: true, direction: in}]"), []string{`rules[0].direction: "in" is not known`}},
		{"bare number", recording("rules: [{record: true, from: [4930123]}]"), []string{`6:37: trunks[0].recording.rules[0].from[0]: "4930123" is no text, put it into quotes`}},
		{"URI as pattern", recording(`rules: [{record: true, to: ["sip:1@x"]}]`), []string{`rules[0].to[0]: "sip:1@x" is a URI; allowed: a number or the user part`}},
		{"host as pattern", recording(`rules: [{record: true, to: ["1@x"]}]`), []string{`"1@x" is more than the user part of a URI`}},
		{"empty pattern", recording(`rules: [{record: true, to: ["+ -"]}]`), []string{`"+ -" holds no character that counts`}},
		{"no patterns", recording(`rules: [{record: true, to: []}]`), []string{"rules[0].to: the list has 0 entries; allowed: 1 to 1000"}},
		{"day", recording("rules: [{record: true, days: [monday]}]"), []string{`rules[0].days[0]: "monday" is not known; allowed: mon, tue, wed`}},
		{"hours shape", recording(`rules: [{record: true, hours: "8-18"}]`), []string{`rules[0].hours: "8-18" are no hours; allowed: hours and minutes in quotes`}},
		{"hours beyond", recording(`rules: [{record: true, hours: "08:00-24:30"}]`), []string{"goes beyond 24:00"}},
		{"hours from midnight", recording(`rules: [{record: true, hours: "24:00-06:00"}]`), []string{"goes beyond 24:00"}},
		{"no hours", recording(`rules: [{record: true, hours: "08:00-08:00"}]`), []string{"is empty, a whole day is 00:00-24:00"}},
		{"zone", recording(`rules: [{record: true, time_zone: Mars}]`), []string{`rules[0].time_zone: "Mars" is no time zone; allowed: a name of the IANA`}},
		{"local zone", recording(`rules: [{record: true, time_zone: Local}]`), []string{`"Local" is no time zone`}},
		{"zone outside", recording(`rules: [{record: true, time_zone: ../../etc/passwd}]`), []string{`is no time zone`}},
		{"rule never reached", recording("rules:", "  - {record: false}", "  - {record: true, direction: inbound}"), []string{"8:11: trunks[0].recording.rules[1]: no call gets here, rules[0] matches every call"}},
		{"a faulty rule is not said to match all", recording("rules: [{record: true, days: [x]}, {record: true}]"), []string{"rules[0].days[0]"}},
		// stations
		{"number as user", station("  - 1001\n"), []string{`6:5: stations[0]: "1001" is no text, put it into quotes; allowed: text of 1 to 256 bytes`}},
		{"nameless station", station("  - addresses: [a]\n"), []string{"6:5: stations[0].user: the key is missing"}},
		{"user twice", station("  - alice\n  - user: ALICE\n"), []string{`7:11: stations[1].user: "ALICE" is the user of stations[0]; allowed: a user once`}},
		{"address twice", station("  - {user: a, addresses: [\"+49 30 1\"]}\n  - {user: b, addresses: [\"+49-301\"]}\n"), []string{`7:27: stations[1].addresses[0]: "+49-301" is an address of stations[0]; allowed: an address once`}},
		{"the address of another", station("  - {user: a, addresses: [bob]}\n  - bob\n"), []string{`7:5: stations[1].user: "bob" is an address of stations[0], and this station has no other`}},
		{"address with parameters", station("  - {user: a, addresses: [\"sip:a@b;x=y\"]}\n"), []string{`"sip:a@b;x=y" is more than user and host; allowed: a SIP URI or its user part`}},
		{"address without user", station("  - {user: a, addresses: [\"sip:pbx\"]}\n"), []string{`"sip:pbx" has no user`}},
		{"tel address", station("  - {user: a, addresses: [\"tel:+491\"]}\n"), []string{`"tel:+491" is a URI`}},
		{"no addresses", station("  - {user: a, addresses: []}\n"), []string{"addresses: the list has 0 entries; allowed: 1 to 16"}},
		{"station format", station("  - {user: a, recording: {format: mp3}}\n"), []string{`stations[0].recording.format: "mp3" is not known`}},
		{"station base", minimal + "station_base: {early_media: true}\n", []string{"station_base.early_media: the key is not known here, it belongs to trunks[].recording.early_media"}},
		{"stations from", minimal + "stations_from: sdp\n", []string{`stations_from: "sdp" is not known; allowed: auto, legs or state`}},
		{"state with phones", phones("enabled: true") + "stations_from: state\n", []string{"8:16: stations_from: nothing would be recorded of trunks[0], whose role is phones; allowed: auto or legs"}},
		// signals in SIP
		{"header without event", signals("headers: [{header: X-A}]"), []string{"6:13: signals.headers[0].event: the key is missing; allowed: ivr.start"}},
		{"header name", signals(`headers: [{header: "X A", event: ivr.start}]`), []string{`signals.headers[0].header: "X A" is no name of a header field`}},
		{"event", signals("headers: [{header: X-A, event: ivr.begin}]"), []string{`"ivr.begin" is not known; allowed: ivr.start`}},
		{"event of the daemon", signals("headers: [{header: X-A, event: source.lost}]"), []string{`"source.lost" is not known`}},
		{"template", signals("headers: [{header: X-A, event: ivr.start, flow: $flow}]"), []string{`headers[0].flow: "$flow" is neither $value nor $param:name; allowed: text of 1 to 256 bytes`}},
		{"role template", signals("headers: [{header: X-A, event: agent.join, role: boss}]"), []string{`headers[0].role: "boss" is not known; allowed: agent, consult, monitor, coach or barge, or $value`}},
		{"snippet of nobody", signals("headers: [{header: X-A, event: snippet.start}]"), []string{"6:13: signals.headers[0]: the key user is missing, snippet.start belongs to one; allowed: a text, $value or $param:name"}},
		{"key of a pair", signals("user_to_user: [{key: a=b, event: ivr.start}]"), []string{`user_to_user[0].key: "a=b" is no key`}},
		{"header in user_to_user", signals("user_to_user: [{header: X-A, key: a, event: ivr.start}]"), []string{"user_to_user[0].header: the key is not known here, it belongs to signals.headers[].header"}},
		{"info type", signals("info: {types: [json]}"), []string{`signals.info.types[0]: "json" is no content type; allowed: type/subtype without parameters`}},
		{"conversation", signals("conversation: X-A"), []string{`6:17: signals.conversation: "X-A" where a mapping belongs; allowed: a list, each the name of a SIP header field, such as X-Call-State, or a mapping`}},
		// sources
		{"ami as text", signals("ami: pbx1"), []string{`signals.ami: "pbx1" where a list belongs; allowed: a list of mappings of name, address`}},
		{"ami without secret", signals(`ami: [{name: p, address: "a:1", username: u, trunks: [SIP/a]}]`), []string{"signals.ami[0].secret_file: the key is missing; allowed: an absolute path"}},
		{"ami channel", signals(`ami: [{` + strings.Replace(ami, "SIP/a", "carrier", 1) + `}]`), []string{`ami[0].trunks[0]: "carrier" is no channel; allowed: technology/endpoint`}},
		{"ami without port", signals(`ami: [{` + strings.Replace(ami, "a:1", "a", 1) + `}]`), []string{`ami[0].address: "a" is no host and port`}},
		{"ami port", signals(`ami: [{` + strings.Replace(ami, "a:1", "a:0", 1) + `}]`), []string{`port 0 in "a:0" is no port`}},
		{"ami host", signals(`ami: [{` + strings.Replace(ami, "a:1", "10.0.0.300:1", 1) + `}]`), []string{`"10.0.0.300" in "10.0.0.300:1" is no host name and no address`}},
		{"ami twice", signals("ami:\n    - {" + ami + "}\n    - {" + ami + "}"), []string{`8:14: signals.ami[1].name: "p" is the name of signals.ami[0]`}},
		{"ami certificates without TLS", signals(`ami: [{` + ami + `, tls: {ca_file: /c}}]`), []string{"signals.ami[0].tls: the key enabled is missing; allowed: enabled: true, or false"}},
		{"esl twice", signals("esl:\n    - {" + esl + "}\n    - {" + esl + "}"), []string{`signals.esl[1].name: "p" is the name of signals.esl[0]`}},
		{"esl user", signals("esl: [{" + esl + ", user: admin}]"), []string{`signals.esl[0].user: "admin" is no user of a directory`}},
		{"esl network", signals("esl: [{" + esl + ", trunks: {networks: [10.0.0.1/8]}}]"), []string{"signals.esl[0].trunks.networks[0]: 10.0.0.1/8 has bits set behind /8"}},
		{"nats url", signals(`nats: {urls: ["http://a"]}`), []string{`signals.nats.urls[0]: "http://a" is no URL of NATS`}},
		{"nats password", signals(`nats: {urls: ["nats://u:canary@a"]}`), []string{"the URL holds a login"}},
		{"nats subject", signals(`nats: {subjects: ["a..b"]}`), []string{`signals.nats.subjects[0]: "a..b" is no subject`}},
		{"nats stream alone", signals("nats: {stream: S}"), []string{"6:18: signals.nats.stream: there is no durable; allowed: both of stream and durable, or none"}},
		{"nats durable alone", signals("nats: {durable: d}"), []string{"signals.nats.durable: there is no stream"}},
		{"nats two logins", signals("nats: {token_file: /t, credentials_file: /c}"), []string{"6:22: signals.nats.token_file: there is a credentials_file already; allowed: one way to log in"}},
		{"nats user alone", signals("nats: {user: u}"), []string{"signals.nats.user: a user and a password_file belong together"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, faults := Parse("t.yaml", []byte(c.text))
			if cfg != nil || len(faults) != len(c.want) {
				t.Fatalf("%d faults, want %d:\n%v", len(faults), len(c.want), faults)
			}
			for i, f := range faults {
				if !strings.Contains(f.String(), c.want[i]) {
					t.Errorf("fault %d is\n %s\nwant\n %s", i, f, c.want[i])
				}
				if f.Line == 0 || f.Column == 0 || strings.Contains(f.String(), "canary") {
					t.Errorf("fault %d has no position, or a secret: %s", i, f)
				}
			}
		})
	}
}

func manyFlows(n int) string {
	var b strings.Builder
	b.WriteString(" {")
	for i := range n {
		b.WriteString("f" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/26) + ": true, ")
	}
	return strings.TrimSuffix(b.String(), ", ") + "}"
}

// TestCodesOfTwoParties: what one party types does not meet the codes of the other.
func TestCodesOfTwoParties(t *testing.T) {
	mustParse(t, recording(`consent: {mode: required, dtmf: {grant: "1", deny: "2"}}`)+"signals: {dtmf: {pause: \"1\", resume: \"2*\"}}\n")
}
