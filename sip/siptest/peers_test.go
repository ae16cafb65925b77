package siptest

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

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
