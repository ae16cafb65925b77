package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/archive"
	"github.com/trunktap/trunktap/sip/siptest"
)

const (
	toneKeyMS = 100 // a key in band is down
	toneGapMS = 80
)

// toneKeys plays keys in band.
func toneKeys(keys string) siptest.Source {
	var pcm []int16
	for i := range keys {
		key := make([]int16, 8*toneKeyMS)
		mediatest.DTMF{Rate: 8000, Low: -8, High: -8}.Add(key, keys[i])
		pcm = append(append(pcm, key...), make([]int16, 8*toneGapMS)...)
	}
	return siptest.PCM(pcm)
}

func toneKeysLast(keys string) time.Duration {
	return time.Duration(len(keys)*(toneKeyMS+toneGapMS)) * time.Millisecond
}

// infoDigits presses keys for 100 ms each and tells of them by INFO.
func (c *simCall) infoDigits(from *siptest.Call, keys string) {
	c.w.t.Helper()
	for _, k := range keys {
		time.Sleep(100 * time.Millisecond)
		c.w.ok(from.Info(c.w.ctx, "application/dtmf-relay", fmt.Appendf(nil, "Signal=%c\r\nDuration=100\r\n", k)))
		time.Sleep(80 * time.Millisecond)
	}
}

// TestSimMaskedKeys: keys in band are listed, and no tone of them is in the
// audio, in a format that changes samples as in one that does not; the voices
// beside them are.
func TestSimMaskedKeys(t *testing.T) {
	for _, format := range []string{recorder.FormatWAVPCM16, recorder.FormatOggOpus} {
		for _, mask := range []bool{true, false} {
			t.Run(fmt.Sprint(format, " masked ", mask), func(t *testing.T) {
				dir := t.TempDir()
				var arch *archive.Archive
				cfg := worldConfig{plan: simPlan()}
				cfg.plan.Format, cfg.plan.InbandDTMF, cfg.plan.MaskDTMF = format, recorder.InbandOn, mask
				arch = must(archive.Open(archive.Config{
					StoreDir: filepath.Join(dir, "store"), SpoolDir: filepath.Join(dir, "spool"), CatalogPath: filepath.Join(dir, "catalog.db"), KeyFile: filepath.Join(dir, "keys.json"),
				}))(t)
				cfg.rec.NewSink = arch.NewSink
				inWorld(t, cfg, maskedKeys)
				page := must(arch.Find(t.Context(), recorder.Query{}))(t)
				checkMaskedKeys(t, &page.Rows[0].Manifest, exported(t, arch, page.Rows[0].Manifest.ID), mask)
				if err := arch.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// maskedKeys is a call in which each side presses keys in band.
func maskedKeys(w *world) {
	c := w.inbound(siptest.CallOptions{}, siptest.Answer{Ring: time.Second})
	time.Sleep(time.Second)
	c.external.Media().Play(toneKeys("5*"))
	time.Sleep(toneKeysLast("5*"))
	c.external.Media().Play(siptest.Tone(440, 0.3))
	time.Sleep(time.Second)
	c.internal.Media().Play(toneKeys("1"))
	time.Sleep(toneKeysLast("1"))
	c.internal.Media().Play(siptest.Tone(1000, 0.3))
	time.Sleep(2 * time.Second)
	c.bye(c.external)
}

func checkMaskedKeys(t *testing.T, m *recorder.Manifest, pcm [2][]int16, mask bool) {
	t.Helper()
	got := ""
	for _, d := range m.DTMF {
		got += fmt.Sprint(d.Channel, d.Digit, d.Method, " ")
	}
	if got != "05inband 0*inband 11inband " {
		t.Errorf("listed %s", got)
	}
	gaps := slices.DeleteFunc(slices.Clone(m.Gaps), func(g recorder.Gap) bool { return g.Cause != recorder.GapMasked })
	if mask != (len(gaps) > 0) || mask && !strings.Contains(gaps[0].Filled, "silence") {
		t.Errorf("gaps %+v", m.Gaps)
	}
	for ch, tones := range [2][]float64{{770, 1336, 1209}, {697, 1209}} {
		voice, spoken := []float64{440, 1000}[ch], 0
		for _, hz := range tones {
			most := 0.0
			for i := 0; i+400 <= len(pcm[ch]); i += 80 {
				most = max(most, mediatest.Energy(pcm[ch][i:i+400], hz, 8000))
			}
			if t.Logf("channel %d, %g Hz: %.0f", ch, hz, most); (most > 1e5) == mask {
				t.Errorf("channel %d has %g Hz with energy %.0f", ch, hz, most)
			}
		}
		for i := 0; i+160 <= len(pcm[ch]); i += 160 {
			if mediatest.Energy(pcm[ch][i:i+160], voice, 8000) > 1e6 {
				spoken++
			}
		}
		if whole := len(pcm[ch]) / 160; spoken < whole-60 {
			t.Errorf("channel %d has its voice in %d of %d windows", ch, spoken, whole)
		}
	}
}
