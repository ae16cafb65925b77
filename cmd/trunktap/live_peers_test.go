package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-audio/audio"
	"github.com/go-audio/wav"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/media/pcap"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

// skipWithout skips when a peer cannot run here, and fails on anything else.
func skipWithout(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, siptest.ErrNotInstalled) || errors.Is(err, siptest.ErrUnprivileged) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sippPair is a call from one SIPp to another through the daemon.
type sippPair struct {
	name     string
	tcp      bool
	hz       [2]float64
	addr     [2]netip.AddrPort // of their SIP
	wires    [2][][]byte       // what each plays
	capture  *liveCapture
	uas, uac *siptest.SIPp
}

// TestLiveSIPp makes calls between two SIPp, by UDP and by TCP at once: what one
// sends the other gets, byte for byte, and the recording has each voice on its
// channel without the hold.
func TestLiveSIPp(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	at := freeUDP(t, liveHost)
	cfg := liveConfig{Listen: []string{"udp://" + at.String(), "tcp://" + at.String()}}
	pairs := []*sippPair{{name: "udp", hz: [2]float64{440, 1000}}, {name: "tcp", tcp: true, hz: [2]float64{620, 1300}}}
	for i, p := range pairs {
		tc := liveTrunkConfig{Name: p.name, Format: recorder.FormatOggOpus}
		for side, addr := range liveTrunk[i] {
			p.addr[side] = freeUDP(t, addr)
			hop := "sip:" + p.addr[side].String()
			if p.tcp {
				hop += ";transport=tcp"
			}
			tc.Sides[side] = liveSide{Peer: addr, NextHop: hop, Media: liveHost}
		}
		cfg.Trunks = append(cfg.Trunks, tc)
		p.capture = newLiveCapture(t, "lo", fmt.Sprintf("host %s or host %s", liveTrunk[i][0], liveTrunk[i][1]))
	}
	d := newLiveDaemon(t, cfg)
	d.start()
	for _, p := range pairs {
		p.start(t, d)
	}
	for _, p := range pairs {
		if err := errors.Join(p.uac.Wait(), p.uas.Wait()); err != nil {
			t.Error(p.name, err)
		}
	}
	for _, m := range d.recordings(len(pairs)) {
		p := pairs[slices.IndexFunc(pairs, func(p *sippPair) bool { return p.name == m.Trunk })]
		p.check(t, m)
		checkAccount(t, m)
		checkVoices(t, m, d.export(m.ID), p.hz)
	}
	t.Log(strings.TrimSpace(d.command("verify")))
	d.stop()
}

func (p *sippPair) start(t *testing.T, d *liveDaemon) {
	t.Helper()
	dir := t.TempDir()
	var cfg [2]siptest.SIPpConfig
	for side := range cfg {
		play := filepath.Join(dir, fmt.Sprintf("tone-%d.pcap", side))
		p.wires[side] = must(siptest.WriteRTP(play, siptest.PCMU, uint32(7+side), mediatest.Tone(p.hz[side], 8000, 4*8000, 9800)))(t)
		cfg[side] = siptest.SIPpConfig{
			Dir: filepath.Join(dir, fmt.Sprint(side)), User: "desk", Addr: p.addr[side], Remote: d.via(), TCP: p.tcp, Play: play,
			MediaPort: freeUDP(t, p.addr[side].Addr()).Port() &^ 1, Limit: 20 * time.Second,
		}
		if err := os.Mkdir(cfg[side].Dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cfg[1].Answer, cfg[1].Ring = true, 100*time.Millisecond
	cfg[0].Talk = 1500 * time.Millisecond
	cfg[0].Reinvites = []siptest.SIPpReinvite{{Direction: siptest.SendOnly, Then: time.Second}, {Direction: siptest.SendRecv, Then: 2 * time.Second}}
	var err error
	p.uas, err = siptest.StartSIPp(t.Context(), cfg[1])
	skipWithout(t, err)
	time.Sleep(300 * time.Millisecond) // it tells nobody that it listens
	p.uac, err = siptest.StartSIPp(t.Context(), cfg[0])
	skipWithout(t, err)
}

// check compares what is on the wire with what was played and what was recorded.
func (p *sippPair) check(t *testing.T, m *recorder.Manifest) {
	t.Helper()
	packets := p.capture.stop()
	for from := range 2 {
		var sent, got [][]byte
		for _, k := range packets {
			if k.Proto != pcap.UDP || len(k.Payload) != 172 {
				continue
			}
			if k.Src.Addr() == p.addr[from].Addr() {
				sent = append(sent, k.Payload)
			}
			if k.Dst.Addr() == p.addr[1-from].Addr() {
				got = append(got, k.Payload)
			}
		}
		if !slices.EqualFunc(sent, p.wires[from], bytes.Equal) || !slices.EqualFunc(sent, got, bytes.Equal) {
			t.Errorf("%s, from side %d: %d packets played, %d sent, %d came, or not the same", p.name, from, len(p.wires[from]), len(sent), len(got))
		}
		t.Logf("%s: side %d sent %d packets, all came unchanged", p.name, from, len(sent))
	}
	held, resumed := p.answered(packets, 2), p.answered(packets, 3)
	if len(m.Windows) != 1 || m.Windows[0].Reason != "hold" || held.IsZero() || resumed.IsZero() {
		t.Fatalf("%s: windows %+v", p.name, m.Windows)
	}
	from := held.Sub(m.Origin).Milliseconds() - m.Windows[0].RealMS
	to := resumed.Sub(m.Origin).Milliseconds() - m.Windows[0].EndRealMS
	t.Logf("%s: hold from %d to %d ms of %d; the 200s to the re-INVITEs were on the wire %d and %d ms after its edges", p.name,
		m.Windows[0].RealMS, m.Windows[0].EndRealMS, m.RealMS, from, to)
	if max(from, -from) > 20 || max(to, -to) > 20 {
		t.Errorf("%s: the edges of the hold are more than a packet away from its signalling", p.name)
	}
}

// answered is when the callee's 200 to the INVITE of that number was on the wire.
func (p *sippPair) answered(packets []pcap.Packet, cseq int) time.Time {
	for _, k := range packets {
		if k.Src == p.addr[1] && bytes.Contains(k.Payload, []byte("SIP/2.0 200")) && bytes.Contains(k.Payload, fmt.Appendf(nil, "CSeq: %d INVITE", cseq)) {
			return k.At
		}
	}
	return time.Time{}
}

// TestLiveBaresip makes a call between two baresip, each a host of its own: both
// hear each other, and the recording has each voice on its channel without the hold.
func TestLiveBaresip(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	baresipCall(t, [2]baresipMedia{}).stop()
}

// baresipMedia is how the media of one side is protected.
type baresipMedia struct {
	encryption string   // of baresip
	srtp       []string // of the trunk's configuration
	mux        bool
}

// baresipCall makes a call with a hold and checks all that comes of it.
func baresipCall(t *testing.T, with [2]baresipMedia) *liveDaemon {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	hz := [2]float64{440, 1000}
	var ns [2]*siptest.Namespace
	tc := liveTrunkConfig{Name: "hosts", Format: recorder.FormatOggOpus}
	cfg := liveConfig{}
	for side := range ns {
		n, err := siptest.NewNamespace(ctx)
		skipWithout(t, err)
		ns[side] = n
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
		tc.Sides[side] = liveSide{Peer: n.Peer, NextHop: fmt.Sprintf("sip:%s:5060", n.Peer), Media: n.Host, SRTP: with[side].srtp}
		cfg.Listen = append(cfg.Listen, fmt.Sprintf("udp://%s:5060", n.Host))
	}
	cfg.Trunks = []liveTrunkConfig{tc}
	d := newLiveDaemon(t, cfg)
	d.start()
	var peers [2]*siptest.Baresip
	for side := range peers {
		dir := t.TempDir()
		source := filepath.Join(dir, "tone.wav")
		writeTone(t, source, hz[side])
		b, err := siptest.StartBaresip(ctx, siptest.BaresipConfig{Net: ns[side], Dir: dir, User: "desk", Answer: side == 1, Source: source, Encryption: with[side].encryption, Mux: with[side].mux})
		skipWithout(t, err)
		peers[side] = b
		t.Cleanup(func() {
			if t.Failed() {
				t.Log("baresip", side, b.Output())
			}
		})
	}
	if err := peers[0].Dial(ctx, fmt.Sprintf("sip:desk@%s:5060", ns[0].Host)); err != nil {
		t.Fatal(err)
	}
	d.within(30*time.Second, "the call is answered", func() error {
		var live struct{ Calls []recorder.LiveCall }
		if err := d.get("/v1/calls", &live); err != nil {
			return err
		}
		if len(live.Calls) != 1 || live.Calls[0].Answer.IsZero() {
			return fmt.Errorf("calls %+v", live.Calls)
		}
		return nil
	})
	time.Sleep(1500 * time.Millisecond)
	held := time.Now()
	err := peers[1].Hold(ctx)
	time.Sleep(time.Second)
	resumed := time.Now()
	err = errors.Join(err, peers[1].Resume(ctx))
	time.Sleep(1500 * time.Millisecond)
	if err = errors.Join(err, peers[0].Hangup(ctx)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if err := errors.Join(peers[0].Close(), peers[1].Close()); err != nil {
		t.Fatal(err)
	}
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		checkVoices(t, m, d.export(m.ID), hz)
		if len(m.Windows) != 1 || m.Windows[0].Reason != "hold" {
			t.Fatalf("windows %+v", m.Windows)
		}
		from, to := m.Windows[0].RealMS-held.Sub(m.Origin).Milliseconds(), m.Windows[0].EndRealMS-resumed.Sub(m.Origin).Milliseconds()
		t.Logf("hold from %d to %d ms of %d: %d and %d ms after the commands", m.Windows[0].RealMS, m.Windows[0].EndRealMS, m.RealMS, from, to)
		if from < 0 || from > 150 || to < 0 || to > 150 {
			t.Error("the hold is not where it was")
		}
	}
	for side, b := range peers {
		own, other := heardTone(t, must(b.Heard())(t), hz[1-side]), heardTone(t, must(b.Heard())(t), hz[side])
		t.Logf("baresip %d heard the other with energy %.0f, itself with %.0f", side, own, other)
		if own < 1e6 || other > own/1000 {
			t.Errorf("baresip %d does not hear the other, or hears itself", side)
		}
	}
	t.Log(strings.TrimSpace(d.command("verify")))
	return d
}

// writeTone writes a WAV file of one channel, 8 kHz, 20 s.
func writeTone(t *testing.T, name string, hz float64) {
	t.Helper()
	f := must(os.Create(name))(t)
	e := wav.NewEncoder(f, 8000, 16, 1, 1)
	buf := &audio.IntBuffer{Format: &audio.Format{NumChannels: 1, SampleRate: 8000}, SourceBitDepth: 16}
	for _, s := range mediatest.Tone(hz, 8000, 20*8000, 9800) {
		buf.Data = append(buf.Data, int(s))
	}
	if err := errors.Join(e.Write(buf), e.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// heardTone is the most energy that a tone has in any of the files.
func heardTone(t *testing.T, names []string, hz float64) (most float64) {
	t.Helper()
	for _, name := range names {
		f := must(os.Open(name))(t)
		buf, err := wav.NewDecoder(f).FullPCMBuffer()
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		pcm := make([]int16, len(buf.Data))
		for i, s := range buf.Data {
			pcm[i] = int16(s)
		}
		most = max(most, mediatest.Energy(pcm, hz, buf.Format.SampleRate))
	}
	return most
}
