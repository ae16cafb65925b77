package b2bua

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/sip"
)

// Each call that is refused is told with its cause, where it belongs and who called whom;
// who asked for privacy is not named.
func TestRefusalsAreTold(t *testing.T) {
	var told []sip.Refusal
	inBubble(t, func(cfg *Config) {
		cfg.Trunks[0].Limits = sip.Limits{CallsMax: 1}
		cfg.CallRefused = func(r sip.Refusal) { told = append(told, r) }
	}, func(w *bench) {
		good := sdpOf(carrier.Addr(), 7000)
		refused := func(id, status, body string, extra ...string) {
			begin(w.a, outside, id, body, extra...)
			if status != "503" || id != "limit" && id != "private" {
				w.a.want("100")
			}
			w.a.want(status)
		}
		refused("media", "488", "this is no description")
		w.obs.mu.Lock()
		w.obs.err = errors.New("no store")
		w.obs.mu.Unlock()
		refused("recording", "503", good)
		w.obs.mu.Lock()
		w.obs.err = nil
		w.obs.mu.Unlock()
		time.Sleep(time.Minute) // nothing is left of them
		a, _ := w.established("one")
		refused("limit", "503", good)
		refused("private", "503", good, "Privacy: none;id")
		w.hangUp(a)
		var got []string
		for _, r := range told {
			if r.Trunk != w.trunkName() || r.To == "" || r.At.IsZero() {
				t.Errorf("%+v", r)
			}
			got = append(got, fmt.Sprint(r.SIPCallID, " ", r.Cause, " ", r.Status, " ", r.From))
		}
		want := []string{"media media 488 sip:alice@example.net", "recording recording 503 sip:alice@example.net", "limit calls 503 sip:alice@example.net", "private calls 503 "}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}

func (w *bench) trunkName() string { return (*w.b.tables.Load())[0].Trunks()[0].Name }
