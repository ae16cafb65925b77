package quality_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"

	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/media/quality"
	"github.com/trunktap/trunktap/media/source"
)

type sender struct {
	state   source.State
	stream  quality.Stream
	packets int
}

// capture is what a call's capture says: its streams by SSRC, and its round trips.
type capture struct {
	senders map[uint32]*sender
	side    map[uint32]int
	relay   quality.Relay
	reports int
}

// read feeds a capture as a relay would: in order of arrival, the party with the
// lower port is side 0.
func read(t *testing.T, path string, clock int, low int) *capture {
	t.Helper()
	r, err := pcap.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }() // read only
	c := &capture{senders: make(map[uint32]*sender), side: make(map[uint32]int)}
	var base time.Time
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return c
		}
		if err != nil {
			t.Fatal(err)
		}
		if base.IsZero() {
			base = p.At
		}
		side := 1
		if int(p.Src.Port())/2*2 == low {
			side = 0
		}
		c.packet(side, p.Payload, int64(p.At.Sub(base)), clock)
	}
}

func (c *capture) packet(side int, wire []byte, at int64, clock int) {
	if source.IsRTCP(wire) {
		c.reports++
		_ = c.relay.RTCP(side, wire, at, func(side int, ssrc uint32) *quality.Stream {
			if s := c.senders[ssrc]; s != nil && c.side[ssrc] == side {
				return &s.stream
			}
			return nil
		}) // what is no RTCP after all says nothing
		return
	}
	var h rtp.Header
	payload, err := source.Parse(wire, &h)
	if err != nil {
		return // signalling
	}
	s := c.senders[h.SSRC]
	if s == nil {
		s = &sender{}
		c.senders[h.SSRC], c.side[h.SSRC] = s, side
	}
	s.state.Clock = clock
	seq, ts, v := s.state.Update(&h, at)
	if v.Usable() {
		s.packets++
		s.stream.Packet(at, seq, ts, clock, len(payload))
	}
}

// row is a line of tshark's statistics.
var row = regexp.MustCompile(`(?m)^ +[0-9.]+ +[0-9.]+ +\S+ +(\d+) +\S+ +(\d+) +0x([0-9A-F]+) +.*? (\d+) +(-?\d+) \([0-9.]+%\) +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +([0-9.]+) +([0-9.]+)`)

// What tshark counts in captures of real telephones is what is counted here.
func TestAgainstTshark(t *testing.T) {
	program, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not there: nothing to compare with")
	}
	const dir = "../../../shared/fixtures/peers"
	for _, call := range []struct {
		name, codec string
		clock       int
		rated       bool // ITU-T has an impairment
	}{
		{"pjsua_g729", "G729", 8000, true},
		{"pjsua_amrnb", "AMR", 8000, false},
		{"pjsua_amrwb", "AMR-WB", 16000, true},
		{"pjsua_ilbc", "ILBC", 8000, false},
		{"pjsua_opus", "OPUS", 48000, false},
		{"baresip_pcmu", "PCMU", 8000, true},
		{"baresip_g722", "G722", 8000, true},
		{"baresip_opus", "OPUS", 48000, false},
	} {
		name, clock := call.name, call.clock
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name+".pcap")
			if _, err := os.Stat(path); err != nil {
				t.Skip("the captures of telephones are not there")
			}
			out, err := exec.Command(program, "-r", path, "-q", "-z", "rtp,streams").Output()
			if err != nil {
				t.Fatal(err)
			}
			rows := row.FindAllStringSubmatch(string(out), -1)
			if len(rows) < 2 {
				t.Fatalf("tshark sees %d streams:\n%s", len(rows), out)
			}
			num := func(s string, base int) float64 {
				n, err := strconv.ParseUint(s, base, 32)
				if err != nil {
					t.Fatal(err)
				}
				return float64(n)
			}
			low := int(min(num(rows[0][1], 10), num(rows[1][1], 10)))
			c := read(t, path, clock, low)
			for _, r := range rows {
				s := c.senders[uint32(num(r[3], 16))]
				if s == nil {
					t.Errorf("0x%s is missing", r[3])
					continue
				}
				a := s.stream.Snapshot(quality.Inputs{Codec: call.codec, ClockRate: clock, Near: c.relay.Halves[0].Trip(), Far: c.relay.Halves[1].Trip()})
				mean, _ := strconv.ParseFloat(r[6], 64) // digits, by the pattern
				most, _ := strconv.ParseFloat(r[7], 64)
				if got := fmt.Sprint(s.packets); got != r[4] || (a.LossPct != 0) != (r[5] != "0") {
					t.Errorf("0x%s: %s packets, %.2f %% lost; tshark: %s, %s", r[3], got, a.LossPct, r[4], r[5])
				}
				if math.Abs(a.JitterMS-mean) > 0.03 || math.Abs(a.JitterMaxMS-most) > 0.03 {
					t.Errorf("0x%s: jitter of %.3f, most %.3f ms; tshark: %.3f, %.3f", r[3], a.JitterMS, a.JitterMaxMS, mean, most)
				}
				if (a.MOS != 0) != call.rated || call.rated != (a.NoMOS == "") {
					t.Errorf("0x%s: MOS %.2f: %s%s", r[3], a.MOS, a.Model, a.NoMOS)
				}
				if strings.HasPrefix(name, "pjsua") && (a.Remote == nil || a.RTTNearMS == 0 || a.RTTFarMS == 0 || a.RTTMS > 50) {
					t.Errorf("0x%s: round trips of %.2f and %.2f ms, far end %+v", r[3], a.RTTNearMS, a.RTTFarMS, a.Remote)
				}
				t.Logf("%.2f %s%s", a.MOS, a.Model, a.NoMOS)
				t.Logf("0x%s: %s packets of %.0f ms, jitter %.2f (tshark %.2f) most %.2f (%.2f) ms, round trip %.2f ms, far end: %+v", r[3], r[4], a.PacketMS, a.JitterMS, mean, a.JitterMaxMS, most, a.RTTMS, a.Remote)
			}
			if c.reports == 0 {
				t.Error("no RTCP in the capture")
			}
		})
	}
}
