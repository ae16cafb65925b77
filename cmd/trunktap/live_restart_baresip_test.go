package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// TestLiveRestartBaresip kills the daemon under calls of two baresip, by DTLS-SRTP that
// ends here and by SIP over TCP: media goes on, all that comes can be decrypted, and
// the BYE of either side ends the call of the other.
func TestLiveRestartBaresip(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	for _, tt := range []struct {
		name      string
		transport string
		media     baresipMedia
		by        int // whose BYE
	}{
		{"DTLS-SRTP", "udp", dtlsMedia, 0},
		{"TCP, the caller hangs up", "tcp", baresipMedia{}, 0},
		{"TCP, the callee hangs up", "tcp", baresipMedia{}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) { restartBaresip(t, tt.transport, tt.media, tt.by) })
	}
}

func restartBaresip(t *testing.T, transport string, media baresipMedia, by int) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	hz := [2]float64{440, 1000}
	var ns [2]*siptest.Namespace
	tc := liveTrunkConfig{Name: "hosts", Format: recorder.FormatWAVPCM16}
	cfg := liveConfig{Media: []string{"engine: user"}}
	for side := range ns {
		ns[side] = liveNamespace(ctx, t)
		tc.Sides[side] = liveSide{
			Peer: ns[side].Peer, NextHop: fmt.Sprintf("sip:%s:5060;transport=%s", ns[side].Peer, transport), Media: ns[side].Host, SRTP: media.srtp,
		}
		cfg.Listen = append(cfg.Listen, fmt.Sprintf("%s://%s:5060", transport, ns[side].Host))
	}
	cfg.Trunks = []liveTrunkConfig{tc}
	d := newLiveDaemon(t, cfg)
	d.start()
	peers := restartPeers(ctx, t, ns, media, hz)
	capture := newLiveCapture(t, "any", fmt.Sprintf("(udp and not port 5060 or tcp port 5060) and (host %s or host %s)", ns[0].Peer, ns[1].Peer))
	if err := peers[0].Dial(ctx, fmt.Sprintf("sip:desk@%s:5060;transport=%s", ns[0].Host, transport)); err != nil {
		t.Fatal(err)
	}
	d.answered(1)
	time.Sleep(2 * time.Second)
	killed := time.Now()
	d.kill()
	d.start()
	time.Sleep(3 * time.Second)
	for _, c := range (&secureLive{liveDaemon: d}).undecrypted() {
		t.Error(c)
	}
	packets := capture.stop()
	// That its Contact names where it listens, and not its connection, is why it is reached.
	contact := regexp.MustCompile(`Contact: <sip:[^>@]*@` + regexp.QuoteMeta(ns[0].Peer.String()) + `:5060;transport=tcp>`)
	if transport == "tcp" && !contact.Match(must(os.ReadFile(capture.file))(t)) {
		t.Error("the caller's Contact is not where it listens")
	}
	asked := time.Now()
	if err := peers[by].Hangup(ctx); err != nil {
		t.Fatal(err)
	}
	d.within(15*time.Second, "the other side's call has ended", func() error {
		if out := peers[1-by].Output(); !strings.Contains(out, "terminated (duration") {
			return fmt.Errorf("it says %q", out)
		}
		return nil
	})
	t.Logf("the other side's call ended %s after the BYE", time.Since(asked))
	for side, b := range peers {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		checkKilledWay(t, side, packets, killed, [2]netip.Addr{ns[side].Peer, ns[1-side].Peer}, must(peers[1-side].Heard())(t), hz[side])
	}
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		if m.Call.EndCause != "bye" || len(m.Segments) != 2 || restartMS(m) == 0 {
			t.Errorf("end cause %q, %d segments, %d ms missing for the restart", m.Call.EndCause, len(m.Segments), restartMS(m))
		}
		t.Logf("%d ms of the recording are missing for the restart", restartMS(m))
	}
	d.stop()
}

// restartPeers starts a baresip in each namespace, of which the second answers.
func restartPeers(ctx context.Context, t *testing.T, ns [2]*siptest.Namespace, media baresipMedia, hz [2]float64) (peers [2]*siptest.Baresip) {
	t.Helper()
	for side := range peers {
		dir := t.TempDir()
		source := filepath.Join(dir, "tone.wav")
		writeTone(t, source, hz[side])
		b, err := siptest.StartBaresip(ctx, siptest.BaresipConfig{Net: ns[side], Dir: dir, User: "desk", Answer: side == 1, Source: source, Encryption: media.encryption, Mux: media.mux})
		skipWithout(t, err)
		peers[side] = b
		t.Cleanup(func() {
			if t.Failed() {
				t.Log("baresip", side, b.Output())
			}
			_ = b.Close() // again, where the test came so far
		})
	}
	return peers
}

// checkKilledWay counts the packets of a way that are missing around the kill, and those
// of the call whose sound was heard: what cannot be decrypted is not.
func checkKilledWay(t *testing.T, side int, packets []pcap.Packet, killed time.Time, between [2]netip.Addr, heard []string, hz float64) {
	t.Helper()
	sent, came, all := 0, 0, 0
	for _, p := range packets {
		if len(p.Payload) < 172 || p.Payload[0]>>6 != 2 || p.Payload[1]&0x7f != 0 { // no PCMU
			continue
		}
		talks := p.At.After(killed.Add(-500 * time.Millisecond)) // before, the other side's handshake may go on yet
		switch {
		case p.Src.Addr() == between[0] && talks:
			sent++
		case p.Dst.Addr() == between[1]:
			if all++; talks {
				came++
			}
		}
	}
	loud := 0 // of 20 ms
	for _, name := range heard {
		pcm, rate := wavSamples(t, name)
		for piece := rate / 50; len(pcm) >= piece; pcm = pcm[piece:] {
			if mediatest.Energy(pcm[:piece], hz, rate) > 1e4 {
				loud++
			}
		}
	}
	t.Logf("from side %d: %d packets sent from half a second before the kill on, %d missing; of %d that came in all %d were heard", side, sent, sent-came, all, loud)
	if sent < 150 || sent-came > 50 || loud < all-15 { // the first and the last ones are heard in part
		t.Errorf("from side %d: %d packets sent, %d came; of %d that came in all %d were heard", side, sent, came, all, loud)
	}
}
