package recorder

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/suppress"
)

// loud is a mu-law byte and what it decodes to.
func loud(t testing.TB, b byte) int16 {
	t.Helper()
	d, err := codec.NewDecoder(media.Format{Name: "PCMU", ClockRate: 8000}, codec.DecoderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pcm, err := d.Decode(nil, []byte{b})
	if err != nil {
		t.Fatal(err)
	}
	return pcm[0]
}

func TestCallIsRecordedSampleForSample(t *testing.T) {
	sink, m := replayed(t, testPlan(), script(answered(3000),
		talk(media.External, 0, 3000, constant(0x10)), talk(media.Internal, 0, 3000, constant(0x90))))
	checkAccount(t, m, sink)
	if m.RealMS != 3000 || m.AudioMS != 3000 || len(m.Gaps) != 0 || len(m.Windows) != 0 {
		t.Fatalf("real %d, audio %d, gaps %v, windows %v; want 3000, 3000, none, none", m.RealMS, m.AudioMS, m.Gaps, m.Windows)
	}
	pcm := sink.pcm()
	for ch, b := range []byte{0x10, 0x90} {
		want := loud(t, b)
		for i, v := range pcm[ch] {
			if v != want {
				t.Fatalf("channel %d sample %d is %d, want %d", ch, i, v, want)
			}
		}
	}
	want := []Stream{
		{Channel: 0, SSRC: 0x1000, Codec: "PCMU", Packets: 150}, {Channel: 1, SSRC: 0x1001, Codec: "PCMU", Packets: 150},
	}
	if d := cmp.Diff(want, m.Streams, cmpopts.IgnoreFields(Stream{}, "Quality")); d != "" {
		t.Error(d)
	}
	if !m.Origin.Equal(at(0)) || m.Call.EndCause != "bye" || !m.Call.End.Equal(at(3000)) {
		t.Errorf("origin %v, end %v %q", m.Origin, m.Call.End, m.Call.EndCause)
	}
}

func TestWindowsAreCutToTheMillisecond(t *testing.T) {
	value := func(ms int) byte {
		switch {
		case ms >= 1003 && ms < 2017:
			return 0x01 // must never be heard
		case ms >= 2500 && ms < 2600:
			return 0x02
		}
		return 0x7e
	}
	sigs := []step{
		signalAt(1003, suppress.HoldStart), signalAt(1500, suppress.PauseStart), signalAt(1800, suppress.HoldEnd), signalAt(2017, suppress.PauseEnd),
		signalAt(2500, suppress.IVRStart), signalAt(2600, suppress.IVREnd),
	}
	steps := script(answered(4000), talk(media.External, 0, 4000, value), talk(media.Internal, 0, 4000, value), sigs)
	for _, mode := range []string{SuppressedCut, SuppressedSilence} {
		plan := testPlan()
		plan.Suppressed = mode
		sink, m := replayed(t, plan, steps)
		checkAccount(t, m, sink)
		want := []Window{
			{Reason: "hold", RealMS: 1003, EndRealMS: 1800, AudioMS: 1003, Source: "test"},
			{Reason: "pause", RealMS: 1500, EndRealMS: 2017, AudioMS: 1003, Source: "test"},
			{Reason: "ivr", RealMS: 2500, EndRealMS: 2600, AudioMS: 1486, Source: "test"},
		}
		if mode == SuppressedSilence {
			want[0].AudioMS, want[1].AudioMS, want[2].AudioMS = 1003, 1500, 2500
		}
		if d := cmp.Diff(want, m.Windows); d != "" {
			t.Errorf("%s: %s", mode, d)
		}
		secret := []int16{loud(t, 0x01), loud(t, 0x02)}
		for ch, pcm := range sink.pcm() {
			for i, v := range pcm {
				if slices.Contains(secret, v) {
					t.Fatalf("%s: channel %d sample %d was suppressed and is in the recording", mode, ch, i)
				}
			}
		}
		if len(m.Gaps) != 0 {
			t.Errorf("%s: gaps %v, want none", mode, m.Gaps)
		}
	}
}

// TestWindowsAreJournalled: a daemon that dies knows again of a window that
// began or ended two seconds before.
func TestWindowsAreJournalled(t *testing.T) {
	for _, hold := range [][2]int{{6203, 7431}, {6203, 9600}, {6190, 6230}} {
		steps := script(answered(12000), talk(media.External, 0, 12000, constant(0x20)), talk(media.Internal, 0, 12000, constant(0x40)),
			[]step{signalAt(hold[0], suppress.HoldStart), signalAt(hold[1], suppress.HoldEnd)})
		sink, _ := replayed(t, testPlan(), steps)
		began, ended := int64(-1), int64(-1)
		for _, m := range sink.accounts {
			if began < 0 && len(m.Windows) == 1 && m.Windows[0].RealMS == int64(hold[0]) {
				began = m.RealMS
			}
			if ended < 0 && len(m.Windows) == 1 && m.Windows[0].EndRealMS == int64(hold[1]) && m.RealMS > int64(hold[1]) {
				ended = m.RealMS
			}
		}
		if began < 0 || began > int64(hold[0])+1500 {
			t.Errorf("hold %v: its beginning was written at %d ms", hold, began)
		}
		if ended < 0 || ended > int64(hold[1])+1500 {
			t.Errorf("hold %v: its end was written at %d ms", hold, ended)
		}
	}
}

// TestAccountBeforeAudio: a call whose daemon dies before the first frame has a
// recording all the same.
func TestAccountBeforeAudio(t *testing.T) {
	sink, _ := replayed(t, testPlan(), script(answered(300), talk(media.External, 0, 300, constant(0x20)), talk(media.Internal, 0, 300, constant(0x40))))
	if len(sink.accounts) == 0 || sink.accounts[0].RealMS != 0 || sink.accounts[0].ID == "" || sink.accounts[0].Call.SIPCallID == "" {
		t.Errorf("accounts %+v, want one of 0 ms first", sink.accounts)
	}
}

// TestAccountGoesOnInAWindow: while a call is on hold no audio tells how long it
// has lasted, so the account does, also when an encoder holds some audio back.
func TestAccountGoesOnInAWindow(t *testing.T) {
	for _, format := range []string{FormatWAVPCM16, FormatOggOpus} {
		plan := testPlan()
		plan.Format = format
		sink, _ := replayed(t, plan, script(answered(20000), talk(media.External, 0, 20000, constant(0x20)), talk(media.Internal, 0, 20000, constant(0x40)),
			[]step{signalAt(6213, suppress.HoldStart), signalAt(16000, suppress.HoldEnd)}))
		last := int64(0)
		for _, m := range sink.accounts {
			if m.RealMS > 7000 && last < 16000 && m.RealMS-last > 1100 {
				t.Errorf("%s: no account between %d and %d ms", format, last, m.RealMS)
			}
			last = m.RealMS
		}
		if n := len(sink.accounts); n > 40 {
			t.Errorf("%s: %d accounts", format, n)
		}
	}
}

func TestLateSignalActsAsFarBackAsNothingIsSealed(t *testing.T) {
	late := func(evMS, recvMS int, e suppress.Event) step {
		return step{at: at(recvMS), do: func(c *testCall) {
			c.tap.Signal(suppress.Signal{V: 1, Event: e, At: at(evMS), Received: at(recvMS), Source: "test"})
		}}
	}
	both := func(ms int) byte { return 0x20 }
	base := [][]step{answered(6000), talk(media.External, 0, 6000, both), talk(media.Internal, 0, 6000, both)}
	for _, tc := range []struct {
		name       string
		recv       int
		from       int64
		late, miss int64
	}{
		{"within lookback", 2300, 2000, 300, 0},
		{"at its edge", 2500, 2000, 500, 0},
		{"beyond", 3000, 2500, 1000, 500},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sink, m := replayed(t, testPlan(), script(append(base, []step{late(2000, tc.recv, suppress.PauseStart), signalAt(4000, suppress.PauseEnd)})...))
			checkAccount(t, m, sink)
			want := []Window{{Reason: "pause", RealMS: tc.from, EndRealMS: 4000, AudioMS: tc.from, Source: "test", LateMS: tc.late, MissedMS: tc.miss}}
			if d := cmp.Diff(want, m.Windows); d != "" {
				t.Error(d)
			}
		})
	}
}

// digit is an RFC 4733 event of 100 ms: updates every 20 ms and three ends.
func digit(side media.Side, ms int, code byte, seq uint16) []step {
	var out []step
	for i := range 7 {
		end, dur, when := byte(0), min(i+1, 5)*160, ms+min(i, 5)*20
		if i >= 4 {
			end = 0x80
		}
		wire := packet(101, seq+uint16(i), uint32(ms*8), 0x1000+uint32(side), []byte{code, end | 10, byte(dur >> 8), byte(dur)})
		t := at(when)
		out = append(out, step{at: t, do: func(c *testCall) { c.put(side, t, wire) }})
	}
	return out
}

func TestDigitsInsideWindowsAreNowhere(t *testing.T) {
	steps := script(answered(5000), digit(media.External, 500, 7, 1), digit(media.External, 2100, 8, 8), digit(media.External, 2900, 9, 15),
		digit(media.External, 3500, 11, 22), []step{signalAt(2000, suppress.PauseStart), signalAt(3000, suppress.PauseEnd)})
	_, m := replayed(t, testPlan(), steps)
	want := []Digit{{Channel: 0, RealMS: 500, Digit: "7"}, {Channel: 0, RealMS: 3500, Digit: "#"}}
	if d := cmp.Diff(want, m.DTMF); d != "" {
		t.Error(d)
	}
}

func TestCausesOfGaps(t *testing.T) {
	drop := func(steps []step, from, to int) []step { return slices.Delete(slices.Clone(steps), from, to) }
	ext := talk(media.External, 0, 4000, constant(0x30))
	g729 := []step{}
	for i := range 50 {
		ts := at(1000 + 20*i)
		wire := packet(4, uint16(i), uint32(160*i), 0x9999, make([]byte, 20))
		g729 = append(g729, step{at: ts, do: func(c *testCall) { c.put(media.Internal, ts, wire) }})
	}
	for _, tc := range []struct {
		name  string
		steps [][]step
		want  []Gap
	}{
		{
			"loss",
			[][]step{drop(ext, 50, 53), talk(media.Internal, 0, 4000, constant(0x30))},
			[]Gap{{Channel: 0, RealMS: 1000, AudioMS: 1000, DurationMS: 60, Cause: "loss", Filled: "silence"}},
		},
		{"absent before, after and altogether", [][]step{talk(media.External, 1000, 3000, constant(0x30))}, []Gap{
			{Channel: 0, RealMS: 0, AudioMS: 0, DurationMS: 1000, Cause: "absent", Filled: "silence"},
			{Channel: 1, RealMS: 0, AudioMS: 0, DurationMS: 4000, Cause: "absent", Filled: "silence"},
			{Channel: 0, RealMS: 3000, AudioMS: 3000, DurationMS: 1000, Cause: "absent", Filled: "silence"},
		}},
		{"loss inside a window is not listed, its rest is", [][]step{
			drop(ext, 50, 55), talk(media.Internal, 0, 4000, constant(0x30)),
			{signalAt(1020, suppress.HoldStart), signalAt(1080, suppress.HoldEnd)},
		}, []Gap{
			{Channel: 0, RealMS: 1000, AudioMS: 1000, DurationMS: 20, Cause: "loss", Filled: "silence"},
			{Channel: 0, RealMS: 1080, AudioMS: 1020, DurationMS: 20, Cause: "loss", Filled: "silence"},
		}},
		{"undecodable", [][]step{ext, g729}, []Gap{
			{Channel: 1, RealMS: 0, AudioMS: 0, DurationMS: 1000, Cause: "absent", Filled: "silence"},
			{Channel: 1, RealMS: 1000, AudioMS: 1000, DurationMS: 1000, Cause: "undecodable", Filled: "silence", Detail: "G723"},
			{Channel: 1, RealMS: 2000, AudioMS: 2000, DurationMS: 2000, Cause: "absent", Filled: "silence"},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sink, m := replayed(t, testPlan(), script(append([][]step{answered(4000)}, tc.steps...)...))
			checkAccount(t, m, sink)
			if d := cmp.Diff(tc.want, m.Gaps); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestSegmentsEndAtTheirMostAndWhenPartiesChange(t *testing.T) {
	plan := testPlan()
	plan.SegmentMax = 2 * time.Second
	join := func(ms int, e suppress.Event, user string) step {
		return step{at: at(ms), do: func(c *testCall) {
			c.tap.Signal(suppress.Signal{V: 1, Event: e, At: at(ms), Source: "test", User: user, Role: suppress.RoleAgent})
		}}
	}
	sink, m := replayed(t, plan, script(answered(6000), talk(media.External, 0, 6000, constant(0x30)), talk(media.Internal, 0, 6000, constant(0x30)),
		[]step{join(3010, suppress.AgentJoin, "anna"), join(3500, suppress.AgentJoin, "anna")}))
	checkAccount(t, m, sink)
	type row struct{ Real, End, Dur int64 }
	var got []row
	var parties []string
	for _, s := range m.Segments {
		got = append(got, row{s.RealMS, s.EndRealMS, s.DurationMS})
		parties = append(parties, s.Parties...)
	}
	want := []row{{0, 2000, 2000}, {2000, 3010, 1010}, {3010, 5010, 2000}, {5010, 6000, 990}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"sip:desk@pbx.example", "sip:desk@pbx.example", "anna", "anna"}, parties); d != "" {
		t.Error(d)
	}
}

func TestCallSuppressedFromEndToEndHasAnAccountAndNoAudio(t *testing.T) {
	sink, m := replayed(t, testPlan(), script(answered(3000), talk(media.External, 0, 3000, constant(0x30)),
		[]step{signalAt(0, suppress.PauseStart)}))
	checkAccount(t, m, sink)
	if len(m.Segments) != 0 || m.AudioMS != 0 || m.RealMS != 3000 || len(m.Windows) != 1 || len(sink.infos) != 0 {
		t.Fatalf("%d segments, audio %d, real %d, windows %v", len(m.Segments), m.AudioMS, m.RealMS, m.Windows)
	}
}

func TestCallThatIsNeverAnsweredIsDiscarded(t *testing.T) {
	sink, m := replayed(t, testPlan(), []step{{at: at(0), do: func(c *testCall) {
		c.stream(media.External, at(0), true)
		c.tap.Ended(at(500), media.CauseFailed)
	}}})
	if m != nil || len(sink.infos) != 0 {
		t.Fatalf("published %v with %d segments", m, len(sink.infos))
	}
}

// impaired sends 20 ms packets through a network with loss, bursts, jitter,
// reordering and duplicates, from a clock that is off by ppm.
func impaired(rng *rand.Rand, side media.Side, fromMS, toMS int, ppm, loss float64, jitterMS int, value byte) []step {
	var out []step
	ssrc := rng.Uint32()
	seq, ts := uint16(rng.Uint32()), rng.Uint32()
	burst := 0
	for n := 0; ; n++ {
		sent := time.Duration(float64(n)*20e6/(1+ppm/1e6)) + time.Duration(fromMS)*time.Millisecond
		if sent >= time.Duration(toMS)*time.Millisecond {
			return out
		}
		switch rng.IntN(400) {
		case 0: // pause of the sender (DTX): timestamps go on, sequence numbers too
			skip := rng.IntN(50)
			n += skip
			ts += uint32(160 * skip)
			continue
		case 1:
			burst = 1 + rng.IntN(10)
		case 2: // new source
			ssrc, seq, ts = rng.Uint32(), uint16(rng.Uint32()), rng.Uint32()
		case 3: // timestamp jump
			ts += 1 << 24
		}
		payload := make([]byte, 160)
		for i := range payload {
			payload[i] = value
		}
		wire := packet(0, seq, ts, ssrc, payload)
		seq, ts = seq+1, ts+160
		if burst > 0 || rng.Float64() < loss {
			burst = max(0, burst-1)
			continue
		}
		copies := 1 + rng.IntN(50)/49
		for range copies {
			t := at(0).Add(sent + time.Duration(rng.Int64N(int64(jitterMS)*1e6+1)))
			out = append(out, step{at: t, do: func(c *testCall) { c.put(side, t, wire) }})
		}
	}
}

// TestAccountHoldsUnderImpairments is promise 4 over random networks and signals.
func TestAccountHoldsUnderImpairments(t *testing.T) {
	events := []suppress.Event{suppress.HoldStart, suppress.HoldEnd, suppress.PauseStart, suppress.PauseEnd, suppress.QueueStart, suppress.QueueEnd}
	rapid.Check(t, func(rt *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		const length = 12000
		parts := [][]step{answered(length)}
		for _, side := range []media.Side{media.External, media.Internal} {
			parts = append(parts, impaired(rng, side, rng.IntN(3000), length-rng.IntN(2000), rng.Float64()*400-200, rng.Float64()*0.1, rng.IntN(200), 0x30))
		}
		var sigs []step
		for range rng.IntN(8) {
			ms := rng.IntN(length)
			e := events[rng.IntN(len(events))]
			t := at(ms)
			lag := time.Duration(rng.IntN(1500)) * time.Millisecond
			if ms+1500 > length {
				lag = 0
			}
			sigs = append(sigs, step{at: t.Add(lag), do: func(c *testCall) {
				c.tap.Signal(suppress.Signal{V: 1, Event: e, At: t, Received: t.Add(lag), Source: "test"})
			}})
		}
		plan := testPlan()
		if rng.IntN(2) == 0 {
			plan.Suppressed = SuppressedSilence
		}
		sink, m := replayed(t, plan, script(append(parts, sigs)...))
		if err := accountFault(m, sink); err != nil {
			rt.Fatal(err)
		}
		if err := capturedFault(m, sink, loud(t, 0x30)); err != nil {
			rt.Fatal(err)
		}
	})
}

// capturedFault compares the samples with the account: where no gap is listed
// the talkers' value must stand, but for pauses of the sender, which are
// silence; where a gap is listed there is silence. The most that may disagree
// is one packet time around each edge.
func capturedFault(m *Manifest, sink *memSink, want int16) error {
	pcm := sink.pcm()
	for ch := range pcm {
		gapMS := make([]bool, m.AudioMS+1)
		for _, g := range m.Gaps {
			if g.Channel != ch {
				continue
			}
			for ms := g.AudioMS; ms < g.AudioMS+g.DurationMS && ms < m.AudioMS; ms++ {
				gapMS[ms] = true
			}
		}
		heard, edges := 0, 20
		for _, g := range m.Gaps {
			if g.Channel == ch {
				edges++ // both edges of a gap are rounded to whole milliseconds
			}
		}
		for ms := range m.AudioMS {
			if gapMS[ms] && pcm[ch][ms*8+4] == want {
				heard++
			}
		}
		if heard > edges {
			return fmt.Errorf("channel %d: %d ms are listed as gaps and hold audio", ch, heard)
		}
	}
	return nil
}

func TestSignalBeforeItsCallWaitsForIt(t *testing.T) {
	sink := newMemSink()
	r := mustRecorder(t, Config{Policy: fixedPolicy{testPlan()}, NewSink: sink.open, Synchronous: true})
	early := suppress.Signal{V: 1, Event: suppress.PauseStart, At: t0.Add(-2 * time.Second), Source: "test"}
	other := suppress.Signal{V: 1, Event: suppress.HoldStart, At: t0, Source: "test", SIPCall: "somebody else's"}
	if !r.Post(early) || !r.Post(other) {
		t.Fatal("an early signal was given up")
	}
	tap, err := r.SessionStarted(t.Context(), testSession("call-1"))
	if err != nil {
		t.Fatal(err)
	}
	c := &testCall{tap: tap, taps: map[media.StreamID]media.Tap{}}
	for _, s := range script(answered(2000), talk(media.External, 0, 2000, constant(0x30))) {
		s.do(c)
	}
	checkAccount(t, sink.manifest, sink)
	if w := sink.manifest.Windows; len(w) != 1 || w[0].Reason != "pause" || w[0].RealMS != 0 || sink.manifest.AudioMS != 0 {
		t.Errorf("windows %+v, audio %d ms: want the pause from the start on", w, sink.manifest.AudioMS)
	}
	if r.Unheard() != 1 {
		t.Errorf("%d signals unheard, want the other call's", r.Unheard())
	}
}

func TestWhatIsBeyondALimitIsCounted(t *testing.T) {
	attrs := map[string]string{}
	for i := range attrsMax + 3 {
		attrs[fmt.Sprint("key-", i)] = "x"
	}
	set := step{at: at(100), do: func(c *testCall) {
		c.tap.Signal(suppress.Signal{V: 1, Event: suppress.AttrsSet, At: at(100), Source: "test", Attrs: attrs})
	}}
	_, m := replayed(t, testPlan(), script(answered(1000), []step{set}))
	if len(m.Attrs) != attrsMax || m.Refused["attrs"] != 3 {
		t.Errorf("%d attributes kept, %v refused; want %d and 3", len(m.Attrs), m.Refused, attrsMax)
	}
}
