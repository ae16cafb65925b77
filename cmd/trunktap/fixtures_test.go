package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunktap/trunktap/recorder"
)

// fixturesDir holds captures of other projects; they are no part of this one.
var fixturesDir = filepath.Join("..", "..", "..", "shared", "fixtures")

// heardInFixtures says what must be heard on the two channels of captures with
// G.711: at least so many blocks of 20 ms with sound.
var heardInFixtures = map[string][2]int{
	"ast_ivr.pcap":                          {300, 300},
	"ast_queue.pcap":                        {800, 1000},
	"baresip_pcmu.pcap":                     {100, 130},
	"baresip_srtp_sdes.pcap":                {100, 130},
	"linphonec.pcap":                        {200, 200},
	"pjsua_hold_dtmf_tcp.pcap":              {250, 300},
	"sipp_pcapplay_dtmf.pcap":               {280, 280},
	"sipp_rtpstream.pcap":                   {110, 110},
	"sipcapture-heplify__sip_ipv4_tcp.pcap": {0, 10}, // the caller sends comfort noise
}

// TestFixtures replays every capture with signalling and shows what came out.
func TestFixtures(t *testing.T) {
	if _, err := os.Stat(fixturesDir); err != nil {
		t.Skip("captures of other projects are not at ", fixturesDir)
	}
	var names []string
	for _, pattern := range []string{"peers/*.pcap", "public/pcap/*.pcap*"} {
		names = append(names, must(filepath.Glob(filepath.Join(fixturesDir, pattern)))(t)...)
	}
	if len(names) < 40 {
		t.Fatalf("%d captures found, want at least 40", len(names))
	}
	met := 0
	for _, name := range names {
		for _, c := range replayFixture(t, name) {
			t.Logf("%-58s real %6d audio %6d windows %d gaps %2d  %-9s %4d blocks with sound %-9s %4d", filepath.Base(name),
				c.m.RealMS, c.m.AudioMS, len(c.m.Windows), len(c.m.Gaps), c.codecs[0], c.heard[0], c.codecs[1], c.heard[1])
			if want, ok := heardInFixtures[filepath.Base(name)]; ok {
				met++
				for ch := range want {
					if c.heard[ch] < want[ch] {
						t.Errorf("%s: channel %d has sound in %d blocks, want at least %d", filepath.Base(name), ch, c.heard[ch], want[ch])
					}
				}
			}
		}
	}
	if met != len(heardInFixtures) {
		t.Errorf("%d of %d captures with G.711 gave a recording", met, len(heardInFixtures))
	}
}

type fixtureCall struct {
	m      recorder.Manifest
	codecs [2]string
	heard  [2]int
	pcm    [2][]int16
}

func replayFixture(t *testing.T, name string) (out []fixtureCall) {
	t.Helper()
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"replay", "--out", dir, name}, &stdout, &stderr); code != exitFine {
		t.Errorf("%s: exit %d: %s", filepath.Base(name), code, stderr.String())
	}
	for line := range strings.Lines(stdout.String()) {
		var c fixtureCall
		if err := json.Unmarshal([]byte(line), &c.m); err != nil {
			t.Fatal(err)
		}
		for _, s := range c.m.Streams {
			c.codecs[s.Channel] = s.Codec
		}
		for _, s := range c.m.Segments {
			file := filepath.Join(dir, c.m.ID, s.File)
			for ch, more := range readPCM(t, file) {
				c.pcm[ch] = append(c.pcm[ch], more...)
			}
			pcm := must(os.ReadFile(file))(t)[44:]
			for ; len(pcm) >= 640; pcm = pcm[640:] {
				for ch := range c.heard {
					if rms(pcm[:640], ch) > 200 {
						c.heard[ch]++
					}
				}
			}
		}
		out = append(out, c)
	}
	return out
}

// rms is the level of one channel of interleaved 16 bit samples.
func rms(pcm []byte, ch int) float64 {
	sum := 0.0
	for i := 2 * ch; i+1 < len(pcm); i += 4 {
		v := float64(int16(uint16(pcm[i]) | uint16(pcm[i+1])<<8))
		sum += v * v
	}
	return math.Sqrt(sum / float64(len(pcm)/4))
}
