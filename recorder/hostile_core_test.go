package recorder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/mediatest"
	"github.com/trunktap/trunktap/suppress"
)

// A call that is on hold for long must keep its account durable, whatever the format.
func TestHostileAccountIsJournalledInsideWindows(t *testing.T) {
	for _, format := range []string{FormatWAVPCM16, FormatOggOpus} {
		plan := testPlan()
		plan.Format = format
		sink, _ := replayed(t, plan, script(answered(70000), talk(media.External, 0, 70000, constant(0x30)),
			[]step{signalAt(3000, suppress.HoldStart), signalAt(60000, suppress.HoldEnd)}))
		n := 0
		for _, a := range sink.accounts {
			if a.RealMS > 10000 && a.RealMS < 58000 {
				n++
			}
		}
		if n < 8 {
			t.Errorf("%s: %d accounts were written between 10 s and 58 s of a hold", format, n)
		}
	}
}

// journalSink checks at each write that what is durable explains itself.
type journalSink struct {
	*memSink
	last  *Manifest
	fault []string
}

func (j *journalSink) Begin(i SegmentInfo) (SegmentWriter, error) {
	w, err := j.memSink.Begin(i)
	return &journalSegment{w, j}, err
}

type journalSegment struct {
	SegmentWriter
	j *journalSink
}

func cutBefore(m *Manifest, ms int64) (n int64) {
	if m == nil {
		return 0
	}
	for p := range ms {
		for _, w := range m.Windows {
			if w.Channel == nil && p >= w.RealMS && p < w.EndRealMS {
				n++
				break
			}
		}
	}
	return n
}

func (s *journalSegment) Write(a Audio, account *Manifest) error {
	if account != nil {
		s.j.last = account
	}
	if a.Samples > 0 {
		if d := a.RealMS - cutBefore(s.j.last, a.RealMS) - a.AudioMS; d != 0 {
			s.j.fault = append(s.j.fault, fmt.Sprintf("audio at real %d, audio %d: %d ms are in no window of the last account", a.RealMS, a.AudioMS, d))
		}
	}
	return s.SegmentWriter.Write(a, account)
}

func TestHostileAccountNamesWindowsBeforeTheAudioBehindThem(t *testing.T) {
	plan := testPlan()
	sink := &journalSink{memSink: newMemSink()}
	r := mustRecorder(t, Config{
		Policy: fixedPolicy{plan}, Synchronous: true,
		NewSink: func(context.Context, string, string) (Sink, error) { return sink, nil },
	})
	tap, err := r.SessionStarted(context.Background(), testSession("call-1"))
	if err != nil {
		t.Fatal(err)
	}
	c := &testCall{tap: tap, taps: map[media.StreamID]media.Tap{}}
	for _, s := range script(answered(12000), talk(media.External, 0, 12000, constant(0x30)), talk(media.Internal, 0, 12000, constant(0x30)),
		[]step{signalAt(2700, suppress.HoldStart), signalAt(3700, suppress.HoldEnd)}) {
		s.do(c)
	}
	for _, f := range sink.fault {
		t.Error(f)
	}
}

func TestHostileSalvageKeepsTheAccountExact(t *testing.T) {
	for _, mode := range []string{SuppressedCut, SuppressedSilence} {
		synctest.Test(t, func(t *testing.T) {
			rounds := 0
			fault := func(string) {
				if rounds++; rounds == 300 { // 6 s after the start, 5 s after the answer
					panic("injected")
				}
			}
			plan := testPlan()
			plan.Suppressed = mode
			_, m, _ := recordedLive(t, Config{Policy: fixedPolicy{plan}, Fault: fault}, script(plainCall(8000),
				[]step{signalAt(2700, suppress.HoldStart), signalAt(3700, suppress.HoldEnd)}))
			if m == nil {
				t.Fatal("nothing published")
			}
			union := cutBefore(m, m.RealMS)
			if mode == SuppressedSilence {
				union = 0
			}
			if m.AudioMS+union != m.RealMS {
				t.Errorf("%s: audio %d + windows %d (%v) is not real %d", mode, m.AudioMS, union, m.Windows, m.RealMS)
			}
			for _, g := range m.Gaps {
				for ms := g.RealMS; ms < g.RealMS+g.DurationMS; ms++ {
					if cutBefore(&Manifest{Windows: m.Windows}, ms+1) != cutBefore(&Manifest{Windows: m.Windows}, ms) {
						t.Fatalf("%s: gap %+v reaches into %+v", mode, g, m.Windows)
					}
				}
			}
			if len(m.Windows) == 0 {
				t.Errorf("%s: the hold is not in the account", mode)
			}
		})
	}
}

func TestHostileLostFramesInSilenceModeStayOutOfWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newMemSink()
		var broken atomic.Bool
		sink.failWrite = func() error {
			if broken.Load() {
				return errors.New("no space left on device")
			}
			return nil
		}
		plan := testPlan()
		plan.Suppressed = SuppressedSilence
		steps := script(plainCall(12000), []step{
			{at: at(1001), do: func(*testCall) { broken.Store(true) }},
			{at: at(10001), do: func(*testCall) { broken.Store(false) }},
			signalAt(5000, suppress.PauseStart), signalAt(7000, suppress.PauseEnd),
		})
		recordedLive(t, Config{Policy: fixedPolicy{plan}, NewSink: sink.open, CallBudgetBytes: 40 << 10}, steps)
		if err := accountFault(sink.manifest, sink); err != nil {
			t.Error(err)
		}
	})
}

// Encrypted telephone events are no digits.
func TestHostileEncryptedEventsAreNoDigits(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	steps := []step{{at: at(0), do: func(c *testCall) {
		c.tap.Answered(at(0))
		c.taps[0] = c.tap.StreamStarted(media.Stream{ID: 0, Side: media.External, At: at(0), Formats: g711Formats, Sending: true, Secure: true})
	}}, {at: at(5000), last: true, do: func(c *testCall) { c.tap.Ended(at(5000), media.CauseBye) }}}
	for i := range 100 {
		payload := make([]byte, 14)
		for k := range payload {
			payload[k] = byte(rng.Uint32())
		}
		ts := at(20 * i)
		wire := packet(101, uint16(i), uint32(160*i), 7, payload)
		steps = append(steps, step{at: ts, do: func(c *testCall) { c.put(media.External, ts, wire) }})
	}
	_, m := replayed(t, testPlan(), script(steps))
	if len(m.DTMF) > 0 {
		t.Errorf("%d digits were made of encrypted payloads: %+v", len(m.DTMF), m.DTMF[:1])
	}
}

// A digit whose packets all arrive inside a window, with a timestamp that lags
// its arrival (a sender that stamps it with its last audio before a pause).
func TestHostileDigitWithLaggingTimestampInsideWindowIsNowhere(t *testing.T) {
	for _, lag := range []int{200, 400, 700, 950} {
		ext := talk(media.External, 0, 1900, constant(0x30))
		var d []step
		for i := range 7 {
			end, dur := byte(0), min(i+1, 5)*160
			if i >= 4 {
				end = 0x80
			}
			when := at(2100 + 20*min(i, 5))
			ts := uint32(4294960000 + 160*((2100-lag)/20))
			wire := packet(101, uint16(65500+95+i), ts, 0x1000, []byte{5, end | 10, byte(dur >> 8), byte(dur)})
			d = append(d, step{at: when, do: func(c *testCall) { c.put(media.External, when, wire) }})
		}
		_, m := replayed(t, testPlan(), script(answered(5000), ext, d, []step{signalAt(2000, suppress.PauseStart), signalAt(4000, suppress.PauseEnd)}))
		if len(m.DTMF) > 0 {
			t.Errorf("lag %d ms: dialled at 2100 inside 2000…4000, recorded as %+v", lag, m.DTMF)
		}
	}
}

// Packets that arrive inside a window are not heard behind it, whatever the
// path's delay does. The path is slow by late ms, then quick.
func TestHostileWhatArrivesInsideAWindowIsNotHeardBehindIt(t *testing.T) {
	for _, late := range []int{12, 100, 250, 300, 500, 900} {
		for _, lookback := range []time.Duration{0, 500 * time.Millisecond} {
			plan := testPlan()
			plan.Lookback = lookback
			const quick, from, to = 2500, 2520, 3000 // the window
			secret := byte(0x01)
			var ext []step
			for n := range 300 {
				sent := 20 * n
				when := sent + late
				if when > quick {
					when = max(sent, quick)
				}
				b := byte(0x7e)
				if when >= from && when < to {
					b = secret
				}
				wire := packet(0, uint16(n), uint32(160*n), 5, slices.Repeat([]byte{b}, 160))
				ts := at(when)
				ext = append(ext, step{at: ts, do: func(c *testCall) { c.put(media.External, ts, wire) }})
			}
			sink, _ := replayed(t, plan, script(answered(6000), ext, []step{signalAt(from, suppress.PauseStart), signalAt(to, suppress.PauseEnd)}))
			n, v := 0, loud(t, secret)
			for _, s := range sink.pcm()[0][from*8:] {
				if s == v {
					n++
				}
			}
			if n > 20*8 {
				t.Errorf("path quicker by %d ms, lookback %v: %d ms that arrived inside the window are heard behind it", late, lookback, n/8)
			}
		}
	}
}

// Each source is recorded, or its gap says why not.
func TestHostileManySourcesInOneCall(t *testing.T) {
	var ext []step
	for i := range 80 {
		for n := range 25 {
			ts := at(500*i + 20*n)
			wire := packet(0, uint16(n), uint32(160*n), uint32(100+i), slices.Repeat([]byte{0x30}, 160))
			ext = append(ext, step{at: ts, do: func(c *testCall) { c.put(media.External, ts, wire) }})
		}
	}
	sink, m := replayed(t, testPlan(), script(answered(40000), ext, talk(media.Internal, 0, 40000, constant(0x20))))
	checkAccount(t, m, sink)
	for _, g := range m.Gaps {
		if g.DurationMS > 40 {
			t.Errorf("packets came all the time, gap %+v", g)
		}
	}
}

func TestHostileDigitsGoOnAfterTheSenderRestarts(t *testing.T) {
	one := func(ms int, code byte, seq uint16, ts uint32) (out []step) {
		for i := range 7 {
			end, dur, when := byte(0), min(i+1, 5)*160, at(ms+20*min(i, 5))
			if i >= 4 {
				end = 0x80
			}
			wire := packet(101, seq+uint16(i), ts, 9, []byte{code, end | 10, byte(dur >> 8), byte(dur)})
			out = append(out, step{at: when, do: func(c *testCall) { c.put(media.External, when, wire) }})
		}
		return out
	}
	_, m := replayed(t, testPlan(), script(answered(6000), one(1000, 1, 100, 900000), one(2000, 2, 40000, 1000), one(3000, 3, 40007, 9000)))
	var got string
	for _, d := range m.DTMF {
		got += d.Digit
	}
	if got != "123" {
		t.Errorf("digits %q, want 123", got)
	}
}

// A key held for long inside a window whose last update before the next part was lost.
func TestHostileLongKeyOfAWindowIsNotADigitBehindIt(t *testing.T) {
	var d []step
	seq := uint16(0)
	put := func(when int, ts uint32, dur int) {
		wire := packet(101, seq, ts, 9, []byte{5, 10, byte(dur >> 8), byte(dur)})
		seq++
		w := at(when)
		d = append(d, step{at: w, do: func(c *testCall) { c.put(media.External, w, wire) }})
	}
	for ms := 20; ms < 7500; ms += 20 { // then the network loses 700 ms
		put(2000+ms, 100000, ms*8)
	}
	seq += 35
	put(2000+8200, 100000+0xffff, 160)
	put(2000+8220, 100000+0xffff, 320)
	_, m := replayed(t, testPlan(), script(answered(15000), d, []step{signalAt(1900, suppress.PauseStart), signalAt(8000, suppress.PauseEnd)}))
	if len(m.DTMF) > 0 {
		t.Errorf("recorded %+v", m.DTMF)
	}
}

// Packets that wait in the reorder window keep the meaning they arrived with.
func TestHostileRenegotiationDoesNotReinterpretWaitingPackets(t *testing.T) {
	stream := func(secure bool, ms int) step {
		return step{at: at(ms), do: func(c *testCall) {
			c.taps[0] = c.tap.StreamStarted(media.Stream{ID: 0, Side: media.External, At: at(ms), Formats: g711Formats, Sending: true, Secure: secure})
		}}
	}
	var ext []step
	for n := range 250 {
		if n == 95 {
			continue // lost: what follows waits
		}
		b := byte(0x01) // noise: encrypted
		if n >= 105 {
			b = 0x7e
		}
		ts := at(20 * n)
		wire := packet(0, uint16(n), uint32(160*n), 9, slices.Repeat([]byte{b}, 160))
		ext = append(ext, step{at: ts, do: func(c *testCall) { c.put(media.External, ts, wire) }})
	}
	sink, _ := replayed(t, testPlan(), script([]step{{at: at(0), do: func(c *testCall) { c.tap.Answered(at(0)) }}, stream(true, 0), stream(false, 2100)},
		ext, []step{{at: at(5000), last: true, do: func(c *testCall) { c.tap.Ended(at(5000), media.CauseBye) }}}))
	n, v := 0, loud(t, 0x01)
	for _, s := range sink.pcm()[0] {
		if s == v {
			n++
		}
	}
	if n > 0 {
		t.Errorf("%d ms of encrypted payload are in the recording as audio", n/8)
	}
}

// collected is an output that joins PCM.
type collected struct {
	pcm      []byte
	manifest *Manifest
}

func (*collected) begin(SegmentInfo) {}
func (o *collected) audio(a Audio, _ *Manifest) bool {
	o.pcm = append(o.pcm, a.Data...)
	return true
}
func (*collected) finish(Segment, *Manifest) {}
func (*collected) abandon()                  {}
func (o *collected) publish(m *Manifest)     { o.manifest = m }
func (*collected) discard(string)            {}
func (*collected) refusal() (string, string) { return "", "" }

// event of a core, for the tests below.
type coreEvent struct {
	ns int64
	do func(c *core)
}

func randomCall(rng *rand.Rand, length int) []coreEvent {
	var ev []coreEvent
	add := func(t time.Time, f func(c *core)) { ev = append(ev, coreEvent{int64(t.Sub(t0)), f}) }
	for _, side := range []media.Side{media.External, media.Internal} {
		rec := &recordingTap{}
		tc := &testCall{taps: map[media.StreamID]media.Tap{media.StreamID(side): rec}}
		if rng.IntN(2) == 0 {
			for ms := range 6 {
				rec.packets = append(rec.packets, toneBurst(rng, side, 500+1200*ms)...)
			}
		}
		steps := impaired(rng, side, rng.IntN(1000), length, rng.Float64()*300-150, rng.Float64()*0.1, rng.IntN(300), 0x30)
		for range rng.IntN(6) {
			steps = append(steps, digit(side, rng.IntN(length-500), byte(rng.IntN(16)), uint16(rng.Uint32()))...)
		}
		for _, s := range steps {
			s.do(tc)
		}
		for _, p := range rec.packets {
			add(p.at, func(c *core) { c.packet(media.StreamID(side), c.ns(p.at), slices.Clone(p.wire), 0) })
		}
		for ms := 0; ms < length; ms += 300 + rng.IntN(4000) {
			sending := ms == 0 || rng.IntN(2) == 0
			t := at(ms)
			add(t, func(c *core) {
				c.stream(media.Stream{ID: media.StreamID(side), Side: side, At: t, Formats: g711Formats, Sending: sending})
			})
		}
	}
	events := []suppress.Event{suppress.HoldStart, suppress.HoldEnd, suppress.PauseStart, suppress.PauseEnd, suppress.AgentJoin, suppress.AgentLeave}
	for range rng.IntN(12) {
		ms, lag := rng.IntN(length), time.Duration(rng.IntN(1500))*time.Millisecond
		e, t := events[rng.IntN(len(events))], at(ms)
		user := fmt.Sprint("u", rng.IntN(3))
		add(t.Add(lag), func(c *core) {
			c.signal(suppress.Signal{V: 1, Event: e, At: t, Received: t.Add(lag), Source: "t", User: user, Role: suppress.RoleAgent})
		})
	}
	for range rng.IntN(6) {
		t, d := at(rng.IntN(length)), infoDigit{media.Side(rng.IntN(2)), "0123456789*#ABCD"[rng.IntN(16)], time.Duration(rng.IntN(900)) * time.Millisecond}
		add(t, func(c *core) { c.pressed(t, d) })
	}
	a := at(rng.IntN(300))
	add(a, func(c *core) { c.answer(a) })
	slices.SortStableFunc(ev, func(a, b coreEvent) int { return int(a.ns - b.ns) })
	return ev
}

// toneBurst is a key of 60 to 160 ms in band.
func toneBurst(rng *rand.Rand, side media.Side, ms int) (out []tapped) {
	pcm := make([]int16, 160*(3+rng.IntN(6)))
	mediatest.DTMF{Rate: 8000, Low: -8, High: -8}.Add(pcm, "0123456789*#ABCD"[rng.IntN(16)])
	ssrc, seq, ts := rng.Uint32(), uint16(rng.Uint32()), rng.Uint32()
	for i := 0; i < len(pcm); i += 160 {
		payload := make([]byte, 160)
		for k := range payload {
			payload[k] = mediatest.MuLaw(pcm[i+k])
		}
		out = append(out, tapped{at(ms + i/8), packet(0, seq+uint16(i/160), ts+uint32(i), ssrc, payload)})
	}
	return out
}

type tapped struct {
	at   time.Time
	wire []byte
}
type recordingTap struct{ packets []tapped }

func (r *recordingTap) Put(at time.Time, wire []byte) {
	r.packets = append(r.packets, tapped{at, wire})
}

func TestHostileAdvanceAtAnyTimeChangesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		rng := rand.New(rand.NewPCG(seed, 3))
		const length = 8000
		plan := testPlan()
		plan.SegmentMax = time.Duration(1000+rng.IntN(3000)) * time.Millisecond
		plan.Lookback = time.Duration(rng.IntN(800)) * time.Millisecond
		plan.EarlyMedia = rng.IntN(3) == 0
		plan.Rules.ConsentRequired = false
		plan.MaskDTMF = rng.IntN(2) == 0
		plan.InbandDTMF = []string{InbandAuto, InbandOn, InbandOff}[rng.IntN(3)]
		if rng.IntN(2) == 0 {
			plan.Suppressed = SuppressedSilence
		}
		ev := randomCall(rng, length)
		end := at(length + 300)
		run := func(extra bool) *collected {
			out := &collected{}
			c := newCore(testSession("x"), plan, "", plainMemory{}, func(recordingInfo) output { return out })
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
			return out
		}
		want, got := run(false), run(true)
		if d := cmp.Diff(want.manifest, got.manifest); d != "" {
			rt.Fatalf("seed %d: %s", seed, d)
		}
		if !slices.Equal(want.pcm, got.pcm) {
			rt.Fatal("samples differ")
		}
		m := got.manifest
		sink := newMemSink()
		sink.infos[1] = SegmentInfo{}
		sink.segments[1] = []Audio{{Data: got.pcm}}
		if err := accountFault(m, sink); err != nil {
			rt.Fatal(err)
		}
		for _, d := range m.DTMF {
			for _, w := range m.Windows {
				if d.RealMS >= w.RealMS && d.RealMS < w.EndRealMS {
					rt.Fatalf("digit %+v in window %+v", d, w)
				}
			}
		}
		if !slices.IsSortedFunc(m.DTMF, func(a, b Digit) int { return int(a.RealMS - b.RealMS) }) {
			rt.Fatalf("digits out of order: %+v", m.DTMF)
		}
	})
}
