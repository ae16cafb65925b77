package main

import (
	"bytes"
	"context"
	"encoding/binary"
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
			MediaPort: freeUDP(t, p.addr[side].Addr()).Port() &^ 1, Limit: time.Minute,
		}
		if err := os.Mkdir(cfg[side].Dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cfg[1].Answer, cfg[1].Ring = true, 100*time.Millisecond
	cfg[0].Talk = 1500 * time.Millisecond
	cfg[0].Reinvites = []siptest.SIPpReinvite{{Direction: siptest.SendOnly, Then: time.Second}, {Direction: siptest.SendRecv, Then: 4 * time.Second}}
	var err error
	p.uas, err = siptest.StartSIPp(t.Context(), cfg[1])
	skipWithout(t, err)
	awaitPort(t, map[bool]string{false: "udp", true: "tcp"}[p.tcp], p.addr[1])
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
	checkHold(t, m, answersOf(packets, p.addr[1].Addr(), p.addr[0].Addr())[1:])
}

// passage is when an answer came to the daemon and when it had left it.
type passage struct{ in, out time.Time }

// answersOf are the 200s to INVITEs of one party as they were on the wire, in order.
func answersOf(packets []pcap.Packet, from, to netip.Addr) (out []passage) {
	var seen []string
	for _, k := range packets {
		text := string(k.Payload)
		if i := strings.Index(text, "SIP/2.0 200 "); i < 0 || !strings.Contains(text, " INVITE\r\n") {
			continue
		}
		_, line, _ := strings.Cut(text, "CSeq: ")
		line, _, _ = strings.Cut(line, "\r\n")
		i := slices.Index(seen, line)
		switch {
		case k.Src.Addr() == from && i < 0:
			seen, out = append(seen, line), append(out, passage{in: k.At})
		case k.Dst.Addr() == to && i >= 0 && out[i].out.IsZero():
			out[i].out = k.At
		}
	}
	return out
}

// checkHold holds that the one window begins and ends as the daemon has the answers that
// agree the hold and its end, give or take a packet: however long it takes over them.
func checkHold(t *testing.T, m *recorder.Manifest, answers []passage) {
	t.Helper()
	if len(m.Windows) != 1 || m.Windows[0].Reason != "hold" || len(answers) != 2 {
		t.Fatalf("%s: windows %+v; answers %+v", m.Trunk, m.Windows, answers)
	}
	const packet = 20 * time.Millisecond
	for i, ms := range []int64{m.Windows[0].RealMS, m.Windows[0].EndRealMS} {
		at, a := atReal(m, ms), answers[i]
		t.Logf("%s: edge %d of the hold at %d ms of %d; its answer came %d ms before and had left %d ms after", m.Trunk, i, ms, m.RealMS, at.Sub(a.in).Milliseconds(), a.out.Sub(at).Milliseconds())
		if at.Before(a.in.Add(-packet)) || at.After(a.out.Add(packet)) {
			t.Errorf("%s: edge %d of the hold is more than a packet away from its answer: %s, not from %s to %s", m.Trunk, i, at, a.in, a.out)
		}
	}
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

// liveNamespace is a host of its own, for as long as the test runs.
func liveNamespace(ctx context.Context, t *testing.T) *siptest.Namespace {
	t.Helper()
	n, err := siptest.NewNamespace(ctx)
	skipWithout(t, err)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
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
		ns[side] = liveNamespace(ctx, t)
		tc.Sides[side] = liveSide{Peer: ns[side].Peer, NextHop: fmt.Sprintf("sip:%s:5060", ns[side].Peer), Media: ns[side].Host, SRTP: with[side].srtp}
		cfg.Listen = append(cfg.Listen, fmt.Sprintf("udp://%s:5060", ns[side].Host))
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
	capture := newLiveCapture(t, "any", fmt.Sprintf("udp port 5060 and (host %s or host %s)", ns[0].Peer, ns[1].Peer))
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
	machine := d.steady(peers[0].PID(), peers[1].PID())
	time.Sleep(1500 * time.Millisecond)
	err := peers[1].Hold(ctx)
	time.Sleep(time.Second)
	err = errors.Join(err, peers[1].Resume(ctx))
	time.Sleep(1500 * time.Millisecond)
	stood := machine.stood()
	if err = errors.Join(err, peers[0].Hangup(ctx)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	signalling := capture.stop()
	if err := errors.Join(peers[0].Close(), peers[1].Close()); err != nil {
		t.Fatal(err)
	}
	for _, m := range d.recordings(1) {
		checkAccount(t, m)
		checkVoicesOf(t, m, d.export(m.ID), hz, stood) // baresip says nothing while it stands still
		checkHold(t, m, answersOf(signalling, ns[0].Peer, ns[1].Peer))
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

// heardTone is the most energy that a tone has in any of the files, in the mean of its
// fifths of a second: one that breaks off and comes back is another in each.
func heardTone(t *testing.T, names []string, hz float64) (most float64) {
	t.Helper()
	for _, name := range names {
		pcm, rate := wavSamples(t, name)
		sum, n := 0.0, 0
		for piece := rate / 5; len(pcm) >= piece; pcm = pcm[piece:] {
			sum += mediatest.Energy(pcm[:piece], hz, rate)
			n++
		}
		most = max(most, sum/max(1, float64(n)))
	}
	return most
}

// wavSamples reads a WAV file of 16 bits and one channel, also one whose header was
// never completed: baresip may leave such.
func wavSamples(t *testing.T, name string) (pcm []int16, rate int) {
	t.Helper()
	b := must(os.ReadFile(name))(t)
	at := bytes.Index(b, []byte("data"))
	if at < 0 || len(b) < 28 || binary.LittleEndian.Uint16(b[22:]) != 1 {
		t.Fatalf("%s is no WAV file of one channel", name)
	}
	rate = int(binary.LittleEndian.Uint32(b[24:]))
	for b = b[at+8:]; len(b) >= 2; b = b[2:] {
		pcm = append(pcm, int16(binary.LittleEndian.Uint16(b)))
	}
	return pcm, rate
}
