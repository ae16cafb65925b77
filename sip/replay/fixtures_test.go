package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/media/pcap"
)

const fixtures = "../../../shared/fixtures"

// outcome is one row: calls, and for each its cause, codecs and packets by side.
func outcome(b *notebook, s Stats) string {
	rows := []string{fmt.Sprintf("%d calls, %d orphans", s.Calls, s.OrphanRTP)}
	for _, c := range b.calls {
		seconds := c.end.Sub(c.session.Start).Seconds()
		rows = append(rows, fmt.Sprintf("%s %.1fs %s/%s rtp %d/%d rtcp %d/%d", c.cause, seconds,
			c.codecs[0], c.codecs[1], c.rtp[0], c.rtp[1], c.rtcp[0], c.rtcp[1]))
	}
	return strings.Join(rows, "; ")
}

func replayFile(t testing.TB, name string, cfg Config) (*notebook, Stats) {
	t.Helper()
	r, err := pcap.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b := &notebook{}
	stats, err := Run(context.Background(), r, cfg, b, nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := b.err(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return b, stats
}

// What comes out of captures that nobody here wrote. Packets of the external
// and the internal side.
func TestFixtures(t *testing.T) {
	want := map[string]string{
		"ast_ivr.pcap":                "1 calls, 0 orphans; bye 8.9s PCMU/PCMU rtp 445/445 rtcp 6/1",
		"ast_queue.pcap":              "2 calls, 0 orphans; bye 22.0s PCMU/PCMU rtp 1097/1097 rtcp 9/4; failed 20.0s / rtp 0/0 rtcp 0/0",
		"baresip_dtls_srtp_opus.pcap": "1 calls, 2 orphans; bye 3.0s OPUS/OPUS rtp 151/150 rtcp 2/2",
		"baresip_g722.pcap":           "1 calls, 4 orphans; bye 4.3s G722/G722 rtp 153/153 rtcp 1/0",
		"baresip_opus.pcap":           "1 calls, 6 orphans; bye 4.5s OPUS/OPUS rtp 166/172 rtcp 1/0",
		"baresip_pcmu.pcap":           "1 calls, 4 orphans; bye 3.0s PCMU/PCMU rtp 151/150 rtcp 0/0", // begins at the 180
		"baresip_srtp_sdes.pcap":      "1 calls, 4 orphans; bye 3.0s PCMA/PCMA rtp 151/151 rtcp 1/0", // one report of it is in clear
		"linphonec.pcap":              "1 calls, 0 orphans; bye 6.0s PCMU/PCMU rtp 297/297 rtcp 2/0",
		"pjsua_amrnb.pcap":            "1 calls, 4 orphans; bye 5.8s AMR/AMR rtp 291/291 rtcp 6/2",
		"pjsua_amrwb.pcap":            "1 calls, 4 orphans; bye 5.8s AMR-WB/AMR-WB rtp 288/287 rtcp 6/2",
		"pjsua_g729.pcap":             "1 calls, 4 orphans; bye 5.8s G729/G729 rtp 292/292 rtcp 6/2",
		"pjsua_hold_dtmf_tcp.pcap":    "1 calls, 4 orphans; bye 8.8s PCMA/PCMA rtp 370/339 rtcp 12/9",
		"pjsua_ilbc.pcap":             "1 calls, 4 orphans; bye 5.8s ILBC/ILBC rtp 194/194 rtcp 6/2",
		"pjsua_opus.pcap":             "1 calls, 4 orphans; bye 5.6s OPUS/OPUS rtp 280/281 rtcp 6/2",
		"rtpengine_rec_256324.pcap":   "0 calls, 590 orphans", // media alone
		"rtpengine_rec_c59e0c.pcap":   "0 calls, 610 orphans",
		"sipp_pcapplay_dtmf.pcap":     "1 calls, 0 orphans; bye 9.0s PCMU/PCMA rtp 246/246 rtcp 0/0",
		"sipp_rtpstream.pcap":         "1 calls, 0 orphans; bye 9.0s PCMU/PCMA rtp 150/150 rtcp 0/0", // 10 more come from port 0

		"sipcapture-heplify__sip_ipv4_tcp.pcap":                                  "1 calls, 0 orphans; bye 6.5s PCMA/PCMA rtp 24/42 rtcp 1/1",
		"sipcapture-heplify__sip_ipv4_tcp_retrans.pcap":                          "0 calls, 0 orphans", // eight messages of REGISTER
		"sipcapture-heplify__sip_tcp_websocket.pcap":                             "2 calls, 0 orphans; bye 12.3s OPUS/OPUS rtp 0/0 rtcp 0/0; bye 12.2s PCMU/PCMU rtp 0/0 rtcp 0/0",
		"sipcapture-heplify__ipip0.pcap":                                         "1 calls, 0 orphans; failed 0.0s / rtp 0/0 rtcp 0/0",
		"OISF-suricata-verify__sip-body-frames_public-cloudshark-sip-s0.pcap":    "2 calls, 0 orphans; capture-end 8.5s PCMA/PCMA rtp 0/0 rtcp 0/0; failed 0.0s / rtp 0/0 rtcp 0/0",
		"OISF-suricata-verify__sip-compact-form_sip_compact_form.pcap":           "1 calls, 0 orphans; failed 0.0s / rtp 0/0 rtcp 0/0",
		"OISF-suricata-verify__sip-header-multi-value_sip_header_multi_val.pcap": "1 calls, 0 orphans; failed 0.0s / rtp 0/0 rtcp 0/0",
		"zeek-zeek__invalid-content-length.pcap":                                 "1 calls, 0 orphans; capture-end 0.0s / rtp 0/0 rtcp 0/0",
	}
	names, err := filepath.Glob(filepath.Join(fixtures, "*/*.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	for _, glob := range []string{"public/*/*.pcap", "public/*/*.pcapng"} {
		more, err := filepath.Glob(filepath.Join(fixtures, glob))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, more...)
	}
	if len(names) == 0 {
		t.Skip("the captures of ../shared/fixtures are not here")
	}
	for _, name := range names {
		b, s := replayFile(t, name, Config{})
		base := filepath.Base(name)
		got := outcome(b, s)
		t.Logf("%s: %s", base, got)
		w, ok := want[base]
		if !ok && strings.HasPrefix(name, filepath.Join(fixtures, "public/rtp")) { // media alone
			ok, w = true, fmt.Sprintf("0 calls, %d orphans", s.OrphanRTP)
		}
		if ok && got != w {
			t.Errorf("%s: %s, want %s", base, got, w)
		}
	}
}

// Real captures with bytes changed, cut and repeated: no panic, no broken
// contract, an end.
func TestDamagedFixtures(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(fixtures, "peers/*.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Skip("the captures of ../shared/fixtures are not here")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range names {
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			damaged := bytes.Clone(whole[:24+rng.IntN(len(whole)-24)])
			for range rng.IntN(50) {
				damaged[24+rng.IntN(len(damaged)-24)] = byte(rng.Uint32())
			}
			r, err := pcap.NewReader(bytes.NewReader(damaged))
			if err != nil {
				t.Fatal(err)
			}
			b := &notebook{}
			_, err = Run(context.Background(), r, Config{}, b, nil)
			var cut *pcap.TruncatedError
			if err != nil && !errors.As(err, &cut) {
				t.Errorf("%s: %v", name, err)
			}
			if err := b.err(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// The hold of pjsua's re-INVITEs, over TCP.
func TestHoldOfPjsua(t *testing.T) {
	name := filepath.Join(fixtures, "peers/pjsua_hold_dtmf_tcp.pcap")
	if _, err := os.Stat(name); err != nil {
		t.Skip("the captures of ../shared/fixtures are not here")
	}
	b, _ := replayFile(t, name, Config{})
	var holds []string
	for _, note := range b.calls[0].log {
		if strings.Contains(note, "hold") {
			holds = append(holds, note)
		}
	}
	if len(holds) != 2 || !strings.HasSuffix(holds[0], "hold.start external") || !strings.HasSuffix(holds[1], "hold.end external") {
		t.Errorf("%q", holds)
	}
}
