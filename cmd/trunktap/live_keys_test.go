package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal/pkcs11/softhsm"
	"github.com/trunktap/trunktap/recorder/seal/remote/keyserver"
	"github.com/trunktap/trunktap/recorder/seal/remote/remotetest"
	"github.com/trunktap/trunktap/recorder/segment"
)

// liveKeys is a key manager beside the daemon, which may be stopped and started.
type liveKeys struct {
	t     *testing.T
	files remotetest.Files
	addr  netip.AddrPort
	srv   *keyserver.Server
	end   func()
}

const liveKeyClient = "clients: [{name: recorder-1, public_key: client.pub, may: [wrap, unwrap, rotate]}]\n"

func newLiveKeys(t *testing.T) *liveKeys {
	k := &liveKeys{t: t, files: remotetest.Lay(t), addr: freeTCP(t, netip.AddrFrom4([4]byte{127, 0, 0, 1}))}
	k.files.Write(t, k.addr.String(), liveKeyClient)
	k.start()
	t.Cleanup(func() { k.stop() })
	return k
}

func (k *liveKeys) start() {
	k.t.Helper()
	k.srv = must(keyserver.New(k.files.Config, slog.New(slog.NewTextHandler(io.Discard, nil))))(k.t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.srv.Serve(ctx, nil) }()
	k.end = func() {
		cancel()
		if err := <-ended; err != nil {
			k.t.Error(err)
		}
	}
}

func (k *liveKeys) stop() {
	if k.end != nil {
		k.end()
		k.end = nil
	}
}

// allow says whether the daemon may use its keys.
func (k *liveKeys) allow(yes bool) {
	k.t.Helper()
	clients := liveKeyClient
	if !yes {
		clients = strings.Replace(clients, "may:", "disabled: true, may:", 1)
	}
	k.files.Write(k.t, k.addr.String(), clients)
	if err := k.srv.Reload(); err != nil {
		k.t.Fatal(err)
	}
}

// yaml is what the daemon's configuration says of it.
func (k *liveKeys) yaml(more string) string {
	return fmt.Sprintf(`keys:
  mode: remote
  tries: 1
  remote: {url: "https://%s", client: recorder-1, key_file: %q, server_keys: %q, ca_file: %q}
  %s
`, k.addr, k.files.ClientKey, k.files.SigningPub, k.files.Cert, more)
}

// keysDaemon is a daemon with one trunk and the keys of a text.
func keysDaemon(t *testing.T, keys string) (*liveDaemon, func(hz [2]float64) *livePair) {
	t.Helper()
	trunks, agents := twoTrunks(t, recorder.FormatWAVPCM16)
	d := newLiveDaemon(t, liveConfig{
		Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, SegmentMax: time.Second, Lookback: liveLookback, More: keys,
	})
	d.start()
	return d, func(hz [2]float64) *livePair { return d.call(agents[0], hz) }
}

// refused runs a command that must fail, and returns what it says.
func (d *liveDaemon) refused(args ...string) string {
	d.t.Helper()
	out, err := exec.Command(d.binary, append(args, "--config", d.config)...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		d.t.Errorf("trunktap %v: %v, though it must fail\n%s", args, err, out)
	}
	return string(out)
}

// told are the events of keys in the log, in order.
func (d *liveDaemon) told() (events []string) {
	d.t.Helper()
	for line := range strings.Lines(string(must(os.ReadFile(d.log))(d.t))) {
		if _, rest, ok := strings.Cut(line, "event=key."); ok {
			events = append(events, "key."+strings.Fields(rest)[0])
		}
	}
	return events
}

// keyGaps are the milliseconds for which there was no key, on both sides together.
func keyGaps(m *recorder.Manifest) (ms int64) {
	for _, g := range m.Gaps {
		if g.Cause == recorder.GapKey {
			ms += g.DurationMS
		}
	}
	return ms
}

func isZero(v float64) bool { return v == 0 }
func isOne(v float64) bool  { return v == 1 }

// TestLiveKeysContinue: the key manager goes away in the middle of a call, and later
// takes the key back; the policy is to go on, so nothing is missing.
func TestLiveKeysContinue(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	k := newLiveKeys(t)
	d, call := keysDaemon(t, k.yaml("cache: {renew: 1s, check: 1s, for: 1h}\n  on_revoked: continue"))
	first := call([2]float64{440, 660})
	k.stop()
	d.waitMetric("trunktap_key_up", isZero)
	second := call([2]float64{500, 800}) // without anybody to ask
	time.Sleep(1200 * time.Millisecond)
	if d.metric("trunktap_key_recording") != 1 || d.metric("trunktap_key_stop_seconds") < 3000 {
		t.Error("recording does not go on under the cached key")
	}
	var health struct{ Warnings []string }
	if err := d.get("/readyz", &health); err != nil || !slices.Equal(health.Warnings, []string{"key-service"}) {
		t.Errorf("/readyz: %v, %v", health.Warnings, err)
	}
	if err := second.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	byCall := d.recordings(1)
	checkVoices(t, byCall[second.external.ID()], d.export(byCall[second.external.ID()].ID), second.hz) // by the key in memory
	k.start()
	d.waitMetric("trunktap_key_up", isOne)
	k.allow(false)
	d.waitMetric("trunktap_key_revoked", isOne)
	third := call([2]float64{600, 900})
	time.Sleep(1200 * time.Millisecond)
	k.allow(true)
	d.waitMetric("trunktap_key_up", isOne)
	all := []*livePair{first, second, third}
	for _, c := range []*livePair{first, third} {
		if err := c.bye(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	byCall = d.recordings(len(all))
	for _, c := range all {
		m := byCall[c.external.ID()]
		checkAccount(t, m)
		checkVoices(t, m, d.export(m.ID), c.hz)
		if keyGaps(m) > 0 {
			t.Errorf("gaps %+v", m.Gaps)
		}
	}
	t.Log(strings.TrimSpace(d.command("verify")))
	// A stalled machine may add others.
	if told := strings.Join(d.told(), " "); !strings.HasPrefix(told, "key.unreachable ") || !strings.Contains(told, "key.restored") || !strings.Contains(told, " key.revoked ") || !strings.HasSuffix(told, " key.restored") ||
		strings.Contains(told, "key.stopped") {
		t.Errorf("told %s", told)
	}
	d.stop()
}

// TestLiveKeysStop: as before, and the policy is to stop. What is not sealed is a gap
// that says why, nothing can be read meanwhile, and the call does not notice.
func TestLiveKeysStop(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	k := newLiveKeys(t)
	d, call := keysDaemon(t, k.yaml("cache: {renew: 1s, check: 1s}\n  on_unreachable: stop"))
	before := call([2]float64{500, 800})
	time.Sleep(1200 * time.Millisecond)
	if err := before.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := d.recordings(1)[before.external.ID()].ID
	c := call([2]float64{440, 660})
	time.Sleep(1500 * time.Millisecond)
	out := filepath.Join(d.cfg.Dir, "out.wav")
	for _, way := range []struct {
		away, back    func()
		stopped, says string
	}{
		{k.stop, k.start, "key service does not answer", "see that it runs"},
		{func() { k.allow(false) }, func() { k.allow(true) }, "revoked", "allow this daemon to use it"},
	} {
		way.away()
		d.waitMetric("trunktap_key_recording", isZero)
		if err := d.get("/readyz", nil); err == nil || !strings.Contains(err.Error(), `"failing":["keys"]`) {
			t.Errorf("/readyz: %v", err)
		}
		time.Sleep(1500 * time.Millisecond)
		if said := d.refused("export", id, "-o", out); !strings.Contains(said, way.says) {
			t.Errorf("%s: export says %s", way.stopped, said)
		}
		way.back()
		d.waitMetric("trunktap_key_recording", isOne)
		time.Sleep(1500 * time.Millisecond)
	}
	if err := c.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := d.recordings(2)[c.external.ID()]
	checkAccount(t, m)
	checkVoices(t, m, d.export(m.ID), c.hz)
	if ms := keyGaps(m); ms < 2*1500 {
		t.Errorf("%d ms without a key: %+v", ms, m.Gaps)
	}
	for _, why := range []string{"does not answer, and keys.on_unreachable is stop", "was revoked, and keys.on_revoked is stop"} {
		if !slices.ContainsFunc(m.Gaps, func(g recorder.Gap) bool { return g.Cause == recorder.GapKey && strings.HasSuffix(g.Detail, why) }) {
			t.Errorf("no gap says %q: %+v", why, m.Gaps)
		}
	}
	if p := c.packets(t); len(p) < 500 {
		t.Errorf("%d packets of the call", len(p))
	}
	t.Log(strings.TrimSpace(d.command("verify")))
	d.stop()
}

// TestLiveKeysAwayAtStart: the daemon is killed in a call and starts without anybody
// to ask. Calls are taken; what begins waits for its key, and so does what the crash
// left. The call of before goes on, and of its recording what there was is kept.
func TestLiveKeysAwayAtStart(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	k := newLiveKeys(t)
	d, call := keysDaemon(t, k.yaml("cache: {renew: 1s, check: 1s}"))
	before := call([2]float64{440, 660})
	time.Sleep(4 * time.Second) // longer than the lookback
	d.kill()
	k.stop()
	d.startTo("/healthz")
	heard := len(before.internal.Media().Received())
	during := call([2]float64{500, 800})
	time.Sleep(1500 * time.Millisecond)
	if d.metric("trunktap_key_recording") != 0 {
		t.Error("there is a key to record with")
	}
	k.start()
	d.waitMetric("trunktap_key_recording", isOne)
	time.Sleep(1500 * time.Millisecond)
	if n := len(before.internal.Media().Received()) - heard; n < 100 {
		t.Errorf("%d packets are heard in the call of before", n)
	}
	if err := before.external.Bye(t.Context()); err != nil {
		t.Errorf("the call of before: %v", err)
	}
	if err := during.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	byCall := d.recordings(2)
	m := byCall[during.external.ID()]
	checkAccount(t, m)
	checkVoices(t, m, d.export(m.ID), during.hz)
	if keyGaps(m) > 0 || m.AudioMS < 2500 {
		t.Errorf("%d ms, gaps %+v", m.AudioMS, m.Gaps)
	}
	m = byCall[before.external.ID()]
	checkAccount(t, m)
	if m.AudioMS < 500 || m.Call.EndCause != "crash" {
		t.Errorf("%d ms of the call of before, end cause %s", m.AudioMS, m.Call.EndCause)
	}
	if text := string(must(os.ReadFile(d.log))(t)); strings.Contains(text, "exists already") || !strings.Contains(text, "is not recorded any more") {
		t.Error("what became of its recording is not told")
	}
	t.Log(strings.TrimSpace(d.command("verify")))
	d.stop()
}

// keksOf are the names of key-encryption keys that recordings of a store need.
func keksOf(t *testing.T, store string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, f := range must(filepath.Glob(filepath.Join(store, "*/*/*/*/*/recording.key")))(t) {
		names[must(segment.ParseKeyRecord(must(os.ReadFile(f))(t)))(t).Key.KEK] = true
	}
	return names
}

// TestLiveRotation: keys are rotated several times while twenty calls run; every
// recording verifies, and those of old keys are read as ever. Then store and keys
// alone go to a fresh machine.
func TestLiveRotation(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	for _, mode := range []string{"local", "remote"} {
		t.Run(mode, func(t *testing.T) {
			const rotate = "rotate: 1s"
			var k *liveKeys
			keys := "keys: {" + rotate + "}\n"
			if mode == "remote" {
				k = newLiveKeys(t)
				keys = k.yaml(rotate)
			}
			d, call := keysDaemon(t, keys)
			var calls []*livePair
			for i := range 20 {
				calls = append(calls, call([2]float64{440 + 10*float64(i), 700 + 10*float64(i)}))
				time.Sleep(100 * time.Millisecond)
			}
			began := d.metric("trunktap_key_rotations_total")
			d.waitMetric("trunktap_key_rotations_total", func(v float64) bool { return v >= began+2 })
			if err := together(len(calls), func(i int) error { return calls[i].bye(t.Context()) }); err != nil {
				t.Fatal(err)
			}
			byCall := d.recordings(len(calls))
			for _, c := range calls {
				m := byCall[c.external.ID()]
				checkAccount(t, m)
				if keyGaps(m) > 0 {
					t.Errorf("gaps %+v", m.Gaps)
				}
			}
			t.Log(strings.TrimSpace(d.command("verify")))
			for _, i := range []int{0, len(calls) - 1} {
				m := byCall[calls[i].external.ID()]
				checkVoices(t, m, d.export(m.ID), calls[i].hz)
			}
			d.stop()
			if n := keksOf(t, d.cfg.Store); len(n) < 2 {
				t.Errorf("the recordings need %v: no key was rotated while they began", n)
			}
			restored(t, d, byCall[calls[0].external.ID()], keys, calls[0].hz)
		})
	}
}

// restored puts the store of a daemon, and its keys where they are a file, onto a
// fresh machine, and plays a recording there.
func restored(t *testing.T, d *liveDaemon, m *recorder.Manifest, keys string, hz [2]float64) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "recordings"), os.DirFS(d.cfg.Store)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"keys.json", "node-key.json"} { // those that it seals and that it signs with
		b, err := os.ReadFile(filepath.Join(d.cfg.Dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // of a key manager
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	trunks, _ := twoTrunks(t, recorder.FormatWAVPCM16)
	fresh := newLiveDaemon(t, liveConfig{Dir: dir, Trunks: trunks, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, More: keys})
	fresh.command("rebuild")
	fresh.command("verify")
	fresh.start()
	checkVoices(t, m, fresh.export(m.ID), hz)
	fresh.command("verify")
	fresh.stop()
}

// TestLiveHSM: the keys lie in an HSM. A call is recorded, the token is pulled and
// comes back, the daemon is killed, and what it recorded is read.
func TestLiveHSM(t *testing.T) {
	token := softhsm.New(t)
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	d, call := keysDaemon(t, fmt.Sprintf(`keys:
  mode: pkcs11
  tries: 1
  cache: {renew: 1s, check: 1s}
  pkcs11: {module: %s, token_label: %s, pin_file: %q, create: true}
`, softhsm.Module, token.Label, token.PINFile))
	c := call([2]float64{440, 660})
	if err := os.Rename(token.Dir, token.Dir+".pulled"); err != nil {
		t.Fatal(err)
	}
	d.waitMetric("trunktap_key_up", isZero)
	time.Sleep(1200 * time.Millisecond)
	if err := c.bye(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := d.recordings(1)[c.external.ID()]
	if err := os.Rename(token.Dir+".pulled", token.Dir); err != nil {
		t.Fatal(err)
	}
	d.waitMetric("trunktap_key_up", isOne)
	d.kill()
	d.start()
	checkAccount(t, m)
	checkVoices(t, m, d.export(m.ID), c.hz)
	if keyGaps(m) > 0 {
		t.Errorf("gaps %+v", m.Gaps)
	}
	t.Log(strings.TrimSpace(d.command("verify")))
	for name := range keksOf(t, d.cfg.Store) {
		if !strings.HasPrefix(name, "pkcs11:trunktap.v1:") {
			t.Errorf("sealed by %s", name)
		}
	}
	d.stop()
}
