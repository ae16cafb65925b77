package recorder

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/suppress"
)

// countingVault knows what was taken and not given back.
type countingVault struct {
	out  map[*int16]int
	full int // takes until it has no more; negative: never
}

func newCountingVault() *countingVault { return &countingVault{out: map[*int16]int{}, full: -1} }

func (v *countingVault) take(n int) ([]int16, error) {
	if v.full == 0 {
		return nil, errors.New("none left")
	}
	v.full--
	b := make([]int16, n)
	v.out[&b[0]] = n
	return b, nil
}

func (v *countingVault) give(b []int16) {
	if len(b) == 0 {
		return
	}
	if _, ok := v.out[&b[0]]; !ok {
		panic("a block was given back that is not out")
	}
	clear(b)
	delete(v.out, &b[0])
}

// outs collects the recordings of a core by id.
type outs map[string]*collectedOne

// collectedOne is an output that keeps all that it gets.
type collectedOne struct {
	collected
	info      recordingInfo
	discarded string
	over      int // publish or discard came so often
	begun     int
}

func (o *collectedOne) audio(a Audio, _ *Manifest) bool {
	if n := int(a.AudioMS*32) - len(o.pcm); a.Samples > 0 && n > 0 {
		o.pcm = append(o.pcm, make([]byte, n)...) // what is missing between frames is silence
	}
	o.pcm = append(o.pcm, a.Data...)
	return true
}

func (o *collectedOne) begin(SegmentInfo)   { o.begun++ }
func (o *collectedOne) abandon()            { o.begun-- }
func (o *collectedOne) publish(m *Manifest) { o.manifest = m; o.over++ }
func (o *collectedOne) discard(why string)  { o.discarded = why; o.over++ }

func (os outs) open(info recordingInfo) output {
	o := &collectedOne{info: info}
	os[info.ID] = o
	return o
}

// sink makes the collected audio readable by accountFault.
func (o *collectedOne) sink() *memSink {
	s := newMemSink()
	s.infos[1] = SegmentInfo{}
	s.segments[1] = []Audio{{Data: o.pcm}}
	return s
}

// fault is what is wrong with one recording by itself.
func (o *collectedOne) fault() error {
	switch m := o.manifest; {
	case o.over != 1:
		return fmt.Errorf("it was published or discarded %d times", o.over)
	case m == nil:
		return nil
	case m.Kind != KindTrunk && (m.Consent == "none" || m.Consent == "denied" && cutBefore(m, m.RealMS) == m.RealMS):
		return fmt.Errorf("a recording of kind %s is kept with consent %q", m.Kind, m.Consent)
	case m.Consent == "none" || m.Consent == "denied" && slices.ContainsFunc(m.Windows, func(w Window) bool {
		return w.Reason == "consent" && w.RealMS == 0 && w.EndRealMS == m.RealMS
	}):
		if m.AudioMS > 0 || len(m.Segments)+len(o.pcm)+len(m.DTMF)+o.begun > 0 {
			return fmt.Errorf("nobody consented, and there are %d ms of audio in %d segments", m.AudioMS, len(m.Segments))
		}
		return nil
	case m.Consent == "denied" && len(m.Segments) == 0 && m.AudioMS == 0:
		return nil
	case m.RealMS == 0 && m.Kind != KindTrunk || m.Call.End.Before(m.Origin) || m.Call.Answer.IsZero():
		return fmt.Errorf("it lasts %d ms, from %v (answered %v) to %v", m.RealMS, m.Origin, m.Call.Answer, m.Call.End)
	default:
		for _, s := range m.Streams {
			if min(s.Packets, s.Lost, s.Late, s.Duplicate, s.Reordered, s.Overrun, s.Undecoded, s.Restarts, s.Rejected) < 0 {
				return fmt.Errorf("a stream with less than nothing: %+v", s)
			}
		}
		for _, d := range m.DTMF {
			for _, w := range m.Windows {
				if d.RealMS >= w.RealMS && d.RealMS < w.EndRealMS && (w.Channel == nil || *w.Channel == d.Channel) {
					return fmt.Errorf("digit %+v in window %+v", d, w)
				}
			}
		}
		return accountFault(m, o.sink())
	}
}

// randomKinds is what may happen in a call with all kinds of recordings.
func randomKinds(rng *rand.Rand, length int) []coreEvent {
	var ev []coreEvent
	users := []string{"desk", "agent1", "agent2", "alice"}
	events := []suppress.Event{
		suppress.HoldStart, suppress.HoldEnd, suppress.PauseStart, suppress.PauseEnd, suppress.QueueStart, suppress.QueueEnd,
		suppress.AgentJoin, suppress.AgentJoin, suppress.AgentLeave, suppress.SnippetStart, suppress.SnippetStart, suppress.SnippetEnd,
		suppress.AdhocStart, suppress.AdhocStart, suppress.AdhocEnd, suppress.ConsultStart, suppress.ConsultEnd,
		suppress.ConsentGranted, suppress.ConsentDenied, suppress.TransferExternal, suppress.AttrsSet, suppress.SourceLost,
	}
	roles := []suppress.Role{suppress.RoleAgent, suppress.RoleConsult, suppress.RoleMonitor, suppress.RoleCoach, suppress.RoleBarge}
	for range rng.IntN(40) {
		ms := rng.IntN(length+1500) - 1000
		lag := time.Duration(0)
		if rng.IntN(3) == 0 {
			lag = time.Duration(rng.IntN(2000)-300) * time.Millisecond
		}
		t := at(ms)
		s := suppress.Signal{
			V: 1, Event: events[rng.IntN(len(events))], At: t, Received: t.Add(lag), Source: []string{"a", "b"}[rng.IntN(2)],
			User: users[rng.IntN(len(users))], Role: roles[rng.IntN(len(roles))],
		}
		if rng.IntN(3) == 0 {
			s.Seq = uint64(1 + rng.IntN(6)) // some come twice
		}
		ev = append(ev, coreEvent{int64(s.Received.Sub(t0)), func(c *core) { c.signal(s) }})
	}
	return ev
}

// randomKeys is digits of a side, as events or as tones.
func randomKeys(rng *rand.Rand, side media.Side, length int) []coreEvent {
	var keys []key
	for ms := 200 + rng.IntN(600); ms < length-300; ms += 180 + 20*rng.IntN(60) {
		keys = append(keys, key{ms / 20 * 20, "12*#01"[rng.IntN(6)]})
	}
	var ev []coreEvent
	rec := &recordingTap{}
	tc := &testCall{taps: map[media.StreamID]media.Tap{media.StreamID(side): rec}}
	for _, s := range typed(side, length, rng.IntN(2) == 0, keys...) {
		if rng.IntN(30) > 0 {
			s.do(tc)
		}
	}
	jitter := 1 + rng.Int64N(120e6)
	for _, p := range rec.packets {
		t := p.at.Add(time.Duration(rng.Int64N(jitter)))
		ev = append(ev, coreEvent{int64(t.Sub(t0)), func(c *core) { c.packet(media.StreamID(side), c.ns(t), slices.Clone(p.wire), 0) }})
	}
	return ev
}

func randomKindsPlan(rng *rand.Rand) Plan {
	plan := kindsPlan()
	plan.SegmentMax = time.Duration(1000+rng.IntN(3000)) * time.Millisecond
	plan.Lookback = time.Duration(rng.IntN(800)) * time.Millisecond
	plan.EarlyMedia = rng.IntN(3) == 0
	plan.Rules.ConsentRequired = rng.IntN(2) == 0
	plan.ConsentPreroll = rng.IntN(2) == 0
	plan.ConsentTimeout = time.Duration(rng.IntN(6000)) * time.Millisecond
	plan.NoTrunk = rng.IntN(5) == 0
	if rng.IntN(3) == 0 {
		plan.Rules.PauseAutoResume = time.Duration(1+rng.IntN(3000)) * time.Millisecond
	}
	st := stationPlan()
	if rng.IntN(2) == 0 {
		plan.Suppressed = SuppressedSilence
	}
	if rng.IntN(2) == 0 {
		st.Suppressed = SuppressedSilence
	}
	plan.Stations = stations{st, rng.IntN(2) == 0}
	if rng.IntN(2) == 0 {
		for i := range plan.Codes {
			plan.Codes[i] = []suppress.Code{
				{Digits: "*#0", Event: suppress.PauseStart},
				{Digits: "*#1", Event: suppress.PauseEnd},
				{Digits: "1", Event: suppress.ConsentGranted},
				{Digits: "2", Event: suppress.ConsentDenied},
			}
			if rng.IntN(2) == 0 {
				plan.Codes[i] = plan.Codes[i][:2]
			}
		}
	}
	return plan
}

// TestHostileAdvanceAtAnyTimeChangesNoRecording is promise 3 for all kinds of
// recordings, codes and consent, and promise 4 for each of them.
func TestHostileAdvanceAtAnyTimeChangesNoRecording(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.OneOf(rapid.Just(uint64(1347946)), rapid.Uint64()).Draw(rt, "seed") // that one: consent when all had passed in windows
		rng := rand.New(rand.NewPCG(seed, 4))
		const length = 8000
		plan := randomKindsPlan(rng)
		ev := randomCall(rng, length)
		if rng.IntN(2) == 0 {
			ev = slices.Concat(randomKeys(rng, media.External, length), randomKeys(rng, media.Internal, length))
			for i := range 2 {
				s := media.Stream{ID: media.StreamID(i), Side: media.Side(i), At: at(0), Formats: g711Formats, Sending: true}
				ev = append(ev, coreEvent{int64(s.At.Sub(t0)), func(c *core) { c.stream(s) }})
			}
			a := at(rng.IntN(300))
			ev = append(ev, coreEvent{int64(a.Sub(t0)), func(c *core) { c.answer(a) }})
		}
		ev = append(ev, randomKinds(rng, length)...)
		slices.SortStableFunc(ev, func(a, b coreEvent) int { return int(a.ns - b.ns) })
		s := testSession("x")
		s.Direction = []media.Direction{media.Inbound, media.Outbound}[rng.IntN(2)]
		if rng.IntN(2) == 0 {
			s.Parties[0].URI = "sip:agent2@pbx.example"
		}
		end := at(length + rng.IntN(600) - 300)
		run := func(extra bool) outs {
			all, v := outs{}, newCountingVault()
			c := newCore(s, plan, "", v, all.open)
			last := int64(0)
			for _, e := range ev {
				for extra && rng.IntN(2) == 0 && e.ns > last {
					last += rng.Int64N(e.ns - last + 1)
					c.advance(last)
				}
				e.do(c)
				last = max(last, e.ns)
			}
			c.end(end, media.CauseBye)
			if len(v.out) > 0 {
				rt.Fatalf("seed %d: %d blocks of locked memory are not given back", seed, len(v.out))
			}
			return all
		}
		want, got := run(false), run(true)
		if d := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); d != "" {
			rt.Fatalf("seed %d: recordings: %s", seed, d)
		}
		for id, w := range want {
			if d := cmp.Diff(w.manifest, got[id].manifest); d != "" {
				rt.Fatalf("seed %d: %s: %s", seed, id, d)
			}
			if !slices.Equal(w.pcm, got[id].pcm) {
				rt.Fatalf("seed %d: samples of %s differ", seed, id)
			}
			if err := w.fault(); err != nil {
				rt.Fatalf("seed %d: %s: %v", seed, id, err)
			}
		}
	})
}
