package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/trunktap/trunktap"

// mayImport says which of our packages each package may import, tests aside.
// A pattern that ends in "/..." stands for all below it, and for itself. A
// package that is not listed fails the test: decide where it belongs.
var mayImport = map[string][]string{
	"media":        {"suppress"},
	"media/source": {"media"},
	"media/latch":  {"media", "media/source"},
	"media/relay":  {"media", "media/ice", "media/source", "media/latch", "media/relay/kernel", "media/report", "media/srtp", "media/srtp/dtls"},
	"media/jitter": {"media", "media/source"},

	"media/relay/kernel":            {},
	"media/relay/kernel/kerneltest": {"media/relay/kernel"},

	"media/codec":      {"media", "media/codec/amr", "media/codec/flac", "media/level"},
	"media/codec/amr":  {},
	"media/codec/flac": {},
	"media/codec/mp3":  {},
	"media/mix":        {"media", "media/resample"},
	"media/resample":   {},
	"media/level":      {},
	"media/quality":    {},
	"media/report":     {},
	"media/srtp":       {"media"},
	"media/srtp/dtls":  {"media/srtp"},
	"media/pcap":       {},
	"media/link":       {"media/pcap"},
	"media/dtmf":       {},
	"media/ice":        {},
	"media/overlay":    {"media", "media/codec", "media/source"},
	"media/mediatest":  {"media", "media/source", "media/codec"},

	"sip":                     {"sip/dns", "media", "media/srtp", "suppress"},
	"sip/dns":                 {},
	"sip/sdp":                 {"media", "suppress"},
	"sip/dialog":              {"sip", "sip/sdp"},
	"sip/journal":             {"sip"},
	"sip/journal/journaltest": {},
	"sip/callstate":           {"sip", "sip/sdp", "media", "suppress"},
	"sip/guard":               {"media", "suppress"},
	"sip/b2bua":               {"sip", "sip/guard", "sip/dns", "sip/sdp", "sip/dialog", "sip/journal", "sip/callstate", "media", "media/ice", "media/relay", "media/srtp", "suppress"},
	"sip/siprec/src":          {"sip", "sip/sdp", "sip/dialog", "sip/journal", "sip/siprec", "media", "media/codec", "media/resample"},
	"sip/siprec":              {"sip", "sip/guard", "sip/sdp", "sip/dialog", "sip/journal", "sip/callstate", "media", "media/relay", "media/report", "media/srtp", "suppress"},
	"sip/replay":              {"sip", "sip/callstate", "sip/sdp", "sip/siprec", "media", "media/source", "media/latch", "media/pcap", "media/srtp", "suppress"},
	"sip/siptest":             {"sip", "sip/sdp", "sip/dialog", "media", "media/pcap", "media/mediatest", "media/srtp"},

	"suppress":           {},
	"suppress/feed":      {"suppress"},
	"suppress/feed/ami":  {"suppress", "suppress/feed"},
	"suppress/feed/esl":  {"suppress", "suppress/feed"},
	"suppress/feed/nats": {"suppress", "suppress/feed"},

	"recorder":                 {"media", "media/source", "media/jitter", "media/codec", "media/level", "media/mix", "media/dtmf", "media/quality", "suppress"},
	"recorder/policy":          {"recorder", "media", "suppress"},
	"recorder/vfs":             {},
	"recorder/vfs/vfstest":     {"recorder/vfs"},
	"recorder/segment":         {"recorder", "recorder/vfs", "media/codec"},
	"recorder/seal":            {"recorder", "recorder/locked", "recorder/vfs"},
	"recorder/locked":          {},
	"recorder/store":           {"recorder", "recorder/vfs"},
	"recorder/store/bucket":    {"recorder", "recorder/store", "recorder/store/location", "recorder/vfs"},
	"recorder/store/location":  {},
	"recorder/store/s3test":    {},
	"recorder/store/storetest": {"recorder", "recorder/store"},
	"recorder/catalog":         {"recorder", "suppress"},
	"recorder/catalog/pgtest":  {},
	"recorder/audit":           {"recorder", "recorder/vfs"},
	"recorder/evidence":        {"recorder", "recorder/audit", "media/codec"},
	"recorder/retention":       {"recorder"},
	"recorder/plain":           {"recorder", "recorder/segment", "recorder/vfs", "media/codec"},
	"recorder/archive": {
		"recorder", "recorder/audit", "recorder/evidence", "recorder/retention", "recorder/segment", "recorder/seal", "recorder/store", "recorder/catalog", "recorder/vfs",
		"media", "media/codec", "media/codec/flac", "media/codec/mp3",
	},
	"recorder/api": {"recorder", "suppress"},

	"recorder/seal/service":        {"recorder", "recorder/seal"},
	"recorder/seal/kektest":        {"recorder", "recorder/seal"},
	"recorder/seal/pkcs11":         {"recorder", "recorder/seal", "recorder/seal/service"},
	"recorder/seal/pkcs11/softhsm": {},
	"recorder/seal/remote":         {"recorder", "recorder/seal", "recorder/seal/service"},

	"recorder/seal/remote/keyserver":  {"recorder", "recorder/seal", "recorder/seal/service", "recorder/seal/remote"},
	"recorder/seal/remote/remotetest": {},

	"recorder/seal/vault":           {"recorder", "recorder/seal", "recorder/seal/service"},
	"recorder/seal/vault/vaulttest": {},
	"recorder/seal/awskms":          {"recorder", "recorder/seal", "recorder/seal/service"},
	"recorder/seal/gcpkms":          {"recorder", "recorder/seal", "recorder/seal/service"},
	"recorder/seal/azurekv":         {"recorder", "recorder/seal", "recorder/seal/service"},

	"cmd/trunktap":         {"cmd/trunktap/...", "media/...", "sip/...", "suppress/...", "recorder/..."},
	"cmd/trunktap/config":  {"recorder/store/location"},
	"cmd/trunktap/picture": {"recorder"},
	"cmd/bench":            {"media/codec"},
	"cmd/demo":             {"cmd/trunktap/...", "media/...", "sip/...", "suppress", "recorder/..."},
}

// bans are the rules behind the table. They hold for whatever is imported on
// the way too, so that no new package opens a back door.
var bans = []struct {
	from, to string
	reason   string
}{
	{"media/...", "sip/...", "media is the common language of both halves: whoever speaks it must not depend on one of them"},
	{"media/...", "recorder/...", "no fault of recording may reach the relay: it knows taps, not what is behind them"},
	{"media/...", "cmd/...", "only cmd sees everything"},
	{"sip/...", "recorder/...", "the call comes first: signalling tells a media.Observer and does not know who listens"},
	{"sip/...", "cmd/...", "only cmd sees everything"},
	{"recorder/...", "sip/...", "one pipeline: it must not be able to tell a live call from a replayed one"},
	{"recorder/...", "media/relay", "the pipeline takes packets from taps alone"},
	{"recorder/...", "media/pcap", "the pipeline takes packets from taps alone"},
	{"recorder/...", "cmd/...", "only cmd sees everything"},
	{"suppress/...", "media/...", "what may be kept is decided by pure code: signals and times in, windows out"},
	{"suppress/...", "sip/...", "what may be kept is decided by pure code: signals and times in, windows out"},
	{"suppress/...", "recorder/...", "what may be kept is decided by pure code: signals and times in, windows out"},
	{"suppress/...", "cmd/...", "only cmd sees everything"},
	{"recorder", "recorder/...", "the root declares the interfaces that its children implement"},
	{"recorder/api", "recorder/archive", "the API asks for what it needs by interfaces of its own"},
	{"recorder/segment", "recorder/store", "the format of a segment does not depend on where it is kept"},
}

// impure are the standard packages that pure packages must do without.
var impure = []string{"os", "net", "net/http", "log", "log/slog", "os/signal", "syscall"}

// pure packages decide, they do nothing.
var pure = []string{"suppress", "media/jitter", "media/mix", "media/latch", "media/source"}

// testHelpers may be imported by tests and by each other alone.
var testHelpers = []string{
	"media/mediatest", "sip/siptest", "sip/journal/journaltest", "recorder/store/storetest", "recorder/store/s3test", "recorder/catalog/pgtest", "recorder/vfs/vfstest",
	"recorder/seal/kektest", "recorder/seal/pkcs11/softhsm", "recorder/seal/remote/remotetest", "recorder/seal/vault/vaulttest",
}

// helperUsers are no tests and still use such helpers: the demonstration
// places its call with the test agent.
var helperUsers = []string{"cmd/demo"}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
}

// mustList returns our packages by their paths within the module.
func mustList(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Deps,Standard", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	ours := map[string]listed{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if name, ok := strings.CutPrefix(p.ImportPath, module+"/"); ok {
			ours[name] = p
		}
	}
	if len(ours) < 10 {
		t.Fatalf("only %d packages: the test would hold nothing", len(ours))
	}
	return ours
}

func within(pattern, name string) bool {
	if root, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == root || strings.HasPrefix(name, root+"/")
	}
	return name == pattern
}

func names(paths []string) []string {
	var out []string
	for _, p := range paths {
		if name, ok := strings.CutPrefix(p, module+"/"); ok {
			out = append(out, name)
		}
	}
	return out
}

// faults lists every import that is not allowed, each with its reason.
func faults(ours map[string]listed) []string {
	var out []string
	for name, p := range ours {
		allowed, known := mayImport[name]
		if !known {
			out = append(out, name+" is not in the table of imports: add it with what it may import")
		}
		for _, i := range names(p.Imports) {
			if known && !slices.ContainsFunc(allowed, func(a string) bool { return within(a, i) }) {
				out = append(out, name+" imports "+i+", which the table does not allow"+reason(name, i))
			}
			if slices.Contains(testHelpers, i) && !slices.Contains(testHelpers, name) && !slices.Contains(helperUsers, name) {
				out = append(out, name+" imports "+i+", which is for tests")
			}
		}
		for _, d := range names(p.Deps) {
			if r := reason(name, d); r != "" {
				out = append(out, name+" depends on "+d+r)
			}
		}
		for _, i := range p.Imports {
			if slices.Contains(pure, name) && slices.Contains(impure, i) {
				out = append(out, name+" imports "+i+": it takes (input, now) and returns (output, deadline), and does nothing by itself")
			}
		}
	}
	slices.Sort(out)
	return out
}

// reason says why a dependency is banned; empty when it is not.
func reason(from, to string) string {
	for _, b := range bans {
		if within(b.from, from) && within(b.to, to) && from != to {
			return ": " + b.reason
		}
	}
	return ""
}

// TestImports holds the map of packages.
func TestImports(t *testing.T) {
	for _, f := range faults(mustList(t)) {
		t.Error(f)
	}
}

// TestImportsCanFail: each ban is found when somebody breaks it, directly or on
// the way, and a new package is asked for.
func TestImportsCanFail(t *testing.T) {
	for _, b := range bans {
		from, to := strings.TrimSuffix(b.from, "/..."), strings.TrimSuffix(b.to, "/...")
		if from == to {
			to += "/segment"
		}
		got := strings.Join(faults(map[string]listed{from: {Deps: []string{module + "/" + to}}}), "\n")
		if !strings.Contains(got, b.reason) {
			t.Errorf("%s on %s: %q", from, to, got)
		}
	}
	for _, c := range []struct {
		name string
		p    listed
		want string
	}{
		{"media/relay", listed{Imports: []string{module + "/media/codec"}}, "the table does not allow"},
		{"recorder/api", listed{Imports: []string{module + "/recorder/store"}}, "the table does not allow"},
		{"media/brandnew", listed{}, "not in the table"},
		{"suppress", listed{Imports: []string{"os"}}, "does nothing by itself"},
		{"recorder", listed{Imports: []string{module + "/media/mediatest"}}, "for tests"},
	} {
		if got := strings.Join(faults(map[string]listed{c.name: c.p}), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
	for name, allowed := range mayImport {
		for _, a := range allowed {
			if r := reason(name, strings.TrimSuffix(a, "/...")); r != "" {
				t.Errorf("the table allows %s what a rule bans: %s%s", name, a, r)
			}
		}
	}
}
