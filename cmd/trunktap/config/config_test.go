package config

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite example.yaml from the table")

// minimal is the smallest working file; trunk lines of tests are appended.
const minimal = `trunks:
  - name: a
    external: {next_hops: ["sip:192.0.2.1"]}
    internal: {next_hops: ["sip:10.0.0.5:5070;transport=tcp"]}
`

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, faults := Parse("t.yaml", []byte(text))
	if faults != nil {
		t.Fatalf("faults:\n%v", faults)
	}
	return c
}

var cmpNet = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{}),
}

func TestMinimal(t *testing.T) {
	want := Default()
	want.Trunks[0].Name = "a"
	want.Trunks[0].External = Side{
		Peers:    []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
		NextHops: []NextHop{{Host: "192.0.2.1", Port: 5060, Transport: "udp", Weight: 1}}, ICE: "strip", SRTP: "off", SRTPMethod: "sdes", Ping: pingDefault, Register: registerDefault,
	}
	want.Trunks[0].Internal = Side{
		Peers:    []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")},
		NextHops: []NextHop{{Host: "10.0.0.5", Port: 5070, Transport: "tcp", Weight: 1}}, ICE: "strip", SRTP: "off", SRTPMethod: "sdes", Ping: pingDefault, Register: registerDefault,
	}
	if d := cmp.Diff(want, mustParse(t, minimal), cmpNet); d != "" {
		t.Error(d)
	}
}

var (
	opusDefault   = Opus{Bitrate: 16000, Complexity: 1, Application: "voip"}
	encodeDefault = Encode{Mode: "live", As: "wav-pcmu"}
)

var beepDefault = Beep{Preset: "none", Frequency: 1400, Duration: 200 * time.Millisecond, Interval: 14 * time.Second, Level: -24, To: "both"}

var (
	pingDefault     = Ping{Timeout: 4 * time.Second, DownAfter: 3, UpAfter: 2}
	registerDefault = Register{Expires: time.Hour}
	plainSide       = Side{ICE: "strip", SRTP: "off", SRTPMethod: "sdes", Ping: pingDefault, Register: registerDefault}
)

// TestDefaults states the published defaults once more, by hand.
func TestDefaults(t *testing.T) {
	c := Default()
	want := &Config{
		SIP: SIP{Listen: []Listener{
			{"udp", netip.MustParseAddrPort("0.0.0.0:5060")}, {"tcp", netip.MustParseAddrPort("0.0.0.0:5060")},
		}, KeepAlive: 30 * time.Second, UDPBytesMax: 1300},
		Media: Media{Ports: PortRange{20000, 29999}, Engine: "auto", Kernel: Kernel{RingSize: 32 << 20, Pin: "/sys/fs/bpf/trunktap"}, CoalesceMax: time.Millisecond, Quarantine: 30 * time.Second, Timeout: 5 * time.Minute},
		Trunks: []Trunk{{Name: "trunk", Role: "trunk", External: plainSide, Internal: plainSide, Redirect: "pass", Registrations: "pass", Passing: Passing{Identity: "transparent", SessionTimer: "pass", SessionExpires: 30 * time.Minute, MinSE: 90 * time.Second}, Recording: TrunkRecording{
			Enabled: true, OnFailure: "allow", Storage: "default", Priority: "normal", Format: "ogg-opus", Opus: opusDefault, Encode: encodeDefault, DualChannel: true, Conceal: true, G726Packing: "rfc3551", InbandDTMF: "auto",
			Suppress: Suppress{IVR: true, Queue: true, Hold: true}, Suppressed: "cut", ExternalTransfer: "stop",
			Consent: "off", ConsentTimeout: time.Minute, ConsentDTMF: ConsentDTMF{From: "external"},
			Adhoc: true, Snippets: true, ForkMode: "failover", Announce: Announce{To: "both"}, Beep: beepDefault,
		}}},
		StationBase:  StationRecording{Enabled: true, Format: "ogg-opus", DualChannel: true, Suppressed: "cut"},
		StationsFrom: "auto",
		Recording:    Recording{SegmentMax: 5 * time.Minute, Lookback: 500 * time.Millisecond, WriteBudget: 4 << 20, WriteBudgetTotal: 1 << 30, SyncPeriod: 250 * time.Millisecond, Deferred: Deferred{RecordingsMax: 10_000, BytesMax: 64 << 30, Workers: 1}},
		Signals: Signals{
			HTTP: true, Info: Info{From: "internal"}, Conversation: Conversation{From: "internal"}, DTMF: SignalsDTMF{From: "internal"},
			NATS: NATS{Name: "main", Subjects: []string{"trunktap.signals.>"}, MaxAge: time.Hour},
		},
		Capture: Capture{Promiscuous: true, RingSize: 64 << 20},
		Storage: Storage{
			StoreAt: StoreAt{URL: "file:///var/lib/trunktap/recordings", Dir: "/var/lib/trunktap/recordings", Lock: ObjectLock{Mode: "none"}, PartSize: 8 << 20},
			Spool:   "/var/lib/trunktap/spool", Uploads: 4, Growing: true, SweepEvery: 24 * time.Hour, OnDiskLow: OnDiskLow{Warn: Share{Percent: 10}, At: Share{Percent: 2}, Do: "stop-new"},
		},
		Retention: Retention{Every: time.Hour, DeletionsMax: 10_000},
		Catalog:   Catalog{URL: "sqlite:///var/lib/trunktap/catalog.db", Path: "/var/lib/trunktap/catalog.db", ConnsMax: 4, Timeout: 5 * time.Second},
		Keys: Keys{
			Mode: "local", File: "/var/lib/trunktap/keys.json", RotatedFile: "/var/lib/trunktap/keys-rotated.json",
			OnUnreachable: "continue", OnRevoked: "stop", Cache: KeyCache{Renew: time.Hour, For: 24 * time.Hour, Check: time.Minute}, Timeout: 5 * time.Second, Tries: 3,
			PKCS11: KeysPKCS11{Label: "trunktap", Mechanism: "auto", Sessions: 4, Refresh: 30 * time.Second},
			Vault:  KeysVault{Mount: "transit", Key: "trunktap", Auth: "token"},
			Remote: KeysRemote{Client: "recorder"}, AWS: KeysAWS{Key: "alias/trunktap"},
			GCP: KeysGCP{Endpoint: "cloudkms.googleapis.com:443"}, Azure: KeysAzure{Key: "trunktap", Algorithm: "RSA-OAEP-256"},
		},
		Audit:   Audit{KeyFile: "/var/lib/trunktap/node-key.json", Dir: "/var/lib/trunktap/audit", Checkpoint: time.Minute, LocalMax: 1 << 30},
		API:     API{Listen: netip.MustParseAddrPort("127.0.0.1:8080"), TokenFile: "/var/lib/trunktap/api-token", SubscribersMax: 64},
		Limits:  Limits{CallsMax: 2000, DelayMax: time.Second, AnswersMax: 32 << 20},
		Restart: Restart{Calls: "keep", DowntimeMax: time.Minute, Journal: "/var/lib/trunktap/calls.journal", KeyDir: "auto"},
		Log:     Log{Level: "info", Format: "text"},
	}
	if d := cmp.Diff(want, c, cmpNet); d != "" {
		t.Error(d)
	}
}

// TestExample holds the example file to the table, and the table to itself:
// what is marked as default must be what a file without the key gives.
func TestExample(t *testing.T) {
	if *update {
		if err := os.WriteFile("example.yaml", []byte(generate()), 0o644); err != nil {
			t.Fatal(err)
		}
		Example = generate()
	}
	if d := cmp.Diff(generate(), Example); d != "" {
		t.Errorf("example.yaml is stale, run go test -update:\n%s", d)
	}
	c := mustParse(t, Example)
	least := Default()
	least.Trunks[0].Name = "carrier-a"
	got := Diff(least, c)
	want := Changes{NewCalls: []string{
		"trunks[carrier-a].external.peers", "trunks[carrier-a].external.next_hops",
		"trunks[carrier-a].internal.peers", "trunks[carrier-a].internal.next_hops",
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("keys that differ from the defaults (-want +got):\n%s", d)
	}
}

// TestExampleShownValues opens the keys that the example shows in a comment.
func TestExampleShownValues(t *testing.T) {
	var lines []string
	for line := range strings.SplitSeq(Example, "\n") {
		bare := strings.TrimSpace(line)
		key, _, ok := strings.Cut(strings.TrimPrefix(bare, "# "), ": ")
		if ok && strings.HasPrefix(bare, "# ") && !strings.Contains(key, " ") && !strings.Contains(bare, "not supported") &&
			strings.Contains("address media_address spool file token_file calls_max", key) {
			line = strings.Replace(line, "# ", "", 1)
		}
		lines = append(lines, line)
	}
	c := mustParse(t, strings.Join(lines, "\n"))
	if c.API.TokenFile != "/etc/trunktap/token" || c.Media.Address != netip.MustParseAddr("203.0.113.10") || c.Trunks[0].External.MediaAddress != c.Media.Address {
		t.Errorf("shown values were not taken: %+v %+v", c.API, c.Media)
	}
}

func TestExampleNamesEveryKey(t *testing.T) {
	walk(table(&Config{}), "", func(path string, n *node) {
		if n.doc == "" {
			t.Errorf("%s has no doc", path)
		}
		if !strings.Contains(Example, n.key+":") {
			t.Errorf("the example does not show %s", path)
		}
	})
}

func TestContractExample(t *testing.T) {
	// The values of the contract that this version takes.
	c := mustParse(t, `
sip: {listen: ["udp://0.0.0.0:5060", "tcp://[::]:5060"]}
media: {address: 203.0.113.10, ports: 20000-29999, engine: auto}
trunks:
  - name: carrier-a
    external: {peers: [198.51.100.0/24], next_hops: ["sip:sbc.example.net:5060;transport=udp"]}
    internal: {peers: [10.0.0.5/32, "2001:db8::5"], next_hops: ["sip:10.0.0.5:5060", "sip:[2001:db8::5];transport=tcp"]}
    identity: transparent
    media_address: 203.0.113.11
    recording:
      enabled: true
      on_failure: refuse
      format: wav-pcmu
      dual_channel: true
      early_media: true
      consent: required
      suppress: {ivr: true, queue: false, hold: true}
      suppressed: silence
      external_transfer: continue
      consult: false
      beep: {enabled: false, frequency: 1400, duration: 200ms, interval: 14s, level: -24}
stations: []
siprec: {}
signals: {http: false, headers: [], ami: [], esl: [], nats: {}, dtmf: {}}
storage: {url: "file:///srv/rec"}
catalog: {url: "sqlite:///srv/db/catalog.db"}
keys: {mode: local}
api: {listen: "127.0.0.1:8080", token_file: /etc/trunktap/token}
`)
	tr := c.Trunks[0]
	want := TrunkRecording{
		Enabled: true, OnFailure: "refuse", Storage: "default", Priority: "normal", Format: "wav-pcmu", SampleRate: 8000, Opus: opusDefault, Encode: encodeDefault, DualChannel: true, Conceal: true, G726Packing: "rfc3551", InbandDTMF: "auto", EarlyMedia: true, Consent: "required",
		Suppress: Suppress{IVR: true, Hold: true}, Suppressed: "silence", ExternalTransfer: "continue",
		ConsentTimeout: time.Minute, ConsentDTMF: ConsentDTMF{From: "external"},
		Adhoc: true, Snippets: true, ForkMode: "failover", Announce: Announce{To: "both"}, Beep: beepDefault,
	}
	if d := cmp.Diff(want, tr.Recording); d != "" {
		t.Error(d)
	}
	if got := c.MediaAddress(&tr, 0).String(); got != "203.0.113.11" {
		t.Errorf("media address %s", got)
	}
	if got := fmt.Sprint(tr.Internal.Peers, tr.Internal.NextHops); got != "[10.0.0.5/32 2001:db8::5/128] [sip:10.0.0.5:5060;transport=udp sip:[2001:db8::5]:5060;transport=tcp]" {
		t.Error(got)
	}
	if c.Storage.Spool != "/srv/db/spool" || c.Keys.File != "/srv/db/keys.json" || c.API.TokenFile != "/etc/trunktap/token" {
		t.Errorf("derived paths: %+v %+v %+v", c.Storage, c.Keys, c.API)
	}
}

func TestMediaAddressOrder(t *testing.T) {
	c := mustParse(t, minimal)
	tr := &c.Trunks[0]
	if c.MediaAddress(tr, 0).IsValid() {
		t.Error("an address out of nothing")
	}
	c.Media.Address = netip.MustParseAddr("192.0.2.9")
	tr.Internal.MediaAddress = netip.MustParseAddr("10.0.0.1")
	if got := fmt.Sprint(c.MediaAddress(tr, 0), c.MediaAddress(tr, 1)); got != "192.0.2.9 10.0.0.1" {
		t.Error(got)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "none.yaml")
	if _, f := Load(missing); len(f) != 1 || f[0].String() != missing+": cannot be read: no such file or directory" {
		t.Errorf("missing file: %v", f)
	}
	if _, f := Load(dir); len(f) != 1 {
		t.Errorf("a directory: %v", f)
	}
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, f := Load(good); f != nil {
		t.Errorf("good file: %v", f)
	}
	if err := os.WriteFile(good, []byte(strings.Repeat("# x\n", fileBytesMax/4+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, f := Load(good); len(f) != 1 || !strings.Contains(f[0].Problem, "too large") {
		t.Errorf("large file: %v", f)
	}
}

func TestAnchorsAndMerge(t *testing.T) {
	c := mustParse(t, `
trunks:
  - name: a
    external: {next_hops: ["sip:192.0.2.1"]}
    internal: {next_hops: ["sip:10.0.0.5"]}
    recording: &rec
      format: wav-pcm16
      consent: required
  - name: b
    external: {next_hops: ["sip:192.0.2.2"]}
    internal: {next_hops: ["sip:10.0.0.6"]}
    recording:
      <<: *rec
      consent: off
  - name: c
    external: {next_hops: ["sip:192.0.2.3"]}
    internal: {next_hops: ["sip:10.0.0.7"]}
    recording: *rec
`)
	var got []string
	for _, tr := range c.Trunks {
		got = append(got, tr.Recording.Format+" "+tr.Recording.Consent)
	}
	if s := strings.Join(got, ", "); s != "wav-pcm16 required, wav-pcm16 off, wav-pcm16 required" {
		t.Error(s)
	}
}

func TestDiff(t *testing.T) {
	old := mustParse(t, minimal)
	if ch := Diff(old, mustParse(t, minimal)); !ch.Empty() {
		t.Errorf("equal files differ: %+v", ch)
	}
	now := mustParse(t, `
sip: {listen: ["udp://0.0.0.0:5062", "tcp://0.0.0.0:5062"]}
media: {timeout: 1m, ports: 30000-30999}
storage: {url: "file:///srv/rec"}
recording: {segment_max: 1m}
trunks:
  - name: b
    external: {next_hops: ["sip:192.0.2.7"]}
    internal: {next_hops: ["sip:10.0.0.7"]}
  - name: a
    external: {next_hops: ["sip:192.0.2.1"]}
    internal: {next_hops: ["sip:10.0.0.5:5070;transport=tcp"]}
    recording: {format: wav-pcm16, suppress: {hold: false}}
`)
	want := Changes{
		NewCalls: []string{"recording.segment_max", "trunks[b]", "trunks[a].recording.format", "trunks[a].recording.suppress.hold"},
		Restart:  []string{"sip.listen", "media.ports", "media.timeout", "storage.url", "limits.calls_max"},
	}
	if d := cmp.Diff(want, Diff(old, now)); d != "" {
		t.Error(d)
	}
	if got := Diff(now, old).NewCalls; got[len(got)-1] != "trunks[b]" {
		t.Errorf("a trunk that went is not named: %v", got)
	}
}
