package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/pcap"
)

// result of a command line.
type result struct {
	code        int
	out, errOut string
}

func command(t *testing.T, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	code := run(t.Context(), args, &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

// mustRun runs a command that has to succeed and returns what it printed.
func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	r := command(t, args...)
	if r.code != exitFine {
		t.Fatalf("trunktap %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.errOut)
	}
	return r.out
}

var (
	captureStart = time.Date(2026, 11, 22, 16, 36, 8, 0, time.UTC)
	carrier      = netip.MustParseAddrPort("198.51.100.7:5060")
	pbx          = netip.MustParseAddrPort("10.0.0.5:5060")
)

// sdpBody offers or answers PCMU from one address.
func sdpBody(a netip.AddrPort) string {
	return fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %[2]d RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n", a.Addr(), a.Port())
}

func sipMessage(first, cseq, body string, extra ...string) []byte {
	lines := append([]string{
		first, "Via: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bK" + strings.ReplaceAll(cseq, " ", ""),
		"From: <sip:+49301234567@example.net>;tag=a", "Call-ID: test-call@198.51.100.7", "CSeq: " + cseq, "Max-Forwards: 70",
	}, extra...)
	if body != "" {
		lines = append(lines, "Content-Type: application/sdp")
	}
	lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)), "", body)
	return []byte(strings.Join(lines, "\r\n"))
}

// writeCall writes a capture of a call of three seconds in which both sides
// speak all the time, answered after 100 ms.
func writeCall(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := pcap.NewWriter(f)
	if err != nil {
		t.Fatal(err)
	}
	send := func(after time.Duration, src, dst netip.AddrPort, payload []byte) {
		if err := w.WriteUDP(captureStart.Add(after), src, dst, payload); err != nil {
			t.Fatal(err)
		}
	}
	const to, toTag, contact = "To: <sip:alice@example.com>", "To: <sip:alice@example.com>;tag=b", "Contact: <sip:x@10.0.0.5>"
	caller, callee := netip.AddrPortFrom(carrier.Addr(), 4000), netip.AddrPortFrom(pbx.Addr(), 6000)
	send(0, carrier, pbx, sipMessage("INVITE sip:alice@10.0.0.5 SIP/2.0", "1 INVITE", sdpBody(caller), to, contact))
	send(100*time.Millisecond, pbx, carrier, sipMessage("SIP/2.0 200 OK", "1 INVITE", sdpBody(callee), toTag, contact))
	send(101*time.Millisecond, carrier, pbx, sipMessage("ACK sip:x@10.0.0.5 SIP/2.0", "1 ACK", "", toTag))
	for i := range 150 {
		at := 100*time.Millisecond + time.Duration(i)*20*time.Millisecond
		send(at, caller, callee, rtpPacket(1, i, 0x10))
		send(at+time.Millisecond, callee, caller, rtpPacket(2, i, 0x90))
	}
	send(3100*time.Millisecond, carrier, pbx, sipMessage("BYE sip:x@10.0.0.5 SIP/2.0", "2 BYE", "", toTag))
	send(3101*time.Millisecond, pbx, carrier, sipMessage("SIP/2.0 200 OK", "2 BYE", "", toTag))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func rtpPacket(ssrc byte, i int, sample byte) []byte {
	ts := i * 160
	b := []byte{0x80, 0, byte(i >> 8), byte(i), byte(ts >> 24), byte(ts >> 16), byte(ts >> 8), byte(ts), 0, 0, 0, ssrc}
	return append(b, bytes.Repeat([]byte{sample, sample ^ 0x80}, 80)...)
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string // part of what is printed
	}{
		{nil, 0, "Commands:"},
		{[]string{"--help"}, 0, "serve"},
		{[]string{"replay", "--help"}, 0, "--external"},
		{[]string{"nonsense"}, 2, "trunktap: "},
		{[]string{"serve"}, 2, "--config"},
		{[]string{"ls"}, 2, "--config"},
		{[]string{"ls", "--config", "x", "--limit", "0"}, 2, "--limit 0; allowed: 1 or more"},
		{[]string{"ls", "--config", "x", "--from", "yesterday"}, 2, `"yesterday" is no time; allowed`},
		{[]string{"ls", "--config", "/none.yaml"}, 2, "/none.yaml: cannot be read"},
		{[]string{"check"}, 2, "--config, --schema and --example"},
		{[]string{"check", "--schema", "--example"}, 2, "can't be used together"},
		{[]string{"show", "--config", "x"}, 2, "<id>"},
		{[]string{"export", "--config", "x", "id", "-o", "f", "--format", "aiff"}, 2, "--format"},
		{[]string{"export", "--config", "x", "id"}, 2, "--output"},
		{[]string{"replay", "--out", "x"}, 2, "<capture>"},
		{[]string{"replay", "x.pcap"}, 2, "--out"},
		{[]string{"replay", "--out", "x", "--external", "10.0.0.1/8", "x.pcap"}, 2, `"10.0.0.1/8" is no network`},
		{[]string{"replay", "--out", "x", "--suppressed", "beep", "x.pcap"}, 2, "--suppressed"},
		{[]string{"replay", "--out", "x", "/none.pcap"}, 1, "/none.pcap"},
		{[]string{"hold", "x"}, 2, "trunktap: "},
		{[]string{"version"}, 0, "libopus"},
		{[]string{"version", "--json"}, 0, `"opus":"libopus`},
	} {
		r := command(t, c.args...)
		if r.code != c.code || !strings.Contains(r.out+r.errOut, c.want) {
			t.Errorf("%v: exit %d, want %d with %q\n%s%s", c.args, r.code, c.code, c.want, r.out, r.errOut)
		}
		if c.code != 0 && r.out != "" {
			t.Errorf("%v: a fault on standard output: %s", c.args, r.out)
		}
	}
}

func TestCheck(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	mustWrite(t, bad, "media: {timeout: 5}\ntrunks: []\nx: 1\n")
	r := command(t, "check", "--config", bad)
	lines := strings.Split(strings.TrimSpace(r.errOut), "\n")
	if r.code != exitUsage || len(lines) != 3 || !strings.HasPrefix(lines[0], bad+":1:18: media.timeout: ") || !strings.HasPrefix(lines[2], bad+":3:1: x: ") {
		t.Errorf("exit %d\n%s", r.code, r.errOut)
	}
	if !json.Valid([]byte(mustRun(t, "check", "--schema"))) {
		t.Error("the schema is no JSON")
	}
	good := filepath.Join(t.TempDir(), "good.yaml")
	mustWrite(t, good, mustRun(t, "check", "--example"))
	if out := mustRun(t, "check", "-c", good); out != good+": fine\n" {
		t.Error(out)
	}
}

func mustWrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestInterrupted(t *testing.T) {
	capture := filepath.Join(t.TempDir(), "call.pcap")
	writeCall(t, capture)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut bytes.Buffer
	if code := run(ctx, []string{"replay", "--out", t.TempDir(), capture}, &out, &errOut); code != exitFailed {
		t.Errorf("exit %d %s", code, errOut.String())
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{"sip:bob@example": "sip:bob@example", "a\x1b[2Jb\n": "a�[2Jb�", "grüße": "grüße", "\u202eabc": "�abc"} {
		if got := clean(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	for in, want := range map[string]string{"sip:+4930@example.net": "+4930", "tel:+4930": "+4930", "sip:example.net": "example.net", "": ""} {
		if got := party(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
