package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

var (
	killCount = flag.Int("kills", 6, "how often TestLiveKills kills the daemon")
	killCalls = flag.Int("kill-calls", 12, "calls of TestLiveKills at any time")
	killDir   = flag.String("kill-dir", "", "where TestLiveKills leaves store, spool and log")
)

const (
	killLostMost  = 2 * time.Second         // of audio, a kill and call
	killAdoptMost = 1500 * time.Millisecond // more, where other tests run beside; what is claimed is held by many kills
	killMany      = 100
	killExported  = 25 // recordings whose audio is looked at
)

// killing is a world in which calls come and go and the daemon dies.
type killing struct {
	*liveDaemon
	agents [2]*siptest.Agent

	mu    sync.Mutex // guards all following
	kills []killTime
	calls map[string]killCall // answered, by Call-ID
	tried int
}

// endOfTime is when a daemon is ready that is not yet.
var endOfTime = time.Now().Add(24 * time.Hour)

type killTime struct {
	dead, ready time.Time
	stood       time.Duration // of the machine, between the start of the process that died and that of the next
}

type killCall struct {
	answered, ended, over time.Time // over: the BYE was answered
	hz                    float64
}

// TestLiveKills kills the daemon again and again at random moments of calls that come and
// go: each recording is there, whole but for what each kill may cost, and verifies.
func TestLiveKills(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := newKilling(t)
	w.start()
	ctx, stop := context.WithCancel(t.Context())
	var slots sync.WaitGroup
	for i := range *killCalls {
		slots.Go(func() { w.talk(ctx, rand.New(rand.NewPCG(seed, uint64(i)+1)), 400+10*float64(i%50)) })
	}
	r := rand.New(rand.NewPCG(seed, 0))
	for range *killCount {
		machine := w.steady()
		time.Sleep(time.Duration(r.Int64N(int64(1500 * time.Millisecond))))
		stood := machine.stood()
		w.mu.Lock()
		w.kills = append(w.kills, killTime{dead: time.Now(), ready: endOfTime, stood: stood}) // calls look while it is down
		w.mu.Unlock()
		w.kill()
		w.start()
		w.mu.Lock()
		w.kills[len(w.kills)-1].ready = time.Now()
		w.mu.Unlock()
	}
	stop()
	slots.Wait()
	w.check()
	w.stop()
}

func newKilling(t *testing.T) *killing {
	w := &killing{calls: map[string]killCall{}}
	tc := liveTrunkConfig{Name: "kills", Format: recorder.FormatOggOpus}
	for side, addr := range liveTrunk[0] {
		w.agents[side] = liveAgent(t, siptest.Config{Addr: netip.AddrPortFrom(addr, 0), KeepMax: 10})
		tc.Sides[side] = liveSide{Peer: addr, NextHop: "sip:" + w.agents[side].Addr().String(), Media: liveHost}
	}
	w.agents[1].Script(func(in *siptest.Incoming) { in.Run(siptest.Answer{Silent: true, Play: siptest.Tone(1700, 0.5)}) })
	w.liveDaemon = newLiveDaemon(t, liveConfig{
		Dir: *killDir, Media: []string{"timeout: 5s"}, // of a call whose end the process that died had passed on and not answered
		Trunks: []liveTrunkConfig{tc}, Listen: []string{"udp://" + freeUDP(t, liveHost).String()}, Ports: 8 * *killCalls, SegmentMax: 5 * time.Second,
	})
	return w
}

// talk has one call after the other until ctx is done, and ends its last one.
func (w *killing) talk(ctx context.Context, r *rand.Rand, hz float64) {
	for ctx.Err() == nil {
		most, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		c, err := w.agents[0].Call(most, "sip:desk@"+w.via().String(), w.via(), siptest.CallOptions{Play: siptest.Tone(hz, 0.5)})
		cancel()
		w.mu.Lock()
		w.tried++
		w.mu.Unlock()
		if err != nil {
			continue // the daemon died: not this test's matter
		}
		call := killCall{answered: time.Now(), hz: hz}
		select {
		case <-time.After(time.Second + time.Duration(r.Int64N(int64(12*time.Second)))):
		case <-ctx.Done():
			time.Sleep(killAdoptMost) // the last kill has its end, too
		}
		most, cancel = context.WithTimeout(context.Background(), 40*time.Second)
		call.ended = time.Now()
		err = c.Bye(most)
		cancel()
		c.Media().Halt()
		call.over = time.Now()
		var refused *siptest.RejectedError
		w.mu.Lock()
		switch {
		// The other party may have it from a process that died, and none may live long enough to answer.
		case err == nil, w.died(call) && (!errors.As(err, &refused) || refused.Response.Code == 481):
			w.calls[c.ID()] = call
		default:
			w.t.Errorf("call %s, answered %s, ended after %s: %v", c.ID(), call.answered.Format(time.RFC3339Nano), call.ended.Sub(call.answered), err)
		}
		w.mu.Unlock()
	}
}

// died tells whether the daemon died while it had the BYE.
func (w *killing) died(c killCall) bool {
	return slices.ContainsFunc(w.kills, func(k killTime) bool { return k.ready.After(c.ended) && k.dead.Before(c.over) })
}

// all lists all recordings by Call-ID.
func (w *killing) all() (map[string]*recorder.Manifest, error) {
	out, next := map[string]*recorder.Manifest{}, ""
	for {
		var page listing
		if err := w.get("/v1/recordings?limit=1000"+next, &page); err != nil {
			return nil, err
		}
		for _, m := range page.Recordings {
			if out[m.Call.SIPCallID] != nil {
				w.t.Errorf("call %s has two recordings", m.Call.SIPCallID)
			}
			out[m.Call.SIPCallID] = &m
		}
		if page.Next == "" {
			return out, nil
		}
		next = "&cursor=" + url.QueryEscape(page.Next)
	}
}

func (w *killing) check() {
	var recordings map[string]*recorder.Manifest
	w.within(2*livePublishLimit, "every call has its recording", func() (err error) {
		if recordings, err = w.all(); err != nil {
			return err
		}
		for id, c := range w.calls {
			if recordings[id] == nil {
				return fmt.Errorf("call %s of %s, %s long, has none", id, c.answered.Format(time.RFC3339Nano), c.ended.Sub(c.answered))
			}
		}
		return nil
	})
	exported, revived, worst := 0, 0, time.Duration(0)
	for id, c := range w.calls {
		m := recordings[id]
		checkAccount(w.t, m)
		if m.Call.EndCause == string(media.CauseMediaSilence) && !w.died(c) {
			revived++
			w.t.Errorf("recording %s: the BYE was answered at %s, and a process after it went on with the call", m.ID, c.over.Format(time.RFC3339Nano))
		}
		worst = max(worst, w.lostOf(m, c))
		if exported < killExported && m.AudioMS-restartMS(m) > 3000 {
			exported++
			checkVoices(w.t, m, w.export(m.ID), [2]float64{c.hz, 1700})
		}
	}
	w.t.Logf("%d kills, %d calls tried, %d answered and ended, %d recordings, %d of calls that went on behind their end; at most %d ms of audio lost a kill and call",
		len(w.kills), w.tried, len(w.calls), len(recordings), revived, worst.Milliseconds())
	for line := range strings.Lines(string(must(os.ReadFile(w.log))(w.t))) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			w.t.Log(strings.TrimSpace(line))
		}
	}
	if len(w.calls) < *killCalls {
		w.t.Errorf("only %d calls", len(w.calls))
	}
	if out := w.command("verify"); !strings.Contains(out, "0 findings") {
		w.t.Error(out)
	}
}

// lostOf holds the bound of what the kills cost one call, and returns it per kill.
func (w *killing) lostOf(m *recorder.Manifest, c killCall) time.Duration {
	var down, stood time.Duration
	missing, n := time.Duration(restartMS(m))*time.Millisecond, 0
	for _, k := range w.kills {
		if k.ready.After(c.answered) && k.dead.Before(c.over.Add(killLostMost)) { // the end is sealed behind the BYE
			n++
			down += k.ready.Sub(k.dead)
			stood += k.stood
		}
	}
	if short := c.ended.Sub(c.answered) - time.Duration(m.RealMS)*time.Millisecond; short > 300*time.Millisecond {
		missing += short // it lies outside of the account
	}
	if n == 0 {
		if missing > 0 {
			w.t.Errorf("recording %s: %s missing though nobody died", m.ID, missing)
		}
		return 0
	}
	lost, most := max(0, missing-down), killLostMost
	if *killCount < killMany {
		most += killAdoptMost
	}
	if lost > time.Duration(n)*most+stood {
		w.t.Errorf("recording %s: %s lost by %d kills; the machine stood still for %s", m.ID, lost, n, stood)
	}
	return lost / time.Duration(n)
}

// restartMS is how much the restarts took of the external party.
func restartMS(m *recorder.Manifest) (sum int64) {
	for _, g := range m.Gaps {
		if g.Channel == 0 && g.Cause == recorder.GapRestart {
			sum += g.DurationMS
		}
	}
	return sum
}
