package sdp

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/trunktap/trunktap/media"
)

// message matches the head of a SIP message with a description, wherever it
// lies in a capture file.
var message = regexp.MustCompile(`(?s)(INVITE sip:[^\r\n]* SIP/2\.0|SIP/2\.0 (?:183|200) [^\r\n]*)\r\n(?:[^\r\n]+\r\n)*?Content-Length: *(\d+)\r\n\r\n`)

type captured struct {
	request bool
	body    []byte
}

// bodies takes the descriptions out of a capture in which every message lies
// in one packet; a body that runs over the end of its packet is left out.
func bodies(t *testing.T, file string) []captured {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []captured
	for _, m := range message.FindAllSubmatchIndex(raw, -1) {
		n, err := strconv.Atoi(string(raw[m[4]:m[5]]))
		if err != nil || n == 0 || m[1]+n > len(raw) {
			continue
		}
		if body := raw[m[1] : m[1]+n]; bytes.HasPrefix(body, []byte("v=0")) && !bytes.ContainsRune(body, 0) {
			list = append(list, captured{raw[m[0]] == 'I', body})
		}
	}
	return list
}

func TestPeersDescriptions(t *testing.T) {
	files, err := filepath.Glob("../../../shared/fixtures/peers/*.pcap")
	if err != nil || len(files) == 0 {
		t.Skip("the shared fixtures are not here")
	}
	count := 0
	for _, file := range files {
		for _, c := range bodies(t, file) {
			count++
			d := mustParse(t, string(c.body))
			m := d.Media()
			if !bytes.Equal(d.Bytes(), c.body) || len(m) == 0 || m[0].Kind != "audio" || !m[0].Addr.IsValid() || len(m[0].Formats) == 0 {
				t.Errorf("%s: %+v", file, m)
			}
			for _, f := range m[0].Formats {
				if f.Name == "" || f.ClockRate == 0 {
					t.Errorf("%s: %+v", file, f)
				}
			}
			checkRewrite(t, d, []Target{{Addr: addr2, Port: 30000}})
		}
	}
	if count < 25 {
		t.Errorf("%d descriptions found, there are more", count)
	}
}

// TestPeersHold: a call of two pjsua that one of them holds and resumes.
func TestPeersHold(t *testing.T) {
	const file = "../../../shared/fixtures/peers/pjsua_hold_dtmf_tcp.pcap"
	if _, err := os.Stat(file); err != nil {
		t.Skip("the shared fixtures are not here")
	}
	n, got := NewNegotiation(), ""
	for _, c := range bodies(t, file) {
		if c.request {
			if err := n.Offer(media.External, c.body); err != nil {
				t.Fatal(err)
			}
			continue
		}
		res, err := n.Answer(media.Internal, c.body, epoch, false)
		if err != nil {
			t.Fatal(err)
		}
		got += letters(t, res.Signals, epoch)
	}
	if got != "+e-e" {
		t.Errorf("signals %q, want the external side to hold and resume", got)
	}
}
