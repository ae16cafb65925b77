package recorder

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/trunktap/trunktap/media"
	"github.com/trunktap/trunktap/media/codec"
	"github.com/trunktap/trunktap/suppress"
)

var (
	pcmuFormat = media.Format{PayloadType: 0, Name: "PCMU", ClockRate: 8000}
	g722Format = media.Format{PayloadType: 9, Name: "G722", ClockRate: 8000}
	opusFormat = media.Format{PayloadType: 111, Name: "OPUS", ClockRate: 48000, Channels: 2}
	rfc        = media.Format{PayloadType: 101, Name: "TELEPHONE-EVENT", ClockRate: 8000}
)

func autoPlan() Plan {
	p := testPlan()
	p.SampleRate = RateAuto
	return p
}

// streamsAt announces both streams.
func streamsAt(ms int, formats ...media.Format) step {
	return step{at: at(ms), do: func(c *testCall) {
		for _, side := range []media.Side{media.External, media.Internal} {
			id := media.StreamID(side)
			c.taps[id] = c.tap.StreamStarted(media.Stream{ID: id, Side: side, At: at(ms), Formats: formats, Sending: true})
		}
	}}
}

func answerAt(ms int) step {
	return step{at: at(ms), do: func(c *testCall) { c.tap.Answered(at(ms)) }}
}

func byeAt(ms int) step {
	return step{at: at(ms), last: true, do: func(c *testCall) { c.tap.Ended(at(ms), media.CauseBye) }}
}

// TestAutoRate: what is agreed when the first packet or the answer comes decides,
// whatever comes first, and what comes later changes nothing.
func TestAutoRate(t *testing.T) {
	l16at := func(rate int) media.Format { return media.Format{PayloadType: 96, Name: "L16", ClockRate: rate} }
	amrWB := media.Format{PayloadType: 97, Name: "AMR-WB", ClockRate: 16000}
	speech := speak(media.External, 100, 2000, 0, 160, func(_, ms int) []byte { return toneBytes(ms, 8000, inMuLaw) }, nil)
	early := speak(media.External, -600, 2000, 0, 160, func(_, ms int) []byte { return toneBytes(ms+600, 8000, inMuLaw) }, nil)
	ringback := speak(media.External, 100, 2000, 9, 160, func(int, int) []byte { return make([]byte, 160) }, nil)
	secure := streamsAt(0, g722Format)
	secure.do = func(c *testCall) {
		c.taps[0] = c.tap.StreamStarted(media.Stream{At: at(0), Formats: []media.Format{g722Format}, Sending: true, Secure: true})
	}
	for _, tt := range []struct {
		name  string
		steps [][]step
		want  int
	}{
		{"answer, then G.711", [][]step{{answerAt(0), streamsAt(0, pcmuFormat, rfc)}, speech}, 8000},
		{"answer, then G.722", [][]step{{answerAt(0), streamsAt(0, g722Format, pcmuFormat, rfc)}, speech}, 16000},
		{"G.722 as the second choice", [][]step{{answerAt(0), streamsAt(0, pcmuFormat, g722Format)}, speech}, 16000},
		{"AMR-WB", [][]step{{answerAt(0), streamsAt(0, amrWB)}}, 16000},
		{"Opus", [][]step{{answerAt(0), streamsAt(0, opusFormat, pcmuFormat)}, speech}, 48000},
		{"L16 at 8 kHz", [][]step{{answerAt(0), streamsAt(0, l16at(8000))}}, 8000},
		{"L16 at 11 kHz", [][]step{{answerAt(0), streamsAt(0, l16at(11025))}}, 16000},
		{"L16 at 44 kHz", [][]step{{answerAt(0), streamsAt(0, l16at(44100))}}, 48000},
		{"agreed before the answer", [][]step{{streamsAt(-500, g722Format), answerAt(0)}, speech}, 16000},
		{"packets before the answer", [][]step{{streamsAt(-800, pcmuFormat), answerAt(0), streamsAt(0, g722Format)}, early}, 8000},
		{"a later codec", [][]step{{answerAt(0), streamsAt(0, pcmuFormat), streamsAt(1000, opusFormat)}, speech}, 8000},
		{"described in the ACK", [][]step{{answerAt(0), streamsAt(150, g722Format)}, speech}, 16000},
		{"described too late", [][]step{{answerAt(0), streamsAt(900, g722Format)}}, 8000},
		{"not understood", [][]step{{answerAt(0), streamsAt(0, media.Format{PayloadType: 98, Name: "EVS", ClockRate: 16000})}}, 8000},
		{"encrypted", [][]step{{answerAt(0), secure}}, 8000},
		{"nothing described", [][]step{{answerAt(0), streamsAt(0)}, ringback}, 16000},
		{"no media", [][]step{{answerAt(0)}}, 8000},
		{"a signal of the answer's instant", [][]step{{answerAt(0), signalAt(0, suppress.HoldStart), streamsAt(0, opusFormat), signalAt(500, suppress.HoldEnd)}, speech}, 48000},
		{"a signal soon after", [][]step{{answerAt(0), signalAt(10, suppress.PauseStart), streamsAt(50, opusFormat), signalAt(500, suppress.PauseEnd)}, speech}, 8000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			steps := script(append(tt.steps, []step{byeAt(2000)})...)
			sink, m := replayed(t, autoPlan(), steps)
			checkAccount(t, m, sink)
			if m.SampleRate != tt.want || m.RealMS != 2000 {
				t.Errorf("%d Hz, %d ms, want %d Hz", m.SampleRate, m.RealMS, tt.want)
			}
			for n, i := range sink.infos {
				if i.SampleRate != tt.want {
					t.Errorf("segment %d has %d Hz", n, i.SampleRate)
				}
			}
			for _, a := range sink.accounts {
				if a.SampleRate != tt.want {
					t.Errorf("an account has %d Hz", a.SampleRate)
				}
			}
			if !m.Call.Answer.Equal(at(0)) || !m.Origin.Equal(at(0)) {
				t.Errorf("answered at %v, origin %v", m.Call.Answer, m.Origin)
			}
		})
	}
}

// TestAutoRateLive: a live call has the rate and the samples of its replay.
func TestAutoRateLive(t *testing.T) {
	coder := codec.NewG722Encoder()
	steps := script([]step{answerAt(0), streamsAt(0, pcmuFormat, g722Format), byeAt(1500)},
		speak(media.External, 40, 1500, 9, 160, func(_, ms int) []byte { return inG722(&coder, float64(ms)/1000) }, nil))
	sink, m := replayed(t, autoPlan(), steps)
	live, n, _ := recordedLive(t, Config{Policy: fixedPolicy{autoPlan()}}, steps)
	if m.SampleRate != 16000 || n.SampleRate != 16000 {
		t.Errorf("%d Hz in replay, %d live", m.SampleRate, n.SampleRate)
	}
	for ch, pcm := range sink.pcm() {
		if !slices.Equal(pcm, live.pcm()[ch]) {
			t.Errorf("channel %d differs", ch)
		}
	}
}

// TestNothingNeedsTheRate: a call that is over before its rate is known.
func TestNothingNeedsTheRate(t *testing.T) {
	p := autoPlan()
	p.Rules.ConsentRequired = true
	for name, steps := range map[string][]step{
		"not answered":               {streamsAt(-900, g722Format), byeAt(-100)},
		"answered and ended at once": {answerAt(0), byeAt(0)},
		"refused":                    {answerAt(0), signalAt(0, suppress.ConsentDenied), streamsAt(0, opusFormat), byeAt(900)},
	} {
		for _, plan := range []Plan{autoPlan(), p} {
			sink, m := replayed(t, plan, script(steps))
			if m != nil && m.SampleRate == 0 || m == nil && name == "refused" && plan.Rules.ConsentRequired || len(sink.infos) > 0 && m == nil {
				t.Errorf("%s: %+v", name, m)
			}
		}
	}
}

// TestBrokenWhileTheAnswerWaits: a pipeline that dies before the rate is known
// leaves the account of an answered call.
func TestBrokenWhileTheAnswerWaits(t *testing.T) {
	c := newCore(testSession("x"), autoPlan(), "", plainMemory{}, func(recordingInfo) output { return &discardOutput{} })
	c.answer(at(0))
	if !c.waiting || c.started {
		t.Fatal("the answer did not wait")
	}
	s := &session{rec: mustRecorder(t, Config{Policy: fixedPolicy{autoPlan()}, NewSink: newMemSink().open, Synchronous: true}), core: c}
	s.fail("test", nil)
	if !s.begun.started || !s.begun.answered.Equal(at(0)) {
		t.Errorf("%+v", s.begun)
	}
}

// tonePCM is n samples of the tone from a time on.
func tonePCM(seconds float64, rate, n int) []int16 {
	out := make([]int16, n)
	for i := range out {
		out[i] = tone(seconds + float64(i)/float64(rate))
	}
	return out
}

// inG722 is 20 ms of the tone.
func inG722(e *codec.G722Encoder, seconds float64) []byte {
	b := make([]byte, 160)
	e.Encode(b, tonePCM(seconds, 16000, 320))
	return b
}

// switching is a talker who changes its codec in mid-call: G.722, G.711 and Opus
// for two seconds each, by payload type, the last with an SSRC of its own as RFC
// 7160 demands where the clock changes. Each codec's own delay is made up for.
func switching(t *testing.T) []step {
	const g722DelayS, opusDelayS = 22.0 / 16000, 312.0 / 48000
	wide := codec.NewG722Encoder()
	full, err := codec.NewEncoder(codec.OggOpus, 48000, codec.Options{Channels: 1, Bitrate: 96000, Application: codec.OpusAudio, Complexity: 5})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(full.Close)
	var out []step
	send := func(ms int, wire []byte) {
		at := at(ms)
		out = append(out, step{at: at, do: func(c *testCall) { c.put(media.External, at, wire) }})
	}
	for n := range 300 {
		ms := 20 * n
		from := float64(ms) / 1000
		a := inG722(&wide, from+g722DelayS)
		c, err := full.Encode(nil, [2][]int16{tonePCM(from+opusDelayS, 48000, 960)})
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case n < 100:
			send(ms, packet(9, uint16(n), uint32(160*n), 0x3000, a))
		case n < 200:
			send(ms, packet(0, uint16(n), uint32(160*n), 0x3000, toneBytes(ms, 8000, inMuLaw)))
		default:
			send(ms, packet(111, uint16(n), uint32(960*n), 0x3001, c[2:2+int(binary.BigEndian.Uint16(c))]))
		}
	}
	return out
}

// TestCodecSwitchOfWholePipeline: the pitch stays, nothing clicks, nothing is
// missing or listed, and the length is exact, at every rate.
func TestCodecSwitchOfWholePipeline(t *testing.T) {
	for _, rate := range []int{RateAuto, 8000, 16000, 48000} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			p := testPlan()
			p.SampleRate = rate
			sink, m := replayed(t, p, script([]step{answerAt(0), streamsAt(0, g722Format, pcmuFormat, opusFormat, rfc), byeAt(6000)}, switching(t)))
			checkAccount(t, m, sink)
			if rate == RateAuto {
				rate = 48000
			}
			pcm := sink.pcm()[0]
			if m.SampleRate != rate || len(pcm) != 6*rate {
				t.Fatalf("%d samples at %d Hz", len(pcm), m.SampleRate)
			}
			for _, g := range m.Gaps {
				if g.Channel == 0 {
					t.Errorf("gap %+v", g)
				}
			}
			for ms := 200; ms < 5700; ms += 250 {
				hz := pitch(pcm[ms*rate/1000:(ms+200)*rate/1000], rate)
				if math.Abs(hz-toneHz) > 0.5 {
					t.Errorf("%.2f Hz from %d ms on", hz, ms)
				}
			}
			w := 2 * math.Pi * toneHz / float64(rate)
			usual, slope, worst, where := toneAmplitude*w*w, toneAmplitude*w, 0.0, 0
			for i := rate / 10; i < len(pcm)-2; i++ {
				d := math.Abs(float64(pcm[i]) - 2*float64(pcm[i+1]) + float64(pcm[i+2]))
				if near := min(i%(2*rate), 2*rate-i%(2*rate)); near < rate/20 && d > worst { // elsewhere the codecs' own noise is greater
					worst, where = d, i*1000/rate
				}
			}
			t.Logf("second difference: %.0f of the tone, worst %.0f at %d ms", usual, worst, where)
			if worst > usual+slope { // a decoder that begins from nothing bends the tone, a click breaks it
				t.Errorf("a click: second difference of %.0f at %d ms", worst, where)
			}
		})
	}
}

// pitch is the frequency of a tone, by the phase that it moves on between its two
// halves.
func pitch(pcm []int16, rate int) float64 {
	half := len(pcm) / 2
	phase := func(x []int16) float64 {
		var re, im float64
		for i, v := range x {
			a := 2 * math.Pi * toneHz * float64(i) / float64(rate)
			re, im = re+float64(v)*math.Cos(a), im-float64(v)*math.Sin(a)
		}
		return math.Atan2(im, re)
	}
	turn := phase(pcm[half:]) - phase(pcm[:half]) + 2*math.Pi*toneHz*float64(half)/float64(rate)
	turns := turn / (2 * math.Pi)
	want := toneHz * float64(half) / float64(rate)
	turns += math.Round(want - turns)
	return turns * float64(rate) / float64(half)
}

// TestLevelControl: quiet and loud speakers come near to each other, and what is
// in a window moves nothing behind it.
func TestLevelControl(t *testing.T) {
	say := func(amplitude float64) func(int) byte {
		return func(ms int) byte { return codec.MuLaw(int16(amplitude * math.Sin(float64(ms)*2.4))) }
	}
	record := func(on bool, inWindow float64) [2][]int16 {
		p := testPlan()
		p.Level = on
		loud := func(ms int) byte {
			if ms >= 4000 && ms < 6000 {
				return say(inWindow)(ms)
			}
			return say(16000)(ms)
		}
		sink, m := replayed(t, p, script(answered(8000), talk(media.External, 0, 8000, say(600)), talk(media.Internal, 0, 8000, loud),
			[]step{signalAt(4000, suppress.PauseStart), signalAt(6000, suppress.PauseEnd)}))
		checkAccount(t, m, sink)
		return sink.pcm()
	}
	apart := func(pcm [2][]int16) float64 {
		return 10 * math.Log10(energy(pcm[1][24000:31000])/energy(pcm[0][24000:31000]))
	}
	off, on, other := record(false, 16000), record(true, 16000), record(true, 60)
	t.Logf("the parties are %.1f dB apart, controlled %.1f dB", apart(off), apart(on))
	if apart(off) < 25 || apart(on) > 12 {
		t.Errorf("%.1f dB without, %.1f dB with control", apart(off), apart(on))
	}
	for ch := range on {
		if !slices.Equal(on[ch], other[ch]) {
			t.Errorf("channel %d tells how loud it was in the window", ch)
		}
	}
}

// TestCompandedIsNarrow: a companded format has one rate.
func TestCompandedIsNarrow(t *testing.T) {
	for _, format := range []string{FormatWAVPCMU, FormatWAVPCMA} {
		for rate, ok := range map[int]bool{8000: true, 16000: false, 48000: false, RateAuto: false} {
			p := testPlan()
			p.Format, p.SampleRate = format, rate
			if err := p.Validate(); (err == nil) != ok {
				t.Errorf("%s at %d: %v", format, rate, err)
			}
		}
	}
	p := testPlan()
	p.Lookback = time.Second
	p.Format, p.SampleRate = FormatFLAC, 48000
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
}
