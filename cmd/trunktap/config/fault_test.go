package config

import (
	"strings"
	"testing"
	"time"
)

// TestFaults: every fault has its position, its key, what is wrong and what
// is allowed. Lines count from the top, "minimal" has four.
func TestFaults(t *testing.T) {
	trunk := func(lines string) string {
		return strings.TrimSuffix(minimal, "\n") + "\n" + lines
	}
	rec := func(line string) string { return trunk("    recording:\n      " + line + "\n") }
	hop := func(uri string) string {
		return "trunks:\n  - name: a\n    internal: {next_hops: [\"sip:10.0.0.5\"]}\n    external:\n      peers: [192.0.2.0/24]\n      next_hops: [" + uri + "]\n"
	}
	peers := func(list string) string {
		return "trunks:\n  - name: a\n    internal: {next_hops: [\"sip:10.0.0.5\"]}\n    external:\n      next_hops: [\"sip:192.0.2.1\"]\n      peers: " + list + "\n"
	}
	for _, c := range []struct {
		name, text string
		want       []string // each a part of one fault, in order; as many as there are faults
	}{
		// keys
		{"unknown key", minimal + "sipp: 1\n", []string{`t.yaml:5:1: sipp: the key is not known, did you mean "sip"?; allowed: sip, media, trunks`}},
		{"unknown nested", rec("formt: x"), []string{`t.yaml:6:7: trunks[0].recording.formt: the key is not known, did you mean "format"?`}},
		{"misplaced", minimal + "media:\n  format: x\n", []string{"6:3: media.format: the key is not known here, it belongs to trunks[].recording.format, stations[].recording.format, station_base.format, siprec.sources[].recording.format or log.format"}},
		{"unknown without neighbour", minimal + "zzzzzz: 1\n", []string{"5:1: zzzzzz: the key is not known; allowed: sip"}},
		{"twice", minimal + "media: {engine: auto}\nmedia: {engine: user}\n", []string{"6:1: media: the key stands there twice"}},
		{"twice below", minimal + "media:\n  engine: auto\n  engine: user\n", []string{"7:3: media.engine: the key stands there twice"}},
		{"no value", minimal + "media:\n", []string{"media: there is no value; allowed: a mapping of address, ports"}},
		{"null", minimal + "media: {engine: ~}\n", []string{"media.engine: there is no value; allowed: auto, kernel or user, or to leave the key out"}},
		{"list for mapping", minimal + "media: [1]\n", []string{"5:8: media: a list where a mapping belongs; allowed: a mapping of address"}},
		{"scalar for mapping", minimal + "media: 7\n", []string{`5:8: media: "7" where a mapping belongs`}},
		{"mapping for scalar", minimal + "media: {engine: {a: b}}\n", []string{"5:17: media.engine: a mapping where one value belongs"}},
		{"scalar for list", "trunks: a\n", []string{`1:9: trunks: "a" where a list belongs; allowed: a list of mappings of name, role, external`}},
		{"complex key", minimal + "? [a, b]\n: 1\n", []string{"t.yaml:"}},
		{"tag", minimal + "media: {engine: !!str auto}\n", []string{"5:17: media.engine: tags are not taken"}},
		{"alias without anchor", minimal + "media: *nope\n", []string{"media: alias *nope has no anchor"}},
		{"alias in a circle", minimal + "media: &m\n  engine: *n\nsip:\n  address: &n [*n]\n", []string{"media.engine: a list where", "sip.address: a list where"}},
		{"merge of a scalar", minimal + "media:\n  <<: 7\n", []string{"media: << merges mappings only"}},
		// file
		{"empty", "", []string{"t.yaml:1:1: the file is empty; allowed: at least one trunk"}},
		{"only comments", "# nothing\n", []string{"t.yaml:1:1: the file is empty"}},
		{"root list", "- a\n", []string{"1:1: a list where a mapping belongs"}},
		{"two documents", minimal + "---\nmedia: {}\n", []string{"6:1: a second YAML document begins here"}},
		{"syntax", "media: [\n", []string{"t.yaml:1:8: YAML syntax: "}},
		{"tab", "media:\n\tengine: auto\n", []string{"t.yaml:2:1: YAML syntax: "}},
		{"binary", "\xff\xfe\x00", []string{"t.yaml:1:1: the file is not UTF-8"}},
		{"deep", strings.Repeat("[", 100), []string{"t.yaml:1:1: the file is nested too deeply"}},
		{"no trunks", "media: {engine: auto}\n", []string{"trunks: the key is missing; allowed: a list of mappings"}},
		{"trunks empty", "trunks: []\n", []string{"1:9: trunks: the list has 0 entries; allowed: 1 to 1000"}},
		// durations
		{"bare duration", minimal + "media: {timeout: 30}\n", []string{`5:18: media.timeout: "30" has no unit, write 30ms, 30s or 30m; allowed: a duration such as 200ms, 14s or 5m, from 0s to 24h`}},
		{"bare zero", minimal + "media: {timeout: 0}\n", []string{"media.timeout: \"0\" has no unit"}},
		{"word duration", minimal + "media: {timeout: soon}\n", []string{`media.timeout: "soon" is no duration`}},
		{"negative duration", minimal + "media: {timeout: -5s}\n", []string{`media.timeout: "-5s" is no duration`}},
		{"foreign unit", minimal + "media: {timeout: 1d}\n", []string{`media.timeout: "1d" is no duration`}},
		{"spaced unit", minimal + "media: {timeout: 5 s}\n", []string{`media.timeout: "5 s" is no duration`}},
		{"long duration", minimal + "media: {quarantine: 11m}\n", []string{"media.quarantine: 11m is out of range"}},
		{"overflowing duration", minimal + "media: {quarantine: 99999999999999h}\n", []string{"is no duration"}},
		{"short segment", minimal + "recording: {segment_max: 10ms}\n", []string{"recording.segment_max: 10ms is out of range; allowed: a duration such as 200ms, 14s or 5m, from 1s to 1h"}},
		// sizes, numbers, words
		{"bare size", minimal + "recording: {write_budget: 1000}\n", []string{`recording.write_budget: "1000" has no unit, write 1000B, 1000KiB or 1000MiB`}},
		{"decimal unit", minimal + "recording: {write_budget: 64MB}\n", []string{`recording.write_budget: "64MB" is no size; allowed: a size such as 64MiB (B, KiB, MiB, GiB, TiB), from 64KiB to 1GiB`}},
		{"small size", minimal + "recording: {write_budget: 1KiB}\n", []string{"1KiB is out of range"}},
		{"overflowing size", minimal + "recording: {write_budget: 99999999TiB}\n", []string{"is no size"}},
		{"hex number", minimal + "limits: {calls_max: 0x10}\n", []string{`"0x10" is no whole number in plain decimal digits; allowed: a whole number from 1 to 100000`}},
		{"octal number", minimal + "limits: {calls_max: 010}\n", []string{`"010" is no whole number`}},
		{"grouped number", minimal + "limits: {calls_max: 1_000}\n", []string{`"1_000" is no whole number`}},
		{"fraction", minimal + "limits: {calls_max: 1.5}\n", []string{`"1.5" is no whole number`}},
		{"zero calls", minimal + "limits: {calls_max: 0}\n", []string{"0 is out of range"}},
		{"quoted number", minimal + "limits: {calls_max: \"10\"}\n", []string{`"10" is no whole number`}},
		{"yes", rec("enabled: yes"), []string{`6:16: trunks[0].recording.enabled: "yes" is no truth value; allowed: true or false`}},
		{"quoted true", rec(`enabled: "true"`), []string{`"true" is no truth value`}},
		{"word", rec("format: mp3"), []string{`trunks[0].recording.format: "mp3" is not known; allowed: ogg-opus, wav-pcm16, wav-pcmu, wav-pcma or flac`}},
		{"near word", rec("format: wav-pcm"), []string{`"wav-pcm" is not known, did you mean "wav-pcmu"?`}},
		{"truth for word", rec("consent: false"), []string{`trunks[0].recording.consent: "false" is no word; allowed: off or required`}},
		// names and trunks
		{"bad name", strings.Replace(minimal, "name: a", "name: A B", 1), []string{`2:11: trunks[0].name: "A B" is no name`}},
		{"number as name", strings.Replace(minimal, "name: a", "name: 7", 1), []string{`2:11: trunks[0].name: "7" is no text, put it into quotes`}},
		{"nameless", "trunks:\n  - external: {next_hops: [\"sip:192.0.2.1\"]}\n    internal: {next_hops: [\"sip:10.0.0.5\"]}\n", []string{"2:5: trunks[0].name: the key is missing"}},
		{"one side", "trunks:\n  - name: a\n    external: {next_hops: [\"sip:192.0.2.1\"]}\n", []string{"2:5: trunks[0].internal: the key is missing; allowed: a mapping of peers, next_hops"}},
		{"no next hops", "trunks:\n  - name: a\n    external: {peers: [192.0.2.1]}\n    internal: {next_hops: [\"sip:10.0.0.5\"]}\n", []string{"3:15: trunks[0].external.next_hops: the key is missing; allowed: a list, each sip:host"}},
		{"empty next hops", hop(""), []string{"6:18: trunks[0].external.next_hops: the list has 0 entries; allowed: 1 to 16"}},
		{"same name", minimal + "  - name: a\n    external: {next_hops: [\"sip:192.0.2.2\"]}\n    internal: {next_hops: [\"sip:10.0.0.6\"]}\n", []string{`5:11: trunks[1].name: "a" is the name of trunks[0]`}},
		// next hops
		{"no scheme", hop(`"192.0.2.1:5060"`), []string{`6:19: trunks[0].external.next_hops[0]: "192.0.2.1:5060" is no SIP URI; allowed: sip:host[:port]`}},
		{"user", hop(`"sip:alice@192.0.2.1"`), []string{"names a user"}},
		{"tls", hop(`"sip:192.0.2.1;transport=tls"`), []string{"no entry of sip.listen can reach it"}},
		{"sips", hop(`"sips:192.0.2.1"`), []string{"write sip: and ;transport=tls"}},
		{"sctp", hop(`"sip:192.0.2.1;transport=sctp"`), []string{"is no next hop"}},
		{"bare v6", hop(`"sip:2001:db8::1"`), []string{"holds an IPv6 address without brackets"}},
		{"bad v6", hop(`"sip:[2001:zz]"`), []string{"is no next hop"}},
		{"port 0", hop(`"sip:192.0.2.1:0"`), []string{"port 0 in"}},
		{"port 70000", hop(`"sip:192.0.2.1:70000"`), []string{"port 70000 in"}},
		{"bad dotted", hop(`"sip:192.0.2.300"`), []string{`"192.0.2.300" in "sip:192.0.2.300" is no host name and no address`}},
		{"bad host", hop(`"sip:-a.example"`), []string{"is no host name"}},
		{"wildcard hop", hop(`"sip:0.0.0.0"`), []string{"0.0.0.0 cannot be sent to"}},
		{"number as hop", hop("5060"), []string{`"5060" is no SIP URI`}},
		{"hop twice", hop(`"sip:192.0.2.1", "sip:192.0.2.1:5060;transport=UDP"`), []string{"6:36: trunks[0].external.next_hops[1]: sip:192.0.2.1:5060;transport=udp stands there twice"}},
		{"unreachable transport", "sip: {listen: [\"udp://0.0.0.0:5060\"]}\n" + hop(`"sip:192.0.2.1;transport=tcp"`), []string{"next_hops[0]: no entry of sip.listen can reach it"}},
		{"unreachable family", hop(`"sip:[2001:db8::1]"`), []string{"next_hops[0]: no entry of sip.listen can reach it"}},
		{
			"name without peers", "trunks:\n  - name: a\n    internal: {next_hops: [\"sip:10.0.0.5\"]}\n    external:\n      next_hops: [\"sip:192.0.2.1\", \"sip:sbc.example\"]\n",
			[]string{"5:7: trunks[0].external.peers: the key is missing, and next_hops[1] is a name, whose addresses may change; allowed: a list, each an IP address"},
		},
		// peers
		{"host bits", peers("[198.51.100.7/24]"), []string{"6:15: trunks[0].external.peers[0]: 198.51.100.7/24 has bits set behind /24, did you mean 198.51.100.0/24 or 198.51.100.7/32?"}},
		{"no peer", peers("[example.net]"), []string{`"example.net" is no address and no network`}},
		{"bits", peers("[10.0.0.0/33]"), []string{`"10.0.0.0/33" is no address`}},
		{"mapped", peers(`["::ffff:10.0.0.0/104"]`), []string{"write it as IPv4"}},
		{"zone", peers(`["fe80::1%eth0"]`), []string{"is no address and no network"}},
		{"empty peers", peers("[]"), []string{"6:14: trunks[0].external.peers: the list has 0 entries"}},
		{"overlap in a side", peers("[192.0.2.0/24, 192.0.2.7]"), []string{"6:29: trunks[0].external.peers[1]: 192.0.2.7/32 overlaps 192.0.2.0/24 of trunks[0].external.peers[0]"}},
		{"overlap of sides", peers("[10.0.0.0/8]"), []string{"trunks[0].external.peers[0]: 10.0.0.0/8 overlaps 10.0.0.5/32 of trunks[0].internal.peers[0]"}},
		{"everybody", peers(`[0.0.0.0/0, "::/0"]`), []string{"0.0.0.0/0 overlaps 10.0.0.5/32"}},
		{
			"overlap of trunks", minimal + "  - name: b\n    external: {next_hops: [\"sip:192.0.2.1:5080\"]}\n    internal: {next_hops: [\"sip:10.0.0.6\"]}\n",
			[]string{"trunks[1].external.peers[0]: 192.0.2.1/32 overlaps 192.0.2.1/32 of trunks[0].external.peers[0]"},
		},
		// sockets
		{"listener shape", minimal + "sip: {listen: [5060]}\n", []string{`5:16: sip.listen[0]: "5060" is no listening address; allowed: udp://, tcp://`}},
		{"listener name", minimal + "sip: {listen: [\"udp://localhost:5060\", \"tcp://[::]:5060\"]}\n", []string{`"localhost:5060" is no IP address and port`}},
		{"listener v6", minimal + "sip: {listen: [\"udp://::1:5060\", \"tcp://[::]:5060\"]}\n", []string{"an IPv6 address stands in brackets"}},
		{"listener port", minimal + "sip: {listen: [\"udp://0.0.0.0:0\", \"tcp://[::]:5060\"]}\n", []string{`port 0 in "0.0.0.0:0"`}},
		{"listener tls", minimal + "sip: {listen: [\"tls://0.0.0.0:5061\", \"tcp://[::]:5060\"]}\n", []string{"no entry of sip.listen can reach it", "tls:// needs a certificate"}},
		{"listener sctp", minimal + "sip: {listen: [\"sctp://0.0.0.0:5061\"]}\n", []string{`transport "sctp" is not known`}},
		{"next hop mapping", hop(`{uri: "sip:192.0.2.1", weight: 0}`), []string{"next_hops[0].weight: 0 is out of range"}},
		{"next hop without uri", hop(`{priority: 1}`), []string{"next_hops[0].uri: the key is missing"}},
		{"next hop twice", hop(`"sip:192.0.2.1", {uri: "sip:192.0.2.1", priority: 3}`), []string{"sip:192.0.2.1:5060;transport=udp stands there twice"}},
		{"ping interval", minimal + "limits: {delay_max: 1}\n", []string{"limits.delay_max: \"1\" has no unit"}},
		{"challenge without a realm", strings.Replace(minimal, "external: {", "external: {challenge: true, auth: {username: a, password_file: /p}, ", 1), []string{"external.challenge: there is no realm"}},
		{"register without auth", strings.Replace(minimal, "external: {", "external: {register: {server: \"sip:192.0.2.9;transport=tls\"}, ", 1), []string{"external.register: there are no credentials", "external.register.server: no entry of sip.listen"}},
		{"udp_bytes_max", minimal + "sip: {udp_bytes_max: 100}\n", []string{"sip.udp_bytes_max: 100 is out of range; allowed: a whole number from 400 to 65535, or 0"}},
		{"listener sctp", minimal + "sip: {listen: [\"sctp://0.0.0.0:5061\", \"tcp://[::]:5060\"]}\n", []string{`transport "sctp" is not known`}},
		{"listener twice", minimal + "sip: {listen: [\"udp://[::]:5060\", \"udp://[::]:5060\", \"tcp://[::]:5060\"]}\n", []string{"sip.listen[1]: udp://[::]:5060 stands there twice"}},
		{"listener among ports", minimal + "sip: {listen: [\"udp://[::]:20000\", \"tcp://[::]:20000\"]}\n", []string{"sip.listen[0]: port 20000 lies among media.ports"}},
		{"api on sip", minimal + "api: {listen: \"127.0.0.1:5060\"}\n", []string{"5:15: api.listen: 127.0.0.1:5060 is taken by sip.listen[1]"}},
		{"pprof on api", minimal + "pprof: {listen: \"127.0.0.1:8080\"}\n", []string{"pprof.listen: 127.0.0.1:8080 is taken by api.listen"}},
		{"pprof outside", minimal + "pprof: {listen: \"0.0.0.0:6060\"}\n", []string{"pprof.listen: 0.0.0.0:6060 is reachable from outside; allowed: a loopback address"}},
		{"api shape", minimal + "api: {listen: 8080}\n", []string{`api.listen: "8080" is no IP address and port`}},
		{"media address", minimal + "media: {address: 0.0.0.0}\n", []string{"media.address: 0.0.0.0 cannot be sent to"}},
		{"media name", minimal + "media: {address: sbc.example}\n", []string{`media.address: "sbc.example" is no IP address`}},
		// ports
		{"port shape", minimal + "media: {ports: 20000}\n", []string{`media.ports: "20000" is no range of ports`}},
		{"odd start", minimal + "media: {ports: 20001-29999}\n", []string{"begins at an odd port"}},
		{"even end", minimal + "media: {ports: 20000-30000}\n", []string{"ends at an even port"}},
		{"backwards", minimal + "media: {ports: 30000-20001}\n", []string{"has no room for one call"}},
		{"privileged", minimal + "media: {ports: 80-2001}\n", []string{"privileged"}},
		{"beyond", minimal + "media: {ports: 60000-70001}\n", []string{"goes beyond port 65535"}},
		{"too few", minimal + "media: {ports: 20000-20099}\nlimits: {calls_max: 26}\n", []string{"6:21: limits.calls_max: 26 calls take 104 ports, media.ports has 100; allowed: at most 25, or more ports"}},
		// paths
		{"relative", minimal + "api: {token_file: token}\n", []string{`api.token_file: "token" is no absolute path`}},
		{"host in URL", minimal + "storage: {url: \"file://var/lib\"}\n", []string{`names the host "var", a local path has three slashes`}},
		{"root URL", minimal + "storage: {url: \"file:///\"}\n", []string{"has no usable path"}},
		{"no URL", minimal + "storage: {url: /var/lib}\n", []string{`"/var/lib" is no URL; allowed: file:///an/absolute/directory`}},
		{"spool in store", minimal + "storage: {url: \"file:///srv/rec\", spool: /srv/rec/spool}\n", []string{"storage.spool: /srv/rec/spool lies in the storage /srv/rec"}},
		{"store in spool", minimal + "storage: {url: \"file:///srv/rec\", spool: /srv}\n", []string{"storage.url: /srv/rec lies in storage.spool"}},
		{"token in store", minimal + "api: {token_file: /var/lib/trunktap/recordings/t}\n", []string{"api.token_file: /var/lib/trunktap/recordings/t lies in the storage"}},
		{"one file twice", minimal + "api: {token_file: /var/lib/trunktap/catalog.db}\n", []string{"api.token_file: /var/lib/trunktap/catalog.db is catalog.url already"}},
		// what this version does not have
		{"identity", trunk("    identity: hidden\n"), []string{`5:15: trunks[0].identity: "hidden" is not known`}},
		{"bad beep", rec("beep: {enabled: false, level: 3}"), []string{"trunks[0].recording.beep.level: 3 is out of range"}},
		{"kernel", minimal + "media: {kernel: {interfaces: [\"eth 0\"], ring_size: 7B, pin: trunktap}}\n", []string{
			`"eth 0" is no name of an interface`, "media.kernel.ring_size: 7B is out of range", `"trunktap" is no absolute path`,
		}},
		{"sip tls without a key", minimal + "sip: {tls: {cert: /a}}\n", []string{"sip.tls.cert: a certificate without its key"}},
		{"sip tls without a certificate", minimal + "sip: {tls: {key: /a}}\n", []string{"sip.tls.key: a key without its certificate"}},
		{"ftp", minimal + "storage: {url: \"ftp://bucket\"}\n", []string{"storage.url: scheme \"ftp\" is not known; allowed: file://"}},
		{"postgres without a database", minimal + "catalog: {url: \"postgres://u:secret@db/\"}\n", []string{`catalog.url: "postgres://u:xxxxx@db/" names no database`}},
		{"country", minimal + "catalog: {country: \"049\"}\n", []string{`catalog.country: "049" is no country code`}},
		{"node", minimal + "catalog: {node: \"a b\"}\n", []string{`catalog.node: "a b" is no name of a node`}},
		{"mysql", minimal + "catalog: {url: \"mysql://db/x\"}\n", []string{`catalog.url: scheme "mysql" is not known`}},
		{"none", minimal + "keys: {mode: none}\n", []string{`5:14: keys.mode: recordings would not be sealed`}},
		{"understood", minimal + "keys: {i_understand: true}\n", []string{`5:22: keys.i_understand: it belongs to mode none, and mode local is configured; allowed: with mode: none alone`}},
		{"rotate what", minimal + "keys: {rotate: monthy}\n", []string{`5:16: keys.rotate: "monthy" is not known, did you mean "monthly"?; allowed: daily, weekly, monthly, yearly or a duration`}},
		{"rotate unit", minimal + "keys: {rotate: 30}\n", []string{`5:16: keys.rotate: "30" has no unit`}},
		{"rotate none", minimal + "keys: {mode: none, i_understand: true, rotate: daily}\n", []string{`keys.rotate: mode none has no keys; allowed: with mode local, pkcs11, vault, remote or azure`}},
		{"rotate itself", minimal + "keys: {mode: gcp-kms, rotate: daily}\n", []string{`keys.rotate: mode gcp-kms rotates its keys itself, by its own settings`}},
		{"former", minimal + "keys: {former: [vault, local, vault]}\n", []string{`5:24: keys.former[1]: local is keys.mode`, `5:31: keys.former[2]: vault stands there twice`}},
		{"key policies", minimal + "keys: {on_unreachable: wait, on_revoked: ignore, cache: {renew: 0s, for: 1, check: 2h}}\n", []string{
			`5:24: keys.on_unreachable: "wait" is not known; allowed: continue or stop`, `5:42: keys.on_revoked: "ignore" is not known`,
			`5:65: keys.cache.renew: 0s is out of range`, `5:74: keys.cache.for: "1" has no unit`, `5:84: keys.cache.check: 2h is out of range`,
		}},
		// all at once, in order of position
		{
			"many", minimal + "    identity: hidden\nmedia: {timeout: 5, engine: usr}\nlog: {level: loud}\nx: 1\n",
			[]string{"5:15: trunks[0].identity", "6:18: media.timeout", `6:29: media.engine: "usr" is not known, did you mean "user"?`, "7:14: log.level", "8:1: x:"},
		},
		{"columns count characters", minimal + "log: {\"level\": \"äöü\", format: xml}\n", []string{"5:16: log.level", "5:31: log.format"}},
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
				if f.Line == 0 || f.Column == 0 {
					t.Errorf("fault %d has no position: %s", i, f)
				}
			}
		})
	}
}

// TestBombs: no small file takes much time or memory.
func TestBombs(t *testing.T) {
	aliases := "x: &a0 {}\n"
	for i := range 30 {
		aliases += "y" + string(rune('a'+i%26)) + ": &a" + string(rune('1'+i%9)) + " [*a0, *a0, *a0]\n"
	}
	peers := "trunks:\n  - &t\n    name: a\n    internal: {next_hops: [\"sip:10.0.0.5\"]}\n    external:\n      next_hops: [\"sip:192.0.2.1\"]\n      peers: [" +
		strings.Repeat("192.0.2.1, ", 999) + "192.0.2.1]\n" + strings.Repeat("  - *t\n", 999)
	for name, text := range map[string]string{
		"aliases":   aliases,
		"flow":      strings.Repeat("[", fileBytesMax),
		"maps":      strings.Repeat("{a: ", fileBytesMax/4),
		"lists":     strings.Repeat("- ", fileBytesMax/2),
		"lines":     strings.Repeat("[a,\n", 100_000),
		"questions": strings.Repeat("? ", 100_000),
		"indent":    deepIndent(1000),
		"trunks":    peers,
		"keys":      "media:\n" + strings.Repeat("  zz: 1\n", 8_000),
		"long word": minimal + "media: {engine: " + strings.Repeat("u", 500_000) + "}\n",
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			_, faults := Parse("t.yaml", []byte(text))
			if len(faults) == 0 || len(faults) > faultsMax {
				t.Errorf("%d faults", len(faults))
			}
			if n := len(faults.Error()); n > 1<<20 {
				t.Errorf("%d bytes of faults", n)
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func deepIndent(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	f.Add(minimal)
	f.Add(Example)
	for _, s := range []string{"", "a: *a", "&a [*a]", "<<: {}", "? a\n: b", "- - -", "a: |\n b", "trunks: [{name: a, external: &x {<<: *x}}]", "\"", "a: !!x y", "%YAML 1.2\n---\na: b", "{a: b, ? c : d}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, faults := Parse("t.yaml", []byte(text))
		if (c == nil) == (faults == nil) {
			t.Fatalf("config %v with faults %v", c, faults)
		}
		for _, x := range faults {
			if x.Problem == "" || !strings.HasPrefix(x.String(), "t.yaml") {
				t.Errorf("fault %+v", x)
			}
		}
		if c != nil && (len(c.Trunks)+len(c.SIPREC.Sources) == 0 || len(c.Trunks) > 0 && len(c.Trunks[0].External.Peers) == 0 || !Diff(c, c).Empty()) {
			t.Errorf("a config that cannot be: %+v", c)
		}
	})
}
