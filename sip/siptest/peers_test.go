package siptest

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-audio/audio"
	"github.com/go-audio/wav"

	"github.com/trunktap/trunktap/media/mediatest"
)

// skipWithout skips when the peer cannot run here, and fails on anything else.
func skipWithout(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, ErrNotInstalled) || errors.Is(err, ErrUnprivileged) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestSIPpCalls(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for name, tcp := range map[string]bool{"udp": false, "tcp": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			play := filepath.Join(dir, "tone.pcap")
			want, err := WriteRTP(play, PCMA, 7, mediatest.Tone(440, 8000, 8000, 8000))
			if err != nil {
				t.Fatal(err)
			}
			cfg := Config{Codecs: []Codec{PCMA}}
			if tcp {
				cfg.Transport = "tcp"
			}
			agent := mustAgent(t, cfg)
			sipp, err := StartSIPp(ctx, SIPpConfig{
				Dir: dir, User: "bob", Addr: netip.AddrPortFrom(agent.Addr().Addr(), freePort(t)), Remote: agent.Addr(), TCP: tcp,
				MediaPort: freePort(t) &^ 1, Codec: PCMA, Play: play, Talk: 1200 * time.Millisecond,
				Reinvites: []SIPpReinvite{{SendOnly, 300 * time.Millisecond}, {SendRecv, 300 * time.Millisecond}},
			})
			skipWithout(t, err)
			call, err := agent.Accept(ctx)
			if err != nil {
				t.Fatal(errors.Join(err, sipp.Wait()))
			}
			if err := sipp.Wait(); err != nil {
				t.Fatal(err)
			}
			if got := call.Requests(); len(got) < 5 || got[1].Method != "INVITE" || got[len(got)-1].Method != "BYE" {
				t.Errorf("%d requests", len(got))
			}
			if got := wires(call.Media().Received()); !slices.EqualFunc(want, got, bytes.Equal) {
				t.Errorf("SIPp played %d packets, %d came, or not the same", len(want), len(got))
			}
		})
	}
}

func TestSIPpAnswers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dir := t.TempDir()
	play := filepath.Join(dir, "tone.pcap")
	want, err := WriteRTP(play, PCMU, 7, mediatest.Tone(440, 8000, 8000, 8000))
	if err != nil {
		t.Fatal(err)
	}
	agent := mustAgent(t, Config{})
	at := netip.AddrPortFrom(agent.Addr().Addr(), freePort(t))
	sipp, err := StartSIPp(ctx, SIPpConfig{Dir: dir, Answer: true, User: "bob", Addr: at, MediaPort: freePort(t) &^ 1, Play: play, Ring: 100 * time.Millisecond})
	skipWithout(t, err)
	call, err := agent.Call(ctx, "sip:bob@"+at.String(), at, CallOptions{})
	if err != nil {
		t.Fatal(errors.Join(err, sipp.Wait()))
	}
	if err := errors.Join(call.Media().Await(ctx, len(want)), call.Hold(ctx, HoldSendOnly)); err != nil {
		t.Fatal(err)
	}
	if d := call.RemoteSDP().Direction; d != RecvOnly {
		t.Errorf("on hold SIPp is %s", d)
	}
	if err := call.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	if d := call.RemoteSDP().Direction; d != SendRecv {
		t.Errorf("after the hold SIPp is %s", d)
	}
	if err := call.Bye(ctx); err != nil {
		t.Fatal(err)
	}
	if err := sipp.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := wires(call.Media().Received()); !slices.EqualFunc(want, got, bytes.Equal) {
		t.Errorf("SIPp played %d packets, %d came, or not the same", len(want), len(got))
	}
}

// freePort is a UDP port of loopback that is free now.
func freePort(t *testing.T) uint16 {
	t.Helper()
	c, err := listenUDP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at, err := localOf(c)
	if err != nil {
		t.Fatal(err)
	}
	return at.Port()
}

func mustWAV(t *testing.T, name string, pcm []int16) {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	e := wav.NewEncoder(file, 8000, 16, 1, 1)
	buf := &audio.IntBuffer{Format: &audio.Format{NumChannels: 1, SampleRate: 8000}, SourceBitDepth: 16}
	for _, s := range pcm {
		buf.Data = append(buf.Data, int(s))
	}
	if err := errors.Join(e.Write(buf), e.Close()); err != nil {
		t.Fatal(err)
	}
}

// energyIn is the energy of a tone in a file of one channel at 8 kHz.
func energyIn(t *testing.T, name string, hz float64) float64 {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	buf, err := wav.NewDecoder(file).FullPCMBuffer()
	if err != nil {
		t.Fatal(err)
	}
	var pcm []int16
	for _, s := range buf.Data {
		pcm = append(pcm, int16(s))
	}
	return mediatest.Energy(pcm, hz, buf.Format.SampleRate)
}

func TestBaresip(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, err := NewNamespace(ctx)
	skipWithout(t, err)
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	dir := t.TempDir()
	source := filepath.Join(dir, "tone.wav")
	mustWAV(t, source, mediatest.Tone(620, 8000, 10*8000, 8000))
	b, err := StartBaresip(ctx, BaresipConfig{Net: n, Dir: dir, User: "bob", Answer: true, Source: source})
	skipWithout(t, err)
	closed := false
	defer func() {
		if !closed {
			t.Log(b.Close(), b.output.tail())
		}
	}()
	agent := mustAgent(t, Config{Addr: netip.AddrPortFrom(n.Host, 0)})

	out, err := agent.Call(ctx, b.URI(), b.Addr(), CallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out.Media().Play(Tone(440, 0.3))
	if err := out.Media().Await(ctx, 50); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(out.Hold(ctx, HoldSendOnly), out.Resume(ctx), out.Bye(ctx)); err != nil {
		t.Fatal(err)
	}

	if err := b.Dial(ctx, agent.URI()); err != nil {
		t.Fatal(err)
	}
	in, err := agent.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	in.Media().Play(Tone(440, 0.3))
	if err := in.Media().Await(ctx, 50); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Hold(ctx), in.AwaitRequests(ctx, 3)); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	closed = true
	<-in.Done()
	var methods []string
	for _, m := range in.Requests() {
		methods = append(methods, m.Method)
	}
	if !slices.Equal(methods, []string{"ACK", "INVITE", "ACK", "BYE"}) {
		t.Errorf("requests %v", methods)
	}
	heard, err := b.Heard()
	if err != nil || len(heard) == 0 {
		t.Fatalf("recorded %v, error %v", heard, err)
	}
	if own, other := energyIn(t, heard[0], 440), energyIn(t, heard[0], 620); own < 1e6 || own < 1000*other {
		t.Errorf("baresip heard %.0f at 440 Hz and %.0f at 620 Hz", own, other)
	}
}
