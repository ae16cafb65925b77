package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

const (
	siprecTalk   = 1500 * time.Millisecond // before and behind the hold
	siprecPacket = 20 * time.Millisecond   // a window begins and ends when its request arrives, between packets
	siprecPause  = 700 * time.Millisecond
	siprecLimit  = 60 * time.Second
)

// siprecConfig is a configuration without trunks, with a source for each dialect: each
// of them comes from an address of its own.
func siprecConfig(t *testing.T, listen netip.AddrPort, dialects []siptest.Dialect) liveConfig {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "siprec:\n  listen: [\"udp://%s\", \"tcp://%s\"]\n  sources:\n", listen, listen)
	for i, d := range dialects {
		fmt.Fprintf(&b, "    - name: source-%d\n      peers: [\"%s\"]\n      media_address: \"%s\"\n", i, dialectAddr(i), liveHost)
		for _, line := range d.Source {
			fmt.Fprintf(&b, "      %s\n", line)
		}
		b.WriteString("      recording:\n        format: wav-pcm16\n")
	}
	return liveConfig{Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, More: b.String()}
}

func dialectAddr(i int) netip.Addr { return liveAddr(byte(100 + i)) }

// Every dialect is recorded by the real daemon, every other one over TCP, with hold and resume: who spoke on
// which channel, what the hold took out, and what the manifest says of it.
func TestLiveSIPRECDialects(t *testing.T) {
	dialects := siptest.Dialects()
	listen := freeUDP(t, liveHost)
	d := newLiveDaemon(t, siprecConfig(t, listen, dialects))
	d.start()
	capture := captureSIPREC(t)
	var wg sync.WaitGroup
	for i, dialect := range dialects {
		wg.Go(func() {
			if err := siprecCall(t, listen, i, dialect); err != nil {
				t.Errorf("%s: %v", dialect.Name, err)
			}
		})
	}
	wg.Wait()
	found := d.recordings(len(dialects))
	for i, dialect := range dialects {
		t.Run(dialect.Name, func(t *testing.T) {
			row := found[fmt.Sprintf("call-%d-0", i)]
			if row == nil {
				t.Fatal("no recording")
			}
			var m recorder.Manifest
			if err := d.get("/v1/recordings/"+row.ID, &m); err != nil {
				t.Fatal(err)
			}
			checkSIPREC(t, &m, dialect)
			pcm := d.export(m.ID)
			found[m.Call.SIPCallID] = &m
			checkTones(t, pcm, dialect)
		})
	}
	d.stop()
	t.Run("replayed", func(t *testing.T) { replaySIPREC(t, d, capture, dialects, found) })
}

func checkTones(t *testing.T, pcm [2][]int16, dialect siptest.Dialect) {
	t.Helper()
	checkTone(t, pcm[0], siptest.ExternalTone, siptest.InternalTone)
	if !dialect.Mixed {
		checkTone(t, pcm[1], siptest.InternalTone, siptest.ExternalTone)
	}
}

// siprecCall is one call of a dialect.
func siprecCall(t *testing.T, listen netip.AddrPort, i int, dialect siptest.Dialect) (err error) {
	ctx, cancel := context.WithTimeout(t.Context(), siprecLimit)
	defer cancel()
	c, err := siptest.NewSRC(siptest.SRCConfig{Addr: netip.AddrPortFrom(dialectAddr(i), 0), Remote: listen, TCP: i%2 == 1})
	if err != nil {
		return err
	}
	defer func() {
		if shut := c.Close(); err == nil {
			err = shut
		}
	}()
	var all []*siptest.SRCDialog
	invite := func(k int, body string) error {
		one := dialect.Dialogs[k]
		_, err := all[k].Invite(ctx, one.ContentType, []byte(all[k].Expand(body)), nil, one.Headers...)
		return err
	}
	for k, one := range dialect.Dialogs {
		s, err := c.NewDialog(fmt.Sprintf("call-%d-%d", i, k), one.From, len(one.Tones))
		if err != nil {
			return err
		}
		all = append(all, s)
		if err := invite(k, one.Body); err != nil {
			return err
		}
		if err := s.Play(one.Tones...); err != nil {
			return err
		}
	}
	for _, paused := range []bool{true, false} {
		time.Sleep(siprecTalk + siprecPacket)
		for k, one := range dialect.Dialogs {
			body := one.Body
			if paused {
				body = one.Paused()
				if err := all[k].Play(make([]float64, len(one.Tones))...); err != nil {
					return err
				}
			}
			if err := invite(k, body); err != nil {
				return err
			}
			if !paused {
				if err := all[k].Play(one.Tones...); err != nil {
					return err
				}
			}
		}
		if paused {
			time.Sleep(siprecPause)
		}
	}
	time.Sleep(siprecTalk + siprecPacket)
	for _, s := range all {
		if err := s.Bye(ctx); err != nil {
			return err
		}
	}
	return nil
}

// checkSIPREC compares a manifest with what its dialect told.
func checkSIPREC(t *testing.T, m *recorder.Manifest, d siptest.Dialect) {
	t.Helper()
	if m.Call.EndCause != "bye" {
		t.Errorf("ended by %s", m.Call.EndCause)
	}
	windows := int64(0)
	for _, w := range m.Windows {
		if w.Reason != "hold" || w.Source != "siprec" {
			t.Errorf("window %+v", w)
		}
		windows = max(windows, w.EndRealMS-w.RealMS)
	}
	if windows < siprecPause.Milliseconds() || m.AudioMS < 2*siprecTalk.Milliseconds() || m.AudioMS > m.RealMS-windows {
		t.Errorf("%d ms of audio in %d, the longest window has %d", m.AudioMS, m.RealMS, windows)
	}
	streams := 0
	for _, one := range d.Dialogs {
		streams += len(one.Tones)
	}
	if len(m.Labels) < streams {
		t.Errorf("labels %+v", m.Labels)
	}
	for _, l := range m.Labels {
		if len(d.Dialogs) == 1 && l.SideBy != d.SideBy || l.Mixed != d.Mixed {
			t.Errorf("label %+v, want %q", l, d.SideBy)
		}
	}
	if d.Kept != (len(m.RawMetadata) > 0) {
		t.Errorf("%d documents are kept", len(m.RawMetadata))
	}
	for i, party := range []string{"49", "4711"} {
		if !strings.Contains(m.Channels[i].Party, party) && !d.Mixed {
			t.Errorf("channel %d is %+v", i, m.Channels[i])
		}
	}
}

// checkTone demands that one tone is heard most of the time, and the other not.
func checkTone(t *testing.T, pcm []int16, want, other float64) {
	t.Helper()
	if len(pcm) < 8000 {
		t.Fatalf("%d samples", len(pcm))
	}
	heard := 0
	const step = 800
	for at := 0; at+step <= len(pcm); at += step {
		own, foreign := mediatest.Energy(pcm[at:at+step], want, 8000), mediatest.Energy(pcm[at:at+step], other, 8000)
		if own > 100*foreign && own > 1 {
			heard++
		}
		if foreign > 1 && foreign > own {
			t.Errorf("at %d ms %.0f Hz is louder than %.0f Hz", at/8, other, want)
			return
		}
	}
	if n := len(pcm) / step; heard*10 < n*7 {
		t.Errorf("%.0f Hz is heard in %d of %d stretches", want, heard, n)
	}
}
