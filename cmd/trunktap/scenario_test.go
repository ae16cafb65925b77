package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/sip/siptest"
)

const (
	scenariosAtOnce = 10 // each a daemon with a few calls
	// scenarioTolerance is how far an interval may begin or end from where it should: three packet times.
	scenarioTolerance = 60 * time.Millisecond
	// signalsTake is within what the signals of one step arrive: the answer to each waits for its effect.
	signalsTake = 300 * time.Millisecond
)

// scenario is one course of a call and what is to be recorded of it. All
// positions are milliseconds from the answer of its first call; those of spans
// and windows have to be steps of the script, where a busy machine took them.
type scenario struct {
	number string // of the story; variants have a letter
	name   string
	keys   []string              // of the trunk's recording
	phones []string              // of the recording of the phones' trunk; nil: the phones are not seen
	config string                // keys of the file
	feeds  func(s *scene) string // begins the sources of signals and returns further keys
	script func(s *scene)
	want   []wantRecording
	heard  [2][]span                                // by the parties of the trunk's first call: the carrier's, the PBX's; nil: not looked at
	check  func(s *scene, all []*recorder.Manifest) // of the rest; may be nil
}

// wantRecording is what a recording should be.
type wantRecording struct {
	kind        recorder.Kind
	user, other string
	from, to    int
	channels    [2][]span    // external, internal
	windows     []wantWindow // in the order of their beginning
	casts       []cast       // nil: not looked at
	consent     string       // "": not looked at
}

// cast is the internal parties of the segments in an interval.
type cast struct {
	from, to int
	users    []string
}

// span is an interval in which a channel has all these tones, and no other.
// Outside of spans it is silent.
type span struct {
	from, to int
	tones    []hz
}

type wantWindow struct {
	reason   string
	from, to int
	channel  int // -1: all
	late     int // ms after its time; it then begins where it acts
}

// window is of all channels and of a signal in time.
func window(reason string, from, to int) wantWindow {
	return wantWindow{reason: reason, from: from, to: to, channel: -1}
}

// TestScenarios plays what happens in a contact centre with user agents on
// real sockets, a daemon each, and compares what is stored with the table.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("real time: left out by -short")
	}
	all := scenarios()
	must(liveBinary())(t) // before there is anything to be timed
	var wg, first sync.WaitGroup
	var alone sync.Mutex
	places := make(chan int, scenariosAtOnce)
	for i := range scenariosAtOnce {
		places <- i
	}
	first.Add(len(all))
	for _, sc := range all {
		place := <-places
		wg.Go(func() {
			leave := sync.OnceFunc(func() { places <- place; first.Done() })
			defer leave()
			t.Run(sc.number+" "+sc.name, func(t *testing.T) {
				if !sc.test(t, place, attemptsMax > 1) {
					leave()
					first.Wait() // what is repeated has the machine for itself
					alone.Lock()
					defer alone.Unlock()
					for n := 2; !sc.test(t, place, n < attemptsMax); n++ {
					}
				}
			})
		})
	}
	wg.Wait()
}

// play returns what is wrong with the recordings of a scenario.
func (s *scene) play(sc scenario) []string {
	if r := command(s.t, "check", "--config", s.d.config); r.code != exitFine {
		return []string{strings.TrimSpace(r.out + r.errOut)}
	}
	s.d.start()
	if s.exchange != nil {
		s.exchange.await()
	}
	machine := s.d.steady()
	s.run(sc.script)
	if stood := machine.stood(); stood > standMax {
		s.stalls = append(s.stalls, fmt.Sprintf("the machine, or the daemon, by %d ms in all", stood.Milliseconds()))
	}
	got := s.recordings(len(sc.want))
	if len(got) != len(sc.want) {
		s.faultf("%d recordings, want %d: %s", len(got), len(sc.want), s.kinds(got))
	}
	if sc.check != nil {
		sc.check(s, got)
	}
	s.checkEars(sc.heard)
	for _, m := range got {
		if m.Conversation == "" || m.Conversation != got[0].Conversation {
			s.faultf("conversations %q and %q", got[0].Conversation, m.Conversation)
		}
	}
	for _, w := range sc.want {
		i := s.find(w, got)
		if i < 0 {
			s.faultf("no recording: %s", w)
			continue
		}
		s.check(w, got[i])
		got = slices.Delete(got, i, i+1)
	}
	s.d.stop()
	return s.faults
}

// find returns the recording that should be w: of those that could be it the
// one that begins nearest to it; -1: there is none.
func (s *scene) find(w wantRecording, ms []*recorder.Manifest) int {
	best, off := -1, time.Duration(0)
	for i, m := range ms {
		d := m.Origin.Sub(s.when(w.from).first).Abs()
		if m.Kind == w.kind && m.User == w.user && m.Other == w.other && (best < 0 || d < off) {
			best, off = i, d
		}
	}
	return best
}

// String names the recording in faults.
func (w wantRecording) String() string { return strings.TrimSpace(string(w.kind) + " " + w.user) }

// kinds lists recordings with where they begin and end.
func (s *scene) kinds(ms []*recorder.Manifest) string {
	var out []string
	for _, m := range ms {
		from := m.Origin.Sub(s.start).Milliseconds()
		out = append(out, fmt.Sprintf("%s %s %d–%d", m.Kind, m.User, from, from+m.RealMS))
	}
	return strings.Join(out, ", ")
}

// recordings waits until all calls are over and published.
func (s *scene) recordings(n int) []*recorder.Manifest {
	s.t.Helper()
	s.d.within(livePublishLimit, "the calls are over", func() error {
		var live struct {
			Calls []recorder.LiveCall `json:"calls"`
		}
		if err := s.d.get("/v1/calls", &live); err != nil {
			return err
		}
		if len(live.Calls) > 0 {
			return fmt.Errorf("%d calls", len(live.Calls))
		}
		return nil
	})
	// What is too many is published with the rest: the count is looked at again when it is right.
	var ids []string
	limit := time.Now().Add(scenarioPublishLimit)
	for right := 0; right < 2 && time.Now().Before(limit); time.Sleep(5 * livePollEvery) {
		ids = s.listed()
		if len(ids) == n {
			right++
		}
	}
	out := make([]*recorder.Manifest, len(ids))
	for i, id := range ids {
		out[i] = &recorder.Manifest{}
		s.ok(s.d.get("/v1/recordings/"+id, out[i]))
	}
	return out
}

const scenarioPublishLimit = 20 * time.Second // after the end of the calls

func (s *scene) listed() []string {
	var page struct {
		Recordings []struct {
			ID string `json:"id"`
		} `json:"recordings"`
	}
	s.ok(s.d.get("/v1/recordings?limit=1000&order=oldest", &page))
	var ids []string
	for _, r := range page.Recordings {
		ids = append(ids, r.ID)
	}
	return ids
}

// check compares a recording with what it should be.
func (s *scene) check(w wantRecording, m *recorder.Manifest) {
	s.near(w.String()+": begin", m.Origin, w.from)
	s.near(w.String()+": end", m.Origin.Add(time.Duration(m.RealMS)*time.Millisecond), w.to)
	s.checkWindows(w, m)
	if w.consent != "" && m.Consent != w.consent {
		s.faultf("%s: consent %q, want %q", w, m.Consent, w.consent)
	}
	if got := m.AudioMS + windowsMS(cutting(m)); got != m.RealMS {
		s.faultf("%s: audio and windows are %d ms, the recording %d ms", w, got, m.RealMS)
	}
	if w.channels[0] == nil && w.channels[1] == nil {
		if m.AudioMS != 0 || len(m.Segments) != 0 {
			s.faultf("%s: %d ms of audio in %d segments, want none", w, m.AudioMS, len(m.Segments))
		}
		return
	}
	if len(m.Segments) == 0 {
		s.faultf("%s: no audio", w)
		return
	}
	s.checkCasts(w, m)
	name := filepath.Join(s.t.TempDir(), "out.wav")
	if r := command(s.t, "export", m.ID, "--format", "wav-pcm16", "-o", name, "--config", s.d.config); r.code != exitFine {
		s.faultf("%s: export: %s", w, strings.TrimSpace(r.errOut))
		return
	}
	pcm := readPCM(s.t, name)
	for ch := range pcm {
		if ms := int64(len(pcm[ch])) / 8; ms < m.AudioMS-1 || ms > m.AudioMS+1 {
			s.faultf("%s: %d ms in the file, %d ms in the account", w, ms, m.AudioMS)
		}
		want := make([]heard, 0, len(w.channels[ch]))
		for _, sp := range w.channels[ch] {
			if h := s.expect(sp, func(at time.Time) int64 { return audioMS(m, at) }); h.to.last > h.from.first {
				want = append(want, h)
			}
		}
		for _, f := range compareTones(pcm[ch], want) {
			s.faultf("%s, channel %d: %s; gaps: %+v", w, ch, f, m.Gaps)
		}
	}
}

// checkCasts compares whose segments lie in an interval.
func (s *scene) checkCasts(w wantRecording, m *recorder.Manifest) {
	for _, c := range w.casts {
		from, to := s.when(c.from).last.Add(scenarioTolerance), s.when(c.to).first.Add(-scenarioTolerance)
		n := 0
		for _, seg := range m.Segments {
			if atReal(m, seg.RealMS).Before(to) && atReal(m, seg.EndRealMS).After(from) {
				n++
				if got := slices.Sorted(slices.Values(seg.Parties)); !slices.Equal(got, c.users) {
					s.faultf("%s: segment %d, from %d to %d ms, has parties %q, want %q", w, seg.N, seg.RealMS, seg.EndRealMS, got, c.users)
				}
			}
		}
		if n == 0 {
			s.faultf("%s: no segment from %d to %d ms", w, c.from, c.to)
		}
	}
}

// checkWindows compares the windows that are listed.
func (s *scene) checkWindows(w wantRecording, m *recorder.Manifest) {
	got := slices.Clone(m.Windows)
	slices.SortStableFunc(got, func(a, b recorder.Window) int { return int(a.RealMS - b.RealMS) })
	if len(got) != len(w.windows) {
		text, _ := json.Marshal(got) // of plain fields
		s.faultf("%s: %d windows, want %d: %s", w, len(got), len(w.windows), text)
		return
	}
	for i, want := range w.windows {
		g, what := got[i], fmt.Sprintf("%s: window %d (%s)", w, i, want.reason)
		channel := -1
		if g.Channel != nil {
			channel = *g.Channel
		}
		if g.Reason != want.reason || channel != want.channel {
			s.faultf("%s is %s of channel %d", what, g.Reason, channel)
		}
		s.near(what+": begin", atReal(m, g.RealMS), want.from)
		s.near(what+": end", atReal(m, g.EndRealMS), want.to)
		if late := time.Duration(g.LateMS-int64(want.late)) * time.Millisecond; late < -scenarioTolerance || late > signalsTake {
			s.faultf("%s is late by %d ms, want %d", what, g.LateMS, want.late)
		}
	}
}

// atReal is when a moment of the recording was.
func atReal(m *recorder.Manifest, realMS int64) time.Time {
	return m.Origin.Add(time.Duration(realMS) * time.Millisecond)
}

// cutting is the account with those windows alone that take audio out.
func cutting(m *recorder.Manifest) *recorder.Manifest {
	out := &recorder.Manifest{}
	for _, w := range m.Windows {
		if w.Channel == nil && m.Suppressed == recorder.SuppressedCut {
			out.Windows = append(out.Windows, w)
		}
	}
	return out
}

// audioMS is where a moment lies in the audio of a recording.
func audioMS(m *recorder.Manifest, t time.Time) int64 {
	at := min(max(t.Sub(m.Origin).Milliseconds(), 0), m.RealMS)
	cut := cutting(m)
	cut.Windows = slices.DeleteFunc(cut.Windows, func(w recorder.Window) bool { return w.RealMS >= at })
	for i := range cut.Windows {
		cut.Windows[i].EndRealMS = min(cut.Windows[i].EndRealMS, at)
	}
	return at - windowsMS(cut)
}

// checkEars compares what the parties of the trunk's first call heard.
func (s *scene) checkEars(want [2][]span) {
	for side, list := range want {
		if list == nil {
			continue
		}
		start, pcm := [2]*siptest.Call{s.trunk.far, s.trunk.pbx}[side].Media().Heard()
		var hs []heard
		for _, sp := range list {
			hs = append(hs, s.expect(sp, func(at time.Time) int64 { return at.Sub(start).Milliseconds() }))
		}
		for _, f := range compareTones(pcm, hs) {
			s.faultf("side %d hears: %s", side, f)
		}
	}
}

// expect is a span of the scenario in the milliseconds of some audio.
func (s *scene) expect(sp span, position func(time.Time) int64) heard {
	edge := func(st step) edge { return edge{position(st.first), position(st.last)} }
	return heard{edge(s.when(sp.from)), edge(s.when(sp.to)), sp.tones}
}

// near holds that something happened at a step of the scenario.
func (s *scene) near(what string, got time.Time, ms int) {
	st := s.when(ms)
	if got.Before(st.first.Add(-scenarioTolerance)) || got.After(st.last.Add(scenarioTolerance)) {
		s.faultf("%s at %d ms, want %d", what, int64(ms)+got.Sub(st.first).Milliseconds(), ms)
	}
}
