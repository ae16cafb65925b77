package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/suppress"
)

// shownStation is a station's recording of 9 s with everything that one may have;
// hostile text stands where a peer or a source may put it.
func shownStation() *recorder.Manifest {
	one := 1
	return &recorder.Manifest{
		Version: 1, ID: "20261122T163608Z-1f0c9a3b5d7e8f60-st1", Conversation: "conv", Kind: recorder.KindStation, User: "ali\x1bce", Other: "bob",
		Consent: "granted", Trunk: "carrier-a", Format: codec.WAVPCM16, SampleRate: 8000, Suppressed: "cut", Origin: captureStart.Add(time.Second),
		Call: recorder.Call{
			SIPCallID: "x@y", Direction: "inbound", From: "sip:+4930@example.net", To: "sip:100@pbx", Start: captureStart,
			Answer: captureStart.Add(500 * time.Millisecond), End: captureStart.Add(10 * time.Second), EndCause: "bye",
		},
		RealMS: 9000, AudioMS: 8000, Channels: []recorder.Channel{{Side: "external", Party: "sip:+4930@example.net"}, {Side: "internal"}},
		Windows: []recorder.Window{
			{Reason: "hold", RealMS: 2000, EndRealMS: 5000, Source: "sdp", Channel: &one},
			{Reason: "pause", RealMS: 6000, EndRealMS: 7000, Source: "h\x9bttp", LateMS: 900, MissedMS: 400},
		},
		Signals: []recorder.ManifestSignal{
			{Event: suppress.AgentJoin, At: captureStart.Add(-200 * time.Millisecond), Source: "ami", User: "ali\x1bce", Role: suppress.RoleAgent},
			{Event: suppress.PauseStart, At: captureStart.Add(7 * time.Second), Source: "http", LateMS: 900, MissedMS: 400, Reasons: []string{"pause", "hold"}},
			{Event: suppress.SnippetStart, At: captureStart.Add(7500 * time.Millisecond), Source: "http", User: "bob", Recording: "r-sn1"},
			{Event: suppress.SnippetEnd, At: captureStart.Add(8 * time.Second), Source: "http", User: "bob", Recording: "r-sn1"},
			{Event: suppress.AdhocStart, At: captureStart.Add(8 * time.Second), Source: "http", User: "bob", Refused: "the user is not on the call"},
		},
		Refused: map[string]int64{"signals": 7},
	}
}

func TestDescribe(t *testing.T) {
	text := describe(shownStation())
	for _, line := range strings.Split(strings.TrimSpace(`
kind           station
user           ali�ce
other          bob
consent        granted
channel 0      external, sip:+4930@example.net
channel 1      internal
not listed     7 of signals: beyond a limit
WINDOW  CHANNEL  REAL    TO      SOURCE  LATE MS  MISSED MS
hold    1        0:02.0  0:05.0  sdp     0        0
pause   all      0:06.0  0:07.0  h�ttp   900      400
SIGNAL         REAL     SOURCE  ABOUT                   LATE MS  MISSED MS  DID                                   ACTIVE
agent.join     -0:01.2  ami     user=ali�ce role=agent  0        0          -                                     -
pause.start    0:06.0   http    -                       900      400        -                                     pause,hold
snippet.start  0:06.5   http    user=bob                0        0          began r-sn1                           -
snippet.end    0:07.0   http    user=bob                0        0          ended r-sn1                           -
adhoc.start    0:07.0   http    user=bob                0        0          refused: the user is not on the call  -
`), "\n") {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("there is no line %q in\n%s", line, text)
		}
	}
	if strings.Contains(text, "\x1b") || strings.Contains(text, "h\x9b") || strings.Contains(text, "SEGMENT") || !strings.Contains(text, "\nrecorded from ") {
		t.Error(text)
	}
	plain := describe(&recorder.Manifest{ID: "r1", Kind: recorder.KindTrunk})
	for _, word := range []string{"user", "other", "consent", "SIGNAL", "WINDOW", "recorded from", "not listed"} {
		if strings.Contains(plain, word) {
			t.Errorf("%s of nothing:\n%s", word, plain)
		}
	}
	m := shownStation()
	for range rowsShown {
		m.Signals = append(m.Signals, recorder.ManifestSignal{Event: suppress.HoldStart})
	}
	if text := describe(m); strings.Count(text, "hold.start") != rowsShown-5 || !strings.Contains(text, "--json has all") {
		t.Errorf("a long table:\n%s", text)
	}
}

func TestListing(t *testing.T) {
	trunk := *shownStation()
	trunk.ID, trunk.Kind, trunk.User = "r1", recorder.KindTrunk, ""
	print := func(all ...recorder.Manifest) [][]string {
		var out bytes.Buffer
		if err := printListing(&env{stdout: &out, stderr: &out}, listing{Recordings: all}); err != nil {
			t.Fatal(err)
		}
		var rows [][]string
		for line := range strings.Lines(out.String()) {
			rows = append(rows, strings.Fields(line)[:3])
		}
		return rows
	}
	if d := cmp.Diff([][]string{{"ID", "KIND", "STARTED"}}, print()); d != "" {
		t.Error(d)
	}
	date := trunk.Origin.Local().Format(time.DateOnly)
	if d := cmp.Diff([][]string{{"ID", "KIND", "STARTED"}, {"r1", "trunk", date}}, print(trunk)); d != "" {
		t.Error(d)
	}
	want := [][]string{{"ID", "KIND", "USER"}, {"r1", "trunk", "-"}, {shownStation().ID, "station", "ali�ce"}}
	if d := cmp.Diff(want, print(trunk, *shownStation())); d != "" {
		t.Error(d)
	}
}

// mustKeep publishes a recording without audio into the archive of a site.
func mustKeep(t *testing.T, a *archive.Archive, m *recorder.Manifest) {
	t.Helper()
	sink, err := a.NewSink(t.Context(), m.ID, recorder.Prefix(m.Call.Start, m.Conversation, m.ID))
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Publish(m); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSeveralRecordingsOfOneCall lists and shows them by kind, user and
// conversation, from the store and by the daemon.
func TestSeveralRecordingsOfOneCall(t *testing.T) {
	_, file, cfg := mustSite(t)
	a, err := archive.Open(archiveConfig(cfg))
	if err != nil {
		t.Fatal(err)
	}
	m := shownStation()
	m.RealMS, m.AudioMS, m.Windows = 1000, 0, []recorder.Window{{Reason: "pause", EndRealMS: 1000, Source: "http"}}
	session := strings.TrimSuffix(m.ID, "-st1")
	for _, c := range []struct {
		suffix, conversation, user string
		kind                       recorder.Kind
	}{{"", "conv", "", recorder.KindTrunk}, {"-st1", "conv", "alice", recorder.KindStation}, {"-ad1", "conv", "bob", recorder.KindAdhoc}, {"-st2", "other", "bob", recorder.KindStation}} {
		m.ID, m.Conversation, m.User, m.Kind = session+c.suffix, c.conversation, c.user, c.kind
		mustKeep(t, a, m)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	check := func(from string) {
		t.Helper()
		for _, c := range []struct {
			args string
			want string
		}{
			{"", "-st2 -ad1 -st1 "}, // of one moment: in the order in which they were published
			{"--oldest", " -st1 -ad1 -st2"},
			{"--user bob", "-st2 -ad1"},
			{"--user bob --kind station", "-st2"},
			{"--conversation conv --kind station", "-st1"},
			{"--conversation other", "-st2"},
			{"--user none", "?"},
			{"--user ali", "?"},
		} {
			out := mustRun(t, append(strings.Fields("ls --config "+file), strings.Fields(c.args)...)...)
			var got []string
			for line := range strings.Lines(out) {
				if id, _, _ := strings.Cut(line, " "); id != "ID" {
					got = append(got, strings.TrimPrefix(id, session))
				}
			}
			if got == nil {
				got = []string{"?"}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s: ls %s: %q, want %q:\n%s", from, c.args, got, c.want, out)
			}
		}
		if out := mustRun(t, "show", session+"-ad1", "--config", file); !strings.Contains(out, "bob") || !strings.Contains(out, "adhoc") {
			t.Errorf("%s: %s", from, out)
		}
		mustRun(t, "verify", "--config", file)
	}
	check("store")
	stop := serving(t, file, cfg)
	check("daemon")
	if code, log := stop(); code != exitFine {
		t.Errorf("%d %s", code, log)
	}
	if r := command(t, "ls", "--kind", "x", "--config", file); r.code != exitUsage {
		t.Errorf("%+v", r)
	}
}

// What copies lack is shown.
func TestShowOfCopies(t *testing.T) {
	text := describe(&recorder.Manifest{RealMS: 60_000, Copies: []recorder.Copy{{
		Servers: []string{"sip:a@192.0.2.1", "sip:b@192.0.2.2"}, SentMS: [2]int64{57_980, 41_000}, UnsentMS: [2]int64{2020, 19_000}, ThroughMS: 59_000,
		Spans: []recorder.CopySpan{{Side: "external", EndRealMS: 2020, Unsent: "no_server"}, {Side: "external", RealMS: 2020, EndRealMS: 60_000, Server: "sip:b@192.0.2.2"}},
	}}})
	for _, want := range []string{
		"sent to", "sip:a@192.0.2.1, sip:b@192.0.2.2: external 0:57.9 of 1:00.0, internal 0:41.0 of 1:00.0; what follows 0:59.0 is not known",
		"COPY", "no_server", "0:02.0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}
